"""What a backup will take: one estimate for whoever asks, of what is dumped and not of logs."""

import dataclasses
import json
import re

import pytest

from iotstack_invoke.commands.backup.disk_space import (
    SpaceEstimate,
    estimate_space,
    refuse_without_space,
)
from iotstack_invoke.core.errors import Refused
from iotstack_invoke.databases.sql.servers import SqlServer
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.workflows.backup import BackupFacts

ROWS = 1_000_000
LOGS = {
    "mariadb": (
        *("ib_logfile0", "undo001", "ibtmp1", "aria_log.00000001", "binlog.000003"),
        *("mysql-bin.000001", "#innodb_redo/#ib_redo10"),
    ),
    "postgres": ("pg_wal/000000010000000000000001", "18/docker/pg_wal/000000010000000000000002"),
}
ALL = {"mariadb": ("ibdata1", "home/states.ibd"), "postgres": ("base/5/16384", "base/5/16385")}


@pytest.mark.parametrize("engine", LOGS)
def test_logs_of_a_server_are_no_rows(tmp_path, engine):
    """Redo logs, undo and binary logs count nothing, and the rows as what a dump takes twice."""
    for names, size in ((LOGS[engine], 50 * ROWS), (ALL[engine], ROWS)):
        for name in names:
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                stream.write(b"x" * size)
    facts = BackupFacts(
        "", "", str(tmp_path), (), servers=(SqlServer("db", engine, f"{tmp_path}/data"),)
    )
    space = estimate_space(LocalHost(str(tmp_path)), facts, ())
    assert ROWS <= space.sql_bytes < 1.1 * ROWS
    assert space.needed_bytes == 2 * space.sql_bytes


def test_the_sum_adds_up_as_it_reads(tmp_path):
    """Each number of the refusal is one that the total is the sum of."""
    space = SpaceEstimate(*(7 * 10**17 + number for number in range(6)))
    with pytest.raises(Refused) as refused:
        refuse_without_space(LocalHost("/"), space, str(tmp_path))
    told = re.findall(r"\d[\d,]+", str(refused.value).partition("needs about ")[2])
    total, *parts = (int(each.replace(",", "")) for each in told)
    assert total == sum(parts) == space.needed_bytes
    assert len(parts) == 7
    assert dataclasses.replace(space, general_bytes=0).parts_bytes < space.parts_bytes


def test_the_doctor_finds_what_a_backup_is_refused_for(little_stack, small_disk):
    """Both count the dumps of a database that was never dumped."""
    little_stack.runs(mariadb="mariadb:10")
    known = little_stack.tools / "docker.json"
    known.write_text(known.read_text().replace('"/data"', '"/var/lib/mysql"'))
    (little_stack.folder / "volumes/mariadb/ibdata1").write_bytes(b"x" * 300_000)
    (little_stack.folder / "backups").symlink_to(small_disk)
    told = little_stack.run("backup")
    assert told.returncode == 13, told.stderr
    assert "for the parts of other databases + " in told.stderr
    found = json.loads(little_stack.run("doctor --json").stdout)
    (space,) = (each for each in found if each["name"] == "space")
    assert space["verdict"] == "failed", space
    assert "for their temporary dumps" in space["found"]
