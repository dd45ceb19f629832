"""Folders in which no second copy can be: the stack's own, and that of another vault."""

import contextlib
import ctypes
import json
import os
import shlex
import shutil
import subprocess
from datetime import timedelta

import pytest
from cloud import require_rclone
from contexts import NOON, put_set
from remote_stacks import Laptop, Pi

from iotstack_invoke.backups.names import LOCK
from iotstack_invoke.core.errors import WrongFolder
from iotstack_invoke.hosts.local import locked
from iotstack_invoke.settings.model import Inclusion, StackConfig, VaultConfig
from iotstack_invoke.vaults import apart
from iotstack_invoke.vaults.access import vault_storage

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


def cloud(pi, tmp_path, request, folder=None):
    """An alias of rclone's that leads back, or to a folder."""
    require_rclone()
    folder, settings = folder or pi.backups, tmp_path / "rclone.conf"
    settings.write_text(f"[back]\ntype = alias\nremote = {folder.parent}\n")
    pi.environment["RCLONE_CONFIG"] = str(settings)
    return f'kind = "rclone"\nremote = "back:{folder.name}"'


def disk_of_rclone(pi, tmp_path, request):
    """A folder of this machine as rclone sees it."""
    cloud(pi, tmp_path, request)
    (tmp_path / "rclone.conf").write_text("[disk]\ntype = local\n")
    return f'kind = "rclone"\nremote = "disk:{pi.backups}"'


HOLDING = (
    ("prune --at usb --keep 1 --yes", 1),
    ("prune --at all --keep 9 --yes", 1),
    ("sync", 3),
)
"""What each task ends with that holds the lock of the backups."""
READING = (
    ("list", 1),
    ("status", 2),
    ("verify --newest --at usb", 1),
    ("doctor", 1),
)
"""And those that hold none."""


def expect_none_counted(pi, tasks, words=OWN):
    """Each task says that the vault holds no copy, and leaves in backups/ what was there."""
    before = sorted(os.listdir(pi.backups))
    for line, code in tasks:
        told = pi.run(line)
        said = told.stdout + told.stderr
        assert (line, told.returncode, words in said) == (line, code, True), said
    assert sorted(os.listdir(pi.backups)) == before


@pytest.mark.parametrize("leads", [plain, link, linked_stack, bind_mount, over_ssh, cloud])
def test_the_stacks_own_backups_are_no_second_copy(pi, tmp_path, request, leads):
    """No task counts them as one, nor removes anything through it; the local set is made."""
    add_vault(pi, "usb", f"{leads(pi, tmp_path, request)}\nkeep = 1")
    told = pi.run("backup --runtag night")
    assert (told.returncode, OWN in told.stderr) == (3, True)
    assert (pi.backups / "night.manifest.json").exists()
    assert NO_COPY in told.stderr
    expect_none_counted(pi, {plain: HOLDING + READING, cloud: HOLDING}.get(leads, HOLDING[:1]))


@pytest.mark.parametrize(
    ("leads", "state"), [(over_ssh, "free"), (cloud, "free"), (disk_of_rclone, "at work")]
)
def test_who_only_looks_knows_the_stacks_own_backups(pi, tmp_path, request, leads, state):
    """Also while another one holds the lock."""
    (pi.backups / LOCK).touch()
    add_vault(pi, "usb", leads(pi, tmp_path, request))
    with contextlib.ExitStack() as held:
        if state == "at work":
            held.enter_context(locked(f"{pi.backups}/{LOCK}", "backup night"))
        assert pi.run("list").returncode == 1
        expect_none_counted(pi, READING)
        rows = json.loads(pi.run("list --json").stdout)
    assert [each["vaults"] for each in rows] == [{}, {}, {}]


@pytest.mark.parametrize("leads", [over_ssh, cloud])
def test_who_may_not_write_counts_nothing_that_may_be_the_same(pi, tmp_path, request, leads):
    """On a card that fails the word cannot be changed: equal dates and sizes are not counted."""
    assert pi.run("prune --yes").returncode == 0
    add_vault(pi, "usb", leads(pi, tmp_path, request))
    request.getfixturevalue("read_only")(pi.backups)
    expect_none_counted(
        pi, READING, "may be the folder of the stack's own backups, so it does not count"
    )


