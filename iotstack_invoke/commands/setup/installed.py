"""The schedule that this machine has: read from its files, and from systemd's answer.

Changes nothing. Without systemd, and without units of ours, no program is started.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from datetime import datetime
from pathlib import Path

from ...core.dataclass import dataclass
from ...core.errors import ExitCode, Refused, StepFailed, ended
from ...hosts.base import ANY_EXIT, Command, Host
from ...hosts.local import LocalHost
from ...hosts.shutdown import RUNS_SYSTEMD
from ...monitoring.run_event import KILLED
from ...monitoring.run_records import RunRecords
from .crontab import block_in, has_own_line, timers_in
from .timetable import BACKUP, COMMANDS, LISTEN, MONITOR, Timer
from .units import MARK, all_names, calendar_in, program_in, unit_name

USER, SYSTEM, CRON = "user", "system", "cron"
SYSTEM_UNITS = "/etc/systemd/system"
LINGER = "/var/lib/systemd/linger"
LIMIT_S = 10.0
NO_CRONTAB = re.compile("no f?crontab|no such file", re.IGNORECASE)
"""What the programs of Debian, cronie, busybox and others say."""
_ASKED = (
    *("Id", "LoadState", "UnitFileState", "ActiveState", "Result", "ExecMainStatus"),
    *("ExecMainExitTimestamp", "LastTriggerUSec", "NextElapseUSecRealtime"),
)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One task of a schedule, as what starts it knows it. Times are those of this machine."""

    task: str
    when: str
    next_run: datetime | None = None
    began: datetime | None = None
    """When it was last started, which survives a restart of the machine."""
    ended: datetime | None = None
    """When it last ended since the machine was started."""
    result: str = ""
    """How it ended: systemd's word, such as `success`, `exit-code` or `signal`."""
    exit_code: int | None = None
    """Its exit code, or the number of the signal that ended it."""
    is_enabled: bool = True
    is_active: bool = True
    """Its timer waits, or it runs."""

    @property
    def has_failed(self) -> bool:
        """Whether its last run since the machine was started did not succeed."""
        return self.result not in ("", "success")

    @property
    def outcome(self) -> str:
        """How its last run ended, in words; '' if that is unknown."""
        if not self.has_failed:
            went = "warnings" if self.exit_code == ExitCode.WARNINGS else "good"
            return went if self.result else ""
        if self.result == "exit-code":
            return f"failed, exit code {self.exit_code}"
        if self.result in {"signal", "core-dump"}:
            return f"killed by signal {self.exit_code}"
        return f"failed: {self.result}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is installed, and for whom."""

    kind: str
    folder: str = ""
    """Where its units are; '' for a crontab."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Its files by name; of a crontab, our block of it."""

    @property
    def program(self) -> str:
        """The path of the program that it starts."""
        return next(filter(None, map(program_in, self.texts.values())), "")

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it starts, in the order of a day."""
        return tuple(each for each in COMMANDS if unit_name(each, "timer") in self.texts)


def user_units(environment: Mapping[str, str]) -> str:
    """Return the folder of a user's own units."""
    config = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '')}/.config"
    return f"{config}/systemd/user"


def has_systemd() -> bool:
    """Return whether systemd runs this machine."""
    return os.path.isdir(RUNS_SYSTEMD)


def lingers(user: str) -> bool:
    """Return whether a user's units run while the user is not logged in."""
    return os.path.exists(f"{LINGER}/{user}")


def linger_words(user: str) -> str:
    """Return the command after which a user's units run without a login."""
    return f"sudo loginctl enable-linger {user}"


def own_name() -> str:
    """Return the name of the user who runs this."""
    return pwd.getpwuid(os.geteuid()).pw_name


def units_in(folder: str) -> dict[str, str]:
    """Return the texts of the units in a folder that have a name of ours, by name.

    Also of those that others wrote; '' for one that this user may not read.
    """
    found = {}
    for name in all_names():
        with contextlib.suppress(PermissionError):  # of the folder: as if it had none
            path = Path(folder, name)
            if path.is_file():
                found[name] = ""
                found[name] = path.read_text("utf-8", "replace")
    return found


def installed_units() -> tuple[Schedule, ...]:
    """Return the schedules of systemd that this program wrote, this user's first."""
    places = {USER: user_units(os.environ), SYSTEM: SYSTEM_UNITS}
    found = []
    for kind, folder in places.items():
        ours = {name: text for name, text in units_in(folder).items() if text.startswith(MARK)}
        if ours:
            found.append(Schedule(kind, folder, ours))
    return tuple(found)


def read_crontab(host: Host) -> str:
    """Return this user's crontab, '' if there is none, or no cron."""
    told = host.run(Command(("crontab", "-l"), ANY_EXIT, LIMIT_S))
    return "" if told.exit_code else told.out


def crontab_to_change(host: LocalHost) -> str:
    """Return this user's crontab, with bytes that are no UTF-8 as surrogates; '' if there is none.

    Raises Refused if it cannot be read: what replaces it would be without the user's own lines.
    """
    heard: list[str] = []
    command = Command(("crontab", "-l"), ANY_EXIT, LIMIT_S)
    with host.pipe(command, lambda _stream, line: heard.append(line)) as pipe:
        content = pipe.stdout.read()
        code = pipe.finish()
    told = " ".join(heard)
    if code and not NO_CRONTAB.search(told):
        raise Refused(
            f"This user's crontab cannot be read: {ended(told or f'exit code {code}')} Nothing "
            "was changed."
        )
    return "" if code else content.decode("utf-8", "surrogateescape")


