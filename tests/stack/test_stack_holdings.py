"""What containers keep outside of services/ and volumes/: packed, left out, or named."""

import os
import shutil
import subprocess
import tomllib
from dataclasses import replace

import pytest
from contexts import not_root

from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.services.containers import Container
from iotstack_invoke.settings.model import Exclusion, Inclusion, StackConfig, read_settings
from iotstack_invoke.stack.compose import InspectedContainer, Mount, Volume
from iotstack_invoke.stack.stack_holdings import (
    Databases,
    Outside,
    gather_holdings,
    outermost,
    outside_exclusions,
    unused_told,
)


class Machine:
    """A stack's folder with a place beside it, and containers that mount of both."""

    def __init__(self, base):
        self.base = base
        self.folder = base / "IOTstack"
        for each in ("services", "volumes", "own", "backups", "restore"):
            (self.folder / each).mkdir(parents=True)
        self.rows = {"exclusions": (), "inclusions": ()}

    def file(self, path, text="x"):
        found = self.folder / path
        found.parent.mkdir(parents=True, exist_ok=True)
        found.write_text(text)
        return str(found)

    def exclude(self, path):
        self.rows["exclusions"] += (Exclusion(path, "meant"),)

    def include(self, path, to=""):
        self.rows["inclusions"] += (Inclusion(path, to),)

    def look(self, *mounts, volumes=(), **more):
        """Return what is found; a mount is (path or VOLUME, inside), of container `c`."""
        return self.of({"c": mounts}, volumes=volumes, **more)

    def of(self, containers, *, volumes=(), **more):
        known = {each.name: each for each in volumes}
        found = [
            InspectedContainer(
                Container(name, name, "", "", running=True), tuple(map(self._mount, of)), 0, "", ""
            )
            for name, of in containers.items()
        ]
        stack = StackConfig(str(self.folder), **self.rows)
        return gather_holdings(
            LocalHost(str(self.folder)), found, known, stack, str(self.folder), **more
        )

    def _mount(self, told):
        source, inside, *rest = told
        writable = not rest
        if not source.startswith((".", "/")):
            path = str(self.base / "docker" / source / "_data")
            return Mount(path, inside, "", source, writable)
        path = os.path.normpath(self.folder / source)
        real = os.path.realpath(path)
        return Mount(real, inside, path if path != real else "", writable=writable)

    def volume(self, name, *, key="", **more):
        path = self.base / "docker" / name / "_data"
        path.mkdir(parents=True)
        (path / "data").write_text("x")
        return Volume(name, str(path), key=key, **more)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def told(found):
    return [each.what for each in found.uncovered]


@pytest.mark.parametrize("how", [(), ("ro",)])
def test_a_folder_of_the_stack_is_packed(machine, how):
    """Whether it is written by the container or only read."""
    machine.file("homeassistant/configuration.yaml")
    found = machine.look(("./homeassistant", "/config", *how))
    assert (found.included, found.outside, told(found)) == (("homeassistant",), (), [])
    assert found.by_container == {"c": ("homeassistant",)}


@pytest.mark.parametrize("name", ["a b", "a\nb", "K\udcfcche", "x-", "*"])
def test_odd_names_are_packed(machine, name):
    """Spaces, line breaks, bytes that are no UTF-8, what looks like a pattern."""
    (machine.folder / name).mkdir()
    assert machine.look((f"./{name}", "/data")).included == (name,)


def test_a_single_file_is_packed(machine):
    """As a member of its own."""
    machine.file("own/settings.json")
    assert machine.look(("./own/settings.json", "/s.json")).included == ("own/settings.json",)


def test_what_is_not_there_is_told(machine):
    """Docker would make an empty folder of it."""
    found = machine.look(("./away", "/data"))
    assert (found.included, told(found)) == ((), [])
    assert found.warnings[0].startswith("away, which container c mounts, does not exist")


