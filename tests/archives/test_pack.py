"""The general part: what tar read is in the archive, and what tar said is told."""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile

import pytest
from contexts import PlainContext

from iotstack_invoke.archives import pack as archive
from iotstack_invoke.archives.pack import CompareUnpacked, PackStack, judge_tar, tar_words
from iotstack_invoke.archives.scan import list_archive
from iotstack_invoke.core import gzip_streams as gzips
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.engine.steps import File, HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.stack.folders import Unpack

ODD_NAMES = (
    b"two words",
    b"line\nbreak",
    "Köln ☕".encode(),
    b"not-utf8-\xff\xfe",
    b"-dash",
    b"quote'\"",
    b"star*",
    b"back\\slash",
    b"tab\t",
    b"x" * 255,
)


@pytest.fixture
def stack(tmp_path):
    """A folder with a little of everything."""
    folder = tmp_path / "stack"
    (folder / "services" / "empty").mkdir(parents=True)
    (folder / "volumes").mkdir()
    (folder / "docker-compose.yml").write_text("version: '3'\n")
    (folder / "volumes" / "random").write_bytes(os.urandom(700_000))
    (folder / "volumes" / "text").write_text("hello\n" * 10_000)
    (folder / "volumes" / "link").symlink_to("../nowhere")
    os.link(folder / "volumes" / "text", folder / "volumes" / "hard")
    os.chmod(folder / "volumes" / "text", 0o640)
    os.utime(folder / "volumes" / "text", (1e9, 1e9))
    return folder


def pack(folder, tmp_path, *, members=(".",), exclusions=(), tar=None, limit_s=60, copies=""):
    """Pack a folder and return the scene and the output."""
    output = File("pi", "out.tar.gz", str(tmp_path))
    context = PlainContext({"pi": LocalHost(str(tmp_path))})
    words = tar or tar_words((), str(folder), exclusions)
    PackStack(output, words, members, limit_s, 1000, copies).do(context)
    return context, output


def members(output):
    """Return the members of an archive by name, read by another program than ours."""
    with tarfile.open(output.partial, encoding="utf-8", errors="surrogateescape") as archive:
        return {each.name: each for each in archive}


def wrapper(tmp_path, script):
    """Return the words of a `tar` that does something around the real one ("$@")."""
    path = tmp_path / "tar-wrapper"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return lambda words: tuple(str(path) if word == "tar" else word for word in words)


