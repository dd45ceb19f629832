"""Small stacks that were backed up badly once: each with what is right for its kind."""

import contextlib
import json
import os
import sqlite3
import tarfile
from datetime import UTC, datetime

import pytest
from database_images import load_databases
from marks import Posted
from saboteur import Saboteur
from stand_machine import UIDS, USER, wait_for

IDLE = "nodered:stand"


@pytest.fixture
def stack(pi, databases):
    """Make a stack of the services of a compose file; it is gone afterwards."""
    made = []

    def make(text, *, start=True, files=None, machine=pi, **kw):
        outside = [machine.home_of(USER) / name for name in ("elsewhere", "git", "ssd")]
        made.append(Posted(machine, text.replace("IDLE", IDLE), files=files, away=outside, **kw))
        made[-1].lay_out()
        if start:
            made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.remove()


def put(path, text):
    """Write a file of the user's, and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for each in (path.parent, path):
        os.chown(each, UIDS[USER], UIDS[USER])


def members(stack, part, runtag="t"):
    """The members of a part of a set by their names, without the dot before."""
    with tarfile.open(stack.top / f"backups/{runtag}.{part}") as archive:
        return {member.name.removeprefix("./"): member for member in archive}


def manifest(stack, runtag="t"):
    return json.loads((stack.top / f"backups/{runtag}.manifest.json").read_text())


def good(stack, *words):
    """Run the program; it must end well. Return what it said."""
    code, said = stack.run(*words)
    assert code == 0, said
    return said


def bare_restore(stack, expected=0):
    """Restore the set t onto the machine after all of the stack was taken away from it."""
    usb = stack.carry_away("t")
    code, said = stack.run("restore", "--runtag", "t", "--from", str(usb), "--yes")
    assert code == expected, said
    for container, kind in stack.servers().items():
        stack.wait(container, kind)
    return said


NODERED = """\
services:
  one:
    container_name: nodered
    image: IDLE
    volumes: ["./volumes/nodered:/data"]
"""


# Data outside of services/ and volumes/.

OUTSIDE = """\
services:
  one:
    container_name: home_assistant
    image: IDLE
    volumes: ["./homeassistant:/config"]
  two:
    container_name: nodered
    image: IDLE
    volumes: ["data:/data"]
volumes: {data: {}}
"""


def test_a_folder_beside_volumes_and_a_named_volume(stack):
    """Both are in the set and are back on a bare machine, and no warning is needed."""
    posted = stack(OUTSIDE)
    marks = posted.plant()
    assert {mark.container for mark in marks} == {"home_assistant", "nodered"}
    good(posted, "backup", "--runtag", "t")
    assert {mark.container for mark in marks if posted.packed(mark, "t")} == {
        "home_assistant",
        "nodered",
    }
    assert manifest(posted)["warnings"] == []
    bare_restore(posted)
    assert {str(mark): why for mark in marks if (why := posted.back(mark))} == {}


def test_what_an_owner_without_sudo_may_not_read_is_named(stack, pi):
    """A named volume, and a path that hosts.toml includes; the rest is a good backup."""
    elsewhere = pi.home_of(USER) / "elsewhere"
    text = OUTSIDE.replace('["data:/data"]', f'["data:/data", "{elsewhere}:/e"]')
    posted = stack(text)
    put(posted.top / "homeassistant/mine", "mine")
    pi.run(["docker", "exec", "nodered", "sh", "-c", "echo mine > /data/mine"])
    pi.run(["chmod", "0700", elsewhere])  # Docker made it, so it is root's
    posted.set(f'sudo = false\n[[stack.include]]\npath = "{elsewhere}"\n')
    code, said = posted.run("backup", "--runtag", "t")
    assert code == 3, said
    assert {"homeassistant/mine"} <= set(members(posted, "general-backup.tar.gz"))
    warnings = manifest(posted)["warnings"]
    whats = ("volume:iotstack_data", str(elsewhere))
    assert [each.partition(", which")[0] for each in warnings] == [
        f"NOT COVERED: {each}" for each in whats
    ]
    assert "may not read it; with sudo = true in hosts.toml, root reads it" in said
    for words, code in {"services": 3, "doctor": 0}.items():
        ended, told = posted.run(words)
        assert all(each in told for each in whats), told
        assert ended == code, told
    posted.set(f'[[stack.include]]\npath = "{elsewhere}"\n')
    good(posted, "services")


IN_LAYER = """\
  three:
    container_name: grafana
    image: IDLE
  four:
    container_name: web
    image: my/app
