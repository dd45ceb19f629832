"""A stack with its backups and vaults, and the sets in them.

Knows paths, and how sets are recorded, listed and removed. Not for: making a backup.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import posixpath
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from ..backups.holdings import Gone
from ..backups.manifest import (
    MOST_BYTES,
    PIN_ENDING,
    RECORDS_ENDING,
    REMOVING_ENDING,
    Manifest,
    read_manifest,
    read_records,
    record_line,
    records_of,
)
from ..backups.names import KINDS, LOCK, PARTS, TEXTS, split_set_name
from ..backups.owner import OWNER_FILE, OwnerFile, OwnerNotes
from ..backups.sets import (
    GOOD,
    BackupSet,
    by_runtag,
    files_of,
    gather_sets,
    pins_in,
    removals_in,
    runtags_in,
)
from ..backups.transfer import SeenFile, is_copy, manifest_there
from ..backups.verifications import (
    CHECKS_FILE,
    HERE,
    Checks,
    VerificationLog,
    failed_at,
    read_checks,
)
from ..core.dataclass import dataclass
from ..core.errors import StepFailed, Unreachable, ended
from ..core.runtag import runtag_time
from ..core.stack_folders import BACKUPS
from ..engine.steps import LACKING, File, Record
from ..hosts.base import PARTIAL, FileFact, Host, Storage
from ..hosts.inspect import host_name
from ..hosts.local import LocalHost, locked, state_folder
from ..hosts.trust import believed
from ..settings.model import Settings
from ..vaults.access import at_address, vault_storage
from ..vaults.apart import OwnFolder
from .stack_host import find_machine, open_machine

MANIFESTS_AT_ONCE = 200
"""Their names fit into one command, and reading a few of them is quick."""
BYTES_AT_ONCE = 8 << 20
"""The size of files per request: a storage returns no more than 16 MiB in one answer."""
LINE_BYTES = 1 << 16
"""A larger manifest is not stored as a line of records.

Over SSH that is one word of a command, of which Linux takes up to 128 KiB, and quotes count twice.
"""
GROWN_BYTES = 1 << 16
"""How much larger than listed a manifest may be: it may have been rewritten since."""
STALE_COPY = timedelta(days=1)
"""An older partial copy in a vault belongs to a run that was killed."""
STALE_MARK = timedelta(days=7)
"""How long the mark of a set that is being copied protects its partial copies.

Earlier versions give these the date of the original while they are being verified.
"""
CLOCKS_APART = timedelta(minutes=5)
"""How far another machine's clock may be ahead before its backups count as from the future."""
ZONES_APART = timedelta(hours=14)
"""How far the local time of any zone is from UTC."""
MORE_AT_ONCE = 8
"""The factor by which each further request is larger: mostly the first manifest is a good one."""

Judged = TypeVar("Judged")


