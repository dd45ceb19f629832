"""The stand's MariaDB and PostgreSQL are what the tests of their dumps rely on."""

import database_images
import pytest
from databases import (
    ODD_DATABASE,
    READER_PASSWORDS,
    ROOT_PASSWORDS,
    fill_maria,
    fill_postgres,
    fresh_database_stack,
    look_maria,
    look_postgres,
    maria,
    postgres,
    wait_databases,
    wait_maria,
    wait_postgres,
)
from stand import compose, remove_iotstack
from stand_machine import StandError

pytestmark = pytest.mark.long  # what uses the stand finds out as well, only later


@pytest.fixture(scope="module")
def top(pi, databases):
    """The folder of a stack whose `mariadb` and `postgres` are filled; `gitea_db` is fresh."""
    made = fresh_database_stack(pi)
    fill_maria(pi)
    fill_postgres(pi)
    yield made
    remove_iotstack(pi)


def test_missing_server_is_named(monkeypatch):
    """A server that is not installed is named as the apt package that has it."""
    monkeypatch.setattr(database_images.shutil, "which", lambda name, path: None)
    with pytest.raises(StandError, match=r"no mariadb-server.*: apt-get install mariadb-server"):
        database_images.check_databases()


def test_folders_and_owners(top):
    """What lies in the volumes is where IOTstack's containers have it, and whose they are."""
    volumes = top / "volumes"
    for folder in ("mariadb/config", "gitea/db"):
        assert (volumes / folder / "databases/mysql").stat().st_uid == 1000
        assert (volumes / folder / "log/mysql/mariadb-bin.index").exists()
        assert (volumes / folder / "custom.cnf").exists()
    data = volumes / "postgres/data"
    assert (data.stat().st_uid, data.stat().st_mode & 0o777) == (999, 0o700)
    assert (data / "PG_VERSION").exists()


def test_accounts_of_mariadb(pi, top):
    """Root comes in with its password only, wherever from; the user has one database."""
    accounts = "SELECT user, host FROM mysql.user WHERE user <> 'mariadb.sys' ORDER BY user"
    assert maria(pi, accounts, "gitea_db") == [("gitea", "%"), ("root", "%")]
    assert ("gitea",) in maria(pi, "SHOW DATABASES", "gitea_db")
    for password in ("", ROOT_PASSWORDS["mariadb"]):
        assert maria(pi, "SELECT 1", "gitea_db", password=password, check=False) == []
    login = ["docker", "exec", "-e", f"MYSQL_PWD={READER_PASSWORDS['mariadb']}", "mariadb"]
    said = pi.run([*login, "mysql", "-ureader", "-NBe", "SELECT COUNT(*) FROM home.z"])
    assert said.stdout == "4\n"


def test_doors_of_postgres(pi, top):
    """No password is asked for on the socket and on 127.0.0.1, but from elsewhere."""
    assert postgres(pi, "SELECT 1", ODD_DATABASE, "reader", host="127.0.0.1") == [("1",)]
    (address,) = pi.run(["docker", "exec", "postgres", "hostname", "-i"]).stdout.split()
    assert postgres(pi, "SELECT 1", host=address, check=False) == []
    login = ["docker", "exec", "-e", f"PGPASSWORD={READER_PASSWORDS['postgres']}", "postgres"]
    said = pi.run([*login, "psql", "-h", address, "-U", "reader", "-Atc", "SELECT 1", "postdb"])
    assert said.stdout == "1\n"


def test_look_sees_what_was_filled(pi, top):
    """A look has tables, rows, programs, accounts and rights, and sees when one changes."""
    seen = look_maria(pi)
    kinds = {key for key in seen if isinstance(key, str)}
    assert kinds == {
        *("account", "database", "event", "grant", "member", "routine", "trigger"),
        *("versioned", "view"),
    }
    assert len(seen["home", "aria"]) == 1001
    assert len(seen["home", "nothing"]) == 1
    maria(pi, "UPDATE home.z SET name = 'NULL' WHERE name IS NULL")
    changed = look_maria(pi)
    assert {key for key in seen if seen[key] != changed[key]} == {("home", "z")}

    seen = look_postgres(pi)
    assert {name for name, _ in seen} == {"", "postgres", "template1", "postdb", ODD_DATABASE}
    assert len(seen[ODD_DATABASE, "rows of many"]) == 1000
    assert len(seen["postdb", "large object"]) == 1
    postgres(pi, "REVOKE UPDATE (n) ON a_reads_z FROM reader")
    changed = look_postgres(pi)
    assert {key for key in seen if seen[key] != changed[key]} == {("postdb", "attribute")}


def test_whole_dumps_look_the_same_elsewhere(pi, top):
    """A dump of all, loaded into a fresh server, gives what was there: the looks see no more."""
    run = ["docker", "run", "--rm", "-d", "--name"]
    password = ROOT_PASSWORDS["mariadb"]
    pi.run([*run, "other_maria", "-e", f"MYSQL_ROOT_PASSWORD={password}", "mariadb:stand"])
    user = ["-ePOSTGRES_USER=postuser", "-ePOSTGRES_DB=postdb", "-ePOSTGRES_PASSWORD=x"]
    pi.run([*run, "other_postgres", *user, "postgres:stand"])

    wait_maria(pi, "other_maria", password=password)
    dump = ["mariadb-dump", "-uroot", "--all-databases", "--routines", "--events"]
    dump += ["--flush-privileges", "--dump-history"]
    program = ["docker", "exec", "-e", f"MYSQL_PWD={password}", "mariadb", *dump]
    maria(pi, pi.run(program).stdout, "other_maria", password=password)
    assert look_maria(pi, "other_maria", password=password) == look_maria(pi)

    wait_postgres(pi, "other_postgres")
    dump = pi.run(["docker", "exec", "postgres", "pg_dumpall", "-U", "postuser"]).stdout
    load = ["docker", "exec", "-i", "-e", "PGOPTIONS=-c default_transaction_read_only=off"]
    load += ["other_postgres", "psql", "-qX", "-U", "postuser", "postgres"]
    pi.run(load, input=dump)  # goes on after "role postuser already exists"
    assert look_postgres(pi, "other_postgres") == look_postgres(pi)
    pi.run(["docker", "stop", "other_maria", "other_postgres"])


def test_stopped_and_started_again(pi, top):
    """Containers end cleanly and in time; made anew, they hold the same."""
    before = look_maria(pi), look_postgres(pi)
    servers = [*ROOT_PASSWORDS, "postgres"]
    compose(pi, "stop", *servers)
    codes = ["docker", "inspect", "-f", "{{.State.ExitCode}}", *servers]
    assert pi.run(codes).stdout.split() == ["0", "0", "0"]
    compose(pi, "up", "-d", "--force-recreate", *servers)
    wait_databases(pi)
    assert (look_maria(pi), look_postgres(pi)) == before
