"""What GNU tar lists is what is unpacked: every hostile member is refused and named."""

import gzip
import io
import os
import shutil
import subprocess
import tarfile
import types
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iotstack_invoke.archives import scan as members
from iotstack_invoke.archives.scan import LIST_WORDS, ScanArchive, list_archive, unquote
from iotstack_invoke.core import gzip_streams as gzips
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.engine.executor import Disks
from iotstack_invoke.engine.steps import File, HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.stack.folders import Unpack

KINDS = {
    "file": tarfile.REGTYPE,
    "folder": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "pipe": tarfile.FIFOTYPE,
    "block device": tarfile.BLKTYPE,
    "character device": tarfile.CHRTYPE,
    "contiguous": tarfile.CONTTYPE,
    "continued": b"M",
    "volume header": b"V",
}
STACK = (("./services", "folder"), ("./volumes", "folder"), ("./docker-compose.yml", "file"))


def make(path, *given_members, form=tarfile.GNU_FORMAT, mode="w"):
    """Make an archive of (name, kind, link target or content) that no honest tar would make."""
    with tarfile.open(path, mode, format=form) as archive:
        for name, kind, *more in given_members:
            info = tarfile.TarInfo(os.fsdecode(name))
            info.type = KINDS[kind]
            info.mode = 0o755 if kind == "folder" else 0o644
            content = b""
            if kind in {"symlink", "hard link"}:
                info.linkname = more[0]
            elif kind == "file":
                content = more[0] if more else b"hostile"
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def contents(path):
    """What the scan finds in an archive on this machine."""
    return list_archive(LocalHost("/"), path, ())


def everything(folder):
    """All that lies below a folder, with its kind, mode and content."""
    found = {}
    for top, names, files in os.walk(folder):
        for name in (*names, *files):
            path = os.path.join(top, name)
            facts = os.lstat(path)
            found[path] = (facts.st_mode, facts.st_uid, facts.st_nlink, facts.st_size)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    found[path] += (file.read(1 << 16),)
    return found


class Scene(types.SimpleNamespace):
    """As much of the engine as these steps use."""

    def host(self, _role):
        return LocalHost("/")

    def status(self, text):
        """Nobody listens."""

    def log_output(self, stream, line):
        """Nobody listens."""

    def reserve(self, look, size_bytes, *, for_all=False):
        return Disks().keep(self, look, size_bytes)


