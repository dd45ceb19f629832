"""Tells people of runs and problems: once each, by every notifier that wants it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from ...backups.manifest import read_utc, utc_text
from ...core.errors import IotstackError, StepFailed, bug_in, ended
from ...hosts.local import run_parallel
from ...monitoring.notifiers import LIMIT_S, Message, message_of, ping_end, ping_start, send
from ...monitoring.run_event import KILLED, Outcome, RunEvent
from ...monitoring.run_records import SECOND, RunRecord, RunRecords
from ...monitoring.stack_facts import Problem
from ...monitoring.troubles import PROBLEM, TroubleFile, judge
from ...reporting.report import Report, as_called
from ...settings.model import Settings
from ...settings.monitoring import NotifyConfig

OCCASIONS: Mapping[Outcome, str] = {
    Outcome.GOOD: "",
    Outcome.WARNINGS: "warning",
    Outcome.FAILED: "failure",
}


class _Known(NamedTuple):
    """What people know of a trouble."""

    is_new: bool
    """They did not know it before."""
    is_done: bool
    """One of them got it, or none wants it."""


class Notifications:
    """Tells by the rows of notify in the settings of one machine."""

    def __init__(self, settings: Settings, report: Report) -> None:
        self._rows = settings.monitoring.notify
        self._people = tuple(row for row in self._rows if row.kind != "ping")
        self._report = report
        self._file = TroubleFile(settings.stack.folder)

    def notify_start(self, task: str, run: str) -> None:
        """Let monitors know that a run begins; the ping of its end reports any trouble."""
        rows = [row for row in self._rows if row.kind == "ping" and task in row.tasks]
        _sent({row.name: partial(ping_start, row, run) for row in rows})

    def ping_end(self, event: RunEvent, run: str) -> None:
        """Let monitors know how a run ended."""
        pings = [row for row in self._rows if row.kind == "ping" and event.task in row.tasks]
        self._deliver({row.name: partial(ping_end, row, event, run) for row in pings})

    def notify_run(
        self,
        event: RunEvent,
        run: str = "",
        *,
        key: str = "",
        causes: Iterable[Problem] = (),
    ) -> bool:
        """Tell monitors and people how a run ended; return whether people need not be told again.

        `key` tells runs of several hosts apart. `causes`: problems that explain all that the run
        told: people are told if they do not know one of them, and then they know it.
        """
        self.ping_end(event, run)
        if not causes:
            return self._notify_people(event, key or event.task)
        self._forget(key or event.task)
        people = [row for row in self._people if {event.task, "monitor"} & row.tasks]
        is_done = True
        for each in causes:
            known = self._notify_once(
                f"{PROBLEM}{each.key}",
                _occasion(each),
                each.title,
                people,
                lambda occasion: message_of(event, occasion),
            )
            is_done &= known.is_done
            people = [] if known.is_new else people
        return is_done

    def _forget(self, key: str) -> None:
        """Let a trouble end without a message: another one takes its place."""
        with contextlib.suppress(IotstackError), self._file.held():
            troubles = self._file.read()
            if troubles.pop(key, None):
                self._file.write(troubles)

    def notify_recovery(self, event: RunEvent) -> None:
        """Tell that a task is good again, if people were told that it was not."""
        if event.task in self._file.read():
            self._notify_people(event, event.task)

    def notify_silent(self, record: RunRecord, key: str) -> bool:
        """Tell how an earlier run ended that could not; return as notify_run does.

        Monitors are told if it was killed: otherwise they know it, or they miss its ping.
        """
        if record.code is None:
            self.ping_end(record.event, "")
        return self._notify_people(record.event, key)

    def _notify_people(self, event: RunEvent, key: str) -> bool:
        return self._notify_once(
            key,
            OCCASIONS[event.outcome],
            "\n".join(event.messages) or event.title,
            [row for row in self._people if event.task in row.tasks],
            lambda occasion: message_of(event, occasion),
        ).is_done

    def notify_problem(self, problem: Problem, host: str) -> bool:
        """Tell of something that is wrong without a run; return whether it was unknown."""
        title = f"{host}: {problem.title}"
        people = [row for row in self._people if "monitor" in row.tasks]
        return self._notify_once(
            problem.key,
            _occasion(problem),
            problem.title,
            people,
            lambda occasion: Message(occasion, title, as_called(problem.text)),
        ).is_new

    def notify_over(
        self, still: frozenset[str], begins: str, host: str, *, unsaid: tuple[str, ...]
    ) -> None:
        """Tell which problems are over: those whose key begins so, and is not among `still`.

        Those whose key begins like one of `unsaid` end in silence.
        """
        for key, trouble in self._file.read().items():
            if not key.startswith(begins) or key in still:
                continue
            said = not key.startswith(unsaid)
            people = [row for row in self._people if "monitor" in row.tasks and said]
            text = f"It began at {read_utc(trouble.since_utc).astimezone():%Y-%m-%d %H:%M}."
            title = f"{host}: over: {trouble.text}"
            over = Message("recovered", title, text)
            self._notify_once(key, "", "", people, partial(_same, over))

    def test(self) -> Mapping[str, str]:
        """Send a test by each row; return the troubles by the rows' names, '' for none."""
        now = datetime.now(UTC)
        host = socket.gethostname()
        event = RunEvent("notify --test", host, now, now, 0, ("This is a test.",))
        message = Message("always", f"A test from {host}", "This is a test. All is well.")
        return _sent(
            {
                row.name: partial(ping_end, row, event)
                if row.kind == "ping"
                else partial(send, row, message)
                for row in self._rows
            }
        )

    def _notify_once(
        self,
        key: str,
        occasion: str,
        text: str,
        people: list[NotifyConfig],
        message: Callable[[str], Message],
    ) -> _Known:
        """Tell people if they do not know it yet, those with always in any case.

        `message` is given the occasion. If none could be sent, it stays unknown.
        """
        with contextlib.ExitStack() as held:
            with contextlib.suppress(IotstackError):  # a full disk: twice, not never
                held.enter_context(self._file.held())
            now = datetime.now(UTC)
            told, troubles = judge(self._file.read(), key, occasion, text, now)
            about = told or occasion or "always"
            wanting = [row for row in people if "always" in row.on or told in row.on]
            sends = {row.name: partial(send, row, message(about)) for row in wanting}
            is_done = not wanting or self._deliver(sends)
            if is_done:
                with contextlib.suppress(StepFailed):
                    self._file.write(troubles)
        return _Known(bool(told), is_done)

    def _deliver(self, sends: Mapping[str, Callable[[], None]]) -> bool:
        """Return whether one was sent; each trouble is a warning."""
        troubles = _sent(sends)
        for each in filter(None, troubles.values()):
            self._report.warn(each)
        return not all(troubles.values())


