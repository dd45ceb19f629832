"""What influxd prints: every captured line is known and every captured situation judged right."""

import json
import re
from dataclasses import replace

import folders
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.databases.influxdb.log import (
    LARGEST_SEEN_FINE_BYTES,
    Level,
    Refusal,
    SkippedShards,
    explain_metadata_refusal,
    judge_backup,
    judge_restore,
    read_backup_line,
    read_restore_line,
    say_internal_left_out,
)
from iotstack_invoke.databases.influxdb.meta import read_meta

LOGS = folders.FIXTURES / "influx-logs"
T = "2026/11/23 01:50:31 "
MAX_SHARD = 2**63


def command(rc):
    return rc.with_suffix(".cmd").read_text().split()


BACKUPS = [rc for rc in sorted(LOGS.glob("**/*.rc")) if "backup" in command(rc)]
RESTORES = [rc for rc in sorted(LOGS.glob("**/*.rc")) if "restore" in command(rc)]


def name(rc):
    return str(rc.relative_to(LOGS).with_suffix(""))


def capture(situation):
    """The lines of both streams and the exit code."""
    base = LOGS / situation
    lines = [
        line
        for kind in (".out", ".err")
        for line in base.with_name(base.name + kind).read_text().split("\n")[:-1]
    ]
    return lines, int(base.with_name(base.name + ".rc").read_text())


def manifest_ids(path):
    files = json.loads((LOGS / path).read_text())["files"]
    return frozenset(each["shardID"] for each in files if each["database"] != "_internal")


def catalogue_of(dump):
    return read_meta(max((folders.FIXTURES / "influx-backups" / dump).glob("*.meta")).read_bytes())


def test_there_are_captures_of_both_commands():
    """The tests below do not run on nothing."""
    assert len(BACKUPS) > 40
    assert len(RESTORES) > 80


@pytest.mark.parametrize("rc", BACKUPS, ids=name)
def test_every_captured_backup_line_is_known(rc):
    """No line that influxd backup was ever seen to print is unknown."""
    assert [line for line in capture(name(rc))[0] if not read_backup_line(line).known] == []


@pytest.mark.parametrize("rc", RESTORES, ids=name)
def test_every_captured_restore_line_is_known(rc):
    """No line that influxd restore was ever seen to print is unknown."""
    assert [line for line in capture(name(rc))[0] if not read_restore_line(line).known] == []


def test_an_unknown_line_is_a_warning_shown_as_it_is():
    """A line of a version to come is neither lost nor taken for a failure."""
    for read in (read_backup_line, read_restore_line):
        line = read("2027/01/01 00:00:00 Something new\n")
        assert (line.level, line.known) == (Level.WARNING, False)
        assert "Something new" in line.say
    good, code = capture("01-happy/backup")
    verdict = judge_backup([*good, "Something new"], code)
    assert verdict.problems == ()
    assert verdict.warnings == ("InfluxDB says: Something new",)


@pytest.mark.parametrize(
    ("situation", "shards"),
    [
        ("01-happy/backup", 31),
        ("v1.8.10/01-happy/backup", 32),
        ("03-empty/backup-nodb", 0),
        ("03-empty/backup-emptydbs", 0),
        ("03-empty/backup-mixed", 1),
        ("v1.8.10/03-empty/backup-nodb", 0),
        ("07-race-newshard/backup", 3),  # only the catalogue shows that two are lost
        ("09-auth/backup", 1),
        ("11-starting/backup-starting", 54),
        ("12-killed/backup-cut-fin", 54),  # only the files show that one is cut
        ("v1.8.10/12-killed/backup-cut-fin", 54),
        ("16-expired/backup-deleted-groups", 5),
        ("v1.8.10/27-tsi/backup-tsi1", 54),
        ("v1.8.10/30-odd-names/backup", 6),
    ],
)
def test_a_good_backup_log_has_no_problems(situation, shards):
    """A log in which all is as it must be gives no problem, no warning and all its shards."""
    verdict = judge_backup(*capture(situation))
    assert (verdict.problems, verdict.warnings, verdict.again) == ((), (), False)
    assert len(verdict.shards) == shards


