"""A rehearsed restore: all of it but the swap, in a scratch folder that is removed again.

It holds no lock of the stack, so that a backup at night need not wait for it.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from ...backups.archive_records import records_in
from ...backups.bundles import RECIPES
from ...backups.manifest import Manifest, utc_text
from ...backups.verifications import HERE, PROGRAM, Verification, damage_found, in_places
from ...core.errors import ExitCode, Interrupted, IotstackError, Refused, StepFailed
from ...core.processes import signals_raised
from ...core.runtag import LATEST
from ...core.stack_folders import BACKUPS, RESTORE
from ...databases.influxdb.dump import BACKUP_INSIDE
from ...databases.sql.read_dump import SqlReport
from ...databases.sql.servers import ENGINES, MARIADB, SqlServer, rows_told
from ...engine.executor import Run, RunResult
from ...engine.journal import Journal
from ...engine.memory_ledger import MemoryRecords
from ...engine.plan import decide, resolve
from ...engine.steps import HostAccess
from ...environment.environment import Environment, stat_everywhere
from ...environment.stack_host import docker_words
from ...hosts.base import ANY_EXIT, Command
from ...hosts.inspect import root_words
from ...hosts.local import LocalHost, locked, state_folder, words_of
from ...hosts.trust import Trust
from ...parts.bundle import DUMP
from ...reporting.report import Report, duration_text, size_text
from ...settings.model import Settings
from ...stack.compose import inspect_all, named
from ...stack.stop_start import wait_for_orphans
from ...vaults.access import refuse_shut
from ...workflows.rehearse import RehearsalFacts, rehearsal_book, rehearsal_targets
from ...workflows.restore import SqlImport, undoable
from ..backup.coverage import settings_for
from ..catalog.copies import VAULT, Copy, find_copy, newer_elsewhere, places_meant
from ..shared.backup_warnings import damaged_told, told_of_data
from ..undo.interrupted import Owing
from .disk_checks import sizes_unpacked
from .selection import left_out_text

SCRATCH = "rehearsal"
DATABASES = {
    "influx": "InfluxDB",
    **{each.name: each.title for each in ENGINES.values()},
    **{name: f"the database of {name}" for name in RECIPES},
}
PULL_LIMIT_S = 1800.0
REMOVE_LIMIT_S = 3600.0


def rehearse(settings: Settings, runtag: str, at: str, report: Report) -> int:
    """Rehearse the restore of one copy, record success, return the exit code.

    In any case, the scratch folder and the container are removed; after a SIGKILL by the next
    rehearsal.
    """
    environment = Environment.of(settings)
    try:
        with signals_raised():
            checks = environment.checks.newest()
            asked = at or (VAULT if environment.vaults else HERE)
            place = places_meant(environment, asked, one=True)[0]
            copy = find_copy(environment, runtag, place, checks, report.warn, named="--runtag ")
            if runtag == LATEST and not at:
                for told in newer_elsewhere(environment, copy, checks):
                    report.warn(told)
            refuse_shut(copy.storage, map(copy.path, copy.backup.parts))
            with _scratch_folder(environment) as scratch:
                return _Rehearsal(environment, copy, scratch, report).run()
    except Interrupted as error:
        report.fail(f"The rehearsal was {error}. The stack was not changed.")
        return error.exit_code
    finally:
        environment.close()


@contextlib.contextmanager
def _scratch_folder(environment: Environment) -> Iterator[str]:
    """Yield an empty folder beside the stack, or in a laptop's state folder; then remove it."""
    stack = environment.settings.stack.folder
    base = f"{stack}/{RESTORE}" if os.path.isdir(stack) else state_folder()
    host = LocalHost(base)
    as_root = root_words(host, "this machine", sudo=environment.settings.stack.sudo)
    try:
        os.makedirs(base, mode=0o700, exist_ok=True)
    except OSError as error:
        raise Refused(f"Cannot create {base}: {words_of(error)}.") from error
    with locked(f"{base}/.{SCRATCH}.lock", "a rehearsal"):
        scratch = f"{base}/{SCRATCH}"
        _clear(environment.settings, host, scratch, as_root)
        os.mkdir(scratch, mode=0o700)
        try:
            yield scratch
        finally:
            _clear(environment.settings, host, scratch, as_root)


