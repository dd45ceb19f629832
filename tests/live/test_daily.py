"""The tasks of every day, with a vault over SSH, over SFTP alone, and lines that break."""

import json
import os
import shutil
import signal

import pytest
from owner import ENDINGS, PROGRAM, Owner
from saboteur import WAITING, Saboteur
from stand_machine import PATH, USER, wait_for

GOOD, FAILED, CRITICAL, WARNINGS, BUSY, REFUSED = 0, 1, 2, 3, 11, 13
RUNTAGS = ("2026-11-20_1100", "2026-11-21_1100", "2026-11-22_1100")


@pytest.fixture(scope="module")
def owner(pi, nas):
    made = Owner(pi, nas, user=USER)
    made.set(stack="keep = 9")
    for runtag in RUNTAGS:
        made.backup("--runtag", runtag)
    for folder, name in ((made.backups, "saved-here"), (made.vault, "saved-vault")):
        shutil.copytree(folder, pi.folder / name, ignore=shutil.ignore_patterns("influxdb", ".*"))
    yield made
    made.away()


@pytest.fixture(autouse=True)
def three_sets(owner, pi):
    """Three good sets here and in the vault, never verified; the settings as usual."""
    owner.renew()
    owner.set(stack="keep = 9")
    for folder, name in ((owner.backups, "saved-here"), (owner.vault, "saved-vault")):
        for path in (pi.folder / name).iterdir():
            target = shutil.copy2(path, folder)
            if folder == owner.backups:
                os.chown(target, 1000, 1000)


def listed(owner, code=0):
    """What `inv list --json` tells, by runtag."""
    return {each["runtag"]: each for each in json.loads(owner.iot("list", "--json", code=code))}


def flip(path, at=300):
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def test_a_week(owner):
    """List, show, diff, verify, pin, prune, status, doctor: one after the other, here and there."""
    assert owner.iot("status").startswith("OK")
    found = listed(owner)
    assert sorted(found) == list(RUNTAGS)
    assert all(each["here"] == "complete" for each in found.values())
    assert all(each["vaults"] == {"nas": "complete"} for each in found.values())
    oldest, _, newest = RUNTAGS
    assert "influx-backup.tar" in owner.iot("show", newest)
    assert "./volumes/nodered/" in owner.iot("show", newest, "--files", "general")
    owner.iot("diff", oldest, newest)
    owner.iot("verify", "--all", "--at", "all")
    assert {each["how"] for each in listed(owner)[newest]["verified"].values()} == {"read", "hash"}
    owner.iot("pin", oldest, "--note", "before the move")
    said = owner.iot("prune", "--keep", "1", "--at", "all", code=REFUSED)
    assert f"{RUNTAGS[1]} may have no other copy" in said
    assert owner.runtags() == owner.runtags(owner.vault) == list(RUNTAGS)
    owner.iot("prune", "--keep", "1", "--at", "all", "--yes")
    for folder in (owner.backups, owner.vault):
        assert owner.runtags(folder) == [oldest, newest]
    owner.iot("pin", oldest, "--remove")
    owner.iot("prune", "--keep", "1", "--at", "vault")
    assert owner.runtags(owner.vault) == [newest]
    assert owner.runtags() == [oldest, newest]
    owner.iot("doctor")
    owner.assert_nothing_left()


def test_sftp_only_vault(owner):
    """Without a shell there, archives are fetched to be verified, and removed one by one."""
    owner.set(stack="keep = 9", vaults={"nas": ("nas-sftp", "vault")})
    owner.iot("verify", "--newest", "--at", "nas")
    assert listed(owner)[RUNTAGS[-1]]["verified"]["nas"]["how"] == "read"
    flip(owner.there(RUNTAGS[0], "general"))
    said = owner.iot("verify", "--all", "--at", "nas", code=FAILED)
    assert f"{RUNTAGS[0]} in nas is damaged" in said
    found = listed(owner, code=WARNINGS)[RUNTAGS[0]]
    assert (found["here"], found["vaults"]["nas"]) == ("complete", "damaged")
    owner.iot("prune", "--keep", "1", "--at", "nas")
    assert owner.runtags(owner.vault) == [RUNTAGS[-1]]
    assert {each.name for each in owner.vault.iterdir()} == {
        f"{RUNTAGS[-1]}.{ending}" for ending in ENDINGS.values()
    }


def cut(nas):
    """End every SSH session at the NAS, as a broken line does."""
    lines = nas.run(["ps", "-eo", "pid,args"]).stdout.splitlines()
    pids = [one.split()[0] for one in lines if "sshd: root" in one]
    nas.run(["kill", "-9", *pids], check=False)