@dataclass(slots=True)
class Environment:
    """A stack on this machine or another, its backups, and the vaults."""

    settings: Settings
    host: Host
    vaults: dict[str, Storage] = field(default_factory=dict)
    """By name; if a vault has a folder for each machine, the one of the stack's machine."""
    own: OwnFolder | None = None
    """The folder of the backups, as vaults know it."""

    @classmethod
    def of(cls, settings: Settings, host: Host | None = None) -> Environment:
        """Return the environment that the settings describe; no vault is opened yet."""
        by_host = host and any(each.by_host for each in settings.vaults)
        whose = host_name(host) if host and by_host else ""
        environment = cls(settings, host or LocalHost(settings.stack.folder))
        environment.own = OwnFolder(environment.host, environment.backups, far=environment.far)
        environment.vaults = {
            each.name: vault_storage(
                each, whose, made=bool(whose), of_others=bool(host), own=environment.own
            )
            for each in settings.vaults
        }
        return environment

    @property
    def far(self) -> bool:
        """Whether the stack is on another machine."""
        return not isinstance(self.host, LocalHost)

    def knows(self, at: str) -> bool:
        """Return whether there is such a vault.

        Another host's folder in one, such as `nas/other-pi`, is among the vaults from then on.
        """
        found = at_address(self.settings.vaults, at)
        if at not in self.vaults and found:
            self.vaults[at] = vault_storage(*found, own=self.own)
        return at in self.vaults

    @property
    def backups(self) -> str:
        """The folder of the stack's own backups."""
        return f"{self.settings.stack.folder}/{BACKUPS}"

    @property
    def storages(self) -> dict[str, Storage]:
        """The storages of the roles in the rules."""
        return {"pi": self.host, **self.vaults}

    @property
    def roots(self) -> dict[str, str]:
        """The folder of each role."""
        return {role: storage.root for role, storage in self.storages.items()}

    @property
    def checks(self) -> VerificationLog:
        """The log of verifications: beside the backups, or in this machine's state folder.

        A laptop that verifies its vaults has no stack, and so no folder of backups.
        """
        if not self.far and os.path.isdir(self.backups):
            return VerificationLog(f"{self.backups}/{CHECKS_FILE}")
        return VerificationLog(f"{state_folder()}/{CHECKS_FILE.removeprefix('.')}")

    @property
    def owner(self) -> OwnerFile:
        """The record of the owner's statements on old backups, beside the log of verifications."""
        if self.far or os.path.isdir(self.backups):
            return OwnerFile(self.host, f"{self.backups}/{OWNER_FILE}")
        folder = state_folder()
        return OwnerFile(LocalHost(folder), f"{folder}/{OWNER_FILE.removeprefix('.')}")

    def gone(self, said: OwnerNotes) -> tuple[Gone, ...]:
        """Return what the owner declared gone of this machine's stack: here, and in hosts.toml."""
        host = host_name(self.host)
        skipped = (Gone(name, host, service=True) for name in self.settings.skipped)
        return (*skipped, *said.gone)

    def pinned(self) -> tuple[frozenset[str], Mapping[str, StepFailed]]:
        """Return the runtags pinned here or in a vault, and why a storage could not be read."""
        found = frozenset[str]()
        away = dict[str, StepFailed]()
        folders: dict[str, tuple[Storage, str]] = {HERE: (self.host, self.backups)}
        folders |= {name: (storage, storage.root) for name, storage in self.vaults.items()}
        for name, (storage, folder) in folders.items():
            try:
                found |= pins_in(storage.listdir(folder))
            except StepFailed as error:
                away[name] = error
        return found, away

    def sets(
        self, checks: Checks | None = None, *, outline: bool = False
    ) -> tuple[BackupSet, ...]:
        """Return the sets beside the stack, newest first.

        `checks` if they are already known: a set that failed verification counts as damaged
        everywhere. `outline` as in read_manifest.
        """
        checks = self.checks_here() if checks is None else checks
        names = self.host.listdir(self.backups)
        listed = {name: names[name] for name in map(_manifest_name, runtags_in(names))}
        found = manifests_in(self.host, self.backups, listed, math.inf, outline=outline)
        manifests = {runtag: each for runtag, each in found.items() if each}
        return gather_sets(names, manifests, failed_at(checks, HERE))

    def checks_here(self) -> Checks:
        """Return the latest verifications of the sets beside the stack."""
        if not self.far:
            return self.checks.newest()
        path = f"{self.backups}/{CHECKS_FILE}"
        return read_checks(self.host.lines(path) if believed(self.host, path) else ())

    def manifest(self, runtag: str) -> Manifest | None:
        """Return the manifest of a set beside the stack, or None."""
        return manifest_there(self.host, self.backups, runtag)

    @contextlib.contextmanager
    def held(self, purpose: str) -> Iterator[None]:
        """Hold the lock of the stack, if there is a folder of backups to lock.

        Raises Busy, with the holder.
        """
        if not os.path.isdir(self.backups):  # a laptop that only verifies the vaults
            yield
            return
        with locked(f"{self.backups}/{LOCK}", purpose):
            yield

    def close(self) -> None:
        """Close the vaults."""
        for storage in self.vaults.values():
            storage.close()


