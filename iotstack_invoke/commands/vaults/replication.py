"""Delivers the copies of this machine's backups that vaults lack, by a backup's own rules.

list each vault → set by set, the newest first: claim, parts, manifest, log. A failing vault does
not stop the others. Not for: the copies of the backup that is being made.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ... import __version__
from ...backups.holdings import Gone
from ...backups.manifest import PIN_ENDING, RECORDS_ENDING, Manifest, has_sum, utc_text
from ...backups.names import KINDS, PARTS, TEXTS, WILDCARDS, split_set_name
from ...backups.retention import Policy, judge_each_host
from ...backups.sets import GOOD, BackupSet, State, marked_in, newest_first, unnamed_told
from ...backups.transfer import can_hash, drop_unnamed
from ...backups.verifications import HERE, Checks, Verification, damage_found, failed_at
from ...core.dataclass import dataclass
from ...core.errors import StepFailed, ended
from ...core.stack_folders import BACKUPS
from ...engine.plan import Plan, decide, resolve
from ...engine.rules import RuleBook
from ...engine.steps import File, Record
from ...environment.environment import (
    Environment,
    RecordFile,
    clock_of,
    compared_copies,
    contents_told,
    counts_at_once,
    stat_everywhere,
    sweep_stale_copies,
    unlike_copies,
    write_pin,
)
from ...hosts.base import PARTIAL, FileFact, Storage
from ...hosts.inspect import host_name
from ...workflows.backup import BackupFacts, copies_book, copy_targets, log_targets, restore_text
from ..shared.backup_log import finish_log, open_log
from ..shared.vault_sets import sets_there, state_of_copy

if TYPE_CHECKING:
    from ...engine.executor import RunResult

DELIVERED = frozenset({*GOOD, State.INCOMPLETE})
"""The states of sets that a run has finished: such a run would have copied them."""
PROGRAM = f"iotstack-invoke {__version__}"

Do = Callable[[Plan, RecordFile], "RunResult"]
"""Runs a plan, with the records of the set that it copies."""


@dataclass(slots=True)
class Delivery:
    """What one vault lacks of this machine's sets, and the results; all by runtag."""

    name: str
    storage: Storage
    policy: Policy | None = None
    lacking: dict[str, BackupSet] = field(default_factory=dict)
    """The sets here that the vault should have and lacks, wholly or in part; newest first."""
    there: list[str] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)
    """Sets that its policy would remove at once, and why."""
    refused: dict[str, str] = field(default_factory=dict)
    """Sets that cannot be delivered, and why."""
    copied: dict[str, Manifest] = field(default_factory=dict)
    """Sets whose copies are all recorded as complete, until the vault's listing confirms it."""
    delivered: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    error: str = ""
    """Why the vault could not be read, or no longer."""
    names: Mapping[str, FileFact] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    """Sets that a run began to copy there: their mark or their manifest exists."""
    doubted: set[str] = field(default_factory=set)
    """Sets whose latest verification there found damage."""
    damaged_here: set[str] = field(default_factory=set)
    """Sets that are damaged here: by their latest verification, or by the reading just now."""
    only_texts: set[str] = field(default_factory=set)
    """Sets that lack only their texts there."""
    replacing: frozenset[str] = frozenset()
    """Sets that were made to replace others of their name."""
    unpinned: set[str] = field(default_factory=set)
    """Sets that are pinned here, and not there yet."""
    looked: bool = False
    """The contents of the vault are known."""
    not_kept: frozenset[str] = frozenset()
    """Sets that the policy of an unreachable vault would remove, as far as is known here."""

    def look(
        self,
        here: Mapping[str, BackupSet],
        checks: Checks,
        host: str,
        skipped: str = "",
        gone: Iterable[Gone] = (),
    ) -> None:
        """Find out what the vault lacks of the sets here, newest first; raises StepFailed.

        `host`: whose sets they are. `skipped`: the runtag of the set that is being made. `gone` as
        in judge.
        """
        self.names = self.storage.listdir(self.storage.root)
        failed = failed_at(checks, self.name)
        # Each is opened: two machines' manifests may have one size and one date.
        found = {e.runtag: e for e in sets_there(self.storage, self.names, {}, failed, here)}
        for runtag, backup in here.items():
            copy = found.get(runtag)
            if backup.pinned and not (copy and copy.pinned):
                self.unpinned.add(runtag)
            doubted = copy is not None and copy.state is State.DAMAGED and runtag in failed
            if runtag == skipped:
                continue
            if backup.state is State.DAMAGED:
                self.damaged_here.add(runtag)
                if copy and _is_whole_there(copy, backup, host):
                    self.there.append(runtag)
                else:
                    self.refused[runtag] = "it is damaged here"
            elif backup.state in DELIVERED:
                self._sort(backup, copy, doubted=doubted)
        if self.lacking and self.policy:
            found = {e.runtag: e for e in sets_there(self.storage, self.names, here, failed)}
            self._pass_over(self.policy, here, found, gone)
        self.looked = True

    def _sort(self, backup: BackupSet, copy: BackupSet | None, *, doubted: bool) -> None:
        """Decide about one set. Whether a mark there is this set's is judged when it is copied."""
        runtag, manifest = backup.runtag, backup.manifest
        state = state_of_copy(backup, copy) if copy else ""
        ours = copy is not None and (_is_ours(copy, backup) or self._gives_way(copy, backup))
        if ours or f"{runtag}.{RECORDS_ENDING}" in self.names:
            self.begun.add(runtag)
        if copy and copy.manifest and not ours:
            self.refused[runtag] = (
                f"another backup of that name, from {copy.manifest.host}, exists there and is kept"
            )
        elif copy and copy.unnamed:
            self.refused[runtag] = (
                f"{' '.join(unnamed_told(runtag, kind) for kind in copy.unnamed).rstrip('.')} "
                "there; move it away"
            )
        elif copy and copy.manifest is None and copy.state is State.COMPLETE:
            self.refused[runtag] = "its manifest there could not be read in time"
        elif doubted and not (can_hash(self.storage) or getattr(self.storage, "keeps_all", False)):
            self.refused[runtag] = (
                f"its copy there is damaged. Check it again: {_verify(runtag, self.name)}. If it "
                "is still damaged, remove it; it is then uploaded again"
            )
        elif manifest and copy and state == manifest.state and not self._lacks_text(backup, copy):
            self.there.append(runtag)
        else:
            if manifest and copy and state == manifest.state:
                self.only_texts.add(runtag)
            self.lacking[runtag] = backup
            self.doubted |= {runtag} if doubted else set()

    def _gives_way(self, copy: BackupSet, backup: BackupSet) -> bool:
        """Return whether a copy is of a set of this machine that one here was made to replace."""
        if copy.runtag not in self.replacing or copy.pinned:
            return False
        one, other = copy.manifest, backup.manifest
        return one is not None and other is not None and one.host == other.host

    @staticmethod
    def _lacks_text(backup: BackupSet, copy: BackupSet) -> bool:
        return any(kind in backup.files and kind not in copy.files for kind in TEXTS)

    def _pass_over(
        self,
        policy: Policy,
        here: Mapping[str, BackupSet],
        found: Mapping[str, BackupSet],
        gone: Iterable[Gone],
    ) -> None:
        """Leave out sets that the policy would remove at once from the existing and new ones.

        A pin here is delivered with its set, so it counts there as well.
        """
        judged = dict(found)
        for runtag in (*self.there, *self.lacking):
            if runtag in self.damaged_here:
                continue
            pinned = here[runtag].pinned or (runtag in found and found[runtag].pinned)
            judged[runtag] = replace(here[runtag], pinned=pinned)
        for verdict in judge_each_host(judged.values(), policy, datetime.now(UTC), gone):
            runtag = verdict.backup.runtag
            if not verdict.keep and runtag in self.lacking:
                del self.lacking[runtag]
                self.passed_over[runtag] = verdict.why

    def settled(self, runtag: str) -> bool:
        """Return whether a set needs no more delivery: the vault has it, or should not have it."""
        return runtag in (*self.there, *self.delivered) or runtag in self.passed_over

    def lacks(self, runtag: str) -> bool:
        """Return whether a set that is good here has no copy there that is known to be good.

        A set that the vault's own policy would remove does not count, nor one that lacks only its
        texts.
        """
        if runtag in self.damaged_here:
            return False
        return not self.looked or runtag in {*self.owed, *self.refused} - self.only_texts

    def holds(self, runtag: str) -> bool:
        """Return whether a complete copy of a set is there, with or without its texts."""
        return runtag in self.there or runtag in self.only_texts

    @property
    def owed(self) -> tuple[str, ...]:
        """The sets that the vault should have and still lacks, newest first."""
        settled = {*self.delivered, *self.damaged_here}
        return tuple(each for each in self.lacking if each not in settled)

    @property
    def refusals(self) -> tuple[str, ...]:
        """What cannot be delivered, a sentence each."""
        return _not_delivered(self.refused, self.name)

    @property
    def lost(self) -> tuple[str, ...]:
        """What is good here and cannot be delivered, a sentence each."""
        bad = self.damaged_here
        good = {tag: why for tag, why in self.refused.items() if tag not in bad}
        return _not_delivered(good, self.name)

    @property
    def troubles(self) -> tuple[str, ...]:
        """The errors, a sentence each."""
        lines = [f"Copying to {self.name} failed: {self.error}"] if self.error else []
        return (*lines, *_not_delivered(self.failed, self.name))

    @property
    def owed_line(self) -> str:
        """What the vault still lacks, and the command that delivers it."""
        named = [each for each in self.owed if each not in self.not_kept]
        several = len(named) > 1
        them = "them" if several else "it"
        lacks = f"{self.name} is missing {len(named)} backup{'s' if several else ''}"
        if not self.looked:  # the records here name those that never arrived, and no others
            lacks = f"Cannot tell what {self.name} has"
            if not named:
                return f"{lacks}."
            lacks += ". Not copied yet"
        return f"{lacks}: {', '.join(named)}. The next backup or `inv sync` copies {them} there."


