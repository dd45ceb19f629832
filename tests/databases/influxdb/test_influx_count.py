"""What InfluxDB answers when it is asked for numbers, and what two counts say of each other."""

import json
from dataclasses import replace

import pytest

from iotstack_invoke.databases.influxdb.count import Count, _read_answer, compare_counts

KEY = ("home", "autogen", "cpu")
BEFORE = Count(("home", "other"), 3, {KEY: 10, ("home", "week", "cpu"): 5})


def answer(*series, error=None):
    """An answer as `influx -format json` prints it."""
    result = {"error": error} if error else {"series": list(series)}
    return json.dumps({"results": [result]})


def counted(name, *values):
    """The counts of all fields of a measurement."""
    columns = ["time", *(f"count_f{n}" for n in range(len(values)))]
    return {"name": name, "columns": columns, "values": [[0, *values]]}


def test_answer_of_several_measurements():
    """Each field of each measurement has a number; the time is none."""
    text = answer(counted("cpu", 3, 4), counted("mem", 5))
    assert _read_answer(text) == ([], [("cpu", 3), ("cpu", 4), ("mem", 5)])


def test_answer_in_several_documents():
    """A long answer comes in several documents, one after the other."""
    text = answer(counted("cpu", 3)) + "\n" + answer(counted("cpu", 4)) + "\n"
    assert _read_answer(text) == ([], [("cpu", 3), ("cpu", 4)])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (answer(error="shard is disabled"), "shard is disabled"),
        ('{"error": "engine is closed"}', "engine is closed"),
        ("ERR: unable to parse authentication credentials\n", "ERR: unable to parse"),
        ('{"results": [{}]', '{"results": [{}]'),
    ],
)
def test_answer_that_is_none(text, error):
    """An error is one wherever it stands, and so is what is no JSON."""
    errors, numbers = _read_answer(text)
    assert errors
    assert errors[0].startswith(error)
    assert numbers == []


@pytest.mark.parametrize("text", ["", '{"results": [{}]}', '{"results": null}'])
def test_answer_without_numbers(text):
    """A database without measurements answers nothing."""
    assert _read_answer(text) == ([], [])


def test_equal_counts_differ_in_nothing():
    """The order of databases does not matter."""
    assert compare_counts(BEFORE, replace(BEFORE, databases=("other", "home"))) == []


@pytest.mark.parametrize("number", [9, 11, 0])
def test_another_number_of_values(number):
    """Fewer, more, none: named with both numbers."""
    (told,) = compare_counts(BEFORE, replace(BEFORE, values={**BEFORE.values, KEY: number}))
    assert told == f"home.autogen.cpu: 10 values before, {number} after"


def test_values_may_expire_meanwhile():
    """Where old values are removed by InfluxDB, fewer are no difference; more are."""
    key, before = ("home", "week", "cpu"), replace(BEFORE, expiring=frozenset({("home", "week")}))
    assert compare_counts(before, replace(before, values={**BEFORE.values, key: 4})) == []
    assert compare_counts(before, replace(before, values={**BEFORE.values, key: 6})) != []


def test_a_database_that_is_gone():
    """Databases are compared also where no values were counted."""
    lost = replace(BEFORE, databases=("home",), values=None)
    (told,) = compare_counts(BEFORE, lost)
    assert "home, other before, home after" in told


def test_values_that_were_not_counted():
    """Without a number on one side there is nothing to compare."""
    assert compare_counts(BEFORE, replace(BEFORE, values=None)) == []
    assert replace(BEFORE, values=None).points is None
    assert BEFORE.points == 15
