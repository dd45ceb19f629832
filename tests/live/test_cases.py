"""Small stacks that were backed up badly once: each with what is right for its kind."""

import json
from datetime import UTC, datetime

import pytest
from marks import Posted
from stand_machine import USER

IDLE = "nodered:stand"


@pytest.fixture
def stack(pi, databases):
    """Make a stack of the services of a compose file; it is gone afterwards."""
    made = []

    def make(text, *, start=True, files=None, **kw):
        outside = [pi.home_of(USER) / name for name in ("elsewhere", "git", "ssd")]
        made.append(Posted(pi, text.replace("IDLE", IDLE), files=files, away=outside, **kw))
        made[-1].lay_out()
        if start:
            made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.remove()


def manifest(stack, runtag="t"):
    return json.loads((stack.top / f"backups/{runtag}.manifest.json").read_text())


def good(stack, *words):
    """Run the program; it must end well. Return what it said."""
    code, said = stack.run(*words)
    assert code == 0, said
    return said


NODERED = """\
services:
  one:
    container_name: nodered
    image: IDLE
    volumes: ["./volumes/nodered:/data"]
"""


# A server whose data lie elsewhere.

POSTGRES = """\
services:
  postgres:
    container_name: postgres
    image: postgres:stand
    stop_signal: SIGINT
    environment: [POSTGRES_USER=u, POSTGRES_PASSWORD=p, POSTGRES_DB=d{}]
    volumes: ["./volumes/postgres/data:{}"]
"""


# IOTstackBackup reads our PostgreSQL part.


def test_a_postgres_part_as_iotstackbackup_unpacks_it(stack, pi):
    """`tar -xzf` opens the part, and its member is a gzip."""
    posted = stack(POSTGRES.format("", "/var/lib/postgresql/data"))
    posted.plant()
    good(posted, "backup", "--runtag", "t")
    part = posted.top / "backups/t.postgres-backup.sql.gz.tar"
    script = f"tar -xzf '{part}' -O ./postgres_backup.sql.gz | gzip -dc | tail -n 3"
    assert "dump complete" in pi.run(["sh", "-c", script]).stdout


# Continuous queries in the part.

INFLUX = """\
services:
  db:
    image: influxdb:1.8
    container_name: {}
    volumes: ["{}:/var/lib/influxdb"]
"""


def test_continuous_queries_are_in_the_part(stack, pi):
    """The influx part holds the statements that make them."""
    posted = stack(INFLUX.format("influxdb", "./volumes/influxdb/data"))
    posted.ask("influxdb", "influx", "CREATE DATABASE marks")
    query = "SELECT mean(v) AS v INTO t2 FROM t GROUP BY time(1h)"
    posted.ask("influxdb", "influx", f"CREATE CONTINUOUS QUERY c ON marks BEGIN {query} END")
    good(posted, "backup", "--runtag", "t")
    script = f"tar -xf '{posted.top}/backups/t.influx-backup.tar' -O ./continuous-queries.influxql"
    said = pi.run(["sh", "-c", script]).stdout
    assert said.count("CREATE CONTINUOUS QUERY") == 1
    assert "marks" in said


# A cache without a mount.


def test_a_cache_without_a_mount(stack):
    """It has nothing that could be torn: no warning."""
    posted = stack("""\
services:
  redis:
    container_name: immich_redis
    image: docker.io/valkey/valkey:8-bookworm
""")
    good(posted, "backup", "--runtag", "t")
    assert manifest(posted)["warnings"] == []


# The hour that comes twice.


def test_a_default_runtag_that_is_taken(stack):
    """A clock that goes back does not keep a backup from being made: it gets a free name."""
    posted = stack(NODERED)
    code, said = posted.run("backup", TZ="FIRST0")
    assert code == 0, said
    (first,) = _runtags(posted)
    then = datetime.strptime(f"{first} +0000", "%Y-%m-%d_%H%M %z")
    back = (datetime.now(UTC) - then).total_seconds()
    code, said = posted.run("backup", TZ=_west(back))
    assert code == 0, said
    assert _runtags(posted) == [first, f"{first}-2"]


def _west(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    return f"SECOND0:{minutes:02}:{seconds:02}"


def _runtags(posted):
    found = (posted.top / "backups").glob("*.manifest.json")
    return sorted(path.name.removesuffix(".manifest.json") for path in found)
