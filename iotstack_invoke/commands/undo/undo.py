"""Undo: what a dead run left is undone, and the last restore on request."""

from __future__ import annotations

import contextlib
import os
import posixpath
import shlex
from collections.abc import Mapping, Sequence

from ...core.errors import ExitCode, Interrupted, NotFound, Refused, StepFailed, ended
from ...core.processes import signals_raised
from ...core.stack_folders import BACKUPS, RESTORE
from ...engine.journal import Journal, Owed, is_told, name_of, owed_in
from ...environment.stack_host import (
    Lock,
    StackHost,
    locked_target,
    open_target,
    require_stack,
    with_docker,
)
from ...hosts.base import Host
from ...hosts.inspect import read_text, refuse_read_only, stat_on, which_may_be_there
from ...hosts.local import LocalHost, words_of
from ...hosts.pasted import host_flag
from ...hosts.shutdown import blocked_if_local
from ...reporting.report import Report
from ...reporting.run_log import unfinished_log
from ...settings.model import Settings
from ...stack.compose_up import ComposeUp
from ...stack.stop_start import StopContainers, wait_for_orphans
from ...stack.swap import LeaveGone
from ...stack.volumes import MakeVolume
from ..shared.confirm import confirm
from ..shared.restore_id import change_in, is_stamp
from .change_logs import log_folder, log_path
from .expiry import GONE_MARK
from .gone import Fate, cannot_be_back, fates_of, lines_keeping_used, lines_without, paths_named
from .interrupted import GOING_BACK, Owing

BUT_GONE = ", except for the data that are gone"
BUT_TOLD = ", except for what the warnings say"

UNDOING = "undoing a restore"
"""The reason for which this machine refuses a shutdown meanwhile."""


def but_for(journal: Journal) -> str:
    """Return, as the end of a sentence, what differs from before after the undo."""
    return BUT_GONE if journal.gone else BUT_TOLD if journal.told else ""


def journal_of(settings: Settings, target: StackHost, lock: Lock | None = None) -> Journal:
    """Return the journal of a target; with `lock`, an undo waits for it and for orphans."""
    owing = Owing.of_target(settings, target)
    if lock is None:
        return owing.journal(target.journal)

    def settle() -> None:
        lock.hold_again()
        wait_for_orphans(target.host, target.guard)

    return owing.journal(target.journal, settle)


def recover(
    settings: Settings, target: StackHost, journal: Journal, report: Report
) -> tuple[str, ...]:
    """Undo what a dead run left on the target, after its last command ended.

    Returns the warnings, which were already shown.
    """
    owing = Owing.of_target(settings, target)
    return undo_owed(settings, owing, owing.make_private(report), journal, report)


def undo_owed(
    settings: Settings,
    owing: Owing,
    owed: Mapping[str, Sequence[str]],
    journal: Journal,
    report: Report,
) -> tuple[str, ...]:
    """Do the same with the pending undos that `owing` found."""
    lines = owing.undo_all(owed, journal, report)
    death = tell_death(settings, owing.host, lines, report, but_for(journal))
    return (*death, *journal.told)


def tell_death(
    settings: Settings, host: Host, lines: Sequence[str], report: Report, but: str = ""
) -> tuple[str, ...]:
    """Warn of a dead restore or reload that is undone now, end its log, return the warning.

    `but`: what of it is not restored.
    """
    change = change_in(lines)
    if change is None:
        return ()
    told = (
        f"Rolled back an interrupted run on {host.name}: {change}. The stack is in the state "
        f"before it{but}."
    )
    report.warn(told)
    stack = settings.stack.folder
    older = f"{log_folder(stack, host)}/{change.log}"  # without the host, as in earlier versions
    try:
        log = unfinished_log(log_path(stack, host, change)) or unfinished_log(older)
        if log:
            log.write("undo", told)
            log.finish(os.rename)
    except OSError as error:  # it may be root's
        left = f"Its log was not finished: {error.filename}: {words_of(error)}."
        report.warn(left)
        return (told, left)
    return (told,)


