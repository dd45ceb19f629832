"""The schedule on a machine with cron: by the real crontab(1), whose folder is one of the test."""

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta

import pytest
from contexts import until

from iotstack_invoke.commands.doctor.schedule import judge_schedule
from iotstack_invoke.commands.setup import schedule
from iotstack_invoke.commands.setup.installed import Schedule, Scheduled
from iotstack_invoke.commands.setup.schedule import choose_kind, own_program, read_request
from iotstack_invoke.core.errors import Refused, UsageError
from iotstack_invoke.settings.model import read_settings

TABS = "/var/spool/cron/crontabs"
OWN = "MAILTO=me\n# mine\n5 4 * * 1  echo 100\\% \n"


@pytest.mark.parametrize(
    ("asked", "facts", "kind"),
    [
        ("", (True, True, True), "system"),
        ("", (False, True, True), "user"),
        ("", (False, False, True), "cron"),
        ("cron", (True, True, True), "cron"),
        ("system", (False, True, False), "system"),
    ],
)
def test_which_kind_a_machine_gets(asked, facts, kind):
    """Timers if systemd runs it, the system's for root; else cron; or what was named."""
    is_root, systemd, cron = facts
    assert choose_kind(asked, is_root=is_root, systemd=systemd, cron=cron) == kind


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("", "neither systemd nor cron, so nothing can start backups. Install cron"),
        ("user", "systemd does not run this machine, which --user needs. Use --cron"),
        ("cron", "crontab is missing. Install it: sudo apt-get install cron"),
    ],
)
def test_a_machine_without_either_is_told_what_to_do(asked, told):
    """Nothing can be installed on it; the message names what would help."""
    with pytest.raises(Refused, match=told):
        choose_kind(asked, is_root=False, systemd=False, cron=False)


@pytest.mark.parametrize(
    ("kinds", "credentials", "told"),
    [
        (("user", "cron"), (), "Give only one of: --user, --cron"),
        ((), ("nas",), "--credential nas: must be NAME:FILE"),
        ((), ("nas:key",), "--credential nas:key: must be NAME:FILE"),
    ],
)
def test_contradictory_flags_are_refused(kinds, credentials, told):
    """The message names the flags."""
    with pytest.raises(UsageError, match=told):
        read_request("3:00", {}, "", dict.fromkeys(kinds, True), credentials=credentials)


def test_the_program_is_found_from_anywhere(monkeypatch, tmp_path):
    """The console script by its absolute path, else Python's; settings only if it needs to be told."""
    settings = tmp_path / "hosts.toml"
    settings.write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(schedule, "places_to_look", lambda _environment: [str(settings)])
    monkeypatch.setattr(sys, "argv", ["bin/iotstack", "schedule.install"])
    found = own_program(read_settings({}, "hosts.toml"))
    assert (found.words, found.settings) == ((f"{tmp_path}/bin/iotstack",), "")
    monkeypatch.setattr(sys, "argv", ["/x/inv", "schedule.install"])
    found = own_program(read_settings({}, "other.toml"))
    assert found.words == (sys.executable, "-Pm", "iotstack_invoke")
    assert found.settings == f"{tmp_path}/other.toml"
    assert own_program(read_settings({}, "")).settings == ""


@pytest.fixture
def stack(little_stack, tmp_path):
    """A stack on a machine with cron, whose folder of crontabs is empty."""
    if shutil.which("crontab") is None or os.geteuid():
        reason = "needs cron, and root to give it a folder of its own"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    tabs = tmp_path / "crontabs"
    tabs.mkdir()
    shutil.copystat(TABS, tabs)
    shutil.chown(tabs, group="crontab")
    little_stack.tabs = tabs
    script = f'mount --bind "$1" {TABS}; shift; exec "$@"'
    little_stack.before = ("unshare", "-m", "sh", "-ec", script, "sh", str(tabs))
    return little_stack


def write(stack, text):
    words = [*stack.before, "crontab", "-"]
    subprocess.run(words, input=text, text=True, check=True)


