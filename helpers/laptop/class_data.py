"""The archive of Spark's parsed classes, with which the JVM starts faster.

`helpers.laptop.make_class_data` makes the archive. The JVM of each later session maps it into memory:
https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html
"""

from __future__ import annotations

import sys
from pathlib import Path

ARCHIVE = Path(sys.prefix, "share", "spark-classes.jsa")


def java_options() -> str:
    """Return the JVM options that use the archive; an empty string if there is no archive.

    A JVM ignores an archive that another JVM made, or that was made from other jars.
    """
    # The quotes are for spaces in the path: Spark splits the options at spaces.
    return f"-XX:SharedArchiveFile='{ARCHIVE}' -Xlog:cds=off -Xlog:cds+dynamic=off" if ARCHIVE.exists() else ""
