"""What of a backup a restore is asked for: what was lost of it, what was never made."""

import hashlib
import json
import os
import socket
import time

import pytest
from sample_sets import new_form

from iotstack_invoke.backups.manifest import Manifest, Part
from iotstack_invoke.backups.names import KINDS
from iotstack_invoke.backups.sets import BackupSet, State
from iotstack_invoke.commands.restore.request import RestoreRequest
from iotstack_invoke.commands.restore.selection import Selection
from iotstack_invoke.core.errors import Refused

TAG = "t1"


def backed_up(stack, **parts):
    """Make a backup, and let its manifest tell of parts that are not there."""
    assert stack.run(f"backup --runtag {TAG}").returncode == 0
    path = stack.folder / f"backups/{TAG}.manifest.json"
    manifest = json.loads(path.read_text())
    for kind, told in parts.items():
        manifest["parts"][kind] = {"file": f"{TAG}.{KINDS[kind]}", **told}
    path.write_text(new_form(manifest))


def test_a_part_that_was_lost_is_refused(little_stack):
    """An archive that the manifest lists and the place lacks: nothing is changed, exit 13."""
    servers = [{"container": "home_db"}]
    backed_up(little_stack, mariadb={"size_bytes": 9, "facts": {"servers": servers}})
    before = little_stack.tree()
    for only in ("", "--only home_db", "--only mariadb --only nodered"):
        told = little_stack.run(f"restore --runtag {TAG} --from here --yes {only}")
        assert told.returncode == 13, told.stderr
        assert f"is missing {TAG}.mariadb-backup.tar.gz, which its manifest lists" in told.stderr
    assert {k: v for k, v in before.items() if "/volumes" in k} == {
        k: v for k, v in little_stack.tree().items() if "/volumes" in k
    }
    told = little_stack.run(f"restore --runtag {TAG} --from here --dry-run --only nodered")
    assert told.returncode == 0, told.stderr


def test_a_name_that_is_given_twice_is_restored_once(little_stack):
    """The second swap of one folder failed, when the stack was stopped already."""
    backed_up(little_stack)
    (little_stack.folder / "volumes/nodered/flows.json").write_text("[2]")
    only = "--only nodered --only nodered"
    told = little_stack.run(f"restore --runtag {TAG} --from here --yes {only}")
    assert told.returncode == 0, told.stderr
    assert "  only: nodered\n" in told.stdout
    assert (little_stack.folder / "volumes/nodered/flows.json").read_text() == "[]\n"


def test_what_is_replaced_stays_where_the_prompt_says(little_stack):
    """However long a person thinks, the folder that the question names is the one that is made."""
    backed_up(little_stack)
    terminal, stdin = os.openpty()
    process = little_stack.start(f"restore --runtag {TAG} --from here", stdin=stdin)
    os.close(stdin)
    try:
        told = next(line for line in process.stdout if "replaced data is kept in: " in line)
        time.sleep(1.1)  # the names tell whole seconds
        os.write(terminal, f"{socket.gethostname()}\n".encode())
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        os.close(terminal)
    assert process.returncode == 0, err
    (kept,) = (little_stack.folder / "restore").glob("previous-*")
    assert str(kept) == told.strip().removeprefix("replaced data is kept in: ")


def test_a_name_that_is_in_no_part_is_told_the_nearest(little_stack):
    """--only with a typing error: refused with what there is, and what was probably meant."""
    servers = [{"container": "home_db"}]
    backed_up(little_stack, mariadb={"size_bytes": 1, "facts": {"servers": servers}})
    (little_stack.folder / f"backups/{TAG}.mariadb-backup.tar.gz").write_bytes(b"x")
    restore = f"restore --runtag {TAG} --from here --dry-run"
    for only, hint in (
        ("--only noderd", "noderd. Did you mean nodered?"),
        ("--only home-db", "home-db. Did you mean home_db?"),
        ("--only NodeRED", "NodeRED. Did you mean nodered?"),
        ("--only volumes/nodered", "volumes/nodered. Did you mean nodered?"),
        ("--only zzz", "zzz."),
    ):
        told = little_stack.run(f"{restore} {only}")
        assert told.returncode == 13, told.stderr
        assert (
            f"{TAG} holds nothing of {hint} It holds: home_db, nodered. The stack was not changed."
        ) in told.stderr


