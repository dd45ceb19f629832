"""New folders and links of a change, each with its undo: stages, copies, unpacked archives."""

from __future__ import annotations

from ..core.dataclass import dataclass
from ..core.gzip_streams import reading_words
from ..engine.steps import CommandStep, StepContext, UndoneByCommand
from ..hosts.base import PARTIAL, Command, Host, sh
from ..hosts.inspect import which_may_be_there
from ..hosts.local import LocalHost
from .kept_until import UNTIL_FILE, forget_words
from .staged import remove_words, unmark_words

UNPACK_LIMIT_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class UseStage(CommandStep, UndoneByCommand):
    """Begin to move items out of staging folders. Undo removes what is left of them.

    Items that were moved out have been live: a partly emptied stage must never count as complete.
    So its mark of completeness is removed before anything is moved out.
    """

    journaled_as = "UseStage"

    folders: tuple[str, ...]

    @property
    def command(self) -> Command:
        """The command after which none of the folders counts as complete."""
        return self.access.guarded(*unmark_words(self.access.as_root, *self.folders))

    @property
    def undo_command(self) -> Command:
        """The command that removes the folders."""
        return self.access.guarded(*remove_words(self.access.as_root, *self.folders))

    def commands(self) -> tuple[str, ...]:
        """Return nothing: it removes only our own marks."""
        return ()


@dataclass(frozen=True, slots=True)
class MakeFolder(CommandStep, UndoneByCommand):
    """Make an empty folder that does not exist yet. Undo removes it, with its contents.

    `like` names a folder whose owner and mode it gets, if that exists.
    """

    journaled_as = "MakeFolder"

    path: str
    like: str = ""

    @property
    def command(self) -> Command:
        """The command that creates it; it fails if the folder exists."""
        script = (
            'umask 022; mkdir -p "$(dirname "$1")" && mkdir -m 0755 "$1" && if [ -d "$2" ]; then '
            'chown --reference="$2" "$1" && chmod --reference="$2" "$1"; fi'
        )
        return self.access.guarded_root(*sh(script, self.path, self.like))

    @property
    def undo_command(self) -> Command:
        """The command that removes it."""
        return self.access.removal(self.path)


@dataclass(frozen=True, slots=True)
class CopyFolder(CommandStep, UndoneByCommand):
    """Copy a folder of a stopped server to a new one. Undo removes the copy."""

    journaled_as = "CopyFolder"

    source: str
    target: str
    limit_s: float

    @property
    def command(self) -> Command:
        """The command that copies it, as a clone if the file system supports that."""
        script = 'umask 022; mkdir -p "$(dirname "$2")" && cp -a --reflink=auto -T -- "$1" "$2"'
        words = sh(script, self.source, self.target)
        return self.access.guarded_root(*words, timeout_s=self.limit_s)

    @property
    def undo_command(self) -> Command:
        """The command that removes the copy."""
        return self.access.removal(self.target)

    def do(self, context: StepContext) -> None:
        """Copy it, and sync it to disk."""
        host = self.access.host(context)
        self.undo(host)
        host.run(self.command, context.log_output)
        words = ("sync", "--file-system", self.target)
        host.run(self.access.guarded_root(*words, timeout_s=self.limit_s))


@dataclass(frozen=True, slots=True)
class MakeLink(CommandStep, UndoneByCommand):
    """Make a link at a free path, and its parent folders. Undo removes the link."""

    journaled_as = "MakeLink"

    path: str
    leads_to: str

    @property
    def command(self) -> Command:
        """The command that creates it; it fails if the path is taken by now."""
        script = 'umask 022; mkdir -p "$(dirname "$2")" && ln -s -T "$1" "$2"'
        return self.access.guarded_root(*sh(script, self.leads_to, self.path))

    @property
    def undo_command(self) -> Command:
        """The command that removes it, if it is ours."""
        script = '[ "$(readlink "$2")" != "$1" ] || rm -f "$2"'
        return self.access.guarded_root(*sh(script, self.leads_to, self.path))

    def commands(self) -> tuple[str, ...]:
        """Return the command as a user would type it."""
        return (f"ln -s '{self.leads_to}' '{self.path}'",)


@dataclass(frozen=True, slots=True)
class MakeAside(CommandStep):
    """Make the folder for replaced data. Undo removes it if it is empty.

    Undo removes only empty folders: it may hold the only copy of something.
    """

    journaled_as = "MakeAside"

    path: str

    @property
    def command(self) -> Command:
        """The command that creates it, owned by the user: the journal becomes a file in it."""
        return self.access.guarded("mkdir", "-m", "0700", "--", self.path)

    def undo(self, host: Host) -> None:
        """Remove its empty folders, and before them the note how long it was to stay.

        This is the last undo, and the note stays if anything else is left in the folder.
        """
        note, as_root = f"{self.path}/{UNTIL_FILE}", self.access.as_root
        if which_may_be_there(host, [note, note + PARTIAL], as_root):  # a run of root created it
            host.run(self.access.guarded_root(*forget_words(self.path)))
        words = ("find", self.path, "-depth", "-type", "d", "-empty", "-delete")
        host.run(self.access.guarded_root(*words).accepting(0, 1))


@dataclass(frozen=True, slots=True)
class Unpack(UndoneByCommand):
    """Unpack an archive with GNU tar into a new folder of mode 0700. Undo removes it.

    One archive, one new folder: two archives in one folder can redirect each other outside by
    links.
    """

    journaled_as = "Unpack"

    archive: str
    folder: str
    members: tuple[str, ...] = ()
    """The members to unpack; empty for all."""
    left_out: tuple[str, ...] = ()
    scanned: bool = False
    """No member occurs twice: a folder may come after files in it."""

    @property
    def undo_command(self) -> Command:
        """The command that removes the folder."""
        return self.access.removal(self.folder)

    def commands(self) -> tuple[str, ...]:
        """Return the commands."""
        return tuple(map(str, self._commands()))

    def _commands(self, *, here: bool = False) -> tuple[Command, ...]:
        tar = (
            *("tar", "--extract", f"--file={self.archive}", f"--directory={self.folder}"),
            *("--numeric-owner", "--same-owner", "--preserve-permissions"),
            *("--xattrs", "--xattrs-include=*", "--acls"),
            *(() if self.scanned else ("--keep-old-files",)),
        )
        root = self.access.guarded_root
        unzip = reading_words(self.archive, here=here)
        chosen = (*(f"--exclude={each}" for each in self.left_out), *self.members)
        return (
            root("mkdir", "-m", "0700", "--", self.folder),
            root(*tar, *unzip, "--anchored", *chosen, timeout_s=UNPACK_LIMIT_S),
            root("sync", "--file-system", self.folder),
        )

    def do(self, context: StepContext) -> None:
        """Unpack it, and sync it to disk."""
        host = self.access.host(context)
        self.undo(host)
        for command in self._commands(here=isinstance(host, LocalHost)):
            host.run(command, context.log_output)
