"""MariaDB and PostgreSQL whose data lie where their images do not have them."""

import shutil
import subprocess

import pytest
from databases import fresh_database_stack, maria, postgres, wait_databases
from owner import Owner
from stand import compose, compose_up
from stand_machine import USER

PLACES = {
    "deeper in the mount": (
        ("./volumes/postgres/data:/var/lib/postgresql/data", "./volumes/postgres/data:/pg"),
        ("      - POSTGRES_USER=", "      - PGDATA=/pg/deep/data\n      - POSTGRES_USER="),
    ),
    "in another mount": (
        ("./volumes/postgres/data:/var/lib/postgresql/data", "./volumes/other/pg:/data/postgres"),
        ("      - POSTGRES_USER=", "      - PGDATA=/data/postgres\n      - POSTGRES_USER="),
    ),
}
COMMAND = '    command: ["/usr/sbin/mariadbd", "--user=abc", "--datadir=/config/elsewhere/db"]\n'
MARIA = ("    container_name: mariadb\n", f"    container_name: mariadb\n{COMMAND}")


@pytest.mark.long
@pytest.mark.parametrize("place", PLACES)
def test_their_live_files_are_in_no_archive(stand, pi, nas, databases, place):
    """Where they lie is asked of the server; a restore puts the data of the dump there."""
    owner = Owner(pi, nas, user=USER, fresh=fresh_database_stack)
    path = owner.top / "docker-compose.yml"
    compose(pi, "down", user=USER)
    text = path.read_text()
    for old, new in (*PLACES[place], MARIA):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    for name in ("mariadb/config", "postgres/data"):
        shutil.rmtree(owner.top / "volumes" / name)
    compose_up(pi, user=USER)
    wait_databases(pi)
    postgres(pi, "CREATE TABLE t AS SELECT 7 AS a")
    maria(pi, "CREATE TABLE `default`.t AS SELECT 7 AS a")
    owner.backup("--runtag", "t1")
    archive = owner.here("t1", "general")
    names = subprocess.run(["tar", "-tf", archive], check=True, capture_output=True, text=True)
    live = ("PG_VERSION", "pg_hba.conf", "ibdata1", "aria_log_control")
    assert not [each for each in names.stdout.splitlines() if each.endswith(live)]
    postgres(pi, "DROP TABLE t")
    maria(pi, "DROP TABLE `default`.t")
    owner.iot("restore", "--runtag", "t1", "--from", "here", "--yes")
    wait_databases(pi)
    assert postgres(pi, "SELECT a FROM t") == [("7",)]
    assert maria(pi, "SELECT a FROM `default`.t") == [("7",)]
    owner.away()


@pytest.mark.long
def test_tablespaces(stand, pi, nas, databases):
    """What lies in mounts of their own comes back in the default one, and undone as it was."""
    owner = Owner(pi, nas, user=USER, fresh=fresh_database_stack)
    compose(pi, "down", user=USER)
    ssd = pi.home_of(USER) / "ssd"
    places = {"fast": "./volumes/fast", "ssd": ssd, "own": "named"}
    path = owner.top / "docker-compose.yml"
    mount = "      - ./volumes/postgres/data:/var/lib/postgresql/data\n"
    more = "".join(f"      - {place}:/{name}\n" for name, place in places.items())
    path.write_text(f"{path.read_text().replace(mount, mount + more)}\nvolumes:\n  named:\n")
    compose_up(pi, user=USER)
    wait_databases(pi)
    for name in places:
        pi.run(["docker", "exec", "postgres", "chown", "postgres", f"/{name}"])
        postgres(pi, f"CREATE TABLESPACE {name} LOCATION '/{name}'")
        postgres(pi, f"CREATE TABLE {name} (a INT) TABLESPACE {name}")
    add = "INSERT INTO fast VALUES (7); INSERT INTO ssd VALUES (7); INSERT INTO own VALUES (7)"
    rows = "SELECT (SELECT sum(a) FROM fast), (SELECT sum(a) FROM ssd), (SELECT sum(a) FROM own)"
    postgres(pi, add)
    owner.backup("--runtag", "t1")
    assert owner.manifest("t1")["warnings"] == []
    assert "outside" not in owner.manifest("t1")["parts"]
    told = " ".join(owner.here("t1", "restore").read_text().split())
    assert all(
        f"tablespace {name} (at /{name}); its tables are in the dump" in told for name in places
    )
    archive = owner.here("t1", "general")
    names = subprocess.run(["tar", "-tf", archive], check=True, capture_output=True, text=True)
    assert not [each for each in names.stdout.splitlines() if "/PG_" in each]
    owner.iot("rehearse", "--runtag", "t1", "--at", "here", code=3)
    postgres(pi, add)
    said = owner.iot("restore", "--runtag", "t1", "--from", "here", "--yes", code=3)
    assert "tablespace own (at /own)" in said
    wait_databases(pi)
    assert postgres(pi, rows) == [("7", "7", "7")]
    owner.iot("undo", "--last-restore", "--yes")
    wait_databases(pi)
    assert postgres(pi, rows) == [("14", "14", "14")]
    owner.away()
    shutil.rmtree(ssd)
