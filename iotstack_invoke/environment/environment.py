"""A stack with its backups and vaults, and what lies there.

Knows where things are and how sets are recorded, listed and removed. Not for: making a backup.
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
"""Their names fit into one command, and few of them cost little time."""
BYTES_AT_ONCE = 8 << 20
"""So many bytes of them are asked for at once: a place gives no more than 16 MiB in one answer."""
LINE_BYTES = 1 << 16
"""A larger manifest is in no line of records: over SSH that is one word of a command, which Linux
takes up to 128 KiB of, and quotes count twice."""
GROWN_BYTES = 1 << 16
"""By so much one may be larger than it is listed: it was written anew since."""
STALE_COPY = timedelta(days=1)
"""A partial copy in a vault that is older belongs to a run that died."""
STALE_MARK = timedelta(days=7)
"""The mark of a set that is copied lies there as long: it keeps its partial copies. Earlier
versions give these the date of the original while they are still proven."""
CLOCKS_APART = timedelta(minutes=5)
"""How far another machine's clock may be ahead before its backups are from the future."""
ZONES_APART = timedelta(hours=14)
"""How far the local time of any place is from UTC."""
MORE_AT_ONCE = 8
"""How many times as many manifests each next question asks for: mostly the first is a good one."""

Judged = TypeVar("Judged")


