"""Which service a container is, and how a backup saves its data, according to table.toml.

Pure but for reading that file once. Not for: saving the data; exclusions (settings).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from enum import Enum
from functools import lru_cache
from itertools import combinations
from pathlib import PurePosixPath
from typing import Any

from ..core.dataclass import dataclass
from ..core.path_patterns import fits_all_of
from ..core.stack_folders import FOLDERS, KEPT_OUT
from .containers import Container

# IOTstack builds some images itself: iotstack_mariadb by compose v1, iotstack-mariadb by v2.
_OURS = re.compile(r"^iotstack[-_]")
_BOARD = re.compile(r"^(raspberrypi\d(-64)?|qemuarm(-64)?|generic-x86-64)-")
_INFLUXDB_VERSION = re.compile(r"(?:^|/)influxdb:v?(\d+)(?!\w)")
_INFLUXDB_3 = re.compile(r"(?:^|/)influxdb:3\b")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
FILE = "table.toml"
OF_RESTORES = ("volumes/.previous-*-????????T??????Z*", "volumes/.restore-*")
"""Data that restores keep and stage if volumes/ is a separate file system; in no backup."""
DUMPED = frozenset({"influxdb", "influxdb2", "mariadb", "postgres"})
"""The dumps that a backup makes."""
PART_OF_DUMP = {
    "influxdb": "influx",
    "influxdb2": "influxdb2",
    "mariadb": "mariadb",
    "postgres": "postgres",
}
"""The part that contains each dump."""
ROW_KEYS: Mapping[str, type] = {
    "name": str,
    "kind": str,
    "dump": str,
    "images": list,
    "containers": list,
    "paths": list,
    "data": list,
    "first": list,
    "leave_out": list,
    "reason": str,
    "notes": str,
}
LEAVE_OUT_KEYS = ("inside", "reason")
USUAL = "usual"


class Kind(Enum):
    """How the data of a service are saved."""

    COPY_SAFE = "copy-safe"
    SQLITE = "sqlite"
    PAYLOAD = "payload"
    UNSURE = "unsure"
    DUMP = "dump"
    STOP = "stop"
    RECIPE = "recipe"
    SKIP = "skip"


KINDS = {kind.value: kind for kind in Kind}
COPIED = "copied as they are"
NO_BACKUP_OF_3 = "InfluxDB 3 has no backup command: stop it while its folder is copied"
AS_THEY_LIE = f"it is stopped, so its files are {COPIED}"
PAUSED = "it is paused, so its files are copied as they are, as after a power cut"
_SAVED = {
    Kind.COPY_SAFE: "files",
    Kind.SQLITE: "files; SQLite by online backup",
    Kind.PAYLOAD: "files, large and replaceable",
    Kind.UNSURE: "files; tar warns if one changed",
    Kind.STOP: "stopped while it is copied",
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a service is saved with its database; the top of table.toml describes the fields."""

    database: str
    folder: str
    paths: tuple[str, ...]
    otherwise: str = ""
    user: str = ""
    ask: tuple[str, ...] = ()
    awake: str = ""
    enter: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaveOut:
    """A path of a container that no backup needs, and why."""

    inside: str
    reason: str
    usual: str = ""
    """Its usual path in IOTstack, which is left out if the container does not exist."""


