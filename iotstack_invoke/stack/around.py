"""The folders around what is put in place, where they are new: whose they are, and their undo.

Who makes them may be root, and would keep the user out. Not for: what is put in place itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..core.dataclass import dataclass
from ..engine.steps import CommandStep, UndoneByCommand
from ..hosts.base import Command, sh
from .inside import above, is_in

# Only root may give a folder to somebody else.
_GIVE = 'give() { [ "$(id -u)" != 0 ] || chown --reference="$1" -- "$2"; }; '
_MAKE = (
    f'{_GIVE}up=$(dirname "$1"); [ -d "$1" ] || {{ mkdir -m 0755 -- "$1" && if [ -d "$2" ]; then '
    'give "$2" "$1" && chmod --reference="$2" -- "$1"; else give "$up" "$1"; fi && sync "$up"; }'
)
_UNMAKE = '[ ! -d "$1" ] || rmdir --ignore-fail-on-non-empty -- "$1"'


@dataclass(frozen=True, slots=True)
class MakeAround(CommandStep, UndoneByCommand):
    """Make a folder around what is put in place. Undone: remove it where it is empty.

    It belongs to whom `like` does, or where that is no folder to whom the one around it does.
    """

    journaled_as = "MakeAround"

    path: str
    live: str
    """What is put in place in it, or deeper."""
    like: str

    @property
    def command(self) -> Command:
        """What makes it, if it is still missing."""
        return self.access.guarded_root(*sh(_MAKE, self.path, self.like))

    @property
    def undo_command(self) -> Command:
        """What removes it, unless something came into it since."""
        return self.access.guarded_root(*sh(_UNMAKE, self.path))

    def commands(self) -> tuple[str, ...]:
        """Return the command as a person would type it."""
        return (f"mkdir '{self.path}'  # with the owner from the archive",)


@dataclass(frozen=True, slots=True)
class GiveStack(CommandStep, UndoneByCommand):
    """Give root's new folder of a stack to whom a file of the archive belongs. Undone: root's."""

    journaled_as = "GiveStack"

    path: str
    like: str

    @property
    def command(self) -> Command:
        """What gives it away."""
        return self.access.guarded("chown", f"--reference={self.like}", "--", self.path)

    @property
    def undo_command(self) -> Command:
        """What takes it back."""
        return self.access.guarded("chown", "0:0", "--", self.path)

    def commands(self) -> tuple[str, ...]:
        """Return the command as a person would type it."""
        return (f"chown --reference='{self.like}' '{self.path}'",)


def folders_around(lives: Iterable[str], within: Collection[str]) -> dict[str, str]:
    """Return the folders around each path, with one path that lies in it; the outermost first.

    None that lies within another path that is put in place, which comes as a whole.
    """
    found = {folder: live for live in lives for folder in above(live)}
    return {
        folder: found[folder]
        for folder in sorted(found)
        if not any(is_in(folder, each) for each in within)
    }
