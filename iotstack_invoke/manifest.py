"""The manifest of a set, and the records it is made of. Pure: text in, values out.

A set without a manifest is unfinished. The records of an unfinished set lie beside it as JSON
lines, one for each finished output, written before the output got its final name: they tell a
run that goes on after a crash what is whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, field, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from .rules import KINDS, PARTS
from .runtag import is_runtag
from .steps import Record
from .values import dataclass

FORMAT = "iotstack-invoke manifest 1"
RECORDS_ENDING = "unfinished.jsonl"
REMOVING_ENDING = "removing"
LACKING = "failed"
"""The fact of a part that lacks dumps: why, by the container of each server."""
LEFT_OUT = "left_out"
"""The fact of a server: what of it is not in its dump, and why, a sentence each."""
PIN_ENDING = "pin.txt"
"""Of the file beside a set that keeps it from being removed, and holds a note why."""
UTC_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
MOST_QUOTED = 60
MOST_BYTES = 16 << 20
"""A thousand times what a manifest has."""
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
        """The containers whose dumps it should hold and does not, each with why."""
        told = self.facts.get(LACKING)
        return {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {}

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """What its dumps pass over, and why: pairs of a container and a sentence."""
        servers = self.facts.get("servers", ())
        return tuple((s["container"], each) for s in servers for each in s.get(LEFT_OUT, ()))


@dataclass(frozen=True, slots=True)
class Container:
    """A container of the stack as it was when the backup was made."""

    name: str
    image: str
    image_id: str
    digest: str
    running: bool


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something of the stack that is in no part, and why."""

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
    """Where the stack lay; '' where an earlier version wrote it."""

    @property
    def state(self) -> str:
        """`complete`, `warnings`, or `incomplete` where a part or a dump could not be made."""
        if self.lacking:
            return "incomplete"
        return "warnings" if self.warnings else "complete"

    @property
    def made(self) -> tuple[Part, ...]:
        """The parts that there are."""
        return tuple(part for part in self.parts if not part.error)

    @property
    def lacking(self) -> tuple[tuple[str, str], ...]:
        """What could not be made, such as `postgres part`, each with why."""
        parts = tuple((f"{part.kind} part", part.error) for part in self.parts if part.error)
        dumps = (
            (f"dump of container {container}", why)
            for part in self.made
            for container, why in part.lacking.items()
        )
        return (*parts, *dumps)

    @property
    def lacks(self) -> tuple[str, ...]:
        """What it lacks and why, a sentence each."""
        return tuple(f"It has no {what}: {why}" for what, why in self.lacking)

    def to_json(self) -> str:
        """Return the text of the manifest file."""
        content = asdict(self)
        content["parts"] = {part.pop("kind"): part for part in content["parts"]}
        ordered = {"format": FORMAT, "runtag": self.runtag, "state": self.state, **content}
        return json.dumps(ordered, indent=1, ensure_ascii=False) + "\n"


def check_size(size_bytes: int) -> None:
    """Raise ValueError where a file is larger than any manifest is, so that nobody reads it."""
    if size_bytes > MOST_BYTES:
        raise ValueError(f"it has {size_bytes:,} bytes, and none has more than {MOST_BYTES:,}")


def read_manifest(content: bytes | str, runtag: str = "") -> Manifest:
    """Return the manifest that a file holds; raises ValueError where it holds none.

    With `runtag` also where it is the manifest of another set. What it says of a file, a folder
    or a container can be worked with: whoever wrote it leads nobody out of a folder.

    Keys of a later version are passed over.
    """
    told = _parse(content)
    for name in _FIELDS[Manifest]:
        if name not in told:
            raise ValueError(f"it does not say its {name}")
    if not (isinstance(told["runtag"], str) and is_runtag(told["runtag"])):
        raise ValueError(f"{_quoted(told['runtag'])} is no runtag")
    parts = _listed(told, "parts", dict)
    found: Manifest = _read(
        Manifest,
        {
            **told,
            "parts": tuple(
                _read_part(kind, part, told["runtag"])
                for kind, part in parts.items()
                if kind in PARTS
            ),
            "containers": tuple(map(_read_container, _listed(told, "containers", list))),
            "left_out": tuple(_read(LeftOut, e) for e in _listed(told, "left_out", list)),
            "warnings": _texts(told["warnings"]),
        },
    )
    for text_utc in (found.started_utc, found.finished_utc):
        read_utc(text_utc)
    if not found.parts:
        raise ValueError("it names no part")
    if runtag and found.runtag != runtag:
        raise ValueError(f"it is the manifest of {found.runtag}")
    return found