volumes:"""


def test_what_is_in_no_part_is_named_by_all(stack, pi):
    """A folder outside of the stack, and what containers wrote into their own layers."""
    elsewhere = pi.home_of(USER) / "elsewhere/zigbee"
    text = OUTSIDE.replace("./homeassistant:/config", f"{elsewhere}:/config")
    posted = stack(text.replace("\nvolumes:", f"\n{IN_LAYER}"))
    write = "mkdir -p $1; echo mark > $1/mark"
    for name, folder in {"grafana": "/var/lib/grafana", "web": "/app"}.items():
        pi.run(["docker", "exec", name, "sh", "-c", write, "sh", folder])
    in_layer = "its data in /var/lib/grafana are inside the container"
    hint = "wrote 1 file or folder into its own layer, such as /app/mark"
    for words, code in {("backup", "--runtag", "t"): 3, ("services",): 3, ("doctor",): 0}.items():
        ended, said = posted.run(*words)
        assert str(elsewhere) in said, words
        assert in_layer in said, words
        assert (hint in said) == (words[0] != "backup"), words
        assert "NOT COVERED" in said or "not covered" in said, words
        assert ended == code, (words, said)
    for what in (str(elsewhere), in_layer):
        assert any(what in each for each in manifest(posted)["warnings"])
    assert hint in (posted.top / "backups/t.backup-log.txt").read_text()


# Containers of no project.


SEEN = """\
services:
  one:
    container_name: nodered
    image: IDLE
    volumes: ["./volumes/nodered:/data", "./late:/late", "./one.json:/one.json"]
"""


def test_what_a_container_writes_where_nobody_sees_it(stack, pi):
    """A folder or file that was replaced, a drive that came late: named, and not once it is well."""
    it = stack(SEEN, files={"volumes/nodered/a": "a\n", "late/b": "b\n", "one.json": "{}\n"})
    good(it, "backup", "--runtag", "before")
    # As an editor saves it: nobody wrote to the old one since.
    pi.run(["sh", "-c", "cp one.json new; sleep 0.1; touch new; mv new one.json"], cwd=it.top)
    good(it, "backup", "--runtag", "edited")
    pi.run(["sh", "-c", "mv volumes/nodered old; mkdir volumes/nodered"], cwd=it.top)
    pi.run(["mount", "-t", "tmpfs", "tmpfs", it.top / "late"])
    write = "sleep 0.1; for f in /data/x /late/x /one.json; do echo mark > $f; done"
    pi.run(["docker", "exec", "nodered", "sh", "-c", write])
    try:
        code, said = it.run("backup", "--runtag", "t")
        assert code == 3, said
        for what, inside in (
            ("volumes/nodered", "/data"),
            ("late", "/late"),
            ("one.json", "/one.json"),
        ):
            assert f"container nodered does not see {what} at {inside}: it was replaced" in said
    finally:
        pi.run(["umount", it.top / "late"])
    pi.run(["docker", "restart", "-t", "1", "nodered"])
    good(it, "backup", "--runtag", "after")


def test_a_database_that_docker_run_made(stack, pi):
    """It is dumped as any other of the stack, in the manifest, and loaded by a restore."""
    posted = stack(NODERED)
    folder = posted.top / "volumes/mariadb"
    words = ["docker", "run", "-d", "--name", "mariadb", "-e", "MYSQL_ROOT_PASSWORD=x"]
    pi.run([*words, "-v", f"{folder}:/config", "mariadb:stand"])
    posted.wait("mariadb", "maria")
    row = next(mark for mark in posted.plant() if mark.kind == "maria")
    said = good(posted, "services")
    assert "no container uses it" not in said
    good(posted, "backup", "--runtag", "t")
    assert posted.packed(row, "t") == "t.mariadb-backup.tar.gz"
    assert not [name for name in members(posted, "general-backup.tar.gz") if "ibdata1" in name]
    assert "mariadb" in [each["name"] for each in manifest(posted)["containers"]]
    posted.ask("mariadb", "maria", "DROP DATABASE marks")
    good(posted, "restore", "--runtag", "t", "--from", "here", "--yes")
    assert posted.back(row) == ""


# Files that compose reads.

READS = """\
include: [parts/mqtt.yaml]
services:
  one:
    container_name: nodered
    image: IDLE
    env_file: [env/one.env, .env.local]
    secrets: [pw]
    volumes: ["./volumes/nodered:/data", "./one.conf:/etc/one.conf:ro"]
