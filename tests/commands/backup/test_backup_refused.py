"""A backup and its copies: what is told as copied lies there, and nothing of others is replaced."""

import json
import os
import socket
import subprocess
from datetime import UTC, datetime

import pytest
from contexts import LittleStack, put_set

from iotstack_invoke.backups.names import KINDS

TAG = "2026-11-23_1100"
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


@pytest.fixture
def pi(little_stack, tmp_path):
    """A stack with a vault that is a folder, not there yet."""
    little_stack.backups = little_stack.folder / "backups"
    little_stack.usb = tmp_path / "usb"
    with little_stack.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{little_stack.usb}"\n')
    return little_stack


def contents(folder):
    """Return the bytes of each file of the set in a folder, but those of its log."""
    return {
        each.name: each.read_bytes()
        for each in folder.iterdir()
        if each.name.startswith(TAG) and "log" not in each.name and each.is_file()
    }


@pytest.mark.parametrize("wrong", ["other bytes", "another size"])
@pytest.mark.parametrize("when", ["unfinished", "finished"])
def test_a_wrong_archive_in_a_vault_is_no_copy(pi, wrong, when):
    """What bears the name of a copy is compared with the record, and sent anew if it differs."""
    if when == "finished":
        pi.usb.mkdir()
    assert pi.run(f"backup --runtag {TAG}").returncode == (0 if when == "finished" else 3)
    pi.usb.mkdir(exist_ok=True)
    archive = f"{TAG}.general-backup.tar.gz"
    size = (pi.backups / archive).stat().st_size - (wrong == "another size")
    (pi.usb / archive).write_bytes(bytes(size))
    (pi.usb / f"{TAG}.manifest.json").unlink(missing_ok=True)
    told = pi.run(f"backup --runtag {TAG}")
    assert told.returncode == 0, told.stderr
    assert contents(pi.usb) == contents(pi.backups)


NAMED = {
    "files": [f"{TAG}.{ending}" for ending in KINDS.values()],
    "partial files": [f"{TAG}.{ending}.partial" for ending in KINDS.values()],
    "the log": [f"{TAG}.backup-log.txt.partial"],
    "a mark": [f"{TAG}.removing"],
    "records": [f"{TAG}.unfinished.jsonl"],
    "a journal": [".journal"],
    "checks": [".checks.jsonl"],
    "a lock": [".lock"],
}


@pytest.mark.parametrize("names", NAMED.values(), ids=NAMED)
def test_a_pipe_is_never_waited_for(pi, names):
    """Whatever name of ours a pipe bears, here and in a vault, each command ends by itself."""
    for folder in (pi.backups, pi.usb):
        folder.mkdir()
        for each in names:
            os.mkfifo(folder / each)
    for line in (f"backup --runtag {TAG}", "list", "verify --at all", "prune --at all"):
        assert "Traceback" not in pi.run(line).stderr


def test_a_copy_is_not_written_into_a_pipe(pi):
    """A pipe under the name of a copy, or of one that is being made, gives way to the file."""
    pi.usb.mkdir()
    for each in NAMED["files"] + NAMED["partial files"]:
        os.mkfifo(pi.usb / each)
    assert pi.run(f"backup --runtag {TAG}").returncode == 0
    assert contents(pi.usb) == contents(pi.backups)


def test_what_is_no_file_belongs_to_no_set(pi):
    """Pipes with names of ours are no sets, are told as left alone, and stay."""
    pi.usb.mkdir()
    assert pi.run(f"backup --runtag {TAG}").returncode == 0
    strange = {f"other.{KINDS[kind]}" for kind in KINDS} | {"other.removing"}
    for folder in (pi.backups, pi.usb):
        for each in strange:
            os.mkfifo(folder / each)
    assert [each["runtag"] for each in json.loads(pi.run("list --json").stdout)] == [TAG]
    pruned = json.loads(pi.run("prune --at all --json").stdout)
    assert [set(each["left_alone"]) for each in pruned] == [strange, strange]
    assert {each.name for each in pi.usb.iterdir() if each.is_fifo()} == strange


# Refusals


def without_a_manifest(pi):
    (pi.backups / f"{TAG}.general-backup.tar.gz").write_bytes(b"x")


def in_the_vault(pi):
    put_set(pi.usb, NOW, runtag=TAG)


def pinned_in_the_vault(pi):
    put_set(pi.usb, NOW, runtag=TAG)
    (pi.usb / f"{TAG}.pin.txt").write_text("")


def pinned_here(pi):
    put_set(pi.backups, NOW, runtag=TAG)
    (pi.backups / f"{TAG}.pin.txt").write_text("")


def everywhere(pi):
    assert pi.run(f"backup --runtag {TAG}").returncode == 0


def no_compose_file(pi):
    (pi.folder / "docker-compose.yml").unlink()


