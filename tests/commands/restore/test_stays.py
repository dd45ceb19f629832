"""What a target has and a backup has not: how it is told apart, named, copied and put aside."""

import json
import os
import shutil
from dataclasses import asdict
from types import SimpleNamespace

import folders
import pytest
from contexts import PlainContext

from iotstack_invoke.backups.manifest import Manifest, Part
from iotstack_invoke.backups.sets import BackupSet, State
from iotstack_invoke.commands.restore.request import RestoreRequest
from iotstack_invoke.commands.restore.selection import Selection
from iotstack_invoke.commands.restore.stays import (
    Stays,
    put_in_place,
    told_after,
    told_before,
    unknown_told,
)
from iotstack_invoke.commands.undo.gone import fates_of, fates_of_owed
from iotstack_invoke.core.errors import OldDataGone, Refused, StepFailed
from iotstack_invoke.databases.influxdb.meta import read_meta, with_databases
from iotstack_invoke.databases.influxdb.read_dump import Dump
from iotstack_invoke.databases.influxdb.server import Server
from iotstack_invoke.databases.influxdb.stays import (
    CopyStays,
    Present,
    ProveStays,
    SeeInflux,
    present_catalogue,
)
from iotstack_invoke.databases.inventory import Held
from iotstack_invoke.databases.sql.load import SqlDump
from iotstack_invoke.databases.sql.servers import SqlServer
from iotstack_invoke.databases.sql.stays import SaveStays, SeeSql, held_by_server, lists_of
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.services.containers import Container
from iotstack_invoke.stack.compose import InspectedContainer
from iotstack_invoke.stack.swap import MoveAside, PutAway
from iotstack_invoke.workflows.restore import Item, RestoreFacts, SqlImport

HAPPY = folders.FIXTURES / "influx-backups/v1.8.10-happy"
POSTGRES = folders.FIXTURES / "sql/postgres-15.sql"
TIMES = ("2026-11-23T11:00:00Z", "2026-11-23T11:01:00Z")


def facts(**given):
    """Return the facts of a restore of which only these matter."""
    empty = dict.fromkeys(("compose", "items", "running", "expected", "databases"), ())
    plain = {"kinds": (), "in_place": True, "access": HostAccess("pi"), "previous": "/s/restore/p"}
    more = {"bare": False, "server": None, "server_there": False, "dump_inside": ""}
    return RestoreFacts(**{**empty, **plain, **more, "free_bytes": 0, "limit_s": 1.0, **given})


def test_what_another_one_does_not_hold():
    """Databases and users each by their names."""
    more = Held(("home", "shop"), ("anna", "bert")).without(Held(("home",), ("bert", "carl")))
    assert more == Held(("shop",), ("anna",))
    assert [*more.named("influxdb")] == ["influxdb: database shop", "influxdb: user anna"]
    assert not more.without(more)


@pytest.mark.parametrize(
    ("exact", "before", "after"),
    [(False, "stays here", "kept"), (True, "is moved aside", "moved aside")],
)
def test_it_is_named_before_and_after(exact, before, after):
    """A folder, a database, a user; and what is known only later."""
    mine = facts(
        more={"db": Held(("shop",), ("anna@%",))},
        later=("influxdb",),
        folders=(Item("", "/s/volumes/mine", "", ""),),
        exact=exact,
    )
    named = "not in the backup: volumes/mine, db: database shop, db: user anna@%"
    first, second = told_before(mine)
    assert first == f"{before}, {named}"
    assert second.startswith(f"{before} as well: other data of influxdb, listed when")
    assert [*told_after(mine)] == [f"{after}, {named}"]
    assert mine.staying("db") == (Held() if exact else mine.more["db"])


def loads(*containers, **given):
    """Return loads of MariaDB servers, which are there."""
    servers = (SqlServer(each, "mariadb", f"/s/volumes/{each}") for each in containers)
    return tuple(SqlImport(each, "", "", "", "", **given) for each in servers)


def manifest_of(**facts):
    """Return a manifest that tells such facts of its parts, by kind."""
    parts = (Part(kind, f"t.{kind}", 1, "ab" * 32, facts=told) for kind, told in facts.items())
    return Manifest("t", "pi", "", *TIMES, "UTC", tuple(parts))


