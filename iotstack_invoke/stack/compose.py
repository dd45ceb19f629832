"""A stack as Docker and its compose project describe it: files, containers. Changes nothing.

Containers are found by `docker inspect` and their labels, never by searching the output of
`docker ps`, in which "influxdb2" is an "influxdb" too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from ..core.dataclass import dataclass
from ..core.errors import StepFailed, ended
from ..core.stack_folders import RESTORE
from ..hosts.base import ANY_EXIT, Command, FileFact, Host, Result, is_telling, sh
from ..hosts.json_answers import JsonAnswer, read_json
from ..hosts.local import LocalHost, checked
from ..services.containers import Container
from ..services.known import is_in_stack, is_of_restores

COMPOSE_FILES = ("docker-compose.yml", "docker-compose.yaml", "compose.yml", "compose.yaml")
WORKING_FOLDER_LABEL = "com.docker.compose.project.working_dir"
PROJECT_LABEL = "com.docker.compose.project"
CONFIG_FILES_LABEL = "com.docker.compose.project.config_files"
ENV_FILES_LABEL = "com.docker.compose.project.environment_file"
VOLUME_LABEL = "com.docker.compose.volume"
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
ANONYMOUS = re.compile(r"[0-9a-f]{64}")
"""The form of Docker's name for an anonymous volume."""
_GONE = re.compile("no such (?!file or directory)", re.IGNORECASE)
"""Docker's message for a missing object.

Since Docker 29 it reports about its own socket: `connect: no such file or directory`.
"""
_ON_A_DISK = ("ext4", "btrfs", "xfs", "f2fs", "vfat", "exfat", "ntfs")
_SOCKET = re.compile(r"docker\.sock|dial unix|daemon socket|docker API")
LOOK_LIMIT_S = 60


@dataclass(frozen=True, slots=True)
class Mount:
    """A path of the host that a container sees under another name."""

    on_host: str
    """With links followed."""
    inside: str
    told: str = ""
    """The path that Docker was given, if links lead elsewhere from there."""
    volume: str = ""
    """The name of the volume; '' for a plain path."""
    writable: bool = True

    @property
    def source(self) -> str:
        """The path that Docker was given."""
        return self.told or self.on_host


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as `docker volume inspect` describes it."""

    name: str
    mountpoint: str
    driver: str = "local"
    key: str = ""
    """Its name in the compose file; '' if compose did not create it."""
    anonymous: bool = False
    """It belongs to one container: no compose file names it."""
    device: str = ""
    """The folder of this machine that it stands for, or the remote source that it mounts."""
    filesystem: str = ""
    """The type of its mount, such as nfs; `none` for a folder of this machine."""
    is_away: bool = False
    """Its device is not mounted now, so its folder is empty."""
    options: tuple[tuple[str, str], ...] = ()
    """Its driver options, pairs of a key and a value, which may be a secret."""

    @property
    def is_folder(self) -> bool:
        """Whether it stands for a folder of this machine."""
        bound = is_bound(dict(self.options))  # the kernel needs no type then
        return self.device.startswith("/") and (bound or self.filesystem in ("", "none"))

    @property
    def on_device(self) -> bool:
        """Whether its files are on a device that Docker mounts while a container uses it."""
        return self.filesystem in _ON_A_DISK

    @property
    def is_local(self) -> bool:
        """Whether its files are on this machine."""
        return self.driver == "local" and self.filesystem in ("", "none", *_ON_A_DISK)


@dataclass(frozen=True, slots=True)
class InspectedContainer:
    """A container as `docker inspect` describes it."""

    container: Container
    mounts: tuple[Mount, ...]
    published_port: int
    """The host's port for its port 8086; 0 if not published."""
    address: str
    """Its own address on a network of the host; '' if it has none."""
    working_folder: str
    started: str = ""
    """Its start time, as text that sorts."""
    paused: bool = False
    """It is paused: it counts as not running."""
    restarting: bool = False
    """It has ended, and Docker is about to restart it."""
    health: str = ""
    """The result of its health check, in Docker's words; '' without one."""
    restarts: int = 0
    """How often Docker restarted it since its last manual start."""
    pid: int = 0
    """The host's id of its first process; 0 if it does not run."""
    project: str = ""
    """The compose project it belongs to; '' if compose did not create it."""
    compose_files: tuple[str, ...] = ()
    """The compose files that it was created from, and the files of variables: absolute paths."""
    env_files: tuple[str, ...] = ()