def _parse(content: bytes | str) -> dict[str, Any]:
    """Return what the text of a manifest holds; raises ValueError where it is none of ours."""
    try:
        told = json.loads(content.decode() if isinstance(content, bytes) else content)
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start:,} of it belongs to no text") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, character {error.colno}"
        raise ValueError(f"it is empty, torn or no JSON ({where})") from error
    except RecursionError as error:
        raise ValueError("it is no manifest") from error
    if not isinstance(told, dict) or not isinstance(told.get("format"), str):
        raise ValueError("it does not say its format")  # noqa: TRY004 - damage, as all of these
    if not told["format"].startswith("iotstack-invoke manifest "):
        raise ValueError(f"its format is {_quoted(told['format'])}")
    return told


def _quoted(value: Any) -> str:
    told = json.dumps(value, ensure_ascii=False)
    return f"{told[:MOST_QUOTED]}…" if len(told) > MOST_QUOTED else told


def _odd(where: str, name: str, value: Any) -> ValueError:
    return ValueError(f"{where}it says {name} = {_quoted(value)}, which no backup wrote")


def _listed(told: Mapping[str, Any], name: str, kind: type) -> Any:
    if not isinstance(told[name], kind):
        raise _odd("", name, told[name])
    return told[name]


_KINDS_OF_VALUES: Mapping[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "Mapping[str, Any]": dict,
}


_FIELDS: Mapping[type, Mapping[str, type | tuple[type, ...]]] = {
    kind: {each.name: _KINDS_OF_VALUES.get(str(each.type), object) for each in fields(kind)}
    for kind in (Manifest, Part, Container, LeftOut, Record)
}
"""What each field may hold; asked of dataclasses once, not for each of 10,000 manifests."""
_NEEDED: Mapping[type, tuple[str, ...]] = {
    kind: tuple(
        e.name for e in fields(kind) if e.default is MISSING and e.default_factory is MISSING
    )
    for kind in _FIELDS
}


def _read(kind: Any, content: Any) -> Any:
    """Return a value of one of our dataclasses; ValueError where a key is missing or of no use."""
    what = kind.__name__.lower()
    if not isinstance(content, dict):
        raise ValueError(f"it says {_quoted(content)} in the place of a {what}")  # noqa: TRY004
    types = _FIELDS[kind]
    known = {name: content[name] for name in types if name in content}
    for name, value in known.items():
        # Damage must not come to light later, as a size that is a text.
        if not isinstance(value, types[name]):
            raise _odd(f"of a {what} ", name, value)
    for name in _NEEDED[kind]:
        if name not in known:
            raise ValueError(f"of a {what} it does not say the {name}")
    return kind(**known)


_Fits = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_container(value: Any) -> bool:
    return isinstance(value, str) and bool(_CONTAINER.fullmatch(value))


def _is_image(value: Any) -> bool:
    return isinstance(value, str) and (not value or bool(_IMAGE.fullmatch(value)))


def _is_inside(value: Any) -> bool:
    """Tell whether a value is a folder that a container may map, or ''."""
    if not isinstance(value, str):
        return False
    return not value or bool(_INSIDE.fullmatch(value) and ".." not in value.split("/"))


