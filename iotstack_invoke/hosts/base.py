"""Hosts and places: what each must do, a command and its outcome. Holds no machine."""

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
"""Behind the name of a file that is being made: what bears it is not whole."""


@dataclass(frozen=True, slots=True)
class FileFact:
    """What a look at one file found."""

    size_bytes: int
    modified_s: float
    is_folder: bool = False
    other: str = ""
    """What it is where it is neither a file nor a folder; nobody opens it: a pipe never ends."""

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
    """Return the fact that a file's mode, size and date are."""
    if stat.S_ISREG(mode):
        return FileFact(size_bytes, modified_s)
    other = _OTHERS.get(stat.S_IFMT(mode), "")
    return FileFact(size_bytes, modified_s, stat.S_ISDIR(mode), other)


MOST_BYTES = 32 << 20
"""No answer that is read at once is longer: find(1) over a quarter of a million files."""

ANY_EXIT = frozenset(range(256))
"""All exit codes: who runs the command looks at its result."""

LONG_SCRIPT = 60
"""A script of more letters is not shown: what it is told behind it says more."""


@dataclass(frozen=True, slots=True)
class Command:
    """One program to run: its arguments, never a shell line.

    `accept` lists the exit codes that are no failure; `timeout_s` is the longest that it may take.
    """

    argv: tuple[str, ...]
    accept: frozenset[int] = frozenset({0})
    timeout_s: float = 120.0
    label: str = ""
    """How people are shown it, if its arguments are a script that nobody would want to read."""
    read_on_s: float | None = None
    """How long its output is read after its own end, where something that it started holds it
    open; None: until nobody does."""
    most_bytes: int = MOST_BYTES
    """What says more is stopped."""

    def __str__(self) -> str:
        return shlex.join(self.argv)

    def accepting(self, *exit_codes: int) -> Command:
        """Return the same command, of which these exit codes are no failure."""
        return replace(self, accept=frozenset(exit_codes))

    @property
    def shown(self) -> str:
        """It for people: without the text of a script that it hands to a shell."""
        return self.label or shlex.join(self.argv).replace(*self._script)

    @property
    def _script(self) -> tuple[str, str]:
        """Return a long script among the arguments as it is quoted, and what stands for it."""
        for shell, flag, script in zip(self.argv, self.argv[1:], self.argv[2:], strict=False):
            if (shell, flag) == ("sh", "-c") and len(script) > LONG_SCRIPT:
                return shlex.quote(script), "…"
        return "", ""


def sh(script: str, *arguments: str) -> tuple[str, ...]:
    """Return the words that run a script of the shell, which has its arguments as "$1" and on."""
    return ("sh", "-c", script, "sh", *arguments)


_ASIDE = re.compile(
    r"sudo: (?!.*password)|.*\bsetlocale\b|tar: Exiting with failure|tar: Error is not recoverable"
    r"|tar: Removing leading|tar: Ignoring unknown extended header"
)
"""What programs say besides, of which no command fails. sudo speaks the language of its user."""


def is_telling(line: str) -> bool:
    """Tell whether a line may say why a command failed."""
    return bool(line.strip()) and not _ASIDE.match(line.strip())


_DENIED = re.compile(
    r"(?:du|find): (?:cannot (?:read directory|access|open directory) )?"
    r"['\u2018]?(.+?)['\u2019]?: Permission denied"
)

MOST_DENIED = 3


def denied_told(err: str) -> str:
    """Return what du or find could not read, in words; '' where that is not all it failed of."""
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
    """Return the lines of a command that failed, those first that may say why."""
    return sorted(lines, key=lambda line: not is_telling(line))


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended, and what it said."""

    exit_code: int
    out: str
    err: str
    held: bool = False
    """Something that it started still held its output when that was read no further."""

    @property
    def ended(self) -> str:
        """How it ended: `exit 3`, or `killed by SIGKILL` where Popen tells of a signal."""
        if self.exit_code >= 0:
            return f"exit {self.exit_code}"
        try:
            return f"killed by {signal.Signals(-self.exit_code).name}"
        except ValueError:  # one of the real-time ones
            return f"killed by signal {-self.exit_code}"

    @property
    def last_line(self) -> str:
        """The last line it said, on the error stream if there is one."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        if not any(map(is_telling, lines)):
            lines = [*lines, *self.out.strip().splitlines()[-1:]]
        telling = [each for each in lines if is_telling(each)] or lines
        return telling[-1].strip() if telling else "no message"


