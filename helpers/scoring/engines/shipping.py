"""How a model's files reach Spark's Python workers, which see neither the driver's disk nor the bundle."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from helpers import runtime
from helpers.scoring import worker

# Spark Connect takes messages of 128 MB, and a plan may have the model twice:
# https://spark.apache.org/docs/latest/configuration.html (spark.connect.grpc.maxInboundMessageSize)
MOST_BYTES_IN_PLAN = 32 * 2**20
# The name of `helpers.scoring.worker` on the workers, where `worker` could be another module.
WORKER_MODULE = "worker_predictions"


def ship(model_folder: Path) -> Callable[[], str]:
    """Send a model and `helpers.scoring.worker` to the workers.

    On a cluster with a Spark session of its own, the executors fetch both from the driver. On Spark Connect they travel
    inside the function that Spark runs, because MLflow found that files which a session adds may not reach the sandboxes
    of serverless compute (https://github.com/mlflow/mlflow/issues/22300). Only a model that is too large for a message
    is added to the session there.

    Parameters
    ----------
    model_folder : pathlib.Path
        With the ``MLmodel`` file. What is made of it is put beside it, and has to stay as long as rows are scored.

    Returns
    -------
    callable
        Without arguments, for a function that runs on a worker: it puts the module `helpers.scoring.worker` on the
        worker's path as ``worker_predictions``, and returns the folder of the model there. It is pickled by value.
    """
    name = f"model_{uuid.uuid4().hex}"
    archive = _archive(model_folder, name)
    content, spark = None, runtime.spark()
    if not runtime.uses_spark_connect(spark):
        from pyspark import SparkContext

        SparkContext.getOrCreate().addArchive(f"{archive}#{name}")
    elif archive.stat().st_size <= MOST_BYTES_IN_PLAN:
        content = archive.read_bytes()
    else:
        spark.addArtifacts(f"{archive}#{name}", archive=True)
    not_there = worker.NOT_THERE

    def unpack() -> str:
        import io
        import os
        import shutil
        import sys
        import tempfile
        import zipfile
        from pathlib import Path

        from pyspark import SparkFiles

        root = SparkFiles.getRootDirectory()
        if content is not None and not os.access(root, os.W_OK):
            root = tempfile.gettempdir()
        folder = Path(root, name)
        if content is not None and not folder.is_dir():
            # In Spark's own folder, which is deleted when the session ends.
            part = Path(tempfile.mkdtemp(dir=root))
            zipfile.ZipFile(io.BytesIO(content)).extractall(part)
            try:
                part.rename(folder)
            except OSError:
                # Another worker was faster.
                shutil.rmtree(part)
        if not folder.is_dir():
            raise RuntimeError(f"{not_there}: {folder}")
        code = str(folder / "code")
        if code not in sys.path:
            sys.path.insert(0, code)
        return str(folder / "model")

    return unpack


def _archive(model_folder: Path, name: str) -> Path:
    """Return a zip file with the folders ``model`` and ``code``."""
    files = model_folder.parent / name
    shutil.copytree(model_folder, files / "model")
    (files / "code").mkdir()
    shutil.copy(worker.__file__, files / "code" / f"{WORKER_MODULE}.py")
    archive = Path(shutil.make_archive(str(files), "zip", files))
    shutil.rmtree(files)
    return archive
