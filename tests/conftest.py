"""What the tests of several rooms are given."""

import gc
import os
import subprocess
from pathlib import Path

import hypothesis
import pytest
from bucket import S3
from cloud import KINDS, Cloud, require_rclone
from contexts import LittleStack
from mosquitto import Mosquitto, require_mosquitto
from sshd import Sshd, require_sshd

# What these helpers assert is told as in a test; they are imported later, by tests.
pytest.register_assert_rewrite(
    "marks", "owner", "restorer", "saboteur", "sweep", "restores", "liars"
)

# A property holds however slow the machine is that it is tried on.
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.load_profile("ours")


gc.disable()  # until all is collected: nothing of it is garbage
TESTS = Path(__file__).parent
LONG = [each for each in (TESTS / "long.txt").read_text().splitlines() if each[:1] != "#"]
WHOLE = frozenset(
    [
        "bucket",
        "laptop",
        "little_stack",
        "mount_disk",
        "influxd",
        "start_broker",
        "service",
        "start_cloud",
        "start_sshd",
        "with_sudo",
    ]
)
"""The fixtures whose tests run the program, or a server, as a whole."""


def pytest_collection_modifyitems(items):
    """Mark what is listed in long.txt, and what runs the program or a server as a whole."""
    for item in items:
        of_servers = item.path.parent.name == "contract"
        if of_servers or not WHOLE.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.whole)
        inside = f"{item.path.relative_to(TESTS)}::{item.nodeid.partition('::')[2]}"
        if inside.startswith(tuple(LONG)):
            item.add_marker(pytest.mark.long)


def pytest_collection_finish():
    """Let what is collected be: to look through it again and again for garbage costs."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture
def start_sshd(tmp_path, monkeypatch):
    """Start an sshd of a name, with more lines of settings if wanted; all are gone at the end."""
    require_sshd()
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    running = []

    def start(name="server", *extra, **given):
        running.append(Sshd(tmp_path / name, extra, **given))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture
def sshd(start_sshd):
    """An sshd that takes commands and files."""
    return start_sshd()


@pytest.fixture
def start_cloud(tmp_path, monkeypatch):
    """Start a cloud of a kind that rclone serves; rclone knows it, and all are gone at the end."""
    require_rclone()
    running = []

    def start(kind, name="cloud"):
        running.append(Cloud(tmp_path / name, kind))
        monkeypatch.setenv("RCLONE_CONFIG", str(running[-1].settings))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """A server of S3 buckets, each test making its own."""
    server = S3(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture
def start_broker(tmp_path):
    """Start a Mosquitto; all are gone at the end."""
    require_mosquitto()
    running = []

    def start(**given):
        running.append(Mosquitto(tmp_path / f"broker{len(running)}", **given))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture(params=KINDS)
def cloud(request, start_cloud):
    """A cloud of each kind."""
    return start_cloud(request.param)


@pytest.fixture
def little_stack(tmp_path):
    """A stack without InfluxDB, and the program that backs it up."""
    return LittleStack(tmp_path / "little")


@pytest.fixture
def mount_disk():
    """Mount a file system of a size at a folder, which is made if it is not there."""
    mounted = []

    def mount(folder, size="256k"):
        folder.mkdir(parents=True, exist_ok=True)
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if subprocess.run(words, check=False, capture_output=True).returncode:
            pytest.skip("only root can mount a disk")
        mounted.append(folder)
        return folder

    yield mount
    for each in filter(os.path.ismount, mounted):
        subprocess.run(["umount", "--lazy", each], check=True)


@pytest.fixture
def small_disk(tmp_path, mount_disk):
    """A file system of 256 KiB."""
    return mount_disk(tmp_path / "disk")


@pytest.fixture
def read_only():
    """Mount a folder read-only, as a card that fails is."""
    mounted = []

    def mount(folder):
        told = subprocess.run(["mount", "--bind", folder, folder], check=False)
        if told.returncode:
            pytest.skip("only root can mount a folder")
        mounted.append(folder)
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)

    yield mount
    for each in mounted:
        subprocess.run(["umount", "--lazy", each], check=True)
