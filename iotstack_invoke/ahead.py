"""A head start for a copy: its file is sent while it is still being made.

Nothing here has to go well. The copy is made afterwards in any case (transfer.py): it goes on
inside what has arrived, and proves all of it by its hash.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import IO, cast

from .errors import IotstackError
from .hosts import CHUNK_BYTES
from .steps import File, Scene, Step
from .values import dataclass

PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Ahead:
    """A copy that is to have a head start, and the step that claims its set there."""

    claim: Step
    copy: File


@contextlib.contextmanager
def sent_ahead(scene: Scene, source: File, copies: tuple[Ahead, ...]) -> Iterator[None]:
    """Send what is written to the partial file `source` within the block, as it comes.

    It must be open already. When the block ends, what was sent by then lies under the partial
    names of the copies; where the block fails, nothing does.
    """
    ended = threading.Event()
    threads = [
        threading.Thread(target=_send, args=(scene, source, each, ended)) for each in copies
    ]
    for each in threads:
        each.start()
    try:
        yield
    except BaseException:
        _end(threads, ended)
        for copy in (each.copy for each in copies):
            with contextlib.suppress(IotstackError):
                scene.place(copy).remove([copy.partial])
        raise
    _end(threads, ended)


def _end(threads: list[threading.Thread], ended: threading.Event) -> None:
    ended.set()
    for each in threads:
        each.join()


def _send(scene: Scene, source: File, ahead: Ahead, ended: threading.Event) -> None:
    copy = ahead.copy
    try:
        ahead.claim.do(scene)
        with scene.place(source).read(source.partial) as stream:
            growing = cast("IO[bytes]", _Growing(stream, ended))
            scene.place(copy).receive(copy.partial, growing, time.time())
    except IotstackError as error:
        scene.hear("err", f"{copy} has no head start: {error}")


class _Growing:
    """A file that ends when it is told that it has ended, and not where it ends now."""

    def __init__(self, stream: IO[bytes], ended: threading.Event) -> None:
        self._stream = stream
        self._ended = ended

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """Return the next bytes, when there are some; b"" at the end."""
        while not self._ended.is_set():
            if content := self._stream.read(size):
                return content
            time.sleep(PAUSE_S)
        return b""
