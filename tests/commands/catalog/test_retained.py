"""What lets older backups go, and what never does: real folders and vaults, no Docker."""

import json
import os
import pty
import shutil
import socket
import subprocess
import time
from datetime import UTC, datetime, timedelta

import pytest
from contexts import NOON, foreign_archive, put_set, until
from sample_sets import new_form

from iotstack_invoke.backups.manifest import utc_text
from iotstack_invoke.backups.owner import OWNER_FILE
from iotstack_invoke.environment.environment import sets_in
from iotstack_invoke.hosts.local import LocalHost

HOME = {"influx": {"databases": ["home"], "version": "1.8.10"}}
TWO = {"mariadb": {"servers": [{"container": n, "rows": {n: {"t": 1}}} for n in ("db", "wiki")]}}


@pytest.fixture
def pi(little_stack, tmp_path):
    """A stack that keeps two backups, here and in its vault `nas`, a folder."""
    little_stack.backups, little_stack.nas = little_stack.folder / "backups", tmp_path / "nas"
    little_stack.backups.mkdir()
    little_stack.nas.mkdir()
    little_stack.settings.write_text(
        f'[stack]\nfolder = "{little_stack.folder}"\nsudo = false\nkeep = 2\n'
        f'[[vaults]]\nname = "nas"\nkind = "folder"\nfolder = "{little_stack.nas}"\n#policy\n'
    )
    return little_stack


def set_line(pi, before, after):
    pi.settings.write_text(pi.settings.read_text().replace(before, after))


def put(folder, days, more=None):
    """Put a whole set that is so many days old into a folder; return its runtag."""
    path = put_set(folder, NOON - timedelta(days=days), more=more)
    return path.name.removesuffix(".manifest.json")


def put_foreign(folder, days):
    """Put archives without a manifest into a folder, as other tools make them."""
    tag = f"{NOON - timedelta(days=days):%Y-%m-%d_%H%M}"
    (folder / f"{tag}.general-backup.tar.gz").write_bytes(foreign_archive())
    return tag


def said(told):
    """Return what a command said of what is wrong, on one line."""
    return " ".join(told.stderr.split())


def tags(folder):
    return [each.runtag for each in sets_in(LocalHost(str(folder)), str(folder))]


def nights(pi, count, first=1):
    """Make so many backups, and return their runtags, the newest first."""
    made = []
    for number in range(first, first + count):
        assert pi.run(f"backup --runtag night{number}").returncode in (0, 3)
        made.insert(0, f"night{number}")
    return made


# A service that is gone


def test_five_nights_without_influxdb_push_out_nothing_that_has_it(pi):
    """As many sets as are to be kept have it still, in both places, and status is never OK."""
    set_line(pi, "#policy", "keep = 2")
    older, old = (put(pi.backups, days, HOME) for days in (2, 1))
    assert pi.run("sync").returncode == 0
    for number in range(1, 6):
        nights(pi, 1, number)
        assert pi.run("prune --at all").returncode == 0
        told = pi.run("status")
        assert (told.returncode, told.stderr) == (1, "")
        lacking = f"night{number} is missing the influx part (newest in {old})"
        assert told.stdout.startswith(f"WARNING here, nas: {lacking}; night{number} ")
    assert tags(pi.backups) == tags(pi.nas) == ["night5", "night4", old, older]
    assert "the newest with the influx part" in pi.run("prune --at all --dry-run").stdout
    assert f"night5 is missing the influx part (newest in {old})." in pi.run("list").stderr


def test_a_restore_of_the_latest_says_what_it_lacks(pi):
    """Among the first lines: what an older backup holds besides, and which; not where one is named."""
    old = put(pi.backups, 1, HOME)
    nights(pi, 1)
    told = pi.run("restore --runtag latest --from here --dry-run")
    lacking = f"It is missing data that an older backup has: the influx part (newest in {old})."
    assert lacking in told.stdout + told.stderr
    told = pi.run("restore --runtag night1 --from here --dry-run")
    assert lacking not in told.stdout + told.stderr


