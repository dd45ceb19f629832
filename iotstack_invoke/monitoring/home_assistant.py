"""What Home Assistant is told by MQTT: a device, its entities, and their state. Pure.

Source of the keys: Home Assistant's page "MQTT", discovery of a device; tried with 2025.4.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from .. import __version__
from ..backups.verifications import HERE
from ..core.dataclass import dataclass
from ..core.errors import ExitCode
from ..settings.monitoring import MqttConfig
from .run_event import KILLED, RunEvent
from .stack_facts import PlaceFacts, StackFacts

BASE = "iotstack_backup"
PRESSED = "PRESS"
"""The message of the button."""
ONLINE, OFFLINE = "online", "offline"
SCHEDULED = ("backup", "sync", "verify", "rehearse", "prune")
"""The tasks that run unattended: a failure of any other was seen at the terminal."""
ALARMING = frozenset({ExitCode.FAILED, KILLED})
MOST_MESSAGES, MOST_CHARACTERS = 5, 500
"""Of an attribute: Home Assistant keeps no history of more than 16 KiB of attributes."""
MOST_REMOVED = 100
PLATFORMS = frozenset({"sensor", "binary_sensor", "button"})
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass(frozen=True, slots=True)
class Topics:
    """Where a machine's device is on the broker."""

    prefix: str
    """What Home Assistant listens to, usually `homeassistant`."""
    device: str

    @property
    def discovery(self) -> str:
        """What the device is."""
        return f"{self.prefix}/device/{self.device}/config"

    @property
    def state(self) -> str:
        """The state of all its entities, as JSON."""
        return f"{BASE}/{self.device}/state"

    @property
    def start(self) -> str:
        """Where the button is pressed."""
        return f"{BASE}/{self.device}/start"

    @property
    def listener(self) -> str:
        """Whether something listens to the button."""
        return f"{BASE}/{self.device}/listener"


def topics_of(config: MqttConfig, host: str, machine: str) -> Topics:
    """Return the topics of a machine, by its name and its mark (machine_mark)."""
    return Topics(config.prefix, f"{_UNSAFE.sub('_', host)}_{machine[:8]}".rstrip("_"))


def silence(config: MqttConfig, facts: StackFacts) -> timedelta:
    """Return after how long without news the entities are unavailable.

    After a restart, Home Assistant counts again from zero if the broker still has the state, which
    it drops after as long (MQTT 5). So it is half the time of the settings if there is news each
    hour: then silence is seen within the whole time, whatever restarts.
    """
    return config.silent_after / 2 if facts.is_hourly else config.silent_after


def discovery(config: MqttConfig, facts: StackFacts, earlier: bytes = b"") -> str:
    """Return the JSON that makes the device.

    `earlier` is the one before: entities that only it has, as those of a vault that is no longer
    in hosts.toml, are removed from Home Assistant.
    """
    topics = topics_of(config, facts.host, facts.machine)
    expire_after = int(silence(config, facts).total_seconds())
    entities = {
        key: {**entity, "unique_id": f"{topics.device}_{key}", "expire_after": expire_after}
        for key, entity in _entities(facts, topics)
    }
    if config.allow_start:
        entities["start"] = {**_button(topics), "unique_id": f"{topics.device}_start"}
    told = {
        "dev": {
            "ids": [topics.device],
            "name": f"Backup of {facts.host}",
            "mf": "iotstack-invoke",
            "mdl": "IOTstack",
            "sw": __version__,
        },
        "o": {"name": "iotstack-invoke", "sw": __version__},
        "state_topic": topics.state,
        "qos": 1,
        "cmps": {**entities, **_removed(earlier, entities)},
    }
    return json.dumps(told)


def _entities(facts: StackFacts, topics: Topics) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "last_backup", _moment("Last good backup", "last_backup")
    for place in _vaults(facts):
        name = json.dumps(place.name)
        entity = _moment(f"Last good backup in {place.name}", f"vaults[{name}].newest")
        yield f"vault_{place.name}", {**entity, **_attributes(topics, f"vaults[{name}]")}
    yield "size", _amount("Size of the last backup", "size_mb", "data_size", "MB")
    yield "duration", _amount("Duration of the last backup", "duration_s", "duration", "s")
    result = _sensor("Result of the last run", "result")
    options = ["success", "warning", "failure"]
    yield (
        "result",
        {**result, "device_class": "enum", "options": options, **_attributes(topics, "last_run")},
    )
    yield "next_run", _moment("Next backup", "next_run")
    yield "rehearsed", _moment("Verified by a restore", "rehearsed")
    yield "free", _amount("Free space", "free_gb", "data_size", "GB")
    problem = {"p": "binary_sensor", "name": "Problem", "device_class": "problem"}
    shown = {"value_template": "{{ value_json.problem }}"}
    yield "problem", {**problem, **shown, **_attributes(topics, "about_problems")}


