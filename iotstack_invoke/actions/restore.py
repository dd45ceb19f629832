"""One restore from the first look to the last word, and the undo of the last one.

lock → undo what a dead run left → look → fetch and stage → confirm → switch → report. Until the
switch nothing of the stack is touched; after it, every step has an undo until the commit.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import posixpath
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ..engine import Run, RunResult, signals_raised
from ..errors import ExitCode, Interrupted, NotFound, Refused, UsageError
from ..hosts import LocalHost
from ..journal import Journal
from ..log import LogWatcher, RunLog
from ..manifest import Manifest, read_manifest
from ..plan import Plan, decide, resolve
from ..report import Fanout, Report, duration_text, size_text
from ..rulebooks.restore import (
    RESTORE,
    Item,
    RestoreFacts,
    aside_folder,
    restore_book,
    stages,
    undoable,
    used_folder,
)
from ..rules import KINDS, PARTS
from ..runtag import LATEST, read_runtag
from ..services.compose import COMPOSE_FILES, Found, compose_words, inspect_all, is_top_file, named
from ..services.influx import BACKUP_INSIDE
from ..services.influx_load import Server
from ..services.stack import UseStage, wait_for_orphans
from ..sets import BackupSet, gather_sets
from ..settings import Options, Settings
from ..steps import Command, Place, Record
from ..targets import ANY_EXIT, Target, device, entries, locked_target, open_target, read_text
from ..vaults import vault_place
from .backup import look_everywhere

FOLDERS = ("services", "volumes")
INFLUX_FOLDER = "volumes/influxdb"
EMPTY_FOLDERS = (INFLUX_FOLDER, "volumes/nextcloud")
"""In each general part as empty folders: their data are elsewhere, or nowhere."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for."""

    runtag: str
    host: str = ""
    source: str = ""
    only: tuple[str, ...] = ()
    live: str = ""
    yes: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Where the archives come from: a place, and the folder in it."""

    place: Place
    folder: str
    in_place: bool
    """It is the target's own backups/: nothing has to be fetched."""
    name: str


class Ledger:
    """Records in memory: what a restore stages is found again by looking at it."""

    def __init__(self, records: Mapping[str, Record]) -> None:
        self._records = dict(records)

    def known(self) -> Mapping[str, Record]:
        """Return the records by output."""
        return self._records

    def add(self, record: Record) -> None:
        """Keep one more."""
        self._records[record.output] = record


def restore(settings: Settings, wish: Wish, options: Options, report: Report) -> int:
    """Restore a backup and return the exit code; raises IotstackError where it was refused."""
    try:
        with signals_raised(), open_target(settings, wish.host) as target:
            _refuse_live(target, wish)
            with _source(settings, wish, target) as source:
                chosen = _Restore(settings, target, source, wish, report)
                if options.dry_run:
                    return chosen.show()
                with locked_target(target, f"restore {chosen.runtag}"):
                    return chosen.run(options)
    except Interrupted as error:
        report.fail(f"The restore was {error}. The stack is as it was before.")
        return error.exit_code


def _refuse_live(target: Target, wish: Wish) -> None:
    if target.role == "live" and wish.live != (wish.host or "this"):
        named_again = wish.host or "this"
        raise Refused(
            f"{target.name} is live in hosts.toml, and a restore replaces its services and "
            f"volumes. If that is meant, name it a second time: --live {named_again}"
        )


@contextlib.contextmanager
def _source(settings: Settings, wish: Wish, target: Target) -> Iterator[Source]:
    """Yield where the archives come from: a vault, the target's own backups, or a folder."""
    asked = wish.source or ("vault" if settings.vaults else "here")
    vaults = {each.name: each for each in settings.vaults}
    if asked == "here":
        yield Source(target.host, target.backups, True, f"{target.name}:backups")
        return
    if asked == "vault" and not vaults:
        raise UsageError("--from vault: hosts.toml names no vault.")
    vault = next(iter(vaults.values())) if asked == "vault" else vaults.get(asked)
    if vault is None:
        if "/" not in asked and asked != ".":
            known = ", ".join(["vault", "here", *vaults])
            raise UsageError(f"--from {asked}: write one of {known}, or a folder (./{asked}).")
        folder = os.path.abspath(os.path.expanduser(asked))
        yield Source(LocalHost(folder, asked), folder, False, asked)
        return
    place = vault_place(vault)
    try:
        yield Source(place, vault.folder, False, vault.name)
    finally:
        place.close()


