"""The sealed side of a vault: archives and logs lie there as NAME.age, for the rest as NAME.

What was sealed is known from a file beside each set, which also names the manifest's hash. What
lies there in plain is read as it is. Not for: how bytes are sealed (age.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import posixpath
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, field, replace
from typing import IO, Any, cast

from ..backups.manifest import REMOVING_ENDING
from ..backups.names import PARTS, split_set_name
from ..backups.transfer import hash_there
from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..hosts.base import PARTIAL, FileFact, Received, Storage
from ..hosts.hashing import HashedStream
from ..hosts.local import CHUNK_BYTES
from .age import SealDamaged, opening, sealed_size, sealing

SEALED = ".age"
SECRET = frozenset({*PARTS, "log"})
"""What is sealed of a set; all else is readable: the manifest says what the set is."""
SEAL_ENDING = "sealed.json"
FORMAT = "iotstack-invoke seal 1"
ASK = "Give the file with the secret key: --identity FILE"


class SealBroken(StepFailed):
    """What lies sealed in a vault is not what was sealed there."""


@dataclass(frozen=True, slots=True)
class SealedFile:
    """One file: what was sealed, and what lies there."""

    size_bytes: int
    sha256: str
    sealed_bytes: int
    sealed_sha256: str

    def __post_init__(self) -> None:
        """Raise TypeError for what no program of ours wrote."""
        sizes, hashes = (self.size_bytes, self.sealed_bytes), (self.sha256, self.sealed_sha256)
        if not (all(type(each) is int for each in sizes) and all(map(str.isalnum, hashes))):
            raise TypeError(self)


@dataclass(frozen=True, slots=True)
class Seal:
    """What the file beside a set says: its sealed files by name, and the manifest's hash."""

    files: Mapping[str, SealedFile] = field(default_factory=dict)
    manifest_sha256: str = ""

    @classmethod
    def read(cls, content: bytes) -> Seal:
        """Return what a file holds; of one that cannot be read, nothing."""
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            told = json.loads(content)
            if told["format"] == FORMAT:
                files = {name: SealedFile(**each) for name, each in told["files"].items()}
                return cls(files, str(told["manifest_sha256"]))
        return cls()

    def to_json(self) -> bytes:
        """Return the content of the file."""
        files = {name: asdict(each) for name, each in self.files.items()}
        told = {"format": FORMAT, "manifest_sha256": self.manifest_sha256, "files": files}
        return json.dumps(told, indent=1).encode() + b"\n"


class _Whole:
    """A stream that must have so many bytes: what is cut on its way is not damaged there."""

    def __init__(self, source: IO[bytes], size_bytes: int, what: str) -> None:
        self._source = source
        self._left_bytes = size_bytes
        self._what = what

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """Return the next bytes, b"" at the end; raises StepFailed where that comes too early."""
        content = self._source.read(size)
        self._left_bytes -= len(content)
        if not content and self._left_bytes > 0:
            raise StepFailed(
                f"Reading {self._what} stopped early: {self._left_bytes:,} bytes are missing.",
                again=True,
            )
        return content


