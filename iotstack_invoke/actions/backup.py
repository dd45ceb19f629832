"""One backup from the first look to the last word.

lock → undo what a dead run left → look → plan → make, copy, write the manifest → finish the log
and copy it → remove what the retention lets go. Not for: how the parts are made (rulebooks).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from ..engine import End, Run, RunResult, signals_raised
from ..errors import ExitCode, Interrupted, IotstackError, Refused, RuntagError, StepFailed
from ..hosts import LocalHost, locked
from ..journal import Journal
from ..log import LogWatcher, RunLog
from ..manifest import (
    RECORDS_ENDING,
    REMOVING_ENDING,
    Manifest,
    read_manifest,
    read_records,
    record_line,
    records_of,
)
from ..plan import Plan, bind, decide, resolve
from ..report import Fanout, Report, duration_text, size_text
from ..retention import Policy, judge
from ..rulebooks.backup import (
    BACKUPS,
    BackupFacts,
    backup_book,
    log_targets,
    set_targets,
)
from ..rules import KINDS, split_set_name
from ..runtag import LATEST, Runtag, default_runtag, read_runtag
from ..services.influx import undoable
from ..sets import BackupSet, State, files_of, gather_sets, runtags_in
from ..settings import Options, Settings
from ..steps import PARTIAL, File, FileFact, Place, Record
from ..vaults import vault_place
from .look import look_at_stack, look_for_room, refuse_without_room

STALE_COPY = timedelta(days=1)
"""A partial copy in a vault that is older belongs to a run that died."""


NO_VAULT = "No vault is in the settings: this backup is on this machine only."


@dataclass(slots=True)
class Stand:
    """The stack on this machine, its backups, and the vaults."""

    settings: Settings
    host: LocalHost
    vaults: Mapping[str, Place] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> Stand:
        """Return what the settings describe; nothing is opened yet."""
        vaults = {each.name: vault_place(each) for each in settings.vaults}
        return cls(settings, LocalHost(settings.stack.folder), vaults)

    @property
    def backups(self) -> str:
        """The folder of the backups on this machine."""
        return f"{self.settings.stack.folder}/{BACKUPS}"

    @property
    def places(self) -> dict[str, Place]:
        """What the roles of the rules are bound to."""
        return {"pi": self.host, **self.vaults}

    @property
    def roots(self) -> dict[str, str]:
        """The folder of each role."""
        return {role: place.root for role, place in self.places.items()}

    def sets(self) -> tuple[BackupSet, ...]:
        """Return the sets on this machine, newest first."""
        names = self.host.names(self.backups)
        manifests = {}
        for runtag in runtags_in(names):
            manifest = self.manifest(runtag)
            if manifest:
                manifests[runtag] = manifest
        return gather_sets(names, manifests)

    def manifest(self, runtag: str) -> Manifest | None:
        """Return the manifest of a set on this machine, or None."""
        path = f"{self.backups}/{runtag}.{KINDS['manifest']}"
        with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as stream:
            return read_manifest(stream.read())
        return None

    def close(self) -> None:
        """Let go of the vaults."""
        for place in self.vaults.values():
            place.close()


class RecordFile:
    """The records of one set while it is unfinished, in a file beside it."""

    def __init__(self, stand: Stand, runtag: str) -> None:
        self.host = stand.host
        self.path = f"{stand.backups}/{runtag}.{RECORDS_ENDING}"
        self.started_utc = ""
        lines = []
        with contextlib.suppress(FileNotFoundError), open(self.path, encoding="utf-8") as stream:
            lines = stream.readlines()
        self.exists = bool(lines)
        manifest = stand.manifest(runtag)
        self._records = records_of(manifest, "pi", BACKUPS) if manifest else {}
        self._records |= read_records(lines)
        for line in lines[:1]:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self.started_utc = json.loads(line)["started_utc"]

    def begin(self, started_utc: str) -> None:
        """Mark the set as unfinished, with the time when its making began."""
        if not self.exists:
            self.host.append(self.path, json.dumps({"started_utc": started_utc}))
            self.exists = True

    def known(self) -> Mapping[str, Record]:
        """Return the records by output."""
        return self._records

    def add(self, record: Record) -> None:
        """Keep one more, through a power cut."""
        self.host.append(self.path, record_line(record))
        self._records = {**self._records, record.output: record}

    def end(self) -> None:
        """Remove the mark: the set is finished."""
        self.host.remove([self.path])


def choose_runtag(asked: str, now: datetime) -> Runtag:
    """Return the runtag that was asked for, or the one of this minute; raises RuntagError."""
    if asked == LATEST:
        raise RuntagError(f"'{LATEST}' means the newest backup, so none can be named so.")
    return read_runtag(asked) if asked else default_runtag(now)


def back_up(settings: Settings, asked: str, options: Options, report: Report) -> int:
    """Make a backup and return the exit code; raises IotstackError where it was not begun."""
    runtag = choose_runtag(asked, datetime.now().astimezone())
    stand = Stand.of(settings)
    try:
        if options.dry_run:
            return _show_plan(stand, runtag, options, report)
        with signals_raised():
            _make_folder(stand)
            with locked(f"{stand.backups}/.lock", f"backup {runtag}"):
                return _Backup(stand, runtag, options, report).run()
    except Interrupted as error:
        report.fail(
            f"Backup {runtag}: {error}. No half-written file is left, and what was whole stays. "
            f"The same command with --runtag '{runtag}' goes on from there."
        )
        return error.exit_code
    finally:
        stand.close()


def _show_plan(stand: Stand, runtag: Runtag, options: Options, report: Report) -> ExitCode:
    facts = look_at_stack(stand.host, stand.settings)
    plan, notes = make_plan(stand, runtag, facts, RecordFile(stand, runtag), options)
    for note in (*notes, *facts.warnings):
        report.warn(note)
    for each in facts.left_out:
        report.write(f"left out: {each.what}: {each.reason}")
    report.plan(plan, also_settled=options.why)
    return ExitCode.GOOD


def make_plan(
    stand: Stand, runtag: str, facts: BackupFacts, records: RecordFile, options: Options
) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan of a backup, and which vaults could not be looked at."""
    vaults = tuple(stand.vaults)
    graph = resolve(backup_book(vaults), set_targets(runtag, facts, vaults), stand.roots, facts)
    files, notes = look_everywhere(graph.files, stand.places)
    plan = decide(graph, files, records.known(), force=("all",) if options.force else ())
    return plan, notes


