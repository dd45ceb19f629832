"""SQLite files: a copy is whole whoever writes meanwhile, and the stack is left as it was."""

import contextlib
import io
import itertools
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import replace

import pytest
from contexts import LittleStack, PlainContext, until

from iotstack_invoke.commands.backup.disk_space import estimate_space
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.databases.sqlite import files as sqlite
from iotstack_invoke.databases.sqlite import online_copy as sqlite_copy
from iotstack_invoke.databases.sqlite.files import COPIES, CopySqlite, shown
from iotstack_invoke.databases.sqlite.online_copy import pattern_of
from iotstack_invoke.engine import journal
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.environment.environment import Environment
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.settings.model import load_settings
from iotstack_invoke.workflows.backup import BackupFacts
from iotstack_invoke.workflows.restore import undoable

MODES = [
    "DELETE",
    pytest.param("TRUNCATE", marks=pytest.mark.long),
    pytest.param("PERSIST", marks=pytest.mark.long),
    "WAL",
]

# Commits a row at a time, and says the number of each when it is committed.
WRITER = """
import sqlite3, sys, time
path, mode, pause, opens = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4] == "opens"
database = None
for number in range(1, 10**9):
    if database is None:
        database = sqlite3.connect(path, timeout=60)
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute("PRAGMA synchronous=OFF")
        database.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, x)")
        database.execute("CREATE INDEX IF NOT EXISTS i ON t (x)")
    rows = [(str(hash((number, each))) * 20,) for each in range(30)]
    database.executemany("INSERT INTO t (x) VALUES (?)", rows)
    database.commit()
    print(number, flush=True)
    if opens:
        database.close()
        database = None
    time.sleep(pause)
"""
# Dies in the middle of a transaction that is half in the file already.
BREAKS_OFF = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x)")
database.executemany("INSERT INTO t (x) VALUES (?)", [("a" * 200,)] * 2000)
database.commit()
database.execute("PRAGMA cache_size=1")
database.execute("UPDATE t SET x = 'b' || x")
database.executemany("INSERT INTO t (x) VALUES (?)", [("c" * 200,)] * 2000)
os.kill(os.getpid(), 9)
"""
DIES_WITH_WAL = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("PRAGMA journal_mode=WAL")
database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x)")
database.executemany("INSERT INTO t (x) VALUES (?)", [("a" * 200,)] * 2000)
database.commit()
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def stack(tmp_path):
    """A folder for databases."""
    folder = tmp_path / "stack"
    (folder / "volumes").mkdir(parents=True)
    (folder / "backups").mkdir()
    return folder


def make(path, *, mode="DELETE", rows=100):
    """Make a database that nobody has open."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x)")
        database.executemany("INSERT INTO t (x) VALUES (?)", [("x" * 200,)] * rows)
    return path


def step(stack, **given):
    access = HostAccess("pi", guard=str(stack / "backups/.commands"))
    words = (access, str(stack), ("./volumes",), (), str(stack / COPIES), 10.0)
    return replace(CopySqlite(*words), **given)


def copy(stack, **given):
    """Copy the databases of a folder; return the scene."""
    context = PlainContext({"pi": LocalHost(str(stack))})
    step(stack, **given).do(context)
    assert [line for stream, line in context.heard if stream == "err"] == []
    return context


