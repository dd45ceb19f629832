"""Tells people that the settings file can no longer be used, so that nothing runs by it.

The people are those of the last settings that were good. A failure here is a warning.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace
from datetime import UTC, datetime

from ...core.errors import ExitCode, Interrupted, SettingsError
from ...core.units import read_duration
from ...hosts.inspect import host_name
from ...hosts.local import LocalHost
from ...monitoring.kept_settings import KeptSettings
from ...monitoring.run_event import RunEvent
from ...monitoring.stack_facts import Problem
from ...monitoring.troubles import PROBLEM
from ...reporting.report import Report, as_called
from .monitor import MAX_AGE, look
from .notifications import Notifications

KEY = "settings"
"""Of the problem: the same for all tasks, so that one message is sent."""


def tell_of_settings(error: SettingsError, task: str, report: Report) -> None:
    """Tell people why a task did not run; at a terminal, its owner reads the error."""
    kept = KeptSettings(error.file).read() if error.file else None
    if kept is None or sys.stdin.isatty():
        return
    now = datetime.now(UTC)
    name = os.path.basename(error.file)
    text = f"Nothing is backed up: {name} cannot be used. {error}\nCheck it: inv config.check"
    event = RunEvent(task, socket.gethostname(), now, now, ExitCode.USAGE, (as_called(text),))
    problem = Problem(KEY, text, is_failure=True)
    notifications = Notifications(kept, report)
    try:
        notifications.ping_end(event, "")
        named = replace(problem, key=f"{PROBLEM}{KEY}")
        notifications.notify_problem(named, host_name(LocalHost("/")))
        look(kept, read_duration(MAX_AGE), report, look_at_vaults=False, more=(problem,))
    except Interrupted:
        raise
    except Exception as failure:  # noqa: BLE001 - the error itself must still be printed
        report.warn(f"People could not be told of it: {failure}")
