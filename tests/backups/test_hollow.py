"""What a backup holds can become hollow in many ways, and all who are asked tell it alike."""

import contextlib
import json
import os
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from contexts import until

from iotstack_invoke.backups.holdings import lacks, lacks_told, lost_databases
from iotstack_invoke.backups.losses import losses, spelled
from iotstack_invoke.backups.manifest import LeftOut, Manifest, Part, utc_text
from iotstack_invoke.backups.retention import Policy, judge, judge_each_host
from iotstack_invoke.backups.sets import BackupSet, State
from iotstack_invoke.databases.sqlite.files import LIVE
from iotstack_invoke.environment.environment import sets_in
from iotstack_invoke.hosts.local import LocalHost

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SQL = {"a": {"t": 400}, "b": {"t": 1}}
DAMAGED = "{} is a damaged database (it was one, and is empty). The archive has a copy of it."
LOCKED = f"{{}} stayed locked for 60 s (busy). {LIVE}."
NO_COPY = f"{{}} cannot be copied by SQLite (no). {LIVE}."


def sized(kind, rows=(), **sizes):
    """Return the facts of a part of files: sizes as (bytes, files) by path, _ for a slash."""
    told = {path.replace("_", "/"): list(count) for path, count in sizes.items()}
    return {kind: {"sizes": {"services/z": [9, 1], **told}, **({"outside": rows} if rows else {})}}


def volume(*count):
    rows = [{"path": "/v/x", "volume": "x"}, {"path": "/usb", "volume": ""}]
    kept = {"usb": [7, 1], "v/x": list(count)} if count else {"usb": [7, 1]}
    return {"outside": {"outside": rows[0 if count else 1 :], "sizes": kept}}


def servers(kind, rows):
    return {kind: {"servers": [{"container": "db", "rows": rows}]}}


def influx(**shards):
    told = [{"database": k, "size_bytes": n} for k, n in shards.items() if n]
    return {"influx": {"databases": list(shards), "shards": told}}


def influx2(size):
    bucket = {"organization": "o", "bucket": "b", "shards": int(bool(size)), "size_bytes": size}
    return {"influxdb2": {"buckets": [bucket]}}


def sqlite(kind, *names):
    return {kind: {"sqlite": list(names), "sizes": {"services/z": [9, 1], "volumes/g": [9999, 3]}}}


FILE, OUTER = "volumes/g/g.db", "v/x/g.db"

HOLLOW = {
    # what it is: what was held, what is held, what the newer one warned of itself
    "a service's folder is gone": (sized("general", services_s=(5, 1)), sized("general"), ""),
    "a folder is gone": (sized("general", volumes_s=(900_000, 9)), sized("general"), ""),
    "a mount is empty": (
        sized("general", volumes_zig=(300, 2), volumes_zig_data=(300, 2)),
        sized("general", volumes_zig=(0, 0), volumes_zig_data=(0, 0)),
        "",
    ),
    "a mount is empty, and what is around it is not": (
        sized("general", volumes_zig=(301, 3), volumes_zig_data=(300, 2)),
        sized("general", volumes_zig=(1, 1), volumes_zig_data=(0, 0)),
        "",
    ),
    "a file has no bytes": (
        sized("general", volumes_g=(5_200_000, 1)),
        sized("general", volumes_g=(0, 1)),
        "",
    ),
    "files without bytes are gone": (
        sized("general", volumes_g=(0, 3)),
        sized("general", volumes_g=(0, 0)),
        "",
    ),
    "a file of compose is gone": (sized("general", **{".env": (5, 1)}), sized("general"), ""),
    "a file of compose has no bytes": (
        sized("general", **{".env": (5, 1)}),
        sized("general", **{".env": (0, 1)}),
        "",
    ),
    "an included path is gone": (sized("general", home=(5, 1)), sized("general"), ""),
    "an included file has no bytes": (
        sized("general", **{"home/c.yaml": (5, 1)}),
        sized("general", **{"home/c.yaml": (0, 1)}),
        "",
    ),
    "a volume is gone": (volume(5, 1), volume(), ""),
    "a volume is empty": (volume(5, 1), volume(0, 0), ""),
    "the file of a volume has no bytes": (volume(5, 1), volume(0, 1), ""),
    "files without bytes of a volume are gone": (volume(0, 2), volume(0, 0), ""),
    "the outside part is gone": (volume(5, 1), {}, ""),
    "a file of SQLite is damaged": (sqlite("general", FILE), sqlite("general", FILE), DAMAGED),
    "a file of SQLite stays locked": (sqlite("general", FILE), sqlite("general"), LOCKED),
    "a file of SQLite has no copy": (sqlite("general", FILE), sqlite("general"), NO_COPY),
    "one of a volume is damaged": (
        sqlite("outside", OUTER),
        sqlite("outside", OUTER),
        DAMAGED.replace("{}", OUTER),
    ),
    "the influx part is gone": (influx(home=5), {}, ""),
    "a database of InfluxDB is gone": (influx(home=5, b=1), influx(b=1), ""),
    "a database of InfluxDB is empty": (influx(home=5, b=1), influx(home=0, b=1), ""),
    "a bucket is gone": (influx2(5), {"influxdb2": {"buckets": []}}, ""),
    "a bucket is empty": (influx2(5), influx2(0), ""),
    **{
        f"{kind}: {what}": (servers(kind, SQL), has, "")
        for kind in ("mariadb", "postgres", "gitea", "nextcloud", "wordpress")
        for what, has in {
            "the part is gone": {},
            "the container is gone": {kind: {"servers": []}},
            "a database is gone": servers(kind, {"b": {"t": 1}}),
            "a database has no tables": servers(kind, SQL | {"a": {}}),
            "a database has no rows": servers(kind, SQL | {"a": {"t": 0}}),
        }.items()
    },
}  # fmt: skip

