"""The general part: GNU tar reads the stack; this module compresses and hashes in the same pass.

GNU tar, because its C code takes a tenth of Python's time to walk and read, and because it
reports files that changed while they were read (exit 1); tarfile does not. Not for unpacking.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import field
from typing import IO, Any

from ..backups.manifest import SIZES
from ..core import gzip_streams
from ..core.dataclass import dataclass
from ..core.errors import StepFailed, ended
from ..core.stack_folders import FOLDERS
from ..engine.steps import CommandStep, File, HostStep, StepContext
from ..hosts.base import Command, Host, is_telling
from ..hosts.local import LocalHost, read_chunk
from ..services.known import is_of_restores
from ..stack.compose import is_top_file
from .links_out import LinksOut, Packed
from .passing import Passing, stack_judge
from .sizes import Sizes

TAR_END_BYTES = 1024
"""A complete tar ends with two blocks of zeros."""
COMPARE_LIMIT_S = 24 * 3600.0
FIND_LIMIT_S = 600.0
MOST_NAMES = 200
BESIDE = ("-wal", "-shm", "-journal")
"""The endings of files beside a live database that do not belong to a copy of it."""

LISTED_BYTES = 500_000
"""Names of more bytes are passed to tar in files: Linux allows 2 MB of arguments at most."""
WHOLE_SECONDS = "--pax-option=delete=atime,delete=ctime,delete=mtime"
"""No member has an extended header for its dates: 1 KiB each, 30 bytes when compressed."""
ALL_DATES = "--pax-option=delete=atime,delete=ctime"
DATES = (-1, 8**11 - 1)
"""The dates, in seconds, that fit into a member's basic header."""
TAR_WORDS = (
    "env",
    "LC_ALL=C.UTF-8",  # English messages, and names unchanged
    "tar",
    "--create",
    "--file=-",
    "--format=posix",
    WHOLE_SECONDS,
    "--numeric-owner",  # containers use numbers: on another host the names mean other users
    "--xattrs",
    "--acls",
    "--sort=name",
    "--warning=no-file-ignored",  # a socket cannot be saved and need not be
)

_EMPTIED = re.compile(r"--exclude=(\./.+)/\*")
"""A folder that is packed without its content."""
_CHANGED = re.compile(
    r"tar: (?P<file>.*?): (?P<what>file changed as we read it|File removed before we read it"
    r"|File shrank by \d+ bytes; padding with zeros|Cannot stat: No such file or directory)"
)


