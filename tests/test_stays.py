"""What a target has and a backup has not: how it is told apart, named, copied and put aside."""

import pytest
from scenes import PlainScene

from iotstack_invoke.actions.only import Only
from iotstack_invoke.actions.stays import told_after, told_before, unknown_told
from iotstack_invoke.actions.wish import Wish
from iotstack_invoke.errors import Refused, StepFailed
from iotstack_invoke.hosts import LocalHost
from iotstack_invoke.manifest import Manifest, Part
from iotstack_invoke.rulebooks.restore import Item, RestoreFacts
from iotstack_invoke.services.held import Held
from iotstack_invoke.services.influx_stays import CopyStays
from iotstack_invoke.services.sql import SqlServer
from iotstack_invoke.services.sql_stays import held_by_server, lists_of
from iotstack_invoke.services.stack import MoveAside
from iotstack_invoke.sets import BackupSet, State

TIMES = ("2026-11-23T11:00:00Z", "2026-11-23T11:01:00Z")


def facts(**given):
    """Return the facts of a restore of which only these matter."""
    empty = dict.fromkeys(("compose", "items", "running", "expected", "databases", "docker"), ())
    plain = {"kinds": (), "in_place": True, "as_root": (), "guard": "", "previous": "/s/restore/p"}
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
    [(False, "stays here", "kept"), (True, "is put aside", "put aside")],
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
    assert second.startswith(f"{before} as well: what else influxdb hold")
    assert [*told_after(mine)] == [f"{after}, {named}"]
    assert mine.staying("db") == (Held() if exact else mine.more["db"])


def test_what_cannot_be_asked_is_a_warning():
    """With where its old data are kept; not if nothing was to stay anyway."""
    (told,) = unknown_told(facts(unknown={"db": "it does not run"}))
    assert "container db" in told
    assert "it does not run. Its old data are kept in /s/restore/p" in told
    assert unknown_told(facts(unknown={"db": "it does not run"}, exact=True)) == ()


@pytest.mark.parametrize("why", ["no manifest", "lacking", "unfinished", ""])
def test_an_incomplete_backup_puts_nothing_aside(why):
    """What it lacks by accident is no word of its owner's."""
    error = "its disk was full" if why == "lacking" else ""
    part = Part("postgres", "t.postgres-backup.sql.gz.tar", 1, "ab" * 32, error=error)
    manifest = None if why == "no manifest" else Manifest("t", "pi", "", *TIMES, "UTC", (part,))
    state = State.UNFINISHED if why == "unfinished" else State.COMPLETE
    only = Only(Wish("t", exact=True), BackupSet("t", {}, state), manifest, "influxdb")
    if why:
        with pytest.raises(Refused, match=r"--exact would put aside.*Nothing was changed"):
            only.refuse_exact()
    else:
        only.refuse_exact()
    Only(Wish("t"), BackupSet("t", {}, state), manifest, "influxdb").refuse_exact()


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
    step = CopyStays("pi", str(source), str(fresh), kind, stays, (), guard, 60)
    step.do(PlainScene({"pi": LocalHost(str(tmp_path))}))
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
    step = MoveAside("pi", *map(str, (live, aside, used)), (), str(tmp_path / "guard"))
    if stopped != "before":
        step.do(PlainScene({"pi": host}))
        assert (not live.exists(), (aside / "it").exists()) == (True, True)
    if stopped == "with an empty folder":
        live.mkdir()
    for _ in range(2):
        step.undo(host)
        assert (live / "it").read_text() == "mine"
    assert used.exists() == (stopped == "with an empty folder")


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
    for code, words in ((77, "another password"), (1, "no such")):
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
