"""Stacks as people post them, and the marks that are planted into whatever their containers keep.

    posted = Posted(pi, shape("weather"))
    posted.start()
    marks = posted.plant()
    code, said = posted.run("backup", "--runtag", "t")
    lost = [mark for mark in marks if not posted.packed(mark, "t")]

A mark is a token that occurs nowhere else: in a file, a SQLite file, or a table of a server.
"""

import contextlib
import gzip
import io
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import tarfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from database_images import INFLUX2_IMAGE
from owner import PROGRAM
from stand import INFLUX_IMAGE, OTHER_IMAGE, compose
from stand_machine import UIDS, USER, wait_for

HERE = Path(__file__).resolve().parent
SILENT = ("/dev", "/etc/localtime", "/proc", "/run", "/sys", "/var/run", "/var/lib/docker")
"""What services of no shape keep their data in."""
SQLITE_KEEPERS = ("grafana", "home-assistant", "homeassistant", "node-red", "nextcloud")
SERVERS = (  # what an image's name begins with, without registry; how it is played, and where not
    (r"(linuxserver/)?mariadb", "maria", "mariadb:stand"),
    (r"(iotstack[_-])?(gitea_db|mariadb|nextcloud_db|wordpress_db)", "maria", "mariadb:stand"),
    (r"mysql", "maria", "mysql:stand"),
    (r"postgres:18", "postgres", "postgres18:stand"),
    (r"postgres|timescale/timescaledb", "postgres", "postgres:stand"),
    (r"influxdb:2|influxdb2$", "", INFLUX2_IMAGE),
    (r"influxdb:(1\.|latest)", "influx", INFLUX_IMAGE),
)
MARIA = 'mariadb -uroot -p"$MYSQL_ROOT_PASSWORD" -h127.0.0.1 -NBe "$0"'
PSQL = 'psql -XqAt -h 127.0.0.1 -U "${POSTGRES_USER:-postgres}" -d "${POSTGRES_DB:-${POSTGRES_USER:-postgres}}" -c "$0"'


def shape(name, elsewhere="/nowhere"):
    """The text of a compose file as somebody posted it; paths outside the stack are below a folder."""
    return (HERE / f"shapes/{name}.yml").read_text().replace("ELSE", str(elsewhere))


@dataclass(frozen=True)
class Mark:
    """A token and where it was put; `names` are how a warning may call what holds it."""

    token: str
    kind: str
    names: tuple[str, ...]
    container: str = ""
    path: Path | None = None
    fact: tuple = field(default=(), compare=False)

    def __str__(self):
        return f"{self.kind} {self.path or self.container} ({self.token})"