@dataclass(frozen=True, slots=True)
class Service:
    """A row of the table; its fields are described at the top of table.toml.

    `own`: hosts.toml set it, or part of it.
    """

    name: str
    kind: Kind
    images: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    dump: str = ""
    first: tuple[str, ...] = ()
    reason: str = ""
    notes: str = ""
    own: bool = False
    recipe: Recipe | None = None
    leave_out: tuple[LeaveOut, ...] = ()
    data: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceTable:
    """All services by name, and the images of databases, whichever service they belong to."""

    services: tuple[Service, ...]
    databases: frozenset[str]
    caches: frozenset[str] = frozenset()

    def service_of(self, container: Container) -> Service | None:
        """Return the service of a container, None if the table does not know it.

        hosts.toml has precedence. A name decides before an image, unless the image is that of a
        database and the service of this name is another one.
        """
        name, image = container.name, container.image
        own = [each for each in self.services if each.own]
        found = _by_name(own, name) or _by_image(filter(_has_own_images, own), image)
        if found:
            return found
        named = _by_name(self.services, name)
        if named and named.dump == "influxdb" and influxdb_version(image) == "2":
            return self._influxdb2(name)
        if named and (not self.is_database(image) or _is_of(image, named.images)):
            return named
        # What is left out is identified by its path, and so by its name only.
        return _by_image((each for each in self.services if each.kind is not Kind.SKIP), image)

    def _influxdb2(self, name: str) -> Service | None:
        """Return the row of InfluxDB 2, even for a container of this name."""
        row = next((each for each in self.services if each.dump == "influxdb2"), None)
        return replace(row, containers=(*row.containers, name)) if row else None

    def is_database(self, image: str) -> bool:
        """Return whether an image is that of a database."""
        return bool(self.database_of(image))

    def is_cache(self, container: Container) -> bool:
        """Return whether a container is an in-memory store that no row of the table covers."""
        return self.service_of(container) is None and _is_of(container.image, self.caches)

    def database_of(self, image: str) -> str:
        """Return the name of the database whose image it is, by the table, or ''."""
        return next((name for name in sorted(self.databases) if _is_of(image, (name,))), "")


@dataclass(frozen=True, slots=True)
class Cover:
    """How the data of one container are saved; if they are not, `how` says why."""

    container: Container
    service: Service | None
    how: str
    covered: bool = True
    part: str = ""
    """The part of the recipe that saves it, if any."""
    advice: str = ""
    """What to do, if it is not to add a row to hosts.toml."""

    def __str__(self) -> str:
        return self.how if self.covered else f"NOT COVERED: {self.how}"

    @property
    def warning(self) -> str:
        """The warning to the owner about a container that is not covered."""
        name = self.container.name
        row = f'[[services]], name = "{name}", kind ='
        advice = self.advice or f'Set in hosts.toml how to save it: {row} "stop", or "skip"'
        if self.advice:
            advice = f'{advice}; or allow in hosts.toml to lose it: {row} "skip"'
        return (
            f"Container {name} ({self.container.image}) is not covered: {self.how}. {advice} "
            "with a reason."
        )


def image_name(image: str) -> str:
    """Return the plain name of an image: no registry, tag, digest, or prefix of a builder."""
    return _BOARD.sub("", _OURS.sub("", _untagged(image).rpartition("/")[2]))


def _untagged(image: str) -> str:
    vendor, slash, name = image.partition("@")[0].rpartition("/")
    return f"{vendor}{slash}{name.partition(':')[0]}"


def _is_of(image: str, names: Iterable[str]) -> bool:
    """Return whether an image has one of these names, or of these VENDOR/NAMEs."""
    plain, path = image_name(image), f"/{_untagged(image)}"
    return any(path.endswith(f"/{name}") if "/" in name else name == plain for name in names)


def _by_name(services: Iterable[Service], name: str) -> Service | None:
    return next((each for each in services if name in each.containers), None)


def _has_own_images(service: Service) -> bool:
    """Return whether hosts.toml set the images of a service, rather than the package."""
    packaged = packaged_service(service.name)
    return packaged is None or packaged.images != service.images


def _by_image(services: Iterable[Service], image: str) -> Service | None:
    """Return the service of an image; if several have it, the one with its name."""
    found = [each for each in services if _is_of(image, each.images)]
    return min(found, key=lambda each: each.name != image_name(image), default=None)


def cover(containers: Iterable[Container], table: ServiceTable) -> tuple[Cover, ...]:
    """Return how the data of each container are saved, by its name."""
    ordered = sorted(containers, key=lambda each: each.name)
    used = recipes_used(ordered, table)
    return tuple(_cover(each, table.service_of(each), table, used) for each in ordered)


def recipes_used(containers: Iterable[Container], table: ServiceTable) -> Mapping[str, Recipe]:
    """Return the recipes in use, by service: those whose database is dumped."""
    known = {each.name: each for each in containers}
    services = filter(None, map(table.service_of, known.values()))
    return {
        each.name: each.recipe
        for each in services
        if each.kind is Kind.RECIPE
        and each.recipe
        and each.recipe.database in known
        and _is_dumped(known[each.recipe.database], table)
    }


