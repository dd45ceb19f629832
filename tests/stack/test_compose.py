"""What Docker tells of a stack: containers by exact name and label, never by a piece of text."""

import json
import os

import pytest

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.hosts.base import FileFact
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.stack.compose import (
    WORKING_FOLDER_LABEL,
    Mount,
    inspect_all,
    named,
    of_stack,
    top_files,
)


def told(name, **changed):
    """Return a container as `docker inspect` tells of it."""
    return {
        "Id": f"id-of-{name}",
        "Name": f"/{name}",
        "Image": "sha256:aaa",
        "State": {"Running": True, "StartedAt": "2026-11-23T11:00:00Z"},
        "Config": {
            "Image": f"library/{name}:1.8",
            "Labels": {WORKING_FOLDER_LABEL: "/home/pi/IOTstack"},
        },
        "Mounts": [],
        "NetworkSettings": {"Ports": {}, "Networks": {}},
        **changed,
    }


class Docker:
    """A `docker` program that behaves as the real one does for what is asked here."""

    SCRIPT = """#!/bin/sh
echo "$@" >> "$0.asked"
case "$1 $2" in
"ps --all") cat "$0.ids" ;;
"inspect --type") cat "$0.containers"; exit $(cat "$0.code") ;;
"image inspect") cat "$0.images" ;;
*) echo "docker: unknown: $*" >&2; exit 1 ;;
esac
"""

    def __init__(self, folder):
        self.path = folder / "docker"
        self.path.write_text(self.SCRIPT)
        self.path.chmod(0o755)
        self.knows([])

    def knows(self, containers, *, images=(), gone=()):
        ids = [each["Id"] for each in containers] + list(gone)
        for ending, text in (
            ("ids", "\n".join(ids)),
            ("containers", json.dumps(containers)),
            ("images", json.dumps(list(images))),
            ("code", "1" if gone else "0"),
        ):
            (self.path.parent / f"docker.{ending}").write_text(text)

    @property
    def asked(self):
        return (self.path.parent / "docker.asked").read_text().splitlines()


@pytest.fixture
def docker(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Docker(tmp_path)


@pytest.fixture
def host(tmp_path):
    return LocalHost(str(tmp_path))


def test_no_container_is_no_question(docker, host):
    """A Docker without containers is asked once, and knows none."""
    assert inspect_all(host) == ()
    assert docker.asked == ["ps --all --quiet --no-trunc"]


def test_a_container_is_told_whole(docker, host):
    """Name, image, digest, state, mounts, port, address and folder come from the right places."""
    docker.knows(
        [
            told(
                "influxdb",
                Mounts=[{"Source": "/a b", "Destination": "/var/lib/influxdb"}],
                NetworkSettings={
                    "Ports": {
                        "8086/tcp": [{"HostIp": "", "HostPort": "18086"}],
                        "1/udp": None,
                    },
                    "Networks": {"none": {"IPAddress": ""}, "net": {"IPAddress": "172.20.0.3"}},
                },
            )
        ],
        images=[{"Id": "sha256:aaa", "RepoDigests": ["influxdb@sha256:bbb"]}],
    )
    (found,) = inspect_all(host)
    assert found.container.name == "influxdb"
    assert found.container.image == "library/influxdb:1.8"
    assert (found.container.image_id, found.container.digest) == ("sha256:aaa", "sha256:bbb")
    assert found.container.running
    assert found.mounts == (Mount("/a b", "/var/lib/influxdb"),)
    assert (found.published_port, found.address) == (18086, "172.20.0.3")
    assert found.working_folder == "/home/pi/IOTstack"


@pytest.mark.parametrize(
    "changed",
    [
        {"Config": {"Image": "x", "Labels": None}},
        {"NetworkSettings": {"Ports": None, "Networks": None}},
        {"NetworkSettings": {"Ports": {"8086/tcp": None}, "Networks": {}}},
        {"NetworkSettings": {}},
        {"Mounts": [{"Type": "tmpfs", "Destination": "/tmp"}]},
        {"State": {"Running": False}},
    ],
)
def test_what_docker_leaves_out_is_empty(docker, host, changed):
    """A container without labels, ports, networks or a source of a mount is told all the same."""
    docker.knows([told("x", **changed)])
    (found,) = inspect_all(host)
    assert (found.published_port, found.address, found.container.digest) == (0, "", "")
    if "State" in changed:
        assert not found.container.running


def test_an_image_made_on_the_pi_has_no_digest(docker, host):
    """One that came from no registry is told with an empty digest."""
    docker.knows([told("x")], images=[{"Id": "sha256:aaa", "RepoDigests": []}])
    assert inspect_all(host)[0].container.digest == ""


def test_a_container_that_goes_meanwhile_hides_no_other(docker, host):
    """One that is removed between the two questions is left out, and the others are told."""
    docker.knows([told("stays")], gone=["id-of-gone"])
    assert [each.container.name for each in inspect_all(host)] == ["stays"]


def test_without_docker_the_failure_says_so(host, tmp_path, monkeypatch):
    """Where Docker is missing or refuses, what it said is told."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StepFailed, match=r"Docker does not answer: .*not found"):
        inspect_all(host)
    (tmp_path / "docker").write_text(
        '#!/bin/sh\necho "permission denied: docker.sock" >&2; exit 1\n'
    )
    (tmp_path / "docker").chmod(0o755)
    with pytest.raises(
        StepFailed,
        match=r"^Docker does not answer: On .*: permission denied\. Add this user to the docker group .* and log",
    ):
        inspect_all(host)


def test_a_name_is_exactly_that_name(docker, host):
    """`influxdb2` and `my-influxdb` are no `influxdb`."""
    docker.knows([told(name) for name in ("influxdb2", "my-influxdb", "influxdb")])
    found = inspect_all(host)
    assert named(found, "influxdb").container.name == "influxdb"
    assert named(found, "influx") is None
    assert named(found[:2], "influxdb") is None


def test_containers_of_the_stack_are_told_by_their_folder(docker, host, tmp_path):
    """Only those of the compose project in this folder count, by whatever path it is named."""
    (tmp_path / "stack").mkdir()
    (tmp_path / "link").symlink_to("stack")

    def of(name, folder):
        return told(name, Config={"Image": "x", "Labels": {WORKING_FOLDER_LABEL: str(folder)}})

    docker.knows(
        [
            of("zigbee", tmp_path / "stack"),
            of("grafana", tmp_path / "link"),
            of("other", tmp_path / "stack2"),
            told("alone", Config={"Image": "x", "Labels": {}}),
        ]
    )
    found = inspect_all(host)
    for folder in ("stack", "link", "stack/"):
        mine = of_stack(found, str(tmp_path / folder))
        assert [each.container.name for each in mine] == ["grafana", "zigbee"]


def test_top_files_are_those_that_start_the_stack():
    """The compose file, its overrides and environments belong to the stack; folders do not."""
    file, folder = FileFact(1, 0.0), FileFact(1, 0.0, is_folder=True)
    names = dict.fromkeys(
        (
            "docker-compose.yml",
            "compose-override.yaml",
            ".env",
            "grafana.env",
            "menu.sh",
            "a\n.yml",
        ),
        file,
    )
    found = top_files({**names, "x.yml": folder, "services": folder})
    assert found == (".env", "compose-override.yaml", "docker-compose.yml", "grafana.env")
