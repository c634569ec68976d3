"""Register models: the checks of the gate, and the versions that they decide about."""

from helpers.registration.register import (
    Check,
    evaluate,
    evaluate_champion,
    register,
    resolve_version,
    validate,
    version_tags,
)

__all__ = ["Check", "evaluate", "evaluate_champion", "register", "resolve_version", "validate", "version_tags"]
