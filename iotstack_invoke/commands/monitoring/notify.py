"""Tests the notifiers, and tells of a unit of systemd that failed."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from ...core.errors import ExitCode, UsageError
from ...monitoring.run_event import RunEvent
from ...monitoring.run_records import RunRecords
from ...reporting.report import Report
from ...settings.model import Settings
from .notifications import Notifications, notify_killed

UNIT_BEGINS = "iotstack-"


def test_notifiers(settings: Settings, report: Report) -> int:
    """Send a test by each notifier, and print which worked; return 1 if one did not."""
    if not settings.monitoring.notify:
        raise UsageError(
            "No notifier is set up. Add a [[notify]] table to hosts.toml: "
            "docs/how-to/notifications.md has examples."
        )
    troubles = Notifications(settings, report).test()
    for name, trouble in troubles.items():
        if trouble:
            report.fail(trouble)
        else:
            report.write(f"{name}: sent")
    return ExitCode.FAILED if any(troubles.values()) else ExitCode.GOOD


def notify_unit(settings: Settings, unit: str, report: Report) -> int:
    """Tell that a unit failed, unless its run has told so itself."""
    task = unit.removesuffix(".service").removeprefix(UNIT_BEGINS)
    if notify_killed(settings, task, report):
        return ExitCode.GOOD
    last = RunRecords.of_stack(settings.stack.folder).last(task)
    if last and last.code:  # the run ended, and told itself how
        return ExitCode.GOOD
    now = datetime.now(UTC)
    told = f"{unit} failed before it began its work. See why: journalctl -u {unit} -n 50"
    event = RunEvent(task, os.uname().nodename, now, now, ExitCode.FAILED, (told,))
    Notifications(settings, report).notify_run(event)
    return ExitCode.GOOD
