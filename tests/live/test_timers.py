"""The schedule under a real systemd as PID 1, which starts a stand-in for the program at its times."""

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import folders
import invoke
import pytest
from booted import USER, Booted, NoMachineError, make_tree
from contexts import put_set, until

SITE = Path(invoke.__file__).parents[1]
HOME = f"/home/{USER}"
UNITS = f"{HOME}/.config/systemd/user"
PROGRAM = "/usr/local/bin/iotstack"
CALLS, HOW = "/var/tmp/calls", "/var/tmp/how"
TIMERS = ("backup", "rehearse", "verify", "monitor")
STAND_IN = f"""#!/usr/bin/python3
import json, os, sys, time
task = sys.argv[1].split(".")[0]
if task in ("schedule", "doctor", "status"):
    sys.path[:0] = [{str(folders.CHECKOUT)!r}, {str(SITE)!r}]
    from iotstack_invoke.cli.command import main
    sys.exit(main())
facts = dict(words=sys.argv[1:], pid=os.getpid(), uid=os.getuid(), home=os.environ.get("HOME"),
             settings=os.environ.get("IOTSTACK_SETTINGS"))
with open({CALLS!r}, "a") as stream:
    stream.write(json.dumps(facts) + "\\n")
how = open({HOW!r}).read().strip() if task == "backup" else "0"
if how == "hang":
    time.sleep(600)
if how.startswith("sh "):
    os.execvp("sh", ["sh", "-ec", how[3:]])
sys.exit(int(how))
"""
SOON = "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/2\nAccuracySec=100ms\nRandomizedDelaySec=0\n"
"""A drop-in for a timer: its unit is ours, and it need not be waited for."""


@pytest.fixture(scope="module")
def booted(tmp_path_factory):
    """A machine that is on, with the stand-in for the program."""
    tree = tmp_path_factory.mktemp("machine") / "tree"
    try:
        make_tree(tree)
    except NoMachineError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    program = tree / PROGRAM[1:]
    program.write_text(STAND_IN)
    program.chmod(0o755)
    machine = Booted(tree, shared=(folders.CHECKOUT, SITE))
    try:
        yield machine.start()
    finally:
        machine.stop()


@pytest.fixture
def machine(booted):
    """The same without a schedule, and with a program that does well."""
    for name in (CALLS, HOW):
        path = booted.tree / name[1:]
        path.write_text("0" if name == HOW else "")
        path.chmod(0o666)
    yield booted
    for user in ("", USER):
        booted.run(PROGRAM, "schedule.remove", user=user)
    booted.run("sh", "-c", f"rm -rf /etc/systemd/system/iotstack* {UNITS}/iotstack*")


def calls(machine, task="backup"):
    """Return what the program was started for, the oldest first."""
    lines = (machine.tree / CALLS[1:]).read_text().splitlines()
    return [each for each in map(json.loads, lines) if each["words"][0] == task]


def schedule(machine, user=USER):
    """Return what is installed, and its tasks by name."""
    (told,) = json.loads(machine.run(PROGRAM, "schedule.show", "--json", user=user).stdout)
    return told, {each["task"]: each for each in told["tasks"]}


def ask(machine, *words, user=USER, check=True):
    """Run systemctl in the machine, that of a user or of the system."""
    if not user:
        return machine.run("systemctl", *words, check=check).stdout
    runtime = "XDG_RUNTIME_DIR=/run/user/1000"
    words = ("systemctl", "--user", *words)
    return machine.run(*words, user=user, environment=(runtime,), check=check).stdout


def start(machine, how, user=USER):
    """Start a backup, which goes as it is told, and wait until it has ended."""
    (machine.tree / HOW[1:]).write_text(how)
    ask(machine, "start", "iotstack-backup.service", user=user, check=False)
    return schedule(machine, user)[1]["backup"]


@pytest.mark.parametrize("user", [USER, ""], ids=["a user's", "the system's"])
def test_a_schedule_is_installed_shown_and_removed(machine, user):
    """Each timer has a next run, before any login of the user; nothing of it is left at the end."""
    told = machine.run(PROGRAM, "schedule.install", "--at", "11:00", user=user).stdout
    assert "backup" in told
    found, tasks = schedule(machine, user)
    assert found["kind"] == ("user" if user else "system")
    assert found["program"] == PROGRAM
    assert tuple(tasks) == TIMERS
    for each in tasks.values():
        assert each["is_enabled"]
        assert each["is_active"]
        assert each["next_run"]
        assert each["ended"] is None
    assert "T11:00:00" in tasks["backup"]["next_run"]
    machine.run(PROGRAM, "schedule.install", "--rehearse", "never", "--prune", "daily", user=user)
    assert tuple(schedule(machine, user)[1]) == ("backup", "verify", "prune", "monitor")
    assert "Removed" in machine.run(PROGRAM, "schedule.remove", user=user).stdout
    assert "iotstack" not in ask(machine, "list-unit-files", user=user)
    assert "iotstack" not in ask(machine, "list-units", "--all", user=user)
    assert json.loads(machine.run(PROGRAM, "schedule.show", "--json", user=user).stdout) == []