def _owing(settings: Settings, host: LocalHost, scratch: str, as_root: tuple[str, ...]) -> Owing:
    trust = Trust(host, posixpath.dirname(scratch), as_root)
    return Owing(settings, host, scratch, lambda: as_root, trust)


def _clear(settings: Settings, host: LocalHost, scratch: str, as_root: tuple[str, ...]) -> None:
    """Undo what a dead rehearsal left running, then remove its folder."""
    if host.stat([_journal(scratch)]):
        owing = _owing(settings, host, scratch, as_root)
        owing.believe(_journal(scratch))
        wait_for_orphans(host, _guard(scratch))
        journal = owing.journal(_journal(scratch), guard=_guard(scratch))
        journal.recover(owing.lines(_journal(scratch)))
    host.run(Command((*as_root, "rm", "-rf", "--", scratch), timeout_s=REMOVE_LIMIT_S))


def _journal(scratch: str) -> str:
    return f"{scratch}/journal"


def _guard(scratch: str) -> str:
    return f"{scratch}/.commands"


class _Rehearsal:
    """A rehearsal of one copy."""

    def __init__(self, environment: Environment, copy: Copy, scratch: str, report: Report) -> None:
        self.environment = environment
        self.scratch = scratch
        self.report = report
        self.host = LocalHost(scratch)
        try:
            self.manifest: Manifest | None = copy.manifest()
        except ValueError as error:
            raise StepFailed(
                f"The manifest of {copy.runtag} {in_places(copy.at)} is damaged: {error}. "
                f"Rehearse another copy (--at). To list the copies: inv show '{copy.runtag}'"
            ) from error
        # Its contents are what its manifest lists, not every file with its name.
        self.copy = replace(copy, backup=replace(copy.backup, manifest=self.manifest))

    def run(self) -> int:
        """Run it, and report the results."""
        copy = self.copy
        facts = self._facts()
        self._refuse_without_room(facts)
        self.report.tell(
            f"rehearsing {copy.runtag} of {copy.at} ({size_text(copy.backup.size_bytes)})"
        )
        if copy.in_place:  # it is read in place
            os.symlink(copy.folder, f"{self.scratch}/{BACKUPS}")
        os.makedirs(f"{self.scratch}/{RESTORE}/{copy.runtag}", mode=0o700)
        result = self._do(facts)
        if result.failed:
            return self._failed(result)
        return self._good(facts, result)

    def _do(self, facts: RehearsalFacts) -> RunResult:
        storages = {"pi": self.host, "from": self.copy.storage}
        roots = {"pi": self.scratch, "from": self.copy.folder}
        targets = rehearsal_targets(self.copy.runtag, facts)
        graph = resolve(rehearsal_book(), targets, roots, facts)
        files, _ = stat_everywhere(graph.files, storages)
        self.report.start_bars()
        try:
            return Run(
                decide(graph, files),
                storages,
                store=MemoryRecords(records_in(self.manifest, self.copy.runtag)),
                journal=Journal(self.host, _journal(self.scratch), undoable()),
                reporter=self.report,
                jobs_at_once=1,  # nothing waits for it, and the stack keeps running beside it
            ).do()
        finally:
            self.report.stop_bars()

    # Checks

    def _facts(self) -> RehearsalFacts:
        settings, copy = self.environment.settings, self.copy
        name = "this machine"
        as_root = root_words(self.host, name, sudo=settings.stack.sudo)
        docker: tuple[str, ...] = ()
        image = ""
        images: dict[str, str] = {}
        loads: list[SqlImport] = []
        if set(copy.backup.parts) & set(DATABASES):
            try:
                docker = docker_words(self.host, name, as_root)
            except Interrupted:
                raise
            except IotstackError as error:
                told = ", ".join(
                    DATABASES[kind] for kind in DATABASES if kind in copy.backup.parts
                )
                self.report.warn(f"{told} is not loaded, its dump is only checked: {error}")
        if "influx" in copy.backup.parts and docker:
            image = self._image(docker, self._influx_name(docker), "InfluxDB")
        for load in self._loads() if docker else ():
            server = load.server
            if server.container in self._with_timescale():
                self.report.warn(f"{server.title} has TimescaleDB: its dump is only checked.")
                images[server.container] = ""
                continue
            images[server.container] = self._image(docker, server.container, server.title)
            loads += [load] if images[server.container] else []
        if "influxdb2" in copy.backup.parts:
            self.report.warn(
                "InfluxDB 2 is restored by hand: its part is not loaded. To verify it: inv verify"
            )
        parts = {part.kind: part for part in self.manifest.made} if self.manifest else {}
        return RehearsalFacts(
            kinds=tuple(kind for kind in copy.backup.parts if kind != "influxdb2"),
            in_place=copy.in_place,
            access=HostAccess("pi", as_root, docker, _guard(self.scratch)),
            compose=(),
            previous=f"{self.scratch}/{RESTORE}/previous",
            items=(),
            running=(),
            expected=(),
            bare=False,
            server=None,
            server_there=False,
            databases=(),
            dump_inside=f"{BACKUP_INSIDE}/influx",
            free_bytes=self.host.free_bytes(self.scratch) or 0,
            limit_s=settings.influx.limit_s,
            image=image,
            images=images,
            loads=tuple(loads),
            in_manifest=parts["influx"].facts if "influx" in parts else {},
            included=self.manifest.included("general") if self.manifest else (),
            outside_paths=self.manifest.included("outside") if self.manifest else (),
        )

    def _influx_name(self, docker: tuple[str, ...]) -> str:
        """Return the container of the dump, by the manifest, or else the one here."""
        parts = self.manifest.made if self.manifest else ()
        told = next((e.facts.get("container") for e in parts if e.kind == "influx"), "")
        if told:
            return str(told)
        found = inspect_all(self.host, docker)
        return settings_for(self.host, self.environment.settings, found, docker).influx.container

    def _loads(self) -> Iterator[SqlImport]:
        """Return the SQL dumps in the manifest, each with a separate folder."""
        for part in self.manifest.made if self.manifest else ():
            for told in part.facts.get("servers", ()):
                stage = f"{self.scratch}/{RESTORE}/{self.copy.runtag}"
                data = f"{stage}/databases/{told['container']}"
                recipe = part.kind if part.kind in RECIPES else ""
                engine = MARIADB.name if recipe else part.kind
                inside = told.get("inside") or posixpath.join(*ENGINES[engine].homes[0])
                server = SqlServer(told["container"], engine, data, inside.rstrip("/"))
                plain = DUMP if recipe else server.member.removesuffix(".gz")
                staged = f"{stage}/{part.kind}/{plain}"
                yield SqlImport(server, staged, data, aside="", used="", part=recipe)

    def _with_timescale(self) -> set[str]:
        """Return the containers whose dumps a restore does not load."""
        parts = self.manifest.made if self.manifest else ()
        servers = (each for part in parts for each in part.facts.get("servers", ()))
        return {str(each["container"]) for each in servers if each.get("timescaledb")}

    def _image(self, docker: tuple[str, ...], name: str, title: str) -> str:
        """Return an image to load a dump into, or print a message and return ''."""
        try:
            return self._recorded_image(docker, name)
        except Interrupted:
            raise
        except IotstackError as error:
            self.report.warn(f"{title} is not loaded, its dump is only checked: {error}")
            return ""

    def _recorded_image(self, docker: tuple[str, ...], name: str) -> str:
        """Return the image that the dump was made with: by id, by digest, by name; or pulled.

        Raises StepFailed if none is available.
        """
        held = self.manifest.containers if self.manifest else ()
        recorded = next((each for each in held if each.name == name), None)
        if recorded is None:
            there = named(inspect_all(self.host, docker), name)
            if there is None:
                raise Refused(f"its image is unknown: the backup lists no container {name}.")
            recorded = there.container
        plain = recorded.image.partition("@")[0]
        by_digest = f"{plain.rpartition(':')[0] or plain}@{recorded.digest}"
        wanted = [recorded.image_id, *([by_digest] if recorded.digest else []), recorded.image]
        for each in wanted:
            if not self.host.run(Command((*docker, "image", "inspect", each), ANY_EXIT)).exit_code:
                return each
        self.report.tell(f"pulling {wanted[1]}")
        self.host.run(Command((*docker, "pull", "--quiet", wanted[1]), timeout_s=PULL_LIMIT_S))
        return wanted[1]

    def _refuse_without_room(self, facts: RehearsalFacts) -> None:
        needed = sizes_unpacked(self.copy.backup, self.manifest, fetched=not self.copy.in_place)
        total = sum(needed.values())
        if facts.free_bytes < total:
            listed = ", ".join(
                f"{size_text(size)} for {what}" for what, size in needed.items() if size
            )
            raise Refused(
                f"{size_text(facts.free_bytes)} are free in {os.path.dirname(self.scratch)}, but "
                f"a rehearsal needs about {size_text(total)}: {listed}. Everything is removed "
                "afterwards."
            )

    # Messages

    def _failed(self, result: RunResult) -> int:
        if result.damages:
            made = self.manifest.finished_utc if self.manifest else ""
            copy = self.copy
            self.environment.checks.add(damage_found(copy.runtag, copy.at, made, result.damages))
        self.report.failed(result.failed)
        self.report.fail(
            f"The rehearsal of {self.copy.runtag} failed. The stack was not changed. To verify "
            f"the copy in {self.copy.at}: inv verify --runtag '{self.copy.runtag}' --at "
            f"{self.copy.at}"
        )
        return ExitCode.FAILED

    def _good(self, facts: RehearsalFacts, result: RunResult) -> int:
        copy = self.copy
        loaded = bool(facts.image) or "influx" not in facts.kinds
        dumped = set(facts.kinds) & {*ENGINES, *RECIPES}
        loaded &= {each.part or each.server.engine for each in facts.loads} == dumped
        loaded &= all(facts.images.values()) and "influxdb2" not in copy.backup.parts
        unread = self._unread(facts)
        if not unread:
            self.environment.checks.add(
                Verification(
                    runtag=copy.runtag,
                    at=copy.at,
                    utc=utc_text(datetime.now(UTC)),
                    how="restore" if loaded else "unpack",
                    good=True,
                    program=PROGRAM,
                    made=self.manifest.finished_utc if self.manifest else "",
                )
            )
        took = duration_text(sum(each.seconds for each in result.jobs))
        what = "restored" if loaded else "unpacked, but not loaded into all its databases,"
        self.report.write(
            f"{copy.runtag} of {copy.at} was {what} in a scratch folder and verified in {took}; "
            "scratch data removed."
        )
        lacking = self._tell_proven(facts)
        for text in (*result.warnings, *lacking, *unread, *told_of_data(self.manifest)):
            self.report.warn(f"  {text}")
        damaged = damaged_told(self.manifest)
        if damaged:
            self.report.warn(f"  {damaged}")
        good = not (result.warnings or lacking or unread or damaged)
        good &= loaded and not any(each.is_bad for each in copy.passed)
        return ExitCode.GOOD if good else ExitCode.WARNINGS

    def _unread(self, facts: RehearsalFacts) -> tuple[str, ...]:
        """Return why the copy is not recorded as good, '' if it is.

        A rehearsal reads no texts, no encryption record and no part that is restored by hand.
        """
        copy = self.copy
        verify = f"inv verify --runtag '{copy.runtag}' --at {copy.at}"
        found = []
        left = sorted({*copy.backup.parts} - {*facts.kinds})
        if left:
            parts = ", ".join(f"{each} part" for each in left)
            found.append(
                f"It is not recorded as verified, because its {parts} was not read. To "
                f"verify it: {verify}"
            )
        check = self.environment.checks.newest().get((copy.runtag, copy.at))
        made = self.manifest.finished_utc if self.manifest else ""
        if check and not check.good and check.made in ("", made):
            found.append(
                "It is still recorded as damaged, because its last verification, which reads "
                f"more, failed: {' '.join(check.problems)} To verify it again: {verify}"
            )
        return tuple(found)

    def _tell_proven(self, facts: RehearsalFacts) -> tuple[str, ...]:
        """Print what was counted in loaded databases; return what the backup lacks."""
        count = facts.count.count
        if count:
            values = "" if count.points is None else f", {count.points:,} values"
            self.report.write(
                f"  InfluxDB had {len(count.databases):,} databases, about {count.series:,} "
                f"series{values}"
            )
        loads: dict[str, list[SqlReport]] = {}
        for each in facts.loads:
            report = facts.proven[each.server.container]
            loads.setdefault(each.part or each.server.engine, []).append(report)
        for part, reports in loads.items():
            self.report.write(f"  {rows_told(part, reports)} loaded and counted")
        if not self.manifest:
            return ()
        left_out = (left_out_text(*each) for part in self.manifest.made for each in part.left_out)
        return (*self.manifest.lacks, *left_out)