def _choose(source: Source, asked: str) -> tuple[BackupSet, Manifest | None]:
    """Return the backup that was asked for, and its manifest where it has one."""
    sets = gather_sets(source.place.names(source.folder), {})
    if asked == LATEST:
        whole = [each for each in sets if "manifest" in each.files] or list(sets)
        if not whole:
            raise NotFound(f"There is no backup in {source.name} ({source.folder}).")
        backup = whole[0]
    else:
        runtag = read_runtag(asked)
        found = {each.runtag: each for each in sets}
        if runtag not in found:
            near = difflib.get_close_matches(runtag, found, 3, 0.4) or list(found)[:3]
            offer = f" Nearest: {', '.join(near)}." if near else " There is none at all."
            raise NotFound(f"There is no backup {runtag} in {source.name}.{offer}")
        backup = found[runtag]
    if "manifest" not in backup.files:
        return backup, None
    path = f"{source.folder}/{backup.runtag}.{KINDS['manifest']}"
    with source.place.read(path) as stream:
        text = stream.read().decode("utf-8")
    try:
        return backup, read_manifest(text)
    except ValueError as error:
        raise Refused(f"The manifest of {backup.runtag} is damaged: {error}.") from error


class _Restore:
    """A restore of one backup to one target."""

    def __init__(
        self, settings: Settings, target: Target, source: Source, wish: Wish, report: Report
    ) -> None:
        self.settings = settings
        self.target = target
        self.source = source
        self.report = report
        self.backup, self.manifest = _choose(source, wish.runtag)
        self.wish = wish
        self.journal = Journal(target.host, target.journal, undoable())
        self.runtag = self.backup.runtag
        self.stage = f"{target.folder}/{RESTORE}/{self.runtag}"

    def show(self) -> int:
        """Print the plan; what is put in place is known when the archive is looked into."""
        facts = self._look()
        plan = self._plan(self._staging_targets(facts), facts)
        self._tell_what(facts)
        self.report.plan(plan)
        return ExitCode.GOOD

    def run(self, options: Options) -> int:
        """Restore under the lock."""
        recover(self.target, self.journal, self.report)
        facts = self._look()
        self._refuse_without_room(facts)
        self._tell_what(facts)
        _confirm(self.wish, self.runtag)
        host = self.target.host
        host.run(Command(("mkdir", "-p", "-m", "0700", "--", self.stage)))
        log = RunLog(self._log_path())
        watcher = Fanout(LogWatcher(log), self.report)
        ledger = Ledger(self._records())
        try:
            staged = self._do(self._staging_targets(facts), facts, ledger, watcher, options)
            if staged.failed:
                return self._end(staged, log, "Nothing of the stack was touched.")
            facts = self._with_items(facts)
            started = time.monotonic()
            target = [f"pi:restored/{self.runtag}"]
            result = self._do(target, facts, ledger, watcher, options)
            self._down_s = time.monotonic() - started
            if result.failed:
                return self._end(result, log, "The stack is as it was before.")
        except BaseException as error:
            log.write("restore", f"ended early: {error}")
            log.leave()
            raise
        self._clear_stage(facts)
        return self._good(facts, staged + result, log)

    # What there is.

    def _look(self) -> RestoreFacts:
        target, host = self.target, self.target.host
        there = entries(host, target.folder)
        found = inspect_all(host, target.docker)
        here = host.run(Command(("realpath", "--", target.folder))).out.strip()
        mine = [each for each in found if each.working_folder and each.working_folder == here]
        running = sorted((e for e in mine if e.container.running), key=lambda e: e.started)
        compose_file = next((n for n in COMPOSE_FILES if n in there), COMPOSE_FILES[0])
        compose = (
            *compose_words(host, target.docker),
            *("--project-directory", target.folder, "--file", f"{target.folder}/{compose_file}"),
        )
        kinds = tuple(kind for kind in PARTS if kind in self.backup.files)
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        return RestoreFacts(
            kinds=kinds,
            in_place=self.source.in_place,
            as_root=target.as_root,
            docker=target.docker,
            compose=compose,
            guard=target.guard,
            previous=f"{target.folder}/{RESTORE}/previous-{self.runtag}-{now}",
            items=(),
            running=tuple(each.container.name for each in running),
            expected=tuple(
                each.name
                for each in (self.manifest.containers if self.manifest else ())
                if each.running
            ),
            bare=not mine,
            server=self._server(found) if "influx" in kinds else None,
            dump_on_host=f"{target.folder}/backups/influxdb/db",
            dump_inside=posixpath.join(BACKUP_INSIDE, f"restore.{self.runtag}"),
            free_bytes=host.free_bytes(target.folder) or 0,
            limit_s=self.settings.influx.limit_s,
            volumes_apart="volumes" in there
            and device(host, f"{target.folder}/volumes") != device(host, target.folder),
        )

    def _server(self, found: tuple[Found, ...]) -> Server:
        name = self.settings.influx.container
        container = named(found, name)
        data = f"{self.target.folder}/{INFLUX_FOLDER}/data"
        if container is None:
            return Server(name, data)
        mounts = {each.inside: each.on_host for each in container.mounts}
        if BACKUP_INSIDE not in mounts:
            raise Refused(
                f"Container {name} on {self.target.name} does not map {BACKUP_INSIDE}, so it "
                "cannot see the dump. Add to its volumes in docker-compose.yml:\n"
                f"      - ./backups/influxdb/db:{BACKUP_INSIDE}"
            )
        return Server(name, mounts.get(posixpath.dirname(BACKUP_INSIDE), data))

    def _refuse_without_room(self, facts: RestoreFacts) -> None:
        general = self.backup.files.get("general")
        influx = self.backup.files.get("influx")
        parts = {part.kind: part for part in self.manifest.made} if self.manifest else {}
        unpacked = (
            int(parts["general"].facts.get("unpacked_bytes", 0)) if "general" in parts else 0
        )
        packed = sum(fact.size_bytes for kind, fact in self.backup.files.items() if kind in PARTS)
        unpacked = unpacked or (general.size_bytes * 3 if general else 0)
        dump = influx.size_bytes if influx else 0
        needed = (0 if facts.in_place else packed) + unpacked + 3 * dump
        if facts.free_bytes < needed:
            raise Refused(
                f"{self.target.name} has {facts.free_bytes:,} bytes free, and this restore needs "
                f"about {needed:,}: {0 if facts.in_place else packed:,} for the archives, "
                f"{unpacked:,} unpacked, three times {dump:,} for InfluxDB. What is replaced "
                "is kept as well. Nothing was changed."
            )

    def _records(self) -> dict[str, Record]:
        """Return what the manifest says of the archives, where they come from."""
        found = {}
        for part in self.manifest.made if self.manifest else ():
            name = f"from:{part.file}"
            found[name] = Record(name, part.size_bytes, part.sha256)
            held = f"pi:backups/{part.file}"
            found[held] = Record(held, part.size_bytes, part.sha256)
        return found

    # What is done.

    def _staging_targets(self, facts: RestoreFacts) -> list[str]:
        return [each.format(runtag=self.runtag) for each in stages({}, facts)]

    @property
    def _places(self) -> dict[str, Place]:
        return {"pi": self.target.host, "from": self.source.place, "dump": self.target.host}

    def _plan(self, targets: list[str], facts: RestoreFacts) -> Plan:
        roots = {
            "pi": self.target.folder,
            "from": self.source.folder,
            "dump": facts.dump_on_host,
        }
        graph = resolve(restore_book(), targets, roots, facts)
        files, _ = look_everywhere(graph.files, self._places)
        return decide(graph, files)

    def _do(
        self,
        targets: list[str],
        facts: RestoreFacts,
        ledger: Ledger,
        watcher: Fanout,
        options: Options,
    ) -> RunResult:
        self.report.start_bars()
        try:
            return Run(
                self._plan(targets, facts),
                self._places,
                ledger=ledger,
                journal=self.journal,
                watcher=watcher,
                jobs_at_once=options.jobs,
            ).do()
        finally:
            self.report.stop_bars()

    def _with_items(self, facts: RestoreFacts) -> RestoreFacts:
        """Return the facts with what is swapped: each entry of services/ and volumes/."""
        if "general" not in facts.kinds:
            return facts
        host, root = self.target.host, self.target.as_root
        stack = f"{self.stage}/stack"
        top = entries(host, stack, root)
        items = []
        for folder in FOLDERS:
            staged = f"{stack}/{folder}"
            if folder == "volumes" and facts.volumes_apart:
                staged = f"{self.target.folder}/volumes/.restore-{self.runtag}/volumes"
            items += [
                self._item(facts, f"{folder}/{name}", f"{folder}/{name}", f"{staged}/{name}")
                for name in sorted(entries(host, staged, root))
                if f"{folder}/{name}" not in EMPTY_FOLDERS
            ]
        there = entries(host, self.target.folder)
        for name in sorted(top):
            if top[name] == "f" and is_top_file(name):
                live = name if name not in there else f"{name}.{self.runtag}"
                if live not in there:
                    items.append(self._item(facts, name, live, f"{stack}/{name}"))
        chosen = _chosen(items, self.target.folder, self.wish.only)
        return replace(facts, items=tuple(chosen))

    def _item(self, facts: RestoreFacts, name: str, live: str, staged: str) -> Item:
        return Item(
            staged=staged,
            live=f"{self.target.folder}/{live}",
            aside=f"{aside_folder(facts, name)}/{name}",
            used=f"{used_folder(facts, name)}/{name}",
        )

    def _clear_stage(self, facts: RestoreFacts) -> None:
        dump = posixpath.join(facts.dump_on_host, f"restore.{self.runtag}")
        volumes = f"{self.target.folder}/volumes/.restore-{self.runtag}"
        words = (*self.target.as_root, "rm", "-rf", "--", self.stage, dump, volumes)
        self.target.host.run(Command(words, ANY_EXIT, 3600))

    # What is said.

    def _log_path(self) -> str:
        folder = self.settings.stack.folder if not self.source.in_place else self.target.folder
        local = isinstance(self.target.host, LocalHost)
        base = f"{folder}/backups" if local else os.path.expanduser("~/.local/state/iotstack")
        os.makedirs(base, mode=0o700, exist_ok=True)
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        return f"{base}/{self.runtag}.restore-{now}.log"

    def _tell_what(self, facts: RestoreFacts) -> None:
        made = f"made on {self.manifest.host}" if self.manifest else "unproven: it has no manifest"
        sizes = ", ".join(
            f"{kind} {size_text(self.backup.files[kind].size_bytes)}" for kind in facts.kinds
        )
        self.report.write(
            f"Restore {self.runtag} ({made}; {sizes}) from {self.source.name} to "
            f"{self.target.name}:{self.target.folder}"
        )
        stopped = ", ".join(facts.running) or "nothing, for nothing runs"
        self.report.write(f"  stops and starts again: {stopped}")
        self.report.write(f"  what is replaced stays in: {facts.previous}")

    def _end(self, result: RunResult, log: RunLog, what_is_left: str) -> int:
        log.write("restore", what_is_left)
        log.finish(os.rename)
        for each in result.failed:
            self.report.fail(f"{each.job.rule.name}: {each.message}")
        self.report.fail(f"{self.runtag} was not restored. {what_is_left} The log: {log.path}")
        return ExitCode.FAILED

    def _tell_beside(self, facts: RestoreFacts) -> None:
        """Tell which top files lie beside the present ones, and which keys differ: names only."""
        for item in facts.items:
            name = posixpath.basename(item.staged)
            if posixpath.basename(item.live) == name:
                continue
            told = f"  {name} was left as it is; the backup's is beside it as {name}.{self.runtag}"
            if name.endswith(".env"):
                here = read_text(self.target.host, f"{self.target.folder}/{name}")
                differing = differing_keys(here, read_text(self.target.host, item.live))
                told += f"; they differ in {', '.join(differing) or 'nothing'}"
            self.report.write(told)

    def _good(self, facts: RestoreFacts, result: RunResult, log: RunLog) -> int:
        log.write("restore", f"{self.runtag} is restored")
        log.finish(os.rename)
        host = f" --host {self.target.name}" if self.target.name != "this machine" else ""
        self.report.write(
            f"{self.runtag} is restored; the stack was away for {duration_text(self._down_s)}. "
            f"Back to before: inv undo{host}"
        )
        self._tell_beside(facts)
        for text in result.warnings:
            self.report.warn(f"  {text}")
        return ExitCode.WARNINGS if result.warnings else ExitCode.GOOD


