"""A bandwidth limit: so many bytes a second pass, all streams of one vault together.

And a limit of time for what is sent. Not for: what else goes over the line, such as listings,
which are small.
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
"""So that a run which is to end waits for no more than a part of a second."""
SMALL_BYTES = 1 << 18
"""What is sent of a file though the time for large ones is up."""
UNLIMITED = TimeTable(((0, 0),))


class RateLimit:
    """Hands out the time of one line: who comes next waits until those before have passed.

    `wall` is the clock that the time table is read by: its hours may come twice, or never.
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
        """When all that was let through will have passed."""
        self._lock = threading.Lock()

    @property
    def bytes_a_second(self) -> int:
        """What may pass now; 0: as much as can."""
        return self._rates.rate_at(self._wall())

    @property
    def piece_bytes(self) -> int:
        """How much is let through at once now."""
        rate = self.bytes_a_second
        return max(1, min(CHUNK_BYTES, rate // PIECES_A_SECOND)) if rate else CHUNK_BYTES

    def wait(self, size_bytes: int) -> None:
        """Wait as long as so many bytes take; raises Interrupted when the run is to end."""
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

        From `until_s` on, by the clock, reading on raises TimedOut with the words of `late`; the
        first bytes, which are all of a small file, are given at any time.
        """
        return io.BufferedReader(_Paced(source, self, until_s, late), CHUNK_BYTES)

    def check(self, until_s: float, late: str) -> None:
        """Raise TimedOut where it is later than that."""
        if self._clock() >= until_s:
            raise TimedOut(late)


class _Paced(io.RawIOBase):
    """The raw side of a paced stream: it gives one piece at a time."""

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
