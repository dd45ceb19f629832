"""A fault amid MariaDB, PostgreSQL and SQLite: a backup says what it lacks, a restore is undone.

Four faults of a restore and two of a backup are tried each time, some more by `inv test --long`,
and every way at every command with IOTSTACK_FULL_SWEEP=1.
"""

import contextlib
import json
import os
import re
import signal
import sqlite3
from pathlib import Path

import pytest
from database_images import load_databases
from databases import (
    ROOT_PASSWORDS,
    look_maria,
    look_postgres,
    maria,
    other_password,
    postgres,
    wait_maria,
    wait_postgres,
)
from owner import ALL_ENDINGS, inodes
from saboteur import RUNTAG, Saboteur, Scene, differing
from stand_machine import wait_for
from sweep import EVERY, FAILED, GOOD, LOCAL, WARNED, WAYS, Sweep

_COMPOSE = """
version: '3.6'
services:
  mariadb:
    container_name: mariadb
    image: "mariadb:stand"
    restart: unless-stopped
    environment:
      - PUID=1000
      - PGID=1000
      - MYSQL_ROOT_PASSWORD=${ROOT_PASSWORD}
      - MYSQL_DATABASE=default
      - MYSQL_USER=mariadbuser
      - MYSQL_PASSWORD=userPassword
    volumes: ["./volumes/mariadb/config:/config"]
  postgres:
    container_name: postgres
    image: "postgres:stand"
    restart: unless-stopped
    stop_signal: SIGINT
    environment: [POSTGRES_USER=postuser, POSTGRES_PASSWORD=x, POSTGRES_DB=postdb]
    volumes: ["./volumes/postgres/data:/var/lib/postgresql/data"]
  nodered:
    container_name: nodered
    image: "nodered:stand"
    restart: unless-stopped
    volumes: ["./volumes/nodered/data:/data"]
  asleep:
    container_name: asleep
    image: "nodered:stand"
"""
SQLITE = "volumes/nodered/data/sensors.db"
PARTS = ("general", "mariadb", "postgres")


class DatabaseScene(Scene):
    """A small stack with a MariaDB, a PostgreSQL and a SQLite file, and a folder as its vault."""

    compose, env = _COMPOSE, f"ROOT_PASSWORD='{ROOT_PASSWORDS['mariadb']}'\n"
    containers = ("mariadb", "postgres", "nodered")
    empty_folders = ("backups/influxdb/db",)
    written_alone = (
        "volumes/mariadb/config/databases",
        "volumes/mariadb/config/log",
        "volumes/postgres/data",
    )

    def __init__(self, pi, target):
        super().__init__(pi, target)
        self.vault = target.folder / "disk"
        self.vault.mkdir()
        os.chown(self.vault, 1000, 1000)
        with self.settings.open("a") as file:
            file.write(f'[[vaults]]\nname = "disk"\nkind = "folder"\nfolder = "{self.vault}"\n')

    def wait(self, timeout=60):
        """Wait until both servers answer."""
        wait_maria(self.target, timeout=timeout)
        wait_postgres(self.target, timeout=timeout)

    def _fill_databases(self):
        self.wait()
        maria(
            self.target,
            "CREATE DATABASE home; USE home; CREATE TABLE t AS SELECT seq FROM seq_1_to_500; "
            "CREATE USER anna IDENTIFIED BY 'geheim'; GRANT SELECT ON home.* TO anna",
        )
        postgres(
            self.target,
            "CREATE TABLE t AS SELECT * FROM generate_series(1, 500) n; CREATE DATABASE other; "
            "CREATE ROLE anna LOGIN PASSWORD 'geheim'; GRANT SELECT ON t TO anna",
        )
        self._write_sqlite("CREATE TABLE seen (n INT); INSERT INTO seen VALUES (1)")

    def _change_databases(self):
        maria(
            self.target,
            "INSERT INTO home.t VALUES (77); CREATE DATABASE later; DROP USER anna; "
            "CREATE USER bert",
        )
        postgres(self.target, "DELETE FROM t WHERE n > 7; DROP DATABASE other; CREATE ROLE bert")
        self._write_sqlite("INSERT INTO seen VALUES (2)")

    def _write_sqlite(self, sql):
        path = self.top / SQLITE
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.executescript(sql)
        os.chown(path, 1000, 1000)

    def is_restored(self, found):
        """Whether databases hold what the backup holds, and beside it what came since."""
        kept = {
            "mariadb account": "bert",
            "mariadb database": "later",
            "postgres ('', 'role')": "bert",
        }
        lost = {
            key: set(rows) - set(found[key])
            for key, rows in self.source.items()
            if set(rows) - set(found[key])
        }
        more = {
            key: set(found[key]) - set(rows)
            for key, rows in self.source.items()
            if set(found[key]) - set(rows)
        }
        assert lost == {}
        assert more.keys() == kept.keys(), more
        return all(kept[key] in str(rows) for key, rows in more.items())

    def look_into_databases(self):
        """All that both servers hold; the SQLite file is looked at as a file."""
        both = {"mariadb": look_maria(self.target), "postgres": look_postgres(self.target)}
        return {f"{name} {key}": rows for name, held in both.items() for key, rows in held.items()}


