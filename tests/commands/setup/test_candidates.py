"""What `init` finds on a machine: drives, stacks, names of ssh, remotes of rclone."""

import re

import pytest
from cloud import require_rclone

from iotstack_invoke.commands.setup import candidates
from iotstack_invoke.commands.setup.candidates import (
    drives_in,
    find_drives,
    find_remotes,
    find_stacks,
)
from iotstack_invoke.hosts.ssh_aliases import ssh_aliases

PI = """\
21 1 179:2 / / rw,noatime shared:1 - ext4 /dev/root rw
22 21 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw
26 21 0:24 / /run rw shared:5 - tmpfs tmpfs rw
40 21 179:1 / /boot/firmware rw shared:30 - vfat /dev/mmcblk0p1 rw
50 21 8:1 / /media/pi/My\\040Drive rw shared:40 - ext4 /dev/sda1 rw
51 21 8:17 / /mnt/ssd rw shared:41 - ext4 /dev/sdb1 rw
52 21 0:50 / /mnt/nas rw shared:42 - cifs //nas/backup rw
53 21 0:51 / /mnt/gone rw shared:43 - nfs4 nas:/old rw
54 53 0:52 / /mnt/gone rw shared:44 - tmpfs tmpfs rw
55 21 8:33 / /mnt/dvd ro shared:45 - ext4 /dev/sdc1 rw
56 21 8:49 / /mnt/failing rw shared:46 - ext4 /dev/sdd1 ro
57 21 179:2 /home/x /mnt/bind rw shared:1 - ext4 /dev/root rw
58 21 7:0 / /snap/core/1 ro shared:47 - squashfs /dev/loop0 ro
59 26 0:60 / /var/lib/docker/overlay2/x rw shared:48 - overlay overlay rw
60 21 8:65 / /var/lib/docker rw shared:49 - ext4 /dev/sde1 rw
"""


def test_drives_and_shares_are_those_for_second_copies():
    """Not the system's, a read-only one, one that is covered, nor the one that the stack is on."""
    drive, ssd = "/media/pi/My Drive", "/mnt/ssd"
    share = ("/mnt/nas", "cifs", "//nas/backup")
    assert drives_in(PI, "/srv/IOTstack") == (
        (drive, "ext4", "/dev/sda1"),
        (ssd, "ext4", "/dev/sdb1"),
        share,
    )
    assert drives_in(PI, f"{ssd}/IOTstack") == ((drive, "ext4", "/dev/sda1"), share)
    assert drives_in("", "/x") == drives_in("nonsense\n", "/x") == ()


def test_a_drive_is_told_with_its_free_space(tmp_path, monkeypatch):
    """If it is a folder that can be written."""
    monkeypatch.setattr(candidates, "OF_SYSTEM", re.compile("/boot"))  # not what is in /tmp
    line = "50 21 8:1 / {} rw shared:40 - ext4 /dev/sda1 rw\n"
    found = find_drives("/srv/IOTstack", line.format(tmp_path) + line.format("/nowhere"))
    assert [each.value for each in found] == [str(tmp_path)]
    assert found[0].told.endswith(" free")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home, and a PATH that begins with its folder `bin`."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return tmp_path


def tool(home, name, script):
    (home / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (home / "bin" / name).chmod(0o755)


def stack(folder):
    folder.mkdir(parents=True)
    (folder / "docker-compose.yml").write_text("services: {}\n")
    return str(folder)


def test_stacks_are_those_of_containers_and_of_usual_places(home):
    """IOTstack first, then that with most containers; a folder without a compose file is none."""
    deep, small = stack(home / "a/b/stack"), stack(home / "small")
    usual = stack(home / "IOTstack")
    (home / "empty").mkdir()
    labels = [deep, deep, small, f"{home}/empty", "", "<no value>"]
    tool(home, "docker", "\n".join(f"echo '{each}'" for each in labels))
    found = [(each.value, each.told) for each in find_stacks() if each.value.startswith(str(home))]
    assert found == [(usual, ""), (deep, "2 containers"), (small, "1 container")]


def test_a_docker_that_fails_hides_no_stack(home):
    """As for a user who may not use it."""
    usual = stack(home / "IOTstack")
    tool(home, "docker", "echo permission denied >&2; exit 1")
    assert find_stacks()[0].value == usual


def test_remotes_are_those_of_rclone(home, monkeypatch):
    """Of the real program; none if its settings cannot be read."""
    require_rclone()
    settings = home / "rclone.conf"
    monkeypatch.setenv("RCLONE_CONFIG", str(settings))
    settings.write_text("[box]\ntype = local\n\n[drop]\ntype = alias\nremote = /tmp\n")
    assert [each.value for each in find_remotes()] == ["box:", "drop:"]
    settings.write_text("RCLONE_ENCRYPT_V0:\nAAAA\n")
    assert find_remotes() == ()
    monkeypatch.setenv("PATH", str(home / "bin"))
    assert find_remotes() == ()


def test_aliases_are_the_names_after_host(tmp_path):
    """Also those of included files; patterns name no machine."""
    (tmp_path / "config.d").mkdir()
    (tmp_path / "config.d/a").write_text("Host one\n  Include config\n")
    (tmp_path / "config.d/b").write_text("host=two\n")
    (tmp_path / "config").write_text(
        'Include config.d/*\nInclude nothing\nHost nas "nas two" *.local !no n?s # old\n'
        "  HostName 10.0.0.5\nMatch host x\nHost *\nHost nas\nHostName host\nHost 'open\n"
    )
    assert ssh_aliases(str(tmp_path)) == ("one", "nas", "nas two", "two")
    assert ssh_aliases(str(tmp_path / "nowhere")) == ()
