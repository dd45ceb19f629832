"""Which sets stay; golden cases are in plans/retention.toml."""

import os
import time
import tomllib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.manifest import Manifest, utc_text
from iotstack_invoke.retention import Policy, judge
from iotstack_invoke.sets import BackupSet, State

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
GOOD = {State.COMPLETE, State.WARNINGS}

with open(os.path.join(os.path.dirname(__file__), "plans", "retention.toml"), "rb") as stream:
    CASES = tomllib.load(stream)["case"]


@pytest.fixture(autouse=True, scope="module")
def _in_utc():
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


def backup(runtag, state, started=""):
    """Return a set; one with a time of its own has a manifest that tells it."""
    manifest = Manifest(runtag, "", "", started, started, "", ()) if started else None
    return BackupSet(runtag, {}, state, manifest)


def read_case(case):
    """Return the sets of a golden case, and its verdicts as (runtag, verdict)."""
    sets, verdicts = [], []
    for line in case["sets"].split("\n"):
        if line:
            name, state, verdict = (field.strip() for field in line.split("|"))
            runtag, _, started = name.partition(" @ ")
            sets.append(backup(runtag, State(state), started))
            verdicts.append((runtag, verdict))
    return sets, verdicts


def told(verdicts):
    return [(v.backup.runtag, f"{'keep' if v.keep else 'remove'}: {v.why}") for v in verdicts]


@pytest.mark.parametrize("case", CASES, ids=[case["says"] for case in CASES])
def test_golden_cases(case):
    """Each collection gets the verdicts that are written down, newest first, in any order."""
    sets, verdicts = read_case(case)
    now = case.get("now", NOW)
    assert told(judge(sets, Policy(case["keep"]), now)) == verdicts
    assert told(judge(reversed(sets), Policy(case["keep"]), now)) == verdicts


@st.composite
def collections(draw):
    """Return sets of all states, around now and far from it, dated, named freely or both."""
    minutes = st.integers(-5000, 300) | st.integers(-30_000_000, 3_000_000)
    sets = []
    for number in range(draw(st.integers(0, 12))):
        made = NOW + timedelta(minutes=draw(minutes))
        state = draw(st.sampled_from(State))
        sets.append(
            draw(
                st.sampled_from(
                    [
                        backup(f"{made:%Y-%m-%d_%H%M}.n{number}", state),
                        backup(f"free {number}", state, utc_text(made)),
                        backup(f"free {number}", state),
                    ]
                )
            )
        )
    return sets


KEEP = st.integers(1, 6)


def kept(sets, keep, now=NOW):
    """Return the sets that stay, in the order given."""
    stay = {v.backup.runtag for v in judge(sets, Policy(keep), now) if v.keep}
    return [each for each in sets if each.runtag in stay]


@given(collections(), KEEP)
def test_every_set_gets_one_verdict(sets, keep):
    """No set is passed over, none is judged twice."""
    judged = [verdict.backup.runtag for verdict in judge(sets, Policy(keep), NOW)]
    assert sorted(judged) == sorted(each.runtag for each in sets)


@given(collections(), KEEP)
def test_judging_again_removes_nothing_more(sets, keep):
    """Once what had to go is gone, all that is left stays."""
    left = kept(sets, keep)
    assert kept(left, keep) == left


@given(collections(), KEEP)
def test_keeping_more_removes_no_other(sets, keep):
    """A set that stays stays also when one more is to be kept."""
    more = {each.runtag for each in kept(sets, keep + 1)}
    assert {each.runtag for each in kept(sets, keep)} <= more


@given(collections(), KEEP, st.randoms())
def test_the_order_of_a_listing_means_nothing(sets, keep, random):
    """Sets get the same verdicts in whatever order they are listed."""
    shuffled = random.sample(sets, len(sets))
    assert set(told(judge(shuffled, Policy(keep), NOW))) == set(
        told(judge(sets, Policy(keep), NOW))
    )


@given(collections(), KEEP)
def test_the_newest_good_sets_stay(sets, keep):
    """The newest good set is never removed, nor are as many as are to be kept."""
    good = [each for each in sets if each.state in GOOD and each.made() and each.made() <= NOW]
    good.sort(key=lambda each: (each.made(), each.runtag), reverse=True)
    stay = kept(sets, keep)
    assert all(each in stay for each in good[:keep])
    assert not any(each in stay for each in good[keep:])


@given(collections(), KEEP)
def test_what_tells_no_time_or_a_future_one_stays(sets, keep):
    """Nothing is removed on the word of a date that cannot be right."""
    stay = kept(sets, keep)
    assert all(each in stay for each in sets if each.made() is None or each.made() > NOW)


@given(collections(), KEEP, st.lists(st.sampled_from(sorted(set(State) - GOOD, key=str))))
def test_failures_push_no_good_set_out(sets, keep, failures):
    """However many runs fail after them, the good sets that stay are the same."""
    newer = [
        backup(f"failure {n}", state, utc_text(NOW - timedelta(seconds=n)))
        for n, state in enumerate(failures)
    ]
    before = {each.runtag for each in kept(sets, keep) if each.state in GOOD}
    after = {each.runtag for each in kept(sets + newer, keep) if each.state in GOOD}
    assert after == before


@given(collections(), KEEP, st.integers(0, 30_000_000))
def test_a_clock_set_back_removes_no_set_that_the_right_clock_keeps(sets, keep, minutes):
    """A Pi that starts with an old time removes only what it would not have counted anyway."""
    back = kept(sets, keep, NOW - timedelta(minutes=minutes))
    good = [each for each in sets if each.state in GOOD and each.made() and each.made() <= NOW]
    for each in sorted(good, key=lambda s: (s.made(), s.runtag), reverse=True)[:keep]:
        assert each in back


def test_the_day_of_an_unfinished_set_is_counted_from_its_start():
    """Exactly one day old is too old; a second less is not."""
    good = backup("good", State.COMPLETE, "2026-11-23T11:00:00Z")
    for started, stays in (("2026-11-22T12:00:00Z", False), ("2026-11-22T12:00:01Z", True)):
        unfinished = backup("unfinished", State.UNFINISHED, started)
        assert (unfinished in kept([good, unfinished], 1)) is stays
