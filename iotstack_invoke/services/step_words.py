"""What a person is shown of a step while it runs: a verb, and what it is done to. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

_VERBS = {
    "AddQueries": "add the continuous queries to InfluxDB",
    "AddUsers": "add the users to InfluxDB",
    "CheckDump": "check the dump of InfluxDB",
    "CheckHash": "hash the archive",
    "CheckStopped": "see that nothing was started meanwhile",
    "ComposeUp": "bring up the containers",
    "CopyFolder": "copy",
    "EndAlone": "end",
    "FillVolume": "fill a volume of",
    "GiveStack": "give the stack's folder to whom the archive says",
    "KeepLeftOut": "keep what the backup left out of",
    "LoadInflux": "load InfluxDB",
    "LoadSql": "load",
    "MakeAround": "make",
    "MakeAside": "make the folder for what is replaced",
    "MakeFolder": "make",
    "ReadSql": "read a dump to its end",
    "RunAlone": "start an InfluxDB that nobody reaches",
    "RunSqlAlone": "start a database that nobody reaches",
    "ScanArchive": "look at every member of",
    "Send": "copy",
    "StartContainers": "start",
    "StopContainers": "stop",
    "SwapEntries": "put in place the entries of",
    "SwapItem": "put in place",
    "Unpack": "unpack",
    "UnpackSql": "read the dumps to their end",
    "UseStage": "begin the switch",
    "WaitForContainers": "wait until all are up",
    "WaitForInflux": "wait for InfluxDB",
    "WaitForSql": "wait for",
}
_MOST_NAMES = 4


def step_words(step: Any) -> str:
    """Return what a step does: of one without words of its own, what its class says of it."""
    verb = _VERBS.get(type(step).__name__)
    if verb is None:
        sentence = (type(step).__doc__ or type(step).__name__).partition("\n")[0]
        sentence = sentence.partition(". ")[0].rstrip(".")
        return sentence[:1].lower() + sentence[1:]
    names = list(_objects(step))
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return " ".join(filter(None, (verb, ", ".join(names[:_MOST_NAMES]) + more)))


def _objects(step: Any) -> Iterator[str]:
    """Yield what a step is done to: containers, or the end of a path."""
    name = type(step).__name__
    if name in ("StopContainers", "StartContainers"):
        yield from step.names
    elif name in ("SwapItem", "SwapEntries", "KeepLeftOut"):
        yield _end(step.live)
    elif name == "CopyFolder":
        yield _end(step.source)
    elif name in ("MakeAround", "MakeFolder"):
        yield _end(step.path)
    elif name == "Unpack":
        yield posixpath.basename(step.archive)
    elif name == "ScanArchive":
        yield posixpath.basename(step.archive.path)
    elif name == "Send":
        yield posixpath.basename(step.source.path)
    elif name in ("FillVolume", "EndAlone"):
        yield step.container if name == "FillVolume" else step.alone
    elif name == "LoadSql":
        yield step.dump.server.title
    elif name == "WaitForSql":
        yield step.server.title


def _end(path: str) -> str:
    """Return the last two names of a path: `volumes/nodered`."""
    return "/".join(path.rstrip("/").split("/")[-2:])