@pytest.fixture
def copies(stack, tmp_path):
    """Make a copy of a file of the stack, which differs, in the folder for copies."""

    def make(name, content=b"copy"):
        path = os.path.join(os.fsencode(stack), b"backups/.copies", os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(content)
        return path

    (stack / "backups/.copies").mkdir(parents=True)
    make.folder = str(stack / "backups/.copies")
    return make


def test_what_is_packed_comes_out_again(stack, tmp_path):
    """Unpacked by GNU tar, the tree is the same: contents, modes, dates, links of both kinds."""
    _, output = pack(stack, tmp_path)
    subprocess.run(["gzip", "-t", "-S", ".partial", output.partial], check=True)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xpzf", output.partial, "-C", tmp_path / "out"], check=True)
    listing = ["find", ".", "-printf", "%P %y %m %l %T@ %n\n"]
    trees = [
        sorted(
            subprocess.run(listing, cwd=each, check=True, capture_output=True).stdout.splitlines()
        )
        for each in (stack, tmp_path / "out")
    ]
    # Whole seconds are kept: no header of its own for each file.
    whole = [
        [line.replace(line[line.rindex(b".") : line.rindex(b" ")], b"") for line in t]
        for t in trees
    ]
    assert whole[0] == whole[1]
    assert (
        subprocess.run(
            ["diff", "-r", "--no-dereference", stack, tmp_path / "out"], check=False
        ).returncode
        == 0
    )


def test_size_and_hash_are_those_of_the_file(stack, tmp_path):
    """What is learnt of the archive is what lies on the disk, and how much tar read."""
    context, output = pack(stack, tmp_path)
    with open(output.partial, "rb") as stream:
        data = stream.read()
    unpacked = gzip.decompress(data)
    assert context.recorded[str(output)] == {
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "unpacked_bytes": len(unpacked),
    }
    assert context.moved_bytes == len(unpacked)
    assert context.expected_bytes == 1000
    assert context.warned == []
    assert os.stat(output.partial).st_mode & 0o777 == 0o600
    assert not os.path.exists(output.absolute)


DATES = (-(2**31), -5, -1, 0, 8**11 - 1, 8**11, 9 * 10**9)


def test_dates_come_through(stack, tmp_path, copies):
    """Before 1970 and after 2242 too, of files, folders, links and copies; at least whole seconds."""
    (stack / "volumes/links").mkdir()
    for date in DATES:
        (stack / f"volumes/{date}").write_text("x")
        (stack / f"volumes/links/{date}").symlink_to("away")
        (stack / f"volumes/folder{date}").mkdir()
        (stack / f"volumes/{date}.db").write_text("live")
        copies(f"volumes/{date}.db")
        for each in (f"{date}", f"links/{date}", f"folder{date}", f"{date}.db"):
            os.utime(stack / "volumes" / each, (date, date), follow_symlinks=False)
        os.utime(os.path.join(copies.folder, f"volumes/{date}.db"), (date, date))
    context, output = pack(
        stack, tmp_path, members=("./docker-compose.yml", "./volumes"), copies=copies.folder
    )
    assert context.warned == []
    shutil.copy(output.partial, tmp_path / "whole.tar.gz")
    assert list_archive(LocalHost("/"), str(tmp_path / "whole.tar.gz"), ()).refusals == []
    (tmp_path / "there").mkdir()
    subprocess.run(["tar", "-xzf", output.partial, "-C", tmp_path / "there"], check=True)
    for date in DATES:
        for each in (f"{date}", f"links/{date}", f"folder{date}", f"{date}.db"):
            there = os.lstat(tmp_path / "there/volumes" / each)
            assert there.st_mtime_ns == date * 10**9, each


def test_usual_dates_take_no_header(stack, tmp_path):
    """Of whole seconds, as those are that a part of one is cut off."""
    os.utime(stack / "volumes/random", ns=(10**18 + 5, 10**18 + 5))
    os.utime(stack / "services/empty", (8**11 - 1, 8**11 - 1))
    _, output = pack(stack, tmp_path)
    found = members(output)
    assert all(each.pax_headers == {} for each in found.values())
    assert found["./volumes/random"].mtime == 10**9


def test_odd_names_come_through(tmp_path):
    """Whatever bytes a name has, the archive holds a file of exactly that name."""
    folder = os.fsencode(tmp_path / "stack")
    os.mkdir(folder)
    for name in ODD_NAMES:
        with open(os.path.join(folder, name), "wb") as stream:
            stream.write(name)
    context, output = pack(os.fsdecode(folder), tmp_path)
    found = {os.fsencode(name).removeprefix(b"./") for name in members(output)} - {b"."}
    assert found == set(ODD_NAMES)
    assert context.warned == []


def test_members_and_exclusions_are_taken_at_their_word(stack, tmp_path):
    """Only the members are packed; an excluded folder keeps its name and loses its content."""
    for name in ("influxdb", "influxdb2", "other/influxdb"):
        (stack / "volumes" / name).mkdir(parents=True)
        (stack / "volumes" / name / "data").write_text("x")
    (stack / "secret.txt").write_text("not a member")
    _, output = pack(
        stack,
        tmp_path,
        members=("./docker-compose.yml", "./services", "./volumes"),
        exclusions=("volumes/influxdb/*", "volumes/text"),
    )
    found = set(members(output))
    assert {"./docker-compose.yml", "./services/empty", "./volumes/influxdb"} <= found
    assert {"./volumes/influxdb2/data", "./volumes/other/influxdb/data"} <= found
    assert not found & {"./volumes/influxdb/data", "./volumes/text", "./secret.txt", "."}


def test_owners_are_numbers_only(stack, tmp_path):
    """No name of a user or group is in the archive: elsewhere it would mean another number."""
    if os.geteuid() == 0:
        os.chown(stack / "volumes" / "text", 1883, 472)
    _, output = pack(stack, tmp_path)
    found = members(output)
    assert {(each.uname, each.gname) for each in found.values()} == {("", "")}
    text = os.stat(stack / "volumes" / "text")
    assert (found["./volumes/text"].uid, found["./volumes/text"].gid) == (text.st_uid, text.st_gid)


def test_the_same_tree_gives_the_same_archive(stack, tmp_path):
    """Names are sorted and nothing of the moment is in it: two archives have one hash."""
    first, output = pack(stack, tmp_path)
    os.unlink(output.partial)
    date = os.stat(stack / "volumes").st_mtime_ns
    for name in sorted(os.listdir(stack / "volumes"), reverse=True):  # another order on the disk
        os.rename(stack / "volumes" / name, stack / "volumes" / f"{name}.x")
        os.rename(stack / "volumes" / f"{name}.x", stack / "volumes" / name)
    os.utime(stack / "volumes", ns=(date, date))
    second, _ = pack(stack, tmp_path)
    assert first.recorded == second.recorded


def test_a_socket_is_passed_over_in_silence(stack, tmp_path):
    """What cannot be saved and need not be is no warning."""
    import socket

    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(stack / "volumes" / "s"))
    context, output = pack(stack, tmp_path)
    assert context.warned == []
    assert "./volumes/s" not in members(output)