secrets: {pw: {file: ./secrets/pw}}
"""
READ_FILES = {
    "parts/mqtt.yaml": "services:\n  two:\n    image: nodered:stand\n",
    "env/one.env": "A=1\n",
    ".env.local": "B=2\n",
    "secrets/pw": "x\n",
    "one.conf": "x\n",
}


def test_files_that_compose_reads(stack, stand):
    """They are in the set, and a bare machine brings the stack up with them."""
    if stand.compose_v2 is None:
        pytest.skip("docker-compose 1 knows no include")
    posted = stack(READS, files=READ_FILES, version=2)
    good(posted, "backup", "--runtag", "t")
    assert set(READ_FILES) <= set(members(posted, "general-backup.tar.gz"))
    bare_restore(posted)
    assert len(posted.inspect()) == 2
    (nodered,) = (each for name, each in posted.inspect().items() if name == "nodered")
    assert {"A=1", "B=2"} <= set(nodered["Config"]["Env"])


@pytest.mark.parametrize("version", [1, 2])
def test_compose_files_of_other_names(stack, stand, version):
    """COMPOSE_FILE in .env says which they are: a bare machine brings all of their services up."""
    if version == 2 and stand.compose_v2 is None:
        pytest.skip("no Compose v2")
    files = {
        ".env": "COMPOSE_FILE=docker-compose.yml:more/extra.yaml\nNAME=second\n",
        "more/extra.yaml": (
            f"version: '2'\nservices:\n  two:\n    image: {IDLE}\n    container_name: $NAME\n"
            '    volumes: ["./volumes/second:/data"]\n'
        ),
    }
    posted = stack("version: '2'\n" + NODERED, files=files, version=version)
    marks = posted.plant()
    assert {mark.container for mark in marks} == {"nodered", "second"}
    good(posted, "backup", "--runtag", "t")
    assert manifest(posted)["unused"] == []
    bare_restore(posted)
    assert {name for name, each in posted.inspect().items() if each["State"]["Running"]} == {
        "nodered",
        "second",
    }
    assert {str(mark): why for mark in marks if (why := posted.back(mark))} == {}


BUILT = """\
services:
  mosquitto:
    container_name: mosquitto
    build: {context: ./.templates/mosquitto/.}
    volumes: ["./volumes/mosquitto/config:/mosquitto/config"]
