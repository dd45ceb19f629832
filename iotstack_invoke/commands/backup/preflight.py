"""How a backup starts: what exists, what would refuse it, and what is to be made.

Changes nothing: a dry run and a real run are refused here for the same reasons.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from ...backups.losses import reference
from ...backups.manifest import Manifest, utc_text
from ...backups.sets import GOOD, BackupSet, State, gather_sets, removals_in
from ...backups.transfer import ADVICE, manifest_there
from ...backups.verifications import HERE
from ...core.dataclass import dataclass
from ...core.errors import Refused, StepFailed
from ...core.runtag import Runtag, free_runtag
from ...core.stack_folders import BACKUPS
from ...engine.plan import Plan, decide, resolve
from ...engine.steps import Record
from ...environment.environment import Environment, RecordFile, stat_everywhere, unlike_copies
from ...hosts.inspect import is_folder, is_read_only, may_write, on_host, remount
from ...hosts.local import READ_ONLY
from ...reporting.report import Report
from ...settings.model import Options
from ...workflows.backup import BackupFacts, backup_book, set_targets
from ..shared.vault_listing import Listing
from .coverage import rows_matched
from .disk_space import estimate_space, refuse_without_space
from .facts import gather_facts
from .replaced import has_manifest, known_of, refuse_damaged, refuse_to_lose, with_kept

TICK_S = 0.05


def refuse_folder(environment: Environment) -> None:
    """Raise Refused if the folder of the backups, or the stack's, cannot be written."""
    folder = (
        environment.backups
        if is_folder(environment.host, environment.backups)
        else environment.settings.stack.folder
    )
    if is_folder(environment.host, folder) and not may_write(environment.host, folder):
        if is_read_only(environment.host, folder):
            raise Refused(
                f"{on_host(environment.host)}{folder} {READ_ONLY}. Nothing was changed. When the "
                f"disk works again: {remount(folder)}"
            )
        raise Refused(
            f"{on_host(environment.host)}{folder} belongs to another user (Docker creates it as "
            f'root). Change its owner: sudo chown "$USER:" {shlex.quote(folder)}'
        )


def free_of(runtag: Runtag, listed: Iterable[Listing], report: Report) -> Runtag:
    """Return the runtag of this minute, or the next free one after it, with a message."""
    free = free_runtag(runtag, (name for each in listed for name in each))
    if free != runtag:
        report.tell(f"A backup {runtag} exists already, so this one is named {free}.")
    return free