def _not_delivered(troubles: Mapping[str, str], vault: str) -> tuple[str, ...]:
    """Return which sets are not delivered, one sentence for those with the same reason."""
    alike: dict[str, list[str]] = {}
    for runtag, why in troubles.items():
        alike.setdefault(why.rstrip("."), []).append(runtag)
    return tuple(
        f"{', '.join(tags)} {'was' if len(tags) == 1 else 'were'} not copied to {vault}: "
        f"{ended(why)}"
        for why, tags in alike.items()
    )


def _verify(runtag: str, vault: str) -> str:
    return f"inv verify --runtag {shlex.quote(runtag)} --at {shlex.quote(vault)}"


def _is_ours(copy: BackupSet, backup: BackupSet) -> bool:
    """Return whether a copy is of this set, or of an earlier run of it, by its manifest."""
    one, other = copy.manifest, backup.manifest
    if one is None or other is None:
        return False
    return (one.host, one.started_utc) == (other.host, other.started_utc)


def _is_whole_there(copy: BackupSet, backup: BackupSet, host: str) -> bool:
    """Return whether a copy of a set that is damaged here is complete, by its own manifest."""
    if copy.manifest is None or copy.state not in DELIVERED:
        return False
    return copy.manifest == backup.manifest if backup.manifest else copy.manifest.host == host


