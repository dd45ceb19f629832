"""Ninety damages at random places of a set in a vault, its manifest included: each is told."""

import gzip
import io
import json
import random
import shutil
import tarfile

import folders
import pytest
from sample_sets import Shelf, old_form

from iotstack_invoke.backups.manifest import read_manifest
from iotstack_invoke.commands.catalog.verify import Wanted, verify
from iotstack_invoke.databases.sql.read_dump import MariaReader, PostgresReader
from iotstack_invoke.reporting.report import Report

SQL = folders.FIXTURES / "sql"
TAG = "2026-11-23_1100"
SEED = 20261123
COUNT = 90
TEXTS = ("RESTORE.txt", "backup-log.txt")


def sql_part(member, content, server, reader):
    """Return an archive with one dump, and what a manifest says of its server."""
    reader.add(content)
    report = reader.report()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        info = tarfile.TarInfo(f"./{member}")
        data = gzip.compress(content) if member.endswith(".gz") else content
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    rows = {name: {} for name in report.databases}
    for table, count in report.rows.items():
        rows.setdefault(table.database, {})[table.name] = count
    told = {"container": server, "engine": server, "version": report.version, "rows": rows}
    return packed.getvalue(), {"servers": [{**told, "sql_bytes": len(content)}]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A vault with two whole sets of four parts, and the settings that know it."""
    shelf = Shelf(tmp_path_factory.mktemp("shelf"))
    usb = shelf.vault("usb")
    for tag in (TAG, "2026-11-22_1100"):
        files = shelf.put(tag, usb)
        told = json.loads(files["manifest"].read_text())
        for kind, dump, reader in (
            ("mariadb", "mariadb-10.11.sql", MariaReader()),
            ("postgres", "postgres-15.sql", PostgresReader()),
        ):
            member = "backup.sql" if kind == "mariadb" else "postgres_backup.sql.gz"
            content, facts = sql_part(member, (SQL / dump).read_bytes(), kind, reader)
            files[kind].write_bytes(content)
            told["parts"][kind] = {"file": files[kind].name, "size_bytes": 0, "facts": facts}
        told["parts"]["general"]["facts"] = {
            "unpacked_bytes": len(gzip.decompress(files["general"].read_bytes()))
        }
        told["containers"] = [
            {"name": "influxdb", "image": "i:1", "image_id": "a", "digest": "", "running": True}
        ]
        shelf.write(files, read_manifest(old_form(told)))
        shelf.tell_anew(files)
    return shelf, usb


@pytest.fixture
def copied(made, tmp_path, monkeypatch):
    """Let each damage have a vault of its own: returns a function that copies it anew."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shelf, usb = made

    def anew():
        shutil.rmtree(usb)
        shutil.copytree(kept, usb)
        return usb

    kept = tmp_path / "kept"
    shutil.copytree(usb, kept)
    yield shelf, anew
    anew()


def verified(shelf, capsys, **wanted):
    """Return the exit code of a verification in the vault, and what it said."""
    capsys.readouterr()
    code = verify(shelf.settings(), Wanted(at="usb", **wanted), Report(), as_json=False)
    told = capsys.readouterr()
    return int(code), told.out + told.err


# Each takes the path of a file and a source of chance, and returns what it did, or "" where it
# can do nothing.


def flip(path, chance):
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data))
    data[at] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return f"a bit of byte {at}"


def drop_bytes(path, chance):
    data = path.read_bytes()
    at, size = chance.randrange(len(data)), chance.choice((1, 7, 512))
    path.write_bytes(data[:at] + data[at + size :])
    return f"{size} bytes from {at} on"


def truncate(path, chance):
    data = path.read_bytes()
    size = chance.randrange(len(data))
    path.write_bytes(data[:size])
    return f"all but {size}"


def append(path, chance):
    more = chance.choice((b"\n", b"\0", b" ", bytes(512), b"junk", path.read_bytes()))
    path.write_bytes(path.read_bytes() + more)
    return f"{len(more)} behind"


def zeroed(path, chance):
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data))
    size = min(chance.choice((1, 16, 4096)), len(data) - at)
    if not any(data[at : at + size]):
        return ""
    data[at : at + size] = bytes(size)
    path.write_bytes(data)
    return f"{size} from {at}"


def overwritten(path, chance):
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data))
    old, new = bytes(data[at : at + 16]), chance.randbytes(16)[: len(data) - at]
    data[at : at + 16] = new
    path.write_bytes(data)
    return f"16 at {at}" if new != old else ""


def drop(path, _chance):
    path.unlink()
    return "the file"


def emptied(path, _chance):
    path.write_bytes(b"")
    return "all"


def swap(path, chance):
    others = sorted(each for each in path.parent.iterdir() if each != path)
    other = chance.choice(others)
    one, two = path.read_bytes(), other.read_bytes()
    if one == two:
        return ""
    path.write_bytes(two)
    other.write_bytes(one)
    return f"with {other.name}"


def leaves(inside, path=()):
    """Return the place of each value of a JSON text."""
    found = [path] if path else []
    pairs = inside.items() if isinstance(inside, dict) else ()
    pairs = enumerate(inside) if isinstance(inside, list) else pairs
    return found + [each for key, value in pairs for each in leaves(value, (*path, key))]


def edited(path, chance):
    """Change a value of the manifest, or remove it, and leave the rest as it is written."""
    if not path.name.endswith("manifest.json"):
        return ""
    told = json.loads(path.read_bytes())
    place = chance.choice(leaves(told))
    inside = told
    for key in place[:-1]:
        inside = inside[key]
    old = inside[place[-1]]
    new = chance.choice((None, "", "x", 0, 1, [], {}, True, "gone"))
    if new == "gone":
        del inside[place[-1]]
    elif (type(new), new) == (type(old), old):
        return ""
    else:
        inside[place[-1]] = new
    path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    return f"{place} {old!r:.20} is {new!r}"


