"""An InfluxDB 1.x container on a host: its files, and a temporary server without clients.

The catalogue and the files are read from disk: no query, so no password, is needed.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...engine.steps import HostStep, StepContext
from ...hosts.base import ANY_EXIT, Command, Host
from ...hosts.inspect import read_bytes
from ...hosts.json_answers import read_json
from ...stack.isolated import OUR_LABEL, remove_ours
from ...stack.stop_start import STOP_LIMIT_S
from .dump import BACKUP_INSIDE, DATA_INSIDE, wait_for_ping
from .meta import Catalogue, read_meta_db

ALONE = "iotstack-influxdb-alone"
"""The container that dumps or loads data and that no client reaches."""
FRESH = "iotstack-influxdb-fresh"
"""The same, on new data: it is started while the other still runs."""
ALONE_SETTINGS = (
    f"INFLUXDB_META_DIR={DATA_INSIDE}/meta",
    f"INFLUXDB_DATA_DIR={DATA_INSIDE}/data",
    f"INFLUXDB_DATA_WAL_DIR={DATA_INSIDE}/wal",
    "INFLUXDB_HTTP_AUTH_ENABLED=false",
    "INFLUXDB_MONITOR_STORE_ENABLED=false",
    "INFLUXDB_CONTINUOUS_QUERIES_ENABLED=false",
    "INFLUXDB_RETENTION_ENABLED=false",
)
"""It uses the mounted data, needs no password, and changes no data by itself."""
KEPT_SETTINGS = "INFLUXDB_DATA_"
"""The environment variables that define how data are stored; the others may be passwords."""
_TSM = re.compile(r"/(\d+)/(\d+-\d+\.tsm)\b(?!\.)")
INSPECT_FORM = '["{{.Image}}", "{{.Config.User}}", {{json .Config.Env}}]'


@dataclass(frozen=True, slots=True)
class Server:
    """The InfluxDB container that a dump is loaded into."""

    container: str
    data: str
    """Its folder on the host that is mounted as /var/lib/influxdb."""
    apart: tuple[tuple[str, str], ...] = ()
    """Its folders (meta, data, wal) that have mounts of their own, each with its path."""
    within: bool = False
    """Its catalogue is inside the container, or in a volume that is removed with it: `data` is
    only for the load."""

    def folder(self, name: str) -> str:
        """Return the path of its meta, data or wal on the host."""
        return dict(self.apart).get(name) or posixpath.join(self.data, name)

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders on the host that remain after the load."""
        return (*(() if self.within else (self.data,)), *(path for _, path in self.apart))


@dataclass(frozen=True, slots=True)
class RunIsolated(HostStep):
    """Run an InfluxDB on the data folder of a container, unreachable for clients.

    A client that creates its database during a load makes InfluxDB refuse the whole dump. So a
    second container of the same image loads it: without published ports, on no network of the
    stack, without passwords. Undo removes the container.
    """

    journaled_as = "RunAlone"

    container: str
    alone: str
    data: str
    dumps: str
    image: str = ""
    """The image to run if the container does not exist; its settings are then the image's own."""
    volumes: tuple[str, ...] = ()
    """Folders of the data with other mounts, as Docker takes them:
    `/disk/wal:/var/lib/influxdb/wal`."""

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(self._command(self.image or "image-of-" + self.container, "", ())),)

    def _command(self, image: str, user: str, settings: tuple[str, ...]) -> Command:
        words = (
            *("run", "--detach", "--name", self.alone, "--label", OUR_LABEL),
            *("--network", "bridge"),
            *(() if self.image else ("--volumes-from", self.container)),
            *("--volume", f"{self.data}:{DATA_INSIDE}"),
            *(word for each in self.volumes for word in ("--volume", each)),
            *("--volume", f"{self.dumps}:{BACKUP_INSIDE}"),
            *(("--user", user) if user else ()),
            *(word for each in (*settings, *ALONE_SETTINGS) for word in ("--env", each)),
            image,
        )
        return self.access.guarded_docker(*words, timeout_s=STOP_LIMIT_S)

    def do(self, context: StepContext) -> None:
        """Start it with the image and the data settings of the container."""
        host = self.access.host(context)
        self.undo(host)
        if self.image:
            host.run(self._command(self.image, "", ()), context.log_output)
            return
        words = (*self.access.docker, "inspect", "--type", "container", "--format", INSPECT_FORM)
        told = host.run(Command((*words, self.container))).out
        image, user, settings = read_json(told, f"`docker inspect` on {host.name}").items(3)
        kept = tuple(each for each in settings.texts() if each.startswith(KEPT_SETTINGS))
        host.run(self._command(image.text(), user.text(), kept), context.log_output)

    def undo(self, host: Host) -> None:
        """Remove it, whether it runs or not, if this tool created it."""
        remove_ours(host, self.access, self.alone)


