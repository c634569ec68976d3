"""Blob Storage: block blobs behind shared access signatures, kept as files.

https://learn.microsoft.com/rest/api/storageservices/put-blob and the pages next to it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlencode
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from flask import Blueprint, Response, request

from tests.stand_ins.azureml import names
from tests.stand_ins.azureml.errors import blob_error

# The account of the registry, with a container for each version of a model.
REGISTRY_ACCOUNT = f"registry.blob.{names.STORAGE_SUFFIX}"
# A host that ends in the storage suffix would need DNS. The plugin's check also accepts the account
# in the path, and azure-storage-blob reads it there when the host is 127.0.0.1.
ACCOUNT = f"standin.blob.{names.STORAGE_SUFFIX}"
CONTAINER = "azureml"
_PIECE = 1024 * 1024


class BlobStorage:
    """The containers of one storage account: one for artifacts, and one for each upload of code.

    Parameters
    ----------
    url : str
        Of the server.
    folder : pathlib.Path
        Contains a folder for each container, and there each blob as a file with the blob's name.
    """

    _name, _prefix = "blobs", f"/{ACCOUNT}/"

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._blocks = folder / "uncommitted"
        self._key = secrets.token_bytes(32)
        self._md5: dict[str, str] = {}
        self.blueprint = Blueprint(self._name, __name__)
        self.blueprint.before_request(self._refusal)
        route = f"{self._prefix}<path:name>"
        self.blueprint.put(route)(self._put)
        self.blueprint.get(route)(self._get)

    def signed_url(self, name: str, permissions: str) -> str:
        """Return a signed address of an artifact's blob, which gives access for an hour."""
        return self._signed(f"{CONTAINER}/{name}", "b", permissions)

    def signed_container(self, container: str, permissions: str) -> str:
        """Return a signed address of a container, which gives access to its blobs for an hour."""
        return self._signed(container, "c", permissions)

    def uri(self, name: str) -> str:
        """Return the address of a container or a blob, which gives no access."""
        return f"{self._url}{self._prefix}{quote(name)}"

    def _signed(self, name: str, kind: str, permissions: str) -> str:
        expiry = str(int(time.time()) + 3600)
        signature = self._signature(name, permissions, expiry)
        query = {"sv": "2024-11-04", "sr": kind, "se": expiry, "sp": permissions, "sig": signature}
        return f"{self.uri(name)}?{urlencode(query)}"

    def _signature(self, *parts: str) -> str:
        return hmac.new(self._key, "\n".join(parts).encode(), hashlib.sha256).hexdigest()

    def _refusal(self) -> Response | None:
        name = (request.view_args or {}).get("name", "")
        permissions, expiry = request.args.get("sp", ""), request.args.get("se", "0")
        signed = name.partition("/")[0] if request.args.get("sr") == "c" else name
        signature = self._signature(signed, permissions, expiry)
        if not hmac.compare_digest(signature, request.args.get("sig", "")) or int(expiry) < time.time():
            message = "Server failed to authenticate the request. Signature did not match."
            return blob_error(403, "AuthenticationFailed", message)
        if ("w" if request.method == "PUT" else "r") not in permissions:
            message = "This request is not authorized to perform this operation using this permission."
            return blob_error(403, "AuthorizationPermissionMismatch", message)
        return None

    def _put(self, name: str) -> Response:
        file = self._folder / name
        if request.headers.get("If-None-Match") == "*" and file.exists():
            return blob_error(409, "BlobAlreadyExists", "The specified blob already exists.")
        action = request.args.get("comp")
        if action == "block":
            with self._opened(self._block(name, request.args["blockid"])) as target:
                shutil.copyfileobj(request.stream, target, _PIECE)
            return _answer(201)
        # Each write has its own file, because two clients may write one blob at the same time.
        temporary = self._block(name, f"whole {secrets.token_hex(8)}")
        with self._opened(temporary) as target:
            if action == "blocklist":
                for block in ElementTree.fromstring(request.get_data()):
                    with self._block(name, block.text or "").open("rb") as source:
                        shutil.copyfileobj(source, target, _PIECE)
            else:
                shutil.copyfileobj(request.stream, target, _PIECE)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(file)
        # Stored as the client sent it: x-ms-blob-content-md5 of Put Blob and Put Block List.
        self._md5[name] = request.headers.get("x-ms-blob-content-md5", "")
        return _answer(201, file)

    def _get(self, name: str) -> Response:
        file = self._folder / name
        if not file.is_file():
            return blob_error(404, "BlobNotFound", "The specified blob does not exist.")
        size = file.stat().st_size
        byte_range = re.fullmatch(
            r"bytes=(\d+)-(\d*)", request.headers.get("x-ms-range", request.headers.get("Range", ""))
        )
        if byte_range is None:
            answer = _answer(200, file)
            start, end = 0, size
        else:
            start, end = int(byte_range[1]), min(int(byte_range[2] or size), size - 1) + 1
            if start >= size:
                return blob_error(416, "InvalidRange", "The range specified is invalid for the current size.")
            answer = _answer(206, file)
            answer.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        if self._md5.get(name):
            # For a range, Content-MD5 would be the hash of the range, so this is another header.
            answer.headers["Content-MD5" if byte_range is None else "x-ms-blob-content-md5"] = self._md5[name]
        if request.method == "GET":
            answer.response = _pieces(file, start, end)
        answer.headers["Content-Length"] = str(end - start)
        return answer

    def _block(self, name: str, block: str) -> Path:
        return self._blocks / hashlib.sha256(name.encode()).hexdigest() / hashlib.sha256(block.encode()).hexdigest()

    @staticmethod
    def _opened(file: Path) -> BinaryIO:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("wb")


class RegistryStorage(BlobStorage):
    """The containers of a registry.

    https://learn.microsoft.com/rest/api/storageservices/list-blobs
    """

    _name, _prefix = "registry_blobs", f"/{REGISTRY_ACCOUNT}/"

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url, folder / "registry")

    def names(self, container: str) -> list[str]:
        """Return the names of the blobs in a container."""
        folder = self._folder / container
        return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())

    def _get(self, name: str) -> Response:
        if request.args.get("comp") != "list":
            return super()._get(name)
        prefix = request.args.get("prefix", "")
        properties = "<Properties><Content-Length>0</Content-Length><BlobType>BlockBlob</BlobType></Properties>"
        blobs = "".join(
            f"<Blob><Name>{escape(blob)}</Name>{properties}</Blob>"
            for blob in self.names(name)
            if blob.startswith(prefix)
        )
        body = f"<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker /></EnumerationResults>"
        return Response(f'<?xml version="1.0" encoding="utf-8"?>{body}', content_type="application/xml")


def _pieces(file: Path, start: int, end: int) -> Iterator[bytes]:
    with file.open("rb") as source:
        source.seek(start)
        while start < end:
            piece = source.read(min(_PIECE, end - start))
            start += len(piece)
            yield piece


def _answer(status: int, file: Path | None = None) -> Response:
    answer = Response(status=status, content_type="application/octet-stream")
    answer.headers["x-ms-version"] = "2024-11-04"
    answer.headers["x-ms-request-server-encrypted"] = "true"
    if file is not None:
        stat = file.stat()
        answer.headers["ETag"] = f'"{stat.st_mtime_ns:x}"'
        answer.headers["Last-Modified"] = formatdate(stat.st_mtime, usegmt=True)
        answer.headers["x-ms-blob-type"] = "BlockBlob"
    return answer
