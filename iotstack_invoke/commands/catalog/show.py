"""One set for people: what it holds, how it was made, what was left out, where its copies are."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ...backups.manifest import LEFT_OUT, OUTSIDE, SIZES, STAYS, Manifest, Part, older_part
from ...backups.names import PARTS
from ...backups.verifications import HERE, in_places
from ...core.errors import ExitCode, NotFound, StepFailed, UsageError
from ...core.gzip_streams import Damaged
from ...core.processes import signals_raised
from ...databases.influxdb2.check import EXPERIMENTAL
from ...engine.steps import LACKING
from ...environment.environment import Environment
from ...parts.verify_archive import Member, read_members
from ...reporting.report import Report, age_text, duration_text, exact_size_text, size_text
from ...services.containers import Container
from ...settings.model import Settings
from ...stack.volume_options import options_text
from ..shared.vault_sets import UNREAD
from .copies import Copy, find_copy
from .listing import ListRow, check_text, gather_rows, plain_check

TOLD_IN_WORDS = frozenset(
    {
        *("databases", "shards", "servers", "buckets", "experimental", "user_names"),
        *(LACKING, OUTSIDE, SIZES),
    }
)
"""The facts of a part that have lines of their own."""


def show(settings: Settings, asked: str, at: str, report: Report, *, as_json: bool) -> int:
    """Print what a set is; `as_json` for programs. Raises NotFound.

    An unreachable vault is a warning, unless `at` names the location.
    """
    environment = Environment.of(settings)
    try:
        copy = find_copy(environment, asked, at, environment.checks.newest(), report.warn)
        manifest, damage = manifest_of(copy)
        rows, notes = gather_rows(environment)
        mine = (copy.runtag, copy.at.partition("/")[2])
        row = next(each for each in rows if (each.runtag, each.owner) == mine)
    finally:
        environment.close()
    for note in notes.values():
        report.warn(note)
    code = ExitCode.WARNINGS if notes and not at else ExitCode.GOOD
    if as_json:
        report.write_json(_plain(copy, manifest, damage, row))
        return code
    for line in _lines(copy, manifest, damage, row):
        report.write(line)
    return code


def show_files(
    settings: Settings, asked: str, part: str, at: str, report: Report, *, as_json: bool
) -> int:
    """Print the members of one archive while it is read; nothing is unpacked.

    Raises NotFound if the set lacks the part, StepFailed if the archive is damaged, after the
    members that could be read.
    """
    if part not in PARTS:
        raise UsageError(f"--files {part}: use one of {', '.join(PARTS)}.")
    environment = Environment.of(settings)
    try:
        with signals_raised():
            copy = find_copy(environment, asked, at, environment.checks.newest(), report.warn)
            if part not in copy.backup.files:
                raise NotFound(f"{copy.runtag} {in_places(copy.at)} has no part {part}.")
            for member in members_of(copy, part):
                if as_json:
                    report.write_line(json.dumps(_plain_member(member)))
                else:
                    report.write_line(member_line(member))
    finally:
        environment.close()
    return ExitCode.GOOD


def members_of(copy: Copy, part: str, *, digests: bool = False) -> Iterator[Member]:
    """Return the members of an archive in its order; raises StepFailed if it is damaged."""
    path = copy.path(part)
    try:
        with copy.storage.read(path) as stream:
            yield from read_members(stream, digests=digests)
    except Damaged as damage:
        raise StepFailed(
            f"{path.rpartition('/')[2]} {in_places(copy.at)} cannot be read completely: "
            f"{damage}. For details: inv verify --runtag '{copy.runtag}' --at {copy.at}"
        ) from damage


def _quoted(name: object) -> str:
    """Return a name unchanged, or in quotes if it would not stay on its line."""
    text = str(name)
    return text if text.isprintable() else repr(text)


def member_line(member: Member) -> str:
    """Return a member in the form of `ls -l`, its name without line breaks."""
    name = _quoted(member.name)
    link = {"symlink": f" -> {member.link}", "hard link": f" is {member.link}"}
    shown = f"{name}{link.get(member.kind, '')}"
    return f"{member.mode}  {member.owner:>11}  {member.size_bytes:>14,}  {shown}"


def _plain_member(member: Member) -> dict[str, object]:
    names = ("name", "kind", "mode", "owner", "size_bytes", "link")
    return {name: getattr(member, name) for name in names}


def manifest_of(copy: Copy) -> tuple[Manifest | None, str]:
    """Return the manifest, or why none can be read."""
    try:
        return copy.manifest(), ""
    except ValueError as error:
        return None, f"The manifest is damaged: {error}."


def _plain(copy: Copy, manifest: Manifest | None, damage: str, row: ListRow) -> dict[str, Any]:
    return {
        "runtag": copy.runtag,
        "at": copy.at,
        "state": _state(copy, row),
        "sealed": copy.encrypted,  # a key of --json never changes
        "copies": _copies(row),
        "verified": {at: plain_check(each) for at, each in row.checks.items()},
        "pins": row.pins,
        "files": {kind: fact.size_bytes for kind, fact in copy.backup.files.items()},
        "manifest": json.loads(manifest.to_json()) if manifest else None,
        "manifest_damage": damage,
    }


def _copies(row: ListRow) -> dict[str, str]:
    """Return the state of each copy by its location."""
    here = {HERE: row.here.state.value} if row.here else {}
    return here | {name: row.state_in(name) for name in row.vaults}


def _state(copy: Copy, row: ListRow) -> str:
    """Return the state of the shown copy: by its manifest, which a vault's listing lacks."""
    state = _copies(row).get(copy.at, UNREAD)
    return copy.backup.state.value if state == UNREAD else state


