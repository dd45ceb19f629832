"""A restore that goes well: every file and every point is there, and what is not in it stays."""

import os
import re
import shutil

import pytest
from restorer import (
    LOGINS,
    asking,
    below,
    containers,
    only,
    points,
    running,
    start_client,
    tree,
    write_oddities,
)
from stand import (
    SERVICES,
    compose,
    compose_down,
    compose_up,
    query,
    remove_iotstack,
    wait_ping,
    write_points,
)
from stand_machine import PROGRAM, UIDS, wait_for

LATIN = tuple(os.fsdecode(each + b"/latin1-\xe9") for each in (b"services", b"volumes"))
SECRET = "correct-horse-battery"


@pytest.fixture
def live(person, pi):
    """A running stack on the Pi, with odd files and many kinds of databases."""
    top = person.fresh(pi)
    write_oddities(top / "volumes/nodered/odd")
    for place in LATIN:
        (top / place).mkdir()
        (top / place / "file").write_bytes(b"its name is no UTF-8, and it lies at the top")
    fill_influx(pi)
    return top


def fill_influx(machine):
    """Several databases: odd names, retention policies, many shards, an empty one, a query."""
    write_points(
        machine, "home", *[f"cpu,room=r{i % 3} value={i} {i}000000000" for i in range(900)]
    )
    write_points(
        machine, "home", *[f'wide value={i},text="ü {i}" {i * 86400}000000000' for i in range(30)]
    )
    write_points(machine, "odd name, Küche.Bad", "cpu value=1 1000000000")
    write_points(machine, "x rp=y shard=3", "cpu value=2i 2000000000")
    query(machine, 'CREATE DATABASE "empty"')
    query(
        machine,
        'CREATE RETENTION POLICY "long ago" ON "home" DURATION INF REPLICATION 1 SHARD DURATION 52w',
    )
    write_points(machine, "home", "slow value=7 7000000000", rp="long ago")
    query(
        machine,
        'CREATE CONTINUOUS QUERY "means" ON "home" BEGIN SELECT mean("value") INTO "home"."long ago"."mean" '
        'FROM "home"."autogen"."cpu" GROUP BY time(1h) END',
    )


def change(machine, top):
    """Change a stack in all the ways that a restore must take back or must leave alone."""
    (top / "volumes/nodered/data/flows.json").write_text("changed")
    (top / "volumes/nodered/data/new.json").write_text("new")
    for each in filter(os.path.exists, (top / place / "file" for place in LATIN)):
        each.write_text("changed")
    shutil.rmtree(top / "volumes/grafana/data/plugins")
    (top / "services/mosquitto/filter.acl").unlink()
    (top / "services/onlyhere").mkdir()
    (top / "services/onlyhere/build").write_text("mine")
    (top / "volumes/onlyhere").mkdir()
    (top / "volumes/onlyhere/data").write_text("mine")
    write_points(machine, "home", "cpu,room=r1 value=999 1000000000", "late value=1 1000000000")
    write_points(machine, "other", "cpu value=3 3000000000")


KEPT = ("services/onlyhere", "volumes/onlyhere", "volumes/nextcloud")
SWAPPED = (
    "services/nodered",
    "services/mosquitto",
    "volumes/nodered",
    "volumes/mosquitto",
    "volumes/grafana",
    *LATIN,
)


def queries(machine):
    """The continuous queries by database."""
    (told,) = query(machine, "SHOW CONTINUOUS QUERIES")
    return {one["name"]: one["values"] for one in told if one.get("values")}


@pytest.mark.parametrize(
    "compose_version", [1, pytest.param(2, marks=pytest.mark.long)], indirect=True
)
@pytest.mark.parametrize("host", ["test-pi", pytest.param("test-root", marks=pytest.mark.long)])
def test_live_to_vault_to_test_host(person, pi, far, live, host, compose_version):
    """A backup of the live Pi comes back on another host with every file and every point.

    A client outside the containers keeps creating its database and writing all the while.
    """
    top = person.fresh(far, host=host, version=compose_version)
    change(far, top)
    (top / ".env").write_text(f"TZ=Etc/UTC\nGRAFANA_PASSWORD={SECRET}\nONLY_HERE=1\n")
    query(far, "CREATE USER \"ann\" WITH PASSWORD 'geheim'", 'GRANT READ ON "other" TO "ann"')
    other = points(far)
    before, kept, asked = tree(live), tree(top), queries(pi)
    files = {name: (top / name).read_bytes() for name in (".env", "docker-compose.yml")}
    all_points = points(pi)
    person.iot("backup", "--runtag", "t1", "--force")
    client = start_client(far)
    try:
        said = person.iot("restore", "--host", host, "--runtag", "t1", "--yes")
    finally:
        client.end()
    after, found = tree(top), points(far)
    assert below(after, *SWAPPED) == below(before, *SWAPPED)
    assert below(after, *KEPT) == below(kept, *KEPT)
    assert without_client(found) == without_client(all_points | only("other", other))
    assert query(far, 'SHOW GRANTS FOR "ann"')[0][0]["values"] == [["other", "READ"]]
    (kept_line,) = [line for line in said.splitlines() if "kept, not in the backup: " in line]
    for name in ("influxdb: database other", "influxdb: user ann", "services/onlyhere"):
        assert name in kept_line
    assert queries(far) == asked
    assert running(far) == set(SERVICES)
    for name, content in files.items():
        assert (top / name).read_bytes() == content
        differs = (live / name).read_bytes() != content
        assert (top / f"{name}.t1").exists() == differs == (name == ".env")
    assert "GRAFANA_PASSWORD, ONLY_HERE" in said
    for text in (said, person.logs(host=True)):
        assert SECRET not in text
        assert "s3cret" not in text
    assert "the stack was unavailable for" in said
    assert f"inv undo --host {host}" in said


