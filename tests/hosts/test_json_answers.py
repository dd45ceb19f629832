"""What programs answer as JSON: values of the type that is asked for, or a failure that says so."""

import contextlib
import copy
import json
import re

import pytest
from contexts import LittleStack, PlainContext
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.databases.influxdb.dump import influx_folders
from iotstack_invoke.databases.influxdb.server import RunIsolated
from iotstack_invoke.databases.sql.load import CheckMount, RunSqlIsolated
from iotstack_invoke.databases.sql.servers import SqlServer
from iotstack_invoke.databases.sql.stays import held_by_server
from iotstack_invoke.databases.sqlite.files import CopySqlite
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.hosts.base import Result
from iotstack_invoke.hosts.inspect import points_away
from iotstack_invoke.hosts.json_answers import read_json
from iotstack_invoke.stack.compose import (
    VOLUME_LABEL,
    WORKING_FOLDER_LABEL,
    inspect_all,
    inspect_volumes,
)
from iotstack_invoke.stack.up import read_states
from iotstack_invoke.stack.volumes import MADE_LABEL, MakeVolume

DOCKER = ("docker",)
SERVER = SqlServer("db", "postgres", "/data", "/var/lib/db")
CONTAINER = {
    "Name": "/x",
    "Image": "sha256:aaa",
    "State": {
        "Running": True,
        "Paused": False,
        "StartedAt": "2026",
        "Restarting": False,
        "Health": {"Status": "healthy"},
        "Pid": 7,
    },
    "Config": {"Image": "x", "Labels": {WORKING_FOLDER_LABEL: "/pi"}},
    "Mounts": [
        {"Type": "volume", "Name": "v", "Source": "/s", "Destination": "/d", "RW": True},
    ],
    "NetworkSettings": {
        "Ports": {"8086/tcp": [{"HostPort": "8086"}]},
        "Networks": {"n": {"IPAddress": "10.0.0.1"}},
    },
    "RestartCount": 0,
}
VOLUME = {
    "Name": "v",
    "Mountpoint": "/m",
    "Driver": "local",
    "Labels": {VOLUME_LABEL: "v", MADE_LABEL: "us"},
    "Options": {"o": "bind"},
}
STATE = {
    "Status": "running",
    "StartedAt": "2026",
    "Health": {"Status": "healthy"},
    "Error": "",
    "ExitCode": 0,
    "OOMKilled": False,
}
COPIED = {"file": "a", "state": "begun", "size_bytes": 7, "why": "x"}
NO_ROOM = {"needed_bytes": 7, "free_bytes": 3}


class Answering:
    """A machine whose programs answer one question with one text, and all others with nothing."""

    name = "pi"

    def __init__(self, question, told):
        self.question = question
        self.told = told

    def run(self, command, hear=None):
        line = " ".join(command.argv)
        out = ""
        if self.question in line:
            out = self.told
        elif "--no-trunc" in line:
            out = "id\n"
        elif "inspect --type container" in line:
            out = json.dumps([CONTAINER])
        elif "realpath" in line:
            out = "".join(f"{each}\0" for each in command.argv[4:])
        for each in out.splitlines() if hear else ():
            hear("out", each)
        return Result(0, out, "")

    def write(self, *_):
        pass

    def remove(self, _):
        pass


def do(step):
    return lambda host: step.do(PlainContext({"pi": host}))


