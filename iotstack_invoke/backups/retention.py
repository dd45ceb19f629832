"""Which sets stay and which are removed, and why. Pure: the clock is an argument.

A set stays if any rule of the policy keeps it. Only good sets count that hold all that it holds,
so neither failed backups nor ones without a database displace a set that has it; a set
that is not good stays wherever a good one in its place would.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from ..core.dataclass import dataclass
from .holdings import Gone, Holding, Holdings, answers_for, holdings_of, needed_of, told
from .sets import GOOD, BackupSet, State, newest_first

UNFINISHED_GRACE = timedelta(days=1)
"""A younger set without a manifest may still be in the making, by a backup or a copy."""
NO_MANIFEST = frozenset({State.UNFINISHED, State.UNPROVEN})
OF_ANOTHER_TOOL = "no manifest, and not adopted: inv prune --adopt"
LOST = f"{OF_ANOTHER_TOOL} adopts it if it can be read; if not, remove it by hand"
OF_NO_MACHINE = "of an unknown machine: its manifest cannot be read"

MOST_SETS = 999_999_999
"""The largest number in a policy: more than anyone has, and valid in all programs."""
_UNITS = ("y", "mo", "w", "d", "h")
_SPAN = re.compile("".join(rf"(?:([0-9]{{1,4}}){unit})?" for unit in ("y", "mo?", *_UNITS[2:])))
"""Months as `mo`, or as `m`, which hosts.toml of earlier versions has."""


@dataclass(frozen=True, slots=True)
class Span:
    """A calendar period: 30 days, or one year and two months."""

    years: int = 0
    months: int = 0
    weeks: int = 0
    days: int = 0
    hours: int = 0

    def __str__(self) -> str:
        units = zip(self._numbers, _UNITS, strict=True)
        return "".join(f"{number}{unit}" for number, unit in units if number)

    def __bool__(self) -> bool:
        return any(self._numbers)

    def before(self, moment: datetime) -> datetime:
        """Return the (aware) time that is one span before a moment, by the local calendar."""
        from dateutil.relativedelta import relativedelta

        span = relativedelta(
            years=self.years,
            months=self.months,
            weeks=self.weeks,
            days=self.days,
            hours=self.hours,
        )
        try:
            return cast("datetime", _local(moment).replace(tzinfo=None) - span).astimezone()
        except (ValueError, OverflowError):  # before the first year that Python supports
            return datetime.min.replace(tzinfo=UTC)

    @property
    def _numbers(self) -> tuple[int, ...]:
        return (self.years, self.months, self.weeks, self.days, self.hours)


def read_span(text: str) -> Span:
    """Return the span that is written as `30d`, `6mo` or `1y2mo`; raises ValueError."""
    found = _SPAN.fullmatch(text)
    span = Span(*(int(number or 0) for number in found.groups())) if found else Span()
    if not span:
        raise ValueError("must be a time span such as 30d, 6mo or 1y2mo (y, mo, w, d, h)")
    return span


@dataclass(frozen=True, slots=True)
class Policy:
    """How many good sets stay: the newest, and the newest of so many days, weeks and so on.

    Periods without a good set are skipped. `within` is counted back from the newest good set
    and not from now, so that a long pause removes nothing. The `at_least` newest good sets stay
    whatever the rules say.
    """

    keep: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Span = Span()
    at_least: int = 1


RULE_KEYS: Mapping[str, type] = {
    "keep": int,
    "keep_daily": int,
    "keep_weekly": int,
    "keep_monthly": int,
    "keep_yearly": int,
    "keep_within": str,
}
"""The rules of a policy by their keys in hosts.toml, with the types of their values."""
POLICY_KEYS: Mapping[str, type] = {**RULE_KEYS, "keep_at_least": int}


def policy_mistakes(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the keys of a policy with a wrong value, and what is allowed.

    The values have the types of POLICY_KEYS. A policy that would keep nothing is a mistake.
    """
    found = []
    for key, kind in POLICY_KEYS.items():
        lowest = 1 if key == "keep_at_least" else 0
        if kind is int and given.get(key, lowest) < lowest:
            found.append((key, f"must be at least {lowest}"))
        elif kind is int and given.get(key, lowest) > MOST_SETS:
            found.append((key, f"must be at most {MOST_SETS:,}"))
    if "keep_within" in given:
        try:
            read_span(given["keep_within"])
        except ValueError as error:
            found.append(("keep_within", str(error)))
    if not found and not any(given.get(key) for key in RULE_KEYS):
        found.append(("keep", "must be at least 1 if no other rule keeps a backup"))
    return found


def read_policy(given: Mapping[str, Any]) -> Policy:
    """Return the policy of keys and values without mistakes."""
    return Policy(
        keep=given.get("keep", 0),
        daily=given.get("keep_daily", 0),
        weekly=given.get("keep_weekly", 0),
        monthly=given.get("keep_monthly", 0),
        yearly=given.get("keep_yearly", 0),
        within=read_span(given["keep_within"]) if "keep_within" in given else Span(),
        at_least=given.get("keep_at_least", 1),
    )