@dataclass(frozen=True, slots=True)
class WaitForInflux(HostStep):
    """Wait until a server answers, and check that it holds only the databases to keep."""

    server: Server
    must_be_empty: bool = True
    stays: tuple[str, ...] = ()

    def commands(self) -> tuple[str, ...]:
        """Return the query."""
        return (f"GET /ping of container {self.server.container}",)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed if it does not answer in time, or has other databases."""
        host = self.access.host(context)
        wait_for_ping(host, self.server.container, self.access.docker)
        if not self.must_be_empty:
            return
        catalogue = server_catalogue(host, self.server, self.access.as_root)
        others = [each for each in catalogue.names if each not in self.stays]
        if others:
            raise StepFailed(
                f"Container {self.server.container} has databases before anything was loaded: "
                f"{', '.join(others)}. InfluxDB would then load nothing. Does its image create "
                "one at start?"
            )


def server_catalogue(host: Host, server: Server, as_root: tuple[str, ...]) -> Catalogue:
    """Return the contents of the server's own meta.db; raises StepFailed if it cannot be read."""
    path = posixpath.join(server.folder("meta"), "meta.db")
    content = read_bytes(host, path, as_root)
    try:
        return read_meta_db(content)
    except ValueError as error:
        raise StepFailed(f"Could not read {path} on {host.name}: {error}.") from error


def tsm_files(
    host: Host, server: Server, as_root: tuple[str, ...], *, at_work: bool = False
) -> Mapping[int, Mapping[str, int]]:
    """Return the TSM files on the server's disk by shard id, each with its size.

    `at_work`: files may disappear while they are listed.
    """
    folder = server.folder("data")
    words = ("find", folder, "-name", "*.tsm", "-printf", "%s %p\\0")
    files: dict[int, dict[str, int]] = {}
    accept = frozenset({0, 1} if at_work else {0})
    for each in host.run(Command((*as_root, *words), accept, 600)).out.split("\0"):
        size, _, path = each.partition(" ")
        place, name = posixpath.split(path)
        shard = posixpath.basename(place)
        if shard.isdigit():
            files.setdefault(int(shard), {})[name] = int(size)
    return files


def merged_files(
    host: Host, server: Server, docker: tuple[str, ...]
) -> frozenset[tuple[int, str]]:
    """Return the TSM files that, by its log, a server merges: shard id and name."""
    told = host.run(Command((*docker, "logs", server.container), ANY_EXIT, 600))
    lines = (*told.out.splitlines(), *told.err.splitlines())
    found = (each for line in lines if "ompacting" in line for each in _TSM.finditer(line))
    return frozenset((int(each[1]), each[2]) for each in found)


def quoted(name: str) -> str:
    """Return a name as InfluxQL writes it."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def influx_words(server: Server, docker: tuple[str, ...], text: str) -> Command:
    """Return the command that makes a server execute a statement."""
    words = (*docker, "exec", server.container, "influx", "-execute", text)
    return Command(words, ANY_EXIT, 600)


def ask_influx(host: Host, server: Server, docker: tuple[str, ...], text: str) -> None:
    """Make a server execute a statement; raises StepFailed if that fails."""
    told = host.run(influx_words(server, docker, text))
    said = (told.out, *told.err.splitlines())  # besides errors, sudo or Docker may print a message
    if told.exit_code or any(each.startswith("ERR") for each in said):
        raise StepFailed(f"InfluxDB failed `{text}`: {told.last_line}")
