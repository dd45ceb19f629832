"""The catalogue of an InfluxDB that lies in its container: read there, put there, and put back."""

import io
import os
import tarfile

import pytest
from contexts import PlainContext
from docker_words import AWAY

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.databases.influxdb.catalogue import PutCatalogue, catalogue_within
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.hosts.local import LocalHost

GONE = (
    "Error response from daemon: Could not find the file /meta/meta.db in container influxdb",
    "Error: No such container:path: influxdb:/var/lib/influxdb/meta/meta.db",
    "Error response from daemon: lstat /var/lib/docker/x/merged/meta: no such file or directory",
)


def docker_that(tmp_path, script):
    """Return the words that call a Docker of a few lines."""
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\n{script}\n")
    docker.chmod(0o755)
    return (str(docker),)


@pytest.mark.parametrize("said", [*GONE, *AWAY, "Error: No such container: influxdb"])
def test_a_catalogue_that_nobody_could_look_at_is_not_taken_for_none(tmp_path, said):
    """Of none nothing stays beside what is restored: then all that is here would be lost."""
    docker = docker_that(tmp_path, f"echo '{said}' >&2; exit 1")
    if said in GONE:
        assert catalogue_within(LocalHost("/"), "influxdb", docker) == b""
        return
    with pytest.raises(StepFailed, match=said[:30]):
        catalogue_within(LocalHost("/"), "influxdb", docker)


# Of the container it holds the tar of its catalogue, and nothing else.
DOCKER = """case "$*" in
"cp influxdb:"*) KEPT ;;
"cp --archive - influxdb:"*) cat > "$0.put" && mv "$0.put" "$0.tar" ;;
esac"""
WHOLE = 'cat "$0.tar"'
BROKEN_OFF = 'head -c 700 "$0.tar"; kill -9 $$'


def packed(content):
    """Return a tar of a catalogue, as Docker copies one."""
    told = io.BytesIO()
    with tarfile.open(fileobj=told, mode="w") as archive:
        member = tarfile.TarInfo("meta.db")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return told.getvalue()


@pytest.fixture
def put(tmp_path):
    """A step that puts a new catalogue into a container, and what its Docker is to do."""

    def make(kept):
        docker = docker_that(tmp_path, DOCKER.replace("KEPT", kept))
        (tmp_path / "docker.tar").write_bytes(packed(b"old" * 1000))
        (tmp_path / "new/meta").mkdir(parents=True)
        (tmp_path / "new/meta/meta.db").write_bytes(b"new")
        (tmp_path / "previous").mkdir()
        places = (f"{tmp_path}/new/meta", f"{tmp_path}/previous", f"{tmp_path}/notes")
        return PutCatalogue(
            HostAccess("pi", docker=docker, guard=f"{tmp_path}/guard"), "influxdb", *places
        )

    return make


def test_a_catalogue_is_put_there_and_back(tmp_path, put):
    """What was there before is there again, as it was."""
    step = put(WHOLE)
    step.do(PlainContext({"pi": LocalHost("/")}))
    assert b"new" in (tmp_path / "docker.tar").read_bytes()
    step.undo(LocalHost("/"))
    assert (tmp_path / "docker.tar").read_bytes() == packed(b"old" * 1000)


@pytest.mark.parametrize("what", ["Docker is killed", "the disk fails"])
def test_half_a_catalogue_is_never_put_back(tmp_path, put, monkeypatch, what):
    """Until the one that is there is kept, whole and on the disk, nothing is put in its place."""
    step = put(BROKEN_OFF if what == "Docker is killed" else WHOLE)
    if what == "the disk fails":
        sync = tmp_path / "sync"
        sync.write_text("#!/bin/sh\necho Input/output error >&2; exit 1\n")
        sync.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(StepFailed):
        step.do(PlainContext({"pi": LocalHost("/")}))
    step.undo(LocalHost("/"))
    assert (tmp_path / "docker.tar").read_bytes() == packed(b"old" * 1000)
    assert list((tmp_path / "previous").iterdir()) == []
