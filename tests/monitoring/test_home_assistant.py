"""A real Home Assistant shows what is published, and that nothing comes any more."""

import re
import socket
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from home_assistant import HomeAssistant
from listening import Listening
from mosquitto import CONFIG, Mosquitto, require_mosquitto
from test_mqtt import FACTS, NOW, at

from iotstack_invoke.monitoring.mqtt import publish
from iotstack_invoke.monitoring.run_event import RunEvent
from iotstack_invoke.monitoring.stack_facts import Problem

PAGE = Path(__file__).parents[2] / "docs/how-to/home-assistant.md"
SENSOR = "sensor.backup_of_pi"


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    require_mosquitto()
    server = Mosquitto(tmp_path_factory.mktemp("mosquitto") / "broker")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def home(broker):
    """A Home Assistant that runs for all tests of this file."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    found = HomeAssistant(broker.port, [yaml.safe_load(blocks[0])])
    yield found
    found.remove()


def test_all_is_shown_and_follows(home, broker):
    """The entities exist, change after a publication, and go with their vault."""
    publish(CONFIG, FACTS, at(broker))
    home.wait("binary_sensor.backup_of_pi_problem", "off")
    expected = {
        "binary_sensor.backup_of_pi_problem": "off",
        f"{SENSOR}_last_good_backup": "2026-12-01T09:00:00+00:00",
        f"{SENSOR}_last_good_backup_in_nas": "2026-12-01T09:00:00+00:00",
        f"{SENSOR}_size_of_the_last_backup": "5.1",
        f"{SENSOR}_duration_of_the_last_backup": "61",
        f"{SENSOR}_result_of_the_last_run": "unknown",
        f"{SENSOR}_next_backup": "unknown",
        f"{SENSOR}_verified_by_a_restore": "unknown",
        f"{SENSOR}_free_space": "7.0",
    }
    for entity, shown in expected.items():
        home.wait(entity, shown)
    assert {each for each in home.states if "backup_of_pi" in each} == {*expected}
    later = NOW + timedelta(hours=1)
    problem = Problem("overdue nas", "No good backup was made in nas for 26 h. Look.")
    failed = RunEvent("backup", "pi", NOW, later, 1, ("nas: the disk is full.",))
    facts = replace(
        FACTS,
        places=(replace(FACTS.places[0], newest=later),),
        runs={"backup": failed},
        problems=(problem,),
        next_run=later,
        rehearsed=NOW,
    )
    publish(CONFIG, facts, at(broker))
    home.wait("binary_sensor.backup_of_pi_problem", "on")
    home.wait(f"{SENSOR}_last_good_backup", "2026-12-01T10:00:00+00:00")
    home.wait(f"{SENSOR}_result_of_the_last_run", "failure")
    home.wait(f"{SENSOR}_next_backup", "2026-12-01T10:00:00+00:00")
    home.wait(f"{SENSOR}_verified_by_a_restore", "2026-12-01T09:00:00+00:00")
    home.wait(f"{SENSOR}_last_good_backup_in_nas", None)
    problems = home.states["binary_sensor.backup_of_pi_problem"]["attributes"]["problems"]
    assert problems == [problem.text, "backup of pi failed."]
    result = home.states[f"{SENSOR}_result_of_the_last_run"]["attributes"]
    assert result["messages"] == ["nas: the disk is full."]
    assert not home.complaints()


def test_silence_is_unavailable(home, broker):
    """When nothing comes for as long as hosts.toml says; also after a restart of it.

    It takes no offence at what the device says of a vault that it never knew.
    """
    publish(CONFIG, FACTS, at(broker))
    less = replace(FACTS, places=FACTS.places[:1])
    publish(replace(CONFIG, silent_after=timedelta(seconds=3)), less, at(broker))
    home.wait("binary_sensor.backup_of_pi_problem", "off")
    home.wait("binary_sensor.backup_of_pi_problem", "unavailable")
    home.wait(f"{SENSOR}_last_good_backup", "unavailable")
    home.stop()
    home.start()
    home.wait("binary_sensor.backup_of_pi_problem", "unavailable")
    publish(CONFIG, FACTS, at(broker))
    home.wait("binary_sensor.backup_of_pi_problem", "off")
    assert not home.complaints()


def test_a_button_is_there_if_it_is_allowed(home, broker):
    """Pressing it is a message that is not retained; nobody listens now."""
    publish(replace(CONFIG, allow_start=True), FACTS, at(broker))
    home.wait("button.backup_of_pi_start_a_backup", "unavailable")
    publish(CONFIG, FACTS, at(broker))
    home.wait("button.backup_of_pi_start_a_backup", None)


def test_the_button_starts_a_backup(home, broker, little_stack):
    """If something listens; its end is shown."""
    with little_stack.settings.open("a") as stream:
        stream.write(f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\nallow_start = true\n')
    little_stack.run("monitor")
    listening = Listening(little_stack, broker)
    listening.wait("Listening for the button")
    name = f"backup_of_{socket.gethostname()}".lower().replace("-", "_")
    button = f"button.{name}_start_a_backup"
    home.wait(button, "unknown")
    home.press(button)
    listening.wait("The backup ended with exit code 0.")
    home.wait(f"sensor.{name}_result_of_the_last_run", "success")
    listening.end()
    home.wait(button, "unavailable")


def test_the_automation_of_the_page_is_right(home):
    """Home Assistant takes it; a wrong one would be unavailable."""
    home.wait("automation.backup_alarm", "on")
