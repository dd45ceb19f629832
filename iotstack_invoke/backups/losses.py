"""What a set holds less of than an earlier one, for instance if a drive was not mounted. Pure.

Not for: what a backup could not save; it reports that itself.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ..core.path_patterns import fits_all_of
from .manifest import (
    IS_A_DRIVE_AWAY,
    IS_LESS_MEANT,
    OUTSIDE,
    VOLUME,
    LeftOut,
    Manifest,
    Part,
    outside_title,
)
from .sets import GOOD, BackupSet, newest_first

FLOOR_BYTES = 1 << 20
FLOOR_ROWS = 100
"""Anything smaller may shrink: it is reported only if nothing is left."""
MOST_TOLD = 10
SHARE = 0.5
"""The share of the earlier amount that must still be there."""
_WILD = re.compile(r"[*?\[]")


def way_out(names: Iterable[str], at: str = "") -> str:
    """Return how the owner declares something gone for good, as a command to paste.

    Otherwise each backup that had it stays, and `status` and `list` report that newer ones lack
    it. `at`: the vault whose backups hold it, if they are not here.
    """
    words = " ".join(f"--allow-missing {shlex.quote(each)}" for each in names)
    return f"If it is gone for good: inv prune {words}{f' --at {shlex.quote(at)}' if at else ''}"


def reference(sets: Iterable[BackupSet], runtag: str, host: str) -> Manifest | None:
    """Return the set to compare a new one with: the newest good one that it does not replace.

    One of another host if this host has none: beside a stack that is its earlier name.
    None if there is no other.
    """
    good = (each for each in newest_first(sets) if each.state in GOOD and each.runtag != runtag)
    found = [each.manifest for each in good if each.manifest]
    return next((each for each in found if each.host == host), next(iter(found), None))


def losses(before: Manifest, after: Manifest) -> tuple[str, ...]:
    """Return a warning for each thing that a set holds less of than an earlier one."""
    return (
        *_lesser_parts(before, after),
        *_lesser_databases(before, after),
        *_shrunk(before, after),
        *_shrunk_outside(before, after),
    )


def _lesser_parts(before: Manifest, after: Manifest) -> Iterator[str]:
    """Yield the parts that are missing or much smaller; for the general part, its contents."""
    now = {part.kind: part for part in after.parts}
    for part in before.made:
        was = f"{before.runtag} has one of {part.size_bytes:,} bytes"
        if part.kind not in now:
            if part.kind != OUTSIDE or not before.outside_sizes:  # else its contents are reported
                cure = way_out([part.kind])
                yield f"The {part.kind} part is missing: {was}, but this backup has none. {cure}."
            continue
        one = now[part.kind]
        is_told = bool(one.error or one.lacking) or part.kind in ("general", OUTSIDE)
        if not is_told and FLOOR_BYTES <= part.size_bytes > one.size_bytes / SHARE:
            yield f"The {part.kind} part has {one.size_bytes:,} bytes: {was}. {IS_LESS_MEANT}"


Count = tuple[int, int]
"""Bytes and files."""
BYTES, FILES = 0, 1


def is_hollow(had: Count, has: Count) -> bool:
    """Return whether nothing is left: no byte, or no file if none had any byte."""
    return not has[BYTES] if had[BYTES] else bool(had[FILES]) and not has[FILES]


def gone_from(after: Manifest, paths: Iterable[str], what: int = BYTES) -> frozenset[str]:
    """Return the paths of which a set holds nothing without declaring them left out.

    `what`: no byte, or no file.
    """
    sizes = after.sizes
    if not sizes:
        return frozenset()
    out = [each.what for each in after.left_out]
    return frozenset(
        path for path in paths if not sizes.get(path, (0, 0))[what] and not _is_meant(out, path)
    )


def _is_meant(out: Iterable[str], path: str) -> bool:
    """Return whether a path, or a part of it, is left out on purpose."""
    return any(fits_all_of(each, path) or each.startswith(f"{path}/") for each in out)


def _lesser_databases(before: Manifest, after: Manifest) -> Iterator[str]:
    """Yield the databases that hold much less than before; empty ones count as missing."""
    now = {part.kind: part for part in after.made}
    for part in before.made:
        has = _amounts(now[part.kind]) if part.kind in now else {}
        for title, (had, unit, floor) in _amounts(part).items():
            left = has.get(title, (0, "", 0))[0]
            if floor <= had and 0 < left < had * SHARE:
                yield (
                    f"{title} of the {part.kind} part now has {left:,} {unit}: "
                    f"{before.runtag} had {had:,}. {IS_LESS_MEANT}"
                )


def _amounts(part: Part) -> Mapping[str, tuple[int, str, int]]:
    """Return how much each database of a part holds: amount, unit, smallest that counts."""
    found = {
        f"Database {database} of container {server['container']}": (
            sum(tables.values()),
            "rows",
            FLOOR_ROWS,
        )
        for server in part.facts.get("servers", ())
        for database, tables in server.get("rows", {}).items()
    }
    sizes = Counter[str]()
    for shard in part.facts.get("shards", ()):
        sizes[f"Database {shard['database']}"] += shard["size_bytes"]
    for each in part.facts.get("buckets", ()):
        sizes[f"Bucket {each['organization']}/{each['bucket']}"] += each["size_bytes"]
    return found | {title: (size, "bytes", FLOOR_BYTES) for title, size in sizes.items()}


def _shrunk(before: Manifest, after: Manifest) -> Iterator[str]:
    """Yield the paths that hold nothing any more, or much less than before, innermost first."""
    if not after.sizes:  # the general part is of an earlier version, or failed
        return
    out = tuple({*map(_place, after.left_out)} - {*map(_place, before.left_out)})
    told: dict[str, tuple[int, int, int, int]] = {}
    """Bytes and files before and after, by the outermost paths that were reported."""
    lines = []
    paths = [path for path in before.sizes if not _meets(path, out)]
    hollow = {
        path for path in paths if is_hollow(before.sizes[path], after.sizes.get(path, (0, 0)))
    }
    for path in sorted(paths, key=lambda each: (-each.count("/"), each)):
        if any(path.startswith(f"{each}/") for each in hollow):
            continue  # its parent folder is reported
        whole = (*before.sizes[path], *after.sizes.get(path, (0, 0)))
        inner = [each for each in told if each.startswith(f"{path}/")]
        had, files, has, left = (
            count - sum(told[each][i] for each in inner) for i, count in enumerate(whole)
        )
        if path not in hollow and (had < FLOOR_BYTES or has >= had * SHARE):
            continue
        now = (has, left) if left or path in after.sizes else None
        lines.append(_less_told(path, now, before.runtag, (had, files)))
        told = {key: value for key, value in told.items() if key not in inner}
        told[path] = whole
    yield from lines[:MOST_TOLD]
    if lines[MOST_TOLD:]:
        more = (
            f"{len(lines) - MOST_TOLD:,} more folders have less than half of their earlier content"
        )
        yield f"{more}: inv diff '{before.runtag}' '{after.runtag}' lists them. {IS_LESS_MEANT}"


def _shrunk_outside(before: Manifest, after: Manifest) -> Iterator[str]:
    """Yield volumes and paths outside of the stack that hold nothing, or much less."""
    if any(part.kind == OUTSIDE and part.error for part in after.parts):
        return  # the part is reported
    now = after.outside_sizes
    paths = {outside_title(row): row["path"] for row in after.outside}
    out = {each.what for each in after.left_out} - {each.what for each in before.left_out}
    for title, had in sorted(before.outside_sizes.items()):
        has = now.get(title, (0, 0))
        meant = _is_meant(out, title) or _is_meant(out, paths.get(title, title))
        unknown = title in paths and title not in now
        if meant or unknown:
            continue
        shrunk = FLOOR_BYTES <= had[BYTES] > has[BYTES] / SHARE
        if shrunk or is_hollow(had, has):
            yield _less_told(title, now.get(title), before.runtag, had)


def spelled(path: str) -> str:
    """Return how --allow-missing names a path of the stack: `volumes/a`, `./homeassistant`."""
    return path if "/" in path or path.startswith(VOLUME) else f"./{path}"


def _less_told(what: str, now: Count | None, runtag: str, had: Count) -> str:
    """Return the text for a loss; pairs of bytes and files, `now` None: it is gone."""
    told = "is missing now"
    if now:
        told = f"holds {now[0]:,} bytes in {_files(now[1])} now" if now[1] else "is empty now"
    missing = is_hollow(had, now or (0, 0))
    cure = f"{way_out([spelled(what)])}." if missing else IS_LESS_MEANT
    return (
        f"{what} {told}: {runtag} has {had[0]:,} bytes in {_files(had[1])} of it. "
        f"{IS_A_DRIVE_AWAY} {cure}"
    )


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _place(left_out: LeftOut) -> str:
    """Return the folder that contains everything a pattern matches."""
    plain, *rest = _WILD.split(left_out.what, maxsplit=1)
    return plain.rpartition("/")[0] if rest else plain


def _meets(path: str, places: Iterable[str]) -> bool:
    """Return whether a path is one of some places, contains one, or is inside one."""
    return any(f"{path}/".startswith(f"{e}/") or f"{e}/".startswith(f"{path}/") for e in places)
