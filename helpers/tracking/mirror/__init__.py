"""Mirror runs from Databricks to Azure Machine Learning: a run is logged once, and copied afterwards.

Each call compares the two servers to find which runs are pending and what their copies lack. So nothing is
lost if a server is unavailable or the process dies: the next call continues from there.
"""

from helpers.tracking.mirror.errors import MirrorError
from helpers.tracking.mirror.experiment import Failure, mirror_runs, pending_runs, source_runs
from helpers.tracking.mirror.limits import Omission
from helpers.tracking.mirror.mirrored_experiment import MirroredExperiment
from helpers.tracking.mirror.registration import model_in_copy
from helpers.tracking.mirror.run import MirroredRun, mirror_run

__all__ = [
    "Failure",
    "MirrorError",
    "MirroredExperiment",
    "MirroredRun",
    "Omission",
    "mirror_run",
    "mirror_runs",
    "model_in_copy",
    "pending_runs",
    "source_runs",
]