def not_finished(target: StackHost) -> str:
    """Return the message about an incomplete rollback, with the command that continues it."""
    return f"Rollback incomplete: run `{_undo_of(target)}` to continue."


def _undo_of(target: StackHost) -> str:
    here = isinstance(target.host, LocalHost)
    return f"inv undo{host_flag('' if here else target.name)}"


def what_is_left(target: StackHost, journal: Journal, undone: str) -> str:
    """Return what a failed change left: `undone` and what the journal tells, or what is pending.

    Or that this is unknown, if the journal cannot be read; each with the command to run. Raises
    Interrupted, which then says how to check it.
    """
    again = _undo_of(target)
    try:
        owed = read_text(target.host, target.journal)
    except Interrupted as error:
        error.left = f"Not checked whether everything is undone. To check: `{again}`"
        raise
    except StepFailed as error:
        return f"Cannot tell whether everything is undone: {ended(error)} To check: `{again}`"
    if owed:
        return not_finished(target)
    return " ".join((undone, *journal.told))


def undo(
    settings: Settings,
    host: str,
    report: Report,
    *,
    yes: bool = False,
    last_restore: bool = False,
    leave_gone: bool = False,
) -> int:
    """Undo an unfinished change; if there is none, the last restore or reload; return the code.

    With --yes a successful change is undone only with `last_restore`. If old data of it are gone,
    the rest is undone only with `leave_gone`.
    """
    left: list[str] = []
    try:
        return _undo(
            settings, host, report, left, yes=yes, last_restore=last_restore, leave_gone=leave_gone
        )
    except Interrupted as error:
        told = error.left or (left[-1] if left else "Nothing was changed.")
        report.fail(f"The undo was {error}. {told}")
        return error.exit_code


def _undo(
    settings: Settings,
    host: str,
    report: Report,
    left: list[str],
    *,
    yes: bool,
    last_restore: bool,
    leave_gone: bool,
) -> int:
    """Run it; `left` receives the message for a signal from then on."""
    with contextlib.ExitStack() as held:
        held.enter_context(signals_raised())
        target = held.enter_context(open_target(settings, host, without_docker=True))
        require_stack(target)
        _refuse_strange_folder(target)
        held.enter_context(locked_target(target, "undo"))
        journal, owing = journal_of(settings, target), Owing.of_target(settings, target)
        far = host_flag(host)
        again = f"inv undo{far} --last-restore"
        if owed := owing.make_private(report):
            with_docker(target)
            held.enter_context(blocked_if_local(target.host, UNDOING, target.as_root))
            left.append(not_finished(target))
            journal.leave_gone = leave_gone
            undo_owed(settings, owing, owed, journal, report)
            left.append("The interrupted run is undone: the stack is in the state before it.")
            report.write(
                "The interrupted run was undone. The stack is in the state before "
                f"it{but_for(journal)}."
            )
            if last_restore:
                report.write(f"Nothing else was undone. To undo a successful one: {again}")
            return ExitCode.WARNINGS if journal.told else ExitCode.GOOD
        kept = _last_journal(target)
        if not kept:
            raise NotFound(
                f"On {target.name} no restore or reload can be undone.{_other_machine(target)}"
            )
        replaced = _folder(kept)
        owing.believe(kept)
        lines = owing.lines(kept)
        change = change_in(lines) or replaced
        if yes and not last_restore:
            raise NotFound(
                f"There is nothing to undo on {target.name}: the last change, {change}, "
                f"succeeded. Nothing was changed. To go back to before it anyway: {again} --yes"
            )
        with_docker(target)
        used = f"{target.folder}/{RESTORE}/previous-{replaced}-undone"
        _refuse_unreadable(target, journal.at(kept), lines)
        owing.mark_new(journal.at(kept), lines, kept=True)
        lines, gone = _lines_back(target, str(change), lines, "" if leave_gone else again)
        _tell(target, f"This undoes {change}.", used, lines, gone, report)
        if not yes:
            confirm(host, "undo it", "--yes" if last_restore else "--last-restore --yes")
        held.enter_context(blocked_if_local(target.host, UNDOING, target.as_root))
        # From here on it is a restore that did not end: it is undone in any case.
        with target.host.create(f"{kept}.undo") as stream:
            stream.write("\n".join(lines).encode())
        target.host.rename(f"{kept}.undo", kept)
        left.append(not_finished(target))
        target.host.rename(kept, target.journal)  # atomic: never both of them, never none
        with report.waiting(GOING_BACK):
            wait_for_orphans(target.host, target.guard)
            journal.recover(lines)
        journal.gone = bool(gone)
        left.append(
            f"Everything was undone before that: the stack is in the state before {change}."
        )
        report.write(
            f"Undone. The stack on {target.name} is in the state before "
            f"{change}{but_for(journal)}. The data from since then are in {used} (or in a folder "
            f"of that name on another disk). To see how long they stay: inv undo --list{far}"
        )
        for text in journal.told:
            report.warn(text)
        return ExitCode.WARNINGS if journal.told else ExitCode.GOOD


