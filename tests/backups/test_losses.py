"""What a set holds much less of than an earlier one is told, with before and after."""

import json
from dataclasses import replace

import pytest
from sample_sets import new_form, old_form

from iotstack_invoke.backups.holdings import lost_databases
from iotstack_invoke.backups.losses import FLOOR_BYTES, FLOOR_ROWS, losses, reference
from iotstack_invoke.backups.manifest import LeftOut, Manifest, Part, read_manifest
from iotstack_invoke.backups.sets import BackupSet, State

BIG = 3 * FLOOR_BYTES


def manifest(sizes=None, *, runtag="then", kinds=("general",), out=(), host="pi", error=""):
    facts = {} if sizes is None else {"sizes": {k: list(v) for k, v in sizes.items()}}
    parts = tuple(
        Part(kind, f"{runtag}.x", 12_345, error=error, facts=facts if kind == "general" else {})
        for kind in kinds
    )
    left_out = tuple(LeftOut(each, "r") for each in out)
    times = ("2026-11-23T11:00:00Z", "2026-11-23T11:01:00Z")
    return Manifest(runtag, host, "", *times, "UTC", parts, left_out=left_out)


def told(before, after, *, out_before=(), out=()):
    then, now = manifest(before, out=out_before), manifest(after, runtag="now", out=out)
    return losses(then, now)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"volumes/a": (BIG, 3)}, {"volumes/a": (BIG // 2 - 1, 3)}, "holds 1,572,863 bytes in 3"),
        ({"volumes/a": (BIG, 3)}, {"volumes/a": (0, 0)}, "is empty now"),
        ({"volumes/a": (BIG, 1)}, {"volumes/b": (1, 1)}, "is missing now"),
        ({"volumes/m": (5, 1)}, {"volumes/m": (0, 0)}, "is empty now: then has 5 bytes in 1 file"),
        ({"volumes/a/m": (5, 2)}, {"volumes/a/m": (0, 0)}, "then has 5 bytes in 2 files of it"),
        ({"services/s": (5, 1)}, {"volumes/b": (5, 1)}, "is missing now: then has 5 bytes"),
        ({"volumes/a": (BIG, 1)}, {"volumes/a": (0, 1)}, "holds 0 bytes in 1 file now: then has"),
        (
            {"volumes/m": (0, 3)},
            {"volumes/m": (0, 0)},
            "is empty now: then has 0 bytes in 3 files",
        ),
        ({"home": (5, 1)}, {"volumes/b": (5, 1)}, "is missing now: then has 5 bytes"),
    ],
)
def test_what_fell_by_more_than_half_is_told(before, after, words):
    """With what there was, in which set, and what there is."""
    (warning,) = told(before, after)
    (path,) = before
    assert warning.startswith(f"{path} ")
    assert words in warning
    gone = f"If it is gone for good: inv prune --allow-missing {path.replace('home', './home')}."
    left = after.get(path, (0, 0))[0]
    assert ("If this is intended, do nothing" if left else gone) in warning


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"volumes/a": (BIG, 3)}, {"volumes/a": (BIG // 2, 1)}),
        ({"volumes/m": (FLOOR_BYTES - 1, 3)}, {"volumes/m": (1, 1)}),
        ({"volumes/m": (0, 0)}, {"volumes/m": (0, 0)}),
        ({"volumes/a": (1, 1)}, {"volumes/a": (BIG, 1)}),
        (None, {"volumes/a": (1, 1)}),
        ({"volumes/a": (BIG, 1)}, None),  # no record, or no general part
        ({"volumes/a": (BIG, 1)}, {}),
    ],
)
def test_what_comes_and_goes_is_not_told(before, after):
    """Small things that are less, what grew, and what nothing is known of."""
    assert told(before, after) == ()


def test_what_is_lost_within_a_folder_is_told_once():
    """Of what is empty as a whole, else of the innermost path; an outer one if it lost more."""
    before = {"volumes/a": (3 * BIG, 9), "volumes/a/m": (2 * BIG, 3), "volumes/a/m/n": (BIG, 1)}
    after = {"volumes/a": (BIG, 6), "volumes/a/m": (0, 0)}
    lines = told(before, after)
    assert [line.split()[0] for line in lines] == ["volumes/a/m"]
    lines = told(before, {"volumes/a": (1, 1), "volumes/a/m": (0, 0)})
    assert [line.split()[0] for line in lines] == ["volumes/a/m", "volumes/a"]
    assert f"{BIG:,} bytes in 6 files" in lines[-1]