def installed(host: Host) -> tuple[Schedule, ...]:
    """Return every schedule that this program wrote for this user or for the system."""
    block = block_in(read_crontab(host))
    return (*installed_units(), *((Schedule(CRON, texts={CRON: block}),) if block else ()))


def has_line_of_owner(host: Host) -> bool:
    """Return whether the owner starts backups: a line of a crontab, or a unit of ours in name."""
    name = unit_name(BACKUP, "timer")
    is_unit = any(name in units_in(each) for each in (user_units(os.environ), SYSTEM_UNITS))
    return is_unit or has_own_line(read_crontab(host))


def ask_systemd(host: Host, schedule: Schedule) -> tuple[Scheduled, ...]:
    """Return what systemd knows of each task; raises StepFailed if it does not answer."""
    names = (unit_name(each, kind) for each in schedule.tasks for kind in ("timer", "service"))
    listener = unit_name(LISTEN)
    facts = show(
        host, schedule.kind, (*names, *((listener,) if listener in schedule.texts else ()))
    )
    found = [_scheduled(each, schedule, facts) for each in schedule.tasks]
    if listener in facts:
        known = facts[listener]
        found.append(
            Scheduled(
                LISTEN,
                "always",
                is_enabled=_is_enabled(known),
                is_active=known.get("ActiveState") == "active",
            )
        )
    return tuple(found)


def looks_hourly(host: Host) -> bool:
    """Return whether a schedule of ours looks at the stack each hour; False without an answer."""
    try:
        found = installed(host)
    except StepFailed:
        return False
    for each in found:
        block = each.texts.get(CRON, "")
        if MONITOR in (*each.tasks, *(timer.task for timer in timers_in(block))):
            return True
    return False


def next_backup(host: Host) -> datetime | None:
    """Return when the schedule starts the next backup; None without one, or without an answer."""
    if not has_systemd():
        now = datetime.now().astimezone()
        timers = timers_in(block_in(read_crontab(host)))
        return next((each.next_run(now) for each in timers if each.task == BACKUP), None)
    timer = unit_name(BACKUP, "timer")
    for schedule in installed_units():
        if timer in schedule.texts:
            try:
                known = show(host, schedule.kind, (timer,)).get(timer, {})
            except StepFailed:
                return None
            return _time(known.get("NextElapseUSecRealtime", ""))
    return None


def show(host: Host, kind: str, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return what systemd knows of units, by name; raises StepFailed if it does not answer."""
    words = ("env", "TZ=UTC", *systemctl(kind), "show", f"--property={','.join(_ASKED)}")
    told = host.run(Command((*words, *names), ANY_EXIT, LIMIT_S))
    if told.exit_code:
        user = own_name()
        off = kind == USER and not lingers(user)
        fix = f" It runs only while you are logged in: {linger_words(user)}" if off else ""
        raise StepFailed(f"systemd does not answer: {ended(told.last_line)}{fix}")
    blocks = (dict(e.split("=", 1) for e in each.splitlines()) for each in told.out.split("\n\n"))
    return {each["Id"]: each for each in blocks if "Id" in each}


def systemctl(kind: str) -> tuple[str, ...]:
    """Return the words that reach the systemd of a kind, also from a login that knows none."""
    if kind == SYSTEM:
        return ("systemctl",)
    return ("env", f"XDG_RUNTIME_DIR=/run/user/{os.geteuid()}", "systemctl", "--user")


def ask_cron(schedule: Schedule, runs: RunRecords, now: datetime) -> tuple[Scheduled, ...]:
    """Return the tasks of our block of a crontab, and how they ended by their own records."""
    return tuple(_by_cron(each, runs, now) for each in timers_in(schedule.texts[CRON]))


def _by_cron(timer: Timer, runs: RunRecords, now: datetime) -> Scheduled:
    known, begins = runs.last(timer.task), timer.next_run(now)
    if known is None or known.is_running:
        return Scheduled(timer.task, timer.every, begins)
    event = known.event
    is_good = event.exit_code in (ExitCode.GOOD, ExitCode.WARNINGS)
    result = "success" if is_good else "signal" if event.exit_code == KILLED else "exit-code"
    code = abs(event.exit_code)
    began, ended = event.began.astimezone(), event.ended.astimezone()
    return Scheduled(timer.task, timer.every, begins, began, ended, result, code)


def _scheduled(task: str, schedule: Schedule, facts: Mapping[str, Mapping[str, str]]) -> Scheduled:
    timer = facts.get(unit_name(task, "timer"), {})
    service = facts.get(unit_name(task), {})
    ended = _time(service.get("ExecMainExitTimestamp", ""))
    return Scheduled(
        task,
        calendar_in(schedule.texts[unit_name(task, "timer")]),
        _time(timer.get("NextElapseUSecRealtime", "")),
        _time(timer.get("LastTriggerUSec", "")),
        ended,
        service.get("Result", "") if ended else "",
        int(service.get("ExecMainStatus") or 0) if ended else None,
        _is_enabled(timer),
        timer.get("ActiveState") == "active",
    )


def _is_enabled(known: Mapping[str, str]) -> bool:
    return known.get("UnitFileState") == "enabled"


def _time(text: str) -> datetime | None:
    """Return the time of `Tue 2026-12-01 13:00:00 UTC`, in local time; None for `n/a` or ''."""
    words = text.split()
    if len(words) != 4:  # noqa: PLR2004
        return None
    return datetime.fromisoformat(f"{words[1]}T{words[2]}+00:00").astimezone()
