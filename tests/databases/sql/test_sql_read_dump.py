"""Dumps of SQL: what is whole, and how many rows each table has."""

import re

import folders
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iotstack_invoke.databases.sql.read_dump import MariaReader, PostgresReader, SqlTable

FIXTURES = folders.FIXTURES / "sql"
MARIA = (FIXTURES / "mariadb-10.11.sql").read_bytes()
POSTGRES = (FIXTURES / "postgres-15.sql").read_bytes()
ODD = "od`d ü"


def report(reader, *pieces):
    for piece in pieces:
        reader.add(piece)
    return reader.report()


def cut(content, size):
    return [content[at : at + size] for at in range(0, len(content), size)]


def test_a_whole_dump_of_mariadb():
    """Every table has its rows, one without any has 0; views and sequences are no tables."""
    found = report(MariaReader(), MARIA)
    assert found.problems == ()
    assert found.databases == ("test", ODD, "plain", "mysql")
    assert found.version.startswith("10.11.")
    counted = {table: rows for table, rows in found.rows.items() if table.database != "mysql"}
    assert counted == {
        SqlTable(ODD, "`ar`"): 2,
        SqlTable(ODD, "`e`"): 0,
        SqlTable(ODD, "`g`"): 2,
        SqlTable(ODD, "`t ``a(1)`"): 3,
        SqlTable("plain", "`old`"): 2,
    }
    assert found.rows[SqlTable("mysql", "`global_priv`")] == len(found.users) == 8
    assert {"anna@%", "r1@", "@vm", "root@localhost"} < {*found.users}


def test_a_whole_dump_of_postgresql():
    """Every table of every database has its rows, whatever its name or the database's."""
    found = report(PostgresReader(), POSTGRES)
    assert found.problems == ()
    assert found.databases == ("template1", 'o\'dd "x" \\ db', "postdb", "postgres")
    assert found.users == ("anna", "postuser")
    assert found.version.startswith("15.")
    assert found.rows == {
        SqlTable('o\'dd "x" \\ db', "public.z"): 1,
        SqlTable("postdb", 'public."T ""q (x"'): 0,
        SqlTable("postdb", "public.par1"): 2,
        SqlTable("postdb", "public.t"): 3,
        SqlTable("postdb", '"s p".e'): 0,
    }


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(("reader", "content"), [(MariaReader, MARIA), (PostgresReader, POSTGRES)])
def test_how_it_comes_in_pieces_does_not_matter(reader, content, size):
    """A dump cut anywhere into pieces is the same dump."""
    assert report(reader(), *cut(content, size)) == report(reader(), content)


OURS = b"-- This dump ends with FLUSH PRIVILEGES;\n" + MARIA


@given(st.integers(0, len(OURS)))
@example(OURS.index(b"USE `mysql`;"))
def test_a_cut_dump_of_mariadb_is_not_whole(at):
    """Whatever is missing before its very end is found, also between the two programs."""
    assert bool(report(MariaReader(), OURS[:at]).problems) == (at < len(OURS.rstrip()))


@given(st.integers(0, len(MARIA)))
def test_a_cut_dump_that_names_no_end_is_not_whole(at):
    """One of another program, or of ours from before, ends with the marker of that program."""
    markers = [each.start() for each in re.finditer(b"-- Dump completed", MARIA)]
    begun = MARIA.index(b"\nUSE `mysql`;") + len(b"\nUSE `mysql`;")
    whole = markers[0] + len(b"-- Dump completed") <= at < begun
    whole = whole or at >= markers[1] + len(b"-- Dump completed")
    assert bool(report(MariaReader(), MARIA[:at]).problems) == (not whole)


@given(st.integers(0, len(POSTGRES)))
def test_a_cut_dump_of_postgresql_is_not_whole(at):
    """Whatever is missing before the end of its last marker is found."""
    end = POSTGRES.rindex(b"cluster dump complete") + len(b"cluster dump complete")
    assert bool(report(PostgresReader(), POSTGRES[:at]).problems) == (at < end)


def test_a_database_without_its_end_is_found():
    """A dump whose last marker is there and that of one database is not is not whole."""
    broken = POSTGRES.replace(b"-- PostgreSQL database dump complete\n", b"", 1)
    assert report(PostgresReader(), broken).problems


def test_rows_on_one_line_are_counted():
    """Older programs write all rows of a statement on one line, with any text in them."""
    rows = rb"(1,'a'),(2,'),('),(3,'it\'s \\'),(4,'double '' quote'),(5,0x00FF)"
    told = b"USE `a`;\nINSERT INTO `t` VALUES " + rows + b";\n-- Dump completed on 2020\n"
    assert report(MariaReader(), told).rows == {SqlTable("a", "`t`"): 5}


