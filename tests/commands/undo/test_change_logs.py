"""The logs of restores and reloads go when they are old, and never before what they tell of."""

from datetime import UTC, datetime, timedelta

import pytest
from restores import restored_once
from test_old_states import aged, kept_by, restored_again

from iotstack_invoke.commands.shared.restore_id import STAMP_FORM
from iotstack_invoke.commands.undo.change_logs import logs_over

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def stamp(days):
    return (NOW - timedelta(days=days)).strftime(STAMP_FORM)


@pytest.mark.parametrize(
    ("name", "host", "goes"),
    [
        (f"t1.restore-{stamp(31)}.log", "", True),
        (f"t1.restore-{stamp(31)}-2.log", "", True),
        (f"t1.restore-{stamp(31)}.log.partial", "", True),  # that run died before it acted
        (f"reload-influxdb-{stamp(31)}.log", "", True),
        (f"t1.restore-{stamp(29)}.log", "", False),
        (f"t1.restore-{stamp(-400)}.log", "", False),  # the clock was set back
        (f"t1.restore-{stamp(40)}.log", "", False),  # what it replaced is there
        (f"t1.restore-{stamp(31)}.pi.log", "", False),
        (f"t1.restore-{stamp(31)}.pi.log", "pi", True),
        (f"t1.restore-{stamp(31)}.pi-2.log", "pi", False),  # another machine's
        (f"t1.restore-{stamp(31)}.pi-2.log", "pi-2", True),
        (f"t1.restore-{stamp(31)}.log", "pi", False),
        (f"t1.backup-log-{stamp(31)}.log", "", False),
        ("t1.backup-log.txt", "", False),
        (f"t1.restore-{stamp(31)}.log.signed", "", False),
    ],
)
def test_which_logs_may_go(name, host, goes):
    """Those of this machine or of the one that is named, older than 30 days, of no state."""
    assert logs_over([name], host, {stamp(40)}, NOW) == ((name,) if goes else ())


def test_logs_go_by_a_run_that_went_well(little_stack):
    """That of a state that `undo --list` names stays, however old."""
    backups = little_stack.folder / "backups"
    restored_once(little_stack)
    oldest = aged(*kept_by(little_stack), 90)
    (log,) = backups.glob("t1.restore-*.log")
    log = log.rename(backups / f"t1.restore-{oldest.name[-16:]}.log")
    stray = backups / f"t0.restore-{stamp(999)}.log"
    stray.write_text("a restore that was undone\n")
    told = little_stack.run("prune --dry-run")
    assert f"would be removed, it is older than 30 days: {stray}" in told.stdout
    assert stray.exists()
    assert little_stack.run("prune").returncode == 0
    assert not stray.exists()
    assert log.exists()  # the newest state stays, and with it its log
    restored_again(little_stack)
    assert not oldest.exists()
    assert not log.exists()
    assert len(list(backups.glob("t1.restore-*.log"))) == 1