INFLUX = Server("influxdb", "/s/volumes/influxdb/data")
TOLD = manifest_of(
    influx={"databases": ["home", "power"]},
    mariadb={"servers": [{"container": "db", "rows": {"shop": {}, "mysql": {}}, "users": []}]},
)
MORE = {"influxdb": Held(("mine",)), "db": Held((), ("anna@%",))}


@pytest.mark.parametrize(
    ("given", "manifest", "told"),
    [
        ({}, TOLD, ["all of InfluxDB", "all of MariaDB in container db"]),
        (
            {"more": MORE},
            TOLD,
            ["databases home, power of InfluxDB", "database shop of MariaDB in container db"],
        ),
        (
            {"later": ("influxdb", "db")},
            None,
            [
                "what the backup has of InfluxDB",
                "what the backup has of MariaDB in container db",
            ],
        ),
        (
            {"more": MORE, "later": ("db",), "exact": True},
            TOLD,
            ["all of InfluxDB", "all of MariaDB in container db"],
        ),
        (
            {"databases": ("home",)},
            TOLD,
            ["database home of InfluxDB", "all of MariaDB in container db"],
        ),
    ],
)
def test_what_is_put_in_place_of_servers(given, manifest, told):
    """Not all of one whose other databases or users stay: what is loaded has names then."""
    mine = facts(server=INFLUX, server_there=True, loads=loads("db"), **given)
    assert [*put_in_place(mine, manifest)] == [(True, each) for each in told]


def test_a_dump_of_one_database_and_a_server_that_is_new():
    """That database has no name in its dump; what is new replaces nothing."""
    mine = facts(loads=(*loads("db", unnamed=True), *loads("new", there=False)))
    assert [*put_in_place(mine, None)] == [
        (True, "a database of MariaDB in container db"),
        (False, "all of MariaDB in container new"),
    ]


def test_what_cannot_be_asked_is_a_warning():
    """With where its old data are kept; not if nothing was to stay anyway."""
    (told,) = unknown_told(facts(unknown={"db": "it is not running"}))
    assert "container db" in told
    assert "it is not running. All its old data are kept in /s/restore/p" in told
    assert unknown_told(facts(unknown={"db": "it is not running"}, exact=True)) == ()


@pytest.mark.parametrize("why", ["no manifest", "lacking", "unfinished", ""])
def test_an_incomplete_backup_puts_nothing_aside(why):
    """What it lacks by accident is no word of its owner's."""
    error = "its disk was full" if why == "lacking" else ""
    part = Part("postgres", "t.postgres-backup.sql.gz.tar", 1, "ab" * 32, error=error)
    manifest = None if why == "no manifest" else Manifest("t", "pi", "", *TIMES, "UTC", (part,))
    state = State.UNFINISHED if why == "unfinished" else State.COMPLETE
    only = Selection(
        RestoreRequest("t", exact=True), BackupSet("t", {}, state), manifest, "influxdb"
    )
    if why:
        with pytest.raises(Refused, match=r"--exact would move aside.*Nothing was changed"):
            only.refuse_exact()
    else:
        only.refuse_exact()
    Selection(RestoreRequest("t"), BackupSet("t", {}, state), manifest, "influxdb").refuse_exact()


@pytest.mark.parametrize("kind", ["", "data", "wal", "meta"])
def test_files_of_some_databases_are_copied(tmp_path, kind):
    """With a folder for each kind, and no catalogue: that is written anew."""
    live = tmp_path / "live"
    for name in ("data", "wal", "meta"):
        for database in ("home", "shop ü", "-x"):
            (live / name / database).mkdir(parents=True)
            (live / name / database / "1.tsm").write_text(database)
    source = live / kind
    fresh = tmp_path / "above/fresh"
    guard = str(tmp_path / "guard")
    stays = ("shop ü", "-x", "without files")
    step = CopyStays(HostAccess("pi", guard=guard), str(source), str(fresh), 60, kind, stays)
    step.do(PlainContext({"pi": LocalHost(str(tmp_path))}))
    inside = {"": ("data", "wal"), "meta": ()}.get(kind, ("",))
    wanted = {f"{each}/{name}/1.tsm".lstrip("/") for each in inside for name in ("shop ü", "-x")}
    found = {str(each.relative_to(fresh)) for each in fresh.rglob("*.tsm")}
    assert found == wanted
    assert fresh.is_dir()
    step.undo(LocalHost(str(tmp_path)))
    assert not fresh.exists()


