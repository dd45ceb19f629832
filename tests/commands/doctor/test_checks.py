"""Findings: what real programs answered, and what is concluded from it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.backups.manifest import Manifest
from iotstack_invoke.backups.sets import BackupSet, State
from iotstack_invoke.commands.shared import checks as findings
from iotstack_invoke.commands.shared.checks import Severity
from iotstack_invoke.databases.influxdb.dump import BACKUP_INSIDE
from iotstack_invoke.databases.influxdb2.dump import Influx2Facts, Influx2Look
from iotstack_invoke.databases.sql.servers import SqlServer
from iotstack_invoke.environment.environment import Newest
from iotstack_invoke.hosts.base import Result
from iotstack_invoke.services.containers import Container
from iotstack_invoke.services.known import cover, read_table
from iotstack_invoke.stack.compose import InspectedContainer, Mount

GOOD, WARNING, FAILED = Severity.GOOD, Severity.WARNING, Severity.FAILED
NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)

GNU_TAR = Result(0, "tar (GNU tar) 1.34\nCopyright (C) 2021 Free Software Foundation, Inc.\n", "")
MISSING = Result(127, "", "bash: line 1: x: command not found\n")
HUNG = Result(124, "", "It did not end within 15 s, so it was stopped: docker version")
NO_DAEMON = Result(
    1,
    "\n",
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon "
    "running?\n",
)
NO_PERMISSION = Result(
    1,
    "\n",
    "permission denied while trying to connect to the Docker daemon socket at "
    "unix:///var/run/docker.sock\n",
)
NO_PLUGIN = Result(
    1, "", "docker: unknown command: docker compose\n\nRun 'docker --help' for more information\n"
)
COMPOSE_1 = Result(
    0, "docker-compose version 1.29.2, build unknown\ndocker-py version: 5.0.3\n", ""
)
COMPOSE_2 = Result(0, "Docker Compose version v2.24.5\n", "")
NO_SYSTEMD = Result(
    1,
    "",
    "System has not been booted with systemd as init system (PID 1). Can't operate.\n"
    "Failed to connect to bus: Host is down\n",
)
DF_TITLES = "Filesystem       Inodes  IUsed    IFree IUse% Mounted on\n"


def verdict(found):
    """Return the verdict of a finding; a fix is there if, and only if, there is need of one."""
    assert bool(found.fix) == (found.verdict is not GOOD)
    assert found.found
    return found.verdict


@pytest.mark.parametrize(
    ("told", "expected", "words"),
    [
        (GNU_TAR, GOOD, "GNU 1.34"),
        (Result(0, "bsdtar 3.6.2 - libarchive 3.6.2 zlib/1.2.13\n", ""), FAILED, "bsdtar"),
        (Result(0, "tar (busybox) 1.36.1\n", ""), FAILED, "busybox"),
        (MISSING, FAILED, "is not installed"),
    ],
)
def test_tar_must_be_gnus(told, expected, words):
    """Another tar than GNU's, and none, stand in the way of every backup."""
    found = findings.judge_tar(told)
    assert verdict(found) is expected
    assert words in found.found


@pytest.mark.parametrize(
    ("told", "fix"),
    [
        (MISSING, "get.docker.com"),
        (NO_DAEMON, "systemctl restart docker"),
        (HUNG, "systemctl restart docker"),
        (NO_PERMISSION, "usermod -aG docker"),
    ],
)
def test_a_docker_that_does_not_answer_has_its_own_fix(told, fix):
    """What mends Docker depends on what it said; it fails a backup only where it is needed."""
    for needed, expected in ((True, FAILED), (False, WARNING)):
        found = findings.judge_docker(told, needed=needed)
        assert verdict(found) is expected
        assert fix in found.fix
        assert (found.found == "permission denied") is (told is NO_PERMISSION)
    good = findings.judge_docker(Result(0, "20.10.24+dfsg1\n", ""), needed=True)
    assert (verdict(good), good.found) == (GOOD, "20.10.24+dfsg1")


