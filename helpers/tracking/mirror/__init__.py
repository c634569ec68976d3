"""Runs of Databricks mirrored to Azure Machine Learning: logged once, copied afterwards.

Which runs are pending, and what of a run is missing, is worked out from the two servers each time.
So nothing is lost if either is away or the process dies: the next call goes on from there.
"""

from helpers.tracking.mirror.experiment import Failure, Pair, mirror_runs, pair, pending, runs
from helpers.tracking.mirror.limits import LeftOut
from helpers.tracking.mirror.registration import model_in_copy
from helpers.tracking.mirror.run import Mirrored, MirrorError, mirror_run

__all__ = [
    "Failure",
    "LeftOut",
    "MirrorError",
    "Mirrored",
    "Pair",
    "mirror_run",
    "mirror_runs",
    "model_in_copy",
    "pair",
    "pending",
    "runs",
]