@pytest.mark.parametrize("stopped", ["before", "after", "with an empty folder"])
def test_what_is_put_aside_comes_back(tmp_path, stopped):
    """From wherever it stopped; what Docker made in its place meanwhile is kept as well."""
    live, aside, used = (tmp_path / each for each in ("live", "previous/x", "undone/x"))
    live.mkdir()
    (live / "it").write_text("mine")
    host = LocalHost(str(tmp_path))
    step = MoveAside(
        HostAccess("pi", guard=str(tmp_path / "guard")), *map(str, (live, aside, used))
    )
    if stopped != "before":
        step.do(PlainContext({"pi": host}))
        assert (not live.exists(), (aside / "it").exists()) == (True, True)
    if stopped == "with an empty folder":
        live.mkdir()
    for _ in range(2):
        step.undo(host)
        assert (live / "it").read_text() == "mine"
    assert used.exists() == (stopped == "with an empty folder")


@pytest.mark.parametrize("kind", [MoveAside, PutAway])
def test_what_was_put_aside_and_is_gone_is_told(tmp_path, kind):
    """It was passed over, as if nothing had been moved aside."""
    live, aside, used = (tmp_path / each for each in ("live", "previous/x", "undone/x"))
    live.mkdir()
    host = LocalHost(str(tmp_path))
    access = HostAccess("pi", guard=str(tmp_path / "guard"))
    step = kind(access, *map(str, (live, aside, used)))
    step.do(PlainContext({"pi": host}))
    shutil.rmtree(aside)
    with pytest.raises(OldDataGone, match=r"previous/x is gone, so .*live cannot be put back"):
        step.undo(host)


def test_what_was_not_there_to_be_put_aside_is_not_gone(tmp_path):
    """Nor is it taken for that by an undo that comes later; what came there since is kept."""
    live, aside, used = (tmp_path / each for each in ("live", "previous/x", "undone/x"))
    host = LocalHost(str(tmp_path))
    step = MoveAside(
        HostAccess("pi", guard=str(tmp_path / "guard")), *map(str, (live, aside, used))
    )
    step.do(PlainContext({"pi": host}))
    line = {"job": "x", "step": "MoveAside", "fields": asdict(step)}
    (fate,) = fates_of(host, (), [json.dumps(line)])
    assert fate.word == "new"
    live.mkdir()
    for _ in range(2):
        step.undo(host)
        assert (live.exists(), used.exists()) == (False, True)
        assert [each.word for each in fates_of_owed(host, (), [json.dumps(line)])] == ["good"]


def docker(tmp_path, script):
    path = tmp_path / "docker"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return (str(path),)


def test_a_server_tells_its_names_whatever_they_are(tmp_path):
    """In hexadecimal, or as JSON: no name can end a line, or look like another."""
    host = LocalHost(str(tmp_path))
    names = ("a b", "n\nl", "ü'\"")
    lines = [f"d {each.encode().hex()}" for each in names] + ["u /766d", "u 616e6e61/25", "u 72/"]
    told = docker(tmp_path, f"cat <<'END'\n{chr(10).join(lines)}\nEND")
    held = held_by_server(host, SqlServer("db", "mariadb"), told)
    assert held == Held(names, ("@vm", "anna@%", "r@"))
    told = docker(tmp_path, "printf '%s\\n' 'd \"a\\nb\"' 'u \"an\\\"na\"'")
    held = held_by_server(host, SqlServer("db", "postgres"), told)
    assert held == Held(("a\nb",), ('an"na',))
    for code, words in ((77, "its password differs from"), (1, "no such")):
        told = docker(tmp_path, f"echo no such >&2; exit {code}")
        with pytest.raises(StepFailed, match=words):
            held_by_server(host, SqlServer("db", "mariadb"), told)


def test_lists_for_sql_hold_no_letter_of_a_name():
    """Nothing of a name can end a word; an empty list is one that nothing is in."""
    odd = Held(("a'); DROP",), ("x'@y@%",))
    told = "6127293b2044524f50", "78274079"
    for engine in ("mariadb", "postgres"):
        databases, users = lists_of(odd, engine)
        assert told[0] in databases
        assert told[1] in users
        assert "DROP" not in databases
        assert "NULL" in lists_of(Held(), engine)[0]
        assert "NULL" in lists_of(Held(), engine)[1]
    assert lists_of(odd, "mariadb")[1] == "(X'78274079', X'25')"