class EncryptedStorage:
    """A vault's place: what `recipients` are named for is sealed on its way there.

    Without recipients all goes there in plain. To read what is sealed an identity is needed, the
    file with the secret key.
    """

    def __init__(self, inner: Storage, recipients: tuple[str, ...], identity: str = "") -> None:
        self.name = inner.name
        self.root = inner.root
        self.resumes = inner.resumes and not recipients
        self.identity = identity
        self._inner = inner
        self._recipients = recipients
        self._arrived: dict[str, SealedFile] = {}
        """What was received under a partial path and has no final name yet."""
        self._sealed_there: set[str] = set()
        """Paths, as others name them, of what was seen sealed."""
        self._noting = threading.Lock()
        self._keeps_all = getattr(inner, "keeps_all", False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    # Reading

    def stat(self, paths: Iterable[str]) -> dict[str, FileFact]:
        """Return what is there; a path that is not there has no entry."""
        asked = list(paths)
        sealed = {_sealed_path(path): path for path in asked if _is_secret(path)}
        told = self._inner.stat([*asked, *sealed])
        found = {path: fact for path, fact in told.items() if path not in sealed}
        there = {path: told[each] for each, path in sealed.items() if each in told}
        seals = self._seals(path for path in there if not path.endswith(PARTIAL))
        return found | {path: self._as_plain(path, fact, seals) for path, fact in there.items()}

    def listdir(self, folder: str) -> dict[str, FileFact]:
        """Return the entries of a folder by name, {} where there is none; seals are not told."""
        told = self._inner.listdir(folder)
        plain = {name: _plain_name(name) for name in told}
        found = {
            name: fact
            for name, fact in told.items()
            if not plain[name] and not name.endswith(f".{SEAL_ENDING}")
        }
        there = {f"{folder}/{plain[name]}": told[name] for name in told if plain[name]}
        seals = self._seals(path for path in there if not path.endswith(PARTIAL))
        facts = {path: self._as_plain(path, fact, seals) for path, fact in there.items()}
        return found | {posixpath.basename(path): fact for path, fact in facts.items()}

    @contextlib.contextmanager
    def read(self, path: str, start: int = 0) -> Iterator[IO[bytes]]:
        """Return a stream of a file's bytes as they were sealed, without the first `start`."""
        there = _sealed_path(path)
        fact = self._inner.stat([there]).get(there) if _is_secret(path) else None
        if fact is None:
            with self._inner.read(path, start) as stream:
                yield stream
            return
        what = f"{posixpath.basename(path)} in {self.name}"
        if not self.identity:
            raise StepFailed(f"{what} is sealed. {ASK}")
        try:
            with self._inner.read(there) as sealed:
                whole = cast("IO[bytes]", _Whole(sealed, fact.size_bytes, what))
                with opening(self.identity, whole, what) as stream:
                    while start:
                        start -= len(stream.read(min(start, CHUNK_BYTES))) or start
                    yield stream
        except SealDamaged as error:
            raise StepFailed(str(error), damage=self._damage(path)) from error

    def _damage(self, path: str) -> str:
        """Return what is wrong with what lies there, '' where it was only read badly."""
        try:
            self.hash_of(path)
        except SealBroken as broken:
            return str(broken)
        except StepFailed:
            pass
        return ""

    def read_many(self, folder: str, names: Iterable[str]) -> dict[str, bytes]:
        """Return small files of a folder; what is not there, or is shut, has no entry."""
        asked = list(names)
        found = self._inner.read_many(folder, asked)
        for name in asked if self.identity else ():
            if _is_secret(name) and self.is_sealed(f"{folder}/{name}"):
                with self.read(f"{folder}/{name}") as stream:
                    found[name] = stream.read()
        return found

    def is_sealed(self, path: str) -> bool:
        """Tell whether a file lies there sealed."""
        sealed = _sealed_path(path)
        return _is_secret(path) and sealed in self._inner.stat([sealed])

    def saw_sealed(self, path: str) -> bool:
        """Tell whether the last look at a file or its folder found it sealed."""
        return path in self._sealed_there

    def hash_of(self, path: str) -> str:
        """Return the SHA-256 of a file as it was sealed, if what lies there is what was sealed.

        Raises SealBroken where it is not; no key is needed.
        """
        if not self.is_sealed(path):
            return hash_there(self._inner, path)
        folder, name = posixpath.split(path)
        told = self._seal(folder, _runtag_of(name)).files.get(name)
        if told is None:
            raise SealBroken(f"{self.name} has no file with the hash of {name}{SEALED}.")
        found = hash_there(self._inner, _sealed_path(path))
        if found != told.sealed_sha256:
            raise SealBroken(
                f"The SHA-256 of {name}{SEALED} is {found}, but was {told.sealed_sha256} when it "
                "was sealed."
            )
        return told.sha256

    def is_signed(self, manifest: str) -> bool:
        """Tell whether a manifest is the one that its set was sealed with; raises StepFailed."""
        folder, name = posixpath.split(manifest)
        told = self._inner.read_many(folder, [name, f"{_runtag_of(name)}.{SEAL_ENDING}"])
        seal = Seal.read(told.get(f"{_runtag_of(name)}.{SEAL_ENDING}", b""))
        return seal.manifest_sha256 == hashlib.sha256(told.get(name, b"")).hexdigest()

    # Writing

    def create_exclusive(self, path: str, line: str) -> str:
        """Make a file of one line where there is none, and return the line that is in it then."""
        return self._inner.create_exclusive(path, line)

    def write(
        self,
        path: str,
        source: IO[bytes],
        modified_s: float,
        start: int = 0,
        size_bytes: int | None = None,
    ) -> Received:
        """Write a stream there, sealed if it is to be; size and hash returned are the plain ones.

        Raises StepFailed where what lies there is not what was sealed.
        """
        if self._keeps_all and not self._recipients and self.is_sealed(path.removesuffix(PARTIAL)):
            raise StepFailed(
                f"{posixpath.basename(path).removesuffix(PARTIAL)} exists sealed in {self.name}, "
                "where nothing can be removed or replaced (write_once = true), so an unsealed "
                "copy cannot be added. Make a backup with another --runtag."
            )
        if not self._recipients or not (_is_secret(path) or _is_manifest(path)):
            return self._inner.write(path, source, modified_s, start, size_bytes)
        plain = HashedStream(source)
        if _is_manifest(path):
            received = self._inner.write(path, plain.stream, modified_s, start, size_bytes)
            facts = (plain.size_bytes, plain.sha256)
            self._arrived[path] = SealedFile(*facts, *facts)
            return received
        with sealing(self._recipients, plain.stream) as stream:
            head = stream.read(CHUNK_BYTES)
            sealed = HashedStream(stream, head)
            size = None if size_bytes is None else sealed_size(head, size_bytes)
            received = self._inner.write(
                _sealed_path(path), sealed.stream, modified_s, size_bytes=size
            )
        if size not in {None, sealed.size_bytes}:
            raise StepFailed(f"age cannot seal: it wrote {sealed.size_bytes:,} of {size:,} bytes.")
        if received != sealed.received:
            raise StepFailed(
                f"The copy {posixpath.basename(path)} in {self.name} differs from what was "
                f"sealed: {received.size_bytes:,} of {sealed.size_bytes:,} bytes, SHA-256 "
                f"{received.sha256} instead of {sealed.sha256}.",
                again=True,
            )
        kept = SealedFile(plain.size_bytes, plain.sha256, received.size_bytes, received.sha256)
        self._arrived[path] = kept
        return Received(kept.size_bytes, kept.sha256)

    def mkdir(self, path: str) -> None:
        """Make a folder where there is none."""
        self._inner.mkdir(path)

    def free_bytes(self, folder: str) -> int | None:
        """Return what fits into the file system of `folder`, or None where nobody can say."""
        return self._inner.free_bytes(folder)

    def rename(self, old: str, new: str) -> None:
        """Put `old` in the place of `new` at once; what gets its final name is noted before."""
        arrived = self._arrived.pop(old, None)
        if arrived:
            self._note(new, arrived)
        if arrived and _is_secret(old):
            self._inner.rename(_sealed_path(old), _sealed_path(new))
            self._sealed_there.add(new)
            if not self._keeps_all:  # there the sealed one counts beside it
                self._inner.remove([new, old])  # from before it was sealed
        elif not old.endswith(PARTIAL) and self.is_sealed(old):  # it becomes a mark
            self._inner.rename(_sealed_path(old), new)
        else:
            self._inner.rename(old, new)
            if new in self._sealed_there:  # from when it was sealed
                self._inner.remove([_sealed_path(new)])
                self._sealed_there.discard(new)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; one that is not there is as good as removed."""
        gone = []
        for path in paths:
            folder, name = posixpath.split(path)
            if _is_secret(path):
                gone.append(_sealed_path(path))
            elif name.endswith(f".{REMOVING_ENDING}"):
                seal = f"{folder}/{name.removesuffix(REMOVING_ENDING)}{SEAL_ENDING}"
                gone += [seal, f"{seal}{PARTIAL}"]
            gone.append(path)
        self._inner.remove(gone)

    def close(self) -> None:
        """Let go of connections."""
        self._inner.close()

    # What is noted beside a set

    def _seals(self, paths: Iterable[str]) -> dict[str, Seal]:
        """Return the seals of the sets that some files belong to, by `folder/runtag`."""
        wanted: dict[str, set[str]] = {}
        for path in paths:
            self._sealed_there.add(path)
            folder, name = posixpath.split(path)
            wanted.setdefault(folder, set()).add(_runtag_of(name))
        found: dict[str, Seal] = {}
        for folder, runtags in wanted.items():
            names = {f"{runtag}.{SEAL_ENDING}": runtag for runtag in sorted(runtags)}
            told = self._inner.read_many(folder, names)
            found |= {f"{folder}/{names[name]}": Seal.read(each) for name, each in told.items()}
        return found

    def _seal(self, folder: str, runtag: str) -> Seal:
        name = f"{runtag}.{SEAL_ENDING}"
        return Seal.read(self._inner.read_many(folder, [name]).get(name, b""))

    def _as_plain(self, path: str, fact: FileFact, seals: Mapping[str, Seal]) -> FileFact:
        """Return the fact of a sealed file with the size that it had before.

        One of another size than was sealed keeps that, so that it is not what the manifest says.
        """
        folder, name = posixpath.split(path)
        seal = seals.get(f"{folder}/{_runtag_of(name)}", Seal())
        told = seal.files.get(name)
        known = told and told.sealed_bytes == fact.size_bytes
        return replace(fact, size_bytes=told.size_bytes) if told and known else fact

    def _note(self, path: str, arrived: SealedFile) -> None:
        """Write down what is sealed, before it gets its final name."""
        folder, name = posixpath.split(path)
        runtag = _runtag_of(name)
        with self._noting:
            seal = self._seal(folder, runtag)
            if _is_manifest(path):
                seal = replace(seal, manifest_sha256=arrived.sha256)
            else:
                seal = replace(seal, files={**seal.files, name: arrived})
            content, file = seal.to_json(), f"{folder}/{runtag}.{SEAL_ENDING}"
            source, now_s = io.BytesIO(content), time.time()
            self._inner.write(f"{file}{PARTIAL}", source, now_s, size_bytes=len(content))
            self._inner.rename(f"{file}{PARTIAL}", file)


def _kind_of(path: str) -> str:
    """Return which file of a set a path is of, finished or partial; '' for any other."""
    found = split_set_name(posixpath.basename(path).removesuffix(PARTIAL))
    return found[1] if found else ""


def _is_secret(path: str) -> bool:
    return _kind_of(path) in SECRET


def _is_manifest(path: str) -> bool:
    return _kind_of(path) == "manifest"


def _runtag_of(name: str) -> str:
    found = split_set_name(name.removesuffix(PARTIAL))
    return found[0] if found else ""


def _sealed_path(path: str) -> str:
    """Return where the sealed form of a file lies: `x.tar.age`, or `x.tar.age.partial`."""
    if path.endswith(PARTIAL):
        return f"{path.removesuffix(PARTIAL)}{SEALED}{PARTIAL}"
    return f"{path}{SEALED}"


def _plain_name(name: str) -> str:
    """Return how others name a sealed file; '' for a name that is none's."""
    if SEALED not in name:  # of ten thousand files nobody wants to know more
        return ""
    partial = PARTIAL if name.endswith(PARTIAL) else ""
    sealed = name.removesuffix(PARTIAL)
    plain = f"{sealed.removesuffix(SEALED)}{partial}"
    return plain if sealed.endswith(SEALED) and _is_secret(plain) else ""
