"""What the tests of several rooms are given."""

import hypothesis
import pytest
from scenes import LittleStack
from sshd import Sshd, require_sshd

# A property holds however slow the machine is that it is tried on.
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.load_profile("ours")


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
def little_stack(tmp_path):
    """A stack without InfluxDB, and the program that backs it up."""
    return LittleStack(tmp_path / "little")
