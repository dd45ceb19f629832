"""Delivers what the vaults lack of this machine's backups, on request.

lock → undo what a dead run left → list the vaults → deliver → one table. Not for: what is
delivered, and how (replication.py).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime

from ...backups.sets import BackupSet, State
from ...core.errors import ExitCode, Interrupted, NotFound, UsageError
from ...core.nearest import did_you_mean
from ...core.processes import signals_raised
from ...engine.executor import Run, RunResult
from ...engine.journal import Journal
from ...engine.plan import Plan, PlannedJob
from ...environment.environment import Environment, RecordFile
from ...reporting.report import CompositeReporter, Report, age_text, size_text
from ...settings.model import Settings
from ..undo.crash_recovery import recover_here
from ..undo.interrupted import Owing
from .replication import (
    Delivery,
    compare_vaults,
    damaged_here_told,
    deliver,
    lacking_in,
    log_plan,
    plan_for,
)

JOBS_AT_ONCE = 2
NOT_DELIVERED = {
    State.UNPROVEN: "without a manifest",
    State.UNFINISHED: "unfinished (to resume: inv backup --runtag)",
}


def sync(settings: Settings, asked: Sequence[str], report: Report, *, dry_run: bool) -> int:
    """Deliver to the vaults what they lack, and return the exit code.

    3 if a vault still lacks a set that it should have, or one here is damaged. Raises UsageError
    for an unknown vault, NotFound on a machine without backups, Busy while another run holds the
    lock.
    """
    environment = Environment.of(settings)
    try:
        names = _chosen(environment, asked)
        if not os.path.isdir(environment.backups):
            raise NotFound(
                f"{environment.backups} does not exist, so this machine has no backups to copy. "
                "For another machine: inv backup --host NAME, or inv pull --host NAME."
            )
        with signals_raised(), contextlib.nullcontext() if dry_run else environment.held("sync"):
            journal = Owing.of_site(environment).journal_of_backups()
            if not dry_run:
                recover_here(environment, journal, report)
            checks = environment.checks.newest()
            here = environment.sets(checks)
            found = compare_vaults(environment, names, here, checks)
            if dry_run:
                _show_plan(environment, found, report)
            else:
                _deliver(environment, found, journal, report)
    except Interrupted as error:
        report.fail(
            f"Sync: {error}. Incomplete files keep partial names in a vault. To resume, run the "
            "same command again."
        )
        return error.exit_code
    finally:
        environment.close()
    return _close(environment, found, here, report, dry_run=dry_run)


def _chosen(environment: Environment, asked: Sequence[str]) -> tuple[str, ...]:
    if not environment.vaults:
        raise UsageError("hosts.toml has no vaults, so there is nothing to copy to.")
    for each in asked:
        if each not in environment.vaults:
            known = ", ".join(environment.vaults)
            near = did_you_mean(each, environment.vaults)
            raise UsageError(f"--vault {each}: unknown; known vaults: {known}.{near}")
    return tuple(each for each in environment.vaults if not asked or each in asked)


def _deliver(
    environment: Environment, found: Sequence[Delivery], journal: Journal, report: Report
) -> None:
    def do(plan: Plan, records: RecordFile) -> RunResult:
        return Run(
            plan,
            environment.storages,
            store=records,
            journal=journal,
            reporter=CompositeReporter(report),
            jobs_at_once=JOBS_AT_ONCE,
            keep_going=True,
        ).do()

    report.start_bars()
    try:
        deliver(environment, found, do, report.tell)
    finally:
        report.stop_bars()


def _show_plan(environment: Environment, found: Sequence[Delivery], report: Report) -> None:
    """Print the jobs that would deliver what is lacking."""
    planned: list[PlannedJob] = []
    for backup, mine in lacking_in(found):
        age = age_text(backup.made(), datetime.now(UTC))
        size = size_text(backup.size_bytes)
        for each in mine:
            report.write(f"{each.name} is missing {backup.runtag} ({age}, {size})")
        planned += plan_for(
            environment, backup, mine, RecordFile(environment, backup.runtag)
        ).planned
        if "log" in backup.files:
            served = [each.name for each in mine if backup.runtag in each.lacking]
            planned += log_plan(environment, backup.runtag, served).planned
    report.plan(Plan(tuple(planned)))


def _close(
    environment: Environment,
    found: Sequence[Delivery],
    here: Sequence[BackupSet],
    report: Report,
    *,
    dry_run: bool,
) -> ExitCode:
    """Report the outcome, and return the exit code."""
    rows = [
        (
            each.name,
            str(len(each.lacking if dry_run else each.delivered)),
            str(len(each.there)) if each.looked else "?",
            str(len(each.passed_over)) if each.looked else "?",
            str(len({*each.refused, *each.failed, *(() if dry_run else each.owed)})),
        )
        for each in found
    ]
    titles = ("vault", "to deliver" if dry_run else "delivered", "there already", "not kept there")
    report.table((*titles, "failed"), rows, right=(1, 2, 3, 4))
    for each in found:
        for runtag, why in each.passed_over.items():
            report.write(
                f"{runtag} is not copied to {each.name}, whose policy would remove it: {why}"
            )
    for state, why in NOT_DELIVERED.items():
        runtags = [each.runtag for each in here if each.state is state]
        if runtags:
            report.write(f"Not copied, because {why}: {', '.join(runtags)}")
    problems = [line for each in found for line in (*each.refusals, *each.troubles)]
    problems += damaged_here_told(environment, found)
    if not dry_run:
        problems += [each.owed_line for each in found if each.owed]
    for line in problems:
        report.fail(line)
    return ExitCode.WARNINGS if problems else ExitCode.GOOD