def _is_dumped(database: Container, table: ServiceTable) -> bool:
    """Return whether a recipe may dump its database: it runs, and no row says otherwise."""
    service = table.service_of(database)
    if service is None or not database.running:
        return False
    return service.dump == "mariadb" or (service.kind is Kind.SKIP and not service.own)


def _cover(
    container: Container, service: Service | None, table: ServiceTable, used: Mapping[str, Recipe]
) -> Cover:
    for part, recipe in used.items():
        if container.name == recipe.database:
            return Cover(container, service, f"dumped into the {part} part", part=part)
        if service and service.name == part:
            how = f"in the {part} part, with the dump of {recipe.database}"
            return Cover(container, service, how, part=part)
    if service and service.kind is Kind.RECIPE:
        assert service.recipe  # noqa: S101 - every row of that kind has one
        if not service.recipe.otherwise:
            why = f"{service.recipe.database} is not a running MariaDB that is dumped"
            return Cover(container, service, why, covered=False)
        service = replace(service, kind=KINDS[service.recipe.otherwise])
    if service is None:
        database = table.database_of(container.image)
        if database:
            return _torn(container, service, database)
        return Cover(container, service, _SAVED[Kind.SQLITE])
    if service.kind is Kind.DUMP:
        return _cover_by_dump(container, service)
    if service.kind is Kind.SKIP:
        return _cover_by_leaving_out(container, service)
    if service.kind is Kind.STOP and not container.running:
        return Cover(container, service, AS_THEY_LIE)
    return Cover(container, service, _SAVED[service.kind])


def _cover_by_leaving_out(container: Container, service: Service) -> Cover:
    """Return the cover of a container that is left out, as its owner must have declared."""
    how = f"left out: {service.reason}"
    if service.own:
        return Cover(container, service, how)
    name = next(k for k, each in packaged_recipes().items() if service.name in (k, each.database))
    advice = f'Save it with its database: [[services]], name = "{name}", kind = "recipe"'
    return Cover(container, service, how, covered=False, advice=advice)


def _cover_by_dump(container: Container, service: Service) -> Cover:
    if service.dump not in DUMPED:
        return _torn(container, service, service.dump)
    if container.running and is_influxdb_3(container.image):
        return influxdb_3(container, service)
    if service.dump == "influxdb2" and container.running:
        if container.name not in service.containers:
            why = f"of all InfluxDB 2s only container {service.containers[0]} is dumped"
            return Cover(container, service, why, covered=False)
        return Cover(container, service, "dumped into the influxdb2 part (experimental)")
    if service.dump == "influxdb" and container.name not in service.containers:
        return _another_influxdb(container, service)
    if not container.running:
        return Cover(container, service, AS_THEY_LIE)
    return Cover(container, service, f"dumped into the {PART_OF_DUMP[service.dump]} part")


def _another_influxdb(container: Container, service: Service) -> Cover:
    """Return the cover of a container whose InfluxDB is not the dumped one, with what to do."""
    name = container.name
    if influxdb_version(container.image) == "2":
        why = "InfluxDB 2 is dumped only if hosts.toml says so"
        advice = (
            f'Add to hosts.toml: [[services]], name = "{name}", kind = "dump", dump = "influxdb2"'
        )
    else:
        why = f"of all InfluxDBs only container {service.containers[0]} is dumped"
        advice = f'To dump this one, set in hosts.toml: [influxdb] container = "{name}"'
    return Cover(container, service, why, covered=False, advice=advice)


def influxdb_version(image: str) -> str:
    """Return the major version in the tag of an InfluxDB image; '' if it has none."""
    found = _INFLUXDB_VERSION.search(image)
    return found[1] if found else ""


def is_influxdb_3(image: str) -> bool:
    """Return whether an image's tag says InfluxDB 3; `latest` does not."""
    return bool(_INFLUXDB_3.search(image))


