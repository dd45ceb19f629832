"""What a backup left out stays in the live folder when the folder around it is replaced.

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

# $1 from, $2 to; then a find(1) that calls MOVE with both and what it found. Where one of them is
# no folder, nothing was put aside, or all of it is back: then nothing is to be done.
_FIND = (
    'for each in "$1" "$2"; do [ -d "$each" ] && [ ! -L "$each" ] || exit 0; done; '
    '[ "$(stat -c %d "$1")" = "$(stat -c %d "$2")" ] || '
    '{ echo "$2 is on another file system than $1" >&2; exit 1; }; '
    'shift 2; exec "$@"'
)
# What is at its place already is left there. A folder around it that the backup does not hold is
# made like the one that was; not more than one, for then the backup knows nothing of all that.
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
    """Move what a backup left out from the folder put aside back into the one in its place.

    Undone: back into the one put aside, with what came to it since: that is in no backup at all.
    """

    journaled_as = "KeepLeftOut"

    live: str
    aside: str
    patterns: tuple[str, ...]
    """What was left out, below the folder; as tar's own exclusions."""

    def commands(self) -> tuple[str, ...]:
        """Return what is moved, as a person would type it."""
        return tuple(
            f"mv '{self.aside}'/{each} '{self.live}'/{each.rpartition('/')[0]}"
            for each in self.patterns
        )

    def _command(self, start: str, end: str) -> Command:
        paths = [word for p in self.patterns for word in ("-o", "-path", f"{_exact(start)}/{p}")]
        # What is put aside lies in a mount point itself, beside what older restores keep there.
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
        """Move back what is there, from wherever it stopped."""
        told = self._told("put back")
        rename_by(host, self._command(self.live, self.aside), told, UNDO_AGAIN)

    def _told(self, done: str) -> str:
        """Return what was not done."""
        way = (self.aside, self.live) if done == "kept" else (self.live, self.aside)
        return (
            f"what the backup left out of {self.live} could not be {done} (by moving it from "
            f"{way[0]} to {way[1]})"
        )


def _exact(path: str) -> str:
    return glob.escape(path).replace("\\", "\\\\")


def patterns_below(patterns: Iterable[str], item: str) -> tuple[str, ...]:
    """Return what patterns mean within an item, as patterns below it.

    A `*` means `/` too: it may stand for the item and more.
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
    """Return the folder in which all lies that a pattern means, or what it names."""
    plain, *wild = _WILD.split(pattern, maxsplit=1)
    return plain.rpartition("/")[0] if wild else plain