"""


BUILT_IMAGES = "docker images -q 'iotstack[-_]mosquitto' | xargs -r docker rmi -f"


@pytest.mark.parametrize("version", [1, 2])
def test_an_image_that_is_built(stack, pi, stand, version):
    """What it is built from is in the set; a machine that has no such image builds it."""
    if version == 2 and stand.compose_v2 is None:
        pytest.skip("no Compose v2")
    files = {".templates/mosquitto/Dockerfile": f"FROM {IDLE}\n"}
    posted = stack(BUILT, files=files, version=version)
    good(posted, "backup", "--runtag", "t")
    assert ".templates/mosquitto/Dockerfile" in members(posted, "general-backup.tar.gz")
    usb = posted.carry_away("t")
    pi.run(["sh", "-c", BUILT_IMAGES])
    said = good(posted, "restore", "--runtag", "t", "--from", str(usb), "--yes")
    told = said.index("services whose image must be built: mosquitto")
    assert told < said.index("t is restored")
    assert posted.inspect()["mosquitto"]["State"]["Running"]
    posted.remove()
    pi.run(["sh", "-c", BUILT_IMAGES])


# A service's folder is a link.


def test_a_service_folder_that_is_a_link(stack, pi):
    """What the link leads to is packed, with its SQLite file, and is back on a bare machine."""
    text = """\
services:
  one:
    container_name: grafana
    image: IDLE
    volumes: ["./volumes/grafana/data:/var/lib/grafana"]
"""
    posted = stack(text, start=False)
    ssd = pi.home_of(USER) / "ssd/grafana"
    put(ssd / "data/dashboard.json", "mine")
    with contextlib.closing(sqlite3.connect(ssd / "data/grafana.db")) as database:
        database.execute("CREATE TABLE t (a)")
    os.chown(ssd / "data/grafana.db", 1000, 1000)
    (posted.top / "volumes/grafana").symlink_to(ssd)
    posted.start()
    good(posted, "backup", "--runtag", "t")
    good(posted, "verify", "--runtag", "t", "--at", "here")
    bare_restore(posted)
    assert (posted.top / "volumes/grafana/data/dashboard.json").read_text() == "mine"
    with contextlib.closing(
        sqlite3.connect(posted.top / "volumes/grafana/data/grafana.db")
    ) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]


# The compose file is a link.


def test_a_compose_file_that_is_a_link(stack, pi):
    """Backup, verify, rehearse and restore judge it alike, and its text is back."""
    posted = stack(NODERED, start=False)
    git = pi.home_of(USER) / "git/stack.yml"
    put(git, NODERED.replace("IDLE", IDLE))
    (posted.top / "docker-compose.yml").unlink()
    (posted.top / "docker-compose.yml").symlink_to(git)
    posted.start()
    good(posted, "backup", "--runtag", "t")
    good(posted, "verify", "--runtag", "t", "--at", "here")
    good(posted, "rehearse", "--runtag", "t", "--at", "here")
    good(posted, "restore", "--runtag", "t", "--from", "here", "--yes")
    assert (posted.top / "docker-compose.yml").read_text() == NODERED.replace("IDLE", IDLE)
    bare_restore(posted)
    assert (posted.top / "docker-compose.yml").read_text() == NODERED.replace("IDLE", IDLE)


# A server whose data lie elsewhere.

POSTGRES = """\
services:
  postgres:
    container_name: postgres
    image: postgres:stand
    stop_signal: SIGINT
    environment: [POSTGRES_USER=u, POSTGRES_PASSWORD=p, POSTGRES_DB=d{}]
    volumes: ["./volumes/postgres/data:{}"]
