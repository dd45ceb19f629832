"""The first run: asks few questions, writes hosts.toml, and begins what the answers ask for.

Run again, it changes what is answered differently, and nothing else. Nothing is written before
the last answer.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..backups.names import KINDS
from ..core.errors import ExitCode, IotstackError, Refused, StepFailed
from ..core.stack_folders import BACKUPS
from ..core.toml_text import read_toml
from ..reporting.report import Report
from ..settings.edit import with_table
from ..settings.model import Options, Settings, load_settings, read_settings
from .backup.backup import back_up
from .doctor.doctor import tell_findings
from .monitoring.brokers import try_own_broker
from .monitoring.watched_run import WatchedRun
from .setup.answers import Answers
from .setup.changes import changed_text, summary
from .setup.daily import daily_time, install_daily
from .setup.dialog import Dialog, open_dialog
from .setup.questions import YES, CurrentAnswers, InitFlags, gather_answers
from .setup.reach import make_usable
from .setup.settings_file import SettingsFile, settings_file

IN_HOME_ASSISTANT = "Home Assistant shows the backups, through the stack's own Mosquitto."


def set_up(
    settings: Settings,
    given: InitFlags,
    options: Options,
    report: Report,
    *,
    backs_up: bool,
    yes: bool,
) -> int:
    """Ask what flags do not say, write the settings, begin what they ask for.

    `backs_up`: make a backup at the end without asking. `yes`: ask nothing. Raises UsageError for
    a wrong or missing answer, and Refused if the file cannot be changed: then all is as before.
    """
    file = settings_file(settings, report.settings_file, os.environ)
    dialog = None if yes else open_dialog(report)
    current = CurrentAnswers(settings.stack.folder, file.parsed, daily_time(), file.has_answers)
    answers = gather_answers(given, current, dialog)
    if not _write(file, current, answers, given.mqtt, dialog, report):
        report.write("Nothing was written.")
        return ExitCode.REFUSED
    settings = load_settings(file.path)
    code = _schedule(settings, current.at, answers.at, report)
    report.write("\nWhat doctor finds:")
    code = tell_findings(settings, "", report, as_json=False) or code
    if answers.notify:
        report.write("To test the notification: inv notify --test")
    if not code and not backs_up and dialog and not _has_backup(settings):
        backs_up = dialog.agrees("Make the first backup now?")
    if backs_up:
        return _first_backup(settings, options, report) or code
    report.write("To make a backup: inv backup")
    return code


def _has_backup(settings: Settings) -> bool:
    """Return whether a backup was made here: then the next one is not the first."""
    folder = Path(settings.stack.folder, BACKUPS)
    return any(folder.glob(f"*.{KINDS['manifest']}"))


def _first_backup(settings: Settings, options: Options, report: Report) -> int:
    """Make a backup, and tell of it as of each other: Home Assistant shows it at once."""
    if not settings.monitoring:
        return back_up(settings, None, options, report)
    run, code = WatchedRun(settings, "backup", "", report), int(ExitCode.FAILED)
    run.begin()
    try:
        code = back_up(settings, None, options, report)
    except IotstackError as error:
        code = error.exit_code
        raise
    finally:
        run.end(code)
    return code


def _schedule(settings: Settings, before: str, at: str, report: Report) -> int:
    """Let the machine back up at another time than before; return the exit code."""
    if before and not at:
        report.write(f"Backups at {before} go on. To end them: inv schedule.remove")
    return install_daily(settings, at, report) if at not in ("", before) else ExitCode.GOOD


def _write(
    file: SettingsFile,
    current: CurrentAnswers,
    answers: Answers,
    mqtt: str,
    dialog: Dialog | None,
    report: Report,
) -> bool:
    """Write the settings, and return whether the user agreed; a new vault is tested before."""
    text = changed_text(file.text, current, answers)
    planned = read_settings(read_toml(text), file.path)
    if answers.vault:
        make_usable(planned.vaults[-1], dialog, report)
    broker = trouble = ""
    if mqtt == YES or not (mqtt or current.has_file):
        shown_text = with_table(text, "mqtt", IN_HOME_ASSISTANT)
        broker, trouble = _try_broker(read_settings(read_toml(shown_text), file.path))
        text = shown_text if broker else text
    if mqtt == YES and not broker:
        raise Refused(trouble or "--mqtt yes: the stack has no running container of Mosquitto.")
    report.write(f"\n{file.path}")
    for line in summary(current, answers):
        report.write(line)
    if broker:
        report.write(f"  shown    in Home Assistant, through {broker}")
    if text == file.text and file.content is not None:
        report.write("It says so already and is not changed.")
        return True
    if dialog and not dialog.agrees("Write it?"):
        return False
    file.replace_by(text, has_secret=answers.notify is not None and "url" in answers.notify)
    report.write("Written.")
    if trouble:
        report.write(f"Home Assistant does not show the backups yet. {trouble}")
    return True


def _try_broker(settings: Settings) -> tuple[str, str]:
    """Return the container of the stack's broker if it can be used, and else why not."""
    try:
        broker = try_own_broker(settings)
    except StepFailed as error:
        return "", str(error)
    return broker.container if broker else "", ""
