"""What a set holds, part by part and database by database, and what it lacks that another holds.

Pure. A set replaces another only if it holds everything that the other holds, except what the
owner declared gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from ..core.dataclass import dataclass
from ..core.path_patterns import fits_all_of
from .losses import BYTES, FILES, gone_from, spelled, way_out
from .manifest import IS_MISSING, OUTSIDE, SIZES, VOLUME, Manifest, Part, outside_title
from .names import PARTS
from .sets import GOOD, BackupSet, State, newest_first

Holding = tuple[str, ...]
"""A part, or something in it: ("influx",), ("influx", "home"), ("mariadb", "db", "nextcloud").

One more word names an aspect of it: ("influx", "home", "data").
"""
Holdings = frozenset[Holding]

FINISHED = frozenset({*GOOD, State.INCOMPLETE})
GENERAL = "general"
DATA = "data"
"""Of a database: that it holds any data. A newly created one replaces none that did."""
WHOLE = "whole"
"""Of a SQLite file: that it is neither damaged nor torn."""
HOLLOW = "no bytes"
"""Of a path: that it has files, and all are empty."""
_DEPTHS = {GENERAL: 2, OUTSIDE: 2, "influx": 2}
_DEEPEST = 3
INTERNAL = "_internal"
"""InfluxDB's database about itself, which is never restored."""
MOST_TOLD = 3
_ORDER = {kind: number for number, kind in enumerate(PARTS)}
_ALIASES = {"influxdb": "influx", "postgresql": "postgres"}
_WHOLE = frozenset(PARTS) - {"mariadb", "postgres"}
"""The parts that hold one service each."""
_SPLIT = re.compile(r"[:/]")


@dataclass(frozen=True, slots=True)
class Gone:
    """A part, a container or a database that the owner declared gone for good, by its name.

    `host`: the machine whose sets are meant, '' for all. `said`: what a later set holds counts
    again; None: for sets of any time. `service`: the name is not that of a database.
    """

    name: str
    host: str = ""
    said: datetime | None = None
    service: bool = False

    def excuses(self, holding: Holding) -> bool:
        """Return whether a set may lack it: the name means it, or something that contains it."""
        named = _thing(holding)
        part = _ALIASES.get(self.name, self.name)
        if self.service:
            whole = named[0] in _WHOLE or len(named) == 1
            return (named[0] == part) if whole else (named[1] == self.name)
        return any(True for _ in _heads(self.name, named))

    def is_about(self, backup: BackupSet) -> bool:
        """Return whether it applies to a set: of its machine, made before `said`."""
        host = backup.manifest.host if backup.manifest else self.host
        made = backup.made()
        return self.host in ("", host) and (
            self.said is None or (made is not None and made < self.said)
        )


def _thing(holding: Holding) -> Holding:
    """Return the named thing itself, without the word for an aspect of it."""
    return holding[: _DEPTHS.get(holding[0], _DEEPEST)]


def _heads(name: str, thing: Holding) -> Iterable[Holding]:
    """Yield the things that contain `thing` and that a name of --allow-missing may mean."""
    kind = _ALIASES.get(name, name)
    if kind in PARTS:
        if thing[0] == kind:
            yield (kind,)
        return
    if thing[0] in (GENERAL, OUTSIDE):
        here = OUTSIDE if name.startswith(VOLUME) else GENERAL if name.startswith("./") else ""
        place = name.removeprefix(VOLUME).removeprefix("./").rstrip("/")
        inside = len(thing) > 1 and f"{thing[1]}/".startswith(f"{place}/")
        if place and inside and here in ("", thing[0]):
            yield (thing[0], place)
        return
    words = tuple(_SPLIT.split(name))
    words = (_ALIASES.get(words[0], words[0]), *words[1:])
    for depth in range(1, len(thing) + 1):
        head = thing[:depth]
        if name in (head[-1], ":".join(head)) or head[-len(words) :] == words:
            yield head


def meanings(name: str, holdings: Iterable[Holding]) -> tuple[str, ...]:
    """Return what a name of --allow-missing may mean among holdings, as unambiguous names.

    A container with its contents counts as one, even if a database in it has the same name.
    """
    things = {*map(_thing, holdings)}
    if any(name == _spelled(each) for each in things):
        return (name,)
    heads = {head for each in things for head in _heads(name, each)}

    def is_all_of(outer: Holding) -> bool:
        inner = {e for e in things if len(e) > len(outer) and e[: len(outer)] == outer}
        return inner <= heads

    whole = {each for each in heads if is_all_of(each)}
    inner = {e for e in heads if any(e[:size] in whole for size in range(len(e)))}
    return tuple(sorted(map(_spelled, heads - inner)))