def test_a_file_that_grows_meanwhile_is_named(stack, tmp_path):
    """A file that changes while tar reads it is a warning with its name, not a failure."""
    (stack / "volumes" / "busy database.db").write_bytes(bytes(100_000_000))
    script = '( while :; do printf x >> "$BUSY"; done ) & tar "$@"; code=$?; kill $!; exit $code'
    busy = stack / "volumes" / "busy database.db"
    words = wrapper(tmp_path, f"BUSY='{busy}'\n{script}")(tar_words((), str(stack)))
    context, output = pack(stack, tmp_path, tar=words)
    assert context.warned == ["./volumes/busy database.db: file changed as we read it"]
    assert members(output)["./volumes/busy database.db"].size >= 100_000_000
    assert ("err", "tar: ./volumes/busy database.db: file changed as we read it") in context.heard


def test_a_file_that_shrinks_or_goes_meanwhile_is_named(stack, tmp_path):
    """A file cut short is padded and named; one that goes is named; the rest is whole."""
    big = stack / "volumes" / "a-big"
    big.write_bytes(bytes(80_000_000))
    (stack / "volumes" / "gone").write_text("x")
    code = (
        "import os, subprocess, sys\n"
        f"big = {str(big)!r}\n"
        "tar = subprocess.Popen(['tar', *sys.argv[1:]], stdout=subprocess.PIPE)\n"
        "sys.stdout.buffer.write(tar.stdout.read(1_000_000))\n"
        "os.truncate(big, 60_000_000)\n"
        f"os.unlink({str(stack / 'volumes' / 'gone')!r})\n"
        "while data := tar.stdout.read(1 << 20):\n"
        "    sys.stdout.buffer.write(data)\n"
        "sys.stdout.flush()\n"
        "sys.exit(tar.wait())\n"
    )
    (tmp_path / "slow.py").write_text(code)
    script = f'exec "{sys.executable}" "{tmp_path}/slow.py" "$@"'
    words = wrapper(tmp_path, script)(tar_words((), str(stack)))
    context, output = pack(stack, tmp_path, tar=words)
    assert any("a-big: File shrank by 20000000 bytes" in each for each in context.warned)
    assert any(each.startswith("./volumes/gone: ") for each in context.warned)
    assert "./volumes/text" in members(output)