# What is asked before a restore.

HELD = r"""printf '%s\n' 'd "postdb"' 'd "shop"' 'u "postuser"' 'u "anna"' 'u "bert"'"""


def look(tmp_path, *, runs=True, data=True, users=None, staged=True, script=HELD, dump=POSTGRES):
    """Return what a PostgreSQL holds and its dump, or its manifest, does not."""
    (tmp_path / "data").mkdir(exist_ok=True)
    if data:
        (tmp_path / "data/PG_VERSION").touch()
    told = {"container": "db", "rows": {"postdb": {}, "template1": {}}}
    told |= {"users": users} if users is not None else {}
    part = Part(
        "postgres", "t.postgres-backup.sql.gz.tar", 1, "ab" * 32, facts={"servers": [told]}
    )
    manifest = Manifest("t", "pi", "", *TIMES, "UTC", (part,))
    host, words = LocalHost(str(tmp_path)), docker(tmp_path, script)
    target = SimpleNamespace(host=host, folder=str(tmp_path), as_root=(), docker=words)
    found = (InspectedContainer(Container("db", "postgres", "", "", running=runs), (), 0, "", ""),)
    server = SqlServer("db", "postgres", str(tmp_path / "data"))
    load = SqlImport(server, str(dump), "", "", "")
    return Stays(target, found, manifest, "").look(
        facts(kinds=("postgres",)), [load], staged=staged
    )


def test_a_dump_tells_what_an_older_manifest_does_not(tmp_path):
    """Its users; until it is unpacked it is said that they are told then."""
    for users, staged in ((None, True), (["postuser", "anna"], False)):
        found = look(tmp_path, users=users, staged=staged)
        assert dict(found.more) == {"db": Held(("shop",), ("bert",))}
        assert (dict(found.unknown), found.later) == ({}, ())
    found = look(tmp_path, staged=False)
    assert (dict(found.more), found.later) == ({}, ("db",))


def test_beside_a_dump_that_holds_nothing_all_stays(tmp_path):
    """One of a server that was empty: it tells what it holds as well as any other."""
    dump = tmp_path / "empty.sql"
    dump.write_text("--\n-- PostgreSQL database cluster dump complete\n--\n")
    found = look(tmp_path, dump=dump)
    assert dict(found.more) == {"db": Held(("postdb", "shop"), ("postuser", "anna", "bert"))}
    assert (dict(found.unknown), found.later) == ({}, ())


def test_a_server_that_cannot_be_asked_is_not_taken_for_an_empty_one(tmp_path):
    """One that does not run, or does not let us in; not one that has no data yet."""
    assert dict(look(tmp_path, runs=False).unknown) == {"db": "it is not running"}
    refusing = "echo 'it refuses.' >&2; exit 2"
    assert dict(look(tmp_path, script=refusing).unknown) == {"db": "it refuses"}
    (tmp_path / "data/PG_VERSION").unlink()
    found = look(tmp_path, runs=False, data=False)
    assert (dict(found.more), dict(found.unknown)) == ({"db": Held()}, {})


# What is seen in its midst.


@pytest.mark.parametrize("told", ["all of it", "not all", "nothing"])
def test_a_server_is_asked_once_more(tmp_path, told):
    """What came since would be lost: the restore ends before anything is stopped."""
    context = PlainContext({"pi": LocalHost(str(tmp_path))})
    server = SqlServer("db", "postgres")
    stays = Held(("shop",), ("bert",) if told == "all of it" else ())
    words = docker(tmp_path, "exit 1" if told == "nothing" else HELD)
    step = SeeSql(
        HostAccess("pi", docker=words),
        server,
        SqlDump(HostAccess("pi"), str(POSTGRES), server),
        stays,
        60,
    )
    if told == "all of it":
        step.do(context)
        return
    words = (
        "db: user bert. It would not"
        if told == "not all"
        else "cannot list its databases and users"
    )
    with pytest.raises(StepFailed, match=words):
        step.do(context)


