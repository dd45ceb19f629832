"""Live data are swapped by rename, or moved aside; undo renames them back.

Not for: data in a mount point, which no rename replaces (swap_entries.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from ..core.dataclass import dataclass
from ..core.errors import OldDataGone, StepFailed
from ..engine.steps import STEP_LIMIT_S, HostStep, StepContext
from ..hosts.base import ANY_EXIT, Command, Host, is_telling, sh
from ..hosts.inspect import undo_on

GONE_EXIT = 44
"""Exit code of an undo: what was moved aside is gone. Neither flock(1) nor sudo(8) uses it."""

# Each script takes its paths as "$1", "$2" …; `sync FOLDER` makes a rename in it durable (fsync).
# mv(1) to another file system would copy, and a partial copy looks complete: refused. It would
# also copy between two mounts of one file system, which only their numbers in proc_pid_fdinfo(5)
# show. The user needs to read what root moves aside, whatever the umask: restore/ is private.
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
# Common to both undos: what is aside comes back, and what is marked as new is moved away.
_BACK = (
    'if there "$aside"; then '
    'if there "$live"; then rename "$live" "$used" || exit 1; fi; '
    'rename "$aside" "$live" || exit 1; '
    'elif there "$aside.new"; then '
    'if there "$live"; then rename "$live" "$used" || exit 1; fi; '
    'rm -f "$aside.new" || exit 1; '
)
# Live data never return to staging: a used item must not count as a fresh one. If aside exists,
# put it back, whatever is at its path. If its mark exists, the item is new on this host, so it is
# moved away. If neither exists, and it was not undone yet: the old data are gone, and nothing is
# done.
UNSWAP = (
    f"{RENAME} live=$1 staged=$2 aside=$3 used=$4; "
    f"{_BACK}"
    'elif ! there "$staged" && ! there "$used"; then '
    f"exit {GONE_EXIT}; fi; "
    'sync "$(dirname "$live")"'
)

# Undoes a swap that earlier versions planned below another one: its aside is a part of what that
# one moved, so its rename failed, and there is nothing to do. An undo of such a version may have
# put that part into the folder that is moved away: it is moved back, so that the other undo can
# work.
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

# Prints for each pair of a live path and its aside whether UNSWAP can put it back.
CAN_BE_BACK = (
    f"{RENAME} "
    'while [ $# -gt 1 ]; do live=$1 aside=$2; shift 2; if ! there "$aside"; then '
    'if there "$aside.new"; then echo new; else echo gone; fi; '
    'elif [ -d "$(dirname "$live")" ] && [ "$(mount_of "$live")" != "$(mount_of "$aside")" ]; '
    "then echo apart; else echo good; fi; done"
)

# For each item (live, staged, aside, used) of a version that left no such mark: creates it if the
# item was put in place and nothing was moved aside, as that version's own undo assumed. Not if one
# of the folders named first, up to "", is gone: that undo had begun, and removed its stage.
MARK_NEW = (
    f"{RENAME} "
    'while [ -n "$1" ]; do [ -d "$1" ] || exit 0; shift; done; shift; '
    "while [ $# -gt 3 ]; do live=$1 staged=$2 aside=$3 used=$4; shift 4; "
    'if there "$live" && ! there "$staged" && ! there "$aside" && ! there "$used"; then '
    'mkdir -p "$(dirname "$aside")" && : > "$aside.new" || exit 1; fi; done'
)

# For a path that is gone by then, creates the mark of a new item: otherwise it would look like one
# that was moved aside and lost.
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

# A plain file instead of a folder: Docker refuses to mount it, so no container starts on it.
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
    "on one of them), then run `{undo}` to resume."
)


def rename_by(host: Host, command: Command, told: str, advice: str, gone: str = "") -> None:
    """Run a renaming command; raises StepFailed if it fails: `told`, why, and what to do.

    Raises OldDataGone, with `gone`, if the path to rename was removed.
    """
    outcome = host.run(command.accepting(*ANY_EXIT))
    if gone and outcome.exit_code == GONE_EXIT:
        raise OldDataGone(gone)
    if outcome.exit_code:  # a name in its arguments may have newlines
        said = [each.strip() for each in outcome.err.splitlines() if is_telling(each)]
        why = " ".join(said[-MOST_LINES:]) or outcome.last_line
        todo = advice.format(undo=undo_on(host))
        raise StepFailed(f"On {host.name}: {told}: {why.rstrip('.')}. {todo}")


def put_back_told(live: str, aside: str, used: str) -> str:
    """Return the message for data that were not put back."""
    return (
        f"could not put back {live} (by renaming {aside} to it, and what has been there since to "
        f"{used})"
    )


def left_told(live: str, aside: str) -> str:
    """Return why something cannot be put back: what was moved aside is gone."""
    return f"{aside} is gone, so {live} cannot be put back."


@dataclass(frozen=True, slots=True)
class SwapItem(HostStep):
    """Put a staged file or folder in the place of a live one, which is moved aside.

    Undo puts back what was moved aside, and moves what was live since to `used`. All four paths
    are on one file system.
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
    """What is swapped of the live one, for people."""

    def commands(self) -> tuple[str, ...]:
        """Return the renames as a user would type them."""
        return (
            f"mv -T '{self.live}' '{self.aside}'  # if it is there",
            f"mv -T '{self.staged}' '{self.live}'",
        )

    def _command(self, script: str) -> Command:
        words = sh(script, self.live, self.staged, self.aside, self.used)
        return self.access.guarded_root(*words, timeout_s=self.limit_s)

    def do(self, context: StepContext) -> None:
        """Rename twice; between the two the item is missing, never partial."""
        told = (
            f"could not replace {self.what}{self.live} (by renaming it to {self.aside}, and "
            f"{self.staged} to its place)"
        )
        host = self.access.host(context)
        rename_by(host, self._command(self.swap), told, RENAME_AGAIN)

    def undo(self, host: Host) -> None:
        """Rename back from any intermediate state; raises OldDataGone if the old data is gone."""
        told = put_back_told(f"{self.what}{self.live}", self.aside, self.used)
        gone = left_told(self.live, self.aside)
        rename_by(host, self._command(self.unswap), told, UNDO_AGAIN, gone)

    def beside(self, others: Iterable[object]) -> SwapItem:
        """Return its undo beside others of its journal: a nested one is undone with its parent.

        Only earlier versions planned nested swaps.
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
    """A swap below another one, as earlier versions planned it. Undone together with that one.

    It is read from their journals, and never written into one.
    """

    around: str
    used_around: str

    def undo(self, host: Host) -> None:
        """Enable the other one's undo: what that moved aside is complete, and its path is free."""
        places = (self.live, self.staged, self.aside, self.used, self.around, self.used_around)
        command = self.access.guarded_root(*sh(UNSWAP_BELOW, *places), timeout_s=self.limit_s)
        told = put_back_told(self.live, self.aside, self.used)
        rename_by(host, command, told, UNDO_AGAIN)


