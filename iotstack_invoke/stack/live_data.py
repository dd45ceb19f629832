"""Which folders are the live data of a database, whatever the image of their container is called.

Detected by files that only such a server creates. Not for: databases whose image the table knows.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from ..core.dataclass import dataclass
from ..hosts.base import Host, sh
from .answers import answer
from .inside import is_in

LOOK_LIMIT_S = 600.0
FOLDERS_AT_ONCE = 200
DEPTH = 4
"""How deep below a mount such files are searched: UniFi's are at data/db/mongod.lock."""
MARIADB, POSTGRES = "MariaDB", "PostgreSQL"
DUMPED = {MARIADB: "mariadb", POSTGRES: "postgres"}
"""The dump programs for those that a row of hosts.toml names."""
_TITLES = {
    "postmaster.pid": POSTGRES,
    "aria_log_control": MARIADB,
    "mysql.ibd": "MySQL",
    "ibdata1": "MySQL",
    "mongod.lock": "MongoDB",
    "appendonlydir": "Redis",
    "appendonly.aof": "Redis",
    "_dbs.couch": "CouchDB",
    "node.lock": "Elasticsearch or OpenSearch",
    "influxd.bolt": "InfluxDB 2",
    "meta.db": "InfluxDB",
}
"""The server by the name of a file in its data; the first match counts."""


@dataclass(frozen=True, slots=True)
class LiveData:
    """The data of a database server."""

    title: str
    folder: str
    """An absolute path, below the one that was searched: a link there is not followed."""


def live_data_in(
    host: Host, folders: Iterable[str], as_root: tuple[str, ...]
) -> tuple[LiveData, ...]:
    """Return the data of servers at or below some folders, each once, sorted by folder.

    Known files are searched down to DEPTH. Data within other data are not listed. Paths that are
    missing or cannot be read are passed over. Raises StepFailed if the search itself fails, or
    takes too long.
    """
    wanted = sorted(set(folders))
    names = [word for name in _TITLES for word in ("-o", "-name", name)][1:]
    at_rest = ("-not", "(", "-name", "mongod.lock", "-empty", ")")
    found: dict[str, str] = {}
    order = [*dict.fromkeys(_TITLES.values())]
    for start in range(0, len(wanted), FOLDERS_AT_ONCE):
        some = wanted[start : start + FOLDERS_AT_ONCE]
        find = ("find", "-H", *some)
        tests = ("-maxdepth", f"{DEPTH}", "(", *names, ")", *at_rest, "-print0")
        script = '"$@" 2>/dev/null; true'  # unreadable or missing paths are reported elsewhere
        words = (*as_root, *sh(script, *find, *tests))
        for path in answer(host, words, LOOK_LIMIT_S):
            folder, name = posixpath.split(path)
            if name == "meta.db" and posixpath.basename(folder) != "meta":
                continue
            folder = posixpath.dirname(folder) if name == "meta.db" else folder
            title = min(_TITLES[name], found.get(folder, _TITLES[name]), key=order.index)
            found[folder] = title
    return tuple(
        LiveData(title, folder)
        for folder, title in sorted(found.items())
        if not any(is_in(folder, other) and other != folder for other in found)
    )