"""


def test_a_data_folder_of_its_own(stack):
    """Live files of a dumped PostgreSQL are in no archive, wherever it keeps them."""
    posted = stack(POSTGRES.format(", PGDATA=/data/postgres", "/data/postgres"))
    (row,) = (mark for mark in posted.plant() if mark.kind == "postgres")
    good(posted, "backup", "--runtag", "t")
    assert not [name for name in members(posted, "general-backup.tar.gz") if "PG_VERSION" in name]
    posted.ask("postgres", "postgres", f"DROP TABLE {row.token}")
    good(posted, "restore", "--runtag", "t", "--from", "here", "--yes")
    assert posted.back(row) == ""
    bare_restore(posted)
    assert posted.back(row) == ""


# IOTstackBackup reads our PostgreSQL part.


def test_a_postgres_part_as_iotstackbackup_unpacks_it(stack, pi):
    """`tar -xzf` opens the part, and its member is a gzip."""
    posted = stack(POSTGRES.format("", "/var/lib/postgresql/data"))
    posted.plant()
    good(posted, "backup", "--runtag", "t")
    part = posted.top / "backups/t.postgres-backup.sql.gz.tar"
    script = f"tar -xzf '{part}' -O ./postgres_backup.sql.gz | gzip -dc | tail -n 3"
    assert "dump complete" in pi.run(["sh", "-c", script]).stdout


# Continuous queries in the part.

INFLUX = """\
services:
  db:
    image: influxdb:1.8
    container_name: {}
    volumes: ["{}:/var/lib/influxdb"]
"""


def test_continuous_queries_are_in_the_part(stack, pi):
    """The influx part holds the statements that make them."""
    posted = stack(INFLUX.format("influxdb", "./volumes/influxdb/data"))
    posted.ask("influxdb", "influx", "CREATE DATABASE marks")
    query = "SELECT mean(v) AS v INTO t2 FROM t GROUP BY time(1h)"
    posted.ask("influxdb", "influx", f"CREATE CONTINUOUS QUERY c ON marks BEGIN {query} END")
    good(posted, "backup", "--runtag", "t")
    script = f"tar -xf '{posted.top}/backups/t.influx-backup.tar' -O ./continuous-queries.influxql"
    said = pi.run(["sh", "-c", script]).stdout
    assert said.count("CREATE CONTINUOUS QUERY") == 1
    assert "marks" in said


# A device node.


def test_a_device_node(stack, pi):
    """What a restore would refuse is told by the backup, and verify does not call it good."""
    posted = stack(NODERED)
    put(posted.top / "volumes/nodered/flows.json", "mine")
    pi.run(["mknod", posted.top / "volumes/nodered/n", "c", "1", "5"])
    code, said = posted.run("backup", "--runtag", "t")
    held = members(posted, "general-backup.tar.gz")
    verified, told = posted.run("verify", "--runtag", "t", "--at", "here")
    restored, answer = posted.run("restore", "--runtag", "t", "--from", "here", "--yes")
    assert "volumes/nodered/n" in said
    assert code == 3, said
    if "volumes/nodered/n" in held:
        assert (verified != 0, restored != 0) == (True, True), (told, answer)
    else:
        assert (verified, restored) == (0, 0), (told, answer)


# A file system that became read-only.


def test_a_read_only_file_system(stack, pi):
    """It is told as such, by the backup and by doctor."""
    posted = stack(NODERED)
    pi.run(["mount", "--bind", posted.top, posted.top])
    try:
        pi.run(["mount", "-o", "remount,ro,bind", posted.top])
        for words in (("backup", "--runtag", "t"), ("doctor",)):
            code, said = posted.run(*words)
            assert code not in (0, 3), said
            assert "read-only" in said, said
            assert "dmesg" in said, said
            assert "chown" not in said, said
    finally:
        pi.run(["umount", posted.top])


# An InfluxDB of another name.


def test_an_influxdb_of_another_name(stack):
    """The only one of a stack is dumped, and is back on a bare machine, without a setting."""
    posted = stack(INFLUX.format("weather_influxdb", "./influxdb_data"))
    (row,) = (mark for mark in posted.plant() if mark.kind == "influx")
    good(posted, "backup", "--runtag", "t")
    good(posted, "doctor")
    assert posted.packed(row, "t") == "t.influx-backup.tar"
    bare_restore(posted)
    assert posted.back(row) == ""


def test_the_advice_for_one_of_two_influxdbs_is_its_cure(stack):
    """Backup and doctor say which setting is lacking, and with that it is dumped."""
    one = INFLUX.format("weather_influxdb", "./influxdb_data")
    other = INFLUX.format("influxdb", "./volumes/influxdb/data").replace(
        "services:\n  db:", "  other:"
    )
    posted = stack(one + other)
    (row,) = (mark for mark in posted.plant() if mark.container == "weather_influxdb")
    cure = 'container = "weather_influxdb"'
    for words, ends in {("backup", "--runtag", "t"): 3, ("doctor",): 0}.items():
        code, said = posted.run(*words)
        assert code == ends, said
        assert "[influxdb]" in said, said
        assert cure in said, said
    posted.set(f"[influxdb]\n{cure}\n")
    posted.run("backup", "--runtag", "t2")
    assert posted.packed(row, "t2") == "t2.influx-backup.tar"


# A named volume and a bare machine.


MARIA_IN_A_VOLUME = """\
services:
  mariadb:
    container_name: mariadb
    image: mariadb:stand
    environment: [MYSQL_ROOT_PASSWORD=x]
    volumes: ["maria:/config"]