@pytest.mark.parametrize("name", ["influx", "influxdb", "home"])
def test_what_is_allowed_to_be_missing_is_written_down(pi, name):
    """The owner says it once: what had it goes, status is OK, and the next set with it counts."""
    old = put(pi.backups, 1, HOME)
    nights(pi, 2)
    assert old in tags(pi.backups)
    if name == "home":  # the part itself is another thing than its database
        assert pi.run("prune --allow-missing home").returncode == 0
        assert old not in tags(pi.backups)  # a part of which nothing is left is gone
    else:
        dry = pi.run(f"prune --allow-missing {name} --dry-run")
        assert (dry.returncode, old in tags(pi.backups)) == (0, True)
        assert pi.run("status --at here").returncode == 1
        assert pi.run(f"prune --allow-missing {name}").returncode == 0
        assert tags(pi.backups) == ["night2", "night1"]
    put(pi.backups, 2, HOME)
    assert pi.run("status --at here").returncode == 0
    again = put_set(pi.backups, datetime.now().astimezone(), runtag="again", more=HOME)
    until(lambda: int(time.time()) > again.stat().st_mtime + 1)
    nights(pi, 3, 3)
    assert "again" in tags(pi.backups)
    assert pi.run("status --at here").returncode == 1


def test_what_is_said_is_of_the_backups_that_there_are(pi):
    """Whatever the clock says, which was ahead: InfluxDB came back, and is gone again."""
    newest = datetime.now(UTC) - timedelta(hours=3)
    put_set(pi.backups, newest - timedelta(days=1), runtag="old", more=HOME)
    put_set(pi.backups, newest, runtag="without")
    assert pi.run("status --at here").returncode == 1
    assert pi.run("prune --allow-missing influx").returncode == 0
    line = json.loads((pi.backups / OWNER_FILE).read_text())
    assert line["about"] == utc_text(newest)
    line["utc"] = utc_text(newest + timedelta(days=900))
    (pi.backups / OWNER_FILE).write_text(json.dumps(line))
    assert pi.run("status --at here").returncode == 0
    put_set(pi.backups, newest + timedelta(hours=1), runtag="again", more=HOME)
    for number in (1, 2, 3):
        put_set(pi.backups, newest + timedelta(hours=1, minutes=number), runtag=f"gone{number}")
    assert pi.run("status --at here").returncode == 1
    assert pi.run("prune --undelivered --yes").returncode == 0
    assert tags(pi.backups) == ["gone3", "gone2", "again"]


@pytest.mark.parametrize("key", ["utc", "about"])
def test_what_was_said_in_the_future_excuses_nothing(pi, key):
    """An earlier version wrote no more than the time of its clock, and a set's may be ahead too."""
    put(pi.backups, 2, HOME)
    put(pi.backups, 1)
    ahead = utc_text(datetime.now(UTC) + timedelta(days=900))
    told = {"utc": ahead, key: ahead, "gone": ["influx"], "host": socket.gethostname()}
    (pi.backups / OWNER_FILE).write_text(json.dumps(told))
    assert pi.run("status --at here --max-age 3d").returncode == 1
    told |= dict.fromkeys((key, "utc"), utc_text(datetime.now(UTC)))
    (pi.backups / OWNER_FILE).write_text(json.dumps(told))
    assert "is missing" not in pi.run("status --at here --max-age 3d").stdout