@pytest.mark.parametrize(
    ("plugin", "program", "found"),
    [
        (COMPOSE_2, MISSING, "2.24.5 (`docker compose`)"),
        (COMPOSE_2, COMPOSE_1, "2.24.5 (`docker compose`)"),
        (NO_PLUGIN, COMPOSE_1, "1.29.2 (`docker-compose`)"),
    ],
)
def test_either_compose_will_do(plugin, program, found):
    """The plugin is told where both are there, the old program where it is alone."""
    asked = []

    def ask_v1():
        asked.append(program)
        return program

    assert findings.judge_compose(plugin, ask_v1, needed=True).found == found
    assert bool(asked) == (plugin is NO_PLUGIN)


def test_without_any_compose_only_a_restore_fails():
    """A backup needs no compose, so that none is a warning there."""
    judged = [findings.judge_compose(NO_PLUGIN, lambda: MISSING, needed=n) for n in (True, False)]
    assert [verdict(each) for each in judged] == [FAILED, WARNING]


@pytest.mark.parametrize(
    ("user_id", "told", "expected", "found"),
    [
        ("0", None, GOOD, "not needed by root"),
        ("1000", None, GOOD, "not used (sudo = false)"),
        ("1000", Result(0, "", ""), GOOD, "works without a password"),
        (
            *("1000", Result(1, "", "sudo: a password is required\n"), FAILED),
            "needs a password for this user: sudo: a password is required",
        ),
        ("1000", MISSING, FAILED, "is not installed: bash: line 1: x: command not found"),
    ],
)
def test_sudo_is_needed_by_whoever_wants_it(user_id, told, expected, found):
    """Root and a stack of one's own need none; others must have it, and without a password."""
    finding = findings.judge_sudo(user_id, told)
    assert (verdict(finding), finding.found) == (expected, found)


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("1000 700\nwritable\n", GOOD),
        ("1000 2770\nwritable\n", GOOD),
        ("1000 755\nwritable\n", WARNING),
        ("1000 704\nwritable\n", WARNING),
        ("0 755\n", FAILED),
        ("missing\n", GOOD),
        ("dangling\n", FAILED),
        ("file\n", FAILED),
        ("", FAILED),
    ],
)
def test_the_folder_of_the_backups_is_the_users_alone(out, expected):
    """One that the user cannot write fails a backup; one that everybody reads is a warning."""
    assert verdict(findings.judge_backups("/s/backups", Result(0, out, ""))) is expected


@pytest.mark.parametrize(
    ("line", "code", "expected", "found"),
    [
        ("/dev/vda       16777216 522879 16254337    4% /\n", 0, GOOD, "16,254,337 of 16,777,216"),
        ("/dev/sda2             0      0        0     - /mnt/b\n", 0, GOOD, "no limit"),
        ("/dev/root       1000000 999901       99  100% /\n", 0, FAILED, "99 of"),
        ("/dev/root       1000000 960000    40000   96% /\n", 0, WARNING, "40,000 of"),
        ("//nas/a share   1000000 999901       99  100% /mnt/a b\n", 0, FAILED, "99 of"),
        ("", 1, WARNING, "unknown"),
    ],
)
def test_inodes_are_read_from_df(line, code, expected, found):
    """Few free inodes are told; a file system that counts none has no limit."""
    judged = findings.judge_inodes(Result(code, DF_TITLES + line, ""))
    assert verdict(judged) is expected
    assert found in judged.found


@given(free=st.integers(0, 10**15), needed=st.integers(0, 10**15))
def test_space_is_enough_or_not(free, needed):
    """It fails exactly where less is free than the next backup takes."""
    expected = FAILED if free < needed else GOOD
    assert verdict(findings.judge_space("space", free, needed)) is expected


