"""A Nextcloud with its database, and a service that is stopped for its copy, on the stand.

Nextcloud's `occ` is a script that keeps the mode in config.php, as the real one does.
"""

import json
import os
import shutil
import signal
import time

import pytest
from databases import maria, wait_maria
from owner import Owner
from restorer import running
from stand import compose_up, make_iotstack, remove_iotstack
from stand_machine import USER, wait_for

COMPOSE = """\
version: '3.6'
services:
  nextcloud:
    container_name: nextcloud
    image: "nodered:stand"
    restart: unless-stopped
    working_dir: /var/www/html
    volumes:
      - ./volumes/nextcloud/html:/var/www/html
      - ./services/nextcloud/php:/usr/bin/php:ro
  nextcloud_db:
    container_name: nextcloud_db
    image: "mariadb:stand"
    restart: unless-stopped
    environment:
      - MYSQL_ROOT_PASSWORD=rootPassword
      - MYSQL_DATABASE=nextcloud
      - MYSQL_USER=nextcloud
      - MYSQL_PASSWORD=userPassword
    volumes:
      - ./volumes/nextcloud/db:/config
      - ./volumes/nextcloud/db_backup:/backup
  bolt:
    container_name: bolt
    image: "nodered:stand"
    restart: unless-stopped
    volumes:
      - ./volumes/bolt:/data
"""
PHP = """\
#!/bin/sh
[ "$1 $2" = "occ maintenance:mode" ] || exit 1
case "$3" in
--on) echo "<?php // maintenance => true" > config/config.php ;;
--off) echo "<?php // maintenance => false" > config/config.php ;;
esac
read -r mode < config/config.php
case "$mode" in
*true*) echo "Maintenance mode is currently enabled" ;;
*) echo "Maintenance mode is currently disabled" ;;
esac
"""
SERVICES = """\
[[services]]
name = "nextcloud"
kind = "recipe"
[[services]]
name = "bolt"
kind = "stop"
"""
DATABASE = {"container": "nextcloud_db", "password": "rootPassword"}


def fresh(machine, *, user=None, version=None):
    remove_iotstack(machine)
    top = make_iotstack(machine, user=user)
    (top / "docker-compose.yml").write_text(COMPOSE)
    php = top / "services/nextcloud/php"
    php.parent.mkdir()
    php.write_text(PHP)
    php.chmod(0o755)
    shutil.rmtree(top / "volumes/influxdb")
    html = top / "volumes/nextcloud/html"
    (html / "config/config.php").write_text("<?php // maintenance => false\n")
    for name in ("custom_apps", "themes"):
        (html / name).mkdir()
    (html / "version.php").write_text("of the image\n")
    (top / "volumes/bolt").mkdir()
    (top / "volumes/bolt/bolt.db").write_text("bolt\n")
    compose_up(machine, "nextcloud", "nextcloud_db", "bolt", version=version, user=user)
    # The engine reads the accounts of the image, and none that is mounted.
    (top / "passwd").write_text("root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n")
    machine.run(["docker", "cp", top / "passwd", "nextcloud:/etc/passwd"])
    wait_maria(machine, **DATABASE)
    return top


@pytest.fixture(scope="module")
def owner(pi, nas, databases):
    """An owner whose Nextcloud has files and rows; it is saved by its recipe."""
    made = Owner(pi, nas, user=USER, fresh=fresh)
    made.set(SERVICES, vaults={})
    maria(
        pi,
        "CREATE TABLE nextcloud.f (id INT); INSERT INTO nextcloud.f VALUES (1), (2)",
        **DATABASE,
    )
    yield made
    made.away()


def state(owner):
    """What a person would find: the mode, the files, the rows, whoever runs."""
    html = owner.top / "volumes/nextcloud/html"
    files = {
        os.path.relpath(os.path.join(folder, name), html)
        for folder, _, names in os.walk(os.fsencode(html))
        for name in map(os.fsdecode, names)
        for folder in [os.fsdecode(folder)]
    }
    return {
        "mode": (html / "config/config.php").read_text(),
        "files": files,
        "rows": sorted(maria(owner.pi, "SELECT id FROM nextcloud.f", **DATABASE)),
        "bolt": (owner.top / "volumes/bolt/bolt.db").read_text(),
        "running": running(owner.pi),
    }