def look_everywhere(
    files: frozenset[File], places: Mapping[str, Place]
) -> tuple[dict[File, FileFact], tuple[str, ...]]:
    """Return what is there of all files, one look a place, and which places did not answer."""
    found: dict[File, FileFact] = {}
    notes = []
    for role, place in places.items():
        mine = {file.absolute: file for file in files if file.role == role}
        try:
            facts = place.look(mine) if mine else {}
        except StepFailed as error:
            notes.append(f"{role} cannot be looked at now: {error}")
            continue
        found |= {mine[path]: fact for path, fact in facts.items()}
    return found, tuple(notes)


def _make_folder(stand: Stand) -> None:
    """Make the folder of the backups where there is a stack but no such folder."""
    if not os.path.isdir(stand.settings.stack.folder):
        look_at_stack(stand.host, stand.settings)  # refuses, with the way out
    try:
        os.makedirs(stand.backups, mode=0o700, exist_ok=True)
    except OSError as error:
        raise Refused(f"{stand.backups} cannot be made: {error.strerror}.") from error
    if not os.access(stand.backups, os.W_OK | os.X_OK):
        raise Refused(
            f"{stand.backups} belongs to somebody else (Docker makes it as root). "
            f'Take it: sudo chown "$USER:" {stand.backups}'
        )