def _manifest_name(runtag: str) -> str:
    return f"{runtag}.{KINDS['manifest']}"


@contextlib.contextmanager
def open_environment(settings: Settings, name: str = "") -> Iterator[Environment]:
    """Yield the environment of a host of the settings, or of this machine; closed at the end.

    Raises UsageError, Refused or Unreachable for another machine.
    """
    with contextlib.ExitStack() as opened:
        environment = Environment.of(settings)
        if name:
            machine = find_machine(settings, name)
            host = opened.enter_context(open_machine(machine))
            environment = Environment.of(settings.of_machine(machine, host.root), host)
        opened.callback(environment.close)
        yield environment


class RecordFile:
    """The records of one set while it is unfinished, in a file beside it."""

    def __init__(self, environment: Environment, runtag: str) -> None:
        self.host = environment.host
        self.path = f"{environment.backups}/{runtag}.{RECORDS_ENDING}"
        self.started_utc = ""
        self.claim = os.urandom(16).hex()
        """The mark in vaults of the set as this run's and that of runs that resume it."""
        self._is_ours = believed(self.host, self.path)
        lines = self.host.lines(self.path) if self._is_ours else []
        self.exists = bool(lines)
        manifest = environment.manifest(runtag)
        self.replaces = False
        """This run, and runs that resume it, replace other sets of its name."""
        self.replaced: Manifest | None = None
        """The replaced set when the run began; its manifest may have been removed since."""
        began = set[str]()
        of_this: list[str] = []
        for line in lines:
            header = _header(line)
            if header:
                self.started_utc = header["started_utc"]
                self.claim = header.get("claim", self.started_utc)
                self.replaces = header.get("replaces", False)
                with contextlib.suppress(KeyError, ValueError, AttributeError):
                    self.replaced = read_manifest(header["replaced"].encode(), runtag)
                began.add(self.started_utc)
                of_this = []
            else:
                of_this.append(line)
        told = read_records(of_this)
        self._manifest = manifest
        self._records = self._of_manifest() | told
        self.of_making = f"pi:{BACKUPS}/{_manifest_name(runtag)}" in told
        """They are of the run that made the set, which records each of its copies."""
        finished = {manifest.started_utc} if manifest else set()
        self.earlier_utc = frozenset((began | finished) - {""})
        """When the earlier runs of this set began."""

    def begin(self, started_utc: str, *, replaces: bool = False) -> None:
        """Mark the set as unfinished, with the start time of its run.

        `replaces`: earlier records of a set of its name no longer apply.
        """
        if not self._is_ours:
            self.host.remove([self.path])  # its folder is ours
            self._is_ours = True
        if not self.exists or replaces:
            began = {"started_utc": started_utc, "claim": self.claim, "replaces": replaces}
            self.replaced = (self._manifest or self.replaced) if replaces else None
            told = self.replaced.to_json() if self.replaced else ""
            if 0 < len(told) <= LINE_BYTES:
                began["replaced"] = told
            self.host.append(self.path, json.dumps(began))
            self.exists = True
        if replaces:
            self.started_utc, self.replaces = started_utc, True
            self._records = self._of_manifest()

    def _of_manifest(self) -> dict[str, Record]:
        manifest = self._manifest or self.replaced
        return records_of(manifest, "pi", BACKUPS) if manifest else {}

    def known(self) -> Mapping[str, Record]:
        """Return the records by output."""
        return self._records

    def is_to_replace(self, manifest: Manifest | None) -> bool:
        """Return whether a set is the one of these records, and replaces others."""
        mine = manifest is not None and manifest.started_utc == self.started_utc
        return mine and self.replaces

    def tells(self, output: str) -> bool:
        """Return whether an output is known to exist: found, or made and not revoked."""
        record = self._records.get(output)
        return record is not None and not record.incomplete

    def take_back(self, output: str) -> None:
        """Record that an output does not exist, whatever was recorded before."""
        self.add(Record(output, facts={LACKING: {output: "it is missing"}}))

    def add(self, record: Record) -> None:
        """Add a record, synced to disk.

        Adding the first part that replaces an earlier one removes the manifest and the texts of
        the earlier set: a set is unfinished, never a mixture of two.
        """
        self.host.append(self.path, record_line(record))
        old = self._manifest
        if self.replaces and old and old.started_utc != self.started_utc and _is_part(record):
            names = (f"{old.runtag}.{KINDS[kind]}" for kind in ("manifest", *TEXTS))
            self.host.remove(f"{posixpath.dirname(self.path)}/{name}" for name in names)
            self._manifest = None
        self._records = {**self._records, record.output: record}

    def end(self) -> None:
        """Remove the records: the set is finished."""
        self.host.remove([self.path])


