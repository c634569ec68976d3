"""A model that waits for its test, at named pipes whose paths are in environment variables.

``HOLD_LOADING`` : it waits here before it is loaded.
``ASKED``, ``ANSWERS`` : it reports a request at the first, and waits at the second before it answers.
"""

from __future__ import annotations

import os

import mlflow


class WaitingModel(mlflow.pyfunc.PythonModel):
    """Answers 7."""

    # Without type hints, from which MLflow would infer a schema.
    def load_context(self, context):
        if "HOLD_LOADING" in os.environ:
            _meet(os.environ["HOLD_LOADING"], "r")

    def predict(self, context, model_input, params=None):
        if "ASKED" in os.environ:
            _meet(os.environ["ASKED"], "w")
            _meet(os.environ["ANSWERS"], "r")
        return [7.0]


def _meet(pipe: str, mode: str) -> None:
    # Opening a named pipe waits until the other end is opened.
    open(pipe, mode).close()  # noqa: PTH123


mlflow.models.set_model(WaitingModel())
