"""The schedule as `init` uses it: the time of the daily backup, and how it is installed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...core.errors import ExitCode
from ...hosts.local import LocalHost
from ...reporting.report import Report
from ...settings.model import Settings
from .crontab import timers_in
from .installed import CRON, Schedule, installed
from .schedule import install, read_request
from .timetable import BACKUP, NEVER, WEEKLY, Program, read_timers
from .units import Owner, calendar_in, render, unit_name

_TIME = re.compile(r"\b(\d\d:\d\d)(:\d\d)?$")
_CREDENTIAL = "LoadCredential="


def daily_time() -> str:
    """Return when this machine makes its daily backup, as HH:MM; '' if it does not."""
    return next(filter(None, map(_time_of, installed(LocalHost("/")))), "")


def install_daily(settings: Settings, at: str, report: Report) -> int:
    """Let this machine back up each day at HH:MM; return the exit code.

    Old copies are removed each week, if a vault has rules for them. A schedule that is there stays
    if it was not made by `init`, so that none of its flags is lost: then it is a warning.
    """
    has_rules = any(each.policy for each in settings.vaults)
    prune = WEEKLY if has_rules else NEVER
    for each in installed(LocalHost("/")):
        before = _time_of(each)
        if not before:
            continue
        made = next((p for p in (NEVER, WEEKLY) if _is_made_so(each, before, _every(p))), "")
        if not made:
            report.warn(
                f"Backups at {before} go on: the schedule was installed with other flags. To "
                f"replace it, add them to: inv schedule.install --at {at}"
            )
            return ExitCode.WARNINGS
        prune = made
    return install(settings, read_request(at, _every(prune), "", {}), report)


def _every(prune: str) -> Mapping[str, str]:
    return {"rehearse": WEEKLY, "verify": "monthly", "prune": prune}


def _is_made_so(schedule: Schedule, at: str, every: Mapping[str, str]) -> bool:
    """Return whether a schedule starts these tasks at these times, and says nothing more."""
    timers = read_timers(at, every)
    if schedule.kind == CRON:
        wanted = {(each.task, each.every) for each in timers}
        return {(each.task, each.every) for each in timers_in(schedule.texts[CRON])} == wanted
    usual = render(timers, Program(("/",)), Owner(is_system=False))
    there = {name: calendar_in(text) for name, text in schedule.texts.items()}
    more = any(_CREDENTIAL in text for text in schedule.texts.values())
    return not more and there == {name: calendar_in(text) for name, text in usual.items()}


def _time_of(schedule: Schedule) -> str:
    if schedule.kind == CRON:
        minutes = (e.minute for e in timers_in(schedule.texts[CRON]) if e.task == BACKUP)
        return next((f"{each // 60:02}:{each % 60:02}" for each in minutes), "")
    found = _TIME.search(calendar_in(schedule.texts.get(unit_name(BACKUP, "timer"), "")))
    return found[1] if found else ""
