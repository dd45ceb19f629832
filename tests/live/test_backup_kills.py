"""A backup that is stopped at any moment leaves nothing half, and the same command finishes it."""

import json
import os
import random
import shutil
import signal
import time

import pytest
from owner import ENDINGS, Owner, inodes
from sample_sets import new_form
from stand import write_points
from stand_machine import USER, wait_for

PARTS = ("general", "influx")
SPAN_S = (0.3, 3.0)
"""When, after its start, a run of this stack does its work."""
MOMENTS = 6


@pytest.fixture(scope="module")
def owner(pi, nas):
    made = Owner(pi, nas, user=USER)
    big = made.top / "volumes/nodered/data/big"
    big.mkdir()
    for number in range(30):
        (big / f"{number}").write_bytes(random.randbytes(1_000_000))  # noqa: S311
    for number in range(5):
        points = [f"m value={random.random()} {i}000000000" for i in range(20_000)]  # noqa: S311
        write_points(pi, f"db{number}", *points)
    yield made
    made.away()


@pytest.fixture(autouse=True)
def _renewed(owner):
    owner.renew()


def _stop(owner, process, number, code=-signal.SIGKILL, ended=(0,)):
    process.send_signal(number)
    assert process.wait(timeout=60) in {code, *ended}
    owner.assert_finals_whole()


def _finals(owner, runtag):
    """The parts under final names, here and in the vault, that a resumed run must leave alone."""
    made = [kind for kind in PARTS if owner.here(runtag, kind).exists()]
    return inodes(*(where(runtag, kind) for kind in made for where in (owner.here, owner.there)))


def _go_on(owner, runtag):
    """The same command ends well, makes no finished part again, and leaves nothing behind."""
    finals = _finals(owner, runtag)
    was_finished = (
        all(owner.here(runtag, kind).exists() for kind in ENDINGS)
        and not (owner.backups / f"{runtag}.unfinished.jsonl").exists()
    )
    owner.set()
    owner.backup("--runtag", runtag, code=13 if was_finished else 0)
    owner.assert_set(runtag)
    owner.assert_nothing_left()
    assert inodes(*finals) == finals
    return was_finished


WATCHED = {
    "mark": "{backups}/{runtag}.unfinished.jsonl",
    "journal": "{backups}/.journal",
    "log begun": "{backups}/{runtag}.backup-log.txt.partial",
    "dump begun": "{backups}/influxdb/db/{runtag}",
    "general begun": "{backups}/{runtag}.general-backup.tar.gz.partial",
    "general made": "{backups}/{runtag}.general-backup.tar.gz",
    "influx begun": "{backups}/{runtag}.influx-backup.tar.partial",
    "influx made": "{backups}/{runtag}.influx-backup.tar",
    "manifest made": "{backups}/{runtag}.manifest.json",
    "text made": "{backups}/{runtag}.RESTORE.txt",
    "general on its way": "{vault}/{runtag}.general-backup.tar.gz.partial",
    "general arrived": "{vault}/{runtag}.general-backup.tar.gz",
    "influx arrived": "{vault}/{runtag}.influx-backup.tar",
    "text arrived": "{vault}/{runtag}.RESTORE.txt",
    "manifest on its way": "{vault}/{runtag}.manifest.json.partial",
    "manifest arrived": "{vault}/{runtag}.manifest.json",
    "log made": "{backups}/{runtag}.backup-log.txt",
    "log on its way": "{vault}/{runtag}.backup-log.txt.partial",
    "log arrived": "{vault}/{runtag}.backup-log.txt",
}


OFTEN = {"dump begun", "influx made", "general on its way"}
"""The others are tried with --long."""


@pytest.mark.parametrize(
    "event",
    [each if each in OFTEN else pytest.param(each, marks=pytest.mark.long) for each in WATCHED],
)
def test_killed_when(owner, event):
    """SIGKILL as soon as a certain file is there: all is whole, and the same command finishes."""
    runtag = f"Küche  {event}"
    path = WATCHED[event].format(runtag=runtag, backups=owner.backups, vault=owner.vault)
    process = owner.start("--runtag", runtag)
    wait_for(event, lambda: os.path.lexists(path) or process.poll() is not None, pause=0.0005)
    _stop(owner, process, signal.SIGKILL)
    _go_on(owner, runtag)


@pytest.mark.parametrize(
    "moment",
    [
        each if each % 3 == 1 else pytest.param(each, marks=pytest.mark.long)
        for each in range(MOMENTS)
    ],
)
def test_killed_after(owner, moment):
    """SIGKILL at moments spread over the whole run: all is whole, and the same command finishes."""
    runtag = f"2026-11-23_11{moment:02}"
    process = owner.start("--runtag", runtag)
    time.sleep(SPAN_S[0] + (SPAN_S[1] - SPAN_S[0]) * moment / MOMENTS)
    _stop(owner, process, signal.SIGKILL)
    _go_on(owner, runtag)
    owner.assert_finals_whole()