def differing_keys(here: str, there: str) -> tuple[str, ...]:
    """Return the names of the keys that two env files do not have alike; never their values."""
    mine, theirs = _read_env(here), _read_env(there)
    return tuple(sorted(k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k)))


def _read_env(text: str) -> dict[str, str]:
    pairs = (
        line.partition("=") for line in text.splitlines() if not line.lstrip().startswith("#")
    )
    return {key.removeprefix("export ").strip(): value for key, equals, value in pairs if equals}


def _chosen(items: list[Item], folder: str, only: tuple[str, ...]) -> list[Item]:
    wanted = [each for each in only if not each.startswith("influxdb:")]
    if not only:
        return items
    names = {f"{folder}/{top}/{name}" for name in wanted for top in FOLDERS}
    return [item for item in items if item.live in names]


def recover(target: Target, journal: Journal, report: Report) -> None:
    """Undo what a dead run left on the target, when its last command has ended."""
    lines = read_text(target.host, target.journal).splitlines()
    if not lines:
        return
    wait_for_orphans(target.host, target.guard)
    for undone in journal.recover(lines):
        report.tell(f"undone, left by a run that died: {undone}")


def _confirm(wish: Wish, runtag: str) -> None:
    if wish.yes:
        return
    if not sys.stdin.isatty():
        raise Refused("Nobody is there to confirm. If it is meant, add --yes.")
    name = wish.host or "this machine"
    answer = input(f"Type '{name}' to restore {runtag} there: ")
    if answer.strip() != name:
        raise Refused("Not confirmed; nothing was changed.")


