"""What the containers of a restored stack need and the backup does not hold, reported early.

Images to pull or build, and variables without a value: on a machine where all containers are
created. Changes nothing. The caller reports if that is unknown (StepFailed).
"""

from __future__ import annotations

import contextlib
import posixpath
import shlex
import tarfile
from collections.abc import Iterable, Iterator, Mapping

from ...backups.manifest import Manifest
from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...core.stack_folders import FOLDERS
from ...environment.stack_host import StackHost
from ...hosts.base import Command, Storage
from ...hosts.inspect import entries, read_text
from ...stack.compose import COMPOSE_FILES, chosen_files, is_top_file
from ...stack.compose_needs import ComposeNeeds, compose_needs
from ...stack.compose_text import variables
from .planner import OVERRIDES

MOST_BEFORE = 1000
"""The limit, in members and bytes of a general part, up to which top files are searched.

They come first; earlier versions packed the copies of SQLite files before them.
"""
MOST_BYTES_BEFORE = 64 << 20
TOP_FILE_BYTES = 1 << 20
PULL_LIMIT_S = 60.0
# Docker reports that it has no such image; other errors mean that the query failed.
NOT_THERE = (
    'for i; do said=$({docker} image inspect -- "$i" 2>&1 >/dev/null) || case $said in '
    '*[Nn]"o such image"*) echo "$i" ;; *) echo "$said" >&2; exit 1 ;; esac; done'
)


@dataclass(frozen=True, slots=True)
class Needed:
    """What newly created containers need."""

    told: tuple[str, ...]
    """Messages on it."""
    warnings: tuple[str, ...]
    needs: ComposeNeeds
    """The same in the form of the compose files, with the containers."""


class _Enough(Exception):
    """Stops reading a stream: its sender is ended, as after a read error."""


def top_texts(storage: Storage, archive: str) -> dict[str, str] | None:
    """Return the top files of a general part, which come before its first folder.

    None if they are not found near its beginning, or it cannot be read.
    """
    found: dict[str, str] = {}
    is_known = False
    with (
        contextlib.suppress(_Enough, StepFailed, OSError, EOFError, tarfile.TarError),
        storage.read(archive) as stream,
        tarfile.open(fileobj=stream, mode="r|*") as tar,
    ):
        for number, member in enumerate(tar):
            name = member.name.removeprefix("./")
            is_known = bool(found) and name in FOLDERS
            is_far = number > MOST_BEFORE or member.offset + member.size > MOST_BYTES_BEFORE
            if is_far or name in FOLDERS:
                raise _Enough
            content = tar.extractfile(member) if member.isreg() else None
            if content and is_top_file(name) and member.size <= TOP_FILE_BYTES:
                found[name] = content.read().decode("utf-8", "replace")
        is_known = True
    return found if is_known else None


def needed(
    target: StackHost,
    manifest: Manifest | None,
    packed: Mapping[str, str],
    *,
    from_backup: bool,
) -> Needed:
    """Return what newly created containers need, and which these are.

    `packed`: the top files of the backup. `from_backup`: they count, and not the present ones.
    """
    there = entries(target.host, target.folder)

    def text(name: str) -> str:
        if name in there and not (from_backup and name in packed):
            return read_text(target.host, f"{target.folder}/{name}", target.as_root)
        return packed.get(name, "")

    usual = next((each for each in COMPOSE_FILES if each in packed or each in there), "")
    compose = chosen_files(text(".env")) or (
        usual,
        *(OVERRIDES if usual in COMPOSE_FILES[:1] else ()),
    )
    known = {**_environment(target), **variables(text(".env"), {})}
    needs = compose_needs(map(text, compose), known)
    told = [
        f"{title}: {', '.join(names)}"
        for title, names in (
            ("images to pull (not on this machine)", _not_there(target, needs.images)),
            ("services whose image must be built", _built(target, needs)),
        )
        if names
    ]
    return Needed(tuple(told), tuple(_warnings(target, manifest, needs)), needs)


def _warnings(target: StackHost, manifest: Manifest | None, needs: ComposeNeeds) -> Iterator[str]:
    included = manifest.included("general") if manifest else ()
    for service, context, _ in needs.builds:
        path = posixpath.normpath(posixpath.join(target.folder, context))
        place = posixpath.relpath(path, target.folder)
        is_packed = any(f"{place}/".startswith(f"{each}/") for each in (*FOLDERS, *included))
        if "://" in context or is_packed or target.host.stat([path]):
            continue
        yield (
            f"Service {service} is built in {place}, which is neither here nor in the backup, so "
            "its container cannot be created. Put the folder there first; IOTstack's .templates "
            "come with its clone."
        )
    if needs.unset:
        names = ", ".join(needs.unset)
        yield f"The compose file uses variables that .env does not set: {names}. They are empty."


def _environment(target: StackHost) -> dict[str, str]:
    """Return the environment of the login there: compose uses it besides `.env`."""
    told = target.host.run(Command(("env", "-0"), timeout_s=PULL_LIMIT_S)).out
    pairs = (line.partition("=") for line in told.split("\0"))
    return {name: value for name, equals, value in pairs if equals}


def _built(target: StackHost, needs: ComposeNeeds) -> list[str]:
    lacking = set(_not_there(target, [image for _, _, image in needs.builds if image]))
    return [name for name, _, image in needs.builds if not image or image in lacking]


def _not_there(target: StackHost, images: Iterable[str]) -> list[str]:
    """Return the images that Docker must pull; raises StepFailed if it does not answer."""
    wanted = sorted(set(images))
    if not wanted:
        return []
    script = NOT_THERE.format(docker=shlex.join(target.docker))
    told = target.host.run(Command(("sh", "-c", script, "sh", *wanted), timeout_s=PULL_LIMIT_S))
    return told.out.split()
