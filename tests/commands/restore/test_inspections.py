"""How often a restore inspects all containers: each of these looks has its reason."""

import os
import pty
import socket

import pytest
from restores import restored_once

COUNTED = """
case "$*" in "ps --all --quiet --no-trunc") echo look >> "$0.looks" ;; esac
exec "$0.uncounted" "$@"
"""


@pytest.fixture
def counted(little_stack):
    """A stack with a backup t1, two containers, and a Docker that counts how often it is asked."""
    pi = little_stack
    pi.runs(nodered="nodered/node-red", other="other:1", down=["other"])
    restored_once(pi)
    docker = pi.tools / "docker"
    docker.rename(f"{docker}.uncounted")
    told = (pi.tools / "docker.uncounted").read_text()
    (pi.tools / "docker.uncounted").write_text(told.replace('"$0.', f'"{docker}.'))
    pi.tool("docker", COUNTED)
    return pi


def looks(pi):
    return len((pi.tools / "docker.looks").read_text().splitlines())


@pytest.mark.parametrize("line", ["", "--only nodered"])
def test_a_dry_run_looks_once(counted, line):
    """All that it tells is of one moment."""
    told = counted.run(f"restore --runtag t1 --from here --dry-run {line}")
    assert told.returncode == 0, told.stderr
    assert looks(counted) == 1


@pytest.mark.parametrize("line", ["", "--only nodered"])
def test_a_restore_looks_under_the_lock_and_right_before_the_switch(counted, line):
    """And once when all is done, to tell what became of the containers."""
    told = counted.run(f"restore --runtag t1 --from here --yes {line}")
    assert told.returncode == 0, told.stderr
    assert looks(counted) == 2 + 1


def test_a_restore_that_is_confirmed_looks_once_before_that(counted):
    """While a person thinks, anything may happen: what was seen before is only told."""
    ours, its = pty.openpty()
    process = counted.start("restore --runtag t1 --from here", stdin=its)
    os.close(its)
    os.write(ours, f"{socket.gethostname()}\n".encode())
    out, err = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0, out + err
    assert looks(counted) == 1 + 2 + 1
