"""What is wrong with the schedule of this machine, and how to fix it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import datetime

from ...core.errors import StepFailed
from ...hosts.base import Host
from ...monitoring.run_records import RunRecords
from ..setup.installed import (
    CRON,
    USER,
    Schedule,
    Scheduled,
    ask_cron,
    ask_systemd,
    has_line_of_owner,
    installed,
    linger_words,
    lingers,
    own_name,
)
from ..setup.timetable import BACKUP
from ..setup.units import unit_name
from ..shared.checks import Finding, failed, good, warning

TOPIC = "schedule"
INSTALL = "inv schedule.install"


def find_schedule(host: Host, runs: RunRecords) -> Iterator[Finding]:
    """Yield the findings of each schedule of this machine; a hint if it has none."""
    found = installed(host)
    if not found and has_line_of_owner(host):
        yield good(TOPIC, "a line of a crontab or a unit of your own starts backups")
    elif not found:
        yield warning(TOPIC, "none: backups run only when you start them", INSTALL)
    now, user = datetime.now().astimezone(), own_name()
    for each in found:
        stays_out = "" if each.kind != USER or lingers(user) else user
        try:
            is_cron = each.kind == CRON
            tasks = ask_cron(each, runs, now) if is_cron else ask_systemd(host, each)
        except StepFailed:
            if not stays_out:
                raise
            tasks = ()
        has_program = os.access(each.program, os.X_OK)
        yield from judge_schedule(each, tasks, has_program=has_program, stays_out=stays_out)


def judge_schedule(
    schedule: Schedule, tasks: Iterable[Scheduled], *, has_program: bool, stays_out: str = ""
) -> Iterator[Finding]:
    """Yield what is wrong with a schedule; if nothing is, its next backup.

    `stays_out`: the user without whose login nothing of it runs.
    """
    wrong = []
    if not has_program:
        wrong.append(failed(TOPIC, f"starts {schedule.program}, which cannot be run", INSTALL))
    if stays_out:
        found = f"runs only while {stays_out} is logged in"
        wrong.append(warning(TOPIC, found, linger_words(stays_out)))
    own = " --user" if schedule.kind == USER else ""
    known = {each.task: each for each in tasks}
    for task, each in known.items():
        if not (each.is_enabled and each.is_active):
            state = "not active" if each.is_enabled else "disabled"
            wrong.append(failed(TOPIC, f"{task} is {state} in systemd", INSTALL))
        if each.has_failed:
            log = f"journalctl{own} -u {unit_name(task)} shows why"
            log = f"run it again to see why: inv {task}" if schedule.kind == CRON else log
            wrong.append(warning(TOPIC, f"the last {task}: {each.outcome}", log))
    yield from wrong
    if not wrong:
        begins = known[BACKUP].next_run if BACKUP in known else None
        yield good(
            TOPIC, f"the next backup is at {begins:%Y-%m-%d %H:%M}" if begins else "runs now"
        )
