"""The part of database servers: what a whole dump becomes, and what is none."""

import gzip
import io
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import folders
import pytest
from contexts import PlainContext

from iotstack_invoke.archives.pack import CompareUnpacked, tar_words
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.databases.sql import dump as sql_dump
from iotstack_invoke.databases.sql.dump import PackDumps
from iotstack_invoke.databases.sql.servers import SqlServer, located, server_of
from iotstack_invoke.engine.steps import File, HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.parts.verify_archive import read_members, read_whole
from iotstack_invoke.services.containers import Container
from iotstack_invoke.stack.compose import InspectedContainer, Mount
from iotstack_invoke.stack.folders import Unpack

FIXTURES = folders.FIXTURES / "sql"
MARIA, POSTGRES = FIXTURES / "mariadb-10.11.sql", FIXTURES / "postgres-15.sql"


@pytest.fixture
def docker(tmp_path):
    """Return a function that makes a `docker` which answers a dump with what a script says."""

    def made(script):
        path = tmp_path / "docker"
        # docker exec NAME sh -c SCRIPT sh WORD …
        path.write_text(f'#!/bin/sh\nname=$2\n[ "$7" = dump ] || exit 0\n{script}\n')
        path.chmod(0o755)
        return (str(path),)

    return made


def pack(tmp_path, engine, docker, *names, tar=()):
    ending = {"mariadb": "mariadb-backup.tar.gz", "postgres": "postgres-backup.sql.gz.tar"}[engine]
    output = File("pi", f"x.{ending}", str(tmp_path))
    servers = tuple(SqlServer(name, engine, f"{tmp_path}/volumes/{name}") for name in names)
    context = PlainContext({"pi": LocalHost(str(tmp_path))})
    PackDumps(output, servers, 60, docker, tar).do(context)
    return Path(output.partial), context.recorded[str(output)]


def test_what_no_restore_takes_of_a_service_is_told(tmp_path, docker):
    """A device is left out, and what lies where no restore puts it is warned of."""
    path = tmp_path / "volumes/html"
    path.mkdir(parents=True)
    (path / "a").write_text("x")
    (path.parent / "odd").write_text("x")
    try:
        os.mknod(path / "device", 0o020600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes a device")
    tar = ("tar", "--create", "--directory", str(path.parent), "./html", "./odd")
    output = File("pi", "2026-11-29_0700.nextcloud-backup.tar.gz", str(tmp_path))
    server = SqlServer("nextcloud_db", "mariadb")
    context = PlainContext({"pi": LocalHost(str(tmp_path))})
    PackDumps(output, (server,), 60, docker(f"cat {MARIA}"), tar, "db_backup").do(context)
    assert set(members(output.partial)) == {"./db_backup/backup.sql", "./html/a", "./odd"}
    assert [each.partition(":")[0] for each in context.warned] == [
        "left out, because it cannot be restored",
        "a restore will refuse this backup",
    ]
    assert "html/device" in context.warned[0]
    assert "odd" in context.warned[1]
    reading = read_whole(LocalHost(str(tmp_path)), output.partial, "nextcloud")
    assert "odd" in " ".join(reading.problems)


def test_dates_of_a_service_come_through(tmp_path, docker):
    """Photographs of long ago have them."""
    (tmp_path / "volumes/html").mkdir(parents=True)
    (tmp_path / "volumes/html/photo").write_text("x")
    os.utime(tmp_path / "volumes/html/photo", (-(10**9), -(10**9)))
    output = File("pi", "2026-11-29_0700.nextcloud-backup.tar.gz", str(tmp_path))
    server = SqlServer("nextcloud_db", "mariadb")
    context = PlainContext({"pi": LocalHost(str(tmp_path))})
    tar = (*tar_words((), str(tmp_path / "volumes")), "./html")
    PackDumps(output, (server,), 60, docker(f"cat {MARIA}"), tar, "db_backup").do(context)
    with tarfile.open(output.partial) as archive:
        assert archive.getmember("./html/photo").mtime == -(10**9)
    assert read_whole(LocalHost(str(tmp_path)), output.partial, "nextcloud").problems == ()


def members(path):
    with tarfile.open(path) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive if each.isreg()}


