"""What lies outside of the stack's folder: packed, told by all in the same words, and put back."""

import json
import os
import shutil
import tarfile

import pytest
from fake_docker import LittleDocker
from remote_stacks import Laptop, Pi

from iotstack_invoke.stack.path_owners import is_unnamed, project_of, volume_in

TAG = "t1"


class Machine:
    """A little stack with a Docker that has volumes, and a disk beside it."""

    def __init__(self, stack):
        self.stack = stack
        self.folder = stack.folder
        self.disk = stack.tools.parent / "disk"
        self.docker = LittleDocker(stack)

    def put(self, path, text):
        """Write a file of the disk."""
        path = self.disk / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def row(self, path, **keys):
        """Include a path."""
        lines = [f"{key} = '{value}'" for key, value in {"path": path, **keys}.items()]
        with self.stack.settings.open("a") as stream:
            stream.write("\n".join(["[[stack.include]]", *lines, ""]))

    def leave_out(self, rows):
        """Leave paths out, each with the reason."""
        lines = (
            f"[[stack.exclude]]\npath = '{path}'\nreason = '{why}'\n" for path, why in rows.items()
        )
        with self.stack.settings.open("a") as stream:
            stream.writelines(lines)

    def backup(self, code=0):
        """Make a backup; return what it said and its manifest."""
        told = self.stack.run(f"backup --runtag {TAG}")
        assert told.returncode == code, told.stderr
        return told.stderr, json.loads((self.folder / f"backups/{TAG}.manifest.json").read_text())

    def do(self, line, code=0):
        """Do a task; return what it said."""
        told = self.stack.run(line)
        assert told.returncode == code, told.stdout + told.stderr
        return told.stdout + told.stderr

    def restore(self, line="", code=0):
        """Restore the backup."""
        return self.do(f"restore --runtag {TAG} --from here --yes {line}", code)

    def members(self):
        """Return the names in the outside part."""
        with tarfile.open(self.folder / f"backups/{TAG}.outside-backup.tar.gz") as archive:
            return archive.getnames()


@pytest.fixture
def machine(little_stack):
    return Machine(little_stack)


def test_a_volume_and_a_path_are_put_back_and_an_undo_takes_them_away(machine):
    """What came since then is moved aside whole, and comes back by the undo."""
    machine.docker.volume("data", "old")
    path = machine.put("films/a", "old")
    machine.row(path.parent)
    machine.docker.knows({"one": [("data", "/data"), (str(path.parent), "/films")]})
    machine.backup()
    places = (machine.docker.files("data") / "file", path)
    for each in places:
        each.write_text("new")
        (each.parent / "since").write_text("new")
    machine.restore()
    assert [each.read_text() for each in places] == ["old", "old"]
    assert not any((each.parent / "since").exists() for each in places)
    machine.do("undo --last-restore --yes")
    assert [each.read_text() for each in places] == ["new", "new"]
    assert all((each.parent / "since").exists() for each in places)


@pytest.mark.parametrize("exact", ["", "--exact"])
def test_what_is_included_here_and_not_in_the_backup_is_named_and_stays(machine, exact):
    """A path of the stack's folder, one outside, a volume; --exact puts aside what is the stack's."""
    machine.docker.knows({"one": [(str(machine.folder / "volumes/nodered"), "/data")]})
    machine.backup()
    machine.docker.volume("more", "mine")
    machine.docker.knows({"one": [("more", "/data")]})
    inside, outside = machine.folder / "extra/deep", machine.put("films/a", "mine")
    inside.mkdir(parents=True)
    (inside / "b").write_text("mine")
    for each in ("extra", "absent", inside, outside.parent):
        machine.row(each)
    here = (inside / "b", outside, machine.docker.files("more") / "file")
    told = machine.restore(exact)
    beyond = f"not in the backup: {outside.parent}, volume:more\n"
    assert f"stays here, {beyond}" in told
    assert f"kept, {beyond}" in told
    first, last = ("is moved aside", "moved aside") if exact else ("stays here", "kept")
    assert f"{first}, not in the backup: extra\n" in told
    assert f"{last}, not in the backup: extra\n" in told
    assert [each.exists() for each in here] == [not exact, True, True]
    machine.do("undo --last-restore --yes")
    assert [each.read_text() for each in here] == ["mine"] * 3


