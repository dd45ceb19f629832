"""What the tests of set-up are given."""

import os

import pytest

CRONTAB = """case "$1" in
-l) cat "$0.tab" ;;
-r) rm "$0.tab" ;;
*) cp "$1" "$0.tab" ;;
esac"""


@pytest.fixture
def scheduling_stack(little_stack):
    """A stack that may have a schedule: in a crontab of its own, and without systemd.

    That of this machine is not for tests.
    """
    little_stack.tool("crontab", CRONTAB)
    if os.path.isdir("/run/systemd/system"):
        script = 'mount -t tmpfs tmpfs /run/systemd; exec "$@"'
        little_stack.before = ("unshare", "-m", "sh", "-ec", script, "sh")
    return little_stack