def rows_of(path):
    """Return how many rows a whole database has."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return database.execute("SELECT count(*) FROM t").fetchone()[0]


def copies(stack):
    """Return the paths of the copies."""
    top = os.fsencode(stack / COPIES)
    return {
        os.path.relpath(os.path.join(folder, name), top)
        for folder, _, names in os.walk(top)
        for name in names
    }


def tree(folder):
    """Return all that is below a folder: sizes, dates, owners, numbers of files."""
    found = {}
    for at, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(at, name)
            status = os.lstat(path)
            found[path] = (*status[:7], status.st_mtime_ns)  # not when it was read
    return found


@contextlib.contextmanager
def written(path, mode, pause=0.0, how="stays"):
    """Let another process write into a database; yield what tells how often it has committed."""
    words = [sys.executable, "-c", WRITER, path, mode, str(pause), how]
    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end, behind the writer
    writer = subprocess.Popen(words, stdout=said)

    def committed():
        lines = os.pread(said.fileno(), os.fstat(said.fileno()).st_size, 0).splitlines()
        return int(lines[-1]) if lines else 0

    try:
        until(lambda: committed() > 3)
        yield committed
        assert writer.poll() is None, "the writer was disturbed"
    finally:
        writer.kill()
        writer.wait()
        said.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("pause", "how"), [(0.0, "stays"), (0.2, "stays"), (0.0, "opens")])
def test_a_database_that_is_written_is_copied_whole(stack, mode, pause, how):
    """Each copy passes SQLite's full check and has every row that was committed before it began."""
    path = stack / "volumes/busy.db"
    with written(path, mode, pause, how) as committed:
        for _ in range(8):
            before = committed()
            context = copy(stack)
            if context.warned:  # opened and closed as a WAL all the time: there may be no moment
                assert (mode, how) == ("WAL", "opens")
                continue
            assert copies(stack) == {b"volumes/busy.db"}
            assert rows_of(stack / COPIES / "volumes/busy.db") >= 30 * before


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_large_database_is_copied_under_a_writer_that_never_rests(stack, mode):
    """The copy is made of many steps and one moment: a writer does not begin it anew."""
    path = make(stack / "volumes/large.db", mode=mode, rows=100_000)
    with written(path, mode) as committed:
        before = committed()
        assert copy(stack).warned == []
        assert rows_of(stack / COPIES / "volumes/large.db") >= 100_000 + 30 * before


def killed(code, path):
    told = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert told.returncode == -signal.SIGKILL


def test_a_transaction_that_broke_off_is_rolled_back_in_the_copy(stack):
    """With a hot journal the copy is what was committed, and the live file stays as it lies."""
    path = stack / "volumes/hot.db"
    killed(BREAKS_OFF, path)
    assert os.path.getsize(f"{path}-journal")
    before = tree(stack / "volumes")
    assert copy(stack).warned == []
    assert tree(stack / "volumes") == before
    assert copies(stack) == {b"volumes/hot.db"}
    with contextlib.closing(sqlite3.connect(stack / COPIES / "volumes/hot.db")) as database:
        found = database.execute("SELECT substr(x, 1, 1), count(*) FROM t GROUP BY 1").fetchall()
    assert found == [("a", 2000)]