def test_a_name_that_several_things_bear_is_asked_for_in_full(pi):
    """Databases of two servers, a container, a volume and a path: each has a longer name."""
    server = {"container": "home", "rows": {"x": {"t": 1}}}
    other = {"container": "db", "rows": {"home": {"t": 1}}}
    volume = {"outside": [{"path": "/v/home/_data", "volume": "home"}]}
    more = HOME | {"postgres": {"servers": [server]}, "mariadb": {"servers": [other]}}
    sets = [put(pi.backups, 1), put(pi.backups, 2), put(pi.backups, 3, more | {"outside": volume})]
    told = pi.run("prune --allow-missing home")
    assert (told.returncode, tags(pi.backups)) == (2, sets)
    full = ["influx:home", "mariadb:db:home", "postgres:home", "volume:home"]
    said = " ".join(told.stderr.split())
    listed = " or ".join(f"--allow-missing {each}" for each in full)
    assert f"--allow-missing home is ambiguous. Use {listed}." in said
    for each in full:
        assert tags(pi.backups) == sets
        assert pi.run(f"prune --undelivered --yes --allow-missing {each}").returncode == 0
    assert tags(pi.backups) == sets[:2]


def test_a_machine_of_another_name_is_asked_for_all_that_it_had(pi):
    """What lies beside the stack is the stack's; in a vault it is another machine's."""
    for folder in (pi.backups, pi.nas):
        path = put_set(folder, NOON - timedelta(days=1), host="earlier", more=HOME)
    old = path.name.removesuffix(".manifest.json")
    told = pi.run("backup --runtag new")
    assert told.returncode == 3
    assert f"The influx part is missing: {old} has one" in told.stderr
    lacking = f"the influx part (newest in {old})"
    status = pi.run("status")
    assert (status.returncode, status.stdout.count(lacking)) == (1, 1)
    for line in ("list", "prune --dry-run", "restore --runtag latest --from here --dry-run"):
        told = pi.run(line)
        assert lacking in " ".join((told.stdout + told.stderr).split()), line
    assert pi.run("prune --allow-missing influx").returncode == 0
    assert pi.run("status").returncode == 0


def test_a_copy_that_is_another_backup_of_that_name_is_told(pi):
    """Its manifest is whole, and tells something else than the one here."""
    nights(pi, 1)
    path = pi.nas / "night1.manifest.json"
    told = json.loads(path.read_text())
    del told["parts"]["general"]["facts"]["sizes"]
    path.write_text(new_form(told))
    status = pi.run("status")
    assert status.returncode == 1
    assert "nas: night1 is not the same backup as the one here" in status.stdout


def test_a_slip_in_what_may_be_missing_is_told(pi):
    """A name that no backup holds removes nothing, and the message names what there is."""
    old = put(pi.backups, 1, HOME)
    nights(pi, 2)
    told = pi.run("prune --allow-missing inflix")
    assert (told.returncode, old in tags(pi.backups)) == (2, True)
    assert "--allow-missing inflix: no backup there has" in told.stderr
    assert "Did you mean influx? Known: " in told.stderr


def test_a_slip_in_a_path_is_told_with_the_path_that_is_meant(pi):
    """Paths and volumes may be named as well, so what is like one is offered."""
    (pi.folder / "volumes/copies").mkdir()
    (pi.folder / "volumes/copies/a").write_text("a")
    nights(pi, 1)
    told = pi.run("prune --allow-missing volume/copies")
    assert (told.returncode, told.stdout) == (2, "")
    assert "database, path or volume of that name. Did you mean volumes/copies?" in told.stderr
    for each in ("general", "volumes/copies", "./docker-compose.yml"):
        assert each in told.stderr.partition("Known: ")[2]


def test_a_service_that_hosts_toml_skips_keeps_nothing(pi):
    """`kind = "skip"` says that it is gone; a database that bears the name is not meant."""
    old = put(pi.backups, 2, HOME)
    database = put(pi.backups, 1, {"influx": {"databases": ["home", "influxdb"]}})
    nights(pi, 2)
    assert {old, database} <= set(tags(pi.backups))
    with pi.settings.open("a") as stream:
        stream.write('[[services]]\nname = "grafana"\nkind = "skip"\nreason = "none"\n')
    assert pi.run("status --at here").returncode == 1
    with pi.settings.open("a") as stream:
        stream.write('[[services]]\nname = "influxdb"\nkind = "skip"\nreason = "gone"\n')
    assert pi.run("status --at here").returncode == 0
    assert pi.run("prune").returncode == 0
    assert tags(pi.backups) == ["night2", "night1"]