@pytest.mark.parametrize(
    ("situation", "again", "said"),
    [
        ("08-connect/backup-down", False, "connection refused. Is InfluxDB running"),
        ("08-connect/backup-hang", False, "time limit"),
        ("08-connect/backup-closed", False, "time limit"),
        ("08-connect/backup-httpport", False, "not InfluxDB's backup service"),
        ("10-diskfull/backup-target-full", False, "disk for the dump is full"),
        ("10-diskfull/backup-target-full-download", False, "disk for the dump is full"),
        ("v1.8.10/10-diskfull/backup-target-full", False, "disk for the dump is full"),
        ("12-killed/backup-client-kill", False, "killed"),
        ("12-killed/backup-client-term", False, "did not finish"),
        ("12-killed/backup-client-int", False, "did not finish"),
        ("12-killed/backup-server-term", False, "became unreachable at shard 7"),
        ("12-killed/backup-server-kill-restart", True, "became unreachable at shard 20"),
        ("v1.8.10/12-killed/backup-server-kill-restart", True, "became unreachable at shard 38"),
        ("12-killed/backup-cut-rst", True, "lost inside shard 5"),
        ("v1.8.10/12-killed/backup-cut-rst", True, "lost inside shard 5"),
        ("12-killed/backup-cut-meta", True, "influxd crashed: runtime error"),
        ("19-incremental/since-samedir", False, "window of time"),
        ("19-incremental/start-end-owndir", False, "window of time"),
        ("v1.8.10/19-incremental/full", False, "not a portable dump of all databases"),
        ("v1.8.10/29-legacy/backup-without-portable", False, "Dump with -portable"),
        ("v1.8.10/29-legacy/backup-legacy-db", False, "Dump with -portable"),
        ("v1.8.10/26-db-backup-abort/backup", False, "shard 43 of rnda failed"),
        ("25-cli/backup-db-unknown", False, "EOF"),
        ("25-cli/backup-dir-unwritable", False, "permission denied"),
        ("25-cli/backup-nodir-arg", False, "Exactly one backup path is required."),
    ],
)
def test_a_bad_backup_log_says_what_failed(situation, again, said):
    """Each captured failure has its problem, and `again` only where a second dump may help."""
    verdict = judge_backup(*capture(situation))
    assert any(said in problem for problem in verdict.problems), verdict.problems
    assert verdict.again is again


def test_each_error_is_told_once():
    """An error that influxd says twice is read once."""
    verdict = judge_backup(*capture("25-cli/backup-db-unknown"))
    assert sum("EOF" in problem for problem in verdict.problems) == 1


def test_a_retry_in_the_middle_of_a_shard_is_an_error():
    """Bytes received before a retry make the line an error and are counted."""
    lines = capture("12-killed/backup-cut-rst")[0]
    line = next(read_backup_line(each) for each in lines if "retrying" in each)
    assert (line.level, line.shard, line.retry_bytes) == (Level.ERROR, 5, 150000)


def test_a_full_disk_is_an_error_at_the_first_line():
    """A retry for want of space is an error, so that nobody waits four minutes for nothing."""
    lines = capture("v1.8.10/10-diskfull/backup-target-full")[0]
    read = [read_backup_line(each) for each in lines if "retrying" in each]
    assert {each.level for each in read} == {Level.ERROR}


def test_a_retry_of_a_server_that_starts_is_only_a_warning():
    """A catalogue that came at the second try leaves a good log."""
    lines, code = capture("01-happy/backup")
    retry = f"{T}Download shard 0 failed dial tcp: refused.  Waiting 2s and retrying (0)..."
    verdict = judge_backup([*lines, retry], code)
    assert verdict.problems == ()
    assert len(verdict.warnings) == 1


@pytest.mark.parametrize("required", ["Backing up all databases in portable", "complete:"])
def test_a_required_line_that_is_missing_is_a_problem(required):
    """Exit 0 without the lines of a full portable dump is no success."""
    lines, code = capture("01-happy/backup")
    assert judge_backup([line for line in lines if required not in line], code).problems


def test_a_shard_begun_without_a_file_is_a_problem():
    """Each shard that was begun must end in a file."""
    lines, code = capture("01-happy/backup")
    verdict = judge_backup([line for line in lines if ".s17.tar.gz" not in line], code)
    assert any("The file of shard 17 is missing" in problem for problem in verdict.problems)
    assert 17 not in verdict.shards


def test_an_exit_code_without_any_reason_is_a_problem():
    """A good log with a bad exit code is bad."""
    lines, _ = capture("01-happy/backup")
    assert any("code 7" in problem for problem in judge_backup(lines, 7).problems)
    assert judge_restore([], 7, frozenset()).problems


NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="/"), min_size=1
)


@given(NAMES, NAMES, st.integers(0, MAX_SHARD))
def test_odd_names_do_not_mislead_the_reader_of_a_backup(database, policy, shard):
    """Whatever a database and a policy are called, both and the id are read as they are."""
    line = read_backup_line(
        f"{T}backing up db={database} rp={policy} shard={shard} to /b/n w/"
        f"{database}.{policy}.{shard:05d}.00 since 0001-01-01T00:00:00Z"
    )
    assert (line.level, line.database, line.shard) == (Level.PROGRESS, database, shard)


