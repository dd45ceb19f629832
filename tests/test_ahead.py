"""A head start for a copy: the vault has most of it when it is packed, and none where that fails."""

import os
import shutil
import time

import pytest
from scenes import LittleStack, until

TAG = "2026-11-23_1100"
GENERAL = f"{TAG}.general-backup.tar.gz"


@pytest.fixture
def stack(tmp_path, start_sshd):
    """A stack with a vault behind an sshd, whose tar stops in the middle until it is told."""
    made = LittleStack(tmp_path)
    made.far_tools = tmp_path / "far-tools"
    made.far_tools.mkdir()
    made.server = start_sshd("nas", path=f"{made.far_tools}:/usr/local/bin:/usr/bin:/bin")
    login = made.server.login()
    made.vault = tmp_path / "far"
    made.vault.mkdir()
    keys = {"host": login.host, "user": login.user, "key": login.key, "ssh_config": login.config}
    keys |= {"known_hosts": login.known_hosts, "folder": made.vault, "name": "nas", "kind": "ssh"}
    lines = [f'{key} = "{value}"' for key, value in keys.items()]
    text = "\n".join(["[[vaults]]", *lines, f"port = {login.port}", ""])
    made.settings.write_text(made.settings.read_text() + text)
    (made.folder / "volumes/nodered/large").write_bytes(os.urandom(8 << 20))
    real = shutil.which("tar")
    made.go_on = made.tools / "go-on"
    made.tool(
        "tar",
        f'{real} "$@" | {{ head -c 4194304; while ! [ -e {made.go_on} ]; do sleep 0.05; done; '
        f"cat; }}\n[ ! -s {made.go_on} ] || exit 2",
    )
    return made


def far_bytes(stack):
    """What the vault has of the general part that is still being packed."""
    return (stack.vault / f"{GENERAL}.partial").stat().st_size


def test_what_is_packed_is_sent_meanwhile_and_proven_afterwards(stack):
    run = stack.start(f"backup --runtag {TAG}")
    until(lambda: far_bytes(stack) > 1 << 20)
    assert not (stack.vault / GENERAL).exists()
    assert (stack.vault / f"{TAG}.unfinished.jsonl").exists()  # it is claimed before
    stack.go_on.touch()
    _, told = run.communicate(timeout=60)
    assert run.returncode == 0, told
    here = stack.folder / "backups" / GENERAL
    assert (stack.vault / GENERAL).read_bytes() == here.read_bytes()
    assert (stack.vault / GENERAL).stat().st_mtime == int(here.stat().st_mtime)
    assert {each.name for each in stack.vault.iterdir()} == {
        GENERAL,
        *(f"{TAG}.{each}" for each in ("manifest.json", "RESTORE.txt", "backup-log.txt")),
    }


def test_of_what_cannot_be_packed_nothing_is_left_there(stack):
    run = stack.start(f"backup --runtag {TAG}")
    until(lambda: far_bytes(stack) > 1 << 20)
    stack.go_on.write_text("and fail\n")
    _, told = run.communicate(timeout=60)
    assert run.returncode == 1, told
    assert GENERAL not in {each.name.removesuffix(".partial") for each in stack.vault.iterdir()}


def test_a_line_that_breaks_meanwhile_costs_the_head_start_alone(stack):
    run = stack.start(f"backup --runtag {TAG}")
    until(lambda: far_bytes(stack) > 1 << 20)
    stack.server.cut()
    stack.go_on.touch()
    _, told = run.communicate(timeout=60)
    assert run.returncode == 0, told
    here = stack.folder / "backups" / GENERAL
    assert (stack.vault / GENERAL).read_bytes() == here.read_bytes()


def test_the_name_of_another_machine_is_not_touched(stack):
    """It is told as ever; nothing was sent before."""
    claim = stack.vault / f"{TAG}.unfinished.jsonl"
    claim.write_text('{"host": "other", "claim": "theirs"}\n')
    stack.go_on.touch()
    told = stack.run(f"backup --runtag {TAG}")
    assert told.returncode == 3, told.stderr
    assert [each.name for each in stack.vault.iterdir()] == [claim.name]


def test_a_vault_without_room_gets_no_head_start(stack):
    """Of what would not fit nothing is written there; the copy itself tells it."""
    (stack.far_tools / "df").write_text(
        "#!/bin/sh\necho Filesystem 1024-blocks Used Available Capacity Mounted\n"
        "echo /dev/sda 9000 8000 1000 89% /\n"
    )
    (stack.far_tools / "df").chmod(0o755)
    run = stack.start(f"backup --runtag {TAG}")
    until(lambda: (stack.folder / f"backups/{GENERAL}.partial").stat().st_size > 1 << 20)
    time.sleep(1)  # as long as a head start would take to be seen
    assert not (stack.vault / f"{GENERAL}.partial").exists()
    stack.go_on.touch()
    _, told = run.communicate(timeout=60)
    assert run.returncode == 3, told
    assert "Make room" in told
    assert GENERAL not in {each.name.removesuffix(".partial") for each in stack.vault.iterdir()}