class HashedFile:
    """A file that is hashed and counted while it is written."""

    def __init__(self, target: IO[bytes]) -> None:
        self.target = target
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        """Write and hash some bytes."""
        self.target.write(data)
        self.digest.update(data)
        self.size_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: the file is synced when it is complete."""


class Messages:
    """Keeps the output lines of a program, and writes them to the log."""

    def __init__(self, context: StepContext) -> None:
        self.context = context
        self.lines: list[str] = []

    def __call__(self, stream: str, line: str) -> None:
        """Add one line."""
        self.lines.append(line)
        self.context.log_output(stream, line)


@dataclass(frozen=True, slots=True)
class PackStack:
    """Pack files of the stack into one compressed archive.

    `tar` is the command up to its members; `expected_bytes` is a guess, for the progress display.
    The files below `copies` are packed in place of the live files of their names; so is each of
    the paths `at_rest` there, as a whole, and each of the files `linked`. `told` goes into the
    record.
    """

    output: File
    tar: tuple[str, ...]
    members: tuple[str, ...]
    limit_s: float
    expected_bytes: int = 0
    copies: str = ""
    as_root: tuple[str, ...] = ()
    at_rest: tuple[str, ...] = ()
    sized: tuple[str, ...] | None = None
    """Paths whose sizes are recorded besides each entry of `tops`; None: no sizes."""
    tops: tuple[str, ...] = FOLDERS
    linked: tuple[str, ...] = ()
    packed: Packed | None = None
    """The contents of all parts: links to anything else cause a warning."""
    told: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def commands(self) -> tuple[str, ...]:
        """Return the pipe as a user would type it."""
        read = Command((*self.tar, *self.members))
        pipe = f"{read} | {gzip_streams.PROGRAM} -{gzip_streams.LEVEL} > '{self.output.partial}'"
        if not self.copies:
            return (pipe,)
        return (f"{pipe}  # each file below '{self.copies}' in place of the live one",)

    def do(self, context: StepContext) -> None:
        """Write the archive under its partial name; raises StepFailed if tar failed."""
        host = context.host(self.output.role)
        said = Messages(context)
        context.set_total(self.expected_bytes)
        lying = lying_below(host, self.copies, self.as_root) if self.copies else Lying({})
        apart = (*self.at_rest, *self.linked)
        whole = tuple(f"{each}/" for each in apart)
        sizes_bytes = {k: v for k, v in lying.sizes_bytes.items() if not f"{k}/".startswith(whole)}
        copies = Lying(sizes_bytes, lying.folders)
        links = LinksOut(self.packed, _base(self.tar)) if self.packed else None
        with (
            self._words(host, copies, apart) as words,
            host.pipe(Command(words, timeout_s=self.limit_s), said) as pipe,
            host.create(self.output.partial) as target,
        ):
            hashed = HashedFile(target)
            end = b""
            unpacked_bytes = 0
            sizes = Sizes(self.sized or (), self.tops)
            passing = None if "." in self.members else Passing(stack_judge(self.members), links)
            with gzip_streams.open_writer(hashed) as packer:  # type: ignore[arg-type]
                while chunk := read_chunk(pipe.stdout):
                    for piece in passing.take(chunk) if passing else (chunk,):
                        packer.write(piece)
                        unpacked_bytes += len(piece)
                    if self.sized is not None:
                        sizes.take(chunk)
                    end = (end + chunk)[-TAR_END_BYTES:]
                    context.advance(len(chunk))
                if passing:
                    packer.write(passing.end())
                    unpacked_bytes += len(passing.end())
            folders = {posixpath.dirname(f"./{name}") for name in copies.sizes_bytes}
            emptied = (_EMPTIED.fullmatch(word) for word in self.tar)
            folders |= {found[1] for found in emptied if found}
            judge_tar(pipe.finish(), said.lines, context, folders)
            if end != bytes(TAR_END_BYTES) or unpacked_bytes % 512:
                # sudo exits with 1 if it needs a password, like tar if a file changed.
                why = f": {ended(said.lines[-1])}{_advice(said.lines)}" if said.lines else "."
                raise StepFailed(f"tar did not finish its archive{why}", again=True)
        context.record(
            self.output,
            size_bytes=hashed.size_bytes,
            sha256=hashed.digest.hexdigest(),
            unpacked_bytes=unpacked_bytes,
            **({SIZES: sizes.told()} if sizes.found else {}),
            **self.told,
        )
        if self.sized is not None and sizes.holds_none:
            warn_of_nothing(context, host, _base(self.tar))
        if passing:
            passing.warn(context)
        if links:
            links.warn(context, host, self.as_root)
        if self.at_rest:
            context.record(self.output, at_rest=list(self.at_rest))
        if copies.sizes_bytes:
            beside = copies.names_beside
            databases = [name for name in copies.sizes_bytes if name not in beside]
            raw = [os.fsencode(name) for name in databases[:MOST_NAMES]]
            context.record(
                self.output,
                sqlite_files=len(databases),
                sqlite_bytes=sum(copies.sizes_bytes.values()),
                sqlite=[name.decode("utf-8", "backslashreplace") for name in raw],
            )

    @contextlib.contextmanager
    def _words(
        self, host: Host, copies: Lying, apart: tuple[str, ...]
    ) -> Iterator[tuple[str, ...]]:
        """Yield the command; names that are too many for it are in files beside the copies."""
        tar = keeping_dates(host, (*self.tar, *self.members), self.limit_s)[: len(self.tar)]
        if not (copies.sizes_bytes or apart):
            yield (*tar, *self.members)
            return
        words = words_with_copies(tar, self.members, self.copies, copies, apart)
        if sum(map(len, words)) <= LISTED_BYTES:
            yield words
            return
        lists = Lists(f"{self.copies}.left-out", f"{self.copies}.taken")
        left_out, taken = names_with_copies(self.copies, copies, apart)
        texts = {
            lists.left_out: "".join(f"{each}\n" for each in left_out if not _is_odd(each)),
            lists.taken: "".join(f"{each}\0" for each in taken),
        }
        try:
            for path, text in texts.items():
                with host.create(path) as stream:
                    stream.write(os.fsencode(text))
            yield words_with_copies(tar, self.members, self.copies, copies, apart, lists)
        finally:
            with contextlib.suppress(StepFailed):  # the next backup overwrites them
                host.remove(texts)


@dataclass(frozen=True, slots=True)
class Lists:
    """Files with the names that tar excludes, one per line, and those it adds, each with a NUL."""

    left_out: str
    taken: str


def _is_odd(name: str) -> bool:
    """Return whether a name cannot be a line of --exclude-from, which strips trailing spaces."""
    return "\n" in name or name != name.rstrip()


@dataclass(frozen=True, slots=True)
class Lying:
    """The content of a folder: files with their sizes, and folders, by relative path."""

    sizes_bytes: Mapping[str, int]
    """Sorted."""
    folders: frozenset[str] = frozenset()

    @property
    def names_beside(self) -> frozenset[str]:
        """The names that SQLite's own files would have beside each file."""
        return frozenset(name + ending for name in self.sizes_bytes for ending in BESIDE)


