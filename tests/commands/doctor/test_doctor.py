"""The doctor: every fact is told, whatever is broken, and nothing is left behind."""

import json
import os
import subprocess
import time
from datetime import UTC, datetime

import pytest
from contexts import put_set
from sshd import make_key

from iotstack_invoke.commands.doctor import doctor
from iotstack_invoke.commands.shared.checks import Severity, good
from iotstack_invoke.settings.model import load_settings
from iotstack_invoke.vaults.access import vault_storage

DOCKER = """case "$1" in
version) echo 28.2.2 ;;
compose) echo 'Docker Compose version v2.24.5' ;;
ps) ;;
esac"""
FACTS = (
    *("iotstack-invoke", "tar", "flock", "sha256sum", "docker", "compose", "sudo", "stack"),
    *("backups", "restore", "inodes", "space", "clock", "influxdb", "databases", "journal"),
)


@pytest.fixture
def stack(little_stack):
    """A stack on a machine on which all is well, with a young backup and no vault."""
    little_stack.tool("docker", DOCKER)
    little_stack.tool("timedatectl", "echo NTPSynchronized=yes")
    little_stack.tool("crontab", "echo '0 3 * * * iotstack backup'")
    little_stack.backups = little_stack.folder / "backups"
    little_stack.backups.mkdir(mode=0o700)
    put_set(little_stack.backups, datetime.now(UTC))
    return little_stack


def add(stack, text):
    with stack.settings.open("a") as stream:
        stream.write(text)


def add_vault(stack, folder, name="usb"):
    add(stack, f'[[vaults]]\nname = "{name}"\nkind = "folder"\nfolder = "{folder}"\n')


def login_lines(sshd):
    """Return the lines of hosts.toml that log in to an sshd."""
    ssh = sshd.login()
    return (
        f'host = "{ssh.host}"\nuser = "{ssh.user}"\nport = {ssh.port}\nkey = "{ssh.key}"\n'
        f'ssh_config = "{ssh.config}"\nknown_hosts = "{ssh.known_hosts}"\n'
    )


def examine(stack, flags="", code=0):
    """Return the findings by name, and check the exit code that goes with them."""
    told = stack.run(f"doctor --json {flags}")
    assert told.stderr == ""
    found = json.loads(told.stdout)
    assert told.returncode == code
    assert any(each["verdict"] == "failed" for each in found) == bool(code)
    assert all(bool(each["fix"]) == (each["verdict"] != "good") for each in found)
    return {each["name"]: each for each in found}


def verdicts(found):
    return {name: each["verdict"] for name, each in found.items()}


def test_where_all_is_well_it_says_so(stack, tmp_path):
    """Every fact is told in the order in which one would mend it, and nothing is changed."""
    vault = tmp_path / "usb"
    vault.mkdir()
    put_set(vault, datetime.now(UTC))
    add_vault(stack, vault)
    with stack.settings.open("a") as stream:
        stream.write('[[notify]]\nname = "hc"\nkind = "ping"\nurl = "https://hc.example/uuid"\n')
    stack.settings.chmod(0o600)
    before = stack.tree()
    found = examine(stack)
    of_vault = ("vault usb", "vault usb disk", "vault usb space", "last backup in usb")
    expected = (*FACTS, *of_vault, "last backup here", "notify hc", "schedule")
    assert tuple(found) == expected
    judged = verdicts(found)
    assert judged.pop("vault usb disk") == "warning"  # it is a folder beside the stack
    assert set(judged.values()) == {"good"}
    assert stack.tree() == before
    assert not [each for each in os.listdir(vault) if each.startswith(".")]


def test_what_the_first_backup_takes_is_a_guess(stack):
    """Nobody knows how well its files pack; from the next one on it is known."""
    assert "the next backup takes" in examine(stack)["space"]["found"]
    for each in stack.backups.iterdir():
        each.unlink()
    assert "the first backup takes perhaps" in examine(stack)["space"]["found"]


