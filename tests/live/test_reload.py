"""A reload of InfluxDB: the same data, written anew; or, whatever it meets, the old ones."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta

import pytest
from saboteur import WAITING, Saboteur, Scene, differing
from stand import query
from stand_machine import USER, wait_for
from sweep import EVERY, FAILED, GOOD, LATE_S, LOCAL, WARNED, WAYS, Sweep

RELOAD = "reload-influxdb"
REFUSED = 13


@pytest.fixture(scope="module")
def here(pi):
    """A sweep of reloads on this machine."""
    context = Scene(pi, pi)
    with Saboteur(pi) as saboteur:
        yield Sweep(context, saboteur, RELOAD)
    context.away()


@pytest.fixture(scope="module")
def there(stand, pi):
    """A sweep of reloads on another machine over SSH."""
    context = Scene(pi, stand.add("slow-pi", engine=True))
    with Saboteur(context.target) as saboteur:
        yield Sweep(context, saboteur, RELOAD)
    context.away()


@pytest.fixture(params=["here", pytest.param("there", marks=pytest.mark.long)])
def sweep(request):
    """Either of the two."""
    made = request.getfixturevalue(request.param)
    made.saboteur.disarm()
    yield made
    made.context.clear()


def test_same_data_written_anew(sweep):
    """Points, users and continuous queries are the same; the files are others; the rest ran on.

    That the old data stay for some days was noted before the commit, and goes with the undo.
    """
    context = sweep.context
    shards = shard_folders(context)
    code, said = context.run(RELOAD, "--keep-old", "14")
    assert code == GOOD, said
    assert differing(context.old, context.look()) == {}
    assert shards.isdisjoint(shard_folders(context))
    (previous,) = context.top.glob("restore/previous-*")
    note, journal = (previous / name for name in ("keep-until.json", "journal"))
    told = json.loads(note.read_text())
    days = datetime.fromisoformat(told["until"]) - datetime.fromisoformat(told["since"])
    assert days == timedelta(days=14)
    assert note.stat().st_mtime_ns <= journal.stat().st_ctime_ns  # its rename is the commit
    assert f"after {datetime.fromisoformat(told['until']).astimezone():%Y-%m-%d %H:%M}" in said
    assert list(context.top.glob("restore/influxdb-*")) == []
    assert "SHOW DATABASES" in said
    assert values_in(said) == ("51", "51")
    calls = [call for call in sweep.saboteur.calls() if "docker stop" in call]
    assert not any("nodered" in call for call in calls), calls
    code, said = context.run("undo")
    assert code == GOOD, said
    assert previous.name in said
    assert not previous.exists()
    assert differing(context.old, context.look()) == {}
    assert shard_folders(context) == shards


def test_a_query_that_names_what_is_gone_is_told_with_what_mends_it(here):
    """InfluxDB makes none that leads into a policy that was dropped: all is as before."""
    context, gone = here.context, 'DROP CONTINUOUS QUERY "lost" ON "home"'
    here.saboteur.disarm()
    query(
        context.target,
        'CREATE RETENTION POLICY "gone" ON "home" DURATION INF REPLICATION 1',
        'CREATE CONTINUOUS QUERY "lost" ON "home" BEGIN SELECT mean("value") INTO '
        '"home"."gone"."mean" FROM "home"."autogen"."cpu" GROUP BY time(1h) END',
        'DROP RETENTION POLICY "gone" ON "home"',
    )
    code, said = context.run(RELOAD)
    assert code == FAILED, said
    assert f"may no longer exist: create it again, or run `{gone}` in InfluxDB" in said
    query(context.target, gone)
    assert differing(context.old, context.look()) == {}
    context.clear()


def test_a_drive_that_goes_before_influxdb_is_stopped_is_missed(here):
    """What is put beneath its mount point is hidden by its next mount: nothing is stopped."""
    context, saboteur = here.context, here.saboteur
    above = context.top / "volumes/influxdb"
    context.target.run(["mount", "--bind", above, above])
    try:
        saboteur.arm(here.number_of("docker run"), "stop before")
        process = context.start(RELOAD)
        wait_for("the call", saboteur.reached, timeout=60)
    finally:
        context.target.run(["umount", "--lazy", above])
    saboteur.release(act=True)
    code, said = context.end(process)
    assert code == FAILED, said
    assert f"{above} was mounted or unmounted while this reload was" in said
    assert not any("docker stop" in call for call in saboteur.calls())
    here.assert_old()
    assert context.leftovers() == []
    context.clear()


def shard_folders(context):
    """The inodes of the folders of shards: InfluxDB merges the files in them when it wants to."""
    top = context.top / "volumes/influxdb/data/data"
    return {path.stat().st_ino for path in top.glob("*/*/[0-9]*")}


def values_in(said):
    """How many values the report says there were before and after."""
    (line,) = (one.split() for one in said.splitlines() if one.startswith("values"))
    return tuple(line[1:])


_CLIENT = """
import sys, time, urllib.request
url = "http://127.0.0.1:8086/"
number = 0
while True:
    number += 1
    began = time.time()
    try:
        make = urllib.request.Request(url + "query?q=CREATE%20DATABASE%20home", data=b"")
        urllib.request.urlopen(make, timeout=5).read()
        point = f"live value={number}i {number}000000000".encode()
        urllib.request.urlopen(url + "write?db=home", data=point, timeout=5).read()
    except OSError:
        continue
    print(number, began, time.time(), flush=True)
    time.sleep(0.002)