def lying_below(host: Host, folder: str, as_root: tuple[str, ...]) -> Lying:
    """Return all files and folders below a folder; raises StepFailed."""
    words = ("find", folder, "-mindepth", "1", "-printf", r"%y %s %P\0")
    said: list[str] = []
    command = Command((*as_root, *words), timeout_s=FIND_LIMIT_S)
    with host.pipe(command, lambda _stream, line: said.append(line)) as pipe:
        content = b""
        while chunk := read_chunk(pipe.stdout):
            content += chunk
        code = pipe.finish()
    if code:
        raise StepFailed(f"Cannot list the copies in {folder}: {' '.join(said[:3])}")
    told = [each.split(b" ", 2) for each in content.split(b"\0")[:-1]]
    files = sorted((name, int(size)) for kind, size, name in told if kind == b"f")
    return Lying(
        {os.fsdecode(name): size for name, size in files},
        frozenset(os.fsdecode(name) for kind, _, name in told if kind == b"d"),
    )


def words_with_copies(
    tar: tuple[str, ...],
    members: tuple[str, ...],
    folder: str,
    copies: Lying,
    whole: tuple[str, ...] = (),
    lists: Lists | None = None,
) -> tuple[str, ...]:
    r"""Return the tar command that adds copies in place of the live files of their names.

    Each of the paths `whole` is added with everything below it. `lists`: files with the names.

    The copies come before other members, so that a plain `tar -x` gives their folders the right
    dates, and after the top files, which readers expect at the beginning of an archive. They are
    in another folder, whose name is removed: `r` and `h` transform the names of members and the
    targets of hard links; targets of symlinks stay. Without --no-unquote tar would read `\1` in
    the name of a member as a character code.
    """
    above, own = posixpath.split(folder)
    tops = tuple(each for each in members if _is_top(each))
    left_out, taken = names_with_copies(folder, copies, whole)
    take: tuple[str, ...] = taken
    leave: tuple[str, ...] = ()
    if lists:
        left_out = tuple(filter(_is_odd, left_out))
        leave = (f"--exclude-from={lists.left_out}",)
        take = ("--null", "--verbatim-files-from", f"--files-from={lists.taken}")
    return (
        *tar,
        *("--no-wildcards", "--anchored", "--no-unquote"),
        *leave,
        *(f"--exclude={each}" for each in left_out),
        f"--transform=flags=rh;s,^\\./{re.escape(own)}/,./,",
        *tops,
        f"--directory={above}",
        *take,
        *(each for each in tar if each.startswith("--directory=")),
        *(each for each in members if each not in tops),
    )


def _is_top(member: str) -> bool:
    name = member.removeprefix("./")
    return "/" not in name and is_top_file(name)


def names_with_copies(
    folder: str, copies: Lying, whole: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the members that tar excludes, and those it adds from the folder of the copies.

    Files there may have names like SQLite's own files without being such; a folder with such a
    name is packed from the stack.
    """
    own, names = posixpath.basename(folder), tuple(copies.sizes_bytes)
    beside = sorted(copies.names_beside - {*names} - copies.folders)
    left_out = (*names, *beside, *whole)
    taken = sorted((*whole, *names), key=lambda name: not _is_top(name))
    return tuple(f"./{each}" for each in left_out), tuple(f"./{own}/{each}" for each in taken)


@dataclass(frozen=True, slots=True)
class CompareUnpacked(HostStep):
    """Compare every member of an archive with what was unpacked, with tar's own comparison."""

    archive: str
    folder: str

    def _command(self, *, here: bool = False) -> Command:
        words = ("tar", "--compare", f"--file={self.archive}", f"--directory={self.folder}")
        unzip = gzip_streams.reading_words(self.archive, here=here)
        return Command(
            (*self.access.as_root, "env", "LC_ALL=C", *words, "--numeric-owner", *unzip),
            accept=frozenset({0, 1, 2}),
            timeout_s=COMPARE_LIMIT_S,
        )

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(self._command()),)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed with the first difference."""
        host = self.access.host(context)
        told = host.run(self._command(here=isinstance(host, LocalHost)))
        if told.exit_code:
            lines = (told.out + told.err).strip().splitlines() or ["tar gave no reason"]
            raise StepFailed(
                f"The unpacked files differ from {self.archive}: {'; '.join(lines[:5])}"
            )


def tar_words(
    as_root: tuple[str, ...], folder: str, exclusions: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the tar command that reads a folder, up to its members."""
    return (
        *as_root,
        *TAR_WORDS,
        f"--directory={folder}",
        *(("--anchored", "--wildcards") if exclusions else ()),
        *(f"--exclude=./{each}" for each in exclusions),
    )