def undo(settings: Settings, wish: Wish, report: Report) -> int:
    """Go back to the state before the last restore, and return the exit code."""
    with (
        signals_raised(),
        open_target(settings, wish.host) as target,
        locked_target(target, "undo"),
    ):
        journal = Journal(target.host, target.journal, undoable())
        if read_text(target.host, target.journal):
            recover(target, journal, report)
            report.write("A restore that did not end was undone. The stack is as it was before.")
            return ExitCode.GOOD
        kept = _last_journal(target)
        if not kept:
            raise NotFound(f"On {target.name} there is no restore that can be undone.")
        _confirm(wish, f"what was before {posixpath.basename(posixpath.dirname(kept))}")
        # From here on it is a restore that did not end: whatever happens, it is undone.
        # What has been live since is kept: the step that would remove it is left out.
        lines = read_text(target.host, kept).splitlines()
        wanted = [line for line in lines if f'"{UseStage.__name__}"' not in line]
        with target.host.create(f"{kept}.undo") as stream:
            stream.write("\n".join(wanted).encode())
        target.host.rename(f"{kept}.undo", target.journal)
        target.host.remove([kept])
        recover(target, journal, report)
        report.write(
            f"Undone. The stack on {target.name} is as it was before the last restore. What it "
            f"was since then is in {target.folder}/{RESTORE}; remove it when nobody needs it."
        )
        return ExitCode.GOOD


def _last_journal(target: Target) -> str:
    """Return the newest journal that a restore kept, '' where there is none."""
    folder = f"{target.folder}/{RESTORE}"
    words = ("find", folder, "-mindepth", "2", "-maxdepth", "2", "-name", "journal")
    told = target.host.run(Command((*target.as_root, *words, "-printf", "%T@ %p\n"), ANY_EXIT)).out
    found = sorted((line.split(" ", 1) for line in told.splitlines()), key=lambda e: float(e[0]))
    return found[-1][1] if found else ""
