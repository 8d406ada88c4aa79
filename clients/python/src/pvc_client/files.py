# Made from aio/files.py by tools/sync_client.py: change that one.
"""Files on their way in or out: what volumes and images come from and go to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pvc.storage.v1 import storage_service_pb2 as pb
from pvc_client import wire
from pvc_client.contract import STORAGE
from pvc_client.errors import Internal, InvalidContent, Unavailable
from pvc_client.names import full_name
from pvc_client.transport import Transport

FileInfo = pb.FileInfo
Transferred = Callable[[int, int], None]
"""Told how many bytes of how many were transferred."""

PIECE_BYTES = 512 * 1024
DOWNLOAD_TRIES = 5


class Files:
    """Files on their way in or out. The cluster keeps each for a day."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def upload(self, path: str | Path, on_transfer: Transferred | None = None) -> FileInfo:
        """Sends a file, checked by its hash on arrival. Raises InvalidContent for what is no file,
        or empty."""
        path = Path(path)
        if not path.is_file() or not path.stat().st_size:
            raise InvalidContent(f"{path} is empty, or not a plain file: it cannot be an image")
        requests = _pieces(path, on_transfer or _untold)
        file: FileInfo = self.transport.send(STORAGE["UploadFile"], requests)
        return file

    def download(
        self, file: FileInfo, path: str | Path, on_transfer: Transferred | None = None
    ) -> None:
        """Fetches a file; goes on where it was after a break. Raises Internal if its hash is wrong.

        `path` appears when the file is whole.
        """
        path = Path(path)
        partial = path.with_name(path.name + ".part")
        digest = hashlib.sha256()
        try:
            with partial.open("wb") as target:
                self._fetch(file, target, digest, on_transfer or _untold)
            if file.sha256 and digest.hexdigest() != file.sha256:
                raise Internal(f"{file.name} arrived damaged; download it again")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Removes a file before its day is over."""
        method = STORAGE["DeleteFile"]
        self.transport.unary(method, method.request(name=full_name("files", name)))

    def _fetch(self, file: FileInfo, target: BinaryIO, digest: Any, told: Transferred) -> None:
        tries, method = 0, STORAGE["DownloadFile"]
        while (offset := target.tell()) < file.size_bytes or tries == 0:
            request = method.request(name=file.name, offset=offset)
            tries += 1
            try:
                for piece in self.transport.stream(method, request):
                    wire.in_thread(_keep, piece.data, target, digest)
                    told(target.tell(), file.size_bytes)
            except Unavailable:
                if tries == DOWNLOAD_TRIES:
                    raise
            else:
                break


def _keep(piece: bytes, target: BinaryIO, digest: Any) -> None:
    target.write(piece)
    digest.update(piece)


def _hash(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _pieces(path: Path, told: Transferred) -> Iterator[pb.UploadFileRequest]:
    size, digest = path.stat().st_size, wire.in_thread(_hash, path)
    yield pb.UploadFileRequest(size_bytes=size, sha256=digest, source_name=path.name)
    with path.open("rb") as source:
        while piece := wire.in_thread(source.read, PIECE_BYTES):
            yield pb.UploadFileRequest(data=piece)
            told(source.tell(), size)


def _untold(_done: int, _size: int) -> None:
    """For callers that do not want to know."""
