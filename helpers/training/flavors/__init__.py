"""The kinds of model that can be trained, by the names that the parameter ``model_flavor`` accepts.

To add one, write a file in this folder with a class derived from `helpers.training.flavors.base.Flavor`, and add a line
to `helpers.kinds.FLAVORS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers import environment, kinds
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from helpers.training.flavors.base import Flavor


def load_flavor(name: str) -> Flavor:
    """Import the class of a flavor, which `helpers.kinds.FLAVORS` names, and return an instance.

    Raises
    ------
    helpers.parameters.ParameterError
        If the flavor's library is not installed.
    """
    try:
        return kinds.load(kinds.FLAVORS, name)()
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", "helpers"):
            raise
        problem = f"{environment.how_to_install(module)}, or set another model_flavor"
        raise ParameterError("model_flavor", name, problem) from None
