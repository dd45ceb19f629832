"""What is included is a drive of its own: its entries are swapped, and no rename is tried."""

import re

import pytest
from marks import Posted
from stand_machine import USER, wait_for

TEXT = """\
services:
  box:
    image: box:1
    container_name: box
    volumes: ["./volumes/box:/box", "DRIVE:/drive"]
"""


@pytest.fixture
def drive(pi):
    """Mount a small file system in a user's home."""
    place = pi.home_of(USER) / "media/drive"
    pi.run(["mkdir", "-p", place])
    pi.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", place])
    yield place
    pi.run(["umount", "--lazy", place])


@pytest.fixture
def posted(pi, databases, drive):
    """Make a stack with a container that keeps its files on the drive."""
    made = Posted(
        pi, TEXT.replace("DRIVE", str(drive)), settings=f'[[stack.include]]\npath = "{drive}"\n'
    )
    made.lay_out()
    made.start()
    yield made
    made.remove()


def held(pi, drive):
    """Return what lies on the drive, but for what restores keep there."""
    script = (
        'cd "$1" && find . -path "./.previous-*" -prune -o -printf "%p %m %U\\n" | sort; cat f*'
    )
    return pi.run(["sh", "-c", script, "sh", drive]).stdout


def kept(pi, drive):
    """Return what restores and undos keep on the drive, with the marks beside it, by name."""
    names = pi.run(["ls", "-A", drive]).stdout.split()
    return sorted(each for each in names if each.startswith(".previous-"))


def test_there_and_back(posted, pi, drive):
    """Killed amid it, done, undone; and what was kept of the old is in no backup."""

    def write(script):
        pi.run(["sh", "-c", f'cd "$1" && {script}', "sh", drive])

    def run(*words):
        code, said = posted.run(*words)
        assert code == 0, said
        return said

    restore = ("restore", "--runtag", "t", "--from", "here", "--yes")
    write("for i in $(seq 200); do echo old > f$i; done; mkdir d; echo old > d/a; chown 7 f1")
    old = held(pi, drive)
    run("backup", "--runtag", "t")
    write("for i in $(seq 210); do echo new > f$i; done; rm -r d; chmod 700 .; mkdir .hidden")
    new = held(pi, drive)
    process = posted.start_program(*restore)
    journal = posted.top / "restore/.journal"
    wait_for(
        "the swap",
        lambda: journal.exists() and '"SwapEntries"' in journal.read_text(),
        pause=0.001,
    )
    process.end()
    run("undo", "--last-restore", "--yes")
    assert held(pi, drive) == new
    run(*restore)
    assert held(pi, drive) == old
    run("backup", "--runtag", "t2")
    listed = pi.run(["tar", "-tzf", posted.top / "backups/t2.outside-backup.tar.gz"]).stdout
    assert ".previous-" not in listed
    run("undo", "--last-restore", "--yes")
    assert held(pi, drive) == new
    undone = [each for each in kept(pi, drive) if each.endswith("-undone")]
    listed = run("undo", "--list")
    assert undone
    assert all(f" {drive}/{each}" in listed for each in undone)


def test_old_states_and_what_only_root_sees(posted, pi, drive):
    """The newest states stay, the rest goes with a good run; below 0700 nothing new is root's."""

    def run(*words):
        code, said = posted.run(*words)
        assert code == 0, said
        return said

    def states():
        return [each for each in kept(pi, drive) if not each.endswith(".moved")]

    deep = posted.top / "private/deep"
    pi.run(["install", "-d", "-o", "7", "-m", "0700", deep.parent, deep, deep / "data"])
    for path in (deep / "data/file", drive / "file"):
        pi.run(["sh", "-c", 'echo old > "$1"', "sh", path])
    pi.run(["chmod", "0700", drive])
    rows = '[[stack.include]]\npath = "private/deep/data"\n'
    posted.set(rows)
    run("backup", "--runtag", "t")
    pi.run(["rm", "-r", deep])
    pi.run(["sh", "-c", 'echo new > "$1"', "sh", drive / "file"])
    restore = ("restore", "--runtag", "t", "--from", "here", "--yes")
    run(*restore)
    status = deep.stat()
    assert (status.st_uid, status.st_mode & 0o7777) == (7, 0o755)
    assert (deep / "data/file").read_text() == pi.run(["cat", drive / "file"]).stdout == "old\n"
    (first,) = states()
    pi.run(["sh", "-c", 'head -c 1M /dev/urandom > "$1"', "sh", drive / "since"])
    run(*restore)
    assert len(states()) == 2
    assert "2 old states kept by restores take" in run("status")
    told = run("undo", "--list")
    assert f" {drive}/{first}" in told
    assert re.search(r"\b1\.\d MB +before the restore of t ", told)
    posted.settings = f"keep_previous = 1\nkeep_previous_days = 0\n{posted.settings}"
    posted.set(rows)
    assert "the next good backup, restore or prune removes it" in run("undo", "--list")
    run("backup", "--runtag", "t2")
    (second,) = states()
    assert second > first
    assert first not in run("undo", "--list")
    assert len([*(posted.top / "restore").glob("previous-*")]) == 1
    run("undo", "--last-restore", "--yes")
    assert pi.run(["stat", "-c", "%s", drive / "since"]).stdout == f"{2**20}\n"
    run("backup", "--runtag", "t3")
    assert kept(pi, drive) == [f"{second}-undone"]  # the newest that there is
    posted.settings = posted.settings.replace("keep_previous = 1", "keep_previous = 0")
    posted.set(rows)
    run("backup", "--runtag", "t4")
    assert kept(pi, drive) == []


