"""The first run: asks few questions, writes hosts.toml, and begins what the answers ask for.

Run again, it changes what is answered differently, and nothing else. Nothing is written before
the last answer.
"""

from __future__ import annotations

import os

from ..core.errors import ExitCode
from ..core.toml_text import read_toml
from ..reporting.report import Report
from ..settings.model import Options, Settings, load_settings, read_settings
from .backup.backup import back_up
from .doctor.doctor import tell_findings
from .setup.answers import Answers
from .setup.changes import changed_text, summary
from .setup.daily import daily_time, install_daily
from .setup.dialog import Dialog, open_dialog
from .setup.questions import CurrentAnswers, InitFlags, gather_answers
from .setup.reach import make_usable
from .setup.settings_file import SettingsFile, settings_file


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
    if not _write(file, current, answers, dialog, report):
        report.write("Nothing was written.")
        return ExitCode.REFUSED
    settings = load_settings(file.path)
    code = _schedule(settings, current.at, answers.at, report)
    report.write("\nWhat doctor finds:")
    code = tell_findings(settings, "", report, as_json=False) or code
    if answers.notify:
        report.write("To test the notification: inv notify --test")
    if not code and not backs_up and dialog:
        backs_up = dialog.agrees("Make the first backup now?")
    if backs_up:
        return back_up(settings, None, options, report) or code
    report.write("To make a backup: inv backup")
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
    dialog: Dialog | None,
    report: Report,
) -> bool:
    """Write the settings, and return whether the user agreed; a new vault is tested before."""
    text = changed_text(file.text, current, answers)
    planned = read_settings(read_toml(text), file.path)
    if answers.vault:
        make_usable(planned.vaults[-1], dialog, report)
    report.write(f"\n{file.path}")
    for line in summary(current, answers):
        report.write(line)
    if text == file.text and file.content is not None:
        report.write("It says so already and is not changed.")
        return True
    if dialog and not dialog.agrees("Write it?"):
        return False
    file.replace_by(text, has_secret=answers.notify is not None and "url" in answers.notify)
    report.write("Written.")
    return True
