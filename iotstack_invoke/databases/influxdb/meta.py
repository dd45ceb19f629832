"""Reads the catalogue of a portable InfluxDB 1.x dump: the `.meta` file.

A portable restore discards users, grants and continuous queries (influxdb#24682, #21494). They are
all in this file, so a restore takes them from here. It reads bytes only and neither opens files
nor talks to a server.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import field
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from ...core.dataclass import dataclass

INTERNAL = "_internal"
"""The database of InfluxDB's own statistics: dumped, but never restored (influxdb#9565)."""


class DamagedCatalogue(ValueError):
    """The bytes are not a complete `.meta` file."""


class Grant(Enum):
    """What a user may do in one database; the numbers are InfluxDB's."""

    NOTHING = 0
    READ = 1
    WRITE = 2
    ALL = 3


@dataclass(frozen=True, slots=True)
class ShardGroup:
    """One span of time of a policy, [start_ns, end_ns), and the shards that hold it."""

    start_ns: int
    end_ns: int
    deleted_at_ns: int  # 0 while alive; a deleted group stays listed without a file
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """A retention policy; `duration_ns` 0 keeps data forever."""

    name: str
    duration_ns: int
    shard_duration_ns: int
    groups: tuple[ShardGroup, ...]


@dataclass(frozen=True, slots=True)
class ContinuousQuery:
    """A continuous query; running `text` creates it again."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class InfluxDatabase:
    """A database as the catalogue describes it, with or without data."""

    name: str
    default_policy: str
    policies: tuple[RetentionPolicy, ...]
    continuous_queries: tuple[ContinuousQuery, ...]


@dataclass(frozen=True, slots=True)
class User:
    """A user with grants as (database, grant).

    `raw` is the encoded message of the catalogue, password hash included: with its tag and length
    in front (`record`) it can be appended to a stopped server's meta.db, since protobuf merges
    repeated fields. Neither is shown by repr.
    """

    name: str
    admin: bool
    grants: tuple[tuple[str, Grant], ...]
    raw: bytes = field(repr=False)

    @property
    def record(self) -> bytes:
        """The bytes to append to meta.db: field 6, length, message."""
        return _packed(_USER, self.raw)

    def granted(self, grants: Iterable[tuple[str, Grant]]) -> User:
        """Return the user with further grants, for databases in which it has none yet."""
        known = {database for database, _ in self.grants}
        more = tuple((name, grant) for name, grant in grants if name not in known)
        added = b"".join(
            _packed(4, _packed(1, name.encode()) + bytes([2 << 3, grant.value]))
            for name, grant in more
        )
        return User(self.name, self.admin, (*self.grants, *more), self.raw + added)


class ShardPlace(NamedTuple):
    """Where a shard belongs in the catalogue; shard ids change in a restore, this does not."""

    database: str
    policy: str
    start_ns: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything in the `.meta` file that a backup or a restore needs."""

    databases: tuple[InfluxDatabase, ...]
    users: tuple[User, ...]
    size_bytes: int  # of the inner message: this, not the file's size, is in the manifest

    @property
    def names(self) -> tuple[str, ...]:
        """The databases' names in the catalogue's order, without InfluxDB's own."""
        return tuple(each.name for each in self.databases if each.name != INTERNAL)

    @property
    def shard_ids(self) -> frozenset[int]:
        """All shard ids, also InfluxDB's own and those of deleted groups."""
        return frozenset(self.places)

    @property
    def places(self) -> Mapping[int, ShardPlace]:
        """Shard id to its database, policy and start; computed at each call."""
        return MappingProxyType(
            {
                shard: ShardPlace(database.name, policy.name, group.start_ns)
                for database in self.databases
                for policy in database.policies
                for group in policy.groups
                for shard in group.shards
            }
        )

    @property
    def continuous_queries(self) -> tuple[tuple[str, ContinuousQuery], ...]:
        """All continuous queries, each with the name of its database."""
        return tuple(
            (database.name, query)
            for database in self.databases
            for query in database.continuous_queries
        )


def read_meta(data: bytes) -> Catalogue:
    """Return the contents of a `.meta` file.

    The file is plain protobuf without a header: {1: the catalogue as bytes, 2: highest node id}.
    Raises DamagedCatalogue if it is cut or is something else. It has no checksum: a flipped letter
    inside a name is not found.
    """
    packed = _fields(data)
    _number(packed, 2)  # required in InfluxDB's own schema: without it the end is missing
    inner = _last_bytes(packed, 1)
    top = _fields(inner)
    missing = [number for number in _REQUIRED_AT_TOP if number not in top]
    if missing:
        raise DamagedCatalogue("the catalogue is incomplete: some of its counters are missing")
    return Catalogue(
        databases=tuple(_database(each) for each in _messages(top, _DATABASE)),
        users=tuple(_user(each) for each in _messages(top, _USER)),
        size_bytes=len(inner),
    )