LESS = {
    "a folder": (
        sized("general", volumes_s=(3 << 20, 9)),
        sized("general", volumes_s=(1 << 20, 9)),
    ),
    "a volume": (volume(3 << 20, 9), volume(1 << 20, 9)),
    "a database of SQL": (servers("mariadb", SQL), servers("mariadb", SQL | {"a": {"t": 9}})),
    "a database of InfluxDB": (influx(home=3 << 20), influx(home=1 << 20)),
    "a bucket": (influx2(3 << 20), influx2(1 << 20)),
}


def backup(days, facts, warning="", left_out=()):
    """Return a good set of so many days ago."""
    at = utc_text(NOW - timedelta(days=days))
    facts = {"general": {"sizes": {"services/z": [9, 1]}}, **facts}
    parts = tuple(Part(kind, kind, 9, facts=each) for kind, each in facts.items())
    warnings = (warning.format(FILE),) if warning else ()
    out = tuple(LeftOut(each, "a reason") for each in left_out)
    made = Manifest(f"d{days}", "pi", "", at, at, "", parts, (), out, warnings)
    return BackupSet(made.runtag, {}, State.WARNINGS if warning else State.COMPLETE, made)


def answers(old, new):
    """Return who tells that a newer set lacks something: each who is asked, by the way they ask."""
    policy = Policy(keep=1)
    stay = {
        name: {e.backup.runtag for e in how([old, new], policy, NOW) if e.keep}
        for name, how in (("here", judge), ("vault", judge_each_host))
    }
    warned = (
        *losses(old.manifest, new.manifest),
        *lost_databases(old.manifest, new.manifest),
        *new.manifest.of_data,
    )
    told = lacks_told(lacks(new, [old], ()))  # status, list, prune, and a restore of the latest
    return {
        "backup": bool(warned),
        "status": bool(told),
        **{name: old.runtag in kept for name, kept in stay.items()},
    }


@pytest.mark.parametrize(("had", "has", "warning"), HOLLOW.values(), ids=HOLLOW)
def test_what_is_hollow_replaces_nothing(had, has, warning):
    """A warning of the backup, `status` and the retention, here and in a vault: all or none."""
    old, new = backup(2, had), backup(1, has, warning)
    everybody = {"backup": True, "status": True, "here": True, "vault": True}
    assert answers(old, new) == everybody
    whole = backup(0, had)
    assert answers(old, whole) == dict.fromkeys(everybody, False)
    assert answers(new, whole) == {**dict.fromkeys(everybody, False)}


@pytest.mark.parametrize(("had", "has"), LESS.values(), ids=LESS)
def test_what_is_much_less_is_told_once(had, has):
    """It may be meant, as where a purge or a retention policy took it: nothing stays for it."""
    told = {"backup": True, "status": False, "here": False, "vault": False}
    assert answers(backup(2, had), backup(1, has)) == told


def test_what_is_left_out_on_purpose_is_not_hollow():
    """The owner said so in hosts.toml, or a dump took its place."""
    old = backup(2, sized("general", volumes_s=(5, 1)))
    for pattern in ("volumes/s", "volumes/s/*", "volumes/s/data"):
        assert not any(answers(old, backup(1, {}, left_out=(pattern,))).values())


