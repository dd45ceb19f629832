"""`init` lets Home Assistant show the backups if the stack's own Mosquitto takes them."""

import json
import tomllib

import pytest
from fake_docker import LittleDocker
from mosquitto import retained

ALL = "init --copies none --keep 5 --at never --notify none"


@pytest.fixture
def start_own(little_stack, start_broker):
    """Let the stack have a Mosquitto: a real one, in what Docker takes for a container."""

    def start(**given):
        broker = start_broker(**given)
        (little_stack.folder / "volumes/mosquitto/data").mkdir(parents=True)
        LittleDocker(little_stack).knows(
            {"mosquitto": [("./volumes/mosquitto/data", "/mosquitto/data")]},
            mosquitto="eclipse-mosquitto",
        )
        path = little_stack.tools / "docker.json"
        (told,) = json.loads(path.read_text())
        published = [{"HostIp": "127.0.0.1", "HostPort": str(broker.port)}]
        told["NetworkSettings"] = {"Ports": {"1883/tcp": published}, "Networks": {}}
        told["Config"]["Env"], told["State"]["Running"] = [], True
        path.write_text(json.dumps([told]))
        return broker

    return start


@pytest.fixture
def new(scheduling_stack):
    """A machine without settings."""
    scheduling_stack.settings.unlink()
    return scheduling_stack


def content(stack):
    return tomllib.loads(stack.settings.read_text())


def test_a_broker_without_a_login_is_used(new, start_own):
    """Nothing is asked; the summary says it, and the first backup is seen there."""
    broker = start_own()
    done = new.run(f"{ALL} --stack {new.folder} --first-backup")
    assert "  shown    in Home Assistant, through mosquitto\n" in done.stdout
    assert content(new)["mqtt"] == {}
    told = retained(broker, "iotstack_backup/+/state", "homeassistant/device/+/config")
    (found,) = (each.payload for topic, each in told.items() if topic.endswith("/state"))
    assert json.loads(found)["result"] == "success"
    assert len(told) == 2


def test_a_broker_with_a_login_is_told(new, start_own):
    """With what to do; the rest is done."""
    start_own(login=("pi", "secret"))
    done = new.run(f"{ALL} --stack {new.folder}")
    assert "mqtt" not in content(new)
    assert "Home Assistant does not show the backups yet. The MQTT broker at" in done.stdout
    assert "refused a connection without a login" in done.stdout


def test_without_a_broker_nothing_is_said(new):
    done = new.run(f"{ALL} --stack {new.folder}")
    assert "mqtt" not in content(new)
    assert "Home Assistant" not in done.stdout


def test_it_is_asked_for(little_stack, start_own):
    """A file that is there gets it by the flag alone; with no broker the flag is refused."""
    refused = little_stack.run("init --yes --mqtt yes")
    assert refused.returncode == 13
    assert "no running container of Mosquitto" in refused.stderr
    start_own()
    assert little_stack.run("init --yes").returncode in (0, 1, 3)
    assert "mqtt" not in content(little_stack)
    little_stack.run("init --yes --mqtt yes")
    assert content(little_stack)["mqtt"] == {}
    before = little_stack.settings.read_bytes()
    little_stack.run("init --yes --mqtt yes")
    assert little_stack.settings.read_bytes() == before


def test_it_is_not_wanted(new, start_own):
    start_own()
    new.run(f"{ALL} --stack {new.folder} --mqtt no")
    assert "mqtt" not in content(new)
    assert new.run(f"{ALL} --mqtt maybe").returncode == 2


def test_with_news_each_hour_silence_is_seen_early(new, start_own):
    """After half the time: Home Assistant begins it anew when it restarts."""
    broker = start_own()
    done = new.run(f"{ALL.replace('never', '03:00')} --stack {new.folder} --first-backup")
    assert "Installed: in this user's crontab" in done.stdout
    (found,) = retained(broker, "homeassistant/device/+/config").values()
    entities = json.loads(found.payload)["cmps"].values()
    assert {each["expire_after"] for each in entities} == {13 * 3600}
