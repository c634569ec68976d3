"""A folder that this process cannot write to, even as root, whom file permissions do not stop.

Only permissions stop the JVM; if it runs as root, compare the folder before and after.
"""

from __future__ import annotations

import errno
import os
import sys

# For each event, the positions of the path that would change and of the descriptor of its folder:
# https://docs.python.org/3/library/audit_events.html
_CHANGES = {
    "os.chmod": [(0, 2)], "os.link": [(1, 3)], "os.mkdir": [(0, 2)], "os.remove": [(0, 1)],
    "os.rename": [(0, 2), (1, 3)], "os.rmdir": [(0, 1)], "os.symlink": [(1, 2)], "os.truncate": [(0, None)],
    "os.utime": [(0, 3)], "sqlite3.connect": [(0, None)],
}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def protect(folder: str) -> None:
    """Refuse changes inside a folder, like a read-only file system, until this process ends."""
    inside = os.path.realpath(folder) + os.sep

    def refuse(event: str, arguments: tuple) -> None:
        if event == "open":
            paths = arguments[:1] if arguments[2] & _WRITING else ()
        else:
            # A descriptor means a path relative to a folder that was opened before; only shutil.rmtree uses that.
            positions = _CHANGES.get(event, ())
            paths = tuple(arguments[path] for path, folder in positions if folder is None or arguments[folder] == -1)
        for path in paths:
            if not isinstance(path, (str, bytes, os.PathLike)):
                continue
            # Path.resolve would read the file system at every event.
            if os.path.abspath(os.fsdecode(path)).startswith(inside):  # noqa: PTH100
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(path))

    sys.addaudithook(refuse)
