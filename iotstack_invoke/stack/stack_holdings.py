"""What the containers of a stack keep outside of services/ and volumes/, and how it is saved.

A mount below the stack's folder belongs to the general part. Named volumes, targets of links of
the stack, and paths that hosts.toml includes go into the outside part, whose members are named by
their path from /. Anything else is reported as not covered. Not for: dumps of databases.
"""

from __future__ import annotations

import glob
import os
import posixpath
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import field, replace
from fnmatch import fnmatchcase

from ..backups.manifest import VOLUME, LeftOut
from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..core.stack_folders import BACKUPS, FOLDERS, KEPT_OUT, RESTORE
from ..hosts.base import Host, sh
from ..services.known import is_below_stack, is_in_stack, is_of_restores
from ..settings.model import Exclusion, Inclusion, StackConfig
from .answers import answer
from .clone import own_in_clone
from .compose import InspectedContainer, Mount, Volume, is_top_file, place_in_stack
from .inside import above, is_in
from .seen_mounts import seen_otherwise

LOOK_LIMIT_S = 600.0
PATHS_AT_ONCE = 500
LINKS_AT_MOST = 40
"""The system follows at most this many links in a row."""
SYSTEM = (
    *("/boot", "/dev", "/lib", "/proc", "/run", "/sys", "/tmp/.X11-unix", "/usr", "/var/run"),  # noqa: S108
    *("/var/lib/docker", "/var/lib/docker/volumes", "/var/lib/containerd", "/lib64", "/bin"),
    *("/etc/localtime", "/etc/timezone", "/etc/machine-id", "/etc/hostname", "/etc/hosts"),
    *("/etc/resolv.conf", "/etc/os-release", "/etc/passwd", "/etc/group", "/etc/shadow"),
    *("/etc/ssl", "/etc/ca-certificates", "/etc/udev", "/etc/asound.conf", "/etc/pulse"),
    *("/sbin", "/var/lock", "/etc/lsb-release", "/etc/debian_version", "/etc/rpi-issue"),
    "/etc/localtime.bak",
)
"""System paths in which no service keeps its data; everything below them counts as well."""
OWN_IN_SYSTEM = ("/etc/ssl", "/usr")
"""Exceptions in which owners keep files: certificates, or Home Assistant's folder."""
OF_PACKAGES = (
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/usr/bin", "/usr/games", "/usr/include"),
    *("/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/local/bin", "/usr/local/lib"),
    *("/usr/local/sbin", "/usr/sbin", "/usr/share", "/usr/src"),
)
"""Files of packages, which can be installed again, except for:"""
OF_OWNERS = ("/usr/share/hassio",)
OF_EACH_START = ("/dev", "/proc", "/run", "/sys", "/tmp/.X11-unix", "/var/lock", "/var/run")  # noqa: S108
"""Created at each start of the machine: files there do not survive one."""
READ_ALONE = (
    *("/bin", "/lib/firmware", "/lib/modules", "/sbin", "/usr/bin", "/usr/local/bin"),
    *("/usr/local/sbin", "/usr/sbin", "/usr/share/alsa", "/usr/share/fonts"),
    *("/usr/share/zoneinfo", "/usr/src", "/var/lib/docker/containers"),
)
"""System files that services only read, though they are usually mounted without `ro`."""
_LIBRARIES = re.compile(r"(/usr)?/lib/[^/]+-linux-[^/]+(/.*)?")
WATCHED = (
    "/",
    *(f"/{each}" for each in ("etc", "home", "media", "mnt", "root", "var", "var/lib", "var/log")),
    *("/etc/ssl", "/usr", "/usr/local"),
)
"""What monitors mount read-only to observe a machine."""
BUILT_OF_ALL = (
    "NOT COVERED: compose builds an image from the folder of the stack itself, and of that only "
    "compose files, services/, volumes/ and what containers mount are packed. Build it from a "
    "folder of its own; or include what it copies by [[stack.include]], and add these lines: "
    '[[stack.exclude]], path = ".", reason = "…".'
)
FOLDERS_OF_IOTSTACK = frozenset(
    (".github", ".internal", ".native", ".templates", "docs", "duck", "scripts")
)
FILES_OF_IOTSTACK = frozenset(
    (
        *(".bash_aliases", ".gitattributes", ".gitignore", "404.html", "LICENSE", "README.md"),
        *("install.sh", "menu.sh", "requirements-menu.txt", "requirements-mkdocs.txt"),
    )
)
"""Top-level entries of IOTstack's own repository: fetched with it, except for changed ones."""
OF_ITS_MENU = frozenset(
    (
        *(".tmp", ".new_install", ".outofdate", ".installed", ".project_outofdate"),
        *(".docker_notinstalled", ".docker_outofdate"),
    )
)
"""Top-level files that IOTstack's menu creates for itself."""
CLONE = ".git"
IOTSTACK_MENU = "menu.sh"
"""Without this file the folder of the stack is no checkout of IOTstack."""
CLOSED = (
    "the user who runs the backup may not read it; with sudo = true in hosts.toml, root reads it"
)
MOST_UNUSED_TOLD = 5
_DATED_BESIDE = re.compile(r"[^/]*\.(yml|yaml|env)\.\d{4}-\d\d-\d\d_\d{4}[^/]*")
_BESIDE_TOP = re.compile(r"[^/]*?\.(?:yml|yaml|env)\.(?P<runtag>[^/]+)")
"""A top file of a backup, which a restore put beside the existing one."""
OF_RUNS = "backups and restores keep their own files there"
OF_DUMPS = ("backups/influxdb/db", "backups/influxdb2")
"""The folders of dumps by IOTstack's containers, which are parts of a backup already."""