@pytest.mark.long
def test_killed_again_and_again(owner):
    """One backup that is killed six times at random moments still becomes whole."""
    chance = random.Random(2)  # noqa: S311
    for _ in range(6):
        process = owner.start("--runtag", "unlucky")
        time.sleep(chance.uniform(*SPAN_S))
        _stop(owner, process, signal.SIGKILL, ended=(0, 13))
    _go_on(owner, "unlucky")


@pytest.mark.long
def test_killed_while_the_dump_hangs(owner, pi):
    """A dump that outlived its killed run is ended by the next run, whatever its name holds."""
    inspect = ["docker", "inspect", "-f", "{{.State.Pid}}", "influxdb"]
    server = pi.run(inspect).stdout.strip()
    owner.set("[influxdb]\nlimit_s = 2")
    runtag = "Küche  mit Balkon"
    process = owner.start("--runtag", runtag)
    wait_for("the dump", (owner.backups / "influxdb/db" / runtag).exists, pause=0.0005)
    pi.run(["kill", "-STOP", server])
    try:
        _stop(owner, process, signal.SIGKILL)
        assert owner.processes("influxd backup")
        said = owner.backup("--runtag", "other", code=1)
        assert owner.processes("influxd backup") == []
    finally:
        pi.run(["kill", "-CONT", server])
    assert "docker logs influxdb" in said
    assert os.listdir(owner.backups / "influxdb/db") == []
    owner.set()
    owner.backup("--runtag", "other")
    _go_on(owner, runtag)


def test_killed_and_another_backup_follows(owner):
    """What a killed run left is cleared by the next run, also by one of another name."""
    process = owner.start("--runtag", "left")
    dump = owner.backups / "influxdb/db/left"
    wait_for("the dump", lambda: dump.exists() and os.listdir(dump), pause=0.001)
    _stop(owner, process, signal.SIGKILL)
    owner.backup("--runtag", "next")
    owner.assert_set("next")
    assert os.listdir(owner.backups / "influxdb/db") == []
    assert owner.processes("influxd backup") == []
    assert not (owner.backups / ".journal").exists()
    assert {p.name for p in owner.backups.glob("left.*")} <= {
        "left.unfinished.jsonl", "left.backup-log.txt.partial", "left.general-backup.tar.gz"
    }  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
@pytest.mark.parametrize("moment", [0, pytest.param(1, marks=pytest.mark.long)])
def test_stopped_by(owner, number, moment):
    """SIGINT and SIGTERM end the children, leave no partial archive and no journal, and say so."""
    chance = random.Random(10 * moment + number)  # noqa: S311
    runtag = f"stopped {number} {moment}"
    process = owner.start("--runtag", runtag)
    lock = owner.backups / ".lock"
    wait_for("the start", lambda: lock.exists() and runtag in lock.read_text(), pause=0.001)
    time.sleep(chance.uniform(0.1, 2.0))
    started = time.monotonic()
    _stop(owner, process, number, 128 + number)
    assert time.monotonic() - started < 5
    assert owner.processes("tar --create", "influxd backup", "ssh -T", "docker exec") == []
    partial = [path.name for path in owner.backups.glob("*.partial")]
    assert [name for name in partial if "backup-log" not in name] == []
    assert os.listdir(owner.backups / "influxdb/db") == []
    assert not (owner.backups / ".journal").exists()
    _go_on(owner, runtag)


def test_stopped_during_the_transfer(owner):
    """A transfer that Ctrl-C ends leaves a partial copy, and the same command goes on with it."""
    process = owner.start("--runtag", "half way")
    partial = f"{owner.there('half way', 'general')}.partial"
    wait_for("the copy", lambda: os.path.exists(partial), pause=0.0005)
    _stop(owner, process, signal.SIGINT, 130)
    assert not owner.there("half way", "general").exists()
    assert owner.processes("ssh -T") == []
    _go_on(owner, "half way")


def test_killed_while_it_removes(owner):
    """A removal that was killed half-way is finished by the next run; no half set is listed."""
    owner.set(vaults={})  # which would be given all of them first
    owner.backup("--runtag", "2026-01-01_0000")
    old = owner.manifest("2026-01-01_0000")
    for number in range(300):
        runtag = f"2025-01-01_{number // 60:02}{number % 60:02}"
        for kind, ending in ENDINGS.items():
            if kind != "manifest":
                os.link(owner.here("2026-01-01_0000", kind), owner.backups / f"{runtag}.{ending}")
        text = owner.here("2026-01-01_0000", "manifest").read_text()
        text = text.replace("2026-01-01_0000", runtag).replace(
            old["started_utc"][:10], "2025-01-01"
        )
        path = owner.here(runtag, "manifest")
        path.write_text(new_form(json.loads(text)))
        shutil.chown(path, 1000, 1000)
    process = owner.start("--runtag", "2026-01-01_0001")
    wait_for("a removal", lambda: len(owner.runtags()) < 250, pause=0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 5 < len(owner.runtags()) < 250
    for runtag in owner.runtags():
        assert all(owner.here(runtag, kind).exists() for kind in ENDINGS if kind != "log"), runtag
    owner.backup("--runtag", "2026-01-01_0001")
    assert len(owner.runtags()) == 5
    assert len([n for n in os.listdir(owner.backups) if n[:2] == "20"]) == 5 * len(ENDINGS)
    owner.assert_nothing_left()
