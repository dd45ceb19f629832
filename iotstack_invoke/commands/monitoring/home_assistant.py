"""Publishes the state of this machine's stack to Home Assistant."""

from __future__ import annotations

from ...core.errors import StepFailed, ended
from ...environment.environment import Environment
from ...monitoring.mqtt import publish
from ...monitoring.stack_facts import StackFacts
from .brokers import find_broker


def publish_state(environment: Environment, facts: StackFacts) -> None:
    """Publish it; raises StepFailed. hosts.toml has the table mqtt."""
    config = environment.settings.monitoring.mqtt
    assert config is not None  # noqa: S101 - who asks has the table
    try:
        publish(config, facts, find_broker(environment))
    except StepFailed as error:
        raise StepFailed(f"Home Assistant was not updated. {ended(error)}") from error
