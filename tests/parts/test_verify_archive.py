"""Archives read to their last byte: what is whole is taken, and any damage is found and named."""

import gzip
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import folders
import pytest

from iotstack_invoke.core import gzip_streams as gzips
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.core.gzip_streams import Damaged
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.parts.verify_archive import Reading, read_dump, read_members, read_whole

DUMPS = folders.FIXTURES / "influx-backups"


def tar(folder, *words):
    """Return what GNU tar makes of a folder."""
    packed = subprocess.run(
        ["tar", "-c", *words, "-C", folder, "."], check=True, capture_output=True
    )
    return packed.stdout


@pytest.fixture
def tree(tmp_path):
    """A folder with one of each kind, and a name longer than a header."""
    top = tmp_path / "tree"
    (top / "volumes").mkdir(parents=True)
    (top / "volumes/big").write_bytes(bytes(range(256)) * 900)
    (top / "volumes/empty").write_bytes(b"")
    (top / "volumes" / ("long" * 50)).write_bytes(b"long")
    (top / "volumes/link").symlink_to("big")
    (top / "volumes/hard").hardlink_to(top / "volumes/big")
    return top


def read(data, tmp_path, *, packed):
    path = tmp_path / "archive"
    path.write_bytes(data)
    return read_whole(LocalHost("/"), str(path), "general" if packed else "influx")


FORMS = {"ours": ("--format=posix", "--sort=name"), "the seed's": ("--format=gnu",)}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_members_are_those_that_tar_packed(tree, form):
    """Kind, mode, size and name of each member are those of the folder that GNU tar read."""
    found = {
        each.name: each
        for each in read_members(io.BytesIO(tar(tree, *form)), packed=False, digests=True)
    }
    assert set(found) == {"."} | {f"./{each.relative_to(tree)}" for each in tree.rglob("*")}
    first, second = sorted(
        (found["./volumes/big"], found["./volumes/hard"]), key=lambda each: each.kind
    )
    assert (first.kind, first.size_bytes, second.kind, second.link) == (
        "file",
        256 * 900,
        "hard link",
        first.name,
    )
    assert (found["./volumes/link"].kind, found["./volumes/link"].link) == ("symlink", "big")
    assert found["./volumes"].mode[0] == "d"
    assert found["./volumes/empty"].digest != first.digest


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("writer", ["gzip", "ours"])
def test_a_whole_archive_has_no_problems(tree, tmp_path, form, writer):
    """What GNU tar and either compressor made is whole, and its hash is that of its bytes."""
    packed = io.BytesIO()
    if writer == "gzip":
        packed.write(gzip.compress(tar(tree, *form)))
    else:
        with gzips.open_writer(packed) as stream:
            stream.write(tar(tree, *form))
    found = read(packed.getvalue(), tmp_path, packed=True)
    told = subprocess.run(
        ["sha256sum", tmp_path / "archive"], check=True, capture_output=True, text=True
    )
    assert found == Reading(
        len(packed.getvalue()), told.stdout.split()[0], (), unpacked_bytes=len(tar(tree, *form))
    )


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