def holdings_of(backup: BackupSet) -> Holdings:
    """Return what a set holds, by its manifest; without one, the kinds of its archives."""
    manifest = backup.manifest
    if manifest is None:
        return frozenset((kind,) for kind in backup.parts)
    sizes = manifest.sizes.items()
    paths = frozenset(_held(GENERAL, path, size) for path, (size, files) in sizes if files)
    whole = (
        (kind, f"/{name}" if kind == OUTSIDE else name, WHOLE) for kind, name in manifest.sqlite
    )
    return paths.union(whole, *map(_in_part, manifest.made))


def _held(kind: str, path: str, size: int) -> Holding:
    return (kind, path) if size else (kind, path, HOLLOW)


def answers_for(backup: BackupSet, needed: Iterable[Holding]) -> Holdings:
    """Return what a set holds, and which of the needed holdings it need not hold.

    Those are: what it declares left out, folders that only shrank, anything in a path outside of
    the stack that it holds as a whole, and SQLite files that it does not report as damaged or
    torn.
    """
    held, manifest = holdings_of(backup), backup.manifest
    if manifest is None:
        return held
    open_ = [each for each in needed if len(each) > 1 and each[0] in (GENERAL, OUTSIDE)]
    out = [each.what.removeprefix(VOLUME) for each in manifest.left_out]
    # For a volume that is left out except for its folder, the pattern is that of its path.
    rows = manifest.outside
    emptied = {_outside_name(e) for e in rows if any(fits_all_of(o, f"{e['path']}/") for o in out)}
    whole = _places(held, OUTSIDE)
    gone = {
        what: gone_from(manifest, [e[1] for e in open_ if e[0] == GENERAL], what)
        for what in (BYTES, FILES)
    }
    unsound = manifest.unsound

    def answers(kind: str, path: str, meant: str = "") -> bool:
        if meant == WHOLE:
            return path.lstrip("/") not in unsound
        if kind == GENERAL:
            return (GENERAL,) in held and path not in gone[FILES if meant == HOLLOW else BYTES]
        is_out = path in emptied or any(fits_all_of(one, path) for one in out)
        return is_out or path.startswith(whole) or (bool(meant) and (kind, path) in held)

    return held.union(each for each in open_ if answers(*each))


def _in_part(part: Part) -> Iterable[Holding]:
    facts: Mapping[str, Any] = part.facts
    rows = facts.get(OUTSIDE, ())
    if not rows:
        yield (part.kind,)
    sizes: Mapping[str, Any] = facts.get(SIZES, {})
    for each in rows:
        size, files = sizes.get(each["path"].lstrip("/"), (1, 1))
        if files:  # an emptied one replaces none with content
            yield _held(part.kind, _outside_name(each), size)
    full = {each["database"] for each in facts.get("shards", ())}
    for name in facts.get("databases", ()):
        if name != INTERNAL:
            yield (part.kind, name)
            if name in full or "shards" not in facts:
                yield (part.kind, name, DATA)
    for each in facts.get("buckets", ()):
        yield (part.kind, each["organization"], each["bucket"])
        # InfluxDB's own buckets lose all of theirs within days.
        if each["shards"] and not each["bucket"].startswith("_"):
            yield (part.kind, each["organization"], each["bucket"], DATA)
    for server in facts.get("servers", ()):
        yield (part.kind, server["container"])
        for database, tables in server.get("rows", {}).items():
            yield (part.kind, server["container"], database)
            if any(tables.values()):
                yield (part.kind, server["container"], database, DATA)


def _outside_name(row: Mapping[str, Any]) -> str:
    return outside_title(row).removeprefix(VOLUME)


def lost_databases(before: Manifest, after: Manifest) -> tuple[str, ...]:
    """Return a warning for each part of which a later set lacks what an earlier one has.

    Covers databases and containers; not a part that the later set does not have at all, nor a
    container that it reports as not dumped.
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
            found.append(f"{IS_MISSING}{told(missing)}, which {before.runtag} has. {cure}.")
    return tuple(found)


def needed_of(backup: BackupSet, gone: Iterable[Gone]) -> Holdings:
    """Return what a set must hold to replace this one: what it holds and is not gone.

    If everything in a part or container is gone, that is gone as well.
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
            if len(_thing(e)) == depth
            and e != (GENERAL,)
            and _has_inner(e, held)
            and not _has_inner(e, left)
        }
    return frozenset(left)