def found_damaged(pi):
    everywhere(pi)
    path = pi.backups / f"{TAG}.general-backup.tar.gz"
    path.write_bytes(bytes(path.stat().st_size))
    assert pi.run(f"verify --runtag {TAG} --at here").returncode == 1


def damaged_manifest(pi):
    everywhere(pi)
    (pi.backups / f"{TAG}.manifest.json").write_text("{}")


REFUSALS = [
    (found_damaged, "", "its last verification failed: The SHA-256 of"),
    (damaged_manifest, "", "its manifest is damaged. usb may have a good copy"),
    (without_a_manifest, "", "made by other scripts"),
    (in_the_vault, "", "usb has a backup"),
    (pinned_in_the_vault, "--force", "it is pinned there"),
    (pinned_here, "--force", "is pinned. Unpin it first"),
    (everywhere, "", "here and in every vault"),
    (no_compose_file, "", "compose"),
]


@pytest.mark.parametrize(("arrange", "flags", "words"), REFUSALS)
def test_a_dry_run_is_refused_like_the_real_one(pi, arrange, flags, words):
    """Whatever the backup would be refused for, its dry run says, with the same exit code."""
    pi.backups.mkdir()
    pi.usb.mkdir()
    arrange(pi)
    before = pi.tree()
    told = [pi.run(f"backup --runtag {TAG} {flags} {dry}") for dry in ("--dry-run", "")]
    assert [each.returncode for each in told] == [13, 13]
    assert words in told[0].stderr
    assert told[0].stderr == told[1].stderr
    for locked in (str(pi.backups), f"{pi.backups}/.lock"):
        before.pop(locked, None)
    assert {path: each for path, each in pi.tree().items() if path in before} == before


def test_what_is_damaged_is_made_again_with_force(pi):
    """Then it verifies, here and in the vault, and the same name is taken."""
    pi.usb.mkdir()
    found_damaged(pi)
    assert pi.run(f"backup --runtag {TAG} --force").returncode == 0
    assert pi.run(f"verify --runtag {TAG} --at all").returncode == 0
    assert "already, here and in every vault" in pi.run(f"backup --runtag {TAG}").stderr


def test_a_backup_without_vaults_is_there_already(little_stack):
    """The refusal speaks of no vault where there is none."""
    assert little_stack.run(f"backup --runtag {TAG}").returncode == 0
    said = " ".join(little_stack.run(f"backup --runtag {TAG}").stderr.split())
    assert f"A backup {TAG} exists already, here. Choose another --runtag" in said


def test_the_advice_for_a_damaged_set(pi):
    """Where another copy lies it is to be taken; without one the command that makes it again."""
    pi.usb.mkdir()
    found_damaged(pi)
    told = pi.run(f"verify --runtag {TAG} --at here").stderr
    assert f"Use another copy: inv show '{TAG}'" in told
    for each in pi.usb.iterdir():
        each.unlink()
    told = " ".join(pi.run(f"verify --runtag {TAG} --at here").stderr.split())
    assert (
        f"There is no other copy. Rebuild it from the present data: inv backup --runtag '{TAG}' --force"
        in told
    )


def test_a_dry_run_tells_that_there_is_no_room(pi, small_disk):
    """A disk that is too small for the backup refuses the dry run as well."""
    pi.backups.symlink_to(small_disk)
    (pi.folder / "volumes/nodered/large").write_bytes(os.urandom(1_000_000))
    told = [pi.run(f"backup --runtag {TAG} {dry}") for dry in ("--dry-run", "")]
    assert [each.returncode for each in told] == [13, 13]
    assert "this backup needs about" in told[0].stderr


def test_what_is_half_removed_refuses_no_dry_run(pi):
    """The real run finishes a removal first, and so the dry run takes it for finished."""
    pi.usb.mkdir()
    (pi.usb / f"{TAG}.removing").write_text("")
    assert pi.run(f"backup --runtag {TAG} --dry-run").returncode == 0
    assert (pi.usb / f"{TAG}.removing").exists()
    assert pi.run(f"backup --runtag {TAG}").returncode == 0


# What is mounted read-only

READ_ONLY = "is mounted read-only (the card may be failing: look at dmesg)"


@pytest.mark.parametrize("language", ["C.UTF-8", "de_DE.UTF-8"])
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("which", ["folder", "backups"])
def test_a_read_only_file_system_is_named(pi, read_only, which, there, language):
    """The backup, its dry run and doctor say so, of the stack's folder and of backups/."""
    pi.environment["LANG"] = language
    if there or which == "backups":
        pi.backups.mkdir()
    read_only(getattr(pi, which))
    for line in ("backup", "backup --dry-run"):
        told = pi.run(line)
        assert told.returncode == 13
        words = " ".join(told.stderr.split())
        assert READ_ONLY in words
        assert "remount,rw" in words
        assert "chown" not in words
    told = pi.run("doctor")
    assert told.returncode == 1
    assert READ_ONLY in " ".join(told.stdout.split())
    assert "chown" not in told.stdout


