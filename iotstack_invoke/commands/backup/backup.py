"""A requested backup: its name, and its plan for a dry run.

The run itself is in backup_run.py, which a dry run does not import.
"""

from __future__ import annotations

from datetime import datetime

from ...core.errors import ExitCode, Interrupted, RuntagError
from ...core.runtag import LATEST, Runtag, default_runtag, read_runtag
from ...environment.environment import Environment, open_environment
from ...environment.hooks import hook_lines
from ...environment.stack_host import journal_paths
from ...reporting.report import Report
from ...settings.model import Options, Settings
from ..shared.vault_listing import list_vaults
from ..vaults.replication import compare_vaults
from .preflight import Start, free_of, refuse_folder


def choose_runtag(asked: str | None, now: datetime) -> Runtag:
    """Return the requested runtag, or the one of this minute; raises RuntagError."""
    if asked == LATEST:
        raise RuntagError(f"'{LATEST}' means the newest backup, so it cannot be a name.")
    return default_runtag(now) if asked is None else read_runtag(asked)


def back_up(
    settings: Settings, asked: str | None, options: Options, report: Report, host: str = ""
) -> int:
    """Make a backup and return the exit code; raises IotstackError if it was not begun.

    `asked`: its runtag; None for the one of this minute, or the next free one after it. `host` is
    one of the settings' whose stack is backed up; if it is empty, this machine.
    """
    runtag, by_clock = choose_runtag(asked, datetime.now().astimezone()), asked is None
    try:
        with open_environment(settings, host) as environment:
            if options.dry_run:
                return _show_plan(environment, runtag, options, report, by_clock=by_clock)
            from .backup_run import run_backup

            return run_backup(environment, runtag, options, report, by_clock=by_clock)
    except Interrupted as error:
        report.fail(f"The backup was {error}. {error.left or 'It did not start.'}")
        return error.exit_code


def _show_plan(
    environment: Environment, runtag: Runtag, options: Options, report: Report, *, by_clock: bool
) -> ExitCode:
    """Print the plan; raises Refused if the backup would be refused."""
    refuse_folder(environment)
    if environment.host.stat(journal_paths(environment.settings.stack.folder)):
        from ..undo.interrupted import Owing  # imports the rules of a restore, rarely needed here

        Owing.of_site(environment).tell_owed(report)
    listed = list_vaults(environment)
    if by_clock:
        runtag = free_of(
            runtag, (environment.host.listdir(environment.backups), *listed.values()), report
        )
    start = Start.of(environment, runtag, options, listed, dry=True)
    for note in (*start.notes, *start.facts.warnings):
        report.warn(note)
    for each in start.facts.left_out:
        report.write(f"left out: {each.what}: {each.reason}")
    for line in hook_lines(environment.settings.hooks, "backup"):
        report.write(line)
    checks = environment.checks.newest()
    for late in compare_vaults(
        environment, environment.vaults, environment.sets(), checks, skipped=runtag
    ):
        if late.lacking and not late.error:
            report.write(f"also copied to {late.name}: {', '.join(late.lacking)}")
    report.plan(start.plan, also_settled=options.why)
    return ExitCode.GOOD
