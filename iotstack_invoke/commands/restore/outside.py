"""What of a backup's outside part is put in place on a target: volumes, and absolute paths."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from ...backups.manifest import VOLUME, Manifest, outside_title
from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...environment.stack_host import StackHost
from ...hosts.base import Command
from ...hosts.inspect import may_be_there, mount_of
from ...settings.model import Settings
from ...stack.compose import (
    PROJECT_LABEL,
    VOLUME_LABEL,
    InspectedContainer,
    Volume,
    inspect_volumes,
)
from ...stack.inside import is_in
from ...stack.left_out import patterns_below
from ...stack.path_owners import is_of_others, project_of, volume_in
from ...stack.volume_options import options_text
from ...workflows.restore import EmptyVolume, Filling, OutsideItem, Swapped

MOUNTED_BY_DOCKER = (
    "Docker mounts {} there only while a container uses it, so its files cannot be replaced. "
    "Stop its containers, and mount it elsewhere for the restore"
)


def names_outside(manifest: Manifest | None) -> set[str]:
    """Return all names by which --only may select something of the outside part."""
    return set[str]().union(*map(_names_of, manifest.outside if manifest else ()))


@dataclass(frozen=True)
class OutsidePart:
    """Selects what is put in place outside of the stack's folder; without --only all of it."""

    target: StackHost
    settings: Settings
    manifest: Manifest | None
    found: tuple[InspectedContainer, ...]
    mounts: frozenset[str]
    """The mount points of the target."""
    away: frozenset[str]
    """Those that are not mounted now."""
    names: tuple[str, ...] = ()
    """The only services to restore; empty for all."""
    bare: bool = False
    """The target has no container of the stack yet."""
    is_strict: bool = False
    """Its compose rejects a volume whose options differ from those in the compose file."""

    @cached_property
    def _known(self) -> dict[str, str]:
        """Where links lead to, by the path that was queried."""
        return {}

    @cached_property
    def _in_the_way(self) -> dict[str, str]:
        """Why mounts prevent replacing paths of the target, by path."""
        return {}

    @cached_property
    def _told(self) -> tuple[Mapping[str, Any], ...]:
        told = self.manifest.outside if self.manifest else ()
        return tuple(each for each in told if not self.names or {*self.names} & _names_of(each))

    @property
    def held(self) -> set[str]:
        """All names by which --only may select something of the part."""
        return names_outside(self.manifest)

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """The names of the volumes on the target, by their names at the source."""
        named = {
            str(each["volume"]): self._name_here(each) for each in self._told if each.get("volume")
        }
        unnamed = [each for each in self._told if each.get("anonymous")]
        here = {str(each["anonymous"]): self._volume_here(each) for each in unnamed}
        return named | {key: name for key, name in here.items() if name}

    @cached_property
    def _there(self) -> Mapping[str, Volume]:
        """The volumes that the target has, by their names there."""
        return inspect_volumes(self.target.host, self._names.values(), self.target.docker)

    @cached_property
    def _volumes(self) -> Mapping[str, Volume]:
        """The volumes that the target has, or will have, by their names at the source."""
        root = docker_root(self.target) if {*self._names.values()} - {*self._there} else ""
        return {
            source: self._there.get(name) or Volume(name, f"{root}/volumes/{name}/_data")
            for source, name in self._names.items()
        }

    def _name_here(self, told: Mapping[str, Any]) -> str:
        """Return the name of a volume on the target.

        The name of the volume that the same container mounts there; else by the name of the
        project, which compose derives from the folder's.
        """
        mounts = {(each[0], each[1]) for each in told.get("mounts", ()) if len(each) > 1}
        for each in self.found:
            for mount in each.mounts:
                if mount.volume and (each.container.name, mount.inside) in mounts:
                    return mount.volume
        name, key = str(told["volume"]), str(told.get("key", ""))
        folder = self.manifest.folder if self.manifest else ""
        if key and folder and name == f"{project_of(folder)}_{key}":
            return f"{project_of(self.target.folder)}_{key}"
        return name

    def _volume_here(self, told: Mapping[str, Any]) -> str:
        """Return the volume that is mounted here in place of an anonymous one; '' for none."""
        pairs = {told["anonymous"].partition(":")[::2]}
        pairs |= {(each[0], each[1]) for each in told.get("mounts", ()) if len(each) > 1}
        mounts = ((each.container.name, mount) for each in self.found for mount in each.mounts)
        return next((m.volume for name, m in mounts if (name, m.inside) in pairs and m.volume), "")

    def fillings(self, stage: str) -> tuple[Filling, ...]:
        """Return the anonymous volumes that are filled once containers create them."""
        return tuple(
            Filling(
                f"{VOLUME}{each['anonymous']}",
                f"{stage}/outside{each['path']}",
                *each["anonymous"].partition(":")[::2],
            )
            for each in self._told
            if self.bare and each.get("anonymous")
        )

    @property
    def titles(self) -> frozenset[str]:
        """The volumes in the part, by their names on the target."""
        return frozenset(f"{VOLUME}{name}" for name in self._names.values())

    @property
    def holds_any(self) -> bool:
        """Whether the part holds anything that was requested."""
        return bool(self._told)

    def items(self, previous: str, stage: str) -> Iterator[OutsideItem]:
        """Yield what is put in place; `previous`: where replaced data of the stack go.

        Paths below another that are restored elsewhere come first, and are taken out of it.
        """
        sizes = self.manifest.outside_sizes if self.manifest else {}
        for each in sorted(self._told, key=lambda each: str(each["path"]), reverse=True):
            path, staged = each["path"], f"{stage}/outside{each['path']}"
            volume = self._volumes.get(each.get("volume") or each.get("anonymous", ""))
            if volume and not self._why_not(each):
                new = volume.name not in self._there
                labels = _labels(each.get("key", ""), self.target) if new else ()
                live = self._real(volume.mountpoint)
                title = f"{VOLUME}{each.get('anonymous') or volume.name}"
                item = OutsideItem(title, staged, live, "", "")
                item = replace(item, volume=volume.name if new else "", labels=labels)
            elif volume or each.get("anonymous") or self._why_not(each):
                continue
            else:
                live = self._real(each.get("restore_to") or path)
                links = tuple(self._links_to(live, each))
                item = OutsideItem(live, staged, live, "", "", links=links)
            size, _ = sizes.get(outside_title(each), (0, 0))
            is_mount = item.live in self.mounts
            mounts = tuple((e[0], e[1]) for e in each.get("mounts", ()) if len(e) > 1)
            stays = self._stays(path)
            item = replace(item, stays=stays, mounts=mounts, size_bytes=size, is_mount=is_mount)
            yield placed(self.target, item, previous)

    def _stays(self, path: str) -> tuple[tuple[str, str], ...]:
        """Return what a backup left out of a path of its source, also as a relative pattern."""
        told = self.manifest.stays if self.manifest else ()
        return tuple(
            (pattern, below)
            for pattern in told
            if pattern.startswith("/")
            for below in patterns_below((pattern[1:],), path[1:])
        )

    def _links_to(self, live: str, told: Mapping[str, Any]) -> Iterator[str]:
        """Yield free paths that links of the stack lead to, on the way to what is restored."""
        for way in told.get("ways", ()):
            real = self._real(way)
            is_free = not may_be_there(self.target.host, real)
            if real != live and is_free and not self._why_not({"path": way}):
                yield real

    def _real(self, path: str) -> str:
        """Return where links lead to from a path of the target."""
        if path not in self._known:
            words = (*self.target.as_root, "realpath", "-m", "-z", "--", path)
            self._known[path] = self.target.host.run(Command(words)).out.rstrip("\0")
        return self._known[path]

    def _why_not(self, told: Mapping[str, Any]) -> str:
        """Return why a path is not put in place; '' if it is."""
        path = told.get("restore_to") or told["path"]
        if told.get("volume"):
            here = self._there.get(self._names[told["volume"]])
            if here:
                if here.device or not here.is_local:
                    return MOUNTED_BY_DOCKER.format(here.device or "something")
                return self._why_no_swap(here.mountpoint)
            options = self._options.get(told["volume"])
            if options and told.get("key") and self.is_strict:
                return (
                    f"docker-compose 1 makes it of {options}, as in its compose file, and "
                    "refuses other options. Its files are not changed"
                )
            return ""
        if anonymous := told.get("anonymous"):
            container, _, inside = anonymous.partition(":")
            here = self._there.get(self._names.get(anonymous, ""))
            if here or self.bare:
                return self._why_no_swap(here.mountpoint) if here else ""
            return f"container {container} has no volume at {inside} here"
        if is_in(self.target.folder, path) or is_in(path, self.target.folder):
            return "the folder of the stack is there"
        if why := self._why_no_swap(path):
            return why
        rows = self.settings.stack.inclusions
        own = any(is_in(path, each.restore_to or each.path) for each in rows)
        if own or any(path == mount.source for each in self.found for mount in each.mounts):
            return ""
        real = self._real(path)
        if is_in(self.target.folder, real) or is_in(real, self.target.folder):
            return "the folder of the stack is there"
        if any(map(is_of_others, (path, real))):
            return (
                "it belongs to the system or to a user's programs, and no [[stack.include]] here "
                "lists it"
            )
        return ""

    @cached_property
    def _options(self) -> Mapping[str, str]:
        """The options of the volumes at the source that had any, in words."""
        volumes = self.manifest.volumes if self.manifest else ()
        return {each["name"]: options_text(each["options"]) for each in volumes}

    def _why_no_swap(self, path: str) -> str:
        """Return why a mount prevents replacing the data at a path; '' if none does.

        If a folder is a mount point, its entries are swapped; not if it has further mounts inside.
        """
        live = self._real(path)
        if live not in self._in_the_way:
            self._in_the_way[live] = self._mount_in_the_way(live)
        return self._in_the_way[live]

    def _mount_in_the_way(self, live: str) -> str:
        away = next((e for e in sorted(self.away) if is_in(e, live) or is_in(live, e)), "")
        if away:
            return (
                f"/etc/fstab has {away}, where nothing is mounted now. Mount it first, or remove "
                "that line"
            )
        inner = next((e for e in sorted(self.mounts) if e != live and is_in(e, live)), "")
        if inner:
            return f"another file system is mounted in it, at {inner}, which is not changed"
        is_folder = Command((*self.target.as_root, "test", "-d", live), frozenset({0, 1}))
        if live in self.mounts and self.target.host.run(is_folder).exit_code:
            return "it is a mount point, but not a folder"
        return ""

    @property
    def plain(self) -> tuple[str, ...]:
        """Messages on volumes that are created without their former options."""
        return tuple(
            f"{outside_title(each)} was a volume of {options} but is a plain one here: its files "
            f"are in {self._volumes[each['volume']].mountpoint}. To have them on such a device, "
            "copy them to it, remove the volume, and make it of the device."
            for each in self._told
            if each.get("volume") and not self._why_not(each)
            if self._names[each["volume"]] not in self._there
            if (options := self._options.get(each["volume"]))
        )

    @cached_property
    def _expected(self) -> tuple[Mapping[str, Any], ...]:
        """The volumes that compose does not create, with mounts that the part does not hold."""
        volumes = self.manifest.volumes if self.manifest else ()
        held = {each.get("volume") for each in self._told}
        wanted = [each for each in volumes if not each["key"] and each["name"] not in held]
        there = inspect_volumes(
            self.target.host, (each["name"] for each in wanted), self.target.docker
        )
        return tuple(each for each in wanted if each["name"] not in there)

    @property
    def empty_volumes(self) -> Iterator[EmptyVolume]:
        """Yield the volumes to create with their options, for a machine that has none."""
        for each in self._expected:
            if not each["left_out"]:
                options = dict(each["options"])
                if options.get("device", "").startswith("/"):
                    options["device"] = place_there(self.target, self.manifest, options["device"])
                yield EmptyVolume(each["name"], tuple(f"{k}={v}" for k, v in options.items()))

    @property
    def not_made(self) -> tuple[str, ...]:
        """Messages on volumes that are not created, because their options are unknown."""
        return tuple(
            f"{VOLUME}{each['name']} of {options_text(each['options'])} is not created: the "
            f"backup has no values for its options {', '.join(each['left_out'])}, which may be "
            "secret. If the containers need it, create it first: `docker volume create --opt …`."
            for each in self._expected
            if each["left_out"]
        )

    @property
    def left(self) -> tuple[str, ...]:
        """Messages on what is not put in place, with what to do."""
        runtag = self.manifest.runtag if self.manifest else ""
        return tuple(
            f"{outside_title(each)} is not restored: {why}. It is in "
            f"{runtag}.outside-backup.tar.gz as .{each['path']}; unpack it from there by hand."
            for each in self._told
            if (why := self._why_not(each))
        )

    def users(self, found: Iterable[InspectedContainer]) -> Iterator[InspectedContainer]:
        """Yield the containers that mount what is put in place."""
        lives = [self._real(e.get("restore_to") or e["path"]) for e in self._plain]
        for each in found:
            if any(
                mount.volume in self._names.values()
                or any(is_in(mount.on_host, live) for live in lives)
                for mount in each.mounts
            ):
                yield each

    @property
    def _plain(self) -> Iterator[Mapping[str, Any]]:
        plain = (e for e in self._told if not (e.get("volume") or e.get("anonymous")))
        return (e for e in plain if not self._why_not(e))