def test_one_container_that_is_skipped_leaves_the_others(pi):
    """Of a part with two databases' containers, the one that was not skipped is still missed."""
    old = put(pi.backups, 1, TWO)
    nights(pi, 2)
    with pi.settings.open("a") as stream:
        stream.write('[[services]]\nname = "db"\nkind = "skip"\nreason = "gone"\n')
    told = pi.run("status --at here")
    assert told.returncode == 1
    assert f"is missing the mariadb part (newest in {old})" in told.stdout
    with pi.settings.open("a") as stream:
        stream.write('[[services]]\nname = "wiki"\nkind = "skip"\nreason = "gone"\n')
    assert pi.run("status --at here").returncode == 0


def test_an_incomplete_backup_after_a_good_one_is_a_warning(pi):
    """The newest good one is young, but the night after it failed in part."""
    put_set(pi.backups, datetime.now().astimezone() - timedelta(hours=3))
    assert pi.run("status --at here").returncode == 0
    put_set(pi.backups, datetime.now().astimezone() - timedelta(hours=1), error="it is gone")
    told = pi.run("status --at here")
    assert told.returncode == 1
    assert "which is newer, is incomplete: no general part" in told.stdout


# When the retention runs


def test_a_backup_that_failed_removes_nothing(pi):
    """A part that could not be made, a copy that could not, a hook: the older sets all stay."""
    old = [put(pi.backups, days) for days in (1, 2, 3, 4)]
    assert pi.run("sync").returncode == 0
    pi.runs(postgres="postgres:15")  # whose dump says nothing
    assert pi.run("backup --runtag part").returncode == 1
    assert set(old) < set(tags(pi.backups))
    pi.runs(nodered="nodered/node-red")
    pi.nas.rename(pi.nas.with_name("away"))
    assert pi.run("backup --runtag copy").returncode == 3
    assert set(old) < set(tags(pi.backups))
    pi.nas.with_name("away").rename(pi.nas)
    with pi.settings.open("a") as stream:
        stream.write('[hooks]\nafter_backup = [["false"]]\n')
    assert pi.run("backup --runtag hook").returncode == 1
    assert set(old) < set(tags(pi.backups))
    set_line(pi, '["false"]', '["true"]')
    assert pi.run("backup --runtag good").returncode == 0
    assert not set(old) & set(tags(pi.backups))


def test_a_copy_that_is_damaged_keeps_the_set_here(pi, start_sshd):
    """Where nothing can be hashed the copy is not replaced: the vault lacks it, and it is told."""
    login = start_sshd("sftp", "ForceCommand internal-sftp").login()
    set_line(pi, 'kind = "folder"', 'kind = "ssh"')
    set_line(
        pi,
        "#policy",
        f'host = "{login.host}"\nuser = "{login.user}"\nport = {login.port}\n'
        f'key = "{login.key}"\nssh_config = "{login.config}"\n'
        f'known_hosts = "{login.known_hosts}"',
    )
    tag = put(pi.backups, 1)
    assert pi.run("sync").returncode == 0
    (pi.nas / f"{tag}.general-backup.tar.gz").write_bytes(b"y" * 10)
    assert pi.run("verify --at nas").returncode == 1
    for night in ("night1", "night2", "night3"):
        told = pi.run(f"backup --runtag {night}")
        assert told.returncode == 3
        assert f"{tag} was not copied to nas: its copy there is damaged" in told.stderr
    assert tag in tags(pi.backups)
    assert "its copy in nas is damaged" in pi.run("prune").stdout
    put_foreign(pi.backups, 800)
    assert "its copy in nas is damaged" in pi.run("prune --adopt").stdout
    assert tag in tags(pi.backups)
    (pi.nas / f"{tag}.general-backup.tar.gz").unlink()
    (pi.nas / f"{tag}.manifest.json").unlink()
    assert pi.run("backup --runtag night4").returncode == 0
    assert (tag in tags(pi.nas), tag in tags(pi.backups)) == (True, False)


