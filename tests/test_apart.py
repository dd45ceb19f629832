"""Folders in which no second copy can be: the stack's own, and that of another vault."""

import json
import os
import shutil
import subprocess
from datetime import datetime, timedelta

import pytest
from cloud import require_rclone
from scenes import put_set

NOON = datetime.now().astimezone().replace(hour=12, minute=0, second=0, microsecond=0)
OWN = "is the folder of the stack's own backups"
NO_COPY = "so it holds no second copy"


@pytest.fixture
def pi(little_stack):
    """A stack with three backups that keeps five."""
    little_stack.backups = little_stack.folder / "backups"
    little_stack.backups.mkdir(mode=0o700)
    for days in (1, 2, 3):
        put_set(little_stack.backups, NOON - timedelta(days=days))
    return little_stack


def add_vault(pi, name, lines):
    with pi.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "{name}"\n{lines}\n')


def a_folder(folder):
    return f'kind = "folder"\nfolder = "{folder}"'


def plain(pi, tmp_path, request):
    return a_folder(pi.backups)


def link(pi, tmp_path, request):
    (tmp_path / "usb").symlink_to(pi.backups)
    return a_folder(tmp_path / "usb")


def linked_stack(pi, tmp_path, request):
    """The folder is the true one, and [stack] names a link."""
    (tmp_path / "link").symlink_to(pi.folder)
    text = pi.settings.read_text().replace(str(pi.folder), str(tmp_path / "link"))
    pi.settings.write_text(text)
    return a_folder(pi.backups)


def bind_mount(pi, tmp_path, request):
    folder = tmp_path / "usb"
    folder.mkdir()
    if subprocess.run(["mount", "--bind", pi.backups, folder], check=False).returncode:
        pytest.skip("only root can mount a folder")
    request.addfinalizer(lambda: subprocess.run(["umount", "--lazy", folder], check=True))
    return a_folder(folder)


def over_ssh(pi, tmp_path, request):
    login = request.getfixturevalue("sshd").login()
    return (
        f'kind = "ssh"\nhost = "{login.host}"\nfolder = "{pi.backups}"\nuser = "{login.user}"\n'
        f'port = {login.port}\nkey = "{login.key}"\nssh_config = "{login.config}"\n'
        f'known_hosts = "{login.known_hosts}"'
    )


def cloud(pi, tmp_path, request):
    """An alias of rclone's that leads back."""
    require_rclone()
    settings = tmp_path / "rclone.conf"
    settings.write_text(f"[back]\ntype = alias\nremote = {pi.folder}\n")
    pi.environment["RCLONE_CONFIG"] = str(settings)
    return 'kind = "rclone"\nremote = "back:backups"'


SETTLED = (
    ("prune --at usb --keep 1 --yes", 1),
    ("prune --at all --keep 9 --yes", 1),
    ("sync", 3),
    ("list", 1),
    ("status", 2),
    ("verify --newest --at usb", 1),
    ("doctor", 1),
)
"""What each task ends with."""


@pytest.mark.parametrize("leads", [plain, link, linked_stack, bind_mount, over_ssh, cloud])
def test_the_stacks_own_backups_are_no_second_copy(pi, tmp_path, request, leads):
    """No task counts them as one, nor removes anything through it; the local set is made."""
    add_vault(pi, "usb", f"{leads(pi, tmp_path, request)}\nkeep = 1")
    told = pi.run("backup --runtag night")
    assert (told.returncode, OWN in told.stderr) == (3, True)
    assert (pi.backups / "night.manifest.json").exists()
    before = sorted(os.listdir(pi.backups))
    for line, code in SETTLED if leads in (plain, cloud) else SETTLED[:1]:
        told = pi.run(line)
        said = told.stdout + told.stderr
        assert (line, told.returncode, OWN in said, NO_COPY in said) == (line, code, True, True)
    assert sorted(os.listdir(pi.backups)) == before


def test_doctor_tells_what_mends_it(pi):
    """As a failure of that vault."""
    add_vault(pi, "usb", a_folder(pi.backups))
    (found,) = (e for e in json.loads(pi.run("doctor --json").stdout) if e["name"] == "vault usb")
    assert (found["verdict"], found["fix"]) == ("failed", "name a folder elsewhere in hosts.toml")


def test_a_vault_beside_it_is_served(pi, tmp_path):
    """One wrong vault keeps no other from its copy."""
    (tmp_path / "nas").mkdir()
    add_vault(pi, "usb", a_folder(pi.backups))
    add_vault(pi, "nas", a_folder(tmp_path / "nas"))
    assert pi.run("backup --runtag night").returncode == 3
    assert (tmp_path / "nas/night.manifest.json").exists()