"""


@contextlib.contextmanager
def writing(context, noted):
    """Write while the block runs; a client outside the containers that makes its database again.

    `noted` gets what was acknowledged: number, when it was sent, when the answer came.
    """
    words = [sys.executable, "-I", "-S", "-c", _CLIENT]
    client = context.target.popen(words, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(1)
        yield
        time.sleep(1)
    finally:
        client.send_signal(signal.SIGKILL)
        told, _ = client.communicate(timeout=20)
        client.end()
    for line in told.splitlines():
        number, began, ended = line.split(" ")
        noted.append((int(number), float(began), float(ended)))


def stored(context):
    """The numbers that are in the database."""
    (series,) = query(context.target, 'SELECT "value" FROM "home".."live"')
    return {row[1] for each in series for row in each["values"]}


@pytest.fixture
def written(sweep):
    """A list for what is acknowledged; what was written is removed afterwards."""
    noted = []
    yield noted
    drop = [sys.executable, "-I", "-S", "-c", _DROP]
    sweep.context.target.run(drop)


_DROP = """
import urllib.request
url = "http://127.0.0.1:8086/query?db=home&q=DROP%20MEASUREMENT%20live"
urllib.request.urlopen(urllib.request.Request(url, data=b""), timeout=20).read()
"""


def test_no_acknowledged_point_is_lost(sweep, written):
    """Whatever a client was told to be stored is there after a reload, and after its undo fails."""
    context = sweep.context
    with writing(context, written):
        code, said = context.run(RELOAD)
    assert code == GOOD, said
    assert len(written) > 100
    assert {number for number, _, _ in written} <= stored(context)
    before, after = values_in(said)
    assert before == after


@pytest.mark.parametrize(
    ("words", "way"), [("influxd restore", "fail before"), ("docker start", "stop after")]
)
def test_a_reload_that_fails_loses_nothing_outside_its_window(sweep, written, words, way):
    """What was acknowledged before InfluxDB became unreachable, and after it was back, is there."""
    context = sweep.context
    sweep.saboteur.arm(sweep.number_of(words), way)
    with writing(context, written):
        began = time.time()
        process = context.start(RELOAD)
        if way == "stop after":  # a start that only says that it failed is judged by what is up
            wait_for("the call", sweep.saboteur.reached, timeout=60)
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=LATE_S)
            sweep.saboteur.release(act=True)
        code, said = context.end(process)
        ended = time.time()
    assert code == (FAILED if way == "fail before" else 128 + signal.SIGTERM), said
    assert "InfluxDB is in its previous state." in said
    outside = {n for n, sent, answered in written if answered < began or sent > ended}
    assert len(outside) > 20
    assert outside <= stored(context)
    if words != "docker start":  # that one is let in for a moment before it is undone
        assert {number for number, _, _ in written} <= stored(context)


@pytest.mark.parametrize(
    "words", [pytest.param("influxd backup", marks=pytest.mark.long), "influxd restore"]
)
def test_influxdb_cannot_be_started_meanwhile(here, words):
    """Docker refuses to start it on what lies in the place of its data; the reload goes on."""
    context, saboteur = here.context, here.saboteur
    saboteur.arm(here.number_of(words), "stop before")
    process = context.start(RELOAD)
    wait_for("the call", saboteur.reached, timeout=60)
    started = context.target.run(["docker", "start", "influxdb"], check=False)
    assert started.returncode, "it was started"
    saboteur.release(act=True)
    code, said = context.end(process)
    assert code == GOOD, said
    here.assert_new()
    assert context.run("undo")[0] == GOOD
    here.assert_old()
    context.clear()


def test_a_backup_undoes_what_a_dead_reload_left(here):
    """The backup at night does not stumble over it: InfluxDB runs again, and is in the backup."""
    context, saboteur = here.context, here.saboteur
    saboteur.arm(here.number_of("influxd restore"), "stop before")
    process = context.start(RELOAD)
    wait_for("the call", saboteur.reached, timeout=60)
    process.send_signal(signal.SIGKILL)
    context.end(process)
    saboteur.release(act=False)
    saboteur.disarm()
    code, said = context.run("backup", "--runtag", "night")
    assert code == WARNED, said
    assert "Rolled back an interrupted run on this machine: the reload of InfluxDB" in said
    here.assert_old()
    assert context.leftovers() == []
    assert (context.top / "backups/night.influx-backup.tar").exists()
    for path in (context.top / "backups").glob("night.*"):
        path.unlink()
    context.clear()


SAMPLES = [
    ("here", "kill before", "docker run", "undo"),
    pytest.param("here", "kill after", ".fresh", RELOAD, marks=pytest.mark.long),
    pytest.param("here", "fail after", "influxd restore", "", marks=pytest.mark.long),
    pytest.param("there", "kill and act late", "influxd backup", "undo", marks=pytest.mark.long),
    ("there", "cut after", "docker start", ""),
]


@pytest.mark.parametrize(("where", "way", "words", "follow"), SAMPLES)
def test_sample(request, where, way, words, follow):
    """A fault of each kind, on either machine, ends in the old data or the new."""
    sweep = request.getfixturevalue(where)
    sweep.meet(sweep.number_of(words), way, follow)
    sweep.context.clear()


AT_THE_STAGE = WAITING.replace(
    "touch",
    'case "$*" in "-rf -- "*/restore/influxdb-*Z) ;; *) exec {here}/real "$@" ;; esac\ntouch',
)
"""A program that waits where it acts on the dump of a reload."""


@pytest.mark.parametrize(("where", "how"), [("here", "stopped"), ("there", "cut")])
def test_after_the_commit(request, where, how):
    """A signal, or a line that breaks, undoes nothing any more, and says what is left."""
    sweep = request.getfixturevalue(where)
    context = sweep.context
    sweep.saboteur.disarm()
    with Saboteur(context.target, "rm", AT_THE_STAGE) as removing:
        process = context.start(RELOAD)
        wait_for("the removal of the dump", removing.reached, timeout=120)
        process.send_signal(signal.SIGTERM) if how == "stopped" else context.cut()
        if how == "stopped":
            wait_for("its end", lambda: process.poll() is not None, timeout=60)
        (removing.folder / "go").touch()
        code, said = context.end(process)
    assert code == (143 if how == "stopped" else WARNED), said
    assert "InfluxDB is reloaded; it was unavailable for" in said
    assert "InfluxDB is reloaded, but a later step failed: Could not remove the dump in" in said
    assert "in its previous state" not in said
    sweep.assert_new()
    logs = (context.pi if context.over_ssh else context.target).home_of(USER).rglob("reload-*.log")
    log = max(logs, key=lambda path: path.stat().st_mtime_ns)
    assert "InfluxDB is reloaded" in log.read_text()
    assert context.run("undo")[0] == GOOD
    sweep.assert_old()
    context.clear()


@pytest.mark.long
@pytest.mark.parametrize("way", LOCAL)
def test_here(here, way):
    """A fault at any command that changes this machine ends in the old data or the new."""
    here.try_all(way, here.numbers(way, 1 if way in EVERY else 5))


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_there(there, way):
    """A fault at any command that changes another machine ends in the old data or the new."""
    there.try_all(way, there.numbers(way, 6))


# What the dump says, and what the disk has room for.

LIES = {
    "it fails": "echo 'backup: no space left on device' >&2; exit 1",
    "it says nothing": "exit 0",
    "a shard is missing": 'influxd.real "$@" && rm "$(ls -S "$3"/*.tar.gz | head -n 1)"',
    "a shard is cut": 'influxd.real "$@"; f=$(ls -S "$3"/*.tar.gz | head -n 1); '
    'head -c 100 "$f" > "$f.x"; mv "$f.x" "$f"',
    "the list is short": 'influxd.real "$@" && sed -i \'s/"files":.*/"files":null}/\' "$3"/*.manifest '
    '&& rm "$3"/*.tar.gz',
}


@pytest.mark.parametrize(
    "what",
    [
        each
        if "is short" in each or "missing" in each
        else pytest.param(each, marks=pytest.mark.long)
        for each in LIES
    ],
)
def test_dump_that_is_not_whole(here, what):
    """A dump that lacks anything is not loaded, and the old data are back in their place."""
    context, saboteur = here.context, here.saboteur
    saboteur.arm(here.number_of("influxd backup"), "stop before")
    process = context.start(RELOAD)
    wait_for("the call", saboteur.reached, timeout=60)
    name = next(
        w for w in here.calls[here.number_of("influxd backup") - 1].split() if "alone" in w
    )
    script = f'#!/bin/sh\n[ "$1" = backup ] || exec influxd.real "$@"\n{LIES[what]}\n'
    put = "cd /usr/bin && mv influxd influxd.real && cat > influxd && chmod 755 influxd"
    context.target.run(["docker", "exec", "-i", name, "sh", "-c", put], input=script)
    saboteur.release(act=True)
    code, said = context.end(process)
    here.assert_met("fail after", code, said)
    assert not any("influxd restore" in call for call in saboteur.calls())
    assert context.leftovers() == []
    context.clear()