volumes: {maria: {}}
"""


@pytest.mark.parametrize("name", ["pi", pytest.param("far", marks=pytest.mark.long)])
def test_a_database_in_a_named_volume_on_a_bare_machine(request, stack, name):
    """A bare machine gets the compose file, the volume, the rows, and what lies beside these.

    On `pi` Docker's folder is a mount of its own, and the volume is swapped there.
    """
    machine = request.getfixturevalue(name)
    load_databases(machine)
    posted = stack(MARIA_IN_A_VOLUME, machine=machine)
    (row,) = (mark for mark in posted.plant() if mark.kind == "maria")
    own = "docker exec mariadb sh -c"
    machine.run([*own.split(), "echo mine > /config/own.cnf; chmod 600 /config/own.cnf"])
    good(posted, "backup", "--runtag", "t")
    said = bare_restore(posted)
    assert "by hand" not in said
    assert posted.back(row) == ""
    told = machine.run([*own.split(), "cat /config/own.cnf; stat -c %a /config/own.cnf"])
    assert told.stdout == "mine\n600\n"
    docker = machine.folder / "docker"
    apart = machine.run(["mountpoint", "-q", docker], check=False).returncode == 0
    assert apart == (name == "pi")


@pytest.mark.long
def test_a_database_in_a_named_volume_there_and_back(stack, pi):
    """Files and rows change together: killed between them, done, undone; and none stays for ever."""
    posted = stack(MARIA_IN_A_VOLUME)

    def inside(script):
        return pi.run(["docker", "exec", "mariadb", "sh", "-c", script]).stdout

    def mark():
        return next(mark for mark in posted.plant() if mark.kind == "maria")

    def look():
        posted.wait("mariadb", "maria")
        rows = posted.ask("mariadb", "maria", "SHOW TABLES FROM marks").stdout
        return rows + inside("ls -R /config/own; cat /config/own/*")

    mark()
    inside("mkdir /config/own && echo then > /config/own/file")
    then = look()
    good(posted, "backup", "--runtag", "t")
    posted.ask("mariadb", "maria", "DROP DATABASE marks")
    mark()
    inside("rm -r /config/own; mkdir /config/own && echo now > /config/own/another")
    now = look()
    assert now != then
    restore = ("restore", "--runtag", "t", "--from", "here", "--exact", "--jobs", "1", "--yes")
    with Saboteur(pi) as saboteur:
        good(posted, *restore)
        calls = saboteur.calls()
        assert look() == then
        good(posted, "undo", "--last-restore", "--yes")
        assert look() == now
        (swap, *_) = [n for n, call in enumerate(calls, 1) if "rename() {" in call]
        saboteur.arm(swap, "stop after")
        process = posted.start_program(*restore)
        wait_for("the swap", saboteur.reached, timeout=120)
        process.end()
        saboteur.release(act=True)
    good(posted, "undo", "--yes")
    assert look() == now
    place = f"{pi.folder}/docker/volumes/iotstack_maria"
    assert f" {place}/.previous-t-" in good(posted, "undo", "--list")
    posted.settings = "keep_previous = 0\nkeep_previous_days = 0\n"
    posted.set()
    good(posted, "backup", "--runtag", "t2")
    left = pi.run(
        ["find", place, "-path", f"{place}/_data", "-prune", "-o", "-type", "f", "-print"]
    )
    assert left.stdout == ""


# A cache without a mount.


def test_a_cache_without_a_mount(stack):
    """It has nothing that could be torn: no warning."""
    posted = stack("""\
