"""Where InfluxDB's data are on a target, and what prevents a swap by rename.

The checks of a target before a restore and a reload change it. Changes nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import posixpath
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ...core.errors import Refused
from ...core.stack_folders import RESTORE
from ...databases.influxdb.dump import (
    BACKUP_INSIDE,
    DATA_INSIDE,
    FOLDERS_INSIDE,
    influx_folders,
    mapped_apart,
)
from ...databases.influxdb.server import Server
from ...environment.stack_host import StackHost
from ...hosts.base import ANY_EXIT, Command
from ...hosts.inspect import IN_ENGLISH, entries, mount_of, mount_points, points_away
from ...stack.compose import InspectedContainer, named
from ...stack.inside import is_in
from ...stack.path_owners import is_unnamed
from ..shared.restore_id import STAMP_FORM, is_stamp
from .sql_imports import refuse_place

_STAMP = re.compile(r"^previous-.*-(\d{8}T\d{6}Z)(-undone)?$")
_LOG_STAMP = re.compile(r"(?:\.restore|^reload-influxdb)-(\d{8}T\d{6}Z)\b.*\.log(?:\.partial)?$")
INFLUX_FOLDER = "volumes/influxdb"
MOUNT_HIGHER = (
    "Mount that file system one folder higher, at {}, with the data in a folder of it, {}: that "
    "can be renamed."
)


def server_in(
    target: StackHost, found: tuple[InspectedContainer, ...], name: str, told: str = ""
) -> Server:
    """Return the InfluxDB of a stack, and where its data are, or will be once it is created.

    `told`: their path in a manifest. Links on the way are followed: the rename must move the data.
    Raises Refused if the container is to be created, and `told` is no folder for data.
    """
    container = named(found, name)
    mounts = {e.inside.rstrip("/"): e.on_host for e in container.mounts} if container else {}
    if container is None and told:
        refuse_place(target, name, told)
    if container and DATA_INSIDE not in mounts:
        raise Refused(
            f"On {target.name} container {name} has no folder mapped to {DATA_INSIDE}, so its "
            "data cannot be swapped. Nothing was changed. Map one."
        )
    data = mounts.get(DATA_INSIDE, told or f"{target.folder}/{INFLUX_FOLDER}/data")
    return Server(name, _real(target, data))


def _real(target: StackHost, path: str) -> str:
    words = (*target.as_root, "realpath", "-m", "--", path)
    return target.host.run(Command(words)).out.rstrip("\n")


def server_to_load(
    target: StackHost,
    found: tuple[InspectedContainer, ...],
    name: str,
    told: str,
    apart: Mapping[str, str],
    scratch: str,
) -> Server:
    """Return the same as `server_in`, with its folders that have mounts of their own.

    `apart`: the paths of such folders in a manifest. `scratch`: where the catalogue is made, if it
    is inside the container. Raises Refused if a folder cannot be swapped.
    """
    container = named(found, name)
    refuse_inner_mounts(target, found, name, apart=True)
    pieces = dict(mapped_apart(container)) if container else dict(apart)
    if not pieces:
        return server_in(target, found, name, told)
    if container is None:
        for path in pieces.values():
            refuse_place(target, name, path)
    real = tuple((each, _real(target, path)) for each, path in sorted(pieces.items()))
    mounted = (
        any(e.inside.rstrip("/") == DATA_INSIDE for e in container.mounts)
        if container
        else (bool(told) and not is_unnamed(told))
    )
    within = not mounted and not {"data", "wal"} - {*pieces}
    server = Server(name, scratch, real, within=True)
    if not within:
        server = replace(server_in(target, found, name, told), apart=real)
    for path in server.folders:
        if any(path != other and is_in(other, path) for other in server.folders):
            raise Refused(
                f"On {target.name} folders of InfluxDB in container {name} are mapped to {path} "
                "and to a folder inside it, so they cannot be swapped one by one. Nothing was "
                "changed. Map them to folders side by side."
            )
    return server


def refuse_away(target: StackHost, paths: Iterable[str]) -> None:
    """Raise Refused if the next mount would hide what is put in place."""
    renamed = list(paths)
    for away in sorted(points_away(target.host)):
        if any(is_in(away, path) for path in renamed):
            raise Refused(
                f"On {target.name} /etc/fstab has {away}, where nothing is mounted now: the next "
                "mount would hide what is restored there. The stack was not changed. Mount it "
                "first, or remove that line."
            )


def refuse_inner_mounts(
    target: StackHost, found: tuple[InspectedContainer, ...], name: str, *, apart: bool = False
) -> None:
    """Raise Refused if InfluxDB's data are mapped in pieces: they cannot be swapped whole.

    `apart`: catalogue, data and write-ahead log may be; each of them is swapped separately.
    """
    container = named(found, name)
    folders: tuple[str, ...] = FOLDERS_INSIDE
    if container and container.container.running:
        folders = influx_folders(target.host, name, target.docker)
    elsewhere = [each for each in folders if each not in FOLDERS_INSIDE]
    if elsewhere:
        raise Refused(
            f"On {target.name} InfluxDB in container {name} keeps its data in "
            f"{', '.join(elsewhere)}, apart from {DATA_INSIDE}, so they cannot be swapped as a "
            "whole. Nothing was changed. Use the usual folders in its settings, or restore the "
            "other services one by one: --only NAME."
        )
    inner = [
        each.inside
        for each in (container.mounts if container else ())
        if each.inside.startswith(f"{DATA_INSIDE}/")
        and each.inside.rstrip("/") not in (BACKUP_INSIDE, *(FOLDERS_INSIDE if apart else ()))
    ]
    if inner:
        raise Refused(
            f"On {target.name} container {name} maps {', '.join(inner)} apart from "
            f"{DATA_INSIDE}, so its data cannot be swapped as a whole. Nothing was changed. Map "
            f"{DATA_INSIDE} alone (and {BACKUP_INSIDE})."
        )


def time_stamp(target: StackHost, told: str = "", logs: str = "") -> str:
    """Return the time for the name of what is kept: later than all existing ones.

    Also later if the clock is behind: undo goes back in the order of these names. `told`: the one
    that the user was already shown, which is used unless something was kept meanwhile. `logs`: the
    folder of the logs, which remain if nothing was kept.
    """
    names = entries(target.host, f"{target.folder}/{RESTORE}", target.as_root)
    found = [match[1] for name in names if (match := _STAMP.search(name))]
    with contextlib.suppress(FileNotFoundError):
        logged = os.listdir(logs) if logs else ()
        found += [match[1] for name in logged if (match := _LOG_STAMP.search(name))]
    newest = max((each for each in found if is_stamp(each)), default="")
    if told > newest:
        return told
    now = datetime.now(UTC)
    if newest >= now.strftime(STAMP_FORM):
        now = datetime.strptime(newest, STAMP_FORM).replace(tzinfo=UTC) + timedelta(seconds=1)
    return now.strftime(STAMP_FORM)


def influx_apart(target: StackHost, server: Server, *, with_volumes: bool = True) -> str:
    """Return the folder above InfluxDB's data for replaced data, if it must be on their disk.

    `with_volumes`: replaced data of `volumes/` are on that disk already.
    """
    above, aside = posixpath.dirname(server.data), target.folder
    if with_volumes and f"{above}/".startswith(f"{target.folder}/volumes/"):
        aside = f"{target.folder}/volumes"
    there, here = (mount_of(target.host, each, target.as_root) for each in (above, aside))
    return above if there != here else ""


def mount_higher(path: str) -> str:
    """Return what to do if the data of InfluxDB are a mount point."""
    return MOUNT_HIGHER.format(posixpath.dirname(path), posixpath.basename(path))


def refuse_mounts(target: StackHost, *renamed: tuple[Iterable[str], Callable[[str], str]]) -> None:
    """Raise Refused if something to be renamed is a mount point, or contains one.

    `renamed`: paths, each with the advice for one. The advice is never to unmount it: data
    restored below it are hidden by the next mount.
    """
    mounts = sorted(mount_points(target.host))
    for paths, advice in renamed:
        listed = list(paths)
        for mount, path in itertools.product(mounts, listed):
            if is_in(mount, path):
                raise Refused(
                    f"On {target.name} {mount} is a mount point, and {path} cannot be swapped by "
                    f"rename. The stack was not changed. {advice(path)}"
                )


LSATTR = 'command -v lsattr > /dev/null || exit 0; lsattr -d -- "$@" 2> /dev/null'
"""Prints nothing if the program is missing, or the file system has no such flags."""
HELD = {"i": "immutable (chattr +i)", "a": "append-only (chattr +a)"}


def refuse_held(target: StackHost, paths: Iterable[str]) -> None:
    """Raise Refused if flags prevent renaming a path, or changing its parent folder."""
    renamed = [*dict.fromkeys(filter(None, paths))]
    asked = dict.fromkeys((*renamed, *map(posixpath.dirname, renamed)))
    if not asked:
        return
    words = (*target.as_root, *IN_ENGLISH, "sh", "-c", LSATTR, "sh", *asked)
    told = target.host.run(Command(words, ANY_EXIT)).out
    for line in told.splitlines():
        flags, _, path = line.partition(" ")
        for flag in HELD if path in asked else ():
            if flag in flags:
                raise Refused(
                    f"On {target.name} {path} is {HELD[flag]}: a restore cannot rename anything "
                    "there. The stack was not changed. Remove this attribute, and set it again "
                    f"afterwards: sudo chattr -{flag} {shlex.quote(path)}"
                )


def refuse_stage_apart(target: StackHost) -> None:
    """Raise Refused if `restore/` is a link, or on another mount than the stack."""
    stage = f"{target.folder}/{RESTORE}"
    if entries(target.host, target.folder).get(RESTORE) == "l":
        raise Refused(
            f"On {target.name} {stage} is a link. Nothing was changed. Make it a plain folder of "
            "the stack: replaced data is renamed into it."
        )
    if mount_of(target.host, stage) != mount_of(target.host, target.folder):
        raise Refused(
            f"On {target.name} {stage} is on another file system than the stack, so nothing can "
            "be swapped by rename. Nothing was changed. Make it a plain folder of the stack."
        )