def test_a_journal_that_names_another_file_is_not_followed(stack):
    """What a journal names as the file of a transaction over several is neither read nor removed."""
    path = stack / "volumes/hot.db"
    killed(BREAKS_OFF, path)
    victim = stack / "victim"
    victim.write_bytes(b"")
    name = os.fsencode(victim)
    with open(f"{path}-journal", "r+b") as journal:
        journal.seek(-(-os.path.getsize(f"{path}-journal") // 512) * 512)
        journal.write((0x40000000 // 4096 + 1).to_bytes(4, "big") + name)
        journal.write(len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big"))
        journal.write(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7")
    (warned,) = copy(stack).warned
    assert "a transaction over several databases" in warned
    assert victim.exists()
    assert copies(stack) == set()


@pytest.mark.parametrize("lost", ["", "-shm"])
def test_the_wal_of_a_killed_program_is_in_the_copy(stack, lost):
    """Rows that are in the -wal alone are in the copy; nothing comes or goes in the stack."""
    path = stack / "volumes/killed.db"
    killed(DIES_WITH_WAL, path)
    if lost:
        os.unlink(f"{path}{lost}")
    before = tree(stack / "volumes")
    assert copy(stack).warned == []
    after = tree(stack / "volumes")
    if not lost:  # an index that any reader may write into
        before.pop(f"{path}-shm"), after.pop(f"{path}-shm")
    assert after == before
    assert copies(stack) == {b"volumes/killed.db"}
    assert rows_of(stack / COPIES / "volumes/killed.db") == 2000


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_left_beside_a_database_that_nobody_has_open(stack, mode):
    """No -wal, -shm or date tells afterwards that there was a copy."""
    path = make(stack / "volumes/still.db", mode=mode)
    before = tree(stack / "volumes")
    assert copy(stack).warned == []
    assert tree(stack / "volumes") == before
    assert rows_of(stack / COPIES / "volumes/still.db") == 100
    if mode == "WAL":
        assert (stack / COPIES / "volumes/still.db").read_bytes() == path.read_bytes()


def test_the_wal_beside_an_empty_file_stays(stack):
    """SQLite removes a -wal beside an empty file when it opens that: we do not open it."""
    killed(DIES_WITH_WAL, stack / "volumes/a.db")
    os.truncate(stack / "volumes/a.db", 0)
    before = tree(stack / "volumes")
    assert copy(stack).warned == []
    assert tree(stack / "volumes") == before
    assert copies(stack) == set()


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_database_that_stays_locked_is_told(stack, mode):
    """A program that keeps everybody out is waited for, then named; the others are copied."""
    path = make(stack / "volumes/locked.db", mode=mode)
    make(stack / "volumes/other.db")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        database.execute("INSERT INTO t (x) VALUES ('y')")
        database.commit()
        if mode == "WAL":  # alone with its -wal it is copied in a moment of rest
            assert copy(stack).warned == []
            assert rows_of(stack / COPIES / "volumes/locked.db") == 101
            return
        (warned,) = copy(stack, limit_s=0.3).warned
    assert warned.startswith("volumes/locked.db stayed locked for 0.3 s (database is locked).")
    assert copies(stack) == {b"volumes/other.db"}


def test_a_damaged_database_is_copied_as_it_is_and_told(stack):
    """What is damaged in the stack is in the archive, byte by byte, with a warning."""
    path = make(stack / "volumes/damaged.db", rows=5000)
    with open(path, "r+b") as stream:
        stream.seek(40 * 4096)
        stream.write(b"\xaa" * 4096)
    (warned,) = copy(stack).warned
    assert warned.startswith("volumes/damaged.db is a damaged database (")
    with open(stack / COPIES / "volumes/damaged.db", "rb") as stream:
        stream.seek(40 * 4096)
        assert stream.read(4096) == b"\xaa" * 4096


def test_what_only_looks_like_a_database_is_told_and_not_copied(stack):
    """A false header is named; a text, a header of odd length, a folder and links are nothing."""
    magic = b"SQLite format 3\0"
    (stack / "volumes/false").write_bytes(magic + bytes(1008))
    (stack / "volumes/odd").write_bytes(magic + bytes(1000))
    (stack / "volumes/text").write_bytes(b"x" * 1024)
    (stack / "volumes/short").write_bytes(magic)
    (stack / "volumes/dir.db").mkdir()
    make(stack / "outside.db")
    (stack / "volumes/link").symlink_to("../outside.db")
    (stack / "volumes/away").symlink_to("..")
    os.mkfifo(stack / "volumes/pipe")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(stack / "volumes/s"))
    (warned,) = copy(stack).warned
    assert warned.startswith("volumes/false cannot be copied by SQLite (file is not a database).")
    assert "[[stack.exclude]]" in warned
    assert copies(stack) == set()


ENDINGS = ("-wal", "-journal", "-shm")


def names_and_texts(archive):
    with tarfile.open(archive) as packed:
        return {
            each.name: packed.extractfile(each).read() if each.isreg() else None for each in packed
        }


def test_what_has_the_name_of_a_file_of_sqlite_and_is_none_is_packed(little_stack: LittleStack):
    """Diaries, folders and databases beside a database; each as it lies, or it is named."""
    volumes = little_stack.folder / "volumes"
    kept = {}
    for ending in ENDINGS:
        make(volumes / f"mine{ending}.db")
        for name in (f"mine{ending}.db{ending}", f"mine{ending}.db{ending}-wal"):
            (volumes / name).write_text(f"my diary, {name}\n" * 50)
            os.utime(volumes / name, (1e9, 1e9))
            os.chmod(volumes / name, 0o640)
            kept[name] = (volumes / name).read_bytes()
        make(volumes / f"folder{ending}.db")
        (volumes / f"folder{ending}.db{ending}").mkdir()
        (volumes / f"folder{ending}.db{ending}/inside").write_text("x")
        make(volumes / f"other{ending}.db")
        make(volumes / f"other{ending}.db{ending}", rows=3)
        make(volumes / f"link{ending}.db")
        (volumes / f"link{ending}.db{ending}").symlink_to("../services")
        make(volumes / f"out{ending}.db")
        (volumes / f"out{ending}.db{ending}").write_text("nobody wants it")
    row = '[[stack.exclude]]\npath = "volumes/out-*.db-*"\nreason = "no"\n'
    with little_stack.settings.open("a") as settings:
        settings.write(row)
    before = tree(volumes)
    made = little_stack.run("backup --runtag t")
    assert made.returncode == 3
    warned = [line.split()[2] for line in made.stderr.splitlines() if "NOT COVERED" in line]
    assert warned == ["volumes/link-shm.db-shm"]
    live = [line.split()[0] for line in made.stderr.splitlines() if "cannot be copied" in line]
    those = {f"{what}{each}" for what in ("folder", "link") for each in ("-wal", "-journal")}
    assert {*live} == {f"volumes/{each}.db" for each in those}  # SQLite would not read them either
    assert tree(volumes) == before
    found = names_and_texts(little_stack.folder / "backups/t.general-backup.tar.gz")
    assert kept == {name: found[f"./volumes/{name}"] for name in kept}
    assert {"./volumes/link-wal.db-wal", "./volumes/link-journal.db-journal"} <= {*found}
    for ending in ENDINGS:
        assert found[f"./volumes/folder{ending}.db{ending}/inside"] == b"x"
        other = found[f"./volumes/other{ending}.db{ending}"]
        assert other[100:] == (volumes / f"other{ending}.db{ending}").read_bytes()[100:]
        assert f"./volumes/out{ending}.db{ending}" not in found
    manifest = json.loads((little_stack.folder / "backups/t.manifest.json").read_text())
    databases = manifest["parts"]["general"]["facts"]["sqlite"]
    assert not {f"volumes/{name}" for name in kept} & {*databases}
    with tarfile.open(little_stack.folder / "backups/t.general-backup.tar.gz") as packed:
        assert all(
            (each.mode, each.mtime) == (0o640, 10**9)
            for each in (packed.getmember(f"./volumes/{name}") for name in kept)
        )


@pytest.mark.parametrize("head", [b"", bytes(512), "journal", "-wal", "-shm", "PERSIST"])
def test_sqlites_own_files_are_not_packed(stack, head):
    """Of a program that runs, of one that was killed, emptied ones, and ones that are of no use."""
    path = stack / "volumes/own.db"
    if head in ("-wal", "-shm"):
        killed(DIES_WITH_WAL, path)
    elif head == "journal":
        killed(BREAKS_OFF, path)
    else:
        make(path, mode=head if head == "PERSIST" else "DELETE")
    if isinstance(head, bytes):
        for each in ENDINGS:
            (stack / f"volumes/own.db{each}").write_bytes(head)
    ending = {"-wal": "-wal", "-shm": "-shm"}.get(head, "-journal")
    assert os.path.lexists(f"{path}{ending}")
    assert copy(stack).warned == []
    assert copies(stack) == {b"volumes/own.db"}


@pytest.mark.parametrize("mode", ["DELETE", "WAL", "open", "open WAL"])
@pytest.mark.parametrize(
    "tail", [b"OWNER".ljust(512, b".") * 16, bytes(8192), bytes(4096) + b"x" * 512]
)
def test_what_lies_behind_the_last_page_is_in_the_copy(stack, mode, tail):
    """But for zeros, which are room that SQLite took before it needs it."""
    path = make(stack / "volumes/app.db", mode=mode.split()[-1] if "WAL" in mode else "DELETE")
    with open(path, "ab") as stream:
        stream.write(tail)
    live = path.read_bytes()
    with contextlib.closing(sqlite3.connect(path)) as database:
        if "open" in mode:  # its -wal and -shm are there
            database.execute("SELECT * FROM t").fetchone()
        assert copy(stack).warned == []
        copied = (stack / COPIES / "volumes/app.db").read_bytes()
    meant = live if any(tail) or mode == "WAL" else live[: -len(tail)]
    assert copied[100:] == meant[100:]  # before that it counts its changes
    assert rows_of(stack / COPIES / "volumes/app.db") == 100


def test_room_that_sqlite_took_is_no_tail(stack):
    """Nor are pages that are free, of a database that shrank, whoever has it open."""
    path = make(stack / "volumes/a.db", mode="WAL", rows=5000)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("DELETE FROM t WHERE id > 10")
        database.execute("VACUUM")
        assert copy(stack).warned == []
        assert os.path.getsize(stack / COPIES / "volumes/a.db") < os.path.getsize(path) / 10
        assert rows_of(stack / COPIES / "volumes/a.db") == 10


def test_a_database_that_was_cut_is_told_and_not_copied(stack):
    """A file that lacks its end is taken as it lies, by tar."""
    path = make(stack / "volumes/cut.db", rows=5000)
    os.truncate(path, 4096 * 20)
    (warned,) = copy(stack).warned
    assert warned.startswith("volumes/cut.db cannot be copied by SQLite (")
    assert copies(stack) == set()


def test_what_was_a_database_and_is_none_any_more_is_told(stack):
    """Its first bytes are gone, so nothing else says so; not what is gone, left out, or elsewhere."""
    names = ("head.db", "empty.db", "good.db", "out.db", "link.db", "gone.db")
    for name in names[:-2]:
        make(stack / "volumes" / name)
    make(stack / "else.db")
    (stack / "volumes/link.db").symlink_to("../else.db")
    for each in ("volumes/head.db", "volumes/out.db", "else.db"):
        with (stack / each).open("r+b") as stream:
            stream.write(bytes(4096))
    os.truncate(stack / "volumes/empty.db", 0)
    known = (*(f"volumes/{name}" for name in names), "else.db")
    context = copy(stack, known=known, exclusions=("volumes/o*",))
    assert [each.partition(" The ")[0] for each in context.warned] == [
        "volumes/empty.db is a damaged database (it was one, and is empty).",
        "volumes/head.db is a damaged database (it was one, and begins differently).",
    ]
    assert copies(stack) == {b"volumes/good.db"}
    # A part that is made already is not made again for what a newer backup knows.
    assert step(stack, known=known).commands() == step(stack).commands()


def test_checks_of_the_program_are_no_damage(stack):
    """A function or a collation that only the program knows does not make its database damaged."""
    path = stack / "volumes/own.db"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.create_function("ours", 1, lambda x: 1, deterministic=True)
        database.create_collation("mine", lambda a, b: (a > b) - (a < b))
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x COLLATE mine CHECK (ours(x)))")
        database.execute("CREATE INDEX i ON t (x)")
        database.executemany("INSERT INTO t (x) VALUES (?)", [(str(n),) for n in range(100)])
    assert copy(stack).warned == []
    assert copies(stack) == {b"volumes/own.db"}


ODD_NAMES = [
    b"two words.db",
    b"line\nbreak",
    "Köln ☕".encode(),
    b"not-utf8-\xff\xfe",
    b"-dash",
    b"per%20cent?mode=rwc#x",
    b"[a]*",
    b"back\\slash",
    b"x" * 240,
]


def test_odd_names_come_through(stack):
    """Whatever bytes a name has, its copy has the same, and its owner, mode, date, attributes."""
    folder = os.fsencode(stack / "volumes")
    for number, name in enumerate(ODD_NAMES):
        path = make(os.path.join(folder, name), mode=("DELETE", "WAL")[number % 2])
        os.chmod(path, 0o640)
        if os.geteuid() == 0:
            os.chown(path, 472, 1883)
        with contextlib.suppress(OSError):
            os.setxattr(path, "user.note", name)
        os.utime(path, (1e9, 1e9))
    context = copy(stack)
    assert context.warned == []
    assert copies(stack) == {b"volumes/" + name for name in ODD_NAMES}
    for name in ODD_NAMES:
        pair = [
            os.path.join(each, name) for each in (folder, os.fsencode(stack / COPIES / "volumes"))
        ]
        facts = [
            (s.st_uid, s.st_gid, s.st_mode, s.st_mtime, os.listxattr(path))
            for path, s in ((each, os.stat(each)) for each in pair)
        ]
        assert facts[0] == facts[1]
        assert rows_of(pair[1]) == 100


def test_names_of_one_file_share_one_copy(stack):
    """Hard links stay hard links: room is taken once, and the -wal of either name counts."""
    path = stack / "volumes/b.db"
    killed(DIES_WITH_WAL, path)
    os.link(path, stack / "volumes/a.db")
    assert copy(stack).warned == []
    assert os.path.samefile(stack / COPIES / "volumes/a.db", stack / COPIES / "volumes/b.db")
    assert rows_of(stack / COPIES / "volumes/a.db") == 2000


def test_what_tar_leaves_out_is_not_copied(stack):
    """Exclusions and members mean what they mean to tar."""
    for name in ("volumes/influxdb/a/b.db", "volumes/x/b.db", "volumes/kept/b.db", "c.db"):
        (stack / name).parent.mkdir(parents=True, exist_ok=True)
        make(stack / name)
    copy(stack, exclusions=("volumes/influxdb/*", "volumes/x"))
    assert copies(stack) == {b"volumes/kept/b.db"}


PATTERNS = [
    "v/*",
    "v/a",
    "v/[ab]",
    "v/[!a]",
    "v/[^a]",
    r"v/\*",
    "v/a?c",
    "*/c",
    "v/*.db",
    r"v/b\\c",
    "v/[",
]
NAMES = [
    "v/a",
    "v/b",
    "v/c",
    "v/*",
    "v/a/c",
    "v/abc",
    "v/x.db",
    "v/d/x.db",
    "v/b\\c",
    "v/[",
    "v/a\nc",
]


def test_a_pattern_is_read_as_tar_reads_it(tmp_path):
    """For names and patterns of all kinds, what tar leaves out is what we leave out."""
    for number, (pattern, name) in enumerate(itertools.product(PATTERNS, NAMES)):
        path = tmp_path / str(number) / name
        path.parent.mkdir(parents=True)
        path.touch()
        words = ["tar", "-c", "--anchored", "--wildcards", f"--exclude=./{pattern}", "./v"]
        told = subprocess.run(words, cwd=tmp_path / str(number), capture_output=True, check=True)
        with tarfile.open(fileobj=io.BytesIO(told.stdout)) as archive:
            packed = f"./{name}" in archive.getnames()
        ways = [name.rsplit("/", cut)[0] for cut in range(name.count("/") + 1)]
        left_out = any(re.match(pattern_of(pattern), way) for way in ways)
        assert packed is not left_out, (pattern, name)


def test_files_that_go_meanwhile_are_no_matter(stack):
    """A stack in which files come and go is copied without a word."""
    code = """
import itertools, os, sqlite3, sys
for number in itertools.count():
    path = f"{sys.argv[1]}/{number % 50}.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE IF NOT EXISTS t (x)")
    database.close()
    os.unlink(f"{sys.argv[1]}/{(number + 25) % 50}.db") if number > 25 else None
"""
    busy = subprocess.Popen([sys.executable, "-c", code, stack / "volumes"])
    try:
        until(lambda: len(os.listdir(stack / "volumes")) > 20)
        for _ in range(5):
            copy(stack)
        assert busy.poll() is None
    finally:
        busy.kill()
        busy.wait()


def test_without_room_nothing_is_copied(stack, small_disk):
    """Copies that do not fit are a failure with the numbers, before anything is written."""
    make(stack / "volumes/large.db", rows=3000)
    with pytest.raises(
        StepFailed, match=r"need 6\d\d,\d\d\d bytes in .* free there. Free some space"
    ):
        copy(stack, target=str(small_disk / "copies"))
    assert os.listdir(small_disk / "copies") == []


def test_the_undo_removes_the_copies(stack):
    """Undone once or twice, whatever lay there, the folder is gone; the journal knows the step."""
    make(stack / "volumes/a.db")
    copy(stack)
    copy(stack)  # what an earlier attempt left gives way
    made = step(stack)
    fields = journal.written(made)
    line = json.dumps({"job": "x", "step": "CopySqlite", "fields": fields})
    read = journal.Journal(LocalHost(str(stack)), "x", [CopySqlite]).read
    ((_, again),) = read([line])
    assert replace(again, access=made.access) == made
    assert CopySqlite in undoable()
    for _ in range(2):
        again.undo(LocalHost(str(stack)))
        assert not (stack / COPIES).exists()
    assert (stack / "backups").exists()


def test_the_command_can_be_typed(stack):
    """What the dry run prints makes the same copies in a shell."""
    make(stack / "volumes/two words.db")
    (line,) = step(stack).commands()
    told = subprocess.run(["sh", "-c", line], check=True, capture_output=True, text=True)
    states = [json.loads(each)["state"] for each in told.stdout.splitlines()]
    assert states == ["begun", "copied"]
    assert copies(stack) == {b"volumes/two words.db"}
    assert (stack / COPIES).stat().st_mode & 0o777 == 0o700


def test_a_name_can_be_shown():
    """Bytes that are no UTF-8 are escaped, so that a log and a manifest take them."""
    assert shown("Köln \udcff") == "Köln \\xff"


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_backup_of_a_busy_database_is_whole(little_stack: LittleStack, tmp_path, mode):
    """Unpacked by hand, the database passes SQLite's check; nothing is told of it or left of it."""
    path = little_stack.folder / "volumes/busy.db"
    with written(path, mode) as committed:
        before = committed()
        told = little_stack.run("backup --runtag x")
        assert told.returncode == 0, told.stdout + told.stderr
    backups = little_stack.folder / "backups"
    assert ".copies" not in os.listdir(backups)
    archive = backups / "x.general-backup.tar.gz"
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "-xzf", archive, "-C", out], check=True)
    assert {"busy.db", "nodered"} <= set(os.listdir(out / "volumes"))
    assert not {"busy.db-wal", "busy.db-shm", "busy.db-journal"} & set(os.listdir(out / "volumes"))
    assert rows_of(out / "volumes/busy.db") >= 30 * before
    manifest = json.loads((backups / "x.manifest.json").read_text())
    facts = manifest["parts"]["general"]["facts"]
    assert facts["sqlite"] == ["volumes/busy.db"]
    assert facts["sqlite_files"] == 1
    assert facts["sqlite_bytes"] == os.path.getsize(out / "volumes/busy.db")
    assert little_stack.run("verify").returncode == 0
    assert "online_copy.py '{" in little_stack.run("backup --dry-run").stdout


def test_the_next_backup_wants_room_for_the_copies(little_stack: LittleStack):
    """What the copies took the last time must be free, besides the archive."""
    make(little_stack.folder / "volumes/a.db", rows=3000)
    assert little_stack.run("backup --runtag x").returncode == 0
    environment = Environment.of(load_settings(str(little_stack.settings)))
    facts = BackupFacts("", "", str(little_stack.folder), ("./volumes",))
    space = estimate_space(environment.host, facts, environment.sets())
    copied = os.path.getsize(little_stack.folder / "volumes/a.db")
    assert space.copies_bytes == int(copied * 1.2)
    assert space.needed_bytes == space.general_bytes + space.copies_bytes


def test_the_script_and_its_step_mean_the_same_by_an_exit_code():
    """The script stands alone, so its word for a full disk stands twice."""
    assert sqlite.NO_ROOM == sqlite_copy.NO_ROOM


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_database_that_is_replaced_while_it_is_copied_is_copied_again(stack, monkeypatch, mode):
    """Of the old one, which is nowhere any more, no copy is kept in the place of the new one."""
    live, newer = make(stack / "volumes/a.db", mode=mode), make(stack / "newer.db", rows=7)
    taken = []

    def take_live(path, copy, limit_s, take=sqlite_copy.take_live):
        take(path, copy, limit_s)
        if not taken:
            os.replace(newer, live)
        taken.append(path)

    monkeypatch.setattr(sqlite_copy, "take_live", take_live)
    if mode == "WAL":  # somebody has it open
        held = sqlite3.connect(live)
        held.execute("SELECT * FROM t").fetchone()
    time.sleep(2 * sqlite_copy.SETTLED_S)
    assert sqlite_copy.copied(str(live), str(stack / "copy.db"), 10) == ("copied", "")
    if mode == "WAL":
        held.close()
    with contextlib.closing(sqlite3.connect(stack / "copy.db")) as database:
        assert database.execute("SELECT count(*) FROM t").fetchone() == (7,)