_LOOK = (
    'for f; do if [ -d "$f" ]; then k=empty; [ -r "$f" ] && [ -x "$f" ] || k=closed; '
    '[ "$k" = closed ] || [ -z "$(ls -A -- "$f" 2>/dev/null | head -c 1)" ] || k=folder; '
    'elif [ -f "$f" ]; then k=file; [ -r "$f" ] || k=closed; elif [ -e "$f" ]; then k=other; '
    'else k=hidden; case $(LC_ALL=C stat -L -- "$f" 2>&1) in *": No such file or directory"|'
    '*": Not a directory"|*": Too many levels of symbolic links") k=none; esac; fi; '
    'printf "%s\\0" "$k"; realpath -m -z -- "$f"; readlink -z -- "$f" || printf "\\0"; '
    "done"
)
"""Prints for each path its kind (links followed), its real path, and the target of a link."""
_LINKS = (
    'cd "$1" || exit 1; [ ! -d services ] || find services -type l -print0; '
    "[ ! -d volumes ] || find volumes -maxdepth 1 -type l -print0; "
    "find . -maxdepth 1 -type l -printf '%P\\0'"
)
# $1 is the folder of the stack, folders in it follow: prints the contents of each, without folders
# that hold no files.
_BESIDE = (
    'cd "$1" || exit 1; shift; for f; do find "$f" -mindepth 1 -maxdepth 1 '
    "\\( -type f -o -type l -o -type d ! -empty \\) -print0 2>/dev/null; done; true"
)


@dataclass(frozen=True, slots=True)
class PathFact:
    """What a path leads to with links followed, and its real path."""

    kind: str
    """file, folder, empty, other, none; closed: not readable for us; hidden: may exist, or not."""
    real: str
    link: str = ""
    """The target of the path itself, if it is a link, as stored in the link."""

    @property
    def holds(self) -> bool:
        """Whether it is something that a backup holds, if it is readable."""
        return self.kind in ("file", "folder", "empty") or self.is_closed

    @property
    def is_closed(self) -> bool:
        """Whether we may not read it."""
        return self.kind in ("closed", "hidden")


@dataclass(frozen=True, slots=True)
class Outside:
    """Something of the stack outside of its folder, which goes into the outside part."""

    path: str
    """The path from /, links followed: its members have this name."""
    volume: str = ""
    """The named volume whose files it holds; '' for a plain path."""
    key: str = ""
    """The name of the volume in the compose file."""
    mounts: tuple[tuple[str, str], ...] = ()
    """The containers that mount it, each with the path inside."""
    restore_to: str = ""
    """The path to restore it to, if not its original path."""
    link: str = ""
    """The path of the stack that leads there, if it is a link."""
    anonymous: str = ""
    """For a volume that only its container knows: CONTAINER:PATH of its mount."""
    ways: tuple[str, ...] = ()
    """The first targets of links of the stack, which may be links themselves."""

    @property
    def title(self) -> str:
        """The name in messages."""
        name = self.volume or self.anonymous
        return f"{VOLUME}{name}" if name else self.path


