"""What a set holds, part by part and database by database, and what another one lacks of it.

Pure. A set replaces another only if it holds all that the other holds, but for what the owner
said is gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from .losses import gone_from, large_in, way_out
from .manifest import OUTSIDE, SIZES, VOLUME, Manifest, Part, outside_title
from .rules import PARTS
from .services.table import fits_all_of
from .sets import GOOD, BackupSet, State, newest_first
from .values import dataclass

Holding = tuple[str, ...]
"""A part, or what is in it: ("influx",), ("influx", "home"), ("mariadb", "db", "nextcloud")."""
Holdings = frozenset[Holding]

FINISHED = frozenset({*GOOD, State.INCOMPLETE})
GENERAL = "general"
INTERNAL = "_internal"
"""InfluxDB's database about itself, which is restored by nobody."""
MOST_TOLD = 3
_ORDER = {kind: number for number, kind in enumerate(PARTS)}
_ALIASES = {"influxdb": "influx", "postgresql": "postgres"}
_WHOLE = frozenset(PARTS) - {"mariadb", "postgres"}
"""The parts of one service each."""
_SPLIT = re.compile(r"[:/]")


@dataclass(frozen=True, slots=True)
class Gone:
    """What the owner said is gone for good: a part, a container or a database, by its name.

    `host`: of which machine's sets, of all if it is empty. `said`: what a later set holds counts
    anew; None: whenever it was made. `service`: no database is meant, though it may bear the name.
    """

    name: str
    host: str = ""
    said: datetime | None = None
    service: bool = False

    def excuses(self, holding: Holding) -> bool:
        """Tell whether a set may lack it: it is what the name says, or in it."""
        part = _ALIASES.get(self.name, self.name)
        if self.service:
            whole = holding[0] in _WHOLE or len(holding) == 1
            return (holding[0] == part) if whole else (holding[1] == self.name)
        place = self.name.removeprefix(VOLUME).rstrip("/")
        if place and holding[0] in (GENERAL, OUTSIDE):
            return self.name in holding or f"{holding[-1]}/".startswith(f"{place}/")
        words = tuple(_SPLIT.split(self.name))
        words = (_ALIASES.get(words[0], words[0]), *words[1:])
        return self.name in holding or any(
            holding[at : at + len(words)] == words for at in range(len(holding))
        )

    def is_about(self, backup: BackupSet) -> bool:
        """Tell whether it was said of such a set: of its machine, in a later second."""
        host = backup.manifest.host if backup.manifest else self.host
        made = backup.made()
        return self.host in ("", host) and (
            self.said is None or (made is not None and made < self.said)
        )


def holdings_of(backup: BackupSet) -> Holdings:
    """Return what a set holds, by its manifest; without one, the kinds of its archives."""
    if backup.manifest is None:
        return frozenset((kind,) for kind in backup.parts)
    large = frozenset((GENERAL, path) for path in large_in(backup.manifest))
    return large.union(*map(_in_part, backup.manifest.made))


def answers_for(backup: BackupSet, needed: Iterable[Holding]) -> Holdings:
    """Return what a set holds, and what of the needed it need not hold.

    That is what it says that it leaves out, folders that only became small, and what lies in a
    path outside of the stack that it holds as a whole.
    """
    held = holdings_of(backup)
    if backup.manifest is None:
        return held
    open_ = [each for each in needed if len(each) > 1 and each[0] in (GENERAL, OUTSIDE)]
    out = [each.what.removeprefix(VOLUME) for each in backup.manifest.left_out]
    # Of a volume that is left out but for its folder the pattern is that of its path.
    rows = backup.manifest.outside
    emptied = {_outside_name(e) for e in rows if any(fits_all_of(o, f"{e['path']}/") for o in out)}
    whole = tuple(f"{each[1]}/" for each in held if each[0] == OUTSIDE and len(each) > 1)
    gone = gone_from(backup.manifest, [path for kind, path, *_ in open_ if kind == GENERAL])
    return held.union(
        each
        for each in open_
        if (
            each[1] in emptied
            or each[1].startswith(whole)
            or any(fits_all_of(one, each[1]) for one in out)
            if each[0] == OUTSIDE
            else (GENERAL,) in held and each[1] not in gone
        )
    )


def _in_part(part: Part) -> Iterable[Holding]:
    facts: Mapping[str, Any] = part.facts
    rows = facts.get(OUTSIDE, ())
    if not rows:
        yield (part.kind,)
    sizes: Mapping[str, Any] = facts.get(SIZES, {})
    for each in rows:
        _, files = sizes.get(each["path"].lstrip("/"), (0, 1))
        if files:  # an emptied one replaces none that holds something
            yield (part.kind, _outside_name(each))
    for name in facts.get("databases", ()):
        if name != INTERNAL:
            yield (part.kind, name)
    for each in facts.get("buckets", ()):
        yield (part.kind, each["organization"], each["bucket"])
    for server in facts.get("servers", ()):
        yield (part.kind, server["container"])
        for database in server.get("rows", ()):
            yield (part.kind, server["container"], database)