def test_a_line_is_a_fact_with_its_fix(stack):
    """Off a terminal each fact is one plain line: a word, its name, what was found, the fix."""
    stack.backups.chmod(0o755)
    told = stack.run("doctor")
    assert (told.returncode, told.stderr) == (0, "")
    lines = told.stdout.splitlines()
    assert "ok    docker: 28.2.2" in lines
    (warned,) = (each for each in lines if " backups: " in each)
    assert warned.startswith("WARN  backups: ")
    assert warned.endswith(f"(mode 755) → chmod 0700 {stack.backups}")
    assert all(each.startswith(("ok    ", "WARN  ", "FAIL  ")) for each in lines)


def test_one_mode_is_one_line_with_one_cure(stack):
    """Others may read and write the folder of the backups: one command takes both from them."""
    stack.backups.chmod(0o777)
    told = [e for e in json.loads(stack.run("doctor --json").stdout) if e["name"] == "backups"]
    (found,) = told
    assert "can be read by everyone (mode 777); everyone can write to it" in found["found"]
    assert (
        found["fix"] == f'sudo chown "$USER:" {stack.backups} && sudo chmod 0700 {stack.backups}'
    )
    stack.backups.chmod(0o770)
    assert len([e for e in stack.run("doctor").stdout.splitlines() if " backups: " in e]) == 1


@pytest.mark.parametrize(
    ("vault", "program", "topic"),
    [
        (
            'kind = "folder"\nfolder = "{0}"\nrecipients = ["age1{1}"]',
            "age",
            "vault it encryption",
        ),
        ('kind = "rclone"\nremote = "cl:x"', "rclone", "vault it"),
    ],
)
def test_a_program_that_is_missing_is_installed_once(stack, tmp_path, vault, program, topic):
    """What to do stands behind the arrow, and not before it as well."""
    without = tmp_path / "bin"
    without.mkdir()
    for folder in ("/bin", "/usr/bin"):
        for each in os.listdir(folder):
            if each != program and not os.path.lexists(without / each):
                (without / each).symlink_to(f"{folder}/{each}")
    stack.environment["PATH"] = f"{stack.tools}:{without}"
    (tmp_path / "usb").mkdir()
    add(stack, f'[[vaults]]\nname = "it"\n{vault.format(tmp_path / "usb", "q" * 58)}\n')
    found = examine(stack, code=1)[topic]
    assert found["fix"] == f"sudo apt-get install {program}"
    assert "apt-get" not in found["found"]


def test_wrong_recipients_are_told_once(stack, tmp_path):
    """What age says, and behind the arrow what is to be corrected."""
    add(
        stack,
        f'[[vaults]]\nname = "it"\nkind = "folder"\nfolder = "{tmp_path}"\n'
        f'recipients = ["age1{"q" * 58}"]\n',
    )
    found = examine(stack, code=1)["vault it encryption"]
    assert found["fix"] == "correct `recipients` in hosts.toml"
    assert "orrect" not in found["found"]


def test_what_nothing_uses_is_told_and_nothing_that_is_not_there(stack):
    """Of services that the stack has not, nobody says what a backup would leave out of them."""
    assert "left out" not in stack.run("doctor").stdout
    (stack.folder / "notes.txt").write_text("x")
    told = stack.run("doctor").stdout
    assert (
        "ok    unused: Not in the backup, because the stack does not use it: notes.txt. A row"
        in told
    )
    assert "left out" not in told


