"""Restores of little stacks whose plans are kept as data, and how these are recorded.

What is recorded is what the target was asked, and the plan that was made of the answers.
"""

import dataclasses
import enum
import json
import posixpath
import re
import types
import typing
from collections.abc import Mapping

from fake_docker import LittleDocker

from iotstack_invoke.archives.scan import Contents
from iotstack_invoke.backups.manifest import Part, read_manifest
from iotstack_invoke.commands.restore.preflight import Preflight
from iotstack_invoke.commands.restore.request import RestoreRequest, choose_set, source_of
from iotstack_invoke.core.errors import Refused
from iotstack_invoke.environment.stack_host import open_target
from iotstack_invoke.reporting.report import Report
from iotstack_invoke.settings.model import load_settings
from iotstack_invoke.stack.inside import is_in

TAG = "t1"
FREE_BYTES = 1 << 36
STAMP = re.compile(r"(previous-t1-)\d{8}T\d{6}Z")


def plain(value):
    """Return a value as JSON has it: of data classes their fields, of sets their sorted members."""
    if dataclasses.is_dataclass(value):
        names = [each.name for each in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(plain, value))
    return [*map(plain, value)] if isinstance(value, (tuple, list)) else value


def made_of(kind, value):
    """Return a value of a type from what `plain` made of it."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else made_of(inner[0], value)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    if origin is tuple:
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        return tuple(map(made_of, kinds, value))
    if origin is frozenset:
        return frozenset(made_of(inner[0], each) for each in value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: made_of(hints[name], each) for name, each in value.items()})
    if origin is not None and issubclass(origin, Mapping):
        return {key: made_of(inner[1], each) for key, each in value.items()}
    return value


class Recorded(Preflight):
    """A look at a target that keeps what was asked besides the facts of the moment."""

    def __init__(self, *given):
        super().__init__(*given)
        self.answers = {}

    def _kinds(self):
        self.answers["kinds"] = super()._kinds()
        return self.answers["kinds"]

    def _candidates(self, kinds):
        self.answers["candidates"] = super()._candidates(kinds)
        return self.answers["candidates"]

    def _holding(self, facts, contents):
        self.answers["holding"] = super()._holding(facts, contents)
        return self.answers["holding"]

    def _with_loads(self, facts, items, *, staged):
        facts, chosen = super()._with_loads(facts, items, staged=staged)
        self.answers |= {"loads": facts.loads, "chosen": [each.live for each in chosen]}
        return facts, chosen

    def _lying(self, facts):
        there = super()._lying(facts)
        base = posixpath.dirname(self.target.folder)
        self.answers["there"] = {each for each in there if not is_in(base, each) or each == base}
        return there


def backed_up(stack):
    told = stack.run(f"backup --runtag {TAG} --force")
    assert told.returncode == 0, told.stderr


def of_no_time(backup):
    """Return a set without the dates and sizes of its files, which are others each time."""
    files = {
        kind: dataclasses.replace(each, modified_s=0.0, size_bytes=10)
        for kind, each in backup.files.items()
    }
    return dataclasses.replace(backup, files=files, manifest=None)


def of_no_machine(manifest):
    """Return a manifest, as JSON has it, without what is of its machine, and of its moment."""
    times = {"started_utc": "2026-01-01T00:00:00Z", "finished_utc": "2026-01-01T00:00:09Z"}
    always = {"size_bytes": 10, "sha256": "0" * 64, "seconds": 0.0}
    parts = tuple(dataclasses.replace(each, **always) for each in manifest.parts)
    named = {"host": "pi", "machine": "", "zone": "UTC", "parts": parts}
    told = dataclasses.replace(manifest, **times, **named).to_json()
    return json.loads(told) | {"sha256": "0" * 64}


def recorded(stack, name):
    """Return the plan of a restore in a situation, or why it is refused, with all it is made of."""
    backed_up(stack)
    asked = SITUATIONS[name](stack)
    settings = load_settings(str(stack.settings))
    request = RestoreRequest(TAG, **asked)
    said = {"request": request, "settings": stack.settings.read_text()}
    with (
        open_target(settings, "", bare=request.bare) as target,
        source_of(settings, request, target) as source,
    ):
        chosen = choose_set(source, TAG)
        backup, manifest = chosen.backup, chosen.manifest
        said |= {"backup": of_no_time(backup), "manifest": of_no_machine(manifest)}
        said["in_place"] = source.in_place
        before = None
        try:
            given = (settings, target, source, request, backup, manifest, Report())
            before = Recorded(*given)
            facts = before.facts()
            contents = before.contents_told(facts, {"docker-compose.yml", ".env"})
            facts = before.with_items(facts, contents or Contents())
            said["plan"] = dataclasses.replace(facts, free_bytes=FREE_BYTES)
        except Refused as error:
            said["refused"] = str(error)
        if planner := getattr(before, "planner", None):
            of_machine = {"mounts": frozenset({"/"}), "away": frozenset(), "is_new": False}
            here = dataclasses.replace(planner.here, free_bytes=FREE_BYTES, **of_machine)
            said |= {"facts": here, "users": planner.users, **before.answers}
    base = str(stack.folder.parent)
    text = json.dumps(plain(said)).replace(base, "/pi").replace(base[1:], "pi")
    return json.loads(STAMP.sub(r"\g<1>20260101T000000Z", text))


# The situations: each changes a stack with a backup of it, and returns what is asked for.


def live(stack):
    """What runs is stopped and started again, what stands stays so, what is new here stays."""
    stack.runs(nodered="nodered/node-red", other="other:1", down=["other"])
    return {}


def one_service(stack):
    """One service is restored beside another that runs on."""
    stack.runs(nodered="nodered/node-red", other="other:1")
    return {"only": ("nodered",)}


def exact(stack):
    """What the backup does not hold is put aside."""
    (stack.folder / "volumes/mine").mkdir()
    return {"exact": True}


def compose_of_the_backup(stack):
    """The backup's compose file comes in the place of the one here."""
    stack.runs(nodered="nodered/node-red")
    return {"compose": True}