@dataclass(slots=True)
class Environment:
    """A stack on this machine or another, its backups, and the vaults."""

    settings: Settings
    host: Host
    vaults: dict[str, Storage] = field(default_factory=dict)
    """By name; of one with a folder for each machine, that of the stack's machine."""
    own: OwnFolder | None = None
    """The folder of the backups, as vaults know it."""

    @classmethod
    def of(cls, settings: Settings, host: Host | None = None) -> Environment:
        """Return what the settings describe; no vault is opened yet."""
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
        """Tell whether there is such a vault.

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
        """What the roles of the rules are bound to."""
        return {"pi": self.host, **self.vaults}

    @property
    def roots(self) -> dict[str, str]:
        """The folder of each role."""
        return {role: storage.root for role, storage in self.storages.items()}

    @property
    def checks(self) -> VerificationLog:
        """The record of verifications: beside the backups, or where this machine keeps its state.

        A laptop that verifies its vaults has no stack, and so no folder of backups.
        """
        if not self.far and os.path.isdir(self.backups):
            return VerificationLog(f"{self.backups}/{CHECKS_FILE}")
        return VerificationLog(f"{state_folder()}/{CHECKS_FILE.removeprefix('.')}")

    @property
    def owner(self) -> OwnerFile:
        """The record of what the owner said of old backups: where that of verifications is."""
        if self.far or os.path.isdir(self.backups):
            return OwnerFile(self.host, f"{self.backups}/{OWNER_FILE}")
        folder = state_folder()
        return OwnerFile(LocalHost(folder), f"{folder}/{OWNER_FILE.removeprefix('.')}")

    def gone(self, said: OwnerNotes) -> tuple[Gone, ...]:
        """Return what the owner says is gone of this machine's stack: here, and in hosts.toml."""
        host = host_name(self.host)
        skipped = (Gone(name, host, service=True) for name in self.settings.skipped)
        return (*skipped, *said.gone)

    def pinned(self) -> tuple[frozenset[str], Mapping[str, StepFailed]]:
        """Return the runtags that are pinned here or in a vault, and why a place cannot tell."""
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

        `checks` where they are known already: what failed is damaged, for all who ask here.
        `outline` as in read_manifest.
        """
        checks = self.checks_here() if checks is None else checks
        names = self.host.listdir(self.backups)
        listed = {name: names[name] for name in map(_manifest_name, runtags_in(names))}
        found = manifests_in(self.host, self.backups, listed, math.inf, outline=outline)
        manifests = {runtag: each for runtag, each in found.items() if each}
        return gather_sets(names, manifests, failed_at(checks, HERE))

    def checks_here(self) -> Checks:
        """Return the newest checks of the sets beside the stack."""
        if not self.far:
            return self.checks.newest()
        path = f"{self.backups}/{CHECKS_FILE}"
        return read_checks(self.host.lines(path) if believed(self.host, path) else ())

    def manifest(self, runtag: str) -> Manifest | None:
        """Return the manifest of a set beside the stack, or None."""
        return manifest_there(self.host, self.backups, runtag)

    @contextlib.contextmanager
    def held(self, purpose: str) -> Iterator[None]:
        """Hold the lock of the stack, where there is a folder of backups to lock.

        Raises Busy, with who holds it.
        """
        if not os.path.isdir(self.backups):  # a laptop that only looks after the vaults
            yield
            return
        with locked(f"{self.backups}/{LOCK}", purpose):
            yield

    def close(self) -> None:
        """Let go of the vaults."""
        for storage in self.vaults.values():
            storage.close()


def _manifest_name(runtag: str) -> str:
    return f"{runtag}.{KINDS['manifest']}"


@contextlib.contextmanager
def open_environment(settings: Settings, name: str = "") -> Iterator[Environment]:
    """Yield the site of a host of the settings, or of this machine; closed at the end.

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
        """What marks the set in vaults as the one of this run and of those that go on with it."""
        self._is_ours = believed(self.host, self.path)
        lines = self.host.lines(self.path) if self._is_ours else []
        self.exists = bool(lines)
        manifest = environment.manifest(runtag)
        self.replaces = False
        """This run and those that go on with it come in the place of other sets of its name."""
        self.replaced: Manifest | None = None
        """What was here of these when the run began, whose manifest may be removed by now."""
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
        """They are of the run that made the set, which notes each of its copies."""
        finished = {manifest.started_utc} if manifest else set()
        self.earlier_utc = frozenset((began | finished) - {""})
        """When the earlier runs of this set began."""

    def begin(self, started_utc: str, *, replaces: bool = False) -> None:
        """Mark the set as unfinished, with the time when its making began.

        `replaces`: what is recorded of a set of its name before is of this one no more.
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
        """Tell whether a set is the one of these records, and comes in the place of others."""
        mine = manifest is not None and manifest.started_utc == self.started_utc
        return mine and self.replaces

    def tells(self, output: str) -> bool:
        """Tell whether an output is known to be there: seen, or made and not taken back."""
        record = self._records.get(output)
        return record is not None and not record.incomplete

    def take_back(self, output: str) -> None:
        """Note that an output is not there, whatever was recorded of it."""
        self.add(Record(output, facts={LACKING: {output: "it is missing"}}))

    def add(self, record: Record) -> None:
        """Keep one more, through a power cut.

        With the first part that comes in the place of an earlier one goes the manifest of that,
        and its texts: a set is never a mixture of two, but unfinished.
        """
        self.host.append(self.path, record_line(record))
        old = self._manifest
        if self.replaces and old and old.started_utc != self.started_utc and _is_part(record):
            names = (f"{old.runtag}.{KINDS[kind]}" for kind in ("manifest", *TEXTS))
            self.host.remove(f"{posixpath.dirname(self.path)}/{name}" for name in names)
            self._manifest = None
        self._records = {**self._records, record.output: record}

    def end(self) -> None:
        """Remove the mark: the set is finished."""
        self.host.remove([self.path])


def _header(line: str) -> dict[str, Any]:
    """Return what a line says of the run whose records follow, {} for any other line."""
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        told = json.loads(line)
        if isinstance(told, dict) and isinstance(told.get("started_utc"), str):
            return told
    return {}


def _is_part(record: Record) -> bool:
    """Tell whether a record is of an archive beside the stack."""
    role, _, path = record.output.partition(":")
    found = split_set_name(posixpath.basename(path))
    return role == "pi" and found is not None and found[1] in PARTS


def sets_in(
    storage: Storage,
    folder: str,
    failed: Mapping[str, str] | None = None,
    names: Mapping[str, FileFact] | None = None,
) -> tuple[BackupSet, ...]:
    """Return the sets of any place, newest first, each judged by its own manifest there.

    `failed` as in gather_sets; `names`, where the folder was listed already. Raises StepFailed
    where one of the manifests cannot be fetched, or does not come as it is listed: a set of which
    nothing is known now must not pass for a damaged one.
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
    """A manifest does not come as it is listed: it was replaced since, or was read badly."""