def _list_of(fits: _Fits) -> _Fits:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _each_is(fits: _Fits) -> _Fits:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def _table_of(needed: Mapping[str, _Fits], others: Mapping[str, _Fits] | None = None) -> _Fits:
    must, may = tuple(needed.items()), tuple((others or {}).items())

    def is_table(value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        for key, fits in must:  # plain, for a list of 10,000 sets comes by 100,000 times
            if key not in value or not fits(value[key]):
                return False
        return all(fits(value[key]) for key, fits in may if key in value)

    return is_table


_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""As Docker takes it: it becomes the name of a folder."""
_IMAGE = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9_.:/@+\[\]-]*")
"""A name, an id or a digest: it becomes a word of a command, and must be no option."""
_INSIDE = re.compile(r"(?:/[A-Za-z0-9_.-]+)+/?")
"""It becomes half of `--volume FROM:TO`, where another colon begins options."""
_FACTS: Mapping[str, _Fits] = {
    "databases": _list_of(_is_text),
    "shards": _list_of(
        _table_of(
            {"id": _is_number, "database": _is_text, "policy": _is_text, "size_bytes": _is_number}
        )
    ),
    "buckets": _list_of(
        _table_of(
            {
                "organization": _is_text,
                "bucket": _is_text,
                "shards": _is_number,
                "size_bytes": _is_number,
            }
        )
    ),
    "servers": _list_of(
        _table_of(
            {"container": _is_container},
            {
                "engine": _is_text,
                "version": _is_text,
                "data": _is_text,
                "inside": _is_inside,
                "sql_bytes": _is_number,
                "rows": _each_is(_each_is(_is_number)),
                "timescaledb": _list_of(_is_text),
                LEFT_OUT: _list_of(_is_text),
            },
        )
    ),
    "container": _is_container,
    "data": _is_text,
    "version": _is_text,
    "unpacked_bytes": _is_number,
    "sqlite": _list_of(_is_text),
    "sqlite_bytes": _is_number,
    "sqlite_files": _is_number,
    "at_rest": _list_of(_is_text),
    LACKING: _each_is(_is_text),
}
"""What each fact of a part must be for whoever reads it; others may be anything."""


def _read_part(kind: str, content: Any, runtag: str) -> Part:
    """Return a part; raises ValueError where it says something that no reader could use."""
    part: Part = _read(Part, {**content, "kind": kind} if isinstance(content, dict) else content)
    wrong: dict[str, Any] = {
        name: value
        for name, value in part.facts.items()
        if name in _FACTS and not _FACTS[name](value)
    }
    if part.file != f"{runtag}.{PARTS[kind]}":  # a restore would write and remove by this name
        wrong["file"] = part.file
    if not _is_number(part.size_bytes):
        wrong["size_bytes"] = part.size_bytes
    if not 0 <= part.seconds < float("inf"):
        wrong["seconds"] = part.seconds
    for name, value in wrong.items():
        raise _odd(f"of its {kind} part ", name, value)
    return part


def _read_container(content: Any) -> Container:
    """Return a container; raises ValueError where Docker could not know it by these names."""
    found: Container = _read(Container, content)
    fits = {"name": _is_container, "image": _is_image, "image_id": _is_image, "digest": _is_image}
    for name, is_one in fits.items():
        if not is_one(getattr(found, name)):
            raise _odd("of a container ", name, getattr(found, name))
    return found


def _texts(found: Any) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise _odd("", "warnings", found)
    return tuple(found)


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
    return json.dumps(asdict(record))  # ASCII: a warning may quote a name that is no UTF-8


def read_records(lines: Iterable[str]) -> dict[str, Record]:
    """Return the records of an unfinished set, by output; a torn line is no record."""
    found = {}
    for line in lines:
        try:
            content = json.loads(line)
            record = _read(Record, {**content, "warnings": _texts(content["warnings"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        found[record.output] = record
    return found


@lru_cache(1 << 15)
def read_utc(text: str) -> datetime:
    """Return the time that `utc_text` wrote, aware; raises ValueError where it wrote no such text.

    By strptime it took ten times as long, and a list of 10,000 sets asks 50,000 times.
    """
    if not _UTC.fullmatch(text):
        raise ValueError(f"{text!r} is no time of a manifest")
    return datetime.fromisoformat(text)


def utc_text(moment: datetime) -> str:
    """Return an aware time as the manifest writes it."""
    return moment.astimezone(UTC).strftime(UTC_FORMAT)