def test_an_unknown_name_is_refused_before_anything_is_looked_at(little_stack):
    """Nothing is told of a restore that cannot be; a container here may mount what is held."""
    backed_up(little_stack)
    little_stack.runs(nodered="nodered/node-red", mine="x")
    told = little_stack.run(f"restore --runtag {TAG} --from here --yes --only nodred")
    assert told.returncode == 13
    assert told.stdout == ""
    assert "holds nothing of nodred. Did you mean nodered? It holds: nodered." in told.stderr
    told = little_stack.run(f"restore --runtag {TAG} --from here --yes --only influxdb2")
    assert (told.returncode, told.stdout) == (13, "")
    assert "holds nothing of influxdb2." in told.stderr
    told = little_stack.run(f"restore --runtag {TAG} --from here --yes --only mine")
    assert told.returncode == 13
    assert "holds nothing of mine." in told.stderr


@pytest.mark.parametrize("databases", [["home", "power"], None])
def test_an_unknown_database_is_refused_as_early(databases):
    """By the names that the manifest tells; by an older one without them it is refused later."""
    told = {} if databases is None else {"databases": databases}
    part = Part("influx", f"{TAG}.influx-backup.tar", 1, "ab" * 32, facts=told)
    utc = "2026-11-23T11:00:00Z"
    manifest = Manifest(TAG, "pi", "", utc, utc, "UTC", (part,))
    backup = BackupSet(TAG, {}, State.COMPLETE)

    def asked(*names):
        only = tuple(f"influxdb:{name}" for name in names)
        Selection(RestoreRequest(TAG, only=only), backup, manifest, "influxdb").refuse_unknown(set)

    asked("home", "power")
    if databases is None:
        asked("hom")
        return
    with pytest.raises(Refused) as refused:
        asked("home", "hom")
    assert str(refused.value) == (
        f"{TAG} holds no database hom of InfluxDB. Did you mean home? It holds: home, power. The "
        "stack was not changed."
    )


def test_a_part_that_was_never_made_is_told(little_stack):
    """A restore of an incomplete set says before it begins what stays as it is."""
    backed_up(little_stack, postgres={"error": "root is not let in"})
    told = little_stack.run(f"restore --runtag {TAG} --from here --dry-run")
    assert told.returncode == 0, told.stderr
    assert f"{TAG} is incomplete: it has no postgres part" in told.stderr
    assert "root is not let in" in told.stderr


def test_a_rehearsal_of_an_incomplete_set_says_what_it_lacks(little_stack):
    """What could not be made was not proven: exit 3."""
    backed_up(little_stack, postgres={"error": "root is not let in"})
    told = little_stack.run(f"rehearse --runtag {TAG}")
    assert told.returncode == 3, told.stderr
    assert "It has no postgres part: root is not let in" in told.stderr


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"file": "../../../precious.txt"}, 'its mariadb part it has file = "../'),
        ({"facts": {"servers": "hello"}}, 'its mariadb part it has servers = "hello"'),
        (b"\xff\xfe", "byte 0 is not text"),
    ],
)
def test_an_odd_manifest_is_told_as_damaged(little_stack, odd, said):
    """What nobody can read is told by each command with what is wrong, and ends in no traceback."""
    precious = little_stack.folder.parent / "precious.txt"
    precious.write_text("mine")
    told = odd if isinstance(odd, dict) else {}
    backed_up(little_stack, mariadb={"size_bytes": 9, **told})
    if not told:
        (little_stack.folder / f"backups/{TAG}.manifest.json").write_bytes(odd)
    for line, code in (
        (f"show {TAG}", 0),
        (f"diff {TAG} {TAG}", 0),
        (f"rehearse --runtag {TAG}", 1),
        (f"restore --runtag {TAG} --from here --yes", 13),
        (f"verify --runtag {TAG}", 1),
    ):
        ended = little_stack.run(line)
        assert ended.returncode == code, ended.stderr
        assert "Traceback" not in ended.stderr
        assert "is damaged: " in ended.stdout + ended.stderr, line
        assert said in ended.stdout + ended.stderr, line
    assert precious.read_text() == "mine"
    (row,) = json.loads(little_stack.run("list --json").stdout)
    assert row["here"] == "damaged"