def test_what_stays_and_cannot_be_dumped_is_told_before_anything_is_stopped(tmp_path):
    """By the very dump; the sentence names the server, the database, and what was said."""
    context = PlainContext({"pi": LocalHost(str(tmp_path))})
    server, stays = SqlServer("db", "postgres"), Held(("shop",), ("bert",))
    refusing = f"case $* in *' sh keep '*) echo 'shop is crashed' >&2; exit 2; esac\n{HELD}"
    dump = SqlDump(HostAccess("pi"), str(POSTGRES), server)
    step = SeeSql(HostAccess("pi", docker=docker(tmp_path, refusing)), server, dump, stays, 60)
    said = r"container db \(db: database shop, db: user bert\).*shop is crashed\. The stack was not changed\..*--exact"
    with pytest.raises(StepFailed, match=said):
        step.do(context)


@pytest.mark.parametrize("kind", ["whole", "lacks one", "cut", "fails"])
def test_what_stays_is_dumped_whole(tmp_path, kind):
    """A dump that lacks a name, or its end, is loaded nowhere; the file is nobody else's."""
    script = {
        "whole": f"cat {POSTGRES}",
        "lacks one": f"cat {POSTGRES}",
        "cut": f"head -c 3000 {POSTGRES}",
        "fails": "echo 'shop lets nobody connect' >&2; exit 78",
    }
    context = PlainContext({"pi": LocalHost(str(tmp_path))})
    server = SqlServer("db", "postgres")
    dump = SqlDump(HostAccess("pi"), str(tmp_path / "x.stays"), server)
    stays = Held(("postdb", *(["shop"] if kind == "lacks one" else [])), ("anna",))
    guard = str(tmp_path / "guard")
    access = HostAccess("pi", docker=docker(tmp_path, script[kind]), guard=guard)
    step = SaveStays(access, server, dump, str(tmp_path / "notes"), stays, 60)
    if kind == "whole":
        step.do(context)
        assert (tmp_path / "x.stays").read_bytes() == POSTGRES.read_bytes()
        assert (tmp_path / "x.stays").stat().st_mode & 0o777 == 0o600
        return
    words = {
        "lacks one": "is missing db: database shop",
        "cut": "damaged",
        "fails": "nobody connect",
    }
    with pytest.raises(StepFailed, match=words[kind]):
        step.do(context)


def influx(tmp_path):
    """Return an InfluxDB whose catalogue is that of a dump."""
    content = next(HAPPY.glob("*.meta")).read_bytes()
    size = read_meta(content).size_bytes
    at = next(at for at in range(1, 5) if content[at] < 0x80) + 1
    for each in ("meta", "data/home/autogen/5"):
        (tmp_path / "influx" / each).mkdir(parents=True)
    (tmp_path / "influx/meta/meta.db").write_bytes(content[at : at + size])
    (tmp_path / "influx/data/home/autogen/5/1.tsm").write_bytes(b"x")
    return Server("influxdb", str(tmp_path / "influx"))


def test_a_catalogue_that_cannot_be_looked_at_is_not_taken_for_none(tmp_path):
    """Else all that is here and not in the backup would be replaced without a word."""
    host, server = LocalHost(str(tmp_path)), influx(tmp_path)
    assert present_catalogue(host, HostAccess("pi"), server)
    refusing = tmp_path / "sudo"
    refusing.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    refusing.chmod(0o755)
    with pytest.raises(StepFailed, match="a password is required"):
        present_catalogue(host, HostAccess("pi", (str(refusing),)), server)
    shutil.rmtree(tmp_path / "influx/meta")
    assert present_catalogue(host, HostAccess("pi"), server) == b""
    (tmp_path / "influx/meta").symlink_to("meta")  # as good as a file system that fails
    with pytest.raises(StepFailed, match=r"meta\.db"):
        present_catalogue(host, HostAccess("pi"), server)


def test_influxdb_is_read_once_more_when_it_is_stopped(tmp_path):
    """What it has and the dump has not must be what stays; users come with their rights."""
    context = PlainContext({"pi": LocalHost(str(tmp_path))})
    server, present = influx(tmp_path), Present()
    dump = Dump(HostAccess("pi"), str(tmp_path / "empty"))
    (tmp_path / "empty").mkdir()
    stays = Held(("telegraf", "home", "emptydb", "shorty"), ("admin", "nodered"))
    SeeInflux(HostAccess("pi", docker=()), server, dump, stays, present).do(context)
    assert present.shards == {5}
    held = present.catalogue
    admin, nodered = held.users
    (there,) = [
        each for each in present.users(replaced(held, nodered), ()) if each.name == "admin"
    ]
    assert there == admin
    fewer = Held(stays.databases[1:], stays.users)
    with pytest.raises(StepFailed, match=r"influxdb: database telegraf\. It would not"):
        SeeInflux(HostAccess("pi", docker=()), server, dump, fewer, Present()).do(context)