class _Backup:
    """A backup that holds the lock."""

    def __init__(self, stand: Stand, runtag: Runtag, options: Options, report: Report) -> None:
        self.stand = stand
        self.runtag = runtag
        self.options = options
        self.report = report
        self.journal = Journal(stand.host, f"{stand.backups}/.journal", undoable())
        self.started_s = time.monotonic()

    def run(self) -> ExitCode:
        self._recover()
        sets = self.stand.sets()
        self._refuse_a_second(sets)
        facts = look_at_stack(self.stand.host, self.stand.settings)
        room = look_for_room(self.stand.host, facts, sets)
        refuse_without_room(self.stand.host, room, self.stand.backups)
        records = RecordFile(self.stand, self.runtag)
        facts = replace(
            facts,
            started_utc=records.started_utc or facts.started_utc,
            expected_bytes=room.unpacked_bytes,
        )
        plan, notes = make_plan(self.stand, self.runtag, facts, records, self.options)
        # A run that died late may lack only the copy of its log, or the removals after it.
        if not plan.to_run and not records.exists:
            raise Refused(
                f"There is a backup {self.runtag} already, here and in every vault. Choose "
                "another --runtag, or make it again with --force."
            )
        if self.options.why:
            self.report.plan(plan, commands=False)
        return self._make(plan, facts, records, notes)

    def _recover(self) -> None:
        """Undo what a dead run left, remove its partial archives, finish its removals."""
        lines = []
        with contextlib.suppress(FileNotFoundError), open(self.journal.path) as stream:
            lines = stream.readlines()
        for undone in self.journal.recover(lines):
            self.report.tell(f"undone, left by a run that died: {undone}")
        host, backups = self.stand.host, self.stand.backups
        names = host.names(backups)
        for name in names:
            found = split_set_name(name.removesuffix(PARTIAL))
            if name.endswith(PARTIAL) and found and found[1] != "log":
                host.remove([f"{backups}/{name}"])
            if name.endswith(f".{REMOVING_ENDING}"):
                remove_set(host, backups, name.removesuffix(f".{REMOVING_ENDING}"))

    def _refuse_a_second(self, sets: tuple[BackupSet, ...]) -> None:
        """Refuse a runtag of archives that no run of ours made."""
        same = next((each for each in sets if each.runtag == self.runtag), None)
        if same and same.state is State.UNPROVEN:
            raise Refused(
                f"{self.stand.backups} holds archives {self.runtag} without a manifest, made by "
                "other scripts. Choose another --runtag; they are left as they are."
            )

    def _make(
        self, plan: Plan, facts: BackupFacts, records: RecordFile, notes: tuple[str, ...]
    ) -> ExitCode:
        try:
            log = RunLog(f"{self.stand.backups}/{self.runtag}.{KINDS['log']}")
        except OSError as error:
            raise StepFailed(f"The log cannot be written: {error.strerror}.") from error
        log.write("backup", f"{facts.program} on {facts.host} makes {self.runtag}")
        for each in facts.left_out:
            log.write("backup", f"left out: {each.what}: {each.reason}")
        for warning in (*notes, *facts.warnings):
            log.write("backup", f"warning: {warning}")
        if not self.stand.vaults:
            log.write("backup", NO_VAULT)
            self.report.tell(NO_VAULT, style="yellow")
        try:
            with self._bars():
                records.begin(facts.started_utc)
                result = self._do(plan, records, Fanout(LogWatcher(log), self.report))
        except BaseException as error:
            log.write("backup", f"ended early: {error}")
            log.leave()
            raise
        return self._close(result, facts, records, log)

    def _do(self, plan: Plan, records: RecordFile, watcher: Fanout) -> RunResult:
        return Run(
            plan,
            self.stand.places,
            ledger=records,
            journal=self.journal,
            watcher=watcher,
            jobs_at_once=self.options.jobs,
            keep_going=self.options.keep_going,
        ).do()

    def _close(
        self, result: RunResult, facts: BackupFacts, records: RecordFile, log: RunLog
    ) -> ExitCode:
        """Finish the log, copy it, let the retention act, and say how it went."""
        manifest = self.stand.manifest(self.runtag)
        problems = [f"{each.job.rule.name}: {each.message}" for each in result.failed]
        told = manifest.warnings if manifest else ()  # those of a run that died, too
        warnings = list(dict.fromkeys([*told, *facts.warnings, *result.warnings]))
        made_all = (
            manifest is not None
            and manifest.state != "incomplete"
            and all(
                each.end is End.DONE
                for each in result.jobs
                if any(output.role == "pi" for output in each.job.outputs)
            )
        )
        if made_all and not result.failed:
            problems += self._let_go(log)
        took = duration_text(time.monotonic() - self.started_s)
        state = manifest.state if manifest else "unfinished"
        log.write("backup", f"{self.runtag} is {state} after {took}")
        log.finish(self.stand.host.rename)
        if log.broken:
            problems.append(f"the log could not be written whole: {log.broken}")
        result += self._copy_log(records, problems)
        if not problems:
            records.end()
        self._summary(manifest, result, took)
        return self._verdict(problems, warnings, made_all=made_all)

    def _copy_log(self, records: RecordFile, problems: list[str]) -> RunResult:
        """Copy the log to the vaults that have the manifest; it is closed, so nothing is added."""
        vaults = tuple(self.stand.vaults)
        graph = resolve(backup_book(vaults), log_targets(self.runtag, vaults), self.stand.roots)
        reached = [
            vault
            for vault in vaults
            if str(bind(f"{vault}:{self.runtag}.{KINDS['manifest']}", self.stand.roots))
            in records.known()
        ]
        files, _ = look_everywhere(
            graph.files, {"pi": self.stand.host, **{v: self.stand.vaults[v] for v in reached}}
        )
        jobs = tuple(
            each
            for each in decide(graph, files).planned
            if each.runs and each.job.output.role in reached
        )
        with self._bars():
            result = self._do(Plan(jobs), records, Fanout(self.report))
        problems += [f"{each.job.rule.name}: {each.message}" for each in result.failed]
        for vault in reached:
            with contextlib.suppress(StepFailed):  # the next run sweeps as well
                _sweep_stale_copies(self.stand.vaults[vault])
        return result

    def _let_go(self, log: RunLog) -> list[str]:
        """Remove the sets that the retention lets go; return what could not be removed."""
        policy = Policy(self.stand.settings.stack.keep)
        problems = []
        for verdict in judge(self.stand.sets(), policy, datetime.now(UTC)):
            if verdict.keep:
                continue
            runtag = verdict.backup.runtag
            log.write("retention", f"{runtag} is removed: {verdict.why}")
            self.report.tell(f"removed {runtag}: {verdict.why}")
            try:
                remove_set(self.stand.host, self.stand.backups, runtag)
            except IotstackError as error:
                problems.append(f"retention: {error}")
        return problems

    def _verdict(self, problems: list[str], warnings: list[str], *, made_all: bool) -> ExitCode:
        again = f"The same command with --runtag '{self.runtag}' does what is missing."
        if not made_all:
            self.report.fail(f"Backup {self.runtag} is not complete. {again}")
        elif problems:
            self.report.fail(f"Backup {self.runtag} is whole here, but not all went well. {again}")
        elif warnings:
            self.report.warn(f"Backup {self.runtag} finished with warnings:")
        else:
            self.report.tell(f"Backup {self.runtag} is complete.", style="green")
        for line in problems:
            self.report.fail(f"  {line}")
        for line in warnings:
            self.report.warn(f"  {line}")
        if not made_all:
            return ExitCode.FAILED
        return ExitCode.WARNINGS if problems or warnings else ExitCode.GOOD

    def _summary(self, manifest: Manifest | None, result: RunResult, took: str) -> None:
        """Show a table of the parts to a person who watches."""
        if not self.report.live or manifest is None:
            return
        arrived = {
            (output.role, output.path)
            for each in result.jobs
            if not each.message
            for output in each.job.outputs
        }
        rows = []
        for part in manifest.parts:
            copies = [v for v in self.stand.vaults if (v, part.file) in arrived]
            rows.append(
                (
                    part.kind,
                    part.file if not part.error else "",
                    size_text(part.size_bytes) if not part.error else "",
                    duration_text(part.seconds) if not part.error else "",
                    "failed" if part.error else "complete",
                    ", ".join(copies),
                )
            )
        self.report.table(
            ("part", "file", "size", "time", "state", "copied to"), rows, right=(2, 3)
        )
        self.report.tell(f"{self.stand.backups} · {took}")

    @contextlib.contextmanager
    def _bars(self) -> Iterator[None]:
        self.report.start_bars()
        try:
            yield
        finally:
            self.report.stop_bars()


def _sweep_stale_copies(place: Place) -> None:
    """Remove the partial copies of dead runs; a young one may be another Pi's that is sending."""
    oldest_s = time.time() - STALE_COPY.total_seconds()
    stale = [
        f"{place.root}/{name}"
        for name, fact in place.names(place.root).items()
        if name.endswith(PARTIAL)
        and split_set_name(name.removesuffix(PARTIAL))
        and fact.modified_s < oldest_s
    ]
    if stale:
        place.remove(stale)


def remove_set(host: LocalHost, folder: str, runtag: str) -> None:
    """Remove all files of a set; one that is half removed is listed by nobody.

    Its manifest becomes the mark of the removal first, so a crash in between leaves a mark that
    the next run finishes.
    """
    mark = f"{folder}/{runtag}.{REMOVING_ENDING}"
    manifest = f"{folder}/{runtag}.{KINDS['manifest']}"
    if os.path.exists(manifest):
        host.rename(manifest, mark)
    elif not os.path.exists(mark):
        host.append(mark, "{}")
    names = files_of(runtag)
    partial = f"{runtag}.{KINDS['log']}{PARTIAL}"
    host.remove(f"{folder}/{name}" for name in (*names[1:], partial))
    host.remove([mark])
