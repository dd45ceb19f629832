"""The influx part: where its dump comes to lie, its continuous queries, what its server says."""

import json
import shutil
import subprocess
from pathlib import Path

import folders
import pytest
from contexts import PlainContext
from docker_words import AWAY
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.archives.pack import tar_words
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.databases.influxdb import dump as influx
from iotstack_invoke.databases.influxdb.dump import (
    BACKUP_INSIDE,
    FOLDERS_INSIDE,
    DumpInflux,
    SweepInflux,
    WriteQueries,
    influx_facts,
    influx_folders,
    reading_words,
)
from iotstack_invoke.databases.influxdb.meta import ContinuousQuery, InfluxDatabase
from iotstack_invoke.engine.steps import File, HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.parts.verify_archive import read_dump, read_whole
from iotstack_invoke.services.containers import Container
from iotstack_invoke.stack.compose import InspectedContainer, Mount
from iotstack_invoke.stack.inside import path_on_host

HAPPY = folders.FIXTURES / "influx-backups/v1.8.10-happy"
QUERY = (
    "CREATE CONTINUOUS QUERY cq_cpu ON telegraf BEGIN SELECT mean(usage) AS usage INTO "
    "telegraf.autogen.cpu_1h FROM telegraf.autogen.cpu GROUP BY time(1h), * END"
)


@pytest.fixture
def docker(tmp_path):
    """A Docker whose containers are this machine: what it is to run there runs here."""
    path = tmp_path / "docker"
    path.write_text('#!/bin/sh\n[ "$1" = exec ] || exit 1\nshift 2\nexec "$@"\n')
    path.chmod(0o755)
    return (str(path),)


def scene_of(folder):
    return PlainContext({"pi": LocalHost(str(folder))})


def sweep(tmp_path, docker, dump):
    """Write the queries of a dump and sweep it; return the part."""
    context = scene_of(tmp_path)
    WriteQueries(HostAccess("pi", docker=docker), "influxdb", str(dump)).do(context)
    output = File("pi", "x.influx-backup.tar", str(tmp_path))
    step = DumpInflux(HostAccess("pi", docker=docker), "influxdb", str(dump), str(dump), 60)
    words = reading_words(step, tar_words((), str(dump)))
    SweepInflux(output, words, "influxdb", "1.8.10", 60).do(context)
    return Path(output.partial)


def test_the_part_holds_its_continuous_queries_as_iotstackbackup_has_them(tmp_path, docker):
    """`influx -import` takes each line for a statement, and passes over one without its end."""
    dump = Path(shutil.copytree(HAPPY, tmp_path / "dump"))
    part = sweep(tmp_path, docker, dump)
    words = ["tar", "-xOf", part, "./continuous-queries.influxql"]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert told == f"{QUERY}\n"
    assert read_whole(LocalHost("/"), str(part), "influx").problems == ()
    with part.open("rb") as stream:
        report = read_dump(stream)
    assert (report.problems, report.continuous_queries) == ((), 1)


def test_a_dump_without_queries_has_no_file_of_them(tmp_path, docker):
    """An empty file is what IOTstackBackup's removes."""
    dump = Path(shutil.copytree(HAPPY.parent / "v1.8.10-odd", tmp_path / "dump"))
    part = sweep(tmp_path, docker, dump)
    listed = subprocess.run(["tar", "-tf", part], check=True, capture_output=True, text=True)
    assert "influxql" not in listed.stdout


def test_a_catalogue_that_cannot_be_read_is_told_by_the_check(tmp_path, docker):
    """Nothing is written of it; what is wrong with the dump is said once, when it is swept."""
    dump = Path(shutil.copytree(HAPPY, tmp_path / "dump"))
    (meta,) = dump.glob("*.meta")
    meta.write_bytes(meta.read_bytes()[:40])
    WriteQueries(HostAccess("pi", docker=docker), "influxdb", str(dump)).do(scene_of(tmp_path))
    assert not (dump / "continuous-queries.influxql").exists()