def test_a_folder_that_holds_nothing_is_told_without_those_in_it():
    """Where all volumes lie on one drive, that is one warning; and never are there very many."""
    before = {f"volumes/{n}": (BIG, 1) for n in range(30)}
    whole = {"volumes": (30 * BIG, 30), "services/a": (BIG, 1)}
    (warning,) = told(before | whole, {"volumes": (0, 0), "services/a": (BIG, 1)})
    assert warning.startswith(f"volumes is empty now: then has {30 * BIG:,} bytes in 30 files")
    lines = told(before, {"services/a": (BIG, 1)})
    assert len(lines) == 11
    assert lines[-1].startswith(
        "20 more folders have less than half of their earlier content: inv diff"
    )


def test_an_empty_mount_in_a_small_folder_is_told():
    """With the folder around it, if that holds nothing else."""
    before = {"volumes/a": (9, 2), "volumes/a/m": (5, 1)}
    (warning,) = told(before, {"volumes/a": (4, 1), "volumes/a/m": (0, 0)})
    assert warning.startswith("volumes/a/m is empty now")
    (warning,) = told(before, {"volumes/a": (0, 0), "volumes/a/m": (0, 0)})
    assert warning.startswith("volumes/a is empty now")


def test_a_drive_that_no_container_mounts_is_told_whatever_it_held():
    """It was a mount point then; that it is none now is what is wrong."""
    (warning,) = told({"volumes/a/films": (5, 1)}, {"volumes/a/films": (0, 0)})
    assert warning.startswith("volumes/a/films is empty now")


@pytest.mark.parametrize(
    "out", ["volumes/a", "volumes/a/*", "volumes/a/videos/*", "volumes/*/x", "volumes/a/b*"]
)
def test_what_is_left_out_since_then_is_not_told(out):
    """The owner, or a dump, or a new default is why; but not what was left out then, too."""
    before, after = {"volumes/a": (BIG, 3)}, {"volumes/a": (5, 1)}
    assert told(before, after, out=[out]) == ()
    assert told(before, after, out_before=[out], out=[out])
    assert told(before, after, out=["volumes/ab/*"])


def test_a_part_that_is_missing_is_told():
    """One that could not be made is told as that, and a new one is none."""
    then = manifest({}, kinds=("general", "influx"))
    (warning,) = losses(then, manifest({}))
    assert warning.startswith("The influx part is missing: then has one of 12,345 bytes")
    assert losses(then, manifest({}, kinds=("general", "influx"), error="no")) == ()
    assert losses(manifest({}), then) == ()


def databases(**facts):
    parts = [Part(kind, kind, 5, facts=each) for kind, each in facts.items()]
    return replace(manifest(), parts=tuple(parts))


def servers(rows=0, **held):
    return {
        "servers": [
            {"container": k, "rows": {each: {"t": rows} if rows else {} for each in v}}
            for k, v in held.items()
        ]
    }


def shards(*sizes):
    return {
        "databases": ["home"],
        "shards": [{"database": "home", "size_bytes": size} for size in sizes],
    }