class Posted:
    """A compose file that somebody posted, as a stack on a machine."""

    def __init__(
        self,
        machine,
        text,
        *,
        files=None,
        folders=("backups", "services", "volumes"),
        settings="",
        version=None,
        away=(),
        built=(),
        plays=None,
    ):
        self.machine, self.text, self.version = machine, text, version
        self.top = machine.home_of(USER) / "IOTstack"
        self.usb = machine.home_of(USER) / "usb"
        self.settings_file = machine.home_of(USER) / "hosts.toml"
        self.files, self.folders, self.settings = files or {}, folders, settings
        self.away = tuple(map(Path, away))
        self.built, self.plays = built, plays or {}
        self._count = 0
        self._archives = {}

    # Up and down.

    def lay_out(self):
        """Write the compose file and what it reads, each file with a mark; return those."""
        self.remove()
        named = re.findall(r"\./([\w./-]+\.(?:acl|conf|env))\b", self.text)
        texts = dict.fromkeys(named, "") | self.files
        marks = []
        for name, text in {"docker-compose.yml": self.text, ".env": "", **texts}.items():
            token = self._token()
            path = self.top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n# {token}\n")
            path.chmod(0o640)
            marks.append(Mark(token, "file", (name,), "", path))
        for name in self.folders:
            (self.top / name).mkdir(exist_ok=True)
        for path in (self.top, *self.top.rglob("*")):
            os.chown(path, UIDS[USER], UIDS[USER])
        self.set()
        return [_as_it_is(mark) for mark in marks]

    def set(self, text=""):
        """Write the settings: those of the shape, and more."""
        self.settings_file.write_text(f'[stack]\nfolder = "~/IOTstack"\n{self.settings}\n{text}')

    def start(self):
        """Start all containers and wait for the servers among them."""
        self.tag_images()
        self.compose("up", "-d")
        for container, kind in self.servers().items():
            self.wait(container, kind)

    def compose(self, *words, **kw):
        return compose(self.machine, *words, version=self.version, user=USER, **kw)

    def tag_images(self):
        """Give the engine an image of each name that the compose file uses."""
        words = []
        named = re.findall(r"\bimage\"?:\s*\"?([^\s\",}]+)", self.text)
        for image in sorted({*named, *self.built}):
            words += [self._played_by(image)[1], image]
        script = 'while [ $# -gt 0 ]; do docker tag "$1" "$2" || exit; shift 2; done'
        self.machine.run(["sh", "-c", script, "sh", *words])

    def _played_by(self, image):
        return ("", self.plays[image]) if image in self.plays else played_by(image)

    def inspect(self):
        """All containers of the machine, as the engine tells of them."""
        ids = self.machine.run(["docker", "ps", "-aq"]).stdout.split()
        told = self.machine.run(["docker", "inspect", *ids]).stdout if ids else "[]"
        return {each["Name"].lstrip("/"): each for each in json.loads(told)}

    def servers(self):
        """The containers that are real servers, with which one."""
        kinds = {
            name: self._played_by(each["Config"]["Image"])[0]
            for name, each in self.inspect().items()
        }
        return {name: kind for name, kind in kinds.items() if kind}

    def remove(self):
        """Leave nothing of it: no container, no named volume, no file of the stack or outside it."""
        words = "docker ps -aq | xargs -r docker rm -fv; docker volume ls -q | xargs -r docker volume rm -f"
        self.machine.run(["sh", "-c", f"{words}; docker network prune -f"])
        for folder in (self.top, *self.away):
            shutil.rmtree(folder, ignore_errors=True)

    def carry_away(self, runtag):
        """Move a set to a stick, and leave the machine bare; return the folder of the stick."""
        shutil.rmtree(self.usb, ignore_errors=True)
        self.usb.mkdir()
        for path in (self.top / "backups").glob(f"{runtag}.*"):
            shutil.copy2(path, self.usb)
        for path in (self.usb, *self.usb.iterdir()):
            os.chown(path, UIDS[USER], UIDS[USER])
        self.remove()
        self.top.mkdir()
        os.chown(self.top, UIDS[USER], UIDS[USER])
        return self.usb

    def run(self, *words, timeout=300, **env):
        """Run the program; return how it ended and what it said."""
        env = {"IOTSTACK_SETTINGS": str(self.settings_file), **env}
        words = [*PROGRAM, *words]
        done = self.machine.run(words, user=USER, env=env, check=False, timeout=timeout)
        said = f"{done.stdout}{done.stderr}"
        assert "Traceback" not in said, said
        return done.returncode, said

    def start_program(self, *words):
        """Start the program, and do not wait for it."""
        env = {"IOTSTACK_SETTINGS": str(self.settings_file)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return self.machine.popen([*PROGRAM, *words], user=USER, env=env, **quiet)

    # Servers.

    def ask(self, container, kind, statement, *, check=True):
        """Ask a server something from inside of its container."""
        scripts = {"maria": MARIA, "postgres": PSQL, "influx": _INFLUX}
        words = ["docker", "exec", "-i", container, "sh", "-c", scripts[kind], statement]
        return self.machine.run(words, check=check, timeout=60)

    def wait(self, container, kind):
        """Wait until the real server answers, not the temporary one of a first start."""
        first = {
            "maria": "SELECT 1",
            "postgres": "SELECT 1",
            "influx": "CREATE USER \"someone\" WITH PASSWORD 'Secret1@' WITH ALL PRIVILEGES",
        }[kind]
        wait_for(
            container,
            lambda: not self.ask(container, kind, first, check=False).returncode,
            timeout=60,
            pause=0.3,
        )

    # Marks.

    def _token(self):
        self._count += 1
        return f"mark{self._count:03}of{os.urandom(4).hex()}"

    def plant(self):
        """Put a mark into each server, and into whatever else a container can write."""
        marks, seen = [], set()
        for name, told in sorted(self.inspect().items()):
            kind, _ = self._played_by(told["Config"]["Image"])
            if kind:
                marks.append(self._plant_row(name, kind, told["Mounts"]))
            for mount in told["Mounts"]:
                source = Path(mount["Source"])
                if not mount["RW"] or source in seen or _is_in(str(source), *SILENT):
                    continue
                seen.add(source)
                if source.is_dir() and not (kind and _is_data(kind, mount["Destination"])):
                    marks += self._plant_files(name, told["Config"]["Image"], mount)
        return marks

    def _plant_row(self, container, kind, mounts):
        token = self._token()
        statements = {
            "maria": f"CREATE DATABASE IF NOT EXISTS marks; CREATE TABLE marks.{token} AS SELECT '{token}' AS a",
            "postgres": f"CREATE TABLE {token} AS SELECT '{token}' AS a",
            "influx": f"INSERT {token},a={token} value=1",
        }
        if kind == "influx":
            self.ask(container, kind, "CREATE DATABASE marks")
        self.ask(container, kind, statements[kind])
        names = [name for mount in mounts for name in self._names_of(mount)]
        return Mark(token, kind, (container, *names), container)

    def _names_of(self, mount):
        """How a warning may call what a container mounts."""
        folder = Path(mount["Source"])
        if folder.is_relative_to(self.top):
            yield str(folder.relative_to(self.top))
        if mount.get("Name"):
            yield from (mount["Name"], f"{mount['Destination']} of")
        yield str(folder)

    def _plant_files(self, container, image, mount):
        folder = Path(mount["Source"])
        names = (*self._names_of(mount), container)
        kinds = ["file"] + ["sqlite"] * any(word in image for word in SQLITE_KEEPERS)
        for kind in kinds:
            token = self._token()
            path = folder / f"{token}.{kind}"
            if kind == "sqlite":
                with contextlib.closing(sqlite3.connect(path)) as database:
                    database.execute("CREATE TABLE marks (a TEXT)")
                    database.execute("INSERT INTO marks VALUES (?)", (token,))
                    database.commit()
            else:
                path.write_text(token)
            os.chown(path, 1000 + self._count, 2000 + self._count)
            path.chmod(0o640)
            yield _as_it_is(Mark(token, kind, names, container, path))

    def packed(self, mark, runtag):
        """The part whose archive holds a mark, or ''."""
        for part, content in self._contents(runtag).items():
            if mark.token.encode() in content:
                return part
        return ""

    def _contents(self, runtag):
        if runtag not in self._archives:
            paths = sorted((self.top / "backups").glob(f"{runtag}.*.tar*"))
            self._archives[runtag] = {path.name: b"\n".join(_unpacked(path)) for path in paths}
        return self._archives[runtag]

    def named(self, mark, runtag, said):
        """Whether a loss is named in the manifest's warnings and in what the backup said.

        What a default leaves out is named in the manifest alone.
        """
        manifest = json.loads((self.top / f"backups/{runtag}.manifest.json").read_text())
        warnings = "\n".join(manifest["warnings"])
        if any(name in warnings and name in said for name in mark.names):
            return "warned"
        places = [os.path.relpath(mark.path, self.top)] if mark.path else mark.names
        for what, why in _left_out(manifest):
            if any(_is_in(place, what) for place in places):
                return why
        return ""

    def back(self, mark, source=None):
        """What is not as it was of a mark after a restore; '' if all is.

        `source` is the machine where it was planted, if not this one.
        """
        if mark.kind in ("maria", "postgres", "influx"):
            asked = {
                "maria": f"SELECT a FROM marks.{mark.token}",  # noqa: S608 - a test's own names
                "postgres": f"SELECT a FROM {mark.token}",  # noqa: S608 - a test's own names
                "influx": f'SELECT * FROM marks.autogen."{mark.token}"',  # noqa: S608 - a test's own names
            }
            done = self.ask(mark.container, mark.kind, asked[mark.kind], check=False)
            return "" if mark.token in done.stdout else f"{done.stdout}{done.stderr}"
        if source:
            path = self.machine.folder / mark.path.relative_to(source.folder)
            mark = replace(mark, path=path)
        mark = self._where_it_is_now(mark)
        if not mark.path.exists():
            return "it is missing"
        if (now := _as_it_is(mark).fact) != mark.fact:
            return f"{now}, not {mark.fact}"
        if mark.kind == "sqlite":
            with contextlib.closing(sqlite3.connect(mark.path)) as database:
                return (
                    ""
                    if database.execute("SELECT a FROM marks").fetchall() == [(mark.token,)]
                    else "other rows"
                )
        return "" if mark.token in mark.path.read_text() else "other content"

    def _where_it_is_now(self, mark):
        """The mark in the volume that its container has in the place of one without a name."""
        folder = str(mark.path.parent)
        if not re.search(r"/[0-9a-f]{64}/_data$", folder) or mark.container not in self.inspect():
            return mark
        inside = next(name.removesuffix(" of") for name in mark.names if name.endswith(" of"))
        mounts = self.inspect()[mark.container]["Mounts"]
        source = next(each["Source"] for each in mounts if each["Destination"] == inside)
        return replace(mark, path=Path(source, mark.path.name))


_INFLUX = 'influx -username someone -password Secret1@ -database marks -execute "$0"'


def played_by(image):
    """Which server an image's name means, '' for none, and the image that plays it."""
    plain = re.sub(r"^(docker\.io|ghcr\.io|[\w.]+\.\w+)/", "", image)
    for pattern, kind, plays in SERVERS:
        if re.match(f"({pattern})", plain):
            return kind, plays
    return "", OTHER_IMAGE


def _is_data(kind, inside):
    """Whether a server of a kind keeps its live files at a place in its container."""
    places = {
        "maria": ("/config", "/var/lib/mysql"),
        "postgres": ("/var/lib/postgresql",),
        "influx": ("/var/lib/influxdb",),
    }
    return _is_in(inside, *places[kind])


def _is_in(path, *folders):
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _as_it_is(mark):
    status = mark.path.stat()
    fact = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    return Mark(mark.token, mark.kind, mark.names, mark.container, mark.path, fact)


def _unpacked(path):
    """Yield the bytes of each file of an archive, and of the archives and the gzips in it."""
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isreg():
                yield from _opened(archive.extractfile(member).read())


def _opened(content):
    if content[:2] == b"\x1f\x8b":
        with contextlib.suppress(OSError, EOFError, zlib.error):
            content = gzip.decompress(content)
    yield content
    if content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:
                if member.isreg():
                    yield archive.extractfile(member).read()


def _left_out(manifest):
    """Yield what a manifest says is left out, as a path, and why."""
    for each in manifest["left_out"]:
        what, why = each if isinstance(each, list) else each.values()
        yield what.removesuffix("/*"), why
