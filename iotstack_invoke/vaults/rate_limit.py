"""A bandwidth limit in bytes per second, shared by all streams of one vault.

And a time limit for sending. Not for: other traffic, such as listings, which is small.
"""

from __future__ import annotations

import io
import math
import signal
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from ..core import processes
from ..core.errors import Interrupted, TimedOut
from ..core.units import TimeTable
from ..hosts.local import CHUNK_BYTES

PIECES_A_SECOND = 4
"""So that a run that is to end waits only a fraction of a second."""
SMALL_BYTES = 1 << 18
"""How much of a file is sent even after the time for large ones."""
UNLIMITED = TimeTable(((0, 0),))


class RateLimit:
    """Hands out the time of one connection: each caller waits until those before have passed.

    `wall` is the clock for the time table: its hours may occur twice, or never.
    """

    def __init__(
        self,
        rates: TimeTable = UNLIMITED,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        wall: Callable[[], time.struct_time] = time.localtime,
    ) -> None:
        self._rates = rates
        self._clock = clock
        self._sleep = sleep
        self._wall = wall
        self._free_s = 0.0
        """When everything let through so far will have passed."""
        self._lock = threading.Lock()

    @property
    def bytes_a_second(self) -> int:
        """The current limit; 0: none."""
        return self._rates.rate_at(self._wall())

    @property
    def piece_bytes(self) -> int:
        """How much is let through at once now."""
        rate = self.bytes_a_second
        return max(1, min(CHUNK_BYTES, rate // PIECES_A_SECOND)) if rate else CHUNK_BYTES

    def wait(self, size_bytes: int) -> None:
        """Wait as long as so many bytes take; raises Interrupted if the run is to end."""
        rate = self.bytes_a_second
        with self._lock:
            now = self._clock()
            self._free_s = max(now, self._free_s) + size_bytes / rate if rate else now
            wait_s = self._free_s - now
        self._sleep(wait_s)
        if processes.ending():
            raise Interrupted(signal.SIGTERM)

    def stream(self, source: IO[bytes], until_s: float = math.inf, late: str = "") -> IO[bytes]:
        """Return a stream of the same bytes that is read no faster; it leaves `source` open.

        From the time `until_s` on, reading raises TimedOut with the text of `late`; the first
        bytes, which are all of a small file, are returned at any time.
        """
        return io.BufferedReader(_Paced(source, self, until_s, late), CHUNK_BYTES)

    def check(self, until_s: float, late: str) -> None:
        """Raise TimedOut if `until_s` has passed."""
        if self._clock() >= until_s:
            raise TimedOut(late)


class _Paced(io.RawIOBase):
    """The raw side of a limited stream: it returns one piece at a time."""

    def __init__(self, source: Any, pace: RateLimit, until_s: float, late: str) -> None:
        super().__init__()
        self._source = source
        self._pace = pace
        self._until_s = until_s
        self._late = late
        self._given_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._given_bytes >= SMALL_BYTES:
            self._pace.check(self._until_s, self._late)
        content = self._source.read(min(len(buffer), self._pace.piece_bytes))
        buffer[: len(content)] = content
        self._given_bytes += len(content)
        self._pace.wait(len(content))
        return len(content)

    def seekable(self) -> bool:
        return isinstance(self._source, io.BufferedReader) and self._source.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._source.seek(offset, whence)  # type: ignore[no-any-return]

    def tell(self) -> int:
        return self._source.tell()  # type: ignore[no-any-return]