def buckets(size):
    found = ("home", size), ("_monitoring", 0)
    return {
        "buckets": [
            {"organization": "o", "bucket": name, "shards": bool(n), "size_bytes": n}
            for name, n in found
        ]
    }


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        (
            {"mariadb": servers(4, db="a")},
            {"mariadb": servers(db="a")},
            "database a of container db",
        ),
        (
            {"postgres": servers(4, pg="a")},
            {"postgres": servers(pg="a")},
            "database a of container",
        ),
        (
            {"gitea": servers(4, g="a")},
            {"gitea": servers(g="a")},
            "database a of container g of the",
        ),
        ({"influx": shards(5)}, {"influx": shards()}, "database home of the influx part"),
        (
            {"influxdb2": buckets(5)},
            {"influxdb2": buckets(0)},
            "bucket o/home of the influxdb2 part",
        ),
    ],
)
def test_a_database_that_was_made_anew_is_told(before, after, lost):
    """It is there and holds nothing: whatever it held, a backup says so."""
    then, now = databases(**before), databases(**after)
    (told,) = lost_databases(then, now)
    assert told.startswith(f"Missing: the data of {lost}")
    assert losses(then, now) == ()
    assert lost_databases(now, then) == ()


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            {"mariadb": servers(FLOOR_ROWS, db="a")},
            {"mariadb": servers(FLOOR_ROWS // 2 - 1, db="a")},
            "Database a of container db of the mariadb part now has 49 rows: then had 100.",
        ),
        (
            {"influx": shards(FLOOR_BYTES, 2)},
            {"influx": shards(5)},
            "Database home of the influx part now has 5 bytes: then had 1,048,578.",
        ),
        (
            {"influxdb2": buckets(BIG)},
            {"influxdb2": buckets(5)},
            "Bucket o/home of the influxdb2 part now has 5 bytes: then had 3,145,728.",
        ),
        ({"mariadb": servers(FLOOR_ROWS, db="a")}, {"mariadb": servers(50, db="a")}, ""),
        ({"mariadb": servers(FLOOR_ROWS - 1, db="a")}, {"mariadb": servers(1, db="a")}, ""),
        ({"influx": shards(FLOOR_BYTES - 1)}, {"influx": shards(1)}, ""),
    ],
)
def test_a_database_that_holds_much_less_is_told(before, after, words):
    """With before and after, once; little may come and go."""
    found = losses(databases(**before), databases(**after))
    assert [each.partition(" If")[0] for each in found] == ([words] if words else [])
    assert lost_databases(databases(**before), databases(**after)) == ()


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        (("a", "b", "c"), ("c",), "database a of the influx part, database b of the influx part"),
        (("a",), (), "database a of the influx part"),
        (("_internal", "a"), ("a", "new"), ""),
    ],
)
def test_a_database_that_is_gone_is_told(before, after, lost):
    """However small it was; what InfluxDB keeps about itself is none."""
    then, now = (databases(influx={"databases": list(each)}) for each in (before, after))
    told = lost_databases(then, now)
    assert [each.partition(", which then has. If")[0] for each in told] == (
        [f"Missing: {lost}"] if lost else []
    )


def test_a_database_of_sql_that_is_gone_is_told():
    """And a container; a part that is not there at all is told elsewhere."""
    then = databases(mariadb=servers(db=("a", "b"), old=("c",)), postgres=servers(pg=("d",)))
    now = databases(mariadb=servers(db=("b",)))
    (told,) = lost_databases(then, now)
    assert told == (
        "Missing: database a of container db of the mariadb part, container old of the mariadb "
        "part, which then has. If it is gone for good: inv prune --allow-missing mariadb:db:a "
        "--allow-missing mariadb:old."
    )
    assert lost_databases(now, then) == ()


