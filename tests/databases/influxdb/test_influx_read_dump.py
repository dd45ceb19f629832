"""What a dump or a server lacks, by their catalogues and files; and a dump that is read once."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import folders
import pytest

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.databases.influxdb.dump import facts_of
from iotstack_invoke.databases.influxdb.meta import (
    Catalogue,
    ContinuousQuery,
    Grant,
    InfluxDatabase,
    RetentionPolicy,
    ShardGroup,
    User,
)
from iotstack_invoke.databases.influxdb.read_dump import (
    CheckDump,
    CompareWithManifest,
    Dump,
    lacking_in,
    lacking_shards,
)
from iotstack_invoke.engine.executor import Disks
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.hosts.local import LocalHost

ANNA = User("anna", False, (("home", Grant.READ),), b"hash")
QUERY = ContinuousQuery("means", "CREATE …")


def database(name, *groups, queries=()):
    """A database with one policy."""
    return InfluxDatabase(name, "autogen", (RetentionPolicy("autogen", 0, 1, groups),), queries)


def group(*shards, deleted=0):
    """A group of shards."""
    return ShardGroup(0, 1, deleted, shards)


FULL = Catalogue(
    (
        database("home", group(1, 2), group(3), group(4, deleted=9), queries=(QUERY,)),
        database("_internal", group(7)),
    ),
    (ANNA,),
    100,
)


def without(**changes):
    """The catalogue with something else in it."""
    return replace(FULL, **changes)


def test_nothing_is_lacking_in_itself():
    """A catalogue has all that it has; more is no harm."""
    assert lacking_in(FULL, FULL) == []
    assert lacking_in(FULL, without(users=())) == []


@pytest.mark.parametrize(
    ("held", "lacking"),
    [
        (None, "its catalogue"),
        (without(users=()), "user anna"),
        (without(users=(replace(ANNA, admin=True),)), "user anna"),
        (without(users=(replace(ANNA, grants=()),)), "user anna"),
        (without(databases=(database("home", group(1)),)), "continuous query means of home"),
        (without(databases=(database("Home", queries=(QUERY,)),)), "database home"),
    ],
)
def test_what_is_lacking(held, lacking):
    """Each is named."""
    assert lacking in lacking_in(held, FULL)


def test_shards_on_the_disk():
    """Those with files must be in the dump, but for expired and internal ones."""
    assert lacking_shards(frozenset({1, 3}), FULL, frozenset({1, 3, 4, 7, 99})) == []
    assert lacking_shards(frozenset({1}), FULL, frozenset({1, 2, 3})) == [
        "shard 2 of home",
        "shard 3 of home",
    ]


class Stage:
    """What a step may use, with every program that was started."""

    def __init__(self):
        self.started, self.said = [], []
        self.local = LocalHost("/")
        self.pi = SimpleNamespace(pipe=self._pipe, name="pi", disk=self.local.disk)

    def host(self, _role):
        return self.pi

    def status(self, text):
        self.said.append(text)

    def reserve(self, look, size_bytes, *, for_all=False):
        return Disks().keep(self, look, size_bytes)

    def _pipe(self, command, heard=None):
        self.started.append(command.argv[0])
        return self.local.pipe(command, heard)


HAPPY = folders.FIXTURES / "influx-backups/v1.8.10-happy"


@pytest.fixture
def folder(tmp_path):
    """A dump of a real server, unpacked."""
    shutil.copytree(HAPPY, tmp_path / "dump")
    return tmp_path / "dump"


def test_a_dump_is_read_once(folder):
    """Several steps ask what it holds; it is read by one tar."""
    stage, dump = Stage(), Dump(HostAccess("pi"), str(folder))
    report = dump.report(stage)
    assert report.problems == ()
    assert report.shards
    assert dump.report(stage) is report
    assert stage.started == ["tar"]
    CheckDump(dump, "of the test", blocks=False).do(stage)
    assert stage.started == ["tar"]
    CheckDump(dump, "of the test").do(stage)
    assert stage.started[1:] == ["cat"] * (2 * len(report.shards))


def test_a_dump_that_is_not_there(tmp_path):
    """It is no empty dump."""
    with pytest.raises(StepFailed, match="dump"):
        Dump(HostAccess("pi"), str(tmp_path / "none")).report(Stage())


def test_damaged_dump(folder):
    """A file that is cut is named, and what to do."""
    shard = next(folder.glob("*.tar.gz"))
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(StepFailed, match=shard.name):
        CheckDump(Dump(HostAccess("pi"), str(folder)), "of the test").do(Stage())


def test_a_dump_that_takes_more_than_is_free(folder, small_disk):
    """Its shards unpacked are counted, and nothing is loaded that does not fit."""
    dump = Dump(HostAccess("pi"), str(folder))
    held = sum(each.bytes for each in dump.report(Stage()).shards)
    CheckDump(dump, "of the test", data=str(small_disk / "data")).do(Stage())
    (small_disk / "film").write_bytes(bytes(262_144 - held // 4096 * 4096))
    with pytest.raises(StepFailed, match=f"{held:,} bytes when unpacked, but "):
        CheckDump(dump, "of the test", data=str(small_disk / "data")).do(Stage())


def test_database_that_the_dump_lacks(folder):
    """One that is asked for and not there is named, with those that are."""
    with pytest.raises(StepFailed, match="does not contain nowhere"):
        CheckDump(Dump(HostAccess("pi"), str(folder)), "of the test", ("nowhere",)).do(Stage())


def test_dump_and_manifest(folder):
    """What a manifest says of a dump is compared; what it does not say is not."""
    stage, dump = Stage(), Dump(HostAccess("pi"), str(folder))
    told = facts_of(dump.report(stage))
    CompareWithManifest(dump, told).do(stage)
    CompareWithManifest(dump, {}).do(stage)
    CompareWithManifest(dump, {"version": "1.8.10"}).do(stage)
    for key in told:
        with pytest.raises(StepFailed, match=f"differs from the manifest in {key}"):
            CompareWithManifest(dump, {**told, key: "other"}).do(stage)