def _other_machine(target: StackHost) -> str:
    """Return a hint for a user at a laptop who means the Pi: here Docker does not run."""
    here = isinstance(target.host, LocalHost)
    return " For another machine: --host NAME." if here and target.no_docker else ""


def _refuse_strange_folder(target: StackHost) -> None:
    """Raise NotFound if a folder holds nothing of ours: a lock would be the first file."""
    ours = (f"{target.folder}/{each}" for each in (BACKUPS, RESTORE))
    if not which_may_be_there(target.host, ours, target.as_root):
        raise NotFound(
            f"In {target.folder}, on {target.name}, there is no restore or reload that can be "
            "undone: it has neither backups/ nor restore/. Nothing was changed. If the stack is "
            f"elsewhere, set [stack] folder in hosts.toml.{_other_machine(target)}"
        )


def _tell(
    target: StackHost,
    what: str,
    used: str,
    lines: Sequence[str],
    gone: Sequence[Fate],
    report: Report,
) -> None:
    """Print what an undo would put back and remove, and what it would stop meanwhile."""
    left = {each.live for each in gone}
    owed = [each for each in owed_in(lines) if each.step != name_of(LeaveGone)]
    asides = {
        str(each.fields["live"]): str(each.fields["aside"])
        for each in owed
        if {"live", "aside"} <= {*each.fields}
    }
    there = which_may_be_there(target.host, asides.values(), target.as_root)
    back = {live for live, aside in asides.items() if aside in there}
    stopped = [n for each in owed if each.step == name_of(StopContainers) for n in _names(each)]
    made = [str(each.fields.get("name")) for each in owed if each.step == name_of(MakeVolume)]
    if any(each.step == name_of(ComposeUp) for each in owed):
        made.append("the containers that it made")

    report.write(what)
    for title, told in (
        ("restores to the previous state", paths_named(target.folder, back)),
        (
            "removes, because it did not exist before",
            paths_named(target.folder, asides.keys() - back),
        ),
        ("leaves unchanged, because the previous state is gone", paths_named(target.folder, left)),
        ("removes", ", ".join(made)),
        ("stops, and starts again", ", ".join(dict.fromkeys(stopped))),
        ("data stored since then are moved to", used),
    ):
        if told:
            report.write(f"  {title}: {told}")


