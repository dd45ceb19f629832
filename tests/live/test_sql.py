"""MariaDB and PostgreSQL on the stand: backed up while they run, restored, undone, rehearsed."""

import pytest
from databases import (
    fill_maria,
    fill_postgres,
    fresh_database_stack,
    look_maria,
    look_postgres,
    maria,
    postgres,
    wait_databases,
)
from owner import Owner
from restorer import running
from stand_machine import USER


def look(pi):
    """All that the three servers hold."""
    return {
        **{("mariadb", *_named(key)): rows for key, rows in look_maria(pi).items()},
        **{("gitea_db", *_named(key)): rows for key, rows in look_maria(pi, "gitea_db").items()},
        **{("postgres", *_named(key)): rows for key, rows in look_postgres(pi).items()},
    }


def _named(key):
    return (key,) if isinstance(key, str) else key


def differing(one, other):
    return {
        key: (one.get(key), other.get(key))
        for key in {*one, *other}
        if one.get(key) != other.get(key)
    }


@pytest.fixture(scope="module")
def owner(pi, nas, databases):
    """An owner whose stack has databases with all that a careless dump loses."""
    made = Owner(pi, nas, user=USER, fresh=fresh_database_stack)
    fill_maria(pi)
    maria(
        pi, "CREATE TABLE gitea.repo (id INT); INSERT INTO gitea.repo VALUES (1), (2)", "gitea_db"
    )
    fill_postgres(pi)
    yield made
    made.away()


def change(pi):
    """Make every server unlike its backup: rows, databases, users and passwords."""
    maria(
        pi,
        "DROP DATABASE home; CREATE DATABASE new; CREATE TABLE new.t (a INT); DROP USER IF EXISTS reader@'%'",
    )
    maria(pi, "INSERT INTO gitea.repo VALUES (3)", "gitea_db")
    postgres(
        pi, "DROP TABLE z CASCADE; CREATE TABLE new (a INT); CREATE ROLE bert LOGIN PASSWORD 'x'"
    )


def test_restored_databases_equal_their_source(owner, pi):
    """After a backup, a change and a restore, and after its undo, every server holds what it held."""
    source = look(pi)
    owner.backup("--runtag", "t1")
    owner.assert_set("t1")
    assert owner.manifest("t1")["warnings"] == []
    change(pi)
    changed = look(pi)
    ran = running(pi)
    said = owner.iot("restore", "--runtag", "t1", "--yes", timeout=200)
    print(said)
    wait_databases(pi)
    assert differing(source, look(pi)) == {}
    assert running(pi) == ran
    said = owner.iot("undo", "--yes", timeout=200)
    print(said)
    wait_databases(pi)
    assert differing(changed, look(pi)) == {}
    assert running(pi) == ran
    said = owner.iot("rehearse", timeout=200)
    print(said)
