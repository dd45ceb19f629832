"""What a set holds less of than an earlier one, as when a drive is not mounted. Pure.

Not for: what a backup could not save; that it knows and tells by itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator

from .manifest import (
    IS_A_DRIVE_AWAY,
    IS_LESS_MEANT,
    OUTSIDE,
    VOLUME,
    LeftOut,
    Manifest,
    outside_title,
)
from .services.table import fits_all_of
from .sets import GOOD, BackupSet, newest_first

FLOOR_BYTES = 1 << 20
"""What held less may come and go: only a mount that is empty now is told of whatever its size."""
MOST_TOLD = 10
SHARE = 0.5
"""Of what was there: so much must be there still."""
_WILD = re.compile(r"[*?\[]")


def way_out(names: Iterable[str], at: str = "") -> str:
    """Return how the owner says that something is gone for good, as a command to paste.

    Else each backup that had it stays, and `status` and `list` tell that newer ones lack it.
    `at`: the place whose backups hold it, if they are not here.
    """
    words = " ".join(f"--allow-missing {shlex.quote(each)}" for each in names)
    return f"If that is gone for good: inv prune {words}{f' --at {shlex.quote(at)}' if at else ''}"


def reference(sets: Iterable[BackupSet], runtag: str, host: str) -> Manifest | None:
    """Return what a set of a host is compared with: the newest good one that it does not replace.

    None where there is no other.
    """
    for each in newest_first(sets):
        manifest = each.manifest
        if each.state in GOOD and manifest and manifest.host == host and each.runtag != runtag:
            return manifest
    return None


def losses(before: Manifest, after: Manifest, mounts: Collection[str] = ()) -> tuple[str, ...]:
    """Return what a set holds less of than an earlier one, a warning each.

    `mounts`: paths of the stack that containers mount, or on which something is mounted.
    """
    return (
        *_lesser_parts(before, after),
        *_shrunk(before, after, mounts),
        *_shrunk_outside(before, after),
    )


def _lesser_parts(before: Manifest, after: Manifest) -> Iterator[str]:
    """Yield which parts are missing, or much smaller; of the general one what it holds is told."""
    now = {part.kind: part for part in after.parts}
    for part in before.made:
        was = f"{before.runtag} has one of {part.size_bytes:,} bytes"
        if part.kind not in now:
            if part.kind != OUTSIDE or not before.outside_sizes:  # else what it held is told
                cure = way_out([part.kind])
                yield f"The {part.kind} part is missing: {was}, and this backup has none. {cure}."
            continue
        one = now[part.kind]
        is_told = bool(one.error or one.lacking) or part.kind in ("general", OUTSIDE)
        if not is_told and FLOOR_BYTES <= part.size_bytes > one.size_bytes / SHARE:
            yield f"The {part.kind} part has {one.size_bytes:,} bytes: {was}. {IS_LESS_MEANT}"


def vanished(before: Manifest, after: Manifest) -> tuple[str, ...]:
    """Return the paths of which an earlier set holds data, and a later one nothing.

    Not what the later one says that it leaves out, and nothing small.
    """
    gone = gone_from(after, large_in(before))
    return tuple(path for path in before.sizes if path in gone)


def large_in(manifest: Manifest) -> frozenset[str]:
    """Return the paths of which a set holds so much that it does not come and go."""
    return frozenset(path for path, (size, _) in manifest.sizes.items() if size >= FLOOR_BYTES)


def gone_from(after: Manifest, paths: Iterable[str]) -> frozenset[str]:
    """Return the paths of which a set holds nothing and does not say that it leaves them out."""
    sizes = after.sizes
    if not sizes:
        return frozenset()
    out = [each.what for each in after.left_out]
    return frozenset(
        path for path in paths if not sizes.get(path, (0, 0))[1] and not _is_meant(out, path)
    )


def _is_meant(out: Iterable[str], path: str) -> bool:
    """Tell whether what is left out on purpose is a path, or a part of it."""
    return any(fits_all_of(each, path) or each.startswith(f"{path}/") for each in out)


def _shrunk(before: Manifest, after: Manifest, mounts: Collection[str]) -> Iterator[str]:
    """Yield which paths hold much less than they did, the innermost first."""
    if not after.sizes:  # its general part is of an earlier version, or could not be made
        return
    out = tuple({*map(_place, after.left_out)} - {*map(_place, before.left_out)})
    told: dict[str, tuple[int, int, int, int]] = {}
    """Bytes and files of before and after, by the outermost paths that were told of."""
    lines = []
    paths = [path for path in before.sizes if not _meets(path, out)]
    mounted = {e for e in after.sizes if e in mounts or e.count("/") != 1}
    hollow = {
        path
        for path in paths
        if not after.sizes.get(path, (0, 0))[1]
        and before.sizes[path][0] >= (1 if path in mounted else FLOOR_BYTES)
    }
    for path in sorted(paths, key=lambda each: (-each.count("/"), each)):
        if any(path.startswith(f"{each}/") for each in hollow):
            continue  # the folder around it is told of
        whole = (*before.sizes[path], *after.sizes.get(path, (0, 0)))
        inner = [each for each in told if each.startswith(f"{path}/")]
        had, files, has, left = (
            count - sum(told[each][i] for each in inner) for i, count in enumerate(whole)
        )
        small = had < FLOOR_BYTES and (left or path not in mounted)
        if not had or small or has >= had * SHARE:
            continue
        now = (has, left) if left or path in after.sizes else None
        lines.append(_less_told(path, now, before.runtag, (had, files)))
        told = {key: value for key, value in told.items() if key not in inner}
        told[path] = whole
    yield from lines[:MOST_TOLD]
    if lines[MOST_TOLD:]:
        more = f"{len(lines) - MOST_TOLD:,} more folders hold less than half of what they held"
        yield f"{more}: inv diff '{before.runtag}' '{after.runtag}' tells them. {IS_LESS_MEANT}"


def _shrunk_outside(before: Manifest, after: Manifest) -> Iterator[str]:
    """Yield which volumes and paths outside of the stack hold much less than they did."""
    if any(part.kind == OUTSIDE and part.error for part in after.parts):
        return  # the part is told of
    now = after.outside_sizes
    paths = {outside_title(row): row["path"] for row in after.outside}
    out = {each.what for each in after.left_out} - {each.what for each in before.left_out}
    for title, (size, files) in sorted(before.outside_sizes.items()):
        size_now, files_now = now.get(title, (0, 0))
        meant = _is_meant(out, title) or _is_meant(out, paths.get(title, title))
        unknown = title in paths and title not in now
        if not files or meant or unknown or (files_now and size < FLOOR_BYTES):
            continue
        if not files_now or size_now < size * SHARE:
            yield _less_told(title, now.get(title), before.runtag, (size, files))


def _less_told(what: str, now: tuple[int, int] | None, runtag: str, had: tuple[int, int]) -> str:
    """Return the words for what holds less; pairs of bytes and files, `now` None: it is gone."""
    told = "is not there any more"
    if now:
        told = f"holds {now[0]:,} bytes in {_files(now[1])} now" if now[1] else "is empty now"
    outside = what.startswith(("/", VOLUME))
    missing = not (now and now[1]) and (outside or had[0] >= FLOOR_BYTES)
    cure = f"{way_out([what.removeprefix(VOLUME)])}." if missing else IS_LESS_MEANT
    return (
        f"{what} {told}: {runtag} has {had[0]:,} bytes in {_files(had[1])} of it. "
        f"{IS_A_DRIVE_AWAY} {cure}"
    )


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _place(left_out: LeftOut) -> str:
    """Return the folder in which all lies that a pattern means."""
    plain, *rest = _WILD.split(left_out.what, maxsplit=1)
    return plain.rpartition("/")[0] if rest else plain


def _meets(path: str, places: Iterable[str]) -> bool:
    """Tell whether a path is one of some places, holds one, or lies in one."""
    return any(f"{path}/".startswith(f"{e}/") or f"{e}/".startswith(f"{path}/") for e in places)
