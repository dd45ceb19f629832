"""What a change that went well moved aside, and what of it is not there any more.

Somebody may have removed some of it since, or mounted something in its way. What is left out of
its journal then, so that the rest can be undone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from ..journal import Owed, owed_in
from ..services.inside import is_in
from ..services.left_out import KeepLeftOut
from ..services.stack import CAN_BE_BACK, LeaveGone, MoveAside, PutAway, SwapItem, UseStage
from ..services.swap_entries import SwapEntries
from ..steps import Command, Host
from ..values import dataclass

PUT_BACK = frozenset(each.__name__ for each in (MoveAside, PutAway, SwapEntries, SwapItem))
"""The steps that move aside what is put back when they are undone."""
LEFT_OUT = KeepLeftOut.__name__
PAIRS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Fate:
    """A step that moved something aside, and what has become of that."""

    step: Owed
    word: str
    """As CAN_BE_BACK says it: `good`, `new`, `gone` or `apart`."""

    @property
    def live(self) -> str:
        """What it replaced."""
        return str(self.step.fields["live"])

    @property
    def aside(self) -> str:
        """Where that was moved to."""
        return str(self.step.fields["aside"])


def fates_of(host: Host, as_root: tuple[str, ...], lines: Iterable[str]) -> tuple[Fate, ...]:
    """Return what has become of all that a change moved aside, in the order of its steps."""
    steps = [each for each in owed_in(lines) if each.step in PUT_BACK]
    pairs = [(_place(each), str(each.fields["aside"])) for each in steps]
    words: list[str] = []
    for some in (pairs[n : n + PAIRS_AT_ONCE] for n in range(0, len(pairs), PAIRS_AT_ONCE)):
        asked = (*as_root, "sh", "-c", CAN_BE_BACK, "sh", *chain.from_iterable(some))
        words += host.run(Command(asked)).out.split()
    return tuple(Fate(step, word) for step, word in zip(steps, words, strict=True))


def _place(owed: Owed) -> str:
    """Return what is put back: a path, or the entries of a folder that is a mount point itself."""
    within = "/." if owed.step == SwapEntries.__name__ else ""
    return f"{owed.fields['live']}{within}"


def cannot_be_back(fates: Sequence[Fate]) -> tuple[Fate, ...]:
    """Return those of which nobody has what was there before the change.

    Not those of a path that an earlier step moved aside, with a folder around it or by itself:
    what was there before is with that one.
    """
    return tuple(
        each
        for number, each in enumerate(fates)
        if each.word == "gone"
        and not any(e.word != "gone" and is_in(each.live, e.live) for e in fates[:number])
    )


def lines_without(lines: Iterable[str], fates: Sequence[Fate]) -> list[str]:
    """Return the lines of a kept journal by which only what can be put back is.

    What cannot stays as it is now, with all that lies in it, and is told. What has been live since
    is kept as well: the step that would remove it is left out.
    """
    left = {each.live: each for each in cannot_be_back(fates)}
    gone = {(each.live, each.aside) for each in fates if each.word == "gone"}
    found = []
    for line in lines:
        (owed,) = owed_in([line]) or (None,)
        if owed is None or owed.step == UseStage.__name__:
            found += [line] if owed is None else []
            continue
        live = str(owed.fields.get("live"))
        is_swap = owed.step in PUT_BACK or owed.step == LEFT_OUT
        pair = (live, str(owed.fields.get("aside")))
        if is_swap and any(is_in(live, each) for each in left):
            if live in left and pair == (live, left[live].aside):
                found.append(_written(owed, left[live]))
        elif not (owed.step in PUT_BACK and pair in gone):
            found.append(line)
    return found


def _written(owed: Owed, fate: Fate) -> str:
    fields: Mapping[str, object] = {
        "host_role": owed.fields["host_role"],
        "live": fate.live,
        "aside": fate.aside,
    }
    return json.dumps({"job": owed.job, "step": LeaveGone.__name__, "fields": fields})
