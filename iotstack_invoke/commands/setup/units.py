"""The units for systemd. Pure: timers in, the text of each file out.

docs/decisions/0044-what-systemd-may-do.md says why each line is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ...core.dataclass import dataclass
from .timetable import (
    COMMANDS,
    DAILY,
    HOURLY,
    LISTEN,
    MONTHLY,
    PURPOSES,
    WEEKLY,
    Program,
    Timer,
)

MARK = "# Written by `schedule.install`, which replaces this file; `systemctl edit` adds to it."
PROGRAM = "# Program: "
UNIT_BEGINS = "iotstack-"
FAILED = f"{UNIT_BEGINS}failed@.service"
_DAYS = {HOURLY: "*-*-* *", DAILY: "*-*-*", WEEKLY: "Sun *-*-*", MONTHLY: "*-*-01"}
_QUOTED = {"\\": "\\\\", '"': '\\"', "%": "%%", "\n": "\\n", "\t": "\\t"}
NOT_IN_PROGRAMS = frozenset("'\"\\$")
CAPABILITIES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD"),
    *("CAP_SETFCAP", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"),
)
"""What root needs: files with all their attributes, the mounts that containers see, signals."""
AS_ROOT = (
    f"CapabilityBoundingSet={' '.join(CAPABILITIES)}",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "SystemCallFilter=~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap",
    "SystemCallErrorNumber=EPERM",
)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose units they are."""

    is_system: bool
    """They are the system's, not a user's own."""
    user: str = ""
    """The user whom the system's units run as, '' for root."""


def unit_name(task: str, kind: str = "service") -> str:
    """Return the name of a unit, such as `iotstack-backup.timer`."""
    return f"{UNIT_BEGINS}{task}.{kind}"


def task_of(unit: str) -> str:
    """Return the task that a unit starts: the opposite of unit_name."""
    return unit.rpartition(".")[0].removeprefix(UNIT_BEGINS)


def all_names() -> tuple[str, ...]:
    """Return the names of all units that a schedule may have."""
    of_tasks = (unit_name(task, kind) for task in COMMANDS for kind in ("service", "timer"))
    return (*of_tasks, unit_name(LISTEN), FAILED)


def render(
    timers: Iterable[Timer],
    program: Program,
    owner: Owner,
    *,
    listens: bool = False,
    credentials: Iterable[str] = (),
) -> dict[str, str]:
    """Return the text of each unit by its name.

    `credentials`: pairs NAME:FILE; systemd gives the files to the runs, as root reads them.
    """
    common = tuple(_common(program, owner, credentials))
    found = {}
    for each in timers:
        found[unit_name(each.task, "service")] = _service(each, program, owner, common)
        found[unit_name(each.task, "timer")] = _timer(each)
    if listens:
        found[unit_name(LISTEN)] = _listener(program, owner, common)
    found[FAILED] = _unit(
        "report that %i failed",
        Service=(*common, "Type=oneshot", f"ExecStart={_words(program, 'notify', '--unit')} %i"),
    )
    return {name: f"{MARK}\n{PROGRAM}{program.path}\n\n{text}" for name, text in found.items()}


def program_in(text: str) -> str:
    """Return the path of the program that a unit or a crontab of ours starts, '' for none."""
    lines = (each for each in text.splitlines() if each.startswith(PROGRAM))
    return next(lines, "").removeprefix(PROGRAM)


def calendar_in(text: str) -> str:
    """Return the OnCalendar= of a timer, '' for none."""
    key = "OnCalendar="
    lines = (each for each in text.splitlines() if each.startswith(key))
    return next(lines, "").removeprefix(key)


def _service(timer: Timer, program: Program, owner: Owner, common: tuple[str, ...]) -> str:
    alone = f"flock --no-fork {_word(program.path)} " if timer.is_alone else ""
    return _unit(
        PURPOSES[timer.task],
        *_after(owner),
        f"OnFailure={FAILED.replace('@', '@%n')}",
        Service=(
            *common,
            "Type=oneshot",
            f"ExecStart={alone}{_words(program, *COMMANDS[timer.task])}",
            "SuccessExitStatus=3",
            "KillMode=process",
            "TimeoutStopSec=5min",
            *_hardened(owner),
        ),
    )


def _timer(timer: Timer) -> str:
    hour, minute = divmod(timer.minute, 60)
    time = f"{minute:02}:00" if timer.every == HOURLY else f"{hour:02}:{minute:02}:00"
    day = _DAYS[timer.every]
    delay = (f"RandomizedDelaySec={timer.delay_s}s", "FixedRandomDelay=true")
    return _unit(
        f"{PURPOSES[timer.task]}, {timer.every}",
        Timer=(
            f"OnCalendar={day}{':' if timer.every == HOURLY else ' '}{time}",
            "Persistent=true",
            *(delay if timer.delay_s else ()),
        ),
        Install=("WantedBy=timers.target",),
    )


def _listener(program: Program, owner: Owner, common: tuple[str, ...]) -> str:
    return _unit(
        PURPOSES[LISTEN],
        *_after(owner),
        Service=(
            *common,
            f"ExecStart={_words(program, LISTEN)}",
            "Restart=always",
            "RestartSec=1min",
            "KillMode=mixed",
            "SuccessExitStatus=143",  # of SIGTERM, when the backup that it started has ended
            "TimeoutStopSec=5min",
        ),
        Install=(f"WantedBy={'multi-user' if owner.is_system else 'default'}.target",),
    )


def _after(owner: Owner) -> Iterator[str]:
    if owner.is_system:  # a user's units know none of these
        yield "Wants=network-online.target"
        yield "After=network-online.target docker.service"


def _common(program: Program, owner: Owner, credentials: Iterable[str]) -> Iterator[str]:
    if owner.is_system and owner.user:
        yield f"User={owner.user}"
    elif owner.is_system and program.home:
        yield _variable("HOME", program.home)
    if program.settings:
        yield _variable("IOTSTACK_SETTINGS", program.settings)
    yield from (f"LoadCredential={each.replace('%', '%%')}" for each in credentials)


def _hardened(owner: Owner) -> tuple[str, ...]:
    """Return what takes rights that no run needs; of a user's own units none can."""
    if not owner.is_system:
        return ()
    return AS_ROOT[:1] if owner.user else AS_ROOT


def _variable(name: str, value: str) -> str:
    return f"Environment={_quoted(f'{name}={value}')}"


def _words(program: Program, *task: str) -> str:
    """Return a command line; systemd starts no program whose path has one of NOT_IN_PROGRAMS."""
    by = ("env",) if NOT_IN_PROGRAMS & {*program.path} else ()
    return " ".join(map(_word, (*by, *program.words, *task)))


def _word(text: str) -> str:
    """Return a word of a command line, in which systemd would replace `$NAME` and `%n`."""
    return _quoted(text).replace("$", "$$")


def _quoted(word: str) -> str:
    """Return a word as systemd reads it (systemd.service(5), Command lines)."""
    text = "".join(_QUOTED.get(each, each) for each in word)
    is_plain = text == word.replace("%", "%%") and word and not set(word) & set(" ';")
    return text if is_plain else f'"{text}"'


def _unit(purpose: str, *of_unit: str, **sections: Iterable[str]) -> str:
    parts: Mapping[str, Iterable[str]] = {
        "Unit": (f"Description=IOTstack: {purpose}", *of_unit),
        **sections,
    }
    sections_told = ("\n".join((f"[{title}]", *lines, "")) for title, lines in parts.items())
    return "\n".join(sections_told)
