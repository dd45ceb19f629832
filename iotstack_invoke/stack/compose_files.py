"""Which files compose reads to start and build a stack, and what its services mount.

The files are read as compose reads them, without running it: its output holds passwords, and lacks
the names of the files that it read. Each round reads all files found in the last one with one
command on the host. See https://docs.docker.com/reference/compose-file/.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import field

from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..hosts.base import Command, Host, sh
from .compose import Volume, is_bound
from .compose_text import (
    Budget,
    Node,
    NotRead,
    documents,
    entries,
    filled,
    is_off,
    is_on,
    items,
    scalar,
    variables,
)

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
SIZE_LIMIT = 1 << 20
"""The largest file that is read, in bytes."""
READ_LIMIT_S = 60.0
ROUNDS = 40
"""The maximum depth of files that name files."""
PATHS_AT_ONCE = 200
LETTERS_AT_ONCE = 60_000
"""The maximum length of a command: a shell gets it as one word, on Linux of up to 128 KiB."""
PATH_LIMIT = 4096
"""The longest path that Linux takes, in bytes."""
FETCHED_LIMIT = 5_000
"""The maximum number of paths that are examined for one stack."""

# For each WANT:PATH a line: its kind, and the content of a file if requested (t).
_READ = """
limit=$1; shift
content() { head -c "$limit" -- "$1" | base64 | tr -d '\\n'; }
for each; do
  path=${each#*:}
  if [ -d "$path" ]; then echo d
  elif [ -f "$path" ]; then
    case $each in
      k:*) echo f ;;
      *) if [ -r "$path" ]; then echo "f $(content "$path")"; else echo u; fi ;;
    esac
  elif [ -e "$path" ]; then echo o
  elif [ -x "${path%/*}/" ] && [ ! -L "$path" ]; then echo -
  else
    case $(LC_ALL=C ls -d -L -- "$path" 2>&1) in *"Permission denied") echo u ;; *) echo - ;; esac
  fi
done
"""
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://|git@|github\.com/|oci:", re.IGNORECASE)
_NO_CONTEXT = re.compile(r"(docker-image|service|target|https?|git|ssh)[:@]|git@|github\.com/")


@dataclass(frozen=True, slots=True)
class ComposeMount:
    """A mount of a service, as in its compose file."""

    source: str
    """An absolute path of the host; '' for a volume that has none."""
    target: str
    writable: bool
    volume_name: str = ""
    """Docker's name of a named volume; '' for a path and for an anonymous volume."""


@dataclass(frozen=True, slots=True)
class ComposeService:
    """A service of a compose file."""

    name: str
    container_name: str
    """'' if the file sets none."""
    image: str
    mounts: tuple[ComposeMount, ...]
    starts: bool = True
    """Compose starts it: it has no profile, or an active one."""


@dataclass(frozen=True, slots=True)
class ComposeReads:
    """What compose reads to start and build a stack."""

    inside: tuple[str, ...] = ()
    """Existing files and folders, relative to the stack's folder, outermost only."""
    outside: tuple[str, ...] = ()
    """Those outside the stack's folder: absolute paths."""
    missing: tuple[str, ...] = ()
    """Missing files that compose needs; relative to the stack's folder if they would be in it."""
    services: tuple[ComposeService, ...] = ()
    unread: tuple[str, ...] = ()
    """What could not be determined, and why: sentences."""
    project: str = ""
    """The name of the compose project; '' without a compose file."""
    volumes: tuple[Volume, ...] = ()
    """The named volumes that services mount, as compose would have Docker create them."""


@dataclass(frozen=True, slots=True)
class Given:
    """The files given to compose by `--file` and `--env-file`: absolute paths."""

    directory: str
    """The folder to which their relative paths refer."""
    files: tuple[str, ...]
    env_files: tuple[str, ...] = ()


def compose_reads(
    host: Host, folder: str, as_root: tuple[str, ...], given: Collection[Given] = ()
) -> ComposeReads:
    """Return what compose reads of the stack in `folder`; nothing without a compose file.

    `given`: other files that containers of the stack were created from, if they still exist.
    """
    seen = _Seen(host, as_root)
    try:
        environment, real = _surroundings(host, folder)
        for _ in range(ROUNDS):
            walk = _Walk(folder, real, environment, seen)
            walk.begin()
            for each in given:
                walk.take(each)
            reads = walk.reads()
            if not seen.fetch():
                return reads
    except StepFailed as error:
        return ComposeReads(unread=(f"Could not find the files that compose reads: {error}",))
    said = "The files that compose reads refer to each other too often: not all were found."
    return ComposeReads(
        *(reads.inside, reads.outside, reads.missing, reads.services),
        (*reads.unread, said),
        reads.project,
    )