def test_a_file_that_nobody_may_read_is_a_failure(stack, tmp_path):
    """Exit 2 is a failure that names the file, and says what to set."""
    if os.geteuid() == 0:
        script = 'echo "tar: ./volumes/secret: Cannot open: Permission denied" >&2; exit 2'
        words = wrapper(tmp_path, f'tar "$@"\n{script}')(tar_words((), str(stack)))
    else:
        (stack / "volumes" / "secret").touch(mode=0)
        words = None
    with pytest.raises(StepFailed) as failure:
        pack(stack, tmp_path, tar=words)
    for part in ("exit 2", "./volumes/secret: Cannot open: Permission denied", "sudo = true"):
        assert part in str(failure.value)


def test_a_member_that_is_not_there_is_a_failure_or_a_warning(stack, tmp_path):
    """A folder that went after the look is named; no other reason is invented."""
    context, _ = pack(stack, tmp_path, members=("./volumes", "./services-gone"))
    assert context.warned == ["./services-gone: Cannot stat: No such file or directory"]


def test_a_folder_that_is_not_there_is_a_failure(tmp_path):
    """Without the stack there is no archive."""
    with pytest.raises(StepFailed, match=r"tar ended with exit 2: tar: .*none"):
        pack(tmp_path / "none", tmp_path)


def test_sudo_that_asks_is_a_failure_with_the_way_out(stack, tmp_path):
    """A sudo that wants a password says so, and we say what to do."""
    words = wrapper(tmp_path, 'echo "sudo: a password is required" >&2; exit 1')(
        tar_words((), str(stack))
    )
    with pytest.raises(StepFailed) as failure:
        pack(stack, tmp_path, tar=words)
    assert "NOPASSWD" in str(failure.value)


@pytest.mark.parametrize(
    "script",
    [
        'tar "$@" | head -c 20000',
        "exit 0",
        'tar "$@" | head -c 20480',
        "head -c 10300 /dev/zero",  # in the middle of a file of zeros, which are no end
    ],
)
def test_a_tar_that_ends_early_is_a_failure(stack, tmp_path, script):
    """An archive without its end is none, whatever tar's exit code says."""
    words = wrapper(tmp_path, script)(tar_words((), str(stack)))
    with pytest.raises(StepFailed, match="tar did not finish its archive") as failure:
        pack(stack, tmp_path, tar=words)
    assert failure.value.again


def test_a_tar_that_hangs_is_ended(stack, tmp_path):
    """A tar that says nothing any more is ended by its time limit."""
    words = wrapper(tmp_path, "exec sleep 300")(tar_words((), str(stack)))
    with pytest.raises(StepFailed):
        pack(stack, tmp_path, tar=words, limit_s=0.5)


def test_a_missing_tar_is_named(stack, tmp_path):
    """Where there is no tar, the failure says so."""
    with pytest.raises(StepFailed, match="no-such-tar"):
        pack(stack, tmp_path, tar=("no-such-tar", "-c"))


def test_a_full_disk_is_a_failure_that_says_so(stack, small_disk):
    """A disk that fills up in the middle ends the packing, with advice, and does not hang."""
    with pytest.raises(StepFailed, match=r"No space left on device.*Free some space"):
        pack(stack, small_disk)