LINK = ("volumes/x/link", "symlink", "../../../outside")
FILE = ("volumes/x/file", "file", b"mine")
HOSTILE = {
    # what: (the members, the one that is named, words of the reason)
    "an absolute name": ([("/outside/victim", "file")], "/outside/victim", "begins with /"),
    "an absolute folder": ([("/outside/new", "folder")], "/outside/new", "begins with /"),
    "two slashes": ([("//outside/victim", "file")], "//outside/victim", "begins with /"),
    "out of the folder": ([("../outside/victim", "file")], "../outside/victim", "out of the folder"),
    "upwards inside": ([("volumes/../../outside/victim", "file")], "victim", "out of the folder"),
    "upwards at the end": ([("volumes/x/..", "folder")], "volumes/x/..", "out of the folder"),
    "up and down": ([("services/../volumes/x", "file")], "services/../volumes/x", "out of the folder"),
    "below a symlink": ([LINK, ("volumes/x/link/victim", "file")], "link/victim", "below"),
    "far below a symlink": ([LINK, ("volumes/x/link/a/b/c", "file")], "link/a/b/c", "below"),
    "below an absolute symlink": (
        [("volumes/l", "symlink", "{outside}"), ("volumes/l/victim", "file")],
        "volumes/l/victim",
        "below",
    ),
    "a folder below a symlink": ([LINK, ("volumes/x/link/d", "folder")], "link/d", "below"),
    "below a symlink, spelt anew": (
        [LINK, ("./volumes//x/./link/victim", "file")], "victim", "below",
    ),
    "below a file": ([FILE, ("volumes/x/file/y", "file")], "volumes/x/file/y", "below"),
    "a symlink over members": (
        [("volumes/x/d/file", "file"), ("volumes/x/d", "symlink", "{outside}")],
        "volumes/x/d",
        "members below it",
    ),
    "a symlink over a folder": (
        [("volumes/x/d", "folder"), ("volumes/x/d", "symlink", "{outside}")],
        "volumes/x/d",
        "twice",
    ),
    "a symlink, then a folder": ([LINK, ("volumes/x/link", "folder")], "link", "twice"),
    "a symlink chain": (
        [("volumes/a", "symlink", "."), ("volumes/a/b", "symlink", "..")], "volumes/a/b", "below",
    ),
    "a hard link outward": (
        [("volumes/x/h", "hard link", "../outside/victim")], "volumes/x/h", "not an earlier file",
    ),
    "a hard link to an absolute name": (
        [("volumes/x/h", "hard link", "{outside}/victim")], "volumes/x/h", "not an earlier file",
    ),
    "a hard link to a later member": (
        [("volumes/x/h", "hard link", "volumes/x/file"), FILE], "volumes/x/h", "not an earlier file",
    ),
    "a hard link to a symlink": (
        [LINK, ("volumes/x/h", "hard link", "volumes/x/link")], "volumes/x/h", "not an earlier file",
    ),
    "a hard link through a symlink": (
        [LINK, ("volumes/x/h", "hard link", "volumes/x/link/victim")], "volumes/x/h", "not an earlier file",
    ),
    "a hard link to itself": (
        [("volumes/x/h", "hard link", "volumes/x/h")], "volumes/x/h", "not an earlier file",
    ),
    "a hard link to a folder": (
        [("volumes/x", "folder"), ("volumes/h", "hard link", "volumes/x")], "volumes/h", "not an earlier file",
    ),
    "a hard link to a pipe": (
        [("volumes/p", "pipe"), ("volumes/h", "hard link", "volumes/p")], "volumes/h", "not an earlier file",
    ),
    "a block device": ([("volumes/x/b", "block device")], "volumes/x/b", "block device"),
    "a character device": ([("volumes/x/c", "character device")], "volumes/x/c", "character"),
    "a continued file": ([("volumes/x/m", "continued")], "volumes/x/m", "cannot be read"),
    "a volume header": ([("volumes/x/v", "volume header")], "volumes/x/v", "cannot be read"),
    "keys": ([(".ssh/authorized_keys", "file")], ".ssh/authorized_keys", "belong"),
    "a folder of keys": ([(".ssh", "folder")], ".ssh", "belong"),
    "backups": ([("backups/.journal", "file")], "backups/.journal", "belong"),
    "restore": ([("restore/previous-x/journal", "file")], "journal", "belong"),
    "a program": ([("menu.sh", "file")], "menu.sh", "belong"),
    "a foreign dot file": ([(".bashrc", "file")], ".bashrc", "belong"),
    "a top file as a symlink": ([(".env", "symlink", "{outside}/victim")], ".env", "belong"),
    "a top file as a folder": ([("docker-compose.yml/x", "file")], "compose.yml/x", "belong"),
    "a top file as a hard link": (
        [FILE, ("docker-compose.yml", "hard link", "volumes/x/file")], "compose.yml", "belong",
    ),
    "nearly services": ([("services.old/x", "file")], "services.old/x", "belong"),
    "a name twice": ([FILE, FILE], "volumes/x/file", "twice"),
    "a name twice, spelt anew": (
        [FILE, ("./volumes//x/./file", "file")], "./volumes//x/./file", "twice",
    ),
    "services is a file": ([("services", "file")], "services", "must be a folder"),
    "volumes is a symlink": (
        [("volumes", "symlink", "{outside}")], "volumes", "must be a folder",
    ),
    "the top is a symlink": ([(".", "symlink", "{outside}")], ".", "must be a folder"),
    "a long name": ([("volumes/" + "n" * 256, "file")], "nnn", "too long for"),
    "a long name in bytes": ([("volumes/" + "ü" * 128, "file")], "üüü", "too long for"),
    "a long path": ([("volumes/" + "/".join(["d" * 99] * 41), "file")], "ddd", "too long for"),
}  # fmt: skip