def test_what_was_left_out_stays_where_it_lies(machine):
    """In a volume, and in a path that goes elsewhere; an undo leaves it there as well."""
    machine.docker.volume("data", "old")
    path = machine.put("films/a", "old")
    rows = {"volume:data/cache": "fetched again", f"{path.parent}/*.part": "not whole"}
    machine.leave_out(rows)
    moved = machine.disk / "moved"
    machine.row(path.parent, restore_to=moved)
    machine.docker.knows({"one": [("data", "/data")]})
    cache = machine.docker.files("data") / "cache/deep/one"
    cache.parent.mkdir(parents=True)
    cache.write_text("cached")
    machine.backup()
    files = machine.docker.files("data")
    (files / "file").write_text("new")
    partial = machine.put("moved/b.part", "here")
    machine.put("moved/c", "new")
    told = machine.restore()
    assert f"{moved}/*.part, volume:data/cache\n" in told
    assert "neither in the backup nor here" not in told
    assert (files / "file").read_text() == "old"
    assert (cache.read_text(), partial.read_text()) == ("cached", "here")
    assert not (moved / "c").exists()
    cache.write_text("cached since")
    machine.do("undo --last-restore --yes")
    assert (cache.read_text(), partial.read_text()) == ("cached since", "here")
    assert (files / "file").read_text() == (moved / "c").read_text() == "new"
    shutil.rmtree(files / "cache")
    assert f"neither in the backup nor here: {files}/cache (fetched again)" in machine.restore()


def test_what_can_be_fetched_anew_is_left_out_of_the_stacks_folder(machine):
    """Wherever it lies there; volumes and an included path are packed whole."""
    unnamed = "f" * 64
    for each in ("data", unnamed, "without"):
        machine.docker.volume(each, "old")
    path = machine.put("node[red]/a", "old").parent
    machine.row(path)
    mounts = {
        "two": str(path),
        "three": "./own",
        "four": "data",
        "five": unnamed,
        "six": "without",
    }
    machine.docker.knows({name: [(source, "/data")] for name, source in mounts.items()})
    files = machine.docker.files
    places = (path, machine.folder / "own", files("data"), files(unnamed))
    modules = [each / "node_modules/x/package.json" for each in places]
    for each in modules:
        each.parent.mkdir(parents=True)
        each.write_text("old")
    _, manifest = machine.backup()
    names = machine.members()
    own = f".{machine.folder}/own"
    whole = {f".{each}" for each in modules} - {f"{own}/node_modules/x/package.json"}
    assert {f".{path}/a"} | whole <= {*names}
    told = {each["what"] for each in manifest["left_out"] if "modules" in each["reason"]}
    assert told == {"own/node_modules/*"}
    assert "own/node_modules/*: left out: modules" in machine.do("services")
    for each in modules:
        each.write_text("new")
    machine.restore()
    assert [each.read_text() for each in modules] == ["old", "new", "old", "old"]


def test_what_another_container_writes_or_a_row_includes_is_not_left_out(machine):
    """Whatever the table says of the one that mounts it as its modules."""
    machine.docker.volume("data", "old")
    row, shared = (machine.put(f"{each}/a", "old").parent for each in ("row", "shared"))
    machine.row(row)
    machine.row(shared.parent)
    (machine.folder / "own/deep").mkdir(parents=True)
    places = {"one": row, "two": shared, "three": "data", "four": "./own"}
    inside = "/data/node_modules"
    mounts = {name: [(str(place), inside)] for name, place in places.items()}
    mounts["writer"] = [(str(shared), "/x"), ("data", "/y"), ("./own/deep", "/z")]
    machine.docker.knows({**mounts, "around": [(".", "/stack")]})
    for path in ("own/deep/a", "own/b"):
        (machine.folder / path).write_text("old")
    _, manifest = machine.backup(3)
    assert not [each for each in manifest["left_out"] if "modules" in each["reason"]]
    files = {
        f".{path}" for path in (row / "a", shared / "a", machine.docker.files("data") / "file")
    }
    assert files <= {*machine.members()}
    with tarfile.open(machine.folder / f"backups/{TAG}.general-backup.tar.gz") as archive:
        assert {"./own/deep/a", "./own/b"} <= {*archive.getnames()}
    machine.docker.knows({**mounts, "writer": []})
    machine.stack.run("backup --runtag t2")
    manifest = json.loads((machine.folder / "backups/t2.manifest.json").read_text())
    told = {each["what"] for each in manifest["left_out"] if "modules" in each["reason"]}
    assert told == {"own/*"}