def policy_text(policy: Policy) -> str:
    """Return a policy in the syntax of hosts.toml: `keep = 2, keep_daily = 7`."""
    numbers = (policy.keep, policy.daily, policy.weekly, policy.monthly, policy.yearly)
    given: dict[str, int | str] = dict(zip(RULE_KEYS, numbers, strict=False))
    given |= {"keep_within": f'"{policy.within}"' if policy.within else 0}
    given |= {"keep_at_least": policy.at_least if policy.at_least > 1 else 0}
    return ", ".join(f"{key} = {value}" for key, value in given.items() if value)


@dataclass(frozen=True, slots=True)
class KeepDecision:
    """Keep one set or remove it, and why."""

    backup: BackupSet
    keep: bool
    why: str


def judge_each_host(
    sets: Iterable[BackupSet],
    policy: Policy,
    now: datetime,
    gone: Iterable[Gone] = (),
    adopted: Container[str] = (),
) -> tuple[KeepDecision, ...]:
    """Return a decision for each set of a place that several machines may share.

    Each machine's sets are judged alone: one machine's sets never displace another's. A set
    without a manifest may be the only copy of any machine, so it stays; but an adopted one is
    assigned to the single machine whose sets are there, if only one has any.
    """
    known, gone = list(sets), tuple(gone)
    hosts = sorted({each.manifest.host for each in known if each.manifest})
    mine = {host: [e for e in known if e.manifest and e.manifest.host == host] for host in hosts}
    bare = [each for each in known if not each.manifest]
    taken = [each for each in bare if each.runtag in adopted]
    if len(hosts) == 1:
        mine[hosts[0]] += taken
        taken = []
    verdicts = [
        verdict
        for group in (*mine.values(), taken)
        for verdict in judge(group, policy, now, gone, adopted)
    ]
    unknown = judge([each for each in bare if each.runtag not in adopted], policy, now, gone)
    return (*verdicts, *map(_of_no_machine, unknown))


def _of_no_machine(verdict: KeepDecision) -> KeepDecision:
    """Return the decision on a set that stays, as its machine is unknown."""
    if verdict.backup.is_foreign:
        return verdict
    pinned = "pinned; " if verdict.backup.pinned else ""
    return KeepDecision(verdict.backup, keep=True, why=f"{pinned}{OF_NO_MACHINE}")


def judge(
    sets: Iterable[BackupSet],
    policy: Policy,
    now: datetime,
    gone: Iterable[Gone] = (),
    adopted: Container[str] = (),
) -> tuple[KeepDecision, ...]:
    """Return a decision for each set, newest first; `now` is aware.

    A pinned set stays and counts like any other. A set without a time, one dated in the future
    and one without a manifest that is younger than a day stay. So do archives of other tools,
    except those of `adopted`, by runtag. `gone`: what newer sets need not hold.
    """
    verdicts = []
    known, gone, sets = _NewerSets(), tuple(gone), tuple(sets)
    anywhere = frozenset[Holding]().union(*{holdings_of(each) for each in sets})
    for each in newest_first(sets):
        made, held = each.made(), answers_for(each, anywhere)
        needed = needed_of(each, gone)
        newer = known.with_all(needed)
        reasons = ["pinned"] if each.pinned else []
        if each.is_foreign and each.runtag not in adopted:
            reasons.append(LOST if each.state is State.DAMAGED else OF_ANOTHER_TOOL)
        elif made is None:
            reasons.append("its name contains no date")
        elif made > now:
            reasons.append("dated in the future")
        else:
            good = each.state in GOOD
            why = _reasons if good else _gaps
            found = why(made, newer, policy)
            if found and newer.count < known.all.count:
                by_number = why(made, known.all, policy)
                found = by_number or [known.why_not_replaced(needed, newer, found)]
            reasons += found
            if not reasons and each.state in NO_MANIFEST and now - made < UNFINISHED_GRACE:
                reasons.append(f"{each.state.value}, less than a day old")
            if good:
                known.add(made, held, stays=bool(reasons))
        verdicts.append(_verdict(each, reasons, newer))
    return tuple(verdicts)


def _verdict(each: BackupSet, reasons: list[str], newer: _Newer) -> KeepDecision:
    if reasons:
        return KeepDecision(each, keep=True, why="; ".join(reasons))
    sets = "set is" if newer.staying == 1 else "sets are"
    return KeepDecision(each, keep=False, why=f"{newer.staying} newer good {sets} kept")


