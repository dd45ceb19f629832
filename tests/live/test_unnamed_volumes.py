"""Volumes that an image declares and no compose file names: packed, and found again by their place."""

import json

import pytest
from database_images import INFLUX2_IMAGE
from marks import Posted
from stand_machine import USER

TEXT = """\
services:
  box:
    image: box:1
    container_name: box
    volumes: ["./volumes/box:/data"]
"""
PLACES = ("/etc/influxdb2", "/var/lib/influxdb2")


@pytest.fixture
def posted(pi, databases):
    """Make a stack of one container with two volumes without a name."""
    made = Posted(pi, TEXT, folders=(), plays={"box:1": INFLUX2_IMAGE})
    made.lay_out()
    made.start()
    yield made
    made.remove()


def rows(stack, runtag):
    manifest = json.loads((stack.top / f"backups/{runtag}.manifest.json").read_text())
    return sorted(row["anonymous"] for row in manifest["parts"]["outside"]["facts"]["outside"])


def test_they_come_back(posted):
    """Into the same volumes, into those of a container made anew, and onto a bare machine."""
    marks = posted.plant()
    code, said = posted.run("backup", "--runtag", "t")
    assert code == 0, said
    assert rows(posted, "t") == [f"box:{place}" for place in PLACES]

    def restored(source="here"):
        code, said = posted.run("restore", "--runtag", "t", "--from", source, "--yes")
        assert code == 0, said
        assert all(f"volume:box:{place}" in said for place in PLACES)
        assert {str(mark): why for mark in marks if (why := posted.back(mark))} == {}

    for mark in marks:
        mark.path.write_text("another")
    newer = [mark.path for mark in marks]
    restored()
    assert posted.run("undo", "--last-restore", "--yes")[0] == 0
    assert {path.read_text() for path in newer} == {"another"}
    posted.compose("down")
    posted.compose("up", "-d")
    restored()
    usb = posted.carry_away("t")
    posted.tag_images()
    restored(str(usb))


def test_they_are_left_out_by_their_place(posted):
    """And a set without them replaces none that has them, unless it says so."""
    posted.plant()
    assert posted.run("backup", "--runtag", "t1")[0] == 0
    reason = 'reason = "of its image"\n'
    posted.set(f'[[stack.exclude]]\npath = "volume:box:{PLACES[0]}"\n{reason}')
    assert posted.run("backup", "--runtag", "t2")[0] == 0
    assert rows(posted, "t2") == [f"box:{PLACES[1]}"]


def test_what_its_container_does_not_mount_any_more_is_named(posted, pi):
    """It stays in the archive, and the restore says where."""
    posted.plant()
    assert posted.run("backup", "--runtag", "t")[0] == 0
    home = f"{pi.home_of(USER)}/IOTstack/volumes/own"
    text = TEXT.replace("/data", f'/data", "{home}:{PLACES[0]}')
    (posted.top / "docker-compose.yml").write_text(text)
    posted.compose("up", "-d")
    code, said = posted.run("restore", "--runtag", "t", "--from", "here", "--yes")
    assert code == 3, said
    assert f"volume:box:{PLACES[0]} is not restored" in said