def without_client(found):
    """Points without those of the client that keeps writing."""
    return {
        place: (settings, [one for one in series if '"name": "client"' not in one])
        for place, (settings, series) in found.items()
    }


@pytest.mark.parametrize(
    "source",
    ["here", *(pytest.param(each, marks=pytest.mark.long) for each in ("vault", "folder"))],
)
def test_local_restore(person, pi, live, source):
    """A restore on the Pi itself takes the newest set from its own backups, a vault or a folder."""
    before, all_points = tree(live), points(pi)
    person.iot("backup", "--runtag", "2026-11-22_1100", "--force")
    change(pi, live)
    changed = tree(live)
    more = only("other", points(pi))
    where = source
    if source == "folder":
        where = str(person.usb(*person.vault.glob("2026-11-22_1100.*")))
    said = person.iot("restore", "--runtag", "latest", "--from", where, "--yes")
    assert "2026-11-22_1100 is restored" in said
    after = tree(live)
    assert below(after, *SWAPPED) == below(before, *SWAPPED)
    assert below(after, *KEPT) == below(changed, *KEPT)
    assert points(pi) == all_points | more
    assert running(pi) == set(SERVICES)
    for each in live.glob("restore/previous-*"):
        os.chown(each, 0, 0)  # as `sudo inv restore` leaves it
    assert "before the restore of 2026-11-22_1100" in person.iot("undo", "--list")


@pytest.mark.long
def test_a_user_undoes_what_a_killed_restore_of_root_left(person, pi, live):
    """What root put aside is private to it; the user has sudo, and is not stuck for ever."""
    person.iot("backup", "--runtag", "t1", "--force")
    change(pi, live)
    changed, before = tree(live), points(pi)
    words = ("restore", "--runtag", "t1", "--from", "here", "--yes")
    env = {"IOTSTACK_SETTINGS": str(person.settings_file), "HOME": str(pi.home_of(person.user))}
    restore = pi.popen([*PROGRAM, *words], env=env)
    wait_for("the stop", lambda: "nodered" not in running(pi), timeout=60)
    restore.end()
    assert "The interrupted run was undone. The stack is in the state" in person.iot("undo")
    assert tree(live) == changed
    wait_ping(pi)
    assert points(pi) == before
    person.iot("undo", "--list")


@pytest.mark.long
def test_all_is_as_the_backup_has_it(person, pi, live):
    """With --exact what the backup has not is put aside; an undo brings it back."""
    person.iot("backup", "--runtag", "t6", "--force")
    before, all_points = tree(live), points(pi)
    change(pi, live)
    changed, more = tree(live), points(pi)
    said = person.iot("restore", "--runtag", "t6", "--exact", "--yes")
    wait_ping(pi)
    (line,) = [each for each in said.splitlines() if "is moved aside, not in the backup: " in each]
    for name in ("influxdb: database other", "services/onlyhere", "volumes/onlyhere"):
        assert name in line
    assert "nextcloud" not in line
    assert points(pi) == all_points
    assert below(tree(live), *KEPT[:2]) == {}
    assert below(tree(live), *SWAPPED, KEPT[2]) == below(before, *SWAPPED, KEPT[2])
    person.iot("undo", "--last-restore", "--yes")
    wait_ping(pi)
    assert (tree(live), points(pi)) == (changed, more)


@pytest.mark.long
def test_undo_and_undo_again(person, pi, far, live):
    """Undo brings files and points back as they were on either host; a second one is refused."""
    person.iot("backup", "--runtag", "t2", "--force")
    for machine, words in ((pi, ()), (far, ("--host", "test-pi"))):
        top = live if machine is pi else person.fresh(far)
        change(machine, top)
        before, all_points = tree(top), points(machine)
        person.iot("restore", "--runtag", "t2", *words, "--yes")
        assert points(machine) != all_points
        said = person.iot("undo", *words, "--last-restore", "--yes")
        assert "is in the state before the restore of t2" in said
        assert tree(top) == before
        wait_ping(machine)
        assert points(machine) == all_points
        assert running(machine) == set(SERVICES)
        assert "no restore or reload can be undone" in person.iot(
            "undo", *words, "--last-restore", "--yes", code=10
        )
        assert tree(top) == before