def influxdb_3(container: Container, service: Service | None) -> Cover:
    """Return the cover of an InfluxDB 3 container: none; stopping it helps."""
    return Cover(container, service, NO_BACKUP_OF_3, covered=False)


def _torn(container: Container, service: Service | None, database: str) -> Cover:
    why = f"{database} writes while it is copied"
    if not container.running:
        why = f"{database} can be copied only while it is stopped"
    return Cover(container, service, why, covered=False)


def read_table(overrides: Iterable[Service] = (), influx: str = "influxdb") -> ServiceTable:
    """Return the table of the package with the rows of hosts.toml applied.

    `influx` names the one container whose InfluxDB is dumped.
    """
    packaged, databases, caches = _packaged()
    rows = {**packaged, **{each.name: each for each in overrides}}
    placed = (
        replace(each, containers=(influx,)) if each.dump == "influxdb" else each
        for each in rows.values()
    )
    known = (*packaged.values(), *rows.values())
    return ServiceTable(
        services=tuple(sorted(placed, key=lambda each: each.name)),
        databases=databases.union(*(each.images for each in known if each.dump)),
        caches=caches,
    )


def packaged_service(name: str) -> Service | None:
    """Return the row of that name in the package's table; None if it has none."""
    return _packaged()[0].get(name)


def packaged_recipes() -> Mapping[str, Recipe]:
    """Return the recipes that the package knows, by their services."""
    return {each.name: each.recipe for each in _packaged()[0].values() if each.recipe}


def packaged_names() -> tuple[str, ...]:
    """Return the names of the services that the package knows."""
    return tuple(_packaged()[0])


@lru_cache
def _packaged() -> tuple[Mapping[str, Service], frozenset[str], frozenset[str]]:
    with open(os.path.join(os.path.dirname(__file__), FILE), "rb") as stream:
        content = tomllib.load(stream)
    rows = (read_row(row) for row in content["services"])
    databases, caches = (frozenset(content[key]) for key in ("databases", "caches"))
    return {each.name: each for each in rows}, databases, caches


def read_row(row: Mapping[str, Any], base: Service | None = None, *, own: bool = False) -> Service:
    """Return a valid row as a service; fields that it omits are taken from `base`."""
    name = row["name"]
    start = base or Service(
        name, Kind.UNSURE, containers=(name,), paths=(f"{FOLDERS[-1]}/{name}",)
    )
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in row.items()
        if key in ROW_KEYS and key not in ("name", "kind", "leave_out")
    }
    if "paths" in row:
        given["paths"] = tuple(str(PurePosixPath(each)) for each in row["paths"])
    if "leave_out" in row:
        given["leave_out"] = tuple(LeaveOut(**each) for each in row["leave_out"])
    if "recipe" in row:
        words: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in row["recipe"].items()
        }
        given["recipe"] = Recipe(**words)
    kind = KINDS[row["kind"]] if "kind" in row else start.kind
    if start.kind is Kind.UNSURE and kind is not Kind.UNSURE:
        given.setdefault("notes", "")  # they describe another kind
    service = replace(start, kind=kind, own=own, **given)
    return service if kind is Kind.DUMP else replace(service, dump="")


