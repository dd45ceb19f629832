"""The demo: a sample stack is backed up, broken, and restored from its copy in a vault.

If Docker has an influxdb 1.x image, the stack is a real one. It leaves nothing behind, and does
not see other stacks: its project has a name of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import datetime

from ..backups.manifest import Manifest, read_manifest
from ..backups.names import KINDS
from ..core.dataclass import dataclass
from ..core.errors import ExitCode, IotstackError, StepFailed
from ..core.runtag import default_runtag
from ..databases.influxdb.dump import BACKUP_INSIDE
from ..hosts.base import ANY_EXIT, Command
from ..hosts.json_answers import JsonAnswer, read_json
from ..hosts.local import LocalHost
from ..reporting.report import Report, size_text
from ..settings.model import Exclusion, Influx, Options, Settings, StackConfig, VaultConfig
from ..stack.compose import compose_words, inspect_all, named
from .backup.backup import back_up

INFLUX_SERVICE = """\
  influxdb:
    container_name: {container}
    image: {image}
    user: "{user}"
    volumes:
      - ./volumes/influxdb/data:/var/lib/influxdb
      - ./backups/influxdb/db:/var/lib/influxdb/backup
"""
EMPTY_SERVICE = """\
  empty:
    container_name: {container}-empty
    image: {image}
    user: "{user}"
    volumes:
      - ./volumes/empty/data:/var/lib/influxdb
      - ./volumes/empty/dump:/var/lib/influxdb/backup
"""
POINTS = 5000
ROWS = 2000
WRITE_PAUSE_S = 0.01
DATABASE = "volumes/grafana/data/grafana.db"
READY_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class _Sample:
    """The sample stack, its vault, and its contents before it was broken."""

    folder: str
    vault: str
    hashes: dict[str, str]


def show_demo(report: Report) -> int:
    """Run the demo, print the results, and return 0, or 1 if a check failed."""
    report.live = True
    report.write("Demo: back up a sample IOTstack, break it, and restore it from its vault.")
    with _without_compose_variables(), tempfile.TemporaryDirectory(prefix="iotstack-demo-") as top:
        try:
            return _demo(top, report)
        except (IotstackError, OSError, subprocess.SubprocessError) as error:
            report.fail(f"The demo failed: {error}")
            return ExitCode.FAILED


@contextlib.contextmanager
def _without_compose_variables() -> Iterator[None]:
    """Run the block without the owner's compose variables for the real stack, such as its name."""
    theirs = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("COMPOSE_")}
    try:
        yield
    finally:
        os.environ.update(theirs)


def _demo(top: str, report: Report) -> int:
    # Compose names a project after its folder: `IOTstack` would be the owner's.
    sample = _make_sample(f"{top}/iotstack-demo-{secrets.token_hex(4)}", f"{top}/vault")
    report.write(f"1. A sample stack of {len(sample.hashes)} files is in {sample.folder}.")
    with _influx(sample, report) as container:
        settings = Settings(
            stack=StackConfig(
                sample.folder,
                sudo=False,
                exclusions=(Exclusion("volumes/empty/*", "the demo's second InfluxDB"),),
            ),
            influx=Influx(container or "iotstack-demo-none"),
            vaults=(VaultConfig("vault", sample.vault),),
        )
        runtag = default_runtag(datetime.now().astimezone())
        report.write(f"2. inv backup --runtag {runtag}, while Grafana writes into its database")
        with _grafana_writes(f"{sample.folder}/{DATABASE}"):
            code = back_up(settings, runtag, Options(), report)
        if code not in (ExitCode.GOOD, ExitCode.WARNINGS):  # a warning: Docker cannot be queried
            return code
        if code == ExitCode.WARNINGS:
            report.write("  The warnings are about this machine. The demo continues.")
        shutil.rmtree(f"{sample.folder}/volumes/nodered")
        with open(f"{sample.folder}/{DATABASE}", "r+b") as database:
            database.truncate(1000)
        report.write("3. Broken: Node-RED's folder is gone, Grafana's database is cut.")
        report.write("4. From the copies in the vault:")
        manifest = _prove_copies(sample.vault, runtag, report)
        _prove_files(sample, runtag, top, report)
        if container:
            _prove_points(sample, runtag, container, report)
    taken = sum(part.size_bytes for part in manifest.made)
    size = size_text(taken)
    report.write(f"5. The whole backup is verified, from {size}. The demo's files are removed.")
    return ExitCode.GOOD