class _Newer:
    """The good sets that are newer than the one being judged."""

    def __init__(self) -> None:
        self.count = 0
        self.staying = 0
        self.newest: datetime | None = None
        self.periods = dict[str, set[object]]()

    def add(self, made: datetime, periods: Mapping[str, object], *, stays: bool) -> None:
        """Add a set, older than all before."""
        self.count += 1
        self.staying += stays
        self.newest = self.newest or made
        for name, period in periods.items():
            self.periods.setdefault(name, set()).add(period)


@dataclass(frozen=True, slots=True)
class _Good:
    """A good set that was judged; `bits` is what it holds, one bit for each holding."""

    made: datetime
    held: Holdings
    bits: int
    periods: Mapping[str, object]
    stays: bool


class _NewerSets:
    """All good sets newer than the one being judged, and those that can replace it."""

    def __init__(self) -> None:
        self.all = _Newer()
        self._sets: list[_Good] = []
        self._numbers = dict[Holding, int]()
        self._bits = dict[Holdings, int]()
        self._with = dict[int, _Newer]()
        """The sets that hold all of some holdings, for each combination asked for."""

    def _bits_of(self, holdings: Holdings) -> int:
        """Return holdings as a bit mask: with 10,000 sets all pairs may be compared."""
        if holdings not in self._bits:
            numbers = (self._numbers.setdefault(e, len(self._numbers)) for e in holdings)
            self._bits[holdings] = sum(1 << each for each in numbers)
        return self._bits[holdings]

    def with_all(self, needed: Holdings) -> _Newer:
        """Return the sets that hold everything needed."""
        bits = self._bits_of(needed)
        if bits not in self._with:
            newer = self._with[bits] = _Newer()
            for each in self._sets:
                if not bits & ~each.bits:
                    newer.add(each.made, each.periods, stays=each.stays)
        return self._with[bits]

    def add(self, made: datetime, held: Holdings, *, stays: bool) -> None:
        """Add a set, older than all before."""
        good = _Good(made, held, self._bits_of(held), _periods(made), stays)
        self._sets.append(good)
        self.all.add(made, good.periods, stays=stays)
        lacking = ~good.bits
        for bits, newer in self._with.items():
            if not bits & lacking:
                newer.add(made, good.periods, stays=stays)

    def why_not_replaced(self, needed: Holdings, newer: _Newer, reasons: list[str]) -> str:
        """Return why a set stays that would be removed if all newer ones held as much."""
        lacking = next(needed - e.held for e in self._sets if not needed <= e.held)
        if newer.count:
            return f"{'; '.join(reasons)} with {told(lacking)}"
        only = needed
        for each in self._sets:
            only -= each.held
            if not only:
                return f"no newer good set contains all of it: {told(lacking)}"
        return f"the newest with {told(only)}"


def _reasons(made: datetime, newer: _Newer, policy: Policy) -> list[str]:
    """Return why a good set stays."""
    found = []
    if newer.count < policy.keep:
        found.append(f"good set {newer.count + 1} of {policy.keep}")
    for name, wanted in _open_periods(made, newer, policy):
        found.append(f"{name} {len(newer.periods.get(name, ())) + 1} of {wanted}")
    if policy.within and made >= policy.within.before(newer.newest or made):
        found.append(f"within {policy.within} of the newest good set")
    if not found and newer.count < policy.at_least:
        found.append(f"good set {newer.count + 1} of at least {policy.at_least}")
    return found


def _gaps(made: datetime, newer: _Newer, policy: Policy) -> list[str]:
    """Return why a set that is not good stays: the reasons for a good one in its place."""
    if newer.newest is None:
        return ["no newer good set"]
    found = []
    if newer.count < max(policy.keep, policy.at_least):
        found.append(f"fewer than {max(policy.keep, policy.at_least)} newer good sets")
    for name, _ in _open_periods(made, newer, policy):
        found.append(f"no newer good set of its {name}")
    if policy.within and made >= policy.within.before(newer.newest):
        found.append(f"within {policy.within} of the newest good set")
    return found


def _open_periods(made: datetime, newer: _Newer, policy: Policy) -> list[tuple[str, int]]:
    """Return the periods of which a set would be the newest good one that a rule keeps."""
    wanted = {
        "day": policy.daily,
        "week": policy.weekly,
        "month": policy.monthly,
        "year": policy.yearly,
    }
    mine = _periods(made)
    return [
        (name, number)
        for name, number in wanted.items()
        if len(newer.periods.get(name, ())) < number
        and mine[name] not in newer.periods.get(name, ())
    ]


def _periods(made: datetime) -> dict[str, object]:
    """Return the day, the ISO week, the month and the year of a time, by the local clock."""
    local = _local(made)
    return {
        "day": local.date(),
        "week": local.isocalendar()[:2],
        "month": (local.year, local.month),
        "year": local.year,
    }


def _local(moment: datetime) -> datetime:
    try:
        return moment.astimezone()
    except (ValueError, OverflowError):  # in the first or last year that Python supports
        return moment