def compare_vaults(
    environment: Environment,
    names: Iterable[str],
    here: Sequence[BackupSet],
    checks: Checks,
    skipped: str = "",
) -> list[Delivery]:
    """Return what each vault lacks of the sets here; for an unreachable one, the reason."""
    here = tuple(_with_texts(environment, here, skipped))
    policies = {each.name: each.policy for each in environment.settings.vaults}
    gone = environment.gone(environment.owner.read())
    by_runtag, host = {each.runtag: each for each in here}, host_name(environment.host)
    recorded = by_runtag.keys() & marked_in(environment.host.listdir(environment.backups))
    replacing = frozenset(
        tag
        for tag in recorded
        if RecordFile(environment, tag).is_to_replace(by_runtag[tag].manifest)
    )
    found = []
    for name in names:
        each = Delivery(name, environment.vaults[name], policies.get(name), replacing=replacing)
        try:
            each.look(by_runtag, checks, host, skipped, gone)
        except StepFailed as error:
            each = replace(
                unlisted(environment, name, here), error=str(error), replacing=replacing
            )
        found.append(each)
    return found


def unlisted(environment: Environment, name: str, here: Sequence[BackupSet]) -> Delivery:
    """Return what an unreachable vault lacks of the sets here, by the records here."""
    policy = next((e.policy for e in environment.settings.vaults if e.name == name), None)
    not_kept: frozenset[str] = frozenset()
    if policy:
        finished = [each for each in here if each.state in DELIVERED]
        gone = environment.gone(environment.owner.read())
        decisions = judge_each_host(finished, policy, datetime.now(UTC), gone)
        not_kept = frozenset(each.backup.runtag for each in decisions if not each.keep)
    lacking = owed_here(environment, name, here)
    return Delivery(name, environment.vaults[name], policy, lacking=lacking, not_kept=not_kept)


