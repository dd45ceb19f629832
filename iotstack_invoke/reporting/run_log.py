"""The log of one run: every line that any program said, one line each, with its time.

It bears a partial name until it is finished, like every file that we make, so that a log under
its final name is whole. It holds no secrets: no command that we run carries one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..engine.rules import Job
from ..engine.steps import Step
from ..hosts.base import PARTIAL
from ..hosts.local import opened, words_of

if TYPE_CHECKING:
    from ..engine.executor import JobResult
    from ..engine.plan import PlannedJob


_SUM_TITLE = "SHA-256 of all above in"
_TIME = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_TIME_BYTES = 19


class RunLog:
    """The log file of a runtag; a run that goes on adds to what is there.

    `new`: it must be a file of its own; raises FileExistsError where its name is taken.
    """

    def __init__(self, path: str, *, new: bool = False) -> None:
        self.path = path
        self._lock = threading.Lock()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        again = not new and os.path.isfile(path)  # a finished set is delivered, or made again
        more = os.O_EXCL if new else os.O_TRUNC if again else 0
        descriptor = opened(path + PARTIAL, flags | more)
        if new and os.path.lexists(path):  # one that ended before ours was begun
            os.close(descriptor)
            os.unlink(path + PARTIAL)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._file = os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")
        if again:
            with open(path, "rb", opener=opened) as earlier:
                shutil.copyfileobj(earlier, self._file.buffer)
        self.closed = False
        self.broken = ""
        """Why a line could not be written, or ''."""

    def write(self, source: str, text: str) -> None:
        """Add what `source` said, each line with the time; once closed, nothing."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        with self._lock:
            if not self.closed:
                try:
                    for line in text.splitlines() or [""]:
                        self._file.write(f"{now} {source}: {_visible(line)}\n")
                    self._file.flush()
                except OSError as error:  # a full disk: the run goes on and ends with this
                    self.broken = words_of(error)

    def _close(self, *, sync: bool) -> None:
        """Close the file; what could not be written before may fail here once more."""
        self.closed = True
        try:
            with self._file:
                self._file.flush()
                if sync:
                    os.fsync(self._file.fileno())
        except OSError as error:
            self.broken = words_of(error)

    def leave(self) -> None:
        """Close the file under its partial name: the run did not end."""
        with self._lock:
            if not self.closed:
                self._close(sync=False)

    def discard(self) -> None:
        """Close the file and remove it: there is nothing that it is the log of."""
        self.leave()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path + PARTIAL)

    def add_checksum(self) -> None:
        """Add the SHA-256 of all that was written, by which a change is found."""
        with self._lock:
            if self.closed:
                return
            try:
                self._file.flush()
                with open(self.path + PARTIAL, "rb", opener=opened) as written:
                    digest = hashlib.sha256(written.read())
            except OSError as error:
                self.broken = words_of(error)
                return
        self.write("log", f"{_SUM_TITLE} {os.path.basename(self.path)}: {digest.hexdigest()}")

    def finish(self, rename: Callable[[str, str], None]) -> None:
        """Give the log its final name; nothing is added from now on."""
        with self._lock:
            if not self.closed:
                self._close(sync=True)
                rename(self.path + PARTIAL, self.path)


class LostLog(RunLog):
    """A log that cannot be made: nothing is kept of it, and what it is of goes on without."""

    def __init__(self, error: OSError) -> None:  # its file is none
        self.path = f"none ({words_of(error)})"
        self._lock = threading.Lock()
        self._file = open(os.devnull, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        self.closed = False
        self.broken = words_of(error)

    def finish(self, rename: Callable[[str, str], None]) -> None:  # noqa: ARG002
        """Keep nothing."""
        self.leave()

    def discard(self) -> None:
        """Keep nothing."""
        self.leave()


def log_fits(content: bytes, name: str) -> bool | None:
    """Tell whether a log is what was written under a name; None where it has no sum at all."""
    begun, _, last = content.rstrip(b"\n").rpartition(b"\n")
    begun += b"\n"
    told = f" log: {_SUM_TITLE} {name}: {hashlib.sha256(begun).hexdigest()}\n".encode()
    if content.removeprefix(begun)[_TIME_BYTES:] == told and _TIME.fullmatch(last[:_TIME_BYTES]):
        return True
    return False if f" log: {_SUM_TITLE} ".encode() in content else None


def new_log(path: str) -> RunLog:
    """Return a log of its own: of that name or, where it is taken, with -2, -3 … before `.log`."""
    number = 1
    while True:
        with contextlib.suppress(FileExistsError):
            return RunLog(_numbered(path, number), new=True)
        number += 1


def unfinished_log(path: str) -> RunLog | None:
    """Return the newest log of that name that did not end, to be added to; None for none."""
    number, found = 1, ""
    while os.path.lexists(each := _numbered(path, number)) or os.path.lexists(each + PARTIAL):
        found = each if os.path.isfile(each + PARTIAL) else found
        number += 1
    with contextlib.suppress(OSError):  # without it what it tells of can be undone as well
        return RunLog(found) if found else None
    return None


def _numbered(path: str, number: int) -> str:
    stem, ending = os.path.splitext(path)
    return path if number == 1 else f"{stem}-{number}{ending}"


def _visible(line: str) -> str:
    """Return a line without characters that would move the cursor of whoever reads the log."""
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)


class LogReporter:
    """Writes down all that the engine tells of."""

    def __init__(self, log: RunLog) -> None:
        self.log = log

    def started(self, planned: PlannedJob) -> None:
        """A job starts: why, and its commands."""
        name = planned.job.rule.name
        self.log.write(name, f"starts: {'; '.join(map(str, planned.reasons))}")
        for step in planned.job.steps:
            for line in step.commands():
                self.log.write(name, f"$ {line}")

    def heard(self, job: Job, stream: str, line: str) -> None:
        """A program said a line."""
        self.log.write(f"{job.rule.name} {stream}", line)

    def said(self, job: Job, text: str) -> None:
        """A job tells what it is doing."""
        self.log.write(job.rule.name, text)

    def stepped(self, job: Job, number: int, step: Step) -> None:
        """Steps are not for the log: their commands stand at its job's begin."""

    def moved(self, job: Job, done_bytes: int, expected_bytes: int) -> None:
        """Bytes are not for the log."""

    def warned(self, job: Job, text: str) -> None:
        """A job warns."""
        self.log.write(job.rule.name, f"warning: {text}")

    def ended(self, result: JobResult) -> None:
        """A job ended."""
        why = f": {result.message}" if result.message else ""
        self.log.write(
            result.job.rule.name, f"{result.end.value} after {result.seconds:.1f} s{why}"
        )
