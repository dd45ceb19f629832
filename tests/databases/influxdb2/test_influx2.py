"""The part of InfluxDB 2: what a whole dump becomes, and what is none.

The program that dumps is a stand-in, made after the documentation: the real one runs nowhere here.
"""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import fake_influx2
import folders
import pytest
from contexts import PlainContext

from iotstack_invoke.archives.pack import tar_words
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.databases.influxdb.dump import reading_words
from iotstack_invoke.databases.influxdb2.check import EXPERIMENTAL
from iotstack_invoke.databases.influxdb2.dump import (
    Influx2Facts,
    SweepInflux2,
    dump_of,
    influx2_facts,
    server_version,
    wait_until_ready,
)
from iotstack_invoke.engine.steps import File, HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.parts.verify_archive import read_whole
from iotstack_invoke.services.containers import Container
from iotstack_invoke.stack.compose import InspectedContainer, Mount

TAG = "before the (2nd) move"
SHARD = next((folders.FIXTURES / "influx-backups").rglob("*.s*.tar.gz"))
CONFIGS = f'[default]\n  url = "http://localhost:8086"\n  token = "{fake_influx2.TOKEN}"\n'


class Stack:
    """A stack with an InfluxDB 2 whose `docker exec` runs here."""

    def __init__(self, folder):
        self.folder = folder
        self.store = folder / "volumes/influxdb2"
        for each in ("data/engine/data", "config", "backup"):
            (self.store / each).mkdir(parents=True)
        (self.store / "data/engine/data/live.tsm").write_text("live")
        (self.store / "data/influxd.bolt").write_text("live, and perhaps torn")
        (self.store / "data/influxd.bolt").chmod(0o640)
        (self.store / "config/influx-configs").write_text(CONFIGS)
        self.docker = (str(folder / "docker"),)
        self.fault("")

    def fault(self, fault, **environment):
        """Let `docker exec` run the stand-in, with a fault and an environment of its own."""
        environment = {
            "LITTLE_FAULT": fault,
            "LITTLE_SHARD": SHARD,
            "INFLUX_CONFIGS_PATH": self.store / "config/influx-configs",
            "INFLUXD_BOLT_PATH": self.store / "data/influxd.bolt",
            **environment,
        }
        settings = " ".join(f"{key}='{value}'" for key, value in environment.items())
        tools = self.folder / "tools"
        tools.mkdir(exist_ok=True)
        stand_in = f"exec {sys.executable} -I -S {fake_influx2.__file__}"
        scripts = {tools / "influx": f'{stand_in} "$@"'}
        scripts[self.folder / "docker"] = (
            f'echo "$*" >> {self.folder}/calls\n[ "$1" = exec ] || exit 0\nshift 2\n'
            f"{fake_influx2.IN_CONTAINER.format(store=self.store)}"
            f'exec env {settings} PATH="{tools}:$PATH" "$@"'
        )
        for path, script in scripts.items():
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)

    @property
    def facts(self):
        places = (str(self.store / each) for each in ("data", "backup"))
        return Influx2Facts("influxdb2", "2.7.10", *places)

    @property
    def step(self):
        return dump_of(HostAccess("pi", docker=self.docker), self.facts, TAG, 60)

    def made(self):
        """Make the part; return its path and its scene."""
        output = File("pi", f"{TAG}.influxdb2-backup.tar", str(self.folder))
        context = PlainContext({"pi": LocalHost(str(self.folder))})
        self.step.do(context)
        words = reading_words(self.step, tar_words((), self.step.on_host))
        whose = ("influxdb2", "2.7.10", 60, "volumes/influxdb2/data")
        SweepInflux2(output, words, *whose).do(context)
        return Path(output.partial), context


@pytest.fixture
def stack(tmp_path, monkeypatch):
    for name in ("INFLUX_TOKEN", "DOCKER_INFLUXDB_INIT_ADMIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return Stack(tmp_path)


def members(path):
    with tarfile.open(path) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive if each.isreg()}


