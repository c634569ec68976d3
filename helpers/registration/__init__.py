"""Register models: the checks that a model has to pass, and the versions that are registered."""

from helpers.registration.register import register, version_tags
from helpers.registration.validation import ValidationCheck, evaluate, evaluate_champion, validate

__all__ = [
    "ValidationCheck",
    "evaluate",
    "evaluate_champion",
    "register",
    "validate",
    "version_tags",
]