def test_a_name_like_a_log_line_is_still_a_name():
    """The captured database `x rp=y shard=3` is read as such, with its own id."""
    lines, _ = capture("v1.8.10/30-odd-names/backup")
    found = {(each.database, each.shard) for each in map(read_backup_line, lines) if each.database}
    assert ("x rp=y shard=3", 4) in found
    assert ("my db", 6) in found
    assert ("käse", 3) in found


@given(NAMES, st.integers(0, MAX_SHARD))
def test_odd_names_do_not_mislead_the_reader_of_a_restore(database, shard):
    """A skipped shard keeps its id and its database's name whatever that is."""
    file = f"20261123T015031Z.s{shard}.tar.gz"
    line = read_restore_line(
        f"{T}Meta info not found for shard {shard} on database {database}. "
        f"Skipping shard file {file}"
    )
    assert (line.shard, line.database, line.file) == (shard, database, file)
    assert line.level is (Level.HARMLESS if database == "_internal" else Level.ERROR)


@given(st.text())
def test_any_text_is_read_without_an_error(text):
    """No line, however strange, stops the reader."""
    assert read_backup_line(text).level in Level
    assert read_restore_line(text).level in Level


HAPPY = manifest_ids("01-happy/20261123T015031Z.manifest")


def test_a_whole_restore_is_good_and_leaves_internal_out():
    """All expected shards loaded is good; _internal's are counted, not complained of."""
    verdict = judge_restore(*capture("01-happy/restore"), HAPPY)
    assert verdict.problems == ()
    assert verdict.warnings == ()
    assert verdict.restored == HAPPY
    assert (verdict.skipped_internal, verdict.skipped) == (1, ())
    assert not verdict.metadata_refused


@pytest.mark.parametrize(
    ("situation", "said"),
    [
        ("04-damaged/missing-shard", "Not restored: 2 shards"),
        ("04-damaged/missing-all-shards", "30 expected"),
        ("04-damaged/trunc-half", "stopped midway; drop the databases"),
        ("04-damaged/trunc-zero", "before another try: EOF."),
        ("04-damaged/bitflip", "corrupt input"),
        ("04-damaged/tar-garbage", "invalid tar header"),
        ("04-damaged/missing-manifest", "no finished dump in b/x"),
        ("04-damaged/missing-dir", "no folder b/x"),
        ("04-damaged/missing-meta", "nothing was restored: open b/x"),
        ("04-damaged/bad-flag", "flag provided but not defined"),
        ("05-manifest/manifest-half", "manifest is damaged"),
        ("05-manifest/manifest-wrong-ids", "of database home"),
        ("05-manifest/unreadable-shard", "permission denied. Check the owner"),
        ("08-connect/restore-down", "Is InfluxDB running"),
        ("08-connect/restore-httpport", "not InfluxDB's backup service"),
        ("08-connect/restore-hang", "time limit"),
        ("10-diskfull/restore-server-full", "stopped midway"),
        ("12-killed/restore-of-killed-backup", "no finished dump"),
        ("12-killed/restore-of-rst", "invalid tar header"),
        ("v1.8.10/13-restore-killed/client-KILL", "killed"),
        ("v1.8.10/13-restore-killed/client-TERM", "time limit"),
        ("v1.8.10/13-restore-killed/server-KILL", "stopped midway"),
        ("v1.8.10/29-legacy/restore-portable-of-legacy", "no finished dump"),
    ],
)
def test_a_bad_restore_log_says_what_failed(situation, said):
    """Each captured failure of a restore has its problem."""
    lines, code = capture(situation)
    expected = HAPPY
    if situation.endswith("manifest-wrong-ids"):
        expected = frozenset(each + 1000 for each in HAPPY)
    verdict = judge_restore(lines, code, expected)
    assert any(said in problem for problem in verdict.problems), verdict.problems


def test_missing_shards_are_found_although_influxd_exits_0():
    """Exit 0 and no error line do not hide a shard that was not loaded."""
    lines, code = capture("04-damaged/missing-shard")
    verdict = judge_restore(lines, code, HAPPY)
    assert code == 0
    assert len(HAPPY - verdict.restored) == 2


def test_shards_born_during_the_dump_are_a_loss():
    """A skipped shard that the newest manifest lists is a problem with its database's name."""
    expected = manifest_ids("07-race-newshard/20261123T015545Z.manifest")
    verdict = judge_restore(*capture("07-race-newshard/restore"), expected)
    assert verdict.skipped == (SkippedShards("brandnew", (3,)), SkippedShards("iot", (2,)))
    assert [("brandnew" in p, "iot" in p) for p in verdict.problems] == [
        (True, False),
        (False, True),
    ]