# Field numbers and what is required: services/meta/internal/meta.proto of InfluxDB 1.x.
_DATABASE = 5
_USER = 6
_REQUIRED_AT_TOP = (1, 2, 3, 7, 8, 9)  # term, index, cluster, highest node, group and shard id

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BITS = 64

_Fields = dict[int, list[int | bytes]]


def read_meta_db(data: bytes) -> Catalogue:
    """Return the contents of a server's own meta.db: it is the inner message of a `.meta` file.

    Raises DamagedCatalogue.
    """
    return read_meta(bytes([1 << 3 | _BYTES]) + _varint(len(data)) + data + bytes([2 << 3, 1]))


def with_databases(data: bytes, names: Collection[str]) -> bytes:
    """Return a server's meta.db with some of its databases, and without users."""
    kept = []
    begin = 0
    for number, value, end in _walked(data):
        if number == _DATABASE and isinstance(value, bytes):
            is_kept = _database(value).name in names
        else:
            is_kept = number != _USER
        if is_kept:
            kept.append(data[begin:end])
        begin = end
    return b"".join(kept)


def _database(data: bytes) -> InfluxDatabase:
    found = _fields(data)
    return InfluxDatabase(
        name=_text(found, 1),
        default_policy=_text(found, 2),
        policies=tuple(_policy(each) for each in _messages(found, 3)),
        continuous_queries=tuple(_query(each) for each in _messages(found, 4)),
    )


def _policy(data: bytes) -> RetentionPolicy:
    found = _fields(data)
    return RetentionPolicy(
        name=_text(found, 1),
        duration_ns=_signed(found, 2),
        shard_duration_ns=_signed(found, 3),
        groups=tuple(_group(each) for each in _messages(found, 5)),
    )


def _group(data: bytes) -> ShardGroup:
    found = _fields(data)
    return ShardGroup(
        start_ns=_signed(found, 2),
        end_ns=_signed(found, 3),
        deleted_at_ns=_signed(found, 4),
        shards=tuple(_number(_fields(each), 1) for each in _messages(found, 5)),
    )


def _query(data: bytes) -> ContinuousQuery:
    found = _fields(data)
    return ContinuousQuery(name=_text(found, 1), text=_text(found, 2))


def _user(data: bytes) -> User:
    found = _fields(data)
    _text(found, 2)  # the hash must be there, but stays in `raw`
    return User(
        name=_text(found, 1),
        admin=bool(_number(found, 3)),
        grants=tuple(_grant(each) for each in _messages(found, 4)),
        raw=data,
    )


def _grant(data: bytes) -> tuple[str, Grant]:
    found = _fields(data)
    try:
        return _text(found, 1), Grant(_number(found, 2))
    except ValueError as error:
        raise DamagedCatalogue(f"a user's grant is unknown: {error}") from None


def _fields(data: bytes) -> _Fields:
    """Field number to its values in the order of the message."""
    found: _Fields = {}
    for number, value in _walk(data):
        found.setdefault(number, []).append(value)
    return found


def _walk(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    return ((number, value) for number, value, _ in _walked(data))


def _walked(data: bytes) -> Iterator[tuple[int, int | bytes, int]]:
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield number, value, at
            continue
        if kind == _BYTES:
            size, at = _read_varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise DamagedCatalogue("the catalogue is not an InfluxDB catalogue")
        if number == 0 or at + size > len(data):
            raise DamagedCatalogue("the catalogue is cut or damaged")
        yield number, data[at : at + size], at + size
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, _VARINT_BITS + 6, 7):
        if at >= len(data):
            raise DamagedCatalogue("the catalogue is cut")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  # the continuation bit
            return value, at
    raise DamagedCatalogue("the catalogue is not an InfluxDB catalogue")


def _packed(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | _BYTES]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004  # seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _last(found: _Fields, number: int) -> int | bytes:
    if number not in found:
        raise DamagedCatalogue("the catalogue is incomplete: a required field is missing")
    return found[number][-1]


def _last_bytes(found: _Fields, number: int) -> bytes:
    value = _last(found, number)
    if isinstance(value, int):
        raise DamagedCatalogue("the catalogue is not an InfluxDB catalogue")
    return value


def _number(found: _Fields, number: int) -> int:
    value = _last(found, number)
    if not isinstance(value, int):
        raise DamagedCatalogue("the catalogue is not an InfluxDB catalogue")
    return value


def _signed(found: _Fields, number: int) -> int:
    """An int64: times before 1970 are negative, in two's complement."""
    value = _number(found, number)
    return value - (1 << _VARINT_BITS) if value >> (_VARINT_BITS - 1) else value


def _text(found: _Fields, number: int) -> str:
    return _last_bytes(found, number).decode("utf-8", errors="replace")


def _messages(found: _Fields, number: int) -> tuple[bytes, ...]:
    values = found.get(number, [])
    whole = tuple(each for each in values if isinstance(each, bytes))
    if len(whole) != len(values):
        raise DamagedCatalogue("the catalogue is not an InfluxDB catalogue")
    return whole
