"""A vault with encrypted copies: archives and logs are NAME.age there, and NAME for the rest.

A record beside each set says what was encrypted, and the hash of the manifest. Unencrypted copies
are read too. Not for: how bytes are encrypted (age.py).
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
from dataclasses import field, replace
from typing import IO, Any, cast

from ..backups.manifest import REMOVING_ENDING
from ..backups.names import PARTS, split_set_name
from ..backups.transfer import hash_there
from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..hosts.base import PARTIAL, FileFact, Received, Storage
from ..hosts.hashing import HashedStream
from ..hosts.local import CHUNK_BYTES
from .age import CiphertextDamaged, decrypting, encrypted_size, encrypting

AGE_ENDING = ".age"
SECRET = frozenset({*PARTS, "log"})
"""What is encrypted of a set; all else is readable: the manifest says what the set is."""
RECORD_ENDING = "sealed.json"
FORMAT = "iotstack-invoke seal 1"
"""This ending, this word and the keys below are on disks of every version: they never change."""
ASK = "Add --identity FILE (the file with the secret key)."


class CiphertextMismatch(StepFailed):
    """An encrypted file in a vault does not match its record."""


@dataclass(frozen=True, slots=True)
class EncryptedFile:
    """One file: what was encrypted, and what that became in the vault."""

    size_bytes: int
    sha256: str
    encrypted_bytes: int
    encrypted_sha256: str

    def __post_init__(self) -> None:
        """Raise TypeError for what no program of ours wrote."""
        sizes = (self.size_bytes, self.encrypted_bytes)
        hashes = (self.sha256, self.encrypted_sha256)
        if not (all(type(each) is int for each in sizes) and all(map(str.isalnum, hashes))):
            raise TypeError(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> EncryptedFile:
        """Return what a record says of one file; raises KeyError or TypeError."""
        return cls(told["size_bytes"], told["sha256"], told["sealed_bytes"], told["sealed_sha256"])

    def to_json(self) -> dict[str, object]:
        """Return the file as a record has it."""
        return {
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "sealed_bytes": self.encrypted_bytes,
            "sealed_sha256": self.encrypted_sha256,
        }


@dataclass(frozen=True, slots=True)
class EncryptionRecord:
    """What the file beside a set says: its encrypted files by name, and the manifest's hash."""

    files: Mapping[str, EncryptedFile] = field(default_factory=dict)
    manifest_sha256: str = ""

    @classmethod
    def read(cls, content: bytes) -> EncryptionRecord:
        """Return what a file holds; of one that cannot be read, nothing."""
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            told = json.loads(content)
            if told["format"] == FORMAT:
                files = {
                    name: EncryptedFile.from_json(each) for name, each in told["files"].items()
                }
                return cls(files, str(told["manifest_sha256"]))
        return cls()

    def to_json(self) -> bytes:
        """Return the content of the file."""
        files = {name: each.to_json() for name, each in self.files.items()}
        told = {"format": FORMAT, "manifest_sha256": self.manifest_sha256, "files": files}
        return json.dumps(told, indent=1).encode() + b"\n"


class _Whole:
    """A stream of a known length: one truncated in transit does not count as damaged there."""

    def __init__(self, source: IO[bytes], size_bytes: int, what: str) -> None:
        self._source = source
        self._left_bytes = size_bytes
        self._what = what

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """Return the next bytes, b"" at the end; raises StepFailed if that comes too early."""
        content = self._source.read(size)
        self._left_bytes -= len(content)
        if not content and self._left_bytes > 0:
            left = self._left_bytes
            missing = "1 byte is missing" if left == 1 else f"{left:,} bytes are missing"
            raise StepFailed(f"Reading {self._what} stopped early: {missing}.", again=True)
        return content


