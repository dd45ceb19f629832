"""The offline check: each dump is judged right, and no damage of its files goes unseen."""

import gzip
import io
import json
import struct
import tarfile
import tracemalloc
import zlib

import folders
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iotstack_invoke.databases.influxdb.check import DumpCheck, ShardFact
from iotstack_invoke.databases.influxdb.shard import check_tsm_blocks

DUMPS = folders.FIXTURES / "influx-backups"
FOLDERS = sorted(each.name for each in DUMPS.iterdir() if each.is_dir())
SHARDS = sorted(str(each.relative_to(DUMPS)) for each in DUMPS.glob("*/*.tar.gz"))
MIB = 1024 * 1024


def files_of(folder):
    return {each.name: each.read_bytes() for each in sorted((DUMPS / folder).iterdir())}


def check(files):
    """Check a dump given as name to bytes."""
    taker = DumpCheck()
    for name, data in files.items():
        taker.add(name, io.BytesIO(data))
    return taker.report()


HAPPY = files_of("v1.8.10-happy")
SMALL = files_of("v1.6.7-exp1")
STAMP = "20261123T022734Z"
VICTIM = f"{STAMP}.s3.tar.gz"  # 255 bytes


def with_inner(files, name, change):
    """The dump with the tar inside one of its shards changed."""
    return {**files, name: gzip.compress(change(gzip.decompress(files[name])))}


