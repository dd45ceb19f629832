"""Machines of one host name in one vault: it is told where it is certain, and only there."""

import functools
import json
import os
import socket
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from contexts import LittleStack, put_set
from remote_stacks import Laptop, Pi

from iotstack_invoke.commands.backup.namesakes import MOST_READ
from iotstack_invoke.environment.stack_host import machine_mark
from iotstack_invoke.hosts.local import LocalHost

HOST = socket.gethostname()
NOW = datetime.now(UTC).replace(microsecond=0)
OURS = machine_mark(LocalHost("/"))
WITH_AN_ID = 'mount --bind "$0" /etc/machine-id && exec "$@"'


def as_machine(file, machine_id):
    """Return the words before a program that sees another machine id; or skip."""
    file.write_text(f"{machine_id}\n")
    words = ("unshare", "--mount", "--propagation", "private", "sh", "-c", WITH_AN_ID, file)
    if not OURS or subprocess.run([*words, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace, or no machine id: needs root")
    return words


class Another(LittleStack):
    """A stack on a machine of our name that is another."""

    def __init__(self, base):
        base.mkdir()
        self.before = as_machine(base / "machine-id", "a" * 32)
        super().__init__(base)


@pytest.fixture(params=["flat", "by-host"])
def layout(request):
    return request.param


@pytest.fixture
def usb(tmp_path):
    (tmp_path / "usb").mkdir()
    return tmp_path / "usb"


@pytest.fixture
def row(usb, layout):
    return f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{usb}"\nlayout = "{layout}"\n'


@pytest.fixture
def theirs(usb, layout):
    """The folder of a vault in which this machine's copies lie."""
    folder = usb / HOST if layout == "by-host" else usb
    folder.mkdir(exist_ok=True)
    return folder


def with_vault(stack, row):
    with stack.settings.open("a") as stream:
        stream.write(row)
    return stack


def told_by_doctor(stack, line="doctor"):
    found = json.loads(stack.run(f"{line} --json").stdout)
    return [each for each in found if each["verdict"] == "failed" and "names" in each["name"]]


def test_two_machines_in_turn_are_told(little_stack, tmp_path, theirs, row):
    """From the second night on each says so, with what ends it, and doctor fails."""
    one, other = with_vault(little_stack, row), with_vault(Another(tmp_path / "other"), row)
    put_set(theirs, NOW - timedelta(days=2), runtag="first", machine=OURS)
    told = other.run("backup --runtag theirs")
    assert (told.returncode, told.stderr) == (0, ""), "it may be the Pi of `first`, set up anew"
    (found,) = told_by_doctor(one)
    assert "theirs is from the other one" in found["found"]
    told = one.run("backup --runtag second")
    assert told.returncode == 3
    assert f"Two machines named {HOST} back up to usb" in told.stderr
    assert "hostnamectl set-hostname NAME" in told.stderr
    assert json.loads((theirs / "theirs.manifest.json").read_text())["machine"] != OURS


@pytest.mark.parametrize("machine", ["", OURS, "of-before"])
def test_a_pi_that_was_set_up_anew_is_no_other(little_stack, theirs, row, machine):
    """Nor is one whose sets are of an earlier version, or that has all of them made itself."""
    with_vault(little_stack, row)
    for days in (1, 2, 3):
        put_set(theirs, NOW - timedelta(days=days), runtag=f"d{days}", machine=machine)
    for runtag in ("one", "two"):
        told = little_stack.run(f"backup --runtag {runtag}")
        assert (told.returncode, told.stderr) == (0, "")
    assert told_by_doctor(little_stack) == []


def test_what_was_once_in_turn_and_is_over_is_not_told(little_stack, theirs, row):
    """A machine that got another name makes its backups elsewhere; its old ones may stay."""
    with_vault(little_stack, row)
    put_set(theirs, NOW - timedelta(days=3), runtag="first", machine=OURS)
    put_set(theirs, NOW - timedelta(days=2), runtag="theirs", machine="another")
    put_set(theirs, NOW - timedelta(days=1), runtag="second", machine=OURS)
    told = little_stack.run("backup --runtag third")
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.parametrize("layout", ["flat"])
def test_they_are_found_where_no_file_tells_its_date(little_stack, theirs, row):
    """A cloud may know no dates (WebDAV), and so many are read at the most."""
    with_vault(little_stack, row)
    for days in range(MOST_READ + 6, 0, -1):
        machine = "another" if days in (2, 4) else OURS
        put_set(theirs, NOW - timedelta(days=days), machine=machine)
    for each in theirs.iterdir():
        os.utime(each, (0, 0))
    assert len(told_by_doctor(little_stack)) == 1


@pytest.mark.parametrize("layout", ["flat"])
def test_a_host_that_has_the_name_of_this_machine(tmp_path, start_sshd, layout):
    """Its first backup tells, since this machine is at work; so does doctor of it."""
    other = as_machine(tmp_path / "machine-id", "b" * 32)
    pi = Pi(tmp_path / "pi", functools.partial(start_sshd, before=other), "pi")
    laptop = Laptop(tmp_path / "laptop", pi)
    put_set(laptop.vaults[0], NOW - timedelta(days=2), runtag="ours", machine=OURS)
    told = laptop.run("backup --host pi --runtag theirs")
    assert told.returncode == 3
    assert "ours is from the other one" in told.stderr
    names = [each["name"] for each in json.loads(laptop.run("doctor --host pi --json").stdout)]
    assert "name" not in names, "this machine has no backups of its own"
    (laptop.folder / "backups").mkdir(parents=True)
    told = laptop.run("doctor --host pi")
    assert told.returncode == 1
    assert f"is {HOST}, the name of this machine too" in " ".join(told.stdout.split())


def test_a_mark_shows_no_machine_id():
    """The id itself is not to be seen by whoever reads a manifest."""
    with open("/etc/machine-id") as stream:
        assert stream.read().strip() not in OURS