def test_no_room_on_it(posted, pi, drive):
    """It is told with numbers before anything is copied there."""
    pi.run(["dd", "if=/dev/urandom", f"of={drive}/big", "bs=1M", "count=3", "status=none"])
    assert posted.run("backup", "--runtag", "t")[0] == 0
    code, said = posted.run("restore", "--runtag", "t", "--from", "here", "--yes")
    assert code == 13, said
    assert f" are free in {drive}, but this restore needs about 3.1 MB: " in said
    assert "earlier restores" not in said
    assert pi.run(["ls", "-A", drive]).stdout == "big\n"


def test_something_mounted_in_it(posted, pi, drive):
    """It stays as it is, and is named; all else is restored."""
    pi.run(["sh", "-c", 'mkdir "$1/in" && echo old > "$1/f"', "sh", drive])
    pi.run(["mount", "-t", "tmpfs", "tmpfs", drive / "in"])
    file = posted.top / "volumes/box/file"
    file.write_text("old")
    assert posted.run("backup", "--runtag", "t")[0] == 0
    for path in (file, drive / "f"):
        pi.run(["sh", "-c", 'echo new > "$1"', "sh", path])
    code, said = posted.run("restore", "--runtag", "t", "--from", "here", "--yes")
    assert code == 3, said
    assert f"{drive} is not restored: another file system is mounted in it, at {drive}/in" in said
    assert file.read_text() == "old"
    assert pi.run(["cat", drive / "f"]).stdout == "new\n"
    pi.run(["umount", drive / "in"])


@pytest.mark.parametrize("place", ["volumes/box", pytest.param("own", marks=pytest.mark.long)])
def test_a_drive_in_the_folder_of_the_stack(posted, pi, place):
    """Its entries are swapped, and what its service does not lie on by renames, as ever."""
    text = TEXT.replace("DRIVE:/drive", "./own:/own")
    (posted.top / "docker-compose.yml").write_text(text)
    drive = posted.top / place
    pi.run(["sh", "-c", 'mkdir -p "$1" && mount -t tmpfs -o size=4m tmpfs "$1"', "sh", drive])
    try:
        posted.compose("up", "-d")
        files = [posted.top / each / "file" for each in ("volumes/box", "own")]

        def write(text):
            for file in files:
                pi.run(["sh", "-c", 'echo "$2" > "$1"', "sh", file, text])

        def read():
            return [pi.run(["cat", file]).stdout.strip() for file in files]

        told = f"{place}: a mount point: a restore copies what belongs there"
        assert (told in posted.run("doctor")[1]) == (place != "own")
        write("old")
        assert posted.run("backup", "--runtag", "t")[0] == 0
        write("new")
        code, said = posted.run("restore", "--runtag", "t", "--from", "here", "--yes")
        assert (code, read()) == (0, ["old", "old"]), said
        assert pi.run(["mountpoint", "-q", drive]).returncode == 0
        assert posted.run("backup", "--runtag", "t2")[0] == 0
        archive = posted.top / "backups/t2.general-backup.tar.gz"
        assert ".previous-" not in pi.run(["tar", "-tzf", archive]).stdout
        assert posted.run("undo", "--last-restore", "--yes")[0] == 0
        assert read() == ["new", "new"]
        pi.run(["dd", "if=/dev/urandom", f"of={drive}/big", "bs=1M", "count=3", "status=none"])
        assert posted.run("backup", "--runtag", "t3")[0] == 0
        code, said = posted.run("restore", "--runtag", "t3", "--from", "here", "--yes")
        assert f" are free in {drive}, but this restore needs" in said
        assert code == 13
    finally:
        pi.run(["sh", "-c", 'docker rm -f box; umount "$1"', "sh", drive])
