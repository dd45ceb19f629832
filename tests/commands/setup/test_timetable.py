"""When what runs by itself begins; its units and lines, as systemd and cron read them."""

import shlex
import shutil
import subprocess
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as some

from iotstack_invoke.commands.setup import crontab, units
from iotstack_invoke.commands.setup.timetable import COMMANDS, Program, Timer, read_timers
from iotstack_invoke.core.errors import UsageError

PROGRAM = Program(("/home/pi/.local/bin/iotstack",))
EVERY = {"rehearse": "weekly", "verify": "monthly", "prune": "daily"}
TIMERS = read_timers("11:00", EVERY, "30min")
AN_ODD_ONE = Program(
    ("/opt/50% of a/iotstack",), settings='/etc/my %h/"hosts" $x.toml', home="/root"
)


@pytest.mark.parametrize(
    ("at", "every", "delay", "told"),
    [
        ("25:00", {}, "", "--at 25:00: must be a time of day"),
        ("11", {}, "", "--at 11: must be"),
        ("11:00", {"verify": "yearly"}, "", "--verify yearly: use one of daily"),
        ("11:00", {}, "13h", "--random-delay 13h: must be at most 12h"),
        ("11:00", {}, "x", "'x' is not a duration"),
    ],
)
def test_what_is_no_time_is_refused(at, every, delay, told):
    """The message names the flag, and what is allowed."""
    with pytest.raises(UsageError, match=told):
        read_timers(at, every, delay)


def test_tasks_follow_each_other_through_the_day():
    """An hour apart, over midnight too; what is never wanted is missing, the monitor never is."""
    found = read_timers("22:30", {"rehearse": "weekly", "verify": "never", "prune": "monthly"})
    assert [(each.task, each.every, each.minute) for each in found] == [
        ("backup", "daily", 22 * 60 + 30),
        ("rehearse", "weekly", 23 * 60 + 30),
        ("prune", "monthly", 60 + 30),
        ("monitor", "hourly", 0),
    ]


@pytest.mark.parametrize(
    ("timer", "begins"),
    [
        (Timer("backup", "daily", 660), "2026-12-01T11:00"),
        (Timer("backup", "daily", 600), "2026-12-02T10:00"),
        (Timer("rehearse", "weekly", 720), "2026-12-06T12:00"),
        (Timer("verify", "monthly", 600), "2027-01-01T10:00"),
        (Timer("verify", "monthly", 601), "2026-12-01T10:01"),
        (Timer("monitor", "hourly", 7), "2026-12-01T10:07"),
        (Timer("monitor", "hourly", 0), "2026-12-01T11:00"),
    ],
)
def test_the_next_run(timer, begins):
    """The first one that is not over, whatever the day of the week or month."""
    now = datetime(2026, 12, 1, 10, 0, 30 if timer.minute == 600 else 0)
    assert timer.next_run(now) == datetime.fromisoformat(begins)


def test_units_of_a_user():
    """Word for word: what a person finds in ~/.config/systemd/user."""
    found = units.render(TIMERS, PROGRAM, units.Owner(is_system=False))
    head = (
        "# Written by `schedule.install`, which replaces this file; `systemctl edit` adds to it.\n"
        "# Program: /home/pi/.local/bin/iotstack\n\n"
    )
    assert found["iotstack-backup.service"] == head + (
        "[Unit]\n"
        "Description=IOTstack: back up the stack\n"
        "OnFailure=iotstack-failed@%n.service\n"
        "\n"
        "[Service]\n"
        "Type=oneshot\n"
        "ExecStart=flock --no-fork /home/pi/.local/bin/iotstack /home/pi/.local/bin/iotstack "
        "backup\n"
        "SuccessExitStatus=3\n"
        "KillMode=process\n"
        "TimeoutStopSec=5min\n"
    )
    assert found["iotstack-backup.timer"] == head + (
        "[Unit]\n"
        "Description=IOTstack: back up the stack, daily\n"
        "\n"
        "[Timer]\n"
        "OnCalendar=*-*-* 11:00:00\n"
        "Persistent=true\n"
        "RandomizedDelaySec=1800s\n"
        "FixedRandomDelay=true\n"
        "\n"
        "[Install]\n"
        "WantedBy=timers.target\n"
    )
    assert found["iotstack-failed@.service"] == head + (
        "[Unit]\n"
        "Description=IOTstack: report that %i failed\n"
        "\n"
        "[Service]\n"
        "Type=oneshot\n"
        "ExecStart=/home/pi/.local/bin/iotstack notify --unit %i\n"
    )
    when = {name: units.calendar_in(text) for name, text in found.items() if "timer" in name}
    assert when == {
        "iotstack-backup.timer": "*-*-* 11:00:00",
        "iotstack-rehearse.timer": "Sun *-*-* 12:00:00",
        "iotstack-verify.timer": "*-*-01 13:00:00",
        "iotstack-prune.timer": "*-*-* 14:00:00",
        "iotstack-monitor.timer": "*-*-* *:00:00",
    }
    assert "flock" not in found["iotstack-monitor.service"]
    assert set(found) < set(units.all_names())
    assert {units.program_in(text) for text in found.values()} == {"/home/pi/.local/bin/iotstack"}


