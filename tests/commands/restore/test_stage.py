"""What was staged is taken for whole only if it is: a stage that is hollow is made again."""

import json
import os
import shutil
import subprocess

import pytest

from iotstack_invoke.commands.restore.stage import Stage
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.engine.steps import HostAccess, Record
from iotstack_invoke.environment.stack_host import StackHost
from iotstack_invoke.hosts.base import Command
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.stack.folders import UseStage
from iotstack_invoke.stack.staged import mark_of, measure, remove_words

TAG = "t1"
NAMES = ("nodered", "other")
FULL = f"restore --runtag {TAG} --from here --yes"
KILLING = """[ -d STAGE/stack ] && for each; do case $each in WHERE)
    ACT
    until [ -s FILE ]; do sleep 0.05; done
    kill -9 "$(cat FILE)" $PPID; exit 1 ;;
esac; done
exec /bin/PROGRAM "$@"
"""


@pytest.fixture
def pi(little_stack):
    """A stack with a backup of [1] in each of two folders, whose live files have [2]."""
    put(little_stack, 1)
    assert little_stack.run(f"backup --runtag {TAG}").returncode == 0
    put(little_stack, 2)
    little_stack.stage = little_stack.folder / "restore" / TAG
    return little_stack


def put(stack, value):
    for name in NAMES:
        folder = stack.folder / "volumes" / name
        folder.mkdir(exist_ok=True)
        (folder / "flows.json").write_text(f"[{value}]\n")


def live(stack):
    """Return what each folder has; None where its file is missing."""
    files = [stack.folder / "volumes" / name / "flows.json" for name in NAMES]
    return [json.loads(each.read_text())[0] if each.exists() else None for each in files]


def restored(stack, line=FULL, code=0):
    told = stack.run(line)
    assert told.returncode == code, told.stderr
    return told.stdout + told.stderr


def killed(stack, program, where, act="true", line=FULL):
    """Let a restore be killed by a program that is called with a path; before, something is done."""
    pid = stack.tools / "pid"
    pid.unlink(missing_ok=True)
    script = KILLING.replace("WHERE", where).replace("ACT", act).replace("STAGE", str(stack.stage))
    stack.tool(program, script.replace("FILE", str(pid)).replace("PROGRAM", program))
    process = stack.start(line)
    pid.write_text(str(process.pid))
    said = process.communicate(timeout=120)
    assert process.returncode == -9, said
    (stack.tools / program).unlink()


def staged_and_killed(stack):
    """Let a restore die before anything leaves its stage."""
    killed(stack, "mv", f"{stack.folder}/volumes/*")
    assert stack.run("undo --yes").returncode == 0


@pytest.mark.parametrize(
    ("act", "why"),
    [
        ("cp OTHER ARCHIVE.new; mv ARCHIVE.new ARCHIVE", "was changed while it was being read"),
        ("cat OTHER >ARCHIVE; touch -r OTHER ARCHIVE", "was changed while it was being read"),
        ('TAR "$@" && rm ARCHIVE; exit', "was removed while it was being read"),
        ("chmod 0640 ARCHIVE", ""),
    ],
)
def test_an_archive_that_changes_while_it_is_read_is_not_used(pi, act, why):
    """Its hash was right before; what another program puts in its place then is never restored."""
    put(pi, 3)
    restored(pi, "backup --runtag t0")
    put(pi, 2)
    archive, other = (
        str(pi.folder / "backups" / f"{tag}.general-backup.tar.gz") for tag in (TAG, "t0")
    )
    script = f'case " $* " in *" --extract "*) {act} ;; esac\nexec TAR "$@"'
    script = script.replace("ARCHIVE", archive).replace("OTHER", other)
    pi.tool("tar", script.replace("TAR", str(shutil.which("tar"))))
    told = restored(pi, code=1 if why else 0)
    assert why in told
    assert live(pi) == ([2, 2] if why else [1, 1])
    assert ("The stack was not changed." in told) == bool(why)


@pytest.mark.parametrize("line", [FULL, f"{FULL} --only nodered"])
@pytest.mark.parametrize("act", ["true", "/bin/rm -rf STAGE/stack/volumes STAGE/.[!.s]*"])
def test_a_stage_that_was_cleared_by_half_is_not_taken_for_whole(pi, line, act):
    """The restore was committed, and died while it tidied up: the next one restores all again."""
    killed(pi, "rm", str(pi.stage), act, line)
    assert (pi.stage / "stack").is_dir()
    assert live(pi)[0] == 1
    put(pi, 3)
    restored(pi)
    assert live(pi) == [1, 1]
    assert not pi.stage.exists()