def is_bound(options: Mapping[str, str]) -> bool:
    """Return whether the options of a volume make it stand for an existing path."""
    return not {"bind", "rbind"}.isdisjoint(options.get("o", "").split(","))


def is_top_file(name: str) -> bool:
    """Return whether a file beside `services/` and `volumes/` belongs to the stack.

    The compose file and its overrides, `.env` and other `*.env`: without them a restored stack
    does not start.
    """
    return name.endswith((".yml", ".yaml", ".env")) and "\n" not in name


def top_files(names: Mapping[str, FileFact]) -> tuple[str, ...]:
    """Return the top files of a stack among the entries of its folder."""
    return tuple(
        sorted(name for name, fact in names.items() if not fact.is_folder and is_top_file(name))
    )


def reason_of_refusal(said: str) -> str:
    """Return Docker's message that a user may not use its socket, without the request's URL."""
    return "permission denied" if _SOCKET.search(said) else said


def inspect_all(
    host: Host, docker: tuple[str, ...] = ("docker",), limit_s: float = LOOK_LIMIT_S
) -> tuple[InspectedContainer, ...]:
    """Return every container that Docker knows, running or not.

    `limit_s` is the time limit of each query. Raises StepFailed if Docker is missing or does not
    answer.
    """
    try:
        listed = host.run(
            Command((*docker, "ps", "--all", "--quiet", "--no-trunc"), timeout_s=limit_s)
        )
    except StepFailed as error:
        why, advice = str(error), ""
        if "permission denied" in why:
            advice = (
                " Add this user to the docker group (`sudo usermod -aG docker $USER`), and log "
                "in again."
            )
            why = f"On {host.name}: {reason_of_refusal(why)}" if _SOCKET.search(why) else why
        raise StepFailed(f"Docker does not answer: {ended(why)}{advice}") from error
    ids = listed.out.split()
    if not ids:
        return ()
    # A container may be removed between the two commands.
    containers = _told_of(host, (*docker, "inspect", "--type", "container"), ids, limit_s)
    digests = _digests(host, docker, {each["Image"].text() for each in containers}, limit_s)
    return _without_links(host, tuple(_found(each, digests) for each in containers))


def inspected(host: Host, words: tuple[str, ...], limit_s: float = LOOK_LIMIT_S) -> str:
    """Return Docker's answer about objects, some of which may be gone: it then exits with 1.

    Raises StepFailed if the query failed otherwise.
    """
    return _asked(host, words, limit_s).out


def _told_of(
    host: Host, words: tuple[str, ...], names: Iterable[str], limit_s: float
) -> tuple[JsonAnswer, ...]:
    """Return Docker's answer for each named object that still exists; raises StepFailed."""
    asked = tuple(names)
    told = _asked(host, (*words, *asked), limit_s)
    source = f"`{' '.join(words)}` on {host.name}"
    found = read_json(told.out or "[]", source).items()
    if not told.exit_code and len(found) < len(asked):
        raise StepFailed(f"{source} listed only {len(found)} of the {len(asked)} asked for.")
    return found


def _asked(host: Host, words: tuple[str, ...], limit_s: float) -> Result:
    """Return the result of a query as for `inspected`; raises StepFailed."""
    command = Command(words, frozenset({0, 1}), limit_s)
    told = host.run(command)
    said = [line for line in told.err.splitlines() if is_telling(line)]
    others = [line for line in said if not _GONE.search(line)]
    if told.exit_code and others:
        strict = replace(command, accept=frozenset({0}))
        checked(strict, replace(told, err="\n".join(others)), host.name)
    return told


