"""The last run of each task."""

from dataclasses import replace

import pytest

from iotstack_invoke.monitoring.run_records import RunRecords, begun, shortened


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600"])
def test_a_run_with_many_messages_is_read_again(tmp_path, letter):
    """In any script: JSON needs up to 12 bytes for a letter."""
    records = RunRecords(f"{tmp_path}/runs")
    run = replace(begun("backup", "pi"), messages=shortened((letter * 2000,) * 30), code=1)
    records.write("backup", run)
    assert list(records.all()) == [("backup", run)]