def _with_texts(
    environment: Environment, here: Iterable[BackupSet], skipped: str
) -> Iterator[BackupSet]:
    """Yield the sets here, each with the texts that its delivery makes first.

    A run that was killed after the manifest left no RESTORE.txt, and a log without its final name.
    """
    names = environment.host.listdir(environment.backups)
    here = tuple(here)
    ended = {e.runtag for e in here if e.runtag != skipped and e.state in DELIVERED}
    bare = [e.runtag for e in here if e.runtag in ended and "restore" not in e.files]
    cut = _of_versions_with_text(environment, bare, names)
    for each in here:
        files = dict(each.files)
        log = names.get(f"{each.runtag}.{KINDS['log']}{PARTIAL}")
        if each.runtag in ended and log and log.is_file:
            files.setdefault("log", log)
        if each.runtag in cut:
            files["restore"] = FileFact(0, files["manifest"].modified_s)
        yield replace(each, files=files)


def _of_versions_with_text(
    environment: Environment, runtags: Iterable[str], names: Mapping[str, FileFact]
) -> set[str]:
    """Return which sets are of a version that wrote RESTORE.txt beside each manifest."""
    manifests = {f"{tag}.{KINDS['manifest']}": tag for tag in runtags}
    waiting = [name for name in manifests if name in names]
    found = set()
    for count in counts_at_once(tuple(waiting), names):
        asked, waiting = waiting[:count], waiting[count:]
        told = contents_told(environment.host, environment.backups, asked, names)
        found |= {manifests[name] for name, content in told.items() if has_sum(content)}
    return found


def owed_here(
    environment: Environment, vault: str, here: Iterable[BackupSet]
) -> dict[str, BackupSet]:
    """Return the sets here that an unreachable vault lacks, newest first.

    The records of their making stay here until every vault has them, and name the copies that
    arrived. Those of a delivery name only what it saw and did: they do not cover what it did not
    reach.
    """
    names = environment.host.listdir(environment.backups)
    found = {}
    for each in here:
        if each.state in DELIVERED and f"{each.runtag}.{RECORDS_ENDING}" in names:
            records = RecordFile(environment, each.runtag)
            if records.of_making and not records.tells(manifest_copy(vault, each.runtag)):
                found[each.runtag] = each
    return found


def manifest_copy(vault: str, runtag: str) -> str:
    """Return the name of a set's manifest in a vault, as in records."""
    return f"{vault}:{runtag}.{KINDS['manifest']}"


