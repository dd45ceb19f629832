"""The steps of RESTORE.txt that load databases, and how its lines are set. Pure.

Passwords come from the containers' own environment: none is in the text, or typed.
"""

from __future__ import annotations

import json
import posixpath
import shlex
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..backups.manifest import Manifest, Part
from ..core.dataclass import dataclass
from ..databases.influxdb.check import QUERIES_FILE
from ..databases.influxdb2.dump import places_by_hand, steps_by_hand
from ..databases.sql.config import CONFIG
from ..databases.sql.servers import ENGINES, SqlServer

WIDTH = 76
COMPOSE = '(cd "$STACK" && docker compose {})'
GUARD = 'if [ -d "${STACK:?is not set, so nothing is done}" ]; then'
"""Starts each block that changes something: an interactive bash skips all of it without STACK."""
ASIDE = '.before-"$(date +%F-%H%M%S)"'
"""The suffix of what is moved aside: it stays free if an earlier attempt moved something aside."""
UNPACK = "--same-owner --numeric-owner --xattrs --acls"
DUMP_INSIDE = "/tmp/restore-by-hand"  # noqa: S108 - inside the container, without other users
MARIA = (
    '''MARIA='export MYSQL_PWD="${MARIADB_ROOT_PASSWORD:-$MYSQL_ROOT_PASSWORD}"''',
    """  exec "$(command -v mariadb || command -v mysql)" -uroot "$@"\'""",
)
NO_FOLDERS = "/^[^ ]* SET @OLD_SQL_MODE=/s/NO_AUTO/NO_DIR_IN_CREATE,NO_AUTO/"
"""For sed: tables of MariaDB get no folders of their own, as when mariadb.sh loads them."""
POSTGRES = (
    """PSQL='export PGPASSWORD="$POSTGRES_PASSWORD"'""",
    """PSQL="$PSQL"'; export PGOPTIONS="-c default_transaction_read_only=off"'""",
    """PSQL="$PSQL"'; exec psql -U "${POSTGRES_USER:-postgres}" -d postgres "$@"'""",
)


@dataclass(frozen=True, slots=True)
class ManualStep:
    """One numbered step: its title, and its lines of prose and commands."""

    title: str
    lines: tuple[str, ...]


def paragraph(text: str, first: str = "", others: str = "") -> list[str]:
    """Return prose in lines of WIDTH at most, except for longer words."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def block(*commands: str) -> list[str]:
    """Return commands for bash, indented, with an empty line before and after."""
    return ["", *(f"    {each}" for each in commands), ""]


def guarded(*commands: str) -> list[str]:
    """Return a block that does nothing if the stack could not be moved aside."""
    return block(GUARD, *(f"  {each}" for each in commands), "fi")


def clean(text: str) -> str:
    """Return a text on one line, without terminal control characters."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def word(text: str) -> str:
    """Return any text as one word of bash, on one line."""
    if text.isprintable():
        return shlex.quote(text)
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "backslashreplace")
    return "$'" + "".join(f"\\x{byte:02x}" for byte in raw) + "'"


def _named(names: Iterable[object]) -> str:
    """Return names for use in prose, with any characters."""
    return ", ".join(json.dumps(clean(str(each)), ensure_ascii=False) for each in names)


def outside_told(told: Mapping[str, Any]) -> str:
    """Return one volume or path of the outside part in words, with who mounts it."""
    volume = told.get("volume")
    name = f"volume {volume}" if volume else f"path {told['path']}"
    if told.get("anonymous"):
        name = "a volume without a name"
    goal = f", restored to {told['restore_to']}" if told.get("restore_to") else ""
    mounts = [f"{pair[0]} at {pair[1]}" for pair in told.get("mounts", ()) if len(pair) > 1]
    users = f", of {', '.join(mounts)}" if mounts else ""
    return clean(f"{name}{users}{goal}")


def sql_servers(part: Part) -> tuple[SqlServer, ...]:
    """Return the database servers whose dumps a part holds."""
    engine = part.kind if part.kind in ENGINES else "mariadb"
    found = part.facts.get("servers", ())
    return tuple(SqlServer(each["container"], each.get("engine") or engine) for each in found)


def containers_of(part: Part) -> tuple[str, ...]:
    """Return the containers of the databases in a part."""
    if part.kind == "influx":
        return (str(part.facts.get("container") or "influxdb"),)
    if part.kind == "influxdb2":
        return (str(part.facts.get("container") or "influxdb2"),)
    return tuple(each.container for each in sql_servers(part))