def test_another_backup_of_its_name_in_the_vault_keeps_the_set_here(pi):
    """A flat vault has another machine's backup of that name: it is no copy of ours."""
    tag = put(pi.backups, 1)
    put_set(pi.nas, NOON - timedelta(days=1), host="other-pi")
    nights(pi, 3)
    assert tag in tags(pi.backups)


# Pins


def test_a_pin_goes_where_its_set_goes(pi):
    """Pinned while the vault was away, it is pinned there once it is delivered, note and all."""
    away = pi.nas.with_name("away")
    first, second = put(pi.backups, 2), put(pi.backups, 1)
    assert pi.run("sync").returncode == 0
    pi.nas.rename(away)
    assert pi.run("backup --runtag late").returncode == 3
    for tag in (first, "late"):
        assert pi.run(f"pin {tag} --note 'before the move'").returncode == 1  # not there
    away.rename(pi.nas)
    assert pi.run("sync").returncode == 0
    for tag in (first, "late"):
        assert (pi.nas / f"{tag}.pin.txt").read_text() == "before the move\n"
    assert pi.run(f"pin {first} --remove").returncode == 0
    assert pi.run("sync").returncode == 0
    assert not (pi.nas / f"{first}.pin.txt").exists()
    assert second in tags(pi.nas)


def test_what_is_pinned_anywhere_goes_nowhere(pi):
    """A pin here keeps the copy in the vault, and one in the vault keeps the set here."""
    sets = [put(pi.backups, days) for days in (1, 2, 3, 4)]
    assert pi.run("sync").returncode == 0
    (pi.backups / f"{sets[3]}.pin.txt").write_text("here\n")
    (pi.nas / f"{sets[2]}.pin.txt").write_text("there\n")
    assert pi.run("prune --at all --keep 1 --yes").returncode == 0
    assert tags(pi.backups) == tags(pi.nas) == [sets[0], *sets[2:]]
    nights(pi, 3)
    assert set(sets[2:]) < set(tags(pi.backups))


def test_what_a_pin_keeps_here_is_delivered_whatever_the_policy_there(pi):
    """A pinned set is sent with its pin, though the vault's own policy alone would let it go."""
    set_line(pi, "#policy", "keep = 1")
    put(pi.backups, 1)
    old = put(pi.backups, 9)
    (pi.backups / f"{old}.pin.txt").write_text("mine\n")
    assert pi.run("sync").returncode == 0
    assert (pi.nas / f"{old}.pin.txt").read_text() == "mine\n"
    assert pi.run("prune --at nas").returncode == 0
    assert old in tags(pi.nas)


# Archives of other tools


def test_archives_of_other_tools_stay_until_they_are_adopted(pi):
    """No policy removes them; adopted, they were read to their end, and that is said once."""
    foreign = {put_foreign(pi.backups, days) for days in (700, 800)}
    torn = put_foreign(pi.backups, 900)
    path = pi.backups / f"{torn}.general-backup.tar.gz"
    path.write_bytes(path.read_bytes()[:-9])
    nights(pi, 5)
    everything = {*foreign, torn}
    assert everything < set(tags(pi.backups))
    assert pi.run("prune").returncode == 0
    assert everything < set(tags(pi.backups))
    dry = pi.run("prune --adopt --dry-run")
    assert (dry.returncode, everything < set(tags(pi.backups))) == (0, True)
    told = pi.run("prune --adopt")
    for tag in foreign:
        assert f"{tag} here was adopted: it has no manifest, but can be read" in told.stdout
    assert f"{torn} here was not adopted, so it stays" in told.stderr
    assert set(tags(pi.backups)) & everything == {torn}
    assert pi.run("prune").returncode == 0
    assert torn in tags(pi.backups)