def deliver(
    environment: Environment, deliveries: Sequence[Delivery], do: Do, tell: Callable[[str], None]
) -> None:
    """Deliver what is lacking, the newest set first; records the results in `deliveries`.

    Removes the local mark of a set that every vault has then. A file gets its final name in a
    vault only after it was verified there. Raises Interrupted; the next delivery resumes.
    """
    _record_what_is_there(environment, deliveries)
    for backup, mine in lacking_in(deliveries):
        if mine:
            tell(f"copying {backup.runtag} to {', '.join(each.name for each in mine)}")
            if _deliver_one(environment, backup, mine, do):
                for each in deliveries:
                    each.damaged_here.add(backup.runtag)
    for each in deliveries:
        names = _prove(environment, each) if each.copied else None
        for runtag in each.unpinned & {*each.there, *each.delivered}:
            why = carry_pin(environment, runtag, each.storage)
            if why:
                each.failed[runtag] = why
        if names is not None:
            with contextlib.suppress(StepFailed):  # the next run sweeps as well
                sweep_stale_copies(each.storage, names)
    _settle(environment, deliveries)


def _prove(environment: Environment, each: Delivery) -> Mapping[str, FileFact] | None:
    """Record which of the copied sets are delivered, by one listing of the vault; return that.

    None if it could not be listed: then nothing counts as delivered.
    """
    try:
        names = each.storage.listdir(each.storage.root)
    except StepFailed as error:
        each.error = each.error or str(error)
        return None
    here = environment.host.listdir(environment.backups)
    for runtag, manifest in each.copied.items():
        why = differs_there(manifest, here, names)
        if why:
            RecordFile(environment, runtag).take_back(manifest_copy(each.name, runtag))
        elif runtag in each.replacing:
            with contextlib.suppress(StepFailed):  # then it is reported as a set without manifest
                drop_unnamed(each.storage, each.storage.root, manifest)
        trouble = why or unmark(each.storage, runtag)
        if trouble:
            each.failed[runtag] = trouble
            continue
        each.delivered.append(runtag)
        if runtag in each.doubted:
            environment.checks.add(_proven(each, manifest))
    return names


def differs_there(
    manifest: Manifest,
    here: Mapping[str, FileFact],
    there: Mapping[str, FileFact],
    kinds: Iterable[str] = ("manifest", *TEXTS),
) -> str:
    """Return how files copied to a vault differ, by listings; '' if they do not.

    The results of the jobs prove nothing: a rename may have had no effect, and another disk may
    have replaced the vault's. `kinds`: which files were copied besides the parts.
    """
    sizes = {part.file: part.size_bytes for part in manifest.made}
    others = (f"{manifest.runtag}.{KINDS[kind]}" for kind in kinds)
    sizes |= {name: here[name].size_bytes for name in others if name in here}
    found = []
    for name, size_bytes in sizes.items():
        fact = there.get(name)
        if fact is None or not fact.is_file:
            found.append(f"{name} is missing")
        elif fact.size_bytes != size_bytes:
            found.append(f"{name} has {fact.size_bytes:,} of {size_bytes:,} bytes there")
    if not found:
        return ""
    return f"after the copy, {', '.join(found)}. Was the vault changed, or does it lose data?"


def lacking_in(deliveries: Sequence[Delivery]) -> Iterator[tuple[BackupSet, list[Delivery]]]:
    """Yield what vaults lack, the newest set first, each with the reachable ones of them."""
    lacking = {tag: each for found in deliveries for tag, each in found.lacking.items()}
    for backup in newest_first(lacking.values()):
        yield (
            backup,
            [each for each in deliveries if backup.runtag in each.lacking and not each.error],
        )


def carry_pin(environment: Environment, runtag: str, storage: Storage) -> str:
    """Pin a set in a vault like the one here; return why it could not be pinned, or ''."""
    name = f"{runtag}.{PIN_ENDING}"
    try:
        note = environment.host.read_many(environment.backups, [name]).get(name)
        if note is not None and not storage.stat([f"{storage.root}/{name}"]):
            write_pin(storage, storage.root, runtag, note)
    except StepFailed as error:
        return f"its pin: {error}"
    return ""


