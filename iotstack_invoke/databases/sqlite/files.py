"""SQLite files of the stack, copied consistently while their programs write; tar takes the copies.

A separate script does the copying, since it runs as root: online_copy.py documents it.
"""

from __future__ import annotations

import json
import os
import sys

from ...backups.manifest import IS_DAMAGED, IS_LOCKED, IS_NO_COPY, MAY_BE_TORN
from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...engine.steps import StepContext, UndoneByCommand
from ...hosts.base import Command
from ...hosts.json_answers import JsonAnswer, read_json

COPIES = "backups/.copies"
"""The folder for the copies until tar has read them; the lock allows one backup at a time."""
OUTSIDE_COPIES = "backups/.copies-outside"
"""The same for files outside of the stack's folder."""
SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "online_copy.py")
NO_ROOM = 3
"""The script's exit code if the copies do not fit."""
LOCK_LIMIT_S = 60.0
"""How long a copy waits for its lock; a program with an exclusive lock never releases it."""
COPY_LIMIT_S = 24 * 3600.0
LIVE = (
    f"The archive has the live file with its -wal or -journal{MAY_BE_TORN}. Stop its "
    "container and back up again"
)


@dataclass(frozen=True, slots=True)
class CopySqlite(UndoneByCommand):
    """Copy every SQLite file below the members into the folder `target`.

    Undo removes that folder. A file that cannot be copied is a warning.
    """

    journaled_as = "CopySqlite"

    folder: str
    members: tuple[str, ...]
    exclusions: tuple[str, ...]
    target: str
    limit_s: float = LOCK_LIMIT_S
    far: bool = False
    """The files are another machine's: its Python receives the text of the script."""
    known: tuple[str, ...] = ()
    """The files that were databases at the last copy: they must still be databases."""

    @property
    def command(self) -> Command:
        """The script with its request.

        The shown command leaves out `known`: by that text a part counts as already made.
        """
        request = {
            "folder": self.folder,
            "members": self.members,
            "exclusions": self.exclusions,
            "target": self.target,
            "limit_s": self.limit_s,
        }
        # Only Python's own library, regardless of the environment; undecodable names are kept.
        alone = ("-I", "-S", "-X", "utf8")
        as_root = self.access.as_root
        python, asked = (sys.executable, *alone, SCRIPT), json.dumps(request)
        told = json.dumps(request | {"known": self.known})
        called = str(Command((*as_root, *python, asked)))
        words = (*as_root, *python, told)
        if self.far:
            name = os.path.basename(SCRIPT)
            called = str(Command((*as_root, "python3", *alone, name, asked)))
            # It may outlive its connection, and is waited for before anything is undone.
            words = (*as_root, "python3", *alone, "-c", _script_text(), told)
            words = self.access.guarded(*words).argv
        return Command(words, frozenset({0, NO_ROOM}), COPY_LIMIT_S, called)

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (self.command.shown,)

    def do(self, context: StepContext) -> None:
        """Copy them; raises StepFailed, with the numbers, if they do not fit."""
        host = self.access.host(context)
        self.undo(host)

        def hear(stream: str, line: str) -> None:
            context.log_output(stream, line)
            if stream == "out":
                self._heed(read_json(line, f"python3 on {host.name}"), context)

        host.run(self.command, hear)

    def _heed(self, told: JsonAnswer, context: StepContext) -> None:
        if "needed_bytes" in told.entries():
            needed, free = told["needed_bytes"].number(), told["free_bytes"].number()
            raise StepFailed(
                f"The copies of SQLite files need {needed:,} bytes in {self.target}, but only "
                f"{free:,} are free there. Free some space, or keep fewer backups ([stack] keep "
                "in hosts.toml)."
            )
        name, why = shown(told["file"].text()), told["why"].text("")
        match told["state"].text():
            case "begun":
                context.status(f"copying {name}, {told['size_bytes'].number():,} bytes")
            case "busy":
                context.warn(f"{name}{IS_LOCKED}{self.limit_s:g} s ({why}). {LIVE}.")
            case "damaged":
                context.warn(
                    f"{name}{IS_DAMAGED}{why}). The archive has an unchanged copy of it. Stop "
                    "its container and try `sqlite3 FILE .recover`, or restore it from an older "
                    "backup."
                )
            case "other":
                context.warn(
                    f"NOT COVERED: {name} is in no part of the backup: its name is reserved for "
                    f"SQLite's own files beside a database, but it is not one ({why}). Rename "
                    "it; or leave it out by a [[stack.exclude]] in hosts.toml."
                )
            case "failed":
                context.warn(
                    f"{name}{IS_NO_COPY}{why}). {LIVE}; if it is not needed, leave it out by a "
                    "[[stack.exclude]] in hosts.toml."
                )

    @property
    def undo_command(self) -> Command:
        """The command that removes the folder."""
        return Command((*self.access.as_root, "rm", "-rf", "--", self.target), timeout_s=600)


def _script_text() -> str:
    with open(SCRIPT, encoding="utf-8") as stream:
        return stream.read()


def shown(name: str) -> str:
    """Return a printable name, in which bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
