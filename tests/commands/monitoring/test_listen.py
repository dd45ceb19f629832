"""The button in Home Assistant starts one backup, if it is allowed; a real broker carries it."""

import json
import signal
import threading

import pytest
from contexts import until
from mosquitto import retained
from paho.mqtt import publish


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


class Listening:
    """`iotstack listen`, what it says, and the button."""

    def __init__(self, stack, broker):
        self.broker = broker
        self.process = stack.start("listen")
        self.said = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self.process.stdout, self.process.stderr)
        ]
        for each in self._readers:
            each.start()

    def _read(self, stream):
        with stream:
            for line in stream:
                self.said.append(line.rstrip("\n"))

    def wait(self, said, times=1):
        """Wait until it has said something so often."""
        try:
            until(lambda: sum(said in each for each in self.said) >= times)
        except AssertionError:
            raise AssertionError("\n".join(self.said)) from None

    @property
    def device(self):
        """Its name on the broker, of which only one listener is there."""
        found = retained(self.broker, "iotstack_backup/+/listener")
        (topic,) = found
        return topic.split("/")[1]

    def state(self):
        """Whether it listens, as Home Assistant sees it."""
        found = retained(self.broker, f"iotstack_backup/{self.device}/listener")
        return next(iter(found.values())).payload.decode()

    def press(self, text="PRESS", *, retain=False):
        topic = f"iotstack_backup/{self.device}/start"
        publish.single(topic, text, qos=1, retain=retain, port=self.broker.port)

    def end(self, number=signal.SIGTERM):
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        for each in self._readers:
            each.join()
        return code


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
