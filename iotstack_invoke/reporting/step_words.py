"""What a user sees of a running step: a verb, and its object. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

VERBS = {
    "AddQueries": "add the continuous queries to InfluxDB",
    "AddUsers": "add the users to InfluxDB",
    "CheckDump": "check the dump of InfluxDB",
    "CheckHash": "hash the archive",
    "CheckMount": "see where the new container has its data",
    "CheckMounts": "see that no drive came or went",
    "CheckSpace": "see that a copy fits",
    "CheckSame": "see that the archive is still the same",
    "CheckStopped": "see that nothing was started meanwhile",
    "Claim": "see that the name is free in the vault",
    "Commit": "note that it is done",
    "CompareConfig": "compare the settings of the database",
    "CompareCounts": "count what InfluxDB holds, and compare",
    "CompareUnpacked": "compare every file with the archive",
    "CompareWithDump": "compare InfluxDB with the dump",
    "CompareWithManifest": "compare the dump with the manifest",
    "CompareWithServer": "compare the dump with InfluxDB",
    "ComposeUp": "bring up the containers",
    "CopyAtRest": "copy what was stopped for it",
    "CopyFolder": "copy",
    "CopyLinked": "copy what links lead to",
    "CopySqlite": "copy the SQLite files",
    "CopyStays": "copy the databases that stay",
    "CountInflux": "count what InfluxDB holds",
    "DumpInflux": "dump InfluxDB",
    "DumpInflux2": "dump InfluxDB 2",
    "RemoveIsolated": "end",
    "EndQuiet": "let the service go on",
    "Fail": "tell what was found before",
    "FillVolume": "fill a volume of",
    "GiveStack": "give the stack its owner",
    "KeepLeftOut": "keep what the backup left out of",
    "KeepMore": "compare it with the one before",
    "KeepUntil": "note how long the old data stay",
    "LeaveGone": "leave",
    "LoadInflux": "load InfluxDB",
    "LoadSql": "load",
    "MakeAround": "make",
    "MakeAside": "make the folder for what is replaced",
    "MakeFolder": "make",
    "MakeLink": "make a link",
    "MakeVolume": "make volume",
    "MakeWay": "let the set before give way",
    "Measure": "count what was unpacked",
    "MoveAside": "put aside",
    "PackDumps": "dump the databases, and pack them",
    "PackStack": "pack files of the stack",
    "ProveStays": "see that what stays is there",
    "PutAway": "put aside",
    "PutCatalogue": "give InfluxDB its list of databases",
    "PutStays": "put the databases that stay in place",
    "Quiesce": "make the service quiet",
    "ReadSql": "read a dump to its end",
    "RemoveFolder": "remove the copies",
    "RemoveInside": "remove the dump in the container",
    "Resume": "let the service go on",
    "RunIsolated": "start an isolated InfluxDB",
    "RunSqlIsolated": "start an isolated database",
    "SaveStays": "dump what stays",
    "ScanArchive": "look at every member of",
    "SeeInflux": "see that all of InfluxDB is known",
    "SeeSql": "see that all of the database is known",
    "Send": "copy",
    "StartContainers": "start",
    "StopContainers": "stop",
    "SwapEntries": "put in place the entries of",
    "SwapItem": "put in place",
    "SwapBelow": "put in place",
    "SweepInflux": "pack the dump, and check all of it",
    "SweepInflux2": "pack the dump, and check all of it",
    "InParallel": "do several at once",
    "Unpack": "unpack",
    "UnpackSql": "read the dumps to their end",
    "UseStage": "begin the switch",
    "WaitForContainers": "wait until all are up",
    "WaitForInflux": "wait for InfluxDB",
    "WaitForSql": "wait for",
    "WriteManifest": "write the manifest",
    "WriteQueries": "write down the continuous queries",
    "WriteRestoreText": "write RESTORE.txt",
}
_MOST_NAMES = 4


def step_words(step: Any) -> str:
    """Return the verb of a step, with its object."""
    verb = VERBS.get(type(step).__name__, type(step).__name__)
    names = list(_objects(step))
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return " ".join(filter(None, (verb, ", ".join(names[:_MOST_NAMES]) + more)))


def _objects(step: Any) -> Iterator[str]:
    """Yield the objects of a step: containers, or the end of a path."""
    name = type(step).__name__
    if name in ("StopContainers", "StartContainers"):
        yield from step.names
    elif name in ("SwapItem", "SwapEntries", "KeepLeftOut", "MoveAside", "PutAway"):
        yield _end(step.live)
    elif name == "CopyFolder":
        yield _end(step.source)
    elif name in ("MakeAround", "MakeFolder"):
        yield _end(step.path)
    elif name == "MakeVolume":
        yield step.name
    elif name == "Unpack":
        yield posixpath.basename(step.archive)
    elif name == "ScanArchive":
        yield posixpath.basename(step.archive.path)
    elif name == "Send":
        yield posixpath.basename(step.source.path)
    elif name in ("FillVolume", "RemoveIsolated"):
        yield step.container if name == "FillVolume" else step.alone
    elif name == "LoadSql":
        yield step.dump.server.title
    elif name == "WaitForSql":
        yield step.server.title


def _end(path: str) -> str:
    """Return the last two names of a path: `volumes/nodered`."""
    return "/".join(path.rstrip("/").split("/")[-2:])
