"""Data in a mount point are swapped entry by entry: no rename replaces the mount point itself.

Not for: folders that can be renamed, which one rename swaps whole.
"""

from __future__ import annotations

from typing import ClassVar

from ..core.dataclass import dataclass
from .swap import GONE_EXIT, SwapItem

KEPT = ".previous-*-????????T??????Z*"
"""What restores keep in a mount point: it is neither swapped nor packed."""
MOVED = ".moved"
"""The suffix of the mark that all entries were moved aside."""
SWAP_LIMIT_S = 3600.0

# `entries FOLDER` … prints the entries of a folder to swap: neither what restores keep, nor what
# belongs to the file system. `like FROM TO`: owner, mode, time, ACL and attributes of the folder
# itself, if the file system has them. mv(1) with -n never overwrites: an entry that exists by then
# is newer.
_HEAD = (
    'there() { [ -e "$1" ] || [ -L "$1" ]; }; '
    'entries() { folder=$1; shift; find "$folder" -mindepth 1 -maxdepth 1 '
    f"! -name '{KEPT}' ! -name lost+found \"$@\"; }}; "
    'facts() { stat -c "%u %g %a" "$1"; }; '
    'like() { tar -c --no-recursion --numeric-owner --acls --xattrs "--xattrs-include=*" '
    '-C "$1" . '
    "| tar -x -p --same-owner --numeric-owner --acls --xattrs "
    '"--xattrs-include=*" -C "$2" 2>/dev/null || [ "$(facts "$1")" = "$(facts "$2")" ]; }; '
    'empty() { left=$(entries "$1" -print -quit) || return 1; [ -z "$left" ] || '
    '{ echo "$left came there meanwhile" >&2; return 1; }; }; '
    'move() { entries "$1" -exec mv -n -t "$2" -- {} + && empty "$1" && '
    'sync --file-system "$2"; }; '
    'mark() { : > "$1" && sync --file-system "$1"; }; '
    "live=$1 staged=$2 aside=$3 used=$4; "
)
_SWAP = (
    f"{_HEAD}"
    '[ "$(stat -c %d "$staged")" = "$(stat -c %d "$live")" ] || '
    '{ echo "$staged is on another file system than $live" >&2; exit 1; }; '
    'mkdir -m 0700 "$aside.begun" && like "$live" "$aside.begun" && '
    'mv -T "$aside.begun" "$aside" && move "$live" "$aside" && '
    f'mark "$aside{MOVED}" && move "$staged" "$live" && like "$staged" "$live" && '
    'rm -rf "$staged" && sync --file-system "$live"'
)
# Before the first mark, live holds what was not moved yet; after it, what was staged, and what was
# created since; after the second mark, what was put back. What was created since goes to `used`.
_GIVE_BACK = (
    "live=$1 used=$2; shift 2; for each; do "
    'place="$live/${each##*/}"; '
    'if [ -e "$place" ] || [ -L "$place" ]; then '
    'mkdir -p "$used" && mv -n -t "$used" -- "$place" || exit 1; '
    'if [ -e "$place" ] || [ -L "$place" ]; then echo "$place is in the way" >&2; exit 1; fi; fi; '
    'mv -T -- "$each" "$place" || exit 1; done'
)
_UNSWAP = (
    f"{_HEAD}"
    'if there "$aside"; then '
    f'if there "$aside{MOVED}" && ! there "$aside.back"; then '
    'mkdir -p "$used" && chmod 0700 "$used" && move "$live" "$used" && mark "$aside.back" '
    "|| exit 1; fi; "
    f"find \"$aside\" -mindepth 1 -maxdepth 1 -exec sh -c '{_GIVE_BACK}' "
    'sh "$live" "$used" {} + && like "$aside" "$live" && sync --file-system "$live" && '
    'rmdir "$aside" || exit 1; '
    'elif ! there "$staged" && ! there "$used"; then '
    f"exit {GONE_EXIT}; fi; "
    f'rm -f "$aside{MOVED}" "$aside.back"; '
    '[ ! -d "$aside.begun" ] || rmdir "$aside.begun"; '
    'sync --file-system "$live"'
)


@dataclass(frozen=True, slots=True)
class SwapEntries(SwapItem):
    """Put the entries of a staged folder in the place of those of a mount point.

    Undo puts back those that were moved aside, and moves what was live since to `used`. All four
    are on one file system: the others are in the mount point, named as KEPT.
    """

    journaled_as = "SwapEntries"

    swap: ClassVar[str] = _SWAP
    unswap: ClassVar[str] = _UNSWAP
    limit_s: ClassVar[float] = SWAP_LIMIT_S
    what: ClassVar[str] = "what is in "

    def commands(self) -> tuple[str, ...]:
        """Return the renames as a user would type them."""
        return (f"mv '{self.live}'/* '{self.aside}'", f"mv '{self.staged}'/* '{self.live}'")
