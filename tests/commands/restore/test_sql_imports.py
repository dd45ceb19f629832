"""Which dumps a restore loads, and what keeps it from loading one."""

import tempfile
from dataclasses import replace
from types import SimpleNamespace

import pytest

from iotstack_invoke.backups.manifest import Manifest, Part
from iotstack_invoke.commands.restore.sql_imports import SqlImports, without_new_data
from iotstack_invoke.core.errors import Refused
from iotstack_invoke.databases.sql.servers import SqlServer
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.services.containers import Container
from iotstack_invoke.stack.compose import InspectedContainer, Mount
from iotstack_invoke.workflows.restore import Item, OutsideItem

TIMES = ("2026-11-23T11:00:00Z", "2026-11-23T11:01:00Z")
EXTENSION = "CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public;\n"


def choose(tmp_path, dump, *, told=None, only=(), staged=True, outside=(), mount=""):
    """Return the loads of a PostgreSQL part of one server, whose dump is staged."""
    stage = tmp_path / "restore/tag"
    (stage / "postgres/timescaledb").mkdir(parents=True)
    (stage / "postgres/timescaledb/postgres_backup.sql").write_text(dump)
    manifest = None
    if told is not None:
        facts = {"servers": [{"container": "timescaledb", "version": "15.1", **told}]}
        part = Part("postgres", "tag.postgres-backup.sql.gz.tar", 1, "ab" * 32, facts=facts)
        manifest = Manifest("tag", "pi", "", *TIMES, "UTC", (part,))
    folder = str(tmp_path)
    target = SimpleNamespace(host=LocalHost(folder), name="pi", folder=folder, as_root=())
    facts = SimpleNamespace(
        kinds=("postgres",),
        volumes_apart=False,
        previous=f"{tmp_path}/restore/previous-tag",
        outside=outside,
    )
    made = Container("timescaledb", "postgres", "", "", running=False)
    found = InspectedContainer(made, (Mount(mount, "/var/lib/postgresql/data"),), 0, "", "")
    loads = SqlImports(target, (found,) if mount else (), manifest, str(stage), only)
    return loads.choose(facts, (), staged=staged)


@pytest.mark.parametrize("told", [None, {"timescaledb": ["iot"]}])
@pytest.mark.parametrize("staged", [True, False])
def test_a_dump_with_timescaledb_is_refused(tmp_path, told, staged):
    """Its tables want steps around the load: it is refused with the way out, before all else."""
    if told is None and not staged:
        return  # nobody knows of it yet
    with pytest.raises(Refused, match=r"timescaledb_pre_restore\(\).*--only NAME"):
        choose(tmp_path, EXTENSION, told=told, staged=staged)


@pytest.mark.parametrize("told", [None, {}])
def test_a_server_of_that_image_without_the_extension_is_loaded(tmp_path, told):
    """What counts is the dump, not the name of the image."""
    (load,) = choose(tmp_path, "CREATE EXTENSION IF NOT EXISTS pgcrypto;\n", told=told)
    assert load.server.container == "timescaledb"


@pytest.mark.parametrize(
    "data", ["../there", "/etc", "/usr/x", ".", "volumes", "volumes/../..", "backups", "restore/x"]
)
@pytest.mark.parametrize("staged", [True, False])
def test_a_manifest_leads_to_no_folder_of_others(tmp_path, data, staged):
    """What it alone calls a database's folder is not put aside, unless it is one in the stack."""
    (tmp_path / "../there").mkdir(exist_ok=True)
    (tmp_path / "../there/mine").touch()
    with pytest.raises(
        Refused, match=r"not a separate folder in the stack.*up --no-start timescaledb"
    ):
        choose(tmp_path, "", told={"data": data}, staged=staged)


def test_a_folder_in_the_stack_is_taken(tmp_path):
    """A server without a container is put where the backup had it."""
    (load,) = choose(tmp_path, "", told={"data": "data/own/pg"})
    assert load.server.data == f"{tmp_path}/data/own/pg"


def test_a_folder_elsewhere_is_taken_where_nothing_is(tmp_path):
    """What the container of the compose file will mount may lie outside of the stack."""
    (load,) = choose(tmp_path, "", told={"data": "../elsewhere/pg"})
    assert load.server.data == f"{tmp_path.parent}/elsewhere/pg"


def test_other_services_can_be_restored_beside_it(tmp_path):
    """With --only another service, the dump with TimescaleDB keeps nothing from being done."""
    assert choose(tmp_path, EXTENSION, only=("nodered",)) == ()


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize("place", ["volumes/pg", "volumes/fast"])
def test_a_server_that_is_not_loaded_keeps_its_folders(tmp_path, place, runs):
    """No empty folder is swapped in where its data lie, or one of its tablespaces."""
    folder, stage = tmp_path / "stack", tmp_path / "stage"
    (folder / place).mkdir(parents=True)
    (folder / place / "PG_VERSION").touch()
    (folder / "volumes/pg/18/docker/pg_tblspc").mkdir(parents=True)
    (folder / "volumes/pg/18/docker/pg_tblspc/16384").symlink_to("/fast")
    (stage / place).mkdir(parents=True)
    target = SimpleNamespace(host=LocalHost(str(tmp_path)), folder=str(folder), as_root=())
    apart = (f"{folder}/volumes/fast",) if runs else ()
    server = SqlServer("db", "postgres", f"{folder}/volumes/pg", "", apart)
    mounts = (Mount(f"{folder}/volumes/fast", "/fast"),)
    found = InspectedContainer(
        Container("db", "postgres", "", "", running=runs), mounts, 0, "", ""
    )
    item = Item(f"{stage}/{place}", f"{folder}/{place}", "", "")
    facts = SimpleNamespace(kinds=("general",))
    loads = SqlImports(target, (found,), None, str(stage), ())
    told = []
    assert loads.keep_data(facts, [item], (), (server,), told.append) == []
    assert told[0].startswith(f"{place} is not changed: a database")
    (stage / place / "PG_VERSION").touch()
    assert loads.keep_data(facts, [item], (), (server,), told.append) == [item]


