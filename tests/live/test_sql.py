"""MariaDB, PostgreSQL and SQLite on the stand: backed up while they run, restored, undone."""

import contextlib
import gzip
import io
import json
import os
import shutil
import sqlite3
import tarfile

import pytest
from database_images import load_databases
from databases import (
    ODD_DATABASE,
    fill_maria,
    fill_postgres,
    fresh_database_stack,
    look_maria,
    look_postgres,
    make_database_stack,
    maria,
    other_password,
    postgres,
    wait_databases,
    wait_maria,
    wait_postgres,
)
from owner import ALL_ENDINGS, Owner
from restorer import below, containers, running, tree
from sample_sets import new_form
from stand import compose, compose_up, remove_iotstack
from stand_machine import UIDS, USER
from writers import MariaWriter, PostgresWriter, SqliteWriter

SERVERS = {"mariadb", "gitea_db", "postgres"}
FAR = "far-databases"
SQLITE = "volumes/nodered/data/sensors.db"


def look(machine, **passwords):
    """All that the three servers hold; a root password that is not that of .env is given."""
    found = {"mariadb": look_maria(machine, password=passwords.get("mariadb"))}
    found["gitea_db"] = look_maria(machine, "gitea_db", password=passwords.get("gitea_db"))
    found["postgres"] = look_postgres(machine)
    return {(name, key): rows for name, held in found.items() for key, rows in held.items()}


def differing(one, other):
    """What two looks have otherwise, with both."""
    keys = {key for key in {*one, *other} if one.get(key) != other.get(key)}
    return {key: (one.get(key), other.get(key)) for key in keys}


@pytest.fixture(scope="module")
def owner(pi, nas, databases):
    """An owner whose stack has databases with all that a careless dump loses."""
    made = Owner(pi, nas, user=USER, fresh=fresh_database_stack)
    fill_maria(pi)
    maria(
        pi, "CREATE TABLE gitea.repo (id INT); INSERT INTO gitea.repo VALUES (1), (2)", "gitea_db"
    )
    fill_postgres(pi)
    odd = ODD_DATABASE.replace('"', '""')
    postgres(pi, f'ALTER DATABASE "{odd}" SET default_transaction_read_only = on')
    write_sqlite(made.top, 1, 2)
    yield made
    made.away()


@pytest.fixture(scope="module")
def source(owner, pi):
    """What the servers held when the backup t1 was made of them."""
    held = look(pi)
    owner.backup("--runtag", "t1")
    owner.assert_set("t1", kinds=ALL_ENDINGS)
    assert owner.manifest("t1")["warnings"] == []
    return held


def write_sqlite(top, *numbers):
    """Put rows into the SQLite file of a stack."""
    with contextlib.closing(sqlite3.connect(top / SQLITE)) as database:
        database.execute("CREATE TABLE IF NOT EXISTS seen (n INTEGER PRIMARY KEY)")
        database.executemany("INSERT OR IGNORE INTO seen VALUES (?)", [(n,) for n in numbers])
        database.commit()
    os.chown(top / SQLITE, 1000, 1000)