def test_queries_of_any_number_and_length_are_written(tmp_path, docker, monkeypatch):
    """Thousands of them go through commands that each are short enough, one on each line."""
    texts = [f"CREATE CONTINUOUS QUERY q{i} ON d\nBEGIN {'x' * 90} END" for i in range(3000)]
    queries = tuple(ContinuousQuery(f"q{i}", text) for i, text in enumerate(texts))
    held = influx.read_meta((next(HAPPY.glob("*.meta"))).read_bytes())
    held = type(held)((InfluxDatabase("d", "", (), queries),), (), 1)
    monkeypatch.setattr(influx, "read_meta", lambda _content: held)
    dump = Path(shutil.copytree(HAPPY, tmp_path / "dump"))
    WriteQueries(HostAccess("pi", docker=docker), "influxdb", str(dump)).do(scene_of(tmp_path))
    lines = (dump / "continuous-queries.influxql").read_text().splitlines()
    assert lines == [text.replace("\n", " ") for text in texts]


# What the server is asked.

CONFIG = '[meta]\n  dir = "{}"\n[data]\n  dir = "{}"\n  wal-dir = "{}"\n'
PLAIN = CONFIG.format(*(f"/var/lib/influxdb/{each}" for each in ("meta", "data", "wal")))


def server(tmp_path, mounts, config=PLAIN, args=()):
    """A running container, and a Docker that answers for its InfluxDB."""
    (tmp_path / "config").write_text(config)
    (tmp_path / "args").write_text(json.dumps(args))
    path = tmp_path / "docker"
    path.write_text(
        "#!/bin/sh\n"
        'case "$1 $4" in\n'
        f"inspect*) cat {tmp_path}/args ;;\n"
        "'exec version') echo 'InfluxDB v1.8.10 (git: 1.8 688e697c51fd)' ;;\n"
        f"'exec config') shift 4; echo \"$*\" > {tmp_path}/asked; cat {tmp_path}/config ;;\n"
        "esac\n"
    )
    path.chmod(0o755)
    container = Container("influxdb", "influxdb:1.8", "", "", running=True)
    return InspectedContainer(container, mounts, 0, "", ""), (str(path),)


def facts_of(tmp_path, mounts, **told):
    found, docker = server(tmp_path, mounts, **told)
    return influx_facts(LocalHost("/"), found, (), docker)


def test_its_data_lie_where_it_says(tmp_path):
    """Each of its folders is mapped through the mounts, whichever holds which."""
    for name in ("one", "log", "dumps"):
        (tmp_path / name).mkdir()
    mounts = (
        Mount(f"{tmp_path}/one", "/var/lib/influxdb"),
        Mount(f"{tmp_path}/log", "/log"),
        Mount(f"{tmp_path}/dumps", BACKUP_INSIDE),
    )
    config = CONFIG.format("/var/lib/influxdb/meta", "/var/lib/influxdb/sub/data", "/log/wal")
    facts = facts_of(tmp_path, mounts, config=config, args=["-config", "/x.conf"])
    assert facts.backup_on_host == f"{tmp_path}/dumps"
    told = [each.removeprefix(f"{tmp_path}/") for each in facts.live]
    assert told == ["one/meta", "one/sub/data", "log/wal", "dumps"]
    assert (tmp_path / "asked").read_text() == "-config /x.conf\n"


@pytest.mark.parametrize("args", [[], None, ["-config"], ["run"]])
def test_its_own_file_of_settings_is_asked_for_only_where_one_is_named(tmp_path, args):
    """Without -config influxd finds its file by itself."""
    facts_of(tmp_path, (Mount(str(tmp_path), "/var/lib/influxdb"),), args=args)
    assert (tmp_path / "asked").read_text() == "\n"


