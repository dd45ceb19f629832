"""The schedule as `init` uses it: the time of the daily backup, and how it is installed."""

from __future__ import annotations

import re

from ...core.errors import ExitCode
from ...hosts.local import LocalHost
from ...reporting.report import Report
from ...settings.model import Settings
from .crontab import timers_in
from .installed import CRON, Schedule, installed
from .schedule import install, read_request
from .timetable import BACKUP
from .units import calendar_in, unit_name

_TIME = re.compile(r"\b(\d\d:\d\d)(:\d\d)?$")


def daily_time() -> str:
    """Return when this machine makes its daily backup, as HH:MM; '' if it does not."""
    return next(filter(None, map(_time_of, installed(LocalHost("/")))), "")


def install_daily(settings: Settings, at: str, report: Report) -> int:
    """Let this machine back up each day at HH:MM; return the exit code.

    A schedule that is there stays: it may have been installed with more flags.
    """
    if daily_time():
        report.write(
            "The schedule was not changed. To replace it, add its other flags, if you gave any: "
            f"inv schedule.install --at {at}"
        )
        return ExitCode.GOOD
    every = {"rehearse": "weekly", "verify": "monthly", "prune": "never"}
    return install(settings, read_request(at, every, "", {}), report)


def _time_of(schedule: Schedule) -> str:
    if schedule.kind == CRON:
        minutes = (e.minute for e in timers_in(schedule.texts[CRON]) if e.task == BACKUP)
        return next((f"{each // 60:02}:{each % 60:02}" for each in minutes), "")
    found = _TIME.search(calendar_in(schedule.texts.get(unit_name(BACKUP, "timer"), "")))
    return found[1] if found else ""