def read_sqlite(path):
    """The rows of a SQLite file that is whole."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [n for (n,) in database.execute("SELECT n FROM seen ORDER BY n")]


def change(machine, top):
    """Make every database unlike its backup: rows, databases, users and passwords."""
    maria(
        machine,
        "DROP DATABASE home; CREATE DATABASE IF NOT EXISTS new; CREATE TABLE IF NOT EXISTS new.t "
        "(a INT); DROP USER IF EXISTS reader@'%'; CREATE DATABASE home",
    )
    maria(machine, "INSERT INTO gitea.repo VALUES (3)", "gitea_db")
    postgres(
        machine,
        "DROP TABLE z CASCADE; CREATE TABLE z (a INT); ALTER ROLE reader PASSWORD 'other'; "
        "DROP ROLE IF EXISTS bert; CREATE ROLE bert LOGIN PASSWORD 'x'",
    )
    write_sqlite(top, 3)


ODD = "odd name; Küche'\"\\"
MORE = """
CREATE DATABASE shop; CREATE TABLE shop.sold (a INT, b BLOB); INSERT INTO shop.sold VALUES (1, 'x'), (2, NULL);
CREATE VIEW shop.seen AS SELECT a FROM shop.sold; CREATE PROCEDURE shop.p() SELECT 1;
CREATE TRIGGER shop.tr BEFORE INSERT ON shop.sold FOR EACH ROW SET NEW.a = 7;
CREATE USER 'o''dd'@'%' IDENTIFIED BY 'geheim'; GRANT SELECT ON shop.* TO 'o''dd'@'%'; GRANT SELECT ON home.* TO 'o''dd'@'%';
CREATE ROLE sellers; GRANT INSERT ON shop.* TO sellers; GRANT sellers TO 'o''dd'@'%'; GRANT SELECT ON shop.* TO reader@'%';
"""
MORE_ROLES = """
CREATE ROLE "o'dd" LOGIN PASSWORD 'geheim' CONNECTION LIMIT 3 VALID UNTIL '2030-01-01'; CREATE ROLE sellers NOLOGIN;
COMMENT ON ROLE sellers IS 'they sell'; ALTER ROLE "o'dd" SET search_path TO "$user", sales; ALTER ROLE "o'dd" SET work_mem TO '8MB';
GRANT sellers TO "o'dd" WITH ADMIN OPTION; GRANT sellers TO reader; GRANT reader TO "o'dd"; CREATE DATABASE shop OWNER "o'dd";
REVOKE CONNECT ON DATABASE shop FROM PUBLIC; GRANT CONNECT ON DATABASE shop TO sellers; ALTER DATABASE shop SET work_mem TO '9MB';
"""
MORE_ROWS = """
CREATE SCHEMA sales AUTHORIZATION sellers; CREATE TABLE sales.sold (a SERIAL PRIMARY KEY, b TEXT);
INSERT INTO sales.sold (b) VALUES ('x'), (NULL); GRANT SELECT ON sales.sold TO reader; CREATE VIEW seen AS SELECT b FROM sales.sold;
"""


def add_more(machine):
    """Give both servers databases and users that no backup knows."""
    maria(machine, MORE)
    maria(machine, f"CREATE DATABASE `{ODD}`; CREATE TABLE `{ODD}`.t AS SELECT 5 AS five")
    postgres(machine, MORE_ROLES)
    postgres(machine, MORE_ROWS, "shop")
    double = ODD.replace('"', '""')
    postgres(machine, f'CREATE DATABASE "{double}"')
    postgres(machine, "CREATE TABLE t AS SELECT 5 AS five", ODD)


def remove_more(machine):
    """Take them away, so that others find what they know."""
    maria(
        machine,
        f"DROP DATABASE shop; DROP DATABASE `{ODD}`; DROP USER 'o''dd'@'%'; DROP ROLE sellers",
    )
    double = ODD.replace('"', '""')
    postgres(
        machine,
        f'DROP DATABASE shop; DROP DATABASE "{double}"; DROP ROLE "o\'dd"; DROP ROLE sellers',
    )


def test_what_the_backup_does_not_hold_stays(owner, source, pi):
    """Databases, users, roles, and what they may do come through a restore, and are named."""
    assert differing(source, look(pi)) == {}
    add_more(pi)
    expected = look(pi)
    maria(
        pi,
        "DROP DATABASE home; CREATE DATABASE home; SET PASSWORD FOR reader@'%' = PASSWORD('other'); "
        "GRANT ALL ON *.* TO reader@'%'",
    )
    postgres(pi, "DROP TABLE z CASCADE; CREATE TABLE z (a INT); ALTER ROLE reader SUPERUSER")
    changed = look(pi)
    said = owner.iot("restore", "--runtag", "t1", "--yes")
    wait_databases(pi)
    for words in ("stays here, not in the backup: ", "kept, not in the backup: "):
        (line,) = [each for each in said.splitlines() if words in each]
        for name in ("mariadb: database shop", "mariadb: user o'dd@%", "postgres: user sellers"):
            assert name in line
    assert "Kept beside the data of the backup: MariaDB in container mariadb: " in said
    assert differing(expected, look(pi)) == {}
    owner.iot("undo", "--last-restore", "--yes")
    wait_databases(pi)
    assert differing(changed, look(pi)) == {}
    remove_more(pi)


def test_what_stays_and_cannot_be_dumped_ends_a_restore_before_the_stop(owner, source, pi):
    """A table whose file is gone: mariadb-dump fails, and the containers were never stopped."""
    maria(
        pi,
        "CREATE DATABASE lost; CREATE TABLE lost.t (a INT) ENGINE=MyISAM; "
        "INSERT INTO lost.t VALUES (1); FLUSH TABLES",
    )
    (data,) = (owner.top / "volumes").rglob("lost/t.MYD")
    data.unlink()
    try:
        ask = ["docker", "inspect", "--format", "{{.State.StartedAt}}", "mariadb", "postgres"]
        started = pi.run(ask).stdout
        said = owner.iot("restore", "--runtag", "t1", "--yes", code=1)
        assert pi.run(ask).stdout == started
        for words in ("mariadb: database lost", "Could not dump the other data of", "--exact"):
            assert words in " ".join(said.split())
    finally:
        maria(pi, "DROP DATABASE lost")


def test_restored_databases_equal_their_source(owner, source, pi):
    """After a backup, a change and a restore, and after its undo, all hold what they held."""
    change(pi, owner.top)
    changed, ran = look(pi), running(pi)
    said = owner.iot("restore", "--runtag", "t1", "--exact", "--yes")
    wait_databases(pi)
    assert differing(source, look(pi)) == {}
    assert read_sqlite(owner.top / SQLITE) == [1, 2]
    assert running(pi) == ran
    (aside,) = [line for line in said.splitlines() if line.startswith("  moved aside, not in the")]
    assert "mariadb: database new" in aside
    assert "postgres: user bert" in aside
    for server in ("MariaDB in container mariadb", "PostgreSQL in container postgres"):
        assert f"The whole dump is in {server}" in said
    owner.iot("undo", "--last-restore", "--yes")
    wait_databases(pi)
    assert differing(changed, look(pi)) == {}
    assert read_sqlite(owner.top / SQLITE) == [1, 2, 3]
    assert running(pi) == ran


@pytest.mark.long
def test_one_server(owner, source, pi):
    """Restored alone, a server is what it was; the others' containers and data are let alone."""
    maria(pi, "CREATE DATABASE IF NOT EXISTS later")
    maria(pi, "INSERT INTO gitea.repo VALUES (4)", "gitea_db")
    postgres(pi, "CREATE TABLE IF NOT EXISTS later (a INT)")
    before, started, files = look(pi), containers(pi), tree(owner.top / "volumes/nodered")
    said = owner.iot("restore", "--runtag", "t1", "--only", "mariadb", "--exact", "--yes")
    assert "stops and restarts: mariadb\n" in said
    assert "The whole dump is in MariaDB in container mariadb" in said
    for words in ("is not changed: a database", "in container gitea_db", "PostgreSQL"):
        assert words not in said
    wait_maria(pi)
    expected = {
        key: rows
        for held, mine in ((source, True), (before, False))
        for key, rows in held.items()
        if (key[0] == "mariadb") == mine
    }
    assert differing(expected, look(pi)) == {}
    now = containers(pi)
    assert {name for name in now if now[name] != started[name]} == {"mariadb"}
    assert tree(owner.top / "volumes/nodered") == files
    owner.iot("undo", "--last-restore", "--yes")
    wait_maria(pi)
    assert differing(before, look(pi)) == {}