class Forward(io.RawIOBase):
    """A stream that cannot seek and gives little at a time, as a pipe does."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._data.readinto(memoryview(buffer)[:1000])


EXPECTED = {  # folder to (databases, shards, _internal's shards, again, words of its problem)
    "v1.6.7-empty0": (0, 0, 0, False, ""),
    "v1.6.7-empty2": (2, 0, 0, False, ""),
    "v1.6.7-exp1": (2, 13, 0, False, ""),
    "v1.6.7-exp2": (2, 5, 0, False, ""),
    "v1.6.7-happy": (4, 30, 1, False, ""),
    "v1.6.7-incs": (1, 4, 0, False, "2 dumps share this folder"),
    "v1.6.7-mixed": (2, 1, 0, False, ""),
    "v1.6.7-race1": (1, 3, 0, True, "not in the dump's catalogue"),
    "v1.6.7-two": (1, 3, 0, False, "2 dumps share this folder"),
    "v1.8.10-e0": (0, 0, 0, False, ""),
    "v1.8.10-happy": (4, 31, 1, False, ""),
    "v1.8.10-incs": (1, 4, 0, False, "2 dumps share this folder"),
    "v1.8.10-incse": (1, 4, 0, False, ""),  # whole, if a window of time: only its log tells
    "v1.8.10-odd": (5, 6, 0, False, ""),
    "v1.8.10-par": (6, 6, 1, False, ""),
    "v1.8.10-rl": (4, 31, 0, False, ""),
}


def test_every_fixture_is_expected_to_be_something():
    """No folder of fixtures is forgotten."""
    assert sorted(EXPECTED) == FOLDERS


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_real_dump_is_judged_right(folder):
    """A dump of either version is good, or has exactly the problem it was kept for."""
    databases, shards, internal, again, words = EXPECTED[folder]
    report = check(files_of(folder))
    assert bool(report.problems) is bool(words), report.problems
    assert all(words in problem for problem in report.problems)
    assert report.again is again
    assert (len(report.databases), len(report.shards)) == (databases, shards)
    assert report.internal_shards == internal
    assert report.catalogue is not None


def test_shards_born_during_the_dump_are_named():
    """Each orphan is a problem that names its file, its database and its shard."""
    report = check(files_of("v1.6.7-race1"))
    assert len(report.problems) == 2
    assert "20261123T015545Z.s2.tar.gz (database iot, shard 2)" in report.problems[0]
    assert "20261123T015545Z.s3.tar.gz (database brandnew, shard 3)" in report.problems[1]


def test_a_report_says_what_is_in_the_dump():
    """Where each shard belongs and which files a restore must bring is in the report."""
    report = check(HAPPY)
    assert report.databases == ("telegraf", "home", "emptydb", "shorty")
    assert (report.continuous_queries, report.users) == (1, 2)
    assert report.shards[0] == ShardFact(
        id=1,
        database="telegraf",
        policy="autogen",
        start_ns=1792368000000000000,
        file="20261123T023456Z.s1.tar.gz",
        bytes=6656,
        tsm=(("000000001-000000001.tsm", 5023),),
    )


def test_an_empty_tar_is_a_whole_shard():
    """A shard without files holds two blocks of zeros and is good."""
    report = check(files_of("v1.8.10-incse"))
    assert [len(each.tsm) for each in report.shards] == [0, 0, 0, 1]


@given(st.permutations(sorted(HAPPY)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_files_does_not_matter(order):
    """The same files in any order give the same report."""
    assert check({name: HAPPY[name] for name in order}) == check(HAPPY)


def test_a_dump_is_checked_while_a_tar_is_read():
    """A tar that comes through a pipe is enough: nothing seeks, folders do not matter."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in HAPPY.items():
            member = tarfile.TarInfo(f"backups/influxdb/db/run/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    taker = DumpCheck()
    with tarfile.open(fileobj=Forward(packed.getvalue()), mode="r|") as tar:
        for member in tar:
            taker.add(member.name, tar.extractfile(member))
    assert taker.report() == check(HAPPY)


def test_a_stream_that_gives_little_at_a_time_is_read_to_its_end():
    """Short reads are not the end."""
    taker = DumpCheck()
    for name, data in HAPPY.items():
        taker.add(name, Forward(data))
    assert taker.report() == check(HAPPY)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_file_that_is_missing_is_found(name):
    """Whichever file is dropped, the dump has a problem and should be made again."""
    report = check({each: data for each, data in SMALL.items() if each != name})
    assert report.problems
    assert report.again


def test_a_shard_cut_at_any_byte_is_found():
    """Whatever byte a small shard file ends at, it is not whole, and it is named."""
    for size in range(len(SMALL[VICTIM])):
        report = check({**SMALL, VICTIM: SMALL[VICTIM][:size]})
        assert len(report.problems) == 1, size
        assert f"{VICTIM} (database exp, shard 3): it" in report.problems[0]
        assert report.again
        assert 3 not in {each.id for each in report.shards}


@given(st.sampled_from(SHARDS), st.data())
@settings(max_examples=60, deadline=None)
def test_any_shard_cut_anywhere_is_found(shard, data):
    """The same for every shard file of every dump."""
    folder, name = shard.split("/")
    files = files_of(folder)
    size = data.draw(st.integers(0, len(files[name]) - 1))
    good = check(files).problems
    cut = check({**files, name: files[name][:size]}).problems
    listed = json.loads(files[max(each for each in files if each.endswith(".manifest"))])["files"]
    if any(each["fileName"] == name for each in listed):
        assert set(good) < set(cut)


HEADER = 10 + len("20261123T022734Z.s3.tar") + 1  # gzip's, with a time and a name in it


def test_a_flipped_byte_is_found_or_changes_nothing():
    """Each flipped byte of a shard file is found, unless all its content is as it was.

    So it is with the time and name in gzip's header and where zeros are copied from other zeros.
    """
    whole = gzip.decompress(SMALL[VICTIM])
    found = 0
    for at in range(len(SMALL[VICTIM])):
        for flip in (0x01, 0x80, 0xFF):
            data = bytearray(SMALL[VICTIM])
            data[at] ^= flip
            if check({**SMALL, VICTIM: bytes(data)}).problems:
                found += 1
            else:
                assert gzip.decompress(bytes(data)) == whole
    assert found > 0.95 * 3 * (len(SMALL[VICTIM]) - HEADER)


@given(st.sampled_from([each for each in HAPPY if "gz" in each]), st.data(), st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_a_flipped_byte_in_any_shard_is_found_or_changes_nothing(name, data, flip):
    """The same for every shard of a dump."""
    flipped = bytearray(HAPPY[name])
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= flip
    if not check({**HAPPY, name: bytes(flipped)}).problems:
        assert gzip.decompress(bytes(flipped)) == gzip.decompress(HAPPY[name])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda inner: inner[:-1024], "has no end"),
        (lambda inner: inner[:-512], "has no end"),
        (lambda inner: inner[:-1], "has no end"),
        (lambda inner: inner[:700], "has no end"),
        (lambda inner: inner + bytes(512), "after the end of the tar"),
        (lambda inner: inner + b"x", "after the end of the tar"),
        (lambda inner: inner[:-512] + b"x" * 512, "two blocks of zeros"),
        (lambda inner: inner[:-1024] + inner, "twice"),
        (lambda inner: inner[:600] + inner, "damaged"),
        (lambda inner: b"\x01" + inner[1:], "a header is missing"),
        (lambda inner: inner[:512] + b"\0" + inner[513:], "not a complete TSM file"),
        (lambda inner: bytes(1024), "1024 bytes, but the manifest has 2048"),
        (lambda inner: b"", "has no end"),
    ],
)
def test_damage_inside_a_sound_gzip_is_found(change, said):
    """A tar that is cut, doubled, padded or foreign is found although gzip is content."""
    report = check(with_inner(SMALL, VICTIM, change))
    assert len(report.problems) == 1
    assert said in report.problems[0]
    assert VICTIM in report.problems[0]


