"""Copies a finished file from one storage to another, and verifies the copy there."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from typing import IO, cast

from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..engine.space import reserve
from ..engine.steps import File, Record, StepContext
from ..hosts.base import ANY_EXIT, Command, FileFact, Host, Received, Storage
from ..hosts.hashing import HashedStream, hash_command
from ..hosts.local import CHUNK_BYTES
from .manifest import MOST_BYTES, Manifest, read_manifest
from .names import KINDS, PARTS, split_set_name

HASH_DIGITS = 64
MOST_HOST_LETTERS = 100
OTHER_COPY = "Use another copy or another backup: inv list"


def can_hash(storage: Storage) -> bool:
    """Return whether a storage computes the SHA-256 of its files itself."""
    return hasattr(storage, "run")


def hash_there(storage: Storage, path: str) -> str:
    """Return the SHA-256 of a file: computed where it is, or by reading it from there.

    If it is encrypted in a vault, it is the hash from before that. Raises StepFailed.
    """
    if hasattr(storage, "hash_of"):
        return str(storage.hash_of(path))
    if not can_hash(storage):
        with storage.read(path) as stream:
            return HashedStream(stream).drain().sha256
    told = cast("Host", storage).run(hash_command(path)).out.split(" ")[0].strip()
    if len(told) != HASH_DIGITS:
        raise StepFailed(f"Cannot get the SHA-256 of {path} in {storage.name}: {told!r}.")
    return told


@dataclass(frozen=True, slots=True)
class SeenFile:
    """An existing file: where it is, and what is recorded of it."""

    storage: Storage
    file: File
    fact: FileFact
    record: Record | None


def is_copy(copy: SeenFile, original: SeenFile) -> bool:
    """Return whether a file is the copy of another: it was sent as such, or has the same hash.

    Raises StepFailed if either cannot be read: then that is unknown.
    """
    if copy.fact.size_bytes != original.fact.size_bytes:
        return False
    made = original.record.sha256 if original.record else ""
    if made and copy.record and copy.record.sha256 == made:
        return True
    made = made or hash_there(original.storage, original.file.absolute)
    return hash_there(copy.storage, copy.file.absolute) == made


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"


@dataclass(frozen=True, slots=True)
class Send:
    """Copy a file to another storage, resuming an interrupted attempt.

    It resumes only if the file's hash is known in advance: if the partial file belongs to another
    version, that shows at the end, and the whole file is sent again.
    `after` lists copies that must have arrived before, each with its original: a copy whose
    original could not be made is not waited for.
    """

    source: File
    target: File
    after: tuple[tuple[File, File], ...] = ()

    def commands(self) -> tuple[str, ...]:
        """Return the source and target of the copy."""
        target = self.target.absolute
        of_rclone = ":" in target.partition("/")[0]  # whose address includes the place
        where = "" if of_rclone else f"{self.target.role}:"
        return (f"copy '{self.source.absolute}' to {where}'{target}'",)

    def do(self, context: StepContext) -> None:
        """Write the copy under its partial name; raises StepFailed if it differs."""
        failures = context.failures()
        for original, copy in self.after:
            if str(copy) in failures and str(original) not in failures:
                raise StepFailed(f"not copied, because {copy.path} was not copied to the vault.")
        source, target = context.storage(self.source), context.storage(self.target)
        fact = source.stat([self.source.absolute]).get(self.source.absolute)
        if fact is None:
            raise StepFailed(f"{self.source.absolute} is missing.")
        known = self._known(context)
        overwrites = getattr(target, "overwrites", False)
        start = 0 if overwrites else self._arrived(target, fact)
        start = start if known and target.resumes else 0
        needed = fact.size_bytes - start
        space = reserve(context, target, os.path.dirname(self.target.absolute) or ".", needed)
        if space and space.left_bytes < needed:
            told = f"{_megabytes(space.free_bytes)} are free"
            if space.left_bytes < space.free_bytes:
                left = _megabytes(space.left_bytes)
                told += f", and {left} after the other files that are being written"
            raise StepFailed(
                f"Not enough space on {target.name}: {told}, and the file needs "
                f"{_megabytes(fact.size_bytes)}. Free some space there, then run the same "
                "command again."
            )
        context.set_total(fact.size_bytes)
        context.advance(start)
        with source.read(self.source.absolute, start) as stream:
            shown = _Shown(stream, context)
            hashed = HashedStream(shown.stream)
            received = target.write(
                self.target.partial,
                shown.stream if known else hashed.stream,
                fact.modified_s,
                start,
                fact.size_bytes - start,
            )
        sent = Received(start + shown.size_bytes, known or hashed.sha256)
        if received != sent:
            raise self._why_not_proven(context, received, sent, start)
        context.record(self.target, size_bytes=received.size_bytes, sha256=received.sha256)

    def _known(self, context: StepContext) -> str:
        """Return the recorded SHA-256 of the file, "" if there is none."""
        record = context.records().get(str(self.source))
        return record.sha256 if record else ""

    def _why_not_proven(
        self, context: StepContext, received: Received, sent: Received, start: int
    ) -> StepFailed:
        """Return the failure of a copy that differs from its original; the copy is removed."""
        source, target = context.storage(self.source), context.storage(self.target)
        target.remove([self.target.partial])
        if start:
            return StepFailed(
                f"The partial copy of {self.target.path} on {target.name} does not match the "
                "source, or the source is damaged: it is sent again from the start.",
                again=True,
            )
        known = self._known(context)
        found = hash_there(source, self.source.absolute) if known else ""
        if found != known:
            runtag = (split_set_name(os.path.basename(self.source.path)) or ("RUNTAG",))[0]
            advice = f"Check the disk. To find another good copy: inv show {shlex.quote(runtag)}"
            if self.source.role == "from":
                advice = OTHER_COPY
            damage = (
                f"{self.source.absolute} changed since it was written: its SHA-256 is {found}, "
                f"but was {known}."
            )
            return StepFailed(f"{damage} {advice}", damage=damage)
        advice = ""
        if self.source.role == "from":
            advice = (
                f" {source.name}, or the connection to it, returned different bytes than before. "
                f"{OTHER_COPY}"
            )
        return StepFailed(
            f"The copy {self.target.partial} on {target.name} differs from what was sent "
            f"({received.size_bytes:,} of {sent.size_bytes:,} bytes, SHA-256 {received.sha256} "
            f"instead of {sent.sha256}).{advice}",
            again=True,
        )

    def _arrived(self, target: Storage, fact: FileFact) -> int:
        """Return how many bytes of an earlier attempt can be resumed.

        Anything but a regular file is removed: writing into a pipe would wait for its other end.
        """
        partial = target.stat([self.target.partial]).get(self.target.partial)
        if partial and partial.other:
            target.remove([self.target.partial])
            return 0
        return partial.size_bytes if partial and partial.size_bytes <= fact.size_bytes else 0


@dataclass(frozen=True, slots=True)
class Claim:
    """Claim a set in a vault for this run, before anything is copied there.

    Two machines may back up in the same minute into one folder: one of them creates the mark,
    which stays until its manifest exists. So no set is replaced, or mixed with another.
    """

    file: File
    runtag: str
    host: str
    claim: str
    earlier_utc: frozenset[str]
    replaces: bool

    def commands(self) -> tuple[str, ...]:
        """Return the set that is claimed."""
        return (f"claim {self.file}",)

    def do(self, context: StepContext) -> None:
        """Create the mark, or find it; raises StepFailed if the name is another machine's.

        While it exists no other run creates one, so a run asks once for several of its jobs.
        """
        context.once(f"claim {self.file}", lambda: self._make(context.storage(self.file)))

    def _make(self, storage: Storage) -> None:
        line = json.dumps({"host": self.host, "claim": self.claim})
        found = storage.create_exclusive(self.file.absolute, line)
        if found != line:
            raise StepFailed(
                f"{_host_in(found)} is copying a backup {self.runtag} to {storage.name}, so this "
                f"backup is not copied there. {ADVICE} If that run crashed and will not be "
                f"resumed, remove {self.file.absolute} there.",
                again=not found,
            )
        manifest = manifest_there(storage, self.file.root, self.runtag)
        began = manifest.started_utc if manifest and manifest.host == self.host else ""
        if manifest and not self.replaces and began not in self.earlier_utc:
            storage.remove([self.file.absolute])
            raise StepFailed(
                f"{storage.name} has a backup {self.runtag} of {manifest.host} already, so this "
                f"backup is not copied there. {ADVICE}"
            )


ADVICE = 'Give each machine a folder of its own in a vault (layout = "by-host" in hosts.toml).'


def manifest_there(storage: Storage, folder: str, runtag: str) -> Manifest | None:
    """Return the manifest of a set in a storage, None if it is missing or damaged.

    Raises StepFailed if it cannot be read. A file too large for a manifest is not opened:
    over SFTP it would take minutes.
    """
    name = f"{runtag}.{KINDS['manifest']}"
    fact = storage.stat([f"{folder}/{name}"]).get(f"{folder}/{name}")
    if fact and fact.size_bytes <= MOST_BYTES:
        with contextlib.suppress(KeyError, ValueError):
            return read_manifest(storage.read_many(folder, [name])[name], runtag)
    return None


def _host_in(line: str) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        return str(json.loads(line)["host"])[:MOST_HOST_LETTERS]
    return "Another machine"


@dataclass(frozen=True, slots=True)
class CheckHash:
    """Compare a file that is used in place with its record.

    A file without a record is unverified: its reader must read it whole.
    """

    file: File
    as_root: tuple[str, ...]

    @property
    def _command(self) -> Command:
        return hash_command(self.file.absolute, self.as_root)

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (self._command.shown,)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed if the file has changed since it was written."""
        context.record(self.file, seen=_seen(context, self.file, self.as_root))
        record = context.records().get(str(self.file))
        if record is None or not record.sha256:
            return
        found = context.host(self.file.role).run(self._command).out.split(" ")[0]
        if found != record.sha256:
            damage = (
                f"{self.file.absolute} is damaged: its SHA-256 is {found}, but the manifest has "
                f"{record.sha256}."
            )
            told = f"{damage} Nothing was changed. Use another copy (--from)."
            raise StepFailed(told, damage=damage)