@dataclass(frozen=True, slots=True)
class Uncovered:
    """Something that a container keeps and that is in no part; `warning` gives the reason."""

    container: str
    what: str
    warning: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the containers keep outside of services/ and volumes/, each path once, sorted."""

    included: tuple[str, ...] = ()
    """Paths below the stack's folder that the general part holds in addition."""
    outside: tuple[Outside, ...] = ()
    uncovered: tuple[Uncovered, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    """What is left out on purpose, or saved in another way."""
    warnings: tuple[str, ...] = ()
    """Paths that are named and do not exist."""
    linked: tuple[str, ...] = ()
    """The top files of the stack that are links to files."""
    broken: tuple[str, ...] = ()
    """The top files of the stack that are broken links."""
    by_container: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What each container mounts of `included` and `outside`, by the names in messages."""
    unused: tuple[str, ...] = ()
    """Paths in the folder of the stack that are in no part, because no service uses them."""


@dataclass(frozen=True, slots=True)
class Databases:
    """The data folders of dumped databases, and the parts that hold them."""

    parts: Mapping[str, str] = field(default_factory=dict)
    """The part by the path of the data, links followed."""

    def part_of(self, path: str) -> str:
        """Return the part that holds everything at a path; '' if no part does."""
        return next((part for data, part in self.parts.items() if is_in(path, data)), "")

    def below(self, path: str) -> bool:
        """Return whether data are below a path."""
        return any(is_in(data, path) for data in self.parts)


def gather_holdings(
    host: Host,
    mine: Iterable[InspectedContainer],
    volumes: Mapping[str, Volume],
    stack: StackConfig,
    folder: str,
    as_root: tuple[str, ...] = (),
    *,
    planned: Iterable[InspectedContainer] = (),
    reads: Iterable[str] = (),
    named: Iterable[str] = (),
    databases: Databases | None = None,
    skipped: Mapping[str, str] | None = None,
    caches: Collection[str] = (),
) -> Holdings:
    """Return what containers keep outside of services/ and volumes/.

    `folder`: the stack's, links followed. `planned`: containers that compose would create, for
    data that no container mounts now. `reads`: paths that compose reads, relative to the folder or
    absolute. `named`: paths relative to the folder that hooks may name. `skipped`: why nothing of
    a container is saved, by its name. `caches`: containers whose anonymous volumes hold nothing of
    value.
    """
    look = _MountScan(stack, folder, databases or Databases(), skipped or {}, frozenset(caches))
    links, reads, named = _links(host, folder, as_root), tuple(reads), tuple(named)
    there, planned = tuple(mine), tuple(planned)
    mounts = [(each, mount) for each in (*there, *planned) for mount in each.mounts]
    asked = {mount.source for _, mount in mounts if not _is_silent(mount, folder)}
    asked |= {path for each in volumes.values() for path in (each.device, each.mountpoint)}
    places = {*links, *reads, *named, *(each.path for each in stack.inclusions)}
    asked |= {posixpath.normpath(posixpath.join(folder, each)) for each in places}
    asked |= {above for path in asked for above in _between(folder, path)}
    look.facts = stat_paths(host, sorted(path for path in asked if path.startswith("/")), as_root)
    for each, mount in mounts:
        if each not in planned or look.is_there(mount, volumes):
            look.take_mount(each.container.name, mount, volumes)
    kept = [(each, mount) for each, mount in mounts if not _is_silent(mount, folder)]
    others = seen_otherwise(host, kept, as_root)
    for each, mount in kept:
        if (each.container.name, mount.inside) in others:
            look.take_seen_otherwise(each.container.name, mount)
    for path in links:
        look.take_link(path)
    for path in reads:
        look.take_read(path)
    for path in named:
        look.take_named(path)
    for inclusion in stack.inclusions:
        look.take_inclusion(inclusion)
    holdings = look.holdings()
    beside, commits = _beside(host, folder, holdings.included, as_root)
    unused = [each for each in sorted(beside) if look.is_unused(each)]
    if commits and look.is_unused(CLONE):
        number = f"{commits:,} commits" if commits > 1 else "1 commit"
        unused.append(f"{CLONE} ({number} that no remote has)")
    return replace(holdings, unused=tuple(unused))


def outside_exclusions(
    outside: Iterable[Outside], exclusions: Iterable[Exclusion]
) -> tuple[Exclusion, ...]:
    """Return what the outside part leaves out, as patterns of absolute paths.

    `exclusions` as in hosts.toml: patterns of an absolute path, of `volume:NAME`, or of a path of
    the stack from which a link leads out.
    """
    found: dict[str, Exclusion] = {}
    for exclusion in exclusions:
        for each in outside:
            for name in filter(None, (each.path, each.title, each.link)):
                below = _below(exclusion.path, name)
                if below:
                    path = posixpath.join(glob.escape(each.path), below)
                    found.setdefault(path, replace(exclusion, path=path))
    return tuple(found.values())


def _below(pattern: str, path: str) -> str:
    """Return a pattern relative to a path; '' if it does not apply there."""
    parts, names = pattern.split("/"), path.split("/")
    fits = len(parts) > len(names) and all(map(fnmatchcase, names, parts))
    return "/".join(parts[len(names) :]) if fits else ""


def unused_told(unused: tuple[str, ...]) -> tuple[str, ...]:
    """Return the message about paths that nothing of the stack uses: one line, or none."""
    if not unused:
        return ()
    names = ", ".join(unused[:MOST_UNUSED_TOLD])
    more = len(unused) - MOST_UNUSED_TOLD
    names += f" and {more:,} more" if more > 0 else ""
    told = (
        f"Not in the backup, because the stack does not use it: {names}. A row [[stack.include]] "
        "in hosts.toml adds it; a row [[stack.exclude]] with a reason hides this message."
    )
    return (told,)


def is_system(path: str) -> bool:
    """Return whether a path is one of the system's, in which no service keeps data."""
    return any(is_in(path, each) for each in SYSTEM)


def is_of_no_owner(path: str) -> bool:
    """Return whether the system itself creates a path, so that no backup needs it."""
    own = any(is_in(path, each) for each in OWN_IN_SYSTEM)
    packaged = any(is_in(path, each) for each in OF_PACKAGES)
    return is_system(path) and not (
        own and (not packaged or any(is_in(path, each) for each in OF_OWNERS))
    )


def outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the paths of which none lies below another, sorted."""
    wanted = set(paths)
    return tuple(sorted(each for each in wanted if not wanted & {*above(each)}))


def _is_top_file(path: str) -> bool:
    return "/" not in path and is_top_file(path)


def _between(folder: str, path: str) -> Iterator[str]:
    """Yield the folders of the stack that contain a path of it."""
    return (each for each in above(path) if is_in(each, folder) and each != folder)


def _is_silent(mount: Mount, folder: str) -> bool:
    """Return whether a mount is nothing that a stack keeps."""
    path = mount.source
    if mount.volume or place_in_stack(mount, folder) is not None:
        return False
    if mount.writable:
        return not path.startswith("/") or _is_only_read(path)
    return not path.startswith("/") or is_of_no_owner(path) or path in WATCHED


def _is_only_read(path: str) -> bool:
    """Return whether services keep nothing at a path of the system that they may write to."""
    places = (*OF_EACH_START, *READ_ALONE)
    whole = path in {*SYSTEM, *OF_PACKAGES} and is_of_no_owner(path)
    return whole or any(is_in(path, each) for each in places) or bool(_LIBRARIES.fullmatch(path))


class _MountScan:
    """Processes the mounts of a stack one by one."""

    def __init__(
        self,
        stack: StackConfig,
        folder: str,
        databases: Databases,
        skipped: Mapping[str, str],
        caches: frozenset[str],
    ) -> None:
        self.stack = stack
        self.folder = folder
        self.databases = databases
        self.skipped = skipped
        self.caches = caches
        self.facts: Mapping[str, PathFact] = {}
        self._included: set[str] = set()
        self._outside: dict[str, Outside] = {}
        self._uncovered: dict[tuple[str, str], Uncovered] = {}
        self._left_out: dict[str, str] = {}
        self._warnings: dict[str, None] = {}
        self._linked: dict[str, bool] = {}
        self._by_container: dict[str, set[str]] = {}
        self._of_rows: dict[str, set[tuple[str, str]]] = {}

    def holdings(self) -> Holdings:
        """Return all findings, each path once."""
        self._refuse_docker()
        return Holdings(
            outermost(self._included),
            tuple(self._outermost_outside()),
            tuple(self._uncovered.values()),
            tuple(LeftOut(what, why) for what, why in sorted(self._left_out.items())),
            tuple(self._warnings),
            tuple(name for name, there in sorted(self._linked.items()) if there),
            tuple(name for name, there in sorted(self._linked.items()) if not there),
            {name: tuple(sorted(told)) for name, told in self._by_container.items()},
        )

    def is_unused(self, path: str) -> bool:
        """Return whether a path of the stack is in no part, without a reason on record."""
        named = {each.what for each in self._uncovered.values()} | self._left_out.keys()
        return not (path in named or self._reason(path))

    def _refuse_docker(self) -> None:
        """Drop rows that contain volumes: these are packed and restored separately."""
        volumes = [path for path, each in self._outside.items() if each.volume or each.anonymous]
        for path in set(self._outside) - set(volumes):
            if any(is_in(each, path) and each != path for each in volumes):
                del self._outside[path]
                told = (
                    f"NOT COVERED: {path} is included by hosts.toml, but it contains Docker "
                    "volumes, which are packed separately, so nothing else of it is in the "
                    "backup. Include the folders in it that you want."
                )
                self._warnings[told] = None

    def _outermost_outside(self) -> Iterator[Outside]:
        """Yield the outermost outside paths, each with the mounts at or below it.

        A path below another is listed separately only if it is restored to another location.
        """
        tops = outermost(self._outside)
        for path, each in sorted(self._outside.items()):
            below = (one for at, one in self._outside.items() if is_in(at, path))
            mounts = {pair for one in below for pair in one.mounts}
            top = next(self._outside[at] for at in tops if is_in(path, at))
            goal = top.restore_to or top.path
            place = each.restore_to or (path if each.link else goal + path.removeprefix(top.path))
            if path in tops or not (top.volume or top.anonymous or is_in(place, goal)):
                yield replace(each, mounts=tuple(sorted(mounts)))

    def is_there(self, mount: Mount, volumes: Mapping[str, Volume]) -> bool:
        """Return whether anything exists at the source of a mount."""
        path, volume = mount.source, volumes.get(mount.volume)
        if mount.volume:
            if volume is None or volume.mountpoint or not volume.is_folder:
                return volume is not None
            path = volume.device
        return self.facts.get(path, PathFact("none", "")).kind != "none"

    def take_mount(self, container: str, mount: Mount, volumes: Mapping[str, Volume]) -> None:
        """Process one mount of a container."""
        if mount.volume:
            volume = volumes.get(mount.volume) or Volume(mount.volume, mount.on_host)
            mount = replace(mount, on_host=mount.on_host or volume.mountpoint)
            self._take_volume(container, mount, volume)
            return
        fact = self.facts.get(mount.source, PathFact("none", mount.on_host))
        if (
            _is_silent(mount, self.folder) or fact.kind == "other"
        ):  # a socket or a device cannot be copied
            return
        place = place_in_stack(mount, self.folder)
        if place is None:
            self._take_absolute(container, mount, fact)
        elif place == ".":
            self._take_whole_stack(container, mount)
        elif is_in_stack(place) and not is_of_restores(place):
            self._take_place(container, place, mount, fact)
        elif place in OF_DUMPS or (place in (BACKUPS, RESTORE) and not mount.writable):
            return  # parts of a backup, or a container that only reads backups
        elif not self._is_left_out(container, place, place):
            self._not_covered(container, place, mount, OF_RUNS)

    def _take_volume(self, container: str, mount: Mount, volume: Volume) -> None:
        if volume.is_folder:
            fact = self.facts.get(volume.device, PathFact("none", volume.device))
            there = Mount(fact.real, mount.inside, volume.device, writable=mount.writable)
            self.take_mount(container, there, {})
            return
        found = Outside(mount.on_host, volume.name, volume.key)
        if volume.anonymous:
            found = Outside(mount.on_host, anonymous=f"{container}:{mount.inside}")
        what = found.title
        if self._is_left_out(container, what, what) or self._is_dumped(what, mount.on_host):
            return
        if volume.filesystem == "tmpfs" and volume.driver == "local":
            self._left_out[what] = "it is in memory, and is empty after each start"
        elif not volume.is_local:
            why = "its files are not on a disk of this machine"
            self._not_covered(container, what, mount, why)
        elif volume.is_away:
            why = (
                "Docker mounts its device only while a container uses it: start one, then back up"
            )
            self._not_covered(container, what, mount, f"{why} again")
        elif volume.anonymous and container in self.caches:
            self._left_out[what] = "a cache, which fills itself again"
        elif (fact := self.facts.get(mount.source, PathFact("none", ""))).is_closed:
            self._not_covered(container, what, mount, CLOSED)
        elif fact.kind == "none":
            self._not_covered(container, what, mount, f"its folder {mount.source} does not exist")
        elif fact.kind != "empty" or not volume.anonymous:
            self._add(found, container, mount.inside)

    def _take_absolute(self, container: str, mount: Mount, fact: PathFact) -> None:
        path, what = fact.real, mount.source
        row = next(
            (e for e in self.stack.inclusions if is_in(path, e.path) or is_in(what, e.path)), None
        )
        if row:  # the row itself is processed later
            self._by_container.setdefault(container, set()).add(row.path)
            self._of_rows.setdefault(row.path, set()).add((container, mount.inside))
        elif self._is_left_out(container, what, what, path) or self._is_dumped(what, path):
            return
        elif is_in(self.folder, path):
            why = "it contains the stack, and only what belongs to the stack is packed"
            self._not_covered(container, what, mount, why)
        elif self.databases.below(path):
            why = "its database is dumped, but other files beside the database are not packed"
            self._not_covered(container, what, mount, why)
        else:
            self._not_covered(container, what, mount, "it is outside the folder of the stack")

    def _take_whole_stack(self, container: str, mount: Mount) -> None:
        if mount.writable and not self._is_left_out(container, "the stack's own folder", "."):
            why = "only compose files, services/, volumes/ and what containers mount are packed"
            self._not_covered(container, ".", mount, why)

    def _take_place(self, container: str, place: str, mount: Mount, fact: PathFact) -> None:
        if self._is_left_out(container, "" if is_below_stack(place) else place, place):
            return
        if fact.kind == "none":
            self._warnings[
                f"{place}, which container {container} mounts, does not exist, so nothing of it "
                "is in the backup."
            ] = None
            return
        self._pack(place, fact, container, mount.inside)

    def take_seen_otherwise(self, container: str, mount: Mount) -> None:
        """Report a mount at which a container sees other data than those now at its source."""
        place = place_in_stack(mount, self.folder)
        what = f"{VOLUME}{mount.volume}" if mount.volume else place or mount.source
        known = self.skipped.get(container) or self._reason(what, mount.source, mount.on_host)
        if known or self.databases.part_of(mount.on_host):
            return
        there = shlex.quote(f"{container}:{mount.inside}")
        told = (
            f"NOT COVERED: container {container} does not see {what} at {mount.inside}: it was "
            "replaced, or something was mounted there, after the container started. The "
            "container's files there are in no part of the backup. To save them: `docker cp "
            f"{there} FOLDER`; then `docker restart {container}`."
        )
        self._uncovered[container, what] = Uncovered(container, what, told)

    def take_link(self, path: str) -> None:
        """Process a link of the stack that containers or compose may follow."""
        fact = self.facts[posixpath.join(self.folder, path)]
        if "/" not in path:
            if _is_top_file(path) and fact.kind in ("file", "none"):
                self._linked[path] = fact.kind == "file"
            return  # others are unused, or are processed as mounts
        leads_out = not is_in(fact.real, self.folder) and not is_system(fact.real)
        if fact.holds and leads_out and not self._reason(path) and path[8:9] != ".":
            self._pack(path, fact)

    def take_read(self, path: str) -> None:
        """Process a path that compose reads."""
        if _is_top_file(path):
            return  # packed for what it is, or for its target
        if path == ".":
            if not self._reason(path):
                self._uncovered["", path] = Uncovered("", path, BUILT_OF_ALL)
            return
        fact = self.facts[posixpath.normpath(posixpath.join(self.folder, path))]
        if not path.startswith("/") and is_in_stack(path) and not is_of_restores(path):
            if fact.holds and not self._reason(path):
                self._pack(path, fact)
            return
        silent = is_of_no_owner(fact.real) or fact.kind == "other" or self._reason(path, fact.real)
        if not silent and not any(is_in(fact.real, e.path) for e in self.stack.inclusions):
            elsewhere = path.startswith(("/", ".."))
            why = "it is outside the folder of the stack" if elsewhere else OF_RUNS
            told = f"NOT COVERED: {path}, which compose reads, is in no part of the backup: it "
            told += f"{why}. {advice(path)}"
            self._uncovered["", path] = Uncovered("", path, told)

    def take_named(self, path: str) -> None:
        """Process a file of the stack that a hook names; other paths in its text do not count."""
        fact = self.facts[posixpath.join(self.folder, path)]
        is_ours = is_in_stack(path) and not is_of_restores(path) and not _is_top_file(path)
        if fact.kind in ("file", "closed") and is_ours and not self._reason(path):
            self._pack(path, fact)

    def take_inclusion(self, row: Inclusion) -> None:
        """Process a path that hosts.toml includes."""
        fact = self.facts[posixpath.join(self.folder, row.path)]
        if not fact.holds:
            self._warnings[
                f"NOT COVERED: {row.path} is included by hosts.toml, but does not exist. Restore "
                "it, mount its drive, or correct its row in [[stack.include]]."
            ] = None
        elif fact.is_closed:
            for container, inside in sorted(self._of_rows.get(row.path, ())):
                self._not_covered(container, row.path, Mount(fact.real, inside), CLOSED)
            if row.path not in self._of_rows:
                told = f"NOT COVERED: {row.path}, which hosts.toml includes, is in no part of the "
                self._warnings[f"{told}backup: {CLOSED}."] = None
        elif not row.path.startswith("/"):
            self._pack(row.path, fact)
        elif is_in(self.folder, fact.real) or self._is_of_runs(fact.real):
            self._warnings[
                f"NOT COVERED: {row.path} is included by hosts.toml, but it contains backups and "
                "restores, so it is in no part of the backup. Include the folders in it that you "
                "want."
            ] = None
        elif is_in(fact.real, self.folder):
            self._pack(os.path.relpath(fact.real, self.folder), fact)
        else:
            mounts = tuple(sorted(self._of_rows.get(row.path, ())))
            name = row.path if row.path != fact.real else ""
            self._add(Outside(fact.real, mounts=mounts, restore_to=row.restore_to or name))

    def _is_of_runs(self, path: str) -> bool:
        return is_in(path, self.folder) and not is_in_stack(os.path.relpath(path, self.folder))

    def _pack(self, place: str, fact: PathFact, container: str = "", inside: str = "") -> None:
        """Pack a path of the stack, and the targets of links on the way."""
        straight = posixpath.join(self.folder, place)
        if fact.real != straight and (is_system(fact.real) or is_in(self.folder, fact.real)):
            told = f"NOT COVERED: {place} is a link to {fact.real}, which is in no part of the "
            told += f"backup. {advice(place)}"
            self._uncovered[container, place] = Uncovered(container, place, told)
            return
        if fact.is_closed and not (is_below_stack(place) and is_in(fact.real, self.folder)):
            told = f"NOT COVERED: {place} is in no part of the backup: {CLOSED}. {advice(place)}"
            self._uncovered[container, place] = Uncovered(container, place, told)
            return
        if place.startswith("-"):  # its name would be taken for an option
            told = f"NOT COVERED: {place} is in no part of the backup: backups refuse a name that "
            told += "begins with '-'. Rename it, also in the compose file."
            self._uncovered[container, place] = Uncovered(container, place, told)
            return
        if container:
            self._by_container.setdefault(container, set()).add(place)
        self._include(place if fact.real == straight else self._link_of(place))
        if is_in(fact.real, self.folder):
            self._include(os.path.relpath(fact.real, self.folder))
        elif not (
            self._is_left_out(container, fact.real, fact.real) or self.databases.part_of(fact.real)
        ):
            way = self._way_out(straight)
            to = way if way != fact.real else ""
            found = Outside(fact.real, link=place, restore_to=to, ways=(way or fact.real,))
            self._add(found, container, inside)

    def _way_out(self, path: str) -> str:
        """Return the first target outside the stack of a path's links; '' if unknown.

        A restore puts there the data behind further links, because those links are in no part. If
        they still exist, the restore follows them.
        """
        for _ in range(LINKS_AT_MOST):
            above = [each for each in _between(self.folder, path) if self._leads(each)]
            link = next(reversed(above), path)
            told = self._leads(link)
            if not told or re.search(r"[^./][^/]*/+\.\.(/|$)", told):
                return ""
            there = posixpath.join(posixpath.dirname(link), told)
            path = posixpath.normpath(there + path[len(link) :])
            if not is_in(path, self.folder):
                return path
        return ""

    def _leads(self, path: str) -> str:
        return self.facts.get(path, PathFact("", "")).link

    def _link_of(self, place: str) -> str:
        """Return the part of a stack path that is a link, the outermost of several."""
        link = place
        for path in above(place):
            straight = posixpath.join(self.folder, path)
            fact = self.facts.get(straight)
            if fact and fact.real != straight:
                link = path
        return link

    def _include(self, place: str) -> None:
        packed = is_below_stack(place) or place in FOLDERS or _is_top_file(place)
        if not packed and is_in_stack(place):
            self._included.add(place)

    def _add(self, found: Outside, container: str = "", inside: str = "") -> None:
        known = self._outside.get(found.path, found)
        to = found.restore_to or known.restore_to
        ways = tuple(sorted({*known.ways, *found.ways}))
        if found.link and known.restore_to != found.restore_to:
            to = ""  # two links: restored to its own path, the others link to it
        own = ((container, inside),) if container else ()
        mounts = {*known.mounts, *found.mounts, *own}
        self._outside[found.path] = Outside(
            found.path,
            known.volume or found.volume,
            known.key or found.key,
            tuple(sorted(mounts)),
            to,
            known.link or found.link,
            known.anonymous or found.anonymous,
            ways,
        )
        if container:
            self._by_container.setdefault(container, set()).add(found.title)

    def _is_left_out(self, container: str, what: str, *paths: str) -> bool:
        """Return whether hosts.toml or the table leaves something out; records it as `what`."""
        reason = self._reason(*paths) or self.skipped.get(container, "")
        if reason and what:
            self._left_out[what] = reason
        return bool(reason)

    def _is_dumped(self, what: str, path: str) -> bool:
        """Return whether everything at a path is in a dump."""
        part = self.databases.part_of(path)
        if part:
            self._left_out[what] = f"live files of a database; its data is in the {part} part"
        return bool(part)

    def _reason(self, *paths: str) -> str:
        """Return the reason for leaving something out in hosts.toml; '' if it is not left out."""
        rows = self.stack.exclusions
        return next((e.reason for e in rows for path in paths if e.leaves_out(path)), "")

    def _not_covered(self, container: str, what: str, mount: Mount, why: str) -> None:
        title = "the folder of the stack itself" if what == "." else what
        includable = why != CLOSED and not is_in(self.folder, mount.on_host)
        told = (
            f"NOT COVERED: {title}, which container {container} mounts at {mount.inside}, is in "
            f"no part of the backup: {why}. "
            f"{advice(what, includable=includable)}"
        )
        self._uncovered.setdefault((container, what), Uncovered(container, title, told))


def advice(what: str, *, includable: bool = True) -> str:
    """Return how to include or exclude a path that is in no part; relative: only exclude."""
    out = f'[[stack.exclude]], path = "{what}", reason = "…"'
    if what.startswith("/") and includable:
        row = f'[[stack.include]], path = "{what}"'
        return f"Add one of these to hosts.toml, each on a line of its own: {row}; or {out}."
    return f"To leave it out, add this to hosts.toml, each on a line of its own: {out}."


def _links(host: Host, folder: str, as_root: tuple[str, ...]) -> tuple[str, ...]:
    """Return the links of services/, the outermost of volumes/, and those beside both."""
    out = answer(host, (*as_root, *sh(_LINKS, folder)), LOOK_LIMIT_S)
    return tuple(sorted(filter(None, out)))


def stat_paths(host: Host, paths: list[str], as_root: tuple[str, ...]) -> dict[str, PathFact]:
    """Return the facts about each path; raises StepFailed if the query fails."""
    found: dict[str, PathFact] = {}
    for start in range(0, len(paths), PATHS_AT_ONCE):
        some = paths[start : start + PATHS_AT_ONCE]
        out = answer(host, (*as_root, *sh(_LOOK, *some)), LOOK_LIMIT_S)
        if len(out) != 3 * len(some):
            raise StepFailed(f"Could not read the mounts of the containers on {host.name}.")
        found |= {
            path: PathFact(*told)
            for path, *told in zip(some, out[::3], out[1::3], out[2::3], strict=True)
        }
    return found


def _is_laid_beside(name: str, of_runs: set[str]) -> bool:
    """Return whether a restore put a top file beside another: its name ends in a known runtag.

    `of_runs`: the names in backups/ and restore/. A runtag with a time needs no entry there.
    """
    named = _BESIDE_TOP.fullmatch(name)
    if named is None or _DATED_BESIDE.fullmatch(name):
        return named is not None
    marks = (f"{BACKUPS}/{named['runtag']}.", f"{RESTORE}/previous-{named['runtag']}-")
    return any(each.startswith(marks) for each in of_runs)


def _is_like_a_stage(name: str, of_runs: set[str]) -> bool:
    """Return whether something has the name of a restore's stage, but is of no run here."""
    folder, _, runtag = name.partition("/.restore-")
    return folder == "volumes" and bool(runtag) and f"{RESTORE}/{runtag}" not in of_runs


def _beside(
    host: Host, folder: str, included: tuple[str, ...], as_root: tuple[str, ...]
) -> tuple[set[str], int]:
    """Return what is beside the packed data: in the stack's folder, and in parent folders.

    For files of IOTstack's repository, those that the owner changed or added, and how many commits
    no remote has. If Git does not answer, anything in its folders may be the owner's.
    """
    ways = {each for path in included for each in above(path)}
    runs = (BACKUPS, RESTORE, "volumes")
    looked_in = (".", *sorted(f"./{each}" for each in {*ways, *runs}))
    told = answer(host, (*as_root, *sh(_BESIDE, folder, *looked_in)), LOOK_LIMIT_S)
    names = {each.removeprefix("./") for each in told}
    of_runs = {each for each in names if posixpath.dirname(each) in runs}
    names -= of_runs
    known = {CLONE, *FOLDERS, *KEPT_OUT, *included, *ways, *filter(_is_top_file, names)}
    beside = {name for name in names - known if not _is_laid_beside(name, of_runs)}
    beside |= {name for name in of_runs if _is_like_a_stage(name, of_runs)}
    if IOTSTACK_MENU not in names:
        return beside, 0
    brought = names & (FOLDERS_OF_IOTSTACK | FILES_OF_IOTSTACK) - {*included}
    own = own_in_clone(host, folder, brought, included, as_root) if CLONE in names else None
    if own is None:
        return beside - FILES_OF_IOTSTACK - OF_ITS_MENU, 0
    beside = {each for each in beside if each.partition("/")[0] not in brought | OF_ITS_MENU}
    return beside | {*own.paths}, 0 if CLONE in included else own.commits