@dataclass(frozen=True, slots=True)
class MoveAside(HostStep):
    """Move aside what a backup does not hold. Undo puts it back.

    What was created at its path since then is moved to `used`.
    """

    journaled_as = "MoveAside"

    live: str
    aside: str
    used: str
    move: ClassVar[str] = MOVE_ASIDE
    move_back: ClassVar[str] = MOVE_BACK

    def commands(self) -> tuple[str, ...]:
        """Return the rename as a user would type it."""
        return (f"mv -T '{self.live}' '{self.aside}'",)

    def _command(self, script: str) -> Command:
        return self.access.guarded_root(*sh(script, self.live, self.aside, self.used))

    def do(self, context: StepContext) -> None:
        """Rename it; a path that is gone needs nothing."""
        told = f"could not move {self.live} aside (by renaming it to {self.aside})"
        host = self.access.host(context)
        rename_by(host, self._command(self.move), told, RENAME_AGAIN)

    def undo(self, host: Host) -> None:
        """Put it back, from any intermediate state; raises OldDataGone if it is gone."""
        told = put_back_told(self.live, self.aside, self.used)
        gone = left_told(self.live, self.aside)
        rename_by(host, self._command(self.move_back), told, UNDO_AGAIN, gone)


@dataclass(frozen=True, slots=True)
class PutAway(MoveAside):
    """Move a folder aside and leave a plain file in its place: no container starts on that.

    Undo removes the file and puts the folder back; anything else there is moved to `used`.
    """

    journaled_as = "PutAway"

    move: ClassVar[str] = PUT_AWAY
    move_back: ClassVar[str] = PUT_BACK

    def commands(self) -> tuple[str, ...]:
        """Return the commands as a user would type them."""
        return (f"mv -T '{self.live}' '{self.aside}'", f": > '{self.live}'")


@dataclass(frozen=True, slots=True)
class LeaveGone(HostStep):
    """Keep live data: what was moved aside from their path is gone. Undo only reports that.

    In a kept journal it replaces steps that can no longer be undone.
    """

    journaled_as = "LeaveGone"

    live: str
    aside: str

    def do(self, context: StepContext) -> None:
        """Do nothing."""

    def undo(self, host: Host) -> str:  # noqa: ARG002 - each step has it
        """Return the message."""
        return f"{left_told(self.live, self.aside)} It was not changed."