def test_what_an_earlier_version_staged_is_made_again(pi):
    """It has no mark for each folder, only one of the set; what it fetched stays by its hash."""
    hashes = json.dumps({"general": sha256_of(pi)})
    (pi.stage / "stack/volumes").mkdir(parents=True)
    (pi.stage / ".set").write_text(hashes)
    later = pi.folder.stat().st_mtime + 60
    os.utime(pi.stage / "stack", (later, later))
    assert "volumes/nodered" in restored(pi)
    assert live(pi) == [1, 1]


def test_a_general_part_of_nothing_is_refused(pi):
    """A restore of it would end well, and have restored nothing."""
    empty = pi.folder.parent / "empty"
    for name in ("services", "volumes"):
        (empty / name).mkdir(parents=True)
    archive = pi.folder / f"backups/{TAG}.general-backup.tar.gz"
    words = ["tar", "-C", empty, "-czf", archive, "./services", "./volumes"]
    subprocess.run(words, check=True)
    (pi.folder / f"backups/{TAG}.manifest.json").unlink()
    for line in (FULL, f"{FULL} --dry-run"):
        said = restored(pi, line, 1)
        assert "it has only empty folders" in said
    assert live(pi) == [2, 2]
    assert not list((pi.folder / "restore").glob("previous-*"))


def test_nobody_else_looks_into_what_is_staged_and_kept(pi):
    """Whatever the umask: there are the secrets of the whole stack in it."""
    before = os.umask(0o022)
    try:
        pi.start(FULL).communicate(timeout=120)
    finally:
        os.umask(before)
    assert live(pi) == [1, 1]
    assert (pi.folder / "restore").stat().st_mode & 0o777 == 0o700


def owner(path):
    status = path.stat()
    return status.st_uid, status.st_gid, status.st_mode & 0o777


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_folder_that_is_new_here_belongs_to_whom_the_archive_says(pi):
    """On a bare machine root, who makes it, would keep the user out of it; an undo removes it."""
    volumes = pi.folder / "volumes"
    deep = pi.folder / "mine/deep/data"
    deep.mkdir(parents=True)
    (deep / "file").write_text("mine")
    os.chown(volumes, 1000, 1000)
    volumes.chmod(0o775)
    os.chown(pi.folder, 1001, 1001)
    words = '[[stack.include]]\npath = "mine/deep/data"\n'
    with (pi.folder.parent / "hosts.toml").open("a") as settings:
        settings.write(words)
    assert pi.run("backup --runtag t2").returncode == 0
    shutil.rmtree(volumes)
    shutil.rmtree(pi.folder / "mine")
    restored(pi, FULL.replace(TAG, "t2"))
    assert (volumes / "nodered/flows.json").exists()
    assert (deep / "file").exists()
    assert owner(volumes) == (1000, 1000, 0o775)
    for above in (deep.parent, deep.parent.parent):  # the archive does not tell
        assert owner(above) == (1001, 1001, 0o755)
    restored(pi, "undo --last-restore --yes")
    assert not volumes.exists()
    assert not deep.parent.parent.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_new_stack_of_root_is_given_to_whom_the_archive_says(pi):
    """The folders above it belong to whom the home does; an undo takes it back."""
    os.chown(pi.folder / "docker-compose.yml", 1000, 1000)
    assert pi.run("backup --runtag t2").returncode == 0
    usb = pi.folder.parent / "usb"
    (pi.folder / "backups").rename(usb)
    shutil.rmtree(pi.folder)
    home = pi.folder.parent / "home"
    home.mkdir()
    os.chown(home, 1002, 1002)
    new = home / "more/IOTstack"
    pi.settings.write_text(pi.settings.read_text().replace(str(pi.folder), str(new)))
    restored(pi, f"restore --runtag t2 --bare --from {usb} --yes")
    assert (new / "volumes/nodered/flows.json").exists()
    assert owner(new) == (1000, 1000, 0o755)
    assert owner(new.parent) == (1002, 1002, 0o755)
    restored(pi, "undo --last-restore --yes")
    assert owner(new) == (0, 0, 0o755)
    assert {each.name for each in new.iterdir()} == {"backups", "restore"}


def sha256_of(stack):
    manifest = json.loads((stack.folder / f"backups/{TAG}.manifest.json").read_text())
    return manifest["parts"]["general"]["sha256"]


def test_nothing_leaves_a_stage_that_still_counts_as_whole(pi):
    """The mark is there before the switch, and gone at the first rename of it."""
    seen = pi.tools / "seen"
    act = f'ls -A "{pi.stage}" > "{seen}"'
    with pi.settings.open("a") as stream:
        stream.write(f"[hooks]\nbefore_restore = [['sh', '-c', '{act} && cat {seen}']]\n")
    killed(pi, "mv", f"{pi.folder}/volumes/*", act=f"cp {seen} {seen}.hook; {act}")
    assert ".stack.whole" in (pi.tools / "seen.hook").read_text().split()
    assert seen.read_text().split() == [".set", "stack"]


