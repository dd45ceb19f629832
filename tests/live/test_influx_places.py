"""InfluxDB where people have it: without a folder for its dumps, elsewhere, of another name."""

import json
import shutil
import subprocess

import pytest
from owner import Owner
from restorer import points
from stand import compose, compose_up, query, wait_ping, write_points
from stand_machine import USER

QUERY = (
    'CREATE CONTINUOUS QUERY "means" ON "home" BEGIN SELECT mean("value") INTO "mean" '
    'FROM "cpu" GROUP BY time(1h) END'
)
BACKUP_LINE = "      - ./backups/influxdb/db:/var/lib/influxdb/backup\n"
DATA_LINE = "      - ./volumes/influxdb/data:/var/lib/influxdb\n"


@pytest.fixture
def owner(stand, pi, nas):
    made = Owner(pi, nas, user=USER)
    yield made
    made.away()


def change(owner, *changes):
    """Let docker-compose.yml say something else, and make InfluxDB anew by it."""
    path = owner.top / "docker-compose.yml"
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    compose(owner.pi, "down", user=USER)
    path.write_text(text)
    for each in (owner.top / "volumes/influxdb/data").iterdir():
        shutil.rmtree(each)
    compose_up(owner.pi, user=USER)
    wait_ping(owner.pi)
    write_points(owner.pi, "home", *[f"cpu value={i} {i}000000000" for i in range(500)])
    query(owner.pi, QUERY)


def members(path):
    return subprocess.run(
        ["tar", "-tf", path], check=True, capture_output=True, text=True
    ).stdout.splitlines()


PLACES = {
    "among its data": [(BACKUP_LINE, "")],
    "in a volume": [(BACKUP_LINE, ""), (DATA_LINE, "      - /var/lib/influxdb\n")],
    "in the container alone": [(BACKUP_LINE, ""), (DATA_LINE, "      - /elsewhere\n")],
}


@pytest.mark.parametrize("place", PLACES)
def test_without_a_folder_for_dumps(owner, pi, place):
    """InfluxDB is dumped wherever its dumps come to lie, and nothing of them stays."""
    change(owner, *PLACES[place])
    held = points(pi)
    owner.backup("--runtag", "t1")
    names = members(owner.here("t1", "influx"))
    assert any(name.endswith(".manifest") for name in names)
    assert "./continuous-queries.influxql" in names
    facts = owner.manifest("t1")["parts"]["influx"]["facts"]
    assert (facts["databases"], facts["continuous_queries"]) == (["home"], 1)
    left = pi.run(["docker", "exec", "influxdb", "ls", "/var/lib/influxdb/backup"]).stdout
    assert left == ""
    general = members(owner.here("t1", "general"))
    assert not [name for name in general if name.endswith((".tsm", ".wal", "meta.db"))]
    if place == "in the container alone":
        return
    write_points(pi, "home", "later value=1 1000000000")
    owner.iot("restore", "--runtag", "t1", "--from", "here", "--yes")
    assert points(pi) == held
    assert "means" in str(query(pi, "SHOW CONTINUOUS QUERIES"))


LOG_LINE = "      - ./volumes/influxwal:/var/lib/influxdb/wal\n"
PIECES = {
    "the log apart": (DATA_LINE + LOG_LINE,),
    "data and log apart": (f"      - ./volumes/influxdb/data:/var/lib/influxdb/data\n{LOG_LINE}",),
    "in volumes": (
        f"      - /var/lib/influxdb\n      - series:/var/lib/influxdb/data\n{LOG_LINE}",
        "volumes:\n  series:\n",
    ),
}


@pytest.mark.parametrize("pieces", PIECES)
def test_its_folders_have_mounts_of_their_own(owner, pi, pieces):
    """Each is swapped by itself, and back by an undo; and on a machine without containers."""
    lines, *tables = PIECES[pieces]
    change(owner, (DATA_LINE, lines), ("services:\n", f"{''.join(tables)}services:\n"))
    query(pi, "CREATE USER \"ann\" WITH PASSWORD 'secret'")
    held = points(pi)
    owner.backup("--runtag", "t1")
    general = members(owner.here("t1", "general"))
    assert not [name for name in general if name.endswith((".tsm", ".wal", "meta.db"))]
    write_points(pi, "home", "later value=1 1000000000")
    write_points(pi, "other", "cpu value=1 1000000000")
    query(pi, "CREATE USER \"bob\" WITH PASSWORD 'secret'", 'GRANT WRITE ON "home" TO "bob"')
    query(pi, 'GRANT READ ON "other" TO "ann"')
    more = points(pi)
    owner.iot("restore", "--runtag", "t1", "--from", "here", "--yes")
    wait_ping(pi)
    assert points(pi) == held | {key: more[key] for key in more if key[0] == "other"}
    assert query(pi, 'SHOW GRANTS FOR "bob"')[0][0]["values"] == [["home", "WRITE"]]
    assert query(pi, 'SHOW GRANTS FOR "ann"')[0][0]["values"] == [["other", "READ"]]
    owner.iot("undo", "--last-restore", "--yes")
    wait_ping(pi)
    assert points(pi) == more
    assert "other" in str(query(pi, "SHOW DATABASES"))
    compose(pi, "down", "--volumes", user=USER)
    shutil.rmtree(owner.top / "volumes")
    (owner.top / "volumes").mkdir()
    owner.iot("restore", "--runtag", "t1", "--from", "here", "--yes")
    wait_ping(pi)
    assert points(pi) == held
    assert "means" in str(query(pi, "SHOW CONTINUOUS QUERIES"))
    assert "ann" in str(query(pi, "SHOW USERS"))


