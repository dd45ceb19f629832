"""What is free on a disk is taken once: jobs that write at the same time share it by a ledger."""

import contextlib
import gzip
import io
import os
import tarfile
import threading
from dataclasses import dataclass

import pytest
from killable_run import FileLedger, Nobody

from iotstack_invoke.archives.scan import ScanArchive
from iotstack_invoke.backups.transfer import Send
from iotstack_invoke.databases.sql.load import UnpackSql
from iotstack_invoke.engine.executor import Disks, JobStatus, Run
from iotstack_invoke.engine.journal import Journal
from iotstack_invoke.engine.plan import decide, resolve
from iotstack_invoke.engine.rules import Rule, RuleBook
from iotstack_invoke.engine.steps import File, HostAccess, Space
from iotstack_invoke.hosts.base import Disk
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.stack.folders import Unpack

MIB = 1 << 20


def disk(free_bytes, name="sda"):
    return lambda: Disk(name, free_bytes)


def test_what_one_keeps_is_not_left_for_another():
    """Amid its writing, and also where less of it is free by then than was kept."""
    disks = Disks()
    assert disks.keep("a", disk(100), 60) == Space(100, 100)
    assert disks.keep("b", disk(100), 60) == Space(100, 40)  # it has nothing then
    assert disks.keep("c", disk(100, "sdb"), 60) == Space(100, 100)
    assert disks.keep("b", disk(70), 40) == Space(70, 40)  # the first has written 30
    assert disks.keep("d", disk(0), 1) == Space(0, 0)  # so has somebody else


def test_what_was_written_is_not_counted_twice():
    """When one has ended, what is free tells of it; what it did not write is free for others."""
    disks = Disks()
    disks.keep("a", disk(100), 60)
    disks.keep("b", disk(80), 30)
    disks.release("a", written=True)
    assert disks.keep("c", disk(30), 20) == Space(30, 10)
    disks.release("b", written=False)
    assert disks.keep("c", disk(40), 20) == Space(40, 40)
    disks.release("c", written=True)
    assert disks.keep("d", disk(90), 90) == Space(90, 90)  # somebody made room


def test_nothing_is_kept_where_nobody_can_say():
    """A cloud need not tell."""
    assert Disks().keep("a", lambda: None, 60) is None


@dataclass(frozen=True, eq=False)
class Call:
    """A step that calls a function."""

    act: object

    def commands(self):
        return ("call",)

    def do(self, context):
        self.act()


@dataclass(frozen=True, eq=False)
class Then:
    """A step, and what is called when it has ended, however it did."""

    step: object
    act: object

    def commands(self):
        return self.step.commands()

    def do(self, context):
        try:
            self.step.do(context)
        finally:
            self.act()


@pytest.fixture
def disk_of_8_mib(tmp_path, mount_disk):
    """Where the jobs of `run` write: their outputs are `pi:disk/…`."""
    return mount_disk(tmp_path / "disk", "8m")


def packed(path, name, content):
    """Make an archive of one file."""
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def run(stack, *jobs, storages=None):
    """Do jobs at once, each of steps under a name; return how it ended, and what is told of it."""
    host = LocalHost(str(stack))
    rules = [
        Rule(name, (f"pi:disk/{name}",), lambda _job, steps=steps: iter(steps))
        for name, *steps in jobs
    ]
    graph = resolve(RuleBook(*rules), [each.outputs[0] for each in rules], {"pi": str(stack)})
    done = Run(
        decide(graph, {}, {}),
        {"pi": host, **(storages or {})},
        store=FileLedger(host, f"{stack}/.records"),
        journal=Journal(host, f"{stack}/.journal", []),
        reporter=Nobody(),
        jobs_at_once=len(rules),
        keep_going=True,
    ).do()
    return {each.job.rule.name: (each.end, each.message) for each in done.jobs}