def _header(line: str) -> dict[str, Any]:
    """Return the header of the run whose records follow, {} for any other line."""
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        told = json.loads(line)
        if isinstance(told, dict) and isinstance(told.get("started_utc"), str):
            return told
    return {}


def _is_part(record: Record) -> bool:
    """Return whether a record is of an archive beside the stack."""
    role, _, path = record.output.partition(":")
    found = split_set_name(posixpath.basename(path))
    return role == "pi" and found is not None and found[1] in PARTS


def sets_in(
    storage: Storage,
    folder: str,
    failed: Mapping[str, str] | None = None,
    names: Mapping[str, FileFact] | None = None,
) -> tuple[BackupSet, ...]:
    """Return the sets in any storage, newest first, each judged by its own manifest there.

    `failed` as in gather_sets; `names`, if the folder was already listed. Raises StepFailed if one
    of the manifests cannot be fetched, or differs from its listing: a set of unknown state must
    not count as damaged.
    """

    def judged(names: Mapping[str, FileFact]) -> tuple[BackupSet, ...]:
        waiting = sorted(runtags_in(names))
        manifests: dict[str, Manifest] = {}
        for count in counts_at_once([*map(_manifest_name, waiting)], names):
            asked, waiting = waiting[:count], waiting[count:]
            found = _read_as_listed(storage, folder, names, asked)
            manifests |= {runtag: each for runtag, each in found.items() if each}
        return gather_sets(names, manifests, failed)

    return _listed_twice(storage, folder, judged, names)


class _UnlikeListed(StepFailed):
    """A manifest differs from its listing: it was replaced since, or was read incorrectly."""


def _listed_twice(
    storage: Storage,
    folder: str,
    judge: Callable[[Mapping[str, FileFact]], Judged],
    names: Mapping[str, FileFact] | None = None,
) -> Judged:
    """Return the judgement of a listing; of a second one if a manifest was replaced meanwhile."""
    try:
        return judge(storage.listdir(folder) if names is None else names)
    except _UnlikeListed:
        return judge(storage.listdir(folder))


def _read_as_listed(
    storage: Storage, folder: str, names: Mapping[str, FileFact], runtags: Sequence[str]
) -> dict[str, Manifest | None]:
    """Return the manifests of some runtags, None for a damaged one.

    Raises StepFailed if one cannot be read, or has another size than in the listing.
    """
    found: dict[str, Manifest | None] = {}
    told = storage.read_many(folder, [_manifest_name(runtag) for runtag in runtags])
    for runtag in runtags:
        name = _manifest_name(runtag)
        content, size_bytes = told.get(name), names[name].size_bytes
        if content is None or len(content) != size_bytes:
            came = "nothing" if content is None else f"{len(content):,} bytes"
            raise _UnlikeListed(
                f"{name} in {storage.name} differs from the listing: read {came} instead of "
                f"{size_bytes:,} bytes.",
                again=True,
            )
        found[runtag] = None
        with contextlib.suppress(ValueError):
            found[runtag] = read_manifest(content, runtag)
    return found