@pytest.fixture
def outside(tmp_path):
    """A folder that no archive may touch, with a file that each would like to replace."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "victim").write_text("precious")
    return folder


def hostile(tmp_path, what, form=tarfile.GNU_FORMAT):
    """Make a hostile archive whose other members are those of a stack."""
    bad, named, why = HOSTILE[what]
    filled = [[str(w).format(outside=tmp_path / "outside") for w in m[:3]] for m in bad]
    filled = [[*f[:2], m[2] if m[1] == "file" and m[2:] else f[-1]] for f, m in zip(filled, bad)]  # noqa: B905
    filled = [m if len(b) == 3 else m[:2] for m, b in zip(filled, bad)]  # noqa: B905
    parts = (*STACK, *filled) if named not in {"services", "volumes", "."} else filled
    return make(tmp_path / "bad.tar", *parts, form=form), named, why


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
@pytest.mark.parametrize("what", HOSTILE)
def test_refused(tmp_path, outside, what, form):
    """A hostile member is refused by its name and with the reason, before anything is written."""
    path, named, why = hostile(tmp_path, what, form)
    before = everything(tmp_path)
    step = ScanArchive(File("pi", path.lstrip("/"), "/"), (), "/")
    with pytest.raises(StepFailed, match="was not unpacked, and nothing was changed") as caught:
        step.do(Scene())
    assert named in str(caught.value)
    assert why in str(caught.value)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("what", HOSTILE)
def test_nothing_outside(tmp_path, outside, what):
    """Even if it were unpacked all the same, nothing outside the staging folder would change."""
    path, *_ = hostile(tmp_path, what)
    staging = tmp_path / "staging"
    before = everything(tmp_path)
    step = Unpack(HostAccess("pi", guard=str(tmp_path / "guard")), path, str(staging))
    try:
        step.do(Scene())
    except StepFailed:
        pass
    finally:
        shutil.rmtree(staging)
        (tmp_path / "guard").unlink()
    assert everything(tmp_path) == before


ODD = [
    b"new\nline", b"quote\"s'", b"back\\slash", b"latin-\xe9", b"tab\t", b"\x01\x7f\xff", b"-rf",
    b" spaces ", b'arrow -> "x"', b"x link to y", b"*?[a]", b"$(id)`id`;&", b"...", b"~",
    "Küche".encode(), b"\\n", b"\\101", b"trailing\\", b"??=", b"n" * 255,
]  # fmt: skip


def test_odd_names_are_fine(tmp_path):
    """Whatever the kernel takes as a name is data: listed right, unpacked right."""
    folder = tmp_path / "stack"
    (folder / "volumes/x").mkdir(parents=True)
    (folder / "services").mkdir()
    for name in ODD:
        with open(os.path.join(os.fsencode(folder), b"volumes/x", name), "wb") as file:
            file.write(name)
        os.symlink(name, os.path.join(os.fsencode(folder), b"volumes", name))
    path = str(tmp_path / "odd.tar")
    subprocess.run(["tar", "-cf", path, "-C", folder, "./services", "./volumes"], check=True)
    found = contents(path)
    assert found.refusals == []
    assert found.count == 3 + 2 * len(ODD)
    assert found.items == {
        "volumes/x",
        *(f"volumes/{name.decode('utf-8', 'surrogateescape')}" for name in ODD),
    }
    Unpack(HostAccess("pi", guard=str(tmp_path / "guard")), path, str(tmp_path / "new")).do(
        Scene()
    )
    assert sorted(os.listdir(os.fsencode(tmp_path / "new/volumes/x"))) == sorted(ODD)


FINE = {
    "an absolute symlink": [("volumes/l", "symlink", "/etc/passwd")],
    "an upward symlink": [("volumes/l", "symlink", "../../../../etc")],
    "a symlink to nothing": [("volumes/l", "symlink", "no such file")],
    "a symlink to a file with an odd name": [("volumes/l", "symlink", 'a" -> "b\n')],
    "a pipe": [("volumes/x/pipe", "pipe")],
    "a hard link": [FILE, ("volumes/x/h", "hard link", "volumes/x/file")],
    "a hard link to a hard link": [
        FILE, ("volumes/x/h", "hard link", "volumes/x/file"),
        ("volumes/x/i", "hard link", "./volumes/x/h"),
    ],
    "a hard link to a contiguous file": [
        ("volumes/c", "contiguous"), ("volumes/h", "hard link", "volumes/c"),
    ],
    "no folder before its file": [("volumes/a/b/c", "file"), ("volumes/a/b", "folder")],
    "dots in names": [("volumes/..x", "file"), ("volumes/x..", "file"), ("volumes/...", "file")],
    "an override and environments": [
        ("docker-compose.override.yml", "file"), (".env", "file"), ("my.env", "file"),
    ],
    "the top": [(".", "folder")],
}  # fmt: skip


@pytest.mark.parametrize("what", FINE)
def test_taken(tmp_path, what):
    """What a container may well hold is taken, and unpacked as it is."""
    path = make(tmp_path / "fine.tar", *STACK, *FINE[what])
    found = contents(path)
    assert found.refusals == []
    assert found.count == len(STACK) + len(FINE[what])
    Unpack(HostAccess("pi", guard=str(tmp_path / "guard")), path, str(tmp_path / "new")).do(
        Scene()
    )
    for name, kind, *more in FINE[what]:
        there = tmp_path / "new" / name
        assert os.path.lexists(there)
        if kind == "symlink":
            assert os.readlink(there) == more[0]


def test_names_of_the_stack(tmp_path):
    """Items and top files are told apart, and the bytes are summed up."""
    found = contents(make(tmp_path / "a.tar", *STACK, FILE, ("services/n/build.py", "file")))
    assert found.items == {"volumes/x", "services/n"}
    assert found.top_files == {"docker-compose.yml"}
    assert found.unpacked_bytes == 4 + 7 + 7


@pytest.mark.parametrize("seconds", [0, -1, 1, 2**31, 2**33, 253402300799])
def test_any_clock(tmp_path, seconds):
    """A file from a Pi whose clock was wrong is a file like any other."""
    path = tmp_path / "clock.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("volumes/x")
        info.mtime = seconds
        archive.addfile(info)
    found = contents(str(path))
    assert (found.refusals, found.count) == ([], 1)


# Bombs.


def test_parts_of_a_second(tmp_path):
    """Of one member more than of the next: as GNU tar and Python write them in the POSIX format."""
    path = tmp_path / "x.tar"
    times = ("1795646742.123456789", "1795646742.5", "-9.25", "0")
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for number, seconds in enumerate(times):
            info = tarfile.TarInfo(f"./volumes/{number}")
            info.pax_headers = {"mtime": seconds}
            archive.addfile(info)
    found = contents(str(path))
    assert (found.refusals, found.count) == ([], 4)


def test_many_members(tmp_path, monkeypatch):
    """More members than any stack has are refused, at the first one too many."""
    monkeypatch.setattr(members, "MOST_MEMBERS", 10)
    path = make(tmp_path / "many.tar", *[(f"volumes/{n}", "file", b"") for n in range(12)])
    found = contents(path)
    assert found.count == 10
    assert "'volumes/10'" in found.refusals[0]
    assert "more than 10 members" in found.refusals[0]


def test_few_refusals_are_told(tmp_path):
    """Of thousands of hostile members the first few are told, and the others not even kept."""
    found = contents(make(tmp_path / "x.tar", *[(f"../{n}", "file") for n in range(2000)]))
    assert len(found.refusals) == members.MOST_TOLD


@pytest.mark.parametrize(
    ("ending", "kind", "folder"),
    [
        ("tar", "general", "volumes"),
        ("tar.gz", "general", "volumes"),
        ("tar", "outside", "outside"),
        ("tar", "influx", "."),
        ("tar.gz", "mariadb", "."),
        ("tar", "postgres", "."),
        ("tar", "influxdb2", "."),
        ("tar.gz", "nextcloud", "db_backup"),
    ],
)
def test_more_than_fits(tmp_path, small_disk, ending, kind, folder):
    """A sparse file of a terabyte in a small archive is refused with both numbers, in any part."""
    place = tmp_path / "in" / folder
    place.mkdir(parents=True)
    with open(place / "backup.sql", "wb") as file:
        file.truncate(1 << 40)
    path = tmp_path / f"bomb.{ending}"
    subprocess.run(
        ["tar", "-Scaf", path, "-C", tmp_path / "in", "--hole-detection=seek", f"./{folder}"],
        check=True,
    )
    assert path.stat().st_size < 20_000
    file = File("pi", str(path).lstrip("/"), "/")
    step = ScanArchive(file, (), f"{small_disk}/not/yet/there", kind, ("outside",))
    with pytest.raises(
        StepFailed, match=r"1,099,511,627,776 bytes when unpacked, but 262,144 are free in "
    ):
        step.do(Scene())
    assert list(small_disk.iterdir()) == []


def test_volumes_that_lie_apart_need_room_of_their_own(tmp_path, small_disk):
    """Each file system must take what is unpacked onto it, and no more."""
    more = [("volumes/x/large", "file", bytes(300_000)), ("services/x/small", "file", b"x")]
    file = File("pi", str(make(tmp_path / "x.tar", *STACK, *more)).lstrip("/"), "/")
    ScanArchive(file, (), str(small_disk), volumes=str(tmp_path)).do(Scene())
    with pytest.raises(
        StepFailed, match=r"volumes/ of .* needs 300,\d\d\d bytes when unpacked, but"
    ):
        ScanArchive(file, (), str(tmp_path), volumes=str(small_disk)).do(Scene())


# Damage.


def honest(path, mode="w:gz"):
    """Make an archive of a stack, with content that does not compress."""
    more = [(f"volumes/x/{n}", "file", os.urandom(5000)) for n in range(20)]
    return make(path, *STACK, *more, mode=mode)


@pytest.fixture(params=["igzip", "gzip"])
def program(request, monkeypatch):
    """What decompresses: ISA-L on this machine, gzip on others."""
    monkeypatch.setattr(gzips, "PROGRAM", request.param)
    return request.param


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
@pytest.mark.parametrize(("ending", "mode"), [("tar", "w"), ("tar.gz", "w:gz")])
def test_cut(tmp_path, part, ending, mode):
    """An archive that was cut short is found damaged, however much of it is there."""
    path = honest(tmp_path / f"cut.{ending}", mode)
    # The end of a plain tar is padding: the last tenth of this one is no loss.
    os.truncate(path, int(os.path.getsize(path) * min(part, 0.99 if mode == "w:gz" else 0.9)))
    with pytest.raises(StepFailed, match=r"cut\.tar.* is damaged"):
        contents(path)


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"\x00" * 5000, b"\x1f\x8b\x08"])
def test_garbage(tmp_path, content, ending):
    """What is no archive is damaged, or holds nothing; it never passes for a stack."""
    path = tmp_path / f"garbage.{ending}"
    path.write_bytes(content)
    try:
        found = contents(str(path))
    except StepFailed as error:
        assert "damaged" in str(error)  # noqa: PT017 - it may also hold nothing
    else:
        assert (found.count, found.items) == (0, set())
        assert found.refusals == ["it is empty"]


def test_flipped_bits(tmp_path, program):
    """A gzip whose checksum is wrong is damaged, though each of its members can be listed."""
    path = tmp_path / "flip.tar.gz"
    plain = io.BytesIO()
    make(tmp_path / "plain.tar", *STACK, ("volumes/x", "file", b"a" * 9000))
    plain = (tmp_path / "plain.tar").read_bytes()
    packed = bytearray(gzip.compress(plain))
    packed[-6] ^= 1
    path.write_bytes(packed)
    with pytest.raises(StepFailed, match=f"damaged.*: +{program}: .*(CRC|crc)"):
        contents(str(path))


@pytest.mark.usefixtures("program")
def test_gzip_cut_in_its_last_bytes(tmp_path):
    """The tar inside is whole; what proves it is not there."""
    path = honest(tmp_path / "end.tar.gz")
    os.truncate(path, os.path.getsize(path) - 4)
    with pytest.raises(StepFailed, match=r"damaged.*: unexpected end|damaged.*before the end"):
        contents(path)


def test_bad_header(tmp_path):
    """A header whose checksum is wrong in the middle of an archive is damage."""
    path = tmp_path / "header.tar"
    honest(path, "w")
    content = bytearray(path.read_bytes())
    content[512 * 4 + 10] ^= 1
    path.write_bytes(content)
    with pytest.raises(StepFailed, match="damaged"):
        contents(str(path))


PLAIN = {
    "whole": (lambda data, end: data, ""),
    "ten KiB": (lambda data, end: end + bytes(10240), ""),
    "two blocks": (lambda data, end: end + bytes(1024), ""),
    "no end": (lambda data, end: end, "it does not end with two blocks of zeros"),
    "one block": (lambda data, end: end + bytes(512), "it does not end with two blocks of zeros"),
    "half an end": (lambda data, end: end + bytes(700), "damaged"),
    "cut in a file": (lambda data, end: end[:-512], "damaged"),
    "few bytes behind": (lambda data, end: data + b"junk", "data after the end"),
    "a byte behind": (lambda data, end: data + b"j", "data after the end"),
    "blocks behind": (lambda data, end: data + b"j" * 1024, "damaged"),
    "an archive behind": (lambda data, end: data + data, "data after the end"),
    "behind one block": (lambda data, end: end + bytes(512) + data, "data after the end"),
    "a disk behind": (lambda data, end: data + bytes(60 << 20), "data after the end"),
}


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "packed.tar"])
@pytest.mark.parametrize(("change", "why"), PLAIN.values(), ids=PLAIN)
@pytest.mark.usefixtures("program")
def test_an_end_is_an_end(tmp_path, change, why, ending):
    """Two blocks of zeros end an archive, more may follow; with none or with more it is refused."""
    first = make(tmp_path / "first.tar", *STACK, ("volumes/x", "file", b"a" * 9000))
    data = Path(first).read_bytes()
    end = data.rstrip(b"\0")
    data = change(data, end + bytes(-len(end) % 512))
    path = tmp_path / f"a.{ending}"
    path.write_bytes(data if ending == "tar" else gzip.compress(data, 1))
    if why:
        with pytest.raises(StepFailed, match=f"damaged.*{why}" if why != "damaged" else why):
            contents(str(path))
    else:
        assert contents(str(path)).refusals == []


def test_gzips_one_after_the_other_are_one(tmp_path, program):
    """`cat` of two .gz is a .gz; where one ends says nothing of the tar inside."""
    data = Path(make(tmp_path / "first.tar", *STACK)).read_bytes()
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(data[:700]) + gzip.compress(data[700:]))
    assert contents(str(path)).refusals == [], program


def test_tar_that_was_killed(tmp_path):
    """The gzip beside a tar that is killed ends well, and its archive is refused all the same."""
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes/x").write_bytes(os.urandom(3000))
    whole = subprocess.run(
        ["tar", "-c", "-C", tmp_path, "./volumes"], check=True, capture_output=True
    ).stdout
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(whole[: 512 * 8]))
    with pytest.raises(StepFailed, match="so it is cut"):
        contents(str(path))


WORDS = [
    "sudo: unable to resolve host pi: Name or service not known",
    "sudo: Hostname pi kann nicht aufgelöst werden: Temporärer Fehler",
    "bash: warning: setlocale: LC_ALL: cannot change locale (de_DE.UTF-8)",
    "tar: Ignoring unknown extended header keyword 'LIBARCHIVE.creationtime'",
    "Welcome to this Raspberry Pi",
]


@pytest.fixture
def talking(tmp_path):
    """As root_words would: a program that says one thing on its error stream, and runs the rest."""
    program = tmp_path / "sudo"
    program.write_text('#!/bin/sh\necho "$SAYS" >&2\nexec "$@"\n')
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("words", WORDS)
def test_words_are_no_damage(tmp_path, monkeypatch, talking, words):
    """What is said beside a listing that ends with 0 damages nothing."""
    monkeypatch.setenv("SAYS", words)
    path = honest(tmp_path / "a.tar.gz")
    assert list_archive(LocalHost("/"), path, (talking,)).refusals == []


@pytest.mark.parametrize("words", WORDS[:4])
def test_what_failed_is_told_before_what_was_said_besides(tmp_path, monkeypatch, talking, words):
    """Of a damaged archive tar's own words are told first."""
    monkeypatch.setenv("SAYS", words)
    path = honest(tmp_path / "a.tar.gz")
    os.truncate(path, 3000)
    with pytest.raises(StepFailed) as caught:
        list_archive(LocalHost("/"), path, (talking,))
    told = str(caught.value)
    assert "exit 2): " in told
    assert words not in told.partition("exit 2): ")[2][: len(words)]


