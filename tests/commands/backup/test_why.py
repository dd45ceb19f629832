"""Why a file of a backup would be made: the path, what this stack has, and names that are wrong."""

import pytest

TAG = "2026-11-23_1100"


def test_a_path_may_be_absolute(little_stack):
    """Below the stack's folder it is the same as the one from there on."""
    name = f"backups/{TAG}.general-backup.tar.gz"
    told = little_stack.run(f"why {name}")
    assert (told.returncode, told.stderr) == (0, "")
    assert "general_archive: " in told.stdout
    assert little_stack.run(f"why {little_stack.folder}/{name}").stdout == told.stdout


def test_a_part_that_this_stack_has_not_is_made_by_nothing(little_stack):
    """Without InfluxDB no backup has a dump of it: that is said, and is no success."""
    told = little_stack.run(f"why backups/{TAG}.influx-backup.tar")
    assert told.returncode == 2
    assert told.stdout == ""
    assert "no running container has data for the influx part" in told.stderr
    (little_stack.folder / "backups").mkdir()
    (little_stack.folder / f"backups/{TAG}.influx-backup.tar").write_text("x")
    assert "is there." in little_stack.run(f"why backups/{TAG}.influx-backup.tar").stdout


@pytest.mark.parametrize(
    ("name", "makes"),
    [
        (f"backups/{TAG}.genral-backup.tar.gz", f"creates: backups/{TAG}.general-backup.tar.gz\n"),
        (f"{TAG}.manifest.json", f"creates: backups/{TAG}.manifest.json\n"),
        (
            f"backups/{TAG}",
            f"creates: backups/{TAG}.general-backup.tar.gz, backups/{TAG}.manifest.",
        ),
        ("backups/e0.manifest.jso", "creates: backups/e0.manifest.json\n"),
        ("general", "creates: backups/RUNTAG.general-backup.tar.gz, backups/RUNTAG.manifest."),
        ("volumes/nodered/x.json", "creates: backups/RUNTAG.general-backup.tar.gz, "),
        ("/etc/passwd", "/etc/passwd is neither in the stack's folder"),
    ],
)
def test_a_name_that_is_wrong_is_told_with_the_right_one(little_stack, name, makes):
    """Not with every pattern of every rule."""
    told = little_stack.run(f"why {name}")
    assert told.returncode == 2
    assert makes in told.stderr
    assert "{runtag}" not in told.stderr