def _outside_name(row: Mapping[str, Any]) -> str:
    return outside_title(row).removeprefix(VOLUME)


def lost_databases(before: Manifest, after: Manifest) -> tuple[str, ...]:
    """Return a warning for each part of which a later set lacks what an earlier one has.

    Databases and containers; not of a part that the later one does not have at all, nor of a
    container of which it says that it could not be dumped.
    """
    now = {part.kind: part for part in after.made}
    found = []
    for part in before.made:
        if part.kind == OUTSIDE or part.kind not in now:
            continue
        missing = {*_in_part(part)} - {*_in_part(now[part.kind])}
        if "servers" in part.facts:
            missing = {each for each in missing if each[1] not in now[part.kind].lacking}
        if missing:
            cure = way_out(_outermost_words(missing))
            found.append(f"Missing: {told(missing)}, which {before.runtag} has. {cure}.")
    return tuple(found)


def needed_of(backup: BackupSet, gone: Iterable[Gone]) -> Holdings:
    """Return what a set must hold to replace this one: what it holds and is not gone.

    With all that was in a part or a container, that is gone as well.
    """
    return _without(holdings_of(backup), tuple(each for each in gone if each.is_about(backup)))


@lru_cache(1 << 8)
def _without(held: Holdings, said: tuple[Gone, ...]) -> Holdings:
    if not said:
        return held
    left = {e for e in held if not any(each.excuses(e) for each in said)}
    for depth in (2, 1):
        left -= {
            e
            for e in left
            if len(e) == depth
            and e != (GENERAL,)
            and _has_inner(e, held)
            and not _has_inner(e, left)
        }
    return frozenset(left)


def _has_inner(outer: Holding, holdings: Iterable[Holding]) -> bool:
    depth = len(outer)
    return any(len(e) > depth and e[:depth] == outer for e in holdings)


def lacks(
    one: BackupSet, others: Iterable[BackupSet], gone: Iterable[Gone]
) -> tuple[tuple[Holdings, BackupSet], ...]:
    """Return what a set lacks that earlier ones of its machine hold, with the newest that has it.

    Only what a run has finished counts, and no set that is damaged.
    """
    made, host = one.made(), one.manifest.host if one.manifest else ""
    gone, known = tuple(gone), holdings_of(one)
    found = []
    for each in newest_first(others):
        then = each.made()
        if not (each.manifest and each.state in FINISHED and each.manifest.host == host):
            continue
        if made is None or then is None or then >= made:
            continue
        needed = needed_of(each, gone)
        missing = needed - known - answers_for(one, needed)
        if missing:
            found.append((missing, each))
            known |= missing
    return tuple(found)


def lacks_told(found: Iterable[tuple[Holdings, BackupSet]]) -> str:
    """Return what a set lacks in words, with who has it; '' where it lacks nothing."""
    return "; ".join(f"{told(missing)} (newest in {each.runtag})" for missing, each in found)


def lacks_cured(found: Iterable[tuple[Holdings, BackupSet]], at: str = "") -> str:
    """Return the same with how its owner says that it is gone for good.

    `at`: as in way_out.
    """
    found = tuple(found)
    return f"{lacks_told(found)}. {way_out(lacking_words(found), at)}." if found else ""


def lacking_words(found: Iterable[tuple[Holdings, BackupSet]]) -> list[str]:
    """Return the words of --allow-missing for what a set lacks."""
    return _outermost_words(frozenset[Holding]().union(*(each for each, _ in found)))


def _outermost_words(holdings: Iterable[Holding]) -> list[str]:
    """Return the words of --allow-missing for holdings, as Gone reads them."""
    return [
        each[-1] if each[0] in (GENERAL, OUTSIDE) else ":".join(each)
        for each in _outermost(holdings)
    ]


def _outermost(holdings: Iterable[Holding]) -> list[Holding]:
    """Return holdings in the order of their parts, but for what lies in another of them."""
    known = set(holdings)
    return sorted(
        (e for e in known if not any(e[:size] in known for size in range(1, len(e)))),
        key=lambda each: (_ORDER.get(each[0], len(_ORDER)), each),
    )


def told(holdings: Iterable[Holding], most: int = MOST_TOLD) -> str:
    """Return holdings in words: `the influx part`, `database home of the influx part`."""
    ordered = _outermost(holdings)
    words = [_words(each) for each in ordered[:most]]
    more = len(ordered) - most
    return ", ".join([*words, *([f"{more} more"] if more > 0 else [])])


def _words(holding: Holding) -> str:
    kind, *names = holding
    part = f"the {kind} part"
    if not names:
        return part
    if kind == GENERAL:
        return f"{names[0]} of {part}"
    if kind == "influx":
        return f"database {names[0]} of {part}"
    if kind == "influxdb2":
        return f"bucket {'/'.join(names)} of {part}"
    if kind == OUTSIDE:
        what = names[0] if names[0].startswith("/") else f"volume {names[0]}"
        return f"{what} of {part}"
    if len(names) == 1:
        return f"container {names[0]} of {part}"
    return f"database {names[1]} of container {names[0]} of {part}"
