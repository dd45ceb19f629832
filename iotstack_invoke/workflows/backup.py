"""How a backup is made: read it from top to bottom.

The parts are made in parallel; each is copied to every vault as soon as it is complete. When all
parts are done or failed, the manifest is written, and from it RESTORE.txt; both are copied after
the parts, the manifest last. A part that fails does not stop the others from being made and
copied.
"""

from __future__ import annotations

import hashlib
import io
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..archives.links_out import Packed
from ..archives.pack import PackStack, RemoveFolder, literal, tar_words
from ..backups.bundles import DUMP_FOLDER, RECIPES
from ..backups.holdings import Gone, answers_for, lacking_words, lost_databases, needed_of, told
from ..backups.losses import losses, way_out
from ..backups.manifest import (
    OUTSIDE,
    PIN_ENDING,
    RECORDS_ENDING,
    SQLITE,
    STAYS,
    LeftOut,
    Manifest,
    Part,
    older_part,
    read_manifest,
    utc_text,
)
from ..backups.names import COMMANDS_LOCK, KINDS, PARTS, WILDCARDS, split_set_name
from ..backups.sets import BackupSet, State
from ..backups.transfer import Claim, Send, hash_there, manifest_there
from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..core.stack_folders import BACKUPS
from ..databases.sql.servers import SqlServer
from ..databases.sqlite.files import COPIES, OUTSIDE_COPIES, CopySqlite
from ..engine.rules import Job, Rule, RuleBook, rule
from ..engine.steps import LACKING, File, HostAccess, Record, Step, StepContext
from ..hosts.base import Storage
from ..parts.bundle import RecipeInUse
from ..services.containers import Container
from ..stack.cold_copy import AtRest, CopyLinked, copy_at_rest
from ..stack.quiesce import Resume
from ..stack.stack_holdings import Outside, outermost

if TYPE_CHECKING:  # a rule imports the modules of parts that not every stack has
    from ..databases.influxdb.dump import InfluxFacts
    from ..databases.influxdb2.dump import Influx2Facts