def test_plain_zlib_is_as_good(stack, tmp_path, monkeypatch):
    """Where there is no ISA-L, zlib makes a file that gzip finds whole, with the same content."""
    first, output = pack(stack, tmp_path)
    monkeypatch.setattr(gzips, "PROGRAM", "gzip")
    monkeypatch.setattr(gzips, "LEVEL", 3)
    second, _ = pack(stack, tmp_path)
    subprocess.run(["gzip", "-t", "-S", ".partial", output.partial], check=True)
    unpacked = [each.recorded[str(output)]["unpacked_bytes"] for each in (first, second)]
    assert unpacked[0] == unpacked[1]
    with open(output.partial, "rb") as stream:
        assert second.recorded[str(output)]["sha256"] == hashlib.sha256(stream.read()).hexdigest()
    assert "./volumes/text" in members(output)


def test_either_reader_reads_either_writer(tmp_path, monkeypatch):
    """What one machine compressed another one reads, with or without ISA-L."""
    data = os.urandom(300_000) + bytes(300_000)
    ways = [(gzips.PROGRAM, gzips.LEVEL), ("gzip", 3)]
    for number, (program, level) in enumerate(ways):
        monkeypatch.setattr(gzips, "PROGRAM", program)
        monkeypatch.setattr(gzips, "LEVEL", level)
        with open(tmp_path / f"{number}.gz", "wb") as target:
            with gzips.open_writer(target) as writer:
                writer.write(data)
            assert not target.closed
    for program, level in ways:
        monkeypatch.setattr(gzips, "PROGRAM", program)
        monkeypatch.setattr(gzips, "LEVEL", level)
        for number in range(2):
            with open(tmp_path / f"{number}.gz", "rb") as source:
                assert gzips.open_reader(source).read() == data


def test_the_command_can_be_typed(stack, tmp_path):
    """What the dry run prints makes the same archive in a shell."""
    output = File("pi", "a b.tar.gz", str(tmp_path))
    step = PackStack(output, tar_words((), str(stack)), ("./volumes",), 60)
    (line,) = step.commands()
    if shutil.which(gzips.PROGRAM) is None:
        line = line.replace(f"{gzips.PROGRAM} -{gzips.LEVEL}", "gzip")
    subprocess.run(["sh", "-c", line], check=True)
    assert "./volumes/text" in members(output)


@pytest.mark.parametrize("listed_bytes", [archive.LISTED_BYTES, 0], ids=["words", "files"])
def test_copies_take_the_place_of_live_files_whatever_their_names(
    stack, tmp_path, copies, monkeypatch, listed_bytes
):
    """Each copy is in the archive once, under its name; nothing else is, or is gone, for it."""
    monkeypatch.setattr(archive, "LISTED_BYTES", listed_bytes)
    volumes = os.fsencode(stack / "volumes")
    for name in (
        *ODD_NAMES[:-1],
        b"x" * 240,
        b"[a]b",
        b"&amp\\1",
        b"a,b;c",
        b"sub/.copies/x.db",
        b"end ",
    ):
        os.makedirs(os.path.dirname(os.path.join(volumes, name)), exist_ok=True)
        for ending in (b"", b"-wal", b"-shm", b"-journal"):
            with open(os.path.join(volumes, name + ending), "wb") as stream:
                stream.write(b"live")
        copies(b"volumes/" + name, b"copy of " + name)
    for name in (b"starX", b"ab", b"backslash", b"star*.txt", b"xstar*"):  # not what those name
        with open(os.path.join(volumes, name), "wb") as stream:
            stream.write(b"live")
    (stack / "volumes/aims").symlink_to("./.copies/volumes/x")
    (stack / "volumes/influxdb").mkdir()
    (stack / "volumes/influxdb/left-out").touch()
    context, output = pack(
        stack,
        tmp_path,
        members=("./docker-compose.yml", "./services", "./volumes"),
        exclusions=("volumes/influxdb/*",),
        copies=copies.folder,
    )
    assert context.warned == []
    with tarfile.open(output.partial, encoding="utf-8", errors="surrogateescape") as packed:
        names = [each.name for each in packed]
        read = {
            os.fsencode(each.name): packed.extractfile(each).read()
            for each in packed
            if each.isreg()
        }
        assert packed.getmember("./volumes/aims").linkname == "./.copies/volumes/x"
        assert packed.getmember("./volumes/text").linkname == "./volumes/hard"
    assert len(set(names)) == len(names)
    copied = {name: text for name, text in read.items() if text.startswith(b"copy")}
    assert all(text == b"copy of " + name[len(b"./volumes/") :] for name, text in copied.items())
    assert len(copied) == context.recorded[str(output)]["sqlite_files"] == len(ODD_NAMES) + 5
    lively = {name for name, text in read.items() if text == b"live"}
    others = (b"starX", b"ab", b"backslash", b"star*.txt", b"xstar*")
    assert lively == {b"./volumes/" + name for name in others}
    assert "./volumes/influxdb/left-out" not in names
    host = LocalHost(str(tmp_path))
    shutil.copy(output.partial, tmp_path / "whole.tar.gz")
    assert list_archive(host, str(tmp_path / "whole.tar.gz"), ()).refusals == []


