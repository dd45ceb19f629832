"""RESTORE.txt, followed to the letter on an empty machine: everything is back, with nothing of ours."""

import shutil

import pytest
import test_recipes
from databases import (
    fill_maria,
    fill_postgres,
    fresh_database_stack,
    look_maria,
    look_postgres,
    wait_databases,
    wait_maria,
)
from owner import Owner
from restorer import below, points, running, tree, write_oddities
from stand import query, remove_iotstack, wait_ping, write_points
from stand_machine import UIDS, USER

# The seconds that a person would wait for a Raspberry Pi.
HASTE = 'sleep() { command sleep "$(($1 < 3 ? $1 : 3))"; }\n'


# The engine reads the accounts of the image, and the stand's has no www-data.
WWW_DATA = """docker() {
    [ "$1" != ps ] || command docker cp "$HOME/passwd" nextcloud:/etc/passwd
    command docker "$@"
}
"""


def follow(owner, stand, runtag, before=HASTE):
    """Move a set away, remove the stack, and paste every command of its text; return what they say."""
    usb = owner.pi.home_of(USER) / "usb stick"
    shutil.rmtree(usb, ignore_errors=True)
    usb.mkdir()
    for path in owner.backups.glob(f"{runtag}.*"):
        shutil.copy(path, usb)
    for path in (usb, *usb.iterdir()):
        shutil.chown(path, UIDS[USER], UIDS[USER])
    remove_iotstack(owner.pi)
    lines = (usb / f"{runtag}.RESTORE.txt").read_text().splitlines()
    commands = "".join(f"{line}\n" for line in lines if line.startswith("    "))
    if stand.compose_v2 is None:
        commands = commands.replace("docker compose ", "docker-compose ")
    words = ["bash", "-e", "-u", "-o", "pipefail", "-x"]
    done = owner.pi.run(
        words, input=before + commands, user=USER, cwd=usb, check=False, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.long
def test_databases_and_files_are_back(stand, pi, nas, databases):
    """InfluxDB, two MariaDBs, PostgreSQL and all files are what they were when the set was made."""
    owner = Owner(pi, nas, user=USER, fresh=fresh_database_stack)
    fill_maria(pi)
    fill_postgres(pi)
    write_points(pi, "home", *[f"cpu,room=r{i % 3} value={i} {i}000000000" for i in range(900)])
    write_points(pi, "odd name, Küche.Bad", "cpu value=1 1000000000")
    query(pi, 'CREATE DATABASE "empty"')
    write_oddities(owner.top / "volumes/nodered/odd")
    kept = ("services", "volumes/nodered", ".env", "docker-compose.yml")
    files, series = below(tree(owner.top), *kept), points(pi)
    held = (look_maria(pi), look_maria(pi, "gitea_db"), look_postgres(pi))
    ran = running(pi)
    owner.backup("--runtag", "by hand")
    said = follow(owner, stand, "by hand")
    wait_databases(pi)
    wait_ping(pi)
    assert below(tree(owner.top), *kept) == files, said
    assert points(pi) == series
    assert (look_maria(pi), look_maria(pi, "gitea_db"), look_postgres(pi)) == held
    assert running(pi) == ran
    owner.away()


@pytest.mark.long
def test_nextcloud_is_back(stand, pi, nas, databases):
    """A Nextcloud that was quiet for its copy has its files and its rows, and goes on."""
    owner = Owner(pi, nas, user=USER, fresh=test_recipes.fresh)
    owner.set(test_recipes.SERVICES, vaults={})
    rows = "CREATE TABLE nextcloud.f (id INT); INSERT INTO nextcloud.f VALUES (1), (2)"
    test_recipes.maria(pi, rows, **test_recipes.DATABASE)
    (owner.top / "volumes/nextcloud/html/version.php").unlink()  # the image brings it
    shutil.copy(owner.top / "passwd", pi.home_of(USER))
    source = test_recipes.state(owner)
    owner.backup("--runtag", "by hand")
    said = follow(owner, stand, "by hand", HASTE + WWW_DATA)
    wait_maria(pi, **test_recipes.DATABASE)
    assert test_recipes.state(owner) == source, said
    owner.away()
