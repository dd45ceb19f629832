"""Which change `inv undo` takes back, and the names that keep their order."""

import os
from datetime import UTC, datetime

import pytest

from iotstack_invoke.actions.target_checks import STAMP_FORM, time_stamp
from iotstack_invoke.actions.undo import _last_journal
from iotstack_invoke.errors import NotFound
from iotstack_invoke.hosts import LocalHost
from iotstack_invoke.targets import Target


@pytest.fixture
def target(tmp_path):
    return Target(LocalHost(str(tmp_path)), "pi", str(tmp_path), "test", (), ("docker",))


def keep(target, name, file="journal", mtime=0):
    """Let a change leave a folder with a file, and return the file."""
    path = os.path.join(target.folder, "restore", f"previous-{name}", file)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as stream:
        stream.write("x")
    os.utime(path, (mtime, mtime))
    return path


def test_nothing_to_undo(target):
    """Without any change, and with folders that hold none."""
    assert _last_journal(target) == ""
    keep(target, "t1-20261123T110000Z", "docker-compose.yml")
    assert _last_journal(target) == ""


def test_the_newest_is_undone_whatever_the_dates_of_files(target):
    """The order is that of the names, which say when each began."""
    keep(target, "z9-20261120T110000Z", mtime=9)
    newest = keep(target, "influxdb-20261123T110000Z", mtime=1)
    keep(target, "t1-20261122T110000Z", mtime=5)
    assert _last_journal(target) == newest


def test_nothing_is_undone_past_what_is_gone(target):
    """Where the newest has no old data any more, an older one is not taken for it."""
    older = keep(target, "t1-20261122T110000Z")
    keep(target, "influxdb-20261123T110000Z", "removed")
    with pytest.raises(NotFound, match="influxdb-20261123T110000Z, cannot be"):
        _last_journal(target)
    newer = keep(target, "t2-20261124T110000Z")
    assert _last_journal(target) == newer
    os.unlink(newer)
    os.unlink(keep(target, "influxdb-20261123T110000Z", "removed"))
    assert _last_journal(target) == older


def test_names_go_on_in_order_whatever_the_clock(target):
    """A clock that was set back gives no name that sorts before an older one."""
    assert time_stamp(target) >= "2026"
    keep(target, "t1-20990101T000000Z")
    keep(target, "t2-20990101T000005Z-undone")
    assert time_stamp(target) == "20990101T000006Z"
    assert time_stamp(target, "20990101T000007Z") == "20990101T000007Z"
    assert time_stamp(target, "20990101T000005Z") == "20990101T000006Z"
    assert datetime.strptime(time_stamp(target), STAMP_FORM).replace(tzinfo=UTC).year == 2099