def test_thousands_of_copies_with_long_names_are_packed(stack, tmp_path, copies):
    """Together their names are more than the kernel lets anybody say; none is left behind."""
    folder = f"volumes/{'d' * 200}"
    (stack / folder).mkdir()
    for number in range(3000):
        copies(f"{folder}/{number:04}.db")
    context, output = pack(stack, tmp_path, members=("./volumes",), copies=copies.folder)
    assert context.recorded[str(output)]["sqlite_files"] == 3000
    assert sum(name.endswith(".db") for name in members(output)) == 3000
    assert sorted(os.listdir(os.path.dirname(copies.folder))) == [".copies"]


def test_a_copy_keeps_owner_mode_and_date_and_its_other_names(stack, tmp_path, copies):
    """What is in the archive of a copy is the copy's; two names of one copy stay one file."""
    for name in ("a.db", "b.db"):
        (stack / "volumes" / name).write_text("live")
    path = copies("volumes/a.db")
    os.link(path, os.path.join(os.path.dirname(path), b"b.db"))
    os.chmod(path, 0o640)
    if os.geteuid() == 0:
        os.chown(path, 472, 1883)
    os.utime(path, (1e9, 1e9))
    _, output = pack(stack, tmp_path, members=("./volumes",), copies=copies.folder)
    found, status = members(output), os.stat(path)
    copy = found["./volumes/a.db"]
    assert (copy.uid, copy.gid) == (status.st_uid, status.st_gid)
    assert (copy.mode, copy.mtime, copy.size) == (0o640, 1e9, 4)
    assert found["./volumes/b.db"].linkname == "./volumes/a.db"


def test_the_folder_of_a_copy_keeps_mode_and_date_under_a_plain_tar(stack, tmp_path, copies):
    """By hand, and as a restore does it, a folder in which a copy lies is as it was."""
    folder = stack / "volumes/data"
    folder.mkdir()
    (folder / "a.db").write_text("live")
    copies("volumes/data/a.db")
    os.chmod(folder, 0o700)
    os.utime(folder, (1e9, 1e9))
    _, output = pack(stack, tmp_path, members=("./volumes",), copies=copies.folder)
    archive = tmp_path / "whole.tar.gz"
    shutil.copy(output.partial, archive)
    (tmp_path / "hand").mkdir()
    subprocess.run(["tar", "-xpzf", archive, "-C", tmp_path / "hand"], check=True)
    unpack = Unpack(
        HostAccess("pi", guard=str(tmp_path / "guard")),
        str(archive),
        str(tmp_path / "ours"),
        scanned=True,
    )
    unpack.do(PlainContext({"pi": LocalHost(str(tmp_path))}))
    for name in ("hand", "ours"):
        status = (tmp_path / name / "volumes/data").stat()
        assert (status.st_mode & 0o777, status.st_mtime) == (0o700, 1e9), name
        assert (tmp_path / name / "volumes/data/a.db").read_text() == "copy"