def _listed_twice(
    storage: Storage,
    folder: str,
    judge: Callable[[Mapping[str, FileFact]], Judged],
    names: Mapping[str, FileFact] | None = None,
) -> Judged:
    """Return what comes of a listing; of another one where a manifest was replaced since."""
    try:
        return judge(storage.listdir(folder) if names is None else names)
    except _UnlikeListed:
        return judge(storage.listdir(folder))


def _read_as_listed(
    storage: Storage, folder: str, names: Mapping[str, FileFact], runtags: Sequence[str]
) -> dict[str, Manifest | None]:
    """Return the manifests of some runtags, None for a damaged one.

    Raises StepFailed where one cannot be read, or has another size than the listing tells.
    """
    found: dict[str, Manifest | None] = {}
    told = storage.read_many(folder, [_manifest_name(runtag) for runtag in runtags])
    for runtag in runtags:
        name = _manifest_name(runtag)
        content, size_bytes = told.get(name), names[name].size_bytes
        if content is None or len(content) != size_bytes:
            came = "nothing" if content is None else f"{len(content):,} bytes"
            raise _UnlikeListed(
                f"{name} in {storage.name} was read incompletely: {came} of {size_bytes:,} bytes.",
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
    """Return the manifests that `names` lists by runtag, None for one of no use.

    The newest files first, for no longer than `limit_s`: what has no entry then was not opened.
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
    """Yield how many small files are asked for with each question, by the sizes in a listing."""
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
    """Return small files of a folder, but for those of which each alone cannot be read.

    Nor those that have grown much since they were listed: a far end may send any number of bytes.
    Raises StepFailed where none can be read, or the place does not answer.
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
    """Return the files of an answer that are no more than a little larger than they are listed."""
    return {
        name: content
        for name, content in answer.items()
        if len(content) <= listed[name].size_bytes + GROWN_BYTES
    }


def still_failed(
    storage: Storage, folder: str, names: Mapping[str, FileFact], failed: Mapping[str, str]
) -> dict[str, str]:
    """Return those of `failed` that no other set of their name lies in the place of by now.

    As in gather_sets, for a listing of which no manifest is opened: here those of `failed` are.
    """
    listed = {_manifest_name(tag): tag for tag in runtags_in(names) & failed.keys()}
    found: Mapping[str, Manifest | None] = {}
    with contextlib.suppress(StepFailed):  # of what cannot be read, the record counts
        found = manifests_in(storage, folder, {each: names[each] for each in listed}, math.inf)
    made = {tag: each.finished_utc for tag, each in found.items() if each}
    return {tag: when for tag, when in failed.items() if made.get(tag, when) == when}


def sets_read(
    storage: Storage, folder: str, limit_s: float, failed: Mapping[str, str] | None = None
) -> tuple[BackupSet, ...]:
    """Return the sets of a place of which the manifest was opened in time, newest first."""
    names = storage.listdir(folder)
    listed = {name: names[name] for name in map(_manifest_name, runtags_in(names))}
    found = manifests_in(storage, folder, listed, limit_s)
    read = {runtag: each for runtag, each in found.items() if each}
    return tuple(each for each in gather_sets(names, read, failed) if each.runtag in found)


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest good set of a place; what is dated in the future proves nothing, and is named."""

    good: BackupSet | None = None
    ahead: tuple[str, ...] = ()
    newer: tuple[tuple[datetime, BackupSet], ...] = ()
    """All that is newer and not good, or whose manifest nobody can read, the newest first; by when
    each was made, or else written."""
    later: tuple[tuple[datetime, BackupSet], ...] = ()
    """The good ones that are dated in the future, as `ahead` names them, the newest first."""

    @property
    def made(self) -> datetime | None:
        """When the newest good set was made."""
        return self.good.made() if self.good else None


def newest_good(
    storage: Storage,
    folder: str,
    now: datetime,
    *,
    host: str = "",
    failed: Mapping[str, str] | None = None,
) -> Newest:
    """Return the newest good set in a folder, of one host if it is named.

    `failed` as in gather_sets. Raises StepFailed where a manifest that may be the newest cannot be
    read, or does not come as it is listed: an older set would pass for it. One that is read and
    damaged makes no set good. Whose a set is that has none is not known: it may be newer as well.

    No more manifests are opened than must be: see begun_by.
    """
    return _listed_twice(
        storage, folder, lambda names: _newest_in(storage, folder, names, now, host, failed)
    )


def _newest_in(
    storage: Storage,
    folder: str,
    names: Mapping[str, FileFact],
    now: datetime,
    host: str,
    failed: Mapping[str, str] | None,
) -> Newest:
    """Return the newest good set of a listing, as newest_good has it."""
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

    They come as in newest_runtags. Each question asks for more of them than the one before, or
    else for one alone: of several that cannot be read one may be too old to matter.
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

    Its file is written after that, and its runtag tells it by the clock of some zone. Either may
    be wrong, so the later one counts: a clock was, a copy has any date, a person chose the name.
    It is endless where the runtag tells no time; and for all where the date of a file is before
    that which its runtag tells: some clouds know no dates (RFC 4918, 15.7: a server need not).
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
    """Return the runtags of sets with a manifest; what may be newest by begun_by comes first.

    Of equal ones that of the newest file, and then the later runtag.
    """
    written = {tag: names[_manifest_name(tag)].modified_s for tag in begun_by_s}
    return sorted(begun_by_s, key=lambda tag: (begun_by_s[tag], written[tag], tag), reverse=True)


def _when(backup: BackupSet, files: Mapping[str, FileFact]) -> datetime:
    """Return when a set was made, or else when the last of its files was written."""
    written = max(fact.modified_s for fact in files.values())
    return backup.made() or datetime.fromtimestamp(written, UTC)


def write_pin(storage: Storage, folder: str, runtag: str, note: bytes) -> None:
    """Put a pin beside a set; raises StepFailed also where it is not seen there afterwards."""
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
    """Return what is there of all files, one look a place, and which places did not answer.

    `listed`: the roots of roles that were listed already, whose files lie nowhere deeper.
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
    """Return the files of vaults that bear the name of a copy and are not known to be one.

    What cannot be read now is sent anew; who would not replace it asks compared_copies.
    """
    unlike, unread = compared_copies(files, storages, records)
    return unlike | unread.keys()


def compared_copies(
    files: Mapping[File, FileFact], storages: Mapping[str, Storage], records: Mapping[str, Record]
) -> tuple[frozenset[File], dict[File, StepFailed]]:
    """Return the files of vaults that bear the name of a copy and are no copy of what is here.

    And those that could not be compared, each with the reason: these may be good.
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
    """Remove the partial copies of dead runs; a young one may be another Pi's that is sending.

    By the clock of the place, which is asked only where one may be old, and by the mark of its
    set, which is there while a run copies it. In a bucket also the pieces of uploads that did not
    end: no listing shows them, and they cost. `names`, where it was listed just now.
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
    """Return what time it is in a place, by the date of a file that is made there for that."""
    path = f"{storage.root}/.now-{os.urandom(6).hex()}"
    storage.create_exclusive(path, "what time is it")
    try:
        fact = storage.stat([path]).get(path)
    finally:
        storage.remove([path])
    return fact.modified_s if fact else time.time()


def remove_set(storage: Storage, folder: str, runtag: str) -> None:
    """Remove all files of a set; one that is half removed is listed by nobody.

    The first of its files, the manifest where it has one, becomes the mark of the removal and
    goes last, so that a crash in between leaves a mark. Raises StepFailed, with what is left.
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
    """Remove what is left of sets that are half removed, and return their runtags.

    One that cannot be removed keeps no other; raises StepFailed with the last of them.
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
