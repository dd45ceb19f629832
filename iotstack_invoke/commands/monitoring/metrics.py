"""Writes and prints the metrics of this machine's stack, and Grafana's dashboards for them."""

from __future__ import annotations

from ...core.errors import ExitCode, StepFailed, UsageError, ended
from ...core.units import read_duration
from ...environment.environment import Environment, open_environment
from ...monitoring.dashboards import DASHBOARDS, dashboard
from ...monitoring.influxdb import InfluxServer, write_points
from ...monitoring.metrics import line_protocol, prometheus_text
from ...monitoring.stack_facts import StackFacts
from ...monitoring.textfile import write_textfile
from ...reporting.report import Report
from ...settings.model import Settings
from ...settings.monitoring import MetricsConfig
from .brokers import find_influxdb
from .gather import observe

ADMIN = ("INFLUXDB_ADMIN_USER", "INFLUXDB_ADMIN_PASSWORD")
"""The variables of InfluxDB's image for its first start."""


def write_metrics(environment: Environment, facts: StackFacts) -> None:
    """Write them as hosts.toml says; raises StepFailed, with all that failed."""
    config = environment.settings.monitoring.metrics
    assert config is not None  # noqa: S101 - who asks has the table
    troubles = []
    try:
        if config.textfile:
            write_textfile(config.textfile, prometheus_text(facts))
    except StepFailed as error:
        troubles.append(ended(error))
    try:
        if config.influxdb:
            _write_to_influxdb(environment, config, facts)
    except StepFailed as error:
        troubles.append(ended(error))
    if troubles:
        raise StepFailed(f"Metrics were not written. {' '.join(troubles)}")


def _write_to_influxdb(environment: Environment, config: MetricsConfig, facts: StackFacts) -> None:
    found = find_influxdb(environment)
    user, password = config.user, config.password.read()
    if not user:
        user, password = (found.variables.get(each, "") for each in ADMIN)
    server = InfluxServer(found.host, found.port, user, password, found.container)
    write_points(server, line_protocol(facts, config.retention), config.retention)


def print_metrics(settings: Settings, max_age: str, report: Report) -> int:
    """Print them as Prometheus reads them; vaults are as the last look found them.

    `max_age`: how old the newest good backup may be.
    """
    with open_environment(settings) as environment:
        facts = observe(environment, read_duration(max_age), look_at_vaults=False)
    report.write_line(prometheus_text(facts).removesuffix("\n"))
    return ExitCode.GOOD


def print_dashboard(source: str, report: Report) -> int:
    """Print the dashboard for a source of data; raises UsageError for another one."""
    if source not in DASHBOARDS:
        raise UsageError(f"--dashboard {source}: use one of {', '.join(DASHBOARDS)}.")
    report.write_line(dashboard(source).removesuffix("\n"))
    return ExitCode.GOOD
