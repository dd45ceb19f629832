"""What an archive may hold, and which members are refused: one rule for all callers.

A restore and a rehearsal ask GNU tar, the program that will unpack it, and judge its own listing,
so that no second reading of the headers can differ from what is unpacked. Its names are C strings:
one line is one member, whatever the name holds. A backup judges what it packs, and a verification
what it reads, by the same function.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator
from dataclasses import field

from ..backups.bundles import RECIPES, tops_of
from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..core.gzip_streams import padded_words
from ..core.stack_folders import FOLDERS
from ..engine.space import reserve
from ..engine.steps import File, Space, StepContext
from ..hosts.base import Command, Host, is_telling
from ..hosts.local import LocalHost
from ..stack.compose import is_top_file

LIST_WORDS = (
    *("env", "LC_ALL=C", "tar", "--list", "--verbose", "--numeric-owner", "--full-time"),
    # It reads past the end, and reports each block of zeros: this shows whether there is an end.
    *("--quoting-style=c", "--block-number", "--ignore-zeros"),
)
_, VOLUMES = FOLDERS
MOST_MEMBERS = 5_000_000
LONGEST_PATH_BYTES = 4000
"""Below PATH_MAX (4096), leaving room for the folder that it is unpacked into."""
LONGEST_NAME_BYTES = 255
MOST_TOLD = 5
MOST_NAMES = 200
"""How many members a warning names."""
MOST_ZEROS = 100_000
"""Blocks after the end: tar writes up to 20, a copy to a tape some thousand."""
BLOCK_BYTES = 512
NO_END = "it does not end with two blocks of zeros, so it is cut"
SKIPPING = "Skipping to next header"
NOTHING = "it is empty"
NOTHING_OF_A_STACK = "it has only empty folders: no service, no volume and no file of a stack"
TOO_LONG = "its name is too long for a file system"
NO_TOPS = frozenset({"/"})
"""For an archive whose members must all be listed: no path begins like this."""
BEHIND_END = "there is data after the end of the tar"

_LINE = re.compile(
    r"(?:block \d+: )*"  # repeated for each message that tar prints meanwhile
    r"(?P<kind>.)\S+ \S+ +(?P<size>\d+|\d+,\d+) \S+ \S+ +"  # fractional times are padded
    r'(?P<name>"(?:[^"\\]|\\.)*")(?: -> "(?:[^"\\]|\\.)*"| link to (?P<link>"(?:[^"\\]|\\.)*"))?'
)
_ESCAPE = re.compile(r"\\([0-7]{3}|.)")
_LETTERS = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "\\": 92, '"': 34}
_KINDS = {
    "-": "file",
    "d": "folder",
    "l": "symlink",
    "h": "hard link",
    "p": "pipe",
    "C": "file",  # contiguous: every system treats it as a file
}
_REFUSED_KINDS = {"b": "a block device", "c": "a character device", "V": "a volume header"}
_IN_A_DUMP = frozenset({"file", "folder", "hard link"})


@dataclass(frozen=True, slots=True)
class Shape:
    """What an archive of one kind may have at its top level."""

    tops: frozenset[str] = frozenset()
    """Folders; if empty, it is a dump: files and folders of any name."""
    top_files: bool = False
    """Compose files and their environment files as well."""
    included: frozenset[str] = frozenset()
    """What else a general part holds, according to its manifest; relative paths."""


def shape_of(kind: str, included: Collection[str] = ()) -> Shape:
    """Return what an archive of one kind of part may have at its top level."""
    if kind == "general":
        return Shape(frozenset(FOLDERS), True, frozenset(included))
    if kind == "outside":
        return Shape(NO_TOPS, False, frozenset(included))
    return Shape(tops_of(RECIPES[kind])) if kind in RECIPES else Shape()


@dataclass(slots=True)
class Contents:
    """The sums and names of the members of one archive."""

    unpacked_bytes: int = 0
    volumes_bytes: int = 0
    """The part of that below volumes/."""
    count: int = 0
    items: set[str] = field(default_factory=set)
    """`services/x`, `volumes/y`: what a restore replaces, each as a whole."""
    top_files: set[str] = field(default_factory=set)
    tops_known: bool = True
    """Whether `top_files` is complete: it may not be if the archive was not read to its end."""
    included: set[str] = field(default_factory=set)
    """The named paths besides services/, volumes/ and top files that it holds."""
    refusals: list[str] = field(default_factory=list)
    """Why the archive is refused, each naming a member; the first few only."""


class Judge:
    """Judges the members of an archive in the order in which tar would unpack them."""

    def __init__(self, shape: Shape, most_told: int = MOST_TOLD) -> None:
        self.shape = shape
        self.most_told = most_told
        self.contents = Contents()
        self.around = {above for path in shape.included for above in _above(path)}
        """The parent folders of what is included."""
        self._kinds: dict[str, str] = {}
        self._folders_implied: set[str] = set()

    def take(self, line: str) -> None:
        """Judge a line of tar's listing."""
        found = _LINE.fullmatch(line)
        if not found:
            self._refuse(line, "this line of tar's listing cannot be read")
            return
        size = int(found["size"]) if found["size"].isdigit() else 0
        link = unquote(found["link"]) if found["link"] else ""
        self.judge(found["kind"], unquote(found["name"]), size, link)

    def judge(self, letter: str, name: str, size_bytes: int, link: str = "") -> str:
        """Return why a member must not be unpacked, '' if it may.

        `letter`: its type as `ls -l` writes it, `h` for a hard link to `link`.
        """
        why = self._why_not(letter, name, link)
        if why:
            self._refuse(name, why)
            return why
        path = posixpath.normpath(name)
        self._kinds[path] = _KINDS[letter]
        self.contents.count += 1
        self.contents.unpacked_bytes += size_bytes
        parts = path.split("/")
        if parts[0] == VOLUMES:
            self.contents.volumes_bytes += size_bytes
        if parts[0] in self.shape.tops:
            if len(parts) > 1:
                self.contents.items.add("/".join(parts[:2]))
        elif inside := self._included_in(path):
            self.contents.included |= inside
        elif path != "." and path not in self.around:
            self.contents.top_files.add(path)
        return ""

    @property
    def is_empty(self) -> bool:
        """Whether there were no members, or only the folder itself."""
        return not (self.contents.refusals or self._kinds.keys() - {"."})

    def _included_in(self, path: str) -> frozenset[str]:
        """Return the included paths that a member is, or lies below."""
        included = self.shape.included
        return included & {path, *_above(path)} if included else included

    def _why_not(self, letter: str, name: str, link: str) -> str:
        if letter in _REFUSED_KINDS:
            return f"it is {_REFUSED_KINDS[letter]}"
        if letter not in _KINDS:
            return f"it is of a kind that backups never contain ({letter!r})"
        if self.contents.count >= MOST_MEMBERS:
            return f"the archive has more than {MOST_MEMBERS:,} members"
        path, kind = posixpath.normpath(name), _KINDS[letter]
        return (
            self._why_not_name(name)
            or self._why_not_top(path, kind)
            or self._why_not_place(path, kind, link)
        )

    @staticmethod
    def _why_not_name(name: str) -> str:
        raw = name.encode("utf-8", "surrogateescape")
        if name.startswith("/"):
            return "its name begins with /"
        if ".." in name.split("/"):
            return "its name has .. in it, which may lead out of the folder"
        if len(raw) > LONGEST_PATH_BYTES or any(
            len(part) > LONGEST_NAME_BYTES for part in raw.split(b"/")
        ):
            return TOO_LONG
        return ""

    def _why_not_top(self, path: str, kind: str) -> str:
        tops, (first, _, below) = self.shape.tops, path.partition("/")
        if not tops:
            fits = kind in _IN_A_DUMP and (path != "." or kind == "folder")
            return "" if fits else f"it is a {kind}, which a dump never has"
        if path == "." or (first in tops and not below) or path in self.around:
            return "" if kind == "folder" else f"it is a {kind}, but must be a folder"
        if first in tops or self._included_in(path):
            return ""
        if not self.shape.top_files:
            belong = sorted({*tops, *self.shape.included} - NO_TOPS)[:MOST_TOLD]
            why = (
                f"{', '.join(belong)} do"
                if belong
                else "there is no manifest that lists what does"
            )
            return f"it does not belong to this part: {why}"
        if below or kind != "file" or not is_top_file(first):
            named = "".join(f", {each}" for each in sorted(self.shape.included)[:MOST_TOLD])
            return f"it does not belong to a stack: services/, volumes/, *.yml, *.env{named} do"
        return ""

    def _why_not_place(self, path: str, kind: str, link: str) -> str:
        if path in self._kinds:
            return "it is in the archive twice"
        if kind != "folder" and path in self._folders_implied:
            return f"it is a {kind}, but there are members below it"
        for above in _above(path):
            if self._kinds.get(above, "folder") != "folder":
                return f"it is below {above!r}, which is a {self._kinds[above]}"
            self._folders_implied.add(above)
        if kind == "hard link":
            target = posixpath.normpath(link)
            if self._kinds.get(target) not in ("file", "hard link"):
                return (
                    f"it is a hard link to {target!r}, which is not an earlier file of the archive"
                )
        return ""

    def _refuse(self, name: str, why: str) -> None:
        if len(self.contents.refusals) < self.most_told:
            self.contents.refusals.append(f"{name!r}: {why}")