def test_what_can_be_fetched_anew_is_left_out_of_a_stack_that_is_down(machine):
    """Where its compose file says that it lies."""
    machine.docker.volume("IOTstack_hass", "old", key="hass")
    (machine.folder / "docker-compose.yml").write_text(
        "services:\n  nodered:\n    image: nodered/node-red\n    volumes: ['./own:/data']\n"
        "  home_assistant:\n    image: homeassistant/home-assistant\n"
        "    volumes: ['hass:/config']\nvolumes: {hass: {name: IOTstack_hass}}\n"
    )
    volume = machine.docker.files("IOTstack_hass")
    for each in (machine.folder / "own/node_modules/x", volume / "backups/x"):
        each.parent.mkdir(parents=True)
        each.write_text("x")
    _, manifest = machine.backup()
    told = {each["what"] for each in manifest["left_out"]}
    assert "own/node_modules/*" in told
    assert {f".{volume}/file", f".{volume}/backups/x"} <= {*machine.members()}


def test_a_drive_that_is_not_mounted_now_gets_nothing(machine):
    """The next mount would hide it: outside of the stack it is named, in the stack refused."""
    file = machine.put("drive/a", "old")
    own = machine.folder / "volumes/nodered/flows.json"
    machine.row(file.parent)
    machine.docker.knows({"one": [(str(file.parent), "/d")]})
    machine.backup()
    for path in (file, own):
        path.write_text("new")
    fstab = machine.disk / "fstab"
    machine.stack.environment["LIBMOUNT_FSTAB"] = str(fstab)
    fstab.write_text(f"LABEL=x {file.parent} ext4 nofail 0 2\nLABEL=y none swap sw 0 0\n")
    said = machine.restore(code=3)
    assert f"drive is not restored: /etc/fstab has {file.parent}, where nothing is" in said
    assert (file.read_text(), own.read_text()) == ("new", "[]\n")
    own.write_text("new")
    fstab.write_text(f"LABEL=x {own.parent} ext4 nofail 0 2\n")
    assert f"/etc/fstab has {own.parent}, where nothing is mounted now" in machine.restore(code=13)
    assert (file.read_text(), own.read_text()) == ("new", "new")


def test_a_drive_that_went_while_a_restore_was_prepared_is_missed(machine, mount_disk):
    """What is put beneath it is hidden by its next mount, and the restore would end with 0."""
    drive = mount_disk(machine.disk / "drive")
    machine.put("drive/a", "old")
    machine.row(drive)
    machine.docker.knows({"one": [(str(drive), "/d")]})
    machine.backup()
    own = machine.folder / "volumes/nodered/flows.json"
    own.write_text("new")
    with machine.stack.settings.open("a") as stream:
        stream.write(f'[hooks]\nbefore_restore = [["umount", "--lazy", "{drive}"]]\n')
    said = machine.restore(code=1)
    assert f"{drive} was mounted or unmounted while this restore was" in " ".join(said.split())
    assert list(drive.iterdir()) == []
    assert own.read_text() == "new"


def test_a_drive_that_went_is_missed_if_nothing_outside_is_restored(machine, mount_disk):
    """What was mounted is known from when the plan was made, and not from when it is compared."""
    drive = mount_disk(machine.folder / "volumes/nodered")
    own = drive / "flows.json"
    beneath = "[]\n"  # which the mount hides
    own.write_text("old")
    machine.docker.knows({"one": [(str(drive), "/d")]})
    machine.backup()
    own.write_text("new")
    with machine.stack.settings.open("a") as stream:
        stream.write(f'[hooks]\nbefore_restore = [["umount", "--lazy", "{drive}"]]\n')
    said = machine.restore(code=1)
    assert f"{drive} was mounted or unmounted while this restore was" in " ".join(said.split())
    assert own.read_text() == beneath


def test_an_undo_leaves_no_empty_folder_on_another_mount(machine, mount_disk):
    """Nobody lists or removes one that holds nothing; what was live since then stays."""
    drive = mount_disk(machine.disk / "drive")
    whole = mount_disk(machine.disk / "whole")
    places = [machine.put(each, "old") for each in ("drive/films/a", "whole/a")]
    for each in (places[0].parent, whole):
        machine.row(each)
    mounts = [(str(places[0].parent), "/d"), (str(whole), "/w")]
    machine.docker.knows({"one": mounts})
    machine.backup()
    for each in places:
        each.write_text("new")
    machine.restore()
    assert [each.read_text() for each in places] == ["old", "old"]
    machine.do("undo --last-restore --yes")
    assert [each.read_text() for each in places] == ["new", "new"]
    left = (*drive.glob(".*"), *whole.glob(".*"))
    assert [each.name.endswith("-undone") for each in left] == [True, True], left


