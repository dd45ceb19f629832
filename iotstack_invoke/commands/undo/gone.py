"""What a change moved aside, and what of it is missing now.

It may have been removed since, or a drive mounted in its place. Then it is left out of the
change's journal, so that the rest can be undone.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from ...core.dataclass import dataclass
from ...engine.journal import Owed, name_of, owed_in
from ...hosts.base import Command, Host
from ...hosts.inspect import which_may_be_there
from ...stack.folders import MakeFolder, UseStage
from ...stack.inside import is_in
from ...stack.left_out import KeepLeftOut
from ...stack.swap import CAN_BE_BACK, LeaveGone, MoveAside, PutAway, SwapItem
from ...stack.swap_entries import SwapEntries
from ...stack.volumes import MakeVolume

PUT_BACK = frozenset(name_of(each) for each in (MoveAside, PutAway, SwapEntries, SwapItem))
"""The steps that move something aside, which their undo puts back."""
LEFT_OUT = name_of(KeepLeftOut)
PAIRS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Fate:
    """A step that moved something aside, and the state of that."""

    step: Owed
    word: str
    """The output of CAN_BE_BACK: `good`, `new`, `gone` or `apart`."""

    @property
    def live(self) -> str:
        """What it replaced."""
        return str(self.step.fields["live"])

    @property
    def aside(self) -> str:
        """Where that was moved to."""
        return str(self.step.fields["aside"])


def fates_of(host: Host, as_root: tuple[str, ...], lines: Iterable[str]) -> tuple[Fate, ...]:
    """Return the state of everything that a change moved aside, in the order of its steps."""
    steps = [each for each in owed_in(lines) if each.step in PUT_BACK]
    pairs = [(_place(each), str(each.fields["aside"])) for each in steps]
    words: list[str] = []
    for some in (pairs[n : n + PAIRS_AT_ONCE] for n in range(0, len(pairs), PAIRS_AT_ONCE)):
        asked = (*as_root, "sh", "-c", CAN_BE_BACK, "sh", *chain.from_iterable(some))
        words += host.run(Command(asked)).out.split()
    return tuple(Fate(step, word) for step, word in zip(steps, words, strict=True))


def fates_of_owed(host: Host, as_root: tuple[str, ...], lines: Iterable[str]) -> tuple[Fate, ...]:
    """Return the same for a change that did not end, of which some may already be undone.

    What cannot be read may exist.
    """
    steps = [each for each in owed_in(lines) if each.step in PUT_BACK]
    found: list[Fate] = []
    for some in (steps[n : n + PAIRS_AT_ONCE] for n in range(0, len(steps), PAIRS_AT_ONCE)):
        places = [_places(each) for each in some]
        there = which_may_be_there(host, chain.from_iterable(places), as_root)
        fates = zip(some, places, strict=True)
        found += [Fate(e, "gone" if there.isdisjoint(of) else "good") for e, of in fates]
    away = [each.live for each in found if _is_away(each)]
    seen = host.stat(away) if away else {}
    is_left = {live for live in away if live not in seen or not seen[live].is_file}
    return tuple(
        replace(e, word="good") if e.live in is_left and _is_away(e) else e for e in found
    )


def _places(owed: Owed) -> tuple[str, ...]:
    """Return the paths of which one exists if what was moved aside is not gone.

    It was moved aside, or did not exist, or the step has not acted yet, or is undone.
    """
    aside = str(owed.fields["aside"])
    if owed.step == name_of(PutAway):
        return (aside,)
    source = "live" if owed.step == name_of(MoveAside) else "staged"
    others = (str(owed.fields.get(each, "")) for each in (source, "used"))
    return (aside, f"{aside}.new", *filter(None, others))


def _is_away(fate: Fate) -> bool:
    """Return whether a folder counts as gone because a file of ours is at its path."""
    return fate.word == "gone" and fate.step.step == name_of(PutAway)


def _place(owed: Owed) -> str:
    """Return what is put back: a path, or the entries of a folder that is a mount point itself."""
    within = "/." if owed.step == name_of(SwapEntries) else ""
    return f"{owed.fields['live']}{within}"


def cannot_be_back(fates: Sequence[Fate]) -> tuple[Fate, ...]:
    """Return those whose data from before the change no longer exist.

    Without paths that an earlier step moved aside, with a parent folder or separately: the former
    data are with that step.
    """
    return tuple(
        each
        for number, each in enumerate(fates)
        if each.word == "gone"
        and not any(e.word != "gone" and is_in(each.live, e.live) for e in fates[:number])
    )


def lines_without(lines: Iterable[str], fates: Sequence[Fate]) -> list[str]:
    """Return the lines of a journal without what cannot be put back.

    That stays as it is now, with everything in it and its volume, and is reported. If a reload's
    old data are gone its dump stays: it may be the only copy.
    """
    lines = list(lines)
    left = {each.live: each for each in cannot_be_back(fates)}
    gone = {(each.live, each.aside) for each in fates if each.word == "gone"}
    is_reload = any(each.step.step == name_of(PutAway) for each in left.values())
    uses = (e for e in owed_in(lines) if is_reload and e.step == name_of(UseStage))
    dumps = {str(path) for each in uses for path in each.fields["folders"]}
    lines = without_volumes(lines, left)
    found = []
    for line in lines:
        (step,) = owed_in([line]) or (None,)
        if step is None:
            found.append(line)
            continue
        live, aside = (str(step.fields.get(name)) for name in ("live", "aside"))
        is_swap = step.step in PUT_BACK or step.step == LEFT_OUT
        if is_swap and any(is_in(live, each) for each in left):
            if live in left and aside == left[live].aside:
                found.append(_written(step, left[live]))
        elif not (_removes(step, dumps) or (step.step in PUT_BACK and (live, aside) in gone)):
            found.append(line)
    return found


def lines_keeping_used(lines: Sequence[str]) -> list[str]:
    """Return the lines of a kept journal by which no data that were live since are removed.

    A stage may hold some, and so may a volume that the change made: on another file system than
    the stack's, an undo moves such data into the volume's own folder, and they are removed with
    it.
    """
    owed = owed_in(lines)
    pairs = ((str(e.fields.get("live")), str(e.fields.get("used"))) for e in owed)
    within = [live for live, used in pairs if used.startswith(f"{posixpath.dirname(live)}/.")]
    stage = f'"{name_of(UseStage)}"'
    return [line for line in without_volumes(lines, within) if stage not in line]


def without_volumes(lines: Sequence[str], lives: Iterable[str]) -> list[str]:
    """Return lines of a journal by which no volume is removed that contains the given paths."""
    from ...stack.path_owners import volume_in

    found = (volume_in(path) for path in lives)
    names = {each[0] for each in found if each}
    return [line for line in lines if not _makes_volume(line, names)]


def _makes_volume(line: str, names: Collection[str]) -> bool:
    """Return whether a line of a journal is of a step that created one of some volumes."""
    return any(
        each.step == name_of(MakeVolume) and each.fields.get("name") in names
        for each in owed_in([line])
    )


def _removes(owed: Owed, dumps: Collection[str]) -> bool:
    """Return whether the undo of a step would remove a dump."""
    if owed.step == name_of(UseStage):
        return bool(dumps)
    return owed.step == name_of(MakeFolder) and str(owed.fields.get("path")) in dumps


def _written(owed: Owed, fate: Fate) -> str:
    fields: Mapping[str, object] = {
        "host_role": owed.fields["host_role"],
        "live": fate.live,
        "aside": fate.aside,
    }
    return json.dumps({"job": owed.job, "step": name_of(LeaveGone), "fields": fields})


def paths_named(folder: str, paths: Iterable[str]) -> str:
    """Return paths for people, relative to the stack's folder if inside."""
    return ", ".join(sorted({path.removeprefix(f"{folder}/") for path in paths}))