@pytest.fixture
def drive():
    """A folder on another file system than the stack's."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield f"{folder}/volumes"


def test_new_data_of_a_server_wait_beside_all_that_is_swapped_with_them(tmp_path, drive):
    """On another file system what waited in it would be put aside with it, by the same rename."""
    data = f"{drive}/databases/_data/deep/pg"
    items = (
        OutsideItem("", "", f"{drive}/databases/_data/{each}", "", "") for each in ("deep", "x")
    )
    volume = OutsideItem("", "", f"{drive}/databases/_data", "", "")
    (load,) = choose(tmp_path, "", outside=(*items, volume), mount=data)
    beside = f"{drive}/databases"
    assert load.server.data == data
    assert load.fresh == f"{beside}/.fresh-timescaledb"
    assert load.aside == f"{beside}/.previous-tag/.databases/timescaledb"
    assert load.used == f"{beside}/.previous-tag-undone/.databases/timescaledb"


def test_of_what_nothing_around_is_swapped_they_wait_beside_it(tmp_path, drive):
    """A volume that is called alike is another."""
    data = f"{drive}/pg/_data/deep/pg"
    other = OutsideItem("", "", f"{drive}/pg/_dat", "", "")
    (load,) = choose(tmp_path, "", outside=(other,), mount=data)
    assert load.fresh == f"{drive}/pg/_data/deep/.fresh-timescaledb"
    assert load.aside == f"{drive}/pg/_data/deep/.previous-tag/.databases/timescaledb"


def test_a_mount_point_that_new_data_of_a_server_are_made_on_stays(tmp_path):
    """They would be put aside with all that lies there."""
    (load,) = choose(tmp_path, "", told={"data": "../drive/pg"})
    drive = OutsideItem("the drive", "", f"{tmp_path.parent}/drive", "", "", is_mount=True)
    others = [replace(drive, is_mount=False), replace(drive, live=f"{tmp_path.parent}/driver")]
    told = []
    assert without_new_data([drive, *others], (load,), told.append) == others
    (said,) = told
    assert said.startswith("the drive is not changed: it contains the data of timescaledb")


@pytest.mark.parametrize("odd", ["home/t.isl", "home", ""])
def test_a_copy_of_mariadb_that_would_share_files_is_refused(tmp_path, odd):
    """A dump without its database's name is loaded into a copy: that must be all of its data."""
    stage, data = tmp_path / "restore/tag", tmp_path / "volumes/mariadb/config/databases"
    for folder in (stage / "mariadb", data / "home", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
    (stage / "mariadb/backup.sql").write_text("-- MariaDB dump\n")
    if odd == "home":
        (data / odd).rmdir()
        (data / odd).symlink_to(tmp_path / "elsewhere")
    elif odd:
        (data / odd).write_text("/elsewhere/home/t.ibd")
    folder = str(tmp_path)
    target = SimpleNamespace(host=LocalHost(folder), name="pi", folder=folder, as_root=())
    facts = SimpleNamespace(
        kinds=("mariadb",), volumes_apart=False, previous=f"{stage}-previous", outside=()
    )
    loads = SqlImports(target, (), None, str(stage), ())
    if odd:
        with pytest.raises(Refused, match="which the copy would share"):
            loads.choose(facts, (), staged=True)
    else:
        (load,) = loads.choose(facts, (), staged=True)
        assert load.beside


SERVERS = {
    "mariadb": [
        {"container": "mariadb", "data": "volumes/mariadb/config/databases"},
        {"container": "nextcloud_db", "data": "volumes/nextcloud/db/databases"},
    ],
    "postgres": [{"container": "postgres", "data": "volumes/postgres/data"}],
}


@pytest.mark.parametrize(
    ("only", "told", "untold"),
    [
        ("postgres", {"postgres"}, {"postgres"}),
        ("mariadb", {"mariadb"}, {"mariadb"}),
        ("nextcloud", {"mariadb"}, set()),  # its database lies in its folder
        ("home_db", set(), {"postgres"}),  # a container that is here
        ("nodered", set(), set()),
    ],
)
def test_parts_that_only_needs(tmp_path, only, told, untold):
    """With --only a part is needed that holds a dump of a service, or of data in its folder."""
    parts = tuple(
        Part(kind, f"tag.{kind}", 1, "ab" * 32, facts={"servers": servers})
        for kind, servers in SERVERS.items()
    )
    manifest = Manifest("tag", "pi", "", *TIMES, "UTC", parts)
    target = SimpleNamespace(host=LocalHost(str(tmp_path)), folder=str(tmp_path), as_root=())
    here = (SqlServer("home_db", "postgres", f"{tmp_path}/volumes/home_db"),)
    for known, wanted in ((manifest, told), (None, untold)):
        loads = SqlImports(target, (), known, str(tmp_path), (only,))
        assert loads.engines(("general", *SERVERS), here) == wanted
