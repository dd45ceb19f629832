"""Volumes of a device or a folder: what becomes of them is said, with either Compose, up or down."""

import pytest
from marks import Posted
from stand_machine import USER

TEXT = """\
version: "2.4"
services:
  box:
    image: box:1
    container_name: box
    volumes: ["disk:/disk", "hand:/hand"]
volumes:
  disk:
    driver_opts: {type: ext4, device: DEVICE, o: noatime}
  hand: {external: true}
"""


@pytest.fixture
def device(pi, tmp_path):
    """Make a small disk, and let go of it again."""
    image = tmp_path / "disk.img"
    pi.run(["truncate", "-s", "20M", image])
    pi.run(["mkfs.ext4", "-q", image])
    made = pi.run(["losetup", "--find", "--show", image]).stdout.strip()
    yield made
    pi.run(["losetup", "--detach", made])


@pytest.fixture
def posted(pi, databases, device):
    """Make a stack with a volume of the disk, and one that a person made of a folder of it."""
    made = Posted(pi, TEXT.replace("DEVICE", device), version=2)
    made.lay_out()
    (made.top / "hand").mkdir()
    options = ("type=none", "o=bind", f"device={made.top}/hand")
    words = [word for each in options for word in ("--opt", each)]
    pi.run(["docker", "volume", "create", *words, "hand"])
    made.start()
    write = "echo disk > /disk/file; echo hand > /hand/file"
    pi.run(["docker", "exec", "box", "sh", "-c", write])
    yield made
    made.remove()


@pytest.mark.parametrize("version", [1, 2])
def test_on_a_bare_machine(posted, pi, version):
    """Compose 2 takes a plain one, into which the files go; Compose 1 makes it of the device."""
    code, said = posted.run("backup", "--runtag", "t")
    assert code == 0, said
    usb = posted.carry_away("t")
    posted.tag_images()
    plugins = pi.home_of(USER) / ".docker/cli-plugins"
    away = plugins.with_name("away")
    if version == 1:
        plugins.rename(away)
    try:
        code, said = posted.run("restore", "--runtag", "t", "--from", str(usb), "--yes")
    finally:
        if version == 1:
            away.rename(plugins)
    assert code == 3, said
    told = "is a plain one here" if version == 2 else "is not restored: docker-compose 1 makes"
    assert f"volume:iotstack_disk {'was a volume of ' * (version == 2)}" in said
    assert said.count(told) == 2, said
    (mount,) = (m for m in posted.inspect()["box"]["Mounts"] if m["Destination"] == "/disk")
    mounted = pi.run(["mountpoint", "-q", mount["Source"]], check=False).returncode == 0
    assert mounted == (version == 1)
    read = pi.run(["docker", "exec", "box", "cat", "/disk/file", "/hand/file"]).stdout
    assert read == "disk\nhand\n"


DOWN = """\
services:
  box:
    image: box:1
    container_name: box
    volumes: ["own:/own"]
volumes:
  own:
    driver_opts: {type: none, o: bind, device: FOLDER/own}
"""


def test_a_folder_of_the_stack_while_it_is_down(pi, databases):
    """It is packed from the compose file alone, whether Docker still has the volume or not."""
    made = Posted(pi, DOWN.replace("FOLDER", str(pi.home_of(USER) / "IOTstack")), version=2)
    made.lay_out()
    (made.top / "own").mkdir(exist_ok=True)
    made.start()
    try:
        pi.run(["docker", "exec", "box", "sh", "-c", "echo own > /own/file"])
        for words in (("down",), ("down", "--volumes")):
            made.compose(*words)
            runtag = "-".join(words).replace("--", "")
            code, said = made.run("backup", "--runtag", runtag)
            assert code == 0, said
            archive = made.top / f"backups/{runtag}.general-backup.tar.gz"
            assert "./own/file\n" in pi.run(["tar", "-tzf", archive]).stdout
    finally:
        made.remove()