def _lines(copy: Copy, manifest: Manifest | None, damage: str, row: ListRow) -> Iterator[str]:
    now = datetime.now(UTC)
    encrypted = ", encrypted" if copy.encrypted else ""
    yield f"{copy.runtag} {in_places(copy.at)}: {_state(copy, row)}{encrypted}"
    if damage:
        yield damage
    made = replace(copy.backup, manifest=manifest).made()
    if made:
        local, offset = f"{made.astimezone():%Y-%m-%d %H:%M:%S %z}".rsplit(" ", 1)
        zone = manifest.zone if manifest else ""
        if not zone.endswith(offset):  # it was made in another zone than this machine's
            zone = f"{offset} ({zone})" if zone else offset
        zone = "UTC" if zone == "UTC +0000" else zone
        yield f"  made      {local} {zone}, age: {age_text(made, now)}"
    if manifest:
        yield f"  on        {manifest.host} by {manifest.program}"
    for name, state in _copies(row).items():
        yield f"  copy      {name}: {state}, verified: {check_text(row.checks.get(name), now)}"
        for problem in row.checks[name].problems if name in row.checks else ():
            yield f"            {problem}"
    for name, note in row.pins.items():
        yield f"  pinned    {name}{f': {note}' if note else ''}"
    if not manifest:
        yield "  It has no manifest, so it cannot be verified." if not damage else ""
        for kind in copy.backup.parts:
            yield f"  {kind}: {size_text(copy.backup.files[kind].size_bytes)}"
        return
    left_out = {each.what for each in manifest.left_out}
    for part in manifest.parts:
        yield from _part_lines(part, left_out)
    for title, texts in (
        ("containers", [_container(each) for each in manifest.containers]),
        ("left out", [f"{_quoted(e.what)}: {e.reason}" for e in manifest.left_out]),
        ("volumes with options", [_optioned(each) for each in manifest.volumes]),
        ("in no part, because the stack does not use it", [*map(_quoted, manifest.unused)]),
        ("lines of hosts.toml, which is not backed up itself", list(manifest.rows)),
        ("warnings", list(manifest.warnings)),
    ):
        if texts:
            yield f"{title}:"
            yield from (f"  {each}" for each in texts)


