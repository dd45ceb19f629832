"""New folders and links of a change, each with its undo: stages, copies, what archives hold."""

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
    """Begin to take items out of staging folders. Undone: what is left of them is removed.

    What was taken out of one has been live: a hollow stage must never be taken for a whole one. So
    what says that it is whole goes before anything leaves it.
    """

    journaled_as = "UseStage"

    folders: tuple[str, ...]

    @property
    def command(self) -> Command:
        """What lets none of the folders count as whole any more."""
        return self.access.guarded(*unmark_words(self.access.as_root, *self.folders))

    @property
    def undo_command(self) -> Command:
        """What removes the folders."""
        return self.access.guarded(*remove_words(self.access.as_root, *self.folders))

    def commands(self) -> tuple[str, ...]:
        """Return nothing: what it removes are marks of ours."""
        return ()


@dataclass(frozen=True, slots=True)
class MakeFolder(CommandStep, UndoneByCommand):
    """Make an empty folder, which is not there. Undone: remove it, with what came into it.

    `like` names a folder whose owner and mode it gets, where there is one.
    """

    journaled_as = "MakeFolder"

    path: str
    like: str = ""

    @property
    def command(self) -> Command:
        """What makes it; it fails where it is there already."""
        script = (
            'umask 022; mkdir -p "$(dirname "$1")" && mkdir -m 0755 "$1" && if [ -d "$2" ]; then '
            'chown --reference="$2" "$1" && chmod --reference="$2" "$1"; fi'
        )
        return self.access.guarded_root(*sh(script, self.path, self.like))

    @property
    def undo_command(self) -> Command:
        """What removes it."""
        return self.access.removal(self.path)


@dataclass(frozen=True, slots=True)
class CopyFolder(CommandStep, UndoneByCommand):
    """Copy a folder of a stopped server to a new one. Undone: remove the copy."""

    journaled_as = "CopyFolder"

    source: str
    target: str
    limit_s: float

    @property
    def command(self) -> Command:
        """What copies it, where the file system can as a clone."""
        script = 'umask 022; mkdir -p "$(dirname "$2")" && cp -a --reflink=auto -T -- "$1" "$2"'
        words = sh(script, self.source, self.target)
        return self.access.guarded_root(*words, timeout_s=self.limit_s)

    @property
    def undo_command(self) -> Command:
        """What removes the copy."""
        return self.access.removal(self.target)

    def do(self, context: StepContext) -> None:
        """Copy it, and make it last through a power cut."""
        host = self.access.host(context)
        self.undo(host)
        host.run(self.command, context.log_output)
        words = ("sync", "--file-system", self.target)
        host.run(self.access.guarded_root(*words, timeout_s=self.limit_s))


@dataclass(frozen=True, slots=True)
class MakeLink(CommandStep, UndoneByCommand):
    """Make a link where nothing lies, and the folders on the way. Undone: remove the link."""

    journaled_as = "MakeLink"

    path: str
    leads_to: str

    @property
    def command(self) -> Command:
        """What makes it; it fails where something lies there by now."""
        script = 'umask 022; mkdir -p "$(dirname "$2")" && ln -s -T "$1" "$2"'
        return self.access.guarded_root(*sh(script, self.leads_to, self.path))

    @property
    def undo_command(self) -> Command:
        """What removes it, if it is ours."""
        script = '[ "$(readlink "$2")" != "$1" ] || rm -f "$2"'
        return self.access.guarded_root(*sh(script, self.leads_to, self.path))

    def commands(self) -> tuple[str, ...]:
        """Return the command as a person would type it."""
        return (f"ln -s '{self.leads_to}' '{self.path}'",)


@dataclass(frozen=True, slots=True)
class MakeAside(CommandStep):
    """Make the folder that what is replaced is moved to. Undone: remove it where it is empty.

    Never more than empty folders: it may hold the only copy of something.
    """

    journaled_as = "MakeAside"

    path: str

    @property
    def command(self) -> Command:
        """What makes it, as the user's own: the journal becomes a file of it."""
        return self.access.guarded("mkdir", "-m", "0700", "--", self.path)

    def undo(self, host: Host) -> None:
        """Remove its empty folders, and before them the note how long it was to stay.

        It goes last of all that is undone, and stays beside whatever else is left.
        """
        note, as_root = f"{self.path}/{UNTIL_FILE}", self.access.as_root
        if which_may_be_there(host, [note, note + PARTIAL], as_root):  # a run of root made it
            host.run(self.access.guarded_root(*forget_words(self.path)))
        words = ("find", self.path, "-depth", "-type", "d", "-empty", "-delete")
        host.run(self.access.guarded_root(*words).accepting(0, 1))


@dataclass(frozen=True, slots=True)
class Unpack(UndoneByCommand):
    """Unpack an archive with GNU tar into a new folder of mode 0700. Undone: remove it.

    One archive, one new folder: two archives in one folder can lead each other outside.
    """

    journaled_as = "Unpack"

    archive: str
    folder: str
    members: tuple[str, ...] = ()
    """What of it is unpacked; all, if nothing is named."""
    left_out: tuple[str, ...] = ()
    scanned: bool = False
    """No member is there twice: a folder may come behind files that lie in it."""

    @property
    def undo_command(self) -> Command:
        """What removes the folder."""
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
        """Unpack it, and make it last through a power cut."""
        host = self.access.host(context)
        self.undo(host)
        for command in self._commands(here=isinstance(host, LocalHost)):
            host.run(command, context.log_output)