@pytest.mark.parametrize(
    "path",
    [
        *("backups/mine", "restore/x", "backups/influxdb2/x", "volumes/.restore-app"),
        *("volumes/.restore-app/data", "volumes/.previous-t-20261130T182017Z"),
    ],
)
def test_what_runs_write_is_not_packed(machine, path):
    """A backup would hold the ones before it."""
    machine.file(f"{path}/data")
    assert told(machine.look((f"./{path}", "/data"))) == [path]


@pytest.mark.parametrize("folder", ["backups", "restore"])
def test_who_only_looks_at_backups_is_silent(machine, folder):
    """A file manager shows them; who may write has something of his own there."""
    machine.file(f"{folder}/data")
    assert told(machine.look((f"./{folder}", "/srv", "ro"))) == []
    assert told(machine.look((f"./{folder}", "/srv"))) == [folder]


def test_the_whole_stack_is_named_if_it_may_be_written(machine):
    """A file manager that only reads is silent; one with an exclusion as well."""
    assert machine.look((".", "/stack", "ro")).uncovered == ()
    (found,) = machine.look((".", "/stack")).uncovered
    assert (found.container, found.what) == ("c", "the folder of the stack itself")
    machine.exclude(".")
    assert machine.look((".", "/stack")).uncovered == ()


def test_a_folder_around_the_stack_is_named(machine):
    """All of it would hold the backups as well."""
    (found,) = machine.look(("..", "/home")).uncovered
    assert "it contains the stack" in found.warning
    assert f'[[stack.include]], path = "{machine.base}"' not in found.warning
    machine.exclude(str(machine.base))
    assert machine.look(("..", "/home")).uncovered == ()


@pytest.mark.parametrize("row", [0, 1])
def test_the_lines_that_a_warning_tells_do_what_they_say(machine, row):
    """Each as it stands there, on a line of its own, makes a row that settles it."""
    (machine.base / "opt").mkdir()
    (found,) = machine.look((str(machine.base / "opt"), "/data")).uncovered
    advice = found.warning.partition(" each on a line of its own: ")[2].removesuffix(".")
    lines = advice.split("; or ")[row].split(", ")
    stack = read_settings(tomllib.loads("\n".join(lines)), "hosts.toml").stack
    machine.rows = {"exclusions": stack.exclusions, "inclusions": stack.inclusions}
    settled = machine.look((str(machine.base / "opt"), "/data"))
    assert (settled.uncovered, len(settled.outside)) == ((), 1 - row)


def test_no_row_takes_in_a_folder_around_the_stack(machine):
    """The archive would hold itself."""
    machine.include(str(machine.base))
    found = machine.look()
    assert found.outside == ()
    assert "it contains backups and restores" in "".join(found.warnings)
    machine.rows["inclusions"] = ()
    machine.include(str(machine.folder / "backups"))
    assert "it contains backups and restores" in "".join(machine.look().warnings)


def test_a_row_with_the_absolute_path_of_something_of_the_stack(machine):
    """It is packed where it belongs."""
    machine.file("extra/a")
    machine.include(str(machine.folder / "extra"))
    found = machine.look()
    assert (found.included, found.outside) == (("extra",), ())


def test_a_name_that_begins_like_an_option_is_named(machine):
    """No manifest may say it, so a backup that packs it would never be complete."""
    machine.file("-data/x")
    found = machine.look(("./-data", "/data"))
    assert "NOT COVERED: -data is in no part" in found.uncovered[0].warning
    assert found.included == ()


@pytest.mark.parametrize(
    ("options", "is_one"),
    [
        ({"type": "bind", "o": "bind"}, True),
        ({"type": "none", "o": "rbind,ro"}, True),
        ({"o": "bind"}, True),
        ({"type": "nfs", "o": "addr=10.0.0.2,rw"}, False),
        ({"type": "ext4", "o": "noatime"}, False),
    ],
)
def test_a_volume_that_is_bound_to_a_folder(options, is_one):
    """The kernel asks for no type where a folder is bound."""
    device = "/srv/x"
    volume = Volume("v", "/v", device=device, filesystem=options.get("type", ""))
    assert replace(volume, options=tuple(options.items())).is_folder is is_one


