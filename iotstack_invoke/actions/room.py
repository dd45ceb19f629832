"""What the next backup will take, at the most, and whether there is room for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import Refused
from ..rulebooks.backup import BackupFacts
from ..sets import GOOD, BackupSet
from ..steps import Command, Host
from ..targets import on_host

GROWTH = 1.2
"""What the next part may be larger than the last one."""
DU_LIMIT_S = 3600.0
PACKED_SHARE = 0.5
"""What a first general archive takes of the stack at the most; a third is usual."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a backup will take, at the most, and what there is."""

    general_bytes: int
    influx_bytes: int
    sql_bytes: int
    unpacked_bytes: int
    """What tar will read for the general part: a guess, for the progress."""
    copies_bytes: int = 0
    """What copies of files take until they are packed; of SQLite 0 where nobody knows yet."""

    @property
    def needed_bytes(self) -> int:
        """The general part with what is copied for it, and each dump twice: once as it comes."""
        dumps = self.influx_bytes + self.sql_bytes
        return self.general_bytes + self.copies_bytes + 2 * dumps


def look_for_room(
    host: Host, facts: BackupFacts, sets: Iterable[BackupSet], limit_s: float = DU_LIMIT_S
) -> Room:
    """Return what the parts will take, after the last good set or, without one, after `du`.

    Raises StepFailed where one du takes longer than `limit_s`.
    """
    last = next((each.manifest for each in sets if each.state in GOOD and each.manifest), None)
    parts = {part.kind: part for part in last.made} if last else {}
    general, influx = parts.get("general"), parts.get("influx")
    copies_bytes = 0
    if general:
        copies_bytes = int(int(general.facts.get("sqlite_bytes", 0)) * GROWTH)
        unpacked = int(general.facts.get("unpacked_bytes", 0))
        general_bytes = int(general.size_bytes * GROWTH)
    else:
        paths = [f"{facts.folder}/{member[2:]}" for member in facts.members]
        unpacked = _used(
            host, facts, paths, (f"{facts.folder}/{each}" for each in facts.exclusions), limit_s
        )
        general_bytes = int(unpacked * PACKED_SHARE)
    at_rest = [f"{facts.folder}/{path}" for each in facts.at_rest for path in each.paths]
    if at_rest:
        copies_bytes += _used(host, facts, at_rest, (), limit_s)
    influx_bytes = 0
    if facts.influx and influx:
        influx_bytes = int(influx.size_bytes * GROWTH)
    elif facts.influx:
        influx_bytes = _used(host, facts, [f"{facts.folder}/volumes/influxdb"], (), limit_s)
    if facts.influx2 and "influxdb2" in parts:
        influx_bytes += int(parts["influxdb2"].size_bytes * GROWTH)
    elif facts.influx2:
        influx_bytes += _used(host, facts, [facts.influx2.data_on_host], (), limit_s)
    engines = {each.engine for each in facts.servers}
    sql_bytes = sum(int(parts[e].size_bytes * GROWTH) for e in engines if e in parts)
    new = [each.data for each in facts.servers if each.data and each.engine not in parts]
    if new:
        sql_bytes += int(_used(host, facts, new, (), limit_s) * PACKED_SHARE)
    return Room(general_bytes, influx_bytes, sql_bytes, unpacked, copies_bytes)


def _used(
    host: Host,
    facts: BackupFacts,
    paths: list[str],
    excluded: Iterable[str],
    limit_s: float,
) -> int:
    """Return the bytes that files take, 0 where du does not tell."""
    words = (*facts.as_root, "du", "-s", "-c", "-B1", *(f"--exclude={each}" for each in excluded))
    told = host.run(
        Command((*words, "--", *paths), accept=frozenset({0, 1}), limit_s=limit_s)
    ).out.splitlines()
    total = told[-1].split("\t")[0] if told else ""
    return int(total) if total.isdigit() else 0


def refuse_without_room(host: Host, room: Room, backups: str) -> None:
    """Raise Refused, with the numbers, where the disk has no room for a backup."""
    free = host.free_bytes(backups)
    if free is not None and free < room.needed_bytes:
        raise Refused(
            f"{on_host(host)}{backups} has {free:,} bytes free, and this backup needs about "
            f"{room.needed_bytes:,}: {room.general_bytes:,} for the general part, "
            f"{room.copies_bytes:,} for copies of files meanwhile, and twice "
            f"{room.influx_bytes:,} for InfluxDB's dump and its tar, and {room.sql_bytes:,} for "
            "the dumps of other databases. Make room, or keep fewer backups ([stack] keep in "
            "hosts.toml)."
        )
