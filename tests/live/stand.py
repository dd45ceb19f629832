"""The stand: a Raspberry Pi with a running IOTstack, and a NAS that is its vault, both real.

    with Stand() as stand:
        make_iotstack(stand.pi)
        compose_up(stand.pi)

By hand: `python tests/live/stand.py up` (as root).
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rootfs import accounts, cached, import_image, rootfs_tar
from stand_machine import (
    PATH,
    UIDS,
    USER,
    Machine,
    Switch,
    check_programs,
    remove_cgroups,
)

HERE = Path(__file__).resolve().parent
INFLUX_IMAGE, OTHER_IMAGE = "influxdb:1.6", "nodered:stand"
NO_NEXTCLOUD = """[[services]]
name = "nextcloud"
kind = "skip"
reason = "the containers of its folder are gone"
"""
"""In hosts.toml, or each backup of the stack would end with 3: its folder is in no part."""
SERVICES = ("influxdb", "nodered", "mosquitto", "grafana")
DOORS = {  # the names of the vault for ssh: alias -> (port, login)
    "nas": (22, "root"),
    "nas-user": (22, USER),
    "nas-sftp": (2022, "root"),
    "nas-scp": (2023, "root"),
}

PLUGINS = ".docker/cli-plugins"
"""Where Docker looks for Compose 2, below a home."""
IDLE = ["sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait; done"]
_SYSTEM_V2 = (
    "/usr/libexec/docker/cli-plugins/docker-compose",
    "/usr/lib/docker/cli-plugins/docker-compose",
)


# The parts that are made once and kept: the images' files and the second Compose.


def _rootfs():
    """The tar of the images' root folder."""
    folders = {"var/lib/influxdb": 0o755}
    files = accounts() | {"etc/influxdb.conf": ((HERE / "influxdb.conf").read_bytes(), 0o644)}
    return rootfs_tar("rootfs", ["influxd", "influx"], folders=folders, files=files)


def find_compose_v2():
    """The path of the Compose plugin (the system's, or Debian trixie's package), or None."""
    for path in map(Path, _SYSTEM_V2):
        if path.exists():
            return path
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return cached("docker-compose-v2", _fetch_compose_v2)
    return None


