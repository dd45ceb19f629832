"""The manifest of a set, and the records it is made of. Pure: text in, values out.

A set without a manifest is unfinished. Its records are in a file of JSON lines beside it, one for
each finished output, written before the output got its final name: they show a run that resumes
after a crash what is complete.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, field, fields
from datetime import UTC, datetime
from functools import lru_cache
from itertools import product
from operator import itemgetter
from typing import Any

from ..core.dataclass import dataclass
from ..core.runtag import is_runtag
from ..core.stack_folders import KEPT_OUT
from ..engine.steps import LACKING, Record
from ..services.containers import Container
from .names import KINDS, PARTS

FORMAT = "iotstack-invoke manifest 2"
"""Since format 2 a manifest ends with the SHA-256 of all text before it."""
KNOWN_FORMATS = ("iotstack-invoke manifest 1", FORMAT)
SUM = "sha256"
CHANGED = "it was changed since it was written"
RECORDS_ENDING = "unfinished.jsonl"
REMOVING_ENDING = "removing"
INCLUDED = "included"
"""Fact of the general part: what it holds besides services/, volumes/ and the top files."""
STAYS = "stays"
"""Fact of the general part: patterns that its owner left out; a restore leaves these in place."""
SIZES = "sizes"
"""Fact of the general and the outside part: bytes and files of its items, by path."""
SQLITE = "sqlite"
"""Fact of the same: the SQLite files that were copied, including damaged ones."""
IS_UNCOVERED = ") is not covered: "
"""In the warning about a container of which nothing is saved."""
IS_DAMAGED = " is a damaged database ("
"""In the warning about a SQLite file that was damaged before it was packed."""
IS_LOCKED = " stayed locked for "
IS_NO_COPY = " cannot be copied by SQLite ("
"""In the warnings about SQLite files that were packed while a program may have written them."""
MAY_BE_TORN = ", which may be torn"
"""In the same warnings: the consequence."""
IS_LESS_MEANT = "If this is intended, do nothing: the next backup is compared with this one."
"""In the warning about data of less than half its size in the previous backup."""
_IS_LESS_MEANT_BEFORE = "If that is meant, nothing is to be done"
"""The same in manifests of earlier versions."""
IS_A_DRIVE_AWAY = "Is a drive not mounted?"
IS_MISSING = "Missing: "
"""The beginning of the warning about databases that an earlier backup has."""
VOLUME = "volume:"
"""The prefix of a volume's name, where a path is possible too."""
OUTSIDE = "outside"
"""A part, and its fact: what it holds of the stack from outside of the stack's folder."""
LEFT_OUT = "left_out"
"""Fact of a server: what its dump leaves out, and why, a sentence each."""
VOLUME_OPTIONS = ("type", "device", "o")
"""The options of Docker's driver for local volumes, in the usual order."""
PIN_ENDING = "pin.txt"
"""The file beside a set that protects it from removal; it holds a note why."""
UTC_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
MOST_QUOTED = 60
MOST_BYTES = 16 << 20
"""A thousand times the size of a manifest."""
_SUM_BEGINS = b',\n "sha256": "'
_SUM_ENDS = b'"\n}\n'
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


