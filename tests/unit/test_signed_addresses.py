"""The address of a container gives access to it: no error shows it."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from helpers.azureml import Registry, blobs
from helpers.azureml.rest import AzureError
from helpers.serving import own_environment


class Refusing(BaseHTTPRequestHandler):
    """A firewall that refuses each request, and says which."""

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        text = f"Access to {self.path.replace('&', '&amp;')} is blocked"
        body = f"<?xml version='1.0'?><Error><Code>Blocked</Code><Message>{text}</Message></Error>".encode()
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET = _refuse  # noqa: N815 - names of http.server

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def manager(monkeypatch) -> Iterator[SimpleNamespace]:
    """An Azure Resource Manager that hands out an address behind the firewall."""
    monkeypatch.setitem(blobs._RETRIES, "retry_total", 0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}/account/upload"
        place = {"blobUri": address, "credential": {"sasUri": f"{address}?sv=1&sig=hidden"}}
        yield SimpleNamespace(
            post=lambda path, body, api_version: {"blobReferenceForConsumption": place},
            get=lambda path, api_version: {"properties": {"modelUri": f"{address}/model"}},
        )
        server.shutdown()


def upload_script(manager, folder):
    own_environment._upload(SimpleNamespace(manager=manager), "codes/c/versions/1", b"")


def upload_model(manager, folder):
    (folder / "MLmodel").write_text("")
    Registry("r", "/registries/r", manager).create("m", "1", folder, {}, "id")


def download_model(manager, folder):
    Registry("r", "/registries/r", manager).download("m", "1", folder)


@pytest.mark.parametrize(
    ("transfer", "failure"),
    [
        (upload_script, "score.py cannot be uploaded to"),
        (upload_model, "m version 1 cannot be uploaded to"),
        (download_model, "m version 1 cannot be downloaded from"),
    ],
)
def test_a_transfer_that_fails_is_reported_without_the_signature(manager, tmp_path, transfer, failure):
    with pytest.raises(AzureError, match=rf"{failure} 127.0.0.1:\d+: Access to /account/upload") as failed:
        transfer(manager, tmp_path)
    assert "hidden" not in "".join(traceback.format_exception(failed.value))