def _fetch_compose_v2(part):
    """Take the plugin out of trixie's package, without a trace in this system's apt."""
    with tempfile.TemporaryDirectory(prefix="iotstack-stand-apt-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        key = "/usr/share/keyrings/debian-archive-keyring.gpg"
        source = f"deb [signed-by={key}] http://deb.debian.org/debian trixie main\n"
        (folder / "sources.list").write_text(source)
        for made in ("lists/partial", "cache/archives/partial"):
            (folder / made).mkdir(parents=True)
        options = [
            f"Dir::Etc::SourceList={folder}/sources.list",
            "Dir::Etc::SourceParts=/dev/null",
            f"Dir::State::Lists={folder}/lists",
            f"Dir::Cache={folder}/cache",
            "APT::Sandbox::User=root",
        ]
        apt = ["apt-get", "-qq", *[word for option in options for word in ("-o", option)]]
        for argv in (
            [*apt, "update"],
            [*apt, "download", "docker-compose"],
            ["sh", "-c", "dpkg -x docker-compose_*.deb unpacked"],
        ):
            subprocess.run(argv, check=True, cwd=folder, capture_output=True, timeout=300)
        plugin = folder / "unpacked/usr/libexec/docker/cli-plugins/docker-compose"
        shutil.copy2(plugin, part)


# An IOTstack: its files, its containers.


def make_iotstack(machine, folder=None, *, user=None):
    """Lay out an IOTstack at HOME/IOTstack (or `folder`); the user, or root, owns what is his."""
    top = Path(folder or machine.home_of(user) / "IOTstack")
    owner = UIDS[user]
    files = {
        ".env": "TZ=Etc/UTC\nGRAFANA_PASSWORD=s3cret\n",
        "docker-compose-override.yml": "services: {}\n",
        "menu.sh": "#!/bin/sh\necho menu\n",
        "services/nodered/Dockerfile": "FROM nodered/node-red:latest\n",
        "services/nodered/build.py": "# made by the menu\n",
        "services/mosquitto/filter.acl": "topic readwrite #\n",
    }
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    shutil.copyfile(HERE / "docker-compose.yml", top / "docker-compose.yml")
    (top / ".env").chmod(0o600)
    (top / "menu.sh").chmod(0o755)
    (top / "backups/influxdb/db").mkdir(parents=True)
    for path in (top, *top.rglob("*")):
        os.chown(path, owner, owner)
    _make_volumes(top / "volumes", owner)
    return top


def _make_volumes(volumes, owner):
    """Fill the volumes with what real ones hold, and with what breaks backups."""

    def put(name, content=b"", *, uid=0, mode=0o644):
        path = volumes / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        os.chown(path, uid, uid)
        return path

    put("nodered/data/flows.json", b'[{"id": "a1", "type": "tab"}]', uid=owner)
    put("nodered/data/flows_cred.json", b'{"$": "secret"}', uid=owner, mode=0o600)
    put("nodered/data/node_modules/x/index.js", b"module.exports = {}\n", uid=owner)
    put("nodered/ssh/known_hosts", uid=owner)
    put("mosquitto/config/mosquitto.conf", b"listener 1883\n", uid=1883)
    put("mosquitto/pwfile/pwfile", b"hub:$7$101$x\n", uid=1883, mode=0o600)
    put("mosquitto/data/mosquitto.db", os.urandom(5000), uid=1883, mode=0o600)
    put("mosquitto/log/mosquitto.log", b"started\n", uid=1883)
    put("grafana/log/grafana.log", b"started\n", uid=472)
    put("grafana/data/plugins/.keep", uid=472)
    with contextlib.closing(sqlite3.connect(put("grafana/data/grafana.db", uid=472))) as db:
        db.execute("create table dashboard (id integer primary key, title text)")
        db.executemany("insert into dashboard (title) values (?)", [("Küche",), ("Solar",)])
        db.commit()

    html = volumes / "nextcloud/html"
    put("nextcloud/html/config/config.php", b"<?php\n", uid=33, mode=0o640)
    put("nextcloud/html/data/anna/files/Fotos/Großmutter 1950.jpg", os.urandom(100_000), uid=33)
    put("nextcloud/html/data/anna/files/two\nlines", b"newline", uid=33)
    put("nextcloud/html/data/anna/files/ leading and trailing ", b"spaces", uid=33)
    put("nextcloud/html/data/anna/files/-rf", b"dash", uid=33)
    put("nextcloud/html/data/anna/files/'$(id)\"`*?\\", b"shell", uid=33)
    put("nextcloud/html/data/anna/files/empty", uid=33)
    put(os.fsdecode(b"nextcloud/html/data/anna/files/latin1-\xe9"), b"not UTF-8", uid=33)
    sparse = put("nextcloud/html/data/sparse.img", uid=33)
    os.truncate(sparse, 5_000_000)
    first = put("nextcloud/html/data/first", b"one inode, two names", uid=33)
    (html / "data/second").hardlink_to(first)
    (html / "data/current").symlink_to("first")
    (html / "data/absolute").symlink_to("/etc/hostname")
    (html / "data/broken").symlink_to("no such file")
    (html / "data/empty folder").mkdir()
    (html / "data/shared").mkdir()
    os.chown(html / "data/shared", 33, 1000)
    (html / "data/shared").chmod(0o2775)
    os.setxattr(first, "user.comment", "Bär".encode())
    os.utime(first, ns=(1_000_000_000_123_456_789, 1_000_000_000_123_456_789))
    (volumes / "influxdb/data").mkdir(parents=True)
    for folder, uid in {"mosquitto": 1883, "grafana": 472, "nextcloud": 33}.items():
        for path in (volumes / folder, *(volumes / folder).rglob("*")):
            if path.is_dir() and not path.is_symlink() and path.name != "shared":
                os.chown(path, uid, uid)


def compose(machine, *words, version=None, folder=None, user=None, check=True):
    """Run `docker-compose` (1) or `docker compose` (2; where it is there) on a user's IOTstack."""
    if version is None:
        version = 2 if (machine.home_of(user) / PLUGINS / "docker-compose").exists() else 1
    program = ["docker-compose"] if version == 1 else ["docker", "compose"]
    top = folder or machine.home_of(user) / "IOTstack"
    for attempt in range(10):
        done = machine.run([*program, *words], user=user, cwd=top, check=False, timeout=180)
        # For a moment after a container is gone, a busy engine still counts it into its network;
        # sometimes for ever.
        found = re.search(r"network (\S+) id \w+ has active endpoints", done.stdout + done.stderr)
        if not check or not found:
            break
        if attempt > 1:
            disconnect_the_gone(machine, found[1])
        time.sleep(0.5)
    # A network that stays for ever is the engine's mistake; the next `up` uses it again.
    assert not (check and done.returncode) or found, f"{words}: {done.stdout}{done.stderr}"
    return done


def disconnect_the_gone(machine, network):
    """Take out of a network what the engine counts into it and has no container for any more."""
    form = "{{range .Containers}}{{.Name}} {{end}}"
    told = machine.run(["docker", "network", "inspect", "--format", form, network]).stdout
    there = machine.run(["docker", "ps", "--all", "--format", "{{.Names}}"]).stdout.split()
    for name in set(told.split()) - {*there}:
        words = ["docker", "network", "disconnect", "--force", network, name]
        machine.run(words, check=False)


def compose_up(machine, *services, version=None, folder=None, user=None):
    """Start the stack (or some services of it) and wait until InfluxDB answers."""
    compose(machine, "up", "-d", *services, version=version, folder=folder, user=user)
    if not services or "influxdb" in services:
        wait_ping(machine)


def compose_down(machine, *, version=None, folder=None, user=None):
    """Stop the stack and remove its containers."""
    compose(machine, "down", version=version, folder=folder, user=user)


def fresh_iotstack(machine, *, version=None, user=None):
    """Remove all containers and both users' IOTstacks; lay out a new one and start it."""
    remove_iotstack(machine)
    top = make_iotstack(machine, user=user)
    compose_up(machine, version=version, user=user)
    return top


def remove_iotstack(machine):
    """Remove all containers and both users' IOTstacks."""
    machine.run(["sh", "-c", "docker ps -aq | xargs -r docker rm -f; docker network prune -f"])
    for who in (None, USER):
        shutil.rmtree(machine.home_of(who) / "IOTstack", ignore_errors=True)


# InfluxDB: over HTTP, from inside the machine's network.

_ASK = """
import socket, sys, time
def ask(way, url, body=b"", limit_s=60):
    path = url.removeprefix("http://127.0.0.1:8086")
    head = f"{way} {path} HTTP/1.0\\r\\nHost: localhost\\r\\nContent-Length: {len(body)}\\r\\n"
    head += "Content-Type: application/x-www-form-urlencoded\\r\\n\\r\\n"
    with socket.create_connection(("127.0.0.1", 8086), timeout=limit_s) as line:
        line.sendall(head.encode() + body)
        told, _, answer = b"".join(iter(lambda: line.recv(65536), b"")).partition(b"\\r\\n\\r\\n")
    status = told.partition(b"\\r\\n")[0].decode()
    if status.split()[1:2] not in (["200"], ["204"]):
        raise OSError(f"{status or 'no answer'} {answer.decode()}")
    return answer
"""
"""Python's own ways to ask over HTTP take six times as long to start as to ask."""
_HTTP = f"""{_ASK}
try:
    sys.stdout.buffer.write(ask("POST", sys.argv[1], sys.stdin.buffer.read()))
except OSError as error:
    sys.exit(str(error))
"""
_PING = f"""{_ASK}
end = time.monotonic() + float(sys.argv[1])
while True:
    try:
        ask("GET", "/ping", limit_s=2)
        break
    except OSError as error:
        if time.monotonic() > end:
            sys.exit(f"no answer to /ping: {{error}}")
        time.sleep(0.02)
"""


def _python(machine, script, *words, **kw):
    return machine.run([sys.executable, "-I", "-S", "-c", script, *words], **kw).stdout


def wait_ping(machine, timeout=60):
    """Wait until InfluxDB answers on the published port."""
    _python(machine, _PING, str(timeout), timeout=timeout + 10)


def query(machine, *statements):
    """Run InfluxQL statements; for each one the list of its series (dicts with name, values)."""
    if not statements:
        return []
    from urllib.parse import urlencode

    url = "http://127.0.0.1:8086/query?" + urlencode({"epoch": "ns"})
    body = urlencode({"q": "; ".join(statements)})
    results = json.loads(_python(machine, _HTTP, url, input=body))["results"]
    for statement, result in zip(statements, results, strict=True):
        if "error" in result:
            raise AssertionError(f"{statement}: {result['error']}")
    return [result.get("series", []) for result in results]


def write_points(machine, database, *points, rp=None):
    """Make a database and write points into it, given as lines of the line protocol."""
    from urllib.parse import urlencode

    query(machine, f'CREATE DATABASE "{database}"')
    where = urlencode({"db": database} | ({"rp": rp} if rp else {}))
    url = f"http://127.0.0.1:8086/write?{where}"
    _python(machine, _HTTP, url, input="\n".join(points))


def count_points(machine):
    """Count field values: {(database, retention policy, measurement): count}, without _internal."""
    (databases,) = query(machine, "SHOW DATABASES")
    names = [row[0] for row in databases[0].get("values", []) if row[0] != "_internal"]
    policies = query(machine, *[f'SHOW RETENTION POLICIES ON "{name}"' for name in names])
    pairs = [
        (name, row[0])
        for name, series in zip(names, policies, strict=True)
        for row in series[0].get("values", [])
    ]
    counted = query(machine, *[f'SELECT COUNT(*) FROM "{db}"."{rp}"./.*/' for db, rp in pairs])  # noqa: S608 - a test's own names
    return {
        (db, rp, one["name"]): sum(value or 0 for value in one["values"][0][1:])
        for (db, rp), series in zip(pairs, counted, strict=True)
        for one in series
    }


# The stand itself.


def _sweep():
    """Remove the folders of stands whose test run was killed (their processes ended with it)."""
    for folder in Path(tempfile.gettempdir()).glob("iotstack-stand-[0-9]*-*"):
        if not Path("/proc", folder.name.split("-")[2]).exists():
            remove_cgroups(f"{folder.name}-*")
            shutil.rmtree(folder, ignore_errors=True)


class Stand:
    """A `pi` (engine, images, sshd) and a `nas` (three sshds) on one wire; all gone at the end."""

    def __enter__(self):
        check_programs()
        self._stack = contextlib.ExitStack()
        try:
            self._build()
        except BaseException:
            self.stop()
            raise
        return self

    def _build(self):
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"iotstack-stand-{os.getpid()}-"))
        self._stack.callback(shutil.rmtree, self.folder)
        self.folder.chmod(0o755)
        self._hosts = self.folder / "hosts"
        self._hosts.write_text("127.0.0.1 localhost\n")
        self._switch = Switch(self.folder)
        self._stack.callback(self._switch.stop)
        self._machines = 0
        self.compose_v2 = find_compose_v2()
        self.pi = self.add("pi", engine=True)
        self.nas = self.add("nas")
        self.nas.serve_ssh(2022, "sftp")
        self.nas.serve_ssh(2023, "scp")
        self.pi.may_log_in_to(self.nas, DOORS)

    def add(self, name, *, engine=False, shared=False):
        """Make one more machine, with an sshd on port 22 and perhaps a Docker engine."""
        self._machines += 1
        address = f"10.77.0.{10 + self._machines}"
        made = (self._switch, self.folder / name, self._hosts)
        machine = Machine(name, address, *made, shared=shared)
        self._stack.callback(machine.stop)
        machine.serve_ssh()
        if engine:
            machine.start_engine()
            self._load_images(machine)
            for who in (None, USER):
                plugins = machine.home_of(who) / PLUGINS
                machine.run(["mkdir", "-p", plugins], user=who)
                if self.compose_v2:
                    (plugins / "docker-compose").symlink_to(self.compose_v2)
        return machine

    @staticmethod
    def _load_images(machine):
        influxd = ["/usr/bin/influxd", "-config", "/etc/influxdb.conf"]
        for image, command in {INFLUX_IMAGE: influxd, OTHER_IMAGE: IDLE}.items():
            import_image(machine, _rootfs(), image, cmd=command)

    def stop(self):
        """End every process of the stand and remove its folder; safe to call twice."""
        self._stack.close()

    def __exit__(self, *error):
        self.stop()


def main():
    """Bring up a stand with a running IOTstack, say how to enter, and wait for Ctrl-C or EOF."""
    if sys.argv[1:] != ["up"]:
        sys.exit("usage: stand.py up")
    with Stand() as stand, contextlib.suppress(KeyboardInterrupt):
        make_iotstack(stand.pi)
        compose_up(stand.pi)
        for machine in (stand.pi, stand.nas):
            env = ["env", "-i", f"HOME={machine.home}", f"PATH={PATH}", "TERM=xterm", "bash", "-l"]
            print(f"{machine.name}: {shlex.join([*machine.enter(), *env])}", flush=True)
        print("On pi: ssh nas | sftp nas-sftp | scp -O FILE nas-scp: | sudo -u iotpi -i")
        print("Ctrl-C or end of input stops it all.", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
