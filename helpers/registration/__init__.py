"""Register models: the checks that a model has to pass, the versions that are registered, and who approves them."""

from helpers.registration.approval import Standing, comparison, decide, take_place, waiting_version
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
    "Standing",
    "ValidationCheck",
    "comparison",
    "decide",
    "evaluate",
    "evaluate_baseline",
    "evaluate_champion",
    "failures",
    "gate_metric",
    "judge",
    "register",
    "take_place",
    "validate",
    "version_tags",
    "waiting_version",
]