def test_a_part_is_what_iotstackbackup_restores(stack):
    """Configuration, catalogue and dump lie as its restore unpacks them, without the engine."""
    path, context = stack.made()
    found = members(path)
    stamp = f"./backup/{fake_influx2.STAMP}"
    assert set(found) == {
        "./config/influx-configs",
        "./data/influxd.bolt",
        "./data/influxd.sqlite",
        *(f"{stamp}.{each}" for each in ("manifest", "bolt.gz", "sqlite.gz", "7.tar.gz")),
    }
    assert found["./data/influxd.bolt"] == fake_influx2.BOLT  # the snapshot, not the live file
    assert found["./data/influxd.sqlite"] == fake_influx2.SQLITE
    with tarfile.open(path) as archive:
        assert archive.getmember("./data/influxd.bolt").mode == 0o640
    assert read_whole(LocalHost("/"), str(path), "influxdb2").problems == ()
    assert (context.warned, EXPERIMENTAL in context.said) == ([], True)


def test_the_manifest_tells_what_is_in_a_part(stack):
    """Version, buckets, and that it is experimental."""
    path, context = stack.made()
    (facts,) = context.recorded.values()
    assert facts["size_bytes"] == path.stat().st_size
    size = SHARD.stat().st_size
    assert {key: facts[key] for key in ("experimental", "version", "data", "buckets")} == {
        "experimental": True,
        "version": "2.7.10",
        "data": "volumes/influxdb2/data",
        "buckets": [
            {"organization": "home", "bucket": "_tasks", "shards": 0, "size_bytes": 0},
            {"organization": "home", "bucket": "iot", "shards": 1, "size_bytes": size},
        ],
    }


def test_a_part_of_iotstackbackup_is_whole(stack, tmp_path):
    """Its data are the live files, and its dump lies in the mapped folder itself."""
    stack.made()
    dump = stack.store / "backup" / TAG
    for each in (dump / "backup").iterdir():
        each.rename(stack.store / "backup" / each.name)
    (stack.store / "data/influxd.bolt").write_bytes(fake_influx2.BOLT)
    shutil.rmtree(dump)
    path = tmp_path / "part"
    words = ("tar", "-cf", path, "-C", stack.store, "--exclude=./data/engine", ".")
    subprocess.run(words, check=True)
    assert read_whole(LocalHost("/"), str(path), "influxdb2").problems == ()


def test_no_token_is_on_a_command_line(stack):
    """The container finds its token itself: in its environment, or in its file."""
    stack.made()
    assert fake_influx2.TOKEN not in (stack.folder / "calls").read_text()
    assert fake_influx2.TOKEN not in "".join(stack.step.commands())


@pytest.mark.parametrize("where", ["INFLUX_TOKEN", "DOCKER_INFLUXDB_INIT_ADMIN_TOKEN", "file"])
def test_without_a_configuration_the_environment_has_the_token(stack, where):
    """Where the file is lost, what the container was first started with still counts."""
    (stack.store / "config/influx-configs").unlink()
    secret = stack.folder / "secret"
    secret.write_text(fake_influx2.TOKEN)
    given = {where: fake_influx2.TOKEN}
    if where == "file":
        given = {"DOCKER_INFLUXDB_INIT_ADMIN_TOKEN_FILE": secret}
    stack.fault("", **given)
    assert stack.made()[0].stat().st_size


def test_a_wrong_token_is_not_tried_again(stack):
    """It is said where the token comes from."""
    stack.fault("", INFLUX_TOKEN="another")
    with pytest.raises(
        StepFailed, match=r"401 Unauthorized.*missing or is not an operator token"
    ) as failure:
        stack.made()
    assert not failure.value.again