def test_a_read_only_vault_is_named(pi, read_only):
    """The set is whole here, and what the vault lacks is told with the reason."""
    pi.usb.mkdir()
    read_only(pi.usb)
    told = pi.run("backup")
    assert told.returncode == 3
    assert READ_ONLY in " ".join(told.stderr.split())
    told = pi.run("doctor")
    assert READ_ONLY in " ".join(told.stdout.split())
    assert "check the owner" not in told.stdout


def test_a_vault_may_have_a_dash_in_its_name(pi):
    """Its copies are made, found and verified as any others."""
    pi.usb.mkdir()
    pi.settings.write_text(pi.settings.read_text().replace('"usb"', '"here-copies"', 1))
    assert pi.run(f"backup --runtag {TAG}").returncode == 0
    assert contents(pi.usb) == contents(pi.backups)
    assert pi.run("verify --at here-copies").returncode == 0
    assert "here-copies" in pi.run(f"show {TAG}").stdout


# The runtag of the clock

MINUTE = TAG


@pytest.fixture
def same_minute(pi):
    """The clock says one minute for ever, as in the hour that comes twice; the vault is there."""
    pi.usb.mkdir()
    (pi.tools / "sitecustomize.py").write_text(
        "import contextlib\n"
        "with contextlib.suppress(ImportError):\n"
        "    import iotstack_invoke.core.runtag as r\n"
        f"    r.default_runtag = lambda _: r.Runtag('{MINUTE}')\n"
    )
    pi.environment["PYTHONPATH"] = str(pi.tools)
    return pi


def runtags(pi):
    return sorted({each["runtag"] for each in json.loads(pi.run("list --json").stdout)})


def test_a_runtag_of_the_clock_that_is_taken_gets_a_number(same_minute):
    """A second and a third backup in one minute are backups; the dry run says the name."""
    pi = same_minute
    assert pi.run("backup").returncode == 0
    told = pi.run("backup --dry-run")
    assert f"{MINUTE}-2.general-backup" in told.stdout
    told = [pi.run("backup") for _ in range(2)]
    assert [each.returncode for each in told] == [0, 0], told
    assert runtags(pi) == [MINUTE, f"{MINUTE}-2", f"{MINUTE}-3"]
    assert contents(pi.usb) == contents(pi.backups)
    told = pi.run(f"backup --runtag {MINUTE}")
    assert told.returncode == 13
    told = pi.run("show latest")
    assert told.stdout.startswith(f"{MINUTE}-3 "), told


@pytest.mark.parametrize("where", ["usb", "backups"])
def test_the_name_of_anothers_backup_is_taken(same_minute, where):
    """Another machine's in the flat vault, archives of other scripts here: both stay."""
    pi = same_minute
    folder = getattr(pi, where)
    folder.mkdir(exist_ok=True)
    files = foreign(pi) if where == "usb" else {f"{TAG}.{KINDS['general']}": b"theirs"}
    put(folder, files)
    assert pi.run("backup").returncode == 0
    assert (pi.backups / f"{MINUTE}-2.manifest.json").exists()
    assert {name: (folder / name).read_bytes() for name in files} == files


def test_a_dead_run_is_gone_on_with_by_its_name_alone(same_minute):
    """Of the same minute, a run without --runtag begins anew, and one with it goes on."""
    pi = same_minute
    pi.tool("tar", 'echo "tar: disk on fire" >&2; exit 2')
    assert pi.run("backup").returncode == 1
    (pi.tools / "tar").unlink()
    assert pi.run("backup").returncode == 0
    assert runtags(pi) == [MINUTE, f"{MINUTE}-2"]
    assert pi.run(f"backup --runtag {MINUTE}").returncode == 0
    assert runtags(pi) == [MINUTE, f"{MINUTE}-2"]


def test_two_runs_of_a_minute_never_share_a_name(same_minute):
    """The lock decides: the second is busy, or has a name of its own."""
    pi = same_minute
    running = [pi.start("backup") for _ in range(3)]
    told = [each.communicate(timeout=120)[1] for each in running]
    codes = [each.returncode for each in running]
    assert set(codes) <= {0, 11}, told
    assert len(runtags(pi)) == codes.count(0) >= 1


BLANK = ("", " ", "\t")


