"""`init` installs the schedule that was asked for."""

import json
from datetime import datetime

from test_schedule import read, stack  # noqa: F401


def test_the_time_that_is_answered_is_installed(stack):
    """By cron here; again it changes nothing, and another time replaces it."""
    usb = stack.settings.parent / "usb"
    usb.mkdir()
    line = f"init --copies {usb} --at"
    found = stack.run(f"{line} 4:30")
    assert found.returncode == 0, found.stderr
    block = read(stack)
    assert "30 4 * * *" in block
    assert "rehearse" in block
    assert "schedule: the next backup is at" in found.stdout
    assert stack.run(f"{line} 04:30").returncode == 0
    assert read(stack) == block
    assert "Backups at 04:30 go on." in stack.run(f"{line} never").stdout
    assert read(stack) == block
    assert stack.run(f"{line} 5:00").returncode == 0
    assert read(stack) == block.replace("30 4 ", "0 5 ").replace("30 5 ", "0 6 ").replace(
        "30 6 ", "0 7 "
    ).replace("30 7 ", "0 8 ")


def test_old_copies_are_removed_if_the_vault_has_rules(stack):
    """Init gives a new vault rules, and says so; with none, nothing is removed."""
    usb = stack.settings.parent / "usb"
    usb.mkdir()
    assert stack.run(f"init --copies {usb} --at 4:30").returncode == 0
    assert "prune --at all --yes" in read(stack)
    stack.settings.write_text(stack.settings.read_text().partition("keep_daily")[0])
    assert stack.run("schedule.remove").returncode == 0
    assert stack.run("init --at 4:30").returncode == 0
    assert "prune" not in read(stack)


def test_a_schedule_with_flags_of_its_own_stays(stack):
    """It is not replaced by one without them: a warning shows the command."""
    usb = stack.settings.parent / "usb"
    usb.mkdir()
    assert stack.run("schedule.install --at 4:30 --verify weekly").returncode == 0
    block = read(stack)
    told = stack.run(f"init --copies {usb} --at 5:00")
    assert told.returncode == 3
    assert "inv schedule.install --at 05:00" in told.stderr
    assert read(stack) == block


def test_how_a_task_ended_is_known_without_systemd(stack):
    """By its own record; when it begins next, by the crontab, also for status."""
    folder = stack.settings.parent
    with stack.settings.open("a") as stream:
        stream.write(f'[metrics]\ntextfile = "{folder}/backups.prom"\n')
    assert stack.run("schedule.install --at 4:30").returncode == 0
    assert stack.run("backup").returncode == 0
    (shown,) = json.loads(stack.run("schedule.show --json").stdout)
    task = next(each for each in shown["tasks"] if each["task"] == "backup")
    assert (task["result"], task["exit_code"]) == ("success", 0)
    assert task["began"] <= task["ended"] < task["next_run"]
    assert "iotstack_backup_next_run_timestamp_seconds" in (folder / "backups.prom").read_text()
    begins = datetime.fromisoformat(task["next_run"])
    assert f"next backup {begins:%Y-%m-%d} 04:30" in stack.run("status").stdout