@pytest.mark.parametrize("what", ["nothing", "a file", "a byte", "a folder", "the mark"])
def test_a_whole_stage_is_used_and_one_that_lacks_something_is_not(pi, what):
    """A restore that died before the switch left all of it unpacked."""
    act = f'echo again >> "{pi.tools}/tar.calls"'
    hook = "[hooks]\nbefore_restore = [['sh', '-c', 'kill -9 $(cat FILE); sleep 9']]\n"
    settings = pi.settings.read_text()
    pid = pi.tools / "pid"
    pi.settings.write_text(settings + hook.replace("FILE", str(pid)))
    process = pi.start(FULL)
    pid.write_text(str(process.pid))
    process.communicate(timeout=120)
    pi.settings.write_text(settings)
    stack = pi.stage / "stack"
    assert (pi.stage / ".stack.whole").exists()
    flows = stack / "volumes/other/flows.json"
    if what == "a file":
        flows.unlink()
    elif what == "a byte":
        flows.write_text("[1]")
    elif what == "a folder":
        shutil.rmtree(stack / "services")
    elif what == "the mark":
        (pi.stage / ".stack.whole").unlink()
    pi.tool("tar", f'case "$*" in *--extract*) {act} ;; esac; exec /bin/tar "$@"')
    restored(pi)
    assert live(pi) == [1, 1]
    assert (pi.tools / "tar.calls").exists() is (what != "nothing")


@pytest.fixture
def stage(tmp_path):
    """A stage of a set with one archive, with a folder that is whole."""
    target = StackHost(LocalHost(str(tmp_path)), "pi", str(tmp_path), "test", (), ("docker",))
    stage = Stage(target, TAG, {})
    stage.begin("mark", ["a.tar"], apart=False)
    os.makedirs(f"{stage.folder}/stack/volumes")
    (tmp_path / "restore" / TAG / "stack/volumes/file").write_text("x" * 7)
    stage.add(Record("pi:restore/t1/stack/", facts={"members": 2, "bytes": 7}))
    return stage


def test_only_what_is_known_stays(stage):
    """Archives, also partial ones, and whole folders; all else is what a dead run left."""
    for name in ("databases/mariadb", "stack.partial", "influx"):
        os.makedirs(f"{stage.folder}/{name}")
    for name in ("a.tar", "a.tar.partial", "b.tar", ".influx.whole"):
        with open(f"{stage.folder}/{name}", "w") as stream:
            stream.write("{")
    again = Stage(stage.target, TAG, {})
    again.begin("mark", ["a.tar"], apart=False)
    assert sorted(os.listdir(stage.folder)) == [
        ".set",
        ".stack.whole",
        "a.tar",
        "a.tar.partial",
        "stack",
    ]
    assert list(again.known()) == ["pi:restore/t1/stack/"]
    again.begin("another", ["a.tar"], apart=False)
    assert os.listdir(stage.folder) == [".set"]
    assert not again.known()


@pytest.mark.parametrize("told", ["pi:restore/t1/other/", "pi:restore/t1/stack", "from:stack/"])
def test_a_mark_of_another_folder_says_nothing(stage, told):
    """It was copied there, or is no mark of ours."""
    mark = mark_of(f"{stage.folder}/stack")
    with open(mark) as stream:
        text = stream.read()
    with open(mark, "w") as stream:
        stream.write(text.replace("pi:restore/t1/stack/", told))
    stage.begin("mark", (), apart=False)
    assert os.listdir(stage.folder) == [".set"]


def test_a_stage_whose_mark_cannot_be_removed_stays_whole(stage, tmp_path, scene_of):
    """What says that it is whole goes first: where that fails, nothing else goes."""
    folder = f"{stage.folder}/stack"
    tool = tmp_path / "rm"
    tool.write_text("#!/bin/sh\nexit 1\n")
    tool.chmod(0o755)
    words = ("env", f"PATH={tmp_path}:{os.environ['PATH']}", *remove_words((), folder))
    with pytest.raises(StepFailed):
        stage.host.run(Command(words))
    assert measure(stage.host, folder, ()) == (2, 7)
    use = UseStage(HostAccess("pi", guard=str(tmp_path / "guard")), (folder, f"{folder}.none"))
    use.do(scene_of(stage.host))
    assert not os.path.exists(mark_of(folder))
    assert measure(stage.host, folder, ()) == (2, 7)
    with pytest.raises(StepFailed):
        measure(stage.host, f"{folder}.none", ())


@pytest.fixture
def scene_of():
    """Return a scene with a host."""
    from contexts import PlainContext

    return lambda host: PlainContext({"pi": host})