@pytest.mark.parametrize(
    ("path", "silent"),
    [
        (("/etc/localtime", "/etc/localtime"), True),
        (("/var/run/docker.sock", "/s"), True),
        (("/dev/ttyUSB0", "/dev/x"), True),
        (("/proc", "/host/proc"), True),
        (("/", "/rootfs", "ro"), True),
        (("/var/log", "/var/log", "ro"), True),
        (("/var/log", "/var/log"), False),
        (("/etc", "/host/etc"), False),
        (("/", "/rootfs"), False),
        (("/opt", "/opt", "ro"), False),
        (("/usr/bin/docker", "/usr/bin/docker"), True),
        (("/usr/share/zoneinfo", "/z"), True),
        (("/usr", "/host/usr", "ro"), True),
        (("/etc/ssl/certs", "/etc/ssl/certs"), True),
        (("/usr/share/hassio/homeassistant", "/config"), False),
        (("/usr/local/docker/nodered", "/data"), False),
        (("/usr/docker/nodered", "/data"), False),
        (("/etc/ssl/private/own.key", "/key", "ro"), False),
        (("/boot/config", "/c", "ro"), True),
        (("/boot/config", "/c"), False),
        (("/boot", "/boot"), True),
        (("/lib/modules", "/lib/modules"), True),
        (("/usr/lib/arm-linux-gnueabihf/libx.so", "/x.so"), True),
        (("/lib/own", "/data"), False),
        (("/usr/share/own", "/data"), False),
        (("/etc/ssl/certs/own", "/data"), False),
        (("/var/lib/docker/volumes", "/var/lib/docker/volumes"), True),
        (("/var/lib/docker/volumes/data/_data", "/data", "ro"), True),
        (("/var/lib/docker/volumes/data/_data", "/data"), False),
        (("/run/own", "/data"), True),
    ],
)
def test_what_the_system_has(machine, path, silent):
    """Known and silent, what monitors read as well; whatever is written is named."""
    assert (told(machine.look(path)) == []) is silent


@pytest.mark.parametrize("how", [(), ("ro",)])
def test_an_absolute_path_waits_for_a_word(machine, how):
    """Included it is in the outside part, excluded it is told as left out."""
    (machine.base / "films").mkdir()
    path = str(machine.base / "films")
    (found,) = machine.look((path, "/films", *how)).uncovered
    assert found.warning.startswith(f"NOT COVERED: {path}, which container c mounts at /films")
    machine.include(path, "/srv/films")
    found = machine.look((path, "/films", *how))
    assert found.uncovered == ()
    assert [(e.path, e.restore_to) for e in found.outside] == [(path, "/srv/films")]
    machine.rows["inclusions"] = ()
    machine.exclude(path)
    found = machine.look((path, "/films", *how))
    assert (found.uncovered, found.outside) == ((), ())
    assert [(e.what, e.reason) for e in found.left_out] == [(path, "meant")]


def test_the_containers_of_an_included_path_are_known(machine):
    """A restore of one of them alone asks for it by its name; also of what lies below."""
    (machine.base / "films/new").mkdir(parents=True)
    path = str(machine.base / "films")
    machine.include(path)
    found = machine.of({"a": [(path, "/films")], "b": [(f"{path}/new", "/new")]})
    (row,) = found.outside
    assert row.mounts == (("a", "/films"), ("b", "/new"))


def test_a_named_volume_is_packed(machine):
    """Once, with all containers that mount it, and what compose calls it."""
    volume = machine.volume("iotstack_data", key="data")
    found = machine.of(
        {"a": [("iotstack_data", "/data")], "b": [("iotstack_data", "/x", "ro")]}, volumes=[volume]
    )
    mounts = (("a", "/data"), ("b", "/x"))
    row = Outside(volume.mountpoint, "iotstack_data", "data", mounts)
    assert (found.outside, found.uncovered) == ((row,), ())
    assert found.by_container["b"] == ("volume:iotstack_data",)


