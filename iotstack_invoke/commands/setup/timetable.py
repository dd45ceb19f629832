"""What runs by itself, and when. Pure: flags in, timers out.

Not for: how systemd or cron is told (units.py, crontab.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from ...core.dataclass import dataclass
from ...core.errors import UsageError
from ...core.units import read_duration

BACKUP = "backup"
MONITOR = "monitor"
LISTEN = "listen"
DAILY, WEEKLY, MONTHLY, HOURLY, NEVER = "daily", "weekly", "monthly", "hourly", "never"
EVERY = (DAILY, WEEKLY, MONTHLY, NEVER)
COMMANDS: Mapping[str, tuple[str, ...]] = {
    BACKUP: ("backup",),
    "rehearse": ("rehearse",),
    "verify": ("verify", "--all"),
    "prune": ("prune", "--at", "all", "--yes"),
    MONITOR: ("monitor", "--no-vaults"),
}
"""The command of each task, in the order of a day: each begins an hour after the one before."""
PURPOSES: Mapping[str, str] = {
    BACKUP: "back up the stack",
    "rehearse": "rehearse a restore",
    "verify": "read the backups again",
    "prune": "remove old backups",
    MONITOR: "look for problems",
    LISTEN: "wait for Home Assistant's button",
}
DAY_MINUTES = 24 * 60
MONITOR_DELAY_S = 600
SUNDAY = 6
FIRST = 1
LONGEST_MONTH = 31
MOST_DELAY = timedelta(hours=12)
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Timer:
    """One task that runs by itself."""

    task: str
    every: str
    minute: int = 0
    """The minute of the day at which it begins; of an hourly task, that of the hour."""
    delay_s: int = 0
    """It begins at most this much later: always as much on one machine."""

    @property
    def is_alone(self) -> bool:
        """Whether it waits for another task of the schedule, and lets that one wait."""
        return self.task != MONITOR

    def later(self, seconds: int) -> Timer:
        """Return the same timer, begun this much later, for who knows no delays."""
        minutes = seconds % (self.delay_s + 1) // 60
        whole = 60 if self.every == HOURLY else DAY_MINUTES
        return Timer(self.task, self.every, (self.minute + minutes) % whole)

    def next_run(self, now: datetime) -> datetime:
        """Return when it begins next, without its delay, in the time zone of `now`."""
        if self.every == HOURLY:
            begin = now.replace(minute=self.minute, second=0, microsecond=0)
            return begin if begin > now else begin + timedelta(hours=1)
        hour, minute = divmod(self.minute, 60)
        today = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        days = (today + timedelta(days=each) for each in range(LONGEST_MONTH + 1))
        return next(each for each in days if each > now and self._is_on(each))

    def _is_on(self, day: datetime) -> bool:
        if self.every == WEEKLY:
            return day.weekday() == SUNDAY
        return day.day == FIRST or self.every != MONTHLY


def read_timers(at: str, every: Mapping[str, str], random_delay: str = "") -> tuple[Timer, ...]:
    """Return the timers that flags ask for, in the order of COMMANDS.

    `every`: how often each task runs that is neither the backup nor the monitor. Raises
    UsageError, which says what is allowed.
    """
    found = _TIME.fullmatch(at.strip())
    if not found:
        raise UsageError(f"--at {at}: must be a time of day, such as 03:00.")
    delay = read_duration(random_delay) if random_delay else timedelta()
    if delay > MOST_DELAY:
        raise UsageError(f"--random-delay {random_delay}: must be at most 12h.")
    for task, often in every.items():
        if often not in EVERY:
            raise UsageError(f"--{task} {often}: use one of {', '.join(EVERY)}.")
    minute, delay_s = int(found[1]) * 60 + int(found[2]), int(delay.total_seconds())
    timers = [Timer(MONITOR, HOURLY, 0, MONITOR_DELAY_S)]
    for hours, task in reversed(tuple(enumerate(COMMANDS))[:-1]):
        often = {BACKUP: DAILY, **every}.get(task, NEVER)
        if often != NEVER:
            timers.insert(0, Timer(task, often, (minute + 60 * hours) % DAY_MINUTES, delay_s))
    return tuple(timers)


@dataclass(frozen=True, slots=True)
class Program:
    """How this program is started by something that knows neither its folder nor its settings."""

    words: tuple[str, ...]
    """The program, by its absolute path, and the words before a task's name."""
    settings: str = ""
    """The file with its settings, '' if it finds it by itself or has none."""
    home: str = ""
    """Its HOME, if what starts it sets none."""

    @property
    def path(self) -> str:
        """The file that must be there for it to run."""
        return self.words[0]
