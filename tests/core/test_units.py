"""Durations: what is typed is what is meant, and anything else is told with the way out."""

import contextlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.core.errors import UsageError
from iotstack_invoke.core.units import ambiguity_in, read_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90min", timedelta(minutes=90)),
        ("90m", timedelta(minutes=90)),
        ("26h", timedelta(hours=26)),
        ("2d", timedelta(days=2)),
        ("1w", timedelta(days=7)),
        (" 026h\n", timedelta(hours=26)),
        ("99999w", timedelta(weeks=99999)),
    ],
)
def test_a_number_and_its_unit_are_a_duration(text, duration):
    """Minutes, hours, days and weeks are told apart by their units."""
    assert read_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "26", "h", "0h", "-1h", "1.5h", "26H", "2 d", "26h1m", "6mo", "²h"]
)
def test_anything_else_is_wrong_usage(text):
    """What is no duration is told with what was typed and with one that is."""
    with pytest.raises(UsageError, match=r"is not a duration.*26h") as refused:
        read_duration(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("6m", "6m"), ("1y90m", "90m"), (" 2m\n", "2m"), ("6mo", ""), ("6min", ""), ("30d", "")],
)
def test_a_unit_that_could_be_two_is_told(text, meant):
    """Where both minutes and months can be meant, the message names how to write each."""
    assert ambiguity_in(text) == (
        meant and f"{meant} may mean minutes or months: write {meant}o (minutes are not possible)"
    )


@given(st.text())
def test_no_text_breaks_it(text):
    """Any text is a duration longer than nothing, or wrong usage."""
    with contextlib.suppress(UsageError):
        assert read_duration(text) > timedelta(0)