def read(stack):
    words = [*stack.before, "crontab", "-l"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def findings(stack):
    told = stack.run("doctor --json").stdout
    return [each for each in json.loads(told) if each["name"] == "schedule"]


def test_a_block_of_the_crontab_is_ours_alone(stack):
    """It comes, is replaced and goes; the rest stays to the byte, and an empty crontab goes too."""
    write(stack, OWN)
    dry = stack.run("schedule.install --cron --dry-run").stdout
    assert read(stack) == OWN
    assert "IOTSTACK_SETTINGS=" in dry
    told = stack.run("schedule.install --cron --at 11:00")
    assert told.returncode == 0, told.stderr
    first = read(stack)
    assert first.startswith(OWN)
    assert "\n0 11 * * * " in first
    assert "in this user's crontab" in told.stdout
    stack.run("schedule.install --cron --at 12:30 --rehearse never --random-delay 1min")
    second = read(stack)
    assert second.startswith(OWN)
    assert second.count("BEGIN iotstack") == 1
    assert " rehearse" not in second
    (shown,) = json.loads(stack.run("schedule.show --json").stdout)
    assert (shown["kind"], shown["program"]) == ("cron", sys.executable)
    assert [each["task"] for each in shown["tasks"]] == ["backup", "verify", "monitor"]
    assert "T12:3" in shown["tasks"][0]["next_run"]
    (found,) = findings(stack)
    assert found["verdict"] == "good"
    assert " 12:3" in found["found"]
    assert "Removed the schedule" in stack.run("schedule.remove").stdout
    assert read(stack) == OWN
    write(stack, "")
    stack.run("schedule.install --cron")
    stack.run("schedule.remove")
    assert not list(stack.tabs.iterdir())
    assert "nothing was changed" in stack.run("schedule.remove").stdout


def test_the_doctor_hints_at_a_schedule(stack):
    """Without any; a line of the owner's is one."""
    (found,) = findings(stack)
    assert (found["verdict"], found["fix"]) == ("warning", "inv schedule.install")
    write(stack, "0 3 * * *  $HOME/.local/bin/iotstack backup\n")
    (found,) = findings(stack)
    assert found["verdict"] == "good"


def test_what_needs_systemd_is_refused_for_cron(stack):
    """A listener and credentials are units' alone; nothing is written."""
    for flag in ("--listen", "--credential nas:/etc/key"):
        told = stack.run(f"schedule.install --cron {flag}")
        assert told.returncode == 2
        assert f"{flag.split()[0]} needs systemd" in told.stderr
    assert read(stack) == ""


def test_a_program_that_is_gone_is_a_failure():
    """It would start nothing, as after an installation elsewhere; so is a timer that is off."""
    known = Schedule("cron", texts={"cron": "# Program: /gone/iotstack\n"})
    tasks = [Scheduled("backup", "daily", is_active=False)]
    found = list(judge_schedule(known, tasks, has_program=False))
    assert [(each.verdict.value, each.found) for each in found] == [
        ("failed", "starts /gone/iotstack, which cannot be run"),
        ("failed", "backup is not active in systemd"),
    ]


def test_cron_runs_the_line(stack, tmp_path):
    """The real cron starts the program at its time, by a path with spaces and a percent sign."""
    program = tmp_path / "50% of it" / "iotstack"
    program.parent.mkdir()
    log = tmp_path / "log"
    body = f'import os, sys\nopen({str(log)!r}, "a").write(" ".join(sys.argv[1:]) + os.environ["IOTSTACK_SETTINGS"] + "\\n")\n'
    real = f'if sys.argv[1] == "schedule.install":\n    sys.path[:0] = {sys.path!r}\n    from iotstack_invoke.cli.command import main\n    sys.exit(main())\n'
    program.write_text(f"#!{sys.executable}\nimport sys\n{real}{body}")
    program.chmod(0o755)
    at = f"{datetime.now() + timedelta(minutes=2):%H:%M}"
    words = [*stack.before, program, "schedule.install", "--cron", "--at", at]
    subprocess.run(words, env=stack.environment, check=True, capture_output=True)
    pid = ("--mount-proc", "--fork", "--pid", "--kill-child")
    run = 'mount -t tmpfs tmpfs /run; mount --bind "$1" /var/spool/cron/crontabs; exec cron -f'
    words = ["unshare", "-m", *pid, "sh", "-ec", run, "sh", str(stack.tabs)]
    daemon = subprocess.Popen(words)
    try:
        until(lambda: "backup" in log.read_text(), 180)
    finally:
        daemon.kill()
        daemon.wait()
    assert f"backup{stack.settings}" in log.read_text()


def test_bytes_of_a_crontab_stay(scheduling_stack):
    """A comment in Latin-1, and the line ends of Windows."""
    tab = scheduling_stack.tools / "crontab.tab"
    own = b"# caf\xe9\r\n0 1 * * * echo \\%H\n"
    tab.write_bytes(own)
    assert scheduling_stack.run("schedule.install --cron").returncode == 0
    assert tab.read_bytes().startswith(own)
    assert scheduling_stack.run("schedule.remove").returncode == 0
    assert tab.read_bytes() == own


def test_a_crontab_that_cannot_be_read_is_not_replaced(scheduling_stack):
    """It would lose the lines of its owner."""
    tab = scheduling_stack.tools / "crontab.tab"
    tab.write_text("0 1 * * * precious\n")
    crontab = scheduling_stack.tools / "crontab"
    crontab.write_text(
        crontab.read_text().replace("-l)", "-l) echo Cannot allocate memory >&2; exit 1;", 1)
    )
    done = scheduling_stack.run("schedule.install --cron")
    assert done.returncode == 13
    assert "cannot be read: Cannot allocate memory. Nothing was changed." in done.stderr
    assert tab.read_text() == "0 1 * * * precious\n"


def test_a_line_that_was_changed_by_hand_hides_no_other(scheduling_stack):
    """The tasks after it are still of the schedule."""
    tab = scheduling_stack.tools / "crontab.tab"
    scheduling_stack.run("schedule.install --cron")
    tab.write_text(tab.read_text().replace(" backup\n", " backup --runtag 'x\n"))
    shown = scheduling_stack.run("schedule.show")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "monitor" in shown.stdout