def unpacking(folder, name, disk, meet):
    """Return the job that unpacks an archive of 5 MiB onto a disk, and meets others amid it."""
    content = os.urandom(5 * MIB)
    packed(folder / f"{name}.tar.gz", f"./volumes/{name}/x", content)
    archive = File("pi", f"{name}.tar.gz", str(folder))
    into = f"{disk}/{name}.partial"
    unpack = Unpack(
        HostAccess("pi", guard=str(folder / "guard")), archive.absolute, into, scanned=True
    )
    return (f"{name}/", Then(ScanArchive(archive, (), into), meet), unpack)


def test_two_archives_that_fit_one_by_one_are_not_unpacked_both(tmp_path, disk_of_8_mib):
    """Each of 5 MiB onto a disk of 8: one is whole, and nothing is written of the other."""
    meet = threading.Barrier(2, timeout=30).wait
    ends = run(tmp_path, *(unpacking(tmp_path, each, disk_of_8_mib, meet) for each in "ab"))
    whole, refused = sorted(ends, key=lambda name: ends[name][0] is not JobStatus.DONE)
    assert ends[whole] == (JobStatus.DONE, "")
    name = whole.rstrip("/")
    assert (disk_of_8_mib / name / "volumes" / name / "x").stat().st_size == 5 * MIB
    assert ends[refused][0] is JobStatus.FAILED
    told = "5,242,880 bytes when unpacked, but only 3,145,728 are left"
    assert f"{told} (8,388,608 are free; other parts need the rest) in " in ends[refused][1]
    assert [each.name for each in disk_of_8_mib.iterdir()] == [name]


def test_a_dump_is_not_unpacked_into_what_an_archive_takes(tmp_path, disk_of_8_mib):
    """Small as it is while it is packed: it stays so, and the archive is unpacked."""
    dump = disk_of_8_mib / "postgres_backup.sql.gz"
    text = b"-- %b\n-- PostgreSQL database cluster dump complete\n" % bytes(6 * MIB)
    dump.write_bytes(before := gzip.compress(text))
    sql = UnpackSql(
        HostAccess("pi", guard=str(tmp_path / "guard")), str(disk_of_8_mib), "postgres"
    )
    scanned, counted = threading.Barrier(2, timeout=30), threading.Barrier(2, timeout=30)

    def meet():
        scanned.wait()
        counted.wait()

    ends = run(
        tmp_path,
        unpacking(tmp_path, "a", disk_of_8_mib, meet),
        ("sql", Call(scanned.wait), Then(sql, counted.wait)),
    )
    assert ends["a/"] == (JobStatus.DONE, "")
    end, told = ends["sql"]
    assert end is JobStatus.FAILED
    assert told.startswith("The dump of PostgreSQL needs 6,291,")
    assert "but only 3,1" in told
    assert dump.read_bytes() == before
    assert sorted(each.name for each in disk_of_8_mib.iterdir()) == ["a", dump.name]


def test_of_two_copies_that_fit_one_by_one_the_second_is_not_begun(tmp_path, disk_of_8_mib):
    """What is to come of the first counts as taken; of the second not a byte is written."""
    refused = threading.Event()

    class Slow(LocalHost):
        @contextlib.contextmanager
        def read(self, path, start=0):
            refused.wait(10)
            with super().read(path, start) as stream:
                yield stream

    jobs = []
    for name in "ab":
        (tmp_path / name).write_bytes(os.urandom(5 * MIB))
        copy = Send(File("from", name, str(tmp_path)), File("pi", f"disk/{name}", str(tmp_path)))
        jobs.append((name, Then(copy, refused.set)))
    ends = run(tmp_path, *jobs, storages={"from": Slow(str(tmp_path))})
    first, second = sorted(ends, key=lambda name: ends[name][0] is not JobStatus.DONE)
    assert ends[first] == (JobStatus.DONE, "")
    told = "8.4 MB are free, and 3.1 MB after the other files that are being written, and the file needs "
    assert told in ends[second][1]
    assert [each.name for each in disk_of_8_mib.iterdir()] == [first]
    assert (disk_of_8_mib / first).read_bytes() == (tmp_path / first).read_bytes()