@pytest.fixture(scope="module")
def context(pi, databases):
    """The stack of all tests here."""
    made = DatabaseScene(pi, pi)
    yield made
    made.away()


@pytest.fixture(scope="module")
def here(context):
    """A sweep of restores to this machine."""
    with Saboteur(context.target) as saboteur:
        sweep = Sweep(context, saboteur)
        assert context.is_restored(sweep.new)
        yield sweep


@pytest.fixture(scope="module")
def there(stand, pi):
    """A sweep of restores to another machine over SSH."""
    target = stand.add("faulty-sql", engine=True)
    load_databases(target)
    context = DatabaseScene(pi, target)
    with Saboteur(target) as saboteur:
        yield Sweep(context, saboteur)
    context.away()


SAMPLES = {
    # name: way, words of the call at which it is met, what a person does then
    "the load fails": ("fail after", "exec iotstack-sql-alone", ""),
    "killed during the load": ("kill and act late", "exec iotstack-sql-alone", "undo"),
    "killed between two swaps": ("kill before", "volumes/postgres/data /", "undo"),
    "killed after the start": ("kill after", "docker start", "undo"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", SAMPLES)
def test_sample(here, name):
    """A fault of each kind ends in the old or the new stack: files, rows, users."""
    way, words, follow = SAMPLES[name]
    index = here.context.top / "volumes/mariadb/config/log/mysql/mariadb-bin.index"
    logs = index.read_bytes()
    here.meet(here.number_of(words), way, follow)
    if name == "the load fails":  # the live server shares no log, but began one when it started
        assert index.read_bytes().startswith(logs)
    here.context.clear()


@pytest.mark.long
@pytest.mark.parametrize("way", LOCAL)
def test_here(here, way):
    """A fault at any command that changes this machine ends in the old or the new stack."""
    here.try_all(way, here.numbers(way, 2 if way in EVERY else 6))


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_there(there, way):
    """A fault at any command that changes another machine ends in the old or the new stack."""
    there.try_all(way, there.numbers(way, 8))


def test_rehearsal(context):
    """Both dumps are loaded into servers of their own, and nothing of them stays."""
    code, said = context.run("rehearse", "--runtag", RUNTAG, "--at", "here")
    assert code == GOOD, said
    assert "was restored in a scratch folder" in said
    for title in ("MariaDB", "PostgreSQL"):
        assert re.search(
            rf"{title}: \d server.*, \d+ tables?, [\d,]+ rows loaded and counted", said
        )
    assert differing(context.old, context.look()) == {}
    assert context.leftovers() == []


# Faults of a backup.


def in_container(context, name, script, **kw):
    """Run a script in a container."""
    return context.target.run(["docker", "exec", "-i", name, "bash", "-c", script], **kw)


@contextlib.contextmanager
def dump_program(context, name, script):
    """The dump program of a container is a script, which finds the real one as $0.real."""
    program = {"mariadb": "mariadb-dump", "postgres": "pg_dumpall"}[name]
    path = in_container(context, name, f"command -v {program}").stdout.strip()
    put = f"mv {path} {path}.real && cat > {path} && chmod 755 {path}"
    in_container(context, name, put, input=f"#!/bin/bash\n{script}\n")
    try:
        yield
    finally:
        context.target.run(["docker", "start", name])
        in_container(context, name, f"mv {path}.real {path}; rm -f /tmp/reached")
        context.wait()


@contextlib.contextmanager
def little_room(context):
    """The dump of MariaDB is larger than the room on the disk of the backups; yields where they are seen."""
    run, backups, kept = (
        context.target.run,
        context.top / "backups",
        context.target.folder / "kept",
    )
    run(["mount", "-t", "tmpfs", "-o", "size=40m,uid=1000,gid=1000,mode=700", "tmpfs", backups])
    run(["cp", "-a", f"{context.saved}/backups/.", backups])
    try:
        with dump_program(context, "mariadb", "head -c 90000000 /dev/urandom"):
            yield Path(f"/proc/{context.target.pid}/root{backups}")
    finally:
        run(["cp", "-a", backups, kept])
        run(["umount", backups])
        run(["sh", "-c", f"mv {kept}/full.* {backups} && rm -r {kept}"])


def assert_incomplete(context, runtag, lacking, words, code, said, backups=None):
    """One part is lacking and the backup says why; the others are whole, here and in the vault."""
    assert code == FAILED, said
    assert words in said
    assert f"run the same command with --runtag '{runtag}'" in said
    backups = backups or context.top / "backups"
    manifest = json.loads((backups / f"{runtag}.manifest.json").read_text())
    assert manifest["state"] == "incomplete"
    assert [name for name in PARTS if manifest["parts"][name]["error"]] == [lacking]
    assert words in manifest["parts"][lacking]["error"]
    made = [f"{runtag}.{ALL_ENDINGS[name]}" for name in (*PARTS, "manifest") if name != lacking]
    for name in made:
        assert (backups / name).read_bytes() == (context.vault / name).read_bytes()
    assert not list(backups.glob("*.partial"))
    return inodes(*(folder / name for name in made[:-1] for folder in (backups, context.vault)))


def assert_whole(context, runtag, code, said):
    """A backup lacks nothing.

    A database that the last good set has, and that somebody dropped or emptied, is told, where
    there is such a set.
    """
    assert code in (GOOD, WARNED), said
    manifest = json.loads((context.vault / f"{runtag}.manifest.json").read_text())
    less = (
        "Missing: database other of container postgres",
        "Database postdb of container postgres",
        "volumes/new is missing now",
        ".env is missing now",
    )
    others = [each for each in manifest["warnings"] if not each.startswith(less)]
    assert not others
    assert manifest["state"] == ("warnings" if manifest["warnings"] else "complete")


def assert_mended(context, runtag, made):
    """The same command makes what was lacking, and nothing else."""
    assert_whole(context, runtag, *context.run("backup", "--runtag", runtag))
    assert inodes(*made) == made
    for path in (
        *(context.top / "backups").glob(f"{runtag}.*"),
        *context.vault.glob(f"{runtag}.*"),
    ):
        path.unlink()


CUT = 'head -c 2000 < <("$0.real" "$@")'
FAULTS = {
    # what: how it is brought about, the part that is lacking, words of the message
    "program killed": (
        lambda context: dump_program(context, "postgres", f"{CUT}; kill -9 $$"),
        "postgres",
        "The dump of PostgreSQL in container postgres failed (exit 137)",
    ),
    "cut": (
        lambda context: dump_program(context, "mariadb", CUT),
        "mariadb",
        "The dump of MariaDB in container mariadb is incomplete",
    ),
    "password": (
        lambda context: other_password(context.target),
        "mariadb",
        "MariaDB in container mariadb has another password",
    ),
    "full": (little_room, "mariadb", "No space left on device"),
}


@pytest.mark.parametrize(
    "what",
    [
        "program killed",
        "password",
        *(pytest.param(e, marks=pytest.mark.long) for e in ("cut", "full")),
    ],
)
def test_dump_that_fails(context, what):
    """A backup without one of its dumps names it, keeps the others, and is mended later."""
    fault, lacking, words = FAULTS[what]
    with fault(context) as backups:
        code, said = context.run("backup", "--runtag", what, "--jobs", "1")
        made = assert_incomplete(context, what, lacking, words, code, said, backups)
    assert_mended(context, what, {} if backups else made)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("mariadb", "stop"),
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in (("mariadb", "kill"), ("postgres", "kill"), ("postgres", "stop"))
        ),
    ],
)
def test_server_stopped_amid_its_dump(context, name, how):
    """A server that is stopped or killed during its dump costs its part and nothing else."""
    runtag = f"{how} {name}"
    with dump_program(context, name, f"{CUT}; touch /tmp/reached; sleep 60"):
        process = context.start("backup", "--runtag", runtag)
        there = ["docker", "exec", name, "test", "-e", "/tmp/reached"]
        wait_for("the dump", lambda: not context.target.run(there, check=False).returncode)
        context.target.run(["docker", how, name])
        code, said = context.end(process)
        made = assert_incomplete(
            context, runtag, name, f"in container {name} is stopped", code, said
        )
    assert_mended(context, runtag, made)


