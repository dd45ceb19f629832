"""How long the old data of a reload stay."""

import contextlib
import json
import signal
from datetime import UTC, datetime, timedelta

import pytest

from iotstack_invoke.backups.manifest import utc_text
from iotstack_invoke.commands.catalog.prune import PruneRequest, prune
from iotstack_invoke.commands.restore.reload import read_days
from iotstack_invoke.commands.undo.expiry import (
    GONE_MARK,
    expired,
    find_expired,
    remove_expired_here,
    remove_old,
)
from iotstack_invoke.core.errors import Interrupted, UsageError
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.environment.environment import Environment
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.reporting.report import Report
from iotstack_invoke.settings.model import read_settings
from iotstack_invoke.stack.folders import MakeAside
from iotstack_invoke.stack.kept_until import UNTIL_FILE, keep_until

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
FAR = datetime(2126, 1, 1, tzinfo=UTC)
FOLDER = "/stack/restore/previous-influxdb-1"


def told(since=NOW - 8 * DAY, until=NOW - DAY, others=()):
    """What is written down in the folder of the old data."""
    return json.dumps({"since": utc_text(since), "until": utc_text(until), "with": list(others)})


def test_expired():
    """It goes when its days are over, and takes the folder on the other file system along."""
    apart = "/disk/influxdb/.previous-influxdb-1"
    assert expired(told(), FOLDER, NOW) == (FOLDER,)
    assert expired(told(others=[apart]), FOLDER, NOW) == (FOLDER, apart)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        told(until=NOW + DAY),
        told(since=NOW + DAY),  # the clock was set back
        told(others=["/etc"]),
        told(others=["/disk/../etc/.previous-influxdb-1"]),
        told(others=["/disk/.previous-influxdb-2"]),
        told().replace("Z", ""),
    ],
)
def test_not_expired(text):
    """What is not over, or was not written by us, stays."""
    assert expired(text, FOLDER, NOW) == ()


def test_only_what_is_over_is_removed(tmp_path):
    """Folders of restores, of reloads without a date and of younger ones stay."""
    host = LocalHost(str(tmp_path))
    for name, days in (("old", 3), ("young", 30), ("undated", None)):
        folder = tmp_path / f"restore/previous-{name}"
        (folder / "volumes").mkdir(parents=True)
        (folder / "journal").write_text("x")
        if days:
            until = keep_until(host, [str(folder)], days, NOW)
            assert until == NOW + days * DAY
    strange = tmp_path / "restore/2026-11-23_1100"
    strange.mkdir()
    (strange / UNTIL_FILE).write_text(told())
    found = find_expired(host, str(tmp_path), NOW + 4 * DAY)
    assert found == [(str(tmp_path / "restore/previous-old"),)]
    assert find_expired(host, str(tmp_path / "none"), NOW) == []


def test_prune_removes_what_is_over(tmp_path, monkeypatch, capsys):
    """It is told; what is not over stays, also with a clock that was set back."""
    monkeypatch.setenv("HOME", str(tmp_path))
    host, stack = LocalHost(str(tmp_path)), tmp_path / "IOTstack"
    for name, since in (("old", NOW - 9 * DAY), ("young", datetime.now(UTC)), ("ahead", FAR)):
        folder = stack / f"restore/previous-{name}"
        (folder / "volumes").mkdir(parents=True)
        keep_until(host, [str(folder)], 3, since)
    (stack / "backups").mkdir()
    settings = read_settings({"stack": {"folder": str(stack), "sudo": False}}, "")
    assert prune(settings, PruneRequest(dry_run=True), {}, Report(verbosity=1)) == 0
    assert len(list((stack / "restore").glob("*/volumes"))) == 3
    assert "would be removed" in "".join(capsys.readouterr())
    assert prune(settings, PruneRequest(), {}, Report(verbosity=1)) == 0
    assert {path.parent.name for path in (stack / "restore").glob("*/volumes")} == {
        "previous-young",
        "previous-ahead",
    }
    assert "previous-old" in "".join(capsys.readouterr())


def test_what_is_removed_leaves_a_mark(tmp_path):
    """The data go, here and on the other disk; the mark says that nothing goes back past them."""
    host, folder, apart = (
        LocalHost(str(tmp_path)),
        tmp_path / "previous-x",
        tmp_path / ".previous-x",
    )
    for each in (folder, apart):
        (each / "volumes").mkdir(parents=True)
        (each / "volumes/-rf").write_text("x")
    (folder / "journal").write_text("x")
    keep_until(host, [str(folder), str(apart)], 3, NOW)
    for _ in range(2):
        remove_old(host, [str(folder), str(apart)], ())
        assert [path.name for path in folder.iterdir()] == [GONE_MARK]
        assert not apart.exists()


@pytest.mark.parametrize(("text", "days"), [("", None), ("0", 0), ("14", 14)])
def test_days(text, days):
    """So many days; none given means for ever."""
    assert read_days(text) == days


@pytest.mark.parametrize("text", ["-1", "2w", "1.5", "ten", "999999"])
def test_days_that_are_none(text):
    """Anything else is refused, with an example."""
    with pytest.raises(UsageError, match="such as 14"):
        read_days(text)


@pytest.mark.parametrize(
    ("beside", "left"),
    [
        ((), None),  # all was put back
        ((f"{UNTIL_FILE}.partial",), None),
        (("volumes/x",), {UNTIL_FILE, "volumes"}),  # it may be the only copy of something
    ],
)
def test_the_note_goes_with_the_last_that_is_put_back(tmp_path, beside, left):
    """It goes when nothing else is left of the folder, and stays beside whatever is."""
    host, folder = LocalHost(str(tmp_path)), tmp_path / "previous-x"
    (folder / "volumes/nodered").mkdir(parents=True)
    keep_until(host, [str(folder)], 3, NOW)
    for name in beside:
        (folder / name).write_text("x")
    step = MakeAside(HostAccess("pi", guard=str(tmp_path / "guard")), str(folder))
    for _ in range(2):
        step.undo(host)
    assert left == ({path.name for path in folder.iterdir()} if folder.exists() else None)


def test_a_note_that_is_half_written_is_none(tmp_path):
    """It gets its name when it is whole: a folder has all of its promise, or none yet."""
    host = LocalHost(str(tmp_path))
    host.rename = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        keep_until(host, [str(tmp_path)], 3, NOW)
    assert [path.name for path in tmp_path.iterdir()] == [f"{UNTIL_FILE}.partial"]


def test_ctrl_c_ends_the_removal(tmp_path):
    """It is no error of one folder, after which the next one would be removed."""
    stack = tmp_path / "IOTstack"
    for name in ("a", "b"):
        folder = stack / f"restore/previous-{name}"
        (folder / "volumes").mkdir(parents=True)
        keep_until(LocalHost("/"), [str(folder)], 3, NOW - 9 * DAY)
    asked = []

    def root():
        asked.append("")
        raise Interrupted(signal.SIGINT)

    settings = read_settings({"stack": {"folder": str(stack), "sudo": False}}, "")
    with (
        contextlib.closing(Environment.of(settings)) as environment,
        pytest.raises(Interrupted),
    ):
        remove_expired_here(environment, root, print)
    assert len(asked) == 1
    assert len(list((stack / "restore").glob("*/volumes"))) == 2
