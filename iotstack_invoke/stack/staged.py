"""A staging folder: how it is measured, marked as complete, and taken out of use.

Its mark is a file beside it. It is written last, records what the folder holds, and is removed
before anything leaves the folder: a partly filled, emptied or removed one never counts as
complete.
"""

from __future__ import annotations

import posixpath

from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..engine.steps import File, StepContext
from ..hosts.base import Command, Host, sh

MEASURE_LIMIT_S = 3600.0
REMOVE_LIMIT_S = 3600.0
MARK_ENDING = ".whole"
SET_MARK = ".set"
"""In the parent of staging folders: the set of its archives."""

# `sync FOLDER` makes the removal of the marks durable before anything else is removed.
_UNMARK = (
    "for each; do above=${each%/*} mark=${each%/*}/.${each##*/}.whole; "
    'if [ -e "$mark" ] || [ -L "$mark" ]; then rm -rf -- "$mark" && sync "$above" || exit 1; fi; '
    "done"
)
_REMOVE = f'{_UNMARK}; rm -rf -- "$@"'
_CLEAR = (
    'set_mark=$1; shift; for each; do [ -d "$each" ] || continue; '
    'find "$each" -mindepth 1 -maxdepth 1 "(" -name "$set_mark" -o -name ".*.whole" ")" '
    '-exec rm -rf -- {} + && sync "$each" || exit 1; done; rm -rf -- "$@"'
)


def mark_of(folder: str) -> str:
    """Return the file that marks a staging folder as complete."""
    above, name = posixpath.split(folder)
    return f"{above}/.{name}{MARK_ENDING}"


def unmark_words(as_root: tuple[str, ...], *folders: str) -> tuple[str, ...]:
    """Return the command after which no folder counts as complete."""
    return (*as_root, *sh(_UNMARK, *folders))


def remove_words(as_root: tuple[str, ...], *folders: str) -> tuple[str, ...]:
    """Return the command that removes staging folders, their marks first."""
    return (*as_root, *sh(_REMOVE, *folders))


def clear_words(as_root: tuple[str, ...], *around: str) -> tuple[str, ...]:
    """Return the command that removes folders with all that is staged there, marks first."""
    return (*as_root, *sh(_CLEAR, SET_MARK, *around))


def measure(host: Host, folder: str, as_root: tuple[str, ...]) -> tuple[int, int]:
    """Return the number of members in a folder, and the total size of its files in bytes.

    Raises StepFailed if it cannot be read to its end.
    """
    words = (*as_root, "find", folder, "-mindepth", "1", "-printf", "%y%s\\n")
    members = size_bytes = 0
    with host.pipe(Command(words, timeout_s=MEASURE_LIMIT_S)) as pipe:
        for line in pipe.stdout:
            members += 1
            size_bytes += int(line[1:]) if line[:1] == b"f" else 0
        if pipe.finish():
            raise StepFailed(f"Could not read {folder} on {host.name}.")
    return members, size_bytes


@dataclass(frozen=True, slots=True)
class Measure:
    """Sync a staging folder to disk, and measure it: for its mark.

    The last step of any staging: a later change makes the folder count as incomplete.
    """

    output: File
    as_root: tuple[str, ...]

    def commands(self) -> tuple[str, ...]:
        """Return the measuring command."""
        return (f"count the members and bytes of '{self.output.absolute}'",)

    def do(self, context: StepContext) -> None:
        """Measure it under its partial name."""
        host, folder = context.host(self.output.role), self.output.partial
        words = (*self.as_root, "sync", "--file-system", folder)
        host.run(Command(words, timeout_s=MEASURE_LIMIT_S))
        members, size_bytes = measure(host, folder, self.as_root)
        context.record(self.output, members=members, bytes=size_bytes)