def _refuse_unreadable(target: StackHost, journal: Journal, lines: Sequence[str]) -> None:
    """Raise Refused if a kept journal is incomplete, or not of what we undo.

    As a pending undo it would block every run until it is undone.
    """
    why = ""
    try:
        owed = journal.read(lines)
    except StepFailed as error:
        why = ended(error)
    else:
        if torn := [number for number, line in enumerate(lines, 1) if not is_told(line)]:
            why = f"{journal.path} is damaged: cannot read line {torn[0]}."
        elif not owed:
            why = f"{journal.path} is empty."
    if why:
        folder = posixpath.dirname(journal.path)
        raise Refused(
            f"On {target.name} the last restore or reload cannot be undone. {why} Nothing was "
            f"changed. What it replaced is in {folder}: put it back by hand, or restore a backup. "
            f"When you no longer need it: sudo rm -r {shlex.quote(folder)}"
        )


def _lines_back(
    target: StackHost, change: str, lines: Sequence[str], again: str
) -> tuple[list[str], tuple[Fate, ...]]:
    """Return the lines of a kept journal for its undo, and what is left out, as it is gone.

    Raises Refused if a rename is impossible; and, unless `again` is '', if something is gone.
    """
    fates = fates_of(target.host, target.as_root, lines)
    refuse_read_only(target.host, (posixpath.dirname(each.live) for each in fates))
    _refuse_apart(target, change, fates)
    gone = cannot_be_back(fates)
    if again:
        _refuse_gone(target, change, gone, again)
    return lines_without(lines_keeping_used(lines), fates), gone


def _refuse_apart(target: StackHost, change: str, fates: Sequence[Fate]) -> None:
    """Raise Refused if a rename cannot reach replaced data: a partial copy looks complete."""
    found = [each for each in fates if each.word == "apart"]
    if found:
        names = paths_named(target.folder, (each.live for each in found))
        verb = "is" if len(found) == 1 else "are"
        raise Refused(
            f"On {target.name} {change} cannot be undone now: {names} {verb} on another "
            f"mount than what was there before ({posixpath.dirname(found[0].aside)}), so they "
            "cannot be renamed. Nothing was changed. Unmount what was mounted there since then, "
            "or mount the drive that was there, and run this again; or restore a backup."
        )


def _refuse_gone(target: StackHost, change: str, gone: Sequence[Fate], again: str) -> None:
    """Raise Refused if not all replaced data can be put back, with what to do."""
    if gone:
        paths = ", ".join(each.aside for each in gone)
        names = paths_named(target.folder, (each.live for each in gone))
        raise Refused(
            f"On {target.name} {change} cannot be fully undone: the data of {names} that it "
            f"replaced were removed since (from {paths}). Nothing was changed. Put them back if "
            f"you have a copy. If not: {again} --leave-gone undoes the rest and leaves {names} "
            "unchanged."
        )


def _names(owed: Owed) -> tuple[str, ...]:
    return tuple(map(str, owed.fields.get("names", ())))


def _last_journal(target: StackHost) -> str:
    """Return the newest journal that a restore or reload kept, '' if there is none.

    Raises NotFound if the newest can no longer be undone: undoing an older one would remove later
    data.
    """
    folder = f"{target.folder}/{RESTORE}"
    words = ("find", folder, "-mindepth", "2", "-maxdepth", "2", "-type", "f")
    names = ("(", "-name", "journal", "-o", "-name", GONE_MARK, ")")
    told = stat_on(target.host, (*words, *names, "-print0"), target.as_root)
    # Each folder's name ends with the time at which its run began. What was live until an undo
    # (`-undone`) is never undone, whether its data exist or were removed.
    ours = (each for each in told.split("\0") if is_stamp(_stamp(each)))
    found = sorted(ours, key=_stamp)
    if found and posixpath.basename(found[-1]) == GONE_MARK:
        raise NotFound(
            f"The last change of the stack on {target.name}, {_folder(found[-1])}, cannot be "
            f"undone: its old data were removed. Older data are in {folder}, but cannot be put "
            "back without it."
        )
    return found[-1] if found else ""


def _stamp(path: str) -> str:
    return _folder(path).rpartition("-")[2]


def _folder(path: str) -> str:
    return posixpath.basename(posixpath.dirname(path)).removeprefix("previous-")