@pytest.mark.parametrize("text", BLANK, ids=repr)
@pytest.mark.parametrize(
    "line",
    [
        "backup --runtag",
        "backup --dry-run --runtag",
        "restore --runtag",
        "restore --host",
        "verify --runtag",
        "rehearse --runtag",
        "show --runtag",
        "pin --runtag",
        "pull --runtag",
        "diff --after x --before",
        "diff --before x --after",
        "undo --host",
        "reload-influxdb --host",
        "backup --host",
    ],
)
def test_a_blank_name_is_refused(pi, line, text):
    """What a script gives whose variable is not set names no backup, and no machine."""
    told = subprocess.run(
        [*pi.words(line), text],
        env=pi.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 2, told
    assert " is empty. All its options: inv --help " in told.stderr
    assert not pi.backups.exists()


# Two machines, one folder of a vault


def foreign(pi):
    """Return what another machine of the same name would have: a set with another archive."""
    other = pi.folder.parent / "other"
    other.mkdir()
    path = put_set(other, NOW, runtag=TAG)
    return {each.name: each.read_bytes() for each in (path, other / f"{TAG}.{KINDS['general']}")}


def put(folder, files):
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_a_set_of_another_machine_is_never_replaced(pi):
    """What came into the vault while this backup was unfinished stays, and the message says so."""
    assert pi.run(f"backup --runtag {TAG}").returncode == 3
    pi.usb.mkdir()
    files = foreign(pi)
    put(pi.usb, files)
    told = pi.run(f"backup --runtag {TAG}")
    assert told.returncode == 3
    assert f"usb has a backup {TAG} of {socket.gethostname()} already" in told.stderr
    assert "Give each machine a folder of its own" in " ".join(told.stderr.split())
    assert {each.name: each.read_bytes() for each in pi.usb.iterdir()} == files
    assert pi.run(f"backup --runtag {TAG} --force").returncode == 0
    assert contents(pi.usb) == contents(pi.backups)


def test_a_set_that_another_machine_copies_now_is_left_alone(pi):
    """Until the mark of the other run is gone nothing is copied, and then the same command does."""
    pi.usb.mkdir()
    mark = {f"{TAG}.unfinished.jsonl": b'{"host": "other-pi", "claim": "1"}\n'}
    mark |= {f"{TAG}.{KINDS[kind]}.partial": b"half" for kind in ("general", "manifest")}
    put(pi.usb, mark)
    told = pi.run(f"backup --runtag {TAG}")
    assert told.returncode == 3
    assert f"other-pi is copying a backup {TAG} to usb" in told.stderr
    assert "copies it there" not in told.stderr  # not where the name stays the other's
    assert {each.name: each.read_bytes() for each in pi.usb.iterdir()} == mark
    (pi.usb / f"{TAG}.unfinished.jsonl").unlink()
    assert pi.run(f"backup --runtag {TAG}").returncode == 0
    assert contents(pi.usb) == contents(pi.backups)
    assert not list(pi.usb.glob("*.unfinished.jsonl"))


def test_of_two_machines_at_once_one_copies(pi, tmp_path):
    """Two backups of one name, begun together: the vault has the one of them that ended well."""
    pi.usb.mkdir()
    other = LittleStack(tmp_path / "other")
    other.backups = other.folder / "backups"
    (other.folder / "volumes/nodered/flows.json").write_text("[1]\n")
    vault = pi.settings.read_text().partition("[[vaults]]")[2]
    with other.settings.open("a") as stream:
        stream.write(f"[[vaults]]{vault}")
    for each in (pi, other):  # neither is ready long before the other
        each.tool("docker", "sleep 0.3")
    running = {each: each.start(f"backup --runtag {TAG}") for each in (pi, other)}
    told = {each: process.communicate(timeout=60)[1] for each, process in running.items()}
    codes = {each: process.returncode for each, process in running.items()}
    assert sorted(codes.values()) in ([0, 3], [0, 13]), told
    good = next(each for each, code in codes.items() if code == 0)
    assert contents(pi.usb) == contents(good.backups)


def test_the_mark_of_a_run_that_was_killed_is_its_own(pi):
    """The same command goes on under the mark that the dead run left in the vault."""
    pi.usb.mkdir()
    (pi.usb / f"{TAG}.{KINDS['manifest']}").mkdir()  # keeps the manifest from arriving
    assert pi.run(f"backup --runtag {TAG}").returncode == 3
    assert (pi.usb / f"{TAG}.unfinished.jsonl").exists()
    (pi.usb / f"{TAG}.{KINDS['manifest']}").rmdir()
    assert pi.run(f"backup --runtag {TAG}").returncode == 0
    assert contents(pi.usb) == contents(pi.backups)


def test_where_no_stack_is_nothing_is_made(pi):
    """Refused means that nothing was changed: no folder of backups either, which doctor praises."""
    (pi.folder / "docker-compose.yml").unlink()
    told = pi.run(f"backup --runtag {TAG}")
    assert (told.returncode, "No IOTstack found in" in told.stderr) == (13, True)
    assert not pi.backups.exists()
