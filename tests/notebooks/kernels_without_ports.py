"""A plugin for pytest with nbmake: kernels on sockets of their own, since two that start at once may choose the same port."""

from jupyter_client.connect import ConnectionFileMixin

ConnectionFileMixin.transport.default_value = "ipc"
