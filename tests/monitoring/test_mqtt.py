"""Home Assistant is told through a broker: what is retained there, and each way it may fail."""

import gc
import json
import socket
import threading
import weakref
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from contexts import until
from mosquitto import CONFIG, OldBroker, retained

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.monitoring import mqtt
from iotstack_invoke.monitoring.home_assistant import topics_of
from iotstack_invoke.monitoring.mqtt import Broker, connected, publish
from iotstack_invoke.monitoring.stack_facts import PlaceFacts, SetFacts, StackFacts
from iotstack_invoke.settings.secret import Secret

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
FACTS = StackFacts(
    "pi",
    NOW,
    sets=(SetFacts("t", NOW, 61.4, {"general": 5_000_000, "influx": 120_000}),),
    places=(PlaceFacts("here", NOW, 3, 15_000_000, 7_000_000_000), PlaceFacts("nas", NOW)),
    machine="0123456789abcdef",
)
TOPICS = topics_of(CONFIG, FACTS.host, FACTS.machine)


def at(server):
    return Broker("127.0.0.1", server.port)


def kept(server, *topics, **given):
    """Return what a client that comes later is sent, as the broker keeps it."""
    return retained(server, *(topics or (TOPICS.discovery, TOPICS.state)), **given)


def test_the_device_and_its_state_stay_with_the_broker(start_broker):
    """Whoever comes later, as Home Assistant after a restart, gets both; the state expires."""
    broker = start_broker()
    publish(CONFIG, FACTS, at(broker))
    found = kept(broker)
    device = json.loads(found[TOPICS.discovery].payload)
    assert device["dev"]["ids"] == ["pi_01234567"]
    assert "vault_nas" in device["cmps"]
    assert all(each.retain for each in found.values())
    state = found[TOPICS.state]
    assert json.loads(state.payload)["size_mb"] == 5.1
    assert 0 < state.properties.MessageExpiryInterval <= 26 * 3600
    assert not hasattr(found[TOPICS.discovery].properties, "MessageExpiryInterval")


def test_an_old_state_is_dropped_by_the_broker(start_broker):
    """It must not look like news after a restart of Home Assistant."""
    broker = start_broker()
    publish(replace(CONFIG, silent_after=timedelta(seconds=1)), FACTS, at(broker))
    until(lambda: set(kept(broker)) == {TOPICS.discovery})


def test_a_vault_that_is_no_longer_there_is_removed(start_broker):
    """Its component stays with its platform alone, also in later messages."""
    broker = start_broker()
    publish(CONFIG, FACTS, at(broker))
    less = replace(FACTS, places=FACTS.places[:1])
    for _ in range(2):
        publish(CONFIG, less, at(broker))
        device = json.loads(kept(broker)[TOPICS.discovery].payload)
        assert device["cmps"]["vault_nas"] == {"p": "sensor"}
    publish(CONFIG, FACTS, at(broker))
    device = json.loads(kept(broker)[TOPICS.discovery].payload)
    assert device["cmps"]["vault_nas"]["device_class"] == "timestamp"


@pytest.mark.parametrize("politely", [True, False])
def test_a_broker_of_old_is_spoken_to_in_its_way(start_broker, politely):
    """MQTT 3.1.1: nothing expires there, all else is the same."""
    broker = start_broker()
    old = OldBroker(broker.port, politely=politely)
    try:
        publish(CONFIG, FACTS, at(old))
    finally:
        old.stop()
    found = kept(broker)
    assert set(found) == {TOPICS.discovery, TOPICS.state}
    assert not hasattr(found[TOPICS.state].properties, "MessageExpiryInterval")


def of_user(password):
    return replace(CONFIG, user="backup", password=Secret("[mqtt] password", password))


def test_a_user_and_a_password_are_given(start_broker):
    """The password stands in no message."""
    broker = start_broker(login=("backup", "s3cr3t"))
    publish(of_user("s3cr3t"), FACTS, at(broker))
    assert TOPICS.state in kept(broker, login=("backup", "s3cr3t"))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("config", "told"),
    [
        (of_user("wr0ng"), "refused the login of user backup. Correct user and password_file"),
        (CONFIG, "refused a connection without a login. Correct user and password_file"),
    ],
)
def test_a_refused_login_is_told(start_broker, config, told, old):
    """By MQTT 5 and by 3.1.1, never with the password."""
    broker = start_broker(login=("backup", "s3cr3t"))
    before = OldBroker(broker.port) if old else broker
    with pytest.raises(StepFailed, match=told) as caught:
        publish(config, FACTS, at(before))
    assert f"127.0.0.1:{before.port}" in str(caught.value)
    assert "wr0ng" not in str(caught.value)
    if old:
        before.stop()


