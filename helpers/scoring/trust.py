"""Whether a registered model may be loaded: some models are files of data, others run code as soon as they are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from helpers.ownership import is_marked
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_PICKLED = {".pkl", ".pickle", ".joblib", ".pt", ".pth"}


def check_trust(version: ModelVersion, folder: Path, allow_pickle: bool) -> None:
    """Check that a version may be loaded: it was registered by this bundle, or somebody allows it, or it brings no code.

    The tag that this bundle's registration sets says that the version went through it. Whoever may write to the registry
    can set that tag, too.

    Parameters
    ----------
    version : mlflow.entities.model_registry.ModelVersion
    folder : pathlib.Path
        The model's files.
    allow_pickle : bool
        The parameter of that name.

    Raises
    ------
    helpers.parameters.ParameterError
        With the files that bring code.
    """
    if allow_pickle or is_marked(version.tags):
        return
    code = code_of(folder)
    if code:
        raise ParameterError(
            "allow_pickle",
            "false",
            f"{version.name} version {version.version} was not registered by this bundle, and loading it runs code from its "
            f"files ({', '.join(code)}) with your rights. If you trust who made it, set allow_pickle=true, or register its "
            "run with 03_register",
        )


def code_of(folder: Path) -> list[str]:
    """Return the files and folders of a model that run code when MLflow loads it: pickles, and Python code.

    https://mlflow.org/docs/latest/ml/model/ describes the files of each flavor. A file that skops wrote brings no code; it
    loads the types that its ``MLmodel`` names as trusted.
    """
    from mlflow.models import Model

    function = Model.load(folder).flavors.get("python_function", {})
    named = [str(function[key]) for key in ("python_model", "model_code_path", "code") if function.get(key)]
    pickled = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in _PICKLED]
    return sorted({*named, *pickled})
