"""Finds the stack's own Mosquitto and InfluxDB: the container, and how this machine reaches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...environment.environment import Environment, open_environment
from ...environment.stack_host import docker_words_if_any
from ...hosts.base import Command
from ...hosts.inspect import root_words_if_any
from ...hosts.json_answers import JsonAnswer, read_json
from ...monitoring.mqtt import Broker, connected
from ...services.known import Service
from ...settings.model import Settings
from ...stack.compose import inspect_all, of_stack

MOSQUITTO = "mosquitto"
"""Its name in the table of services."""
INFLUXDB = "influxdb"
"""Its kind of dump there: InfluxDB 1."""
INFLUXDB_PORT = 8086
LOOPBACK = "127.0.0.1"
ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - as Docker says that it is published
LIMIT_S = 20.0
"""How long each question to Docker may take."""


@dataclass(frozen=True, slots=True)
class StackServer:
    """A server in a container, and the environment variables of that."""

    container: str
    host: str
    port: int
    variables: Mapping[str, str]
    """They may be passwords."""


def find_broker(environment: Environment) -> Broker:
    """Return the broker of hosts.toml, or else the stack's own; raises StepFailed."""
    config = environment.settings.monitoring.mqtt
    assert config is not None  # noqa: S101 - who asks has the table
    if config.host:
        return Broker(config.host, config.port)
    found = own_broker(environment, config.port)
    if found is None:
        raise StepFailed(
            "The stack has no running container of Mosquitto. Start it, or set host of [mqtt] in "
            "hosts.toml."
        )
    return found


def own_broker(environment: Environment, port: int) -> Broker | None:
    """Return the stack's own Mosquitto; None if it does not run. Raises StepFailed."""
    server = _find(environment, lambda service: service.name == MOSQUITTO, MOSQUITTO, port)
    return Broker(server.host, server.port, server.container) if server else None


def try_own_broker(settings: Settings) -> Broker | None:
    """Log in to the stack's own Mosquitto as [mqtt] says; None if it does not run.

    Raises StepFailed if it refuses the login or does not answer. Nothing is published.
    """
    config = settings.monitoring.mqtt
    assert config is not None  # noqa: S101 - who asks has the table
    with open_environment(settings) as environment:
        broker = own_broker(environment, config.port)
    if broker:
        with connected(config, broker, config.password.read()):
            pass
    return broker


def find_influxdb(environment: Environment) -> StackServer:
    """Return the stack's own InfluxDB; raises StepFailed if it does not run."""
    name = environment.settings.influx.container
    server = _find(environment, lambda service: service.dump == INFLUXDB, name, INFLUXDB_PORT)
    if server is None:
        raise StepFailed(
            "The stack has no running container of InfluxDB 1. Start it, or set influxdb = false "
            "of [metrics] in hosts.toml."
        )
    return server


def _find(
    environment: Environment, is_it: Callable[[Service], bool], usual: str, port: int
) -> StackServer | None:
    """Return the running container of a service, and how to reach one of its ports.

    Of several, the one with the usual name.
    """
    host, stack = environment.host, environment.settings.stack
    as_root = root_words_if_any(host, sudo=stack.sudo)
    docker, why = docker_words_if_any(host, host.name, as_root)
    if why:
        raise StepFailed(f"{why} Without Docker, no container can be found.")
    table = environment.settings.table
    names = []
    for each in of_stack(inspect_all(host, docker, LIMIT_S), stack.folder):
        service = table.service_of(each.container)
        if each.container.running and service and is_it(service):
            names.append(each.container.name)
    if not names:
        return None
    name = usual if usual in names else names[0]
    words = (*docker, "inspect", "--type", "container", name)
    told = host.run(Command(words, timeout_s=LIMIT_S)).out
    return _reached(name, read_json(told, f"`docker inspect` on {host.name}").items()[0], port)


def _reached(name: str, told: JsonAnswer, port: int) -> StackServer:
    """Return a server by its published port, or else its own address.

    A container on the host's network has no address, and publishes nothing.
    """
    network = told["NetworkSettings"]
    variables = dict(each.partition("=")[::2] for each in told["Config"]["Env"].texts())
    for each in network["Ports"][f"{port}/tcp"].items(or_none=True):
        address, published = each["HostIp"].text(""), each["HostPort"].digits(0)
        if published:
            host = LOOPBACK if address in ANY_ADDRESS else address
            return StackServer(name, host, published, variables)
    addresses = [each["IPAddress"].text("") for each in network["Networks"].entries().values()]
    return StackServer(name, next(filter(None, addresses), LOOPBACK), port, variables)