@pytest.mark.parametrize("line", ["backup --host pi", "pull --host pi"])
def test_the_backups_of_another_machine_are_no_second_copy_of_them(tmp_path, start_sshd, line):
    """As where a laptop's vault is a share of them: its inodes say nothing of their stack."""
    pi = Pi(tmp_path / "pi", start_sshd, "pi")
    pi.backups.mkdir(mode=0o700)
    put_set(pi.backups, NOON)
    (pi.backups / LOCK).touch()
    laptop = Laptop(tmp_path / "laptop", pi)
    laptop.vaults[0].rmdir()
    laptop.vaults[0].symlink_to(pi.backups)
    told = laptop.run(line)
    assert (told.returncode != 0, OWN in told.stderr) == (True, True)


def test_doctor_tells_what_mends_it(pi):
    """As a failure of that vault."""
    add_vault(pi, "usb", a_folder(pi.backups))
    (found,) = (e for e in json.loads(pi.run("doctor --json").stdout) if e["name"] == "vault usb")
    assert (found["verdict"], found["fix"]) == ("failed", "set a folder elsewhere in hosts.toml")


def test_a_vault_beside_it_is_served(pi, tmp_path):
    """One wrong vault keeps no other from its copy."""
    (tmp_path / "nas").mkdir()
    add_vault(pi, "usb", a_folder(pi.backups))
    add_vault(pi, "nas", a_folder(tmp_path / "nas"))
    assert pi.run("backup --runtag night").returncode == 3
    assert (tmp_path / "nas/night.manifest.json").exists()


@pytest.mark.parametrize("where", ["folder", "share", "ssh", "cloud"])
def test_a_copy_of_the_folder_with_its_lock_is_a_vault(pi, tmp_path, request, where):
    """One that somebody filled by hand has all that lies in it, with its dates."""
    usb = tmp_path / "usb"
    if where == "share":  # of no disk, as far as its device tells
        request.getfixturevalue("mount_disk")(usb)
    usb.mkdir(exist_ok=True)
    lines = a_folder(usb)
    if where == "ssh":
        lines = over_ssh(pi, tmp_path, request).replace(str(pi.backups), str(usb))
    if where == "cloud":
        lines = cloud(pi, tmp_path, request, usb)
    add_vault(pi, "usb", lines)
    assert pi.run("backup --runtag first").returncode == 0
    for task in ("list", "status", "verify --newest --at usb", "sync"):
        shutil.copytree(pi.backups, usb, dirs_exist_ok=True)
        told = pi.run(task)
        assert (task, told.returncode, told.stderr) == (task, 0, "")


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("volumes/usb", "each backup would pack the copies in it, and a restore"),
        ("services/usb", "each backup would pack the copies in it, and a restore"),
        ("restore/usb", "where restores keep replaced data and remove old data"),
        ("backups/usb", "the folder of the stack's own backups, and is lost with it"),
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


def test_what_lies_in_a_vault_that_is_refused_can_be_restored(pi):
    """Its copies may be all that there are: the message says how, and that works."""
    folder = pi.folder / "volumes/usb"
    folder.mkdir()
    assert pi.run("backup --runtag night").returncode == 0
    for each in pi.backups.glob("night.*"):
        each.rename(folder / each.name)
    add_vault(pi, "usb", a_folder(folder))
    told = pi.run("restore --runtag night --from usb --dry-run")
    words = f"restore --from {shlex.quote(str(folder))}"
    assert (told.returncode, f"by their path: `inv {words}`." in told.stderr) == (1, True)
    told = pi.run(f"{words} --runtag night --dry-run")
    assert told.returncode == 0, told.stderr


def test_a_drive_that_is_mounted_among_the_backups_may_be_a_vault(pi, mount_disk):
    """No part packs it, and it stays when they go; while it is not mounted it is refused."""
    folder = mount_disk(pi.backups / "usb") / "copies"
    folder.mkdir()
    add_vault(pi, "usb", f'{a_folder(folder)}\nlayout = "by-host"')
    assert pi.run("backup --runtag night").returncode == 0
    assert pi.run("restore --runtag night --from usb --dry-run").returncode == 0
    subprocess.run(["umount", "--lazy", folder.parent], check=True)
    folder.mkdir()
    assert f"lies in {pi.backups}" in pi.run("sync").stderr