def bare(stack):
    """All is brought up on a machine without any container, or compose file."""
    (stack.folder / "docker-compose.yml").unlink()
    (stack.folder / "volumes/nodered/flows.json").unlink()
    (stack.folder / "volumes/nodered").rmdir()
    return {"bare": True, "compose": True}


def bare_with_containers(stack):
    """A machine that is said to be new, and is not."""
    stack.runs(nodered="nodered/node-red")
    return {"bare": True, "compose": True}


def unknown_name(stack):
    """A service that neither the backup nor the machine has."""
    stack.runs(nodered="nodered/node-red")
    return {"only": ("noderde",)}


def outside(stack):
    """A volume, and a path outside of the stack."""
    docker, films = LittleDocker(stack), stack.folder.parent / "disk/films"
    films.mkdir(parents=True)
    (films / "a").write_text("old")
    docker.volume("data", "old")
    docker.volume("more", "mine")
    with stack.settings.open("a") as stream:
        stream.write(f'[[stack.include]]\npath = "{films}"\n')
    docker.knows({"one": [("data", "/data"), (str(films), "/films")]})
    backed_up(stack)
    docker.knows({"one": [("data", "/data"), ("more", "/more"), (str(films), "/films")]})
    return {}


def sql(stack):
    """A dump of MariaDB, whose container stands still."""
    part(stack, "mariadb", containers=("mariadb",), inside="/config/databases")
    mounts = {"mariadb": [("./volumes/mariadb/config", "/config")]}
    stack.runs(mariadb="linuxserver/mariadb", down=["mariadb"], mounts=mounts)
    return {}


def sql_without_its_data(stack):
    """A MariaDB that maps no folder for its data cannot take its dump in."""
    part(stack, "mariadb", containers=("mariadb",), inside="/config/databases")
    mounts = {"mariadb": [("./volumes/mariadb/other", "/other")]}
    stack.runs(mariadb="linuxserver/mariadb", down=["mariadb"], mounts=mounts)
    return {}


def recipe(stack):
    """A service that has a part of its own, with its database."""
    part(stack, "nextcloud", containers=("nextcloud_db",), inside="/config/databases")
    mounts = {"nextcloud_db": [("./volumes/nextcloud/db", "/config")]}
    images = {"nextcloud": "nextcloud:29", "nextcloud_db": "linuxserver/mariadb"}
    stack.runs(**images, down=[*images], mounts=mounts)
    return {}


def influxdb_apart(stack):
    """An InfluxDB that stands still, whose write-ahead log is mapped apart from its data."""
    told = {"container": "influxdb", "databases": ["home"], "user_names": []}
    part(stack, "influx", more=told)
    places = [("all", ""), ("wal", "/wal"), ("backup", "/backup")]
    mounts = [(f"./volumes/influxdb/{name}", f"/var/lib/influxdb{e}") for name, e in places]
    stack.runs(influxdb="influxdb:1.8", down=["influxdb"], mounts={"influxdb": mounts})
    return {}


SITUATIONS = {
    each.__name__: each
    for each in (
        *(live, one_service, exact, compose_of_the_backup, bare, bare_with_containers),
        *(unknown_name, outside, sql, sql_without_its_data, recipe, influxdb_apart),
    )
}


def part(stack, kind, containers=(), inside="", more=None):
    """Let the backup have one more part."""
    folder = stack.folder / "backups"
    manifest = read_manifest((folder / f"{TAG}.manifest.json").read_bytes(), TAG)
    servers = [{"container": e, "inside": inside, "users": [], "rows": {}} for e in containers]
    endings = {"influx": "influx-backup.tar"}
    archive = folder / f"{TAG}.{endings.get(kind, f'{kind}-backup.tar.gz')}"
    archive.write_bytes(b"x" * 10)
    made = Part(kind, archive.name, 10, "0" * 64, facts=more or {"servers": servers})
    manifest = dataclasses.replace(manifest, parts=(*manifest.parts, made))
    (folder / f"{TAG}.manifest.json").write_text(manifest.to_json())
