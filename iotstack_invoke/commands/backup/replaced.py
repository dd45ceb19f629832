"""What a backup does with an earlier set of its name: resume it, or replace it.

A set loses nothing because a later run of its name cannot save it any more. Not for: what a set
holds less of than others (losses).
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from ...archives.sizes import unescaped
from ...backups.holdings import (
    FINISHED,
    GENERAL,
    Holding,
    answers_for,
    holdings_of,
    lacking_words,
    needed_of,
    told,
)
from ...backups.losses import way_out
from ...backups.manifest import OUTSIDE, SIZES, Manifest, Part
from ...backups.names import KINDS, PARTS
from ...backups.sets import BackupSet, State, unnamed_told
from ...backups.verifications import HERE
from ...core.errors import Refused
from ...core.stack_folders import BACKUPS
from ...engine.steps import Record
from ...environment.environment import Environment, RecordFile
from ...hosts.base import Command, FileFact, Host
from ...workflows.backup import BackupFacts
from .undumped import TITLES

MANY = frozenset({"general", "influx"})
"""The parts whose contents are known only after the dump, or the packing."""
DUMPED = {"influx": "influxdb"}
PATHS_AT_ONCE = 100
HOLDS_LIMIT_S = 3600.0
HELD = {"bytes": (1, 1), "files": (0, 1), "nothing": (0, 0)}
# A link counts as one byte, as in the archives.
HOLDS_STILL = """for p; do
  found=$(find "$p" '(' -type l -o -type f -size +0 ')' -print -quit 2>&1) || found=?
  [ -e "$p" ] || [ -L "$p" ] || found=
  [ -n "$found" ] && echo bytes && continue
  found=$(find "$p" ! -type d -print -quit 2>/dev/null)
  [ -n "$found" ] && echo files || echo nothing