def row_mistakes(row: Mapping[str, Any], base: Service | None = None) -> list[str]:
    """Return what is wrong with a row whose keys are known and of the right type."""
    found = []
    if not _NAME.fullmatch(row.get("name", "any")):
        found.append("its name must be one word of letters, digits, '_', '.' and '-'")
    kind = row.get("kind", base.kind.value if base else None)
    if kind is None:
        found.append("'kind' is missing, and there is no known service of that name")
    elif kind not in KINDS:
        found.append(f"kind = {kind!r} must be one of {', '.join(KINDS)}")
    if kind == "recipe" and not (base and base.recipe):
        found.append(f"kind = 'recipe' is for {', '.join(packaged_recipes())}")
    dump = row.get("dump", base.dump if base and kind == "dump" else "")
    if kind == "dump" and dump not in PART_OF_DUMP:
        found.append(f"dump = {dump!r} must be one of {', '.join(PART_OF_DUMP)}")
    elif dump and kind in KINDS and kind != "dump":
        found.append("'dump' is for kind = 'dump'")
    if kind == "skip" and not row.get("reason", base.reason if base else "").strip():
        found.append("kind = 'skip' needs a reason")
    for key in (key for key, type_ in ROW_KEYS.items() if type_ is list and key != "leave_out"):
        if not all(isinstance(each, str) and each for each in row.get(key, ())):
            found.append(f"{key} = {row[key]!r} must be a list of texts in quotes")
        elif key == "paths":
            found += [
                f"path {each!r} must be a path in the stack's folder, such as volumes/NAME"
                for each in row.get(key, ())
                if not is_part_of_stack(str(PurePosixPath(each)))
            ]
        elif key == "data":
            found += [
                f"data {each!r} must be a path below / of its container"
                for each in row.get(key, ())
                if not each.startswith("/") or not each.strip("/") or ".." in each.split("/")
            ]
    return [*found, *_leave_out_mistakes(row.get("leave_out", ()))]


def _leave_out_mistakes(entries: Iterable[Any]) -> Iterator[str]:
    """Yield what is wrong with the container paths that a row leaves out."""
    for each in entries:
        if not isinstance(each, dict) or set(each) - {USUAL} != set(LEAVE_OUT_KEYS):
            yield f"leave_out: {each!r} must be a table with {' and '.join(LEAVE_OUT_KEYS)}"
            continue
        inside, reason = (each[key] for key in LEAVE_OUT_KEYS)
        parts = PurePosixPath(inside).parts if isinstance(inside, str) else ()
        if len(parts) < 2 or parts[0] != "/" or ".." in parts or fits_all_of(inside, "/\0"):  # noqa: PLR2004
            yield f"leave_out: inside = {inside!r} must be a path below / of its container"
        if not isinstance(reason, str) or not reason.strip():
            yield f"leave_out: inside = {inside!r} needs a reason"
        usual = each.get(USUAL, "volumes/any")
        if not isinstance(usual, str) or not is_below_stack(usual):
            yield f"leave_out: usual = {usual!r} must lie below {'/ or '.join(FOLDERS)}/"


def row_conflicts(rows: Mapping[int, Service]) -> list[str]:
    """Return the conflicts between rows about one container: both name it, or both its image.

    `rows` by their numbers in the file, each valid by itself. A row with a container's name and
    one with its image do not conflict: the name has precedence.
    """
    found = []
    for (first, one), (second, other) in combinations(rows.items(), 2):
        if (one.kind, one.dump) == (other.kind, other.dump):
            continue
        shared = [f"container {name}" for name in one.containers if name in other.containers]
        if _has_own_images(one) and _has_own_images(other):
            shared += [
                f"image {name}"
                for name in one.images
                if any(_is_of(name, (e,)) or _is_of(e, (name,)) for e in other.images)
            ]
        if shared:
            found.append(
                f"[[services]] number {first} '{one.name}' and number {second} '{other.name}' "
                f"both say how {', '.join(shared)} is saved: kind = '{one.kind.value}' and "
                f"kind = '{other.kind.value}'; remove one of them"
            )
    return found


def is_in_stack(path: str) -> bool:
    """Return whether a backup may hold a relative path of the stack."""
    top, *_ = PurePosixPath(path).parts or ("",)
    plain = not path.startswith("/") and ".." not in PurePosixPath(path).parts
    return plain and top not in ("", *KEPT_OUT)


def is_part_of_stack(path: str) -> bool:
    """Return whether a relative path is in the stack, and does not match a whole top folder.

    `path` as PurePosixPath writes it.
    """
    top = path.partition("/")[0]
    return is_in_stack(path) and path not in FOLDERS and not set(top) & set("*?[")


def is_of_restores(path: str) -> bool:
    """Return whether a relative path is left out because it belongs to restores."""
    return any(fits_all_of(each, path) for each in OF_RESTORES)


def is_below_stack(path: str) -> bool:
    """Return whether a relative path is below services/ or volumes/."""
    top, *below = PurePosixPath(path).parts or ("",)
    return top in FOLDERS and bool(below) and ".." not in below