def test_space_that_nobody_tells_is_a_warning():
    """SFTP does not tell what is free; what a backup takes may be unknown."""
    assert verdict(findings.judge_space("space", None, 10)) is WARNING
    assert verdict(findings.judge_space("space", 10, None)) is GOOD


@pytest.mark.parametrize(
    ("points", "expected", "words"),
    [
        ({"volumes/films"}, {"volumes/films": GOOD}, "swaps its entries"),
        ({"volumes"}, {}, ""),
        ({"backups"}, {}, ""),
        ({"volumes/films/new"}, {"volumes/films": WARNING}, "is mounted in it"),
        ({"volumes/films", "volumes/films/a"}, {"volumes/films": WARNING}, "/films/a is mounted"),
        ({"services/x"}, {"services": FAILED}, "of any set is refused"),
        ({"services"}, {"services": FAILED}, "of any set is refused"),
        ({"volumes/db/data"}, {"volumes/db": WARNING}, "data of a database"),
        ({"volumes/db"}, {}, ""),  # its data are a folder on it, which is renamed there
    ],
)
def test_drives_in_the_stack_are_told_as_a_restore_meets_them(points, expected, words):
    """What is swapped entry by entry, and what is refused; with what to do."""
    there = {f"/s/{each}" for each in points}
    judged = [*findings.judge_mounts("/s", there, (), ("/s/volumes/db/data",), needed=True)]
    assert {each.name: verdict(each) for each in judged} == expected
    assert all(words in each.found for each in judged)
    (away,) = findings.judge_mounts("/s", (), ("/s/volumes/films",), (), needed=False)
    assert verdict(away) is WARNING


def test_a_restore_folder_elsewhere_fails_a_restore_only():
    """A rename does not cross file systems; a backup needs none."""
    judged = [findings.judge_device("/s/restore", "1", "2", needed=n) for n in (True, False)]
    assert [verdict(each) for each in judged] == [FAILED, WARNING]
    assert verdict(findings.judge_device("/s/restore", "1", "1", needed=True)) is GOOD


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (Result(0, "NTPSynchronized=yes\n", ""), GOOD),
        (Result(0, "NTPSynchronized=no\n", ""), WARNING),
        (NO_SYSTEMD, WARNING),
        (MISSING, WARNING),
        (Result(0, "", ""), WARNING),
    ],
)
def test_an_unknown_clock_is_no_good_clock(told, expected):
    """Only what says that it is synchronised is taken for it."""
    assert verdict(findings.judge_synchronised(told)) is expected


@pytest.mark.parametrize(
    ("theirs_s", "expected", "words"),
    [
        (1000, GOOD, "agrees"),
        (1007, GOOD, "agrees"),
        (1008, WARNING, "6 s ahead"),
        (993, WARNING, "6 s behind"),
        (994, GOOD, "agrees"),
    ],
)
def test_clocks_are_compared_within_the_time_of_the_question(theirs_s, expected, words):
    """A slow line is no wrong clock: only what lies outside of the question counts."""
    found = findings.judge_clocks(Result(0, f"{theirs_s}\n", ""), 1000.0, 1002.0)
    assert verdict(found) is expected
    assert words in found.found


def container(*mounts, running=True):
    return InspectedContainer(
        Container("influxdb", "influxdb:1.8", "", "", running), mounts, 0, "", "/s"
    )


MAPPED = Mount("/elsewhere", BACKUP_INSIDE)


@pytest.mark.parametrize(
    ("found", "has_data", "expected", "fix"),
    [
        (None, False, GOOD, ""),
        (None, True, WARNING, "docker compose up"),
        (container(MAPPED, running=False), True, WARNING, "docker start influxdb"),
    ],
)
def test_influxdb_must_run(found, has_data, expected, fix):
    """What keeps a dump from being made is told with the line or command that mends it."""
    judged = findings.judge_influx(found, "influxdb", has_data=has_data)
    assert verdict(judged) is expected
    assert fix in judged.fix