def test_no_row_swallows_volumes(machine):
    """Wherever Docker keeps them: each is packed and put back by itself."""
    volume = machine.volume("data")
    for each in (machine.base / "docker", machine.base / "docker/data/_data"):
        machine.include(str(each))
    found = machine.look(("data", "/data"), volumes=[volume])
    assert [each.title for each in found.outside] == ["volume:data"]
    assert [each.split(",")[0] for each in found.warnings] == [
        f"NOT COVERED: {machine.base / 'docker'} is included by hosts.toml"
    ]


def test_volumes_that_are_elsewhere_are_named(machine):
    """What NFS or CIFS or a driver holds is on no disk of this machine."""
    volumes = [
        machine.volume("nfs", device=":/export", filesystem="nfs"),
        machine.volume("cifs", device="//nas/x", filesystem="cifs"),
        machine.volume("other", driver="rclone"),
    ]
    mounts = [(each.name, f"/{each.name}") for each in volumes]
    found = machine.look(*mounts, volumes=volumes)
    assert (told(found), found.outside) == (["volume:nfs", "volume:cifs", "volume:other"], ())
    machine.exclude("volume:*")
    assert told(machine.look(*mounts, volumes=volumes)) == []


def test_a_volume_in_memory_is_left_out(machine):
    """Nobody can save what each start empties."""
    volume = machine.volume("mem", device="tmpfs", filesystem="tmpfs")
    found = machine.look(("mem", "/mem"), volumes=[volume])
    assert (told(found), found.outside) == ([], ())
    (row,) = found.left_out
    assert (row.what, row.reason) == (
        "volume:mem",
        "it is in memory, and is empty after each start",
    )


def test_a_volume_without_a_name(machine):
    """Packed if it holds anything, by the name of its container and its place; a cache is known."""
    name = "f" * 64
    volume = machine.volume(name, anonymous=True)
    look = {"volumes": [volume]}
    found = machine.look((name, "/data"), **look)
    row = Outside(volume.mountpoint, mounts=(("c", "/data"),), anonymous="c:/data")
    assert (found.outside, row.title, told(found)) == ((row,), "volume:c:/data", [])
    found = machine.look((name, "/data"), caches=["c"], **look)
    assert (found.uncovered, found.left_out[0].what) == ((), "volume:c:/data")
    os.remove(f"{volume.mountpoint}/data")
    assert machine.look((name, "/data"), **look).outside == ()
    (machine.base / "docker" / name / "_data/new").write_text("x")
    machine.exclude("volume:c:/data")
    assert machine.look((name, "/data"), **look).outside == ()


def test_a_volume_without_a_name_that_cannot_be_read(machine):
    """It may hold anything: it is named."""
    volume = machine.volume("f" * 64, anonymous=True)
    shutil.rmtree(volume.mountpoint)
    found = machine.look((volume.name, "/data"), volumes=[volume])
    assert (told(found), found.outside) == (["volume:c:/data"], ())


def test_what_may_not_be_read_is_named(machine):
    """A volume, what hosts.toml includes, what links lead to, a place of the stack: none is packed."""
    as_root = not_root(machine.folder)
    volume = machine.volume("data")
    machine.file("closed/a")
    drive, alone, locked = (machine.base / each for each in ("drive", "alone", "locked"))
    for each in (drive, alone / "below", locked):
        each.mkdir(parents=True)
        (each / "a").write_text("x")
    (machine.folder / "one.json").write_text("x")
    closed = (machine.base / "docker", machine.folder / "closed", drive, alone, locked)
    for each in (*closed, machine.folder / "one.json"):
        each.chmod(0)
    link(machine, "volumes/films", drive)
    for each in (alone / "below", locked):
        machine.include(str(each))
    mounts = (("data", "/d"), ("./closed", "/c"), ("./one.json", "/o"), (str(locked), "/s"))
    try:
        found = machine.look(*mounts, volumes=[volume], as_root=as_root)
    finally:
        for each in closed:
            each.chmod(0o700)
    assert (found.included, found.outside) == ((), ())
    whats = ["volume:data", "closed", "one.json", "volumes/films", str(locked)]
    assert told(found) == whats
    reason = "the user who runs the backup may not read it; with sudo = true in hosts.toml"
    texts = [each.warning for each in found.uncovered]
    assert all(reason in each for each in (*texts, *found.warnings))
    assert [each.split(",")[0] for each in found.warnings] == [f"NOT COVERED: {alone}/below"]


