"""The data sets to try the bundle with; all of them ship with scikit-learn.

Each has an ``id``, and a label called ``outcome`` whose class that people look for comes last in the alphabet: metrics
and plots of two classes are about the second one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LABEL = "outcome"
# scikit-learn says what its short names stand for:
# https://scikit-learn.org/stable/datasets/toy_dataset.html#diabetes-dataset
_MEASUREMENTS = {
    "bp": "blood_pressure",
    "s1": "cholesterol",
    "s2": "ldl",
    "s3": "hdl",
    "s4": "cholesterol_ratio",
    "s5": "log_triglycerides",
    "s6": "blood_sugar",
}


def diabetes() -> pd.DataFrame:
    """Return 442 patients with diabetes, with 10 measurements each, in their own units.

    scikit-learn has a number for how far the disease has progressed after one year. Here, ``outcome`` is ``worse`` if it
    is above the median of all patients (140.5), and ``better`` otherwise: 221 patients each.
    """
    from sklearn.datasets import load_diabetes

    data = load_diabetes(as_frame=True, scaled=False)
    rows = data.data.rename(columns=_MEASUREMENTS)
    is_worse = data.target > data.target.median()
    return _with_id(rows.assign(**{LABEL: is_worse.map({True: "worse", False: "better"})}))


def breast_cancer() -> pd.DataFrame:
    """Return 569 biopsies with 30 measurements each; ``outcome`` is ``malignant`` or ``benign``."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer(as_frame=True)
    rows = data.data.rename(columns=lambda name: name.replace(" ", "_"))
    return _with_id(rows.assign(**{LABEL: data.target.map(dict(enumerate(data.target_names.tolist())))}))


def _with_id(rows: pd.DataFrame) -> pd.DataFrame:
    rows.insert(0, "id", range(len(rows)))
    return rows
