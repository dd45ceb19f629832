"""`inv monitor` tells each problem once, and its end once; a vault is not asked twice."""

import json
import os
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from listeners import listening
from person import Person

from iotstack_invoke.backups.manifest import read_manifest, utc_text
from iotstack_invoke.commands.monitoring import home_assistant
from iotstack_invoke.commands.monitoring.monitor import look
from iotstack_invoke.core.errors import Interrupted
from iotstack_invoke.reporting.report import Report
from iotstack_invoke.settings.model import read_settings


@pytest.fixture
def listener():
    with listening() as found:
        yield found


@pytest.fixture
def stack(little_stack, listener, tmp_path):
    """Let a phone hear of the stack, which has a vault in a folder."""
    (tmp_path / "usb").mkdir()
    with little_stack.settings.open("a") as stream:
        stream.write(
            f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{tmp_path}/usb"\n'
            f'[[notify]]\nname = "phone"\nkind = "ntfy"\nurl = "{listener.url}/phone"\n'
        )
    return little_stack


def titles(listener):
    return [each["title"] for each in listener.heard]


def test_a_stack_without_backups_is_told_once(stack, listener):
    """By the first look; the second is silent; the first backup ends it."""
    done = stack.run("monitor")
    assert done.returncode == 3
    assert "No good backup was made here for 26 h" in done.stderr
    first = titles(listener)
    assert len(first) == 1  # a vault cannot have one either
    done = stack.run("monitor")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert titles(listener) == first
    assert stack.run("backup").returncode == 0
    assert len(titles(listener)) == 2
    assert ": over: " in titles(listener)[1]
    done = stack.run("monitor")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(titles(listener)) == 2


def test_a_backup_that_never_comes_is_told(stack, listener):
    """26 h after the last one, although no run failed: silence is an alarm."""
    assert stack.run("backup --runtag only").returncode == 0
    assert stack.run("monitor").returncode == 0
    assert titles(listener) == []
    path = stack.folder / "backups/only.manifest.json"
    earlier = utc_text(datetime.now(UTC) - timedelta(hours=27))
    told = replace(read_manifest(path.read_bytes()), started_utc=earlier, finished_utc=earlier)
    path.write_text(told.to_json())
    assert stack.run("monitor").returncode == 3
    (title,) = titles(listener)
    assert title == f"{os.uname().nodename}: No good backup was made here for 26 h"
    assert stack.run("monitor --max-age 2d").returncode == 0
    assert stack.run("monitor --max-age soon").returncode == 2


def test_a_vault_that_is_away_is_told_by_the_backup_alone(stack, listener, tmp_path):
    """The backup's warning is the one message; the look after it and each hour are silent."""
    assert stack.run("backup").returncode == 0
    (tmp_path / "usb").rename(tmp_path / "away")
    assert stack.run("backup --runtag second").returncode == 3
    assert len(titles(listener)) == 1
    assert "finished with warnings" in titles(listener)[0]
    assert stack.run("monitor").returncode == 3
    assert len(titles(listener)) == 1


@pytest.mark.parametrize("first", ["backup", "monitor", "verify", "rehearse", "sync"])
def test_a_vault_that_is_away_is_one_message_whoever_finds_it(stack, listener, tmp_path, first):
    """A backup each day, a rehearsal each week, a look each hour; its end is one message too."""
    tasks = ["backup", "monitor", "verify", "rehearse", "sync"]
    assert stack.run("backup").returncode == 0
    (tmp_path / "usb").rename(tmp_path / "away")
    for task in [first, *tasks, *tasks]:
        assert stack.run(task).returncode in (1, 3)
    (_,) = titles(listener)
    assert "The folder of vault 'usb' is missing" in listener.heard[0]["body"]
    (tmp_path / "away").rename(tmp_path / "usb")
    for task in tasks:
        assert stack.run(task).returncode == 0
    (_, title) = titles(listener)
    assert title.endswith("over: The backups in usb cannot be read")


def test_a_vault_that_is_away_hides_no_other_trouble(stack, listener, tmp_path):
    """What people know of the vault explains no broken tar."""
    assert stack.run("backup").returncode == 0
    (tmp_path / "usb").rename(tmp_path / "away")
    assert stack.run("backup").returncode == 3
    stack.tool("tar", "exit 2")
    assert stack.run("backup").returncode == 1
    assert "tar ended with exit 2" in listener.heard[-1]["body"]
    assert len(titles(listener)) == 2


def test_a_person_sees_all_problems(stack, listener, tmp_path):
    """Also those that the phone was told of."""
    assert stack.run("monitor").returncode == 3
    person = Person(stack.words("monitor"), stack.environment)
    person.sees("No good backup was made here")
    assert person.ends() == 3
    assert len(titles(listener)) == 1
    assert stack.run("backup").returncode == 0
    person = Person(stack.words("monitor"), stack.environment)
    person.sees("No problems.")
    assert person.ends() == 0


def test_without_vaults_the_last_look_counts(stack, listener, tmp_path):
    """A look each hour does not wake the disks of a NAS."""
    assert stack.run("backup").returncode == 0
    (tmp_path / "usb").rename(tmp_path / "away")
    assert stack.run("monitor --no-vaults").returncode == 0
    assert stack.run("monitor").returncode == 3


def test_a_look_without_notifiers_prints_new_problems(little_stack):
    """Cron mails it once."""
    first = little_stack.run("monitor")
    assert first.returncode == 3
    assert "No good backup was made here" in first.stderr
    assert little_stack.run("monitor").stderr == ""


def test_ctrl_c_is_no_problem(tmp_path, monkeypatch):
    """Nobody is told that the broker failed: the look ends."""

    def stop(*_):
        raise Interrupted(signal.SIGINT)

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(home_assistant, "publish_state", stop)
    settings = read_settings({"stack": {"folder": f"{tmp_path}/IOTstack"}, "mqtt": {}}, "")
    with pytest.raises(Interrupted):
        look(settings, timedelta(hours=26), Report(), look_at_vaults=True)


def test_status_has_the_problems_of_the_last_look(stack):
    """In its one line, until they are over; a host's status has none of this machine's."""
    assert stack.run("backup").returncode == 0
    assert stack.run("status").stdout.startswith("OK ")
    (folder,) = (stack.settings.parent / ".local/state/iotstack/monitoring").iterdir()
    trouble = {
        "occasion": "warning",
        "text": "nas will be full in 9 days",
        "since_utc": "2026-11-23T10:00:00Z",
        "notified_utc": "2026-11-23T10:00:00Z",
    }
    (folder / "troubles.json").write_text(
        json.dumps({"problem full nas": trouble, "sync": trouble})
    )
    done = stack.run("status")
    assert done.returncode == 1
    assert done.stdout.startswith("WARNING nas will be full in 9 days; ")
    assert done.stdout.count("\n") == 1
    assert stack.run("monitor").returncode == 0
    assert stack.run("status").stdout.startswith("OK ")


def test_each_look_is_no_message(little_stack, listener):
    """Not even for who wants to know of each run: it would be one an hour."""
    assert little_stack.run("backup").returncode == 0
    with little_stack.settings.open("a") as stream:
        stream.write(
            f'[[notify]]\nname = "all"\nkind = "ntfy"\nurl = "{listener.url}/all"\n'
            'on = ["always", "failure", "warning", "recovered"]\n'
        )
    for _ in range(2):
        assert little_stack.run("monitor").returncode == 0
    assert titles(listener) == []
