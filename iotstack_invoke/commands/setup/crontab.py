"""The lines of a crontab, for a machine without systemd. Pure: timers in, text out.

A block between two comments is ours; everything else in the crontab stays as it is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from .timetable import (
    COMMANDS,
    DAILY,
    DAY_MINUTES,
    HOURLY,
    MONTHLY,
    WEEKLY,
    Program,
    Timer,
)
from .units import PROGRAM

BEGIN = "# BEGIN iotstack: schedule.install replaces these lines, schedule.remove removes them"
END = "# END iotstack"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What a login has; cron's own has neither /usr/local/bin nor the folders of root."""
_BLOCK = re.compile(rf"^{re.escape(BEGIN)}\n.*?^{re.escape(END)}\n?", re.DOTALL | re.MULTILINE)
_DAYS = {DAILY: "* * *", WEEKLY: "* * 0", MONTHLY: "1 * *"}
_LINE = re.compile(r"(\d+) (\d+|\*) (\* \* \*|\* \* 0|1 \* \*) PATH=.*")
_OWN = re.compile(r"^[^#\n]*\b(?:iotstack|inv)['\"]? backup\b", re.MULTILINE)


def render(timers: Iterable[Timer], program: Program, seed: int) -> str:
    """Return the block for these timers.

    `seed`: a number of this machine. cron knows no random delays, so each task begins later by a
    part of its delay that this number decides.
    """
    lines = (_line(each.later(seed), program) for each in timers)
    return "\n".join((BEGIN, f"{PROGRAM}{program.path}", *lines, END, ""))


def _line(timer: Timer, program: Program) -> str:
    hour, minute = divmod(timer.minute, 60)
    when = f"{minute} *" if timer.every == HOURLY else f"{minute} {hour}"
    days = _DAYS.get(timer.every, _DAYS[DAILY])
    settings = f"IOTSTACK_SETTINGS={shlex.quote(program.settings)} " if program.settings else ""
    alone = f"flock --no-fork {shlex.quote(program.path)} " if timer.is_alone else ""
    command = f"{alone}{shlex.join((*program.words, *COMMANDS[timer.task]))}"
    line = f"PATH={PATH} {settings}{command}".replace("%", r"\%")
    return f"{when} {days} {line}"


def replaced(crontab: str, block: str) -> str:
    """Return a crontab with another block, or none if it is empty, in place of ours."""
    if block_in(crontab):
        return _BLOCK.sub(lambda _: block, crontab, count=1)
    end = "\n" if crontab and block and not crontab.endswith("\n") else ""
    return f"{crontab}{end}{block}"


def block_in(crontab: str) -> str:
    """Return our block of a crontab, '' for none."""
    found = _BLOCK.search(crontab)
    return found[0] if found else ""


def has_own_line(crontab: str) -> bool:
    """Return whether a line that its owner wrote makes backups."""
    return bool(_OWN.search(replaced(crontab, "")))


def timers_in(block: str) -> tuple[Timer, ...]:
    """Return the timers of a block, with the time at which each begins."""
    return tuple(filter(None, map(_read, block.splitlines())))


def _read(line: str) -> Timer | None:
    found = _LINE.fullmatch(line)
    if not found:
        return None
    try:
        words = shlex.split(found[0])
    except ValueError:  # changed by hand
        return None
    named = (name for name, each in COMMANDS.items() if tuple(words[-len(each) :]) == each)
    task = next(named, None)
    if task is None:
        return None
    every = next(name for name, days in _DAYS.items() if days == found[3])
    if found[2] == "*":
        return Timer(task, HOURLY, int(found[1]))
    return Timer(task, every, (int(found[2]) * 60 + int(found[1])) % DAY_MINUTES)
