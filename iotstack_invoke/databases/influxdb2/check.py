"""What `influx backup` of InfluxDB 2 must print and write; its files are read once. Pure.

Written from its documentation and its source, influxdata/influx-cli: not tested with a real
server. A shard comes by HTTP, so an error is reported; a file cut on the disk is found as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import IO, Any, Final

from ...core.dataclass import dataclass
from ...core.gzip_streams import Content, Damaged
from ..influxdb.shard import read_shard

EXPERIMENTAL = "experimental: InfluxDB 2 was written from its documentation"
BOLT = "data/influxd.bolt"
"""The catalogue with the tokens: with it a server starts that can load the rest."""

_CHUNK: Final = 256 * 1024
_SMALL_BYTES: Final = 64 * 1024 * 1024
_T = r"(?:\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )?"
_BEGUN = re.compile(rf"{_T}INFO: Downloading metadata snapshot")
_SHARD = re.compile(rf"{_T}INFO: Backing up TSM for shard (\d+)")
_REMOVED = re.compile(rf"{_T}WARN: Shard (\d+) removed during backup")
_WARNING = re.compile(rf"{_T}WARN: (.*)")
_ERROR = re.compile(rf"{_T}(?:Error|error|ERROR): (.*)")
_NOT_LET_IN = re.compile(r"\b(401|403)\b|unauthorized|forbidden", re.IGNORECASE)
NOT_LET_IN_ADVICE = (
    "Its token is missing or is not an operator token: `influx backup` uses the one in the "
    "container's INFLUX_TOKEN or in /etc/influxdb2/influx-configs (volumes/influxdb2/config)."
)
_MAGIC: Final = {
    ".bolt": (16, b"\xed\xda\x0c\xed", "bolt database"),
    ".sqlite": (0, b"SQLite format 3\0", "SQLite database"),
}
"""Marks of each kind of snapshot by offset: its first page, behind its header of 16 bytes."""


@dataclass(frozen=True, slots=True)
class Influx2Verdict:
    """The verdict on the output of a backup and its exit code; without problems they are good."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    again: bool
    """A second dump may cure the problems."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of the newest dump, with the packed size of its shards."""

    organization: str
    name: str
    shards: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Influx2Report:
    """What a part holds; without problems it is complete."""

    problems: tuple[str, ...]
    buckets: tuple[Bucket, ...] = ()


def shard_of(line: str) -> int | None:
    """Return the shard whose backup a line reports, if any."""
    found = _SHARD.fullmatch(line.strip())
    return int(found[1]) if found else None


def judge_lines(lines: Sequence[str], exit_code: int) -> Influx2Verdict:
    """Return the verdict on a whole log; unknown lines prove nothing.

    A shard that expired during the dump is no loss.
    """
    told = [line.strip() for line in lines if line.strip()]
    errors = [found[1] for line in told if (found := _ERROR.fullmatch(line))]
    problems = [f"InfluxDB: {each.rstrip('.')}." for each in dict.fromkeys(errors)]
    if exit_code and not errors:
        last = told[-1] if told else "no message"
        problems.append(f"influx backup ended with exit code {exit_code}: {last}")
    if not exit_code and not any(_BEGUN.fullmatch(line) for line in told):
        problems.append("Its output does not confirm the catalogue.")
    let_in = not _NOT_LET_IN.search(" ".join(problems))
    if not let_in:
        problems.append(NOT_LET_IN_ADVICE)
    warnings = [
        f"InfluxDB says: {found[1]}"
        for line in told
        if not _REMOVED.fullmatch(line) and (found := _WARNING.fullmatch(line))
    ]
    full = any("no space left" in line for line in told)
    return Influx2Verdict(tuple(problems), tuple(warnings), bool(problems) and let_in and not full)


@dataclass(slots=True)
class _File:
    """The facts of a file."""

    size_bytes: int
    damage: str = ""


@dataclass(slots=True)
class _ListedFiles:
    """The files of one manifest with their sizes, and its buckets."""

    files: dict[str, int] = field(default_factory=dict)
    buckets: tuple[Bucket, ...] = ()
    damage: str = ""


