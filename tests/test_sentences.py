"""What a program said last has its full stop before our advice begins."""

import pytest

from iotstack_invoke.archives.pack import _advice
from iotstack_invoke.core.errors import Refused, StepFailed, ended
from iotstack_invoke.hosts.inspect import root_words
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.stack.compose import inspect_all


@pytest.fixture
def here(little_stack, monkeypatch):
    monkeypatch.setenv("PATH", little_stack.environment["PATH"])
    little_stack.host = LocalHost(str(little_stack.folder))
    return little_stack


def test_sudo(here):
    """As sudo says it where nobody can type a password."""
    here.tool("id", "echo 1000")
    here.tool("sudo", "echo 'sudo: a password is required' >&2; exit 1")
    with pytest.raises(Refused, match=r"a password is required\. Allow it"):
        root_words(here.host, "pi", sudo=True)


def test_docker(here):
    """As Docker says it to whoever is not in its group."""
    here.tool("docker", "echo 'dial unix: connect: permission denied' >&2; exit 1")
    with pytest.raises(StepFailed, match=r"connect: permission denied\. Put this user"):
        inspect_all(here.host)


def test_tar(here):
    """As tar says it of what only root can read: the backup's own words follow."""
    here.tool("tar", "cat; echo 'tar: ./volumes/x: Cannot open: Permission denied' >&2; exit 2")
    told = here.run("backup --runtag x")
    assert told.returncode == 1
    said = " ".join(told.stderr.split())
    assert "Cannot open: Permission denied." + _advice(["Permission denied"]) in said


def test_what_has_its_end_gets_no_other():
    """Neither a second full stop, nor one behind a question."""
    assert [ended(each) for each in ("a", "a.", "a?", "a!", StepFailed("b"))] == [
        *("a.", "a.", "a?", "a!", "b."),
    ]
