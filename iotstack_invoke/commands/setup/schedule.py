"""Installs, shows and removes what makes this program run by itself: timers, or lines of cron."""

from __future__ import annotations

import os
import posixpath
import pwd
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ...core.dataclass import dataclass
from ...core.errors import ExitCode, Refused, StepFailed, UsageError, ended
from ...core.processes import pause
from ...hosts.base import ANY_EXIT, Command
from ...hosts.inspect import root_words_if_any
from ...hosts.local import LocalHost
from ...monitoring.run_records import RunRecords
from ...reporting.report import PROGRAM, Report
from ...settings.model import Settings, places_to_look
from . import crontab, units
from .installed import (
    CRON,
    SYSTEM,
    SYSTEM_UNITS,
    USER,
    Schedule,
    Scheduled,
    ask_cron,
    ask_systemd,
    crontab_to_change,
    has_systemd,
    installed,
    linger_words,
    lingers,
    own_name,
    systemctl,
    units_in,
    user_units,
)
from .timetable import LISTEN, Program, Timer, read_timers

LIMIT_S = 60.0
USER_MANAGER_LIMIT_S = 15.0
TITLES = ("task", "when", "next", "last", "result")
NONE = (
    "No schedule is installed: backups run only when you start them. To install one: inv "
    "schedule.install"
)


@dataclass(frozen=True, slots=True)
class ScheduleRequest:
    """What to install."""

    timers: tuple[Timer, ...]
    kind: str = ""
    """Which kind, if the user named one."""
    listens: bool = False
    credentials: tuple[str, ...] = ()
    dry_run: bool = False


def read_request(
    at: str, every: Mapping[str, str], random_delay: str, kinds: Mapping[str, bool], **given: Any
) -> ScheduleRequest:
    """Return what flags ask for; raises UsageError."""
    named = [kind for kind, wanted in kinds.items() if wanted]
    if len(named) > 1:
        raise UsageError(f"Give only one of: {', '.join(f'--{each}' for each in kinds)}.")
    for each in given.get("credentials", ()):
        name, _, path = each.partition(":")
        if not name or "/" in name or not path.startswith("/") or "\n" in path:
            raise UsageError(f"--credential {each}: must be NAME:FILE, with an absolute path.")
    kind = named[0] if named else ""
    return ScheduleRequest(read_timers(at, every, random_delay), kind, **given)


def choose_kind(asked: str, *, is_root: bool, systemd: bool, cron: bool) -> str:
    """Return which kind of schedule this machine gets; raises Refused if it can have none."""
    if not systemd and asked in {USER, SYSTEM}:
        raise Refused(f"systemd does not run this machine, which --{asked} needs.", "Use --cron.")
    if not cron and asked == CRON:
        raise Refused("The program crontab is missing.", "Install it: sudo apt-get install cron")
    if asked:
        return asked
    if systemd:
        return SYSTEM if is_root else USER
    if cron:
        return CRON
    raise Refused(
        "This machine has neither systemd nor cron, so nothing can start backups.",
        "Install cron (sudo apt-get install cron), or let another program run: inv backup",
    )


def own_program(settings: Settings) -> Program:
    """Return how this program is started from anywhere, with the settings that it has now."""
    called = sys.argv[0]
    is_script = posixpath.basename(called) == PROGRAM
    words = (os.path.abspath(called),) if is_script else (sys.executable, "-Pm", "iotstack_invoke")
    home = pwd.getpwuid(os.geteuid()).pw_dir
    found = next(filter(os.path.exists, places_to_look({"HOME": home})), "")
    file = os.path.abspath(os.path.expanduser(settings.file)) if settings.file else ""
    return Program(words, "" if file == found else file, home)