def test_units_of_others_stay(machine):
    """An earlier unit by hand is not replaced, and a second schedule is refused."""
    machine.run("mkdir", "-p", UNITS, user=USER)
    unit = machine.tree / UNITS[1:] / "iotstack-backup.timer"
    unit.write_text("[Timer]\nOnCalendar=daily\n")
    refused = machine.run(PROGRAM, "schedule.install", user=USER, check=False)
    assert refused.returncode == 13
    assert "iotstack-backup.timer: not written by this program" in refused.stderr
    machine.run(PROGRAM, "schedule.remove", user=USER)
    assert unit.read_text() == "[Timer]\nOnCalendar=daily\n"
    unit.unlink()
    other = machine.tree / UNITS[1:] / "mine.timer"
    other.write_text("[Timer]\nOnCalendar=daily\n")
    machine.run(PROGRAM, "schedule.install", user=USER)
    second = machine.run(PROGRAM, "schedule.install", "--system", user=USER, check=False)
    assert second.returncode == 13
    assert "inv schedule.remove" in second.stderr or "iotstack schedule.remove" in second.stderr
    machine.run(PROGRAM, "schedule.remove", user=USER)
    assert other.exists()


def test_timers_fire(machine):
    """The program runs as the user, with its home, and with the settings of who installed it."""
    (machine.tree / "etc/my hosts.toml").write_text("")
    words = (PROGRAM, "schedule.install", "--settings", "/etc/my hosts.toml")
    machine.run(*words, user=USER)
    soon = machine.tree / UNITS[1:] / "iotstack-backup.timer.d/soon.conf"
    soon.parent.mkdir()
    soon.write_text(SOON)
    machine.run("chown", "-R", f"{USER}:", UNITS)
    ask(machine, "daemon-reload")
    ask(machine, "restart", "iotstack-backup.timer")
    until(lambda: len(calls(machine)) > 1)
    first = calls(machine)[0]
    assert (first["words"], first["uid"]) == (["backup"], 1000)
    assert (first["home"], first["settings"]) == (HOME, "/etc/my hosts.toml")
    until(lambda: schedule(machine)[1]["backup"]["result"] == "success")
    assert calls(machine, "notify") == []


@pytest.mark.parametrize("user", [USER, ""], ids=["a user's", "the system's"])
def test_what_was_missed_while_it_was_off_is_caught_up(machine, user):
    """The machine was off when the backup was due: it is made soon after the start."""
    hour = (time.localtime().tm_hour + 12) % 24
    machine.run(PROGRAM, "schedule.install", "--at", f"{hour:02}:00", user=user)
    home = f"{HOME}/.local/share/systemd" if user else "/var/lib/systemd"
    stamp = machine.tree / home[1:] / "timers/stamp-iotstack-backup.timer"
    until(stamp.exists)
    assert calls(machine) == []
    machine.stop()
    before_s = time.time() - 2 * 86400
    os.utime(stamp, (before_s, before_s))
    machine.start()
    until(lambda: calls(machine))
    assert len(calls(machine)) == 1


def test_warnings_are_no_failure_and_a_failure_is_reported(machine):
    """Exit code 3 is a success for systemd; any other calls `notify` with the unit's name."""
    machine.run(PROGRAM, "schedule.install", user=USER)
    good = start(machine, "3")
    assert (good["result"], good["exit_code"]) == ("success", 3)
    assert "warnings" in machine.run(PROGRAM, "schedule.show", user=USER).stdout
    assert calls(machine, "notify") == []
    bad = start(machine, "1")
    assert (bad["result"], bad["exit_code"]) == ("exit-code", 1)
    assert "failed, exit code 1" in machine.run(PROGRAM, "schedule.show", user=USER).stdout
    until(lambda: calls(machine, "notify"))
    (told,) = calls(machine, "notify")
    assert told["words"] == ["notify", "--unit", "iotstack-backup.service"]