def _settle(environment: Environment, deliveries: Sequence[Delivery]) -> None:
    """Remove the marks of sets that every vault has which should have them."""
    if {each.name for each in deliveries} != set(environment.vaults):
        return
    names = environment.host.listdir(environment.backups)
    for runtag in {tag for each in deliveries for tag in (*each.there, *each.delivered)}:
        marked = f"{runtag}.{RECORDS_ENDING}" in names and f"{runtag}.{KINDS['log']}" in names
        if marked and all(each.settled(runtag) for each in deliveries):
            left = [unmark(e.storage, runtag) for e in deliveries if runtag not in e.passed_over]
            manifest = environment.manifest(runtag)
            # The records of an incomplete set hold its start time, for the run that completes it.
            if not any(left) and manifest and manifest.state != State.INCOMPLETE.value:
                RecordFile(environment, runtag).end()


def _record_what_is_there(environment: Environment, deliveries: Sequence[Delivery]) -> None:
    """Record which copies were seen, beside the sets that some vault lacks.

    So a later run knows that a then unreachable vault has them. They do not count as compared: the
    record has no hash.
    """
    names = environment.host.listdir(environment.backups)
    for runtag in {tag for each in deliveries for tag in each.there}:
        records = (
            RecordFile(environment, runtag) if f"{runtag}.{RECORDS_ENDING}" in names else None
        )
        for each in deliveries:
            output = manifest_copy(each.name, runtag)
            seen = runtag in each.there
            if records and records.exists and seen and not records.tells(output):
                records.add(Record(output))


def _deliver_one(
    environment: Environment, backup: BackupSet, mine: Sequence[Delivery], do: Do
) -> tuple[str, ...]:
    """Deliver one set to the vaults that lack it; return what of it was found damaged here."""
    runtag, manifest = backup.runtag, backup.manifest
    damages: tuple[str, ...] = ()
    records = RecordFile(environment, runtag)
    plan = plan_for(environment, backup, mine, records)
    served = [each for each in mine if runtag not in each.refused]
    if manifest and served:
        records.begin(manifest.started_utc)
        _end_log(environment, backup)
        result = do(plan, records)
        _note(result, runtag, served)
        damages = write_damages(environment, manifest, result)
        reached = [each for each in served if runtag not in each.failed]
        if "log" in backup.files:
            names = tuple(each.name for each in reached)
            _note(copy_log(environment, runtag, names, records, do), runtag, reached)
        for each in reached:
            if runtag not in each.failed:
                each.copied[runtag] = manifest
    for each in mine:
        if runtag in each.failed:
            try:
                drop_mark(each.storage, runtag, records)
            except StepFailed as error:
                each.error = str(error)
            else:
                if not (damages or takes_files(each.storage)):
                    each.error = each.failed.pop(runtag)
    return damages


def drop_mark(storage: Storage, runtag: str, records: RecordFile) -> None:
    """Remove the mark of this run from a vault that has nothing of its set; raises StepFailed."""
    names = storage.listdir(storage.root)
    mark = f"{runtag}.{RECORDS_ENDING}"
    found = {(split_set_name(name.removesuffix(PARTIAL)) or ("",))[0] for name in names}
    if mark in names and runtag not in found:
        line = storage.read_many(storage.root, [mark]).get(mark, b"")
        if records.claim.encode() in line:  # otherwise it is another machine's
            storage.remove([f"{storage.root}/{mark}"])


def takes_files(storage: Storage) -> bool:
    """Return whether a vault accepts and removes a test file; write-once ones are not tested."""
    try:
        if not getattr(storage, "keeps_all", False):
            clock_of(storage)
    except StepFailed:
        return False
    return True


def _end_log(environment: Environment, backup: BackupSet) -> None:
    """Give the log of a killed run its final name: under the lock no other run resumes it."""
    path = f"{environment.backups}/{backup.runtag}.{KINDS['log']}"
    if "log" in backup.files and not environment.host.stat([path]):
        log = open_log(environment, backup.runtag)
        log.write("backup", "the run was interrupted; its backup is copied as it is")
        finish_log(environment, backup.runtag, log)