def replaced(catalogue, *users):
    """Return a catalogue with these users alone."""
    return type(catalogue)(catalogue.databases, users, catalogue.size_bytes)


def test_a_dump_of_influxdb_is_read_wherever_the_stack_lies(tmp_path):
    """Of what is not read the rest is unknown, and would not stay."""
    stage = tmp_path / "new\nline"
    (stage / "influx").mkdir(parents=True)
    shutil.copy(next(HAPPY.glob("*.meta")), stage / "influx")
    host = LocalHost(str(tmp_path))
    access = HostAccess("pi")
    target = SimpleNamespace(host=host, folder=str(tmp_path), as_root=(), access=access)
    found = (
        InspectedContainer(
            Container("influxdb", "influxdb:1.8", "", "", running=True), (), 0, "", ""
        ),
    )
    asked = facts(kinds=("influx",), server=influx(tmp_path))
    told = Stays(target, found, None, str(stage)).look(asked, [], staged=True)
    assert (dict(told.unknown), told.later) == ({}, ())


@pytest.mark.parametrize("lost", ["", "files", "database"])
def test_what_stays_of_influxdb_is_looked_for(tmp_path, lost):
    """Every shard that had files, in its place in the catalogue."""
    context = PlainContext({"pi": LocalHost(str(tmp_path))})
    server, present = influx(tmp_path), Present()
    present.content = (tmp_path / "influx/meta/meta.db").read_bytes()
    home = next(each for each in present.catalogue.databases if each.name == "home")
    shard = home.policies[0].groups[0].shards[0]
    present.shards = frozenset({shard})
    files = tmp_path / f"influx/data/home/autogen/{shard}"
    files.mkdir(exist_ok=True)
    (files / "1.tsm").write_bytes(b"x")
    if lost == "files":
        (files / "1.tsm").unlink()
    if lost == "database":
        content = with_databases(present.content, ("telegraf",))
        (tmp_path / "influx/meta/meta.db").write_bytes(content)
    step = ProveStays(HostAccess("pi"), server, ("home",), present)
    if lost:
        with pytest.raises(StepFailed, match="home"):
            step.do(context)
    else:
        step.do(context)
        assert "Kept beside the data of the backup: home of InfluxDB (1 shards)" in context.said


@pytest.mark.parametrize("kind", ["here", "without a log", "cannot look", "sql", "no answer"])
def test_what_stays_is_measured_or_the_restore_ends_before_it_begins(tmp_path, kind):
    """A du(1) that fails, or a server that does not say, is not taken for nothing."""
    server = influx(tmp_path)
    tools = tmp_path / "tools"
    tools.mkdir()
    if kind == "cannot look":
        (tools / "du").write_text("#!/bin/sh\necho 'du: Input/output error' >&2; exit 1\n")
        (tools / "du").chmod(0o755)
    answer = "echo 4711" if kind == "sql" else "echo gone >&2; exit 1"
    host, words = LocalHost(str(tmp_path)), docker(tmp_path, answer)
    as_root = ("env", f"PATH={tools}:{os.environ['PATH']}")
    target = SimpleNamespace(host=host, name="pi", as_root=as_root, docker=words)
    if kind in ("sql", "no answer"):
        load = SqlImport(SqlServer("db", "postgres"), "", "", "", "")
        mine, loads = facts(more={"db": Held(("shop",))}), (load,)
    else:
        if kind == "here":
            (tmp_path / "influx/wal/home").mkdir(parents=True)
        mine, loads = facts(server=server, more={"influxdb": Held(("home",))}), ()
    look = Stays(target, (), None, "")
    if kind in ("cannot look", "no answer"):
        with pytest.raises(StepFailed, match=r"Input/output|cannot measure the size of shop"):
            look.bytes_of(mine, loads)
    else:
        size = look.bytes_of(mine, loads)
        assert size == 3 * 4711 if kind == "sql" else size > 0
