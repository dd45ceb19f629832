"""What several rooms' tests need: a scene for one step, a little stack, a clock that gives up."""

import contextlib
import hashlib
import io
import json
import os
import shlex
import socket
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import forks

from iotstack_invoke.backups.manifest import Manifest, Part, utc_text
from iotstack_invoke.backups.names import PARTS
from iotstack_invoke.engine.executor import Disks
from iotstack_invoke.engine.steps import File, Record


def last_noon(now):
    """Return the last noon that is over: what is made then is neither ahead nor a day too young."""
    noon = now.replace(hour=12, minute=0, second=0, microsecond=0)
    return noon if noon <= now else noon - timedelta(days=1)


NOON = last_noon(datetime.now().astimezone())
X10 = hashlib.sha256(b"x" * 10).hexdigest()
"""Of each archive of such a set."""


@dataclass
class PlainContext:
    """A scene without an engine: places by role, and everything that a step tells."""

    storages: dict
    heard: list = field(default_factory=list)
    said: list = field(default_factory=list)
    warned: list = field(default_factory=list)
    recorded: dict = field(default_factory=dict)
    known: dict = field(default_factory=dict)
    failed: dict = field(default_factory=dict)
    expected_bytes: int = 0
    moved_bytes: int = 0
    disks: Disks = field(default_factory=Disks)

    def storage(self, file):
        return self.storages[file.role]

    def host(self, role):
        return self.storages[role]

    def log_output(self, stream, line):
        self.heard.append((stream, line))

    def status(self, text):
        self.said.append(text)

    def warn(self, text):
        self.warned.append(text)

    def set_total(self, size_bytes):
        self.expected_bytes = size_bytes

    def advance(self, size_bytes):
        self.moved_bytes += size_bytes

    def reserve(self, look, size_bytes, *, for_all=False):
        return self.disks.keep(self, look, size_bytes)

    def record(self, output, **facts):
        self.recorded.setdefault(str(output), {}).update(facts)

    def records(self):
        return self.known

    def failures(self):
        return self.failed

    def once(self, what, act):
        act()

    def finished(self, file: File, **facts):
        """Let a file be known as finished."""
        self.known[str(file)] = Record(str(file), **facts)


def until(true, limit_s=60.0):
    """Wait until something is true; a file that is not there, or half written, is not yet."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            if true():
                return
        time.sleep(0.02)
    raise AssertionError(f"still not true after {limit_s} s")


def is_asleep(pid):
    """Tell whether a process waits for something, as for what a person types."""
    with open(f"/proc/{pid}/stat") as stream:
        return stream.read().rpartition(")")[2].split()[0] == "S"


def alive(pid):
    """Tell whether a process runs; one that only waits to be reaped does not."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def not_root(folder):
    """Let everybody reach a folder; return the words before a command that may not read all."""
    for each in folder.parents:
        if each.stat().st_uid == os.geteuid():
            each.chmod(each.stat().st_mode | 0o055)
    words = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    return words if os.geteuid() == 0 else ()


def put_set(
    folder,
    made,
    *,
    runtag="",
    host="",
    error="",
    warnings=(),
    size_bytes=10,
    more=None,
    machine="",
):
    """Put a set of one part into a folder, begun at `made` and finished at once.

    `more`: the facts of further parts by their kinds.
    """
    runtag = runtag or made.strftime("%Y-%m-%d_%H%M")
    archive = folder / f"{runtag}.general-backup.tar.gz"
    part = Part("general", archive.name, size_bytes, X10, error=error)
    times = (utc_text(made), utc_text(made))
    host = host or socket.gethostname()
    others = tuple(
        Part(kind, f"{runtag}.{PARTS[kind]}", 10, X10, facts=facts)
        for kind, facts in (more or {}).items()
    )
    manifest = Manifest(
        runtag, host, "", *times, "UTC", (part, *others), warnings=warnings, machine=machine
    )
    for each in (part, *others):
        (folder / each.file).write_bytes(b"x" * 10)
    path = folder / f"{runtag}.manifest.json"
    path.write_text(manifest.to_json())
    for each in (*(folder / e.file for e in (part, *others)), path):
        os.utime(each, (made.timestamp(), made.timestamp()))
    return path


