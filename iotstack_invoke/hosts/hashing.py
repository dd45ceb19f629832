"""SHA-256: of streams while they are read, and of files by programs on any machine."""

from __future__ import annotations

import hashlib
import math
import shlex
from typing import IO, cast

from .base import Command, Received, sh
from .local import CHUNK_BYTES

HASH_LIMIT_S = 24 * 3600.0
HASH = (
    'for hash in "openssl dgst -sha256 -r" sha256sum "shasum -a 256"; do '
    "case $($hash < /dev/null 2>/dev/null) in e3b0c44298fc1c14*) break;; esac; done; "
    '$hash < "$1"'
)
"""A script that prints the SHA-256 of a file, by the first program present that can.

OpenSSL uses the processor's instructions for it: Debian's sha256sum took six times as long
(measured). macOS and a NAS with BSD tools have the last one.
"""


def hash_command(path: str, as_root: tuple[str, ...] = ()) -> Command:
    """Return the command that prints the SHA-256 of a file as its first word."""
    words = (*as_root, *sh(HASH, path))
    return Command(words, timeout_s=HASH_LIMIT_S, label=shlex.join((*as_root, "sha256sum", path)))


class HashedStream:
    """A stream with hash and size of the bytes read from it; `head` comes first."""

    def __init__(self, source: IO[bytes], head: bytes = b"") -> None:
        self._source = source
        self._head = head
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    @property
    def stream(self) -> IO[bytes]:
        """The stream itself, for its reader."""
        return cast("IO[bytes]", self)

    @property
    def received(self) -> Received:
        """Size and hash of the bytes read."""
        return Received(self.size_bytes, self.sha256)

    @property
    def sha256(self) -> str:
        """The hash of the bytes read."""
        return self._digest.hexdigest()

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """Return the next bytes, b"" at the end."""
        content, self._head = self._head or self._source.read(size), b""
        self._digest.update(content)
        self.size_bytes += len(content)
        return content

    def drain(self, expected_bytes: float = math.inf) -> Received:
        """Read the rest, and return size and hash of all.

        If the stream is longer than expected, only as much is read as shows that.
        """
        while self.size_bytes <= expected_bytes and self.read():
            pass
        return self.received
