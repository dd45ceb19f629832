"""Streams that are hashed and counted while they are read, with SHA-256."""

from __future__ import annotations

import hashlib
from typing import IO, cast

from .hosts import CHUNK_BYTES
from .steps import Received


class HashedStream:
    """A stream with the hash and the size of what was read of it; `head` comes first."""

    def __init__(self, source: IO[bytes], head: bytes = b"") -> None:
        self._source = source
        self._head = head
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    @property
    def stream(self) -> IO[bytes]:
        """Itself, for whoever reads it."""
        return cast("IO[bytes]", self)

    @property
    def received(self) -> Received:
        """Size and hash of what was read."""
        return Received(self.size_bytes, self.sha256)

    @property
    def sha256(self) -> str:
        """The hash of what was read."""
        return self._digest.hexdigest()

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """Return the next bytes, b"" at the end."""
        content, self._head = self._head or self._source.read(size), b""
        self._digest.update(content)
        self.size_bytes += len(content)
        return content

    def drain(self) -> Received:
        """Read what is left, and return size and hash of all."""
        while self.read():
            pass
        return self.received