PI = HostAccess("pi", guard="/guard")
ALONE = (PI, "x", "alone", "/data", "/dumps")
SQL_ALONE = (PI, "db", "alone", "/data", "/var/lib/db", "/dumps", "/env")
COPY = CopySqlite(HostAccess("pi"), "/pi", ("volumes",), (), "/copies")
READ = {
    "containers": ("inspect --type container", "", [CONTAINER], inspect_all),
    "images": ("image inspect", "", [{"Id": "sha256:aaa", "RepoDigests": ["x@y"]}], inspect_all),
    "volumes": ("volume inspect", "", [VOLUME], lambda host: inspect_volumes(host, ["v"])),
    "states": ("inspect", "/x ", STATE, lambda host: read_states(host, DOCKER, ["x"])),
    "arguments": ("inspect", "", ["influxd", "-config"], lambda host: influx_folders(host, "x")),
    "a server of InfluxDB": ("inspect", "", ["image", "user", ["A=b"]], do(RunIsolated(*ALONE))),
    "a server of SQL": ("inspect", "", ["i", "u", ["A=b"], None], do(RunSqlIsolated(*SQL_ALONE))),
    "mounts": (
        "inspect",
        "",
        CONTAINER["Mounts"],
        do(CheckMount(HostAccess("pi", docker=DOCKER), SERVER)),
    ),
    "names": ("held", "d ", "a", lambda host: held_by_server(host, SERVER, DOCKER)),
    "a copy": ("online_copy", "", COPIED, do(COPY)),
    "no room": ("online_copy", "", NO_ROOM, do(COPY)),
    "whose volume": (
        *("inspect", "", [VOLUME]),
        MakeVolume(HostAccess("pi", docker=DOCKER, guard="/guard"), "v", (), own_label="us").undo,
    ),
    "drives": ("findmnt", "", {"filesystems": [{"target": "/"}]}, points_away),
}
"""Of each answer: the question, what comes before the JSON, what is right, and who reads it."""
GOES_WRONG = {"mounts", "no room"}
"""What is right, and yet a failure."""

TEXTS = st.text() | st.sampled_from(["\0", "\ud800", "\udc80", "8086", "9" * 30, "²", "/"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def places_in(value, before=()):
    """Yield where in a value another could stand, as the keys that lead there."""
    yield before
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places_in(each, (*before, key))


def changed(right, place, value):
    """Return a right answer with another value in one place."""
    if not place:
        return value
    told = copy.deepcopy(right)
    inside = told
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    return told


def test_what_is_right_is_read():
    """Or else no answer would be tried below."""
    for name, (question, before, right, read) in READ.items():
        fails = pytest.raises(StepFailed) if name in GOES_WRONG else contextlib.nullcontext()
        with fails as failure:
            read(Answering(question, before + json.dumps(right)))
        assert "Cannot read" not in str(failure and failure.value)


@pytest.mark.parametrize("name", READ)
@given(st.data())
def test_no_answer_gives_anything_but_values_or_a_failure(name, data):
    """Whatever stands in any place of it; a letter more or less, or another text."""
    question, before, right, read = READ[name]
    place = data.draw(st.sampled_from([*places_in(right)]))
    told = json.dumps(changed(right, place, data.draw(VALUES)))
    cut = data.draw(st.none() | st.integers(0, len(told)))
    with contextlib.suppress(StepFailed):
        read(Answering(question, before + told[:cut]))


@pytest.mark.parametrize("told", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "", "x", "{"])
def test_what_is_no_json_is_told_as_such(told):
    """In a line, with whose answer it is."""
    with pytest.raises(StepFailed, match=r"^Cannot read the answer of docker: .*\.$"):
        read_json(told, "docker")


def test_where_an_answer_is_odd_is_told_and_no_secret():
    """The place and the type; what stands there may be a password."""
    answer = read_json('{"a": [{"b": "geheim"}]}', "docker")
    (entry,) = answer["a"].items()
    for read in (entry["b"].number, entry["b"].items, entry["b"].flag, entry["b"].digits):
        with pytest.raises(StepFailed, match=r"a\[0\]\.b is .*, not ") as failure:
            read()
        assert "geheim" not in str(failure.value)


def test_a_list_that_lacks_some_is_no_answer():
    """Docker says which container is gone; what it passes over without a word is not left out."""
    with pytest.raises(StepFailed, match="listed only 0 of the 1 asked for"):
        inspect_all(Answering("inspect --type container", "[]"))


@pytest.mark.parametrize("question", ["inspect --type", "image inspect"])
@pytest.mark.parametrize("told", ["null", pytest.param("[{}]", marks=pytest.mark.long)])
def test_a_set_is_made_beside_such_a_docker(tmp_path, question, told):
    """As where Docker does not answer: it is named, the backup ends with 3, the rest is there."""
    stack = LittleStack(tmp_path)
    stack.runs(nodered="nodered/node-red")
    script = (stack.tools / "docker").read_text().removeprefix("#!/bin/sh\n")
    stack.tool("docker", f'[ "$1 $2" = "{question}" ] && {{ echo "{told}"; exit 0; }}\n{script}')
    ended = stack.run("backup --runtag t1")
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert re.search("Cannot read the answer of .* on this machine: ", ended.stderr)
    assert (stack.folder / "backups/t1.manifest.json").exists()