def write_damages(
    environment: Environment, manifest: Manifest, result: RunResult
) -> tuple[str, ...]:
    """Return which archives of a set were read here and are damaged, a sentence each.

    They are recorded as the results of a verification, so that every judgement of the set includes
    them. Not on another machine: no command could verify it there once it is repaired.
    """
    archives = (each for each in result.failed if "part" in each.job.wildcards)
    damages = tuple(dict.fromkeys(each.damage for each in archives if each.damage))
    if damages and not environment.far:
        environment.checks.add(damage_found(manifest.runtag, HERE, manifest.finished_utc, damages))
    return damages


def damaged_here_told(
    environment: Environment, found: Sequence[Delivery], *, new: bool = False
) -> tuple[str, ...]:
    """Return which sets are damaged here, where each is complete, and what to do; a sentence each.

    `new`: only those whose damage was found just now.
    """
    damaged = dict.fromkeys(
        runtag
        for each in found
        for runtag in each.damaged_here
        if not new or runtag in each.failed
    )
    return tuple(_damaged_told(environment, runtag, found) for runtag in sorted(damaged))


def _damaged_told(environment: Environment, runtag: str, found: Sequence[Delivery]) -> str:
    whole = [each for each in found if each.holds(runtag)]
    if whole:
        names = ", ".join(each.name for each in whole)
        return (
            f"{runtag} is damaged here, but good in {names}. To restore that copy: `inv restore "
            f"--runtag '{runtag}' --from {whole[0].name}`. {_cure(environment, whole[0], runtag)}"
        )
    return (
        f"{runtag} is damaged here, and the vaults that were checked have no good copy. "
        f"To see what to do: inv verify --runtag '{runtag}' --at here"
    )


def _cure(environment: Environment, vault: Delivery, runtag: str) -> str:
    """Return how to replace what is damaged here, or else to remove it."""
    files = f"{shlex.quote(environment.backups)}/{shlex.quote(runtag)}.*"
    remove = f"Or remove the files here: rm {files}"
    (own,) = (each for each in environment.settings.vaults if each.name == vault.name)
    if own.recipients:
        return f"The copy there is encrypted. {remove.removeprefix('Or ').capitalize()}"
    there = f"{shlex.quote(vault.storage.root)}/{shlex.quote(runtag)}.*"
    verify = f"inv verify --runtag '{runtag}' --at here"
    if own.remote or own.ssh:
        return (
            f"Copy {there} of {vault.name} back into {environment.backups}, then {verify}. "
            f"{remove}"
        )
    fetch = f"cp {there} {shlex.quote(environment.backups)}/ && {verify}"
    return f"Fetch it back: {fetch}. {remove}"


def _proven(each: Delivery, manifest: Manifest) -> Verification:
    """Record that a copy is good again: each of its files was hashed in the vault."""
    now = utc_text(datetime.now(UTC))
    made = manifest.finished_utc
    return Verification(
        manifest.runtag, each.name, now, "hash", good=True, program=PROGRAM, made=made
    )


def _note(result: RunResult, runtag: str, served: Iterable[Delivery]) -> None:
    """Record which vaults did not accept the set, and why."""
    by_name = {each.name: each for each in served}
    for job in result.jobs:
        if not job.is_done:
            why = f"it is damaged here: {job.damage}" if job.damage else job.message
            role = job.job.output.role
            for each in by_name.values() if role == "pi" else [by_name[role]]:
                each.failed.setdefault(runtag, why)