def test_without_copies_the_archive_is_as_ever(stack, tmp_path, copies):
    """An empty folder for copies changes no byte of the archive, and nothing is learnt of it."""
    first, output = pack(stack, tmp_path, members=("./volumes",))
    second, _ = pack(stack, tmp_path, members=("./volumes",), copies=copies.folder)
    assert first.recorded == second.recorded
    assert "sqlite_files" not in first.recorded[str(output)]


def test_copies_that_are_gone_are_a_failure(stack, tmp_path):
    """Where somebody removed the folder of the copies, no live file is taken instead."""
    with pytest.raises(StepFailed, match=r"Cannot list the copies in .*: find: .*No such file"):
        pack(stack, tmp_path, copies=str(stack / "backups/.copies"))


def test_a_live_file_that_was_copied_may_change(stack, tmp_path, copies):
    """Neither the file nor its folder is told as changed; another one's folder is."""
    for folder in ("busy", "other"):
        (stack / "volumes" / folder).mkdir()
        (stack / "volumes" / folder / "filler").write_bytes(bytes(200_000_000))
    (stack / "volumes/busy/x.db").write_bytes(bytes(1000))
    copies("volumes/busy/x.db")
    script = (
        '( while :; do for f in busy other; do : > "$D/$f/x.db-journal"; printf x >> '
        '"$D/busy/x.db"; rm "$D/$f/x.db-journal"; done; done ) & tar "$@"; code=$?; '
        "kill $!; exit $code"
    )
    words = wrapper(tmp_path, f"D='{stack}/volumes'\n{script}")(tar_words((), str(stack)))
    context, output = pack(
        stack, tmp_path, members=("./volumes",), tar=words, copies=copies.folder
    )
    assert "./volumes/other: file changed as we read it" in context.warned
    assert [each for each in context.warned if "busy" in each] == []
    assert members(output)["./volumes/busy/x.db"].size == 4


def test_a_folder_that_is_packed_empty_may_change(stack, tmp_path):
    """A dump is written into it meanwhile, which another part holds; any other folder is told."""
    for folder in ("dumps", "other"):
        (stack / "volumes" / folder).mkdir()
        (stack / "volumes" / folder / "file").write_text("x")
    told = "; ".join(
        f'echo "tar: ./volumes/{folder}: file changed as we read it" >&2'
        for folder in ("dumps", "other")
    )
    tar = tar_words((), str(stack), ("volumes/dumps/*",))
    words = wrapper(tmp_path, f'tar "$@"; {told}; exit 1')(tar)
    context, output = pack(stack, tmp_path, members=("./volumes",), tar=words)
    assert context.warned == ["./volumes/other: file changed as we read it"]
    assert "./volumes/dumps" in members(output)
    assert "./volumes/dumps/file" not in members(output)


@pytest.mark.parametrize(
    ("code", "said", "warned"),
    [
        (0, [], []),
        (1, ["tar: ./a: b: file changed as we read it"], ["./a: b: file changed as we read it"]),
        (1, ["tar: ./a: File removed before we read it"], ["./a: File removed before we read it"]),
        (1, [], ["tar ended with exit 1: no message"]),
        (1, ["tar: strange"], ["tar ended with exit 1: tar: strange"]),
        (
            2,
            [
                "tar: ./a: Cannot stat: No such file or directory",
                "tar: Exiting with failure status due to previous errors",
            ],
            ["./a: Cannot stat: No such file or directory"],
        ),
        (
            2,
            [
                "sudo: unable to resolve host pi: Name or service not known",
                "tar: ./a: Cannot stat: No such file or directory",
                "tar: Exiting with failure status due to previous errors",
            ],
            ["./a: Cannot stat: No such file or directory"],
        ),
        (0, ["sudo: unable to resolve host pi"], []),
        (1, ["tar: strange", "sudo: Hostname pi"], ["tar ended with exit 1: tar: strange"]),
    ],
)
def test_tars_last_words_are_judged(code, said, warned):
    """Each change of a file is one warning; an exit 1 that tells none is a warning itself."""
    context = PlainContext({})
    judge_tar(code, said, context)
    assert context.warned == warned


