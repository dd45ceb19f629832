"""What a vault is said to hold is seen there: a disk may do nothing, and another one may come."""

import pytest
from liars import lies
from sshd import Sshd, require_sshd
from test_encrypted import pi as encrypted  # noqa: F401 - a fixture
from two_vaults import contents, pi  # noqa: F401 - a fixture

NOTHING = "return"
CUT = "real(old, new); os.truncate(new, 50)"
SWAP = """real(old, new)
        if not os.path.exists(DISK + ".off"):
            real(DISK, DISK + ".off")
            os.mkdir(DISK)"""


def is_honest_again(stack, disk, tag):
    """Let the next sync deliver, and see that nothing is owed then."""
    del stack.environment["PYTHONPATH"]
    told = stack.run("sync")
    assert (told.returncode, told.stderr) == (0, "")
    assert contents(disk, tag) == contents(stack.backups, tag)
    assert not list(stack.backups.glob("*.unfinished.jsonl"))
    assert not list(disk.glob("*.unfinished.jsonl"))


@pytest.mark.parametrize(
    ("word", "does"),
    [
        pytest.param("", NOTHING, id="no rename"),
        pytest.param("general", NOTHING, id="no rename of the part"),
        pytest.param("manifest", NOTHING, id="no rename of the manifest"),
        pytest.param("general", CUT, id="a part that is cut"),
        pytest.param("general", SWAP, id="another disk after a part"),
        pytest.param("manifest", SWAP, id="another disk after the manifest"),
        pytest.param("log", SWAP, id="another disk after the log"),
    ],
)
def test_a_backup_is_in_a_vault_when_it_is_listed_there(pi, word, does):
    """The run ended with 0, and the vault had nothing of it but partial files."""
    pi.nas.mkdir()
    lies(pi, pi.usb, word, does)
    told = pi.run("backup --runtag one")
    assert told.returncode == 3, told.stderr
    assert "one was not copied to usb: after the copy, one." in told.stderr
    assert "nas" not in told.stderr
    assert list(pi.backups.glob("one.unfinished.jsonl"))
    is_honest_again(pi, pi.usb, "one")


@pytest.mark.parametrize("does", [NOTHING, CUT], ids=["no rename", "cut"])
def test_sync_tells_of_no_delivery_that_is_not_seen(pi, does):
    """It said "delivered 1", and took away what told that the set is owed."""
    pi.nas.mkdir()
    pi.usb.rename(pi.usb.with_name("away"))
    assert pi.run("backup --runtag one").returncode == 3
    pi.usb.with_name("away").rename(pi.usb)
    lies(pi, pi.usb, "general", does)
    told = pi.run("sync")
    assert told.returncode == 3
    assert told.stdout.splitlines()[1].split() == ["usb", "0", "0", "0", "1"]
    assert "one was not copied to usb: after the copy, one.general" in told.stderr
    assert "usb is missing 1 backup: one." in told.stderr
    late = pi.run("backup --runtag two")
    assert late.returncode == 3
    assert "two was not copied to usb" in late.stderr
    pi.usb.rename(pi.usb.with_name("away"))
    told = pi.run("sync")
    assert "Cannot tell what usb has. Not copied yet: two, one." in told.stderr
    pi.usb.with_name("away").rename(pi.usb)
    is_honest_again(pi, pi.usb, "one")


def test_a_pin_is_there_when_it_is_seen(pi):
    """A retention would remove what somebody believes to be pinned."""
    assert pi.run("backup --runtag one").returncode == 3  # nas is away
    lies(pi, pi.usb, "pin", NOTHING)
    told = pi.run("pin one")
    assert told.returncode != 0
    assert "one.pin.txt was written to usb, but is missing there." in told.stderr


def test_an_encrypted_copy_that_is_cut_after_its_rename_is_owed(encrypted):
    """Its name and its size are others there, and are judged as a listing tells them."""
    encrypted.backups = encrypted.folder / "backups"
    lies(encrypted, encrypted.usb, "general", CUT)
    told = encrypted.run("backup --runtag one")
    assert told.returncode == 3, told.stderr
    assert "one was not copied to usb: after the copy, one.general" in told.stderr
    del encrypted.environment["PYTHONPATH"]
    told = encrypted.run("sync")
    assert (told.returncode, told.stderr) == (0, "")
    assert encrypted.run("verify --runtag one --at usb").returncode == 0


@pytest.mark.parametrize("does", ["exit 0", '/bin/mv "$@" && truncate -s 50 {nas}/*.tar.gz'])
def test_a_server_whose_mv_lies_is_owed_the_backup(little_stack, tmp_path, does):
    """Its shell says that all went well."""
    require_sshd()
    stack, nas, tools = little_stack, tmp_path / "nas", tmp_path / "server"
    for each in (nas, tools):
        each.mkdir()
    mv = tools / "mv"
    mv.write_text(f"#!/bin/sh\n{does.format(nas=nas)}\n")
    mv.chmod(0o755)
    server = Sshd(tmp_path / "sshd", path=f"{tools}:/usr/bin:/bin")
    try:
        login = server.login()
        with stack.settings.open("a") as stream:
            stream.write(
                f'[[vaults]]\nname = "nas"\nkind = "ssh"\nhost = "{login.host}"\nuser = "{login.user}"\n'
                f'port = {login.port}\nkey = "{login.key}"\nssh_config = "{login.config}"\n'
                f'known_hosts = "{login.known_hosts}"\nfolder = "{nas}"\n'
            )
        told = stack.run("backup --runtag one")
        assert told.returncode == 3, told.stderr
        assert "one was not copied to nas: after the copy, one.general" in told.stderr
        mv.unlink()
        told = stack.run("sync")
        assert (told.returncode, told.stderr) == (0, "")
        assert contents(nas, "one") == contents(stack.folder / "backups", "one")
    finally:
        server.stop()
