"""Which sets stay and which go, and why. Pure: the clock is an argument.

Only good sets count, so a run of failures never pushes a good one out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from .sets import GOOD, BackupSet, State

UNFINISHED_GRACE = timedelta(days=1)
"""A younger unfinished set may still be finished by the same command."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How many good sets stay."""

    keep: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Keep one set or remove it, and why."""

    backup: BackupSet
    keep: bool
    why: str


def judge(sets: Iterable[BackupSet], policy: Policy, now: datetime) -> tuple[Verdict, ...]:
    """Return a verdict for each set, newest first; `now` is aware.

    The `keep` newest good sets stay, and whatever is newer than the oldest of them. A set that
    tells no time and one dated in the future stay.
    """
    dated = [(each.made(), each) for each in sets]
    known = sorted(
        ((made, each) for made, each in dated if made is not None),
        key=lambda pair: (pair[0], pair[1].runtag),
        reverse=True,
    )
    verdicts = []
    good = 0
    for made, each in known:
        if made > now:
            verdicts.append(Verdict(each, keep=True, why="dated in the future"))
        elif good < policy.keep:
            good += each.state in GOOD
            counted = f"good set {good} of {policy.keep}"
            why = counted if each.state in GOOD else "newer than those kept"
            verdicts.append(Verdict(each, keep=True, why=why))
        elif each.state is State.UNFINISHED and now - made < UNFINISHED_GRACE:
            verdicts.append(Verdict(each, keep=True, why="unfinished, and younger than a day"))
        else:
            verdicts.append(
                Verdict(each, keep=False, why=f"{policy.keep} newer good sets are kept")
            )
    verdicts += [
        Verdict(each, keep=True, why="its name tells no time")
        for made, each in dated
        if made is None
    ]
    return tuple(verdicts)