def notify_silent(settings: Settings, key: str, report: Report, why: str = "") -> bool:
    """Report a run that could not do so itself, and record that; return whether there was one."""
    records = RunRecords(settings.stack.folder)
    last = records.last(key)
    if last is None or not last.is_silent:
        return False
    last = replace(last, messages=tuple(filter(None, (*last.messages, why))))
    is_told = Notifications(settings, report).notify_silent(last, key.removeprefix(SECOND))
    if last.code is None:
        last = replace(last, ended_utc=utc_text(datetime.now(UTC)), code=KILLED)
    with contextlib.suppress(IotstackError):
        records.write(key, replace(last, is_told=is_told))
    return True


def _occasion(problem: Problem) -> str:
    return "failure" if problem.is_failure else "warning"


def _same(message: Message, _occasion: str) -> Message:
    return message


def _sent(sends: Mapping[str, Callable[[], None]]) -> Mapping[str, str]:
    """Send all at once; return the troubles by name, '' for none."""
    safe = {name: partial(_told, each) for name, each in sends.items()}
    done = run_parallel(safe, LIMIT_S) if safe else {}
    return {
        name: f"[[notify]] {name} was not notified: {ended(trouble)}" if trouble else ""
        for name, trouble in done.items()
    }


def _told(send: Callable[[], None]) -> None:
    """Send one; raises StepFailed, also for a bug: it must not keep others from being told.

    What a library says may quote an address.
    """
    try:
        send()
    except IotstackError:
        raise
    except Exception as error:
        raise StepFailed(f"{bug_in(error)}. This is a bug: please report it.") from error
