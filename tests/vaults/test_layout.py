"""`layout = "by-host"`: each machine's copies in a folder of its name, others' by their address."""

import json
import socket
from datetime import UTC, datetime, timedelta

import pytest
from contexts import put_set

from iotstack_invoke.commands.restore.request import RestoreRequest, choose_set, source_of
from iotstack_invoke.core.errors import NotFound, Unreachable, UsageError
from iotstack_invoke.settings.model import Settings, StackConfig, VaultConfig
from iotstack_invoke.vaults.access import at_address, other_hosts, vault_storage

HOST = socket.gethostname()
NOW = datetime.now(UTC).replace(microsecond=0)
TAG = "2026-11-23_1100"


@pytest.fixture
def pi(little_stack, tmp_path):
    """A stack with a vault by host, which holds a set of another machine and one that lies flat."""
    little_stack.usb = tmp_path / "usb"
    (little_stack.usb / "other-pi").mkdir(parents=True)
    put_set(little_stack.usb / "other-pi", NOW - timedelta(days=1), runtag=TAG, host="other-pi")
    put_set(little_stack.usb, NOW - timedelta(days=2), runtag="flat one")
    with little_stack.settings.open("a") as stream:
        stream.write(
            f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{little_stack.usb}"\n'
            'layout = "by-host"\nkeep = 1\n'
        )
    return little_stack


def files(folder):
    return sorted(each.name for each in folder.iterdir() if each.is_file())


def test_copies_lie_in_a_folder_of_the_machines_name(pi):
    """The folder is made by the first copy, private; another machine's set of that name stays."""
    before = files(pi.usb / "other-pi")
    told = pi.run(f"backup --runtag {TAG}")
    assert (told.returncode, told.stderr) == (0, "")
    assert f"{TAG}.manifest.json" in files(pi.usb / HOST)
    assert (pi.usb / HOST).stat().st_mode & 0o777 == 0o700
    assert files(pi.usb / "other-pi") == before
    rows = json.loads(pi.run("list --json").stdout)
    assert {(row["runtag"], row["host"], *row["vaults"].items()) for row in rows} == {
        (TAG, HOST, ("usb", "complete")),
        (TAG, "other-pi", ("usb/other-pi", "complete")),
        ("flat one", ".", ("usb/.", "complete")),
    }
    table = pi.run("list").stdout.splitlines()
    assert table[0].split()[:7] == ["runtag", "age", "host", "size", "parts", "here", "usb"]
    assert len(table) == 4


def test_the_folder_of_the_vault_itself_is_never_made(pi, tmp_path):
    """A drive that is not mounted is told as such, and nothing is written beneath it."""
    pi.usb.rename(tmp_path / "elsewhere")
    assert pi.run(f"backup --runtag {TAG}").returncode == 3
    assert not pi.usb.exists()


def test_other_machines_sets_are_named_by_their_address(pi):
    """Each command that takes a vault's name takes `usb/other-pi` and `usb/.` as well."""
    for at, tag in (("usb/other-pi", TAG), ("usb/.", "'flat one'")):
        told = pi.run(f"show {tag} --at {at}")
        assert told.returncode == 0, told.stderr
    told = pi.run("status --at usb/other-pi --max-age 26h")
    assert told.stdout.startswith(f"OK usb/other-pi: {TAG} is")
    put_set(pi.usb / "other-pi", NOW, runtag="new", host="other-pi", warnings=("NOT COVERED: x",))
    told = pi.run("status --at usb/other-pi")
    assert "1 thing not covered (inv show 'new' --at usb/other-pi)" in told.stdout
    told = pi.run(f"verify --at usb/other-pi --runtag {TAG}")
    assert f"{TAG} in usb/other-pi is damaged" in told.stderr  # its archive is none


def test_where_another_machines_set_is_meant_its_address_is_told(pi):
    """What `inv list` shows is never said not to be there at all."""
    for words in (
        f"show {TAG}",
        f"verify --runtag {TAG}",
        f"rehearse --runtag {TAG}",
        "show latest",
    ):
        told = pi.run(words)
        assert told.returncode == 10
        assert "No backups found." not in told.stderr
        assert f"Another machine's {'backups' if 'latest' in words else TAG}" in told.stderr
        assert "--at usb/other-pi" in told.stderr
    assert "No backups found." in pi.run("show nothing").stderr


