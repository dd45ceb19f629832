"""Brings Home Assistant up to date through an MQTT broker.

MQTT 5, because a message can expire there: a broker then drops an old state. If a broker refuses
it, MQTT 3.1.1. Messages for people never contain the password.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..core.dataclass import dataclass
from ..core.errors import StepFailed, TimedOut, ended
from ..hosts.local import within
from ..settings.monitoring import MqttConfig
from .home_assistant import discovery, silence, state, topics_of
from .stack_facts import StackFacts

if TYPE_CHECKING:  # takes 40 ms to import
    from paho.mqtt.client import Client, MQTTMessage
    from paho.mqtt.reasoncodes import ReasonCode

LIMIT_S = 10.0
"""How long all of it may take."""
EARLIER_LIMIT_S = 1.0
"""How long to wait for the earlier discovery. A broker that has it sends it at once."""
KEEPALIVE_S = 60
LOOK_S = 0.1
MOST_BYTES = 1 << 18
"""Of an earlier discovery: a larger one is not ours."""
OTHER_VERSION = frozenset({"Unsupported protocol version", "Protocol error", "Malformed packet"})
LOGIN = frozenset(
    {
        "Bad user name or password",
        "Bad authentication method",
        "Not authorized",
        "Banned",
    }
)
"""What a broker answers to a user or password that it does not accept, in MQTT's words."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a broker is, and in which container if it is the stack's own."""

    host: str
    port: int
    container: str = ""

    def __str__(self) -> str:
        inside = f" (container {self.container})" if self.container else ""
        return f"The MQTT broker at {self.host}:{self.port}{inside}"


def publish(config: MqttConfig, facts: StackFacts, broker: Broker) -> None:
    """Publish the device and its state, both retained and acknowledged.

    Raises StepFailed, within 10 s: the broker then has what it had, or the device without its new
    state.
    """
    password = config.password.read()
    try:
        within(LIMIT_S, "It", lambda: _publish(config, facts, broker, password))
    except TimedOut:
        raise StepFailed(_told(broker, f"did not answer within {LIMIT_S:g} s")) from None


def _publish(config: MqttConfig, facts: StackFacts, broker: Broker, password: str) -> None:
    topics = topics_of(config, facts.host, facts.machine)
    with connected(config, broker, password) as connection:
        earlier = connection.retained(topics.discovery)
        connection.publish(topics.discovery, discovery(config, facts, earlier))
        expiry_s = int(silence(config, facts).total_seconds())
        connection.publish(topics.state, state(facts), expiry_s=expiry_s)


@contextmanager
def connected(
    config: MqttConfig, broker: Broker, password: str, *, client_id: str = "", will: str = ""
) -> Iterator[Connection]:
    """Yield a connection; raises StepFailed if the broker refuses it, or it is lost.

    `will`: the topic on which the broker then says that it is lost.
    """
    from paho.mqtt.enums import MQTTProtocolVersion

    first, second = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
    connection = Connection(config, broker, password, client_id, will, first)
    try:
        if not connection.open():
            connection.close()
            connection = Connection(config, broker, password, client_id, will, second)
            connection.open()
        yield connection
    finally:
        connection.close()


class Connection:
    """A connection to a broker. Nothing happens on it but while one of its methods runs."""

    def __init__(
        self,
        config: MqttConfig,
        broker: Broker,
        password: str,
        client_id: str,
        will: str,
        version: Any,
    ) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        self._broker = broker
        self._user = config.user
        self.is_5 = version == MQTTProtocolVersion.MQTTv5
        self._answer: ReasonCode | None = None
        self._acknowledged: dict[int, ReasonCode] = {}
        self._heard: dict[str, Callable[[MQTTMessage], None]] = {}
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=version,
            reconnect_on_failure=False,
        )
        self._client.connect_timeout = LIMIT_S / 2
        self._client.on_connect = self._on_connect
        self._client.on_publish = self._on_acknowledged
        self._client.on_subscribe = self._on_subscribed
        self._client.on_message = self._on_message
        if config.user:
            self._client.username_pw_set(config.user, password or None)
        if will:
            self._client.will_set(will, "offline", qos=1, retain=True)
        if config.tls:
            try:
                self._client.tls_set(ca_certs=config.ca_file or None)
            except OSError as error:
                why = error.strerror or str(error)
                raise StepFailed(f"[mqtt] ca_file {config.ca_file}: {ended(why)}") from error

    def _on_connect(
        self, _client: Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        self._answer = code

    def _on_acknowledged(
        self, _client: Client, _data: Any, number: int, code: ReasonCode, _properties: Any
    ) -> None:
        self._acknowledged[number] = code

    def _on_subscribed(
        self, _client: Client, _data: Any, number: int, codes: list[ReasonCode], _properties: Any
    ) -> None:
        self._acknowledged[number] = codes[0]

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        heard = self._heard.get(message.topic)
        if heard:
            heard(message)

    def open(self) -> bool:
        """Connect and log in; return False if the broker may speak only an older version of MQTT.

        Raises StepFailed, with what to do, if it cannot be reached or refuses the connection.
        """
        try:
            self._client.connect(self._broker.host, self._broker.port, KEEPALIVE_S)
        except ssl.SSLCertVerificationError as error:
            trust = "Set ca_file of [mqtt] in hosts.toml to the certificate that it is signed by"
            why = f"has a certificate that is not trusted: {error.verify_message}"
            raise StepFailed(_told(self._broker, why, trust)) from error
        except ssl.SSLError as error:
            why = f"does not encrypt as expected: {error.reason or error}"
            raise StepFailed(_told(self._broker, why)) from error
        except socket.gaierror as error:
            raise StepFailed(_told(self._broker, f"is unknown: {error.strerror}")) from error
        except UnicodeError as error:  # such as `pi..local`
            raise StepFailed(_told(self._broker, "has an impossible name")) from error
        except TimeoutError as error:
            raise StepFailed(_told(self._broker, "does not answer")) from error
        except OSError as error:
            why = f"cannot be reached: {error.strerror or error}"
            raise StepFailed(_told(self._broker, why)) from error
        is_closed = not self.wait(lambda: self._answer is not None, LIMIT_S)
        if self._answer is None and not (is_closed and self.is_5):
            raise StepFailed(_told(self._broker, "closed the connection"))
        name = self._answer.getName() if self._answer else ""
        if self._answer is None or (self.is_5 and name in OTHER_VERSION):
            return False
        if self._answer.is_failure:
            raise StepFailed(self._refusal(name))
        return True

    def _refusal(self, name: str) -> str:
        if name not in LOGIN:
            return _told(self._broker, f"refused the connection: {name}")
        who = f"the login of user {self._user}" if self._user else "a connection without a login"
        fix = "Correct user and password_file of [mqtt] in hosts.toml"
        return _told(self._broker, f"refused {who}", fix)

    def wait(self, done: Callable[[], bool], limit_s: float) -> bool:
        """Take part in the connection until something is done; return False if it was lost.

        Raises StepFailed after the limit.
        """
        until_s = time.monotonic() + limit_s
        while not done():
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                why = f"did not answer within {limit_s:g} s"
                raise StepFailed(_told(self._broker, why))
            self._hurry()
            if self._client.loop(min(left_s, LOOK_S)):
                return done()
        return True

    def _hurry(self) -> None:
        """Let no small packet wait for the acknowledgement of the one before it.

        Else both sides wait 40 ms at a time for what the other one holds back (tcp(7)): a broker
        sends what it keeps right after the answer to a subscription. The kernel forgets
        TCP_QUICKACK, so it is set again each time.
        """
        if isinstance(line := self._client.socket(), socket.socket):
            for option in (socket.TCP_NODELAY, socket.TCP_QUICKACK):
                line.setsockopt(socket.IPPROTO_TCP, option, 1)

    def serve(self, seconds: float) -> None:
        """Take part in the connection for a time; raises StepFailed if it was lost."""
        until_s = time.monotonic() + seconds
        if not self.wait(lambda: time.monotonic() >= until_s, seconds + LIMIT_S):
            raise StepFailed(_told(self._broker, "closed the connection"))

    def publish(self, topic: str, text: str, *, expiry_s: int = 0) -> None:
        """Publish a retained message, and wait for its acknowledgement; raises StepFailed.

        `expiry_s`: the broker drops it after that time, if it speaks MQTT 5.
        """
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = None
        if self.is_5 and expiry_s:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = expiry_s
        sent = self._client.publish(topic, text, 1, retain=True, properties=properties)
        self._acknowledge(sent.mid, f"publish to {topic}")

    def subscribe(self, topic: str, heard: Callable[[MQTTMessage], None]) -> None:
        """Call `heard` with each message of a topic from now on; raises StepFailed.

        By MQTT 5 each says whether it was sent to be retained; by 3.1.1 only one from before does.
        """
        from paho.mqtt.subscribeoptions import SubscribeOptions

        self._heard[topic] = heard
        if self.is_5:
            options = SubscribeOptions(qos=1, retainAsPublished=True)
            _, number = self._client.subscribe(topic, options=options)
        else:
            _, number = self._client.subscribe(topic, 1)
        self._acknowledge(number or 0, f"read {topic}")

    def _acknowledge(self, number: int, what: str) -> None:
        if not self.wait(lambda: number in self._acknowledged, LIMIT_S):
            raise StepFailed(_told(self._broker, "closed the connection"))
        code = self._acknowledged.pop(number)
        if code.is_failure:
            who = f"user {self._user}" if self._user else "a client without a login"
            why = f"does not let {who} {what}: {code.getName()}"
            fix = "Change its access list (acl_file in mosquitto.conf)"
            raise StepFailed(_told(self._broker, why, fix))

    def retained(self, topic: str) -> bytes:
        """Return the message that the broker keeps; b"" if it has none, or does not give it."""
        found: list[bytes] = []
        try:
            self.subscribe(topic, lambda message: found.append(bytes(message.payload)))
            self.wait(lambda: bool(found), EARLIER_LIMIT_S)
        except StepFailed:
            pass
        finally:
            self._heard.pop(topic, None)
        return found[0] if found and len(found[0]) <= MOST_BYTES else b""

    def close(self) -> None:
        """End the connection, and close its sockets."""
        client = self._client
        client.disconnect()
        # The client closes its sockets when nothing holds it any more, so nothing of ours may.
        client.on_connect = client.on_publish = client.on_subscribe = client.on_message = None


def _told(broker: Broker, why: str, fix: str = "") -> str:
    """Return what failed, why, and what to do."""
    advice = fix or (
        f"Look at: docker logs {broker.container}"
        if broker.container
        else "Check that it runs, and host and port of [mqtt] in hosts.toml"
    )
    return f"{broker} {why}. {advice}."
