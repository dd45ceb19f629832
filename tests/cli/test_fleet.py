"""One task on several hosts over real sshds: at once, one table, one exit code."""

import signal

import pytest
from contexts import until
from remote_stacks import Laptop, Pi, names_in
from sample_sets import Shelf

from iotstack_invoke.cli.fleet import choose_hosts, read_at_once, worst_of
from iotstack_invoke.core.errors import UsageError
from iotstack_invoke.settings.model import read_settings


@pytest.fixture
def fleet(tmp_path, start_sshd):
    """Return a function that makes a laptop with so many Pis, each with a backup."""

    def make(*roles):
        pis = [
            Pi(tmp_path / f"pi{n}", start_sshd, f"pi{n}", role=role)
            for n, role in enumerate(roles)
        ]
        shelf = Shelf(tmp_path / "press")
        for each in pis:
            each.backups.mkdir()
            shelf.put(f"of-{each.name}", each.backups, host=each.name)
        return Laptop(tmp_path / "laptop", *pis), pis

    return make


def rows(told):
    """Return the words of the table's rows by host."""
    lines = told.stdout.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("host "))
    return {line.split()[0]: line.split() for line in lines[first + 1 :]}


def files_of_sets(*pis):
    """Return the names of the files of all sets that these machines have."""
    return {name for each in pis for name in names_in(each.backups) if name.startswith("of-")}


def test_each_role_and_name_means_its_hosts(fleet):
    """--hosts chooses by role, --host by name; each host is asked once, and each has its log."""
    laptop, _ = fleet("live", "test", "test")
    told = laptop.run("doctor --hosts test")
    assert set(rows(told)) == {"pi1", "pi2"}
    told = laptop.run("doctor --host pi0 --host pi0 --host pi2")
    assert list(rows(told)) == ["pi0", "pi2"]
    assert "pi0: ok    reach: 127.0.0.1 answers" in told.stdout
    assert set(rows(laptop.run("doctor --hosts all --at-once 1"))) == {"pi0", "pi1", "pi2"}
    assert "ok    reach: 127.0.0.1 answers" in laptop.logs["pi1"]


def test_all_that_goes_well_says_nothing(fleet):
    """Under cron a good run on several hosts prints nothing, as on one."""
    laptop, pis = fleet("test", "test")
    told = laptop.run("pull --hosts all")
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    assert set(names_in(laptop.vaults[0])) == files_of_sets(*pis)


def test_a_dead_host_stops_no_other(fleet):
    """It has its row, the code is the worst of all, and the others have done their work."""
    laptop, pis = fleet("test", "test", "test")
    pis[1].sshd.stop()
    told = laptop.run("pull --hosts all")
    assert told.returncode == 1
    assert [row[1] for row in rows(told).values()] == ["good", "failed", "good"]
    assert "pull failed or warned on 1 of 3 hosts: pi1. Logs: " in told.stderr
    assert set(names_in(laptop.vaults[0])) == files_of_sets(pis[0], pis[2])
    assert "is unreachable" in laptop.logs["pi1"]


def test_a_signal_ends_all_of_them_well(fleet):
    """Ctrl-C reaches each host's process once; what waits is not started; nothing stays behind."""
    laptop, pis = fleet("test", "test", "test")
    for each in pis:
        each.tool("tar", 'test "$1" = --version && exec sleep 60; exec /bin/tar "$@"')
    started = laptop.start("doctor --hosts all --at-once 2")
    until(lambda: len([t for t in laptop.logs.values() if "reach" in t]) == 2, 60)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "not started" in out
    assert "failed or warned on 3 of 3 hosts" in err


def test_a_restore_of_several_needs_its_yes(fleet):
    """Nobody is asked once for many; a live one must still be named a second time."""
    laptop, _ = fleet("live", "test")
    told = laptop.run("restore --hosts all --from here")
    assert (told.returncode, "add --yes" in told.stderr) == (13, True)
    told = laptop.run("restore --hosts all --from here --runtag of-nobody --yes --live pi0")
    assert [row[1:3] for row in rows(told).values()] == [["not", "found"]] * 2
    told = laptop.run("restore --hosts all --from here --runtag of-nobody --yes")
    assert [row[1] for row in rows(told).values()] == ["refused", "not"]
    assert told.returncode == 13


@pytest.mark.parametrize(
    ("names", "role", "words"),
    [
        ((), "best", "use one of live, test, all"),
        ((), "live", "no host in hosts.toml has this role"),
        (("pi0", "pi9"), "", "hosts.toml has no host 'pi9'"),
    ],
)
def test_a_wish_that_means_no_host_is_wrong_usage(names, role, words):
    """It is told before any host is asked."""
    settings = read_settings({"hosts": [{"name": "pi0", "host": "pi0"}]}, "hosts.toml")
    with pytest.raises(UsageError, match=words):
        choose_hosts(settings, names, role)


@pytest.mark.parametrize("text", ["0", "65", "x", "-1", ""])
def test_how_many_at_once_is_a_number(text):
    """Another text is wrong usage."""
    with pytest.raises(UsageError, match="at-once"):
        read_at_once(text)


def test_the_worst_code_is_that_of_the_run():
    """A signal is worse than a failure, a refusal worse than a warning."""
    assert worst_of([0, 3, 0]) == 3
    assert worst_of([3, 10, 11]) == 11
    assert worst_of([11, 13, 3]) == 13
    assert worst_of([13, 1, 2]) == 1
    assert worst_of([1, 143, 130]) == 143


@pytest.mark.parametrize("named", [True, False])
def test_commands_that_hosts_tell_repeat_the_settings_file_that_was_named(fleet, named):
    """Each process is told of the file; what it prints has the flag only where a person gave it."""
    laptop, pis = fleet("test", "test")
    for each in pis:
        (each.tools / "docker").write_text("#!/bin/sh\nexit 1\n")
    flag = f" --settings {laptop.settings}" if named else ""
    told = laptop.run(f"restore --hosts all --from here --yes{flag}").stdout
    assert f"To find the cause: inv doctor{flag} --host pi0." in told
    assert ("--settings" in told) is named
    assert told.count("--settings") == told.count("inv doctor --settings")