def test_a_part_that_is_much_smaller_is_told():
    """As when a database lost its data; a small one, or one that lacks a dump, is none."""

    def sized(size, **facts):
        made = manifest({}, kinds=("general", "influx"))
        general, influx = made.parts
        influx = replace(influx, size_bytes=size, facts=facts)
        return replace(made, parts=(replace(general, size_bytes=size), influx))

    (warning,) = losses(sized(BIG), sized(BIG // 2 - 1))
    assert warning.startswith("The influx part has 1,572,863 bytes: then has one of 3,145,728")
    assert losses(sized(BIG), sized(BIG // 2)) == ()
    assert losses(sized(FLOOR_BYTES - 1), sized(1)) == ()
    assert losses(sized(BIG), sized(1, failed={"a": "why"})) == ()


def test_a_set_is_compared_with_the_newest_good_one_of_its_machine():
    """Not with itself, another machine's, one that failed, or an older one; else with any."""

    def one(day, state=State.COMPLETE, **given):
        made = manifest({}, runtag=f"2026-11-{day}_1100", **given)
        made = replace(made, started_utc=f"2026-11-{day}T11:00:00Z")
        return BackupSet(made.runtag, {}, state, made)

    sets = [
        one(20),
        one(21, State.WARNINGS),
        one(22, State.INCOMPLETE),
        one(23, State.DAMAGED),
        one(24, host="other"),
        one(25),
        BackupSet("2026-11-26_1100", {}, State.UNPROVEN),
    ]
    assert reference(sets, "2026-11-25_1100", "pi").runtag == "2026-11-21_1100"
    assert reference(sets, "new", "pi").runtag == "2026-11-25_1100"
    assert reference(sets, "new", "else").runtag == "2026-11-25_1100"  # the machine's earlier name
    assert reference(sets[3:4], "new", "else") is None


def test_sizes_are_read_as_they_were_written():
    """And what no backup wrote in their place is damage."""
    made = manifest({"volumes/a": (5, 1)}, runtag="2026-11-23_1100")
    made = old_form(json.loads(made.to_json()))
    made = made.replace('"2026-11-23_1100.x"', '"2026-11-23_1100.general-backup.tar.gz"')
    assert read_manifest(made).sizes == {"volumes/a": (5, 1)}
    for wrong in ("[5]", "[5, -1]", '["5", 1]', "5"):
        compact = made.replace("[\n      5,\n      1\n     ]", wrong)
        assert compact != made
        with pytest.raises(ValueError, match="sizes"):
            read_manifest(compact)


# What a backup tells of it


def backed_up(stack, tag, code=0):
    """Make a backup; return its manifest and what it said."""
    done = stack.run(f"backup --runtag {tag}")
    assert done.returncode == code, done.stderr
    return json.loads((stack.folder / f"backups/{tag}.manifest.json").read_text()), done.stderr


def test_a_backup_tells_what_is_gone_once(little_stack):
    """The first run after it ends with 3 and names before and after; the next is compared with it."""
    little_stack.runs(
        motion="x",
        cam="x",
        mounts={
            "motion": [("./volumes/motion/films", "/films")],
            "cam": [("./volumes/cam", "/cam"), ("./volumes/cam/log", "/var/log/cam")],
        },
    )
    (films, cam, big) = (
        little_stack.folder / "volumes" / name for name in ("motion/films", "cam", "nodered/big")
    )
    for folder in (films, cam / "log"):
        folder.mkdir(exist_ok=True)
        (folder / "film").write_text("a film")
    big.write_bytes(b"x" * BIG)
    first, _ = backed_up(little_stack, "first")
    assert first["parts"]["general"]["facts"]["sizes"]["volumes/motion/films"] == [6, 1]
    assert first["parts"]["general"]["facts"]["sizes"]["volumes/nodered"] == [BIG + 3, 2]
    (films / "film").unlink()
    (cam / "log/film").unlink()  # logs come and go
    big.write_bytes(b"x" * FLOOR_BYTES)
    second, said = backed_up(little_stack, "second", 3)
    nodered, motion = sorted(second["warnings"], reverse=True)
    assert motion.startswith("volumes/motion/films is empty now: first has 6 bytes in 1 file of")
    told = f"volumes/nodered holds {FLOOR_BYTES + 3:,} bytes in 2 files now: first has {BIG + 3:,}"
    assert nodered.startswith(told)
    assert motion in said
    assert nodered in said
    preview = little_stack.run("restore --runtag second --dry-run").stderr
    assert f"The backup warned: {motion}" in " ".join(preview.split())
    assert backed_up(little_stack, "third")[0]["warnings"] == []


def test_a_part_that_is_gone_is_told_by_the_next_backup(little_stack):
    """The manifest of an earlier set is enough, whoever wrote it."""
    backed_up(little_stack, "first")
    path = little_stack.folder / "backups/first.manifest.json"
    told = json.loads(path.read_text())
    archive = little_stack.folder / "backups/first.mariadb-backup.tar.gz"
    archive.write_bytes(b"x" * 10)
    part = {**told["parts"]["general"], "file": archive.name, "size_bytes": 10, "facts": {}}
    del told["parts"]["general"]["facts"]["sizes"]
    path.write_text(new_form({**told, "parts": {**told["parts"], "mariadb": part}}))
    (warning,) = backed_up(little_stack, "second", 3)[0]["warnings"]
    assert warning.startswith("The mariadb part is missing: first has one of 10 bytes")
    assert backed_up(little_stack, "third")[0]["warnings"] == []


def test_what_the_owner_leaves_out_elsewhere_is_written_down(little_stack):
    """Though no container mounts it any more: a later set needs not hold what earlier ones had."""
    with little_stack.settings.open("a") as stream:
        for path in ("volume:old", "/opt/old"):
            stream.write(f'[[stack.exclude]]\npath = "{path}"\nreason = "gone"\n')
    told = backed_up(little_stack, "first")[0]["left_out"]
    for path in ("volume:old", "/opt/old"):
        assert {"what": path, "reason": "gone"} in told


def test_what_the_owner_leaves_out_is_no_loss(little_stack):
    """From the first backup on that is made so."""
    (little_stack.folder / "volumes/nodered/big").write_bytes(b"x" * BIG)
    backed_up(little_stack, "first")
    with little_stack.settings.open("a") as stream:
        stream.write('[[stack.exclude]]\npath = "volumes/nodered/b*"\nreason = "r"\n')
    assert backed_up(little_stack, "second")[0]["warnings"] == []


def outside(runtag, *, out=(), **files):
    """Return a set with volumes of a MiB for each file; None: there, and of unknown size."""
    rows = [{"path": f"/v/{name}/_data", "volume": name} for name in files]
    rows.append({"path": "/opt/ha", "volume": ""})
    sizes = {f"v/{k}/_data": [n * FLOOR_BYTES, n] for k, n in files.items() if n is not None}
    facts = {"outside": rows, "sizes": {**sizes, "opt/ha": [BIG, 3]}}
    base = manifest(runtag=runtag, out=out)
    return replace(base, parts=(*base.parts, Part("outside", "o", 99, facts=facts)))


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"x": 0}, "volume:x is empty now: then has 4,194,304 bytes in 4 files of it."),
        ({"x": 1}, "volume:x holds 1,048,576 bytes in 1 file now: then has 4,194,304 bytes"),
        ({}, "volume:x is missing now: then has 4,194,304 bytes in 4 files of it."),
        ({"x": 2}, ""),
        ({"x": None}, ""),
        ({"out": ["volume:x"]}, ""),
        ({"out": ["volume:x/*"], "x": 0}, ""),
        ({"out": ["/v/x/_data/*"], "x": 0}, ""),
        ({"out": ["/v/x/_data/cache"], "x": 1}, ""),
        ({"out": ["/v/x/_data/always"], "x": 0}, "volume:x is empty now"),
    ],
)
def test_what_a_volume_holds_less_is_told(now, words):
    """As of folders of the stack: empty, fallen by more than half, or gone; not what is meant."""
    before = outside("then", x=4, out=["/v/x/_data/always"])
    found = losses(before, outside("now", **now))
    assert [each.startswith(words) for each in found] == ([True] if words else [])


