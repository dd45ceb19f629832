"""Loading a dump of SQL: what was counted is told, and what does not fit is refused."""

import gzip

import folders
import pytest
from contexts import PlainContext

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.databases.sql.load import LoadSql, SqlDump, UnpackSql, batched, staged_dumps
from iotstack_invoke.databases.sql.servers import SqlServer, rows_told
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.hosts.local import LocalHost

DUMP = folders.FIXTURES / "sql/mariadb-10.11.sql"
SERVER = SqlServer("home_db", "mariadb", "/data", "/config/databases")


def load(tmp_path, *, lost=0):
    """Load the dump into a server that counts it, with rows of its first table lost."""
    context = PlainContext({"pi": LocalHost(str(tmp_path))})
    dump = SqlDump(HostAccess("pi"), str(DUMP), SERVER)
    rows = dump.report(context).rows
    tables = {at: table for some in batched(rows) for at, table in some.items()}
    answers = [f"{at}|{rows[table] - (0 if at else lost)}" for at, table in tables.items()]
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(answers) + "\nEND\n")
    docker.chmod(0o755)
    proven = {}
    guard = str(tmp_path / "guard")
    LoadSql(
        HostAccess("pi", docker=(str(docker),), guard=guard),
        SERVER,
        dump,
        str(tmp_path),
        60,
        proven,
    ).do(context)
    return rows, proven


def test_what_was_proven_is_told(tmp_path):
    """Whoever asks has the report of each dump whose rows were all counted, and a line of it."""
    rows, proven = load(tmp_path)
    assert proven["home_db"].rows == rows
    assert rows_told("mariadb", proven.values()) == (
        f"MariaDB: 1 server, {len(rows)} tables, {sum(rows.values())} rows"
    )
    assert rows_told("nextcloud", ()) == "Nextcloud: 0 servers, 0 tables, 0 rows"


def test_a_lost_row_is_not_proven(tmp_path):
    """A table with fewer rows than its dump ends the load, with both numbers."""
    with pytest.raises(StepFailed, match=r"did not load all of its dump: .* rows, not "):
        load(tmp_path, lost=1)


def test_a_folder_of_dumps_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path):
    """Else the data here would stay, or go, and the restore end well; find(1) fails alike."""
    host, folder = LocalHost(str(tmp_path)), tmp_path / "postgres"
    assert staged_dumps(host, str(folder), "postgres", ()) == {}
    folder.mkdir()
    (folder / "postgres_backup.sql.gz").write_bytes(b"x")
    dumps = {"postgres": f"{folder}/postgres_backup.sql"}
    assert staged_dumps(host, str(folder), "postgres", ()) == dumps
    refusing = tmp_path / "sudo"
    refusing.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    refusing.chmod(0o755)
    with pytest.raises(StepFailed, match="a password is required"):
        staged_dumps(host, str(folder), "postgres", (str(refusing),))


@pytest.mark.parametrize("tables", [b"", b"CREATE TABLE x (y int);\n"], ids=["zeros", "a dump"])
def test_a_dump_that_unpacks_to_more_than_is_free_is_not_unpacked(small_disk, tables):
    """A few hundred bytes that become megabytes: refused, and nothing of it is written."""
    packed = small_disk / "postgres_backup.sql.gz"
    packed.write_bytes(gzip.compress(tables + bytes(20_000_000)))
    before = packed.read_bytes()
    context = PlainContext({"pi": LocalHost(str(small_disk))})
    step = UnpackSql(
        HostAccess("pi", guard=str(small_disk / "guard")), str(small_disk), "postgres"
    )
    with pytest.raises(StepFailed, match=r"at least 2\d\d,\d\d\d bytes when unpacked, but 2"):
        step.do(context)
    assert [(each.name, each.read_bytes()) for each in small_disk.iterdir()] == [
        (packed.name, before)
    ]
