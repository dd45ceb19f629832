"""How much a tar holds of each folder is counted while it goes by, as it was written."""

import io
import os
import random
import subprocess
import tarfile

import pytest

from iotstack_invoke.archives.pack import tar_words
from iotstack_invoke.archives.sizes import Sizes

TOPS = ("services", "volumes")


def counted(content, paths=(), *, step=10240, tops=TOPS):
    """Return what is counted of a tar that comes in pieces."""
    sizes = Sizes(paths, tops)
    for start in range(0, len(content), step):
        sizes.take(content[start : start + step])
    return {path: tuple(counts) for path, counts in sizes.found.items()}


def told_by_python(content, paths=(), *, tops=TOPS):
    """Return the same as Python's own reader of tars tells it."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for each in archive:
            path = each.name.removeprefix("./")
            parts = path.split("/")
            items = {
                "/".join(parts[:n])
                for n in range(1, len(parts) + 1)
                if "/".join(parts[:n]) in paths or (n == 2 and parts[0] in tops)
            }
            for item in items:
                size, files = found.setdefault(item, (0, 0))
                if not each.isdir():
                    link = each.issym() or each.islnk()
                    found[item] = (size + (each.size if each.isreg() else link), files + 1)
    return found


@pytest.fixture
def packed(tmp_path):
    """A tar of a little of everything, as a backup has it."""
    inside = tmp_path / "volumes"
    for name in ("a/deep/er", "a/other", "b", "Köln ☕/x", "empty", "l" * 120):
        (inside / name).mkdir(parents=True)
    (tmp_path / "services/a").mkdir(parents=True)
    (tmp_path / ".env").write_text("x")
    files = ("a/one", "a/deep/er/two", "a/other/three", "b/four", "Köln ☕/x/five", "six")
    for number, name in enumerate((*files, f"{'l' * 120}/{'m' * 200}")):
        (inside / name).write_bytes(b"x" * (number * 700 + number))
    (inside / "b/link").symlink_to("four")
    (inside / "link").symlink_to("/mnt/ssd")
    os.link(inside / "b/four", inside / "b/hard")
    os.setxattr(inside / "b/four", "user.note", b"x" * 100)
    (tmp_path / os.fsdecode(b"volumes/b/\xff\xfe")).write_text("raw")
    words = tar_words((), str(tmp_path))
    return subprocess.run([*words, "./.env", *TOPS], check=True, capture_output=True).stdout


PATHS = ("volumes/a/deep", "volumes/a/other", "volumes/empty", "volumes/b/four", "volumes/not")


@pytest.mark.parametrize("step", [1, 511, 512, 513, 1 << 20])
def test_what_is_counted_is_what_the_tar_holds(packed, step):
    """However it is cut into pieces: bytes and files of each entry, and of paths within."""
    told = told_by_python(packed, PATHS)
    assert counted(packed, PATHS, step=step) == told
    assert told["volumes/a/deep"] == (701, 1)
    assert told["volumes/empty"] == (0, 0)
    assert told["volumes/six"] == (5 * 701, 1)
    assert told["volumes/link"] == (1, 1)  # what it leads to is elsewhere


def test_without_folders_of_its_own_paths_alone_are_counted(packed):
    """What lies elsewhere than in services/ and volumes/ is told where it is asked for."""
    assert counted(packed, ("volumes/a",), tops=()) == {"volumes/a": (3 * 701, 3)}


def test_sizes_that_no_octal_field_takes_are_counted():
    """Of a file of 100 GB, however its header tells that."""
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        member = tarfile.TarInfo("./volumes/a/big")
        member.size = 100_000_000_000
        assert counted(member.tobuf(form)) == {"volumes/a": (100_000_000_000, 1)}


def test_what_is_no_tar_counts_nothing():
    """Whatever comes, nothing fails by it."""
    chance = random.Random(3)  # noqa: S311 - no secret
    for length in (1, 511, 512, 5000):
        content = chance.randbytes(length)
        counted(content, PATHS, step=100)
    header = tarfile.TarInfo("./volumes/a/b").tobuf()
    broken = header[:124] + b"what is it? " + header[136:]
    assert counted(header + broken) == {}