@pytest.mark.long
def test_sets_are_verified_shown_and_compared(owner, source, pi):
    """`verify`, `show` and `diff` know the dumps: databases, tables and rows."""
    assert "damaged" not in owner.iot("verify", "--runtag", "t1", "--at", "here")
    shown = owner.iot("show", "--runtag", "t1")
    for name in ("mariadb", "gitea_db", "postgres", "home", ODD_DATABASE):
        assert name in shown
    maria(
        pi,
        "CREATE TABLE IF NOT EXISTS gitea.odd (a INT); INSERT INTO gitea.odd VALUES (1)",
        "gitea_db",
    )
    owner.backup("--runtag", "t2", code=None)  # earlier tests have taken data away
    assert "odd" in owner.iot("diff", "t1", "t2")


@pytest.mark.long
def test_other_major_version_is_refused(owner, source, pi):
    """A dump of another major version of PostgreSQL is refused before anything is touched."""
    usb = copy_set(owner, "t1")
    path = usb / "t1.manifest.json"
    manifest = json.loads(path.read_text())
    (server,) = manifest["parts"]["postgres"]["facts"]["servers"]
    server["version"] = "9.6.24"
    path.write_text(new_form(manifest))
    before, started = tree(owner.top), containers(pi)
    said = owner.iot("restore", "--runtag", "t1", "--from", str(usb), "--yes", code=13)
    assert "postgres:9.6" in said
    # Without a manifest the dump itself tells, and it is refused before anything is stopped.
    usb = copy_set(owner, "t1", "postgres")
    rewrite(
        usb / "t1.postgres-backup.sql.gz.tar",
        lambda sql: sql.replace(b"database version 1", b"database version 9"),
    )
    said = owner.iot("restore", "--runtag", "t1", "--from", str(usb), "--yes", code=13)
    assert "is of PostgreSQL 9" in said
    assert containers(pi) == started
    assert files_of(owner.top) == files_of(owner.top, before)