def _sensor(name: str, value: str) -> dict[str, Any]:
    return {"p": "sensor", "name": name, "value_template": f"{{{{ value_json.{value} }}}}"}


def _moment(name: str, value: str) -> dict[str, Any]:
    return {**_sensor(name, value), "device_class": "timestamp"}


def _amount(name: str, value: str, kind: str, unit: str) -> dict[str, Any]:
    measured = {"device_class": kind, "unit_of_measurement": unit, "state_class": "measurement"}
    return {**_sensor(name, value), **measured}


def _attributes(topics: Topics, value: str) -> dict[str, str]:
    return {
        "json_attributes_topic": topics.state,
        "json_attributes_template": f"{{{{ value_json.{value} | tojson }}}}",
    }


def _button(topics: Topics) -> dict[str, Any]:
    return {
        "p": "button",
        "name": "Start a backup",
        "command_topic": topics.start,
        "payload_press": PRESSED,
        "retain": False,
        "availability_topic": topics.listener,
        "payload_available": ONLINE,
        "payload_not_available": OFFLINE,
    }


def _removed(earlier: bytes, entities: Mapping[str, Any]) -> dict[str, Any]:
    """Return what removes the entities that are gone: a component with its platform alone.

    They stay in the message: Home Assistant may be off when it comes. What is not ours is left
    out: others may write to the broker.
    """
    try:
        known = json.loads(earlier)["cmps"]
        platforms = {key: each["p"] for key, each in known.items() if _KEY.fullmatch(key)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    gone = [key for key, p in platforms.items() if key not in entities and p in PLATFORMS]
    return {key: {"p": platforms[key]} for key in gone[:MOST_REMOVED]}


def state(facts: StackFacts) -> str:
    """Return the JSON of what the entities show; null is shown as unknown."""
    newest = facts.newest
    here = next((each for each in facts.places if each.name == HERE), PlaceFacts(HERE))
    last = facts.runs.get("backup")
    problems = [*problem_texts(facts)]
    told = {
        "at": _text(facts.now),
        "last_backup": _text(here.newest),
        "size_mb": round(newest.size_bytes / 1e6, 1) if newest else None,
        "duration_s": round(newest.seconds) if newest else None,
        "result": last.outcome.value if last else None,
        "last_run": _last_run(last),
        "next_run": _text(facts.next_run),
        "rehearsed": _text(facts.rehearsed),
        "free_gb": None if here.free_bytes is None else round(here.free_bytes / 1e9, 1),
        "problem": "ON" if problems else "OFF",
        "about_problems": {
            "problems": problems,
            "failures": sum(each.is_failure for each in facts.problems),
        },
        "vaults": {
            each.name: {
                "newest": _text(each.newest),
                "backups": each.sets,
                "size_bytes": each.size_bytes,
                "free_bytes": each.free_bytes,
                "verified": _text(each.verified),
                "trouble": each.trouble[:MOST_CHARACTERS],
            }
            for each in _vaults(facts)
        },
    }
    return json.dumps(told)


def problem_texts(facts: StackFacts) -> Iterator[str]:
    """Yield what is wrong: problems, and runs of the schedule that failed."""
    for each in facts.problems:
        yield each.text[:MOST_CHARACTERS]
    for task in SCHEDULED:
        last = facts.runs.get(task)
        if last and last.exit_code in ALARMING:
            yield f"{last.title}."


def _last_run(last: RunEvent | None) -> dict[str, Any]:
    if last is None:
        return {}
    return {
        "title": last.title,
        "began": _text(last.began),
        "ended": _text(last.ended),
        "exit_code": last.exit_code,
        "messages": [each[:MOST_CHARACTERS] for each in last.messages[-MOST_MESSAGES:]],
    }


def _vaults(facts: StackFacts) -> Iterator[PlaceFacts]:
    return (each for each in facts.places if each.name != HERE)


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