class Influx2Check:
    """Takes the files of one part one by one, then reports on all of them together."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._manifests: dict[str, _ListedFiles] = {}
        self._has_bolt = False

    def add(self, name: str, stream: IO[bytes]) -> None:
        """Read one file to its end, or to the first damage.

        Raises only what reading `stream` raises.
        """
        name = name.removeprefix("./")
        if name == BOLT:
            self._has_bolt = not _damage(".bolt", stream)
        folder, _, plain = name.rpartition("/")
        if folder != "backup":
            return
        if plain.endswith(".manifest"):
            self._manifests[plain] = _read_manifest(stream)
            return
        counted = _CountedStream(stream)
        damage = ""
        if plain.endswith(".tar.gz"):
            damage = read_shard(counted).damage  # type: ignore[arg-type]
        elif plain.endswith(".gz"):
            damage = _packed_damage(plain.removesuffix(".gz"), counted)
        counted.drain()
        self._files[plain] = _File(counted.size_bytes, damage)

    def report(self) -> Influx2Report:
        """Return the report on all files."""
        problems = []
        if not self._has_bolt:
            problems.append(f"{BOLT} is missing, or is not a bolt database.")
        if not self._manifests:
            problems.append("No .manifest found: the dump was not finished.")
        for name, listed in sorted(self._manifests.items()):
            if listed.damage:
                problems.append(f"{name}: {listed.damage}.")
            problems += self._compare(listed.files)
        newest = self._manifests[max(self._manifests)] if self._manifests else _ListedFiles()
        return Influx2Report(tuple(dict.fromkeys(problems)), newest.buckets)

    def _compare(self, listed: Mapping[str, int]) -> Iterator[str]:
        """Yield the problems of the files of a manifest."""
        for name, size_bytes in listed.items():
            found = self._files.get(name)
            if found is None:
                yield f"{name}: the file is missing."
            elif found.size_bytes != size_bytes:
                yield (
                    f"{name}: it has {found.size_bytes:,} bytes, but the manifest has "
                    f"{size_bytes:,}."
                )
            elif found.damage:
                yield f"{name}: {found.damage}."


def facts_of(report: Influx2Report) -> dict[str, object]:
    """Return the facts about a part for our manifest, as plain values."""
    return {
        "experimental": True,
        "buckets": [
            {
                "organization": each.organization,
                "bucket": each.name,
                "shards": each.shards,
                "size_bytes": each.size_bytes,
            }
            for each in report.buckets
        ],
    }


class _CountedStream:
    """A stream whose bytes are counted while they are read."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.size_bytes = 0

    def read(self, size: int = _CHUNK) -> bytes:
        data = self._source.read(size)
        self.size_bytes += len(data)
        return data

    def drain(self) -> None:
        """Read the rest."""
        while self.read():
            pass


def _packed_damage(name: str, stream: Any) -> str:
    """Return the problem of a packed snapshot, read to its end."""
    content = Content(stream)
    try:
        damage = _damage(name, content)
        content.end()
    except Damaged as error:
        return str(error)
    return damage


def _damage(name: str, stream: Any) -> str:
    """Return the problem of a snapshot that is read to its end, by its first bytes."""
    begun = b""
    while piece := stream.read(_CHUNK):
        if len(begun) < _CHUNK:
            begun += piece
    for ending, (at, magic, title) in _MAGIC.items():
        if name.endswith(ending) and begun[at : at + len(magic)] != magic:
            return f"it is not a {title}"
    return ""


def _read_manifest(stream: IO[bytes]) -> _ListedFiles:
    data = bytearray()
    while piece := stream.read(_CHUNK):
        data += piece
        if len(data) > _SMALL_BYTES:
            return _ListedFiles(damage=f"it has more than {_SMALL_BYTES:,} bytes")
    try:
        content = json.loads(bytes(data))
        entries = [content["kv"], *([content["sql"]] if content.get("sql") else [])]
        buckets = []
        for each in content["buckets"] or ():
            shards = list(_shards(each))
            entries += shards
            sizes = [int(shard["size"]) for shard in shards]
            names = (str(each["organizationName"]), str(each["bucketName"]))
            buckets.append(Bucket(*names, len(shards), sum(sizes)))
        files = {_plain_name(each["fileName"]): int(each["size"]) for each in entries}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return _ListedFiles(damage=f"the manifest cannot be read ({error!r})")
    return _ListedFiles(files, tuple(sorted(buckets, key=lambda e: (e.organization, e.name))))


def _shards(bucket: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    for policy in bucket["retentionPolicies"] or ():
        for group in policy["shardGroups"] or ():
            yield from group["shards"] or ()


def _plain_name(name: Any) -> str:
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f"{name!r} is not a file name")
    return name