def install(settings: Settings, request: ScheduleRequest, report: Report) -> int:
    """Install the schedule, in place of the one that this program installed before."""
    kind = choose_kind(
        request.kind,
        is_root=os.geteuid() == 0,
        systemd=has_systemd(),
        cron=shutil.which("crontab") is not None,
    )
    if kind == CRON and (request.listens or request.credentials):
        flag = "--listen" if request.listens else "--credential"
        raise UsageError(f"{flag} needs systemd.")
    machine = _Machine(settings, kind)
    before = installed(machine.host)
    for other in (each for each in before if each.kind != kind):
        raise Refused(
            f"A schedule is installed already ({_place(other)}); with two of them, each backup "
            "would be made twice.",
            "Remove it first: inv schedule.remove",
        )
    program = own_program(settings)
    if kind == CRON:
        block = crontab.render(request.timers, program, uuid.getnode())
        if request.dry_run:
            report.write(block.rstrip())
            return ExitCode.GOOD
        machine.put_crontab(block)
    else:
        files = units.render(
            request.timers,
            program,
            units.Owner(kind == SYSTEM, "" if machine.is_root else own_name()),
            listens=request.listens,
            credentials=request.credentials,
        )
        machine.refuse_foreign(files)
        if request.dry_run:
            for name, text in files.items():
                report.write(f"# {machine.folder}/{name}\n{text}")
            return ExitCode.GOOD
        machine.put_units(files, next(iter(before), None))
    return show_schedule(settings, report, as_json=False)


def remove_schedule(settings: Settings, report: Report) -> int:
    """Remove what this program installed, and nothing else."""
    found = installed(LocalHost("/"))
    if not found:
        report.write("No schedule is installed; nothing was changed.")
    for each in found:
        machine = _Machine(settings, each.kind)
        if each.kind == CRON:
            machine.put_crontab("")
        else:
            machine.take_units(each)
        report.write(f"Removed the schedule ({_place(each)}). The backups stay.")
    return ExitCode.GOOD


def show_schedule(settings: Settings, report: Report, *, as_json: bool) -> int:
    """Print each task of the schedule: when, its next run, when the last one ended and how."""
    host, now = LocalHost("/"), datetime.now().astimezone()
    runs = RunRecords(settings.stack.folder)
    found = [
        (each, ask_cron(each, runs, now) if each.kind == CRON else ask_systemd(host, each))
        for each in installed(host)
    ]
    if as_json:
        report.write_json([_json_row(*each) for each in found])
        return ExitCode.GOOD
    for schedule, tasks in found:
        report.table(TITLES, [_row(each) for each in tasks])
        report.write(f"Installed: {_place(schedule)}. To remove it: inv schedule.remove")
    if not found:
        report.write(NONE)
    return ExitCode.GOOD