PACKED = {
    "a flipped byte": lambda data: flipped(data, len(data) // 2),
    "cut": lambda data: data[: len(data) // 2],
    "cut by its last byte": lambda data: data[:-1],
    "junk behind it": lambda data: data + b"junk",
    "zeros behind it": lambda data: data + bytes(512),
    "empty": lambda data: b"",
    "no archive": lambda data: b"hello" * 1000,
    "a second archive behind it": lambda data: data + data,
}


@pytest.mark.parametrize("damage", PACKED.values(), ids=PACKED)
def test_a_damaged_packed_archive_is_told(tree, tmp_path, damage):
    """Whatever befell a compressed archive, there is one problem, in a sentence."""
    (problem,) = read(damage(gzip.compress(tar(tree))), tmp_path, packed=True).problems
    assert problem.endswith(".")


INSIDE = {
    "a flipped byte in a header": lambda data: flipped(data, 512 + 3),
    "cut in a file": lambda data: data[: 512 * 9],
    "cut behind a file": lambda data: data[:512],
    "without its end": lambda data: data.rstrip(b"\0") + bytes(-len(data.rstrip(b"\0")) % 512),
    "one block of zeros": lambda data: (
        data.rstrip(b"\0") + bytes(-len(data.rstrip(b"\0")) % 512 + 512)
    ),
    "something behind its end": lambda data: data + b"x" * 512,
}


@pytest.mark.parametrize("damage", INSIDE.values(), ids=INSIDE)
def test_a_damaged_tar_inside_sound_gzip_is_told(tree, tmp_path, damage):
    """What was wrong before it was compressed is found too, though every checksum fits."""
    data = gzip.compress(damage(tar(tree)))
    assert len(read(data, tmp_path, packed=True).problems) == 1


def test_no_cut_of_a_tar_is_taken_for_its_end(tree):
    """Whatever block a tar ends at, short of its two blocks of zeros, it is damaged."""
    data = tar(tree, "--blocking-factor=1")
    for size in range(0, len(data) - 511, 512):
        with pytest.raises(Damaged):
            list(read_members(io.BytesIO(data[:size]), packed=False))
    assert list(read_members(io.BytesIO(data), packed=False))


# Dumps


@pytest.fixture
def dump(tmp_path):
    """A folder with a real dump."""
    return Path(shutil.copytree(DUMPS / "v1.8.10-happy", tmp_path / "dump"))


def test_a_whole_dump_has_no_problems_here_and_afar(dump, tmp_path, sshd):
    """Each file and block is sound, whether one can seek in the archive or it comes by a line."""
    from iotstack_invoke.hosts.ssh import open_storage

    here = read(tar(dump), tmp_path, packed=False)
    storage = open_storage(sshd.login(), str(tmp_path), "nas")
    try:
        assert read_whole(storage, str(tmp_path / "archive"), "influx") == here
    finally:
        storage.close()
    assert here.problems == ()
    assert here.dump.databases == ("telegraf", "home", "emptydb", "shorty")
    assert here.dump == read_dump(io.BytesIO(tar(dump)))


def test_a_missing_shard_is_told(dump, tmp_path):
    """A shard that the dump lists and the archive lacks is named."""
    (dump / "20261123T023456Z.s4.tar.gz").unlink()
    (problem,) = read(tar(dump), tmp_path, packed=False).problems
    assert "s4.tar.gz" in problem
    assert "missing" in problem


def test_a_block_that_does_not_fit_its_checksum_is_told(dump, tmp_path):
    """A flipped byte that was there before the dump, with all sums above it right, is found."""
    shard = dump / "20261123T023456Z.s1.tar.gz"
    inner = gzip.decompress(shard.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        at = next(each for each in archive if each.name.endswith(".tsm")).offset_data
    shard.write_bytes(gzip.compress(flipped(inner, at + 5 + 4 + 8)))
    (problem,) = read(tar(dump), tmp_path, packed=False).problems
    assert "s1.tar.gz" in problem
    assert "checksum" in problem


def test_a_line_that_breaks_is_no_damage(dump, tmp_path, sshd):
    """Where the archive could not be read to its end, that is told, and not what was lacking."""
    from iotstack_invoke.hosts.ssh import open_storage

    storage = open_storage(sshd.login(), str(tmp_path), "nas")
    try:
        with pytest.raises(StepFailed, match="cannot be read"):
            read_whole(storage, str(tmp_path / "nothing"), "influx")
    finally:
        storage.close()


def test_a_full_tmp_is_told_and_no_damage(dump, tmp_path, sshd, mount_disk, monkeypatch):
    """A shard that comes by a line is checked in a temporary file; without room that is told."""
    from iotstack_invoke.hosts.ssh import open_storage

    (tmp_path / "archive").write_bytes(tar(dump))
    full = mount_disk(tmp_path / "tmp", "4k")
    (full / "file").write_bytes(bytes(4096))
    storage = open_storage(sshd.login(), str(tmp_path), "nas")
    try:
        for folder in (tmp_path / "gone", full):
            monkeypatch.setattr(tempfile, "tempdir", str(folder))
            with pytest.raises(StepFailed, match="Free some space in /tmp, or set TMPDIR"):
                read_whole(storage, str(tmp_path / "archive"), "influx")
    finally:
        storage.close()


@pytest.mark.parametrize(("dump", "whole"), [("", True), ("CREATE TABLE t (\n", False)])
def test_of_a_recipe_one_member_is_a_dump(tmp_path, dump, whole):
    """A file of the service may be called as the dump is, and holds what it likes."""
    (tmp_path / "x/html/data/db_backup").mkdir(parents=True)
    (tmp_path / "x/html/data/db_backup/backup.sql").write_text("no dump at all")
    if dump:
        (tmp_path / "x/db_backup").mkdir()
        (tmp_path / "x/db_backup/backup.sql").write_text(dump)
    path = tmp_path / "archive"
    path.write_bytes(gzip.compress(tar(tmp_path / "x")))
    problems = read_whole(LocalHost("/"), str(path), "nextcloud").problems
    assert (problems == ()) == whole


HARMFUL = {
    "a device node": (
        tarfile.CHRTYPE,
        "volumes/x/n",
        "a restore refuses 'volumes/x/n': it is a ch",
    ),
    "what belongs to no stack": (
        tarfile.REGTYPE,
        ".bashrc",
        "refuses '.bashrc': it does not belong",
    ),
    "a compose file that is a link": (tarfile.SYMTYPE, ".env", "'.env': it does not belong"),
    "a long path": (
        tarfile.REGTYPE,
        "volumes/" + "long/" * 995,
        "too long for a file system",
    ),
    "a name twice": (tarfile.REGTYPE, "volumes/x/f", "it is in the archive twice"),
    "out of the folder": (tarfile.REGTYPE, "volumes/../../x", "out of the folder"),
    "an unknown kind": (b"Z", "volumes/z", "of a kind that backups never contain"),
}


@pytest.mark.parametrize(("kind", "name", "why"), HARMFUL.values(), ids=HARMFUL)
def test_what_a_restore_refuses_is_a_problem(tmp_path, kind, name, why):
    """Every byte is right, and no restore would take it: that is told where it is read."""
    path = tmp_path / "archive"
    with tarfile.open(path, "w:gz") as archive:
        for each, its_kind in (("volumes/x/f", tarfile.REGTYPE), (name, kind)):
            info = tarfile.TarInfo(each)
            info.type, info.linkname = its_kind, "../x"
            archive.addfile(info)
    (problem,) = read_whole(LocalHost("/"), str(path), "general").problems
    assert why in problem


def test_what_the_manifest_names_is_no_problem(tmp_path):
    """What a general part holds besides is taken as in a restore: by what its manifest says."""
    (tmp_path / "x/homeassistant").mkdir(parents=True)
    (tmp_path / "x/homeassistant/configuration.yaml").write_text("")
    path = tmp_path / "archive"
    path.write_bytes(gzip.compress(tar(tmp_path / "x")))
    storage = LocalHost("/")
    assert read_whole(storage, str(path), "general", ["homeassistant"]).problems == ()
    assert len(read_whole(storage, str(path), "general").problems) == 2


def test_an_archive_of_nothing_is_a_problem(tmp_path):
    """An end alone is no stack."""
    path = tmp_path / "archive"
    path.write_bytes(gzip.compress(bytes(10240)))
    assert read_whole(LocalHost("/"), str(path), "general").problems == ("it is empty.",)


def test_wherever_a_dump_is_cut_that_is_told(dump, tmp_path):
    """No cut ends in a traceback: inside the catalogue, a manifest, a shard or a header."""
    data = tar(dump)
    end = len(data.rstrip(b"\0"))
    for size in (*range(0, end, 1009), end):
        problems = read(data[:size], tmp_path, packed=False).problems
        assert problems, size
        assert not any("reading it ended" in each for each in problems), size


def test_a_number_that_tarfile_believes_is_damage(tmp_path):
    """A header of a sparse file may hold any text where its numbers must be."""
    path = tmp_path / "archive"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("volumes/x")
        info.pax_headers = {"GNU.sparse.map": "0,many", "GNU.sparse.size": "9"}
        archive.addfile(info)
    (problem,) = read_whole(LocalHost("/"), str(path), "general").problems
    assert problem.startswith("its tar is damaged")