@pytest.mark.parametrize("asked", ["latest", TAG])
def test_a_vault_that_is_away_hides_no_set_of_another(pi, asked):
    """It is named, as a newer one may lie there, and the command ends with 3."""
    text = pi.settings.read_text()
    gone = f'[[vaults]]\nname = "gone"\nkind = "folder"\nfolder = "{pi.usb}/gone"\n'
    pi.settings.write_text(f"{gone}{text}")
    (pi.usb / HOST).mkdir()
    put_set(pi.usb / HOST, NOW, runtag=TAG)
    told = pi.run(f"show {asked}")
    assert (told.returncode, f"{TAG} in usb: complete" in told.stdout) == (3, True), told.stderr
    assert "'gone'" in told.stderr
    told = pi.run(f"show {asked} --json")
    assert (told.returncode, json.loads(told.stdout)["at"]) == (3, "usb")
    assert pi.run("show nothing").returncode == 1
    assert pi.run(f"show {asked} --at gone").returncode == 1
    assert pi.run(f"show {asked} --at usb").returncode == 0


def test_others_sets_are_pruned_only_where_they_are_named(pi):
    """`vault` and `all` mean this machine's folder; the policy of the vault holds in each."""
    put_set(pi.usb / "other-pi", NOW - timedelta(days=9), runtag="old", host="other-pi")
    assert pi.run("prune --at all").returncode == 0
    assert "old.manifest.json" in files(pi.usb / "other-pi")
    assert "1 of 2 sets was removed" in pi.run("prune --at usb/other-pi").stdout
    assert "old.manifest.json" not in files(pi.usb / "other-pi")


@pytest.mark.parametrize("at", ["usb/nobody", "usb/..", "usb/", "usb/a/b", "nas/other-pi"])
def test_an_address_that_names_nothing_is_told(pi, at):
    """A folder that there is not is told as such, and nothing above the vault's is looked at."""
    told = pi.run(f"verify --at '{at}'")
    if at == "usb/nobody":
        assert told.returncode == 1
        assert "usb/nobody: the vault has no folder" in told.stderr
    else:
        assert told.returncode == 2


def test_a_restore_finds_another_machines_backup(tmp_path):
    """A laptop names whose backup it means; without a name it is told how to."""
    vault = VaultConfig("usb", str(tmp_path / "usb"), by_host=True)
    (tmp_path / "usb" / "other-pi").mkdir(parents=True)
    put_set(tmp_path / "usb" / "other-pi", NOW, runtag=TAG)
    settings = Settings(StackConfig(str(tmp_path / "none")), vaults=(vault,))
    with source_of(settings, RestoreRequest("latest", source="usb/other-pi"), None) as source:
        assert choose_set(source, "latest").backup.runtag == TAG
    with (
        source_of(settings, RestoreRequest("latest"), None) as source,
        pytest.raises(NotFound, match="Another machine's backups: --from usb/other-pi"),
    ):
        choose_set(source, "latest")
    with (
        source_of(settings, RestoreRequest("latest"), None) as source,
        pytest.raises(NotFound, match=f"Another machine's {TAG}: --from usb/other-pi"),
    ):
        choose_set(source, TAG)


def test_the_hosts_of_a_vault_over_ssh_are_listed(sshd, tmp_path):
    """Folders are seen over SSH too; hidden ones and files are no hosts."""
    far = tmp_path / "far"
    for name in ("pi-1", "pi-2", HOST, ".hidden", "no host"):
        (far / name).mkdir(parents=True)
    (far / "file").write_text("x")
    vault = VaultConfig("nas", str(far), sshd.login(), by_host=True)
    assert other_hosts(vault) == ("nas/pi-1", "nas/pi-2", "nas/.")
    storage = vault_storage(vault, "pi-1")
    assert storage.listdir(storage.root) == {}
    storage.close()
    storage = vault_storage(vault, "pi-3")
    with pytest.raises(Unreachable, match="no folder"):
        storage.listdir(storage.root)


def test_the_folder_of_a_machine_that_is_backed_up_from_here_is_made(tmp_path):
    """Who copies for another machine makes its folder, by the first claim."""
    storage = vault_storage(VaultConfig("usb", str(tmp_path), by_host=True), "pi-1", made=True)
    assert storage.create_exclusive(f"{tmp_path}/pi-1/x", "mine") == "mine"


def test_only_vaults_by_host_have_addresses():
    """A flat vault has one folder, and its name is its only one."""
    vaults = (VaultConfig("flat", "/f"), VaultConfig("nas", "/n", by_host=True))
    assert at_address(vaults, "nas/pi") == (vaults[1], "pi")
    assert at_address(vaults, "nas/.") == (vaults[1], ".")
    for each in ("flat/pi", "nas", "nas/", "nas/..", "nas/-x", "nas/a/b"):
        assert at_address(vaults, each) is None


def test_a_machine_whose_name_is_no_folder_is_told(monkeypatch):
    """A name that could lead elsewhere is refused before anything is opened."""
    monkeypatch.setattr(socket, "gethostname", lambda: "../x")
    with pytest.raises(UsageError, match=", is not a valid folder name, which layout = 'by-host'"):
        vault_storage(VaultConfig("nas", "/n", by_host=True))