def unseen(items: Iterable[OutsideItem], found: Iterable[InspectedContainer]) -> Iterator[str]:
    """Yield messages on restored paths that their containers do not mount, with what to do.

    A compose file may use a variable, such as the home of the user who runs compose.
    """
    there = {(each.container.name, m.inside): m for each in found for m in each.mounts}
    for item in items:
        for container, inside in item.mounts:
            mount = there.get((container, inside))
            if mount is None or is_in(mount.on_host, item.live) or is_in(item.live, mount.on_host):
                continue
            words = shlex.join(("sudo", "cp", "-aT", item.live, mount.on_host))
            yield (
                f"Container {container} does not see {item.title}: that was restored to "
                f"{item.live}, but the container mounts {mount.source} at {inside}. Check what "
                f"is there, stop the container, and copy the files that it needs: {words}. To "
                "restore there in the future: restore_to in its [[stack.include]]."
            )


def of_old_folder(old: str, new: str, found: Iterable[InspectedContainer]) -> Iterator[str]:
    """Yield which containers mount something of the folder that the stack had at the source."""
    for each in found if old and old != new else ():
        for mount in each.mounts:
            if is_in(mount.source, old) and not any(
                is_in(path, new) for path in (mount.source, mount.on_host)
            ):
                yield (
                    f"Container {each.container.name} mounts {mount.source} at {mount.inside}, "
                    f"in the stack's folder at the time of the backup, not in {new}: it does not "
                    "see the restored files. Use a relative path (./…) in its compose file, and "
                    "bring the container up again."
                )


