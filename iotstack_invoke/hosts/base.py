"""The interfaces of hosts and storage, a command and its result. Contains no implementation."""

from __future__ import annotations

import re
import shlex
import signal
import stat
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import IO, Protocol

from ..core.dataclass import dataclass

PARTIAL = ".partial"
"""The suffix of a file that is being written: a file with it is incomplete."""


@dataclass(frozen=True, slots=True)
class FileFact:
    """The facts of one file."""

    size_bytes: int
    modified_s: float
    is_folder: bool = False
    other: str = ""
    """Its kind if neither file nor folder. Such a path is never opened: a pipe never ends."""

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file: nothing else belongs to a set."""
        return not (self.is_folder or self.other)


_OTHERS = {
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "device",
    stat.S_IFCHR: "device",
}


def fact_of(mode: int, size_bytes: int, modified_s: float) -> FileFact:
    """Return the facts of a file with this mode, size and date."""
    if stat.S_ISREG(mode):
        return FileFact(size_bytes, modified_s)
    other = _OTHERS.get(stat.S_IFMT(mode), "")
    return FileFact(size_bytes, modified_s, stat.S_ISDIR(mode), other)


MOST_BYTES = 32 << 20
"""The longest answer that is read into memory: find(1) over a quarter of a million files."""

ANY_EXIT = frozenset(range(256))
"""All exit codes: the caller checks the result."""

LONG_SCRIPT = 60
"""A script of more characters is not shown: its arguments say more."""


@dataclass(frozen=True, slots=True)
class Command:
    """One program to run: its arguments, never a shell line.

    `accept` lists the exit codes that are not failures; `timeout_s` is its time limit.
    """

    argv: tuple[str, ...]
    accept: frozenset[int] = frozenset({0})
    timeout_s: float = 120.0
    label: str = ""
    """How messages name the command, if its arguments are a script that is hard to read."""
    read_on_s: float | None = None
    """How long to read its output after it has ended, if a child process holds the output open;
    None: until all have closed it."""
    most_bytes: int = MOST_BYTES
    """A command with more output is stopped."""

    def __str__(self) -> str:
        return shlex.join(self.argv)

    def accepting(self, *exit_codes: int) -> Command:
        """Return the same command, with these exit codes accepted."""
        return replace(self, accept=frozenset(exit_codes))

    @property
    def shown(self) -> str:
        """The command for messages: without the text of a script that it passes to a shell."""
        return self.label or shlex.join(self.argv).replace(*self._script)

    @property
    def _script(self) -> tuple[str, str]:
        """Return a long script among the arguments, quoted, and the text to show for it."""
        for shell, flag, script in zip(self.argv, self.argv[1:], self.argv[2:], strict=False):
            if (shell, flag) == ("sh", "-c") and len(script) > LONG_SCRIPT:
                return shlex.quote(script), "…"
        return "", ""


def sh(script: str, *arguments: str) -> tuple[str, ...]:
    """Return the argv that runs a shell script, with the arguments as "$1", "$2" and so on."""
    return ("sh", "-c", script, "sh", *arguments)


_ASIDE = re.compile(
    r"sudo: (?!.*password)|.*\bsetlocale\b|tar: Exiting with failure|tar: Error is not recoverable"
    r"|tar: Removing leading|tar: Ignoring unknown extended header"
)
"""Output that never explains a failure. sudo prints in the language of its user."""


def is_telling(line: str) -> bool:
    """Return whether a line may say why a command failed."""
    return bool(line.strip()) and not _ASIDE.match(line.strip())


_DENIED = re.compile(
    r"(?:du|find): (?:cannot (?:read directory|access|open directory) )?"
    r"['\u2018]?(.+?)['\u2019]?: Permission denied"
)

MOST_DENIED = 3


def denied_told(err: str) -> str:
    """Return what du or find could not read, as a phrase; '' if it failed otherwise."""
    lines = [line for line in err.splitlines() if is_telling(line)]
    found = [_DENIED.fullmatch(line.strip()) for line in lines]
    if not found or not all(found):
        return ""
    paths = list(dict.fromkeys(each[1] for each in found if each))
    more = len(paths) - MOST_DENIED
    named = ", ".join(paths[:MOST_DENIED]) + (f" and {more:,} more" if more > 0 else "")
    return (
        f"this user has no permission to read {named}. Set sudo = true in hosts.toml, or change "
        "its owner or mode."
    )


def telling_first(lines: Iterable[str]) -> list[str]:
    """Return the output lines of a failed command, those first that may say why."""
    return sorted(lines, key=lambda line: not is_telling(line))


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended, and its output."""

    exit_code: int
    out: str
    err: str
    held: bool = False
    """A child process still held the output open when reading stopped."""

    @property
    def ended(self) -> str:
        """How it ended: `exit 3`, or `killed by SIGKILL` if Popen reports a signal."""
        if self.exit_code >= 0:
            return f"exit {self.exit_code}"
        try:
            return f"killed by {signal.Signals(-self.exit_code).name}"
        except ValueError:  # a real-time signal
            return f"killed by signal {-self.exit_code}"

    @property
    def last_line(self) -> str:
        """The last line of output, of the error stream if it has any."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        if not any(map(is_telling, lines)):
            lines = [*lines, *self.out.strip().splitlines()[-1:]]
        telling = [each for each in lines if is_telling(each)] or lines
        return telling[-1].strip() if telling else "no message"


Heard = Callable[[str, str], None]
"""Called with each line of output: the stream ("out" or "err") and the line without its end."""


@dataclass(slots=True)
class Pipe:
    """A running command whose output is read as bytes.

    `finish()` waits for its end after the output was read, and returns the exit code; each line of
    its error stream was passed to the caller's `heard`.
    """

    stdout: IO[bytes]
    finish: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Received:
    """What a storage holds under a partial name after an upload."""

    size_bytes: int
    sha256: str
    """Hash of the stored file, computed on that machine or by reading it back."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system: what identifies it, and the free space on it."""

    name: str
    free_bytes: int