class EncryptedStorage:
    """A vault's storage that encrypts archives and logs for `recipients` on their way there.

    Without recipients nothing is encrypted. Reading what is encrypted takes an identity: the file
    with the secret key.
    """

    def __init__(self, inner: Storage, recipients: tuple[str, ...], identity: str = "") -> None:
        self.name = inner.name
        self.root = inner.root
        self.resumes = inner.resumes and not recipients
        self.identity = identity
        self._inner = inner
        self._recipients = recipients
        self._arrived: dict[str, EncryptedFile] = {}
        """What was received under a partial path and has no final name yet."""
        self._encrypted_there: set[str] = set()
        """Paths, as others name them, of what was seen encrypted."""
        self._recording = threading.Lock()
        self._keeps_all = getattr(inner, "keeps_all", False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    # Reading

    def stat(self, paths: Iterable[str]) -> dict[str, FileFact]:
        """Return the facts of those paths that exist; a missing path has no entry."""
        asked = list(paths)
        encrypted = {_encrypted_path(path): path for path in asked if _is_secret(path)}
        told = self._inner.stat([*asked, *encrypted])
        found = {path: fact for path, fact in told.items() if path not in encrypted}
        there = {path: told[each] for each, path in encrypted.items() if each in told}
        records = self._read_records(path for path in there if not path.endswith(PARTIAL))
        return found | {path: self._as_plain(path, fact, records) for path, fact in there.items()}

    def listdir(self, folder: str) -> dict[str, FileFact]:
        """Return the entries of a folder by name, {} if it does not exist; no records."""
        told = self._inner.listdir(folder)
        plain = {name: _plain_name(name) for name in told}
        found = {
            name: fact
            for name, fact in told.items()
            if not plain[name] and not name.endswith(f".{RECORD_ENDING}")
        }
        there = {f"{folder}/{plain[name]}": told[name] for name in told if plain[name]}
        records = self._read_records(path for path in there if not path.endswith(PARTIAL))
        facts = {path: self._as_plain(path, fact, records) for path, fact in there.items()}
        return found | {posixpath.basename(path): fact for path, fact in facts.items()}

    @contextlib.contextmanager
    def read(self, path: str, start: int = 0) -> Iterator[IO[bytes]]:
        """Return a stream of a file's decrypted bytes, without the first `start`."""
        there = _encrypted_path(path)
        fact = self._inner.stat([there]).get(there) if _is_secret(path) else None
        if fact is None:
            with self._inner.read(path, start) as stream:
                yield stream
            return
        what = f"{posixpath.basename(path)} in {self.name}"
        if not self.identity:
            raise StepFailed(f"{what} is encrypted. {ASK}")
        try:
            with self._inner.read(there) as encrypted:
                whole = cast("IO[bytes]", _Whole(encrypted, fact.size_bytes, what))
                with decrypting(self.identity, whole, what) as stream:
                    while start:
                        start -= len(stream.read(min(start, CHUNK_BYTES))) or start
                    yield stream
        except CiphertextDamaged as error:
            raise StepFailed(str(error), damage=self._damage(path)) from error

    def _damage(self, path: str) -> str:
        """Return what is wrong with what lies there, '' if it was only read badly."""
        try:
            self.hash_of(path)
        except CiphertextMismatch as broken:
            return str(broken)
        except StepFailed:
            pass
        return ""

    def read_many(self, folder: str, names: Iterable[str]) -> dict[str, bytes]:
        """Return small files of a folder; what is not there, or is shut, has no entry."""
        asked = list(names)
        found = self._inner.read_many(folder, asked)
        for name in asked if self.identity else ():
            if _is_secret(name) and self.is_encrypted(f"{folder}/{name}"):
                with self.read(f"{folder}/{name}") as stream:
                    found[name] = stream.read()
        return found

    def is_encrypted(self, path: str) -> bool:
        """Tell whether a file is encrypted there."""
        encrypted = _encrypted_path(path)
        return _is_secret(path) and encrypted in self._inner.stat([encrypted])

    def saw_encrypted(self, path: str) -> bool:
        """Tell whether the last look at a file or its folder found it encrypted."""
        return path in self._encrypted_there

    def hash_of(self, path: str) -> str:
        """Return the SHA-256 that a file had before it was encrypted; no key is needed.

        Raises CiphertextMismatch if the encrypted file there does not match its record.
        """
        if not self.is_encrypted(path):
            return hash_there(self._inner, path)
        folder, name = posixpath.split(path)
        told = self._read_record(folder, _runtag_of(name)).files.get(name)
        if told is None:
            raise CiphertextMismatch(
                f"{self.name} has no file with the hash of {name}{AGE_ENDING}."
            )
        found = hash_there(self._inner, _encrypted_path(path))
        if found != told.encrypted_sha256:
            raise CiphertextMismatch(
                f"The SHA-256 of {name}{AGE_ENDING} is {found}, but was "
                f"{told.encrypted_sha256} when it was encrypted."
            )
        return told.sha256

    def is_signed(self, manifest: str) -> bool:
        """Tell whether a manifest is the one in the record of its set; raises StepFailed."""
        folder, name = posixpath.split(manifest)
        told = self._inner.read_many(folder, [name, f"{_runtag_of(name)}.{RECORD_ENDING}"])
        record = EncryptionRecord.read(told.get(f"{_runtag_of(name)}.{RECORD_ENDING}", b""))
        return record.manifest_sha256 == hashlib.sha256(told.get(name, b"")).hexdigest()

    # Writing

    def create_exclusive(self, path: str, line: str) -> str:
        """Create a file of one line unless it exists, and return the line it then holds."""
        return self._inner.create_exclusive(path, line)

    def write(
        self,
        path: str,
        source: IO[bytes],
        modified_s: float,
        start: int = 0,
        size_bytes: int | None = None,
    ) -> Received:
        """Write a stream there, encrypted if need be; return the size and hash of the plain bytes.

        Raises StepFailed if other bytes arrived there than age wrote.
        """
        final = path.removesuffix(PARTIAL)
        if self._keeps_all and not self._recipients and self.is_encrypted(final):
            raise StepFailed(
                f"{posixpath.basename(final)} exists encrypted in {self.name}, where nothing can "
                "be removed or replaced (write_once = true), so an unencrypted copy cannot be "
                "added. Make a backup with another --runtag."
            )
        if not self._recipients or not (_is_secret(path) or _is_manifest(path)):
            return self._inner.write(path, source, modified_s, start, size_bytes)
        plain = HashedStream(source)
        if _is_manifest(path):
            received = self._inner.write(path, plain.stream, modified_s, start, size_bytes)
            facts = (plain.size_bytes, plain.sha256)
            self._arrived[path] = EncryptedFile(*facts, *facts)
            return received
        with encrypting(self._recipients, plain.stream) as stream:
            head = stream.read(CHUNK_BYTES)
            encrypted = HashedStream(stream, head)
            size = None if size_bytes is None else encrypted_size(head, size_bytes)
            received = self._inner.write(
                _encrypted_path(path), encrypted.stream, modified_s, size_bytes=size
            )
        if size not in {None, encrypted.size_bytes}:
            raise StepFailed(
                f"age cannot encrypt: it wrote {encrypted.size_bytes:,} of {size:,} bytes."
            )
        if received != encrypted.received:
            raise StepFailed(
                f"The copy {posixpath.basename(path)} in {self.name} differs from what was "
                f"sent: {received.size_bytes:,} of {encrypted.size_bytes:,} bytes, SHA-256 "
                f"{received.sha256} instead of {encrypted.sha256}.",
                again=True,
            )
        kept = EncryptedFile(plain.size_bytes, plain.sha256, received.size_bytes, received.sha256)
        self._arrived[path] = kept
        return Received(kept.size_bytes, kept.sha256)

    def mkdir(self, path: str) -> None:
        """Make a folder unless it exists."""
        self._inner.mkdir(path)

    def free_bytes(self, folder: str) -> int | None:
        """Return the free bytes of the file system of `folder`, or None if unknown."""
        return self._inner.free_bytes(folder)

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old` atomically; before a file gets its final name it is recorded."""
        arrived = self._arrived.pop(old, None)
        if arrived:
            self._write_record(new, arrived)
        if arrived and _is_secret(old):
            self._inner.rename(_encrypted_path(old), _encrypted_path(new))
            self._encrypted_there.add(new)
            if not self._keeps_all:  # there the encrypted one counts beside it
                self._inner.remove([new, old])  # from before it was encrypted
        elif not old.endswith(PARTIAL) and self.is_encrypted(old):  # it becomes a mark
            self._inner.rename(_encrypted_path(old), new)
        else:
            self._inner.rename(old, new)
            if new in self._encrypted_there:  # from when it was encrypted
                self._inner.remove([_encrypted_path(new)])
                self._encrypted_there.discard(new)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; missing ones are ignored."""
        gone = []
        for path in paths:
            folder, name = posixpath.split(path)
            if _is_secret(path):
                gone.append(_encrypted_path(path))
            elif name.endswith(f".{REMOVING_ENDING}"):
                record = f"{folder}/{name.removesuffix(REMOVING_ENDING)}{RECORD_ENDING}"
                gone += [record, f"{record}{PARTIAL}"]
            gone.append(path)
        self._inner.remove(gone)

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()

    # The record beside a set

    def _read_records(self, paths: Iterable[str]) -> dict[str, EncryptionRecord]:
        """Return the records of the sets that some files belong to, by `folder/runtag`."""
        wanted: dict[str, set[str]] = {}
        for path in paths:
            self._encrypted_there.add(path)
            folder, name = posixpath.split(path)
            wanted.setdefault(folder, set()).add(_runtag_of(name))
        found: dict[str, EncryptionRecord] = {}
        for folder, runtags in wanted.items():
            names = {f"{runtag}.{RECORD_ENDING}": runtag for runtag in sorted(runtags)}
            told = self._inner.read_many(folder, names)
            for name, content in told.items():
                found[f"{folder}/{names[name]}"] = EncryptionRecord.read(content)
        return found

    def _read_record(self, folder: str, runtag: str) -> EncryptionRecord:
        name = f"{runtag}.{RECORD_ENDING}"
        return EncryptionRecord.read(self._inner.read_many(folder, [name]).get(name, b""))

    def _as_plain(
        self, path: str, fact: FileFact, records: Mapping[str, EncryptionRecord]
    ) -> FileFact:
        """Return the fact of an encrypted file with the size that it had before.

        If its size is not the one in the record it keeps that, and so differs from the manifest.
        """
        folder, name = posixpath.split(path)
        record = records.get(f"{folder}/{_runtag_of(name)}", EncryptionRecord())
        told = record.files.get(name)
        known = told and told.encrypted_bytes == fact.size_bytes
        return replace(fact, size_bytes=told.size_bytes) if told and known else fact

    def _write_record(self, path: str, arrived: EncryptedFile) -> None:
        """Add a file to the record of its set, before it gets its final name."""
        folder, name = posixpath.split(path)
        runtag = _runtag_of(name)
        with self._recording:
            record = self._read_record(folder, runtag)
            if _is_manifest(path):
                record = replace(record, manifest_sha256=arrived.sha256)
            else:
                record = replace(record, files={**record.files, name: arrived})
            content, file = record.to_json(), f"{folder}/{runtag}.{RECORD_ENDING}"
            source, now_s = io.BytesIO(content), time.time()
            self._inner.write(f"{file}{PARTIAL}", source, now_s, size_bytes=len(content))
            self._inner.rename(f"{file}{PARTIAL}", file)


def _kind_of(path: str) -> str:
    """Return the kind of a path's file in a set, finished or partial; '' for any other."""
    found = split_set_name(posixpath.basename(path).removesuffix(PARTIAL))
    return found[1] if found else ""


def _is_secret(path: str) -> bool:
    return _kind_of(path) in SECRET


def _is_manifest(path: str) -> bool:
    return _kind_of(path) == "manifest"


def _runtag_of(name: str) -> str:
    found = split_set_name(name.removesuffix(PARTIAL))
    return found[0] if found else ""


def _encrypted_path(path: str) -> str:
    """Return the path of a file when it is encrypted: `x.tar.age`, or `x.tar.age.partial`."""
    if path.endswith(PARTIAL):
        return f"{path.removesuffix(PARTIAL)}{AGE_ENDING}{PARTIAL}"
    return f"{path}{AGE_ENDING}"


def _plain_name(name: str) -> str:
    """Return how others name an encrypted file; '' for the name of any other."""
    if AGE_ENDING not in name:  # not more: there may be ten thousand files
        return ""
    partial = PARTIAL if name.endswith(PARTIAL) else ""
    encrypted = name.removesuffix(PARTIAL)
    plain = f"{encrypted.removesuffix(AGE_ENDING)}{partial}"
    return plain if encrypted.endswith(AGE_ENDING) and _is_secret(plain) else ""
