"""Finished sets of another machine, fetched into a folder of this one.

Nothing is changed on the other machine, and its lock is not needed: a set with a manifest is
finished, and each file is verified by the hash in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import cast
from urllib.parse import quote

from ..backups.archive_records import records_in
from ..backups.manifest import PIN_ENDING, RECORDS_ENDING, Manifest, read_manifest
from ..backups.names import KINDS, TEXTS
from ..backups.sets import BackupSet, State, gather_sets, runtags_in
from ..backups.transfer import SeenFile, is_copy
from ..backups.verifications import CHECKS_FILE, HERE, failed_at, read_checks
from ..core.dataclass import dataclass
from ..core.errors import ExitCode, Interrupted, Refused, StepFailed, UsageError
from ..core.processes import signals_raised
from ..core.runtag import LATEST, read_runtag
from ..core.stack_folders import BACKUPS
from ..engine.executor import Run, RunResult
from ..engine.journal import Journal
from ..engine.memory_ledger import MemoryRecords
from ..engine.plan import decide, resolve
from ..engine.steps import File, Record
from ..environment.environment import contents_told, counts_at_once, stat_everywhere, write_pin
from ..environment.stack_host import find_machine, open_machine
from ..hosts.base import FileFact, Host, Storage
from ..hosts.inspect import host_name, read_text
from ..hosts.local import LocalHost, locked, state_folder, words_of
from ..hosts.pasted import host_flag
from ..hosts.trust import believed
from ..reporting.report import CompositeReporter, Report, size_text
from ..settings.model import Settings, VaultConfig
from ..vaults.access import vault_storage
from ..vaults.apart import OwnFolder
from ..workflows.pull import FROM, PullFacts, pull_book, pull_targets
from .catalog.copies import none_finished, not_found
from .shared.latest import latest_in, passed_told

FINISHED = frozenset({State.COMPLETE, State.WARNINGS, State.INCOMPLETE})


@dataclass(frozen=True, slots=True)
class PullRequest:
    """From which host, which set (all that are missing, if none is named), into which vault."""

    host: str
    runtag: str = ""
    to: str = ""
    dry_run: bool = False


def pull_sets(settings: Settings, request: PullRequest, report: Report) -> int:
    """Fetch what is missing, or the named set, and return the exit code.

    1 if one was not fetched, 3 if one there is damaged, or sets newer than the latest are not
    good. Raises IotstackError if nothing was begun.
    """
    name = request.host
    if not name:
        raise UsageError("Give the machine: --host NAME, from [[hosts]] in hosts.toml.")
    machine = find_machine(settings, name)
    vault = choose_vault(settings, request.to)
    try:
        with signals_raised(), contextlib.ExitStack() as opened:
            opened.enter_context(_only_one(vault, name))
            source = opened.enter_context(open_machine(machine))
            whose = host_name(source) if vault.by_host else ""
            theirs = f"{source.root}/{BACKUPS}"
            own = OwnFolder(source, theirs, far=True)
            target = vault_storage(vault, whose, made=True, own=own)
            opened.callback(target.close)
            shelf = _Shelf.of(source, theirs)
            chosen = _Pull(name, shelf, target, vault.name, report)
            return chosen.show(request.runtag) if request.dry_run else chosen.run(request.runtag)
    except Interrupted as error:
        report.fail(
            f"Fetching from {name}: {error}. Fetched files are kept; run the same command again "
            "to resume."
        )
        return error.exit_code


def choose_vault(settings: Settings, to: str) -> VaultConfig:
    """Return the vault to fetch into: a folder of this machine; raises UsageError."""
    folders = {each.name: each for each in settings.vaults if not each.is_far}
    known = f"Known: {', '.join(folders)}." if folders else "None is configured: add [[vaults]]."
    if to and to not in folders:
        raise UsageError(f'--to {to}: use a vault with kind = "folder". {known}')
    if not to and len(folders) != 1:
        raise UsageError(f'Give a vault with kind = "folder": --to NAME. {known}')
    return folders[to] if to else next(iter(folders.values()))


@contextlib.contextmanager
def _only_one(vault: VaultConfig, host: str) -> Iterator[None]:
    """Lock fetching from a machine into a vault; raises Busy."""
    folder = state_folder()
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise Refused(f"Cannot create {folder}: {words_of(error)}.") from error
    path = f"{folder}/pull-{quote(host, safe='')}-{vault.name}.lock"
    with locked(path, f"pull from {host} to {vault.name}"):
        yield


@dataclass(frozen=True, slots=True)
class _Shelf:
    """The sets in a folder of a storage, with the bytes of their manifests."""

    storage: Storage
    folder: str
    names: Mapping[str, FileFact]
    manifests: Mapping[str, bytes]
    sets: tuple[BackupSet, ...]
    failed: Mapping[str, str]
    """As of failed_at."""

    @classmethod
    def of(cls, storage: Storage, folder: str) -> _Shelf:
        """Return the present sets; those that failed verification there are damaged."""
        names = storage.listdir(folder)
        tags = sorted(runtags_in(names))
        raw: dict[str, bytes] = {}
        listed = [_manifest_name(tag) for tag in tags]
        waiting = iter(listed)
        for count in counts_at_once(listed, names):
            raw |= contents_told(storage, folder, list(itertools.islice(waiting, count)), names)
        manifests = {}
        for tag in tags:
            with contextlib.suppress(KeyError, ValueError):
                manifests[tag] = read_manifest(raw[_manifest_name(tag)].decode(), tag)
        path, there = f"{folder}/{CHECKS_FILE}", cast("Host", storage)
        told = read_text(there, path) if believed(there, path) else ""
        failed = failed_at(read_checks(told.splitlines()), HERE)
        bytes_of = {tag: raw[_manifest_name(tag)] for tag in manifests}
        sets = gather_sets(names, manifests, failed)
        return cls(storage, folder, names, bytes_of, sets, failed)


def _manifest_name(runtag: str) -> str:
    return f"{runtag}.{KINDS['manifest']}"


class _Pull:
    """The sets of one machine, and the vault to fetch them into."""

    def __init__(
        self, host: str, shelf: _Shelf, target: Storage, vault: str, report: Report
    ) -> None:
        self.host = host
        self.shelf = shelf
        self.target = target
        self.vault = vault
        self.report = report
        self.there = target.listdir(target.root)
        self.passed_over = False
        """Backups newer than the latest are not usable."""

    def run(self, asked: str) -> int:
        """Fetch them one by one, the oldest first; a failure does not stop the others."""
        problems: list[str] = []
        failed = set[str]()
        chosen = self._chosen(asked)
        wanted = [each for each in reversed(chosen) if not self._has(each)]
        for each in wanted:
            size = size_text(each.size_bytes)
            self.report.tell(f"fetching {each.runtag} ({size}) from {self.host}")
            try:
                found = self._fetch(each)
            except StepFailed as error:
                found = [f"{each.runtag}: {error}"]
            problems += found
            failed |= {each.runtag} if found else set()
        problems += self._carry_pins(each for each in chosen if each.runtag not in failed)
        for problem in problems:
            self.report.fail(f"Not fetched from {self.host}: {problem}")
        if problems:
            return ExitCode.FAILED
        count = len(wanted)
        self.report.tell(
            f"{count} of {len(chosen)} backups of {self.host} fetched into {self.vault}; the "
            "others were already there.",
            style="green",
        )
        told = self.passed_over if asked else self._tell_damaged()
        return ExitCode.WARNINGS if told else ExitCode.GOOD

    def show(self, asked: str) -> int:
        """Print what would be fetched, and what would not be."""
        for each in reversed(self._chosen(asked)):
            if not self._has(each):
                size = size_text(each.size_bytes)
                self.report.write(f"would be fetched into {self.vault}: {each.runtag} ({size})")
        told = self.passed_over if asked else self._tell_damaged()
        return ExitCode.WARNINGS if told else ExitCode.GOOD

    def _chosen(self, asked: str) -> tuple[BackupSet, ...]:
        finished = tuple(each for each in self.shelf.sets if each.state in FINISHED)
        if not asked:
            return finished
        found = {each.runtag: each for each in self.shelf.sets}
        if asked == LATEST:
            return (self._latest(finished),)
        runtag = read_runtag(asked)
        if runtag not in found:
            raise not_found(runtag, found, self.host)
        if found[runtag].state not in FINISHED:
            raise Refused(
                f"The backup {runtag} on {self.host} is {found[runtag].state.value}, but only "
                "finished and verified backups are fetched. Nothing was changed."
            )
        return (found[runtag],)

    def _latest(self, finished: tuple[BackupSet, ...]) -> BackupSet:
        """Return the latest, and report newer ones that are passed over."""
        shelf, at = self.shelf, f"{self.host}:{BACKUPS}"
        latest = latest_in(finished, shelf.storage, shelf.folder, shelf.failed, at)
        if latest.backup is None:
            raise none_finished(at, latest.passed)
        self.passed_over = any(each.is_bad for each in latest.passed)
        host, takes = host_flag(self.host), frozenset({State.INCOMPLETE})
        for told in passed_told(latest.passed, named="--runtag ", host=host, takes=takes):
            self.report.warn(told)
        return latest.backup

    def _tell_damaged(self) -> bool:
        """Report which sets there are not fetched, and return whether one is damaged.

        A run may be working on an unfinished set, and an unproven one is another tool's.
        """
        left = {each.runtag: each.state for each in self.shelf.sets if each.state not in FINISHED}
        for runtag, state in left.items():
            told = f"{runtag} is {state.value} on {self.host}, so it is not fetched."
            (self.report.warn if state is State.DAMAGED else self.report.tell)(told)
        return State.DAMAGED in left.values()

    def _has(self, backup: BackupSet) -> bool:
        """Return whether the vault has this very set: its manifest arrived last."""
        name = _manifest_name(backup.runtag)
        if f"{backup.runtag}.{RECORDS_ENDING}" in self.there or any(
            self._size_there(self._name(backup, kind)) != fact.size_bytes
            for kind, fact in backup.files.items()
        ):
            return False
        told = self.target.read_many(self.target.root, [name])
        return told.get(name) == self.shelf.manifests[backup.runtag]

    def _size_there(self, name: str) -> int:
        return self.there[name].size_bytes if name in self.there else -1

    @staticmethod
    def _name(backup: BackupSet, kind: str) -> str:
        return f"{backup.runtag}.{KINDS[kind]}"

    def _fetch(self, backup: BackupSet) -> list[str]:
        """Fetch one set; return why files of it were not fetched."""
        manifest = backup.manifest
        assert manifest is not None  # noqa: S101 - it is finished
        kinds = (
            *(part.kind for part in manifest.made),
            *(kind for kind in TEXTS if kind in backup.files),
        )
        facts = PullFacts(manifest, tuple(self._name(backup, kind) for kind in kinds))
        result = self._do(facts, self._records(manifest))
        if not result.failed:
            self.target.remove([f"{self.target.root}/{backup.runtag}.{RECORDS_ENDING}"])
        return [f"{each.job.output.path}: {each.message}" for each in result.failed]

    def _carry_pins(self, chosen: Iterable[BackupSet]) -> list[str]:
        """Pin what is pinned there; return which pins could not be written."""
        problems = []
        there = self.target.listdir(self.target.root)
        for each in chosen:
            name = f"{each.runtag}.{PIN_ENDING}"
            if not each.pinned or name in there:
                continue
            try:
                note = self.shelf.storage.read_many(self.shelf.folder, [name]).get(name, b"\n")
                write_pin(self.target, self.target.root, each.runtag, note)
            except StepFailed as error:
                problems.append(f"the pin of {each.runtag}: {error}")
        return problems

    def _records(self, manifest: Manifest) -> dict[str, Record]:
        """Return the expected facts of each file by the manifest, and of the manifest itself."""
        name = f"{FROM}:{_manifest_name(manifest.runtag)}"
        content = self.shelf.manifests[manifest.runtag]
        own = Record(name, len(content), hashlib.sha256(content).hexdigest())
        return {**records_in(manifest, manifest.runtag), name: own}

    def _do(self, facts: PullFacts, records: Mapping[str, Record]) -> RunResult:
        storages = {FROM: self.shelf.storage, self.vault: self.target}
        roots = {FROM: self.shelf.folder, self.vault: self.target.root}
        targets = pull_targets(self.vault, facts)
        graph = resolve(pull_book(self.vault), targets, roots, facts)
        listed = {FROM: self.shelf.names}
        files, _ = stat_everywhere(graph.files, storages, listed)
        unlike = self._unlike(files, storages, records)
        self.report.start_bars()
        try:
            return Run(
                decide(graph, files, unlike=unlike),
                storages,
                store=MemoryRecords(records),
                journal=Journal(LocalHost("/"), "", ()),
                reporter=CompositeReporter(self.report),
                jobs_at_once=1,
                keep_going=True,
            ).do()
        finally:
            self.report.stop_bars()

    def _unlike(
        self,
        files: Mapping[File, FileFact],
        storages: Mapping[str, Storage],
        records: Mapping[str, Record],
    ) -> frozenset[File]:
        """Return the vault's files that have the name of a fetched one and differ from it.

        A file that cannot be read there now is fetched again.
        """
        found = {
            file: SeenFile(storages[file.role], file, fact, records.get(str(file)))
            for file, fact in files.items()
        }
        sources = {file.path: each for file, each in found.items() if file.role == FROM}
        unlike = set()
        for file, each in found.items():
            try:
                if file.role == self.vault and not is_copy(each, sources[file.path]):
                    unlike.add(file)
            except StepFailed:
                unlike.add(file)
        return frozenset(unlike)