def change(owner):
    html = owner.top / "volumes/nextcloud/html"
    (html / "data/anna/files/empty").unlink(missing_ok=True)
    (html / "data/new").write_text("new")
    (owner.top / "volumes/bolt/bolt.db").write_text("other\n")
    maria(owner.pi, "INSERT INTO nextcloud.f VALUES (3)", **DATABASE)


def is_quiet(owner):
    return "true" in (owner.top / "volumes/nextcloud/html/config/config.php").read_text()


def assert_all_goes_on(owner):
    """Nextcloud is open, all run, and nobody is to be let go on any more."""
    wait_for("Nextcloud", lambda: not is_quiet(owner), timeout=15)
    wait_for("all", lambda: running(owner.pi) == {"bolt", "nextcloud", "nextcloud_db"}, timeout=15)
    # The watcher removes its mark when what it let go on has started, a moment after it runs.
    wait_for(
        "the marks",
        lambda: not [name for name in os.listdir(owner.backups) if name.startswith(".quiet")],
        timeout=15,
    )


def test_a_restored_nextcloud_is_as_it_was(owner, pi):
    """After a backup, a change and a restore, and after its undo: files, rows, mode; core stays."""
    source = state(owner)
    owner.backup("--runtag", "r1")
    assert_all_goes_on(owner)
    told = owner.manifest("r1")
    assert set(told["parts"]) == {"general", "nextcloud"}
    assert told["warnings"] == []
    assert told["parts"]["general"]["facts"]["at_rest"] == ["volumes/bolt"]
    names = owner.iot("show", "r1", "--files", "nextcloud")
    assert "./db_backup/backup.sql" in names
    assert "./html/data/first" in names
    assert "version.php" not in names
    assert "nextcloud/html" not in owner.iot("show", "r1", "--files", "general")
    change(owner)
    core = owner.top / "volumes/nextcloud/html/version.php"
    core.write_text("of a newer image\n")
    changed = state(owner)
    said = owner.iot("restore", "--runtag", "r1", "--yes")
    wait_maria(pi, **DATABASE)
    assert state(owner) == source, said
    assert core.read_text() == "of a newer image\n"
    owner.iot("undo", "--last-restore", "--yes")
    wait_maria(pi, **DATABASE)
    assert state(owner) == changed


def test_a_backup_that_is_killed_or_fails_leaves_nobody_quiet(owner, pi):
    """SIGKILL in maintenance mode; then a dump that fails: Nextcloud goes on within seconds."""
    run = owner.start("--runtag", "r2")
    deadline = time.monotonic() + 30
    while not is_quiet(owner):
        assert time.monotonic() < deadline
    for line in pi.run(["pgrep", "-f", "iotstack_invoke backup"]).stdout.split():
        pi.run(["kill", f"-{int(signal.SIGKILL)}", line], check=False)
    run.end()
    assert_all_goes_on(owner)
    maria(
        pi,
        "ALTER USER root@'%' IDENTIFIED BY 'x'",
        **DATABASE,
    )
    said = owner.backup("--runtag", "r2", code=1)
    assert "another password" in said
    assert_all_goes_on(owner)
    password = {**DATABASE, "password": "x"}
    maria(
        pi,
        "ALTER USER root@'%' IDENTIFIED BY 'rootPassword'",
        **password,
    )
    owner.backup("--runtag", "r2")
    assert_all_goes_on(owner)


@pytest.mark.long
def test_nextcloud_alone_is_restored_and_rehearsed(owner, pi):
    """--only nextcloud changes nothing else; a rehearsal loads its dump, too."""
    owner.backup("--runtag", "r3")
    owner.iot("verify", "--runtag", "r3")
    source = state(owner)
    change(owner)
    owner.iot("restore", "--runtag", "r3", "--only", "nextcloud", "--yes")
    wait_maria(pi, **DATABASE)
    assert state(owner) == {**source, "bolt": "other\n"}
    owner.iot("rehearse")
    owner.backup("--runtag", "r4")
    assert json.loads(owner.iot("diff", "r3", "r4", "--json"))["parts"]["nextcloud"] is not None