def test_what_restores_keep_on_a_drive_is_in_no_backup(machine, mount_disk):
    """Also where what is around the drive is included, or a volume's files lie on one."""
    machine.docker.volume("data", "old")
    places = [
        mount_disk(each) for each in (machine.disk / "a [drive] é", machine.docker.files("data"))
    ]
    for each in places:
        kept = each / ".previous-t0-20261122T110000Z/a"
        kept.parent.mkdir()
        for path in (kept, each / "b"):
            path.write_text("old")
    machine.row(machine.disk)
    machine.docker.knows({"one": [("data", "/data")]})
    machine.backup()
    names = machine.members()
    assert {f".{each}/b" for each in places} <= {*names}
    assert not [each for each in names if ".previous-" in each]


def test_no_empty_folder_comes_in_the_place_of_a_database(machine):
    """The backup does not hold its data: what is around them stays, and the end tells it."""
    shared = machine.put("shared/a", "old").parent
    machine.row(shared)
    mounts = {"one": [(str(shared), "/d")]}
    machine.docker.knows(mounts)
    machine.backup()
    data = machine.put("shared/pg/PG_VERSION", "15")
    machine.docker.knows(
        {**mounts, "pg": [(str(data.parent), "/var/lib/postgresql/data")]}, pg="postgres:15"
    )
    for path in (shared / "a", machine.folder / "volumes/nodered/flows.json"):
        path.write_text("new")
    said = machine.restore(code=3)
    told = f"{shared} is not changed: a database, or a service with one, keeps its data there"
    assert said.count(told) == 2
    assert data.read_text() == "15"
    assert (shared / "a").read_text() == "new"
    assert (machine.folder / "volumes/nodered/flows.json").read_text() == "[]\n"


def test_a_stack_in_another_folder_gets_its_own_volume(machine):
    """By the name of its project and with compose's labels, or as its container mounts it."""
    machine.docker.volume("iotstack_data", "old", key="data")
    machine.docker.volume("plain", "old")
    machine.docker.knows({"one": [("iotstack_data", "/data"), ("plain", "/plain")]})
    machine.backup()
    other = machine.folder.rename(machine.folder.with_name("Second"))
    text = machine.stack.settings.read_text()
    machine.stack.settings.write_text(text.replace(str(machine.folder), str(other)))
    shutil.rmtree(machine.docker.root)
    machine.docker.knows({})
    machine.restore()
    made = machine.docker.files("second_data")
    assert (made / "file").read_text() == "old"
    (mark,) = machine.docker.labels("plain")
    assert mark.startswith(f"iotstack_invoke.restore=previous-{TAG}-")
    assert machine.docker.labels("second_data") == {
        "com.docker.compose.project=second",
        "com.docker.compose.volume=data",
        mark,
    }
    assert (machine.docker.files("plain") / "file").read_text() == "old"
    assert not machine.docker.files("iotstack_data").exists()


def test_the_volume_that_the_container_mounts_here_is_meant(machine):
    """Whatever it is called."""
    machine.docker.volume("data", "old")
    machine.docker.knows({"one": [("data", "/data")]})
    machine.backup()
    machine.docker.volume("another", "new")
    machine.docker.knows({"one": [("another", "/data")]})
    (machine.docker.files("data") / "file").write_text("new")
    machine.restore()
    assert (machine.docker.files("another") / "file").read_text() == "old"
    assert (machine.docker.files("data") / "file").read_text() == "new"


def test_a_restore_of_one_service_leaves_the_others_alone(machine):
    """--only names the container, or the volume itself."""
    for name in ("first", "second", "third"):
        machine.docker.volume(name, "old")
    machine.docker.knows({name: [(name, "/data")] for name in ("first", "second", "third")})
    machine.backup()
    files = {n: machine.docker.files(n) / "file" for n in ("first", "second", "third")}
    for each in files.values():
        each.write_text("new")
    machine.restore("--only first --only second")
    assert [each.read_text() for each in files.values()] == ["old", "old", "new"]


