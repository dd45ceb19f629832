"""Verifies a portable InfluxDB 1.x dump from its files alone, in one pass.

influxd exits 0 with a shard cut in the middle, and its restore checks neither gzip's checksum nor
the size in the manifest. This module does, and checks that catalogue, list and shards agree. Files
may come in any order and from streams that cannot seek, such as a tar being read. The module does
not know where they come from and queries no server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import IO, Any, Final

from ...core.dataclass import dataclass
from ...core.gzip_streams import Damaged
from .meta import INTERNAL, Catalogue, ShardPlace, read_meta
from .shard import Shard, is_tsm, read_shard


@dataclass(frozen=True, slots=True)
class ShardFact:
    """What the dump holds of one shard; `start_ns` is None if the catalogue lacks the shard."""

    id: int
    database: str
    policy: str
    start_ns: int | None
    file: str
    bytes: int  # of the tar inside, as in the manifest
    tsm: tuple[tuple[str, int], ...]  # member name without folders, size; a restore keeps both


@dataclass(frozen=True, slots=True)
class DumpReport:
    """Whether a dump is complete (no problems) and what is in it.

    `again`: a second dump may cure the problems. `shards` leaves out InfluxDB's own statistics,
    which are only counted: a restore leaves them out as well.
    """

    problems: tuple[str, ...]
    again: bool
    databases: tuple[str, ...]
    shards: tuple[ShardFact, ...]
    internal_shards: int
    continuous_queries: int
    users: int
    catalogue: Catalogue | None  # None if the dump has no readable catalogue


QUERIES_FILE = "continuous-queries.influxql"
"""Beside a dump, one CREATE statement on each line; its catalogue holds the same."""


class DumpCheck:
    """Takes the files of one dump one by one, then reports on all of them together."""

    def __init__(self) -> None:
        self._manifests: dict[str, _Manifest] = {}
        self._catalogues: dict[str, Catalogue | Damaged] = {}
        self._shards: dict[str, Shard] = {}
        self._early = _Problems()

    def add(self, name: str, stream: IO[bytes]) -> None:
        """Read one file to its end, or to the first damage; ignores folders in `name`.

        Raises only what reading `stream` raises. Memory use is constant, however large the file
        is.
        """
        name = name.rpartition("/")[2]
        if name == QUERIES_FILE:
            return
        known = _NAME.fullmatch(name)
        if not known:
            unfinished = name.endswith((".00", ".pending"))
            what = "left by an unfinished dump" if unfinished else "not part of a dump"
            self._early.add(f"{name}: {what}.", again=unfinished)
        elif name in self._shards or name in self._catalogues or name in self._manifests:
            self._early.add(f"{name}: there twice.")
        elif known["shard"]:
            self._shards[name] = read_shard(stream)
        elif known["kind"] == "meta":
            self._catalogues[name] = _read_catalogue(stream)
        else:
            self._manifests[name] = _read_manifest(name, stream)

    def report(self) -> DumpReport:
        """Return the report on all files added so far; more may be added afterwards."""
        problems = _Problems(self._early)
        newest = self._newest(problems)
        catalogue = self._catalogue(newest, problems)
        self._find_strangers(newest, problems)
        places = catalogue.places if catalogue else None
        facts = [fact for listed in newest.files if (fact := self._fact(listed, places, problems))]
        return DumpReport(
            problems=tuple(problems.told),
            again=problems.again,
            databases=catalogue.names if catalogue else (),
            shards=tuple(each for each in facts if each.database != INTERNAL),
            internal_shards=sum(each.database == INTERNAL for each in facts),
            continuous_queries=len(catalogue.continuous_queries) if catalogue else 0,
            users=len(catalogue.users) if catalogue else 0,
            catalogue=catalogue,
        )

    def _newest(self, problems: _Problems) -> _Manifest:
        """The newest manifest, which counts: names begin with the time, so it is the last one."""
        if not self._manifests:
            problems.add("No .manifest found: the dump was not finished.", again=True)
            return _Manifest("", "", 0, (), "")
        names = sorted(self._manifests)
        if len(names) > 1:
            problems.add(
                f"{len(names)} dumps share this folder ({', '.join(names)}); a restore would mix "
                "them. Write every dump to a new, empty folder."
            )
        newest = self._manifests[names[-1]]
        if newest.damage:
            problems.add(f"{newest.name}: {newest.damage}.", again=True)
        return newest

    def _catalogue(self, newest: _Manifest, problems: _Problems) -> Catalogue | None:
        if not newest.meta_file:  # already reported; without a manifest show what there is
            return next((c for c in self._catalogues.values() if isinstance(c, Catalogue)), None)
        found = self._catalogues.get(newest.meta_file)
        if found is None:
            problems.add(f"{newest.meta_file}: the catalogue is missing.", again=True)
            return None
        if isinstance(found, Damaged):
            problems.add(f"{newest.meta_file}: {found}.", again=True)
            return None
        if found.size_bytes != newest.meta_bytes:
            problems.add(
                f"{newest.meta_file}: the catalogue has {found.size_bytes} bytes, but the "
                f"manifest has {newest.meta_bytes}.",
                again=True,
            )
        return found

    def _find_strangers(self, newest: _Manifest, problems: _Problems) -> None:
        if newest.damage or not newest.name:
            return
        listed = {each.file for one in self._manifests.values() for each in one.files}
        listed |= {each.meta_file for each in self._manifests.values()}
        for name in sorted({*self._shards, *self._catalogues} - listed):
            problems.add(f"{name}: not in a manifest, so left by another dump.")

    def _fact(
        self, listed: _ListedShard, places: Mapping[int, ShardPlace] | None, problems: _Problems
    ) -> ShardFact | None:
        """Return what is known of one file of the manifest; None if it is missing or damaged."""
        where = f"{listed.file} (database {listed.database}, shard {listed.id})"
        place = places.get(listed.id) if places is not None else None
        if places is not None and not place and listed.database != INTERNAL:
            problems.add(
                f"{where}: not in the dump's catalogue, so it would not be restored. It was made "
                f"while the dump ran.",
                again=True,
            )
        elif place and (place.database, place.policy) != (listed.database, listed.policy):
            problems.add(f"{where}: the catalogue lists it under {place.database}.{place.policy}.")
        shard = self._shards.get(listed.file)
        if shard is None:
            problems.add(f"{where}: the file is missing.", again=True)
            return None
        folder = f"{listed.database}/{listed.policy}/{listed.id}/"
        if shard.damage:
            problems.add(f"{where}: {shard.damage}.", again=shard.again)
            return None
        if shard.bytes != listed.bytes:
            problems.add(
                f"{where}: has {shard.bytes} bytes, but the manifest has {listed.bytes}.",
                again=True,
            )
        elif stranger := next((n for n, _ in shard.members if not n.startswith(folder)), ""):
            problems.add(f"{where}: contains {stranger}, which belongs to another shard.")
        return ShardFact(
            id=listed.id,
            database=listed.database,
            policy=listed.policy,
            start_ns=place.start_ns if place else None,
            file=listed.file,
            bytes=shard.bytes,
            tsm=tuple((n.rpartition("/")[2], s) for n, s in shard.members if is_tsm(n)),
        )


_NAME = re.compile(
    r"\d{8}T\d{6}Z\.(s(?P<shard>\d+)\.tar\.gz|(?P<kind>meta|manifest))", flags=re.ASCII
)
_CHUNK: Final = 256 * 1024
_SMALL_BYTES: Final = 8 * 1024 * 1024  # a manifest of 40,000 shards


@dataclass(frozen=True, slots=True)
class _ListedShard:
    id: int
    database: str
    policy: str
    file: str
    bytes: int


@dataclass(frozen=True, slots=True)
class _Manifest:
    name: str
    meta_file: str
    meta_bytes: int
    files: tuple[_ListedShard, ...]
    damage: str


class _Problems:
    def __init__(self, before: _Problems | None = None) -> None:
        self.told: list[str] = list(before.told) if before else []
        self.again: bool = before.again if before else False

    def add(self, text: str, *, again: bool = False) -> None:
        self.told.append(text)
        self.again = self.again or again


def _read_small(stream: IO[bytes]) -> bytes:
    data = bytearray()
    while piece := stream.read(_CHUNK):  # a pipe may return less than requested
        data += piece
        if len(data) > _SMALL_BYTES:
            raise ValueError(f"it has more than {_SMALL_BYTES} bytes")
    return bytes(data)


def _read_catalogue(stream: IO[bytes]) -> Catalogue | Damaged:
    try:
        return read_meta(_read_small(stream))
    except ValueError as error:
        return Damaged(str(error))


def _read_manifest(name: str, stream: IO[bytes]) -> _Manifest:
    try:
        found = json.loads(_read_small(stream))
        meta, files = found["meta"], found["files"]
        return _Manifest(
            name=name,
            meta_file=str(meta["fileName"]),
            meta_bytes=int(meta["size"]),
            files=tuple(_listed(each) for each in files or ()),  # null in a dump without shards
            damage="",
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        return _Manifest(name, "", 0, (), f"the manifest cannot be read ({error})")


def _listed(entry: Any) -> _ListedShard:
    listed = _ListedShard(
        id=int(entry["shardID"]),
        database=str(entry["database"]),
        policy=str(entry["policy"]),
        file=str(entry["fileName"]),
        bytes=int(entry["size"]),
    )
    named = _NAME.fullmatch(listed.file)
    if not named or named["shard"] != str(listed.id):
        raise ValueError(f"{listed.file} is not a file name for shard {listed.id}")
    return listed