def test_an_unknown_pax_keyword_is_no_damage(tmp_path):
    """A keyword of another archiver, of which tar warns, is passed over."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("volumes/x")
        info.pax_headers = {"LIBARCHIVE.creationtime": "1.5", "X.y": "z"}
        archive.addfile(info)
    assert contents(str(path)).refusals == []


@pytest.mark.parametrize("kind", ["influx", "mariadb", "postgres", "influxdb2"])
def test_a_dump_holds_files_alone(tmp_path, kind):
    """A link or a pipe among dumps would be followed, or waited for."""
    path = make(tmp_path / "a", ("./", "folder"), ("./x.meta", "file"), ("./d/y", "file"))
    assert list_archive(LocalHost("/"), path, (), kind).refusals == []
    for odd in (("./x.meta", "symlink", "/etc/shadow"), ("./x.s1.tar.gz", "pipe"), ("/x", "file")):
        path = make(tmp_path / "a", odd)
        assert len(list_archive(LocalHost("/"), path, (), kind).refusals) == 1, odd


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_two_archives_in_one_file(tmp_path, outside, ending):
    """What hides behind the end of an archive is neither listed nor unpacked."""
    first = make(tmp_path / "first.tar", *STACK, ("volumes/x/link", "symlink", str(outside)))
    second = make(tmp_path / "second.tar", ("volumes/x/link/victim", "file", b"overwritten"))
    both = Path(first).read_bytes() + Path(second).read_bytes()
    path = tmp_path / f"both.{ending}"
    path.write_bytes(gzip.compress(both) if ending == "tar.gz" else both)
    try:
        found = contents(str(path))
    except StepFailed:
        return
    assert (found.refusals, found.count) == ([], 4)
    Unpack(HostAccess("pi", guard=str(tmp_path / "guard")), str(path), str(tmp_path / "new")).do(
        Scene()
    )
    assert (outside / "victim").read_text() == "precious"


def test_an_archive_that_is_not_there(tmp_path):
    """An archive that is gone is damage with its name, not an empty one."""
    with pytest.raises(StepFailed, match=r"gone\.tar"):
        contents(str(tmp_path / "gone.tar"))


# Names as C strings.

NAMES = st.binary(min_size=1, max_size=200).map(
    lambda b: b.replace(b"\0", b"0").replace(b"/", b"|")
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(names=st.lists(NAMES, min_size=1, max_size=30, unique=True))
def test_unquote_is_the_inverse(tmp_path, names):
    """Any name that a file system takes comes back from GNU tar's listing as it was."""
    path = make(tmp_path / "names.tar", *[(b"volumes/x" + name, "file", b"") for name in names])
    told = subprocess.run([*LIST_WORDS, f"--file={path}"], check=True, capture_output=True).stdout
    lines = told.decode("ascii").splitlines()
    quoted = [line[line.index('"') :] for line in lines if '"' in line]
    assert [os.fsencode(unquote(each)) for each in quoted] == [b"volumes/x" + n for n in names]
    assert contents(path).count == len(names)