def _has_inner(outer: Holding, holdings: Iterable[Holding]) -> bool:
    depth = len(outer)
    return any(len(_thing(e)) > depth and e[:depth] == outer for e in holdings)


def lacks(
    one: BackupSet, others: Iterable[BackupSet], gone: Iterable[Gone], *, here: bool = False
) -> tuple[tuple[Holdings, BackupSet], ...]:
    """Return what a set lacks that earlier ones of its machine hold, with the newest that has it.

    Only finished sets count, and no damaged one. `here`: all sets are stored beside their stack,
    so they are of one machine, whatever its name was.
    """
    made, host = one.made(), one.manifest.host if one.manifest else ""
    gone, known = tuple(gone), holdings_of(one)
    found = []
    for each in newest_first(others):
        then = each.made()
        if not (each.manifest and each.state in FINISHED):
            continue
        if not here and each.manifest.host != host:
            continue
        if made is None or then is None or then >= made:
            continue
        missing = needed_of(each, gone) - known
        if missing:
            answered = answers_for(one, missing)
            missing, known = missing - answered, known | answered
        if missing:
            found.append((missing, each))
            known |= missing
    return tuple(found)


def lacks_told(found: Iterable[tuple[Holdings, BackupSet]]) -> str:
    """Return as a phrase what a set lacks and which set has it; '' if it lacks nothing."""
    return "; ".join(f"{told(missing)} (newest in {each.runtag})" for missing, each in found)


def lacks_cured(found: Iterable[tuple[Holdings, BackupSet]], at: str = "") -> str:
    """Return the same, with how the owner declares it gone for good.

    `at`: as in way_out.
    """
    found = tuple(found)
    return f"{lacks_told(found)}. {way_out(lacking_words(found), at)}." if found else ""


def lacking_words(found: Iterable[tuple[Holdings, BackupSet]]) -> list[str]:
    """Return the arguments of --allow-missing for what a set lacks."""
    return _outermost_words(frozenset[Holding]().union(*(each for each, _ in found)))


def _outermost_words(holdings: Iterable[Holding]) -> list[str]:
    """Return the arguments of --allow-missing for holdings, as Gone reads them."""
    return list(dict.fromkeys(map(_spelled, _outermost(holdings))))


def spelled_all(holdings: Iterable[Holding]) -> list[str]:
    """Return the names of all holdings, as --allow-missing takes them, part by part."""
    ordered = sorted(holdings, key=lambda each: (_ORDER.get(each[0], len(_ORDER)), each))
    return list(dict.fromkeys(map(_spelled, ordered)))


def _spelled(holding: Holding) -> str:
    """Return an unambiguous name of a holding."""
    kind, *names = _thing(holding)
    if kind == GENERAL and names:
        return spelled(names[0])
    if kind == OUTSIDE and names:
        return names[0] if names[0].startswith("/") else f"{VOLUME}{names[0]}"
    return ":".join((kind, *names))


def _outermost(holdings: Iterable[Holding]) -> list[Holding]:
    """Return holdings in the order of their parts, without those inside another one."""
    known = set(holdings)
    paths = {kind: _places(known, kind) for kind in (GENERAL, OUTSIDE)}
    return sorted(
        (
            e
            for e in known
            if not any(e[:size] in known for size in range(1, len(e)))
            and not (len(e) > 1 and e[0] in paths and e[1].startswith(paths[e[0]]))
        ),
        key=lambda each: (_ORDER.get(each[0], len(_ORDER)), each),
    )


def _places(holdings: Iterable[Holding], kind: str) -> tuple[str, ...]:
    return tuple(f"{e[1]}/" for e in holdings if e[0] == kind and len(e) > 1 and e[2:] != (WHOLE,))


def told(holdings: Iterable[Holding], most: int = MOST_TOLD) -> str:
    """Return holdings as a phrase: `the influx part`, `database home of the influx part`."""
    ordered = _outermost(holdings)
    words = [_words(each) for each in ordered[:most]]
    more = len(ordered) - most
    return ", ".join([*words, *([f"{more} more"] if more > 0 else [])])


def _words(holding: Holding) -> str:
    thing = _thing(holding)
    kind, *names = thing
    part, meant = f"the {kind} part", holding[len(thing) :]
    if meant == (WHOLE,):
        return f"a whole {names[0]} of {part}"
    if meant == (DATA,):
        return f"the data of {_words(thing)}"
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