def _without_links(
    host: Host, found: tuple[InspectedContainer, ...]
) -> tuple[InspectedContainer, ...]:
    """Return the containers with links followed, which only their own machine can do."""
    folders = {each.working_folder for each in found}
    folders |= {
        os.path.dirname(f) for each in found for f in (*each.compose_files, *each.env_files)
    }
    mounted = {mount.on_host for each in found for mount in each.mounts}
    paths = sorted({path for path in folders | mounted if path.startswith("/")})
    if isinstance(host, LocalHost):
        real = {path: os.path.realpath(path) for path in paths}
    else:
        script = 'for f; do realpath -m -z -- "$f" 2>/dev/null || printf "%s\\0" "$f"; done'
        told = host.run(Command(sh(script, *paths))).out.split("\0")
        real = dict(zip(paths, told, strict=False))

    def followed(mount: Mount) -> Mount:
        path = real.get(mount.on_host, mount.on_host)
        return replace(mount, on_host=path, told=mount.on_host if path != mount.on_host else "")

    def lying(files: tuple[str, ...]) -> tuple[str, ...]:
        split = map(os.path.split, files)
        return tuple(os.path.join(real.get(folder, folder), name) for folder, name in split)

    return tuple(
        replace(
            each,
            working_folder=real.get(each.working_folder, each.working_folder),
            compose_files=lying(each.compose_files),
            env_files=lying(each.env_files),
            mounts=tuple(map(followed, each.mounts)),
        )
        for each in found
    )