def _above(path: str) -> Iterator[str]:
    """Yield the parent folders of a relative path, the nearest first."""
    while path := posixpath.dirname(path):
        yield path


def unquote(text: str) -> str:
    """Return the name that a C string stands for; bytes that are not UTF-8 are escaped."""

    def byte(found: re.Match[str]) -> str:
        code = found[1]
        return chr(int(code, 8) if len(code) == 3 else _LETTERS.get(code, ord(code)))  # noqa: PLR2004

    return _ESCAPE.sub(byte, text[1:-1]).encode("latin-1").decode("utf-8", "surrogateescape")


def _damaged(found: str) -> StepFailed:
    return StepFailed(found, damage=found)


def list_archive(
    host: Host,
    archive: str,
    as_root: tuple[str, ...],
    kind: str = "general",
    included: Collection[str] = (),
) -> Contents:
    """Return the contents of an archive on a host, read whole by the tar that will unpack it.

    `kind`: which part it is. `included`: what else a general part holds, according to its
    manifest. Raises StepFailed if tar cannot read it completely, or it has no valid end.
    """
    here = isinstance(host, LocalHost)
    packed = _is_packed(host, archive)
    unzip = padded_words(here=here) if packed else ()
    words = (*as_root, *LIST_WORDS, *unzip, f"--file={archive}")
    judge, said, zeros = Judge(shape_of(kind, included)), list[str](), 0
    contents = judge.contents
    behind = False
    try:
        with host.pipe(
            Command(words, timeout_s=24 * 3600), lambda _stream, line: said.append(line)
        ) as pipe:
            for raw in pipe.stdout:
                if raw.endswith(b" ** Block of NULs **\n"):
                    zeros += 1
                    if zeros > MOST_ZEROS:
                        break
                elif raw.endswith(b" ** End of File **\n"):
                    continue
                elif zeros:
                    behind = True
                elif len(contents.refusals) < MOST_TOLD:
                    judge.take(raw.decode("ascii", "replace").rstrip("\n"))
            code = 0 if zeros > MOST_ZEROS else pipe.finish()
    except StepFailed as error:
        raise StepFailed(f"{archive} cannot be read: {error}") from error
    # tar also complains about absolute names and `..`: the message with the name comes first.
    if contents.refusals:
        return contents
    if zeros > MOST_ZEROS or behind or (zeros and any(SKIPPING in line for line in said)):
        raise _damaged(f"{archive} is damaged: {BEHIND_END}.")
    # Messages with exit 0 are no damage: sudo cannot resolve its host, an unknown keyword.
    if code:
        told = [each for each in said if is_telling(each)] or said
        words_said = "; ".join(each.rstrip(".") for each in told[:3]) or "no message"
        raise _damaged(f"{archive} is damaged (tar: exit {code}): {words_said}.")
    if zeros < 2:  # noqa: PLR2004 - two blocks
        raise _damaged(f"{archive} is damaged: {NO_END}.")
    fact = host.stat([archive]).get(archive)
    if not packed and fact and fact.size_bytes % BLOCK_BYTES:  # tar accepts that
        raise _damaged(f"{archive} is damaged: {BEHIND_END}.")
    if judge.is_empty:
        contents.refusals.append(NOTHING)
    elif kind == "general" and not (contents.items or contents.top_files or contents.included):
        contents.refusals.append(NOTHING_OF_A_STACK)
    return contents