def test_a_path_goes_where_its_row_says(machine):
    """Where it lay nothing changes."""
    path = machine.put("films/a", "old")
    machine.row(path.parent, restore_to=machine.disk / "moved")
    machine.backup()
    path.write_text("new")
    machine.restore()
    assert (machine.disk / "moved/a").read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("order", [("films", "films/own"), ("films/own", "films")])
def test_a_row_within_another_goes_where_it_says(machine, order):
    """Packed once, and taken out of what is around it, whichever row comes first."""
    machine.put("films/a", "old")
    machine.put("films/own/b", "old")
    for each in order:
        keys = {"restore_to": machine.disk / "apart"} if each == "films/own" else {}
        machine.row(machine.disk / each, **keys)
    machine.backup()
    assert sum(name.endswith("/own/b") for name in machine.members()) == 1
    shutil.rmtree(machine.disk)
    machine.restore()
    found = sorted(
        str(e.relative_to(machine.disk)) for e in machine.disk.rglob("*") if e.is_file()
    )
    assert found == ["apart/b", "films/a"]


def test_two_links_to_one_place_lead_there_on_a_bare_machine(machine):
    """One of them by way of a link that is in no part: it is made again."""
    machine.put("real/a", "old")
    (machine.disk / "way").symlink_to("real")
    for name, leads in (("one", "way"), ("two", "real")):
        (machine.folder / "volumes" / name).symlink_to(machine.disk / leads)
    mounts = [("./volumes/one", "/one"), ("./volumes/two", "/two")]
    machine.docker.knows({"one": mounts})
    machine.backup()
    shutil.rmtree(machine.disk)
    for each in ("one", "two"):
        (machine.folder / "volumes" / each).unlink()
    machine.docker.knows({}, later={"one": mounts})
    machine.restore()
    for each in ("one", "two"):
        assert (machine.folder / "volumes" / each / "a").read_text() == "old"
    assert (machine.disk / "way").readlink() == machine.disk / "real"
    machine.do("undo --last-restore --yes")
    assert not os.path.lexists(machine.disk / "way")
    assert not os.path.lexists(machine.disk / "real")


def test_what_lies_in_the_way_of_a_link_stays(machine):
    """Nothing is replaced by a link; that the container sees what was in the way is told."""
    machine.put("real/a", "old")
    (machine.disk / "way").symlink_to("real")
    for name, leads in (("one", "way"), ("two", "real")):
        (machine.folder / "volumes" / name).symlink_to(machine.disk / leads)
    machine.docker.knows({"one": [("./volumes/one", "/one"), ("./volumes/two", "/two")]})
    machine.backup()
    (machine.disk / "way").unlink()
    machine.put("way/mine", "mine")
    said = machine.restore(code=3)
    assert f"Container one does not see {machine.disk}/real" in said
    assert (machine.disk / "way/mine").read_text() == "mine"
    assert (machine.disk / "real/a").read_text() == "old"


@pytest.mark.parametrize(
    "to",
    [
        "/etc/iotstack-test",
        "/home/iotstack-test",
        "/opt/iotstack-test/.ssh",
        "/var/spool/iotstack-test",
        "DISK/way",
    ],
)
def test_a_manifest_leads_to_no_place_of_the_system(machine, to):
    """It is told, with where it is; a row of hosts.toml here lets it be put back."""
    to = to.replace("DISK", str(machine.disk))
    path = machine.put("films/a", "old")
    machine.row(path.parent, restore_to=to)
    machine.backup()
    machine.stack.settings.write_text(machine.stack.settings.read_text().partition("[[")[0])
    (machine.disk / "way").symlink_to("/etc/iotstack-test")
    try:
        said = machine.restore(code=3)
        assert f"{path.parent} is not restored: it belongs to the system" in said
        assert not os.path.exists(to)
    finally:
        shutil.rmtree(os.path.realpath(to), ignore_errors=True)


def test_what_a_container_mounts_here_is_put_back(machine):
    """Also what is hidden: it is known by this machine's own container."""
    path = machine.put(".node-red/a", "old")
    machine.row(path.parent)
    machine.docker.knows({"one": [(str(path.parent), "/data")]})
    machine.backup()
    machine.stack.settings.write_text(machine.stack.settings.read_text().partition("[[")[0])
    path.write_text("new")
    machine.restore()
    assert path.read_text() == "old"