@pytest.mark.long
def test_what_iotstackbackup_does_with_the_part(owner, pi):
    """Its commands, on ours: portable restore, then `influx -import` of the queries beside it."""
    change(owner)
    held = points(pi)
    owner.backup("--runtag", "t1")
    owner.empty_influx()
    owner.restore_influx(owner.here("t1", "influx"), {("home", "autogen", "cpu"): 500})
    folder = owner.backups / "influxdb/db"
    archive = owner.here("t1", "influx")
    words = ["tar", "-xf", archive, "-C", folder, "./continuous-queries.influxql"]
    subprocess.run(words, check=True)
    path = "/var/lib/influxdb/backup/continuous-queries.influxql"
    pi.run(["docker", "exec", "influxdb", "influx", "-import", "-path", path])
    assert points(pi) == held
    assert json.dumps(query(pi, "SHOW CONTINUOUS QUERIES")).count("CREATE CONTINUOUS") == 1
    owner.iot("restore", "--runtag", "t1", "--from", "here", "--yes")
    assert json.dumps(query(pi, "SHOW CONTINUOUS QUERIES")).count("CREATE CONTINUOUS") == 1


STATES = {
    "stopped": (["stop", "-t", "1", "influxdb"], ["start", "influxdb"]),
    "killed": (["kill", "influxdb"], ["start", "influxdb"]),
    "paused": (["pause", "influxdb"], ["unpause", "influxdb"]),
    "away": (["rm", "-f", "influxdb"], None),
}


@pytest.mark.parametrize("state", STATES)
def test_at_rest_its_files_are_copied_and_come_back(owner, pi, state):
    """With a warning, and a restore of that set, and of a later one with a dump, has all points."""
    away, back = STATES[state]
    change(owner)
    held = points(pi)
    pi.run(["docker", *away])
    said = owner.backup("--runtag", "t1", code=3)
    assert "InfluxDB is not dumped" in said
    assert set(owner.manifest("t1")["parts"]) == {"general"}
    if back:
        pi.run(["docker", *back])
    else:
        compose_up(pi, user=USER)
    wait_ping(pi)
    write_points(pi, "home", "later value=1 1000000000")
    more = points(pi)
    owner.backup("--runtag", "t2")
    query(pi, 'DROP DATABASE "home"')
    owner.iot("restore", "--runtag", "t1", "--from", "here", "--yes")
    wait_ping(pi)
    assert points(pi) == held
    assert "means" in str(query(pi, "SHOW CONTINUOUS QUERIES"))
    owner.iot("restore", "--runtag", "t2", "--from", "here", "--yes")
    assert points(pi) == more
    owner.iot("restore", "--runtag", "t1", "--from", "here", "--only", "influxdb", "--yes")
    wait_ping(pi)
    assert points(pi) == held
    if state == "paused":
        pi.run(["docker", "pause", "influxdb"])
    owner.iot("undo", "--last-restore", "--yes")
    wait_ping(pi)
    assert points(pi) == more


@pytest.mark.long
def test_the_only_influxdb_whatever_it_is_called(owner, pi):
    """It is dumped by itself, and restored by the name of the backup, onto an empty machine too."""
    name = ("    container_name: influxdb\n", "    container_name: weather\n")
    service = ("services:\n  influxdb:\n", "services:\n  weather:\n")
    place = (DATA_LINE, "      - ./volumes/weather:/var/lib/influxdb\n")
    path = owner.top / "docker-compose.yml"
    compose(pi, "down", user=USER)
    text = path.read_text()
    for old, new in (name, service, place, (BACKUP_LINE, "")):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    shutil.rmtree(owner.top / "volumes/influxdb")
    compose(pi, "up", "-d", user=USER)
    wait_ping(pi)
    write_points(pi, "home", *[f"cpu value={i} {i}000000000" for i in range(500)])
    query(pi, QUERY)
    held = points(pi)
    owner.backup("--runtag", "t1")
    facts = owner.manifest("t1")["parts"]["influx"]["facts"]
    assert (facts["container"], facts["data"]) == ("weather", "volumes/weather")
    general = members(owner.here("t1", "general"))
    assert not [each for each in general if each.endswith((".tsm", ".wal", "meta.db"))]
    assert "InfluxDB had 1 databases" in owner.iot("rehearse", "--at", "here")
    query(pi, 'DROP DATABASE "home"')
    owner.iot("restore", "--runtag", "t1", "--from", "here", "--yes")
    assert points(pi) == held
    compose(pi, "down", user=USER)
    shutil.rmtree(owner.top / "volumes")
    (owner.top / "volumes").mkdir()
    owner.iot("restore", "--runtag", "t1", "--from", "here", "--yes")
    wait_ping(pi)
    assert points(pi) == held
    assert "means" in str(query(pi, "SHOW CONTINUOUS QUERIES"))