def keeping_dates(host: Host, words: tuple[str, ...], limit_s: float) -> tuple[str, ...]:
    """Return a tar command that keeps all dates if it reads a file of before 1970 or after 2242.

    Otherwise GNU tar silently stores such a date as 1970.
    """
    members = [each for each in words if each == "." or each.startswith("./")]
    if WHOLE_SECONDS not in words or not members:
        return words
    places = (posixpath.join(_base(words), each) for each in members)
    as_root = words[: words.index(TAR_WORDS[0])]
    early, late = (("-newermt", f"@{each}") for each in DATES)
    find = ("find", *places, "(", "!", *early, "-o", *late, ")", "-printf", "x", "-quit")
    command = Command((*as_root, *find), frozenset({0, 1}), limit_s)  # tar reports missing files
    odd = host.run(command).out
    return tuple(ALL_DATES if odd and each == WHOLE_SECONDS else each for each in words)


def warn_of_nothing(context: StepContext, host: Host, base: str) -> None:
    """Warn if an archive holds nothing of the folders of a stack although they have content."""
    there = []
    for top in FOLDERS:
        try:
            names = host.listdir(f"{base}/{top}")
        except StepFailed:  # another user's: its content is unknown
            there.append(top)
        else:
            there += [top] if any(not is_of_restores(f"{top}/{each}") for each in names) else []
    if there:
        context.warn(
            f"It contains nothing of {' and '.join(f'{each}/' for each in there)}, although there "
            "are files. If this is not intended, check [[stack.exclude]] and [[services]] "
            "in hosts.toml."
        )


def _base(tar: tuple[str, ...]) -> str:
    """Return the folder that member names are relative to."""
    return next(e.partition("=")[2] for e in tar if e.startswith("--directory="))


def literal(path: str) -> str:
    """Return a path as an exclusion that matches this path alone."""
    return re.sub(r"([*?\[\\])", r"\\\1", path)


def judge_tar(
    exit_code: int, said: list[str], context: StepContext, may_change: Container[str] = ()
) -> None:
    """Warn of each file that changed while tar read it; raise StepFailed if tar failed.

    `may_change`: folders of databases that were copied, in which a -journal comes and goes, and
    folders that are packed empty, into which a dump may be written meanwhile.
    tar(1): exit 1, some files differ or changed; exit 2, a fatal error.
    """
    changed = [found for line in said if (found := _CHANGED.match(line))]
    others = [line for line in said if not _CHANGED.match(line) and is_telling(line)]
    gone = [found for found in changed if found["what"].startswith("Cannot stat")]
    # Older versions of tar report a file removed after listing as "Cannot stat", with exit 2.
    if exit_code not in (0, 1) and (others or not gone):
        telling = [line for line in others if line.startswith(("tar:", "sudo:"))]
        last_words = (telling or others or said or ["no message"])[0]
        raise StepFailed(
            f"tar ended with exit {exit_code}: {ended(last_words)}{_advice(others or said)}"
        )
    for found in changed:
        if found["file"] in may_change and found["what"].startswith("file changed"):
            continue
        context.warn(f"{found['file']}: {found['what']}")
    if exit_code == 1 and not changed:
        context.warn(f"tar ended with exit 1: {(others or said or ['no message'])[-1]}")


def _advice(lines: list[str]) -> str:
    text = "\n".join(lines)
    if "sudo:" in text:
        return (
            " Allow this user to run tar without a password (NOPASSWD in sudoers), or "
            "set sudo = false."
        )
    if "Permission denied" in text:
        return " Containers own files that only root can read: set sudo = true."
    return ""


@dataclass(frozen=True, slots=True)
class RemoveFolder(CommandStep):
    """Remove a folder that is no longer needed."""

    path: str

    @property
    def command(self) -> Command:
        """The command that removes it."""
        return Command((*self.access.as_root, "rm", "-rf", "--", self.path), timeout_s=600)