def _make_sample(folder: str, vault: str) -> _Sample:
    """Make a stack with the layout of IOTstack's menu."""
    texts = {
        "docker-compose.yml": "services:\n  nodered:\n    image: nodered/node-red\n",
        ".env": "TZ=Etc/UTC\nMARIADB_ROOT_PASSWORD=example\n",
        "services/nodered/Dockerfile": "FROM nodered/node-red\n",
        "volumes/nodered/data/flows.json": json.dumps(
            [{"id": f"{n:016x}", "type": "mqtt in", "topic": f"home/{n}"} for n in range(500)]
        ),
        "volumes/nodered/data/settings.js": "module.exports = { flowFile: 'flows.json' }\n",
        "volumes/mosquitto/config/mosquitto.conf": "listener 1883\nallow_anonymous false\n",
        "volumes/mosquitto/pwfile/pwfile": "nodered:$7$101$example\n",
    }
    for name, text in texts.items():
        os.makedirs(os.path.dirname(f"{folder}/{name}"), exist_ok=True)
        with open(f"{folder}/{name}", "w", encoding="utf-8") as stream:
            stream.write(text)
    os.makedirs(f"{folder}/volumes/grafana/data")
    database = sqlite3.connect(f"{folder}/{DATABASE}")
    with contextlib.closing(database), database:
        database.execute("CREATE TABLE dashboard (id INTEGER PRIMARY KEY, title TEXT)")
        titles = ((f"Room {number}",) for number in range(ROWS))
        database.executemany("INSERT INTO dashboard (title) VALUES (?)", titles)
    os.makedirs(vault)
    return _Sample(folder, vault, _hashes(folder))


@contextlib.contextmanager
def _grafana_writes(path: str) -> Iterator[None]:
    """Commit rows into a database while the block runs."""
    over = threading.Event()

    def write() -> None:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
            while not over.wait(WRITE_PAUSE_S):
                with database:
                    database.execute("INSERT INTO dashboard (title) VALUES ('written meanwhile')")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


def _hashes(folder: str) -> dict[str, str]:
    """Return the SHA-256 of each file that a backup must restore unchanged."""
    found = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            inside = os.path.relpath(path, folder)
            if inside != DATABASE and not inside.startswith(("volumes/influxdb", "backups")):
                with open(path, "rb") as stream:
                    found[inside] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def _prove_copies(vault: str, runtag: str, report: Report) -> Manifest:
    with open(f"{vault}/{runtag}.{KINDS['manifest']}", encoding="utf-8") as stream:
        manifest = read_manifest(stream.read())
    for part in manifest.made:
        with open(f"{vault}/{part.file}", "rb") as copy:
            if hashlib.file_digest(copy, "sha256").hexdigest() != part.sha256:
                raise StepFailed(f"{part.file} differs from the manifest.")
        report.write(f"  ✓ {part.file}: its SHA-256 is the manifest's")
    return manifest


def _prove_files(sample: _Sample, runtag: str, top: str, report: Report) -> None:
    """Unpack the copy with plain tar, and compare every file."""
    back = f"{top}/back"
    os.makedirs(back)
    archive = f"{sample.vault}/{runtag}.{KINDS['general']}"
    subprocess.run(("tar", "-xzf", archive, "-C", back), check=True)
    found = _hashes(back)
    lost = [name for name, digest in sample.hashes.items() if found.get(name) != digest]
    if lost:
        raise StepFailed(f"Not restored: {', '.join(lost)}.")
    report.write(f"  ✓ plain tar restores {len(sample.hashes)} files, byte for byte")
    database = sqlite3.connect(f"{back}/{DATABASE}")
    with contextlib.closing(database):
        (sound,) = database.execute("PRAGMA integrity_check").fetchone()
        (rows,) = database.execute("SELECT count(*) FROM dashboard").fetchone()
    if sound != "ok":
        raise StepFailed(f"Grafana's database is damaged: {sound}.")
    if rows < ROWS:
        raise StepFailed(f"Grafana's database has {rows} rows of {ROWS}.")
    report.write(f"  ✓ Grafana's database is intact: {ROWS} rows, {rows - ROWS} written meanwhile")


