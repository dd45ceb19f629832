"""What is noted of runs, places and troubles is believed only if it can be."""

import json

import pytest

from iotstack_invoke.monitoring.place_history import PlaceFile
from iotstack_invoke.monitoring.run_records import RunRecords
from iotstack_invoke.monitoring.state import state_of
from iotstack_invoke.monitoring.troubles import TroubleFile

NOON = "2026-11-23T12:00:00Z"
RUN = {
    "task": "backup", "host": "pi", "began_utc": NOON, "process": "1 1 x", "ended_utc": NOON, "code": 1,
    "messages": [], "invocation": "",
}  # fmt: skip
PLACE = {
    "name": "here", "newest": NOON, "verified": None, "sets": 1, "size_bytes": 1, "free_bytes": 1, "trouble": "",
    "samples": [[NOON, 1]],
}  # fmt: skip
TROUBLE = {"occasion": "failure", "text": "x", "since_utc": NOON, "notified_utc": NOON}
ODD_TIMES = ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", 5, "noon"]
ODD_NUMBERS = [10**400, float("inf"), True, "1", -(1 << 63)]


@pytest.fixture
def stack(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return f"{tmp_path}/IOTstack"


def put(tmp_path, stack, name, content):
    """Write a note, as one that this user wrote."""
    path = tmp_path / state_of(stack) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        *({key: each} for key in ("began_utc", "ended_utc") for each in ODD_TIMES),
        *({"code": each} for each in ODD_NUMBERS),
    ],
)
def test_an_impossible_run_is_none(tmp_path, stack, change):
    """Its time could not be shown, or its code is none."""
    put(tmp_path, stack, "runs/backup.json", RUN)
    assert RunRecords(stack).last("backup") is not None
    put(tmp_path, stack, "runs/backup.json", {**RUN, **change})
    assert RunRecords(stack).last("backup") is None


@pytest.mark.parametrize("process", ["9" * 5000 + " 1 x", "² 1 x", "-1 1 x", ""])
def test_an_impossible_process_does_not_run(tmp_path, stack, process):
    """So the run was killed."""
    put(tmp_path, stack, "runs/backup.json", {**RUN, "code": None, "process": process})
    assert not RunRecords(stack).last("backup").is_running
    assert RunRecords(stack).last("backup").is_silent


@pytest.mark.parametrize(
    "change",
    [
        *({key: each} for key in ("newest", "verified") for each in ODD_TIMES),
        *({key: each} for key in ("sets", "size_bytes", "free_bytes") for each in ODD_NUMBERS),
        *({"samples": [[each, 1]]} for each in ODD_TIMES),
        *({"samples": [[NOON, each]]} for each in ODD_NUMBERS),
    ],
)
def test_an_impossible_place_is_none(tmp_path, stack, change):
    """It is looked at again."""
    put(tmp_path, stack, "places.json", [PLACE])
    assert [*PlaceFile(stack).read()] == ["here"]
    put(tmp_path, stack, "places.json", [{**PLACE, **change}])
    assert PlaceFile(stack).read() == {}


@pytest.mark.parametrize("key", ["since_utc", "notified_utc"])
@pytest.mark.parametrize("moment", ODD_TIMES)
def test_an_impossible_trouble_is_none(tmp_path, stack, key, moment):
    """It is told again."""
    put(tmp_path, stack, "troubles.json", {"backup": TROUBLE})
    assert [*TroubleFile(stack).read()] == ["backup"]
    put(tmp_path, stack, "troubles.json", {"backup": {**TROUBLE, key: moment}})
    assert TroubleFile(stack).read() == {}
