"""A dump that is made, swept and loaded: what influxd says of it is proven by what lies there."""

import os
import shutil
import subprocess
import urllib.request
from dataclasses import replace

import folders
import pytest
from contexts import PlainContext, until
from ports import free_port

from iotstack_invoke.archives.pack import tar_words
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.databases.influxdb import load as influx_load
from iotstack_invoke.databases.influxdb.dump import PING_OK, DumpInflux, SweepInflux
from iotstack_invoke.databases.influxdb.load import LoadInflux
from iotstack_invoke.databases.influxdb.meta import _fields, _last_bytes
from iotstack_invoke.databases.influxdb.read_dump import Dump
from iotstack_invoke.databases.influxdb.server import Server
from iotstack_invoke.engine.plan import resolve
from iotstack_invoke.engine.steps import File, HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.stack.swap import SwapItem
from iotstack_invoke.workflows.restore import Item, RestoreFacts, restore_book

LOGS = folders.FIXTURES / "influx-logs/v1.8.10"
HAPPY = folders.FIXTURES / "influx-backups/v1.8.10-happy"


class Pi(LocalHost):
    """This machine, on which InfluxDB answers."""

    def http_status(self, port, path, address="127.0.0.1"):
        return PING_OK


@pytest.fixture
def context(tmp_path):
    return PlainContext({"pi": Pi(str(tmp_path))})


@pytest.fixture
def dump(tmp_path):
    """A dump of a real server, in a folder."""
    shutil.copytree(HAPPY, tmp_path / "dump")
    return tmp_path / "dump"


def docker_of(tmp_path, what):
    """Return a docker whose influxd says what a real one said, and ends as that did."""
    path = tmp_path / "docker"
    log = LOGS / what
    path.write_text(
        f"#!/bin/sh\n"
        f'case "$1 $4" in "inspect "*) echo "true 0 127.0.0.1" ;; "top "*) ;;\n'
        f'"exec "*) cat "{log}.out"; cat "{log}.err" >&2; exit "$(cat "{log}.rc")" ;; esac\n'
    )
    path.chmod(0o755)
    return (str(path),)


def make(tmp_path, context, what):
    docker = docker_of(tmp_path, what)
    DumpInflux(
        HostAccess("pi", docker=docker), "influxdb", f"{tmp_path}/new", "/backup/new", 60
    ).do(context)


def test_a_dump_whose_log_is_good_is_made(tmp_path, context):
    """With every line in its place."""
    make(tmp_path, context, "01-happy/backup")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("12-killed/backup-cut-rst", "Connection lost inside shard 5"),
        ("12-killed/backup-server-kill-restart", "InfluxDB became unreachable"),
        ("19-incremental/start-only", "not a portable dump of all databases"),
    ],
)
def test_an_exit_code_of_0_makes_no_dump(tmp_path, context, what, words):
    """Influxd ends with 0 whatever happened; its words tell that the dump is not whole."""
    assert (LOGS / f"{what}.rc").read_text().strip() == "0"
    with pytest.raises(
        StepFailed, match=f"influxd backup in container influxdb failed: .*{words}"
    ):
        make(tmp_path, context, what)


def sweep(tmp_path, context, dump):
    output = File("pi", "x.influx-backup.tar", str(tmp_path))
    SweepInflux(output, (*tar_words((), str(dump)), "."), "influxdb", "1.8.10", 60).do(context)
    return context.recorded[str(output)]


def test_a_whole_dump_is_swept(tmp_path, context, dump):
    """What the manifest tells of it is what it holds."""
    told = sweep(tmp_path, context, dump)
    assert len(told["shards"]) + told["internal_shards"] == len(list(dump.glob("*.tar.gz")))