def test_a_running_influxdb_is_judged_by_its_version():
    """1.x is ours wherever its dumps come to lie; 2 and 3 are not."""
    assert findings.judge_influx(container(MAPPED), "influxdb", has_data=True) is None
    assert findings.judge_influx(container(), "influxdb", has_data=True) is None
    among = findings.judge_influx_version(container(Mount("/x", "/var/lib/influxdb")), "1.8.10")
    assert among.found == "1.8.10, its backup folder is /x/backup"
    inside = findings.judge_influx_version(container(), "1.8.10")
    assert (verdict(inside), inside.found) == (GOOD, "1.8.10, its dumps are copied by Docker")
    good = findings.judge_influx_version(container(MAPPED), "1.8.10")
    assert (verdict(good), good.found) == (GOOD, "1.8.10, its backup folder is /elsewhere")
    assert verdict(findings.judge_influx_version(container(MAPPED), "2.7.1")) is FAILED


def test_an_influxdb_2_is_judged_by_what_its_dump_needs():
    """What would make its part fail is failed."""
    failing = findings.judge_influx2(Influx2Look(error="it runs InfluxDB 2.0.9"))
    assert (verdict(failing), failing.found) == (FAILED, "it runs InfluxDB 2.0.9")
    for folder, told in (
        ("/y", "its backup folder is /y"),
        ("", "its dumps are copied by Docker"),
    ):
        good = findings.judge_influx2(Influx2Look(Influx2Facts("x", "2.7.10", "/x", folder)))
        assert verdict(good) is GOOD
        assert told in good.found
        assert "experimental" in good.found


def test_each_container_that_is_not_covered_is_a_warning():
    """They are named one by one with their images, but for the one that is judged elsewhere."""
    images = {"mongo": "mongo:7", "grafana": "grafana/grafana", "influxdb": "influxdb:1.8"}
    stopped = [Container(n, i, "", "", running=False) for n, i in images.items()]
    found = findings.judge_databases(cover(stopped, read_table()), "influxdb")
    assert [(each.name, verdict(each)) for each in found] == [("container mongo", WARNING)]
    assert "mongo:7" in found[0].found
    assert [verdict(each) for each in findings.judge_databases([], "x")] == [GOOD]


OWED = '{"job": "restored", "step": "SwapItem", "fields": {}}'
DUMP = '{"job": "dump", "step": "DumpInflux", "fields": {}}'
QUIET = '{"job": "general_archive", "step": "Quiesce", "fields": {}}'
COPIES = '{"job": "general_archive", "step": "CopySqlite", "fields": {}}'


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], GOOD),
        ([OWED, '{"done": "restored"}'], GOOD),
        ([OWED[:20]], GOOD),
        (["[]", "1", "null"], GOOD),
        ([DUMP], WARNING),
        ([COPIES, DUMP], WARNING),
        ([QUIET], WARNING),
        ([OWED], FAILED),
        ([DUMP, OWED, '{"done": "dump"}'], FAILED),
        ([OWED, '{"done": "dump"}', DUMP[:9]], FAILED),
    ],
)
def test_a_restore_that_did_not_end_stands_in_the_way(lines, expected):
    """What a restore owes fails a backup; what a dead backup owes, the next one undoes."""
    found = findings.judge_journal(lines, "inv undo")
    assert verdict(found) is expected
    assert (found.fix == "inv undo") == (expected is FAILED)
    found = findings.judge_journal(lines, "inv undo", "volumes/x")
    assert ("inv undo --leave-gone" in found.fix) == (expected is FAILED)


def test_sets_that_a_run_left_are_told():
    """A set that is unfinished or damaged is a warning, with the command that makes it whole."""
    found = findings.judge_sets(
        BackupSet(f"of {state.value}", {}, state) for state in (*State, State.COMPLETE)
    )
    assert [each.name for each in found] == ["backup of unfinished", "backup of damaged"]
    assert [verdict(each) for each in found] == [WARNING, WARNING]
    assert found[0].fix == "inv backup --runtag 'of unfinished'"