def test_a_part_of_mariadb_is_what_iotstackbackup_restores(tmp_path, docker):
    """The dump of container mariadb is ./backup.sql, others have a folder of their own."""
    path, facts = pack(tmp_path, "mariadb", docker(f"cat {MARIA}"), "mariadb", "gitea_db")
    assert members(path) == {
        "./backup.sql": MARIA.read_bytes(),
        "./gitea_db/backup.sql": MARIA.read_bytes(),
    }
    assert facts["size_bytes"] == path.stat().st_size
    first, second = facts["servers"]
    assert (first["container"], second["container"]) == ("mariadb", "gitea_db")
    assert first["data"] == "volumes/mariadb"
    assert first["rows"]["plain"] == {"`old`": 2}
    assert read_whole(LocalHost("/"), str(path), "mariadb").problems == ()


def test_a_part_of_postgresql_is_what_iotstackbackup_restores(tmp_path, docker):
    """`tar -xzf` opens it, as its script does; in it lies ./postgres_backup.sql.gz for gunzip."""
    path, facts = pack(tmp_path, "postgres", docker(f"cat {POSTGRES}"), "postgres")
    there = tmp_path / "there"
    there.mkdir()
    subprocess.run(["tar", "-x", "-z", "-f", path, "-C", there], check=True)
    found = gzip.decompress((there / "postgres_backup.sql.gz").read_bytes())
    assert found == POSTGRES.read_bytes()
    assert facts["servers"][0]["rows"]["postdb"]["public.t"] == 3


def test_a_part_of_postgresql_is_read_whatever_is_around_it(tmp_path, docker):
    """A plain tar, as we made it before, is read as the compressed one by all that read it."""
    path, _ = pack(tmp_path, "postgres", docker(f"cat {POSTGRES}"), "postgres")
    plain = tmp_path / "old.postgres-backup.sql.gz.tar"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    for each in (path, plain):
        reading = read_whole(LocalHost("/"), str(each), "postgres")
        assert (reading.problems, list(reading.sql)) == ((), ["./postgres_backup.sql.gz"])
        with each.open("rb") as stream:
            assert "./postgres_backup.sql.gz" in [m.name for m in read_members(stream)]
        stage = tmp_path / f"stage-{each.name}"
        context = PlainContext({"pi": LocalHost(str(tmp_path))})
        Unpack(HostAccess("pi", guard=str(tmp_path / ".lock")), str(each), str(stage)).do(context)
        CompareUnpacked(HostAccess("pi"), str(each), str(stage)).do(context)
        assert gzip.decompress((stage / "postgres_backup.sql.gz").read_bytes())
        by_hand = ["tar", "-xOf", each, "./postgres_backup.sql.gz"]  # as RESTORE.txt has it
        told = subprocess.run(by_hand, check=True, capture_output=True).stdout
        assert gzip.decompress(told) == POSTGRES.read_bytes()
    cut = tmp_path / "cut.postgres-backup.sql.gz.tar"
    cut.write_bytes(path.read_bytes()[:-20])
    assert read_whole(LocalHost("/"), str(cut), "postgres").problems


def test_files_follow_the_dumps(tmp_path, docker):
    """What GNU tar reads comes behind the dumps, in one archive with one end."""
    (tmp_path / "html").mkdir()
    (tmp_path / "html/index.php").write_text("<?php\n")
    tar = ("tar", "--create", "--file=-", f"--directory={tmp_path}", "./html")
    path, _ = pack(tmp_path, "mariadb", docker(f"cat {MARIA}"), "mariadb", tar=tar)
    assert set(members(path)) == {"./backup.sql", "./html/index.php"}
    assert read_whole(LocalHost("/"), str(path), "mariadb").problems == ()


def test_logs_apart_from_the_data():
    """Linuxserver's MariaDB keeps binary logs beside its data; what has none is told as ''."""
    volume = "/stack/volumes/gitea/db"
    server = SqlServer("gitea_db", "mariadb", f"{volume}/databases", "/config/databases")
    assert server.logs == f"{volume}/log/mysql"
    assert server.logs_inside == "/config/log/mysql"
    for other in (
        SqlServer("mariadb", "mariadb", "/stack/db", "/var/lib/mysql"),
        SqlServer("postgres", "postgres", "/stack/db", "/var/lib/postgresql/data"),
        SqlServer("mariadb", "mariadb"),
    ):
        assert other.logs == ""


