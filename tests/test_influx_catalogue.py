"""The catalogue of an InfluxDB that lies in its container: read there, put there, and put back."""

import pytest
from test_up import AWAY

from iotstack_invoke.errors import StepFailed
from iotstack_invoke.hosts import LocalHost
from iotstack_invoke.services.influx_catalogue import catalogue_within

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