@dataclass(frozen=True, slots=True)
class Start:
    """The state with which a backup begins."""

    facts: BackupFacts
    records: RecordFile
    plan: Plan
    notes: tuple[str, ...]
    """The vaults that could not be listed."""

    @classmethod
    def of(
        cls,
        environment: Environment,
        runtag: str,
        options: Options,
        listed: Mapping[str, Listing],
        *,
        warnings: tuple[str, ...] = (),
        dry: bool = False,
    ) -> Start:
        """Return the start of a backup; raises Refused if it must not be made.

        `listed`: the listings of the vaults. `warnings`: those of the hooks before it. `dry`:
        partly removed sets may still exist.
        """
        sets = environment.sets()
        _refuse_a_second(environment, runtag, sets)
        facts = gather_facts(environment.host, environment.settings)
        space = estimate_space(environment.host, facts, sets)
        made = is_folder(environment.host, environment.backups)
        folder = environment.backups if made else environment.settings.stack.folder
        refuse_without_space(environment.host, space, folder)
        records = RecordFile(environment, runtag)
        own = next((each for each in sets if each.runtag == runtag), None)
        kept: tuple[str, ...] = ()
        # A run that was to replace a set, and was killed before the new one was complete, starts
        # over.
        replaces = options.force or records.replaces
        rebuilt = options.force or (replaces and not _is_of(own, records))
        if not rebuilt:
            refuse_damaged(environment, own, records, listed)
            facts, kept = with_kept(facts, own, records)
        if own and own.pinned and rebuilt:
            raise Refused(f"{runtag} is pinned. Unpin it first: inv pin --remove.")
        finished = bool(own and "manifest" in own.files)
        for name in environment.vaults:
            if name in listed:
                # Without a manifest here, one there belongs to no run that can be resumed.
                is_ours = finished or (records.exists and not has_manifest(listed[name], runtag))
                _refuse_to_replace(
                    environment,
                    name,
                    runtag,
                    listed[name],
                    is_ours=is_ours,
                    force=replaces,
                    dry=dry,
                )
        if rebuilt:
            of_that_name = _of_that_name(environment, runtag, own, listed)
            refuse_to_lose(environment, of_that_name, facts)
            facts = begun_in_a_second_of_its_own(facts, of_that_name.values())
        before = reference(sets, runtag, facts.host)
        idle = _idle_told(environment, facts, before)
        began = records.started_utc or facts.started_utc
        facts = replace(
            facts,
            started_utc=facts.started_utc if options.force else began,
            expected_bytes=space.unpacked_bytes,
            warnings=(*warnings, *facts.warnings, *idle),
            claim=records.claim,
            earlier_utc=records.earlier_utc,
            replaces=replaces,
            is_rebuilt=rebuilt,
            copies_wait=rebuilt or (replaces and not _is_whole(own)),
            gone=environment.gone(environment.owner.read()) if replaces else (),
            before=before,
            replaced=_replaced(own, records, rebuilt=rebuilt),
            text=rebuilt or _wants_text(own, records),
        )
        known = known_of(own, records, kept)
        plan, notes = _make_plan(environment, runtag, facts, known, listed, own)
        # A run that was killed late may lack only the copy of its log, or the removals after it.
        if not plan.to_run and not records.exists:
            each_vault = " and in every vault" if environment.vaults else ""
            raise Refused(
                f"A backup {runtag} exists already, here{each_vault}. Choose another --runtag, "
                "or replace it with --force."
            )
        return cls(facts, records, plan, notes)


def begun_in_a_second_of_its_own(facts: BackupFacts, replaced: Iterable[BackupSet]) -> BackupFacts:
    """Return the facts with a start time that differs from those of the replaced sets.

    A set and its replacement have one name and one machine: only the second in which each began
    distinguishes them. Waits for the next one if need be.
    """
    taken = {each.manifest.started_utc for each in replaced if each.manifest}
    while facts.started_utc in taken:
        time.sleep(TICK_S)
        facts = replace(facts, started_utc=utc_text(datetime.now(UTC)))
    return facts


def _idle_told(
    environment: Environment, facts: BackupFacts, before: Manifest | None
) -> tuple[str, ...]:
    """Return messages on rows of hosts.toml without effect; not on those of the last backup.

    () for another machine's stack: the rows are for all machines.
    """
    if environment.far:
        return ()
    known = rows_matched(before.containers, environment.settings) if before else set()
    return tuple(
        f"{told}: it has no effect. Correct its name, containers or images in hosts.toml, or "
        "remove it."
        for name, told in facts.idle_rows.items()
        if name not in known
    )


def _of_that_name(
    environment: Environment, runtag: str, own: BackupSet | None, listed: Mapping[str, Listing]
) -> dict[str, BackupSet]:
    """Return the sets that would be replaced, by location: here, or a vault.

    In a vault, only if the manifest can be read now: otherwise it is compared when it is replaced.
    """
    found = {HERE: own} if own else {}
    for name, storage in environment.vaults.items():
        names = listed.get(name, {})
        if not has_manifest(names, runtag):
            continue
        manifest = None
        with contextlib.suppress(StepFailed):
            manifest = manifest_there(storage, storage.root, runtag)
        if manifest:
            sets = gather_sets(names, {runtag: manifest})
            found.update((name, each) for each in sets if each.runtag == runtag)
    return found


def _wants_text(own: BackupSet | None, records: RecordFile) -> bool:
    """Return whether a set is to have RESTORE.txt: one that was finished without it is not."""
    finished = own is not None and "manifest" in own.files and not records.exists
    return not finished or (own is not None and "restore" in own.files)