def inspect_volumes(
    host: Host,
    names: Iterable[str],
    docker: tuple[str, ...] = ("docker",),
    limit_s: float = LOOK_LIMIT_S,
) -> dict[str, Volume]:
    """Return the existing volumes with these names."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    found = map(_volume, _told_of(host, (*docker, "volume", "inspect"), wanted, limit_s))
    return {each.name: each for each in found}


def volumes_of(
    host: Host,
    project: str,
    docker: tuple[str, ...] = ("docker",),
    limit_s: float = LOOK_LIMIT_S,
) -> tuple[str, ...]:
    """Return the names of the volumes that compose created for a stack, sorted."""
    label = f"label={PROJECT_LABEL}={project}"
    words = (*docker, "volume", "ls", "--quiet", "--filter", label)
    return tuple(sorted(host.run(Command(words, timeout_s=limit_s)).out.split()))


def _volume(told: JsonAnswer) -> Volume:
    labels, options = told["Labels"].text_entries(), told["Options"].text_entries()
    name, key = told["Name"].text(), labels.get(VOLUME_LABEL, "")
    return Volume(
        name,
        told["Mountpoint"].text(""),
        told["Driver"].text("local"),
        key,
        anonymous=ANONYMOUS_LABEL in labels or (not key and bool(ANONYMOUS.fullmatch(name))),
        device=options.get("device", ""),
        filesystem=options.get("type", ""),
        options=tuple(options.items()),
    )


def _digests(
    host: Host, docker: tuple[str, ...], images: Iterable[str], limit_s: float
) -> dict[str, str]:
    """Return the registry digest of each image id; one built on the Pi has none."""
    wanted = sorted(images)
    if not wanted:
        return {}
    told = inspected(host, (*docker, "image", "inspect", *wanted), limit_s)
    found = read_json(told or "[]", f"`docker image inspect` on {host.name}").items()
    return {
        each["Id"].text(): next(iter(each["RepoDigests"].texts()), "").rpartition("@")[2]
        for each in found
    }


def _found(told: JsonAnswer, digests: Mapping[str, str]) -> InspectedContainer:
    state, config, network = told["State"], told["Config"], told["NetworkSettings"]
    labels = config["Labels"].text_entries()
    folder = labels.get(WORKING_FOLDER_LABEL, "")
    published = network["Ports"]["8086/tcp"].items(or_none=True)
    addresses = [each["IPAddress"].text("") for each in network["Networks"].entries().values()]
    paused = state["Paused"].flag(default=False)
    return InspectedContainer(
        container=Container(
            name=told["Name"].text().lstrip("/"),
            image=config["Image"].text(""),
            image_id=told["Image"].text(),
            digest=digests.get(told["Image"].text(), ""),
            running=state["Running"].flag() and not paused,
        ),
        mounts=tuple(map(_mount, told["Mounts"].items())),
        published_port=published[0]["HostPort"].digits(0) if published else 0,
        address=next(filter(None, addresses), ""),
        working_folder=folder,
        started=state["StartedAt"].text(""),
        paused=paused,
        restarting=state["Restarting"].flag(default=False),
        health=state["Health"]["Status"].text(""),
        restarts=told["RestartCount"].number(0),
        pid=state["Pid"].number(0),
        project=labels.get(PROJECT_LABEL, ""),
        compose_files=_listed(labels, CONFIG_FILES_LABEL, folder),
        env_files=_listed(labels, ENV_FILES_LABEL, folder),
    )


def _listed(labels: Mapping[str, str], label: str, folder: str) -> tuple[str, ...]:
    """Return the paths in a label; compose v1 writes them as they were typed."""
    told = filter(None, labels.get(label, "").split(","))
    return tuple(os.path.normpath(os.path.join(folder, each)) for each in told)


def _mount(told: JsonAnswer) -> Mount:
    volume = told["Name"].text("") if told["Type"].text("") == "volume" else ""
    source, inside = told["Source"].text(""), told["Destination"].text()
    return Mount(source, inside, "", volume, told["RW"].flag(default=True))


def chosen_files(variables: str) -> tuple[str, ...]:
    """Return the compose files that COMPOSE_FILE names in the text of an `.env`."""
    if "COMPOSE_FILE" not in variables:
        return ()
    from .compose_text import variables as read_variables  # imports a parser that is rarely needed

    values = read_variables(variables, {})
    separator = values.get("COMPOSE_PATH_SEPARATOR") or ":"
    return tuple(filter(None, values.get("COMPOSE_FILE", "").split(separator)))


def compose_words(host: Host, docker: tuple[str, ...] = ("docker",)) -> tuple[str, ...]:
    """Return the words before a compose command: v2's plugin, or else v1's program.

    `docker` may begin with `sudo -n`. Raises StepFailed if there is neither.
    """
    for words in ((*docker, "compose"), (*docker[:-1], "docker-compose")):
        asked = Command((*words, "version"), accept=ANY_EXIT, timeout_s=LOOK_LIMIT_S)
        if host.run(asked).exit_code == 0:
            return words
    raise StepFailed(
        f"{host.name} has neither `docker compose` nor `docker-compose`: install "
        "docker-compose-plugin or docker-compose."
    )


def of_stack(
    found: Iterable[InspectedContainer], folder: str, named_there: Collection[str] = ()
) -> tuple[InspectedContainer, ...]:
    """Return the containers that belong to the stack in `folder`, by name.

    A container belongs to it if it has the label of its compose project, mounts something of it
    (made with `docker run`, or by Portainer), or is named in its compose files (`named_there`).
    """
    here = os.path.realpath(folder)
    mine = (
        each
        for each in found
        if (each.working_folder and os.path.realpath(each.working_folder) == here)
        or each.container.name in named_there
        # Our own containers mount what a restore stages.
        or any(top != RESTORE for top in _tops_mounted(each, folder))
    )
    return tuple(sorted(mine, key=lambda each: each.container.name))


def _tops_mounted(found: InspectedContainer, folder: str) -> Iterator[str]:
    for mount in found.mounts:
        place = place_in_stack(mount, folder)
        if place is not None:
            yield place.partition("/")[0]


def place_in_stack(mount: Mount, folder: str) -> str | None:
    """Return the path of a mount, relative to the stack's folder; None if it is elsewhere.

    Uses the path that Docker was given if that is in the folder; else the target of its links.
    """
    for path in (mount.source, mount.on_host):
        for top in (folder, os.path.realpath(folder)):
            if path == top or path.startswith(f"{top}/"):
                return os.path.relpath(path, top)
    return None


def paths_in_stack(found: InspectedContainer, folder: str) -> tuple[str, ...]:
    """Return what a container mounts of the stack's folder, such as `volumes/x/data`."""
    places = {place_in_stack(mount, folder) for mount in found.mounts}
    mine = (each for each in places if each and is_in_stack(each) and not is_of_restores(each))
    return tuple(sorted(mine))


def named(found: Iterable[InspectedContainer], name: str) -> InspectedContainer | None:
    """Return the container with exactly that name; None if there is none."""
    return next((each for each in found if each.container.name == name), None)
