"""The new parent folders of what is put in place: their owner, and how to undo them.

If root creates them, they could lock the user out. Not for: the restored data themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..core.dataclass import dataclass
from ..engine.steps import CommandStep, UndoneByCommand
from ..hosts.base import Command, sh
from .inside import above, is_in

# Only root may give a folder to another user.
_GIVE = 'give() { [ "$(id -u)" != 0 ] || chown --reference="$1" -- "$2"; }; '
_MAKE = (
    f'{_GIVE}up=$(dirname "$1"); [ -d "$1" ] || {{ mkdir -m 0755 -- "$1" && if [ -d "$2" ]; then '
    'give "$2" "$1" && chmod --reference="$2" -- "$1"; else give "$up" "$1"; fi && sync "$up"; }'
)
_UNMAKE = '[ ! -d "$1" ] || rmdir --ignore-fail-on-non-empty -- "$1"'


@dataclass(frozen=True, slots=True)
class MakeAround(CommandStep, UndoneByCommand):
    """Make a parent folder of what is put in place. Undo removes it if it is empty.

    It gets the owner of `like`, or, if that is not a folder, of its own parent.
    """

    journaled_as = "MakeAround"

    path: str
    live: str
    """What is put in place in it, or deeper."""
    like: str

    @property
    def command(self) -> Command:
        """The command that creates it, if it is still missing."""
        return self.access.guarded_root(*sh(_MAKE, self.path, self.like))

    @property
    def undo_command(self) -> Command:
        """The command that removes it, unless something was added to it."""
        return self.access.guarded_root(*sh(_UNMAKE, self.path))

    def commands(self) -> tuple[str, ...]:
        """Return the command as a user would type it."""
        return (f"mkdir '{self.path}'  # with the owner from the archive",)


@dataclass(frozen=True, slots=True)
class GiveStack(CommandStep, UndoneByCommand):
    """Give root's new folder of a stack to the owner of a file in the archive.

    Undo gives it back to root.
    """

    journaled_as = "GiveStack"

    path: str
    like: str

    @property
    def command(self) -> Command:
        """The command that changes the owner."""
        return self.access.guarded("chown", f"--reference={self.like}", "--", self.path)

    @property
    def undo_command(self) -> Command:
        """The command that changes it back."""
        return self.access.guarded("chown", "0:0", "--", self.path)

    def commands(self) -> tuple[str, ...]:
        """Return the command as a user would type it."""
        return (f"chown --reference='{self.like}' '{self.path}'",)


def folders_around(lives: Iterable[str], within: Collection[str]) -> dict[str, str]:
    """Return the parent folders of each path, with one path that is in it; the outermost first.

    Folders inside another path that is put in place are left out: that path is restored as a
    whole.
    """
    found = {folder: live for live in lives for folder in above(live)}
    return {
        folder: found[folder]
        for folder in sorted(found)
        if not any(is_in(folder, each) for each in within)
    }