def manifests_in(
    storage: Storage,
    folder: str,
    names: Mapping[str, FileFact],
    limit_s: float,
    *,
    outline: bool = False,
) -> dict[str, Manifest | None]:
    """Return the manifests that `names` lists by runtag, None for an invalid one.

    The newest files first, for no longer than `limit_s`: those without an entry were not opened.
    `outline` as in read_manifest.
    """
    found: dict[str, Manifest | None] = {}
    deadline = time.monotonic() + limit_s
    dated = sorted(names, key=lambda name: names[name].modified_s)
    waiting = [each for each in dated if names[each].size_bytes <= MOST_BYTES]
    for name in names.keys() - set(waiting):
        found[name.removesuffix(f".{KINDS['manifest']}")] = None
    while waiting and time.monotonic() < deadline:
        count = next(counts_at_once(waiting[: -MANIFESTS_AT_ONCE - 1 : -1], names))
        asked, waiting = waiting[-count:], waiting[:-count]
        told = contents_told(storage, folder, asked, names)
        for name in asked:
            runtag = name.removesuffix(f".{KINDS['manifest']}")
            found[runtag] = None
            with contextlib.suppress(KeyError, ValueError):
                found[runtag] = read_manifest(told[name], runtag, outline=outline)
    return found


def counts_at_once(listed: Sequence[str], names: Mapping[str, FileFact]) -> Iterator[int]:
    """Yield the number of small files for each request, by the sizes in a listing."""
    count = size_bytes = 0
    for name in listed:
        size_bytes += names[name].size_bytes
        if count == MANIFESTS_AT_ONCE or (count and size_bytes > BYTES_AT_ONCE):
            yield count
            count, size_bytes = 0, names[name].size_bytes
        count += 1
    if count:
        yield count


def contents_told(
    storage: Storage, folder: str, names: Sequence[str], listed: Mapping[str, FileFact]
) -> dict[str, bytes]:
    """Return small files of a folder, without those that cannot be read.

    Also without those that have grown much since the listing: a remote server may send any number
    of bytes. Raises StepFailed if none can be read, or the storage does not answer.
    """
    try:
        return _not_grown(storage.read_many(folder, names), listed)
    except StepFailed as error:
        if isinstance(error, Unreachable) or error.again:
            raise
    told: dict[str, bytes] = {}
    trouble: StepFailed | None = None
    for name in names:
        try:
            answer = storage.read_many(folder, [name])
        except StepFailed as error:
            if isinstance(error, Unreachable) or error.again:
                raise
            trouble = error
        else:
            told |= _not_grown(answer, listed)
    if trouble and not told:
        raise trouble
    return told


def _not_grown(answer: dict[str, bytes], listed: Mapping[str, FileFact]) -> dict[str, bytes]:
    """Return the files of an answer that are at most slightly larger than listed."""
    return {
        name: content
        for name, content in answer.items()
        if len(content) <= listed[name].size_bytes + GROWN_BYTES
    }


def still_failed(
    storage: Storage, folder: str, names: Mapping[str, FileFact], failed: Mapping[str, str]
) -> dict[str, str]:
    """Return those of `failed` that have not been replaced by another set of their name.

    As in gather_sets, for a listing of which no manifest is opened: here those of `failed` are.
    """
    listed = {_manifest_name(tag): tag for tag in runtags_in(names) & failed.keys()}
    found: Mapping[str, Manifest | None] = {}
    with contextlib.suppress(StepFailed):  # if it cannot be read, the record counts
        found = manifests_in(storage, folder, {each: names[each] for each in listed}, math.inf)
    made = {tag: each.finished_utc for tag, each in found.items() if each}
    return {tag: when for tag, when in failed.items() if made.get(tag, when) == when}