@pytest.mark.parametrize(
    ("code", "said", "told"),
    [
        (
            2,
            ["tar: ./a: Read error: Input/output error", "tar: Exiting with failure"],
            "Read error",
        ),
        (2, [], "no message"),
        (-15, [], "exit -15"),
        (
            2,
            ["tar: ./a: Cannot stat: No such file or directory", "tar: ./b: Cannot open: Bad"],
            "./b: Cannot open",
        ),
    ],
)
def test_a_fatal_error_is_never_a_warning(code, said, told):
    """Any other exit code fails with the line that tells most."""
    with pytest.raises(StepFailed) as failure:
        judge_tar(code, said, PlainContext({}))
    assert told in str(failure.value)


CHANGES = {
    "content": lambda top: (top / "volumes/text").write_text("hellO\n" * 10_000),
    "shorter": lambda top: (top / "volumes/random").write_bytes(b"x"),
    "gone": lambda top: (top / "docker-compose.yml").unlink(),
    "mode": lambda top: (top / "volumes/text").chmod(0o600),
    "time": lambda top: os.utime(top / "volumes/text", (1, 1)),
    "link": lambda top: ((top / "volumes/link").unlink(), (top / "volumes/link").symlink_to("x")),
    "hard link": lambda top: (
        (top / "volumes/hard").unlink(),
        shutil.copy2(top / "volumes/text", top / "volumes/hard"),
        (top / "volumes/hard").write_text("other"),
    ),
}


@pytest.mark.parametrize("what", [None, *CHANGES])
def test_what_was_unpacked_is_compared(stack, tmp_path, what):
    """Equal passes; any member that is not as the archive has it is named."""
    _, output = pack(stack, tmp_path)
    archive, folder = tmp_path / "a.tar.gz", tmp_path / "unpacked"
    os.rename(output.partial, archive)
    folder.mkdir()
    subprocess.run(["tar", "-xpzf", archive, "-C", folder], check=True)
    context = PlainContext({"pi": LocalHost(str(tmp_path))})
    step = CompareUnpacked(HostAccess("pi"), str(archive), str(folder))
    if what is None:
        step.do(context)
        return
    CHANGES[what](folder)
    with pytest.raises(StepFailed, match="The unpacked files differ from "):
        step.do(context)


def test_a_folder_of_databases_may_change_and_not_go():
    """A -journal that comes and goes there is no news; a folder that is gone is a loss."""
    context = PlainContext({})
    told = ["tar: ./db: file changed as we read it", "tar: ./db: File removed before we read it"]
    judge_tar(1, told, context, {"./db"})
    assert context.warned == ["./db: File removed before we read it"]


def test_a_stack_of_which_nothing_is_packed_is_told(tmp_path):
    """Whatever left it out: an archive without services/ and volumes/ is no backup of a stack."""
    stack = tmp_path / "stack"
    for each in ("services/x", "volumes/y", "volumes/.restore-2026"):
        (stack / each).mkdir(parents=True)

    def warned(*exclusions):
        output = File("pi", "out.tar.gz", str(tmp_path))
        context = PlainContext({"pi": LocalHost(str(tmp_path))})
        words = tar_words((), str(stack), exclusions)
        PackStack(output, words, ("./services", "./volumes"), 60, sized=()).do(context)
        return context.warned

    assert warned() == warned("volumes/*") == warned("services/*") == []
    (told,) = warned("*/*")
    assert told.startswith(
        "It contains nothing of services/ and volumes/, although there are files."
    )
    for each in ("services/x", "volumes/y"):
        (stack / each).rmdir()
    assert warned("*/*") == []
