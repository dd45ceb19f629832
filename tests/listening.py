"""`iotstack listen` of a stack, what it says, and the button that it listens to."""

import signal
import threading

from contexts import until
from mosquitto import retained
from paho.mqtt import publish


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