def test_a_killed_run_is_reported_and_the_next_one_waits_for_none(machine):
    """As the kernel does if the memory is full; a watcher that it left in the background lives."""
    machine.run(PROGRAM, "schedule.install", user=USER)
    left = "setsid sh -c 'sleep 3; touch /var/tmp/resumed' </dev/null >/dev/null 2>&1 & kill -9 $$"
    killed = start(machine, f"sh {left}")
    assert (killed["result"], killed["exit_code"]) == ("signal", 9)
    until(lambda: calls(machine, "notify"))
    until((machine.tree / "var/tmp/resumed").exists)
    assert start(machine, "0")["result"] == "success"


def test_a_run_waits_for_another_one(machine):
    """A rehearsal that is due while a backup runs begins after it."""
    machine.run(PROGRAM, "schedule.install", user=USER)
    (machine.tree / HOW[1:]).write_text("hang")
    ask(machine, "start", "--no-block", "iotstack-backup.service")
    until(lambda: calls(machine))
    ask(machine, "start", "--no-block", "iotstack-rehearse.service")
    ask(machine, "start", "iotstack-monitor.service")  # waits for none
    assert calls(machine, "rehearse") == []
    ask(machine, "stop", "iotstack-backup.service")
    until(lambda: calls(machine, "rehearse"))


PROBE = """
cd /var/tmp; rm -rf probe; mkdir probe; cd probe
touch file; setfattr() { python3 -c 'import os,sys; os.setxattr(*sys.argv[1:3], b"x")' "$@"; }
setfattr file trusted.x; setfattr file security.x
chown 1234:1234 file; chmod 4755 file; mknod device c 1 3
python3 -c 'import os; print(sorted(os.listxattr("file")))'
setpriv --reuid=65534 sleep 60 & sleep 0.5
ls -d /proc/$!/root/etc/passwd
kill $!
"""
"""What a run of root does: all attributes, owners, devices, the mounts of others."""


def test_root_can_do_what_a_run_needs(machine):
    """With the rights that its unit leaves it, and it cannot do what no run does."""
    machine.run(PROGRAM, "schedule.install")
    done = start(machine, f"sh {PROBE}", "")
    log = machine.run("journalctl", "-u", "iotstack-backup", "--no-pager", "-o", "cat").stdout
    assert done["result"] == "success", log
    assert "trusted.x" in log
    assert start(machine, "sh chroot / true", "")["exit_code"]  # CAP_SYS_CHROOT
    machine.run("chroot", "/", "true")


def test_a_system_unit_of_a_user_may_use_sudo(machine):
    """It has what sudo needs, and its runs have the home of the user."""
    machine.run(PROGRAM, "schedule.install", "--system", user=USER)
    (machine.tree / HOW[1:]).write_text("sh sudo -n id -u; sudo -n tar -c /etc/shadow >/dev/null")
    ask(machine, "start", "iotstack-backup.service", user="", check=False)
    tasks = schedule(machine)[1]
    log = machine.run("journalctl", "-u", "iotstack-backup", "--no-pager", "-o", "cat").stdout
    assert tasks["backup"]["result"] == "success", log
    (told,) = calls(machine)
    assert (told["uid"], told["home"]) == (1000, HOME)


def test_python_of_the_machine_is_new_enough(machine):
    """What this file assumes: the machine's Python imports what this computer installed."""
    told = machine.run("python3", "-c", "import sys; print(*sys.version_info[:2])").stdout.split()
    assert [int(each) for each in told] >= [3, 11]
    assert sys.version_info >= (3, 11)


def test_doctor_and_status_know_the_schedule(machine):
    """The doctor hints at a missing one and says what is wrong with one; status, what comes next."""
    backups = machine.tree / HOME[1:] / "IOTstack/backups"
    backups.mkdir(parents=True)
    put_set(backups, datetime.now(UTC), host=machine.run("uname", "-n").stdout.strip())
    machine.run("chown", "-R", f"{USER}:", f"{HOME}/IOTstack")

    def found():
        told = machine.run(PROGRAM, "doctor", "--json", user=USER, check=False).stdout
        rows = [each for each in json.loads(told) if each["name"] == "schedule"]
        return [(each["verdict"], each["found"], each["fix"]) for each in rows]

    hint = ("warning", "none: backups run only when you start them", "inv schedule.install")
    assert found() == [hint]
    machine.run(PROGRAM, "schedule.install", "--at", "11:00", user=USER)
    ((verdict, told, _),) = found()
    assert verdict == "good"
    assert told.startswith("the next backup is at 2")
    assert told.endswith(" 11:00")
    line = machine.run(PROGRAM, "status", user=USER).stdout
    assert line.startswith("OK ")
    assert line.endswith(" 11:00\n")
    assert line.count("\n") == 1
    assert "; next backup 2" in line
    ask(machine, "disable", "--now", "iotstack-verify.timer")
    start(machine, "1")
    assert found() == [
        (
            "warning",
            "the last backup: failed, exit code 1",
            "journalctl --user -u iotstack-backup.service shows why",
        ),
        ("failed", "verify is disabled in systemd", "inv schedule.install"),
    ]
    machine.run("loginctl", "disable-linger", USER)
    until(lambda: ask(machine, "show", check=False) == "")
    alone = ("warning", "runs only while pi is logged in", "sudo loginctl enable-linger pi")
    assert found() == [alone]
    shown = machine.run(PROGRAM, "schedule.show", user=USER, check=False)
    assert shown.returncode == 1
    assert "only while you are logged in: sudo loginctl enable-linger pi" in shown.stderr
    machine.run(PROGRAM, "schedule.remove", user=USER)
    machine.run("test", "!", "-e", f"{UNITS}/iotstack-backup.timer")
    assert found() == [hint]


