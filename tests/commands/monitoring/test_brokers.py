"""The stack's own Mosquitto and InfluxDB are found, and so is the way to reach them."""

import json

import pytest
from fake_docker import LittleDocker
from influxd import Influxd, require_influxd
from mosquitto import retained

from iotstack_invoke.commands.monitoring.brokers import find_broker, find_influxdb
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.environment.environment import Environment
from iotstack_invoke.settings.model import load_settings

ANY = "0.0.0.0"  # noqa: S104 - as Docker says it
PUBLISHED = {
    "1883/tcp": [{"HostIp": ANY, "HostPort": "2883"}, {"HostIp": "::", "HostPort": "2883"}]
}
BRIDGE = {"iotstack_default": {"IPAddress": "172.18.0.5"}}


class Known:
    """A stack, and the containers that its Docker knows, which run."""

    def __init__(self, stack):
        self.stack = stack
        self.docker = LittleDocker(stack)

    def let(self, containers, *, ports=None, networks=None, running=True, variables=()):
        """Let Docker know containers by their images, all alike."""
        self.docker.knows({name: [("./x", "/x")] for name in containers}, **containers)
        path = self.stack.tools / "docker.json"
        told = json.loads(path.read_text())
        for each in told:
            each["State"]["Running"] = running
            each["NetworkSettings"] = {"Ports": ports or {}, "Networks": networks or {}}
            each["Config"]["Env"] = list(variables)
        path.write_text(json.dumps(told))

    @property
    def environment(self):
        return Environment.of(load_settings(str(self.stack.settings)))


@pytest.fixture
def known(little_stack, monkeypatch):
    with little_stack.settings.open("a") as stream:
        stream.write("[mqtt]\n")
    monkeypatch.setenv("PATH", little_stack.environment["PATH"])
    return Known(little_stack)


@pytest.mark.parametrize(
    ("ports", "networks", "reached"),
    [
        (PUBLISHED, BRIDGE, ("127.0.0.1", 2883)),
        ({"1883/tcp": [{"HostIp": "10.0.0.2", "HostPort": "1883"}]}, BRIDGE, ("10.0.0.2", 1883)),
        ({"1883/tcp": None}, BRIDGE, ("172.18.0.5", 1883)),
        ({}, {"host": {"IPAddress": ""}}, ("127.0.0.1", 1883)),
    ],
    ids=["published", "at one address", "not published", "on the host's network"],
)
def test_a_broker_is_found(known, ports, networks, reached):
    """By its published port, or else its own address."""
    known.let({"mosquitto": "eclipse-mosquitto"}, ports=ports, networks=networks)
    found = find_broker(known.environment)
    assert (found.host, found.port, found.container) == (*reached, "mosquitto")


def test_of_several_the_usual_one_is_taken(known):
    """Another name is found by its image; other containers are none."""
    known.let({"broker": "eclipse-mosquitto:2", "nodered": "nodered/node-red"}, networks=BRIDGE)
    assert find_broker(known.environment).container == "broker"
    known.let({"a": "eclipse-mosquitto:2", "mosquitto": "eclipse-mosquitto"}, networks=BRIDGE)
    assert find_broker(known.environment).container == "mosquitto"


def test_without_one_that_runs_it_is_told(known):
    """What to do about it, too."""
    known.let({"mosquitto": "eclipse-mosquitto"}, running=False)
    for find, told in (
        (find_broker, "no running container of Mosquitto. Start it, or set host of [mqtt]"),
        (find_influxdb, "no running container of InfluxDB 1. Start it, or set influxdb = false"),
    ):
        with pytest.raises(StepFailed) as caught:
            find(known.environment)
        assert told in str(caught.value)


def test_influxdb_is_found_with_its_variables(known):
    """InfluxDB 2 is not meant."""
    known.let(
        {"influxdb": "influxdb:1.8", "influxdb2": "influxdb:2"},
        networks=BRIDGE,
        variables=["A=b=c"],
    )
    found = find_influxdb(known.environment)
    assert (found.container, found.host, found.port) == ("influxdb", "172.18.0.5", 8086)
    assert found.variables == {"A": "b=c"}
    known.let({"influxdb": "influxdb:2"}, networks=BRIDGE)
    with pytest.raises(StepFailed, match="no running container of InfluxDB 1"):
        find_influxdb(known.environment)


def test_a_backup_brings_all_up_to_date(known, start_broker, tmp_path):
    """Home Assistant, the textfile, and InfluxDB with the login of its container."""
    require_influxd()
    broker = start_broker()
    influxd = Influxd(tmp_path / "influxd", login=("admin", "s3cr3t"))
    with known.stack.settings.open("a") as stream:
        stream.write(f'[metrics]\ntextfile = "{tmp_path}/x.prom"\ninfluxdb = true\n')
    ports = {
        f"{inside}/tcp": [{"HostIp": "", "HostPort": str(port)}]
        for inside, port in ((1883, broker.port), (8086, influxd.port))
    }
    variables = ["INFLUXDB_ADMIN_USER=admin", "INFLUXDB_ADMIN_PASSWORD=s3cr3t"]
    try:
        known.let({"mosquitto": "eclipse-mosquitto"}, ports=ports)
        done = known.stack.run("backup")
        assert "Metrics were not written. The stack has no running container of" in done.stderr
        known.let(
            {"influxdb": "influxdb:1.8", "mosquitto": "eclipse-mosquitto"},
            ports=ports,
            variables=variables,
        )
        done = known.stack.run("monitor")
        assert (done.returncode, done.stderr) == (0, "")
        assert len(influxd.rows('SELECT * FROM "backup"')) == 1
    finally:
        influxd.stop()
    (state,) = retained(broker, "iotstack_backup/+/state").values()
    assert json.loads(state.payload)["result"] == "warning"
    assert 'iotstack_backup_run_exit_code{task="backup"} 3' in (tmp_path / "x.prom").read_text()


def test_what_cannot_be_reached_is_told_once(known, tmp_path):
    """A dead broker fails no backup; its message is one for all the time it is dead."""
    with known.stack.settings.open("a") as stream:
        stream.write('host = "127.0.0.1"\nport = 9\n')
    done = known.stack.run("backup")
    assert done.returncode == 0
    assert (
        done.stderr.count(
            "Home Assistant was not updated. The MQTT broker at 127.0.0.1:9 cannot be reached"
        )
        == 1
    )
    assert known.stack.run("monitor").stderr == ""


def test_the_metrics_are_printed(known):
    """Without any table in hosts.toml; and the dashboards."""
    known.stack.run("backup")
    done = known.stack.run("metrics")
    assert done.returncode == 0
    assert 'iotstack_backup_sets{vault="here"} 1' in done.stdout
    for source in ("prometheus", "influxdb"):
        assert json.loads(known.stack.run(f"metrics --dashboard {source}").stdout)["panels"]
    done = known.stack.run("metrics --dashboard x")
    assert done.returncode == 2
    assert "use one of influxdb, prometheus" in done.stderr