def plan_for(
    environment: Environment, backup: BackupSet, mine: Sequence[Delivery], records: RecordFile
) -> Plan:
    """Return the plan that delivers a finished set to the vaults that lack it.

    Skips a vault with files of its name that no run of this set left: the set is refused there,
    and no longer lacking.
    """
    manifest = backup.manifest
    assert manifest is not None  # noqa: S101 - only such a set is lacking
    replaces = records.is_to_replace(manifest)
    facts = BackupFacts(
        host=manifest.host,
        program=manifest.program,
        folder=environment.settings.stack.folder,
        members=(),
        kinds=tuple(part.kind for part in manifest.made),
        started_utc=manifest.started_utc,
        claim=records.claim,
        earlier_utc=records.earlier_utc,
        replaces=replaces,
        gone=environment.gone(environment.owner.read()) if replaces else (),
        text="restore" in backup.files,
    )
    names = tuple(each.name for each in mine)
    targets = copy_targets(backup.runtag, facts, names)
    # RESTORE.txt is made from the manifest if a run was killed before it.
    book = RuleBook(restore_text, *copies_book(names).rules, wildcards=WILDCARDS)
    graph = resolve(book, targets, environment.roots, facts)
    storages = {"pi": environment.host, **{each.name: each.storage for each in mine}}
    files, _ = stat_everywhere(graph.files, storages)
    # A record of a copy says nothing about one that was found damaged since.
    doubted = tuple(f"{each.name}:" for each in mine if backup.runtag in each.doubted)
    known = {k: each for k, each in records.known().items() if not k.startswith(doubted)}
    unlike, unread = compared_copies(files, storages, known)
    for each in mine:
        why = "" if backup.runtag in each.begun else whose_told(each.name, files, unlike, unread)
        if why:
            each.refused[backup.runtag] = why
            each.lacking.pop(backup.runtag)
    plan = decide(graph, files, known, unlike=unlike | unread.keys())
    refused = {each.name for each in mine if backup.runtag in each.refused}
    return Plan(tuple(e for e in plan.planned if e.job.output.role not in refused))


def whose_told(
    vault: str,
    files: Iterable[File],
    unlike: Collection[File],
    unread: Mapping[File, StepFailed],
) -> str:
    """Return why files with a set's name in a vault are kept, '' if they may be replaced.

    For a set that no known run began to copy there: neither its mark nor its manifest exists. Its
    archives decide: if all of them equal those here, the other files are the set's as well.
    """
    there = [file for file in files if file.role == vault]
    archives = [file for file in there if (split_set_name(file.path) or "  ")[1] in PARTS]
    if archives and not any(file in unlike or file in unread for file in archives):
        return ""
    strange = sorted(file.path for file in there if file in unlike)
    shut = {file.path: unread[file] for file in there if file in unread}
    if shut:
        why = next(iter(shut.values()))
        return (
            f"{', '.join(sorted(shut))} there cannot be compared with the copy here, and may be "
            f"good: {ended(str(why))} Nothing was replaced"
        )
    if strange:
        runtag = (split_set_name(strange[0]) or ("RUNTAG",))[0]
        differ = "differs" if len(strange) == 1 else "differ"
        return (
            f"{', '.join(strange)} there {differ} from the copy here, and no readable manifest "
            "there says whose backup it is, so nothing is replaced. To check it: "
            f"{_verify(runtag, vault)}. If it is not a good "
            "copy, move it to another folder, or replace it: inv backup --runtag "
            f"{shlex.quote(runtag)}"
        )
    return ""


def log_plan(environment: Environment, runtag: str, vaults: Iterable[str]) -> Plan:
    """Return the plan that copies the log of a set to vaults, after giving it its final name."""
    names = tuple(vaults)
    graph = resolve(copies_book(names), log_targets(runtag, names), environment.roots)
    storages = {"pi": environment.host, **{name: environment.vaults[name] for name in names}}
    files, _ = stat_everywhere(graph.files, storages)
    log = File("pi", f"{BACKUPS}/{runtag}.{KINDS['log']}")
    unlike = unlike_copies(files, storages, {})
    return decide(graph, {log: FileFact(0, 0), **files}, unlike=unlike)


def copy_log(
    environment: Environment, runtag: str, vaults: tuple[str, ...], records: RecordFile, do: Do
) -> RunResult:
    """Copy the log of a set, which is complete, to vaults with its manifest."""
    return do(log_plan(environment, runtag, vaults), records)


def unmark(storage: Storage, runtag: str) -> str:
    """Remove the mark of a set that is copied; return why it could not be removed, or ''."""
    try:
        storage.remove([f"{storage.root}/{runtag}.{RECORDS_ENDING}"])
    except StepFailed as error:
        return f"the mark of this run in {storage.name}: {error}"
    return ""