Heard = Callable[[str, str], None]
"""Told each line a command says: the stream ("out" or "err") and the line without its end."""


@dataclass(slots=True)
class Pipe:
    """A running command whose output is read as bytes.

    `finish()` waits for its end, once the output was read, and returns the exit code; its error
    stream went line by line to whoever asked.
    """

    stdout: IO[bytes]
    finish: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Received:
    """What a place holds under a partial name after it took a file in."""

    size_bytes: int
    sha256: str
    """Hash of what lies there, reckoned on the far side or read back from it."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system, by what tells it from others, and what is free on it."""

    name: str
    free_bytes: int


class Storage(Protocol):
    """Where the files of a role live. Paths are absolute on that machine."""

    name: str
    root: str
    resumes: bool
    """It can go on with a file that was cut: it writes behind what lies there."""

    def stat(self, paths: Iterable[str]) -> dict[str, FileFact]:
        """Return what is there, in one round trip; a path that is not there has no entry.

        Raises StepFailed where that cannot be told: what nobody can look at may be there.
        """
        ...

    def listdir(self, folder: str) -> dict[str, FileFact]:
        """Return the entries of a folder by name; {} where there is no such folder.

        Raises StepFailed where it cannot be read to its end.
        """
        ...

    def read(self, path: str, start: int = 0) -> AbstractContextManager[IO[bytes]]:
        """Return a stream of a file's bytes, without the first `start`."""
        ...

    def read_many(self, folder: str, names: Iterable[str]) -> dict[str, bytes]:
        """Return small files of a folder, in one round trip.

        What is not there, or is no file, has no entry. Raises StepFailed where one that is there
        cannot be read.
        """
        ...

    def create_exclusive(self, path: str, line: str) -> str:
        """Make a file of one line where there is none, and return the line that is in it then.

        Of several who do so at once, one makes it.
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
        """Write a stream to `path`, synced, behind the first `start` bytes that lie there.

        The caller names the partial path; size and hash returned are those of the whole file.
        `size_bytes`: how many the stream gives, where that is known: clouds want to be told first.
        """
        ...

    def mkdir(self, path: str) -> None:
        """Make a folder of mode 0700 in one that is there; one that is there already is as good.

        Raises StepFailed, also where anything else has that name.
        """
        ...

    def free_bytes(self, folder: str) -> int | None:
        """Return what fits into the file system of `folder`, or None where nobody can say."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Put `old` in the place of `new` at once, and make that last through a power cut."""
        ...

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; one that is not there is as good as removed."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class Host(Storage, Protocol):
    """A place that also runs commands."""

    def run(self, command: Command, heard: Heard | None = None) -> Result:
        """Run a command to its end.

        Raises StepFailed for an exit code that is not accepted and for one that takes too long.
        """
        ...

    def pipe(self, command: Command, heard: Heard | None = None) -> AbstractContextManager[Pipe]:
        """Start a command whose output is bytes; it is ended when the block is left."""
        ...

    def disk(self, folder: str) -> Disk | None:
        """Return the file system of `folder`, or None where nobody can say."""
        ...

    def create(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """Return a stream into a new file of mode 0600, synced when the block ends well."""
        ...

    def append(self, path: str, line: str) -> None:
        """Add a line to a file of mode 0600, and make it last through a power cut."""
        ...

    def lines(self, path: str) -> list[str]:
        """Return the lines of a text, none where there is no such file."""
        ...

    def http_status(self, port: int, path: str, address: str = "127.0.0.1") -> int:
        """Return the status that an HTTP server answers as seen from the host, 0 for none."""
        ...