def test_an_access_list_that_forbids_it_is_told(start_broker):
    """Mosquitto says so in MQTT 5 alone."""
    broker = start_broker(rules=f"topic readwrite {TOPICS.discovery}\n")
    with pytest.raises(
        StepFailed, match=f"does not let a client without a login publish to {TOPICS.state}"
    ):
        publish(CONFIG, FACTS, at(broker))


def test_what_one_may_not_read_costs_no_publication(start_broker):
    """Then nothing is removed."""
    broker = start_broker(
        rules=f"topic write {TOPICS.discovery}\ntopic readwrite {TOPICS.state}\n"
    )
    publish(CONFIG, FACTS, at(broker))
    assert set(kept(broker)) == {TOPICS.state}


SOCKET_OF_PAHO = pytest.mark.filterwarnings(
    "ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning"
)
"""It does not close the socket of a handshake that failed."""


@SOCKET_OF_PAHO
def test_a_connection_is_encrypted(start_broker):
    """With a certificate that is trusted; another one is refused."""
    broker = start_broker(tls=True)
    config = replace(CONFIG, tls=True, ca_file=str(broker.certificate))
    publish(config, FACTS, at(broker))
    assert TOPICS.state in kept(broker, certificate=broker.certificate)
    with pytest.raises(StepFailed, match=r"a certificate that is not trusted: .* Set ca_file"):
        publish(replace(config, ca_file=""), FACTS, at(broker))
    with pytest.raises(StepFailed, match="closed the connection"):
        publish(CONFIG, FACTS, at(broker))
    with pytest.raises(StepFailed, match="ca_file /none: No such file"):
        publish(replace(config, ca_file="/none"), FACTS, at(broker))
    gc.collect()


def test_a_dead_broker_is_told(start_broker):
    """With where it was looked for, and what to look at."""
    broker = start_broker()
    broker.stop()
    with pytest.raises(StepFailed) as caught:
        publish(CONFIG, FACTS, replace(at(broker), container="mosquitto"))
    assert str(caught.value) == (
        f"The MQTT broker at 127.0.0.1:{broker.port} (container "
        "mosquitto) cannot be reached: Connection refused. Look at: docker logs mosquitto."
    )
    with pytest.raises(StepFailed, match=r"is unknown: .* Check that it runs, and host and port"):
        publish(CONFIG, FACTS, Broker("no-such-host.invalid", 1883))
    for name in ("pi..local", "x" * 70):
        with pytest.raises(StepFailed, match="has an impossible name"):
            publish(CONFIG, FACTS, Broker(name, 1883))


@SOCKET_OF_PAHO
def test_a_broker_that_hangs_costs_the_limit_alone(monkeypatch):
    """It takes the connection, and says nothing."""
    monkeypatch.setattr(mqtt, "LIMIT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker = Broker("127.0.0.1", silent.getsockname()[1])
        with pytest.raises(StepFailed, match=r"did not answer within 0\.5 s"):
            publish(CONFIG, FACTS, broker)
        with pytest.raises(StepFailed, match=r"does not answer|did not answer within 0\.5 s"):
            publish(replace(CONFIG, tls=True), FACTS, broker)
    gc.collect()


def test_a_server_that_is_no_broker_is_told():
    """It answers something else."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            for _ in range(2):
                talk, _ = server.accept()
                with talk:
                    talk.recv(1000)
                    talk.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(StepFailed, match="closed the connection"):
            publish(CONFIG, FACTS, Broker("127.0.0.1", server.getsockname()[1]))
        thread.join()


def test_a_connection_that_ended_holds_nothing(start_broker):
    """The listener connects again and again: the sockets of each are closed with it."""
    with connected(CONFIG, at(start_broker()), "") as connection:
        client = weakref.ref(connection._client)
    del connection
    assert client() is None