services:
  redis:
    container_name: immich_redis
    image: docker.io/valkey/valkey:8-bookworm
""")
    good(posted, "backup", "--runtag", "t")
    assert manifest(posted)["warnings"] == []


# The hour that comes twice.


def test_a_default_runtag_that_is_taken(stack):
    """A clock that goes back does not keep a backup from being made: it gets a free name."""
    posted = stack(NODERED)
    code, said = posted.run("backup", TZ="FIRST0")
    assert code == 0, said
    (first,) = _runtags(posted)
    then = datetime.strptime(f"{first} +0000", "%Y-%m-%d_%H%M %z")
    back = (datetime.now(UTC) - then).total_seconds()
    code, said = posted.run("backup", TZ=_west(back))
    assert code == 0, said
    assert _runtags(posted) == [first, f"{first}-2"]


def _west(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    return f"SECOND0:{minutes:02}:{seconds:02}"


def _runtags(posted):
    found = (posted.top / "backups").glob("*.manifest.json")
    return sorted(path.name.removesuffix(".manifest.json") for path in found)


def test_a_container_that_sees_the_whole_stack_takes_nothing_in(stack):
    """Read-only it keeps nothing there; what else lies there is named as ever, links and all."""
    text = """\
services:
  box:
    image: IDLE
    container_name: box
    volumes: ["./volumes/box:/data", "../ssd/deep:/deep"]
  viewer:
    image: IDLE
    container_name: viewer
    volumes: [".:/stack:ro"]
"""
    made = stack(text)
    home = made.top.parent
    for path in ("own/notes", ".git/config", "backups/old/x", "restore/x", "volumes/box/a"):
        put(made.top / path, "x")
    put(home / "ssd/deep/a", "x")
    put(home / "ssd/beside", "x")
    (made.top / "volumes/box/link").symlink_to(home / "ssd/beside")
    out = f'[[stack.include]]\npath = "{home}/ssd/deep"\n'
    made.set(out)
    code, said = made.run("backup", "--runtag", "t")
    assert code == 3, said
    (warning,) = manifest(made)["warnings"]
    assert warning.startswith(f"NOT COVERED: volumes/box/link is a link to {home}/ssd/beside,")
    assert manifest(made)["unused"] == ["own"]
    tops = {name.split("/")[0] for name in members(made, "general-backup.tar.gz")}
    assert tops == {".env", "docker-compose.yml", "services", "volumes"}
    assert members(made, "outside-backup.tar.gz").keys() == {
        f"{home}/ssd/deep".lstrip("/"),
        f"{home}/ssd/deep/a".lstrip("/"),
    }
    made.set(f'{out}[[stack.exclude]]\npath = "{home}/ssd/beside"\nreason = "films"\n')
    good(made, "backup")
    assert "own: not backed up: the stack does not use it" in good(made, "services")
    good(made, "restore", "--runtag", "t", "--from", "here", "--yes")
    for path in ("own/notes", ".git/config", "backups/old/x", "restore/x", "volumes/box/a"):
        assert (made.top / path).read_text() == "x"
    assert os.readlink(made.top / "volumes/box/link") == f"{home}/ssd/beside"