def test_a_volume_whose_folder_is_gone_is_named(machine):
    """Somebody removed it by hand: tar would fail at it, and with it all volumes."""
    volume = machine.volume("data")
    shutil.rmtree(volume.mountpoint)
    (found,) = machine.look(("data", "/data"), volumes=[volume]).uncovered
    assert f"its folder {volume.mountpoint} does not exist" in found.warning


def test_a_volume_that_stands_for_a_folder(machine):
    """Of the stack: it is packed with it; elsewhere it is named as that path."""
    (machine.base / "films").mkdir()
    inside = machine.volume("in", device=str(machine.folder / "own"), filesystem="none")
    outside = machine.volume("out", device=str(machine.base / "films"))
    found = machine.look(("in", "/in"), ("out", "/out"), volumes=[inside, outside])
    assert (found.included, found.outside) == (("own",), ())
    assert told(found) == [str(machine.base / "films")]


def test_live_files_of_a_database_are_in_no_archive(machine):
    """Its dump has the data; what lies beside them is told."""
    volume = machine.volume("db")
    look = {"volumes": [volume]}
    data = Databases({volume.mountpoint: "mariadb"})
    found = machine.look(("db", "/var/lib/mysql"), databases=data, **look)
    assert (found.outside, found.uncovered) == ((), ())
    assert "mariadb part" in found.left_out[0].reason
    path = str(machine.base / "pg")
    os.makedirs(f"{path}/data")
    found = machine.look((path, "/var/lib"), databases=Databases({f"{path}/data": "postgres"}))
    assert "other files beside the database" in found.uncovered[0].warning


def test_what_nobody_wants_of_a_container_is_left_out(machine):
    """Of kind "skip": with its reason, wherever it lies."""
    volume = machine.volume("v")
    machine.file("own/a")
    mounts = [("v", "/v"), ("./own", "/own"), ("/opt", "/opt")]
    found = machine.look(*mounts, volumes=[volume], skipped={"c": "fetched anew"})
    assert (found.included, found.outside, found.uncovered) == ((), (), ())
    assert {each.what for each in found.left_out} == {"volume:v", "own", "/opt"}


def link(machine, name, target):
    path = machine.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("place", ["volumes/films", "services/films", "own/films"])
def test_what_a_link_leads_to_is_packed(machine, place):
    """At the mount itself; the link stays one."""
    (machine.base / "films").mkdir()
    link(machine, place, machine.base / "films")
    found = machine.look((f"./{place}", "/films"))
    assert [(e.path, e.link) for e in found.outside] == [(str(machine.base / "films"), place)]
    assert found.included == ((place,) if place.startswith("own") else ())
    assert found.uncovered == ()


@pytest.mark.parametrize("mounts", [[], [("./volumes/films", "/films")]])
def test_what_a_link_leads_to_is_left_out_by_its_own_path_too(machine, mounts):
    """Not told as left out and packed all the same."""
    films = machine.base / "films"
    films.mkdir()
    link(machine, "volumes/films", films)
    machine.exclude(str(films))
    found = machine.look(*mounts)
    assert (found.outside, told(found)) == ((), [])
    assert [(e.what, e.reason) for e in found.left_out] == [(str(films), "meant")]