def test_without_docker_a_backup_of_plain_files_is_possible(stack):
    """No Docker is a warning where there is no InfluxDB, and a failure where its data lie."""
    stack.tool("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    found = verdicts(examine(stack))
    assert (found["docker"], found["containers"]) == ("warning", "warning")
    (stack.folder / "volumes/influxdb").mkdir()
    found = verdicts(examine(stack, code=1))
    assert (found["docker"], found["containers"], found["journal"]) == ("failed", "failed", "good")


def test_what_is_broken_hides_nothing_else(stack):
    """A stack without a compose file, a dangling link and a dead restore are told together."""
    (stack.folder / "docker-compose.yml").unlink()
    (stack.backups / ".journal").write_text(
        '{"job": "r", "step": "StopContainers", "fields": {}}\n'
    )
    found = examine(stack, code=1)
    assert found["journal"]["fix"] == "inv undo"
    assert found["stack"]["verdict"] == "failed"
    assert set(FACTS) <= set(found)
    stack.backups.rename(stack.folder.parent / "moved")
    stack.backups.symlink_to("/no/such/drive")
    found = verdicts(examine(stack, code=1))
    assert (found["backups"], found["stack"], found["last backup here"]) == (
        *("failed", "failed", "warning"),
    )


def test_a_docker_that_hangs_is_given_up(stack, monkeypatch):
    """A Docker that never answers costs one time limit, and every other fact is told."""
    stack.tool("docker", "exec sleep 300")
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(doctor, "QUESTION_LIMIT_S", 1.0)
    started = time.monotonic()
    found = {each.name: each for each in doctor.find_here(load_settings())}
    assert time.monotonic() - started < 30
    assert "did not end within 1 s" in found["docker"].found
    assert found["containers"].verdict is Severity.WARNING
    assert found["last backup here"].verdict is Severity.GOOD


def test_a_question_that_breaks_is_a_finding():
    """Whatever a question raises is told under its name, and the next one is asked."""
    found = list(
        doctor.answers(
            (("first", lambda: [{}["x"]]), ("second", lambda: [good("second", "is well")]))
        )
    )
    assert [(each.name, each.verdict) for each in found] == [
        ("first", Severity.FAILED),
        ("second", Severity.GOOD),
    ]


# Hooks


def test_a_hook_that_cannot_run_is_told(stack, tmp_path):
    """Whatever a backup would be refused for is a failure before it, with what mends it."""
    script = tmp_path / "bin dir" / "dump"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    gone = tmp_path / "gone"
    words = {
        "before_backup": [str(script)],
        "after_backup": [str(gone), "now"],
        "before_restore": ["no-such-program"],
        "after_restore": ["cd"],  # a word of a shell's, and no program
    }
    add(stack, "[hooks]\n" + "".join(f"{name} = [{json.dumps(e)}]\n" for name, e in words.items()))
    found = examine(stack, code=1)
    assert {found[name]["verdict"] for name in words} == {"failed"}
    assert "is not executable, so each backup is refused" in found["before_backup"]["found"]
    assert found["before_backup"]["fix"] == f"chmod +x '{script}'"
    assert f"program {gone} not found, so each backup ends as" in found["after_backup"]["found"]
    assert "correct after_backup in hosts.toml" in found["after_backup"]["fix"]
    assert (
        "program no-such-program not found, in no folder of PATH"
        in found["before_restore"]["found"]
    )
    assert "program cd not found" in found["after_restore"]["found"]


@pytest.mark.parametrize(
    ("first", "verdict"),
    [
        ("#!/bin/sh", "good"),
        ("#! /usr/bin/env sh", "good"),
        ("#!/bin/sh\r", "failed"),
        ("#!/no/such/shell -x", "failed"),
        ("\x7fELF", "good"),
        ("", "good"),
    ],
)
def test_what_runs_a_hook_must_be_there_too(stack, first, verdict):
    """A script of another system names what is not here: env(1) says that there is no script."""
    stack.tool("dump", "")
    (stack.tools / "dump").write_bytes(f"{first}\n".encode())
    add(stack, '[hooks]\nbefore_backup = [["dump"]]\n')
    found = examine(stack, code=int(verdict == "failed"))
    assert found["hooks" if verdict == "good" else "before_backup"]["verdict"] == verdict


def test_a_hook_that_may_fail_is_a_warning(stack):
    """It keeps nothing from being made."""
    add(stack, '[hooks]\nafter_backup = [{ run = ["no-such"], may_fail = true }]\n')
    assert examine(stack)["after_backup"]["verdict"] == "warning"


def test_hooks_are_looked_for_where_they_run(stack, start_sshd, tmp_path):
    """Of another host on its own PATH; what lies on this machine's is none there."""
    (tmp_path / "there").mkdir()
    there = tmp_path / "there" / "only-there"
    there.write_text("#!/bin/sh\n")
    there.chmod(0o755)
    stack.tool("only-here", "exit 0")
    path = f"{tmp_path}/there:/usr/local/bin:/usr/bin:/bin"
    add(
        stack,
        f'[[hosts]]\nname = "test-pi"\nfolder = "{stack.folder}"\nsudo = false\n'
        + login_lines(start_sshd(path=path))
        + '[hosts.hooks]\nbefore_backup = [["only-there"]]\nafter_backup = [["only-here"]]\n',
    )
    told = stack.run("doctor --json --host test-pi")
    hooks = [each for each in json.loads(told.stdout) if each["name"].endswith("_backup")]
    assert [(each["name"], each["verdict"]) for each in hooks] == [("after_backup", "failed")]


# Vaults


def test_a_missing_vault_is_no_reason_to_skip_another(stack, tmp_path):
    """A drive that is not mounted fails, and the vault after it is looked at all the same."""
    (tmp_path / "there").mkdir()
    add_vault(stack, "/no/such", "gone")
    add_vault(stack, tmp_path / "there", "there")
    found = verdicts(examine(stack, code=1))
    assert (found["vault gone"], found["vault there"]) == ("failed", "good")
    assert found["last backup in there"] == "warning"


def test_a_drive_that_might_be_away_is_told(stack, small_disk):
    """A vault on a drive of which nothing says that it must be mounted is a warning, with the line."""
    add_vault(stack, small_disk)
    found = examine(stack)["vault usb mount"]
    assert found["verdict"] == "warning"
    assert found["fix"] == f'add mount = "{small_disk}" to this vault in hosts.toml'
    with open(stack.settings, "a") as stream:
        stream.write(f'mount = "{small_disk}"\n')
    assert "vault usb mount" not in examine(stack)


def test_a_drive_within_the_stack_is_told(stack, small_disk):
    """As a restore would meet it: its entries are swapped, or it is refused."""
    storages = [stack.folder / each for each in ("volumes/nodered", "volumes/deep/in")]
    for each in storages:
        each.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", small_disk, each], check=True)
    try:
        found = examine(stack)
    finally:
        for each in storages:
            subprocess.run(["umount", each], check=True)
    assert found["volumes/nodered"]["verdict"] == "good"
    assert "swaps its entries" in found["volumes/nodered"]["found"]
    assert f"{storages[1]} is mounted in it" in found["volumes/deep"]["found"]


@pytest.mark.parametrize(
    ("harm", "words"),
    [("full", "No space left on device"), ("read-only", "is mounted read-only")],
)
def test_a_vault_that_takes_nothing_fails_and_stays_clean(stack, small_disk, harm, words):
    """A full vault and a read-only one are told as such, and no probe file is left there."""
    if harm == "full":
        (small_disk / "fill").write_bytes(bytes(256 * 1024))  # all of it
    else:
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    add_vault(stack, small_disk)
    found = examine(stack, code=1)
    assert words in found["vault usb"]["found"]
    helps = {"full": "inv prune --at usb --keep N", "read-only": "sudo mount -o remount,rw"}[harm]
    assert helps in found["vault usb"]["fix"]
    assert not [each for each in os.listdir(small_disk) if each.startswith(".")]


def test_a_vault_over_ssh_is_probed(stack, sshd, tmp_path):
    """Written, read back and removed over SSH; with an unknown key, the fix is to compare it."""
    (tmp_path / "far").mkdir()
    add(
        stack,
        f'[[vaults]]\nname = "nas"\nkind = "ssh"\nfolder = "{tmp_path}/far"\n{login_lines(sshd)}',
    )
    assert verdicts(examine(stack))["vault nas"] == "good"
    assert os.listdir(tmp_path / "far") == []
    sshd.known_hosts.write_text("")
    found = examine(stack, code=1)
    assert found["vault nas"]["fix"] == "inv hosts --trust nas"
    assert "--trust" not in found["vault nas"]["found"]
    make_key(sshd.folder / "other_key")
    sshd.learn_host_key("other_key")
    fix = examine(stack, code=1)["vault nas"]["fix"]
    name = f"[127.0.0.1]:{sshd.port}"
    assert fix == f"ssh-keygen -f {sshd.known_hosts} -R '{name}' && inv hosts --trust nas"


def test_a_login_that_is_refused_is_tried_as_we_do(stack, sshd, tmp_path):
    """With the port, the key and the user of hosts.toml, which may be what is wrong."""
    lines = login_lines(sshd).replace(f'user = "{sshd.login().user}"', 'user = "nobody-such"')
    add(stack, f'[[vaults]]\nname = "nas"\nkind = "ssh"\nfolder = "{tmp_path}"\n{lines}')
    found = examine(stack, code=1)["vault nas"]
    assert "refused the login as nobody-such" in found["found"]
    to = f"-p {sshd.port} -i {sshd.user_key} nobody-such@127.0.0.1"
    assert found["fix"].startswith("ssh -v -F ")
    assert found["fix"].endswith(f"{to} shows more")


def test_a_vault_that_offers_files_only_is_probed(start_sshd, tmp_path):
    """Where there is SFTP and no shell, the probe is written, read back and removed as well."""
    server = start_sshd("files", "ForceCommand internal-sftp")
    (tmp_path / "far").mkdir()
    settings = tmp_path / "hosts.toml"
    settings.write_text(
        f'[[vaults]]\nname = "nas"\nkind = "ssh"\nfolder = "{tmp_path}/far"\n{login_lines(server)}'
    )
    (vault,) = load_settings(str(settings)).vaults
    storage = vault_storage(vault)
    assert doctor.probe("vault nas", storage).verdict is Severity.GOOD
    assert os.listdir(tmp_path / "far") == []
    storage.close()


# Another host


def test_another_host_is_asked_the_same(stack, start_sshd, tmp_path):
    """Over SSH the same facts are told, with reach, role, machine id and clock, without vaults."""
    server = start_sshd(path=f"{stack.tools}:/usr/local/bin:/usr/bin:/bin")
    add(
        stack,
        f'[[hosts]]\nname = "test-pi"\nfolder = "{stack.folder}"\nsudo = false\n'
        + login_lines(server),
    )
    found = examine(stack, "--host test-pi")
    told = verdicts(found)
    for name in ("reach", "role", "machine id", "tar", "docker", "clock against ours", "journal"):
        assert told[name] == "good"
    assert found["stack"]["found"] == f"{stack.folder}, docker-compose.yml"
    assert "not checked" in found["vaults"]["found"]
    assert not [name for name in found if "backup in" in name or "last backup" in name]
    (stack.backups / ".journal").write_text(
        '{"job": "r", "step": "StopContainers", "fields": {}}\n'
    )
    found = examine(stack, "--host test-pi", code=1)
    assert found["journal"]["fix"] == "inv undo --host test-pi"
    text = stack.settings.read_text()
    for folder, wrong in (
        (f"{stack.folder}/new", []),  # a restore makes it
        (f"{stack.folder}/not/there", ["stack"]),
        (f"{stack.folder}/docker-compose.yml", ["stack"]),
        ("not/there", ["stack"]),  # in the home of who logs in
    ):
        bare = text.replace(
            f'name = "test-pi"\nfolder = "{stack.folder}', f'name = "test-pi"\nfolder = "{folder}'
        )
        assert bare != text
        stack.settings.write_text(bare)
        found = examine(stack, "--host test-pi", code=int(bool(wrong)))
        assert [name for name, told in verdicts(found).items() if told == "failed"] == wrong
        assert found["inodes"]["found"].endswith(" free")
        assert found["space"]["found"].endswith(" free")
    server.known_hosts.write_text("")
    told = stack.run("hosts --trust test-pi")
    assert told.returncode == 13
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in told.stdout
    found = examine(stack, "--host test-pi", code=1)
    assert tuple(found) == ("role", "reach")
    assert found["reach"]["fix"] == "inv hosts --trust test-pi"


def test_a_host_that_is_not_named_is_wrong_usage(stack):
    """A name that hosts.toml does not have is refused with those that it has."""
    told = stack.run("doctor --host moon")
    assert told.returncode == 2
    assert "has no host 'moon'" in told.stderr


def test_a_folder_without_a_stack_is_told_once_with_where_it_is_set(stack):
    """The remedy stood there twice, without the path of hosts.toml, and again under space."""
    (stack.folder / "docker-compose.yml").unlink()
    found = examine(stack, code=1)
    assert found["stack"]["found"] == f"No IOTstack found in {stack.folder}: no docker-compose.yml"
    assert found["stack"]["fix"] == (
        f'set its folder: [stack] folder = "…" in {stack.settings}. If its compose file has '
        "another name, set COMPOSE_FILE in .env there"
    )
    assert found["space"]["found"] == "what the next backup takes is unknown"
    assert found["space"]["fix"] == "repair the stack's folder first: see above"