def test_a_part_of_a_service_has_its_own_folders_only(tmp_path):
    """What is at the top of the part is told; neither a stack's folders nor files are taken."""
    honest_part = (("./html/config", "folder"), ("./db_backup/backup.sql", "file"))
    path = make(tmp_path / "a", *honest_part)
    assert list_archive(LocalHost("/"), path, (), "nextcloud").refusals == []
    for hostile in (("./volumes/x", "file"), ("./x.yml", "file"), ("./html", "symlink", "x")):
        path = make(tmp_path / "a", honest_part[1], hostile)
        assert len(list_archive(LocalHost("/"), path, (), "nextcloud").refusals) == 1, hostile
    assert contents(make(tmp_path / "a", *honest_part)).refusals


INCLUDED = ("homeassistant", ".templates/mosquitto", "parts/mqtt.yaml")
BELONGING = (
    ("./homeassistant", "folder"),
    ("./homeassistant/.storage/auth", "file"),
    ("./.templates", "folder"),
    ("./.templates/mosquitto", "folder"),
    ("./.templates/mosquitto/Dockerfile", "file"),
    ("./parts", "folder"),
    ("./parts/mqtt.yaml", "file"),
)


def included(path):
    return list_archive(LocalHost("/"), path, (), included=INCLUDED)