def told_of(part: Part) -> Iterator[str]:
    """Yield what a part holds, one sentence for each database server or volume."""
    for each in part.facts.get("outside", ()):
        yield outside_told(each)
    if part.kind in ("influx", "influxdb2"):
        title = "InfluxDB" if part.kind == "influx" else "InfluxDB (experimental)"
        yield f"{title} {part.facts.get('version', '')} in container {containers_of(part)[0]}"
    if names := part.facts.get("databases"):
        yield f"databases: {_named(names)}"
    for server in part.facts.get("servers", ()):
        engine = ENGINES.get(server.get("engine", part.kind), ENGINES["mariadb"])
        rows = server.get("rows", {})
        tables = sum(map(len, rows.values()))
        count = sum(sum(each.values()) for each in rows.values())
        yield (
            f"{engine.title} {server.get('version', '')} in container {server['container']}: "
            f"databases {_named(rows) or 'none'}; tables {tables:,}; rows {count:,}"
        )


def outside_step(part: Part) -> ManualStep:
    """Return how to put back volumes and folders outside of the stack; present ones stay."""
    rows = part.facts.get("outside", ())
    volumes = [each for each in rows if each.get("volume")]
    paths = [each for each in rows if not (each.get("volume") or each.get("anonymous"))]
    lines: list[str] = []
    if volumes:
        lines += paragraph(
            "Named volumes: each is created, and filled where Docker keeps it. One that exists "
            "already is not changed; to replace it, copy its files, remove it with `docker "
            "volume rm NAME`, and paste its lines again. Compose begins the names with the name "
            "of the stack's folder: if the folder has another name now, change them. A volume "
            'that was only partly filled exists already, too. Harmless, later: "volume already '
            'exists but was not created by Docker Compose".'
        )
        for each in volumes:
            lines += guarded(*_volume_lines(part.file, each))
    if paths:
        lines += paragraph(
            "Files and folders outside of the stack. Existing ones are moved aside; if that "
            "fails, as for the mount point of a drive, nothing is unpacked: empty it first."
        )
        for each in paths:
            lines += guarded(*_path_lines(part.file, each))
    return ManualStep("Restore the files outside of the stack", tuple(lines))


def unnamed_step(part: Part) -> ManualStep:
    """Return how to fill volumes that Docker creates with their containers."""
    lines: list[str] = []
    for each in part.facts.get("outside", ()):
        if each.get("anonymous"):
            lines += guarded(*_unnamed_lines(part.file, each))
    return ManualStep(
        "Fill the volumes without a name",
        (
            *paragraph("Docker creates them with their containers. Other files in them are kept."),
            *guarded(COMPOSE.format("up --no-start")),
            *lines,
        ),
    )


def _volume_lines(file: str, told: Mapping[str, Any]) -> Iterator[str]:
    """Yield how to fill one volume: its member ends with the folder that Docker creates."""
    name = word(str(told["volume"]))
    path = str(told["path"])
    yield f"if docker volume inspect {name} > /dev/null 2>&1"
    yield f"then echo {name} exists already, and is not changed"
    yield f"else docker volume create {name} &&"
    yield f"  DATA=\"$(docker volume inspect -f '{{{{.Mountpoint}}}}' {name})\" &&"
    yield f"  sudo tar -xzf {word(file)} \\"
    yield f'    -C "${{DATA%/*}}" --strip-components={path.count("/")} \\'
    yield f"    {UNPACK} \\"
    yield f"    {_member(path)}"
    yield "fi"


def _unnamed_lines(file: str, told: Mapping[str, Any]) -> Iterator[str]:
    """Yield how to fill the volume that a container mounts at a path, if it is a volume."""
    container, _, inside = str(told["anonymous"]).partition(":")
    path = str(told["path"])
    is_it = f'and (eq .Type "volume") (eq .Destination {json.dumps(inside)})'
    form = f"{{{{range .Mounts}}}}{{{{if {is_it}}}}}{{{{.Source}}}}{{{{end}}}}{{{{end}}}}"
    yield f'DATA="$(docker inspect -f {word(form)} \\'
    yield f'  {word(container)})" && [ -n "$DATA" ] &&'
    yield f"  sudo tar -xzf {word(file)} \\"
    yield f'    -C "${{DATA%/*}}" --strip-components={path.count("/")} \\'
    yield f"    {UNPACK} \\"
    yield f"    {_member(path)}"


