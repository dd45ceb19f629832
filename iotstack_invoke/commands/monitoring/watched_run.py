"""One run of a task, from before its first step to after its last message: recorded and told.

A failure here is a warning: it changes neither the run nor its exit code.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from ...backups.manifest import utc_text
from ...core.errors import ExitCode, Interrupted, IotstackError, bug_in
from ...core.stack_folders import BACKUPS
from ...core.units import read_duration
from ...monitoring.notifiers import LIMIT_S
from ...monitoring.run_records import (
    SECOND,
    RunRecord,
    RunRecords,
    begun,
    key_of,
    shortened,
)
from ...monitoring.stack_facts import StackFacts
from ...reporting.report import Report
from ...settings.model import Settings
from .notifications import Notifications

CTRL_C = 130
SEEN_AT_ONCE = frozenset(
    {ExitCode.USAGE, ExitCode.NOT_FOUND, ExitCode.BUSY, ExitCode.REFUSED, CTRL_C}
)
"""The exit codes that people get no message of if a terminal shows the reason at once."""


class WatchedRun:
    """A run that is recorded, and for which notifications are sent."""

    def __init__(self, settings: Settings, task: str, host: str, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._key = self._record_key = key_of(task, host)
        self._records = RunRecords(settings.stack.folder)
        self._record = begun(task, host or socket.gethostname())
        self._notifications = Notifications(settings, report)
        self._run = str(uuid.uuid4())
        self._starting = threading.Thread(target=self._notify_start, daemon=True)
        self._earlier: RunRecord | None = None
        """The run before, if people do not know how it ended."""

    def begin(self) -> None:
        """Tell of an earlier run that could not, and that this one begins."""
        with self._harmless():
            self._begin()

    def end(self, code: int) -> None:
        """Record the end of the run, and tell people how it ended."""
        with contextlib.suppress(Interrupted), self._harmless():  # the run itself is over
            self._end(code)

    @contextlib.contextmanager
    def _harmless(self) -> Iterator[None]:
        """Let no error of the block reach the run: it is a warning."""
        try:
            yield
        except Interrupted:
            raise
        except IotstackError as error:
            self._report.warn(str(error))
        except Exception as error:  # noqa: BLE001 - a bug here must not fail a good backup
            self._report.warn(
                f"No notification about this run could be sent: {bug_in(error)}. This is a bug: "
                "please report it."
            )

    def _begin(self) -> None:
        earlier = self._records.last(self._key)
        if earlier and earlier.is_running:  # it must not be replaced
            self._record_key = f"{SECOND}{self._key}"
        elif earlier and earlier.is_silent:
            self._earlier = earlier
        self._write(self._record)
        self._starting.start()  # a server that does not answer must not delay the run

    def _end(self, code: int) -> None:
        ended_utc = utc_text(datetime.now(UTC))
        messages = shortened(tuple(self._report.troubles))
        record = replace(self._record, ended_utc=ended_utc, code=code, messages=messages)
        self._write(record)
        if self._starting.ident:
            self._starting.join(LIMIT_S)
        if code in SEEN_AT_ONCE and sys.stdin.isatty():
            self._notifications.ping_end(record.event, self._run)  # the start was pinged
            self._write(replace(record, is_told=True))
            return
        facts = self._look()
        from .monitor import MAX_AGE, causes_of, tell_of

        causes = causes_of(record.event, facts) if facts else ()
        is_told = self._notifications.notify_run(
            record.event, self._run, key=self._key, causes=causes
        )
        if is_told:
            self._write(replace(record, is_told=True))
        if facts:
            tell_of(facts, self._settings, read_duration(MAX_AGE), self._report)

    def _look(self) -> StackFacts | None:
        """Bring Home Assistant and the metrics of this machine's stack up to date.

        Returns None for a run on another machine, and if that failed.
        """
        backups = f"{self._settings.stack.folder}/{BACKUPS}"
        if self._key != self._record.task or not os.path.isdir(backups):
            return None
        from .monitor import MAX_AGE, observe_and_publish

        with self._harmless():
            return observe_and_publish(self._settings, read_duration(MAX_AGE), look_at_vaults=True)
        return None

    def _write(self, record: RunRecord) -> None:
        with contextlib.suppress(IotstackError):  # a full disk: the run itself tells of it
            self._records.write(self._record_key, record)

    def _notify_start(self) -> None:
        with contextlib.suppress(Interrupted), self._harmless():
            if self._earlier:
                self._notifications.notify_silent(self._earlier, self._key)
            self._notifications.notify_start(self._record.task, self._run)