def start(owner, *words):
    """Start a task; what it says goes to a file."""
    said = (owner.pi.folder / "said").open("w+")
    env = {"IOTSTACK_SETTINGS": str(owner.settings_file)}
    words = [*PROGRAM, *words]
    process = owner.pi.popen(words, user=USER, env=env, stdout=said, stderr=said)
    process.said = said
    return process


def end(process):
    """Wait for its end; return the exit code and what it said."""
    try:
        code = process.wait(timeout=100)
    finally:
        process.end()
    with process.said as said:
        said.seek(0)
        return code, said.read()


def test_line_cut_while_sets_are_removed(owner, nas):
    """A prune whose line breaks says so; no half-removed set is listed; the next one finishes."""
    with Saboteur(nas, "rm", WAITING) as rm:
        process = start(owner, "prune", "--keep", "1", "--at", "nas")
        wait_for("the removal", rm.reached, timeout=30)
        cut(nas)
        code, said = end(process)
        rm.release(act=True)
    assert code == FAILED, said
    assert "nas" in said
    for each in listed(owner).values():
        assert each["vaults"].get("nas", "complete") == "complete"
    owner.iot("prune", "--keep", "1", "--at", "nas")
    assert owner.runtags(owner.vault) == [RUNTAGS[-1]]
    owner.assert_nothing_left()


def test_line_cut_while_a_copy_is_verified(owner, nas):
    """A verification whose line breaks says nothing of the copy."""
    program = "openssl" if shutil.which("openssl", path=PATH) else "sha256sum"
    with Saboteur(nas, program, WAITING) as hashing:
        process = start(owner, "verify", "--newest", "--at", "nas")
        wait_for("the hash", hashing.reached, timeout=30)
        cut(nas)
        code, said = end(process)
        hashing.release(act=True)
    assert code == FAILED, said
    assert "not verified" in said
    newest = listed(owner)[RUNTAGS[-1]]
    assert newest["vaults"]["nas"] == "complete"
    assert newest["verified"] == {}
    owner.iot("verify", "--newest", "--at", "nas")


def test_vault_that_is_away(owner, nas):
    """Every task says that the vault is away, none hangs, and what is here goes on."""
    owner.set(stack="keep = 9", vaults={"nas": ("nas", "vault"), "gone": ("10.77.0.250", "vault")})
    said = owner.iot("list", code=FAILED)
    assert "Cannot list gone: " in said
    assert RUNTAGS[0] in said
    assert owner.iot("status", code=CRITICAL).startswith("CRITICAL")
    owner.iot("status", "--at", "here")
    said = owner.iot("verify", "--newest", "--at", "all", code=FAILED)
    assert "gone" in said
    said = owner.iot("prune", "--keep", "1", "--at", "all", "--yes", code=FAILED)
    assert f"gone is unreachable and may be missing {RUNTAGS[1]}, {RUNTAGS[0]}" in said
    assert (owner.runtags(), owner.runtags(owner.vault)) == (list(RUNTAGS), [RUNTAGS[-1]])
    owner.iot("prune", "--keep", "1", "--undelivered", "--yes")
    assert owner.runtags() == [RUNTAGS[-1]]
    owner.iot("doctor", code=FAILED)


def test_prune_during_a_backup(owner, pi):
    """A prune here waits for nobody: it is told who is at work; verify and list go on."""
    pi.run(["docker", "pause", "influxdb"])  # its dump waits
    process = owner.start("--runtag", "long")
    try:
        wait_for("the backup", lambda: list(owner.backups.glob("long.*")), timeout=30)
        said = owner.iot("prune", "--keep", "1", code=BUSY)
        assert "backup long" in said
        owner.iot("verify", "--runtag", RUNTAGS[0])
        assert listed(owner).get("long", {}).get("here") != "complete"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        process.end()
        pi.run(["docker", "unpause", "influxdb"])


@pytest.mark.long
def test_frozen_engine(owner, pi):
    """A Docker engine that does not answer is found by the doctor, within its limit."""
    lines = pi.run(["ps", "-eo", "pid,args"]).stdout.splitlines()
    pids = [one.split()[0] for one in lines if "dockerd --data-root" in one]
    assert pids
    pi.run(["kill", "-STOP", *pids])
    try:
        said = owner.iot("doctor", code=FAILED)
    finally:
        pi.run(["kill", "-CONT", *pids])
    assert "docker" in said.lower()
    owner.iot("doctor")