def _path_lines(file: str, told: Mapping[str, Any]) -> Iterator[str]:
    path = str(told["path"])
    goal = str(told.get("restore_to") or path)
    above = posixpath.dirname(goal)
    there, stage = word(goal), word(posixpath.join(above, ".restore-by-hand-XXXXXX"))
    yield f"if ! sudo test -e {there} || sudo mv -T {there} {there}{ASIDE}; then"
    yield f"  sudo mkdir -p {word(above)} &&"
    yield f'  STAGE="$(sudo mktemp -d {stage})" &&'
    yield f"  sudo tar -xzf {word(file)} \\"
    yield '    -C "$STAGE" \\'
    yield f"    {UNPACK} \\"
    yield f"    {_member(path)} &&"
    yield f'  sudo mv -T "$STAGE"{word(path)} {there} &&'
    yield '  sudo rm -r "$STAGE"'
    yield "fi"


def _member(path: str) -> str:
    unquoted = "--no-unquote " if "\\" in path else ""
    return f"{unquoted}{word(f'.{path}')}"


def influx_step(part: Part) -> ManualStep:
    """Return how to load the dump of InfluxDB with influxd(1), with its output as observed."""
    (name,) = containers_of(part)
    ask = f"docker exec {name} influx -execute"
    load = f"docker exec {name} influxd restore -portable"
    lines = [
        *paragraph("This waits until InfluxDB answers, and loads the dump; one line per shard:"),
        *guarded(
            f"while {ask} 'SHOW DATABASES' 2>&1 |",
            "  grep 'Failed to connect'; do sleep 2; done",
            f"docker exec {name} mkdir {DUMP_INSIDE}",
            f"docker cp - {name}:{DUMP_INSIDE} \\",
            f"  < {word(part.file)}",
            f"{load} {DUMP_INSIDE}",
        ),
        *_influx_words(part, ask, load),
        *paragraph(
            "InfluxDB continues for a moment after the last line: do not stop it within a "
            "minute. All of these must be listed: "
            f"{_named(part.facts.get('databases', ())) or 'none'}."
        ),
        *guarded("sleep 10", f"{ask} 'SHOW DATABASES'"),
        *_query_words(part, name, ask),
        *guarded(f"docker exec {name} rm -r {DUMP_INSIDE}"),
        *paragraph(
            "influxd loads no users or rights: create them again. If users must log in "
            "(INFLUXDB_HTTP_AUTH_ENABLED), create the first one at once:"
        ),
        *block(f"# {ask} \\", "#   \"CREATE USER dba WITH PASSWORD 'NEW' WITH ALL PRIVILEGES\""),
    ]
    return ManualStep(f"Load InfluxDB ({part.facts.get('version', '1.x')})", tuple(lines))


def _query_words(part: Part, name: str, ask: str) -> Iterator[str]:
    """Yield how to create the continuous queries again, if there are any."""
    count = part.facts.get("continuous_queries")
    if count:
        yield from paragraph(
            f"influxd loads no continuous queries. The {count} of the backup are beside the "
            "dump, one on each line:"
        )
        yield from guarded(
            f"docker exec {name} influx -import \\",
            f"  -path {DUMP_INSIDE}/{QUERIES_FILE}",
            f"{ask} 'SHOW CONTINUOUS QUERIES'",
        )


def _influx_words(part: Part, ask: str, load: str) -> Iterator[str]:
    """Yield what the messages of influxd mean, and what to do."""
    yield from paragraph(
        'Harmless: "Meta info not found for shard N on database _internal", InfluxDB\'s own '
        "statistics. With any other database that shard was not loaded."
    )
    yield ""
    if not part.facts.get("shards"):
        yield from paragraph(
            'This dump has no points, so influxd prints "database may already exist" although it '
            "created the databases."
        )
        yield ""
        return
    yield from paragraph(
        '"DB metadata not changed. database may already exist": nothing was loaded, because no '
        "database of the dump may exist before. An interrupted load also leaves some. If you do "
        "not need their data, remove each that exists, and load again:"
    )
    yield from block(
        f"# {ask} 'SHOW DATABASES'",
        f"# {ask} 'DROP DATABASE \"NAME\"'",
        f"# {load} {DUMP_INSIDE}",
    )
    yield from paragraph("To keep it, load each database of the dump under a new name:")
    yield from block(f"# {load} -db NAME \\", f"#   -newdb NAME_restored {DUMP_INSIDE}")