def test_what_a_manifest_names_belongs_to_the_stack(tmp_path):
    """A named path, what lies below it and the folders around it are taken, and else nothing."""
    path = make(tmp_path / "a.tar", *STACK, *BELONGING)
    found = included(path)
    assert found.refusals == []
    assert found.included == set(INCLUDED)
    assert found.top_files == {"docker-compose.yml"}
    assert len(contents(path).refusals) == members.MOST_TOLD


@pytest.mark.parametrize(
    ("member", "why"),
    [
        ((".templates/other", "file"), "homeassistant"),
        (("parts/mqtt.yaml.old", "file"), "does not belong"),
        (("homeassistant2/x", "file"), "does not belong"),
        ((".templates", "symlink", "/etc"), "must be a folder"),
        (("parts", "file"), "must be a folder"),
        (("homeassistant/n", "character device"), "character device"),
        (("homeassistant/../x", "file"), "out of the folder"),
    ],
)
def test_beside_what_is_named_nothing_is_taken(tmp_path, member, why):
    """A neighbour of a named path, or another kind in its place, is refused by its name."""
    (refusal,) = included(make(tmp_path / "a.tar", *STACK, member)).refusals
    assert repr(member[0]) in refusal
    assert why in refusal


def test_a_part_is_scanned_with_what_its_manifest_names(tmp_path):
    """The step that a restore and a rehearsal take says the same of the archive."""
    path = make(tmp_path / "a.tar", *STACK, *BELONGING)
    file = File("pi", path.lstrip("/"), "/")
    ScanArchive(file, (), "/", included=INCLUDED).do(Scene())
    with pytest.raises(StepFailed, match="homeassistant"):
        ScanArchive(file, (), "/").do(Scene())


def test_where_nothing_may_belong_to_a_part_the_refusal_says_so(tmp_path):
    """An outside part of which no manifest tells what it holds: the words ended in the middle."""
    path = make(tmp_path / "t1.outside-backup.tar.gz", ("srv/x", "file"), mode="w:gz")
    with pytest.raises(StepFailed) as refused:
        members.refuse_members("it", list_archive(LocalHost("/"), path, (), kind="outside"))
    assert "it does not belong to this part: there is no manifest that lists what does" in str(
        refused.value
    )
