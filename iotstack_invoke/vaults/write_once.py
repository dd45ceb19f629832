"""A vault where nothing can be removed or replaced: a bucket with object lock.

Each file has its final name from the first byte. A failed upload stays, and the next try is
stored as NAME.2, NAME.3: callers see the last of them as NAME. A set counts once its manifest
exists, which is sent last. Not for: the upload itself (rclone.py).
"""

from __future__ import annotations

import contextlib
import posixpath
import re
import threading
from collections.abc import Iterable, Iterator
from typing import IO, Any

from ..backups.manifest import RECORDS_ENDING
from ..backups.names import KINDS
from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..hosts.base import PARTIAL, FileFact, Received
from .claims import DIGITS, mark_of
from .rclone import RcloneStorage

_AGAIN = re.compile(r"(.+)\.([2-9]|[1-9]\d+)", re.ASCII)
"""The name of a later try."""
_MARK = re.compile(rf"((.+)\.{re.escape(RECORDS_ENDING)})\.[0-9a-f]{{{DIGITS}}}")
NEVER = "nothing can be removed or replaced there (write_once = true in hosts.toml)"


@dataclass(frozen=True, slots=True)
class _Try:
    """The last try of a file: its name, and its facts."""

    name: str
    number: int
    fact: FileFact


class WriteOnceStorage:
    """A storage that accepts new files, but never removes or replaces one."""

    resumes = False
    keeps_all = True
    """A damaged copy stays, and does not prevent another from being sent."""

    def __init__(self, inner: RcloneStorage) -> None:
        self.name = inner.name
        self.root = inner.root
        self._inner = inner
        self._claiming = threading.Lock()
        self._arrived = set[str]()
        """Partial paths of files that were received and not yet renamed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def stat(self, paths: Iterable[str]) -> dict[str, FileFact]:
        """Return the facts of the paths that exist, by one listing per folder."""
        asked = list(paths)
        found: dict[str, FileFact] = {}
        for folder in sorted({posixpath.dirname(path) for path in asked}):
            tries = self._tries(folder)
            inside = (path for path in asked if posixpath.dirname(path) == folder)
            there = {path: tries.get(posixpath.basename(path)) for path in inside}
            found |= {path: each.fact for path, each in there.items() if each}
        return found

    def listdir(self, folder: str) -> dict[str, FileFact]:
        """Return the entries of a folder by name, each with the facts of its last try."""
        return {name: each.fact for name, each in self._tries(folder).items()}

    @contextlib.contextmanager
    def read(self, path: str, start: int = 0) -> Iterator[IO[bytes]]:
        """Return a stream of a file's bytes, from its last try."""
        folder, name = posixpath.split(path)
        last = self._tries(folder).get(name)
        with self._inner.read(f"{folder}/{last.name if last else name}", start) as stream:
            yield stream

    def read_many(self, folder: str, names: Iterable[str]) -> dict[str, bytes]:
        """Return small files of a folder, each from its last try."""
        tries = self._tries(folder)
        asked = {tries[name].name: name for name in names if name in tries}
        told = self._inner.read_many(folder, asked)
        return {asked[each]: content for each, content in told.items()}

    def create_exclusive(self, path: str, line: str) -> str:
        """Put a mark for this claimant, and return its line, or that of another active claimant.

        Of two simultaneous claimants maybe none wins, but never both: each puts its mark before it
        looks. Once the manifest exists, it counts and the mark no longer does.
        """
        with self._claiming:  # jobs of one run would put the mark twice
            return self._claim(path, line)

    def _claim(self, path: str, line: str) -> str:
        folder, name = posixpath.split(path)
        ours = mark_of(name, line)
        for _ in range(2):
            listed = self._inner.listdir(folder)
            marks = [
                each for each in listed if (found := _MARK.fullmatch(each)) and found[1] == name
            ]
            others = [each for each in marks if each != ours]
            if others and not self._has_manifest(name, listed):
                told = self._inner.read_many(folder, others[:1]).get(others[0], b"")
                return "".join(told.decode("utf-8", "replace").splitlines()[:1])
            if ours in marks:
                return line
            self._inner.put(f"{folder}/{ours}", f"{line}\n".encode())
        raise StepFailed(f"{self.name} does not list {ours}, which was written there.", again=True)

    def write(
        self,
        path: str,
        source: IO[bytes],
        modified_s: float,
        start: int = 0,
        size_bytes: int | None = None,
    ) -> Received:
        """Write a stream under the final name at once, or beside an existing file of that name."""
        folder, name = posixpath.split(path.removesuffix(PARTIAL))
        listed = self._inner.listdir(folder)
        tried, number = name, 1
        while tried in listed:
            number += 1
            tried = f"{name}.{number}"
        received = self._inner.write(f"{folder}/{tried}", source, modified_s, start, size_bytes)
        self._arrived.add(path)
        return received

    def rename(self, old: str, new: str) -> None:
        """Do nothing for a received file, which has its name; raises StepFailed for any other."""
        if old not in self._arrived or old != f"{new}{PARTIAL}":
            raise StepFailed(f"Vault '{self.name}': {old} stays: {NEVER}.")
        self._arrived.discard(old)

    def remove(self, paths: Iterable[str]) -> None:
        """Raise StepFailed if a file exists; marks stay, and partial files never existed."""
        asked = (e for e in paths if not e.endswith((PARTIAL, f".{RECORDS_ENDING}")))
        there = sorted(self.stat(asked))
        if there:
            raise StepFailed(f"Vault '{self.name}': {', '.join(there)} stays: {NEVER}.")

    def _tries(self, folder: str) -> dict[str, _Try]:
        """Return the last try of each file of a folder by name; marks only while they count."""
        listed = self._inner.listdir(folder)
        found: dict[str, _Try] = {}
        for each, fact in listed.items():
            again = _AGAIN.fullmatch(each)
            mark = _MARK.fullmatch(each)
            if mark:
                if not self._has_manifest(mark[1], listed):
                    found[mark[1]] = _Try(each, 1, fact)
                continue
            name, number = (again[1], int(again[2])) if again else (each, 1)
            if name not in found or found[name].number < number:
                found[name] = _Try(each, number, fact)
        return found

    @staticmethod
    def _has_manifest(mark: str, listed: Iterable[str]) -> bool:
        """Return whether the manifest exists of the set that a mark is for."""
        return f"{mark.removesuffix(RECORDS_ENDING)}{KINDS['manifest']}" in listed
