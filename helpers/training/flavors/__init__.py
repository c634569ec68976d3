"""The kinds of model that can be trained, by the names that the parameter ``model_flavor`` accepts.

To add one, write a file in this folder with a class derived from `helpers.training.flavors.base.Flavor`, and add a line
to `FLAVORS`. So that the parameter accepts the name, add it to the choices of ``model_flavor`` in `helpers.parameters`.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from helpers.training.flavors.base import Flavor

# As text, so that a flavor's packages are imported only when it is used.
FLAVORS = {
    "sklearn": "helpers.training.flavors.sklearn:SklearnFlavor",
    "spark": "helpers.training.flavors.spark:SparkFlavor",
}


def load_flavor(name: str) -> Flavor:
    """Import the class of a flavor and return an instance.

    Parameters
    ----------
    name : str
        A key of `FLAVORS`.

    Raises
    ------
    helpers.parameters.ParameterError
        If there is no such flavor.
    """
    if name not in FLAVORS:
        raise ParameterError("model_flavor", name, f"no such flavor; the flavors are: {', '.join(FLAVORS)}")
    return pkgutil.resolve_name(FLAVORS[name])()