def _optioned(told: Mapping[str, Any]) -> str:
    left_out = f", without {', '.join(told['left_out'])}" if told["left_out"] else ""
    return f"{told['name']}: {options_text(told['options'])}{left_out}"


def _part_lines(part: Part, left_out: Collection[str]) -> Iterator[str]:
    """Yield the lines of a part; for what stays in a restore, what existed."""
    if part.error:
        yield f"{part.kind}: not made: {part.error}"
        return
    size = exact_size_text(part.size_bytes)
    yield f"{part.kind}: {part.file}, {size}, made in {duration_text(part.seconds)}"
    yield f"  SHA-256   {part.sha256}"
    shards: dict[str, list[Mapping[str, Any]]] = {}
    for shard in part.facts.get("shards", ()):
        shards.setdefault(str(shard.get("database")), []).append(shard)
    for name in part.facts.get("databases", ()):
        mine = shards.get(str(name), [])
        size_bytes = sum(int(each.get("size_bytes", 0)) for each in mine)
        yield f"  database  {_quoted(name)}: {len(mine)} shards, {size_text(size_bytes)}"
    if part.facts.get("experimental"):
        yield f"  {EXPERIMENTAL}"
    for each in part.facts.get("buckets", ()):
        size = size_text(int(each.get("size_bytes", 0)))
        name = f"{each.get('organization')}/{each.get('bucket')}"
        yield f"  bucket    {_quoted(name)}: {each.get('shards')} shards, {size}"
    for server in part.facts.get("servers", ()):
        yield f"  server    {server.get('container')}: {server.get('version')}"
        for name, tables in server.get("rows", {}).items():
            rows = f"{sum(tables.values()):,} rows"
            yield f"    database {_quoted(name)}: {len(tables)} tables, {rows}"
        yield from (f"    left out {_quoted(each)}" for each in server.get(LEFT_OUT, ()))
    for each in part.facts.get(OUTSIDE, ()):
        yield from _outside_lines(each, part.facts.get(SIZES, {}))
    for name, why in part.lacking.items():
        what = f"a {name}" if name == older_part(part.kind) else f"the dump of container {name}"
        yield f"  not made  {what}: {why}"
    for key, value in part.facts.items():
        if key == STAYS:
            kept = "not changed by a restore"
            yield from (
                f"  left out  {_quoted(each)} ({kept})" for each in value if each in left_out
            )
        elif key not in TOLD_IN_WORDS:
            yield from _fact_lines(key, value)


def _outside_lines(told: Mapping[str, Any], sizes: Mapping[str, Any]) -> Iterator[str]:
    """Yield what something outside of the stack's folder is, and which containers mount it."""
    path, volume = str(told["path"]), told.get("volume")
    size_bytes, files = sizes.get(path.lstrip("/"), (None, 0))
    counted = f"{files:,} file{'' if files == 1 else 's'}"
    size = f": {size_text(size_bytes)} in {counted}" if size_bytes is not None else ""
    yield f"  {'volume' if volume else 'path':<9} {_quoted(volume or path)}{size}"
    if volume:
        yield f"    at      {_quoted(path)}"
    if told.get("restore_to"):
        yield f"    restored to {_quoted(told['restore_to'])}"
    for container, inside in told.get("mounts", ()):
        yield f"    mounted by {container} at {_quoted(inside)}"


def _fact_lines(key: str, value: object) -> Iterator[str]:
    """Yield other facts about a part: each of several values on a separate line."""
    name = key.removesuffix("_bytes").replace("_", " ")
    if isinstance(value, list):
        yield from (f"  {name:<9} {_quoted(each)}" for each in value)
    elif key.endswith("_bytes") and isinstance(value, int):
        yield f"  {name}: {exact_size_text(value)}"
    else:
        yield f"  {name}: {_quoted(value)}"


def _container(container: Container) -> str:
    running = "runs" if container.running else "does not run"
    return (
        f"{container.name}: {container.image} {container.digest or container.image_id}, {running}"
    )
