"""Comparing two sets: what came, went or changed, and nothing else."""

import io
import json
import tarfile
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_sets import Shelf

from iotstack_invoke.commands.catalog.diff import FileChange, compare_members, compare_sizes, diff
from iotstack_invoke.parts.verify_archive import Member, read_members
from iotstack_invoke.reporting.report import Report

A, B = "2026-11-22_1100", "2026-11-23_1100"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A stack and its folder of backups, and a home of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Shelf(tmp_path)


def compared(shelf, capsys):
    assert diff(shelf.settings(), A, B, "", Report(), as_json=True) == 0
    parts = json.loads(capsys.readouterr().out)["parts"]
    return {
        part: {each["name"]: (each["sign"], each["what"]) for each in changes}
        for part, changes in parts.items()
    }


def test_two_sets_of_the_same_are_the_same(shelf, capsys):
    """Where nothing changed nothing is told, with manifests or without."""
    for tag in (A, B):
        shelf.put(tag)
    assert compared(shelf, capsys) == {"general": {}, "influx": {}}
    for tag in (A, B):
        (shelf.backups / f"{tag}.manifest.json").unlink()
    assert compared(shelf, capsys) == {"general": {}, "influx": {}}
    assert diff(shelf.settings(), A, B, "", Report(), as_json=False) == 0
    assert "the same files" in capsys.readouterr().out


def test_files_that_came_went_or_changed_are_told(shelf, capsys):
    """A file of the same size with another content is found; another mode is named."""
    nodered = shelf.stack / "volumes/nodered"
    for name in ("gone", "same", "mode"):
        (nodered / name).write_text("x")
    shelf.put(A)
    (nodered / "gone").unlink()
    (nodered / "new").write_text("new")
    (nodered / "flows.json").write_text("{}\n" * 200)
    (nodered / "mode").chmod(0o600)
    shelf.put(B)
    general = compared(shelf, capsys)["general"]
    assert general == {
        "./volumes/nodered/flows.json": ("*", "content"),
        "./volumes/nodered/gone": ("-", ""),
        "./volumes/nodered/mode": ("*", "mode -rw-r--r-- → -rw-------"),
        "./volumes/nodered/new": ("+", ""),
    }
    diff(shelf.settings(), A, B, "", Report(), as_json=False)
    told = capsys.readouterr().out
    assert "general:" in told
    assert "+ ./volumes/nodered/new  3" in told


@pytest.mark.parametrize("with_manifests", [True, False])
def test_databases_and_shards_that_came_or_went_are_told(shelf, capsys, with_manifests):
    """Told by the manifests or by the dumps themselves, it is the same."""
    shelf.put(A, dump="v1.8.10-happy")
    shelf.put(B, dump="v1.8.10-odd")
    if not with_manifests:
        for tag in (A, B):
            (shelf.backups / f"{tag}.manifest.json").unlink()
    influx = compared(shelf, capsys)["influx"]
    assert influx["telegraf"][0] == "-"
    assert influx["telegraf/autogen/1"][0] == "-"
    assert {sign for sign, _ in influx.values()} >= {"+", "-"}


def test_a_part_that_one_set_lacks_is_told_as_all_new(shelf, capsys):
    """Where a set has no such part, all of the other's came or went."""
    shelf.put(A)["influx"].unlink()
    (shelf.backups / f"{A}.manifest.json").unlink()
    shelf.put(B)
    assert {sign for sign, _ in compared(shelf, capsys)["influx"].values()} == {"+"}


SOME = st.dictionaries(
    st.text(max_size=3),
    st.builds(
        lambda size, digest: (size, digest), st.integers(0, 3), st.sampled_from([b"a", b"b"])
    ),
)


@given(SOME, SOME, st.randoms())
def test_only_what_differs_is_a_change(before, after, chance):
    """A name is told if, and only if, it is in one archive alone or another file; order is not."""

    def members(found):
        names = list(found)
        chance.shuffle(names)
        return [
            Member(n, "file", "-rw-r--r--", "0:0", found[n][0], "", found[n][1]) for n in names
        ]

    changes = compare_members(members(before), members(after))
    assert [each.name for each in changes] == sorted(
        name for name in {*before, *after} if before.get(name) != after.get(name)
    )
    assert {each.name for each in changes if each.sign == "+"} == set(after) - set(before)
    assert {each.name for each in changes if each.sign == "-"} == set(before) - set(after)


def test_shards_are_compared_by_size():
    """The same size is no change."""
    assert compare_sizes({"a": 1, "b": 2, "c": 3}, {"b": 2, "c": 4, "d": 5}) == (
        FileChange("a", 1, None),
        FileChange("c", 3, 4),
        FileChange("d", None, 5),
    )


def test_an_archive_of_many_members_takes_little_memory():
    """Each member that is kept takes less than a kilobyte, whatever its file holds."""
    count, packed = 4000, io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number in range(count):
            member = tarfile.TarInfo(f"./volumes/nodered/data/{number}")
            member.size = 2000
            archive.addfile(member, io.BytesIO(bytes(2000)))
    packed.seek(0)
    tracemalloc.start()
    try:
        kept = {m.name: m for m in read_members(packed, packed=False, digests=True)}
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(kept) == count
    assert peak < 1000 * count + 2**20