@dataclass
class _Machine:
    """This machine, and where a schedule of one kind goes."""

    settings: Settings
    kind: str
    host: LocalHost = field(default_factory=lambda: LocalHost("/"))

    @property
    def is_root(self) -> bool:
        return os.geteuid() == 0

    @property
    def folder(self) -> str:
        return SYSTEM_UNITS if self.kind == SYSTEM else user_units(os.environ)

    def as_root(self) -> tuple[str, ...]:
        """Return the words before a command of root's; raises Refused if there are none."""
        words = root_words_if_any(self.host, sudo=self.settings.stack.sudo)
        if not words and not self.is_root:
            raise Refused(
                "Units of the system need root, and sudo needs a password here.",
                "Use --user, or log in as root.",
            )
        return words

    def _changing(self) -> tuple[str, ...]:
        return self.as_root() if self.kind == SYSTEM else ()

    def refuse_foreign(self, files: Mapping[str, str]) -> None:
        """Raise Refused if a file that would be replaced was written by someone else."""
        there = units_in(self.folder)
        foreign = [
            f"{self.folder}/{name}"
            for name in files
            if name in there and not there[name].startswith(units.MARK)
        ]
        if foreign:
            raise Refused(
                f"{', '.join(foreign)}: not written by this program. Nothing was changed.",
                "If it is an earlier schedule of yours, disable it, remove its files, then run "
                "this again.",
            )

    def put_units(self, files: Mapping[str, str], before: Schedule | None) -> None:
        """Write the units and start their timers; what is no longer wanted is removed."""
        words = self._changing()
        if self.kind == USER:
            self._let_linger()
        stale = [name for name in (before.texts if before else ()) if name not in files]
        self._stop(words, stale)
        with tempfile.TemporaryDirectory() as scratch:
            for name, text in files.items():
                Path(scratch, name).write_text(text, "utf-8")
            self._run(*words, "mkdir", "-p", self.folder)
            sources = [f"{scratch}/{name}" for name in files]
            self._run(*words, "install", "-m", "644", "-t", self.folder, *sources)
        control = (*words, *systemctl(self.kind))
        self._run(*control, "daemon-reload")
        started = _started(files)
        self._run(*control, "enable", "--quiet", *started)
        self._run(*control, "restart", *started)

    def take_units(self, schedule: Schedule) -> None:
        """Stop the timers of a schedule and remove its units; a run that is active ends well."""
        words = self._changing()
        self._stop(words, tuple(schedule.texts))
        if self._answers():
            self._run(*words, *systemctl(self.kind), "daemon-reload")

    def _stop(self, words: tuple[str, ...], names: Iterable[str]) -> None:
        """Disable and remove units; systemd forgets when they ran last, and how that ended."""
        stopped = _started(names)
        control = (*words, *systemctl(self.kind))
        if stopped and self._answers():
            self._run(*control, "disable", "--quiet", "--now", *stopped)
            timers = [each for each in stopped if each.endswith(".timer")]
            self._try(*control, "clean", "--what=state", *timers)
            self._try(*control, "reset-failed", *(e for e in names if "@" not in e))
        paths = [f"{self.folder}/{name}" for name in names]
        links = [f"{self.folder}/timers.target.wants/{name}" for name in stopped]
        if paths:
            self._run(*words, "rm", "-f", "--", *paths, *links)

    def _answers(self) -> bool:
        """Return whether this systemd runs; a user's does not before a login without linger."""
        return not self._try(*systemctl(self.kind), "show", "--property=Version")

    def put_crontab(self, block: str) -> None:
        """Replace our block of this user's crontab; one that is empty then is removed."""
        text = crontab.replaced(crontab_to_change(self.host), block)
        if not text.strip():
            self._run("crontab", "-r")
            return
        with tempfile.NamedTemporaryFile() as stream:
            stream.write(text.encode("utf-8", "surrogateescape"))
            stream.flush()
            self._run("crontab", stream.name)
        if crontab.block_in(crontab_to_change(self.host)) != block:
            raise StepFailed("The crontab does not hold what was written. See: crontab -l")

    def _let_linger(self) -> None:
        """Let this user's units run without a login, and wait until its systemd answers."""
        words = ("loginctl", "enable-linger", own_name())
        if not lingers(own_name()) and self._try(*words):
            root = root_words_if_any(self.host, sudo=self.settings.stack.sudo)
            problem = self._try(*root, *words) if root or self.is_root else "sudo needs a password"
            if problem:
                raise Refused(
                    "Your timers would run only while you are logged in, and this could not be "
                    f"changed: {ended(problem)} Nothing was installed.",
                    f"Run this, then try again: {linger_words(own_name())}",
                )
        deadline = time.monotonic() + USER_MANAGER_LIMIT_S
        while not self._answers():
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"The systemd of {own_name()} does not answer. Nothing was installed. See: "
                    f"systemctl status user@{os.geteuid()}.service"
                )
            pause(0.1)

    def _run(self, *words: str) -> None:
        self.host.run(Command(words, timeout_s=LIMIT_S))

    def _try(self, *words: str) -> str:
        """Run a command, and return why it failed, '' if it did not."""
        told = self.host.run(Command(words, ANY_EXIT, LIMIT_S))
        return (told.last_line or told.ended) if told.exit_code else ""


def _started(names: Iterable[str]) -> tuple[str, ...]:
    """Return the units that are started by themselves: timers, and the listener."""
    listener = units.unit_name(LISTEN)
    return tuple(each for each in names if each.endswith(".timer") or each == listener)


def _place(schedule: Schedule) -> str:
    return "in this user's crontab" if schedule.kind == CRON else f"units in {schedule.folder}"


def _row(task: Scheduled) -> tuple[str, ...]:
    return (
        task.task,
        task.when,
        _time_text(task.next_run) if task.is_active else "not active",
        _time_text(task.ended or task.began),
        task.outcome,
    )


def _time_text(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def _json_row(schedule: Schedule, tasks: Iterable[Scheduled]) -> Mapping[str, Any]:
    return {
        "kind": schedule.kind,
        "folder": schedule.folder or None,
        "program": schedule.program,
        "tasks": [dict(_json_fields(each)) for each in tasks],
    }


def _json_fields(task: Scheduled) -> Iterator[tuple[str, Any]]:
    for name, value in asdict(task).items():
        yield name, value.isoformat() if isinstance(value, datetime) else value