class Storage(Protocol):
    """Where the files of a role are. Paths are absolute on that machine."""

    name: str
    root: str
    resumes: bool
    """Whether it can resume a partial file, by appending to it."""

    def stat(self, paths: Iterable[str]) -> dict[str, FileFact]:
        """Return the facts of the paths that exist, in one round trip; others have no entry.

        Raises StepFailed if a path cannot be examined: it may exist.
        """
        ...

    def listdir(self, folder: str) -> dict[str, FileFact]:
        """Return the entries of a folder by name; {} if the folder does not exist.

        Raises StepFailed if it cannot be read completely.
        """
        ...

    def read(self, path: str, start: int = 0) -> AbstractContextManager[IO[bytes]]:
        """Return a stream of a file's bytes, without the first `start`."""
        ...

    def read_many(self, folder: str, names: Iterable[str]) -> dict[str, bytes]:
        """Return the contents of small files of a folder by name, in one round trip.

        Missing files and non-files have no entry. Raises StepFailed if one cannot be read.
        """
        ...

    def create_exclusive(self, path: str, line: str) -> str:
        """Create a file of one line unless it exists, and return the line it then holds.

        If several processes try at once, one of them creates it.
        """
        ...

    def write(
        self,
        path: str,
        source: IO[bytes],
        modified_s: float,
        start: int = 0,
        size_bytes: int | None = None,
    ) -> Received:
        """Write a stream to `path`, synced, after the `start` bytes that it already holds.

        The caller passes the partial path; size and hash returned are those of the whole file.
        `size_bytes`: the length of the stream, if known: cloud storage needs it in advance.
        """
        ...

    def mkdir(self, path: str) -> None:
        """Make a folder of mode 0700 in an existing one; it may exist already.

        Raises StepFailed, also if anything else has that name.
        """
        ...

    def free_bytes(self, folder: str) -> int | None:
        """Return the free bytes of the file system of `folder`; None if unknown."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old` atomically, so that it survives a power cut."""
        ...

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; missing ones are ignored."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class Host(Storage, Protocol):
    """A storage that also runs commands."""

    def run(self, command: Command, heard: Heard | None = None) -> Result:
        """Run a command to its end.

        Raises StepFailed if the exit code is not accepted or the command takes too long.
        """
        ...

    def pipe(self, command: Command, heard: Heard | None = None) -> AbstractContextManager[Pipe]:
        """Start a command whose output is bytes; it is ended at the end of the block."""
        ...

    def disk(self, folder: str) -> Disk | None:
        """Return the file system of `folder`; None if unknown."""
        ...

    def create(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """Return a stream into a new file of mode 0600, synced if the block succeeds."""
        ...

    def append(self, path: str, line: str) -> None:
        """Append a line to a file of mode 0600, so that it survives a power cut."""
        ...

    def lines(self, path: str) -> list[str]:
        """Return the lines of a text file; [] if it does not exist."""
        ...

    def http_status(self, port: int, path: str, address: str = "127.0.0.1") -> int:
        """Return the status of an HTTP server, asked from the host; 0 for no answer."""
        ...