BROKEN = {
    "it fails": ("echo 'Lost connection' >&2; exit 2", "exit 2.: Lost connection"),
    "it fails at the end": (f"cat {MARIA}; exit 3", "exit 3"),
    "it says nothing": ("exit 0", "is incomplete"),
    "it is cut": (f"head -c 9000 {MARIA}", "is incomplete"),
    "it is killed": ("kill -9 $$", "failed"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_whole_dump_is_no_part(tmp_path, docker, what):
    """A dump that fails, or is not whole whatever its exit code, fails with its last words."""
    script, words = BROKEN[what]
    with pytest.raises(StepFailed, match=words) as failure:
        pack(tmp_path, "mariadb", docker(script), "mariadb")
    assert failure.value.again
    assert [each.name for each in tmp_path.iterdir() if "sql" in each.name] == []


def test_a_wrong_password_is_not_tried_again(tmp_path, docker):
    """Where no password of the environment is right, it is said what to do."""
    script = "echo 'the login of root was refused: ERROR 1045' >&2; exit 77"
    with pytest.raises(StepFailed, match=r"set the right one in docker-compose\.yml") as failure:
        pack(tmp_path, "mariadb", docker(script), "mariadb")
    assert not failure.value.again


def test_a_stopped_server_is_not_waited_for(tmp_path):
    """What Docker says of a container that is stopped is told at once, with its last words."""
    docker = tmp_path / "docker"
    docker.write_text(
        "#!/bin/sh\n"
        "[ $1 = exec ] || { echo 'mariadbd: Shutdown complete'; exit 0; }\n"
        "echo 'Error response from daemon: Container 0123 is not running' >&2; exit 1\n"
    )
    docker.chmod(0o755)
    with pytest.raises(StepFailed, match=r"mariadb is stopped.*Shutdown complete"):
        pack(tmp_path, "mariadb", (str(docker),), "mariadb")


@pytest.mark.parametrize(
    ("engine", "shell", "words"),
    [
        ("mariadb", True, "is not MariaDB: it has no program mariadb-dump or mysqldump"),
        ("postgres", True, "is not PostgreSQL: it has no program pg_dumpall"),
        ("mariadb", False, "is not MariaDB: .*executable file not found"),
    ],
)
def test_another_image_is_told_at_once(tmp_path, engine, shell, words):
    """A container without the programs of its engine is not waited for, nor one without a shell."""
    inside = tmp_path / "inside"
    inside.mkdir()
    if shell:
        (inside / "sh").symlink_to(shutil.which("sh"))
    docker = tmp_path / "docker"
    # docker exec NAME sh -c SCRIPT sh ready
    docker.write_text(
        f"#!/bin/sh\n[ -e {inside}/$3 ] || {{\n"
        """echo 'exec: "sh": executable file not found in $PATH: unknown' >&2; exit 127\n}\n"""
        f'shift 2\nexec env -i PATH={inside} "$@"\n'
    )
    docker.chmod(0o755)
    began = time.monotonic()
    with pytest.raises(StepFailed, match=f"Container grafana {words}") as failure:
        pack(tmp_path, engine, (str(docker),), "grafana")
    assert "hosts.toml" in str(failure.value)
    assert not failure.value.again
    assert time.monotonic() - began < 10


def test_a_damaged_part_is_found(tmp_path, docker):
    """A dump inside of a whole archive that lacks its end is a problem of the part."""
    cut = MARIA.read_bytes()[:9000]
    path = tmp_path / "part"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("./backup.sql")
        info.size = len(cut)
        archive.addfile(info, io.BytesIO(cut))
    assert "Dump completed" in read_whole(LocalHost("/"), str(path), "mariadb").problems[0]
    with tarfile.open(path, "w:gz"):
        pass
    assert read_whole(LocalHost("/"), str(path), "mariadb").problems == ("it has no dump.",)


class Rotting(io.BufferedRandom):
    """The file in which a dump waits: when it is read back, the disk has changed it."""

    def __init__(self, path, damage):
        super().__init__(path.open("w+b", buffering=0))
        self.damage = damage

    def seek(self, *words):
        damage, self.damage = self.damage, None
        if damage:
            super().seek(0)
            content = damage(self.read())
            super().seek(0)
            self.truncate()
            self.write(content)
        return super().seek(*words)


def another_dump(content):
    plain = gzip.decompress(content)
    at = plain.rindex(b"INSERT INTO" if b"MariaDB" in plain else b"\n-- ")
    return gzip.compress(plain[:at] + b"#" * (len(plain) - at))


DAMAGES = {
    "another dump": another_dump,
    "a bit": lambda content: content[:-6] + bytes([content[-6] ^ 1]) + content[-5:],
    "many bits": lambda content: content[:50] + bytes(len(content) - 50),
    "its end": lambda content: content[:-9],
    "half": lambda content: content[: len(content) // 2],
    "all": lambda _content: b"",
    "more": lambda content: gzip.compress(gzip.decompress(content) + b"-- more\n"),
}


@pytest.mark.parametrize("engine", ["mariadb", "postgres"])
@pytest.mark.parametrize("what", DAMAGES)
def test_a_dump_is_read_again_from_the_disk_on_which_it_waited(
    tmp_path, docker, monkeypatch, engine, what
):
    """What was proven while it came is proven once more: a disk may give other bytes back."""
    dump = {"mariadb": MARIA, "postgres": POSTGRES}[engine]
    damaged = SimpleNamespace(
        TemporaryFile=lambda **_given: Rotting(tmp_path / "spool", DAMAGES[what])
    )
    monkeypatch.setattr(sql_dump, "tempfile", damaged)
    with pytest.raises(StepFailed, match="Could not write all of the dump") as failure:
        pack(tmp_path, engine, docker(f"cat {dump}"), engine)
    assert failure.value.again


def asked(tmp_path, answer, code=0, *, running=True, engine="postgres", mounts=()):
    """Return where a server's data are taken to lie that answers so."""
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\nprintf '%s\\n' '{answer}'; exit {code}\n")
    docker.chmod(0o755)
    found = InspectedContainer(Container("db", engine, "", "", running), tuple(mounts), 0, "", "")
    server = located(LocalHost("/"), server_of(found, engine), found, (str(docker),))
    return server.data, server.inside


PG = Mount("/stack/pg", "/var/lib/postgresql/data")


@pytest.mark.parametrize(
    ("answer", "mounts", "place"),
    [
        ("/var/lib/postgresql/data", [PG], ("/stack/pg", "/var/lib/postgresql/data")),
        ("/var/lib/postgresql/data/in/", [PG], ("/stack/pg/in", "/var/lib/postgresql/data/in")),
        ("/data/pg", [PG, Mount("/stack/x", "/data/pg")], ("/stack/x", "/data/pg")),
        ("/data/pg", [Mount("/stack/x", "/data")], ("/stack/x/pg", "/data/pg")),
        (
            "/var/lib/postgresql/18/docker",
            [Mount("/stack/pg", "/var/lib/postgresql")],
            ("/stack/pg/18/docker", "/var/lib/postgresql/18/docker"),
        ),
        ("/data/pg", [PG], ("", "")),  # in the container alone: what is mapped is something else
    ],
)
def test_where_its_data_lie_is_asked_of_the_server(tmp_path, answer, mounts, place):
    """It is mapped through its mounts, however deep, and not guessed from them."""
    assert asked(tmp_path, answer, mounts=mounts) == place


@pytest.mark.parametrize("answer", ["", "no path", "/a\n/b"])
def test_one_that_does_not_tell_has_its_data_where_its_image_has_them(tmp_path, answer):
    """Nor is one asked that does not run."""
    usual = ("/stack/pg", "/var/lib/postgresql/data")
    assert asked(tmp_path, answer, mounts=[PG]) == usual
    assert asked(tmp_path, "/data/pg", 1, mounts=[PG]) == usual
    assert asked(tmp_path, "/data/pg", running=False, mounts=[PG]) == usual
    config = [Mount("/stack/m", "/config")]
    found = asked(tmp_path, "/config/databases/", engine="mariadb", mounts=config)
    assert found == ("/stack/m/databases", "/config/databases")