def test_an_unfinished_set_is_told_as_such(little_stack):
    """What a killed backup left is restored with exit 3 and the way to finish it."""
    (little_stack.folder / "volumes/nodered/flows.json").write_text("[1]\n")
    backed_up(little_stack)
    backups = little_stack.folder / "backups"
    (backups / f"{TAG}.manifest.json").unlink()
    told = little_stack.run(f"restore --runtag {TAG} --from here --yes")
    assert (told.returncode, "unverified: it has no manifest" in told.stdout) == (0, True)
    (backups / f"{TAG}.unfinished.jsonl").write_text('{"started_utc": "2026-11-23T10:00:00Z"}\n')
    for flags in ("", "--only nodered"):
        told = little_stack.run(f"restore --runtag {TAG} --from here --yes {flags}")
        assert told.returncode == 3, told.stderr
        assert f"Restore {TAG} (unfinished; " in told.stdout
        said = " ".join(told.stderr.split())
        assert f"{TAG} is unfinished: its backup was interrupted, so what is" in said
        assert f"inv backup --runtag '{TAG}'" in said


def test_a_folder_that_is_not_there(little_stack):
    """--from a folder that does not exist: that is what is said."""
    told = little_stack.run("restore --runtag latest --from /nonexistent/x --yes")
    assert told.returncode == 10
    assert "--from /nonexistent/x: folder /nonexistent/x does not exist." in told.stderr


def test_what_is_lacking_is_told_once(little_stack):
    """In full before a restore begins, and in one short line at its end, with exit 3."""
    backed_up(little_stack, postgres={"error": "root is not let in"})
    told = little_stack.run(f"restore --runtag {TAG} --from here --yes")
    assert told.returncode == 3, told.stderr
    assert told.stderr.count("root is not let in") == 1
    assert (
        f"{TAG} is incomplete: data that it does not contain was not changed."
        in told.stderr.splitlines()[-1]
    )


def test_of_a_service_whose_part_was_not_made_it_is_told_why(little_stack):
    """By its own name and by that of its database, instead of a hint to the other one."""
    backed_up(little_stack, gitea={"error": "root is not let in."})
    for only in ("gitea", "gitea_db"):
        told = little_stack.run(f"restore --runtag {TAG} --from here --yes --only {only}")
        assert told.returncode == 13, told.stderr
        assert f"In {TAG} no gitea part was made: root is not let in." in told.stderr
        assert "Did you mean" not in told.stderr


def test_what_is_refused_after_staging_leaves_no_stage(little_stack):
    """A name with a typing error is known when the archive is unpacked: nothing of it stays."""
    backed_up(little_stack)
    for _ in range(2):
        told = little_stack.run(f"restore --runtag {TAG} --from here --yes --only noderd")
        assert told.returncode == 13, told.stderr
        assert "Did you mean nodered?" in told.stderr
        assert not (little_stack.folder / "restore" / TAG).exists()


def test_a_stage_that_is_older_than_its_archive_is_rebuilt(little_stack):
    """A restore that failed left it staged; what came newer into its place is unpacked again."""
    backed_up(little_stack)
    archive = little_stack.folder / f"backups/{TAG}.general-backup.tar.gz"
    little_stack.tool("mv", "exit 1")
    told = little_stack.run(f"restore --runtag {TAG} --from here --yes")
    assert told.returncode == 1, told.stderr
    stage = little_stack.folder / "restore" / TAG
    (stage / "stack/services").mkdir(parents=True, exist_ok=True)
    (stage / "stack/old").write_text("x")
    (stage / ".set").write_text(json.dumps({"general": hash_of(archive)}))
    (little_stack.tools / "mv").unlink()
    os.utime(archive, (time.time() + 60, time.time() + 60))
    told = little_stack.run(f"restore --runtag {TAG} --from here --yes")
    assert told.returncode == 0, told.stderr


def hash_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