def _is_of(own: BackupSet | None, records: RecordFile) -> bool:
    """Return whether the records are of the finished set here."""
    manifest = own.manifest if own else None
    return manifest is not None and manifest.started_utc == records.started_utc


def _is_whole(own: BackupSet | None) -> bool:
    return own is not None and own.state in GOOD


def _replaced(own: BackupSet | None, records: RecordFile, *, rebuilt: bool) -> Manifest | None:
    """Return the manifest of the set that this one replaces; None if it replaces none."""
    manifest = own.manifest if own else None
    if rebuilt:
        return manifest or records.replaced
    return manifest if manifest and manifest.started_utc != records.started_utc else None


def _refuse_a_second(environment: Environment, runtag: str, sets: tuple[BackupSet, ...]) -> None:
    """Refuse a runtag of archives that no run of ours made, or that lost their manifest."""
    same = next((each for each in sets if each.runtag == runtag), None)
    strange = same and same.state is not State.UNFINISHED and "manifest" not in same.files
    if same and strange and (same.state is State.DAMAGED or "restore" in same.files):
        raise Refused(
            f"{environment.backups} has archives {runtag} that lost their manifest and may be "
            "the only copy of that backup, so they are not replaced. Choose another --runtag. "
            f"To see what to do with them: inv verify --runtag '{runtag}' --at here"
        )
    if strange:
        raise Refused(
            f"{environment.backups} has archives {runtag} without a manifest, made by other "
            "scripts. They stay unchanged. Choose another --runtag."
        )


def _refuse_to_replace(
    environment: Environment,
    name: str,
    runtag: str,
    names: Listing,
    *,
    is_ours: bool,
    force: bool,
    dry: bool,
) -> None:
    """Refuse the name of another backup in a vault, whose copy this one would replace.

    With --force only a pinned one is refused.
    """
    if runtag in removals_in(names) and not dry:
        raise Refused(
            f"{name} has a backup {runtag} that is partly removed, and the rest cannot be "
            "removed now. Choose another --runtag, or check that vault."
        )
    for each in gather_sets(names, None):
        if each.runtag != runtag or not each.files:
            continue
        if each.pinned and (force or not is_ours):
            raise Refused(
                f"{name} has a backup {runtag}, and it is pinned there. Choose "
                "another --runtag, or unpin it first: inv pin --remove."
            )
        if not is_ours and not force:
            storage = environment.vaults[name]
            manifest = manifest_there(storage, storage.root, runtag)
            of_host = f" of {manifest.host}" if manifest else ""
            raise Refused(
                f"{name} has a backup {runtag}{of_host} already. Choose another --runtag, or "
                f"replace it with --force. {ADVICE}"
            )


def _make_plan(
    environment: Environment,
    runtag: str,
    facts: BackupFacts,
    known: Mapping[str, Record],
    listed: Mapping[str, Listing],
    own: BackupSet | None,
) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan of a backup, and the vaults that could not be listed.

    `known`: the records of what is finished. A manifest that names other parts is written again.
    """
    vaults = tuple(environment.vaults)
    graph = resolve(
        backup_book(vaults), set_targets(runtag, facts, vaults), environment.roots, facts
    )
    files, notes = stat_everywhere(graph.files, environment.storages, listed)
    if facts.is_rebuilt:
        return decide(graph, files, known, force=("all",)), notes
    parts = own.manifest.parts if own and own.manifest else ()
    # A file with the name of a part that could not be made is not that part.
    failed = {f"pi:{BACKUPS}/{part.file}" for part in parts if part.error} - known.keys()
    files = {file: fact for file, fact in files.items() if str(file) not in failed}
    rebuilt = ("manifest",) if parts and {e.kind for e in parts} != {*facts.kinds} else ()
    unlike = unlike_copies(files, environment.storages, known)
    return decide(graph, files, known, unlike=unlike, force=rebuilt), notes