def files_of(top, found=None):
    """The files of a stack but those that servers write by themselves."""
    own = ("volumes/mariadb", "volumes/gitea", "volumes/postgres")
    found = tree(top) if found is None else found
    return {name: fact for name, fact in found.items() if not below({name: fact}, *own)}


def copy_set(owner, runtag, *kinds):
    """Copies of the files of a set, or of some kinds of them, in a folder of the user's."""
    usb = owner.pi.home_of(USER) / "usb"
    shutil.rmtree(usb, ignore_errors=True)
    usb.mkdir()
    for kind in kinds or [each for each in ALL_ENDINGS if each != "log"]:
        shutil.copy(owner.here(runtag, kind), usb)
    give(usb)
    return usb


def give(folder):
    """Let a folder and what is in it be the user's."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, UIDS[USER], UIDS[USER])


def rewrite(path, changed):
    """Change the dumps in a part of PostgreSQL."""
    made = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=made, mode="w") as new:
        for member in old:
            content = old.extractfile(member).read()
            if member.name.endswith(".sql.gz"):  # beside it are its settings
                content = gzip.compress(changed(gzip.decompress(content)))
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    path.write_bytes(made.getvalue())


@pytest.mark.long
def test_incomplete_set(owner, source, pi):
    """Where a set lacks a dump, the live databases stay, and it is said."""
    with other_password(pi):
        said = owner.backup("--runtag", "lacking", code=1)
    assert "MariaDB in container mariadb has another password" in said
    assert owner.manifest("lacking")["state"] == "incomplete"
    held = owner.manifest("lacking")["parts"]["mariadb"]["facts"]
    assert (list(held["failed"]), len(held["servers"])) == (["mariadb"], 1)
    owner.assert_set("lacking", kinds=ALL_ENDINGS)
    maria(pi, "CREATE DATABASE IF NOT EXISTS kept; CREATE TABLE kept.t AS SELECT 1 AS one")
    postgres(pi, "CREATE TABLE gone (a INT)")
    before = look(pi)
    owner.iot("restore", "--runtag", "lacking", "--only", "mariadb", "--yes", code=13)
    said = owner.iot("restore", "--runtag", "lacking", "--yes", code=3)
    assert "lacking is incomplete: it has no dump of container mariadb" in said
    assert "volumes/mariadb is not changed: a database" in said
    assert "volumes/gitea is not changed: a database" not in said
    wait_databases(pi)
    assert {name for name, _ in differing(before, look(pi))} == {"postgres"}
    owner.iot("undo", "--last-restore", "--yes")
    wait_databases(pi)
    assert differing(before, look(pi)) == {}
    owner.backup("--runtag", "lacking")
    owner.assert_set("lacking", kinds=ALL_ENDINGS)


# As IOTstackBackup makes them.


def iotstackbackup(machine, usb, runtag):
    """Make IOTstackBackup's archives of both servers, with its own commands, in a folder."""
    shutil.rmtree(usb, ignore_errors=True)
    usb.mkdir()
    inside = {
        "mariadb": 'mysqldump -p"$MYSQL_ROOT_PASSWORD" --single-transaction $MYSQL_DATABASE',
        "postgres": "pg_dumpall -U $POSTGRES_USER | gzip",
    }
    names = {"mariadb": "backup.sql", "postgres": "postgres_backup.sql.gz"}
    for container, script in inside.items():
        name = names[container]
        machine.run(["docker", "exec", container, "bash", "-c", f"{script} > /backup/{name}"])
        (folder,) = (machine.user_home / "IOTstack/volumes" / container).glob("db_backup")
        archive = usb / f"{runtag}.{ALL_ENDINGS[container]}"
        machine.run(["tar", "-C", folder, "-czf", archive, f"./{name}"])
    give(usb)


