"""What is live is swapped by rename, or moved aside; undone, it is renamed back.

Not for: what lies in a mount point, which no rename replaces (swap_entries.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from ..core.dataclass import dataclass
from ..core.errors import OldDataGone, StepFailed
from ..engine.steps import STEP_LIMIT_S, HostStep, StepContext
from ..hosts.base import ANY_EXIT, Command, Host, is_telling, sh

GONE_EXIT = 44
"""Of what undoes a swap: what was moved aside is gone. Neither flock(1) nor sudo(8) ends so."""

# Each script takes its paths as "$1", "$2" …; `sync FOLDER` makes a rename in it last (fsync).
# A mv(1) to another file system would copy, and half a copy looks like the whole: refused. So it
# would between two mounts of one file system, which only their numbers in proc_pid_fdinfo(5) tell.
# What root puts aside is looked into by the user as well, whatever the umask: restore/ is private.
RENAME = (
    'umask 022; there() { [ -e "$1" ] || [ -L "$1" ]; }; '
    'mount_of() { grep ^mnt_id: /proc/self/fdinfo/3 3< "$(dirname "$1")"; }; '
    'rename() { mkdir -p "$(dirname "$2")" || return 1; '
    'if [ "$(stat -c %d "$1")" != "$(stat -L -c %d "$(dirname "$2")")" ] || '
    '[ "$(mount_of "$1")" != "$(mount_of "$2")" ]; then '
    'echo "$2 is on another file system than $1" >&2; return 1; fi; mv -T "$1" "$2"; }; '
)
SWAP = (
    f"{RENAME} live=$1 staged=$2 aside=$3; "
    'if there "$live"; then rename "$live" "$aside" || exit 1; '
    'else mkdir -p "$(dirname "$aside")" && : > "$aside.new" || exit 1; fi; '
    'rename "$staged" "$live" && sync "$(dirname "$live")" "$(dirname "$aside")"'
)
# What both undo: what is aside comes back, and what is marked as new goes.
_BACK = (
    'if there "$aside"; then '
    'if there "$live"; then rename "$live" "$used" || exit 1; fi; '
    'rename "$aside" "$live" || exit 1; '
    'elif there "$aside.new"; then '
    'if there "$live"; then rename "$live" "$used" || exit 1; fi; '
    'rm -f "$aside.new" || exit 1; '
)
# What has been live is never handed back to staging: nobody takes a used item for a fresh one.
# aside there: put it back, whatever lies in its place. The mark beside it: the item is new on
# this host, so it goes. Neither, and not undone yet: what was live is gone, and nothing is done.
UNSWAP = (
    f"{RENAME} live=$1 staged=$2 aside=$3 used=$4; "
    f"{_BACK}"
    'elif ! there "$staged" && ! there "$used"; then '
    f"exit {GONE_EXIT}; fi; "
    'sync "$(dirname "$live")"'
)

# Undoes a swap that earlier versions planned below another one: what is aside is a part of what
# that one moved, so its rename failed, and nothing is to be done. An undo of such a version may
# have put that part into the folder that goes: it comes back, and the way is free for the other.
UNSWAP_BELOW = (
    f"{RENAME} live=$1 aside=$3 used=$4 around=$5 used_around=$6; "
    'there "$around" || exit 0; '
    'if ! there "$aside" && there "$live" && there "$used"; then '
    'rename "$live" "$aside" || exit 1; fi; '
    'if there "$aside" && ! there "$live" && there "$used"; then '
    'rename "$used" "$live" || exit 1; fi; '
    '[ ! -d "$used_around" ] || find "$used_around" -depth -type d -empty -delete; '
    'sync "$(dirname "$aside")"'
)

# For each pair of a live path and where it was moved aside to: whether UNSWAP can put it back.
CAN_BE_BACK = (
    f"{RENAME} "
    'while [ $# -gt 1 ]; do live=$1 aside=$2; shift 2; if ! there "$aside"; then '
    'if there "$aside.new"; then echo new; else echo gone; fi; '
    'elif [ -d "$(dirname "$live")" ] && [ "$(mount_of "$live")" != "$(mount_of "$aside")" ]; '
    "then echo apart; else echo good; fi; done"
)

# For each item (live, staged, aside, used) of a version that left no such mark: makes it where the
# item was put in place and nothing was moved aside, as that version's own undo took it. Not where
# one of the folders named first, up to "", is gone: that undo had begun, and its stage with it.
MARK_NEW = (
    f"{RENAME} "
    'while [ -n "$1" ]; do [ -d "$1" ] || exit 0; shift; done; shift; '
    "while [ $# -gt 3 ]; do live=$1 staged=$2 aside=$3 used=$4; shift 4; "
    'if there "$live" && ! there "$staged" && ! there "$aside" && ! there "$used"; then '
    'mkdir -p "$(dirname "$aside")" && : > "$aside.new" || exit 1; fi; done'
)

# What is not there any more by then leaves the mark of something new: else it would look like
# something that was moved aside, and is gone.
MOVE_ASIDE = (
    f'{RENAME} live=$1 aside=$2; if there "$live"; then rename "$live" "$aside" || exit 1; '
    'else mkdir -p "$(dirname "$aside")" && : > "$aside.new" || exit 1; fi; '
    'sync "$(dirname "$live")" "$(dirname "$aside")"'
)
MOVE_BACK = (
    f"{RENAME} live=$1 aside=$2 used=$3; "
    f"{_BACK}"
    'elif ! there "$live" && ! there "$used"; then '
    f"exit {GONE_EXIT}; fi; "
    'sync "$(dirname "$live")"'
)

# A plain file in the place of a folder: Docker refuses to mount it, so no container starts on it.
PUT_AWAY = (
    f'{RENAME} live=$1 aside=$2; rename "$live" "$aside" && : > "$live" '
    '&& sync "$(dirname "$live")" "$(dirname "$aside")"'
)
PUT_BACK = (
    f'{RENAME} live=$1 aside=$2 used=$3; if ! there "$aside"; then '
    f'if [ -f "$live" ] && [ ! -L "$live" ]; then exit {GONE_EXIT}; fi; exit 0; fi; '
    'if [ -f "$live" ]; then rm -f "$live"; '
    'elif there "$live"; then rename "$live" "$used"; fi '
    '&& rename "$aside" "$live" && sync "$(dirname "$live")"'
)


MOST_LINES = 3
RENAME_AGAIN = (
    "Nothing was removed: the data is under one of the two names. Fix the cause (a disk that is "
    "full or read-only, or something mounted on one of them), then run this again."
)
UNDO_AGAIN = (
    "Nothing was removed. Fix the cause (a disk that is full or read-only, or something mounted "
    "on one of them), then run `inv undo` to resume."
)


def rename_by(host: Host, command: Command, told: str, advice: str, gone: str = "") -> None:
    """Run what renames; raises StepFailed where it fails: `told`, why, and what to do.

    OldDataGone, with `gone`, where what is to be renamed was removed.
    """
    outcome = host.run(command.accepting(*ANY_EXIT))
    if gone and outcome.exit_code == GONE_EXIT:
        raise OldDataGone(gone)
    if outcome.exit_code:  # a name in its words may have newlines
        said = [each.strip() for each in outcome.err.splitlines() if is_telling(each)]
        why = " ".join(said[-MOST_LINES:]) or outcome.last_line
        raise StepFailed(f"On {host.name}: {told}: {why.rstrip('.')}. {advice}")


def put_back_told(live: str, aside: str, used: str) -> str:
    """Return what was not done where something was not put back."""
    return (
        f"could not put back {live} (by renaming {aside} to it, and what has been there since to "
        f"{used})"
    )


def left_told(live: str, aside: str) -> str:
    """Return why something cannot be put back: nobody has what was moved aside."""
    return f"{aside} is gone, so {live} cannot be put back."


@dataclass(frozen=True, slots=True)
class SwapItem(HostStep):
    """Put a staged file or folder in the place of a live one, which is moved aside.

    Undone: what was moved aside is put back, and what was live since is moved to `used`. All
    four paths are on one file system.
    """

    journaled_as = "SwapItem"

    live: str
    staged: str
    aside: str
    used: str
    swap: ClassVar[str] = SWAP
    unswap: ClassVar[str] = UNSWAP
    limit_s: ClassVar[float] = STEP_LIMIT_S
    what: ClassVar[str] = ""
    """What of the live one is swapped, for people."""

    def commands(self) -> tuple[str, ...]:
        """Return the renames as a person would type them."""
        return (
            f"mv -T '{self.live}' '{self.aside}'  # if it is there",
            f"mv -T '{self.staged}' '{self.live}'",
        )

    def _command(self, script: str) -> Command:
        words = sh(script, self.live, self.staged, self.aside, self.used)
        return self.access.guarded_root(*words, timeout_s=self.limit_s)

    def do(self, context: StepContext) -> None:
        """Rename twice; between the two the item is missing, never half there."""
        told = (
            f"could not replace {self.what}{self.live} (by renaming it to {self.aside}, and "
            f"{self.staged} to its place)"
        )
        host = self.access.host(context)
        rename_by(host, self._command(self.swap), told, RENAME_AGAIN)

    def undo(self, host: Host) -> None:
        """Rename back, from wherever it stopped; raises OldDataGone where nothing is left to."""
        told = put_back_told(f"{self.what}{self.live}", self.aside, self.used)
        gone = left_told(self.live, self.aside)
        rename_by(host, self._command(self.unswap), told, UNDO_AGAIN, gone)

    def beside(self, others: Iterable[object]) -> SwapItem:
        """Return what undoes it beside others of its journal: one below another is undone with it.

        Only earlier versions planned such.
        """
        for each in others:
            if not (isinstance(each, SwapItem) and self.live.startswith(f"{each.live}/")):
                continue
            if self.aside == each.aside + self.live.removeprefix(each.live):
                return SwapBelow(
                    *(self.access, self.live, self.staged, self.aside, self.used),
                    *(each.aside, each.used),
                )
        return self


@dataclass(frozen=True, slots=True)
class SwapBelow(SwapItem):
    """A swap below another one, as earlier versions planned it. Undone with that one.

    It is read from a journal of theirs, and never written into one.
    """

    around: str
    used_around: str

    def undo(self, host: Host) -> None:
        """Let the other one be undone: what it moved aside is whole, and its way is free."""
        places = (self.live, self.staged, self.aside, self.used, self.around, self.used_around)
        command = self.access.guarded_root(*sh(UNSWAP_BELOW, *places), timeout_s=self.limit_s)
        told = put_back_told(self.live, self.aside, self.used)
        rename_by(host, command, told, UNDO_AGAIN)


@dataclass(frozen=True, slots=True)
class MoveAside(HostStep):
    """Move aside what a backup does not hold. Undone: it is put back.

    What came to its place meanwhile is moved to `used`.
    """

    journaled_as = "MoveAside"

    live: str
    aside: str
    used: str
    move: ClassVar[str] = MOVE_ASIDE
    move_back: ClassVar[str] = MOVE_BACK

    def commands(self) -> tuple[str, ...]:
        """Return the rename as a person would type it."""
        return (f"mv -T '{self.live}' '{self.aside}'",)

    def _command(self, script: str) -> Command:
        return self.access.guarded_root(*sh(script, self.live, self.aside, self.used))

    def do(self, context: StepContext) -> None:
        """Rename it; what is gone by now needs nothing."""
        told = f"could not move {self.live} aside (by renaming it to {self.aside})"
        host = self.access.host(context)
        rename_by(host, self._command(self.move), told, RENAME_AGAIN)

    def undo(self, host: Host) -> None:
        """Put it back, from wherever it stopped; raises OldDataGone where nothing is left to."""
        told = put_back_told(self.live, self.aside, self.used)
        gone = left_told(self.live, self.aside)
        rename_by(host, self._command(self.move_back), told, UNDO_AGAIN, gone)


@dataclass(frozen=True, slots=True)
class PutAway(MoveAside):
    """Move a folder aside and leave a plain file in its place: no container starts on that.

    Undone: the file is removed and the folder put back; what else lies there moves to `used`.
    """

    journaled_as = "PutAway"

    move: ClassVar[str] = PUT_AWAY
    move_back: ClassVar[str] = PUT_BACK

    def commands(self) -> tuple[str, ...]:
        """Return the commands as a person would type them."""
        return (f"mv -T '{self.live}' '{self.aside}'", f": > '{self.live}'")


@dataclass(frozen=True, slots=True)
class LeaveGone(HostStep):
    """Let what is live stay: what was moved aside from its place is gone. Undone: that is told.

    It comes into a kept journal in the place of the steps that cannot be undone any more.
    """

    journaled_as = "LeaveGone"

    live: str
    aside: str

    def do(self, context: StepContext) -> None:
        """Do nothing."""

    def undo(self, host: Host) -> str:  # noqa: ARG002 - each step has it
        """Return what is to be told."""
        return f"{left_told(self.live, self.aside)} It was not changed."
