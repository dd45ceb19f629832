"""Grafana's dashboards are whole, and each of their queries returns data."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from influxd import Influxd, require_influxd
from sample_facts import made

from iotstack_invoke.monitoring.dashboards import COLUMNS, DASHBOARDS, dashboard
from iotstack_invoke.monitoring.influxdb import InfluxServer, write_points
from iotstack_invoke.monitoring.metrics import PREFIX, line_protocol, metrics_of

KEEP = timedelta(weeks=104)


@pytest.fixture(params=DASHBOARDS)
def model(request):
    return json.loads(dashboard(request.param))


def test_a_dashboard_is_whole(model):
    """What Grafana 9 needs of a model: ids, places that do not overlap, a source for each query."""
    assert model["schemaVersion"] == 36
    assert "id" not in model  # it would replace another one
    kind = model["templating"]["list"][0]["query"]
    source = {"type": kind, "uid": "${datasource}"}
    assert model["templating"]["list"][1]["datasource"] == source
    taken = set()
    for each in model["panels"]:
        place = each["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= COLUMNS
        taken |= cells
        assert each["datasource"] == each["targets"][0]["datasource"] == source
    assert {each["type"] for each in model["panels"]} == {"stat", "timeseries"}
    ids = [each["id"] for each in model["panels"]]
    assert ids == [*range(1, len(ids) + 1)]


def test_both_have_the_same_panels():
    """In the same places."""
    one, other = (
        [(each["title"], each["gridPos"]) for each in json.loads(dashboard(name))["panels"]]
        for name in DASHBOARDS
    )
    assert one == other


def test_only_metrics_that_exist_are_asked_for():
    """A name that changes in one place alone would be an empty panel."""
    known = {PREFIX + each.name for each in metrics_of(made())}
    asked = set(re.findall(rf"{PREFIX}\w+", dashboard("prometheus")))
    assert asked - known == set()


def test_each_query_of_influxdb_returns_data(tmp_path):
    """From a real server, with what Grafana puts in the place of its variables."""
    require_influxd()
    server = Influxd(tmp_path / "data")
    model = json.loads(dashboard("influxdb"))
    try:
        lines = line_protocol(made(datetime.now(UTC)), KEEP)
        write_points(InfluxServer("127.0.0.1", server.port), lines, KEEP)
        machine = server.rows(model["templating"]["list"][1]["query"])
        assert [each["value"] for each in machine] == ["pi"]
        for each in model["panels"]:
            query = each["targets"][0]["query"]
            for variable, value in (
                ("$host", "(pi|other)"),
                ("$timeFilter", "time > now() - 30d AND time < now() + 1m"),
                ("$__interval", "1h"),
            ):
                query = query.replace(variable, value)
            rows = server.rows(query)
            assert rows, query
            tag = each["targets"][0]["alias"]
            assert not tag.startswith("$tag_") or tag.removeprefix("$tag_") in rows[0]
    finally:
        server.stop()