@pytest.mark.parametrize("behind", [b"\0", bytes(4096), b"x", gzip.compress(b"", mtime=0)])
def test_something_behind_the_compressed_data_is_found(behind):
    """A file must end where gzip ends; zeros, as a crash leaves them, are found too."""
    report = check({**SMALL, VICTIM: SMALL[VICTIM] + behind})
    assert len(report.problems) == 1


def test_a_file_of_another_shard_is_found():
    """A shard file exchanged for another of the same size is found by what it holds."""
    other = f"{STAMP}.s9.tar.gz"
    report = check({**SMALL, VICTIM: SMALL[other], other: SMALL[VICTIM]})
    assert len(report.problems) == 2
    assert "exp/r/9/000000001-000000001.tsm, which belongs to another shard" in report.problems[0]


def test_a_manifest_that_contradicts_the_catalogue_is_found():
    """A shard listed for another database than the catalogue's is a problem."""
    name = f"{STAMP}.manifest"
    wrong = SMALL[name].replace(b'"database": "exp"', b'"database": "keep"', 1)
    report = check({**SMALL, name: wrong})
    assert any("the catalogue lists it under exp.r" in problem for problem in report.problems)


def test_foreign_and_unfinished_files_are_named():
    """What does not belong to the dump is named, and what a killed dump left is recognised."""
    report = check(
        {
            **SMALL,
            "notes.txt": b"",
            "20250101T000000Z.s1.tar.gz": SMALL[VICTIM],
            "20250101T000000Z.meta": SMALL[f"{STAMP}.meta"],
        }
    )
    assert [each.partition(":")[0] for each in report.problems] == [
        "notes.txt",
        "20250101T000000Z.meta",
        "20250101T000000Z.s1.tar.gz",
    ]
    assert not report.again
    left = check({**SMALL, "exp.r.00003.00.pending": b"", "meta.00": b""})
    assert all("left by an unfinished dump" in problem for problem in left.problems)
    assert left.again


def test_a_file_that_comes_twice_is_a_problem():
    """Two files of one name, from two folders, are not one dump."""
    taker = DumpCheck()
    for folder in ("a/", "b/"):
        for name, data in SMALL.items():
            taker.add(folder + name, io.BytesIO(data))
    assert len(taker.report().problems) == len(SMALL)


def test_no_file_at_all_is_an_unfinished_dump():
    """An empty folder is no dump."""
    report = DumpCheck().report()
    assert report.again
    assert report.catalogue is None
    assert "not finished" in report.problems[0]


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"{}", b'"x"', b'{"meta": {}, "files": null}', b"\xff\xfe"],
)
def test_a_damaged_manifest_is_a_problem(data):
    """Whatever a manifest holds instead of its list, it is a problem and not an error."""
    report = check({**SMALL, f"{STAMP}.manifest": data})
    assert len(report.problems) == 1
    assert "cannot be read" in report.problems[0]
    assert report.again


def test_a_manifest_cut_at_any_byte_is_found():
    """Whatever byte the manifest ends at, it is not whole."""
    name = f"{STAMP}.manifest"
    for size in range(len(SMALL[name])):
        assert check({**SMALL, name: SMALL[name][:size]}).problems, size


def test_a_catalogue_cut_or_of_another_dump_is_found():
    """A catalogue cut at any byte, or of another size than the manifest says, is a problem."""
    name = f"{STAMP}.meta"
    for size in range(len(SMALL[name])):
        report = check({**SMALL, name: SMALL[name][:size]})
        assert report.problems, size
        assert report.again
    other = files_of("v1.6.7-exp2")["20261123T022750Z.meta"]
    assert any("485" in each and "549" in each for each in check({**SMALL, name: other}).problems)