@pytest.mark.long
def test_restore_twice(person, pi, live):
    """The same set can be restored again after changes, and each restore can be undone in turn."""
    person.iot("backup", "--runtag", "t3", "--force")
    before, all_points = tree(live), points(pi)
    change(pi, live)
    changed, changed_points = tree(live), points(pi)
    person.iot("restore", "--runtag", "t3", "--yes")
    (live / "volumes/nodered/data/flows.json").write_text("between")
    write_points(pi, "between", "cpu value=1 1")
    between, between_points = tree(live), points(pi)
    person.iot("restore", "--runtag", "t3", "--yes")
    assert below(tree(live), *SWAPPED) == below(before, *SWAPPED)
    stays = only("other", changed_points) | only("between", between_points)
    assert points(pi) == all_points | stays
    person.iot("undo", "--last-restore", "--yes")
    wait_ping(pi)
    assert (tree(live), points(pi)) == (between, between_points)
    person.iot("undo", "--last-restore", "--yes")
    wait_ping(pi)
    assert (tree(live), points(pi)) == (changed, changed_points)


@pytest.mark.parametrize(
    "compose_version", [pytest.param(1, marks=pytest.mark.long), 2], indirect=True
)
def test_bare_host(person, pi, far, live, compose_version):
    """On a host with an empty folder everything comes up from the restored compose file."""
    before, all_points, asked = tree(live), points(pi), queries(pi)
    person.iot("backup", "--runtag", "t4", "--force")
    remove_iotstack(far)
    top = person.far_top()
    top.mkdir()
    shutil.chown(top, UIDS[LOGINS["test-pi"]])
    if compose_version == 2:
        far.hide("docker-compose")
    try:
        person.iot("restore", "--host", "test-pi", "--runtag", "t4", "--yes")
    finally:
        if compose_version == 2:
            far.show("docker-compose")
    wait_ping(far)
    wanted = (*SWAPPED, "docker-compose.yml", ".env", "docker-compose-override.yml")
    assert below(tree(top), *wanted) == below(before, *wanted)
    assert points(far) == all_points
    assert queries(far) == asked
    assert running(far) == set(SERVICES)
    for name in ("services", "volumes"):
        made, was = (folder.joinpath(name).stat() for folder in (top, live))
        assert (made.st_uid, made.st_gid, made.st_mode) == (was.st_uid, was.st_gid, was.st_mode)
    person.iot("undo", "--host", "test-pi", "--last-restore", "--yes")
    assert containers(far) == {}
    assert {each.name for each in top.iterdir()} == {"backups", "restore"}


@pytest.mark.parametrize("host", ["", "test-pi"])
def test_what_the_backup_leaves_out_stays_where_it_is(person, pi, far, live, host):
    """By default or by the owner's word: in the live folder, also of another machine, and undone."""
    out = '[[stack.exclude]]\npath = "volumes/grafana/data/plugins"\nreason = "fetched again"'
    person.set(stack=f"exclude_defaults = true\n{out}")
    person.iot("backup", "--runtag", "t15", "--force")
    machine, top = (far, person.fresh(far)) if host else (pi, live)
    at = ("--host", host) if host else ()
    places = (
        "volumes/mosquitto/data",
        "volumes/nodered/data/node_modules",
        "volumes/grafana/data/plugins",
    )
    for place in places:
        (top / place / "deep").mkdir()
        (top / place / "deep/mine").write_text("mine")
    (top / "volumes/nodered/data/flows.json").write_text("changed")
    before = tree(top)
    said = person.iot("restore", *at, "--runtag", "t15", "--from", "nas", "--yes")
    after = tree(top)
    assert below(after, *places) == below(before, *places)
    assert (top / "volumes/nodered/data/flows.json").read_text() != "changed"
    (left,) = [line for line in said.splitlines() if "not changed: " in line]
    assert all(place in left for place in places)
    (top / places[0] / "deep/later").write_text("later")
    person.iot("undo", *at, "--last-restore", "--yes")
    assert (top / places[0] / "deep/later").read_text() == "later"
    (top / places[0] / "deep/later").unlink()
    again = below(tree(top), "volumes/nodered", "volumes/grafana", *places)
    assert again == below(before, "volumes/nodered", "volumes/grafana", *places)
    assert running(machine) == set(SERVICES)
    person.set()