@pytest.mark.parametrize("config", ["", "no toml", "[meta]\ndir = 1\n", "[data]\n"])
def test_one_that_tells_nothing_has_the_default_folders(tmp_path, config):
    """An influxd without `config` keeps its data where all images do."""
    facts = facts_of(tmp_path, (Mount(str(tmp_path), "/var/lib/influxdb"),), config=config)
    assert facts.live[:3] == tuple(f"{tmp_path}/{each}" for each in ("meta", "data", "wal"))


def test_a_dump_lies_among_the_data_where_no_folder_is_for_it(tmp_path):
    """What cannot be reached from here is read out by Docker."""
    facts = facts_of(tmp_path, (Mount(str(tmp_path), "/var/lib/influxdb"),))
    assert facts.backup_on_host == f"{tmp_path}/backup"
    assert facts_of(tmp_path, (Mount("/not/there", "/var/lib/influxdb"),)).backup_on_host == ""
    nowhere = facts_of(tmp_path, ())
    assert (nowhere.backup_on_host, nowhere.live) == ("", ())
    dump = DumpInflux(HostAccess("pi"), "influxdb", "", f"{BACKUP_INSIDE}/t1", 60)
    out = ("docker", "cp", f"influxdb:{BACKUP_INSIDE}/t1/.", "-")
    assert reading_words(dump, ("tar",)) == out


# Paths inside, and on the host.

NAMES = st.sampled_from(["", "/a", "/a/b", "/ab", "/a/b/c"])


@pytest.mark.parametrize(
    ("inside", "on_host"),
    [
        ("/var/lib/influxdb/wal", "/data/wal"),
        ("/var/lib/influxdb", "/data"),
        ("/var/lib/influxdb/backup/t1/", "/dumps/t1"),
        ("/var/lib/influxdb/tmp/x", ""),
        ("/var/lib/influxdbs", ""),
        ("/etc", ""),
    ],
)
def test_a_path_inside_is_mapped_by_the_deepest_mount(inside, on_host):
    """A mount hides what those around it have there; a tmpfs is nowhere on the host."""
    mounts = (
        Mount("/dumps", "/var/lib/influxdb/backup"),
        Mount("/data", "/var/lib/influxdb/"),
        Mount("", "/var/lib/influxdb/tmp"),
    )
    assert path_on_host(mounts, inside) == on_host
    assert path_on_host(mounts[::-1], inside) == on_host


@given(NAMES, NAMES)
def test_what_a_mount_of_the_root_holds_is_where_it_is_inside(place, below):
    """The whole of a host that is mapped into a container maps each path to itself."""
    path = f"/x{place}{below}"
    assert path_on_host((Mount("/", "/"),), path) == path
    assert path_on_host((Mount("/y", "/x"),), path) == path.replace("/x", "/y", 1)


@pytest.mark.parametrize("said", [*AWAY, "Error response from daemon: Container 1f is paused"])
def test_folders_that_cannot_be_asked_for_are_not_the_usual_ones(tmp_path, said):
    """Docker did not ask the server: what lies elsewhere would be in no dump and no swap."""
    docker = tmp_path / "docker"
    answer = f"inspect) echo '[]' ;; exec) echo '{said}' >&2; exit 1 ;;"
    docker.write_text(f'#!/bin/sh\ncase "$1" in {answer} esac\n')
    docker.chmod(0o755)
    with pytest.raises(StepFailed, match="keeps its data: "):
        influx_folders(LocalHost("/"), "influxdb", (str(docker),))


@pytest.mark.parametrize("config", ["a = " + "[" * 20_000, "a = " + "9" * 5_000, "a = ["])
def test_a_config_that_cannot_be_read_names_no_folders(tmp_path, config):
    """Whatever the server answers, the usual folders are taken."""
    (tmp_path / "config").write_text(config)
    docker = tmp_path / "docker"
    answer = f"inspect) echo '[]' ;; exec) cat {tmp_path}/config ;;"
    docker.write_text(f'#!/bin/sh\ncase "$1" in {answer} esac\n')
    docker.chmod(0o755)
    assert influx_folders(LocalHost("/"), "influxdb", (str(docker),)) == FOLDERS_INSIDE
