"""The tables notify, mqtt and metrics of hosts.toml as values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ..core.dataclass import dataclass
from ..core.units import read_duration
from .keys import TABLES, WATCHED
from .secret import Secret, read_secret


@dataclass(frozen=True, slots=True)
class NotifyConfig:
    """One row of notify: where notifications go, and when."""

    name: str
    kind: str
    """ping, ntfy or apprise."""
    url: Secret
    token: Secret
    on: frozenset[str]
    """Of failure, warning, recovered and always."""
    tasks: frozenset[str]
    """The tasks whose runs it is for."""


@dataclass(frozen=True, slots=True)
class MqttConfig:
    """The broker, and what Home Assistant finds there."""

    host: str
    """'' for the stack's own Mosquitto."""
    port: int
    user: str
    password: Secret
    tls: bool
    ca_file: str
    prefix: str
    silent_after: timedelta
    allow_start: bool


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Where metrics are written."""

    textfile: str
    """'' for none."""
    influxdb: bool
    retention: timedelta
    user: str = ""
    """Who writes to InfluxDB; '' for the user of its container's variables, if it has one."""
    password: Secret = Secret()


@dataclass(frozen=True, slots=True)
class Monitoring:
    """All of it. False if nothing of it is used."""

    notify: tuple[NotifyConfig, ...] = ()
    mqtt: MqttConfig | None = None
    metrics: MetricsConfig | None = None

    def __bool__(self) -> bool:
        return bool(self.notify or self.mqtt or self.metrics)


NOTHING = Monitoring()


def read_monitoring(content: Mapping[str, Any]) -> Monitoring:
    """Return the monitoring of a valid file."""
    mqtt, metrics = content.get("mqtt"), content.get("metrics")
    return Monitoring(
        tuple(map(_notify, content.get("notify", ()))),
        None if mqtt is None else _mqtt(mqtt),
        None if metrics is None else _metrics(metrics),
    )


def _notify(row: Mapping[str, Any]) -> NotifyConfig:
    table = f"[[notify]] {row['name']}"
    usual = ("always",) if row["kind"] == "ping" else ("failure", "warning", "recovered")
    return NotifyConfig(
        row["name"],
        row["kind"],
        read_secret(row, "url", table),
        read_secret(row, "token", table),
        frozenset(row.get("on", usual)),
        frozenset(row.get("tasks", ("backup",) if row["kind"] == "ping" else WATCHED)),
    )


def _mqtt(table: Mapping[str, Any]) -> MqttConfig:
    def given(key: str) -> Any:
        return table.get(key, TABLES["mqtt"][key].default)

    return MqttConfig(
        host=table.get("host", ""),
        port=given("port"),
        user=table.get("user", ""),
        password=read_secret(table, "password", "[mqtt]"),
        tls=given("tls"),
        ca_file=os.path.expanduser(table.get("ca_file", "")),
        prefix=given("prefix"),
        silent_after=read_duration(given("silent_after")),
        allow_start=given("allow_start"),
    )


def _metrics(table: Mapping[str, Any]) -> MetricsConfig:
    return MetricsConfig(
        os.path.expanduser(table.get("textfile", "")),
        table.get("influxdb", False),
        read_duration(table.get("retention", TABLES["metrics"]["retention"].default)),
        table.get("user", ""),
        read_secret(table, "password", "[metrics]"),
    )