def placed(target: StackHost, item: OutsideItem, previous: str) -> OutsideItem:
    """Return an item with its aside folder: on its own file system, for a rename."""
    host, live = target.host, item.live
    if item.is_mount:
        return within_mount(item, previous)
    above, name = posixpath.split(live)
    if mount_of(host, above, target.as_root) == mount_of(host, target.folder):
        used = f"{previous}-undone/outside{live}"
        return replace(item, aside=f"{previous}/outside{live}", used=used)
    stamp = posixpath.basename(previous)
    return replace(
        item,
        aside=f"{above}/.{stamp}/{name}",
        used=f"{above}/.{stamp}-undone/{name}",
        fresh=f"{above}/.restore-{name}",
    )


def within_mount(item: Swapped, previous: str) -> Swapped:
    """Return an item that is a mount point, with the folder in it for its replaced entries."""
    kept = f"{item.live}/.{posixpath.basename(previous)}"
    return replace(item, aside=kept, used=f"{kept}-undone", fresh=f"{kept}-new")


def place_there(target: StackHost, manifest: Manifest | None, path: str) -> str:
    """Return where on a target the data at a manifest's path, relative to the stack, are.

    What was in the stack's folder is in the target's; what was in a named volume, in the one of
    that name in the target's compose project; anything else at its former path.
    """
    source = (manifest.folder if manifest else "") or target.folder
    path = posixpath.normpath(posixpath.join(source, path))
    if is_in(path, source):
        below = posixpath.relpath(path, source)
        return posixpath.normpath(posixpath.join(target.folder, below))
    if found := volume_in(path):
        prefix = f"{project_of(source)}_"
        name = found[0]
        if name.startswith(prefix):
            name = f"{project_of(target.folder)}_{name.removeprefix(prefix)}"
        volume = inspect_volumes(target.host, (name,), target.docker).get(name)
        files = volume.mountpoint if volume else f"{docker_root(target)}/volumes/{name}/_data"
        return f"{files}{found[1]}"
    for told in manifest.outside if manifest else ():
        if told.get("restore_to") and is_in(path, told["path"]):
            return f"{told['restore_to']}{path.removeprefix(told['path'])}"
    return path


def docker_root(target: StackHost) -> str:
    """Return Docker's data folder; raises StepFailed."""
    words = (*target.docker, "info", "--format", "{{.DockerRootDir}}")
    told = target.host.run(Command(words, timeout_s=60)).out.strip()
    if not told.startswith("/"):
        raise StepFailed(f"On {target.name} Docker does not report where it keeps volumes.")
    return told


def _names_of(told: Mapping[str, Any]) -> set[str]:
    """Return the names of something of the part: the containers that mount it, and its own."""
    own: tuple[str | None, ...] = (told.get("volume"), told.get("key"))
    if not (told.get("volume") or told.get("anonymous")):
        own = (posixpath.basename(told["path"]),)
    return {*filter(None, own), *(str(pair[0]) for pair in told.get("mounts", ()) if pair)}


def _labels(key: str, target: StackHost) -> tuple[str, ...]:
    if not key:
        return ()
    return (f"{PROJECT_LABEL}={project_of(target.folder)}", f"{VOLUME_LABEL}={key}")