@pytest.mark.parametrize("what", ["cut", "gone", "changed"])
def test_a_shard_that_is_not_whole_is_swept_into_no_part(tmp_path, context, dump, what):
    """A dump that influxd called good may hold a shard that is cut: it is looked at in the sweep."""
    shard = sorted(dump.glob("*.tar.gz"))[3]
    content = bytearray(shard.read_bytes())
    if what == "gone":
        shard.unlink()
    else:
        content[len(content) // 2] ^= 1
        shard.write_bytes(content if what == "changed" else content[:-20])
    with pytest.raises(StepFailed, match="The dump of container influxdb is incomplete"):
        sweep(tmp_path, context, dump)


@pytest.mark.parametrize("what", ["whole", "shard", "catalogue"])
def test_a_dump_is_checked_where_it_is_staged(tmp_path, context, dump, what):
    """Before anything of the stack is touched: a damaged one is unpacked, and no further."""
    if what == "shard":
        shard = sorted(dump.glob("*.tar.gz"))[3]
        shard.write_bytes(shard.read_bytes()[:-20])
    if what == "catalogue":
        next(dump.glob("*.meta")).unlink()
    (tmp_path / "backups").mkdir()
    (tmp_path / "restore/t1").mkdir(parents=True)
    archive = shutil.make_archive(str(tmp_path / "made"), "tar", dump)
    shutil.move(archive, tmp_path / "backups/t1.influx-backup.tar")
    graph = resolve(
        restore_book(), ["pi:restore/t1/influx/"], {"pi": str(tmp_path)}, facts(tmp_path)
    )
    (job,) = (each for each in graph.jobs if each.rule.name == "staged_dump")

    def stage():
        for step in job.steps:
            step.do(context)

    if what == "whole":
        stage()
        return
    with pytest.raises(StepFailed, match=r"is damaged: .*Nothing was changed"):
        stage()


def facts(folder):
    lists = dict.fromkeys(("items", "running", "expected", "databases"), ())
    return RestoreFacts(
        kinds=("influx",),
        in_place=True,
        access=HostAccess("pi", guard=f"{folder}/guard"),
        compose=("docker", "compose"),
        previous=f"{folder}/restore/previous",
        bare=False,
        server=None,
        server_there=False,
        dump_inside="",
        free_bytes=10**9,
        limit_s=60,
        **lists,
    )


def test_no_swap_lies_below_another(tmp_path):
    """The general part may hold the folder around the data: what each put aside stays apart."""
    plain = facts(tmp_path)
    live = f"{tmp_path}/volumes/influxdb"
    places = (f"{plain.previous}/volumes/influxdb", f"{plain.previous}-undone/volumes/influxdb")
    item = Item(f"{tmp_path}/restore/t1/stack/volumes/influxdb", live, *places)
    server = Server("influxdb", f"{live}/data")
    found = replace(plain, items=(item,), server=server, server_there=True)
    graph = resolve(restore_book(), ["pi:restored/t1"], {"pi": str(tmp_path)}, found)
    (job,) = (each for each in graph.jobs if each.rule.name == "restored")
    swaps = [each for each in job.steps if isinstance(each, SwapItem)]
    assert [each.live for each in swaps] == [live, f"{live}/data"]
    for where in ("aside", "used"):
        around, below = (getattr(each, where) for each in swaps)
        assert not below.startswith(f"{around}/")


@pytest.fixture
def servers(tmp_path):
    """Return a function that starts an InfluxDB of its own, by a name."""
    if not shutil.which("influxd"):
        pytest.skip("there is no influxd")
    started = []

    def start(name):
        http, inner = free_port(), free_port()
        folder = tmp_path / name
        paths = {"META_DIR": "meta", "DATA_DIR": "data", "DATA_WAL_DIR": "wal"}
        settings = {f"INFLUXDB_{key}": f"{folder}/{value}" for key, value in paths.items()}
        settings |= {
            "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{inner}",
            "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{http}",
            "INFLUXDB_REPORTING_DISABLED": "true",
            "INFLUXDB_MONITOR_STORE_ENABLED": "false",
            "INFLUXDB_CONTINUOUS_QUERIES_ENABLED": "false",
        }
        with open(f"{folder}.log", "wb") as log:
            words = ["influxd", "-config", "/dev/null"]
            started.append(
                subprocess.Popen(words, env={**os.environ, **settings}, stderr=log, stdout=log)
            )
        url = f"http://127.0.0.1:{http}/"
        until(lambda: ask(f"{url}ping") == PING_OK)
        return url, inner

    yield start
    for each in started:
        each.terminate()
        each.wait(30)


def ask(url, data=None):
    """Send a request; return its status, once it is answered: InfluxDB says 200 before it acts."""
    with urllib.request.urlopen(url, data=data) as answer:  # noqa: S310 - it is ours
        answer.read()
        return answer.status


def test_files_that_the_server_merges_at_once_are_proven(tmp_path, context, servers, monkeypatch):
    """InfluxDB begins to merge a shard of eight files a second after they were loaded."""
    url, inner = servers("source")
    ask(f"{url}query", b"q=CREATE DATABASE home")
    dump = tmp_path / "dump"
    for number in range(8):  # each dump writes what is only in the log into a file
        point = f"cpu value={number} {number}000000000".encode()
        ask(f"{url}write?db=home", point)
        shutil.rmtree(dump, ignore_errors=True)
        words = ["influxd", "backup", "-portable", "-host", f"127.0.0.1:{inner}", str(dump)]
        subprocess.run(words, check=True, capture_output=True)
    source = Dump(HostAccess("pi"), str(dump))
    (shard,) = source.report(context).shards
    assert len(shard.tsm) == 8
    _, inner = servers("target")
    docker, files = tmp_path / "docker", f"{tmp_path}/target/data/home/autogen/*"
    docker.write_text(
        f'#!/bin/sh\nif [ "$1" = logs ]; then cat "{tmp_path}/target.log" >&2; exit; fi\n'
        f'influxd restore -portable -host 127.0.0.1:{inner} "$6" || exit\n'
        f'until [ "$(echo {files}/*.tsm)" = "$(echo {files}/*-*[2-9].tsm)" ]; do sleep 0.1; done\n'
    )
    docker.chmod(0o755)
    server = Server("influxdb", str(tmp_path / "target"))
    guard = f"{tmp_path}/guard"
    step = LoadInflux(
        HostAccess("pi", docker=(str(docker),), guard=guard), server, source, str(dump), 600
    )
    step.do(context)
    assert context.said[-1].endswith("; it has merged 8 of its files since")
    assert len([*tmp_path.glob("target/data/home/autogen/*/*.tsm")]) == 1
    with open(f"{tmp_path}/target.log", "w"):  # nobody tells of them any more
        pass
    monkeypatch.setattr(influx_load, "SETTLE_LIMIT_S", 0)
    with pytest.raises(
        StepFailed, match=r"did not load all of the dump\. Missing: shard 1 of home has"
    ):
        step._prove(context, context.host("pi"), source.report(context))


@pytest.mark.parametrize("what", ["whole", "short", "long", "gone", "elsewhere"])
def test_a_load_is_proven_by_the_files_of_the_server(tmp_path, context, dump, monkeypatch, what):
    """Each shard of the dump has files of these very sizes there; influxd's exit code is no proof."""
    monkeypatch.setattr(influx_load, "SETTLE_LIMIT_S", 0)
    data = tmp_path / "influxdb"
    (data / "meta").mkdir(parents=True)
    meta = next(dump.glob("*.meta")).read_bytes()
    (data / "meta/meta.db").write_bytes(_last_bytes(_fields(meta), 1))
    source = Dump(HostAccess("pi"), str(dump))
    report = source.report(context)
    for shard in report.shards:
        folder = data / "data" / shard.database / shard.policy / str(shard.id)
        folder.mkdir(parents=True)
        for name, size in shard.tsm:
            (folder / name).write_bytes(bytes(size))
    file = sorted(data.glob("data/*/*/*/*.tsm"))[5]
    size = file.stat().st_size
    if what == "elsewhere":
        file.rename(file.parent.parent / "99999.tsm")
    elif what == "gone":
        file.unlink()
    elif what != "whole":
        file.write_bytes(bytes(size + (1 if what == "long" else -1)))
    server = Server("influxdb", str(data))
    docker = docker_of(tmp_path, "01-happy/restore")
    step = LoadInflux(
        HostAccess("pi", docker=docker, guard=f"{tmp_path}/guard"),
        server,
        source,
        "/backup/t1",
        60,
    )
    if what == "whole":
        step.do(context)
        assert f"({len(report.shards)} shards, " in context.said[-1]
        return
    with pytest.raises(
        StepFailed, match=f"did not load all of the dump. Missing: .*not .{size}. bytes"
    ):
        step.do(context)