def test_a_link_above_a_mount(machine):
    """The link is packed, and of what it leads to only what is mounted."""
    (machine.base / "drive/a").mkdir(parents=True)
    link(machine, "drive", machine.base / "drive")
    found = machine.look(("./drive/a", "/a"))
    assert found.included == ("drive",)
    assert [e.path for e in found.outside] == [str(machine.base / "drive/a")]


def test_a_link_to_something_of_the_stack(machine):
    """Both are packed."""
    machine.file("own/real/a")
    link(machine, "short", machine.folder / "own/real")
    assert machine.look(("./short", "/a")).included == ("own/real", "short")


@pytest.mark.parametrize("target", ["..", "/proc", "/"])
def test_links_to_what_no_stack_is(machine, target):
    """A parent of the stack, the system: named, and not packed."""
    link(machine, "odd", target)
    found = machine.look(("./odd", "/odd"))
    assert (told(found), found.outside) == (["odd"], ())


def test_chains_and_circles_of_links(machine):
    """A chain is followed to its end; a circle, or a link to nothing, ends no look."""
    (machine.base / "films").mkdir()
    (machine.base / "second").symlink_to(machine.base / "films")
    link(machine, "volumes/first", machine.base / "second")
    link(machine, "volumes/round", machine.folder / "volumes/trip")
    link(machine, "volumes/trip", machine.folder / "volumes/round")
    link(machine, "services/away", "/nowhere/at/all")
    found = machine.look(("./volumes/first", "/f"), ("./volumes/round", "/r"))
    assert [e.path for e in found.outside] == [str(machine.base / "films")]
    assert "volumes/round" in "".join(found.warnings)


def test_linked_top_files(machine):
    """What they lead to is packed under their names; those that lead to nothing are named."""
    machine.file("../config/compose.yml")
    link(machine, "docker-compose.yml", "../config/compose.yml")
    link(machine, ".env", "/nowhere")
    link(machine, "other", "/nowhere")
    found = machine.look()
    assert (found.linked, found.broken, found.outside) == (("docker-compose.yml",), (".env",), ())


def test_a_link_into_a_volume_is_packed_once(machine):
    """What lies below another path of the part is in it already; who mounts it is kept."""
    volume = machine.volume("data")
    os.mkdir(f"{volume.mountpoint}/sub")
    link(machine, "volumes/sub", f"{volume.mountpoint}/sub")
    found = machine.of({"a": [("data", "/d")], "b": [("./volumes/sub", "/s")]}, volumes=[volume])
    (row,) = found.outside
    assert (row.path, row.mounts) == (volume.mountpoint, (("a", "/d"), ("b", "/s")))


def test_an_inclusion_that_is_a_link_or_not_there(machine):
    """Links are followed; what is not there is told."""
    (machine.base / "films").mkdir()
    (machine.base / "link").symlink_to("films")
    machine.include(str(machine.base / "link"))
    machine.include("/nowhere/x")
    machine.include("missing")
    found = machine.look()
    assert [e.path for e in found.outside] == [str(machine.base / "films")]
    assert [each.split(" ")[2] for each in found.warnings] == ["/nowhere/x", "missing"]


def test_outermost_paths():
    """None that lies below another, and no path twice."""
    assert outermost(["a/b", "a", "a", "ab", "/c/d", "/c"]) == ("/c", "a", "ab")


def test_what_is_left_out_of_the_outside_part():
    """By absolute path, by the volume's name, by the stack's path of a link."""
    rows = [
        Outside("/d/v/_data", "v"),
        Outside("/mnt/films", link="volumes/films"),
        Outside("/d/w/_data", "w"),
    ]
    said = ["volume:v/cache", "/mnt/films/*.tmp", "volumes/films/old", "volume:*/logs", "own/x"]
    told = outside_exclusions(rows, [Exclusion(each, "r") for each in said])
    assert [each.path for each in told] == [
        *("/d/v/_data/cache", "/mnt/films/*.tmp", "/mnt/films/old"),
        *("/d/v/_data/logs", "/d/w/_data/logs"),
    ]