def test_shards_of_an_older_dump_in_the_folder_are_only_a_warning():
    """What the newest manifest does not list is no loss, but the folder was not empty."""
    expected = manifest_ids("06-twobackups/20261123T015456Z.manifest")
    verdict = judge_restore(*capture("06-twobackups/restore"), expected)
    assert verdict.problems == ()
    assert len(verdict.warnings) == 2
    assert verdict.restored == expected


def test_a_shard_silently_taken_from_an_older_dump_is_a_problem():
    """Ids alone do not prove a restore: the files must be of one dump."""
    expected = manifest_ids("06-twobackups/20261123T015456Z.manifest")
    verdict = judge_restore(*capture("06-twobackups/restore-newest-missing"), expected)
    assert verdict.restored == expected
    assert any("different dumps" in problem for problem in verdict.problems)


REFUSED = [
    rc
    for rc in RESTORES
    if any("DB metadata not changed" in line for line in capture(name(rc))[0])
]


@pytest.mark.parametrize("rc", REFUSED, ids=name)
def test_a_refused_catalogue_is_one_problem_and_flagged(rc):
    """The refusal is told once and leaves its cause to be found."""
    verdict = judge_restore(*capture(name(rc)), HAPPY)
    assert verdict.metadata_refused
    assert len(verdict.problems) == 1


@pytest.mark.parametrize("count", [1, 8])
def test_the_line_about_internal_is_one_sentence(count):
    """The harmless lines become one line with their number."""
    said = say_internal_left_out(count)
    assert re.fullmatch(
        rf"InfluxDB's own statistics \({count} shards? of _internal\) left .*", said
    )
    assert ("shards" in said) is (count > 1)


def test_a_damaged_catalogue_comes_first():
    """Without a catalogue nothing else can be the cause."""
    cause = explain_metadata_refusal(None, [], ["telegraf"])
    assert cause.refusal is Refusal.DAMAGED
    assert not cause.success


def test_a_name_in_other_capitals_is_not_in_the_dump():
    """HOME is not home, and the sentence lists what there is."""
    cause = explain_metadata_refusal(catalogue_of("v1.6.7-happy"), ["HOME"], [])
    assert cause.refusal is Refusal.NOT_IN_DUMP
    assert "HOME" in cause.say
    assert "shorty" in cause.say


@pytest.mark.parametrize(
    ("dump", "asked", "on_server"),
    [
        ("v1.6.7-empty0", [], ["_internal"]),
        ("v1.6.7-empty2", [], ["_internal", "a", "b"]),
        ("v1.6.7-mixed", ["a"], ["a"]),
        ("v1.6.7-happy", ["emptydb"], ["emptydb", "telegraf"]),
    ],
)
def test_a_refusal_without_shards_is_success(dump, asked, on_server):
    """With nothing to load and all databases there, the message means success."""
    cause = explain_metadata_refusal(catalogue_of(dump), asked, on_server)
    assert cause.success


def test_empty_databases_that_did_not_come_are_no_success():
    """The message is success only if the server shows the databases."""
    cause = explain_metadata_refusal(catalogue_of("v1.6.7-empty2"), [], ["a"])
    assert not cause.success


def test_one_existing_database_is_named():
    """One database in the way stops all, so it is named; _internal is never in the way."""
    cause = explain_metadata_refusal(catalogue_of("v1.6.7-happy"), [], ["_internal", "telegraf"])
    assert cause.refusal is Refusal.EXISTS
    assert "telegraf" in cause.say
    assert "_internal" not in cause.say


def test_the_new_name_is_what_may_be_in_the_way():
    """A restore under another name is stopped by that name, not by the old one."""
    catalogue = catalogue_of("v1.6.7-happy")
    assert (
        explain_metadata_refusal(catalogue, ["home"], ["home"], new_name="home2").refusal
        is Refusal.UNKNOWN
    )
    assert (
        explain_metadata_refusal(catalogue, ["home"], ["home2"], new_name="home2").refusal
        is Refusal.EXISTS
    )


def test_a_large_catalogue_is_suspected_last():
    """Size is blamed only beyond what was seen to work and with nothing else to blame."""
    catalogue = catalogue_of("v1.6.7-happy")
    large = replace(catalogue, size_bytes=LARGEST_SEEN_FINE_BYTES + 1)
    assert explain_metadata_refusal(large, [], ["_internal"]).refusal is Refusal.LARGE
    assert explain_metadata_refusal(large, [], ["home"]).refusal is Refusal.EXISTS
    assert explain_metadata_refusal(catalogue, [], ["_internal"]).refusal is Refusal.UNKNOWN