WAITING = {
    "mariadb": "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE '%metadata lock'",
    "postgres": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
}
LOCKS = {
    "mariadb": "LOCK TABLES home.t WRITE; SELECT SLEEP(600)",
    "postgres": "BEGIN; LOCK TABLE t; SELECT pg_sleep(600)",
}
LOCKED = {
    "mariadb": "SELECT COUNT(*) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(600)'",
    "postgres": "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
}
OWNERS_DUMPS = {
    "mariadb": "MYSQL_PWD=$MYSQL_ROOT_PASSWORD mariadb-dump -uroot --single-transaction home",
    "postgres": "pg_dump -U postuser postdb",
}


@contextlib.contextmanager
def locked(context):
    """A table of each server is locked, so that each dump waits."""
    process = context.target.popen(
        [
            "docker",
            "exec",
            "mariadb",
            "sh",
            "-c",
            f'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mariadb -uroot -e "{LOCKS["mariadb"]}"',
        ]
    )
    other = context.target.popen(
        ["docker", "exec", "postgres", "psql", "-U", "postuser", "postdb", "-c", LOCKS["postgres"]]
    )
    wait_for("the lock of MariaDB", lambda: int(maria(context.target, LOCKED["mariadb"])[0][0]))
    wait_for(
        "the lock of PostgreSQL", lambda: int(postgres(context.target, LOCKED["postgres"])[0][0])
    )
    try:
        yield
    finally:
        (row,) = maria(
            context.target,
            "SELECT id FROM information_schema.processlist WHERE info = 'SELECT SLEEP(600)'",
        )
        maria(context.target, f"KILL {row[0]}")
        postgres(
            context.target,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'",
        )
        process.end()
        other.end()


