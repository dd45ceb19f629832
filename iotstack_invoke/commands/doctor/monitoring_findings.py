"""Whether notifications, Home Assistant and metrics have what they need, and their secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ...core.errors import StepFailed, ended
from ...settings.model import Settings
from ...settings.secret import Secret
from ..shared.checks import Finding, good, warning

OTHERS_READ = 0o044
NO_NOTIFIER = "add a [[notify]] table to hosts.toml: docs/how-to/notifications.md has examples"


def monitoring_findings(settings: Settings) -> Iterator[Finding]:
    """Yield what is known of the tables notify, mqtt and metrics."""
    monitoring = settings.monitoring
    if not monitoring.notify:
        yield warning("notify", "a backup that fails or never comes sends no message", NO_NOTIFIER)
    for row in monitoring.notify:
        trouble = _trouble(row.url, row.token)
        yield trouble_found(f"notify {row.name}", trouble, f"{row.kind}, {_list(row.tasks)}")
    if monitoring.mqtt:
        where = monitoring.mqtt.host or "the stack's own Mosquitto"
        yield trouble_found("mqtt", _trouble(monitoring.mqtt.password), where)
    if monitoring.metrics and monitoring.metrics.textfile:
        file = monitoring.metrics.textfile
        folder = os.path.dirname(file)
        lacks = "" if os.access(folder, os.W_OK) else f"{folder} cannot be written"
        yield trouble_found("metrics", (lacks, f"make {folder} writable for this user"), file)
    if monitoring.metrics and monitoring.metrics.influxdb:
        yield trouble_found("metrics", _trouble(monitoring.metrics.password), "InfluxDB")
    yield from _exposed(settings)


def trouble_found(name: str, trouble: tuple[str, str], fine: str) -> Finding:
    """Return the finding of a trouble and its fix, or a good one."""
    return warning(name, *trouble) if trouble[0] else good(name, fine)


def _list(names: frozenset[str]) -> str:
    return "all tasks" if len(names) > 1 else "".join(names)


def _trouble(*secrets: Secret) -> tuple[str, str]:
    """Return why one of the secrets cannot be read, and what to do; '' if all can."""
    try:
        for each in secrets:
            each.read()
    except StepFailed as error:
        return ended(error), "correct it in hosts.toml"
    return "", ""


def _exposed(settings: Settings) -> Iterator[Finding]:
    """Yield which files of secrets others can read."""
    monitoring = settings.monitoring
    secrets = [each for row in monitoring.notify for each in (row.url, row.token)]
    secrets += [each.password for each in (monitoring.mqtt, monitoring.metrics) if each]
    files = [settings.file] if any(each.text for each in secrets) else []
    files += [os.path.expanduser(each.file) for each in secrets if "/" in each.file]
    for path in dict.fromkeys(files):
        try:
            is_open = os.stat(path).st_mode & OTHERS_READ
        except OSError:
            continue
        if is_open:
            yield warning("secrets", f"others can read {path}, which has one", f"chmod 600 {path}")