def test_a_copy_of_the_folder_with_its_lock_is_a_vault(pi, tmp_path):
    """A vault that somebody filled by hand has an old lock in it: the next run tells them apart."""
    assert pi.run("backup --runtag first").returncode == 0
    shutil.copytree(pi.backups, tmp_path / "usb")
    add_vault(pi, "usb", a_folder(tmp_path / "usb"))
    told = pi.run("sync")
    assert (told.returncode, told.stderr) == (0, "")
    assert pi.run("list").returncode == 0


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("volumes/usb", "each backup would pack the copies in it, and a restore"),
        ("services/usb", "each backup would pack the copies in it, and a restore"),
        ("restore/usb", "where restores keep what they replaced"),
        ("backups/usb", "and goes when that goes"),
        ("more/usb", "each backup would pack the copies in it, and a restore"),
    ],
)
def test_a_folder_in_the_stack_is_no_vault(pi, inside, words):
    """It is refused by name, also through a link; the local set is made and nothing lies in it."""
    (pi.folder / inside).mkdir(parents=True)
    (pi.folder / "more").mkdir(exist_ok=True)
    pi.settings.write_text(f'{pi.settings.read_text()}[[stack.include]]\npath = "more"\n')
    add_vault(pi, "usb", a_folder(pi.folder / inside))
    told = pi.run("backup --runtag night")
    assert (told.returncode, f"{pi.folder / inside} lies in" in told.stderr) == (3, True)
    assert words in told.stderr
    assert (pi.backups / "night.manifest.json").exists()
    assert os.listdir(pi.folder / inside) == []
    told = pi.run("doctor")
    assert (told.returncode, words in told.stdout) == (1, True)


def test_a_folder_of_the_stack_that_is_left_out_may_be_a_vault(pi):
    """As a drive that is mounted in volumes/: no backup packs it, and no restore moves it."""
    (pi.folder / "volumes/usb/backups").mkdir(parents=True)
    exclude = '[[stack.exclude]]\npath = "volumes/usb"\nreason = "a drive"\n'
    pi.settings.write_text(pi.settings.read_text() + exclude)
    add_vault(pi, "usb", a_folder(pi.folder / "volumes/usb/backups"))
    assert pi.run("sync").returncode == 0


def two_links(pi, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    return a_folder(tmp_path / "real"), a_folder(tmp_path / "link")


def flat_and_by_host(pi, tmp_path):
    own = tmp_path / "real" / os.uname().nodename
    own.mkdir(parents=True)
    return f'{a_folder(tmp_path / "real")}\nlayout = "by-host"', a_folder(own)


def two_remotes(pi, tmp_path):
    require_rclone()
    (tmp_path / "far").mkdir()
    (tmp_path / "rclone.conf").write_text(f"[disk]\ntype = alias\nremote = {tmp_path}\n")
    pi.environment["RCLONE_CONFIG"] = str(tmp_path / "rclone.conf")
    return ('kind = "rclone"\nremote = "disk:far"', 'kind = "rclone"\nremote = "disk:far/"')


@pytest.mark.parametrize("twins", [two_links, flat_and_by_host, two_remotes])
def test_two_vaults_of_one_folder_are_one(pi, tmp_path, twins):
    """The second is not used, and names the first; that one is served."""
    for name, lines in zip(("one", "two"), twins(pi, tmp_path), strict=True):
        add_vault(pi, name, lines)
    told = pi.run("backup --runtag night")
    assert told.returncode == 3
    assert "is the folder of vault 'one' too, so it holds no second copy" in told.stderr
    told = pi.run("list")
    assert (told.returncode, "two is not listed: Vault 'two'" in told.stderr) == (1, True)
    assert "night" in told.stdout
    rows = json.loads(pi.run("list --json").stdout)
    assert [each["vaults"] for each in rows if each["runtag"] == "night"] == [{"one": "complete"}]


def test_two_vaults_over_ssh_of_one_folder_are_one(pi, tmp_path, request):
    """By what hosts.toml says of both."""
    (tmp_path / "far").mkdir()
    lines = over_ssh(pi, tmp_path, request).replace(str(pi.backups), str(tmp_path / "far"))
    add_vault(pi, "one", lines)
    add_vault(pi, "two", lines)
    told = pi.run("sync")
    assert told.returncode == 3
    assert "is the folder of vault 'one' too" in told.stderr