@contextlib.contextmanager
def _influx(sample: _Sample, report: Report) -> Iterator[str]:
    """Run a real InfluxDB in the sample stack during the block; yield its container, or ''."""
    host = LocalHost(sample.folder)
    image, why = _find_image(host)
    if not image:
        report.write(f"  Without InfluxDB, which the demo does not need: {why}")
        yield ""
        return
    container = os.path.basename(sample.folder)
    user = f"{os.getuid()}:{os.getgid()}"
    for name in ("volumes/influxdb/data", "backups/influxdb/db", "volumes/empty/data"):
        os.makedirs(f"{sample.folder}/{name}")
    os.makedirs(f"{sample.folder}/volumes/empty/dump")
    both = INFLUX_SERVICE + EMPTY_SERVICE
    services = both.format(container=container, image=image, user=user)
    with open(f"{sample.folder}/docker-compose.yml", "w", encoding="utf-8") as stream:
        stream.write(f'version: "3.6"\nservices:\n{services}')
    sample.hashes.update(_hashes(sample.folder))
    compose = (
        *compose_words(host),
        "--project-directory",
        sample.folder,
        "--file",
        f"{sample.folder}/docker-compose.yml",
        "--project-name",
        container,
    )
    try:
        host.run(Command((*compose, "up", "--detach"), timeout_s=300))
        at = _address(host, container)
        _wait(at)
        _ask(at, "CREATE DATABASE home")
        lines = "\n".join(f"climate,room=r{n % 7} t={n % 30} {n}000000000" for n in range(POINTS))
        _post(f"{at}/write?db=home", lines.encode())
        report.write(f"  A real InfluxDB ({image}) holds {POINTS} points.")
        yield container
    finally:
        host.run(Command((*compose, "down", "--volumes"), accept=ANY_EXIT, timeout_s=120))


def _find_image(host: LocalHost) -> tuple[str, str]:
    """Return an InfluxDB 1.x image of this machine, or why there is none."""
    told = host.run(
        Command(
            ("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "influxdb"),
            accept=ANY_EXIT,
        )
    )
    if told.exit_code:
        return "", f"there is no Docker engine here ({told.last_line})."
    images = [line for line in told.out.split() if line.startswith("influxdb:1")]
    return (images[0], "") if images else ("", "no image here. Optional: docker pull influxdb:1.8")


def _prove_points(sample: _Sample, runtag: str, container: str, report: Report) -> None:
    """Load the copy into an empty server, and count."""
    host = LocalHost(sample.folder)
    with tarfile.open(f"{sample.vault}/{runtag}.{KINDS['influx']}") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content:
                path = f"{sample.folder}/volumes/empty/dump/{os.path.basename(member.name)}"
                with open(path, "wb") as target:
                    shutil.copyfileobj(content, target)
    empty = f"{container}-empty"
    at = _address(host, empty)
    _wait(at)
    host.run(Command(("docker", "exec", empty, "influxd", "restore", "-portable", BACKUP_INSIDE)))
    counted = 0
    deadline = time.monotonic() + READY_LIMIT_S
    while counted != POINTS and time.monotonic() < deadline:
        # influxd restore returns before the server has loaded the shards
        told = _ask(at, "SELECT count(t) FROM home.autogen.climate")
        (result,) = told["results"].items(1)
        rows = [
            row for each in result["series"].items(or_none=True) for row in each["values"].items()
        ]
        counted = rows[0].items(2)[1].number() if rows else 0
        time.sleep(0.2)
    if counted != POINTS:
        raise StepFailed(f"{counted} of {POINTS} points came back.")
    report.write(f"  ✓ an empty InfluxDB took the dump in: {counted} of {POINTS} points")


def _address(host: LocalHost, container: str) -> str:
    found = named(inspect_all(host), container)
    if found is None or not found.address:
        raise StepFailed(f"Container {container} did not start.")
    return f"http://{found.address}:8086"


def _wait(at: str) -> None:
    deadline = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{at}/ping", timeout=5),  # noqa: S310 - our own container
        ):
            return
        time.sleep(0.2)
    raise StepFailed(f"InfluxDB at {at} does not answer.")


def _post(url: str, body: bytes) -> bytes:
    try:
        with urllib.request.urlopen(url, body, timeout=30) as answer:  # noqa: S310
            data: bytes = answer.read()
            return data
    except urllib.error.HTTPError as error:
        raise StepFailed(f"{url}: {error.read().decode()}") from error


def _ask(at: str, query: str) -> JsonAnswer:
    body = urllib.parse.urlencode({"q": query}).encode()
    return read_json(_post(f"{at}/query", body), "InfluxDB")
