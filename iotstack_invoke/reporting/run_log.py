"""The log of one run: every line that a program printed, one line each, with its time.

It has a partial name until it is finished, like every file of this package, so that a log under
its final name is complete. It holds no secrets: no command of this package contains one.
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
    """The log file of a runtag; a resumed run appends to it.

    `new`: it must be a new file; raises FileExistsError if its name is taken.
    """

    def __init__(self, path: str, *, new: bool = False) -> None:
        self.path = path
        self._lock = threading.Lock()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        # A finished set is copied, or made again; a killed run that did so left its log as well.
        again = not new and os.path.isfile(path) and not _goes_on(path)
        more = os.O_EXCL if new else os.O_TRUNC if again else 0
        descriptor = opened(path + PARTIAL, flags | more)
        if new and os.path.lexists(path):  # another log finished before this one began
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
        """Add the lines of `source`, each with the time; after closing, nothing."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        with self._lock:
            if not self.closed:
                try:
                    for line in text.splitlines() or [""]:
                        self._file.write(f"{now} {source}: {_visible(line)}\n")
                    self._file.flush()
                except OSError as error:  # a full disk: the run continues and reports it last
                    self.broken = words_of(error)

    def _close(self, *, sync: bool) -> None:
        """Close the file; buffered text that could not be written may fail here again."""
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
        """Close the file and remove it: the run that it was for did nothing."""
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
        """Give the log its final name; nothing is added after that."""
        with self._lock:
            if not self.closed:
                self._close(sync=True)
                rename(self.path + PARTIAL, self.path)


class LostLog(RunLog):
    """Stands in for a log that cannot be created: writes nothing, while its run continues."""

    def __init__(self, error: OSError) -> None:  # without a file
        self.path = f"none ({words_of(error)})"
        self._lock = threading.Lock()
        self._file = open(os.devnull, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        self.closed = False
        self.broken = words_of(error)

    def finish(self, rename: Callable[[str, str], None]) -> None:  # noqa: ARG002
        """Do nothing."""
        self.leave()

    def discard(self) -> None:
        """Do nothing."""
        self.leave()


def _goes_on(path: str) -> bool:
    """Return whether the partial log begins with all of the finished one."""
    try:
        with (
            open(path, "rb", opener=opened) as finished,
            open(path + PARTIAL, "rb", opener=opened) as partial,
        ):
            content = finished.read()
            return partial.read(len(content)) == content
    except OSError:
        return False


def log_fits(content: bytes, name: str) -> bool | None:
    """Return whether a log is unchanged and has its original name; None if it has no checksum."""
    begun, _, last = content.rstrip(b"\n").rpartition(b"\n")
    begun += b"\n"
    told = f" log: {_SUM_TITLE} {name}: {hashlib.sha256(begun).hexdigest()}\n".encode()
    if content.removeprefix(begun)[_TIME_BYTES:] == told and _TIME.fullmatch(last[:_TIME_BYTES]):
        return True
    return False if f" log: {_SUM_TITLE} ".encode() in content else None


def new_log(path: str) -> RunLog:
    """Return a new log: of that name or, if it is taken, with -2, -3 … before `.log`."""
    number = 1
    while True:
        with contextlib.suppress(FileExistsError):
            return RunLog(_numbered(path, number), new=True)
        number += 1


def unfinished_log(path: str) -> RunLog | None:
    """Return the newest unfinished log of that name, to append to; None if there is none."""
    number, found = 1, ""
    while os.path.lexists(each := _numbered(path, number)) or os.path.lexists(each + PARTIAL):
        found = each if os.path.isfile(each + PARTIAL) else found
        number += 1
    with contextlib.suppress(OSError):  # an undo works without its log
        return RunLog(found) if found else None
    return None


def _numbered(path: str, number: int) -> str:
    stem, ending = os.path.splitext(path)
    return path if number == 1 else f"{stem}-{number}{ending}"


def _visible(line: str) -> str:
    """Return a line without characters that would move the cursor of a terminal."""
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)


class LogReporter:
    """Writes the engine's events to the log."""

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
        """A program printed a line."""
        self.log.write(f"{job.rule.name} {stream}", line)

    def said(self, job: Job, text: str) -> None:
        """A job reports its current activity."""
        self.log.write(job.rule.name, text)

    def stepped(self, job: Job, number: int, step: Step) -> None:
        """Steps are not logged: their commands are listed when the job starts."""

    def moved(self, job: Job, done_bytes: int, expected_bytes: int) -> None:
        """Bytes are not logged."""

    def warned(self, job: Job, text: str) -> None:
        """A job warns."""
        self.log.write(job.rule.name, f"warning: {text}")

    def ended(self, result: JobResult) -> None:
        """A job ended."""
        why = f": {result.message}" if result.message else ""
        self.log.write(
            result.job.rule.name, f"{result.end.value} after {result.seconds:.1f} s{why}"
        )
