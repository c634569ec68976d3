"""The environment variables of a model server on this machine: those that a model needs, and no credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAMES = frozenset(
    [
        "CONDA_PREFIX",
        "CUDA_VISIBLE_DEVICES",
        "DYLD_LIBRARY_PATH",
        "HOME",
        "KERAS_BACKEND",
        "LANG",
        "LANGUAGE",
        "LD_LIBRARY_PATH",
        "LOGNAME",
        "PATH",
        "SHELL",
        "TZ",
        "USER",
        "VIRTUAL_ENV",
        "TEMP",
        "TMP",
        "TMPDIR",
        "CURL_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "ALL_PROXY",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "all_proxy",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "MKL_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MLFLOW_DFS_TMP",
        "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT",
    ]
)
_PREFIXES = ("JAVA_", "LC_", "PYSPARK_", "PYTHON", "SPARK_")
# Spark's variables include secrets, and addresses of another process's Spark (py4j's gateway, Spark Connect).
# A model server starts its own Spark session.
_EXCLUDED = re.compile("CONNECT|CREDENTIAL|GATEWAY|KEY|PASSWORD|REMOTE|SECRET|TOKEN")


def model_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a model server gets.

    Parameters
    ----------
    variables : mapping of str to str
        The environment of the process that deploys the model.
    """
    return {
        name: value
        for name, value in variables.items()
        if name in _NAMES or (name.startswith(_PREFIXES) and not _EXCLUDED.search(name))
    }