def _surroundings(host: Host, folder: str) -> tuple[dict[str, str], str]:
    """Return the environment variables of a command on a host, and the folder without links."""
    script = 'realpath -m -- "$1" | base64 | tr -d "\\n"; echo; env -0 | base64 | tr -d "\\n"'
    command = Command(sh(script, folder), timeout_s=READ_LIMIT_S)
    real, _, told = host.run(command).out.partition("\n")
    pairs = base64.b64decode(told).decode("utf-8", "surrogateescape").split("\0")
    environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    environment["PWD"] = folder
    real = base64.b64decode(real).decode("utf-8", "surrogateescape").rstrip("\n")
    return environment, real or folder


@dataclass(slots=True)
class _Seen:
    """Files that were examined on the host, and requested ones that were not yet."""

    host: Host
    as_root: tuple[str, ...]
    kinds: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    parsed: dict[str, tuple[Node, ...]] = field(default_factory=dict)
    wanted: dict[str, bool] = field(default_factory=dict)
    """Paths, and whether their content is wanted."""

    def kind(self, path: str) -> str:
        """Return f, d, o (something else), u (unknown), - (missing), '' until fetched."""
        if path not in self.kinds:
            self.wanted.setdefault(path, False)
        return self.kinds.get(path, "")

    def want(self, paths: Iterable[str]) -> None:
        """Request files for the next round, if they exist."""
        self.wanted |= dict.fromkeys((path for path in paths if path not in self.kinds), True)

    def text(self, path: str) -> str:
        """Return the content of a file, '' until fetched; raises NotRead if it is not a file."""
        kind = self.kind(path)
        if not kind or (kind == "f" and path not in self.texts):
            self.wanted[path] = True
        elif kind == "u":
            raise NotRead("permission denied")
        elif kind in ("d", "o"):
            raise NotRead("it is not a regular file")
        text = self.texts.get(path, "")
        if len(text) > SIZE_LIMIT:
            raise NotRead(f"it is larger than {SIZE_LIMIT >> 20} MiB")
        return text

    def documents(self, path: str) -> tuple[Node, ...]:
        """Return the YAML documents of a file; raises NotRead."""
        text = self.text(path)
        if path not in self.parsed:
            found = documents(text)
            if path not in self.texts:
                return ()
            self.parsed[path] = found
        return self.parsed[path]

    def fetch(self) -> bool:
        """Examine what is requested; return False if nothing is."""
        wanted = list(self.wanted.items())
        self.wanted = {}
        if len(self.kinds) + len(wanted) > FETCHED_LIMIT:
            raise StepFailed(f"they name more than {FETCHED_LIMIT} files.")
        words = [f"{'t' if text else 'k'}:{path}" for path, text in wanted]
        for some in _batches(words):
            command = Command(
                (*self.as_root, *sh(_READ, str(SIZE_LIMIT + 1), *some)),
                timeout_s=READ_LIMIT_S,
                label="checking the files that compose reads",
            )
            lines = self.host.run(command).out.splitlines()
            if len(lines) != len(some):
                raise StepFailed(f"{self.host.name} listed {len(lines)} of {len(some)} files.")
            for word, line in zip(some, lines, strict=True):
                path = word.partition(":")[2]
                self.kinds[path], has_text, content = line.partition(" ")
                if has_text:
                    self.texts[path] = base64.b64decode(content).decode("utf-8-sig", "replace")
        return bool(wanted)