KINDS = (
    flip, drop_bytes, truncate, append, zeroed, overwritten, drop, emptied, swap, edited, edited,
)  # fmt: skip


def test_two_whole_sets_are_good(copied, capsys):
    """Without any damage nothing is told: the test below can fail."""
    shelf, _ = copied
    assert verified(shelf, capsys, all=True)[0] == 0


@pytest.mark.parametrize("round_", range(COUNT // 10))
def test_each_damage_in_a_vault_is_told(copied, capsys, round_):
    """Whatever befell any file of a set, the exit code is not 0 and the set is named."""
    shelf, anew = copied
    chance = random.Random(SEED + round_)  # noqa: S311 - the same damages each time
    done = 0
    while done < COUNT // (COUNT // 10):
        usb = anew()
        files = sorted(each for each in usb.iterdir() if each.name.startswith(TAG))
        manifests = [each for each in files if each.name.endswith("manifest.json")]
        path = chance.choice([*files, *manifests])
        kind = chance.choice(KINDS)
        if not (what := kind(path, chance)):
            continue
        done += 1
        code, told = verified(shelf, capsys, all=True)
        damage = f"{kind.__name__} of {path.name}: {what}\n{told}"
        assert code, damage
        assert "Traceback" not in told, damage
        assert TAG in told, damage
        good = f"{TAG} in usb is good"
        if not path.name.endswith(TEXTS) and kind is not swap:
            assert code == 1, damage
            assert good not in told, damage
        if kind is not swap:
            assert "2026-11-22_1100 in usb is good: read completely." in told, damage


EDITS = {
    "an empty hash": (
        lambda t: t["parts"]["influx"].update(sha256=""),
        "The manifest has no SHA-256 of",
    ),
    "no hash": (lambda t: t["parts"]["mariadb"].pop("sha256"), "The manifest has no SHA-256 of"),
    "a size": (lambda t: t["parts"]["mariadb"].update(size_bytes=7), "the manifest has 7"),
    "a wrong type": (lambda t: t["parts"]["mariadb"].update(size_bytes="7"), 'size_bytes = "7"'),
    "no databases": (
        lambda t: t["parts"]["influx"]["facts"].pop("databases"),
        "The manifest has no databases of its",
    ),
    "a database less": (
        lambda t: t["parts"]["influx"]["facts"]["databases"].pop(),
        "The databases of the influx part differ from",
    ),
    "a shard less": (
        lambda t: t["parts"]["influx"]["facts"]["shards"].pop(),
        "The shards of the influx part differ from",
    ),
    "no users": (
        lambda t: t["parts"]["influx"]["facts"].update(users=77),
        "The influx part has users",
    ),
    "a table less": (
        lambda t: t["parts"]["postgres"]["facts"]["servers"][0]["rows"].popitem(),
        "The rows of postgres of the postgres part differ from",
    ),
    "no servers": (
        lambda t: t["parts"]["mariadb"]["facts"].pop("servers"),
        ", but the manifest lists no such server.",
    ),
    "another server": (
        lambda t: t["parts"]["mariadb"]["facts"]["servers"][0].update(container="wiki_db"),
        "has no dump of wiki_db",
    ),
    "a part less": (lambda t: t["parts"].pop("influx"), "the manifest has no influx part"),
    "what it unpacks to": (
        lambda t: t["parts"]["general"]["facts"].update(unpacked_bytes=1),
        "but the manifest has 1",
    ),
    "another host": (lambda t: t.update(host="other"), "RESTORE.txt is from pi"),
    "another runtag": (
        lambda t: t.update(runtag="2026-11-22_1100"),
        ", which is not valid",
    ),
    "a state": (lambda t: t.update(state="incomplete"), "The manifest has state 'incomplete'"),
    "a format": (
        lambda t: t.update(format="iotstack-invoke manifest 99"),
        'its format is "iotstack-invoke manifest 99"',
    ),
}


@pytest.mark.parametrize("form", ["old", "new"])
@pytest.mark.parametrize(("edit", "words"), EDITS.values(), ids=EDITS)
def test_each_edit_of_a_manifest_has_its_own_words(copied, capsys, edit, words, form):
    """Also of one without a sum, as the first versions wrote it: archives and texts tell."""
    shelf, anew = copied
    path = anew() / f"{TAG}.manifest.json"
    told = json.loads(path.read_bytes())
    if form == "old":
        told = json.loads(old_form(told))
    edit(told)
    path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    code, said = verified(shelf, capsys, runtag=TAG)
    assert code == 1, said
    if words != "RESTORE.txt is from pi" or form == "old":
        assert words in said
    if form == "new" and "format" not in words and ", which is not valid" not in words:
        assert ("changed since it was written" in said) or "size_bytes" in words


def test_a_set_of_the_first_versions_is_good(copied, capsys):
    """A manifest, a log and a RESTORE.txt without sums are compared as far as they go."""
    shelf, anew = copied
    usb = anew()
    path = usb / f"{TAG}.manifest.json"
    path.write_text(old_form(json.loads(path.read_bytes())))
    for name in TEXTS:
        text = (usb / f"{TAG}.{name}").read_text().splitlines(keepends=True)
        at = 1 if name == TEXTS[1] else 3
        (usb / f"{TAG}.{name}").write_text("".join(text[:-at]))
    code, said = verified(shelf, capsys, all=True)
    assert code == 0, said
