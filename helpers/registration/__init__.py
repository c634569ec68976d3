"""Register models: the checks that a model has to pass, and the versions that are registered."""

from helpers.registration.register import register, version_tags
from helpers.registration.validation import (
    Evaluation,
    Judged,
    ValidationCheck,
    evaluate,
    evaluate_baseline,
    evaluate_champion,
    failures,
    gate_metric,
    judge,
    validate,
)

__all__ = [
    "Evaluation",
    "Judged",
    "ValidationCheck",
    "evaluate",
    "evaluate_baseline",
    "evaluate_champion",
    "failures",
    "gate_metric",
    "judge",
    "register",
    "validate",
    "version_tags",
]
