"""InfluxDB 2 in a restore: it stays as it is, and a person is told what to do."""

import pytest
from fake_influx2 import with_influx2

from iotstack_invoke.backups.sets import BackupSet, State
from iotstack_invoke.commands.restore.by_hand import Influx2ByHand
from iotstack_invoke.hosts.base import FileFact

TAG = "2026-11-23_1100"


@pytest.mark.parametrize("words", ["--only influxdb2", "--only influxdb2 --only nodered"])
def test_a_restore_of_influxdb_2_is_refused_with_the_commands(little_stack, words):
    """Nothing is changed; what is to be typed is told, for this very backup."""
    with_influx2(little_stack, "2.7.10")
    assert little_stack.run(f"backup --runtag {TAG}").returncode == 0
    told = little_stack.run(f"restore --runtag {TAG} --yes {words}")
    assert told.returncode == 13
    assert f"sudo tar -xf {TAG}.influxdb2-backup.tar -C volumes/influxdb2" in told.stderr
    assert "docker exec influxdb2 influx restore /var/lib/backup --full" in told.stderr


def test_a_restore_leaves_influxdb_2_as_it_is(little_stack):
    """All else would be replaced; its folder stays, and the commands are told."""
    with_influx2(little_stack, "2.7.10")
    assert little_stack.run(f"backup --runtag {TAG}").returncode == 0
    told = little_stack.run(f"restore --runtag {TAG} --dry-run")
    assert told.returncode == 0, told.stderr
    assert "docker exec influxdb2 influx restore" in told.stderr
    lines = [line.strip() for line in told.stdout.splitlines()]
    assert "replaces: volumes/nodered" in lines
    assert "stays as it is: volumes/influxdb2" in lines


def test_with_only_another_service_it_is_not_told(little_stack):
    """Whoever restores something else alone has nothing to do by hand: exit 0."""
    with_influx2(little_stack, "2.7.10")
    assert little_stack.run(f"backup --runtag {TAG}").returncode == 0
    told = little_stack.run(f"restore --runtag {TAG} --from here --only nodered --yes")
    assert (told.returncode, told.stderr) == (0, "")


def test_the_part_is_a_word_of_a_shell():
    """A runtag with blanks and brackets is quoted."""
    backup = BackupSet("vor (dem) Umzug", {"influxdb2": FileFact(1, 1.0)}, State.UNPROVEN)
    assert "'vor (dem) Umzug.influxdb2-backup.tar'" in Influx2ByHand(backup, None, "/x").advice