def test_an_emptied_volume_is_told_whatever_it_held():
    """One file is all that some services keep; what was empty before is no loss."""
    before = outside("then", x=4)
    small = json.loads(json.dumps(before.parts[-1].facts))
    small["sizes"]["v/x/_data"] = [3, 1]
    before = replace(before, parts=(before.parts[0], replace(before.parts[-1], facts=small)))
    assert len(losses(before, outside("now", x=0))) == 1
    assert losses(outside("then", x=0), outside("now", x=0)) == ()


def test_a_drive_outside_of_the_stack_that_is_not_mounted_is_told(little_stack, tmp_path):
    """The included folder is there and empty: exit 3, with what the last backup had of it."""
    drive = tmp_path / "drive"
    drive.mkdir()
    (drive / "clip").write_bytes(b"x" * 1000)
    with little_stack.settings.open("a") as stream:
        stream.write(f'[[stack.include]]\npath = "{drive}"\n')
    assert little_stack.run("backup --runtag first").returncode == 0
    (drive / "clip").unlink()
    second = little_stack.run("backup --runtag second")
    assert second.returncode == 3
    assert f"{drive} is empty now: first has 1,000 bytes in 1 file of it." in second.stderr
    assert f"{drive}: 1.0 kB in 1 file\n" in little_stack.run("show first").stdout