def test_all_tell_the_same_of_what_is_not_covered(machine):
    """Services, doctor, backup and manifest, by the container that mounts it."""
    path = machine.put("films/a", "old").parent
    (machine.folder / "backups/mine").mkdir(parents=True)
    machine.docker.knows({"one": [(str(path), "/films"), ("./backups/mine", "/data")]})
    names = (f"NOT COVERED: {path}, which container one mounts", "backups/mine")
    said, manifest = machine.backup(code=3)
    told = machine.do("services --json", code=3)
    (row,) = [each for each in json.loads(told) if each["container"] == "one"]
    assert (row["covered"], row["saved"].startswith("NOT COVERED: ")) == (False, True)
    assert all(each in row["saved"] for each in (str(path), names[1]))
    doctor = machine.stack.run("doctor")
    for each in names:
        assert each in said
        assert each in " ".join(manifest["warnings"])
        assert each in doctor.stdout
    assert "outside" not in manifest["parts"]
    with machine.stack.settings.open("a") as stream:
        for each in (path, "backups/mine"):
            stream.write(f"[[stack.exclude]]\npath = '{each}'\nreason = 'known'\n")
    for each in (machine.folder / "backups").glob(f"{TAG}.*"):
        each.unlink()
    said, manifest = machine.backup()
    assert (said, manifest["warnings"]) == ("", [])
    assert {each["what"] for each in manifest["left_out"] if each["reason"] == "known"} == {
        str(path),
        "backups/mine",
    }
    assert "NOT COVERED" not in machine.do("services")
    assert "NOT COVERED" not in machine.stack.run("doctor").stdout


def test_its_files_are_shown(machine):
    """By their names from /, as its members are."""
    path = machine.put("films/a", "old")
    machine.row(path.parent)
    machine.backup()
    assert f"{path}" in machine.do(f"show {TAG} --files outside")


def test_another_machine_over_ssh(tmp_path, start_sshd, mount_disk):
    """Its volume and its path are put back there; none of this machine is touched."""
    pi = Machine(Pi(tmp_path / "pi", start_sshd, "pi"))
    mount_disk(pi.disk)
    pi.docker.volume("data", "old")
    path = pi.put("films/a", "old")
    pi.row(path.parent)
    pi.docker.knows({"one": [("data", "/data"), (str(path.parent), "/films")]})
    pi.backup()
    laptop = Laptop(tmp_path / "laptop", pi.stack)
    for name in os.listdir(pi.folder / "backups"):
        if name.startswith(TAG):
            shutil.copy(pi.folder / "backups" / name, laptop.vaults[0])
    places = (pi.docker.files("data") / "file", path)
    for each in places:
        each.write_text("new")
    told = laptop.run(f"restore --host pi --runtag {TAG} --from shelf --yes")
    assert told.returncode == 0, told.stdout + told.stderr
    assert [each.read_text() for each in places] == ["old", "old"]
    told = laptop.run("undo --host pi --last-restore --yes")
    assert told.returncode == 0, told.stdout + told.stderr
    assert [each.read_text() for each in places] == ["new", "new"]
    left = [each.name for each in pi.disk.glob(".previous-*")]
    assert [each.endswith("-undone") for each in left] == [True], left


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/var/lib/docker/volumes/x_y/_data", ("x_y", "")),
        ("/mnt/d/volumes/x_y/_data/pg/16", ("x_y", "/pg/16")),
        ("/var/lib/docker/volumes/x/data", None),
        ("/volumes/../_data", None),
        ("volumes/nodered", None),
    ],
)
def test_the_volume_in_a_path(path, found):
    """Only the files of a volume are those of one."""
    assert volume_in(path) == found


def test_a_volume_without_a_name():
    """It is known by its hash."""
    assert is_unnamed(f"/d/volumes/{'0a' * 32}/_data")
    assert not is_unnamed(f"/d/volumes/{'0a' * 31}/_data")


@pytest.mark.parametrize(
    ("folder", "name"),
    [("/home/pi/IOTstack", "iotstack"), ("/x/My Stack_2", "mystack_2"), ("/x/_-a", "a")],
)
def test_the_project_of_a_folder(folder, name):
    """As compose calls it."""
    assert project_of(folder) == name