@dataclass(slots=True)
class _Service:
    """A service while its files are merged; each value is kept by its key."""

    texts: dict[str, str] = field(default_factory=dict)
    needs: dict[str, list[tuple[str, bool]]] = field(default_factory=dict)
    """Paths, and whether compose fails without them."""
    names: dict[str, list[str]] = field(default_factory=dict)
    mounts: dict[str, ComposeMount] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    """Compose starts it only if one of these is active; always if there are none."""
    tags: dict[str, str] = field(default_factory=dict)

    def over(self, base: _Service) -> _Service:
        """Return the result of merging it over `base`."""
        cleared = {key for key, tag in self.tags.items() if tag in ("!reset", "!override")}
        texts = {k: v for k, v in base.texts.items() if _top(k) not in cleared} | self.texts
        needs = {k: v for k, v in base.needs.items() if _top(k) not in cleared}
        names = {k: v for k, v in base.names.items() if _top(k) not in cleared}
        mounts = {} if "volumes" in cleared else base.mounts
        profiles = () if "profiles" in cleared else base.profiles
        return _Service(
            texts=texts,
            needs=needs | {k: [*needs.get(k, []), *v] for k, v in self.needs.items()},
            names=names | {k: [*names.get(k, []), *v] for k, v in self.names.items()},
            mounts=mounts | self.mounts,
            profiles=(*profiles, *self.profiles),
        )


def _top(key: str) -> str:
    return key.partition(".")[0]


@dataclass(frozen=True, slots=True)
class _Here:
    """The context of a value: the folder for relative paths, and the variables."""

    path: str
    directory: str
    values: Mapping[str, str]
    chain: tuple[tuple[str, str], ...] = ()
    """The chain of includes and extended services, to detect cycles."""


