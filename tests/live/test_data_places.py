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
    owner.iot("restore", "--runtag", "t1", "--from", "here", "--yes", timeout=300)
    wait_databases(pi)
    assert postgres(pi, "SELECT a FROM t") == [("7",)]
    assert maria(pi, "SELECT a FROM `default`.t") == [("7",)]
    owner.away()
