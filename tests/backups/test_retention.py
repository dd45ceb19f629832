"""Which sets stay; golden cases are in plans/retention.toml."""

import contextlib
import os
import time
import tomllib
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import folders
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.backups.holdings import (
    Gone,
    holdings_of,
    lacks,
    lacks_told,
    meanings,
    needed_of,
)
from iotstack_invoke.backups.manifest import LeftOut, Manifest, Part, utc_text
from iotstack_invoke.backups.retention import (
    POLICY_KEYS,
    Policy,
    Span,
    judge,
    judge_each_host,
    policy_mistakes,
    read_policy,
    read_span,
)
from iotstack_invoke.backups.sets import BackupSet, State
from iotstack_invoke.core.runtag import runtag_time
from iotstack_invoke.hosts.base import FileFact

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
GOOD = {State.COMPLETE, State.WARNINGS}

with open(os.path.join(str(folders.TESTS), "plans", "retention.toml"), "rb") as stream:
    CASES = tomllib.load(stream)["case"]


@contextlib.contextmanager
def clock_of(zone):
    """Let the local time be that of a zone."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


@pytest.fixture(autouse=True, scope="module")
def _in_utc():
    with clock_of("UTC"):
        yield


class Everything:
    """All runtags, as one that adopted all archives of other tools has them."""

    def __contains__(self, _runtag):
        return True


EVERY = Everything()


def parts_with(held):
    """Return the parts of a manifest that hold these, each as `part/container/database`."""
    kinds, databases, servers = dict[str, None](), {}, {}
    for kind, *names in (each.split("/") for each in held):
        kinds[kind] = None
        if kind == "influx":
            databases.setdefault(kind, []).extend(names)
        elif names:
            rows = servers.setdefault(kind, {}).setdefault(names[0], {})
            rows |= {name: {} for name in names[1:]}
    facts = {kind: {"databases": each} for kind, each in databases.items()}
    for kind, known in servers.items():
        facts[kind] = {"servers": [{"container": name, "rows": r} for name, r in known.items()]}
    return tuple(Part(kind, kind, facts=facts.get(kind, {})) for kind in kinds)


def backup(runtag, state, started="", *, pinned=False, held=()):
    """Return a set; one with a time of its own, or with holdings, has a manifest that tells it."""
    if held and not started:
        started = utc_text(runtag_time(runtag).astimezone())
    manifest = (
        Manifest(runtag, "", "", started, started, "", parts_with(held)) if started else None
    )
    return BackupSet(runtag, {}, state, manifest, pinned=pinned)


def read_case(case):
    """Return the sets of a golden case, and its verdicts as (runtag, verdict)."""
    sets, verdicts = [], []
    for line in case["sets"].split("\n"):
        if line:
            name, words, verdict = (field.strip() for field in line.split("|"))
            runtag, _, started = name.partition(" @ ")
            state, *more = words.split()
            held = [each[1:] for each in more if each.startswith("+")]
            pinned = "pinned" in more
            sets.append(backup(runtag, State(state), started, pinned=pinned, held=held))
            verdicts.append((runtag, verdict))
    return sets, verdicts


def told(verdicts):
    return [(v.backup.runtag, f"{'keep' if v.keep else 'remove'}: {v.why}") for v in verdicts]


@pytest.mark.parametrize("case", CASES, ids=[case["says"] for case in CASES])
def test_golden_cases(case):
    """Each collection gets the verdicts that are written down, newest first, in any order."""
    sets, verdicts = read_case(case)
    now = case.get("now", NOW)
    given = {key: case[key] for key in POLICY_KEYS if key in case}
    assert policy_mistakes(given) == []
    with clock_of(case.get("zone", "UTC")):
        gone = [Gone(name, "", case.get("said")) for name in case.get("gone", ())]
        adopted = EVERY if case.get("adopted", True) else ()
        rules = (read_policy(given), now, gone, adopted)
        assert told(judge(sets, *rules)) == verdicts
        assert told(judge(reversed(sets), *rules)) == verdicts


def test_there_are_cases_for_every_rule():
    """Each key of a policy has golden cases of its own."""
    for key in POLICY_KEYS:
        assert sum(key in case for case in CASES) >= 3, key


def with_facts(days, *, sizes=None, outside=(), out=(), files=None):
    """Return a good set of so many days ago, with folders, volumes, and what it leaves out."""
    at = utc_text(NOW - timedelta(days=days))
    parts = [Part("general", "general", facts={"sizes": sizes or {}})]
    if outside:
        counts = {"sizes": {"v/x/_data": [0, files]}} if files is not None else {}
        parts.append(Part("outside", "outside", facts={"outside": list(outside), **counts}))
    left_out = tuple(LeftOut(each, "a reason") for each in out)
    manifest = Manifest(f"d{days}", "", "", at, at, "", tuple(parts), left_out=left_out)
    return BackupSet(f"d{days}", {}, State.COMPLETE, manifest)


BIG, SMALL, HOLLOW = ({"volumes/a": each} for each in ([3 << 20, 9], [5, 1], [0, 1]))
NONE = {"volumes/b": [1, 1]}
VOLUMES = [{"path": "/v/x/_data", "volume": "x"}, {"path": "/media/usb", "volume": ""}]

INNER, BESIDE = ({"path": f"/media/{each}", "volume": ""} for each in ("usb/a", "us"))


@pytest.mark.parametrize(
    ("before", "after", "lacking"),
    [
        ({"sizes": BIG}, {"sizes": NONE}, "volumes/a of the general part"),
        ({"sizes": BIG}, {"sizes": SMALL}, ""),
        ({"sizes": SMALL}, {"sizes": NONE}, "volumes/a of the general part"),
        ({"sizes": SMALL}, {"sizes": HOLLOW}, "volumes/a of the general part"),
        ({"sizes": HOLLOW}, {"sizes": NONE}, "volumes/a of the general part"),
        ({"sizes": HOLLOW}, {"sizes": SMALL}, ""),
        ({"sizes": BIG}, {"sizes": NONE, "out": ["volumes/a"]}, ""),
        ({"sizes": BIG}, {}, ""),
        ({"outside": VOLUMES}, {"outside": VOLUMES[1:]}, "volume x of the outside part"),
        ({"outside": VOLUMES}, {"outside": VOLUMES[:1]}, "/media/usb of the outside part"),
        ({"outside": VOLUMES[:1]}, {}, "volume x of the outside part"),
        ({"outside": VOLUMES}, {"outside": VOLUMES}, ""),
        ({"outside": [INNER]}, {"outside": VOLUMES}, ""),
        ({"outside": [INNER]}, {"outside": [BESIDE]}, "/media/usb/a of the outside part"),
        ({"outside": VOLUMES}, {"out": ["volume:x", "/media/usb"]}, ""),
        (
            {"outside": VOLUMES, "files": 1},
            {"outside": VOLUMES, "files": 0},
            "volume x of the outside part",
        ),
        ({"outside": VOLUMES, "files": 0}, {"outside": VOLUMES, "files": 0}, ""),
        ({"outside": VOLUMES}, {"out": ["volume:*", "/media"]}, ""),
        (
            {"outside": VOLUMES, "files": 1},
            {"outside": VOLUMES, "files": 0, "out": ["/v/x/_data/*"]},
            "",
        ),
        (
            {"outside": VOLUMES, "files": 1},
            {"outside": VOLUMES, "files": 0, "out": ["/v/x/_data/cache/*"]},
            "volume x of the outside part",
        ),
        ({"outside": VOLUMES}, {"out": ["volume:xy", "/media"]}, "volume x of the outside part"),
    ],
)
def test_a_volume_or_folder_that_vanished_keeps_the_set_that_has_it(before, after, lacking):
    """A newer set replaces it only with all of it, or if it says what it leaves out on purpose."""
    old, new = with_facts(2, **before), with_facts(1, **after)
    stays = {v.backup.runtag: v.keep for v in judge([old, new], Policy(keep=1), NOW)}
    assert stays == {"d1": True, "d2": bool(lacking)}
    expected = f"{lacking} (newest in d2)" if lacking else ""
    assert lacks_told(lacks(new, [old], ())) == expected
    if lacking:
        name = lacking.removeprefix("volume ").partition(" ")[0]
        gone = [Gone(name)]
        assert lacks(new, [old], gone) == ()
        stays = {v.backup.runtag: v.keep for v in judge([old, new], Policy(keep=1), NOW, gone)}
        assert stays == {"d1": True, "d2": False}
        assert ("general",) in needed_of(old, gone)


@pytest.mark.parametrize(
    ("name", "excused"),
    [
        ("volumes/a", ["volumes/a", "volumes/a/b"]),
        ("volumes/a/", ["volumes/a", "volumes/a/b"]),
        ("volumes/a/b", ["volumes/a/b"]),
        ("volume:x", ["x"]),
        ("x", ["x"]),
        ("/media", ["/media/usb"]),
        ("outside", ["/media/usb", "x"]),
        ("general", ["volumes/a", "volumes/a/b", "volumes/ab"]),
        ("volume:", []),
    ],
)
def test_what_is_gone_is_gone_with_all_that_lies_in_it(name, excused):
    """A folder goes with the mounts below it, not with others whose names begin like its own."""
    sizes = {each: [3 << 20, 1] for each in ("volumes/a", "volumes/a/b", "volumes/ab")}
    held = holdings_of(with_facts(1, sizes=sizes, outside=VOLUMES))
    found = sorted(each[1] for each in held if each[1:] and Gone(name).excuses(each))
    assert found == excused


THINGS = frozenset(
    {
        ("influx",), ("influx", "home", "data"), ("influx", "a:b"), ("mariadb", "db", "influx"),
        ("mariadb", "cloud", "cloud"), ("mariadb", "wiki", "wiki"), ("mariadb", "wiki", "other"),
        ("general", "home"), ("general", "volumes/home"), ("outside", "cloud"),
        ("outside", "/media/a"), ("outside", "/media/b"), ("influxdb2", "home", "b"),
    }
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("influx", ["influx"]),
        ("influxdb", ["influx"]),
        ("influxdb:home", ["influx:home"]),
        ("home", ["./home", "influx:home", "influxdb2:home"]),
        ("./home", ["./home"]),
        ("volumes/home", ["volumes/home"]),
        ("influx:a:b", ["influx:a:b"]),
        ("a:b", ["influx:a:b"]),
        ("home:b", ["influxdb2:home:b"]),
        ("volume:cloud", ["volume:cloud"]),
        ("cloud", ["mariadb:cloud", "volume:cloud"]),
        ("mariadb:cloud", ["mariadb:cloud"]),
        ("wiki", ["mariadb:wiki", "mariadb:wiki:wiki"]),
        ("/media", ["/media"]),
        ("other", ["mariadb:wiki:other"]),
        ("data", []),
        ("hom", []),
    ],
)
def test_a_name_means_one_thing_or_each_has_a_longer_one(name, meant):
    """What is written down is the longer one, and it excuses that thing alone."""
    assert list(meanings(name, THINGS)) == meant
    for each in meant:
        assert list(meanings(each, THINGS)) == [each]


def test_a_longer_name_excuses_that_alone():
    """Whatever else bears the short one, or that of the part."""
    excused = {
        name: {each for each in THINGS if Gone(name).excuses(each)}
        for name in ("influx", "mariadb:wiki:wiki", "./home", "volume:cloud", "influx:home")
    }
    assert excused == {
        "influx": {("influx",), ("influx", "home", "data"), ("influx", "a:b")},
        "mariadb:wiki:wiki": {("mariadb", "wiki", "wiki")},
        "./home": {("general", "home")},
        "volume:cloud": {("outside", "cloud")},
        "influx:home": {("influx", "home", "data")},
    }


@pytest.mark.parametrize(("later_s", "about"), [(-1, False), (0, False), (1, True)])
def test_what_is_gone_is_about_sets_begun_in_an_earlier_second(later_s, about):
    """A set that was begun in the second in which it was said may be the later one."""
    old = with_facts(1)
    assert Gone("influx", "", old.made() + timedelta(seconds=later_s)).is_about(old) is about


@st.composite
def collections(draw):
    """Return sets of all states, around now and far from it, dated, named freely or both."""
    minutes = st.integers(-5000, 300) | st.integers(-90_000, 0) | st.integers(-30_000_000, 999_999)
    sets = []
    for number in range(draw(st.integers(0, 12))):
        made = NOW + timedelta(minutes=draw(minutes))
        state = draw(st.sampled_from([State.COMPLETE, *State]))
        runtag, started = draw(
            st.sampled_from(
                [
                    (f"{made:%Y-%m-%d_%H%M}.n{number}", ""),
                    (f"free {number}", utc_text(made)),
                    (f"free {number}", ""),
                ]
            )
        )
        held = draw(st.sets(st.sampled_from(HELD), max_size=3)) if started else ()
        pinned = draw(st.integers(0, 9)) == 0
        sets.append(backup(runtag, state, started, pinned=pinned, held=sorted(held)))
    return sets


HELD = ("general", "influx", "influx/a", "influx/b", "mariadb/db/x", "mariadb/db/y", "gitea")


FEW = st.integers(0, 4)
SPANS = st.builds(Span, *[st.sampled_from([0, 0, 1, 5])] * 5)
POLICIES = st.builds(
    Policy, FEW, FEW, FEW, FEW, FEW, SPANS | st.just(Span()), st.integers(1, 4)
).filter(lambda policy: replace(policy, at_least=0) != Policy(at_least=0))


def kept(sets, policy, now=NOW):
    """Return the sets that stay, in the order given."""
    judged = judge(sets, policy, now, (), EVERY)
    stay = {v.backup.runtag for v in judged if v.keep}
    return [each for each in sets if each.runtag in stay]


def runtags(sets):
    return {each.runtag for each in sets}


def good_in(sets, now=NOW):
    """Return the good sets that are not dated in the future, newest first."""
    good = [each for each in sets if each.state in GOOD and each.made() and each.made() <= now]
    return sorted(good, key=lambda each: (each.made(), each.runtag), reverse=True)


@given(collections(), POLICIES)
def test_every_set_gets_one_verdict(sets, policy):
    """No set is passed over, none is judged twice."""
    judged = [verdict.backup.runtag for verdict in judge(sets, policy, NOW)]
    assert sorted(judged) == sorted(each.runtag for each in sets)


@given(collections(), POLICIES)
def test_judging_again_removes_nothing_more(sets, policy):
    """Once what had to go is gone, all that is left stays."""
    left = kept(sets, policy)
    assert kept(left, policy) == left


@given(collections(), POLICIES, st.data())
def test_a_removal_that_broke_off_is_finished_alike(sets, policy, data):
    """Whichever of the sets to go are gone already, the others go and the same ones stay."""
    stay = kept(sets, policy)
    left = [each for each in sets if each in stay or data.draw(st.booleans())]
    assert runtags(stay) <= runtags(kept(left, policy))
    assert all(each in stay for each in kept(left, policy) if each.state in GOOD)


@given(collections(), POLICIES, st.sampled_from([each.name for each in fields(Policy)]))
def test_keeping_more_removes_no_other(sets, policy, rule):
    """A set that stays stays also when a number of the policy, or its span, is larger."""
    larger = (
        replace(policy.within, days=policy.within.days + 1)
        if rule == "within"
        else getattr(policy, rule) + 1
    )
    more = replace(policy, **{rule: larger})
    assert runtags(kept(sets, policy)) <= runtags(kept(sets, more))


@given(collections(), POLICIES, st.randoms())
def test_the_order_of_a_listing_means_nothing(sets, policy, random):
    """Sets get the same verdicts in whatever order they are listed."""
    shuffled = random.sample(sets, len(sets))
    given = (policy, NOW, (), EVERY)
    assert set(told(judge(shuffled, *given))) == set(told(judge(sets, *given)))


@given(collections(), POLICIES)
def test_the_newest_good_sets_stay(sets, policy):
    """The newest good set is never removed, nor are as many as are to be kept at the least."""
    stay = kept(sets, policy)
    sure = max(policy.keep, policy.at_least)
    assert all(each in stay for each in good_in(sets)[:sure])


def replacing(one, sets):
    """Return those of some sets that hold all that one holds."""
    return [each for each in sets if holdings_of(one) <= holdings_of(each)]


@given(collections(), POLICIES)
def test_the_newest_good_set_with_each_thing_stays(sets, policy):
    """Each part, container and database that any good set holds is in one that stays."""
    stay, good = kept(sets, policy), good_in(sets)
    for holding in frozenset().union(*map(holdings_of, good)):
        assert next(each for each in good if holding in holdings_of(each)) in stay


@given(collections(), POLICIES, st.lists(st.sampled_from(HELD), max_size=2))
def test_what_is_said_to_be_gone_keeps_fewer_and_never_the_newest(sets, policy, names):
    """With more said to be gone no set stays that went, and the newest good ones stay."""
    gone = [Gone(name) for name in names]
    stay = {v.backup.runtag for v in judge(sets, policy, NOW, gone, EVERY) if v.keep}
    assert stay <= runtags(kept(sets, policy))
    assert runtags(good_in(sets)[: max(policy.keep, policy.at_least)]) <= stay


@given(collections(), POLICIES)
def test_with_all_said_to_be_gone_the_numbers_alone_count(sets, policy):
    """Then a set stays as if none held anything."""
    gone = [Gone(each.partition("/")[0]) for each in HELD]
    bare = [
        replace(each, manifest=replace(each.manifest, parts=())) if each.manifest else each
        for each in sets
    ]
    stay = {v.backup.runtag for v in judge(sets, policy, NOW, gone, EVERY) if v.keep}
    assert stay == runtags(kept(bare, policy))


@given(collections(), POLICIES)
def test_archives_of_other_tools_stay_until_they_are_adopted(sets, policy):
    """None without a manifest goes by default; all others are judged as if there were none."""
    stay = {v.backup.runtag for v in judge(sets, policy, NOW) if v.keep}
    others = [each for each in sets if each.state is not State.UNPROVEN]
    assert stay == runtags(kept(others, policy)) | (runtags(sets) - runtags(others))


@given(collections(), st.integers(1, 6))
def test_a_number_alone_keeps_no_good_set_more(sets, keep):
    """A good set goes as soon as so many newer good ones hold all of it, but if it is pinned."""
    stay, good = kept(sets, Policy(keep)), good_in(sets)
    for number, each in enumerate(good):
        if len(replacing(each, good[:number])) >= keep:
            assert each.pinned or each not in stay


@given(collections(), POLICIES)
def test_a_set_goes_only_if_enough_newer_good_ones_stay(sets, policy):
    """Whatever goes, good or not, the least number of newer good sets stay that hold all of it."""
    stay = kept(sets, policy)
    for gone in (each for each in sets if each not in stay):
        newer = [each for each in good_in(stay) if each.made() >= gone.made()]
        assert len(replacing(gone, newer)) >= max(policy.keep, policy.at_least)


@given(collections(), POLICIES)
def test_a_set_that_is_not_good_stays_wherever_a_good_one_would(sets, policy):
    """Taken for a good set, none that goes would stay, and none that a rule keeps would go."""
    for each in sets:
        if each.state in (State.INCOMPLETE, State.DAMAGED):
            proven = [replace(s, state=State.COMPLETE) if s is each else s for s in sets]
            assert (each in kept(sets, policy)) is (each.runtag in runtags(kept(proven, policy)))


@given(collections(), POLICIES)
def test_a_pin_keeps_its_set_and_removes_no_other(sets, policy):
    """With one more pin the same sets stay, and the pinned one."""
    stay = runtags(kept(sets, policy))
    for each in sets:
        pinned = [replace(s, pinned=True) if s is each else s for s in sets]
        assert runtags(kept(pinned, policy)) == stay | {each.runtag}


@given(collections(), POLICIES)
def test_what_tells_no_time_or_a_future_one_stays(sets, policy):
    """Nothing is removed on the word of a date that cannot be right."""
    stay = kept(sets, policy)
    assert all(each in stay for each in sets if each.made() is None or each.made() > NOW)


@given(collections(), POLICIES, st.lists(st.sampled_from(sorted(set(State) - GOOD, key=str))))
def test_failures_push_no_good_set_out(sets, policy, failures):
    """However many runs fail after them, the good sets that stay are the same."""
    newer = [
        backup(f"failure {n}", state, utc_text(NOW - timedelta(seconds=n)))
        for n, state in enumerate(failures)
    ]
    before = runtags(each for each in kept(sets, policy) if each.state in GOOD)
    after = runtags(each for each in kept(sets + newer, policy) if each.state in GOOD)
    assert after == before


@given(collections(), POLICIES, st.integers(0, 30_000_000))
def test_a_clock_set_back_removes_no_set_that_the_right_clock_keeps(sets, policy, minutes):
    """A Pi that starts with an old time removes nothing that it would keep with the right one."""
    back = kept(sets, policy, NOW - timedelta(minutes=minutes))
    right = [
        verdict.backup.runtag
        for verdict in judge(sets, policy, NOW, (), EVERY)
        if verdict.keep and "younger than a day" not in verdict.why
    ]
    assert set(right) <= runtags(back)


@given(collections(), POLICIES, st.integers(0, 3_000_000))
def test_a_long_pause_removes_no_good_set(sets, policy, minutes):
    """Of what was there and judged, nothing good goes only because time passes."""
    past = [each for each in sets if each.made() is None or each.made() <= NOW]
    later = kept(past, policy, NOW + timedelta(minutes=minutes))
    now = [each for each in kept(past, policy) if each.state in GOOD]
    assert all(each in later for each in now)


@pytest.mark.parametrize("state", [State.UNFINISHED, State.UNPROVEN])
def test_the_day_of_an_unfinished_set_is_counted_from_its_start(state):
    """Exactly one day old is too old; a second less is not."""
    good = backup("good", State.COMPLETE, "2026-11-23T11:00:00Z")
    for started, stays in (("2026-11-22T12:00:00Z", False), ("2026-11-22T12:00:01Z", True)):
        unfinished = backup("unfinished", state, started)
        assert (unfinished in kept([good, unfinished], Policy(1))) is stays


@given(SPANS.filter(bool))
def test_a_span_is_read_as_it_is_written(span):
    """What a span looks like is what it is read from."""
    assert read_span(str(span)) == span


def test_months_are_read_as_earlier_versions_wrote_them():
    """A bare `m` in hosts.toml stays months, and is told as `mo`."""
    assert read_span("6m") == read_span("6mo") == Span(months=6)
    assert read_span("1y2m3d") == Span(years=1, months=2, days=3)
    assert str(read_span("1y2m")) == "1y2mo"


@pytest.mark.parametrize(
    "text", ["", "0d", "30", "d", "1mo1y", "1d ", "-1d", "1.5d", "12345d", "²d"]
)
def test_what_is_no_span_is_refused(text):
    """Numbers without a unit, units out of order and no time at all are no span."""
    with pytest.raises(ValueError, match="such as 30d"):
        read_span(text)


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("1mo", datetime(2026, 2, 28, 11, tzinfo=UTC)),  # 12:00 in Berlin on both days
        ("1d", datetime(2026, 3, 30, 10, tzinfo=UTC)),
        ("3d", datetime(2026, 3, 28, 11, tzinfo=UTC)),  # summer time began in between
        ("9999y", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_span_is_counted_by_the_local_calendar(text, before):
    """A month ends with its last day, a day is as long as the clock says, years end somewhere."""
    with clock_of("Europe/Berlin"):
        assert read_span(text).before(datetime(2026, 3, 31, 10, tzinfo=UTC)) == before


def of_host(host, runtag, days):
    """A good set that a machine made so many days ago."""
    made = NOW - timedelta(days=days)
    told = Manifest(runtag, host, "x", utc_text(made), utc_text(made), "UTC", (), (), (), ())
    return BackupSet(runtag, {}, State.COMPLETE, told)


def test_each_machine_of_a_shared_vault_keeps_its_own():
    """What one machine made lets nothing of another's go; with one machine it is as ever."""
    mine = [of_host("pi", f"p{n}", n) for n in (3, 4, 5)]
    others = [of_host("far", f"f{n}", n) for n in (1, 2)]
    strange = BackupSet("2020-01-02_1100", {}, State.UNPROVEN)
    kept = {
        each.backup.runtag
        for each in judge_each_host([*mine, *others, strange], Policy(keep=1), NOW, (), EVERY)
        if each.keep
    }
    assert kept == {"p3", "f1", "2020-01-02_1100"}
    assert judge_each_host(mine, Policy(keep=1), NOW) == judge(mine, Policy(keep=1), NOW)
    both = [*mine, strange]
    assert judge_each_host(both, Policy(keep=1), NOW) == judge(both, Policy(keep=1), NOW)


def test_what_is_of_no_known_machine_goes_for_nobody():
    """Beside one machine's sets, too: it may be all that another has, and its manifest be torn."""
    mine = [of_host("pi", f"p{n}", n) for n in (1, 2)]
    torn = BackupSet("2026-11-20_0900", {"manifest": FileFact(9, 0.0)}, State.DAMAGED)
    dead = BackupSet("2026-11-19_0900", {}, State.UNFINISHED)
    pinned = BackupSet("2026-11-18_0900", {}, State.UNFINISHED, pinned=True)
    adopted = BackupSet("2026-11-17_0900", {}, State.UNPROVEN)
    told = judge_each_host(
        [*mine, torn, dead, pinned, adopted], Policy(keep=1), NOW, (), {adopted.runtag}
    )
    unknown = "of an unknown machine: its manifest cannot be read"
    assert {each.backup.runtag: each.why for each in told if each.keep} == {
        "p1": "good set 1 of 1",
        torn.runtag: unknown,
        dead.runtag: unknown,
        pinned.runtag: f"pinned; {unknown}",
    }
    here = judge([*mine, torn], Policy(keep=1), NOW)
    assert [each.backup.runtag for each in here if each.keep] == ["p1"]