class _Walk:
    """One walk through the files that have been read so far."""

    def __init__(
        self, folder: str, real: str, environment: Mapping[str, str], seen: _Seen
    ) -> None:
        self.folder = os.path.normpath(folder)
        self.tops = tuple(dict.fromkeys((self.folder, os.path.normpath(real))))
        self.environment = environment
        self.seen = seen
        self.budget = Budget()
        self.needs: dict[str, bool] = {}
        self.unread: dict[str, None] = {}
        self.services: dict[str, _Service] = {}
        self.volumes: dict[str, list[tuple[Node, _Here]]] = {}
        """The definitions of a named volume in each file; a later one overrides an earlier one."""
        self.files: dict[tuple[str, str], str] = {}
        """The file of each secret and config, by ("secrets", name)."""
        self.made: dict[str, Volume] = {}
        self.project = ""
        self.profiles: frozenset[str] = frozenset()
        self.values: Mapping[str, str] = {}

    # Top-level values

    def begin(self) -> None:
        values: Mapping[str, str] = self.environment
        chosen = [each for each in values.get("COMPOSE_ENV_FILES", "").split(",") if each]
        for each in reversed(chosen or [".env"]):
            file = self._path(each, self.folder)
            values = self._with_file(file, values, required=bool(chosen))
        separator = values.get("COMPOSE_PATH_SEPARATOR") or ":"
        named = [each for each in values.get("COMPOSE_FILE", "").split(separator) if each]
        local = [each for each in named if not _REMOTE.match(each)]
        for each in sorted(set(named) - set(local)):
            self._tell(f"{_without_login(each)} is not on this machine, so it was not read.")
        paths = [path for each in local if (path := self._path(each, self.folder))]
        if not named:
            paths = self._usual()
        if not paths:
            return
        directory = os.path.dirname(paths[0])
        if directory != self.folder:
            values = self._with_file(f"{directory}/.env", values, required=False)
        self.project = values.get("COMPOSE_PROJECT_NAME", "")
        profiles = values.get("COMPOSE_PROFILES", "").split(",")
        self.profiles = frozenset(each.strip() for each in profiles)
        self.values = values
        self._load(paths, _Here(paths[0], directory, values))
        self.project = self.project or project_name(os.path.basename(directory))

    def take(self, given: Given) -> None:
        """Read the files that compose was given, over what was read of the stack."""
        values: Mapping[str, str] = {**self.environment, **self.values}
        for path in reversed(given.env_files):
            if self.seen.kind(path) == "f":
                values = self._with_file(path, values, required=False)
        files = [path for path in given.files if self.seen.kind(path) == "f"]
        if not {*files} <= self.needs.keys():
            self._load(files, _Here(files[0], given.directory, values))

    def _usual(self) -> list[str]:
        """Return the compose file and its override; none without a compose file."""
        found: list[list[str]] = []
        for names in (NAMES, OVERRIDES):
            paths = [f"{self.folder}/{name}" for name in names]
            self.seen.want(paths)
            there = [path for path in paths if self.seen.kind(path) not in ("", "-", "d")]
            found.append(there[:1])
        return [*found[0], *found[1]] if found[0] else []

    def _with_file(
        self, path: str, known: Mapping[str, str], *, required: bool
    ) -> Mapping[str, str]:
        """Return the variables, extended by a file of variables."""
        if path == os.devnull or (not required and self.seen.kind(path) in ("d", "o")):
            return known
        self._need(path, required=required)
        try:
            return {**variables(self.seen.text(path), known), **known}
        except NotRead as why:
            self._tell(f"{self._shown(path)} was not read: {why}.")
            return known

    def _load(self, paths: Iterable[str], here: _Here) -> None:
        """Read compose files of one project, each over the ones before it."""
        merged: dict[str, _Service] = {}
        includes: list[tuple[Node, _Here]] = []
        for path in paths:
            mine = _Here(path, here.directory, here.values, here.chain)
            self._need(path, required=True)
            try:
                for document in self.seen.documents(path):
                    self._document(document, mine, merged, includes)
            except NotRead as why:
                self._tell(f"{self._shown(path)} was not read: {why}.")
        for name, service in merged.items():
            self.services.setdefault(name, service)
        for node, mine in includes:
            try:
                self._include(node, mine)
            except NotRead as why:
                self._tell(f"{self._shown(mine.path)} was not read: {why}.")

    def _document(
        self,
        document: Node,
        here: _Here,
        merged: dict[str, _Service],
        includes: list[tuple[Node, _Here]],
    ) -> None:
        top = entries(document, self.budget)
        if document.id != "mapping":
            raise NotRead("it is not a mapping")
        includes += [(each, here) for each in items(top.get("include"), self.budget)]
        if not here.chain and (name := self._fill(top.get("name"), here)):
            self.project = self.environment.get("COMPOSE_PROJECT_NAME") or (
                here.values.get("COMPOSE_PROJECT_NAME") or project_name(name)
            )
        for name, node in entries(top.get("volumes"), self.budget).items():
            self.volumes.setdefault(name, []).append((node, here))
        for kind in ("secrets", "configs"):
            for name, node in entries(top.get(kind), self.budget).items():
                if file := self._fill(entries(node, self.budget).get("file"), here, "path"):
                    self.files[kind, name] = self._path(file, here.directory)
        services = entries(top.get("services"), self.budget)
        if not services and "services" not in top and "include" not in top:
            services = _of_version_1(top)
        for name, node in services.items():
            service = self._service(name, node, here, services)
            merged[name] = service.over(merged[name]) if name in merged else service

    def _include(self, node: Node, here: _Here) -> None:
        told = entries(node, self.budget)
        listed = items(told.get("path"), self.budget) if node.id == "mapping" else (node,)
        named = [text for each in listed if (text := self._fill(each, here, "path"))]
        for each in named:
            if _REMOTE.match(each):
                self._tell(f"{_without_login(each)} is not on this machine, so it was not read.")
        local = [each for each in named if not _REMOTE.match(each)]
        paths = [path for each in local if (path := self._path(each, here.directory))]
        if not paths:
            return
        if ("include", paths[0]) in here.chain or len(here.chain) > ROUNDS:
            self._tell(f"{self._shown(here.path)} includes itself.")
            return
        directory = os.path.dirname(paths[0])
        if named_folder := self._fill(told.get("project_directory"), here, "path"):
            directory = self._path(named_folder, here.directory)
        values = here.values
        files = [
            self._fill(each, here, "path") for each in items(told.get("env_file"), self.budget)
        ]
        for file in reversed([each for each in files if each]):
            values = self._with_file(self._path(file, here.directory), values, required=True)
        if not files:
            values = self._with_file(f"{directory}/.env", values, required=False)
        chain = (*here.chain, ("include", paths[0]))
        self._load(paths, _Here(paths[0], directory, values, chain))

    # Values of a service

    def _service(self, name: str, node: Node, here: _Here, beside: Mapping[str, Node]) -> _Service:
        told = entries(node, self.budget)
        service = _Service(tags={key: each.tag for key, each in told.items()})
        for key in ("image", "container_name"):
            if text := self._fill(told.get(key), here):
                service.texts[key] = text
        for key in ("env_file", "label_file"):
            service.needs[key] = list(self._files(told.get(key), here))
        credentials = entries(told.get("credential_spec"), self.budget)
        if file := self._fill(credentials.get("file"), here, "path"):
            service.needs["credential_spec"] = [(self._path(file, here.directory), True)]
        service.needs["develop"] = list(self._watched(told.get("develop"), here))
        for kind in ("secrets", "configs"):
            service.names[kind] = self._names(told.get(kind), here)
        listed = items(told.get("profiles"), self.budget)
        service.profiles = tuple(self._fill(each, here) for each in listed)
        if build := told.get("build"):
            self._build(build, here, service)
        volumes = told.get("volumes")
        for each in items(volumes, self.budget) if volumes is not None else ():
            if mount := self._mount(each, here):
                service.mounts[mount.target] = mount
        base = self._extended(name, told.get("extends"), here, beside)
        return service.over(base) if base else service

    def _extended(
        self, name: str, node: Node | None, here: _Here, beside: Mapping[str, Node]
    ) -> _Service | None:
        if node is None:
            return None
        told = entries(node, self.budget)
        wanted = self._fill(told.get("service"), here) or self._fill(node, here)
        file = self._fill(told.get("file"), here, "path")
        if not wanted:
            return None
        if _REMOTE.match(file):
            self._tell(f"{_without_login(file)} is not on this machine, so it was not read.")
            return None
        path, directory = here.path, here.directory
        if file:
            path = self._path(file, here.directory)
            directory = os.path.dirname(path)
            self._need(path, required=True)
            beside = {}
            try:
                for document in self.seen.documents(path):
                    top = entries(document, self.budget)
                    beside |= entries(top.get("services"), self.budget) or _of_version_1(top)
            except NotRead as why:
                self._tell(f"{self._shown(path)} was not read: {why}.")
                return None
        link = (path, wanted)
        if link in here.chain or len(here.chain) > ROUNDS:
            self._tell(f"{self._shown(path)}: service {wanted} extends itself.")
            return None
        if wanted not in beside:
            if path in self.seen.texts:
                self._tell(
                    f"{self._shown(here.path)}: service {name} extends {wanted}, which is not in "
                    f"{self._shown(path)}."
                )
            return None
        there = _Here(path, directory, here.values, (*here.chain, (here.path, name), link))
        return self._service(wanted, beside[wanted], there, beside)

    def _files(self, node: Node | None, here: _Here) -> Iterable[tuple[str, bool]]:
        """Return the files of `env_file` or `label_file`, and whether each is required."""
        single = node is not None and node.id == "mapping"
        for each in (node,) if single else items(node, self.budget):
            told = entries(each, self.budget)
            text = self._fill(told.get("path", each), here, "path")
            if path := self._path(text, here.directory) if text else "":
                yield path, not is_off(told.get("required"))

    def _watched(self, node: Node | None, here: _Here) -> Iterable[tuple[str, bool]]:
        """Return the paths that `docker compose watch` watches in the stack; it starts nothing."""
        for each in items(entries(node, self.budget).get("watch"), self.budget):
            text = self._fill(entries(each, self.budget).get("path"), here, "path")
            path = self._path(text, here.directory) if text else ""
            if self._inside(path) not in (None, "."):
                yield path, False

    def _names(self, node: Node | None, here: _Here) -> list[str]:
        """Return the used secrets or configs: a text, or the `source` of a mapping."""
        listed = (
            entries(each, self.budget).get("source", each) for each in items(node, self.budget)
        )
        return [name for each in listed if (name := self._fill(each, here))]

    def _build(self, node: Node, here: _Here, service: _Service) -> None:
        told = entries(node, self.budget)
        context = self._fill(told.get("context", node), here, "path")
        if context:
            is_far = _REMOTE.match(context)
            service.texts["build.context"] = (
                context if is_far else self._path(context, here.directory)
            )
        elif node.id == "mapping":  # used if no other file names one
            service.texts["build.usual"] = here.directory
        if file := self._fill(told.get("dockerfile"), here, "path"):
            service.texts["build.dockerfile"] = file
        if "dockerfile_inline" in told:
            service.texts["build.inline"] = "yes"
        service.names["build.secrets"] = self._names(told.get("secrets"), here)
        more = told.get("additional_contexts")
        texts = [self._fill(each, here, "path") for each in entries(more, self.budget).values()]
        listed = items(more, self.budget)
        texts += [self._fill(each, here, "path").partition("=")[2] for each in listed]
        service.needs["build.contexts"] = [
            (path, True)
            for text in texts
            if text and not _NO_CONTEXT.match(text)
            if (path := self._path(text.removeprefix("oci-layout://"), here.directory))
        ]
        service.needs["build.ssh"] = list(self._keys(told.get("ssh"), here))

    def _keys(self, node: Node | None, here: _Here) -> Iterable[tuple[str, bool]]:
        """Return the files of the keys that a build logs in with, without the login's agent."""
        told = [self._fill(each, here) for each in entries(node, self.budget).values()]
        for each in items(node, self.budget):
            told += self._fill(each, here).partition("=")[2].split(",")
        for text in told:
            if path := self._path(text, here.directory) if text else "":
                yield path, False

    def _mount(self, node: Node, here: _Here) -> ComposeMount | None:
        if node.id == "mapping":
            told = entries(node, self.budget)
            kind = self._fill(told.get("type"), here) or "volume"
            source = self._fill(told.get("source", told.get("src")), here, "path")
            target = self._fill(told.get("target", told.get("destination", told.get("dst"))), here)
            read_only = is_on(told.get("read_only")) or is_on(told.get("readonly"))
            is_path = kind == "bind"
            if kind not in ("bind", "volume"):
                return None
        else:
            source, target, mode = _split(self._fill(node, here, "path"))
            read_only = "ro" in mode.split(",")
            is_path = source.startswith((".", "/", "~"))
        target = target.rstrip("/") or target
        if not target:
            return None
        if not is_path:  # named at the end, when all files have defined their volumes
            return ComposeMount("", target, not read_only, source)
        path = self._path(source, here.directory)
        return ComposeMount(path, target, not read_only) if path else None

    # Values and paths

    def _fill(self, node: Node | None, here: _Here, what: str = "") -> str:
        """Return a text with its variables replaced; reports variables without value in a path."""
        unset: set[str] = set()
        text = filled(scalar(node), here.values, unset)
        if what:
            for name in sorted(unset):
                self._tell(
                    f"{self._shown(here.path)} uses the variable {name} in a path, but it has no "
                    "value."
                )
        return text

    def _path(self, text: str, directory: str) -> str:
        """Return an absolute path, '' if the path is impossible on any system."""
        if text == "~" or text.startswith("~/"):
            text = self.environment.get("HOME", "") + text[1:]
        path = os.path.normpath(os.path.join(directory, text))
        path = re.sub("^//", "/", path)
        try:
            is_path = len(path.encode()) < PATH_LIMIT and "\0" not in path
        except UnicodeEncodeError:
            is_path = False
        if not is_path:
            self._tell("The compose files have a path that cannot exist; it was ignored.")
        return path if is_path else ""

    def _need(self, path: str, *, required: bool) -> None:
        if path:
            self.needs[path] = required or self.needs.get(path, False)

    def _tell(self, sentence: str) -> None:
        self.unread[sentence] = None

    def _inside(self, path: str) -> str | None:
        """Return a path relative to the stack's folder, None if it is not in it."""
        for top in self.tops:
            if path == top:
                return "."
            if path.startswith(f"{top.rstrip('/')}/"):
                return path[len(top.rstrip("/")) + 1 :]
        return None

    def _shown(self, path: str) -> str:
        return self._inside(path) or path

    # Results

    def reads(self) -> ComposeReads:
        """Return the result of the files that have been read so far."""
        for service in self.services.values():
            self._need_of(service)
        for path in self.files.values():
            self._need(path, required=False)
        services = tuple(
            ComposeService(
                name=name,
                container_name=service.texts.get("container_name", ""),
                image=service.texts.get("image", ""),
                mounts=tuple(self._named(each) for each in service.mounts.values()),
                starts=self._starts(service),
            )
            for name, service in sorted(self.services.items())
        )
        inside, outside, missing = set(), set(), set()
        for path, required in self.needs.items():
            kind, within = self.seen.kind(path), self._inside(path)
            if kind == "o":  # a device or a socket holds nothing that could be packed
                continue
            if kind == "-":
                if required:
                    missing.add(within or path)
            elif kind == "u":
                self._tell(f"Cannot check {self._shown(path)}: permission denied.")
            elif within is None:
                outside.add(path)
            else:
                inside.add(within)
        return ComposeReads(
            inside=_outermost(inside),
            outside=_outermost(outside),
            missing=tuple(sorted(missing)),
            services=services,
            unread=tuple(self.unread),
            project=self.project,
            volumes=tuple(each for _, each in sorted(self.made.items())),
        )

    def _starts(self, service: _Service) -> bool:
        profiles = set(service.profiles)
        return not profiles or bool(profiles & self.profiles) or "*" in self.profiles

    def _need_of(self, service: _Service) -> None:
        starts = self._starts(service)
        for needs in service.needs.values():
            for path, required in needs:
                self._need(path, required=required and starts)
        for key, names in service.names.items():
            kind = "secrets" if key == "build.secrets" else key
            for name in names:
                self._need(self.files.get((kind, name), ""), required=starts)
        context = service.texts.get("build.context") or service.texts.get("build.usual", "")
        if not context or _REMOTE.match(context):
            return
        self._need(context, required=starts)
        if "build.inline" in service.texts or self.seen.kind(context) != "d":
            return
        file = self._path(service.texts.get("build.dockerfile", "Dockerfile"), context)
        if file:
            self._need(file, required=starts)
            self._need(f"{file}.dockerignore", required=False)

    def _named(self, mount: ComposeMount) -> ComposeMount:
        """Return a mount with Docker's name of its volume."""
        key = mount.volume_name
        if not key:
            return mount
        if key not in self.made:
            try:
                self.made[key] = self._volume(key)
            except NotRead as why:
                self._tell(f"Could not find out which volume {key} is: {why}.")
                self.made[key] = Volume(f"{self.project}_{key}", "", key=key)
        volume = self.made[key]
        source = volume.device if volume.is_folder else ""
        return ComposeMount(source, mount.target, mount.writable, volume.name)

    def _volume(self, key: str) -> Volume:
        """Return a named volume as compose would have Docker create it."""
        told: dict[str, Node] = {}
        options: dict[str, str] = {}
        here = _Here("", self.folder, self.values)
        for node, here in self.volumes.get(key, ()):
            told |= entries(node, self.budget)
            own = entries(entries(node, self.budget).get("driver_opts"), self.budget)
            options |= {name: self._fill(each, here) for name, each in own.items()}
            if "device" in own and is_bound(options):
                device = self._fill(own["device"], here, "path")
                options["device"] = self._path(device, here.directory) if device else ""
        outer = told.get("external")
        named = self._fill(told.get("name"), here)
        named = named or self._fill(entries(outer, self.budget).get("name"), here)
        if not named:
            is_external = is_on(outer) or (outer is not None and outer.id == "mapping")
            named = key if is_external else f"{self.project}_{key}"
        return Volume(
            named,
            "",
            self._fill(told.get("driver"), here) or "local",
            key,
            device=options.get("device", ""),
            filesystem=options.get("type", ""),
            options=tuple(options.items()),
        )


