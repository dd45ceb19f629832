"""Metrics in the words of Prometheus and of InfluxDB, written so that each reads them."""

import os
import re
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from influxd import Influxd, require_influxd
from listeners import answering
from sample_facts import BARE, DAY, FACTS, NOW, made

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.monitoring.influxdb import InfluxServer, write_points
from iotstack_invoke.monitoring.metrics import line_protocol, prometheus_text
from iotstack_invoke.monitoring.stack_facts import PlaceFacts
from iotstack_invoke.monitoring.textfile import write_textfile

KEEP = timedelta(weeks=104)


def test_each_metric_is_described_once_and_has_samples():
    """A vault that cannot be read has no numbers, but the one that says so."""
    lines = prometheus_text(FACTS).splitlines()
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) == sum(line.startswith("# HELP") for line in lines)
    assert {re.match(r"\w+", line)[0] for line in lines if line[0] != "#"} == set(names)
    assert [line for line in lines if "usb" in line] == [
        'iotstack_backup_vault_readable{vault="usb"} 0'
    ]
    newest = int((NOW - timedelta(hours=2)).timestamp())
    assert f'iotstack_backup_newest_timestamp_seconds{{vault="here"}} {newest}' in lines
    assert 'iotstack_backup_part_bytes{part="influx"} 120000' in lines
    assert "iotstack_backup_duration_seconds 61.4" in lines
    assert 'iotstack_backup_run_success{task="prune"} 1' in lines
    assert 'iotstack_backup_run_success{task="rehearse"} 0' in lines
    assert 'iotstack_backup_problems{severity="failure"} 1' in lines


def test_what_is_unknown_is_left_out():
    """A stack without a backup has no numbers of one: a zero would be one."""
    text = prometheus_text(BARE)
    assert "newest" not in text
    assert "part_bytes" not in text
    assert 'iotstack_backup_problems{severity="failure"} 0' in text


def test_the_textfile_is_replaced_and_readable_by_all(tmp_path):
    """The exporter runs as a user of its own; nothing else is left in its folder."""
    path = tmp_path / "iotstack.prom"
    for facts in (BARE, FACTS):
        write_textfile(str(path), prometheus_text(facts))
    assert path.read_text() == prometheus_text(FACTS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == [path.name]


def test_a_folder_that_is_missing_is_told(tmp_path):
    """With what to do."""
    with pytest.raises(StepFailed, match=r"^.*/none/x.prom.* Make .*/none writable"):
        write_textfile(f"{tmp_path}/none/x.prom", "")


@pytest.fixture(scope="module")
def influxd(tmp_path_factory):
    require_influxd()
    server = Influxd(tmp_path_factory.mktemp("influxd") / "data")
    yield server
    server.stop()


@pytest.fixture
def server(influxd):
    """An InfluxDB without our database."""
    influxd.ask('DROP DATABASE "iotstack_backup"')
    return influxd


def at(server, *login):
    return InfluxServer("127.0.0.1", server.port, *login)


def test_points_are_written_once(server):
    """A backup and a run are the same points each time; places and problems have a history."""
    now = datetime.now(UTC).replace(microsecond=0)
    for facts in (made(now), replace(made(now), now=now + timedelta(hours=1))):
        write_points(at(server), line_protocol(facts, KEEP), KEEP)
    sizes = server.rows('SELECT * FROM "part"')
    assert len(sizes) == 6
    assert {each["host"] for each in sizes} == {"pi"}
    assert len(server.rows('SELECT * FROM "backup"')) == 3
    assert len(server.rows('SELECT * FROM "run"')) == 3
    free = server.rows('SELECT last("free_bytes") FROM "vault" GROUP BY "vault"')
    assert {each["vault"]: each["last"] for each in free} == {"here": 7e9, "nas": 9e11}
    assert len(server.rows('SELECT * FROM "vault" WHERE "vault" = \'usb\'')) == 2
    assert [each["failures"] for each in server.rows('SELECT "failures" FROM "state"')] == [1, 1]


def test_the_database_has_the_retention_and_follows_it(server):
    """A change in hosts.toml reaches it; what is older than it is not sent: InfluxDB refuses it."""
    for weeks, told in ((104, "17472h0m0s"), (2, "336h0m0s")):
        write_points(
            at(server),
            line_protocol(made(datetime.now(UTC)), timedelta(weeks=weeks)),
            timedelta(weeks=weeks),
        )
        policies = server.rows('SHOW RETENTION POLICIES ON "iotstack_backup"')
        assert [(each["name"], each["duration"], each["default"]) for each in policies] == [
            ("iotstack_backup", told, True)
        ]
    long_ago = made(datetime.now(UTC) - 20 * DAY)
    old = replace(made(datetime.now(UTC)), sets=long_ago.sets, runs=long_ago.runs)
    write_points(at(server), line_protocol(old, timedelta(weeks=2)), timedelta(weeks=2))


@pytest.mark.parametrize(
    "name", ["my pi", "a,b=c", 'qu"ote', "back\\", "two\nlines", "é", "a\\ b"]
)
def test_any_name_is_written(server, name):
    """What its characters mean to InfluxDB is escaped."""
    now = datetime.now(UTC)
    facts = replace(made(now), host=name, places=(PlaceFacts(name, now),))
    write_points(at(server), line_protocol(facts, KEEP), KEEP)
    found = server.rows('SELECT * FROM "vault"')
    kept = name.replace("\n", " ").rstrip("\\")
    assert [(each["host"], each["vault"]) for each in found] == [(kept, kept)]


def test_a_login_is_given(tmp_path):
    """Without one, or with a wrong one, the message says what to set, and no password."""
    require_influxd()
    server = Influxd(tmp_path / "data", login=("admin", "s3cr3t"))
    lines = line_protocol(made(datetime.now(UTC)), KEEP)
    try:
        write_points(at(server, "admin", "s3cr3t"), lines, KEEP)
        assert len(server.rows('SELECT * FROM "backup"')) == 3
        for login, told in (
            ((), "refused a request without a login"),
            (("admin", "wr0ng"), "refused the user admin"),
        ):
            with pytest.raises(
                StepFailed, match=rf"{told}.* Set user and password_file of \[metrics\]"
            ) as caught:
                write_points(at(server, *login), lines, KEEP)
            assert "wr0ng" not in str(caught.value)
        # One who may only write into that database does.
        server.ask(
            'CREATE USER "writer" WITH PASSWORD \'w\'; GRANT WRITE ON "iotstack_backup" TO "writer"'
        )
        write_points(at(server, "writer", "w"), lines, KEEP)
    finally:
        server.stop()


def test_a_dead_server_is_told(tmp_path):
    """With where it was looked for."""
    with pytest.raises(
        StepFailed,
        match=r"InfluxDB at 127.0.0.1:9 \(container influxdb\) cannot be reached: Connection refused. Look at: docker logs influxdb.",
    ):
        write_points(InfluxServer("127.0.0.1", 9, container="influxdb"), "", KEEP)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        *(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            for body in (b"[]", b"<html>", b'{"results": null}', b'{"results": [1]}')
        ),
    ],
)
def test_a_server_that_is_no_influxdb_is_told(answer):
    """A wrong port is no bug of ours."""
    with answering(answer) as port, pytest.raises(StepFailed, match="gave no answer"):
        write_points(InfluxServer("127.0.0.1", port), "", KEEP)
