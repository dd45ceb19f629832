"""How the files of a set differ from its manifest, and its texts from those written.

Pure: what was read comes in, sentences go out. Not for: reading (verify).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ...backups.bundles import RECIPES
from ...backups.manifest import Manifest, Part
from ...backups.names import KINDS
from ...backups.sets import unnamed_told
from ...databases.influxdb.dump import facts_of
from ...databases.influxdb2.check import facts_of as influx2_facts_of
from ...databases.sql.read_dump import SqlReport
from ...databases.sql.servers import SqlServer
from ...parts.bundle import DUMP
from ...parts.restore_text import restore_text_of, text_fits
from ...parts.verify_archive import Reading
from ...reporting.run_log import log_fits

_HELD = re.compile(r"(?P<file>\S+)  \((?P<size>[\d,]+) bytes\)")
"""A line of RESTORE.txt that names an archive."""
_NEEDED = ("databases", "shards")
"""The facts that every version recorded of InfluxDB's dump."""


def file_differs(name: str, part: Part, size_bytes: int, sha256: str) -> Iterator[str]:
    """Yield how an archive differs as a file; one that could not be read is reported as such."""
    if not part.sha256:
        yield f"The manifest has no SHA-256 of {name}, so it cannot be verified."
    if not sha256:
        return
    if size_bytes != part.size_bytes:
        yield f"{name} has {size_bytes:,} bytes, but the manifest has {part.size_bytes:,}."
    elif part.sha256 and sha256 != part.sha256:
        yield f"The SHA-256 of {name} is {sha256}, but the manifest has {part.sha256}."


def unnamed(manifest: Manifest, kinds: Collection[str]) -> Iterator[str]:
    """Yield the archives of parts that the manifest does not list."""
    told = {part.kind for part in manifest.parts}
    for kind in kinds:
        if kind not in told:
            yield unnamed_told(manifest.runtag, kind)


def content_differs(part: Part, reading: Reading) -> Iterator[str]:
    """Yield how the contents of an archive differ from those in the manifest."""
    said: Mapping[str, Any] = part.facts
    if part.kind == "general" and "unpacked_bytes" in said and reading.unpacked_bytes:
        if said["unpacked_bytes"] != reading.unpacked_bytes:
            yield _differ(part, "unpacked_bytes", said["unpacked_bytes"], reading.unpacked_bytes)
    elif reading.dump:
        found = facts_of(reading.dump)
        for key in (each for each in found if each in said or each in _NEEDED):
            if said.get(key) != found[key]:
                yield _differ(part, key, said.get(key), found[key])
    elif reading.influx2:
        found = influx2_facts_of(reading.influx2)
        if said.get("buckets") != found["buckets"]:
            yield _differ(part, "buckets", said.get("buckets"), found["buckets"])
    elif reading.sql:
        yield from _dumps_differ(part, reading.sql)


def _dumps_differ(part: Part, reports: Mapping[str, SqlReport]) -> Iterator[str]:
    """Yield how dumps of SQL differ: their servers, and the rows of each table."""
    found = {name.removeprefix("./"): report for name, report in reports.items()}
    for server in part.facts.get("servers", ()):
        container = server["container"]
        member = DUMP if part.kind in RECIPES else SqlServer(container, part.kind, "").member
        report = found.pop(member, None)
        if report is None:
            yield f"The {part.kind} part has no dump of {container}, which the manifest lists."
            continue
        rows: dict[str, dict[str, int]] = {name: {} for name in report.databases}
        for table, count in report.rows.items():
            rows.setdefault(table.database, {})[table.name] = count
        if "rows" in server and server["rows"] != rows:
            yield _differ(part, f"rows of {container}", server["rows"], rows)
        if "version" in server and server["version"] != report.version:
            yield _differ(part, f"version of {container}", server["version"], report.version)
    for member in found:
        yield f"The {part.kind} part has {member}, but the manifest lists no such server."


def _differ(part: Part, what: str, said: Any, found: Any) -> str:
    if isinstance(said, (int, str)) and isinstance(found, (int, str)):
        return f"The {part.kind} part has {what} {found}, but the manifest has {said}."
    if said is None:
        return f"The manifest has no {what} of its {part.kind} part."
    return f"The {what} of the {part.kind} part differ from the manifest."


def state_differs(said: Any, manifest: Manifest) -> Iterator[str]:
    """Yield where the manifest gives the set a better or worse state than its own parts do."""
    if said != manifest.state:
        yield f"The manifest has state {said!r}, but by its parts it is {manifest.state!r}."


def manifest_gone(runtag: str, texts: Mapping[str, bytes]) -> Iterator[str]:
    """Yield that a manifest existed once: other scripts write no such texts."""
    name = f"{runtag}.{KINDS['log']}"
    ours = {"restore"} & texts.keys()
    ours |= {"log"} if log_fits(texts.get("log", b""), name) is not None else set()
    if ours:
        there = ", ".join(f"{runtag}.{KINDS[kind]}" for kind in sorted(ours))
        yield f"The manifest is missing: {there} was written with one."


def texts_differ(
    manifest: Manifest, content: bytes, texts: Mapping[str, bytes], *, has_sum: bool
) -> Iterator[str]:
    """Yield which text of a set was changed: none of its data is lost by that.

    `content` is the manifest as a file, `texts` the other texts that were read. The first versions
    wrote no checksums: their texts cannot be checked.
    """
    log = f"{manifest.runtag}.{KINDS['log']}"
    fits = {
        "restore": text_fits(texts["restore"], content) if "restore" in texts else None,
        "log": log_fits(texts["log"], log) if "log" in texts else None,
    }
    for kind, is_right in fits.items():
        name = f"{manifest.runtag}.{KINDS[kind]}"
        if kind not in texts and has_sum:
            yield f"{name} is missing."
        elif kind in texts and (is_right is False or (is_right is None and has_sum)):
            yield f"{name} was changed since it was written."


def told_otherwise(manifest: Manifest, text: bytes) -> Iterator[str]:
    """Yield where RESTORE.txt names other archives, sizes or another host than the manifest."""
    lines = text.decode("utf-8", "replace").splitlines()
    if restore_text_of(manifest).splitlines() == lines:
        return
    held = {f["file"]: f["size"] for line in lines if (f := _HELD.fullmatch(line))}
    told = {part.file: f"{part.size_bytes:,}" for part in manifest.made}
    for name in sorted(held.keys() | told.keys()) if held else ():
        if held.get(name) != told.get(name):
            yield (
                f"RESTORE.txt has {held.get(name, 'no')} bytes of {name}, and the manifest "
                f"{told.get(name, 'none')}."
            )
    hosts = [line[8:] for line in lines if line.startswith("of      ")]
    if hosts and manifest.host not in hosts:
        yield f"RESTORE.txt is from {hosts[0]}, but the manifest from {manifest.host}."