def test_adopted_in_hosts_toml_they_go_as_the_policy_says(pi):
    """`adopt = true` takes in what would go, by a backup as well; what stays is not read."""
    young, old = put_foreign(pi.backups, 0), put_foreign(pi.backups, 800)
    set_line(pi, "keep = 2", "keep = 2\nadopt = true")
    nights(pi, 1)
    assert {young, old} < set(tags(pi.backups))
    told = pi.run("backup --runtag night2")
    assert (told.returncode, told.stdout.count("was adopted")) == (0, 1)
    assert old not in tags(pi.backups)
    assert "was adopted" not in pi.run("backup --runtag night3").stdout


def test_one_that_is_not_the_same_any_more_is_not_adopted(pi):
    """Other archives of the name of adopted ones are read anew before they go."""
    tag = put_foreign(pi.backups, 800)
    nights(pi, 1)
    assert "was adopted" in pi.run("prune --adopt").stdout
    assert tag in tags(pi.backups)  # fewer than two good ones
    (pi.backups / f"{tag}.general-backup.tar.gz").write_bytes(foreign_archive(5000))
    nights(pi, 2, 2)
    assert tag in tags(pi.backups)


# By hand, in a vault


def test_what_the_next_backup_would_bring_back_is_told(pi):
    """The sets are named, and so is the setting with which they would not come back."""
    sets = [put(pi.backups, days) for days in (1, 2, 3, 4)]
    assert pi.run("sync").returncode == 0
    told = pi.run("prune --at nas --keep 2")
    assert told.returncode == 0
    assert f"{sets[2]}, {sets[3]} are here still, so the next backup or `inv sync`" in told.stderr
    assert 'with keep = 2 below [[vaults]] name = "nas" in hosts.toml' in told.stderr
    assert tags(pi.nas) == sets[:2]
    assert pi.run("sync").returncode == 0
    assert tags(pi.nas) == sets
    set_line(pi, "#policy", "keep = 2")
    told = pi.run("prune --at nas")
    assert (told.returncode, told.stderr) == (0, "")
    assert pi.run("sync").returncode == 0
    assert tags(pi.nas) == sets[:2]


def test_what_goes_here_as_well_does_not_come_back(pi):
    """Of what one command removes in both places, only what stays here is told."""
    sets = [put(pi.backups, days) for days in (1, 2, 3, 4)]
    assert pi.run("sync").returncode == 0
    for words in ("--dry-run", "--yes"):
        told = pi.run(f"prune --at all --keep 2 {words}")
        assert (told.returncode, told.stderr) == (0, "")
    assert tags(pi.backups) == tags(pi.nas) == sets[:2]
    assert pi.run("sync").returncode == 0
    assert tags(pi.nas) == sets[:2]


