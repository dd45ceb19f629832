"""The old states, for people: time, size, and what happens to each.

Includes what `inv undo` would say of one: whether it can restore it, and how.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ...core.errors import ExitCode
from ...environment.stack_host import StackHost, open_target, require_stack
from ...hosts.pasted import host_flag
from ...reporting.report import Report
from ...settings.model import Settings, StackConfig
from ..shared.restore_id import change_in
from .gone import cannot_be_back, fates_of, paths_named
from .interrupted import Owing, leaves_no_marks
from .old_states import OldState, find_states, judge_states, sizes_of, sum_of


def list_states(settings: Settings, name: str, report: Report, *, as_json: bool = False) -> int:
    """Print the old states: time, size, what keeps each; return 0."""
    with open_target(settings, name, without_docker=True) as target:
        require_stack(target)
        host, stack = target.host, target.folder
        found = find_states(host, stack, target.as_root)
        states = [each for each in found if not each.is_gone]
        if not states and as_json:
            report.write_json([])
            return ExitCode.GOOD
        if not states:
            report.write(f"On {target.name} no old states are kept in {stack}.")
            return ExitCode.GOOD
        mine = replace(settings.stack, folder=stack)
        now = datetime.now(UTC)
        sizes = sizes_of(host, states, target.as_root)
        owing = Owing.of_target(settings, target)
        owed = owing.read()
        died = change_in(owed)
        undo = f"inv undo{host_flag(name)}"
        stays = _stays(states, mine, now)
        ways = _ways(found, owing, target, undo, died.stamp if died else "")
        if died:
            leave = " --leave-gone" if owing.gone(owed) else ""
            some = "; some of what it replaced was removed" if leave else ""
            ways |= {
                died.name: f"the {died.what} is running or was interrupted{some}: "
                f"{undo}{leave} undoes it",
                f"{died.name}-undone": f"to continue: {undo}{leave}",
            }
        if as_json:
            report.write_json(
                [
                    {
                        "name": each.name,
                        "put_aside": each.since.isoformat(),
                        "size_bytes": sizes[each.name].size_bytes if each.name in sizes else None,
                        "undo": ways.get(each.name),
                        "stays": stays[each.name],
                        "folders": each.folders,
                    }
                    for each in states
                ]
            )
            return ExitCode.GOOD
        rows = [
            (
                f"{each.since.astimezone():%Y-%m-%d %H:%M}",
                str(sizes.get(each.name, "?")),
                _what(each, is_owed=died is not None and each.stamp == died.stamp),
                "; ".join(filter(None, (ways.get(each.name), stays[each.name]))),
                shlex.join(each.folders),
            )
            for each in states
        ]
        titles = ("put aside", "size", "what", "what becomes of it", "lies in")
        report.table(titles, rows, right=(1,), copied=(3, 4))
        report.write(
            f"{sum_of(sizes, states)} in total. The newest {mine.keep_previous} and all of "
            f"{mine.keep_previous_days} days stay (keep_previous, keep_previous_days in "
            "[stack]); the next successful backup, restore, reload or prune removes the others."
        )
        if target.no_docker:
            report.warn(
                f"{target.no_docker} This list is from the disk. inv undo needs Docker, so it "
                f"may not work. To repair Docker: inv doctor{host_flag(name)}."
            )
        return ExitCode.GOOD


def _what(state: OldState, *, is_owed: bool) -> str:
    """Return what a state is, without the time, which is printed before it."""
    change = state.change
    of = f"the {change.what}" if change else state.name
    if not state.is_undone:
        return f"before {of}"
    return f"after {of}, {'being' if is_owed else 'now'} undone"


def _stays(states: Sequence[OldState], stack: StackConfig, now: datetime) -> Mapping[str, str]:
    """Return how long each is kept, by its name; `states` newest first."""
    _, going = judge_states(states, stack, now)
    days = timedelta(days=stack.keep_previous_days)
    told = {}
    for number, each in enumerate(states):
        until = max(filter(None, (each.until, each.since + days)))
        if number < stack.keep_previous:
            few = (
                f"one of the newest {stack.keep_previous}"
                if stack.keep_previous > 1
                else "the newest"
            )
            days_too = f", and until {until.astimezone():%Y-%m-%d}" if until > now else ""
            told[each.name] = f"stays while it is {few}{days_too}"
        elif each in going or until <= now:
            told[each.name] = "the next good backup, restore or prune removes it"
        else:
            told[each.name] = f"stays until {until.astimezone():%Y-%m-%d}"
    return told


def _ways(
    found: Sequence[OldState], owing: Owing, target: StackHost, undo: str, owed: str
) -> dict[str, str]:
    """Return how `inv undo` restores each state that it can restore, by its name.

    `found` newest first, with the marks of removed ones: no undo goes past one. `owed`: the time
    of the unfinished change, which is undone first; '' for none.
    """
    told: dict[str, str] = {}
    again = f"{undo} --last-restore" if owed else undo
    for each in found:
        if each.is_undone or each.stamp == owed:
            continue
        if each.is_gone:
            break
        if not each.can_be_undone:
            continue
        if told:
            told[each.name] = "inv undo can go back to it after the newer ones are undone"
        else:
            then = ", after the other is undone" if owed else ""
            told[each.name] = f"{_way(each, owing, target, again)}{then}"
    return told


def _way(state: OldState, owing: Owing, target: StackHost, undo: str) -> str:
    """Return what `inv undo` does with the state that it restores next."""
    lines = owing.lines(f"{state.folders[0]}/journal")
    fates = () if leaves_no_marks(lines) else fates_of(target.host, target.as_root, lines)
    gone = paths_named(target.folder, (each.live for each in cannot_be_back(fates)))
    if any(each.word == "apart" for each in fates):
        return "inv undo cannot use it: a mount there has changed since"
    if gone:
        return f"to go back to the rest of it: {undo} --leave-gone (gone: {gone})"
    return f"to go back to it: {undo}"
