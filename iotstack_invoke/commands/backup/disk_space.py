"""The maximum disk space that the next backup needs, and whether it is available."""

from __future__ import annotations

from collections.abc import Iterable

from ...backups.sets import GOOD, BackupSet
from ...core.dataclass import dataclass
from ...core.errors import Refused
from ...databases.sql.servers import ENGINES
from ...hosts.base import Command, Host
from ...hosts.inspect import on_host
from ...workflows.backup import BackupFacts

GROWTH = 1.2
"""How much larger the next part may be than the last one."""
DU_LIMIT_S = 3600.0
INFLUX = "volumes/influxdb"
PACKED_SHARE = 0.5
"""The maximum size of a first archive of the stack, or a dump of a server's rows.

A third is usual for the stack, and for rows a tenth: their files hold indexes as well.
"""


@dataclass(frozen=True, slots=True)
class SpaceEstimate:
    """The maximum disk space that a backup needs."""

    general_bytes: int
    influx_bytes: int
    """Of the parts of InfluxDB 1 and 2."""
    sql_bytes: int
    """Of the parts of other databases."""
    recipes_bytes: int
    """Of the parts of services that are saved with their database."""
    unpacked_bytes: int
    """What tar will read for the general part: a guess, for the progress bar."""
    copies_bytes: int = 0
    """The size of copies of files until they are packed; for SQLite 0 if unknown."""
    is_guess: bool = False
    """There is no backup yet that shows how well the files compress."""

    @property
    def parts_bytes(self) -> int:
        """The size of the parts, and so of a copy of them."""
        return self.general_bytes + self.influx_bytes + self.sql_bytes + self.recipes_bytes

    @property
    def takes(self) -> dict[str, int]:
        """The space that it needs here by purpose; a packed dump stays until it is in its part."""
        told = {
            "the general part": self.general_bytes,
            "temporary copies of files": self.copies_bytes,
            "InfluxDB's part": self.influx_bytes,
            "its temporary dump": self.influx_bytes,
            "the parts of other databases": self.sql_bytes,
            "their temporary dumps": self.sql_bytes,
            "services saved with their database": self.recipes_bytes,
        }
        return {what: size for what, size in told.items() if size}

    @property
    def needed_bytes(self) -> int:
        """The sum of the space that it needs here."""
        return sum(self.takes.values())


def estimate_space(
    host: Host, facts: BackupFacts, sets: Iterable[BackupSet], limit_s: float = DU_LIMIT_S
) -> SpaceEstimate:
    """Return the sizes of the parts, by the last good set or, without one, by `du`.

    Raises StepFailed if one du takes longer than `limit_s`.
    """
    last = next((each.manifest for each in sets if each.state in GOOD and each.manifest), None)
    parts = {part.kind: part for part in last.made} if last else {}

    def used(paths: Iterable[str], without: Iterable[str] = ()) -> int:
        return _used(host, facts, [*paths], without, limit_s)

    def part_bytes(kind: str, paths: Iterable[str], without: Iterable[str] = ()) -> int:
        return int(parts[kind].size_bytes * GROWTH) if kind in parts else used(paths, without)

    copies_bytes = 0
    general = parts.get("general")
    if general:
        copies_bytes = int(int(general.facts.get("sqlite_bytes", 0)) * GROWTH)
        unpacked = int(general.facts.get("unpacked_bytes", 0))
        general_bytes = int(general.size_bytes * GROWTH)
    else:
        members = [f"{facts.folder}/{member[2:]}" for member in facts.members]
        unpacked = used(members, [f"{facts.folder}/{each}" for each in facts.exclusions])
        general_bytes = int(unpacked * PACKED_SHARE)
    copies_bytes += used(f"{facts.folder}/{path}" for each in facts.at_rest for path in each.paths)
    influx_bytes = part_bytes("influx", [f"{facts.folder}/{INFLUX}"]) if facts.influx else 0
    if facts.influx2:
        influx_bytes += part_bytes("influxdb2", filter(None, [facts.influx2.data_on_host]))
    sql_bytes = 0
    for engine in {each.engine: ENGINES[each.engine] for each in facts.servers}.values():
        mine = (each for each in facts.servers if each.engine == engine.name and each.data)
        data = [at for each in mine for at in (each.data, *each.apart)]
        share = 1 if engine.name in parts else PACKED_SHARE
        sql_bytes += int(part_bytes(engine.name, data, engine.fixed) * share)
    recipes_bytes = 0
    for used_one in facts.recipes:
        folder = f"{facts.folder}/{used_one.recipe.folder}"
        paths = [f"{folder}/{path}" for path in used_one.recipe.paths]
        without = [f"{folder}/{path}" for path in used_one.exclusions]
        recipes_bytes += part_bytes(used_one.name, paths, without)
    sizes = (general_bytes, influx_bytes, sql_bytes, recipes_bytes, unpacked, copies_bytes)
    return SpaceEstimate(*sizes, is_guess=general is None)


def _used(
    host: Host,
    facts: BackupFacts,
    paths: list[str],
    excluded: Iterable[str],
    limit_s: float,
) -> int:
    """Return the size of files in bytes, 0 if there are none or du gives none."""
    if not paths:
        return 0
    words = (*facts.as_root, "du", "-s", "-c", "-B1", *(f"--exclude={each}" for each in excluded))
    told = host.run(
        Command((*words, "--", *paths), accept=frozenset({0, 1}), timeout_s=limit_s)
    ).out.splitlines()
    total = told[-1].split("\t")[0] if told else ""
    return int(total) if total.isdigit() else 0


def refuse_without_space(host: Host, space: SpaceEstimate, backups: str) -> None:
    """Raise Refused, with the numbers, if the disk has too little space for a backup."""
    free = host.free_bytes(backups)
    if free is not None and free < space.needed_bytes:
        listed = " + ".join(f"{size:,} for {what}" for what, size in space.takes.items())
        raise Refused(
            f"{on_host(host)}{backups} has {free:,} bytes free, and this backup needs about "
            f"{space.needed_bytes:,}: {listed}. Free some space, or keep fewer backups ([stack] "
            "keep in hosts.toml)."
        )
