"""A plugin for pytest with nbmake, whose kernels choose ports that another kernel may take first.

https://github.com/treebeardtech/nbmake has no setting for it.
"""

import functools
import tempfile
from pathlib import Path

from nbclient import NotebookClient

from helpers.jobs.execute import kernel_sockets


@functools.wraps(NotebookClient.__init__)
def _with_sockets(self: NotebookClient, *arguments: object, **named: object) -> None:
    # The client holds the folder, and it is removed with the client.
    self._sockets = tempfile.TemporaryDirectory()
    _init(self, *arguments, config=kernel_sockets(Path(self._sockets.name)), **named)


_init, NotebookClient.__init__ = NotebookClient.__init__, _with_sockets
