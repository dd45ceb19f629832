"""The button in Home Assistant starts one backup, if it is allowed; a real broker carries it."""

import json
import signal

import pytest
from contexts import until
from listening import Listening
from mosquitto import retained


@pytest.fixture
def broker(start_broker):
    return start_broker()


@pytest.fixture
def stack(little_stack, broker):
    """A stack whose backups wait for a file, and a broker that may start them."""
    little_stack.go = little_stack.folder.parent / "go"
    wait = f"until [ -e {little_stack.go} ]; do sleep 0.05; done"
    with little_stack.settings.open("a") as stream:
        stream.write(
            f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\nallow_start = true\n'
            f'[hooks]\nbefore_backup = [["sh", "-c", "{wait}"]]\n'
        )
    return little_stack


@pytest.fixture
def listening(stack, broker):
    """It listens."""
    found = Listening(stack, broker)
    found.wait("Listening for the button")
    yield found
    if found.process.poll() is None:
        stack.go.touch()
        found.end()


def made(stack):
    return sorted((stack.folder / "backups").glob("*.manifest.json"))


def test_a_press_starts_one_backup(listening, stack):
    """A second one while it runs is ignored; after its end, another may begin."""
    listening.press()
    listening.wait("The button was pressed: a backup begins.")
    listening.press()
    listening.wait("its backup still runs")
    assert made(stack) == []
    stack.go.touch()
    listening.wait("The backup ended with exit code 0.")
    assert len(made(stack)) == 1
    listening.press()
    listening.wait("The button was pressed: a backup begins.", 2)
    listening.wait("The backup ended with exit code 0.", 2)


def test_what_is_no_press_starts_nothing(listening, stack, broker):
    """A retained one would start a backup at each connection; another text is not the button's."""
    listening.press(retain=True)
    listening.wait("A retained message at")
    listening.press("start")
    listening.wait("was ignored: the button's is PRESS")
    assert listening.end() == 128 + signal.SIGTERM
    again = Listening(stack, broker)
    again.wait("A retained message at")
    again.end()
    assert not [each for each in (*listening.said, *again.said) if "backup begins" in each]


def test_it_is_seen_whether_it_listens(listening):
    """Online; offline after its end, and, by its last will, after it was killed."""
    assert listening.state() == "online"
    assert listening.end() == 128 + signal.SIGTERM
    assert listening.state() == "offline"
    assert [each for each in listening.said if "Listening" not in each] == []


def test_a_listener_that_was_killed_is_offline(listening):
    """Its broker says so."""
    listening.end(signal.SIGKILL)
    until(lambda: listening.state() == "offline")


def test_a_signal_ends_the_backup_too(listening, stack):
    """It gets the same signal, and puts all in order before the listener ends."""
    listening.press()
    listening.wait("a backup begins")
    until((stack.folder / "backups/.lock").exists)
    assert listening.end() == 128 + signal.SIGTERM
    listening.wait("The backup ended with exit code 143.")
    assert made(stack) == []


def test_a_broker_that_comes_back_is_listened_to(listening, broker, stack):
    """It says once that the broker is gone."""
    broker.stop()
    listening.wait("The MQTT broker at")
    broker.start()
    listening.wait("Listening for the button", 2)
    stack.go.touch()
    listening.press()
    listening.wait("The backup ended with exit code 0.")


def test_two_do_not_listen(listening, stack):
    """They would start two backups."""
    done = stack.run("listen")
    assert done.returncode == 11
    assert "`listen`" in done.stderr


@pytest.mark.parametrize("line", ["", "allow_start = false"])
def test_it_must_be_allowed(little_stack, line):
    """Whoever may write to the broker may press the button."""
    with little_stack.settings.open("a") as stream:
        stream.write(f"[mqtt]\n{line}\n")
    done = little_stack.run("listen")
    assert done.returncode == 2
    assert "set allow_start = true in [mqtt] of hosts.toml" in done.stderr


def test_the_button_is_published_if_it_is_allowed(stack, broker):
    """A look of the monitor tells Home Assistant of it, with the topic that is listened to."""
    stack.run("monitor")
    found = retained(broker, "homeassistant/device/+/config")
    ((topic, message),) = found.items()
    button = json.loads(message.payload)["cmps"]["start"]
    assert button["command_topic"] == f"iotstack_backup/{topic.split('/')[2]}/start"