def test_a_volume_whose_device_is_not_mounted_is_neither_packed_nor_replaced(machine):
    """Docker mounts it only while a container uses it: what lies there now is not what it holds."""
    machine.docker.volume("data", "old")
    machine.docker.volume("more", "old")
    machine.docker.knows({"one": [("data", "/data"), ("more", "/more")]})
    machine.backup()
    machine.docker.on_device("data")
    for name in ("data", "more"):
        (machine.docker.files(name) / "file").write_text("new")
    said = machine.restore(code=3)
    told = "data is not restored: Docker mounts /dev/disk/by-label/none there only while a "
    assert f"{told}container uses it, so its files cannot be replaced. Stop" in said
    assert "and mount it elsewhere for the restore. It is in" in said
    assert (machine.docker.files("data") / "file").read_text() == "new"
    assert (machine.docker.files("more") / "file").read_text() == "old"
    told = machine.stack.run("backup --runtag t2")
    assert told.returncode == 3
    assert "NOT COVERED: volume:data, which container one mounts at /data" in told.stderr
    assert "Docker mounts its device only while a container uses it: start one" in told.stderr


def made_bare(machine, *, later):
    """Leave nothing of the containers and volumes; compose makes the containers of `later`."""
    shutil.rmtree(machine.docker.root, ignore_errors=True)
    machine.docker.knows({}, later=later)


def test_a_volume_that_somebody_made_meanwhile_outlives_an_undo(machine):
    """It is filled between our look and our step: the undo removes only what the restore made."""
    for each in ("data", "own"):
        machine.docker.volume(each, "old")
    mounts = {"one": [("data", "/data"), ("own", "/own")]}
    machine.docker.knows(mounts)
    machine.backup()
    made_bare(machine, later=mounts)
    place = machine.docker.files("data")
    script = f"mkdir -p {place} && echo theirs > {place}/file && : > {place.parent}/labels"
    with machine.stack.settings.open("a") as stream:
        stream.write(f'[hooks]\nbefore_restore = [["sh", "-c", "{script}"]]\n')
    machine.restore()
    assert (place / "file").read_text() == "old"
    said = machine.do("undo --last-restore --yes", code=3)
    assert "Volume data was not removed: another program created it meanwhile." in " ".join(
        said.split()
    )
    assert (place / "file").read_text() == "theirs\n"
    assert not machine.docker.files("own").exists()


def test_what_a_bare_machine_would_get_is_new_there(machine):
    """It has no folder of the stack either; what is free is asked of the disk around that."""
    path = machine.put("films/a", "old").parent
    here = machine.put("there/a", "old").parent
    for each in (path, here):
        machine.row(each)
    mounts = {"one": [(str(path), "/films"), (str(here), "/there")]}
    machine.docker.knows(mounts)
    machine.backup()
    usb = machine.folder.parent / "usb"
    shutil.copytree(machine.folder / "backups", usb)
    for each in (machine.folder, path):
        shutil.rmtree(each)
    made_bare(machine, later=mounts)
    said = machine.do(f"restore --runtag {TAG} --from {usb} --dry-run")
    lines = {line.partition(":")[0].strip(): line for line in said.splitlines()}
    assert lines["replaces"].endswith(f": {here}"), said
    assert str(path) in lines["new here"]
    assert "; 0 bytes are free" not in said
    assert not machine.folder.exists()


def test_what_containers_mount_from_another_home_is_told(machine):
    """Compose fills in the home of whoever brings the stack up: it made an empty folder there."""
    machine.docker.volume("data", "old")
    homes = [machine.disk / name for name in ("pi", "anna")]
    share = machine.put("pi/ha-share/a", "old").parent
    machine.row(share)
    mounts = [(str(share), "/share"), (str(share / "deeper"), "/deeper"), ("data", "/data")]
    machine.docker.knows({"one": mounts, "two": [(str(share), "/x")]})
    machine.backup()
    shutil.rmtree(homes[0])
    new = homes[1] / "ha-share"
    mounts = [(str(new), "/share"), (str(share / "deeper"), "/deeper"), ("data", "/data")]
    made_bare(machine, later={"one": mounts, "two": [(str(share), "/x")]})
    said = machine.restore(code=3)
    assert (share / "a").read_text() == "old"
    (told,) = [line for line in said.splitlines() if "does not see" in line]
    assert f"Container one does not see {share}: that was restored to {share}, but" in told
    assert f"the container mounts {new} at /share." in told
    assert f"sudo cp -aT {share} {new}. " in told