@pytest.mark.long
def test_archives_of_iotstackbackup(owner, source, pi):
    """Its dumps restore: one database of MariaDB, beside which the others and users stay; all of PostgreSQL."""
    usb = pi.home_of(USER) / "usb"
    maria(pi, "CREATE OR REPLACE TABLE `default`.t AS SELECT 7 AS a")
    iotstackbackup(pi, usb, "2024-01-02_0304")
    held = look(pi)
    maria(
        pi,
        "CREATE OR REPLACE TABLE `default`.t AS SELECT 8 AS a; CREATE TABLE `default`.u (a INT)",
    )
    maria(
        pi,
        "CREATE DATABASE IF NOT EXISTS beside; CREATE OR REPLACE TABLE beside.t AS SELECT 1 AS a; CREATE OR REPLACE USER new@'%'",
    )
    postgres(pi, "CREATE ROLE carl; CREATE TABLE brief (a INT)")
    before, ran = look(pi), running(pi)
    for path in usb.iterdir():
        path.rename(owner.backups / path.name)
    assert "unproven" in owner.iot("verify", "--runtag", "2024-01-02_0304", "--at", "here")
    said = owner.iot("restore", "--runtag", "2024-01-02_0304", "--from", "here", "--yes")
    assert "it has no manifest" in said
    wait_databases(pi)
    after = look(pi)
    # The database is as it was dumped; a table that the dump does not know stays beside it.
    assert after["mariadb", ("default", "t")] == held["mariadb", ("default", "t")]
    expected = before | {key: rows for key, rows in held.items() if key[0] == "postgres"}
    expected["mariadb", ("default", "t")] = held["mariadb", ("default", "t")]
    expected["postgres", ("", "role")] = before["postgres", ("", "role")]  # carl stays
    lost = {key for key in before if key[0] == "postgres" and key not in held}
    assert differing({k: rows for k, rows in expected.items() if k not in lost}, after) == {}
    assert running(pi) == ran
    owner.iot("undo", "--last-restore", "--yes")
    wait_databases(pi)
    assert differing(before, look(pi)) == {}