def test_what_is_left_out_below_an_odd_volume():
    """What looks like a pattern in the path of a volume is none."""
    (told,) = outside_exclusions([Outside("/d/a[1]/_data", "v")], [Exclusion("volume:v/x*", "r")])
    assert told.path == "/d/a[[]1]/_data/x*"


def test_what_nothing_of_the_stack_uses_is_named(machine):
    """A folder of a service that is gone, loose files, hidden ones, a link, what lies beside a mount."""
    for each in ("notes.txt", "old/db/x", ".secrets/key", "ha/config/x", "ha/config.bak/x"):
        machine.file(each)
    for each in (".git/config", "menu.py", "compose-override.yml", "backups/x", "volumes/y/z"):
        machine.file(each)
    (machine.folder / "empty").mkdir()
    (machine.folder / "ssd").symlink_to(machine.base)
    found = machine.look(("./ha/config", "/config"))
    assert found.included == ("ha/config",)
    named = (".secrets", "ha/config.bak", "menu.py", "notes.txt", "old", "ssd")
    assert found.unused == named
    assert not found.warnings
    assert not found.uncovered


def test_what_has_the_name_of_a_stage_and_is_none_is_named(machine):
    """It is left out as what restores stage on media of their own; nothing else tells of it."""
    for each in (".restore-app/x", ".restore-t/stack/x", ".previous-data/x"):
        machine.file(f"volumes/{each}")
    machine.file("restore/t/x")
    assert machine.look().unused == ("volumes/.restore-app",)


def test_what_the_owner_speaks_of_is_not_named_as_unused(machine):
    """An included path is packed, an excluded one is left out, and neither is told of twice."""
    for each in ("notes.txt", "old/x", "tools/x"):
        machine.file(each)
    machine.include("notes.txt")
    machine.include("old")
    machine.exclude("tools/*")
    found = machine.look()
    assert (found.included, found.unused) == (("notes.txt", "old"), ())


def test_what_the_menu_makes_is_not_named(machine):
    """Nor single files of IOTstack; where there is no menu, all of it is anybody's."""
    for each in ("docs/x", "scripts/x", ".templates/x/x", "LICENSE", "duck/duck.sh"):
        machine.file(each)
    assert machine.look().unused == (".templates", "LICENSE", "docs", "duck", "scripts")
    for each in ("menu.sh", ".project_outofdate", ".docker_notinstalled", ".bash_aliases"):
        machine.file(each)
    assert machine.look().unused == (".templates", "docs", "duck", "scripts")


class Clone:
    """An IOTstack whose repository has a remote, as every owner's."""

    def __init__(self, machine):
        self.machine, self.folder = machine, machine.folder
        for each in ("menu.sh", "README.md", "docs/a", "docs/deep/b", "scripts/own", ".tmp/x"):
            machine.file(each, each)
        machine.file(".templates/nodered/service.yml")
        (self.folder / "scripts/link").symlink_to("../docs")
        machine.file(".gitignore", "*.secret\n/volumes\n/.tmp\n")
        self.git("init", "--quiet", "--initial-branch=master")
        self.commit()
        self.git("update-ref", "refs/remotes/origin/master", "HEAD")

    def git(self, *words):
        own = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(self.folder), *own, *words], check=True)

    def commit(self):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=x")


@pytest.fixture
def clone(machine):
    return Clone(machine)


def test_what_the_owner_has_in_a_clone_of_iotstack_is_named(clone):
    """Changed files, new ones (ignored ones too), new folders; nothing of what a remote has."""
    look, file = clone.machine.look, clone.machine.file
    file("scripts/__pycache__/x.pyc")
    assert look().unused == ()
    for each in ("menu.sh", "docs/deep/b", "scripts/mine.sh", ".templates/my own/a/x", "docs/ü"):
        file(each, "mine")
    file("scripts/keys.secret")
    (clone.folder / "scripts/link").unlink()
    (clone.folder / "scripts/link").symlink_to("../notes")
    (clone.folder / "docs/a").unlink()
    assert look().unused == (
        *(".templates/my own", "docs/deep/b", "docs/ü", "menu.sh"),
        *("scripts/keys.secret", "scripts/link", "scripts/mine.sh"),
    )


