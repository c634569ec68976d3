"""HTTPS on a free port of 127.0.0.1, with one thread per connection."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class KeepAliveHandler(WSGIRequestHandler):
    """Answers more than one request per connection."""

    protocol_version = "HTTP/1.1"


class HttpsServer(ThreadedWSGIServer):
    """A threaded server whose handshakes happen in the connection's own thread.

    Werkzeug's own TLS does the handshake while accepting, so one stuck client blocks all others.
    """

    def __init__(self, app: WSGIApplication, certificate_file: Path) -> None:
        super().__init__("127.0.0.1", 0, app, handler=KeepAliveHandler)
        # Werkzeug uses it only to decide that the scheme is https.
        self.ssl_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.ssl_context.load_cert_chain(certificate_file)

    def finish_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        """Answer the requests of one connection."""
        with self.ssl_context.wrap_socket(request, server_side=True) as connection:
            super().finish_request(connection, client_address)