def _is_packed(host: Host, archive: str) -> bool:
    """Return whether an archive is a gzip: some of IOTstackBackup are plain .tar files."""
    if archive.endswith(".gz"):
        return True
    try:
        with host.read(archive) as stream:
            return stream.read(2) == b"\x1f\x8b"
    except StepFailed:  # readable only by root
        return False


def refuse_size(
    context: StepContext,
    host: Host,
    what: str,
    size_bytes: int,
    folder: str,
    *,
    at_least: bool = False,
    for_all: bool = False,
) -> None:
    """Reserve space for something that is written to a folder, which need not exist yet.

    Raises StepFailed if there is less. `at_least`: its size was not counted completely. `for_all`:
    another job of the run writes it.
    """
    space = reserve(context, host, folder, size_bytes, for_all=for_all) or Space()
    free, left = space.free_bytes, space.left_bytes
    if size_bytes > left:
        told = f"{free:,} are free"
        if left < free:
            told = f"only {left:,} are left ({free:,} are free; other parts need the rest)"
        raise StepFailed(
            f"{what} needs {'at least ' if at_least else ''}{size_bytes:,} bytes when unpacked, "
            f"but {told} in {folder} on {host.name}. Nothing of it was unpacked, and the stack "
            "was not changed."
        )


def refuse_members(archive: str, contents: Contents) -> None:
    """Raise StepFailed, naming the members, if an archive must not be unpacked."""
    if contents.refusals:
        listed = "\n".join(f"  {each}" for each in contents.refusals)
        raise StepFailed(f"{archive} was not unpacked, and nothing was changed:\n{listed}")


@dataclass(frozen=True, slots=True)
class ScanArchive:
    """Check every member of an archive before any of it is written."""

    archive: File
    as_root: tuple[str, ...]
    folder: str
    """Where it will be unpacked."""
    kind: str = "general"
    """Which part it is."""
    included: tuple[str, ...] = ()
    """What a general part holds besides services/, volumes/ and top files."""
    volumes: str = ""
    """Where its volumes will be unpacked, if that is another file system."""

    def commands(self) -> tuple[str, ...]:
        """Return the listing."""
        return (str(Command((*self.as_root, *LIST_WORDS, f"--file={self.archive.absolute}"))),)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed, naming the members, if one is refused or there is too little space."""
        context.status("checking every member")
        host = context.host(self.archive.role)
        path = self.archive.absolute
        contents = list_archive(host, path, self.as_root, self.kind, self.included)
        refuse_members(self.archive.path, contents)
        apart = contents.volumes_bytes if self.volumes else 0
        what = self.archive.path
        refuse_size(context, host, what, contents.unpacked_bytes - apart, self.folder)
        if apart:
            refuse_size(context, host, f"volumes/ of {what}", apart, self.volumes, for_all=True)
