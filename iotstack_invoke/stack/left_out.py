"""Files that a backup left out stay in the live folder when that is replaced.

Not for: what is left out (settings, the table), nor the live files of databases, which are loaded.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from ..core.dataclass import dataclass
from ..engine.steps import HostStep, StepContext
from ..hosts.base import Command, Host, sh
from .swap import RENAME_AGAIN, UNDO_AGAIN, rename_by
from .swap_entries import KEPT

_WILD = re.compile(r"[*?\[]")

# $1 from, $2 to; then a find(1) that calls MOVE with both and the paths found. If one of them is
# no folder, nothing was moved aside, or all of it is back: then there is nothing to do.
_FIND = (
    'for each in "$1" "$2"; do [ -d "$each" ] && [ ! -L "$each" ] || exit 0; done; '
    '[ "$(stat -c %d "$1")" = "$(stat -c %d "$2")" ] || '
    '{ echo "$2 is on another file system than $1" >&2; exit 1; }; '
    'shift 2; exec "$@"'
)
# A path that already exists at the target is not moved. A missing parent folder that the backup
# does not hold is created like the old one; only one level, since otherwise the backup has no such
# data.
_MOVE = (
    "from=$1 to=$2; shift 2; "
    "for each; do "
    'place="$to${each#"$from"}"; above=${place%/*} was=${each%/*}; '
    '{ [ -e "$place" ] || [ -L "$place" ]; } && continue; '
    '[ ! -L "$above" ] || continue; '
    'if [ ! -d "$above" ]; then '
    '[ -d "${above%/*}" ] && [ ! -L "${above%/*}" ] || continue; '
    'mkdir -m 0700 "$above" && chown --reference="$was" "$above" && '
    'chmod --reference="$was" "$above" || exit 1; fi; '
    'mv -T "$each" "$place" || exit 1; '
    'done; sync --file-system "$to"'
)


@dataclass(frozen=True, slots=True)
class KeepLeftOut(HostStep):
    """Move what a backup left out from the replaced folder into the new one.

    Undo moves it back into the replaced folder, with later changes to it: no backup holds those.
    """

    journaled_as = "KeepLeftOut"

    live: str
    aside: str
    patterns: tuple[str, ...]
    """What was left out, relative to the folder; as tar's own exclusions."""

    def commands(self) -> tuple[str, ...]:
        """Return the moves as a user would type them."""
        return tuple(
            f"mv '{self.aside}'/{each} '{self.live}'/{each.rpartition('/')[0]}"
            for each in self.patterns
        )

    def _command(self, start: str, end: str) -> Command:
        paths = [word for p in self.patterns for word in ("-o", "-path", f"{_exact(start)}/{p}")]
        # Data moved aside in a mount point are in that mount point itself, beside those of older
        # restores.
        kept = (("-path", f"{_exact(start)}/{KEPT}"), ("!", "-path", f"{_exact(start)}/*/*"))
        passed_over = (*kept[0], *kept[1], "-prune", "-o")
        find = ("find", start, "-mindepth", "1", *passed_over, "(", *paths[1:], ")", "-prune")
        move = ("-exec", *sh(_MOVE, start, end, "{}", "+"))
        return self.access.guarded_root(*sh(_FIND, start, end, *find, *move))

    def do(self, context: StepContext) -> None:
        """Move each by one rename."""
        host = self.access.host(context)
        rename_by(host, self._command(self.aside, self.live), self._told("kept"), RENAME_AGAIN)

    def undo(self, host: Host) -> None:
        """Move the existing paths back, from any intermediate state."""
        told = self._told("put back")
        rename_by(host, self._command(self.live, self.aside), told, UNDO_AGAIN)

    def _told(self, done: str) -> str:
        """Return the error message."""
        way = (self.aside, self.live) if done == "kept" else (self.live, self.aside)
        return (
            f"what the backup left out of {self.live} could not be {done} (by moving it from "
            f"{way[0]} to {way[1]})"
        )


def _exact(path: str) -> str:
    return glob.escape(path).replace("\\", "\\\\")


def patterns_below(patterns: Iterable[str], item: str) -> tuple[str, ...]:
    """Return what patterns match within an item, as patterns relative to it.

    A `*` matches `/` too: it may stand for the item and more.
    """
    return tuple(dict.fromkeys(each for p in patterns for each in _below(p, item)))


def _below(pattern: str, item: str) -> Iterator[str]:
    depth = item.count("/") + 1
    first, rest = pattern.split("/")[:depth], pattern.split("/")[depth:]
    fits = map(fnmatchcase, item.split("/"), first)
    if rest and all(fits):
        yield "/".join(rest)
    plain, *wild = _WILD.split(pattern, maxsplit=1)
    star = pattern[len(plain) :]
    if wild and star.startswith("*") and f"{item}/".startswith(plain):
        yield star


def plain_place(pattern: str) -> str:
    """Return the folder that contains all matches of a pattern, or the path that it names."""
    plain, *wild = _WILD.split(pattern, maxsplit=1)
    return plain.rpartition("/")[0] if wild else plain