def test_units_of_the_system():
    """Root's have fewer rights; those of a user keep what sudo needs. Both wait for Docker."""
    roots = units.render(TIMERS[:1], AN_ODD_ONE, units.Owner(is_system=True), listens=True)
    text = roots["iotstack-backup.service"]
    for line in (
        "After=network-online.target docker.service",
        "Environment=HOME=/root",
        'Environment="IOTSTACK_SETTINGS=/etc/my %%h/\\"hosts\\" $x.toml"',
        *units.AS_ROOT,
    ):
        assert f"\n{line}\n" in text
    assert "WantedBy=multi-user.target" in roots["iotstack-listen.service"]
    of_pi = units.render(
        TIMERS[:1], PROGRAM, units.Owner(True, "pi"), credentials=["nas:/etc/nas.key"]
    )["iotstack-backup.service"]
    assert "\nUser=pi\n" in of_pi
    assert "\nLoadCredential=nas:/etc/nas.key\n" in of_pi
    assert "CapabilityBoundingSet=" in of_pi
    for implies_no_sudo in ("NoNewPrivileges", "Restrict", "SystemCall", "LockPersonality"):
        assert implies_no_sudo not in of_pi
    assert "HOME" not in of_pi


@pytest.mark.parametrize(
    "owner", [units.Owner(False), units.Owner(True), units.Owner(True, "root")]
)
@pytest.mark.parametrize("folder", ["50% of a", "o'brien", "a$HOME ${b}", 'q"uo\\te'])
def test_systemd_finds_no_fault(tmp_path, owner, folder):
    """`systemd-analyze verify` has nothing to say, also of a path with odd characters."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    path = tmp_path / folder / "iotstack"
    path.parent.mkdir()
    path.touch(0o755)
    program = Program((str(path),), AN_ODD_ONE.settings, AN_ODD_ONE.home)
    found = units.render(TIMERS, program, owner, listens=True, credentials=["a:/etc/hostname"])
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    told = subprocess.run(
        [
            "systemd-analyze",
            "verify",
            "--man=no",
            *(tmp_path / name for name in found if "@" not in name),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    ours = [each for each in told.stderr.splitlines() if "iotstack-" in each]
    assert ours == []


def test_lines_of_cron():
    """Word for word, and read back: when, and what."""
    block = crontab.render(TIMERS, PROGRAM, seed=0)
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    program = "/home/pi/.local/bin/iotstack"
    assert block.splitlines() == [
        "# BEGIN iotstack: schedule.install replaces these lines, schedule.remove removes them",
        f"# Program: {program}",
        f"0 11 * * * PATH={path} flock --no-fork {program} {program} backup",
        f"0 12 * * 0 PATH={path} flock --no-fork {program} {program} rehearse",
        f"0 13 1 * * PATH={path} flock --no-fork {program} {program} verify --all",
        f"0 14 * * * PATH={path} flock --no-fork {program} {program} prune --at all --yes",
        f"0 * * * * PATH={path} {program} monitor --no-vaults",
        "# END iotstack",
    ]
    read = crontab.timers_in(block)
    assert [(e.task, e.every, e.minute) for e in read] == [
        (e.task, e.every, e.minute) for e in TIMERS
    ]
    assert units.program_in(block) == program


def test_an_odd_path_in_a_line_of_cron():
    """To cron a `%` ends the line unless a backslash is before it; sh reads the rest."""
    line = crontab.render(TIMERS[:1], AN_ODD_ONE, seed=0).splitlines()[2]
    command = line.split(" ", 5)[5]
    assert "%" not in command.replace(r"\%", "")
    words = shlex.split(command.replace(r"\%", "%"))
    assert words[1:] == [
        f"IOTSTACK_SETTINGS={AN_ODD_ONE.settings}",
        *("flock", "--no-fork", AN_ODD_ONE.path, AN_ODD_ONE.path, "backup"),
    ]
    assert [each.task for each in crontab.timers_in(line)] == ["backup"]


def test_machines_begin_at_different_times_with_cron():
    """Each by its number, within the delay, and the same machine always at the same."""
    begun = [
        crontab.timers_in(crontab.render(TIMERS[:1], PROGRAM, seed))[0]
        for seed in range(0, 1801, 60)
    ]
    assert [each.minute for each in begun] == list(range(660, 691))
    assert Timer("backup", "daily", 1439, 600).later(600).minute == 9


@given(some.text(some.sampled_from("# a\n*%1")), some.booleans())
def test_everything_else_in_a_crontab_stays(others, is_there):
    """Whatever the owner has there, a block that comes, changes and goes leaves it as it is."""
    blocks = [crontab.render(TIMERS[:count], PROGRAM, 0) for count in (1, 2)]
    whole = others if others.endswith("\n") or not others else f"{others}\n"
    begun = crontab.replaced(others, blocks[0] if is_there else blocks[1])
    changed = crontab.replaced(begun, blocks[1])
    assert changed == whole + blocks[1]
    assert crontab.replaced(changed, "") == whole
    assert crontab.replaced(blocks[0] + others, blocks[1]) == blocks[1] + others


def test_a_line_of_the_owner_is_seen():
    """A backup that cron makes by a line of theirs is a schedule; a comment is none."""
    line = "0 3 * * *  $HOME/.local/bin/iotstack backup\n"
    assert crontab.has_own_line(line)
    assert not crontab.has_own_line(f"# {line}")
    assert not crontab.has_own_line(crontab.render(TIMERS, PROGRAM, 0))


def test_each_command_is_one_that_is_there():
    """A task that got another name would fail at night."""
    from iotstack_invoke.cli.tasks_and_flags import namespace

    missing = {words[0] for words in COMMANDS.values()} - set(namespace.task_names)
    assert missing == set()
