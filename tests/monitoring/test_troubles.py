"""A trouble is told once, again if it changes or lasts a week, and its end once."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.monitoring.troubles import Trouble, TroubleFile, explained, judge

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def tell(*steps, key="backup"):
    """Return what is told at each step: hours since the first, the occasion, the text."""
    troubles, told = {}, []
    for hours, occasion, text in steps:
        said, troubles = judge(troubles, key, occasion, text, NOW + hours * HOUR)
        told.append(said)
    return told


def test_the_same_trouble_is_told_once():
    """Its numbers may differ: times and sizes do each time."""
    assert tell((0, "failure", "3 of 5"), (1, "failure", "4 of 6"), (2, "", "")) == [
        "failure",
        "",
        "recovered",
    ]


def test_a_machine_that_is_off_is_one_trouble():
    """Whatever the network says of it each time, and whichever backups wait for it."""
    away = "Backup {} is complete here, but some steps failed.\n  copy it to nas: nas is unreachable: {}"
    away += "\nNot copied yet: {}. The next backup or `inv sync` copies it there."
    first = away.format("2026-12-01_1401-2", "timed out. Is it on?", "2026-12-01_1401-2")
    second = away.format(
        "2026-12-02_0300", "No route to host.", "2026-12-01_1401-2, 2026-12-02_0300"
    )
    assert tell((0, "warning", first), (1, "warning", second)) == ["warning", ""]
    full = second.replace("is unreachable", "is full")
    assert tell((0, "warning", first), (1, "warning", full)) == ["warning", "warning"]


def test_part_of_a_known_trouble_is_no_new_one():
    """What is over may come again, and is then told again."""
    both = "1 backup is odd.\n  one: the disk is slow\n  two: the NAS is off"
    one = "3 backups are odd.\n  one, three: the disk is slow".replace("are", "is")
    steps = ((0, "warning", both), (1, "warning", one), (2, "warning", both))
    assert tell(*steps) == ["warning", "", "warning"]


AWAY = {"nas": "nas (10.0.0.5) is unreachable: timed out. Is it on?"}


@pytest.mark.parametrize(
    ("messages", "names"),
    [
        (["nas (10.0.0.5) is unreachable: No route to host."], {"nas"}),
        (["Some steps failed.", "  copy a: nas (10.0.0.5) is unreachable: x"], {"nas"}),
        (["Some steps failed.", "  Cannot tell what nas has. Not copied yet: 3."], {"nas"}),
        (["Some steps failed.", "  a: nas (10.0.0.5) is unreachable: x", "  b: tar ended"], set()),
        (["Some steps failed."], set()),
        (["Some steps failed.", "  b: tar ended"], set()),
        (["nas is full."], set()),
        ([], set()),
    ],
)
def test_what_follows_from_a_vault_that_is_away(messages, names):
    """All that was told must, or nothing counts as explained."""
    assert explained(messages, AWAY) == names
    assert explained(["\n".join(messages)], AWAY) == names


def test_another_trouble_is_told():
    """Of another text, or worse, or less bad."""
    assert tell(
        (0, "warning", "the NAS is off"), (1, "failure", "the NAS is off"), (2, "failure", "full")
    ) == ["warning", "failure", "failure"]


def test_a_trouble_that_lasts_is_told_each_week():
    """And no more often."""
    steps = [(hour, "failure", "x") for hour in range(0, 24 * 22, 24)]
    told = tell(*steps)
    assert [day for day, said in enumerate(told) if said] == [0, 7, 14, 21]


def test_a_clock_that_was_put_back_tells_again():
    """Rather twice than never."""
    assert tell((0, "failure", "x"), (-24 * 365, "failure", "x")) == ["failure", "failure"]


def test_good_runs_are_silent():
    """Nobody is told that all is as always."""
    assert tell((0, "", ""), (24, "", "")) == ["", ""]


@given(st.lists(st.sampled_from(["", "warning", "failure"]), max_size=30))
def test_each_trouble_has_one_end(occasions):
    """However they follow each other: as many recoveries as troubles that ended."""
    told = tell(*((hour, each, "x") for hour, each in enumerate(occasions)))
    ends = sum(a != "" and b == "" for a, b in pairwise(occasions))
    assert told.count("recovered") == ends


def test_long_troubles_of_all_tasks_are_read_again(tmp_path):
    """In any script: JSON needs up to 12 bytes for a letter."""
    file = TroubleFile(f"{tmp_path}/troubles.json")
    utc = "2026-11-23T12:00:00Z"
    told = {f"task {n}": Trouble("failure", "\U0001f600" * 20_000, utc, utc) for n in range(10)}
    file.write(told)
    assert file.read() == told
