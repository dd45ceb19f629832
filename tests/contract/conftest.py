"""One suite for every kind of place: `kind` is each of them in turn."""

import pytest
from rclone_storages import KINDS as CLOUDS
from storages import KINDS

EVERY = {**KINDS, **CLOUDS}
WITH_LONG = {
    "ssh-channel",
    "ssh-scp-only",
    "ssh-old-sftp",
    "rclone-sftp",
    "rclone-s3",
    "ssh-busybox",
    "ssh-tcsh",
}
"""Other ways to what another kind has, and what takes long: they are tried with --long."""


@pytest.fixture(scope="session")
def servers():
    """What the kinds started and share; `stop()` is called on each at the end."""
    running = {}
    yield running
    for each in running.values():
        each.stop()


@pytest.fixture(
    params=[
        pytest.param(each, marks=pytest.mark.long) if each in WITH_LONG else each for each in EVERY
    ]
)
def kind(request, tmp_path, servers, monkeypatch):
    """A kind of place, with an empty folder."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    made = EVERY[request.param](tmp_path, servers)
    yield made
    made.close()
