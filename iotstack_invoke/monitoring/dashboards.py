"""Dashboards for Grafana 9 and later: the same panels for Prometheus and for InfluxDB. Pure.

Source: Grafana's JSON model of schemaVersion 36, that of Grafana 9; later versions migrate it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..core.dataclass import dataclass
from ..core.errors import ExitCode
from .metrics import PREFIX

DASHBOARDS = ("influxdb", "prometheus")
SCHEMA = 36
COLUMNS = 24
OVERDUE_S, LATE_S = 26 * 3600, 50 * 3600
"""The ages of a daily backup at which it turns orange, and red."""
AGO = "dateTimeFromNow"
"""Grafana's unit for a time in milliseconds, which it shows as `3 hours ago`."""
RESULTS = {
    ExitCode.GOOD: ("good", "green"),
    ExitCode.WARNINGS: ("warnings", "orange"),
    ExitCode.BUSY: ("another run was active", "orange"),
    ExitCode.REFUSED: ("refused", "red"),
    ExitCode.FAILED: ("failed", "red"),
    ExitCode.USAGE: ("wrong settings", "red"),
    -9: ("killed", "red"),
}


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel, and what it asks."""

    title: str
    prometheus: str
    """An expression; `$m` stands for the prefix of a metric, `$i` for the chosen machines."""
    influxdb: str
    """What is selected, from which measurement, and the condition: by ` | `."""
    by: str = ""
    """The label, or tag, of which each value is a line."""
    unit: str = "short"
    is_graph: bool = True
    """Otherwise its last value is shown, large."""
    is_stacked: bool = False
    width: int = 12
    thresholds: tuple[tuple[str, float | None], ...] = (("green", None),)


AGES = (("green", None), ("orange", OVERDUE_S), ("red", LATE_S))
SOME = (("green", None), ("red", 1.0))
PANELS = (
    Panel(
        "Newest good backup",
        "$mnewest_timestamp_seconds{$i} * 1000",
        'last("newest_timestamp_seconds") * 1000 | vault',
        by="vault",
        unit=AGO,
        is_graph=False,
        width=8,
    ),
    Panel(
        "Problems",
        "sum($mproblems{$i})",
        'last("failures") + last("warnings") | state',
        is_graph=False,
        width=4,
        thresholds=SOME,
    ),
    Panel(
        "Last result",
        "$mrun_exit_code{$i}",
        'last("exit_code") | run',
        by="task",
        is_graph=False,
        width=12,
    ),
    Panel(
        "Verified by a restore",
        "$mrehearsed_timestamp_seconds{$i} * 1000",
        'last("rehearsed_timestamp_seconds") * 1000 | state',
        unit=AGO,
        is_graph=False,
        width=8,
    ),
    Panel(
        "Read again and found good",
        "$mverified_timestamp_seconds{$i} * 1000",
        'last("verified_timestamp_seconds") * 1000 | vault',
        by="vault",
        unit=AGO,
        is_graph=False,
        width=8,
    ),
    Panel(
        "Next backup",
        "$mnext_run_timestamp_seconds{$i} * 1000",
        'last("next_run_timestamp_seconds") * 1000 | state',
        unit=AGO,
        is_graph=False,
        width=8,
    ),
    Panel(
        "Age of the newest good backup",
        "time() - $mnewest_timestamp_seconds{$i}",
        'last("age_seconds") | vault',
        by="vault",
        unit="s",
        thresholds=AGES,
    ),
    Panel(
        "Size of the newest good backup",
        "$mpart_bytes{$i}",
        'last("size_bytes") | part',
        by="part",
        unit="decbytes",
        is_stacked=True,
    ),
    Panel(
        "Duration of runs",
        "$mrun_duration_seconds{$i}",
        'last("duration_seconds") | run',
        by="task",
        unit="s",
    ),
    Panel(
        "Duration of good backups",
        "$mduration_seconds{$i}",
        'last("duration_seconds") | backup',
        unit="s",
    ),
    Panel(
        "Free space",
        "$mfree_bytes{$i}",
        'last("free_bytes") | vault',
        by="vault",
        unit="decbytes",
    ),
    Panel(
        "Size of all backups",
        "$mstored_bytes{$i}",
        'last("stored_bytes") | vault',
        by="vault",
        unit="decbytes",
        is_stacked=True,
    ),
)


def dashboard(source: str) -> str:
    """Return the JSON of the dashboard for a source of data, one of DASHBOARDS."""
    machine = "instance" if source == "prometheus" else "host"
    told = {
        "uid": f"iotstack-backup-{source}",
        "title": "IOTstack backups",
        "tags": ["iotstack", "backup"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "refresh": "5m",
        "time": {"from": "now-30d", "to": "now"},
        "timezone": "",
        "templating": {"list": [_chosen_source(source), _chosen_machine(source, machine)]},
        "annotations": {"list": []},
        "panels": [*_panels(source)],
    }
    return json.dumps(told, indent=2)


def _chosen_source(source: str) -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": source,
        "current": {},
        "hide": 0,
    }


def _chosen_machine(source: str, machine: str) -> dict[str, Any]:
    queries = {
        "prometheus": f"label_values({PREFIX}observed_timestamp_seconds, {machine})",
        "influxdb": f'SHOW TAG VALUES FROM "state" WITH KEY = "{machine}"',
    }
    return {
        "name": machine,
        "label": "Machine",
        "type": "query",
        "datasource": _datasource(source),
        "query": queries[source],
        "definition": queries[source],
        "refresh": 2,
        "sort": 1,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _datasource(source: str) -> dict[str, str]:
    return {"type": source, "uid": "${datasource}"}


def _panels(source: str) -> Iterator[dict[str, Any]]:
    left, top = 0, 0
    for number, each in enumerate(PANELS, 1):
        height = 8 if each.is_graph else 5
        yield {
            "id": number,
            "title": each.title,
            "type": "timeseries" if each.is_graph else "stat",
            "datasource": _datasource(source),
            "gridPos": {"x": left, "y": top, "w": each.width, "h": height},
            "targets": [_target(source, each)],
            "fieldConfig": {"defaults": _defaults(each), "overrides": []},
            "options": _options(each),
        }
        left += each.width
        if left >= COLUMNS:
            left, top = 0, top + height


def _target(source: str, panel: Panel) -> dict[str, Any]:
    common = {"refId": "A", "datasource": _datasource(source)}
    if source == "prometheus":
        asked = panel.prometheus.replace("$m", PREFIX).replace("$i", 'instance=~"$instance"')
        name = f"{{{{{panel.by}}}}}" if panel.by else panel.title
        return {**common, "expr": asked, "legendFormat": name, "range": True}
    selected, measurement = panel.influxdb.split(" | ")
    groups = [f'"{panel.by}"'] if panel.by else []
    if panel.is_graph:
        groups.insert(0, "time($__interval)")
    grouped = f" GROUP BY {', '.join(groups)}" if groups else ""
    fill = " fill(none)" if panel.is_graph else ""
    query = (
        f'SELECT {selected} FROM "{measurement}" WHERE "host" =~ /^$host$/ AND '  # noqa: S608
        f"$timeFilter{grouped}{fill}"
    )
    name = f"$tag_{panel.by}" if panel.by else panel.title
    return {
        **common,
        "query": query,
        "rawQuery": True,
        "resultFormat": "time_series",
        "alias": name,
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    steps = [{"color": color, "value": value} for color, value in panel.thresholds]
    told: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if panel.is_graph else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.is_graph:
        stacking = {"mode": "normal" if panel.is_stacked else "none", "group": "A"}
        told["custom"] = {
            "drawStyle": "line",
            "fillOpacity": 20 if panel.is_stacked else 0,
            "stacking": stacking,
            "spanNulls": True,
            "showPoints": "auto",
            "thresholdsStyle": {"mode": "line" if panel.thresholds == AGES else "off"},
        }
    if panel.by == "task" and not panel.is_graph:
        told["mappings"] = [{"type": "value", "options": _results()}]
    return told


def _results() -> dict[str, Any]:
    return {
        str(int(code)): {"text": text, "color": color, "index": number}
        for number, (code, (text, color)) in enumerate(RESULTS.items())
    }


def _options(panel: Panel) -> dict[str, Any]:
    if panel.is_graph:
        return {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "auto",
        "orientation": "auto",
    }