def test_containers_that_mount_the_old_folder_of_the_stack_are_told(machine):
    """A compose file that names it by its whole path leads there still, wherever the stack is."""
    machine.docker.knows({"one": [("./volumes/nodered", "/data")]})
    machine.backup()
    old = machine.folder.with_name("old")
    shutil.copytree(machine.folder, old)
    text = machine.stack.settings.read_text()
    machine.stack.settings.write_text(text.replace(str(machine.folder), str(old)))
    machine.stack.folder = old
    made_bare(machine, later={"one": [(str(machine.folder / "volumes/nodered"), "/data")]})
    said = machine.restore(code=3)
    mounted = (
        f"Container one mounts {machine.folder}/volumes/nodered at /data, in the stack's folder"
    )
    assert f"{mounted} at the time of the backup, not in {old}" in said


def test_a_volume_of_options_that_compose_does_not_make_has_them_again(machine):
    """A folder of the stack, in whatever folder that is now; other volumes stay as they are."""
    bind = {"type": "none", "o": "bind"}
    for name in ("own", "there"):
        machine.docker.volume(name, "")
    machine.docker.on_device("own", device=f"{machine.folder}/own", **bind)
    machine.docker.on_device("there", device="nas:/x", type="nfs", o="addr=nas,ro")
    (machine.folder / "own").mkdir()
    (machine.folder / "own/file").write_text("old")
    mounts = {"one": [("own", "/own"), ("there", "/there")]}
    machine.docker.knows(mounts)
    machine.backup(3)
    text = (machine.folder / f"backups/{TAG}.RESTORE.txt").read_text()
    assert "own: docker volume create --opt type=none" in text
    made_bare(machine, later=mounts)
    machine.docker.volume("there", "")
    shutil.rmtree(machine.folder / "own")
    said = machine.restore()
    assert f"volume:own (type=none, device={machine.folder}/own, o=bind)" in said
    assert machine.docker.options("own") == {"device": f"{machine.folder}/own", **bind}
    assert machine.docker.options("there") == {}
    assert (machine.folder / "own/file").read_text() == "old"


def test_a_password_of_a_volume_is_told_nowhere(machine):
    """What the backup does not hold is named: a person makes that volume."""
    machine.docker.volume("films", "")
    options = "username=anna,password=s3cret!,addr=nas,ro"
    machine.docker.on_device("films", type="cifs", device="//nas/films", o=options)
    mounts = {"one": [("films", "/films")]}
    machine.docker.knows(mounts)
    _, manifest = machine.backup(3)
    (told,) = manifest["volumes"]
    assert told["options"] == {"type": "cifs", "device": "//nas/films", "o": "addr=nas,ro"}
    assert told["left_out"] == ["password", "username"]
    for path in (machine.folder / "backups").iterdir():
        content = path.read_bytes() if path.is_file() else b""
        assert b"s3cret" not in content, path
        assert b"anna" not in content, path
    made_bare(machine, later=mounts)
    said = machine.restore(code=3)
    assert (
        "volume:films of device //nas/films, type cifs, o addr=nas,ro is not created: the backup "
        "has no values for its options password, username" in said
    )
    assert not machine.docker.files("films").exists()


@pytest.mark.parametrize("version", [1, 2])
def test_a_volume_that_is_plain_now_is_named(machine, version):
    """Compose 1 takes no plain one in the place of its own: that one is left to it, and named."""
    machine.docker.volume("iotstack_data", "old", key="data")
    machine.docker.on_device("iotstack_data", o="noatime")
    mounts = {"one": [("iotstack_data", "/data")]}
    machine.docker.knows(mounts)
    machine.backup()
    made_bare(machine, later=mounts)
    if version == 1:
        answer = '[ "$1" = version ] || exec "$(dirname "$0")/docker" compose "$@"'
        machine.stack.tool("docker-compose", answer)
        machine.docker.without_compose_2()
    said = machine.restore(code=3)
    assert machine.docker.options("iotstack_data") == {}
    if version == 1:
        told = "volume:iotstack_data is not restored: docker-compose 1 makes it of o noatime"
        assert not machine.docker.files("iotstack_data").exists()
    else:
        told = "volume:iotstack_data was a volume of o noatime but is a plain one here"
        assert (machine.docker.files("iotstack_data") / "file").read_text() == "old"
    assert said.count(told) == 2, said