def foreign_archive(size_bytes=10):
    """Return a general part as another tool makes it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        member = tarfile.TarInfo("./volumes/nodered/flows.json")
        member.size = size_bytes
        archive.addfile(member, io.BytesIO(os.urandom(size_bytes)))
    return made.getvalue()


class LittleStack:
    """A stack of a few files, with a Docker that knows no container, and the program for it."""

    before = ()
    """The words before the program, such as `unshare`."""

    def __init__(self, base):
        self.folder = base / "IOTstack"
        for each in ("services", "volumes/nodered"):
            (self.folder / each).mkdir(parents=True)
        (self.folder / "docker-compose.yml").write_text("services: {}\n")
        (self.folder / "volumes/nodered/flows.json").write_text("[]\n")
        self.tools = base / "tools"
        self.tools.mkdir()
        self.tool("docker", "exit 0")
        self.settings = base / "hosts.toml"
        self.settings.write_text(f'[stack]\nfolder = "{self.folder}"\nsudo = false\n')
        self.environment = {
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "HOME": str(base),
            "LANG": "C.UTF-8",
            "IOTSTACK_SETTINGS": str(self.settings),
        }
        if "TZ" in os.environ:  # its hours are those of the test
            self.environment["TZ"] = os.environ["TZ"]

    def tool(self, name, script):
        """Put a shell script before the program of that name."""
        (self.tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.tools / name).chmod(0o755)

    def runs(self, *, down=(), paused=(), mounts=None, wrote=None, **images):
        """Let Docker know containers by their images, each with its folder in volumes/.

        Those of `down` are stopped, those of `paused` stand still; `mounts` gives those of a container by its name, as pairs of
        a path (one of the stack begins with ./) and where it is in the container. `wrote` is what Docker tells of changes in
        their own layers, by their names.
        """
        mounts = mounts or {}
        told = "".join(
            f'"diff {name}") printf "%s\\n" {shlex.join(lines)} ;;\n'
            for name, lines in (wrote or {}).items()
        )
        found = [
            {
                "Id": name,
                "Name": f"/{name}",
                "Image": "sha256:aaa",
                "State": {"Running": name not in down, "Paused": name in paused},
                "Config": {
                    "Image": image,
                    "Labels": {"com.docker.compose.project.working_dir": str(self.folder)},
                },
                "Mounts": [
                    {"Source": str(self.folder / source), "Destination": inside}
                    for source, inside in mounts.get(name, [(f"./volumes/{name}", "/data")])
                ],
            }
            for name, image in images.items()
        ]
        for source, _ in (pair for pairs in mounts.values() for pair in pairs):
            path = self.folder / source
            if source.startswith("./") and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir() if not path.suffix else path.write_text("")
        for name, image in images.items():
            data = self.folder / "volumes" / name
            data.mkdir(exist_ok=True)
            (data / "data").write_text(image)
        (self.tools / "docker.json").write_text(json.dumps(found))
        up = ((f"/{name}", "exited" if name in down else "running") for name in images)
        states = "".join(f'{name} {{"Status": "{state}"}}\n' for name, state in up)
        (self.tools / "docker.states").write_text(states)
        self.tool(
            "docker",
            f"""case "$1 $2" in
{told}"ps --all") echo {" ".join(images)} ;;
"inspect --type") case "$5" in *.State*) cat "$0.states" ;; *) cat "$0.json" ;; esac ;;
"image inspect") echo '[]' ;;
"version --format") echo 28.2.2 ;;
"compose version") echo 'Docker Compose version v2.24.5' ;;
esac""",
        )

    def words(self, line):
        return [*self.before, sys.executable, "-m", "iotstack_invoke", *shlex.split(line)]

    def start(self, line, **given):
        """Start `iotstack LINE`."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(
            self.words(line), env=self.environment, text=True, **{**pipes, **given}
        )

    def run(self, line, limit_s=120):
        """Run `iotstack LINE` to its end."""
        if not self.before and forks.serves(self.environment):
            return forks.run(shlex.split(line), self.environment, limit_s=limit_s)
        return subprocess.run(
            self.words(line),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )

    def tree(self):
        """Return every path with its size and date."""
        found = {}
        for folder, names, files in os.walk(self.folder):
            for name in (*names, *files):
                status = os.lstat(f"{folder}/{name}")
                found[f"{folder}/{name}"] = (status.st_size, status.st_mtime_ns)
        return found
