"""Two sets compared: part by part, file by file, database by database."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from ...backups.bundles import RECIPES
from ...backups.names import PARTS
from ...backups.verifications import in_places
from ...core.dataclass import dataclass
from ...core.errors import ExitCode, StepFailed
from ...core.gzip_streams import Damaged
from ...core.processes import signals_raised
from ...databases.influxdb.dump import facts_of
from ...databases.influxdb2.check import facts_of as influx2_facts_of
from ...databases.sql.servers import ENGINES
from ...environment.environment import Environment
from ...parts.verify_archive import Member, read_dump, read_influx2, read_sql
from ...reporting.report import Report, size_text
from ...settings.model import Settings
from .copies import Copy, find_copy
from .show import manifest_of, members_of

SAME_ROWS = "the same tables with as many rows"
SAME = {
    "general": "the same files",
    "influx": "the same shards of the same size",
    "influxdb2": "the same buckets of the same size",
    "mariadb": SAME_ROWS,
    "postgres": SAME_ROWS,
}


@dataclass(frozen=True, slots=True)
class FileChange:
    """One thing that is in one set only, or differs: its size in each, None if missing.

    For a table of SQL, rows instead of bytes.
    """

    name: str
    before_bytes: int | None
    after_bytes: int | None
    what: str = ""

    @property
    def sign(self) -> str:
        """`+` added, `-` removed, `*` changed."""
        if self.before_bytes is None:
            return "+"
        return "-" if self.after_bytes is None else "*"


def diff(
    settings: Settings, first: str, second: str, at: str, report: Report, *, as_json: bool
) -> int:
    """Print what is in the second set and not in the first, and vice versa."""
    environment = Environment.of(settings)
    try:
        with signals_raised():
            checks = environment.checks.newest()
            warn = functools.cache(report.warn)  # both may be requested as the latest
            before, after = (
                find_copy(environment, each, at, checks, warn) for each in (first, second)
            )
            for copy in (before, after):
                damage = manifest_of(copy)[1]
                if damage:
                    report.warn(
                        f"{copy.runtag} {in_places(copy.at)}: {damage} Reading its archives "
                        "instead."
                    )
            kinds = [part for part in PARTS if part in before.backup.parts + after.backup.parts]
            found = {part: compare_part(before, after, part) for part in kinds}
    finally:
        environment.close()
    if as_json:
        report.write_json(
            {
                "before": before.runtag,
                "after": after.runtag,
                "parts": {
                    part: [
                        {
                            "sign": each.sign,
                            "name": each.name,
                            "before_bytes": each.before_bytes,
                            "after_bytes": each.after_bytes,
                            "what": each.what,
                        }
                        for each in changes
                    ]
                    for part, changes in found.items()
                },
            }
        )
        return ExitCode.GOOD
    for part, changes in found.items():
        sizes = [_size(each, part) for each in (before, after)]
        told = f"{len(changes)} differ" if changes else SAME.get(part, SAME["general"])
        report.write(f"{part}: {sizes[0]} → {sizes[1]}: {told}")
        for each in changes:
            report.write_line(f"  {_line(each)}")
    return ExitCode.GOOD


def _size(copy: Copy, part: str) -> str:
    return size_text(copy.backup.files[part].size_bytes) if part in copy.backup.files else "none"


def _line(change: FileChange) -> str:
    name = change.name if change.name.isprintable() else repr(change.name)
    sizes = [f"{each:,}" for each in (change.before_bytes, change.after_bytes) if each is not None]
    what = f" ({change.what})" if change.what else ""
    return f"{change.sign} {name}  {' → '.join(dict.fromkeys(sizes))}{what}"


def compare_part(before: Copy, after: Copy, part: str) -> tuple[FileChange, ...]:
    """Return how one part of two sets differs, in the order of names.

    Archives with the same hash in both manifests are not opened.
    """
    hashes = [_hash(each, part) for each in (before, after)]
    if hashes[0] and hashes[0] == hashes[1]:
        return ()
    if part in ("general", "outside") or part in RECIPES:
        return compare_members(_members(before, part), _members(after, part))
    sizes = _rows if part in ENGINES else _buckets if part == "influxdb2" else _shards
    return compare_sizes(sizes(before, part), sizes(after, part))


def _hash(copy: Copy, part: str) -> str:
    manifest, _ = manifest_of(copy)
    return next((p.sha256 for p in manifest.made if p.kind == part), "") if manifest else ""


def _members(copy: Copy, part: str) -> Iterable[Member]:
    return members_of(copy, part, digests=True) if part in copy.backup.files else ()


def compare_members(before: Iterable[Member], after: Iterable[Member]) -> tuple[FileChange, ...]:
    """Return which members differ, by name; the first archive is kept in memory, without content.

    The order in an archive means nothing: tar packs in the order of the disk.
    """
    left = {each.name: each for each in before}
    changes = []
    for member in after:
        old = left.pop(member.name, None)
        if old is None:
            changes.append(FileChange(member.name, None, member.size_bytes))
        elif old != member:
            what = _difference(old, member)
            changes.append(FileChange(member.name, old.size_bytes, member.size_bytes, what))
    changes += [FileChange(name, old.size_bytes, None) for name, old in left.items()]
    return tuple(sorted(changes, key=lambda each: each.name))


def _difference(old: Member, new: Member) -> str:
    told = [
        f"{name} {getattr(old, name)} → {getattr(new, name)}"
        for name in ("kind", "mode", "owner", "link")
        if getattr(old, name) != getattr(new, name)
    ]
    return ", ".join([*told, *(["content"] if old.digest != new.digest else [])])


def _rows(copy: Copy, part: str) -> Mapping[str, int]:
    """Return the rows of each table by name, from the manifest or else from the dumps."""
    manifest, _ = manifest_of(copy)
    parts = {each.kind: each for each in manifest.made} if manifest else {}
    servers = parts[part].facts.get("servers") if part in parts else None
    if servers is not None and all("rows" in each for each in servers):
        return {
            f"{server['container']}/{database}.{table}": int(rows)
            for server in servers
            for database, tables in server["rows"].items()
            for table, rows in tables.items()
        }
    if part not in copy.backup.files:
        return {}
    try:
        with copy.storage.read(copy.path(part)) as stream:
            reports = read_sql(stream, part)
    except Damaged as damage:
        raise StepFailed(f"{copy.runtag} {in_places(copy.at)}, part {part}: {damage}.") from damage
    return {
        f"{member.removeprefix('./').rpartition('/')[0] or part}/{table}": rows
        for member, report in reports.items()
        for table, rows in report.rows.items()
    }


def _buckets(copy: Copy, part: str) -> Mapping[str, int]:
    """Return the size of each bucket by name, from the manifest or else from the dump."""
    manifest, _ = manifest_of(copy)
    parts = {each.kind: each for each in manifest.made} if manifest else {}
    told: Any = parts[part].facts.get("buckets") if part in parts else None
    if told is None and part in copy.backup.files:
        try:
            with copy.storage.read(copy.path(part)) as stream:
                told = influx2_facts_of(read_influx2(stream))["buckets"]
        except Damaged as damage:
            raise StepFailed(
                f"{copy.runtag} {in_places(copy.at)}, part {part}: {damage}."
            ) from damage
    return {f"{e['organization']}/{e['bucket']}": int(e["size_bytes"]) for e in told or ()}


def _shards(copy: Copy, part: str) -> Mapping[str, int]:
    """Return the size of each shard and database by name, from the manifest or the dump."""
    manifest, _ = manifest_of(copy)
    facts: Mapping[str, Any] = (
        next((each.facts for each in manifest.made if each.kind == part), {}) if manifest else {}
    )
    if "shards" not in facts:
        facts = _dump_facts(copy, part) if part in copy.backup.files else {}
    found = {str(name): 0 for name in facts.get("databases", ())}
    for shard in facts.get("shards", ()):
        database, size = str(shard["database"]), int(shard["size_bytes"])
        found[database] = found.get(database, 0) + size
        name = f"{database}/{shard['policy']}/{shard['id']}"
        found[name] = found.get(name, 0) + size
    return found


def _dump_facts(copy: Copy, part: str) -> Mapping[str, Any]:
    try:
        with copy.storage.read(copy.path(part)) as stream:
            return facts_of(read_dump(stream))
    except Damaged as damage:
        raise StepFailed(f"{copy.runtag} {in_places(copy.at)}, part {part}: {damage}.") from damage


def compare_sizes(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[FileChange, ...]:
    """Return what is in one set only, or has another size."""
    return tuple(
        FileChange(name, before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )
