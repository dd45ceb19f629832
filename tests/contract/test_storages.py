"""What every kind of place must do, whatever it is made of."""

import hashlib
import io
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from bucket import listed
from contexts import PlainContext, until

from iotstack_invoke.backups.names import KINDS as PARTS
from iotstack_invoke.backups.names import split_set_name
from iotstack_invoke.backups.transfer import Send, hash_there
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.engine.steps import File
from iotstack_invoke.environment.environment import remove_set, sweep_stale_copies
from iotstack_invoke.hosts.local import LocalHost

MODIFIED_S = 1_234_567_890
BIG = os.urandom(4_000_000)
NAMES = ("-rf", 'it\'s "so" $HOME `id` * a\\b; Köln ☕ [bold]', "x" * 255)
ODD_NAMES = ("a\nb", "\n", os.fsdecode(b"not-utf8-\xff"))
SET = "2026-11-23_1100"


class Source(LocalHost):
    """This machine; what is read of it is told, and something may happen amid it."""

    def __init__(self, root):
        super().__init__(root)
        self.starts = []
        self.at_bytes = None
        self.act = None

    def read(self, path, start=0):
        self.starts.append(start)
        return _Acting(super().read(path, start), self)


class _Acting:
    """A stream that acts once so much of it was read, or (at -1) at its end."""

    def __init__(self, opening, source):
        self.opening, self.source, self.count = opening, source, 0

    def __enter__(self):
        self.stream = self.opening.__enter__()
        return self

    def __exit__(self, *error):
        return self.opening.__exit__(*error)

    def read(self, size=-1):
        data = self.stream.read(size)
        self.count += len(data)
        at, act = self.source.at_bytes, self.source.act
        if act and (self.count >= at >= 0 or (at < 0 and not data)):
            self.source.act = None
            act()
        return data


@pytest.fixture
def pi(tmp_path):
    (tmp_path / "pi").mkdir()
    return Source(str(tmp_path / "pi"))


@pytest.fixture
def copy(pi, kind):
    """A file of the Pi, its copy, and what sends it: a `Send` whose file is recorded."""
    return Copy(pi, kind)


class Copy:
    def __init__(self, pi, kind, name="x.tar"):
        self.source = File("pi", name, pi.root)
        self.target = File("nas", name, kind.storage.root)
        self.context = PlainContext({"pi": pi, "nas": kind.storage})
        self.final, self.partial = kind.raw / name, kind.raw / f"{name}.partial"

    def holds(self, data):
        with open(self.source.absolute, "wb") as stream:
            stream.write(data)
        os.utime(self.source.absolute, (MODIFIED_S, MODIFIED_S))
        self.context.finished(self.source, sha256=hashlib.sha256(data).hexdigest())
        return self

    def send(self):
        """Send it once, and let it have its name, as the engine does."""
        Send(self.source, self.target).do(self.context)
        self.context.storages["nas"].rename(self.target.partial, self.target.absolute)


def tried(act):
    """Return what an act gives, tried again as the engine does while that may help."""
    for _ in range(50):
        try:
            return act()
        except StepFailed as error:
            assert error.again, error  # noqa: PT017 - the last try is outside
            time.sleep(0.05)
    return act()


# Put and get


@pytest.mark.parametrize("size", [0, 1, 300_001, len(BIG)])
def test_what_is_sent_is_what_lies_there(kind, copy, size):
    """All bytes and the date arrive, come back from any place in the file, and have their hash."""
    data = BIG[:size]
    copy.holds(data).send()
    assert copy.final.read_bytes() == data
    assert listed(kind.raw) == [copy.final.name]
    path = copy.target.absolute
    (fact,) = kind.storage.stat([path]).values()
    assert (fact.size_bytes, fact.is_file) == (size, True)
    assert fact.modified_s == MODIFIED_S or not kind.keeps_dates
    with kind.storage.read(path) as stream:
        assert stream.read() == data
    with kind.storage.read(path, size // 2) as stream:
        assert stream.read() == data[size // 2 :]
    assert hash_there(kind.storage, path) == hashlib.sha256(data).hexdigest()
    assert copy.context.warned == []


def test_a_copy_on_its_way_bears_the_time_of_its_last_byte(kind):
    """By that another machine sees that it is no dead run's; the date comes with the name."""
    storage, name = kind.storage, "x.general-backup.tar.gz"
    storage.write(f"{storage.root}/{name}.partial", io.BytesIO(b"data"), MODIFIED_S)
    (fact,) = storage.listdir(storage.root).values()
    assert abs(fact.modified_s - time.time()) < 3600
    sweep_stale_copies(storage)
    storage.rename(f"{storage.root}/{name}.partial", f"{storage.root}/{name}")
    (fact,) = storage.listdir(storage.root).values()
    assert fact.modified_s == MODIFIED_S or not kind.keeps_dates
    storage.remove([f"{storage.root}/{name}"])
    if kind.keeps_dates:
        storage.write(f"{storage.root}/old", io.BytesIO(b"data"), MODIFIED_S)
        storage.rename(f"{storage.root}/old", f"{storage.root}/{name}.partial")
        sweep_stale_copies(storage)
        assert os.listdir(kind.raw) == []


def test_names_are_bytes_and_nothing_else(kind):
    """A name that means something to a shell, a terminal or a listing is stored as it is."""
    storage = kind.storage
    names = [*map(kind.spelt, NAMES), *(ODD_NAMES if kind.odd_names else ())]
    for number, name in enumerate(names):
        data = f"{number}".encode()
        first = f"{storage.root}/{name[:200]}.first"
        assert storage.write(first, io.BytesIO(data), MODIFIED_S).size_bytes == len(data)
        storage.rename(first, f"{storage.root}/{name}")
    assert listed(kind.raw) == sorted(names)
    seen = storage.stat(f"{storage.root}/{name}" for name in names)
    assert sorted(seen) == sorted(f"{storage.root}/{name}" for name in names)
    found = storage.listdir(storage.root)
    assert {name for name in names if "\n" not in name and name.isprintable()} <= set(found)
    told = storage.read_many(storage.root, names)
    assert told == {name: f"{number}".encode() for number, name in enumerate(names)}
    storage.remove(f"{storage.root}/{name}" for name in names)
    assert listed(kind.raw) == []


def test_a_rename_replaces_what_is_there(kind):
    """The new file stands under the old one's name, and the old one nowhere."""
    (kind.raw / "a").write_text("old")
    (kind.raw / "a.partial").write_text("new")
    kind.storage.rename(f"{kind.storage.root}/a.partial", f"{kind.storage.root}/a")
    assert {each.name: each.read_text() for each in kind.raw.iterdir()} == {"a": "new"}


def test_a_rename_of_what_is_missing_loses_nothing(kind):
    """Where there is nothing to rename, what bears the other name stays."""
    (kind.raw / "a").write_text("old")
    with pytest.raises(StepFailed):
        kind.storage.rename(f"{kind.storage.root}/none", f"{kind.storage.root}/a")
    assert (kind.raw / "a").read_text() == "old"


def test_a_removal_may_be_done_twice(kind):
    """What is not there is as good as removed, and keeps nothing else from being removed."""
    for name in ("a", "b"):
        (kind.raw / name).touch()
    for _ in range(2):
        kind.storage.remove(f"{kind.storage.root}/{name}" for name in ("a", "none", "b"))
        assert listed(kind.raw) == []
    kind.storage.remove([])


def test_what_cannot_be_read_has_no_entry(kind):
    """A folder, a pipe, a link to nowhere and what is missing are no content, and hang nobody."""
    (kind.raw / "good").write_text("x")
    (kind.raw / "folder").mkdir()
    names = ["folder", "none", "good", "none/none"]
    if kind.odd_files:
        os.mkfifo(kind.raw / "pipe")
        (kind.raw / "link").symlink_to("nowhere")
        names += ["pipe", "link"]
    assert kind.storage.read_many(kind.storage.root, names) == {"good": b"x"}
    found = kind.storage.stat(f"{kind.storage.root}/{name}" for name in names)
    assert [os.path.basename(path) for path, fact in found.items() if fact.is_file] == ["good"]
    with pytest.raises(StepFailed), kind.storage.read(f"{kind.storage.root}/none") as stream:
        stream.read()
    assert kind.storage.listdir(f"{kind.storage.root}/none") == {}


def test_a_file_whose_bytes_do_not_come_is_not_missing(kind):
    """It is there, and a disk that does not give its bytes is told with its name, by whom asks."""
    if not kind.follows:
        pytest.skip("no file there is the kernel's")
    (kind.raw / "good").write_text("x")
    (kind.raw / "bad").symlink_to("/proc/self/mem")  # whose first byte nobody is given: EIO
    with pytest.raises(StepFailed, match="bad"):
        kind.storage.read_many(kind.storage.root, ["none", "good", "bad"])
    assert kind.storage.read_many(kind.storage.root, ["none", "good"]) == {"good": b"x"}


# Cuts and damage


def test_a_copy_goes_on_where_it_was_cut(kind, pi, copy):
    """What arrived is not sent again; the whole is proven; half a file never has the name."""
    copy.holds(BIG)

    arrived = 0

    def cut():  # what is read may wait in a pipe for a line that does not stand yet
        kind.until_begun(copy.partial, arrived)
        kind.cut()

    for _ in range(2):
        arrived = settled(copy.partial) if kind.storage.resumes and copy.partial.exists() else 0
        pi.at_bytes, pi.act = 1_000_000, cut
        with pytest.raises(StepFailed) as failure:
            tried_once_connected(kind, copy.send)
        assert failure.value.again
        assert not copy.final.exists()
    pi.starts.clear()
    if kind.storage.resumes:
        arrived = settled(copy.partial)
        assert 0 < arrived < len(BIG)
    tried(copy.send)
    if kind.storage.resumes:
        assert pi.starts[-1] == arrived
    assert copy.final.read_bytes() == BIG
    assert listed(kind.raw) == [copy.final.name]


def test_what_has_arrived_whole_is_proven_and_not_sent_again(kind, pi, copy):
    """A try that died before it gave the name has left nothing to send."""
    copy.holds(BIG)
    copy.partial.write_bytes(BIG)
    copy.send()
    assert copy.final.read_bytes() == BIG
    assert pi.starts[-1:] == ([len(BIG)] if kind.storage.resumes else [0])


def tried_once_connected(kind, act):
    """Do an act after the line is open again: a cut amid the login is another case."""
    tried(lambda: kind.storage.stat([kind.storage.root]))
    act()


def settled(path):
    """Return the size of a file once nobody adds to it: who wrote it may still be ending."""
    size = -1
    while size != (size := path.stat().st_size):
        time.sleep(0.1)
    return size


def test_a_byte_that_changed_on_the_way_is_found(kind, pi, copy):
    """What lies there is what is proven: a copy with a flipped byte gets no name, and is sent anew."""
    if not kind.halves:
        pytest.skip("nothing has a name there before all of it came")
    copy.holds(BIG)

    def flip():
        until(lambda: copy.partial.stat().st_size)
        with open(copy.partial, "r+b", buffering=0) as stream:
            (first,) = stream.read(1)
            stream.seek(0)
            stream.write(bytes([first ^ 1]))

    pi.at_bytes, pi.act = -1, flip
    with pytest.raises(StepFailed, match="differs from what was sent") as failure:
        copy.send()
    assert failure.value.again
    assert not copy.final.exists()
    copy.send()
    assert copy.final.read_bytes() == BIG


def test_the_beginning_of_another_file_is_found(kind, pi, copy):
    """What another file left under the partial name is never a part of this one."""
    copy.holds(BIG)
    copy.partial.write_bytes(b"?" * 1_000_000)
    if kind.storage.resumes:
        with pytest.raises(
            StepFailed, match="or the source is damaged: it is sent again from the start"
        ) as failure:
            copy.send()
        assert failure.value.again
        assert listed(kind.raw) == []
    copy.send()
    assert pi.starts[-1] == 0
    assert copy.final.read_bytes() == BIG


def test_more_than_the_file_under_its_partial_name_is_no_part_of_it(kind, copy):
    """A partial file that is longer than the whole leaves nothing behind it."""
    copy.holds(BIG[:1000])
    copy.partial.write_bytes(BIG)
    copy.send()
    assert copy.final.read_bytes() == BIG[:1000]


def test_a_line_that_breaks_while_reading_is_no_end_of_the_file(kind, copy):
    """Who reads learns that there is more, and reads it when the line is back."""
    copy.final.write_bytes(bytes(40_000_000))
    with pytest.raises(StepFailed) as failure, kind.storage.read(copy.target.absolute) as stream:  # noqa: PT012
        assert len(stream.read(1000)) == 1000
        kind.cut()
        while stream.read(1 << 18):
            pass
    assert failure.value.again

    def size():
        with kind.storage.read(copy.target.absolute, 39_000_000) as stream:
            return len(stream.read())

    assert tried(size) == 1_000_000


def test_what_is_gone_is_told_and_comes_back(kind, copy):
    """Nothing is written elsewhere meanwhile; when it is back, all is as it was."""
    copy.holds(b"data")
    (kind.raw / "kept").write_text("kept")
    assert set(kind.storage.listdir(kind.storage.root)) == {"kept"}
    kind.go()
    for act in (
        copy.send,
        lambda: kind.storage.create_exclusive(f"{kind.storage.root}/mark", "mine"),
        lambda: kind.storage.listdir(kind.storage.root),
        lambda: kind.storage.write(f"{kind.storage.root}/y", io.BytesIO(b"y"), 0),
    ):
        with pytest.raises(StepFailed, match="nas"):
            act()
    kind.come_back()
    tried(copy.send)
    assert {each.name for each in kind.raw.iterdir()} == {"kept", "x.tar"}


# A full disk


def test_a_full_disk_is_told_before_anything_is_sent(kind, copy):
    """Where the place tells what is free, nothing is begun that cannot fit."""
    kind.needs_a_disk()
    copy.holds(BIG)
    kind.fill(1_000_000)
    if kind.storage.free_bytes(kind.storage.root) is None:
        pytest.skip("nobody can say what is free there")
    with pytest.raises(
        StepFailed, match=r"Not enough space on .* are free.*Free some space there"
    ):
        copy.send()
    assert listed(kind.raw) == []


def test_a_disk_that_fills_up_is_told_and_the_copy_goes_on_when_there_is_room(kind, pi, copy):
    """The failure says that there is no room, no half file has the name, and no try is in vain."""
    kind.needs_a_disk()
    copy.holds(BIG)
    pi.at_bytes, pi.act = 500_000, lambda: kind.fill(2_000_000)
    with pytest.raises(StepFailed, match=r"(?s)([Nn]o space|full).*same command again") as failure:
        copy.send()
    assert not failure.value.again
    assert not copy.final.exists()
    kind.make_room()
    tried(copy.send)
    if kind.storage.resumes:
        assert pi.starts[-1] > 0
    assert copy.final.read_bytes() == BIG
    assert listed(kind.raw) == [copy.final.name]


def test_a_claim_that_does_not_fit_keeps_nobody_out(kind):
    """On a full disk no claim is made; with room, the next who comes makes it."""
    kind.needs_a_disk()
    mark = f"{kind.storage.root}/mark"
    kind.fill()
    with pytest.raises(StepFailed):
        kind.storage.create_exclusive(mark, "mine")
    assert listed(kind.raw) == []
    kind.make_room()
    assert kind.storage.create_exclusive(mark, "mine") == "mine"


# Listings


def test_a_listing_is_fooled_by_no_name(kind):
    """What is no file is told as such or not at all, and no name makes another appear."""
    good = f"{SET}.{PARTS['general']}"
    (kind.raw / good).write_bytes(b"12345")
    for name in (*NAMES, *(ODD_NAMES if kind.odd_names else ())):
        (kind.raw / name).touch()
    (kind.raw / f"2026-11-24_1100.{PARTS['manifest']}").mkdir()
    if kind.odd_names:
        (kind.raw / f"x\n81a4 5 0 2026-11-25_1100.{PARTS['manifest']}").touch()
        (kind.raw / f"\n81a4 5 0 {kind.raw.name}.{PARTS['manifest']}").touch()
    if kind.odd_files:
        os.mkfifo(kind.raw / f"2026-11-26_1100.{PARTS['manifest']}")
        (kind.raw / f"2026-11-27_1100.{PARTS['manifest']}").symlink_to(good)
    found = kind.storage.listdir(kind.storage.root)
    ours = [name for name, fact in found.items() if fact.is_file and split_set_name(name)]
    assert ours == [good]
    assert found[good].size_bytes == 5
    assert set(NAMES) <= set(found)


def test_a_thousand_sets_are_listed_and_pruned(kind):
    """However many files there are, a listing is one question, and a set's removal a few."""
    kinds = [PARTS[each] for each in ("general", "influx", "manifest", "log", "mariadb")]
    tags = [
        f"2026-{month:02}-{day:02}_{h:02}00"
        for month in range(1, 9)
        for day in range(1, 26)
        for h in range(5)
    ][: kind.many_sets]
    for tag in tags:
        for each in kinds:
            (kind.raw / f"{tag}.{each}").touch()
    storage, before = kind.storage, kind.sessions()
    found = storage.listdir(storage.root)
    assert len(found) == 5 * len(tags)
    manifests = [f"{tag}.{PARTS['manifest']}" for tag in tags[:200]]
    assert set(storage.read_many(storage.root, manifests)) == set(manifests)
    for tag in tags[:4]:
        remove_set(storage, storage.root, tag)
    if before is not None:
        assert kind.sessions() - before <= 2 + 4 * 4
    assert sorted(name for name in found if name[:15] not in tags[:4]) == (listed(kind.raw))


# Several at once


def test_of_many_who_claim_at_once_one_wins(kind):
    """Each is told the one line that stands there then, and one of them finds it its own."""
    mark = f"{kind.storage.root}/{SET}.unfinished.jsonl"
    storages = [kind.another() for _ in range(4)] * 2
    for storage in storages:
        storage.stat([storage.root])

    def claim(number):
        line = f"run {number}"
        found = storages[number].create_exclusive(mark, line)
        while not found:  # another is just making it
            found = storages[number].create_exclusive(mark, line)
        return found

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(claim, range(8)))
    assert len(set(told)) == 1
    assert (kind.raw / f"{SET}.unfinished.jsonl").read_text() == f"{told[0]}\n"
    assert told[0] in {f"run {number}" for number in range(8)}
    assert listed(kind.raw) == [f"{SET}.unfinished.jsonl"]


def test_many_write_at_once(kind, tmp_path):
    """Eight copies at the same time over one place are eight files, each as it was sent."""
    (tmp_path / "pi").mkdir()
    pi = LocalHost(str(tmp_path / "pi"))
    pieces = {f"{number}.tar": BIG[number:][: 2_000_000 + number] for number in range(8)}
    copies = [Copy(pi, kind, name).holds(data) for name, data in pieces.items()]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: each.send(), copies))
    assert {each.name: each.read_bytes() for each in kind.raw.iterdir()} == pieces