def influx2_step(part: Part, manifest: Manifest) -> ManualStep:
    """Return how to load the part of InfluxDB 2, by its documentation."""
    (name,) = containers_of(part)
    store, data = places_by_hand(part.facts, manifest)
    enter = f'cd "$STACK" && sudo mkdir -p {store}' if store else 'cd "$STACK"'
    return ManualStep(
        "Load InfluxDB 2",
        (
            *paragraph(
                "By its documentation; this is not tested. It replaces everything in InfluxDB 2, "
                "including tokens."
            ),
            *guarded(
                f"{enter} &&",
                *steps_by_hand(name, f'"$SET"/{word(part.file)}', store, data),
                'cd "$SET"',
            ),
            *paragraph(
                "From version 2.9.0 on `influx restore` also needs --operator-token TOKEN: the "
                "one in its influx-configs, which is in the part."
            ),
        ),
    )


def _waiting(command: str) -> tuple[str, ...]:
    return ("for n in 1 2; do", "  sleep 15", f"  until {command}", "  do sleep 5; done", "done")


def maria_step(part: Part, server: SqlServer, member: str) -> ManualStep:
    """Return how to load the dump of one MariaDB."""
    name = server.container
    told = next(e for e in part.facts["servers"] if e["container"] == name)
    ask = f'docker exec {name} sh -c "$MARIA" sh -e'
    folders = (f"  sed '{NO_FOLDERS}' |",) if told.get("apart") else ()
    return ManualStep(
        f"Load MariaDB in container {name}",
        (
            *paragraph(
                "Load into a newly created server. This waits for it twice, because it restarts "
                'after its first start. If "Access denied" repeats: the password in .env is not '
                "the server's, which was not newly created."
            ),
            *guarded(
                *MARIA,
                *_waiting(f"{ask} 'SELECT 1'"),
                f"tar -xzOf {word(part.file)} ./{member} |",
                *folders,
                f'  docker exec -i {name} sh -c "$MARIA" sh --binary-mode \\',
                "  --comments --default-character-set=utf8mb4 --max-allowed-packet=1G",
                f"{ask} 'SHOW DATABASES'",
            ),
            *paragraph("Its users and passwords are now those of the backup."),
        ),
    )


def postgres_step(part: Part, server: SqlServer, member: str) -> ManualStep:
    """Return how to load the dump of one PostgreSQL, or where that is described."""
    told = next(e for e in part.facts["servers"] if e["container"] == server.container)
    title = f"Load PostgreSQL in container {server.container}"
    if told.get("timescaledb"):
        return ManualStep(title, tuple(_timescale(part, member, told["timescaledb"])))
    name = server.container
    run = f'docker exec {name} sh -c "$PSQL" sh'
    folder = member.rpartition("/")[0]
    settings = f"./{folder}/{CONFIG}" if folder else f"./{CONFIG}"
    return ManualStep(
        title,
        (
            *paragraph(
                "Load into a newly created server of the same major version as above. This waits "
                'for it twice, because it restarts after its first start. Harmless: "role … '
                'already exists" and "database … already exists", for those that the image '
                "creates. Any other ERROR is a real error."
            ),
            *guarded(
                *POSTGRES,
                *_waiting(f"{run} -c 'SELECT 1'"),
                f"tar -xOf {word(part.file)} \\",
                f"  ./{member} | gunzip |",
                f'  docker exec -i {name} sh -c "$PSQL" sh -q -o /dev/null',
                f"{run} -l",
            ),
            *paragraph(
                "Its settings (postgresql.conf, pg_hba.conf …) are those of the image. The "
                f"backup's are in {settings} of the part; compare, and copy back what you need:"
            ),
            *block(
                f"# tar -xOf {word(part.file)} \\",
                f"#   {settings}/pg_hba.conf > pg_hba.conf",
                *_put_back(server.container, told.get("data", "")),
            ),
        ),
    )


def _put_back(name: str, data: str) -> tuple[str, ...]:
    """Return how to put a settings file among the data, if their location is known."""
    if not data:
        return ()
    return (
        f'# sudo cp pg_hba.conf "$STACK"/{word(data)}/',
        f"# docker restart {name}",
    )


def _timescale(part: Part, member: str, databases: list[str]) -> Iterator[str]:
    yield from paragraph(
        f"It has the extension TimescaleDB, in {_named(databases)}. Its tables cannot be loaded "
        "with one command: you need the same version of the extension, and for each database "
        "CREATE EXTENSION timescaledb, SELECT timescaledb_pre_restore(), the load, SELECT "
        "timescaledb_post_restore(). See https://www.tigerdata.com/docs, logical backup. This "
        "writes the dump of the whole server as text:"
    )
    yield from block(f"# tar -xOf {word(part.file)} \\", f"#   ./{member} | gunzip > dump.sql")