def test_users_on_one_line_are_told():
    """An older program has all on one line, and a server before 10.4 a table `user`."""
    rows = b"('%','o\\'dd, (x),(y)','Y'),('localhost','','N'),('','role''s','N')"
    insert = b"INSERT INTO `user` (`Host`, `User`, `Super_priv`) VALUES " + rows + b";\n"
    for before, users in (
        (b"USE `mysql`;\n", ("o'dd, (x),(y)@%", "@localhost", "role's@")),
        (b"", ()),
    ):
        assert report(MariaReader(), before, insert).users == users


def test_roles_are_those_before_the_databases():
    """A function may hold a line that makes one; a name may need quotes."""
    head = b'CREATE ROLE "o\'d""d";\nCREATE ROLE plain;\n\\connect x\nCREATE ROLE no;\n'
    assert report(PostgresReader(), head).users == ("o'd\"d", "plain")


def test_what_a_routine_says_is_no_row():
    """A body that looks like statements of the dump is passed over."""
    body = b"DELIMITER ;;\nINSERT INTO `t` VALUES\n(1);\nUSE `b`;\n;;\nDELIMITER ;\n"
    found = report(MariaReader(), b"USE `a`;\n" + body + b"-- Dump completed")
    assert (found.rows, found.databases) == ({}, ("a",))


def test_a_function_with_copy_in_it_is_no_table():
    """Only behind its comment a COPY of pg_dump begins."""
    found = report(PostgresReader(), b"\\connect a\nCOPY public.t (a) FROM stdin;\n1\n\\.\n")
    assert found.rows == {}


def test_a_row_may_be_longer_than_what_is_kept_of_a_line():
    """A row of many megabytes is one row, and the next one another."""
    pieces = [b"USE `a`;\nINSERT INTO `t` VALUES\n('", *[b"x" * (1 << 20)] * 9, b"'),\n(2);\n"]
    found = report(MariaReader(), *pieces, b"-- Dump completed")
    assert found.rows == {SqlTable("a", "`t`"): 2}


def test_a_dump_of_one_database_names_none():
    """What IOTstackBackup saves of MariaDB has tables without a database."""
    found = report(MariaReader(), (FIXTURES / "mariadb-unnamed.sql").read_bytes())
    assert found.problems == ()
    assert found.databases == ()
    assert found.rows == {SqlTable("", "`old`"): 2}


TIMESCALE = (
    b"\\connect %s\n"
    b"-- Name: timescaledb; Type: EXTENSION; Schema: -; Owner: -\n--\n\n"
    b"CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public;\n"
)


def test_timescaledb_is_told_by_its_database():
    """A database with the extension is named; one that only writes of it, in a row or not, no."""
    line = b"CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public;\n"
    begin = b"\\connect other\n-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: x\n"
    row = begin + b"COPY public.t (a) FROM stdin;\n" + line + b"\\.\n" + line
    assert report(PostgresReader(), TIMESCALE % b"iot", row).timescale == ("iot",)
    assert report(PostgresReader(), POSTGRES).timescale == ()


NEWLINES_MARIA = b"""USE `a
b`;
CREATE TABLE `t

x` (
  `c` int(11)
);
/*!40000 ALTER TABLE `t

x` DISABLE KEYS */;
INSERT INTO `t

x` (`c
d`, `s`) VALUES
(1,'`'),
(2,'z');
INSERT INTO `old` VALUES (1,'odd: `'),(2,'');
-- Dump completed on 2026
"""


def test_names_with_newlines_in_a_dump_of_mariadb():
    """Databases, tables and columns may have a newline in their name: their rows are counted."""
    found = report(MariaReader(), NEWLINES_MARIA)
    assert found.problems == ()
    assert found.databases == ("a\nb",)
    assert found.rows == {SqlTable("a\nb", "`t\n\nx`"): 2, SqlTable("a\nb", "`old`"): 2}


def test_names_with_newlines_in_a_dump_of_postgresql():
    """The line that begins a table's rows is several where a name in it has a newline."""
    begin = b"\\connect a\n-- Data for Name: t x; Type: TABLE DATA; Schema: public; Owner: x\n"
    copy = b'COPY public."t\n-- x" ("c\nd") FROM stdin;\n1\n2\n\\.\n'
    assert report(PostgresReader(), begin + copy).rows == {SqlTable("a", 'public."t\n-- x"'): 2}