@pytest.mark.long
def test_its_archive_of_one_database_beside_a_general_part(owner, source, pi):
    """A general part, which holds no files of the server, does not take its other databases away."""
    usb = pi.home_of(USER) / "usb"
    maria(pi, "CREATE OR REPLACE TABLE `default`.t AS SELECT 7 AS a")
    iotstackbackup(pi, usb, "t1")
    (usb / f"t1.{ALL_ENDINGS['postgres']}").unlink()
    shutil.copy(owner.here("t1", "general"), usb)
    give(usb)
    before = look(pi)
    maria(pi, "CREATE OR REPLACE TABLE `default`.t AS SELECT 8 AS a")
    words = ("restore", "--runtag", "t1", "--from", str(usb), "--yes")
    said = owner.iot(*words, code=3)
    assert "volumes/postgres is not changed: a database" in said
    wait_databases(pi)
    assert differing(before, look(pi)) == {}
    owner.iot("undo", "--last-restore", "--yes")
    wait_databases(pi)


# Files.


AWAY = ("mariadb", "postgres")
STATES = {
    "stopped": (["stop", "-t", "10"], ["start"]),
    "killed": (["kill"], ["start"]),
    "paused": (["pause"], ["unpause"]),
    "away": (["rm", "-f"], None),
}


@pytest.mark.parametrize("state", STATES)
def test_servers_that_do_not_run(owner, source, pi, state):
    """Their files are copied as they are, with a warning for each; a restore brings back all."""
    postgres(pi, "CHECKPOINT")  # else sequences leap when it mends itself after a kill
    expected = look(pi)
    away, back = STATES[state]
    pi.run(["docker", *away, *AWAY])
    said = owner.backup("--runtag", state, code=3)
    how = "no container named" if state == "away" else "container"
    for title, name in zip(("MariaDB", "PostgreSQL"), AWAY, strict=True):
        assert f"{title} is not dumped: {how} {name}" in said
        assert f"a dump of {name}" in [e["what"] for e in owner.manifest(state)["left_out"]]
    assert ("and may be inconsistent" in said) == (state == "paused")
    parts = owner.manifest(state)["parts"]
    assert "postgres" not in parts
    assert [each["container"] for each in parts["mariadb"]["facts"]["servers"]] == ["gitea_db"]
    if back:
        pi.run(["docker", *back, *AWAY])
    else:
        compose(pi, "up", "-d", user=USER)
    wait_databases(pi)
    change(pi, owner.top)
    owner.iot("restore", "--runtag", state, "--yes")
    wait_databases(pi)
    assert differing(expected, look(pi)) == {}


def test_docker_does_not_answer(owner, source, pi):
    """All is copied as it lies, and each server that may write meanwhile is named."""
    pi.run(["mv", "/run/docker.sock", "/run/away.sock"])
    try:
        said = owner.backup("--runtag", "unknown", code=3)
    finally:
        pi.run(["mv", "/run/away.sock", "/run/docker.sock"])
    for name in ("influxdb", *SERVERS):
        assert f"Docker does not answer, so the files of {name} are copied" in said
    assert set(owner.manifest("unknown")["parts"]) == {"general"}


# To another machine.


@pytest.fixture(scope="module")
def far(stand, owner):
    """Another machine with an engine, the databases' images, and no stack."""
    made = stand.add(FAR, engine=True)
    load_databases(made)
    stand.pi.may_log_in_to(made, {FAR: (22, USER)})
    return made


@pytest.fixture
def to_far(owner):
    """The words of a restore to the far machine."""
    owner.set(f'[[hosts]]\nname = "{FAR}"\nhost = "{FAR}"')
    yield ("--host", FAR)
    owner.set()