# A whole stack


@pytest.fixture
def pi(little_stack, tmp_path):
    """A stack that keeps one backup, here and in its vault `nas`, with one of each kind of files."""
    stack = little_stack
    stack.backups, stack.nas = stack.folder / "backups", tmp_path / "nas"
    stack.nas.mkdir()
    stack.settings.write_text(
        f'[stack]\nfolder = "{stack.folder}"\nsudo = false\nkeep = 1\n'
        f'[[vaults]]\nname = "nas"\nkind = "folder"\nfolder = "{stack.nas}"\nkeep = 1\n'
    )
    stack.runs(zig="x", grafana="x", mounts={"zig": [("./volumes/zig/store", "/d")]})
    for path in (".env", "zig.env", "services/zig/env", "volumes/zig/store/d", "volumes/one/f"):
        (stack.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (stack.folder / path).write_bytes(b"x" * 3000)
    stack.database = stack.folder / "volumes/grafana/grafana.db"
    with contextlib.closing(sqlite3.connect(stack.database)) as database, database:
        database.execute("CREATE TABLE t (x)")
        database.executemany("INSERT INTO t VALUES (?)", [("x" * 200,)] * 200)
    return stack


def make_good(pi):
    """Make the backup `good`; what comes next is of a later second."""
    assert pi.run("backup --runtag good").returncode == 0
    started = json.loads((pi.backups / "good.manifest.json").read_text())["started_utc"]
    until(lambda: utc_text(datetime.now(UTC)) > started)


def overwrite(path):
    with path.open("r+b") as stream:
        stream.seek(8192)
        stream.write(b"\xff" * 8192)


WAYS = {
    "volumes/grafana/grafana.db": overwrite,
    "volumes/zig/store": lambda path: os.unlink(path / "d"),
    "services/zig": lambda path: (os.unlink(path / "env"), path.rmdir()),
    "volumes/one": lambda path: os.truncate(path / "f", 0),
    ".env": lambda path: os.truncate(path, 0),
    "zig.env": os.unlink,
}


def test_nights_of_a_hollow_stack_push_out_nothing(pi):
    """From the first night on all tell it, until the owner says that it is gone."""
    make_good(pi)
    assert pi.run("status").stdout.startswith("OK ")
    for path, way in WAYS.items():
        way(pi.folder / path)
    for number in (1, 2):
        told = pi.run(f"backup --runtag n{number}")
        assert told.returncode == 3, told.stderr
        assert pi.run("prune --at all --yes").returncode == 0
        for folder in (pi.backups, pi.nas):
            held = {each.runtag for each in sets_in(LocalHost(str(folder)), str(folder))}
            assert held == {"good", f"n{number}"}
        status = pi.run("status")
        assert status.returncode == 1
        lacking = (
            f"n{number} is missing .env of the general part, services/zig of the general part, a "
        )
        assert lacking in status.stdout
        for path in WAYS:
            assert f" --allow-missing {spelled(path)}" in status.stdout
        assert "1 database damaged before it was copied" in status.stdout
    told = pi.run("restore --runtag latest --from here --dry-run")
    said = " ".join((told.stdout + told.stderr).split())
    assert (
        "It is missing data that an older backup has: .env of the general part, services/zig of"
        in said
    )
    assert [pi.run(f"verify --runtag {e}").returncode for e in ("good", "n2")] == [0, 3]
    gone = " ".join(f"--allow-missing {spelled(path)}" for path in WAYS)
    assert pi.run(f"prune --at all --yes {gone}").returncode == 0
    held = {each.runtag for each in sets_in(LocalHost(str(pi.nas)), str(pi.nas))}
    assert held == {"n2"}


def test_a_database_whose_beginning_is_gone_is_told_each_night(pi):
    """Nothing but an earlier backup tells that it was one; what is removed is no loss."""
    make_good(pi)
    os.truncate(pi.database, 0)
    for tag in ("n1", "n2"):
        assert (
            "is a damaged database (it was one, and is empty)"
            in pi.run(f"backup --runtag {tag}").stderr
        )
        assert pi.run("status --at here").returncode == 1
        assert (pi.backups / "good.manifest.json").exists()
    pi.database.unlink()
    assert pi.run("backup --runtag n3").returncode == 0
    assert pi.run("status --at here").returncode == 0
    assert not (pi.backups / "good.manifest.json").exists()
