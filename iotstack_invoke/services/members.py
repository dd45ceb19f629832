"""What an archive holds, read from GNU tar's own listing, and what of it is refused. Pure.

The listing is of the program that will unpack it: no second reading of the headers can differ
from what is done. Its names are C strings: one line is one member, whatever the name holds.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import field

from ..errors import StepFailed
from ..gzips import reading_words
from ..hosts import LocalHost
from ..steps import Command, File, Host, Scene
from ..values import dataclass
from .compose import is_top_file

LIST_WORDS = (
    *("env", "LC_ALL=C", "tar", "--list", "--verbose", "--numeric-owner", "--full-time"),
    "--quoting-style=c",
)
FOLDERS = ("services", "volumes")
MOST_MEMBERS = 5_000_000
LONGEST_PATH_BYTES = 4000
"""Below PATH_MAX (4096), with room for the folder that it is unpacked into."""
LONGEST_NAME_BYTES = 255
MOST_TOLD = 5

_LINE = re.compile(
    r"(?P<kind>.)\S+ \S+ +(?P<size>\d+|\d+,\d+) \S+ \S+ "
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
    "C": "file",  # contiguous, which every system takes as a file
}
_REFUSED_KINDS = {"b": "a block device", "c": "a character device", "V": "a volume header"}


@dataclass(slots=True)
class Contents:
    """What the members of one archive come to."""

    unpacked_bytes: int = 0
    count: int = 0
    items: set[str] = field(default_factory=set)
    """`services/x`, `volumes/y`: what a restore puts in place, each as a whole."""
    top_files: set[str] = field(default_factory=set)
    included: set[str] = field(default_factory=set)
    """What it holds of the paths that were named besides services/, volumes/ and top files."""
    refusals: list[str] = field(default_factory=list)
    """Why the archive is not unpacked, each naming a member; the first few of them."""


def read_contents(lines: Iterable[str]) -> Contents:
    """Return what a listing holds; a member that must not be unpacked is in `refusals`."""
    scan = _Scan()
    for line in lines:
        if len(scan.contents.refusals) >= MOST_TOLD:
            break
        scan.take(line)
    return scan.contents


class _Scan:
    """Goes through the members in the order in which tar would unpack them."""

    def __init__(self, tops: Collection[str] = (), included: Collection[str] = ()) -> None:
        self.tops = tops or FOLDERS
        self.takes_files = not tops
        self.included = frozenset(included)
        self.around = {above for path in included for above in _above(path)}
        """The folders that hold what is included."""
        self.contents = Contents()
        self._kinds: dict[str, str] = {}
        self._folders_implied: set[str] = set()

    def take(self, line: str) -> None:
        found = _LINE.fullmatch(line)
        if not found:
            self._refuse(line, "this line of tar's listing cannot be read")
            return
        name = unquote(found["name"])
        why = self._why_not(found, name)
        if why:
            self._refuse(name, why)
            return
        path = posixpath.normpath(name)
        kind = _KINDS[found["kind"]]
        self._kinds[path] = kind
        self.contents.count += 1
        self.contents.unpacked_bytes += int(found["size"])
        parts = path.split("/")
        if parts[0] in self.tops:
            if len(parts) > 1:
                self.contents.items.add("/".join(parts[:2]))
        elif inside := self._included_in(path):
            self.contents.included |= inside
        elif path != "." and path not in self.around:
            self.contents.top_files.add(path)

    def _included_in(self, path: str) -> frozenset[str]:
        """Return which of the included paths a member is, or lies below."""
        return self.included & {path, *_above(path)} if self.included else self.included

    def _why_not(self, found: re.Match[str], name: str) -> str:
        kind = found["kind"]
        if kind in _REFUSED_KINDS:
            return f"it is {_REFUSED_KINDS[kind]}"
        if kind not in _KINDS:
            return f"it is of a kind that no backup of ours holds ({kind!r})"
        if self.contents.count >= MOST_MEMBERS:
            return f"the archive holds more than {MOST_MEMBERS:,} members"
        return self._why_not_name(name) or self._why_not_place(found, name)

    @staticmethod
    def _why_not_name(name: str) -> str:
        raw = name.encode("utf-8", "surrogateescape")
        if name.startswith("/"):
            return "its name begins with /"
        if ".." in name.split("/"):
            return "its name leads upwards (..)"
        if len(raw) > LONGEST_PATH_BYTES or any(
            len(part) > LONGEST_NAME_BYTES for part in raw.split(b"/")
        ):
            return "its name is longer than a file system takes"
        return ""

    def _why_not_place(self, found: re.Match[str], name: str) -> str:
        path, kind = posixpath.normpath(name), _KINDS[found["kind"]]
        first, _, below = path.partition("/")
        is_around = path == "." or (first in self.tops and not below) or path in self.around
        if is_around and kind != "folder":
            return f"it is a {kind} where a folder must be"
        is_top = not is_around and first not in self.tops and not self._included_in(path)
        if is_top and not self.takes_files:
            return f"it does not belong to this part: {', '.join(sorted(self.tops))} do"
        if is_top and (below or kind != "file" or not is_top_file(first)):
            named = "".join(f", {each}" for each in sorted(self.included)[:MOST_TOLD])
            return f"it does not belong to a stack: services/, volumes/, *.yml, *.env{named} do"
        if path in self._kinds:
            return "the archive holds it twice"
        if kind != "folder" and path in self._folders_implied:
            return f"it is a {kind}, and others lie below it"
        for above in _above(path):
            if self._kinds.get(above, "folder") != "folder":
                return f"it lies below {above!r}, which is a {self._kinds[above]}"
            self._folders_implied.add(above)
        if kind == "hard link":
            target = posixpath.normpath(unquote(found["link"] or '""'))
            if self._kinds.get(target) not in ("file", "hard link"):
                return f"it is a hard link to {target!r}, which is no file before it"
        return ""

    def _refuse(self, name: str, why: str) -> None:
        self.contents.refusals.append(f"{name!r}: {why}")


def _above(path: str) -> Iterator[str]:
    """Return the folders that a relative path lies in, the nearest first."""
    while path := posixpath.dirname(path):
        yield path


def unquote(text: str) -> str:
    """Return the name that a C string stands for; bytes that are no UTF-8 are escaped."""

    def byte(found: re.Match[str]) -> str:
        code = found[1]
        return chr(int(code, 8) if len(code) == 3 else _LETTERS.get(code, ord(code)))  # noqa: PLR2004

    return _ESCAPE.sub(byte, text[1:-1]).encode("latin-1").decode("utf-8", "surrogateescape")


def list_archive(
    host: Host,
    archive: str,
    as_root: tuple[str, ...],
    tops: Collection[str] = (),
    included: Collection[str] = (),
) -> Contents:
    """Return what an archive on a host holds, read whole by the tar that will unpack it.

    `tops`: the folders at its top, where it is no general part. `included`: what a general part
    holds besides, as its manifest says; relative paths.
    Raises StepFailed where tar cannot read it to its end.
    """
    unzip = reading_words(archive, here=isinstance(host, LocalHost))
    command = Command((*as_root, *LIST_WORDS, *unzip, f"--file={archive}"), limit_s=24 * 3600)
    scan, said = _Scan(tops, included), []

    def hear(stream: str, line: str) -> None:
        if stream == "err":
            said.append(line)
        elif len(scan.contents.refusals) < MOST_TOLD:
            scan.take(line)

    try:
        with host.pipe(command, hear) as pipe:
            for raw in pipe.stdout:
                hear("out", raw.decode("ascii", "replace").rstrip("\n"))
            code = pipe.finish()
    except StepFailed as error:
        raise StepFailed(f"{archive} cannot be read: {error}") from error
    # Of absolute names and `..` tar says something as well: what names the member comes first.
    if (code or said) and not scan.contents.refusals:
        words = " ".join(said[:3]) or "it said nothing"
        raise StepFailed(f"{archive} is damaged (tar: exit {code}): {words}")
    return scan.contents


@dataclass(frozen=True, slots=True)
class ScanArchive:
    """Look at every member of an archive before anything is written."""

    archive: File
    as_root: tuple[str, ...]
    free_bytes: int
    tops: frozenset[str] = frozenset()
    """The folders at its top, where it is no general part."""
    included: tuple[str, ...] = ()
    """What a general part holds besides services/, volumes/ and top files."""

    def commands(self) -> tuple[str, ...]:
        """Return the listing."""
        return (str(Command((*self.as_root, *LIST_WORDS, f"--file={self.archive.absolute}"))),)

    def do(self, scene: Scene) -> None:
        """Raise StepFailed, naming the members, where one must not be unpacked."""
        scene.say("looking at every member")
        host = scene.host(self.archive.role)
        contents = list_archive(
            host, self.archive.absolute, self.as_root, self.tops, self.included
        )
        if contents.refusals:
            listed = "\n".join(f"  {each}" for each in contents.refusals)
            raise StepFailed(
                f"{self.archive.path} is not unpacked, and nothing was changed:\n{listed}"
            )
        if contents.unpacked_bytes > self.free_bytes:
            raise StepFailed(
                f"{self.archive.path} unpacks to {contents.unpacked_bytes:,} bytes, and "
                f"{self.free_bytes:,} are free on {host.name}. Nothing was changed."
            )
