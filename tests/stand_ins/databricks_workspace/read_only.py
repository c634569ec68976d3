"""A folder that this process cannot write to, whoever runs it: file permissions do not hold back root.

The JVM is held back only by permissions; compare the folder before and after for root's.
"""

from __future__ import annotations

import errno
import os
import sys

# Of each event the positions of a path that would be changed, and of the descriptor of the folder that it is in:
# https://docs.python.org/3/library/audit_events.html
_CHANGES = {
    "os.chmod": [(0, 2)], "os.link": [(1, 3)], "os.mkdir": [(0, 2)], "os.remove": [(0, 1)],
    "os.rename": [(0, 2), (1, 3)], "os.rmdir": [(0, 1)], "os.symlink": [(1, 2)], "os.truncate": [(0, None)],
    "os.utime": [(0, 3)], "sqlite3.connect": [(0, None)],
}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def protect(folder: str) -> None:
    """Refuse changes inside a folder as a read-only file system does, for the rest of this process."""
    inside = os.path.realpath(folder) + os.sep

    def refuse(event: str, arguments: tuple) -> None:
        if event == "open":
            paths = arguments[:1] if arguments[2] & _WRITING else ()
        else:
            # What is named by a descriptor is in a folder that was opened before; only shutil.rmtree does that.
            positions = _CHANGES.get(event, ())
            paths = tuple(arguments[path] for path, folder in positions if folder is None or arguments[folder] == -1)
        for path in paths:
            if not isinstance(path, (str, bytes, os.PathLike)):
                continue
            # Path.resolve would ask the file system at every event.
            if os.path.abspath(os.fsdecode(path)).startswith(inside):  # noqa: PTH100
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(path))

    sys.addaudithook(refuse)
