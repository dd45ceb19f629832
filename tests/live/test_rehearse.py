"""A restore that is rehearsed: proven in a scratch folder, with nothing of it left."""

import json
import shutil
import signal

import pytest
from restorer import Restorer, running, tree
from saboteur import RUNTAG, Saboteur, Scene, differing
from sample_sets import new_form
from stand import remove_iotstack
from stand_machine import wait_for
from test_restore_faults import other_file, with_damaged_shard

GOOD, FAILED, WARNINGS, BUSY = 0, 1, 3, 11
REHEARSAL = "iotstack-rehearsal-influxdb"


@pytest.fixture(scope="module")
def context(pi):
    """A small stack with a backup of its own."""
    made = Scene(pi, pi)
    yield made
    made.away()


@pytest.fixture
def saboteur(context):
    """Stands at each command that a rehearsal gives to Docker."""
    with Saboteur(context.target) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_stays(request):
    """After each test here: no container, no folder, no change in the stack."""
    yield
    if "context" in request.fixturenames:
        made = request.getfixturevalue("context")
        assert differing(made.old, made.look()) == {}
        assert made.leftovers() == []
        checks = made.top / "backups/.checks.jsonl"
        checks.unlink(missing_ok=True)


def checked(context):
    """What the record of verifications says: how and whether good, of each."""
    path = context.top / "backups/.checks.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(one["how"], one["good"], one["at"]) for one in map(json.loads, lines)]


def rehearse(context, *more):
    """Rehearse the backup that lies here."""
    return context.run("rehearse", "--runtag", RUNTAG, *more)


def test_backup_here(context):
    """It is recorded as restored, with what InfluxDB had."""
    code, said = rehearse(context)
    assert code == GOOD, said
    assert "was restored in a scratch folder and verified in" in said
    assert "1 databases" in said
    assert "49 values" in said
    assert checked(context) == [("restore", True, "here")]


@pytest.mark.parametrize("manifest", [True, False])
def test_damaged_backup(context, manifest):
    """A dump with a wrong block does not pass, whether or not its hash is known; it is recorded."""
    backups = context.top / "backups"
    keep = (lambda content: content) if manifest else (lambda _: None)
    with (
        other_file(backups / f"{RUNTAG}.influx-backup.tar", with_damaged_shard),
        other_file(backups / f"{RUNTAG}.manifest.json", keep),
    ):
        code, said = rehearse(context)
    assert code == FAILED, said
    assert "damaged" in said
    assert "The stack was not changed" in said
    assert checked(context) == [("read", False, "here")]


def test_another_dump_than_the_manifest_describes(context):
    """Sound archives that are not those of the manifest do not pass."""

    def changed(content):
        told = json.loads(content)
        told["parts"]["influx"]["facts"]["databases"] = ["other"]
        return new_form(told).encode()

    with other_file(context.top / f"backups/{RUNTAG}.manifest.json", changed):
        code, said = rehearse(context)
    assert code == FAILED, said
    assert "The dump differs from the manifest in databases" in said


def test_command_that_fails(context, saboteur):
    """Whichever of the commands fails: it is said, nothing is recorded, and all is removed."""
    assert rehearse(context)[0] == GOOD
    (context.top / "backups/.checks.jsonl").unlink()
    calls = saboteur.calls()
    for number in range(2, len(calls) + 1, 3):
        saboteur.arm(number, "fail after")
        code, said = rehearse(context)
        call = calls[number - 1]
        if "docker rm --force" in call:
            assert code == GOOD, said
            (context.top / "backups/.checks.jsonl").unlink()
            continue
        assert code == FAILED, f"{call}: {said}"
        assert "The stack was not changed" in said
        assert checked(context) == []
        assert context.leftovers() == []
        assert REHEARSAL not in running(context.target)


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM, signal.SIGKILL],
)
def test_stopped(context, saboteur, number):
    """A signal ends it cleanly; what a SIGKILL leaves is removed by the next rehearsal."""
    assert rehearse(context)[0] == GOOD
    words = [line for line in saboteur.calls() if "influxd restore" in line]
    saboteur.arm(int(words[0].split(" ")[0]), "stop before")
    process = context.start("rehearse", "--runtag", RUNTAG)
    wait_for("the call", saboteur.reached, timeout=60)
    code, said = rehearse(context)
    assert code == BUSY, said
    process.send_signal(number)
    if number == signal.SIGKILL:
        process.wait(timeout=20)
    saboteur.release(act=False)
    code, said = context.end(process)
    if number != signal.SIGKILL:
        assert code == 128 + number, said
        assert "The stack was not changed" in said
        assert REHEARSAL not in running(context.target)
        assert context.leftovers() == []
    saboteur.disarm()
    assert rehearse(context)[0] == GOOD
    assert REHEARSAL not in running(context.target)


def test_without_docker(context):
    """Where there is no engine the dump is checked and not loaded; that is a warning."""
    context.target.hide("docker")
    try:
        code, said = rehearse(context)
    finally:
        context.target.show("docker")
    assert code == WARNINGS, said
    assert "InfluxDB is not loaded" in said
    assert checked(context) == [("unpack", True, "here")]


def test_no_room(context):
    """Without room for all of it nothing is begun, with the numbers."""
    mount = context.top / "restore"
    mount.mkdir(exist_ok=True)
    context.target.run(["mount", "-t", "tmpfs", "-o", "size=8k,uid=1000,mode=700", "none", mount])
    try:
        code, said = rehearse(context)
    finally:
        context.target.run(["umount", mount])
    assert code == 13, said
    assert " are free in " in said


def test_copy_in_a_vault(pi, far, nas):
    """The copy that a vault has is fetched, proven, and recorded as the vault's."""
    person = Restorer(pi, far, nas)
    top = person.fresh(pi)
    try:
        person.iot("backup", "--runtag", "t1")
        before, ran = tree(top), running(pi)
        said = person.iot("rehearse", "--runtag", "latest")
        assert "t1 of nas was restored in a scratch folder" in said
        assert tree(top) == before
        assert running(pi) == ran
        assert not (top / "restore/rehearsal").exists()
        listed = json.loads(person.iot("list", "--json"))
        assert listed[0]["verified"]["nas"]["how"] == "restore"
    finally:
        remove_iotstack(pi)
        shutil.rmtree(person.vault)