def typed(pi, line, answer):
    """Run `iotstack LINE` at a terminal where somebody types an answer; return its exit code."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        pi.words(line), env=pi.environment, stdin=theirs, stdout=subprocess.DEVNULL, text=True
    ) as running:
        os.write(ours, f"{answer}\n".encode())
        code = running.wait(60)
    os.close(ours)
    os.close(theirs)
    return code


def test_at_a_terminal_it_asks_before_a_vault_loses_anything(pi):
    """What is typed must be the name of the place; --yes asks nothing, and so does --dry-run."""
    sets = [put(pi.nas, days) for days in (1, 2, 3, 4)]
    assert typed(pi, "prune --at nas --keep 3", "no") == 13
    assert tags(pi.nas) == sets
    assert typed(pi, "prune --at nas --keep 3", "nas") == 0
    assert tags(pi.nas) == sets[:3]
    assert typed(pi, "prune --at nas --keep 2 --yes", "") == 0
    for each in sets[:2]:
        for path in pi.nas.glob(f"{each}.*"):
            shutil.copy2(path, pi.backups)
    assert typed(pi, "prune --at all --keep 1", "yes") == 13
    assert typed(pi, "prune --at all --keep 1 --dry-run", "") == 0
    assert tags(pi.backups) == tags(pi.nas) == sets[:2]
    assert typed(pi, "prune --at all --keep 1", "all") == 0
    assert tags(pi.backups) == tags(pi.nas) == sets[:1]


@pytest.mark.parametrize("at", ["", "--at all"])
def test_at_a_terminal_it_asks_before_this_machine_loses_anything(pi, at):
    """As of a vault, also where it alone loses some; where none would go, nobody is asked."""
    sets = [put(pi.backups, days) for days in (1, 2)]
    assert pi.run("sync").returncode == 0
    assert typed(pi, f"prune {at} --keep 2", "") == 0
    assert typed(pi, f"prune {at} --keep 1", "") == 13
    assert tags(pi.backups) == sets
    assert typed(pi, f"prune {at} --keep 1", "all" if at else "here") == 0
    assert tags(pi.backups) == sets[:1]


def test_where_nobody_is_this_machine_is_pruned_without_a_question(pi):
    """As cron does it."""
    sets = [put(pi.backups, days) for days in (1, 2)]
    assert pi.run("sync").returncode == 0
    told = pi.run("prune --keep 1")
    assert (told.returncode, told.stderr, tags(pi.backups)) == (0, "", sets[:1])


def test_where_nobody_is_the_last_copy_needs_a_yes(pi):
    """A policy that was typed removes no set of which no other copy is known; hosts.toml's does."""
    sets = [put(pi.nas, days) for days in (1, 2, 3)]
    told = pi.run("prune --at nas --keep 2")
    assert (told.returncode, tags(pi.nas)) == (13, sets)
    assert f"{sets[2]} may have no other copy" in told.stderr
    put(pi.backups, 3)
    assert pi.run("prune --at nas --keep 2").returncode == 0
    set_line(pi, "#policy", "keep = 1")
    assert pi.run("prune --at nas").returncode == 0
    assert tags(pi.nas) == sets[:1]


# What a vault lacks, or may lack


def test_what_a_vault_that_is_away_may_lack_stays_here(pi):
    """Nobody knows what it has, so each set may be the only copy: it is named, with the way out."""
    sets = [put(pi.backups, days) for days in (1, 2, 3)]
    away = pi.nas.rename(pi.nas.with_name("away"))
    for line, code in (("--at all", 1), ("--dry-run", 3), ("", 3), ("--yes", 3)):
        told = pi.run(f"prune {line} --keep 1")
        assert (told.returncode, tags(pi.backups)) == (code, sets), line
        assert told.stdout.count("nas may be missing it: unreachable") == 2
        assert "here: 0 of 3 sets w" in told.stdout
        assert (
            f"nas is unreachable and may be missing {sets[1]}, {sets[2]}: not removed here. `inv sync` copies them there; inv prune --undelivered removes them anyway."
            in said(told)
        )
    away.rename(pi.nas)
    assert pi.run("sync").returncode == 0
    assert pi.run("prune --keep 1").returncode == 0
    assert (tags(pi.backups), tags(pi.nas)) == (sets[:1], sets)