def test_a_shutdown_is_refused_while_it_is_blocked(machine):
    """By a user's `reboot`, with the reason; afterwards, and without systemd's answer, by none."""
    script = (
        "import subprocess, sys; from iotstack_invoke.hosts.shutdown import shutdown_blocked\n"
        "def locks(): return subprocess.run(['systemd-inhibit', '--list'], capture_output=True)\n"
        "with shutdown_blocked('restoring x', ('sudo', '-n')) as held:\n"
        "    words = ['sudo', 'systemctl', '--check-inhibitors=yes', 'reboot']\n"
        "    told = subprocess.run(words, capture_output=True, text=True)\n"
        "    print(held, told.returncode, told.stderr)\n"
        "print(b'iotstack' in locks().stdout)\n"
        "with shutdown_blocked('x', ('false',)) as held: print(held)\n"
    )
    environment = (f"PYTHONPATH={folders.CHECKOUT}:{SITE}",)
    told = machine.run("python3", "-c", script, user=USER, environment=environment).stdout
    assert told.startswith("True 1 ")
    assert "Operation inhibited by" in told
    assert "restoring x" in told
    assert told.endswith("False\nFalse\n")


@pytest.mark.parametrize("user", [USER, ""], ids=["a user's", "the system's"])
def test_a_credential_reaches_the_run(machine, user):
    """A secret is in a file that this run alone sees, and in no argument or variable."""
    secret = machine.tree / "etc/nas-password"
    secret.write_text("sesame")
    words = (PROGRAM, "schedule.install", "--credential", "nas:/etc/nas-password")
    machine.run(*words, user=user)
    read = 'sh [ "$(cat "$CREDENTIALS_DIRECTORY/nas")" = sesame ]'
    assert start(machine, read, user)["result"] == "success"


DOCKER = "#!/bin/sh\nsystemd-inhibit --list --no-legend >>/var/tmp/locks\n"


def test_a_restore_blocks_a_shutdown_while_it_switches(machine):
    """The lock is there when it asks Docker in the switch, and gone at its end; so with an undo."""
    docker = machine.tree / "usr/local/bin/docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    stack = f"{HOME}/stack"
    flows = machine.tree / stack[1:] / "volumes/nodered/flows.json"
    script = (
        f"mkdir -p {stack}/services {stack}/volumes/nodered; cd {stack};"
        "echo 'services: {}' >docker-compose.yml; echo 1 >volumes/nodered/flows.json;"
        f"printf '[stack]\\nfolder = \"{stack}\"\\n' >{HOME}/hosts.toml"
    )
    machine.run("sh", "-c", script, user=USER)
    environment = (f"PYTHONPATH={folders.CHECKOUT}:{SITE}", f"IOTSTACK_SETTINGS={HOME}/hosts.toml")

    def real(*words):
        words = ("python3", "-m", "iotstack_invoke", *words)
        return machine.run(*words, user=USER, environment=environment, check=False)

    assert real("backup").returncode in {0, 3}
    flows.write_text("2\n")
    (machine.tree / "var/tmp/locks").write_text("")
    (machine.tree / "var/tmp/locks").chmod(0o666)
    told = real("restore", "--from", "here", "--yes")
    assert told.returncode in {0, 3}, told.stderr
    assert flows.read_text() == "1\n"
    locks = (machine.tree / "var/tmp/locks").read_text()
    assert "restoring 20" in locks
    told = real("undo", "--yes", "--last-restore")
    assert told.returncode in {0, 3}, told.stderr
    assert flows.read_text() == "2\n"
    assert "undoing a restore" in (machine.tree / "var/tmp/locks").read_text()
    assert "iotstack" not in machine.run("systemd-inhibit", "--list", "--no-legend").stdout
    docker.unlink()
