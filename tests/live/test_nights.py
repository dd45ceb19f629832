"""Nights without a service: what has its data is pushed out nowhere, and the monitor is told."""

import json

import pytest
from owner import Owner
from stand import write_points
from stand_machine import USER

KEEP = "keep = 2"


@pytest.fixture
def owner(pi, nas):
    made = Owner(pi, nas, user=USER)
    write_points(pi, "home", "cpu,room=r1 value=1 60000000000")
    yield made
    made.away()


@pytest.mark.parametrize("gone", [("stop",), ("kill",), ("rm", "-f")], ids=" ".join)
def test_nights_without_influxdb_push_out_no_dump_of_it(owner, gone):
    """With two sets to keep, here and in the vault, those with InfluxDB's dump are in both."""
    owner.set(stack=KEEP)
    settings = owner.settings_file.read_text()
    owner.settings_file.write_text(f"{settings}{KEEP}\n")  # of the vault, which comes last
    for runtag in ("before1", "before2"):
        owner.backup("--runtag", runtag)
    assert owner.iot("status").startswith("OK ")
    owner.pi.run(["docker", *gone, "influxdb"])
    for night in range(1, 6):
        owner.backup("--runtag", f"night{night}", code=3)
        owner.iot("prune", "--at", "all")
        told = owner.iot("status", code=1)
        assert told.startswith("WARNING ")
        lacking = f"night{night} is missing the influx part (newest in before2)"
        assert f"here, nas: {lacking}" in told
    kept = ["before1", "before2", "night4", "night5"]
    assert owner.runtags() == owner.runtags(owner.vault) == kept
    owner.iot("verify", "--runtag", "before2", "--at", "all")
    shown = json.loads(owner.iot("show", "before2", "--json"))
    assert "home" in json.dumps(shown)
    said = owner.iot("restore", "--runtag", "latest", "--dry-run")
    assert (
        "It is missing data that an older backup has: the influx part (newest in before2)" in said
    )
    owner.iot("prune", "--at", "all", "--allow-missing", "influx", "--yes")
    assert owner.runtags() == owner.runtags(owner.vault) == ["night4", "night5"]
    assert owner.iot("status").startswith("OK ")