@pytest.mark.long
def test_other_machine_with_another_password(owner, source, pi, far, to_far):
    """The servers of another machine become the source's, passwords included, of which it warns."""
    remove_iotstack(far)
    top = make_database_stack(far, user=USER)
    env = top / ".env"
    env.write_text(
        env.read_text().replace("GITEA_DB_ROOT_PASSWORD=", "GITEA_DB_ROOT_PASSWORD=not")
    )
    compose_up(far, user=USER)
    wait_maria(far, "gitea_db", password="notrootPassword")
    wait_maria(far)
    wait_postgres(far)
    maria(far, "CREATE DATABASE mine; CREATE TABLE mine.t AS SELECT 1 AS one")
    said = owner.iot("restore", "--runtag", "t1", *to_far, "--yes", code=3)
    assert "MariaDB in container gitea_db has the passwords of the backup" in said
    assert "MariaDB in container mariadb has the passwords" not in said
    wait_databases(far)
    differs = differing(source, look(far))
    assert {key for _, key in differs} == {"database", ("mine", "t")}
    assert len(differs["mariadb", ("mine", "t")][1]) == 2  # how it is made, and its row
    assert "kept, not in the backup: mariadb: database mine" in said
    owner.iot("undo", *to_far, "--last-restore", "--yes")
    wait_maria(far, "gitea_db", password="notrootPassword")
    wait_maria(far)
    wait_postgres(far)
    assert ("mine",) in maria(far, "SHOW DATABASES")


@pytest.mark.long
def test_bare_machine(owner, source, pi, far, to_far):
    """Where there is no container and no stack all comes up from the backup's compose file."""
    remove_iotstack(far)
    top = far.home_of(USER) / "IOTstack"
    top.mkdir()
    shutil.chown(top, UIDS[USER], UIDS[USER])
    owner.iot("restore", "--runtag", "t1", *to_far, "--yes")
    wait_databases(far)
    assert differing(source, look(far)) == {}
    assert read_sqlite(top / SQLITE) == [1, 2]
    assert (top / ".env").read_text() == (owner.top / ".env").read_text()
    assert running(far) == {*SERVERS, "influxdb", "nodered"}
    owner.iot("undo", *to_far, "--last-restore", "--yes")
    assert containers(far) == {}
    left = (path for path in top.rglob("*") if "restore" not in path.parts)
    left = {path.name for path in left if not path.is_dir()}
    assert left <= {".lock", ".commands"}  # what we lock is never removed


# While they write.


@pytest.mark.parametrize("count", [4, pytest.param(40, marks=pytest.mark.long)])
def test_many_backups_in_a_row(owner, source, pi, count):
    """Each of many backups holds every row that was committed before it began, and is whole."""
    folder = owner.top / "volumes/nodered/data"
    writers = [
        SqliteWriter(folder / f"rollback{count}.db", "delete"),
        SqliteWriter(folder / f"wal{count}.db", "wal"),
        MariaWriter(pi),
        PostgresWriter(pi),
    ]
    told = []
    with contextlib.ExitStack() as stack:
        for each in writers:
            stack.enter_context(each)
        for number in range(count):
            committed = [each.wait_for_more() for each in writers]
            runtag = f"row {count} {number:02}"
            said = owner.backup("--runtag", runtag, code=0 if number else None)
            # Earlier writers had written more rows: that is told once.
            assert all("now has" in each for each in owner.manifest(runtag)["warnings"]), said
            held = [each.rows_in(owner.backups, runtag) for each in writers]
            assert all(more >= least for more, least in zip(held, committed, strict=True)), (
                committed,
                held,
            )
            told.append((committed, held))
        written = [each.committed for each in writers]
    print(
        f"{count} backups; committed before the last, held by it: {told[-1]}; at the end {written}"
    )
    assert min(written) > count
    if count > 4:
        owner.iot("rehearse", "--runtag", runtag, "--at", "here")