def sets_read(
    storage: Storage, folder: str, limit_s: float, failed: Mapping[str, str] | None = None
) -> tuple[BackupSet, ...]:
    """Return the sets in a storage whose manifests were opened in time, newest first."""
    names = storage.listdir(folder)
    listed = {name: names[name] for name in map(_manifest_name, runtags_in(names))}
    found = manifests_in(storage, folder, listed, limit_s)
    read = {runtag: each for runtag, each in found.items() if each}
    return tuple(each for each in gather_sets(names, read, failed) if each.runtag in found)


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest good set in a storage; one dated in the future proves nothing, and is named."""

    good: BackupSet | None = None
    ahead: tuple[str, ...] = ()
    newer: tuple[tuple[datetime, BackupSet], ...] = ()
    """All newer sets that are not good or have no readable manifest, the newest first.

    Each with the time when it was made, or else written.
    """
    later: tuple[tuple[datetime, BackupSet], ...] = ()
    """The good ones dated in the future, as `ahead` names them, the newest first."""

    @property
    def made(self) -> datetime | None:
        """When the newest good set was made; None if there is none."""
        return self.good.made() if self.good else None


def newest_good(
    storage: Storage,
    folder: str,
    now: datetime,
    *,
    host: str = "",
    failed: Mapping[str, str] | None = None,
    names: Mapping[str, FileFact] | None = None,
) -> Newest:
    """Return the newest good set in a folder, of one host if it is named.

    `names`: the listing of the folder, if it was made just before. `failed` as in gather_sets.
    Raises StepFailed if a manifest that may be the newest cannot be read, or differs from its
    listing: an older set would be taken for the newest. A manifest that is read and damaged makes
    its set not good. A set without a manifest may be any host's: it may be newer as well.

    As few manifests as possible are opened: see begun_by.
    """

    def judged(names: Mapping[str, FileFact]) -> Newest:
        return _newest_in(storage, folder, names, now, host, failed)

    return _listed_twice(storage, folder, judged, names)


def _newest_in(
    storage: Storage,
    folder: str,
    names: Mapping[str, FileFact],
    now: datetime,
    host: str,
    failed: Mapping[str, str] | None,
) -> Newest:
    """Return the newest good set of a listing, as for newest_good."""
    begun_by_s, files = begun_by(names), by_runtag(names)
    others = [each for each in gather_sets(names, {}, failed) if each.runtag not in begun_by_s]
    good: tuple[datetime, BackupSet] | None = None
    later: list[tuple[datetime, BackupSet]] = []

    def needed_s() -> float:
        return good[0].timestamp() if good else -math.inf

    for runtag, manifest in _newest_first(storage, folder, names, begun_by_s, needed_s):
        if host and manifest and manifest.host != host:
            continue
        mine = files[runtag]
        for each in gather_sets(mine, {runtag: manifest} if manifest else {}, failed):
            made = each.made()
            if each.state not in GOOD or made is None:
                others.append(each)
            elif made > now + CLOCKS_APART:
                later.append((made, each))
            elif good is None or (made, runtag) > (good[0], good[1].runtag):
                good = made, each
    dated = ((_when(each, files[each.runtag]), each) for each in others)
    newer = [pair for pair in dated if good is None or pair[0] > good[0]]
    for found in (newer, later):
        found.sort(key=lambda pair: (pair[0], pair[1].runtag), reverse=True)
    ahead = tuple(each.runtag for _, each in later)
    return Newest(good[1] if good else None, ahead, tuple(newer), tuple(later))


def _newest_first(
    storage: Storage,
    folder: str,
    names: Mapping[str, FileFact],
    begun_by_s: Mapping[str, float],
    needed_s: Callable[[], float],
) -> Iterator[tuple[str, Manifest | None]]:
    """Yield the manifests of sets, None for a damaged one, while one left may be as new as needed.

    In the order of newest_runtags. Each request asks for more of them than the one before, or else
    for a single one: of several that cannot be read one may be too old to matter.
    """
    at_once, more = 1, MORE_AT_ONCE
    waiting = newest_runtags(names, begun_by_s)
    while waiting := [tag for tag in waiting if begun_by_s[tag] >= needed_s()]:
        fit = next(counts_at_once([*map(_manifest_name, waiting)], names))
        asked, rest = waiting[: min(at_once, fit)], waiting[min(at_once, fit) :]
        try:
            found = _read_as_listed(storage, folder, names, asked)
        except _UnlikeListed:
            raise
        except StepFailed as error:
            if len(asked) == 1 or isinstance(error, Unreachable) or error.again:
                raise
            at_once, more = 1, 1
            continue
        yield from found.items()
        waiting, at_once = rest, at_once * more


def begun_by(names: Mapping[str, FileFact]) -> dict[str, float]:
    """Return by when, in seconds since 1970, each set with a manifest was begun at the latest.

    Its file is written after that, and its runtag gives the time in some zone. Either may be
    wrong, so the later one counts: a clock may be wrong, a copy has any date, a user may choose
    the name. It is infinite if the runtag gives no time; and for all sets if a file is dated
    before its runtag: some clouds store no dates (RFC 4918, 15.7: a server need not).
    """
    written = {tag: names[_manifest_name(tag)].modified_s for tag in runtags_in(names)}
    named = {tag: runtag_time(tag) for tag in written}
    told = {tag: each.replace(tzinfo=UTC).timestamp() for tag, each in named.items() if each}
    zone_s = ZONES_APART.total_seconds()
    if any(written[tag] < then - zone_s for tag, then in told.items()):
        return dict.fromkeys(written, math.inf)
    return {
        tag: max(at, told[tag] + zone_s) if tag in told else math.inf
        for tag, at in written.items()
    }


def newest_runtags(names: Mapping[str, FileFact], begun_by_s: Mapping[str, float]) -> list[str]:
    """Return the runtags of sets with a manifest; those that may be newest by begun_by come first.

    If equal, the one with the newest file, and then the later runtag.
    """
    written = {tag: names[_manifest_name(tag)].modified_s for tag in begun_by_s}
    return sorted(begun_by_s, key=lambda tag: (begun_by_s[tag], written[tag], tag), reverse=True)


def _when(backup: BackupSet, files: Mapping[str, FileFact]) -> datetime:
    """Return when a set was made, or else when the last of its files was written."""
    written = max(fact.modified_s for fact in files.values())
    return backup.made() or datetime.fromtimestamp(written, UTC)


def write_pin(storage: Storage, folder: str, runtag: str, note: bytes) -> None:
    """Put a pin beside a set; raises StepFailed also if it cannot be read back afterwards."""
    path = f"{folder}/{runtag}.{PIN_ENDING}"
    storage.write(path + PARTIAL, io.BytesIO(note), time.time())
    storage.rename(path + PARTIAL, path)
    if path not in storage.stat([path]):
        raise StepFailed(f"{path} was written to {storage.name}, but is missing there.")


def stat_everywhere(
    files: frozenset[File],
    storages: Mapping[str, Storage],
    listed: Mapping[str, Mapping[str, FileFact]] | None = None,
) -> tuple[dict[File, FileFact], tuple[str, ...]]:
    """Return the facts of all existing files, with one query a storage, and unreachable storages.

    `listed`: the roots of roles that were already listed and hold no such files in subfolders.
    """
    found: dict[File, FileFact] = {}
    notes = []
    for role, storage in storages.items():
        mine = {file.absolute: file for file in files if file.role == role}
        known = (listed or {}).get(role)
        try:
            if known is None:
                facts = storage.stat(mine) if mine else {}
            else:
                facts = {p: known[file.path] for p, file in mine.items() if file.path in known}
        except StepFailed as error:
            notes.append(f"Cannot check {role} now: {error}")
            continue
        found |= {mine[path]: fact for path, fact in facts.items() if not fact.other}
    return found, tuple(notes)


def unlike_copies(
    files: Mapping[File, FileFact], storages: Mapping[str, Storage], records: Mapping[str, Record]
) -> frozenset[File]:
    """Return the files in vaults that have the name of a copy and are not known to be one.

    A file that cannot be read now is sent again; to avoid replacing it, use compared_copies.
    """
    unlike, unread = compared_copies(files, storages, records)
    return unlike | unread.keys()


def compared_copies(
    files: Mapping[File, FileFact], storages: Mapping[str, Storage], records: Mapping[str, Record]
) -> tuple[frozenset[File], dict[File, StepFailed]]:
    """Return the files in vaults that have the name of a copy and differ from the local file.

    Also returns those that could not be compared, each with the reason: these may be good.
    """

    def found(file: File) -> SeenFile:
        return SeenFile(storages[file.role], file, files[file], records.get(str(file)))

    pairs = (
        (copy, original)
        for copy in files
        for original in (File("pi", f"{BACKUPS}/{copy.path}", storages["pi"].root),)
        if copy.role != "pi" and original in files
    )
    unlike, unread = set[File](), dict[File, StepFailed]()
    for copy, of in pairs:
        try:
            if not is_copy(found(copy), found(of)):
                unlike.add(copy)
        except StepFailed as error:
            unread[copy] = error
    return frozenset(unlike), unread


def sweep_stale_copies(storage: Storage, names: Mapping[str, FileFact] | None = None) -> None:
    """Remove the partial copies of dead runs; a recent one may belong to another running Pi.

    The age is by the clock of the storage, which is queried only if one may be old, and by the
    mark of the set, which exists while a run copies it. In a bucket also removes unfinished
    uploads: no listing shows them, and they cost money. `names`, if it was listed just now.
    """
    names = storage.listdir(storage.root) if names is None else names
    partial = {name: fact for name, fact in names.items() if name.endswith(PARTIAL)}
    told = {name: split_set_name(name.removesuffix(PARTIAL)) for name in partial}
    old = {
        name: found[0]
        for name, found in told.items()
        if found and partial[name].is_file and _age(partial[name], time.time()) > STALE_COPY
    }
    if old:
        now_s = clock_of(storage)
        marks = {tag: names.get(f"{tag}.{RECORDS_ENDING}") for tag in old.values()}
        kept = {tag for tag, mark in marks.items() if mark and _age(mark, now_s) < STALE_MARK}
        storage.remove(
            f"{storage.root}/{name}"
            for name, runtag in old.items()
            if runtag not in kept and _age(partial[name], now_s) > STALE_COPY
        )
    end_uploads = getattr(storage, "end_uploads", None)
    if end_uploads:
        end_uploads()


def _age(fact: FileFact, now_s: float) -> timedelta:
    return timedelta(seconds=now_s - fact.modified_s)


def clock_of(storage: Storage) -> float:
    """Return the present time in a storage, by the date of a temporary file made there."""
    path = f"{storage.root}/.now-{os.urandom(6).hex()}"
    storage.create_exclusive(path, "what time is it")
    try:
        fact = storage.stat([path]).get(path)
    finally:
        storage.remove([path])
    return fact.modified_s if fact else time.time()


def remove_set(storage: Storage, folder: str, runtag: str) -> None:
    """Remove all files of a set; a partly removed one is no longer listed.

    Its first file, the manifest if it has one, becomes the mark of the removal and is removed
    last, so that a crash in between leaves a mark. Raises StepFailed, with what is left.
    """
    mark = f"{folder}/{runtag}.{REMOVING_ENDING}"
    names = (*files_of(runtag), f"{runtag}.{KINDS['log']}{PARTIAL}")
    there = storage.stat([mark, *(f"{folder}/{name}" for name in names)])
    files = [path for path, fact in there.items() if not fact.other]
    if mark not in files and files:
        storage.rename(files.pop(0), mark)
    try:
        storage.remove([path for path in files if path != mark])
        storage.remove([mark])
    except StepFailed as error:
        raise StepFailed(
            f"{runtag} is only partly removed from {storage.name}: {ended(error)} It is not "
            "listed any more; the next prune or backup removes the rest.",
            again=error.again,
        ) from error


def finish_removals(storage: Storage, folder: str) -> tuple[str, ...]:
    """Remove the rest of partly removed sets, and return their runtags.

    A failure does not stop the removal of the others; raises StepFailed with the last one.
    """
    names = storage.listdir(folder)
    begun = tuple(sorted(removals_in(names)))
    trouble = None
    for runtag in begun:
        try:
            remove_set(storage, folder, runtag)
        except StepFailed as error:
            trouble = error
    if trouble:
        raise trouble
    return begun
