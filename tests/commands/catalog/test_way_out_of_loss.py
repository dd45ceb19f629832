"""What newer backups lack: told by backup, status, list and prune alike, with a way out that works."""

import shlex
import time
from datetime import datetime, timedelta

import pytest
from contexts import put_set, until
from fake_docker import LittleDocker

LACKS = "is missing volume app:/anon of the outside part (newest in n1)"


def night(stack, tag, code):
    told = stack.run(f"backup --runtag {tag}")
    assert told.returncode == code, told.stderr
    return " ".join(told.stderr.split())


def test_a_volume_that_a_container_made_anew_left_behind(little_stack):
    """The first backup after it warns, all later texts agree with it, and each has the command."""
    docker = LittleDocker(little_stack)
    for name, text in (("a" * 64, "kept"), ("b" * 64, "")):
        docker.volume(name, text)
        (docker.root / "volumes" / name / "labels").write_text("com.docker.volume.anonymous=")
    (docker.files("b" * 64) / "file").unlink()
    docker.knows({"app": [("a" * 64, "/anon")]})
    night(little_stack, "n1", 0)
    docker.knows({"app": [("b" * 64, "/anon")]})  # after `docker compose down; up`
    began_s = int(time.time())
    until(lambda: int(time.time()) > began_s)  # of two sets of one second none is the newer
    said = night(little_stack, "n2", 3)
    command = "inv prune --allow-missing volume:app:/anon"
    assert "volume:app:/anon is missing now: n1 has 4 bytes in 1 file of it" in said
    assert said.count(command) == 1
    assert "If this is intended, do nothing" not in said
    night(little_stack, "n3", 0)
    for line in ("status --at here", "prune --dry-run"):
        told = little_stack.run(line)
        said = " ".join((told.stdout + told.stderr).split())
        assert LACKS in said, line
        assert said.count(command) == 1, line
    assert little_stack.run(command.removeprefix("inv ")).returncode == 0
    assert little_stack.run("status --at here").stdout.startswith("OK ")
    assert "is missing" not in little_stack.run("prune").stdout


SERVERS = {"servers": [{"container": n, "rows": {n: {"t": 1}}} for n in ("db", "wiki")]}
BUCKET = {"organization": "o", "bucket": "b", "shards": 1, "size_bytes": 1}
LOST = [
    ({"influx": {"databases": ["home"]}}, {}),
    ({"influx": {"databases": ["home", "with space"]}}, {"influx": {"databases": ["home"]}}),
    ({"mariadb": SERVERS}, {"mariadb": {"servers": SERVERS["servers"][:1]}}),
    ({"mariadb": {"servers": [{"container": "db", "rows": {"a": {}, "b": {}}}]}},
     {"mariadb": {"servers": [{"container": "db", "rows": {"a": {}}}]}}),
    ({"influxdb2": {"buckets": [BUCKET]}}, {"influxdb2": {"buckets": []}}),
    ({"outside": {"outside": [{"path": "/opt/it's"}], "sizes": {"opt/it's": [4, 1]}}}, {}),
    ({"outside": {"outside": [{"path": "/v", "volume": "stack_data"}], "sizes": {"v": [4, 1]}}}, {}),
]  # fmt: skip


@pytest.mark.parametrize("at", ["here", "nas"])
@pytest.mark.parametrize(("had", "has"), LOST)
def test_the_command_that_is_told_works_for_each_kind(little_stack, tmp_path, had, has, at):
    """Pasted into a shell as it stands, also where a vault without a policy alone has it."""
    folders = {"here": little_stack.folder / "backups", "nas": tmp_path / "nas"}
    for each in folders.values():
        each.mkdir()
    with little_stack.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "nas"\nkind = "folder"\nfolder = "{folders["nas"]}"\n')
    now = datetime.now().astimezone()
    for place, folder in folders.items():
        put_set(folder, now - timedelta(hours=2), runtag="old", more=had if place == at else has)
        put_set(folder, now - timedelta(hours=1), runtag="new", more=has)
    told = little_stack.run("status")
    assert told.returncode == 1, told.stdout
    command = told.stdout.partition("inv prune ")[2]
    assert shlex.split(command)[-1] == ("nas" if at == "nas" else shlex.split(command)[-1])
    assert little_stack.run(f"prune {command}").returncode == 0
    told = little_stack.run("status")
    assert (told.returncode, told.stdout[:3]) == (0, "OK "), told.stdout