def test_memory_stays_flat_for_a_large_shard():
    """A shard of 200 MiB is checked in less than 4 MiB."""
    member = tarfile.TarInfo("exp/r/3/000000001-000000001.tsm")
    member.size = 200 * MIB
    packer = zlib.compressobj(1, wbits=31)
    head = packer.compress(member.tobuf())
    body = b"".join(packer.compress(bytes(MIB)) for _ in range(200))
    data = io.BytesIO(head + body + packer.compress(bytes(1024)) + packer.flush())
    taker = DumpCheck()
    tracemalloc.start()
    try:
        taker.add(VICTIM, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB
    assert taker._shards[VICTIM].bytes == 200 * MIB + 512 + 1024


def test_a_member_beyond_the_tar_header_is_read_by_its_pax_size():
    """Path and size of a PAX header, as Go writes for long names and for 8 GiB, are followed."""
    name = "exp/r/3/" + "ü" * 80 + "-000000001.tsm"
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w", format=tarfile.PAX_FORMAT) as tar:
        body = b"\x16\xd1\x16\xd1\x01" + bytes(600) + struct.pack(">Q", 5)
        member = tarfile.TarInfo(name)
        member.size = len(body)
        member.pax_headers = {"size": str(len(body))}
        tar.addfile(member, io.BytesIO(body))
        end = tar.offset
    data = gzip.compress(inner.getvalue()[:end] + bytes(1024))
    taker = DumpCheck()
    taker.add(VICTIM, io.BytesIO(data))
    assert taker._shards[VICTIM].damage == ""
    assert taker._shards[VICTIM].members == ((name, len(body)),)


def deep(data):
    return check_tsm_blocks(lambda: io.BytesIO(data), file="x.s1.tar.gz")


@pytest.mark.parametrize("shard", SHARDS)
def test_every_block_of_every_real_shard_is_sound(shard):
    """The layout of TSM files is read right: all checksums of both versions fit."""
    report = deep((DUMPS / shard).read_bytes())
    assert report.problems == ()
    assert (report.blocks > 0) is (report.files > 0)


BIG = gzip.decompress(HAPPY["20261123T023456Z.s1.tar.gz"])
BIG_SIZE = int(BIG[124:135], 8)
(BIG_INDEX,) = struct.unpack(">Q", BIG[512 + BIG_SIZE - 8 : 512 + BIG_SIZE])


@given(st.integers(5, BIG_INDEX - 1), st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_a_flipped_byte_in_a_block_is_found(at, flip):
    """Any byte of any block, its checksum included, is covered."""
    inner = bytearray(BIG)
    inner[512 + at] ^= flip
    data = gzip.compress(bytes(inner), 1)
    report = deep(data)
    assert len(report.problems) == 1
    assert "telegraf/autogen/1/000000001-000000001.tsm: 1 of" in report.problems[0]
    name = "20261123T023456Z.s1.tar.gz"
    assert check({**HAPPY, name: data}).problems == ()  # the quick check does not look inside


@given(st.integers(BIG_INDEX, BIG_SIZE - 1), st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_a_flipped_byte_in_an_index_never_stops_the_check(at, flip):
    """An index has no checksum: damage there is found or is in a name or a time, but is no error."""
    inner = bytearray(BIG)
    inner[512 + at] ^= flip
    report = deep(gzip.compress(bytes(inner), 1))
    assert report.files == 1


def test_an_index_that_is_nonsense_is_damaged():
    """An index of zeros, or an end that leads nowhere, is told."""
    inner = bytearray(BIG)
    inner[512 + BIG_INDEX : 512 + BIG_SIZE - 8] = bytes(BIG_SIZE - 8 - BIG_INDEX)
    assert "its index is damaged" in deep(gzip.compress(bytes(inner))).problems[0]
    inner[512 + BIG_SIZE - 8 : 512 + BIG_SIZE] = b"\xff" * 8
    assert "do not lead to an index" in deep(gzip.compress(bytes(inner))).problems[0]


def test_an_index_larger_than_what_is_kept_is_read_in_a_second_go(monkeypatch):
    """An index that does not fit what is kept of a file's end costs one pass more, no more."""
    monkeypatch.setattr("iotstack_invoke.databases.influxdb.shard._TAIL_BYTES", 64)
    data = HAPPY["20261123T023456Z.s32.tar.gz"]
    small = deep(data)
    monkeypatch.undo()
    assert small == deep(data)
    assert small.blocks > 100


def test_a_cut_shard_has_no_blocks_to_check():
    """The deep check of a damaged file is one problem, not an error."""
    report = deep(HAPPY["20261123T023456Z.s1.tar.gz"][:-9])
    assert report.problems == ("x.s1.tar.gz: it is incomplete.",)
