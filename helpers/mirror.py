"""Mirror an experiment's runs from Databricks to Azure Machine Learning.

    python -m helpers.mirror EXPERIMENT [--pending] [--to NAME] [--param NAME=VALUE …]

After any failure, run it again: it continues from where it stopped. If nothing is new, it changes
nothing. The sign-in to both servers and the name of the Azure ML workspace come from the same
parameters and environment variables as for the notebooks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from helpers import parameters
from helpers.azureml.rest import AzureError, first_line
from helpers.command_line import assignment
from helpers.laptop.dbutils import PARAMETER_PREFIX
from helpers.parameters import ParameterError


def main(arguments: Sequence[str] | None = None) -> int:
    """Mirror the experiment's runs; return 0, or 1 if some are pending, or 2 if nothing could be tried."""
    options = _parse_arguments(arguments)
    from mlflow.exceptions import MlflowException
    from tqdm import tqdm

    from helpers import tracking
    from helpers.tracking import dual, mirror

    try:
        session = tracking.configure(_parameters(options), create=False)
        experiment = dual.mirrored_experiment(session, options.to)
        chosen = mirror.pending_runs(experiment) if options.pending else mirror.source_runs(experiment)
    except (ParameterError, AzureError, LookupError, MlflowException, OSError) as error:
        print(f"{type(error).__name__}: {first_line(error)}", file=sys.stderr)
        return 2
    failures = 0
    with tqdm(total=len(chosen), desc="runs", file=sys.stdout) as progress:
        for outcome in mirror.mirror_runs(experiment, chosen):
            failures += isinstance(outcome, mirror.Failure)
            progress.write(dual.describe(outcome), file=sys.stdout)
            progress.update()
    print(f"{len(chosen) - failures} runs mirrored, {failures} pending")
    return 1 if failures else 0


def _parameters(options: argparse.Namespace) -> parameters.Tracking:
    """Return the parameters: from the command line, else from the environment, else the defaults."""
    values: dict[str, str] = {}
    sources: dict[str, str] = {}
    for name in parameters.fields_of(parameters.Tracking):
        variable = f"{PARAMETER_PREFIX}{name.upper()}"
        if variable in os.environ:
            values[name], sources[name] = os.environ[variable], f"environment variable {variable}"
    of_command = dict(options.param)
    parameters.require_declared(of_command, "--param", parameters.fields_of(parameters.AzureML))
    of_command |= {"experiment_name": options.experiment, "tracking_mode": "dual"}
    sources |= dict.fromkeys(of_command, "the command line")
    return parameters.parse(parameters.Tracking, values | of_command, sources)


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.mirror", description="Mirror an experiment's runs from Databricks to Azure ML."
    )
    parser.add_argument("experiment", metavar="EXPERIMENT", help="name or path of the experiment in Databricks")
    parser.add_argument(
        "--pending",
        action="store_true",
        help="only runs that have ended and whose copies have not; otherwise all are compared",
    )
    parser.add_argument(
        "--to", default="", metavar="NAME", help="experiment in Azure ML (default: the last part of the name)"
    )
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        type=assignment,
        metavar="NAME=VALUE",
        help="such as azureml_workspace=ml",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
