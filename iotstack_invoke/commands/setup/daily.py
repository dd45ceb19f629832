"""The schedule as `init` uses it: the time of the daily backup, and how it is installed."""

from __future__ import annotations

from ...core.errors import ExitCode
from ...reporting.report import Report
from ...settings.model import Settings


def daily_time() -> str:
    """Return when this machine makes its daily backup, as HH:MM; '' if it does not."""
    return ""


def install_daily(settings: Settings, at: str, report: Report) -> int:  # noqa: ARG001
    """Let this machine back up each day at HH:MM; return the exit code."""
    report.write(f"To make a backup each day: inv schedule.install --at {at}")
    return ExitCode.GOOD