def test_what_a_link_in_the_stack_leads_to_is_packed(pi, tmp_path):
    """A vault there would be in each backup; left out by either name it is none of the stack's."""
    (tmp_path / "ssd/copies").mkdir(parents=True)
    (pi.folder / "volumes/ssd").symlink_to(tmp_path / "ssd")
    settings = pi.settings.read_text()
    add_vault(pi, "usb", a_folder(tmp_path / "ssd/copies"))
    told = pi.run("backup --runtag night")
    assert (told.returncode, f"lies in {pi.folder}/volumes/ssd" in told.stderr) == (3, True)
    for path in (f"{tmp_path}/ssd/copies", "volumes/ssd/copies", "volumes/ssd"):
        exclude = f'[[stack.exclude]]\npath = "{path}"\nreason = "a vault"\n'
        pi.settings.write_text(settings + exclude)
        add_vault(pi, "usb", a_folder(tmp_path / "ssd/copies"))
        assert pi.run("sync").returncode == 0, path


def test_a_link_of_which_nothing_is_packed_leaves_a_vault_alone(pi, tmp_path):
    """As one to a folder that the stack lies in, or back into the stack."""
    (tmp_path / "usb").mkdir()
    (pi.folder / "usb").mkdir()
    (pi.folder / "volumes/all").symlink_to(tmp_path)
    (pi.folder / "volumes/back").symlink_to("../usb")
    add_vault(pi, "usb", a_folder(tmp_path / "usb"))
    add_vault(pi, "back", a_folder(pi.folder / "usb"))
    told = pi.run("sync")
    assert (told.returncode, told.stderr) == (0, "")


def test_the_folder_of_the_stack_is_no_vault(pi):
    """Copies would lie beside its compose file."""
    add_vault(pi, "usb", a_folder(pi.folder))
    told = pi.run("backup --runtag night")
    assert (
        told.returncode,
        "is the folder of the stack: copies there are lost" in told.stderr,
    ) == (3, True)
    assert not (pi.folder / "night.manifest.json").exists()


@pytest.mark.parametrize("inside", ["backups", "backups/pi"])
def test_a_machine_without_a_stack_keeps_copies_where_it_would_be(pi, inside):
    """A laptop, whose vault holds what it fetched from others."""
    shutil.rmtree(pi.folder)
    (pi.folder / inside).mkdir(parents=True)
    put_set(pi.folder / inside, NOON - timedelta(days=1), runtag="theirs", host="pi")
    add_vault(pi, "usb", a_folder(pi.folder / inside))
    told = pi.run("show theirs --at usb")
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.parametrize(("inside", "fits"), [("backups/pi", True), ("volumes/pi", False)])
def test_copies_of_another_machine_may_lie_beside_this_ones(pi, inside, fits):
    """It is a second copy of those, unless this one's backups pack it."""
    (pi.folder / inside).mkdir(parents=True)
    vault = VaultConfig("usb", str(pi.folder / inside), stack=StackConfig(str(pi.folder)))
    storage = vault_storage(vault, of_others=True)
    if fits:
        assert storage.listdir(storage.root) == {}
    else:
        with pytest.raises(WrongFolder, match="each backup would pack"):
            storage.listdir(storage.root)
    with pytest.raises(WrongFolder):
        vault_storage(vault).stat([])


@pytest.fixture
def hung(tmp_path):
    """A share whose server never answers."""
    folder = tmp_path / "hung"
    folder.mkdir()
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        pytest.skip("no file system can be served here")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    if ctypes.CDLL(None).mount(b"hung", os.fsencode(folder), b"fuse", 0, options):
        os.close(server)
        pytest.skip("only root can mount a share")
    yield folder
    os.close(server)  # whoever waits is told that it is gone
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_share_that_hangs_costs_no_other_vault(tmp_path, monkeypatch, hung):
    """What does not answer is another folder: a vault before this one, or what is packed."""
    monkeypatch.setattr(apart, "OTHER_LIMIT_S", 0.2)
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes/link").symlink_to(hung / "link")
    (tmp_path / "usb").mkdir()
    stack = StackConfig(str(tmp_path), inclusions=(Inclusion(f"{hung}/more"),))
    before = (VaultConfig("share", f"{hung}/copies"),)
    storage = vault_storage(VaultConfig("usb", str(tmp_path / "usb"), stack=stack, before=before))
    assert storage.listdir(storage.root) == {}


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
    assert "is also the folder of vault 'one', so it holds no second copy" in told.stderr
    told = pi.run("list")
    assert (told.returncode, "Cannot list two: Vault 'two'" in told.stderr) == (1, True)
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
    assert "is also the folder of vault 'one'" in told.stderr