def waiting(context):
    """How many dumps wait in MariaDB and in PostgreSQL."""
    ((one,),) = maria(context.target, WAITING["mariadb"])
    ((other,),) = postgres(context.target, WAITING["postgres"])
    return int(one), int(other)


def test_dumps_end_with_their_run(context):
    """After SIGKILL by the next backup, after Ctrl-C at once; the owner's own dumps go on."""
    began = postgres(context.target, "SELECT pg_postmaster_start_time()")
    with locked(context):
        for name, script in OWNERS_DUMPS.items():
            words = ["docker", "exec", "-d", name, "sh", "-c", f"{script} > /dev/null"]
            context.target.run(words)
        wait_for("the owner's dumps", lambda: waiting(context) == (1, 1))
        process = context.start("backup", "--runtag", "dead", "--jobs", "3")
        wait_for("dumps", lambda: waiting(context) == (2, 2))
        process.send_signal(signal.SIGKILL)
        context.end(process)
        assert waiting(context) == (2, 2)
        process = context.start("backup", "--runtag", "next", "--jobs", "3")
        log = context.top / "backups/next.backup-log.txt.partial"

        def told():
            text = log.read_text() if log.exists() else ""
            return text.count("ended: a dump that went on in it after its run was killed") == 2

        wait_for("the end of the dead run's dumps", told)
        wait_for("the dumps of the next", lambda: waiting(context) == (2, 2))
        process.send_signal(signal.SIGINT)
        code, said = context.end(process)
        assert code == 130, said
        wait_for("the end of the dumps", lambda: waiting(context) == (1, 1))
    wait_for("the end of the owner's dumps", lambda: waiting(context) == (0, 0))
    assert postgres(context.target, "SELECT pg_postmaster_start_time()") == began
    for folder in (context.top / "backups", context.vault):
        for path in (*folder.glob("dead.*"), *folder.glob("next.*")):
            path.unlink()


@pytest.mark.long
def test_server_that_comes_back(context):
    """A server that dies during its dump and is started again by Docker costs a second try."""
    once = f'[ ! -e /tmp/done ] || exec "$0.real" "$@"; touch /tmp/done; {CUT}; touch /tmp/reached; sleep 60'
    with dump_program(context, "mariadb", once):
        process = context.start("backup", "--runtag", "back")
        there = ["docker", "exec", "mariadb", "test", "-e", "/tmp/reached"]
        wait_for("the dump", lambda: not context.target.run(there, check=False).returncode)
        pid = context.target.run(["docker", "inspect", "-f", "{{.State.Pid}}", "mariadb"]).stdout
        context.target.run(["kill", "-9", pid.strip()])
        assert_whole(context, "back", *context.end(process))