done"""


def has_manifest(names: Mapping[str, FileFact], runtag: str) -> bool:
    """Return whether a listing has the manifest of a set."""
    return f"{runtag}.{KINDS['manifest']}" in names


def refuse_damaged(
    environment: Environment,
    own: BackupSet | None,
    records: RecordFile,
    listed: Mapping[str, Mapping[str, FileFact]],
) -> None:
    """Refuse to resume a finished set that has changed since.

    A run would take files that failed verification as complete, by their names, sizes and records.
    It would also make missing or cut files from the present data, and replace copies that may be
    good.
    """
    why = _why_damaged(environment, own, records) if own else ""
    if not (own and why):
        return
    runtag = own.runtag
    there = [name for name in environment.vaults if has_manifest(listed.get(name, {}), runtag)]
    cure = ""
    if there:
        cure = (
            f"{', '.join(there)} may have a good copy: check with inv verify --runtag '{runtag}' "
            f"--at {there[0]}; `inv sync` shows how to fetch it. "
        )
    if own.unnamed:
        files = " ".join(shlex.quote(f"{runtag}.{KINDS[kind]}") for kind in own.unnamed)
        cure += f"Move away the files that the manifest does not list ({files}). "
    raise Refused(
        f"{environment.backups} has a backup {runtag}, and {why}. {cure}For a backup of the "
        f"present data use another --runtag. Or rebuild this one: inv backup --runtag '{runtag}' "
        "--force. That also replaces its copies in vaults; to check these first: inv show "
        f"'{runtag}'"
    )


def _why_damaged(environment: Environment, own: BackupSet, records: RecordFile) -> str:
    """Return what changed in a finished set since it was made; '' for nothing."""
    check = environment.checks.newest().get((own.runtag, HERE))
    failed = check if check and not check.good else None
    first = f": {failed.problems[0].rstrip('.')}" if failed and failed.problems else ""
    if own.manifest is None:
        is_damaged = own.state is State.DAMAGED and "manifest" in own.files
        return f"its manifest is damaged{first}" if is_damaged else ""
    if failed and failed.made == own.manifest.finished_utc:
        return f"its last verification failed{first}"
    found = [
        f"{part.file} {'is missing' if part.kind not in own.files else 'has another size'}"
        for part in own.manifest.made
        if not _is_whole(own, part) and not _is_made_again(records, part)
    ]
    made = {kind for kind, _ in _made_by_runs(own, records)}
    others = [unnamed_told(own.runtag, kind) for kind in own.unnamed if kind not in made]
    found += [each.rstrip(".") for each in others]
    return f"it is damaged: {'; '.join(found)}" if found else ""


def _is_whole(own: BackupSet, part: Part) -> bool:
    fact = own.files.get(part.kind)
    return fact is not None and fact.size_bytes == part.size_bytes


def _is_made_again(records: RecordFile, part: Part) -> bool:
    """Return whether a later run has made a part again, whose manifest is not written yet."""
    record = records.known().get(f"pi:{BACKUPS}/{part.file}")
    return record is not None and record.sha256 != part.sha256


def _made_by_runs(own: BackupSet, records: RecordFile) -> Iterator[tuple[str, Record]]:
    """Yield the archives of a set that still match the records of its runs."""
    for kind in own.archives:
        record = records.known().get(f"pi:{BACKUPS}/{own.runtag}.{KINDS[kind]}")
        if record and record.size_bytes == own.files[kind].size_bytes:
            yield kind, record


def with_kept(
    facts: BackupFacts, own: BackupSet | None, records: RecordFile
) -> tuple[BackupFacts, tuple[str, ...]]:
    """Return the facts with the parts that earlier runs of this set made, and which these are.

    These are parts that this run cannot make, or only with less in them: a server may have been
    stopped since. Parts that were made completely stay in the set unchanged, and are reported.
    """
    kept: dict[str, Record] = {}
    expected = _expected(facts, own.runtag) if own else None
    for kind, record in _made_by_runs(own, records) if own else ():
        part = Part(kind, f"{kind}", facts=record.facts)
        manifest = _manifest(facts, "", (part,))
        if expected and _lost(replace(expected, manifest=manifest), expected):
            kept[kind] = record
    if not (own and kept):
        return facts, ()
    warnings, left_out = facts.warnings, facts.left_out
    for kind, record in kept.items():
        title = TITLES.get(DUMPED.get(kind, kind), kind)
        names = {title, *(f"a dump of {e['container']}" for e in record.facts.get("servers", ()))}
        warnings = tuple(e for e in warnings if not e.startswith(f"{title} is not dumped:"))
        left_out = tuple(each for each in left_out if each.what not in names)
        made = datetime.fromtimestamp(own.files[kind].modified_s, UTC)
        told_so = f"is the one that an earlier run of {own.runtag} made, at {made:%Y-%m-%d %H:%M}"
        why = "UTC: what it holds could not all be saved now."
        warnings = (*warnings, f"The {kind} part {told_so} {why}")
    kinds = tuple(kind for kind in PARTS if kind in {*facts.kinds, *kept})
    return replace(facts, kinds=kinds, warnings=warnings, left_out=left_out), tuple(kept)


def known_of(
    own: BackupSet | None, records: RecordFile, kept: tuple[str, ...]
) -> Mapping[str, Record]:
    """Return the records by which a plan knows what is finished, however it would be made now.

    A finished set is a snapshot, and so are the parts that are kept, with the data beside them.
    """
    known = dict(records.known())
    finished = own.manifest.made if own and own.manifest else ()
    if own and own.manifest and own.manifest.state == State.INCOMPLETE.value and not kept:
        finished = ()
    names = {f"pi:{BACKUPS}/{part.file}": part.sha256 for part in finished}
    for kind, record in _made_by_runs(own, records) if own else ():
        if kind in kept:
            known[record.output] = replace(record, parameters="", facts={})
        elif not record.incomplete and (kept or names.get(record.output) == record.sha256):
            known[record.output] = replace(record, parameters="")
    return known


def refuse_to_lose(
    environment: Environment, before: Mapping[str, BackupSet], facts: BackupFacts
) -> None:
    """Refuse to replace sets that hold what this run cannot save, unless that is declared gone.

    For example if a database server is stopped, a row of hosts.toml was removed, or a drive is not
    mounted: these sets may hold the only copy. `before`: the sets with this run's name by
    location, here or a vault; after a new SD card a vault has the only one.
    """
    gone = environment.gone(environment.owner.read())
    whole = [each for each in before.values() if each.state in FINISHED]
    sizes = _sizes_now(environment.host, facts, whole)
    for at, old in before.items():
        unnamed = {(kind,) for kind in old.unnamed}
        unnamed -= {each for each in unnamed if any(one.excuses(each) for one in gone)}
        expected = _expected(facts, old.runtag, sizes if old in whole else {})
        needed = needed_of(old, gone) | unnamed
        known = {each for each in needed if each[0] == GENERAL or _is_known_before(each)}
        missing = frozenset(known) - answers_for(expected, needed)
        if missing:
            why = next((e for e in facts.warnings if " is not dumped:" in e), "")
            there = "" if at == HERE else f" in {at}"
            cure = way_out(lacking_words([(missing, old)]), "" if at == HERE else at)
            raise Refused(
                f"{old.runtag}{there} has {told(missing)}, but a new backup would not, so "
                f"--force would lose it.{f' {why}' if why else ''} Nothing was changed. Use "
                f"another --runtag. {cure}"
            )


def _sizes_now(
    host: Host, facts: BackupFacts, sets: Iterable[BackupSet]
) -> Mapping[str, tuple[int, int]]:
    """Return which paths in the sets still have data, as pairs of sizes as in a manifest.

    The sizes only tell whether there is a byte, and a file: counting takes as long as packing.
    Paths that cannot be read count as present. A path with an escape in the manifest may have that
    in its name, or the byte that it stands for.
    """
    wanted = {path for each in sets if each.manifest for path in each.manifest.sizes}
    pairs = [
        (each, posixpath.join(facts.folder, path))
        for each in sorted(wanted)
        for path in sorted({each, unescaped(each)})
    ]
    pairs += [(each.path.lstrip("/"), each.path) for each in facts.outside]
    found: dict[str, tuple[int, int]] = {}
    for some in (pairs[n : n + PATHS_AT_ONCE] for n in range(0, len(pairs), PATHS_AT_ONCE)):
        words = (*facts.as_root, "sh", "-c", HOLDS_STILL, "sh", *(path for _, path in some))
        said = host.run(Command(words, timeout_s=HOLDS_LIMIT_S)).out.split()
        for (each, _), word in zip(some, said, strict=True):
            found[each] = max(found.get(each, (0, 0)), HELD[word])
    return found


def _lost(one: BackupSet, other: BackupSet) -> frozenset[Holding]:
    needed = frozenset(filter(_is_known_before, holdings_of(one)))
    return needed - answers_for(other, needed)


def _is_known_before(holding: Holding) -> bool:
    """Return whether a run knows about it before it packs and dumps."""
    kind, *names = holding
    return not names or (len(names) == 1 and kind not in MANY)


def _expected(
    facts: BackupFacts, runtag: str, sizes: Mapping[str, tuple[int, int]] | None = None
) -> BackupSet:
    """Return the set that a run would make, as far as known; `sizes` as in a manifest."""
    known = {SIZES: sizes} if sizes else {}
    parts = tuple(
        Part(
            kind,
            f"{runtag}.{PARTS[kind]}",
            facts={
                **_servers(facts, kind),
                **_rows(facts, kind),
                **(known if kind in (GENERAL, OUTSIDE) else {}),
            },
        )
        for kind in facts.kinds
    )
    return BackupSet(runtag, {}, State.COMPLETE, _manifest(facts, runtag, parts))


def _manifest(facts: BackupFacts, runtag: str, parts: tuple[Part, ...]) -> Manifest:
    times = (facts.started_utc, facts.started_utc)
    return Manifest(
        *(runtag, facts.host, facts.program, *times, facts.zone, parts), left_out=facts.left_out
    )


def _servers(facts: BackupFacts, kind: str) -> Mapping[str, object]:
    servers = [each.container for each in facts.servers if each.engine == kind]
    servers += [each.server.container for each in facts.recipes if each.name == kind]
    return {"servers": [{"container": each} for each in servers]} if servers else {}


def _rows(facts: BackupFacts, kind: str) -> Mapping[str, object]:
    rows = [
        {"path": each.path, "volume": each.volume, "anonymous": each.anonymous}
        for each in facts.outside
    ]
    return {OUTSIDE: rows} if kind == OUTSIDE else {}