def project_name(text: str) -> str:
    """Return the project name that compose derives from a folder's name."""
    return re.sub("[^-_a-z0-9]", "", text.lower()).lstrip("_-")


def _split(text: str) -> tuple[str, str, str]:
    """Return source, target and mode of a mount's short form."""
    parts = text.split(":")
    if len(parts) == 1:
        return "", text, ""
    return parts[0], parts[1], ",".join(parts[2:])


def _of_version_1(top: Mapping[str, Node]) -> dict[str, Node]:
    """Return the services of a file without `services`: the oldest form has them at its top."""
    return {
        name: node
        for name, node in top.items()
        if node.id == "mapping"
        and not name.startswith("x-")
        and any(key.value in ("image", "build", "extends") for key, _ in node.value)
    }


def _outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Return paths without those below another one; the stack's own folder hides none."""
    mine = set(paths)
    found = []
    for path in mine:
        above, top = path, False
        while (above := os.path.dirname(above)) not in ("", "/"):
            top = top or above in mine
        if not top:
            found.append(path)
    return tuple(sorted(found))


def _batches(words: Iterable[str]) -> Iterable[list[str]]:
    """Yield the arguments of one command after the other."""
    batch: list[str] = []
    letters = 0
    for word in words:
        length = len(shlex.quote(word).encode()) + 1
        if batch and (len(batch) == PATHS_AT_ONCE or letters + length > LETTERS_AT_ONCE):
            yield batch
            batch, letters = [], 0
        batch.append(word)
        letters += length
    if batch:
        yield batch


def _without_login(text: str) -> str:
    """Return an address without the user and password in it."""
    return re.sub(r"//[^/@]*@", "//", text)
