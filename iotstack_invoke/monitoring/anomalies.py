"""What the history of a stack does not explain: sizes, dates, space that runs out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from ..backups.verifications import HERE, in_places
from ..core.dataclass import dataclass
from ..reporting.report import size_text
from .stack_facts import PlaceFacts, Problem, StackFacts

FEWEST_SETS = 4
"""So many earlier sizes of a part are needed before one counts as odd."""
MOST_SETS = 10
"""So many earlier sizes are looked at: what is older says little of today."""
SHRUNK, GROWN = 0.7, 1.5
"""A size is odd beyond these shares of the least and the greatest earlier one …"""
SPREADS = 2
"""… and further from them than twice the difference of those two."""
LEAST_SHRINK_BYTES, LEAST_GROWTH_BYTES = 10_000, 1_000_000
CLOCKS_APART = timedelta(minutes=5)
FULL_WITHIN = timedelta(days=14)
LEAST_HISTORY = timedelta(days=3)
"""Space that was watched for less long says nothing of the days to come."""
OLDEST = timedelta(days=120)
"""Samples are taken each day, and 60 are kept: an older one was taken by a wrong clock."""
CHECK_WITHIN = timedelta(days=40)
"""Longer than a month: a monthly verification or rehearsal has some days to spare."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The free space of a place at a time."""

    at: datetime
    free_bytes: int


Histories = Mapping[str, Sequence[Sample]]
"""By the name of a place, oldest first."""


def problems_in(facts: StackFacts, histories: Histories, limit: timedelta) -> Iterator[Problem]:
    """Yield what is wrong, the worst first. `limit`: how old the newest good backup may be."""
    histories = {name: _believed(each, facts.now) for name, each in histories.items()}
    yield from _clock(facts)
    yield from _overdue(facts, limit)
    yield from _sizes(facts)
    for place in facts.places:
        yield from _filling(place, facts, histories.get(place.name, ()))
    began = min((each[0].at for each in histories.values() if each), default=facts.now)
    if facts.now - began > CHECK_WITHIN:
        yield from _unchecked(facts)


def _believed(history: Sequence[Sample], now: datetime) -> Sequence[Sample]:
    """Return the samples that no wrong clock took: a Pi has none while it is off.

    Otherwise it would seem to have been watched for years.
    """
    return [each for each in history if timedelta() <= now - each.at <= OLDEST]


def _clock(facts: StackFacts) -> Iterator[Problem]:
    times = [each.began for each in facts.sets] + [each.ended for each in facts.runs.values()]
    latest = max(times, default=facts.now)
    if latest - facts.now > CLOCKS_APART:
        yield Problem(
            "clock",
            f"The clock of {facts.host} is wrong. It says {_when(facts.now)}, but the last run "
            f"ended at {_when(latest)}. New backups would count as older than those before. Look "
            "at: timedatectl",
            is_failure=True,
        )


def _overdue(facts: StackFacts, limit: timedelta) -> Iterator[Problem]:
    """Yield which places have no recent good backup, or cannot be read.

    If this machine has none, no vault can have one: that is not said again of each.
    """
    hours = f"{limit.total_seconds() / 3600:g} h"
    first = next((each for each in facts.places if each.name == HERE), None)
    is_none_here = first is not None and _is_overdue(first, facts.now, limit)
    for place in facts.places:
        where = in_places(place.name)
        at = "" if place.name == HERE else f" --at {place.name}"
        if place.trouble:
            yield Problem(
                f"away {place.name}",
                f"The backups {where} cannot be read. {place.trouble}",
                is_failure=place.name == HERE,
            )
        elif _is_overdue(place, facts.now, limit) and (place.name == HERE or not is_none_here):
            newest = f"is from {_when(place.newest)}" if place.newest else "does not exist yet"
            yield Problem(
                f"overdue {place.name}",
                f"No good backup was made {where} for {hours}. The newest one {newest}. "
                f"Look at: iotstack status{at}",
                is_failure=place.name == HERE,
            )


def _is_overdue(place: PlaceFacts, now: datetime, limit: timedelta) -> bool:
    return not place.trouble and (place.newest is None or now - place.newest > limit)


def _sizes(facts: StackFacts) -> Iterator[Problem]:
    newest = facts.newest
    for part, size in newest.parts.items() if newest else ():
        earlier = [each.parts[part] for each in facts.sets[:-1] if part in each.parts]
        odd = oddness(size, earlier[-MOST_SETS:])
        if newest and odd:
            usual = f"{size_text(min(earlier))} to {size_text(max(earlier))}"
            yield Problem(
                f"size {part}",
                f"The {part} part {odd}. In {newest.runtag} it has {size_text(size)}; in the "
                f"backups before it had {usual}. See what changed: iotstack diff "
                f"'{facts.sets[-2].runtag}' '{newest.runtag}'",
            )


def oddness(size: int, earlier: Sequence[int]) -> str:
    """Return `shrank` or `grew` for a size that the earlier ones do not explain, else ''."""
    if len(earlier) < FEWEST_SETS:
        return ""
    least, greatest = min(earlier), max(earlier)
    spread = SPREADS * (greatest - least)
    if size < min(SHRUNK * least, least - spread) and least - size >= LEAST_SHRINK_BYTES:
        return "shrank"
    if size > max(GROWN * greatest, greatest + spread) and size - greatest >= LEAST_GROWTH_BYTES:
        return "grew"
    return ""


def _filling(place: PlaceFacts, facts: StackFacts, history: Sequence[Sample]) -> Iterator[Problem]:
    where = "The disk of the backups here" if place.name == HERE else place.name
    free, newest = place.free_bytes, facts.newest
    if free is None or place.trouble:
        return
    left = days_left(history)
    if newest and free < newest.size_bytes:
        what = f"{where} has no space for another backup. Free are {size_text(free)}, and the "
        what += f"newest backup has {size_text(newest.size_bytes)}."
    elif left is not None and left < FULL_WITHIN.days:
        days = "less than a day" if left < 1 else f"{left:.0f} days"
        what = f"{where} will be full in {days}. Free are {size_text(free)}, less each day."
    else:
        return
    at = "" if place.name == HERE else f" --at {place.name}"
    yield Problem(f"full {place.name}", f"{what} See what could go: iotstack prune{at} --dry-run")


def days_left(history: Sequence[Sample]) -> float | None:
    """Return in how many days a place will be full if it goes on so; None if it does not fill."""
    if not history or history[-1].at - history[0].at < LEAST_HISTORY:
        return None
    days = (history[-1].at - history[0].at) / timedelta(days=1)
    each_day = (history[0].free_bytes - history[-1].free_bytes) / days
    return history[-1].free_bytes / each_day if each_day > 0 else None


def _unchecked(facts: StackFacts) -> Iterator[Problem]:
    for place in facts.places:
        if place.trouble or not place.sets or _is_recent(place.verified, facts.now):
            continue
        where = in_places(place.name)
        yield Problem(
            f"unverified {place.name}",
            f"No backup {where} was verified for {CHECK_WITHIN.days} days. Read them again: "
            f"iotstack verify --at {place.name} --sample 5%",
        )
    if facts.sets and not _is_recent(facts.rehearsed, facts.now):
        yield Problem(
            "unrehearsed",
            f"No restore was rehearsed for {CHECK_WITHIN.days} days. Test one: iotstack rehearse",
        )


def _is_recent(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and now - moment <= CHECK_WITHIN


def _when(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