@dataclass(frozen=True, slots=True)
class CheckSame:
    """Check that a file that was read in place is still the one that was compared before.

    Another program, such as a folder synchroniser, may have replaced it. Compares dates and inode;
    if these differ or are unknown, the hash.
    """

    file: File
    as_root: tuple[str, ...]

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (_seen_command(self.file, self.as_root).shown,)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed if the file was replaced or removed: what was read is unverified."""
        before = context.recorded.get(str(self.file), {}).get("seen")
        now = _seen(context, self.file, self.as_root)
        if now and now == before:
            return
        record = context.records().get(str(self.file))
        if now and record and record.sha256:
            command = hash_command(self.file.absolute, self.as_root)
            if context.host(self.file.role).run(command).out.split(" ")[0] == record.sha256:
                return
        raise StepFailed(
            f"{self.file.absolute} was {'changed' if now else 'removed'} while it was being "
            "read, so the unpacked data are not used. Nothing was changed. Find out what writes "
            "there, then run this again, or use another copy (--from)."
        )


def _seen_command(file: File, as_root: tuple[str, ...]) -> Command:
    words = ("stat", "-L", "-c", "%d %i %s %.9Y %.9Z", "--", file.absolute)
    return Command((*as_root, *words), ANY_EXIT, 60)


def _seen(context: StepContext, file: File, as_root: tuple[str, ...]) -> str:
    """Return a value that changes with each change of a file, '' if it is unknown."""
    return context.host(file.role).run(_seen_command(file, as_root)).out.strip()


class _Shown:
    """A stream that is counted, and whose progress is shown."""

    def __init__(self, source: IO[bytes], context: StepContext) -> None:
        self._source = source
        self._scene = context
        self.size_bytes = 0

    @property
    def stream(self) -> IO[bytes]:
        """The stream itself, for its reader."""
        return cast("IO[bytes]", self)

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """Return the next bytes, b"" at the end."""
        content = self._source.read(size)
        self.size_bytes += len(content)
        self._scene.advance(len(content))
        return content


def drop_unnamed(storage: Storage, folder: str, manifest: Manifest) -> tuple[str, ...]:
    """Remove files of the previous set of this name that the new manifest does not name.

    Returns the removed files. Raises StepFailed.
    """
    kinds = {part.kind for part in manifest.parts}
    files = [f"{manifest.runtag}.{PARTS[kind]}" for kind in PARTS if kind not in kinds]
    there = storage.stat([f"{folder}/{each}" for each in files])
    paths = [path for path, fact in there.items() if not fact.other]
    if paths:
        storage.remove(paths)
    return tuple(paths)