@pytest.mark.parametrize(
    ("hours", "expected"), [(26, GOOD), (26.1, WARNING), (-0.01, GOOD), (None, WARNING)]
)
def test_the_last_backup_may_be_a_day_old(hours, expected):
    """A good backup older than 26 hours, and none, are warnings."""
    newest = Newest()
    if hours is not None:
        made = (NOW - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
        manifest = Manifest("x", "", "", made, made, "", ())
        newest = Newest(BackupSet("x", {}, State.COMPLETE, manifest))
    (found,) = findings.judge_age("last backup", newest, NOW)
    assert verdict(found) is expected


@pytest.mark.parametrize(("state", "told"), [(State.DAMAGED, 1), (State.UNFINISHED, 0)])
def test_a_newer_backup_that_is_no_good_is_a_warning_of_its_own(state, told):
    """Not one that a run may be making now."""
    made = (NOW - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    old = BackupSet("x", {}, State.COMPLETE, Manifest("x", "", "", made, made, "", ()))
    newest = Newest(old, newer=((NOW, BackupSet("new", {}, state)),))
    *newer, age = findings.judge_age("last backup", newest, NOW)
    assert [each.found for each in newer] == ["new, which is newer, is damaged"] * told
    assert [verdict(each) for each in newer] == [WARNING] * told
    assert verdict(age) is GOOD


@pytest.mark.parametrize(
    ("there_hours", "here_hours", "fix"),
    [
        (None, 1, "inv sync"),
        (999, 1, "inv sync"),
        (None, 999, "inv backup"),
        (999, None, "inv backup"),
    ],
)
def test_what_is_good_here_and_not_in_a_vault_is_delivered(there_hours, here_hours, fix):
    """No new backup is advised while a young one here has only to be copied."""

    def newest(hours):
        if hours is None:
            return Newest()
        made = (NOW - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
        manifest = Manifest("x", "", "", made, made, "", ())
        return Newest(BackupSet("x", {}, State.COMPLETE, manifest))

    (found,) = findings.judge_age("nas", newest(there_hours), NOW, newest(here_hours))
    assert (verdict(found), found.fix) == (WARNING, fix)


def test_a_backup_from_the_future_is_a_warning_of_its_own():
    """It is named beside the verdict on the age, which it does not count for."""
    found = findings.judge_age("last backup", Newest(None, ("later",)), NOW)
    assert [verdict(each) for each in found] == [WARNING, WARNING]
    assert "later is dated in the future" in found[0].found


@pytest.mark.parametrize(
    ("told", "judged", "words"),
    [
        (Result(0, "10.11.19-MariaDB-log\n", ""), GOOD, "MariaDB 10.11.19"),
        (Result(77, "", "the login of root was refused: ERROR 1045\n"), FAILED, "was refused"),
        (Result(127, "", "it has no program mariadb or mysql\n"), FAILED, "no program"),
        (
            Result(1, "", "Error response from daemon: container x is not running\n"),
            FAILED,
            "run",
        ),
    ],
)
def test_a_database_that_lets_nobody_in_is_found(told, judged, words):
    """What would make a dump fail fails here, with what mends it."""
    found = findings.judge_sql(SqlServer("mariadb", "mariadb"), told)
    assert verdict(found) is judged
    assert words in found.found


def test_what_is_not_covered_says_itself_what_to_do():
    """Once, and without a hint that mends nothing; of what could not be read, compose says more."""
    told = "NOT COVERED: x.env, which compose needs, does not exist. Put it back."
    found = findings.judge_holdings([("", told), ("app", told), ("", "a.yml is no YAML.")])
    assert [(each.name, each.found, each.fix) for each in found] == [
        ("not covered", told.removeprefix("NOT COVERED: "), ""),
        ("container app", told, ""),
        ("not covered", "a.yml is no YAML.", "for details: docker compose config"),
    ]