@dataclass(frozen=True, slots=True)
class Part:
    """One archive of a set. `error` says why it was not made; then size and hash are empty."""

    kind: str
    file: str
    size_bytes: int = 0
    sha256: str = ""
    seconds: float = 0.0
    error: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lacking(self) -> Mapping[str, str]:
        """The containers whose dumps are missing in it, each with why.

        Or the part itself, under the name older_part, if it could not be made again.
        """
        told = self.facts.get(LACKING)
        return {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {}

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """What its dumps leave out, and why: pairs of a container and a sentence."""
        servers = self.facts.get("servers", ())
        return tuple((s["container"], each) for s in servers for each in s.get(LEFT_OUT, ()))


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something of the stack that no part holds, and why."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a set holds and how it was made. Times are UTC; `zone` is the local one."""

    runtag: str
    host: str
    program: str
    started_utc: str
    finished_utc: str
    zone: str
    parts: tuple[Part, ...]
    containers: tuple[Container, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()
    folder: str = ""
    """The folder of the stack; '' if an earlier version wrote it."""
    unused: tuple[str, ...] = ()
    """Contents of the stack's folder that are in no part, because no service uses them."""
    volumes: tuple[Mapping[str, Any], ...] = ()
    """The local volumes with driver options, such as a device: `name`, `key`, `options`
    and `left_out`, the names of options that are omitted since they may hold a secret."""
    rows: tuple[str, ...] = ()
    """The lines of hosts.toml that defined its contents."""
    machine: str = ""
    """What distinguishes its machine from others of that name, by machine_mark; '' if unknown."""

    @property
    def state(self) -> str:
        """`complete`, `warnings`, or `incomplete` if a part or a dump could not be made."""
        if self.lacking:
            return "incomplete"
        return "warnings" if self.warnings else "complete"

    @property
    def made(self) -> tuple[Part, ...]:
        """The parts that were made."""
        return tuple(part for part in self.parts if not part.error)

    def included(self, kind: str) -> tuple[str, ...]:
        """Return which paths a part holds besides those that all of its kind hold.

        For the general part, besides services/, volumes/ and the top files; for the outside part
        all, by the names of its members.
        """
        facts = next((part.facts for part in self.made if part.kind == kind), {})
        return (
            *facts.get(INCLUDED, ()),
            *(each["path"].lstrip("/") for each in facts.get(OUTSIDE, ())),
        )

    @property
    def outside(self) -> tuple[Mapping[str, Any], ...]:
        """The entries of the outside part: `path`, and what else is known of it."""
        found = (part.facts.get(OUTSIDE, ()) for part in self.made if part.kind == OUTSIDE)
        return tuple(each for rows in found for each in rows)

    @property
    def stays(self) -> tuple[str, ...]:
        """Patterns left out because no backup needs them; absolute outside of the stack."""
        return tuple(
            f"/{each}" if part.kind == OUTSIDE else each
            for part in self.made
            for each in part.facts.get(STAYS, ())
        )

    @property
    def sizes(self) -> Mapping[str, tuple[int, int]]:
        """Bytes and files of the stack's contents, by path; {} of an earlier version."""
        told = (part.facts.get(SIZES, {}) for part in self.made if part.kind != OUTSIDE)
        return {path: (size, files) for sizes in told for path, (size, files) in sizes.items()}

    @property
    def outside_sizes(self) -> Mapping[str, tuple[int, int]]:
        """Bytes and files of what is outside, by title; {} of an earlier version."""
        facts: Iterable[Mapping[str, Any]] = (e.facts for e in self.made if e.kind == OUTSIDE)
        told = {path: pair for each in facts for path, pair in each.get(SIZES, {}).items()}
        titles = {each["path"].lstrip("/"): outside_title(each) for each in self.outside}
        return {titles[path]: (size, n) for path, (size, n) in told.items() if path in titles}

    @property
    def uncovered(self) -> tuple[str, ...]:
        """The warnings about container data that no part holds."""
        return tuple(e for e in self.warnings if e.startswith("NOT COVERED") or IS_UNCOVERED in e)

    @property
    def damaged(self) -> tuple[str, ...]:
        """The warnings about databases that it holds damaged, as they were on its machine."""
        return tuple(each for each in self.warnings if IS_DAMAGED in each)

    @property
    def torn(self) -> tuple[str, ...]:
        """The warnings about databases that may be torn in it: no consistent copy was possible."""
        return tuple(each for each in self.warnings if MAY_BE_TORN in each)

    @property
    def unsound(self) -> frozenset[str]:
        """The SQLite files that it reports as damaged or torn, by path; outside ones from /."""
        return frozenset(map(file_warned_of, (*self.damaged, *self.torn)))

    @property
    def sqlite(self) -> Iterator[tuple[str, str]]:
        """The intact SQLite files in it, each with its part; a few hundred at most."""
        unsound = self.unsound
        for part in self.made:
            for name in part.facts.get(SQLITE, ()):
                if name not in unsound:
                    yield part.kind, name

    @property
    def of_data(self) -> tuple[str, ...]:
        """The warnings about data that is missing or damaged in it; damaged data comes first."""
        signs = (IS_A_DRIVE_AWAY, IS_LESS_MEANT, _IS_LESS_MEANT_BEFORE)
        lesser = tuple(
            each
            for each in self.warnings
            if each.startswith(IS_MISSING) or any(sign in each for sign in signs)
        )
        return tuple(dict.fromkeys((*self.damaged, *self.torn, *lesser, *self.uncovered)))

    @property
    def lacking(self) -> tuple[tuple[str, str], ...]:
        """What could not be made, such as `postgres part`, each with why."""
        parts = tuple((f"{part.kind} part", part.error) for part in self.parts if part.error)
        dumps = (
            (name if name == older_part(part.kind) else f"dump of container {name}", why)
            for part in self.made
            for name, why in part.lacking.items()
        )
        return (*parts, *dumps)

    @property
    def lacks(self) -> tuple[str, ...]:
        """What is missing in it and why, a sentence each."""
        return tuple(f"It has no {what}: {why}" for what, why in self.lacking)

    def to_json(self) -> str:
        """Return the text of the manifest file; bytes of names that are not UTF-8 are escaped."""
        content = asdict(self)
        content["parts"] = {part.pop("kind"): part for part in content["parts"]}
        ordered = {"format": FORMAT, "runtag": self.runtag, "state": self.state, **content}
        text = json.dumps(ordered, indent=1, ensure_ascii=False)
        return with_sum(text).decode()


def older_part(kind: str) -> str:
    """Return the entry, in place of a container, for a part that is left from an earlier run.

    No container can have this name.
    """
    return f"newer {kind} part"


def file_warned_of(warning: str) -> str:
    """Return the SQLite file that a warning reports as damaged or torn."""
    signs = (IS_DAMAGED, IS_LOCKED, IS_NO_COPY)
    return min((warning.partition(sign)[0] for sign in signs), key=len)


def outside_title(row: Mapping[str, Any]) -> str:
    """Return the title of an entry of the outside part: its path, or `volume:NAME`."""
    volume = row.get("volume") or row.get("anonymous")
    return f"{VOLUME}{volume}" if volume else str(row["path"])


def with_sum(text: str) -> bytes:
    """Return the JSON of a manifest with the SHA-256 of all before it as its last entry."""
    begun = text.removesuffix("\n}").encode("utf-8", "backslashreplace") + _SUM_BEGINS
    return begun + hashlib.sha256(begun).hexdigest().encode() + _SUM_ENDS


def has_sum(content: bytes) -> bool:
    """Return whether a manifest contains its SHA-256, correct or not."""
    told = _parse(content)
    return told["format"] != KNOWN_FORMATS[0] or SUM in told


def check_sum(content: bytes) -> None:
    """Raise ValueError if a manifest's checksum is wrong; format 1 has none."""
    _compare_sum(content, _parse(content))


def check_size(size_bytes: int) -> None:
    """Raise ValueError if a file is too large for a manifest, so that it is never read."""
    if size_bytes > MOST_BYTES:
        raise ValueError(f"it has {size_bytes:,} bytes, the most is {MOST_BYTES:,}")


def read_manifest(
    content: bytes | str, runtag: str = "", *, outline: bool = False, changed: bool = False
) -> Manifest:
    """Return the manifest in a file; raises ValueError if it is invalid.

    With `runtag` also if it is the manifest of another set. Its names of files, folders and
    containers are safe to use: none of them leads out of a folder, whoever wrote it.

    Keys of a later version are ignored. An `outline` is checked just as strictly, but keeps of
    its parts' facts only what they lack: a list holds thousands of sets, with many shards.
    With `changed` it is read even if its checksum differs.
    """
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    told = _parse(raw)
    if not changed:
        _compare_sum(raw, told)
    later = _LATER | _LATER_THAN_1 if told["format"] == KNOWN_FORMATS[0] else _LATER
    for name in _MANIFEST.types:
        if name not in told and name not in later:
            raise ValueError(f"it has no {name}")
    if not (isinstance(told["runtag"], str) and is_runtag(told["runtag"])):
        raise ValueError(f"{_quoted(told['runtag'])} is not a valid runtag")
    parts = _listed(told, "parts", dict)
    found = Manifest(
        *_MANIFEST.values(
            {
                **told,
                "parts": tuple(
                    _read_part(kind, part, told["runtag"], outline=outline)
                    for kind, part in parts.items()
                    if kind in PARTS
                ),
                "containers": tuple(
                    _container(*_CONTAINER.values(e)) for e in _listed(told, "containers", list)
                ),
                "left_out": tuple(
                    LeftOut(*_LEFT_OUT.values(e)) for e in _listed(told, "left_out", list)
                ),
                "warnings": _texts(told["warnings"]),
                "unused": _texts(told.get("unused", [])),
                "volumes": _read_volumes(told.get("volumes", [])),
                "rows": _texts(told.get("rows", [])),
            }
        )
    )
    for text_utc in (found.started_utc, found.finished_utc):
        read_utc(text_utc)
    if not found.parts:
        raise ValueError("it lists no part")
    if runtag and found.runtag != runtag:
        raise ValueError(f"it is the manifest of {found.runtag}")
    return found


def _parse(content: bytes) -> dict[str, Any]:
    """Return the table in a manifest's text; raises ValueError if it is not ours."""
    try:
        told = json.loads(content.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start:,} is not text") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, character {error.colno}"
        raise ValueError(f"it is empty, incomplete or not valid JSON ({where})") from error
    except RecursionError as error:
        raise ValueError("it is not a manifest") from error
    if not isinstance(told, dict) or not isinstance(told.get("format"), str):
        raise ValueError("it has no format")  # noqa: TRY004 - damage, like all of these
    if told["format"] not in KNOWN_FORMATS:
        known = " and ".join(each.rpartition(" ")[2] for each in KNOWN_FORMATS)
        raise ValueError(
            f"its format is {_quoted(told['format'])}, but this version reads manifest {known}"
        )
    return told


def _compare_sum(content: bytes, told: Mapping[str, Any]) -> None:
    if told["format"] == KNOWN_FORMATS[0] and SUM not in told:
        return
    cut = len(content) - len(_SUM_ENDS) - 64
    digits = hashlib.sha256(content[: max(cut, 0)]).hexdigest().encode()
    if not content.endswith(_SUM_BEGINS + digits + _SUM_ENDS):
        raise ValueError(CHANGED)


def _quoted(value: Any) -> str:
    told = json.dumps(value, ensure_ascii=False)
    return f"{told[:MOST_QUOTED]}…" if len(told) > MOST_QUOTED else told


def _odd(where: str, name: str, value: Any) -> ValueError:
    return ValueError(f"{where}it has {name} = {_quoted(value)}, which is not valid")


def _listed(told: Mapping[str, Any], name: str, kind: type) -> Any:
    if not isinstance(told[name], kind):
        raise _odd("", name, told[name])
    return told[name]


_TYPES_OF_VALUES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "Mapping[str, Any]": (dict,),
}


class _Shape:
    """The fields of a dataclass, computed once rather than for each of 10,000 sets."""

    def __init__(self, kind: type) -> None:
        self.what = kind.__name__.lower()
        self.types = {e.name: _TYPES_OF_VALUES.get(str(e.type), (tuple,)) for e in fields(kind)}
        self.defaults = {
            e.name: e.default if e.default_factory is MISSING else e.default_factory()
            for e in fields(kind)
            if (e.default, e.default_factory) != (MISSING, MISSING)
        }
        self.pick = itemgetter(*self.types)
        self.good = frozenset(product(*self.types.values()))
        """All valid combinations of the types of its values, in order."""

    def values(self, content: Any) -> tuple[Any, ...]:
        """Return the values of its fields, in order; raises ValueError if one is invalid."""
        if not isinstance(content, dict):
            raise ValueError(f"it has {_quoted(content)} instead of a {self.what}")  # noqa: TRY004
        known = {**self.defaults, **content} if self.defaults else content
        try:
            found: tuple[Any, ...] = self.pick(known)
        except KeyError as error:
            raise ValueError(f"a {self.what} has no {error.args[0]}") from None
        if tuple(map(type, found)) not in self.good:
            # Report damage now, not later as a size that is a string.
            for (name, types), value in zip(self.types.items(), found, strict=True):
                if type(value) not in types:
                    raise _odd(f"of a {self.what} ", name, value)
        return found


_MANIFEST, _PART, _CONTAINER, _LEFT_OUT, _RECORD = map(
    _Shape, (Manifest, Part, Container, LeftOut, Record)
)

_LATER = frozenset({"unused", "volumes", "rows", "machine"})
"""Fields that earlier versions did not write: their sets are as good."""
_LATER_THAN_1 = frozenset({"folder"})
"""Fields that only sets of format 2 always have."""

_Fit = Callable[[Collection[Any]], bool]
"""Returns whether all of several values are valid.

All in one call: one call for each of a hundred shards took three times as long. Checked when the
manifest is read, though a list uses few of the values: damage shows in the list, not only in a
restore.
"""


def _all_are(kind: type) -> _Fit:
    kinds = frozenset({kind})
    return lambda values: kinds.issuperset(map(type, values))


_are_texts, _are_whole = _all_are(str), _all_are(int)
_are_lists, _are_tables = _all_are(list), _all_are(dict)


def _are_numbers(values: Collection[Any]) -> bool:
    return _are_whole(values) and (not values or (min(values) >= 0 and max(values) < 1 << 63))


def _are_names(values: Collection[Any]) -> bool:
    return _are_texts(values) and all(map(_NAME.fullmatch, values))


def _are_images(values: Collection[Any]) -> bool:
    return _are_texts(values) and all(map(_IMAGE.fullmatch, filter(None, values)))


def _are_inside(values: Collection[Any]) -> bool:
    """Return whether all values are folders that a container may map, or ''."""
    return _are_texts(values) and all(
        _INSIDE.fullmatch(each) and ".." not in each.split("/") for each in filter(None, values)
    )


def is_included_path(path: str) -> bool:
    """Return whether a general part may hold a path besides services/, volumes/ and the top files.

    It must stay in the stack's folder, be normalised, not look like an option, and be neither
    among the backups nor in the folder of restores.
    """
    parts = path.split("/")
    return (
        {"", ".", ".."}.isdisjoint(parts)
        and parts[0] not in KEPT_OUT
        and not path.startswith("-")
        and "\0" not in path
    )


def is_outside_path(path: str) -> bool:
    """Return whether an outside part may hold an absolute path: it must be normalised."""
    return path.startswith("/") and {"", ".", ".."}.isdisjoint(path[1:].split("/"))


def _are_outside(values: Collection[Any]) -> bool:
    return _are_texts(values) and "\0" not in "".join(values) and all(map(is_outside_path, values))


def _are_goals(values: Collection[Any]) -> bool:
    return _are_texts(values) and _are_outside(tuple(filter(None, values)))


def _are_volumes(values: Collection[Any]) -> bool:
    return _are_texts(values) and _are_names(tuple(filter(None, values)))


def _are_anonymous(values: Collection[Any]) -> bool:
    """Return whether texts are CONTAINER:PATH, or ''."""
    pairs = [each.partition(":") for each in values if each] if _are_texts(values) else [("",) * 3]
    return _are_names([name for name, _, _ in pairs]) and _are_outside([e for *_, e in pairs])


def _are_included(values: Collection[Any]) -> bool:
    return _are_texts(values) and all(map(is_included_path, values))


def _are_patterns(values: Collection[Any]) -> bool:
    """Return whether all values are patterns of paths below the stack's folder."""
    return _are_texts(values) and not any(
        each.startswith("/") or "\0" in each or ".." in each.split("/") for each in values
    )


def _lists_of(fit: _Fit) -> _Fit:
    return lambda values: _are_lists(values) and fit([e for value in values for e in value])


def _each_is(fit: _Fit) -> _Fit:
    return lambda values: (
        _are_tables(values) and fit([e for value in values for e in value.values()])
    )


def _are_sizes(values: Collection[Any]) -> bool:
    """Return whether all values are bytes and files by path."""
    return (
        _lists_of(_are_numbers)([e for value in values for e in value.values()])
        and all(len(e) == 2 for value in values for e in value.values())  # noqa: PLR2004
        if _are_tables(values)
        else False
    )


def _tables_of(needed: Mapping[str, _Fit], others: Mapping[str, _Fit] | None = None) -> _Fit:
    must = [(itemgetter(key), fit) for key, fit in needed.items()]
    may = tuple((others or {}).items())

    def are_such(tables: Collection[Any]) -> bool:
        try:
            return (
                _are_tables(tables)
                and all(fit(list(map(column, tables))) for column, fit in must)
                and all(fit([e[key] for e in tables if key in e]) for key, fit in may)
            )
        except KeyError:
            return False

    return are_such


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""As Docker allows it: it becomes the name of a folder."""
_IMAGE = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9_.:/@+\[\]-]*")
"""A name, an id or a digest: it becomes an argument of a command, and must not be an option."""
_INSIDE = re.compile(r"(?:/[A-Za-z0-9_.-]+)+/?")
"""It becomes half of `--volume FROM:TO`, where another colon would begin options."""
_FACTS: Mapping[str, _Fit] = {
    "databases": _lists_of(_are_texts),
    "shards": _lists_of(
        _tables_of(
            {
                "id": _are_numbers,
                "database": _are_texts,
                "policy": _are_texts,
                "size_bytes": _are_numbers,
            }
        )
    ),
    "buckets": _lists_of(
        _tables_of(
            {
                "organization": _are_texts,
                "bucket": _are_texts,
                "shards": _are_numbers,
                "size_bytes": _are_numbers,
            }
        )
    ),
    "servers": _lists_of(
        _tables_of(
            {"container": _are_names},
            {
                "engine": _are_texts,
                "version": _are_texts,
                "data": _are_texts,
                "inside": _are_inside,
                "sql_bytes": _are_numbers,
                "rows": _each_is(_each_is(_are_numbers)),
                "users": _lists_of(_are_texts),
                "timescaledb": _lists_of(_are_texts),
                "apart": _lists_of(_are_texts),
                LEFT_OUT: _lists_of(_are_texts),
            },
        )
    ),
    "user_names": _lists_of(_are_texts),
    "container": _are_names,
    "data": _are_texts,
    "version": _are_texts,
    "unpacked_bytes": _are_numbers,
    SQLITE: _lists_of(_are_texts),
    "sqlite_bytes": _are_numbers,
    "sqlite_files": _are_numbers,
    "at_rest": _lists_of(_are_texts),
    SIZES: _are_sizes,
    STAYS: _lists_of(_are_patterns),
    INCLUDED: _lists_of(_are_included),
    OUTSIDE: _lists_of(
        _tables_of(
            {"path": _are_outside},
            {
                "volume": _are_volumes,
                "key": _are_volumes,
                "mounts": _lists_of(_lists_of(_are_texts)),
                "restore_to": _are_goals,
                "anonymous": _are_anonymous,
            },
        )
    ),
    LACKING: _each_is(_are_texts),
}
"""The check for each fact of a part that is used; other facts may be anything."""


def _read_part(kind: str, content: Any, runtag: str, *, outline: bool) -> Part:
    """Return a part; raises ValueError if a value in it is unusable."""
    told = {**content, "kind": kind} if isinstance(content, dict) else content
    part = Part(*_PART.values(told))
    for name, value in part.facts.items():
        if name in _FACTS and not _FACTS[name]((value,)):
            raise _odd(f"of its {kind} part ", name, value)
    fits = {
        "file": part.file == f"{runtag}.{PARTS[kind]}",  # a restore writes and removes this path
        "size_bytes": 0 <= part.size_bytes < 1 << 63,
        "seconds": 0 <= part.seconds < float("inf"),
    }
    for name, is_good in fits.items():
        if not is_good:
            raise _odd(f"of its {kind} part ", name, getattr(part, name))
    for name in part.facts.keys() - {LACKING} if outline else ():
        del told["facts"][name]
    return part


@lru_cache(1 << 12)
def _container(*values: Any) -> Container:
    """Return a container; raises ValueError if Docker cannot have one of these names.

    Cached, because a stack has the same containers for thousands of nights.
    """
    found = Container(*values)
    fits = {
        "name": _are_names,
        "image": _are_images,
        "image_id": _are_images,
        "digest": _are_images,
    }
    for name, fit in fits.items():
        if not fit((getattr(found, name),)):
            raise _odd("of a container ", name, getattr(found, name))
    return found


def _texts(found: Any) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise _odd("", "warnings", found)
    return tuple(found)


def _are_options(values: Collection[Any]) -> bool:
    """Return whether all values are options of Docker's driver: they become arguments."""
    return (
        _each_is(_are_texts)(values)
        and {*VOLUME_OPTIONS}.issuperset(key for value in values for key in value)
        and all(text.isprintable() for value in values for text in value.values())
    )


def _read_volumes(told: Any) -> tuple[Mapping[str, Any], ...]:
    if not (_are_lists((told,)) and _ARE_VOLUMES_TOLD(told)):
        raise _odd("", "volumes", told)
    return tuple(told)


_ARE_VOLUMES_TOLD = _tables_of(
    {
        "name": _are_names,
        "key": _are_volumes,
        "options": _are_options,
        "left_out": _lists_of(_are_texts),
    }
)


def records_of(manifest: Manifest, role: str, folder: str) -> dict[str, Record]:
    """Return the records of a finished set's parts, as files of `role` below `folder`."""
    found = {}
    for part in manifest.made:
        name = f"{role}:{folder}/{manifest.runtag}.{KINDS[part.kind]}"
        found[name] = Record(
            name, part.size_bytes, part.sha256, part.seconds, facts=dict(part.facts)
        )
    return found


def record_line(record: Record) -> str:
    """Return a record as one line of JSON."""
    return json.dumps(asdict(record))  # ASCII: a warning may quote a name that is not UTF-8


def read_records(lines: Iterable[str]) -> dict[str, Record]:
    """Return the records of an unfinished set, by output; a torn line is skipped."""
    found = {}
    for line in lines:
        try:
            content = json.loads(line)
            told = {**content, "warnings": _texts(content["warnings"])}
            record = Record(*_RECORD.values(told))
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        found[record.output] = record
    return found


@lru_cache(1 << 15)
def read_utc(text: str) -> datetime:
    """Return the aware time in a text by `utc_text`; raises ValueError for any other text.

    strptime took ten times as long, and a list of 10,000 sets needs 50,000 calls.
    """
    if not _UTC.fullmatch(text):
        raise ValueError(f"{text!r} is not a valid time in a manifest")
    return datetime.fromisoformat(text)


def utc_text(moment: datetime) -> str:
    """Return an aware time as the manifest writes it."""
    return moment.astimezone(UTC).strftime(UTC_FORMAT)