@pytest.mark.long
def test_stack_that_is_down(person, pi, far, live):
    """A host whose containers were removed comes up from its own compose file."""
    person.iot("backup", "--runtag", "t5", "--force")
    top = person.fresh(far)
    compose_down(far, user=LOGINS["test-pi"])
    mine = (top / "docker-compose.yml").read_text()
    smaller = mine.partition("  grafana:")[0]
    (top / "docker-compose.yml").write_text(smaller)
    said = person.iot("restore", "--host", "test-pi", "--runtag", "t5", "--yes")
    names = ", ".join(sorted({*SERVICES} - {"grafana"}))
    told = re.findall("^  (?:no containers |created |missing).*", said, re.MULTILINE)
    assert told[0].startswith("  no containers exist; creates and starts: ")
    assert told[1:3] == [
        "  missing, and not created: grafana",
        f"  created and started, because no containers existed: {names}",
    ]
    assert told[3].startswith("  missing before, and still missing: grafana. The compose file ")
    wait_ping(far)
    assert points(far) == points(pi)
    assert running(far) == set(SERVICES) - {"grafana"}
    assert (top / "docker-compose.yml").read_text() == smaller


@pytest.mark.long
def test_stopped_containers_stay_stopped(person, pi, live):
    """Containers that were stopped before are stopped after, InfluxDB too, and its data are in."""
    person.iot("backup", "--runtag", "t6", "--force")
    all_points = points(pi)
    change(pi, live)
    more = only("other", points(pi))
    compose(pi, "stop", "influxdb", "grafana", user=person.user)
    person.iot("restore", "--runtag", "t6", "--yes")
    assert running(pi) == {"nodered", "mosquitto"}
    assert set(containers(pi)) == set(SERVICES)
    compose(pi, "start", "influxdb", user=person.user)
    wait_ping(pi)
    assert points(pi) == all_points | more
    compose(pi, "stop", "influxdb", user=person.user)
    person.iot("undo", "--last-restore", "--yes")
    assert running(pi) == {"nodered", "mosquitto"}
    assert set(containers(pi)) == set(SERVICES)


def test_users_and_passwords(person, pi, far, live):
    """On servers that ask for a password the users come back with theirs, grants and queries."""
    make_users(pi)
    lock(pi, live, person.user)
    ask = asking("boss", SECRET)
    all_points = points(pi, ask=ask)
    person.iot("backup", "--runtag", "t7", "--force")
    top = person.fresh(far)
    lock(far, top, person.user)
    said = person.iot("restore", "--host", "test-pi", "--runtag", "t7", "--yes")
    wait_ping(far)
    assert points(far, ask=ask) == all_points
    (users,) = ask(far, "SHOW USERS")
    assert sorted(users[0]["values"]) == [["boss", True], ["reader", False]]
    (grants,) = ask(far, 'SHOW GRANTS FOR "reader"')
    assert grants[0]["values"] == [["home", "READ"]]
    (told,) = ask(far, "SHOW CONTINUOUS QUERIES")
    assert "means" in str(told)
    assert asking("reader", "reads!")(far, 'SHOW MEASUREMENTS ON "home"')
    with pytest.raises(AssertionError, match="401"):
        asking("boss", "wrong")(far, "SHOW USERS")
    assert SECRET not in said


def make_users(machine):
    """Make an admin and a reader."""
    query(machine, f"CREATE USER boss WITH PASSWORD '{SECRET}' WITH ALL PRIVILEGES")
    query(machine, "CREATE USER reader WITH PASSWORD 'reads!'", 'GRANT READ ON "home" TO "reader"')


def lock(machine, top, user):
    """Let a server ask for passwords."""
    file = top / "docker-compose.yml"
    text = file.read_text()
    file.write_text(text.replace("HTTP_AUTH_ENABLED=false", "HTTP_AUTH_ENABLED=true"))
    compose_up(machine, "influxdb", user=user)


@pytest.mark.long
def test_only_the_parts_that_there_are(person, pi, live):
    """A set without an influx part leaves InfluxDB alone; one with nothing else, all the rest."""
    person.iot("backup", "--runtag", "t8", "--force")
    change(pi, live)
    changed, changed_points, all_started = tree(live), points(pi), containers(pi)
    usb = person.usb(live / "backups/t8.influx-backup.tar")
    person.iot("restore", "--runtag", "t8", "--from", str(usb), "--yes")
    wait_ping(pi)
    assert below(tree(live), *SWAPPED) == below(changed, *SWAPPED)
    only_influx = points(pi)
    assert only_influx != changed_points
    usb = person.usb(live / "backups/t8.general-backup.tar.gz")
    person.iot("restore", "--runtag", "t8", "--from", str(usb), "--yes")
    wait_ping(pi)
    assert points(pi) == only_influx
    assert below(tree(live), *SWAPPED) != below(changed, *SWAPPED)
    assert set(all_started) == running(pi)