BROKEN = {
    "cannot download": "unexpected EOF",
    "no manifest": "not finished",
    "cut manifest": "the manifest cannot be read",
    "missing shard": r"7\.tar\.gz: the file is missing",
    "cut shard": "has 100 bytes, but the manifest has",
    "zeros in a shard": r"7\.tar\.gz: ",
    "zeros in the catalogue": r"sqlite\.gz: ",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_no_whole_dump_is_no_part(stack, fault):
    """Whatever its exit code, what is not all there is no part; another dump may be."""
    stack.fault(fault)
    with pytest.raises(StepFailed, match=BROKEN[fault]) as failure:
        stack.made()
    assert failure.value.again


def test_what_an_earlier_try_left_is_in_no_part(stack):
    """Each dump has a folder of its own, made anew."""
    left = stack.store / "backup" / TAG / "backup"
    left.mkdir(parents=True)
    (left / "20200101T000000Z.manifest").write_text("{}")
    path, _ = stack.made()
    assert not any("2020" in name for name in members(path))
    stack.step.undo(LocalHost("/"))
    assert list((stack.store / "backup").iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "warned"),
    [("shard removed", []), ("unknown warning", ["InfluxDB says: something else"])],
)
def test_a_shard_that_the_retention_took_is_no_warning(stack, fault, warned):
    """Another warning of InfluxDB is one of ours."""
    stack.fault(fault)
    assert stack.made()[1].warned == warned


def test_one_that_does_not_answer_is_told(stack):
    """It is waited for, and no longer than the limit."""
    stack.fault("down")
    with pytest.raises(StepFailed, match="does not answer `influx ping`"):
        wait_until_ready(LocalHost("/"), "influxdb2", stack.docker, limit_s=0)


# What is looked at before


def container(**mounts):
    known = Container("influxdb2", "influxdb:latest", "", "", running=True)
    return InspectedContainer(known, tuple(Mount(*each) for each in mounts.items()), 0, "", "")


MOUNTS = fake_influx2.INSIDE


def test_the_mounts_say_where_the_data_lie(tmp_path):
    """No mount is needed: what lies in the container alone is read out of it."""
    places = {f"{tmp_path}/{name}": MOUNTS[name] for name in ("data", "config", "backup")}
    (tmp_path / "backup").mkdir()
    host = LocalHost("/")
    facts = influx2_facts(host, container(**places), "2.7.10")
    there = (str(tmp_path / "data"), str(tmp_path / "backup"), str(tmp_path))
    assert (facts.data_on_host, facts.backup_on_host, facts.store) == there
    del places[f"{tmp_path}/backup"]
    facts = influx2_facts(host, container(**places), "2.7.10")
    assert (facts.data_on_host, facts.backup_on_host, facts.store) == (there[0], "", "")
    assert dump_of(HostAccess("pi"), facts, TAG, 60).on_host == ""
    assert influx2_facts(host, container(), "2.7.10").data_on_host == ""


@pytest.mark.parametrize("version", ["1.8.10", "2.0.9", "4.0.0"])
def test_another_version_is_refused(version):
    """2.0 wrote its dumps in another form."""
    with pytest.raises(StepFailed, match=f"runs InfluxDB {version}"):
        influx2_facts(LocalHost("/"), container(), version)


VERSIONS = {
    "InfluxDB v2.7.10 (git: f302d9730c) build_date: 2024-08-16T20:19:28Z": ("influxd", "2.7.10"),
    "influxdb3 InfluxDB 3 Core 3.2.1, revision 1ca3168bee": ("influxdb3", "3.2.1"),
}


@pytest.mark.parametrize("says", VERSIONS)
def test_the_server_tells_its_version(tmp_path, says):
    """Whatever its image is called: `latest` has been of all of them."""
    program, version = VERSIONS[says]
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\n[ "$3" = {program} ] || exit 127\necho "{says}"\n')
    docker.chmod(0o755)
    assert server_version(LocalHost("/"), "influxdb2", (str(docker),)) == version
