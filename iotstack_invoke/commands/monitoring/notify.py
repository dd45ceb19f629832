"""Tests the notifiers, and tells of a unit of systemd that failed."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime

from ...core.errors import ExitCode, UsageError
from ...monitoring.run_event import RunEvent
from ...monitoring.run_records import SECOND, RunRecords
from ...reporting.report import Report
from ...settings.model import Settings
from ..setup.units import task_of
from .notifications import Notifications, notify_silent


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
    """Report that a unit failed, unless its run has reported that itself.

    systemd says which start of the unit it was (systemd.exec(5), $MONITOR_INVOCATION_ID).
    """
    task = task_of(unit)
    given = os.environ.get("MONITOR_INVOCATION_ID", "")
    result = os.environ.get("MONITOR_SERVICE_RESULT", "")
    ended = f"{result} {os.environ.get('MONITOR_EXIT_STATUS', '')}".strip()
    by_systemd = f"systemd: {ended}." if ended else ""
    for key in (task, f"{SECOND}{task}"):
        last = RunRecords(settings.stack.folder).last(key)
        if last is None or given not in ("", last.invocation):
            continue
        if notify_silent(settings, key, report, by_systemd):
            return ExitCode.GOOD
        if last.is_told and (last.code or given):  # it ended, and reported how
            return ExitCode.GOOD
    now = datetime.now(UTC)
    why = f"{unit} failed before it began its work. See why: journalctl -u {unit} -n 50"
    messages = tuple(filter(None, (why, by_systemd)))
    event = RunEvent(task, socket.gethostname(), now, now, ExitCode.FAILED, messages)
    Notifications(settings, report).notify_run(event, key=task)
    return ExitCode.GOOD