def test_what_a_vault_lacks_stays_unless_its_policy_would_remove_it_there(pi):
    """As after a backup; what the vault has, and what it is not to have, goes."""
    sets = [put(pi.backups, days) for days in (1, 2, 3, 4)]
    for days in (1, 4):
        put(pi.nas, days)
    told = pi.run("prune --keep 1 --json")
    assert (told.returncode, tags(pi.backups)) == (3, sets[:3])
    (here,) = json.loads(told.stdout)
    assert [each["keep"] for each in here["sets"]] == [True, True, True, False]
    assert {each["why"] for each in here["sets"][1:3]} == {"nas is missing it"}
    assert f"nas is missing {sets[1]}, {sets[2]}: not removed here." in said(told)
    set_line(pi, "#policy", "keep = 2")
    told = pi.run("prune --keep 1")
    assert (told.returncode, tags(pi.backups)) == (3, sets[:2])
    assert "inv sync` copies it there;" in said(told)


def test_who_needs_room_says_that_undelivered_sets_go(pi):
    """By a flag, and where no other copy of one is known by a yes or a name typed, which names it."""
    sets = [put(pi.backups, days) for days in (1, 2, 3)]
    put(pi.nas, 3)
    line = "prune --keep 1 --undelivered"
    told = pi.run(line)
    assert (told.returncode, tags(pi.backups)) == (13, sets)
    assert f"{sets[1]} may have no other copy, and there is no terminal" in said(told)
    assert "1 newer good set is kept; nas is missing it" in told.stdout
    assert typed(pi, line, "") == 13
    assert typed(pi, line, "here") == 0
    assert tags(pi.backups) == sets[:1]
    put(pi.backups, 2)
    told = pi.run(f"{line} --yes")
    assert (told.returncode, told.stderr, tags(pi.backups)) == (0, "", sets[:1])


def test_a_copy_that_goes_as_well_is_no_other_copy(pi):
    """Of a set that one vault lacks, and another loses by the same command."""
    set_line(pi, "keep = 2", "keep = 1")
    set_line(pi, "#policy", "keep = 1")
    usb = pi.nas.with_name("usb")
    usb.mkdir()
    with pi.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{usb}"\n')
    for folder in (pi.backups, pi.nas):
        sets = [put(folder, days) for days in (1, 2)]
    put(usb, 1)
    told = pi.run("prune --at all --undelivered")
    assert (told.returncode, tags(pi.backups), tags(pi.nas)) == (13, sets, sets)
    assert f"{sets[1]} may have no other copy," in said(told)
    assert pi.run("prune --undelivered").returncode == 0
    assert (tags(pi.backups), tags(pi.nas)) == (sets[:1], sets)


def test_programs_read_why_a_set_stays(pi):
    """The JSON of prune has the same reasons."""
    old = put(pi.backups, 1, HOME)
    nights(pi, 2)
    (here,) = json.loads(pi.run("prune --json").stdout)
    why = {each["runtag"]: each["why"] for each in here["sets"]}
    assert why[old] == "the newest with the influx part"


@pytest.mark.parametrize("at", ["here", "nas"])
def test_who_is_asked_keeps_no_backup_waiting(pi, at):
    """A question in a forgotten terminal holds no lock; what was confirmed is judged anew."""
    set_line(pi, "keep = 2", "keep = 9")
    folder = pi.nas if at == "nas" else pi.backups
    sets = [put(folder, days) for days in (2, 3)]
    terminal, stdin = os.openpty()
    line = f"prune --at {at} --keep 1 --undelivered"
    with pi.start(line, stdin=stdin, stderr=subprocess.STDOUT) as process:
        os.close(stdin)
        seen = ""
        while f"Type '{at}'" not in seen:
            seen += process.stdout.read(1) or pytest.fail(seen)
        told = pi.run("backup --runtag new")
        assert told.returncode == 0, told.stderr
        put(folder, 1)
        os.write(terminal, f"{at}\n".encode())
        told = " ".join(process.communicate(timeout=60)[0].split())
    os.close(terminal)
    assert process.returncode == 13
    assert f"The backups in {at} changed before you confirmed, so the list is out of date." in told
    assert set(sets) < set(tags(folder))
    assert typed(pi, line, at) == 0
    assert not set(sets) & set(tags(folder))