def test_commits_of_no_remote_are_named(clone):
    """What they hold is named by its files, and that there are any, of other branches too."""
    clone.machine.file("scripts/mine.sh")
    clone.commit()
    told = ".git (1 commit that no remote has)"
    assert clone.machine.look().unused == ("scripts/mine.sh", told)
    clone.git("checkout", "--quiet", "-b", "other", "HEAD~")
    clone.machine.file("docs/new")
    clone.commit()
    clone.git("checkout", "--quiet", "--detach", "HEAD~")
    assert clone.machine.look().unused == (".git (2 commits that no remote has)",)
    clone.machine.exclude(".git")
    assert clone.machine.look().unused == ()


def test_what_is_packed_of_a_clone_or_spoken_of_is_not_named(clone):
    """A template that a service builds from, rows of hosts.toml; what lies beside it is named."""
    for each in (".templates/mine/image/x", ".templates/mine/x", "scripts/mine.sh", "docs/new/x"):
        clone.machine.file(each)
    clone.machine.include("scripts")
    clone.machine.exclude("docs/*")
    found = clone.machine.look(("./.templates/mine/image", "/x"), reads=[".templates/nodered"])
    assert found.included == (".templates/mine/image", ".templates/nodered", "scripts")
    assert found.unused == (".templates/mine/x",)


@pytest.mark.parametrize("lacks", ["a clone", "its objects", "git"])
def test_where_git_does_not_tell_the_folders_are_named(clone, lacks, monkeypatch, tmp_path):
    """They may hold anything of the owner's."""
    if lacks == "a clone":
        shutil.rmtree(clone.folder / ".git")
    elif lacks == "its objects":
        shutil.rmtree(clone.folder / ".git/objects")
    else:
        tools = tmp_path / "tools"
        tools.mkdir()
        for each in ("sh", "find", "ls", "head", "realpath", "readlink", "stat", "timeout", "tr"):
            (tools / each).symlink_to(shutil.which(each))
        monkeypatch.setenv("PATH", str(tools))
    assert clone.machine.look().unused == (".templates", "docs", "scripts")


def test_no_program_of_the_clone_is_run(clone, tmp_path):
    """Not as a filter, a monitor of files, a pager or a hook: a backup may run as root."""
    seen = tmp_path / "ran"
    program = clone.machine.base / "program"
    program.write_text(f"#!/bin/sh\ntouch {seen}\ncat\n")
    program.chmod(0o755)
    for each in ("filter.x.clean", "filter.x.process", "core.fsmonitor", "core.pager"):
        clone.git("config", each, str(program))
    clone.git("config", "core.hooksPath", str(tmp_path))
    clone.machine.file(".gitattributes", "* filter=x\n")
    clone.machine.file("docs/a", "mine")
    assert clone.machine.look().unused == (".gitattributes", "docs/a")
    assert not seen.exists()


def test_few_names_are_told():
    """A folder full of files makes no long line."""
    (told,) = unused_told(tuple(f"file{number}" for number in range(1234)))
    assert told.startswith(
        "Not in the backup, because the stack does not use it: file0, file1, file2, "
        "file3, file4 and 1,229 more"
    )
    assert unused_told(()) == ()


def test_what_a_restore_laid_beside_is_known(machine):
    """The compose file and .env of a backup, by its runtag; a copy of the owner's is named."""
    for each in (".env.2026-11-23_1100", "docker-compose.yml.2026-11-23_1100-2", ".env.bak"):
        machine.file(each)
    for each in ("docker-compose.yml.big", ".env.before the move", "docker-compose.yml.own"):
        machine.file(each)
    machine.file("backups/big.manifest.json")
    machine.file("restore/previous-before the move-2026-11-23_1100/journal")
    assert machine.look().unused == (".env.bak", "docker-compose.yml.own")
