"""What Home Assistant is told, without a broker: names, problems, and what others wrote there."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mosquitto import CONFIG
from sample_facts import BARE, FACTS, NOW

from iotstack_invoke.core.errors import ExitCode
from iotstack_invoke.monitoring.home_assistant import (
    discovery,
    problem_texts,
    state,
    topics_of,
)
from iotstack_invoke.monitoring.run_event import KILLED, RunEvent

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
)


def test_each_entity_expires_and_has_an_id_of_its_own():
    """But the button, which has its own availability."""
    told = json.loads(discovery(replace(CONFIG, allow_start=True), FACTS))
    entities = told["cmps"]
    ids = {each["unique_id"] for each in entities.values()}
    assert len(ids) == len(entities)
    assert all(each.startswith("pi_01234567_") for each in ids)
    button = entities.pop("start")
    assert button["availability_topic"] == "iotstack_backup/pi_01234567/listener"
    assert "expire_after" not in button
    assert {each["expire_after"] for each in entities.values()} == {26 * 3600}
    assert [each for each in entities if each.startswith("vault_")] == [
        "vault_nas",
        "vault_cloud",
        "vault_usb",
    ]


def test_with_news_each_hour_each_entity_expires_in_half_the_time():
    told = json.loads(discovery(CONFIG, replace(FACTS, is_hourly=True)))
    assert {each["expire_after"] for each in told["cmps"].values()} == {13 * 3600}


def test_two_machines_of_one_name_are_two_devices():
    """A topic has neither wildcards nor levels from the name of a machine."""
    one, other = (topics_of(CONFIG, "pi", mark) for mark in ("a" * 32, "b" * 32))
    assert one.state != other.state
    assert topics_of(CONFIG, "my pi/+#é", "").device == "my_pi"


@given(ANY_JSON)
def test_whatever_was_at_its_topic_before_does_no_harm(content):
    """Others may write to the broker."""
    for each in (content, {"cmps": content}):
        told = json.loads(discovery(CONFIG, BARE, json.dumps(each).encode()))
        assert {"p": "sensor"} not in told["cmps"].values()


@pytest.mark.parametrize(
    ("key", "platform", "is_removed"),
    [
        ("vault_old", "sensor", True),
        ("start", "button", True),
        ("size", "sensor", False),
        ("vault_old", "camera", False),
        ("a/b", "sensor", False),
    ],
)
def test_what_is_gone_is_removed(key, platform, is_removed):
    """If it is of a kind that we make; what is still there stays whole."""
    earlier = json.dumps({"cmps": {key: {"p": platform, "name": "x"}}}).encode()
    told = json.loads(discovery(CONFIG, BARE, earlier))["cmps"]
    assert (told.get(key) == {"p": platform}) is is_removed


@pytest.mark.parametrize("earlier", [b"", b"\xff", b"[" * 100_000, b'{"cmps": {"a": 1}}'])
def test_what_cannot_be_read_is_as_nothing(earlier):
    """Nor does a deep one end the program."""
    assert discovery(CONFIG, FACTS, earlier) == discovery(CONFIG, FACTS)


@pytest.mark.parametrize(
    ("task", "code", "is_problem"),
    [
        ("backup", ExitCode.GOOD, False),
        ("backup", ExitCode.WARNINGS, False),
        ("backup", ExitCode.FAILED, True),
        ("rehearse", KILLED, True),
        ("backup", ExitCode.BUSY, False),
        ("backup", 130, False),
        ("restore", ExitCode.FAILED, False),
    ],
)
def test_a_run_of_the_schedule_that_failed_is_a_problem(task, code, is_problem):
    """What somebody saw at the terminal is none: nothing would end it."""
    facts = replace(BARE, runs={task: RunEvent(task, "pi", NOW, NOW, code)})
    assert bool([*problem_texts(facts)]) is is_problem
    assert json.loads(state(facts))["problem"] == ("ON" if is_problem else "OFF")


def test_what_is_unknown_is_null():
    """Home Assistant shows it as unknown, not as zero."""
    told = json.loads(state(BARE))
    for name in ("last_backup", "size_mb", "duration_s", "result", "rehearsed", "free_gb"):
        assert told[name] is None
    assert json.loads(state(FACTS))["vaults"]["usb"]["trouble"] == "Nothing is mounted there."
