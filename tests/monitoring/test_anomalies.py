"""What the history explains is silent; what it does not is one sentence with a remedy."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.monitoring.anomalies import Sample, days_left, oddness, problems_in
from iotstack_invoke.monitoring.run_event import RunEvent
from iotstack_invoke.monitoring.stack_facts import PlaceFacts, SetFacts, StackFacts

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
LIMIT = timedelta(hours=26)
MB = 10**6


def sets(*sizes, part="influx"):
    count = len(sizes)
    return tuple(
        SetFacts(f"day{number}", NOW - (count - 1 - number) * DAY, 60.0, {part: size})
        for number, size in enumerate(sizes)
    )


def place(name="here", **more):
    return PlaceFacts(name, **{"newest": NOW, "sets": 5, "free_bytes": 10**12, **more})


def found(*places, made=None, histories=None, **more):
    facts = StackFacts("pi", NOW, made or sets(MB), places or (place(),), **more)
    return {each.key: each for each in problems_in(facts, histories or {}, LIMIT)}


def test_a_healthy_stack_has_no_problem():
    """Neither on its first day nor after months."""
    assert found() == {}
    history = {"here": [Sample(NOW - 100 * DAY, 10**12), Sample(NOW, 10**12)]}
    told = {"verified": NOW - 30 * DAY}
    assert found(place(**told), histories=history, rehearsed=NOW - 7 * DAY) == {}


@pytest.mark.parametrize(
    ("earlier", "size", "told"),
    [
        ([100 * MB] * 4, 60 * MB, "shrank"),
        ([100 * MB] * 4, 75 * MB, ""),
        ([100 * MB] * 3, 1, ""),  # too few to know
        ([100 * MB] * 4, 160 * MB, "grew"),
        ([100 * MB, 110 * MB, 120 * MB, 130 * MB], 140 * MB, ""),  # it grows each day
        ([50 * MB, 200 * MB, 90 * MB, 150 * MB], 30 * MB, ""),  # it changes that much
        ([20_000] * 4, 9_000, "shrank"),
        ([2_000] * 4, 500, ""),  # too small to say anything
        ([2_000] * 4, 900_000, ""),
    ],
)
def test_a_size_is_odd_if_the_earlier_ones_do_not_explain_it(earlier, size, told):
    """Neither a steady growth nor a part that always varies is odd."""
    assert oddness(size, earlier) == told


@given(st.lists(st.integers(0, 10**12), min_size=4, max_size=10), st.data())
def test_a_size_between_earlier_ones_is_never_odd(earlier, data):
    """Whatever they are."""
    assert oddness(data.draw(st.integers(min(earlier), max(earlier))), earlier) == ""


def test_a_part_that_shrank_is_told_with_both_sizes():
    """The remedy compares the two backups."""
    told = found(made=sets(*[100 * MB] * 5, 10 * MB))["size influx"]
    assert told.title == "The influx part shrank"
    assert "In day5 it has 10.0 MB; in the backups before it had 100.0 MB to 100.0 MB" in told.text
    assert "iotstack diff 'day4' 'day5'" in told.text
    assert not told.is_failure


def test_silence_is_a_problem():
    """Here it is a failure, in a vault a warning; without any backup too."""
    old = place(newest=NOW - timedelta(hours=27))
    nas = place("nas", newest=None)
    told = found(old, nas)
    assert told.keys() == {"overdue here"}  # it says enough: a vault cannot have one either
    assert told["overdue here"].is_failure
    assert "No good backup was made here for 26 h" in told["overdue here"].text
    told = found(place(), nas)
    assert not told["overdue nas"].is_failure
    assert "does not exist yet" in told["overdue nas"].text
    assert "iotstack status --at nas" in told["overdue nas"].text
    assert found(place(), place("nas", trouble="It is off.")).keys() == {"away nas"}


def test_a_clock_that_is_behind_its_own_backups_is_a_problem():
    """By a set or by a run; some minutes are not told."""
    ahead = NOW + timedelta(hours=2)
    run = RunEvent("backup", "pi", ahead, ahead, 0)
    assert found(runs={"backup": run})["clock"].is_failure
    soon = NOW + timedelta(minutes=4)
    assert found(runs={"backup": RunEvent("backup", "pi", soon, soon, 0)}) == {}


def test_a_place_that_fills_is_told_in_time():
    """By its own history: 10 GB less each day, 100 GB left."""
    history = [Sample(NOW - n * DAY, (100 + 10 * n) * 10**9) for n in range(6, -1, -1)]
    told = found(
        place(), place("nas", free_bytes=history[-1].free_bytes), histories={"nas": history}
    )
    assert told["full nas"].title == "nas will be full in 10 days"
    assert "iotstack prune --at nas --dry-run" in told["full nas"].text
    assert days_left(history) == pytest.approx(10)
    assert days_left(history[-2:]) is None  # a day says nothing
    assert days_left([*history[:-1], Sample(NOW, 10**12)]) is None  # it was pruned
    assert days_left([]) is None


def test_a_place_without_space_for_one_more_is_told():
    """Before the next backup fails."""
    assert "has no space for another backup" in found(place(free_bytes=MB // 2))["full here"].text
    assert "full cloud" not in found(place(), place("cloud", free_bytes=None))


def test_what_was_never_read_again_is_told_after_a_month():
    """Not to somebody who began yesterday."""
    history = {"here": [Sample(NOW - 41 * DAY, 10**12)]}
    told = found(place(), place("nas", verified=NOW - 50 * DAY), histories=history)
    assert told.keys() == {"unverified here", "unverified nas", "unrehearsed"}
    assert "iotstack verify --at nas" in told["unverified nas"].text
    assert "iotstack rehearse" in told["unrehearsed"].text
    history = {"here": [Sample(NOW - 30 * DAY, 10**12)]}
    assert found(place(), histories=history) == {}


def test_a_clock_that_was_wrong_once_is_not_taken_for_a_long_watch():
    """A Pi without a clock of its own begins in the past, until it finds its time."""
    history = {"here": [Sample(NOW - 2500 * DAY, 10**12), Sample(NOW - DAY, 10**12)]}
    assert found(place(), histories=history) == {}
    ahead = {"here": [Sample(NOW + 2500 * DAY, 10**12)]}
    assert found(place(), histories=ahead) == {}