PACK_LIMIT_S = 24 * 3600.0
SQL_LIMIT_S = 6 * 3600.0
"""The time limit of all dumps of one part."""
SQL_TRIES = 3
"""How many attempts each dump of a part gets: a failed one does not affect the others."""


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """Facts that were gathered before planning."""

    host: str
    program: str
    folder: str
    members: tuple[str, ...]
    kinds: tuple[str, ...] = tuple(k for k in PARTS if k not in RECIPES and k != "outside")
    as_root: tuple[str, ...] = ()
    exclusions: tuple[str, ...] = ()
    influx: InfluxFacts | None = None
    influx_error: str = ""
    influx2: Influx2Facts | None = None
    influx2_error: str = ""
    servers: tuple[SqlServer, ...] = ()
    """The database servers that are dumped as SQL."""
    told: tuple[str, ...] = ()
    """A message about it that is shown once, and is no warning."""
    recipes: tuple[RecipeInUse, ...] = ()
    """The services that have a part of their own, with their databases."""
    at_rest: tuple[AtRest, ...] = ()
    """What is stopped while it is copied."""
    included: tuple[str, ...] = ()
    """The members that are neither top files nor in services/ or volumes/."""
    linked: tuple[str, ...] = ()
    """The top files that are links; their targets are packed under their names."""
    outside: tuple[Outside, ...] = ()
    """Data of the stack outside of its folder."""
    outside_exclusions: tuple[str, ...] = ()
    """What is left out of that, as patterns of absolute paths."""
    limit_s: float = 3600.0
    started_utc: str = ""
    zone: str = ""
    expected_bytes: int = 0
    containers: tuple[Container, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    unused: tuple[str, ...] = ()
    """Paths in the folder of the stack that nothing of the stack uses."""
    volumes: tuple[Mapping[str, Any], ...] = ()
    """The local volumes with driver options, in the form of the manifest."""
    rows: tuple[str, ...] = ()
    """The lines of hosts.toml that define what a backup holds."""
    machine: str = ""
    """An id that tells the machine from others of its name."""
    idle_rows: Mapping[str, str] = field(default_factory=dict)
    """Messages on rows of [[services]] that match no container and no service of compose files."""
    warnings: tuple[str, ...] = ()
    claim: str = ""
    """The id of this run, and of runs that resume it; another machine's differs."""
    earlier_utc: frozenset[str] = frozenset()
    """When earlier runs of this set began; if empty, every such set in a vault is another's."""
    replaces: bool = False
    """Other sets of its name are replaced (--force)."""
    is_rebuilt: bool = False
    """All parts are made, even if they exist."""
    copies_wait: bool = False
    """It is not complete here yet: what it replaces in vaults is kept until then."""
    gone: tuple[Gone, ...] = ()
    """What the owner declared gone, which no set need hold to replace another."""
    far: bool = False
    """The stack is on another machine, where this tool is not installed."""
    stays: tuple[str, ...] = ()
    """The exclusions that no backup needs: a restore leaves such files where they are."""
    sized: tuple[str, ...] = ()
    """What containers mount of the stack, and the mount points in it."""
    before: Manifest | None = None
    """The set that this one is compared with."""
    replaced: Manifest | None = None
    """The set of its name that this one replaces."""
    text: bool = True
    """RESTORE.txt is among its files: a set that was finished without one is as good."""

    @property
    def access(self) -> HostAccess:
        """How steps access the host of the stack; a dump or a tar changes nothing there."""
        guard = posixpath.join(self.folder, BACKUPS, COMMANDS_LOCK)
        return HostAccess("pi", self.as_root, guard=guard)


def parts_of(wildcards: Mapping[str, str], facts: BackupFacts) -> tuple[str, ...]:
    """Return the parts of this stack, as files of the Pi."""
    return tuple(f"pi:{BACKUPS}/{wildcards['runtag']}.{KINDS[kind]}" for kind in facts.kinds)


@rule("pi:backups/{runtag}.general-backup.tar.gz", title="pack the stack")
def general_archive(job: Job) -> Iterator[Step]:
    """Copy the SQLite files, then pack compose files, services/ and volumes/ with the copies.

    Services to be copied while stopped are stopped, copied and started before, one by one.
    """
    facts: BackupFacts = job.facts
    copies = posixpath.join(facts.folder, COPIES)
    at_rest = tuple(path for each in facts.at_rest for path in each.paths)
    without = (*facts.exclusions, *map(literal, at_rest))
    yield CopySqlite(
        *(facts.access, facts.folder, facts.members, without, copies),
        far=facts.far,
        known=_known_sqlite(facts.before, "general"),
    )
    if facts.linked:
        yield CopyLinked(facts.access, facts.folder, facts.linked, copies)
    for each in facts.at_rest:
        yield from copy_at_rest(facts.access, facts.folder, each, copies)
    in_copies = (f"{posixpath.basename(copies)}/{each}" for each in facts.exclusions if at_rest)
    tar = tar_words(facts.as_root, facts.folder, (*facts.exclusions, *in_copies))
    limits = (PACK_LIMIT_S, facts.expected_bytes)
    sized = tuple(sorted({*facts.sized, *(facts.before.sizes if facts.before else ())}))
    told = {"included": list(facts.included)} if facts.included else {}
    yield PackStack(
        *(job.output, tar, facts.members, *limits, copies, facts.as_root, at_rest, sized),
        linked=facts.linked,
        packed=packed_in(facts),
        told=told,
    )
    yield RemoveFolder(facts.access, copies)


def packed_in(facts: BackupFacts) -> Packed:
    """Return what a backup holds, wherever it is, and what it leaves out."""
    own = (posixpath.normpath(posixpath.join(facts.folder, each)) for each in facts.members)
    outside = (each.path for each in facts.outside)
    return Packed(facts.folder, (*own, *outside), tuple(each.what for each in facts.left_out))


@rule("pi:backups/{runtag}.outside-backup.tar.gz", title="pack what lies outside")
def outside_archive(job: Job) -> Iterator[Step]:
    """Copy the SQLite files, then pack named volumes and included paths, by their paths from /."""
    facts: BackupFacts = job.facts
    copies = posixpath.join(facts.folder, OUTSIDE_COPIES)
    members = tuple(f".{each}" for each in outermost(each.path for each in facts.outside))
    without = tuple(each.lstrip("/") for each in facts.outside_exclusions)
    known = _known_sqlite(facts.before, OUTSIDE)
    yield CopySqlite(facts.access, "/", members, without, copies, far=facts.far, known=known)
    tar = tar_words(facts.as_root, "/", without)
    told = [
        {
            "path": each.path,
            "volume": each.volume,
            "key": each.key,
            "mounts": [list(pair) for pair in each.mounts],
            "restore_to": each.restore_to,
            "anonymous": each.anonymous,
            "ways": list(each.ways),
        }
        for each in facts.outside
    ]
    limits = (PACK_LIMIT_S, 0)
    sized = tuple(each.path.lstrip("/") for each in facts.outside)
    yield PackStack(
        *(job.output, tar, members, *limits, copies, facts.as_root),
        sized=sized,
        tops=(),
        packed=packed_in(facts),
        told={"outside": told},
    )
    yield RemoveFolder(facts.access, copies)


@rule("pi:backups/{runtag}.influx-backup.tar", retries=2, title="dump InfluxDB")
def influx_archive(job: Job) -> Iterator[Step]:
    """Dump every InfluxDB database into a new folder, verify it, pack it into one plain tar."""
    facts: BackupFacts = job.facts
    influx = facts.influx
    if influx is None:
        yield Fail(facts.influx_error)
        return
    from ..databases.influxdb.dump import (
        BACKUP_INSIDE,
        DumpInflux,
        SweepInflux,
        WriteQueries,
        reading_words,
        removal,
    )

    dump = DumpInflux(
        replace(facts.access, guard=""),
        container=influx.container,
        on_host=influx.backup_on_host and posixpath.join(influx.backup_on_host, job.runtag),
        inside=posixpath.join(BACKUP_INSIDE, job.runtag),
        limit_s=facts.limit_s,
    )
    yield dump
    yield WriteQueries(facts.access, influx.container, dump.inside)
    words = reading_words(dump, tar_words(facts.as_root, dump.on_host))
    data = influx.data_on_host and posixpath.relpath(influx.data_on_host, facts.folder)
    whose = (influx.container, influx.version)
    apart = tuple((name, posixpath.relpath(at, facts.folder)) for name, at in influx.apart)
    yield SweepInflux(job.output, words, *whose, facts.limit_s, data, apart)
    yield removal(dump)


@rule("pi:backups/{runtag}.influxdb2-backup.tar", retries=2, title="dump InfluxDB 2")
def influxdb2_archive(job: Job) -> Iterator[Step]:
    """Dump every bucket of InfluxDB 2 into a new folder, verify it, pack it into one plain tar."""
    facts: BackupFacts = job.facts
    influx = facts.influx2
    if influx is None:
        yield Fail(facts.influx2_error)
        return
    from ..databases.influxdb.dump import reading_words, removal
    from ..databases.influxdb2.dump import SweepInflux2, dump_of

    dump = dump_of(facts.access, influx, job.runtag, facts.limit_s)
    yield dump
    words = reading_words(dump, tar_words(facts.as_root, dump.on_host))
    places = (
        each and posixpath.relpath(each, facts.folder)
        for each in (influx.data_on_host, influx.store)
    )
    yield SweepInflux2(job.output, words, influx.container, influx.version, facts.limit_s, *places)
    yield removal(dump)


@rule("pi:backups/{runtag}.mariadb-backup.tar.gz", retries=2, title="dump MariaDB")
def mariadb_archive(job: Job) -> Iterator[Step]:
    """Dump every MariaDB with its users, routines and events, verify each, pack them."""
    yield dumps_of(job, "mariadb")


@rule("pi:backups/{runtag}.postgres-backup.sql.gz.tar", retries=2, title="dump PostgreSQL")
def postgres_archive(job: Job) -> Iterator[Step]:
    """Dump every PostgreSQL with its roles, verify each, pack them."""
    yield dumps_of(job, "postgres")


def recipe_archive_of(name: str) -> Rule:
    """Return the rule that makes the part of one recipe."""

    @rule(
        f"pi:backups/{{runtag}}.{PARTS[name]}",
        retries=2,
        name=f"{name}_archive",
        title=f"pack {name}",
    )
    def recipe_archive(job: Job) -> Iterator[Step]:
        """Make the service quiet, dump its database, pack both together, resume the service."""
        from ..databases.sql.dump import PackDumps

        facts: BackupFacts = job.facts
        (used,) = (each for each in facts.recipes if each.name == name)
        quiet = used.quiet(facts.access, posixpath.join(facts.folder, BACKUPS))
        if quiet:
            yield quiet
        folder = posixpath.join(facts.folder, used.recipe.folder)
        tar = tar_words(facts.as_root, folder, used.exclusions)
        files = (*tar, *(f"./{each}" for each in used.recipe.paths))
        docker = ("docker",)
        yield PackDumps(job.output, (used.server,), PACK_LIMIT_S, docker, files, DUMP_FOLDER)
        if quiet:
            yield Resume(quiet)

    return recipe_archive


def dumps_of(job: Job, engine: str) -> Step:
    """Return the step that dumps each server of one engine into the output."""
    from ..databases.sql.dump import PackDumps

    facts: BackupFacts = job.facts
    servers = tuple(each for each in facts.servers if each.engine == engine)
    return PackDumps(job.output, servers, SQL_LIMIT_S, tries=SQL_TRIES)


@rule("pi:backups/{runtag}.manifest.json", input=parts_of, always=True, title="write the manifest")
def manifest(job: Job) -> Iterator[Step]:
    """Write what was made, what was left out and why; without a manifest a set is unfinished."""
    yield WriteManifest(job.output, job.runtag, job.inputs, job.facts)


@rule(
    "pi:backups/{runtag}.RESTORE.txt",
    input="pi:backups/{runtag}.manifest.json",
    title="write RESTORE.txt",
)
def restore_text(job: Job) -> Iterator[Step]:
    """Write how to restore this very set by hand, without this tool."""
    yield WriteRestoreText(job.output, job.input, job.runtag)


def claim(job: Job, name: str) -> Iterator[Step]:
    """Yield the steps that keep other machines' sets of the same name out of a vault."""
    facts: BackupFacts = job.facts
    runtag = (split_set_name(name) or (name,))[0]
    file = File(job.output.role, f"{runtag}.{RECORDS_ENDING}", job.output.root)
    yield Claim(file, runtag, facts.host, facts.claim, facts.earlier_utc, replaces=facts.replaces)
    if facts.replaces:
        here = File("pi", f"{BACKUPS}/{runtag}.{KINDS['manifest']}", job.inputs[0].root)
        yield MakeWay(file, here, runtag, facts.claim, facts.gone)


def send_after(job: Job) -> Step:
    """Return the step that sends the first input, after the others have arrived in the vault."""
    source, *copies = job.inputs
    originals = [File("pi", f"{BACKUPS}/{copy.path}") for copy in copies]
    return Send(source, job.output, tuple(zip(originals, copies, strict=True)))


def copies_to(vault: str) -> tuple[Rule, ...]:
    """Return the rules that copy a set to one vault."""

    def to_vault(what: str) -> str:
        return f"copy {what} to {vault}"

    def part_of_set(wildcards: Mapping[str, str], facts: BackupFacts) -> tuple[str, ...]:
        name = wildcards["part"]
        runtag = (split_set_name(name) or (name,))[0]
        whole = (f"pi:{BACKUPS}/{runtag}.{KINDS['manifest']}",) if facts.copies_wait else ()
        return (f"pi:{BACKUPS}/{name}", *whole)

    @rule(
        f"{vault}:{{part}}",
        input=part_of_set,
        retries=2,
        resumes=True,
        elsewhere=True,
        title=to_vault("the {part} part"),
    )
    def offsite(job: Job) -> Iterator[Step]:
        """Copy a finished part to the vault, and compare its hash there."""
        yield from claim(job, job.wildcards["part"])
        yield Send(job.inputs[0], job.output)

    def text_and_parts(wildcards: Mapping[str, str], facts: BackupFacts) -> tuple[str, ...]:
        runtag = wildcards["runtag"]
        parts = (f"{vault}:{runtag}.{PARTS[kind]}" for kind in facts.kinds)
        return (f"pi:{BACKUPS}/{runtag}.RESTORE.txt", *parts)

    def set_and_copies(wildcards: Mapping[str, str], facts: BackupFacts) -> tuple[str, ...]:
        *names, _ = _names(wildcards["runtag"], facts)
        return (f"pi:{BACKUPS}/{{runtag}}.manifest.json", *(f"{vault}:{n}" for n in names))

    @rule(
        f"{vault}:{{runtag}}.RESTORE.txt",
        input=text_and_parts,
        always=True,
        retries=2,
        elsewhere=True,
        title=to_vault("RESTORE.txt"),
    )
    def offsite_restore_text(job: Job) -> Iterator[Step]:
        """Copy RESTORE.txt, if there is something to restore."""
        yield from claim(job, job.output.path)
        yield send_after(job)

    @rule(
        f"{vault}:{{runtag}}.manifest.json",
        input=set_and_copies,
        always=True,
        retries=2,
        elsewhere=True,
        title=to_vault("the manifest"),
    )
    def offsite_manifest(job: Job) -> Iterator[Step]:
        """Copy the manifest after everything in it has arrived."""
        yield from claim(job, job.output.path)
        yield send_after(job)

    @rule(
        f"{vault}:{{runtag}}.backup-log.txt",
        input="pi:backups/{runtag}.backup-log.txt",
        elsewhere=True,
        title=to_vault("the log"),
    )
    def offsite_log(job: Job) -> Iterator[Step]:
        """Copy the log, last of all, when nothing will be added to it."""
        yield Send(job.input, job.output)

    return (offsite, offsite_restore_text, offsite_manifest, offsite_log)


def _compared(archive: Rule) -> Rule:
    """Return the rule of a part, which ends by comparing it with the one that it replaces."""

    def body(job: Job) -> Iterator[Step]:
        yield from archive.body(job)
        facts: BackupFacts = job.facts
        before = facts.replaced.made if facts.replaced and facts.is_rebuilt else ()
        kind = (split_set_name(posixpath.basename(job.output.path)) or ("", ""))[1]
        for part in before:
            if part.kind == kind and facts.replaced:
                yield KeepMore(job.output, replace(facts.replaced, parts=(part,)), facts)

    body.__doc__ = archive.body.__doc__
    return replace(archive, body=body)


def backup_book(vaults: tuple[str, ...]) -> RuleBook:
    """Return the rules of a backup that is copied to these vaults."""
    influx = (influx_archive, influxdb2_archive)
    files = (general_archive, outside_archive)
    archives = (*files, *influx, mariadb_archive, postgres_archive)
    return RuleBook(
        *(_compared(each) for each in (*archives, *map(recipe_archive_of, RECIPES))),
        manifest,
        restore_text,
        *copies_book(vaults).rules,
        wildcards=WILDCARDS,
    )


def copies_book(vaults: tuple[str, ...]) -> RuleBook:
    """Return the rules that copy a finished set to these vaults."""
    return RuleBook(*(each for vault in vaults for each in copies_to(vault)), wildcards=WILDCARDS)


def set_targets(runtag: str, facts: BackupFacts, vaults: tuple[str, ...]) -> tuple[str, ...]:
    """Return the files that make a backup complete, here and in the vaults, without the logs."""
    names = _names(runtag, facts)
    here = [f"pi:{BACKUPS}/{name}" for name in names]
    return (*here, *copy_targets(runtag, facts, vaults))


def copy_targets(runtag: str, facts: BackupFacts, vaults: tuple[str, ...]) -> tuple[str, ...]:
    """Return the copies of a set in the vaults, without the logs."""
    return tuple(f"{vault}:{name}" for vault in vaults for name in _names(runtag, facts))


def _less_than(before: Manifest, made: Manifest) -> tuple[str, ...]:
    """Return what a set holds less of than an earlier one, one warning each."""
    return losses(before, made) + lost_databases(before, made)


def _known_sqlite(before: Manifest | None, kind: str) -> tuple[str, ...]:
    """Return the SQLite files in a part when it was last made, including damaged ones."""
    if before is None:
        return ()
    copied = (part.facts.get(SQLITE, ()) for part in before.made if part.kind == kind)
    return tuple(sorted({*before.unsound, *(name for names in copied for name in names)}))


def _names(runtag: str, facts: BackupFacts) -> tuple[str, ...]:
    """Return the names of its files without the log, the manifest last."""
    texts = ("restore",) if facts.text else ()
    return tuple(f"{runtag}.{KINDS[kind]}" for kind in (*facts.kinds, *texts, "manifest"))


def log_targets(runtag: str, vaults: tuple[str, ...]) -> tuple[str, ...]:
    """Return the copies of the log."""
    return tuple(f"{vault}:{runtag}.{KINDS['log']}" for vault in vaults)


def _without_parts(left_out: tuple[LeftOut, ...], parts: list[Part]) -> tuple[LeftOut, ...]:
    """Return what was left out; a reason that refers to a failed part says that it failed."""
    failed = [f"in the {part.kind} part" for part in parts if part.error]
    return tuple(
        replace(each, reason=f"{each.reason}, which could not be made")
        if any(each.reason.endswith(words) for words in failed)
        else each
        for each in left_out
    )


def _is_there(context: StepContext, file: File, record: Record) -> bool:
    """Return whether an archive is exactly as an earlier run made it, to its last byte."""
    storage = context.storage(file)
    fact = storage.stat([file.absolute]).get(file.absolute)
    return bool(fact) and hash_there(storage, file.absolute) == record.sha256


@dataclass(frozen=True, slots=True)
class KeepMore:
    """Keep the old part if it holds what the new one lacks, such as a database lost since."""

    output: File
    before: Manifest = field(repr=False)
    facts: BackupFacts = field(repr=False)

    def commands(self) -> tuple[str, ...]:
        """Return nothing: it runs no command."""
        return ()

    def do(self, context: StepContext) -> None:
        """Raise StepFailed if the new one holds less: then the set is incomplete."""
        (old,) = self.before.parts
        made = Part(old.kind, old.file, facts=dict(context.recorded.get(str(self.output), {})))
        after = replace(self.before, parts=(made,), left_out=self.facts.left_out, warnings=())
        needed = needed_of(_set_of(self.before), self.facts.gone)
        missing = needed - answers_for(_set_of(after), needed)
        if missing:
            cure = way_out(lacking_words([(missing, _set_of(self.before))]))
            raise StepFailed(
                f"{self.before.runtag} has {told(missing)}, but the new part does not, so the "
                f"old part was kept. Use another --runtag. {cure}"
            )


def _set_of(manifest: Manifest) -> BackupSet:
    return BackupSet(manifest.runtag, {}, State(manifest.state), manifest)


@dataclass(frozen=True, slots=True)
class MakeWay:
    """Remove the manifest of a replaced set in a vault before any of its files is replaced.

    So the set there is unfinished until the new manifest arrives, and never a mixture of two. If
    it holds what the new one lacks, it is kept.
    """

    mark: File
    new: File
    runtag: str
    claim: str
    gone: tuple[Gone, ...] = field(repr=False)

    def commands(self) -> tuple[str, ...]:
        """Return the removals."""
        return (f"remove {self.mark.role}:{self._manifest}, if it is of an earlier set",)

    @property
    def _manifest(self) -> str:
        return posixpath.join(self.mark.root, f"{self.runtag}.{KINDS['manifest']}")

    def do(self, context: StepContext) -> None:
        """Remove it; raises StepFailed if the set there is kept, with our mark removed."""
        context.once(f"make way {self.mark}", lambda: self._make_way(context))

    def _make_way(self, context: StepContext) -> None:
        storage = context.storage(self.mark)
        old = manifest_there(storage, self.mark.root, self.runtag)
        here = posixpath.dirname(self.new.absolute)
        new = manifest_there(context.storage(self.new), here, self.runtag)
        if new is None:
            raise StepFailed("it was not copied, because its manifest could not be written.")
        if old is None or old == new:
            return
        why = self._why_it_stays(storage, old, new)
        if why:
            storage.remove([self.mark.absolute])
            raise StepFailed(f"{self.runtag} in {storage.name} {why}")
        if not getattr(storage, "keeps_all", False):
            storage.remove([self._manifest])

    def _why_it_stays(self, storage: Storage, old: Manifest, new: Manifest) -> str:
        pin = posixpath.join(self.mark.root, f"{self.runtag}.{PIN_ENDING}")
        paths = {posixpath.join(self.mark.root, part.file): part for part in old.made}
        there = storage.stat([pin, *paths])
        goes_on = (old.host, old.started_utc) == (new.host, new.started_utc)
        if pin in there and not goes_on:
            return "is pinned, so it was not replaced. Unpin it first: inv pin --remove."
        # Files of it that were already replaced, or are cut, count as lost.
        lost = {
            part.kind
            for path, part in paths.items()
            if path not in there or there[path].size_bytes != part.size_bytes
        }
        kept = replace(old, parts=tuple(e for e in old.parts if e.kind not in lost))
        needed = needed_of(_set_of(kept), self.gone)
        missing = needed - answers_for(_set_of(new), needed)
        if not missing:
            return ""
        cure = way_out(lacking_words([(missing, _set_of(kept))]), storage.name)
        return (
            f"has {told(missing)}, which the local one does not, so it was kept. Make a backup "
            f"with another --runtag, and remove the local {self.runtag}. {cure}"
        )


@dataclass(frozen=True, slots=True)
class WriteManifest:
    """Write the manifest from the records of the parts."""

    output: File
    runtag: str
    parts: tuple[File, ...]
    facts: BackupFacts = field(repr=False)

    def commands(self) -> tuple[str, ...]:
        """Return the path of the manifest."""
        return (f"write '{self.output.absolute}'",)

    def do(self, context: StepContext) -> None:
        """Write it under its partial name."""
        records, failures = context.records(), context.failures()
        parts = []
        warnings = list(self.facts.warnings)
        for file, kind in zip(self.parts, self.facts.kinds, strict=True):
            record = records.get(str(file))
            name = posixpath.basename(file.path)
            why = failures.get(str(file), "")
            if record is None or (why and not _is_there(context, file, record)):
                parts.append(Part(kind, name, error=why or "not made"))
                continue
            warnings += record.warnings
            # Parts of an earlier run stay in the set, and the next run makes them again.
            older = {LACKING: {older_part(kind): why}} if why else {}
            parts.append(
                Part(
                    kind,
                    name,
                    record.size_bytes,
                    record.sha256,
                    record.seconds,
                    facts={**older, **record.facts, **self._stays(kind)},
                )
            )
        facts = self.facts
        made = Manifest(
            runtag=self.runtag,
            host=facts.host,
            program=facts.program,
            started_utc=facts.started_utc,
            finished_utc=utc_text(datetime.now(UTC)),
            zone=facts.zone,
            parts=tuple(parts),
            containers=facts.containers,
            left_out=_without_parts(facts.left_out, parts),
            warnings=tuple(warnings),
            folder=facts.folder,
            unused=facts.unused,
            volumes=facts.volumes,
            rows=facts.rows,
            machine=facts.machine,
        )
        if facts.before:
            made = replace(made, warnings=(*made.warnings, *_less_than(facts.before, made)))
        if facts.replaced:
            less = _less_than(facts.replaced, made)
            told = (f"An earlier {facts.replaced.runtag} was replaced. {each}" for each in less)
            made = replace(made, warnings=(*made.warnings, *told))
        text = made.to_json()
        content = text.encode("utf-8", "backslashreplace")  # a warning may quote a raw file name
        with context.host(self.output.role).create(self.output.partial) as target:
            target.write(content)
        sha256 = hashlib.sha256(content).hexdigest()
        context.record(self.output, size_bytes=len(content), sha256=sha256)

    def _stays(self, kind: str) -> dict[str, list[str]]:
        """Return the manifest's entry of a part for left-out files that stay in a restore."""
        if kind not in ("general", OUTSIDE):
            return {}
        mine = (e for e in self.facts.stays if e.startswith("/") == (kind == OUTSIDE))
        stays = [each.lstrip("/") for each in mine]
        return {STAYS: stays} if stays else {}


@dataclass(frozen=True, slots=True)
class WriteRestoreText:
    """Write how to restore a set by hand, from its manifest alone; dated like the manifest."""

    output: File
    manifest: File
    runtag: str

    def commands(self) -> tuple[str, ...]:
        """Return the path of RESTORE.txt."""
        return (f"write '{self.output.absolute}'",)

    def do(self, context: StepContext) -> None:
        """Write it under its partial name; raises StepFailed if the manifest is invalid."""
        storage, path = context.storage(self.manifest), self.manifest.absolute
        fact = storage.stat([path]).get(path)
        if fact is None:
            raise StepFailed(f"{path} is missing.")
        with storage.read(path) as stream:
            content = stream.read()
        from ..parts.restore_text import restore_text_of, with_sum

        try:
            text = with_sum(restore_text_of(read_manifest(content, self.runtag)), content)
        except ValueError as error:
            raise StepFailed(f"{path} is damaged: {error}.") from error
        sha256 = hashlib.sha256(text).hexdigest()
        modified_s = fact.modified_s  # a newer one would look newer than the manifest's copy
        received = storage.write(self.output.partial, io.BytesIO(text), modified_s, 0, len(text))
        if received.sha256 != sha256:
            raise StepFailed(
                f"{self.output.partial} differs from what was written (checksum).", again=True
            )
        context.record(self.output, size_bytes=len(text), sha256=sha256)


@dataclass(frozen=True, slots=True)
class Fail:
    """Fail with a known reason: the checks before planning found that it is impossible."""

    message: str

    def commands(self) -> tuple[str, ...]:
        """Return the message."""
        return (f"fails: {self.message}",)

    def do(self, context: StepContext) -> None:  # noqa: ARG002
        """Raise the message as StepFailed."""
        raise StepFailed(self.message)
