"""Real MariaDB and PostgreSQL servers, dumped and loaded by the scripts of their containers."""

import contextlib
import gzip
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tarfile
import tempfile
from glob import glob
from pathlib import Path

import pytest
from contexts import PlainContext, until
from ports import free_port

from iotstack_invoke.backups.manifest import Manifest, Part
from iotstack_invoke.commands.backup.coverage import live_files
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.databases.inventory import Held
from iotstack_invoke.databases.sql.config import CompareConfig
from iotstack_invoke.databases.sql.dump import PackDumps, mark_of
from iotstack_invoke.databases.sql.load import LoadSql, SqlDump, UnpackSql
from iotstack_invoke.databases.sql.read_dump import MariaReader
from iotstack_invoke.databases.sql.servers import ENGINES, SqlServer, located, run_in
from iotstack_invoke.databases.sql.stays import lists_of
from iotstack_invoke.engine.steps import File, HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.parts.restore_text import restore_text_of
from iotstack_invoke.services.containers import Container
from iotstack_invoke.stack.compose import InspectedContainer, Mount

# `docker` without containers: what is called `away` does not run, of others the answers to a
# question come in reverse, and all of them see one server.
DOCKER = """#!/bin/sh
[ "$1" = exec ] || exit 0
name=$2
shift 2
if [ "$name" = away ]; then echo "Container 0123 is not running" >&2; exit 1; fi
inside=${5#/iotstack-dumps/}
if [ "$4" != sh ] || [ "$5" != ask ]; then
  count=$#
  while [ $count -gt 0 ]; do
    word=$1; shift
    case $word in /iotstack-dumps/*) word=DUMPS/${word#/iotstack-dumps/} ;; esac
    set -- "$@" "$word"
    count=$((count - 1))
  done
  exec env SETTINGS "$@"
fi
env SETTINGS "$@" >DUMPS/answer || exit
tac DUMPS/answer
"""


class Server:
    """A database server in a folder of its own, and the `docker` that finds it."""

    def __init__(self, engine, folder, settings, client):
        self.engine = engine
        self.folder = folder
        self.client = client
        self.settings = settings
        self.docker = folder / "docker"
        words = " ".join(settings)
        text = DOCKER.replace("SETTINGS", words).replace("DUMPS", str(folder))
        self.docker.write_text(text)
        self.docker.chmod(0o755)

    def tell(self, sql):
        done = subprocess.run(self.client, input=sql, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pack(self, *names):
        """Make a part of servers of these names; return its members and the scene."""
        name = {"mariadb": "x.mariadb-backup.tar.gz", "postgres": "x.postgres-backup.sql.gz.tar"}
        output = File("pi", name[self.engine], str(self.folder))
        context = PlainContext({"pi": LocalHost(str(self.folder))})
        servers = tuple(SqlServer(each, self.engine) for each in names)
        PackDumps(output, servers, 60, (str(self.docker),)).do(context)
        with tarfile.open(output.partial) as archive:
            members = {each.name: archive.extractfile(each).read() for each in archive}
        return members, context, context.recorded[str(output)]

    def load(self, dump):
        """Load a dump and count its rows; return the scene."""
        path = self.folder / "dump.sql"
        path.write_bytes(dump)
        path.chmod(0o644)
        context = PlainContext({"pi": LocalHost(str(self.folder))})
        server = SqlServer(self.engine, self.engine)
        wanted = SqlDump(HostAccess("pi"), str(path), server)
        guard = str(self.folder / "guard")
        LoadSql(
            HostAccess("pi", docker=(str(self.docker),), guard=guard),
            server,
            wanted,
            str(self.folder),
            limit_s=60,
        ).do(context)
        return context

    def compared(self, members):
        """Return the warnings where the settings of a part are compared with the server's."""
        folder = self.folder / "staged/config"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, content in members.items():
            if "/config/" in name:
                (folder / name.rpartition("/")[2]).write_bytes(content)
        context = PlainContext({"pi": LocalHost(str(self.folder))})
        server = SqlServer(self.engine, self.engine)
        dump = str(self.folder / "staged/postgres_backup.sql")
        CompareConfig(HostAccess("pi", docker=(str(self.docker),)), server, self.engine, dump).do(
            context
        )
        return context.warned


@contextlib.contextmanager
def running(words, answers, user=None):
    """Run a server until the block ends."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(words, user=user, **quiet)
    try:
        until(lambda: subprocess.run(answers, check=False, **quiet).returncode == 0)
        yield
    finally:
        process.send_signal(signal.SIGINT if user else signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def folder():
    """A folder that the user of a server may enter."""
    made = Path(tempfile.mkdtemp(prefix="sql-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def maria(folder):
    """A MariaDB."""
    if not shutil.which("mariadbd") or not shutil.which("mariadb-install-db"):
        pytest.skip("there is no mariadbd")
    top = folder / "maria"
    top.mkdir()
    data, sock, port = top / "data", top / "socket", str(free_port())
    user = f"--user={pwd.getpwuid(os.getuid()).pw_name}"
    make = ["mariadb-install-db", "--no-defaults", user, f"--datadir={data}"]
    make += ["--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(make, check=True, capture_output=True)
    (top / ".my.cnf").write_text(f"[client]\nsocket={sock}\n")
    client = ["mariadb", "--no-defaults", f"--socket={sock}", "--user=root", "--binary-mode"]
    words = ["mariadbd", "--no-defaults", user, f"--datadir={data}", f"--socket={sock}"]
    words += [f"--port={port}", "--bind-address=127.0.0.1"]
    with running(words, [*client, "--execute=SELECT 1"]):
        yield Server("mariadb", top, [f"HOME={top}", f"MYSQL_TCP_PORT={port}"], client)


@pytest.fixture(scope="module")
def postgres(folder):
    """A PostgreSQL."""
    programs = sorted(glob("/usr/lib/postgresql/*/bin"))
    if not programs:
        pytest.skip("there is no PostgreSQL")
    top = folder / "postgres"
    top.mkdir()
    user = "postgres" if os.getuid() == 0 else None  # it does not run as root
    if user:
        shutil.chown(top, user)
    data, port = str(top / "data"), str(free_port())
    make = [f"{programs[-1]}/initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync"]
    subprocess.run(make, check=True, capture_output=True, user=user)
    client = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h", str(top)]
    client += ["-p", port]
    words = [f"{programs[-1]}/postgres", "-D", data, "-p", port, "-k", str(top)]
    words += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    with running(words, [*client, "-c", "SELECT 1"], user):
        yield Server("postgres", top, [f"PGHOST={top}", f"PGPORT={port}"], client)


FILL_MARIA = """
CREATE DATABASE `a
b`; USE `a
b`;
CREATE TABLE `t

x` (`c
d` INT, e INT GENERATED ALWAYS AS (`c
d` + 1), s TEXT);
INSERT INTO `t

x` (`c
d`, s) VALUES (1, 'q
r'), (2, '`');
CREATE DATABASE `back\\n tab	x`; USE `back\\n tab	x`;
CREATE TABLE t (i INT);
INSERT INTO t VALUES (1), (2);
"""


@pytest.fixture
def maria_filled(maria):
    """A MariaDB with names that have a newline, or look as if; emptied of them at the end."""
    maria.tell(FILL_MARIA)
    yield maria
    maria.tell("DROP DATABASE IF EXISTS `a\nb`; DROP DATABASE IF EXISTS `back\\n tab	x`")


def test_tables_in_memory_only_come_back_empty_and_are_named(maria):
    """A restart empties them, and a restore ends with one: no dump of them is all in."""
    maria.tell(
        "CREATE DATABASE IF NOT EXISTS fleeting; USE fleeting; "
        "CREATE TABLE `ca``che` (i INT) ENGINE=MEMORY COMMENT='x'; CREATE TABLE none LIKE `ca``che`; "
        "CREATE TABLE plain (i INT) COMMENT=') ENGINE=MEMORY'; "
        "INSERT INTO `ca``che` VALUES (1), (2); INSERT INTO plain VALUES (1)"
    )
    try:
        members, context, told = maria.pack("mariadb")
        (left,) = told["servers"][0]["left_out"]
        assert "fleeting.`ca``che` (2 rows)" in left
        assert "plain" not in left and "none" not in left  # noqa: PT018 - one property
        assert context.warned == []
        assert any(left in each for each in context.said)
        (warning,) = maria.load(members["./backup.sql"]).warned
        assert "MariaDB in container mariadb" in warning
        assert "fleeting.`ca``che` (2 rows)" in warning
    finally:
        maria.tell("DROP DATABASE fleeting")


def test_names_with_newlines_in_mariadb(maria_filled):
    """Databases and tables of any name are dumped, loaded, and their rows counted."""
    members, context, told = maria_filled.pack("mariadb")
    rows = told["servers"][0]["rows"]
    assert rows["a\nb"] == {"`t\n\nx`": 2}
    assert rows["back\\n tab\tx"] == {"`t`": 2}
    assert context.warned == []
    maria_filled.tell("DROP DATABASE `a\nb`")
    loaded = maria_filled.load(members["./backup.sql"])
    assert "The whole dump is in" in loaded.said[-1]
    assert maria_filled.tell("SELECT COUNT(*) FROM `a\nb`.`t\n\nx`").split() == ["COUNT(*)", "2"]


FILL_APART = """
CREATE DATABASE apart; USE apart;
CREATE TABLE t (a INT COMMENT 'DATA DIRECTORY=''x''') ENGINE=InnoDB DATA DIRECTORY='FOLDER';
CREATE TABLE m (a INT, KEY (a)) ENGINE=MyISAM INDEX DIRECTORY='FOLDER';
CREATE TABLE a (a INT) ENGINE=Aria DATA DIRECTORY='FOLDER';
CREATE TABLE p (a INT) PARTITION BY RANGE (a) (PARTITION x VALUES LESS THAN (10),
    PARTITION y VALUES LESS THAN MAXVALUE DATA DIRECTORY='FOLDER');
CREATE TABLE plain (a INT COMMENT ') ENGINE= DATA DIRECTORY=''x''');
INSERT INTO t VALUES (1); INSERT INTO m VALUES (2); INSERT INTO a VALUES (3);
INSERT INTO p VALUES (4), (40);
"""


@pytest.mark.parametrize("way", ["restored", "by hand"])
def test_tables_of_mariadb_in_folders_of_their_own_come_back(maria, way):
    """With those of their database: in the folders lie the live tables of another server."""
    folder, kept = maria.folder / "apart", maria.folder / "kept"
    folder.mkdir()
    maria.tell(FILL_APART.replace("FOLDER", str(folder)))
    members, context, told = maria.pack("mariadb")
    (left_out,) = told["servers"][0]["left_out"]
    named = "apart.`a`, apart.`m`, apart.`p`, apart.`t`;"
    assert left_out.startswith(f"the folders (DATA DIRECTORY) of {named} their rows are in")
    assert context.said[-1] == f"MariaDB in container mariadb: comes back elsewhere: {left_out}"
    assert list(context.warned) == []
    shutil.copytree(folder, kept)
    maria.tell("DROP DATABASE apart")
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    if way == "restored":
        assert "The whole dump is in" in maria.load(members["./backup.sql"]).said[-1]
    else:
        follow(maria, told["servers"], "x.mariadb-backup.tar.gz")
    rows = maria.tell("USE apart; SELECT 9, t.a, m.a, a.a, p.a FROM t, m, a, p WHERE p.a > 9")
    assert rows.splitlines()[-1].split() == ["9", "1", "2", "3", "40"]
    names = sorted(each.relative_to(folder) for each in folder.rglob("*"))
    assert names == sorted(each.relative_to(kept) for each in kept.rglob("*"))
    maria.tell("DROP DATABASE apart")
    shutil.rmtree(folder)
    shutil.rmtree(kept)


def test_a_dump_cut_between_its_two_programs_is_not_whole(maria_filled):
    """The script of the dump says how it ends, in the very words that its reader looks for."""
    members, _, _ = maria_filled.pack("mariadb")
    dump = members["./backup.sql"]
    for content, whole in ((dump, True), (dump[: dump.index(b"USE `mysql`;")], False)):
        reader = MariaReader()
        reader.add(content)
        assert (reader.report().problems == ()) == whole


def test_views_of_what_is_gone(maria_filled):
    """mariadb-dump would end amid its dump: such a view is left out and named, all else is there."""
    maria_filled.tell(
        "CREATE TABLE `a\nb`.gone (i INT); CREATE VIEW `a\nb`.`v\nw` AS SELECT * FROM `a\nb`.gone;"
        "CREATE VIEW `a\nb`.good AS SELECT e FROM `a\nb`.`t\n\nx`; DROP TABLE `a\nb`.gone"
    )
    members, context, told = maria_filled.pack("mariadb")
    assert [each.partition(", ")[0] for each in context.warned] == [
        "MariaDB in container mariadb: left out: view `a\\nb`.`v\\nw`"
    ]
    assert context.warned[0].endswith("or DROP VIEW `a\\nb`.`v\\nw`")
    (left_out,) = told["servers"][0]["left_out"]
    assert context.warned[0] == f"MariaDB in container mariadb: left out: {left_out}"
    assert told["servers"][0]["rows"]["a\nb"] == {"`t\n\nx`": 2}
    assert b"VIEW `good`" in members["./backup.sql"]


def test_rights_on_names_that_are_patterns_stay_with_the_databases(maria):
    """And the servers that tables of theirs may name; not the rights on other databases."""
    maria.tell(
        "CREATE DATABASE later; CREATE DATABASE la; CREATE USER app; GRANT ALL ON `lat%`.* TO app; "
        "GRANT ALL ON `lat\\_r`.* TO app; GRANT SELECT ON la.* TO app; CREATE SERVER far "
        "FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'h', DATABASE 'd', USER 'u')"
    )
    server = SqlServer("mariadb", "mariadb")
    lists = lists_of(Held(("later",)), "mariadb")
    dump = LocalHost(str(maria.folder)).run(run_in((str(maria.docker),), server, "keep", *lists))
    for sql in ("DROP USER app", "DROP SERVER far", "CREATE USER app"):
        maria.tell(sql)
    assert "The whole dump is in" in maria.load(dump.out.encode()).said[-1]
    granted = maria.tell("SHOW GRANTS FOR app")
    assert "`lat%`" in granted
    assert "`la`" not in granted
    assert "`lat\\_r`" not in granted
    assert maria.tell("SELECT Server_name FROM mysql.servers").split()[-1] == "far"
    maria.tell("DROP DATABASE later; DROP DATABASE la; DROP USER app; DROP SERVER far")


FILL_PAST = """
USE `a
b`;
CREATE TABLE `past ``x` (i INT, s TEXT COMMENT ') ENGINE=x WITH SYSTEM VERSIONING')
    COMMENT='it''s no \\' WITH SYSTEM VERSIONING' WITH SYSTEM VERSIONING
    PARTITION BY SYSTEM_TIME (PARTITION old HISTORY, PARTITION new CURRENT);
CREATE TABLE plain (i INT) COMMENT=') ENGINE=x WITH SYSTEM VERSIONING';
CREATE TABLE own (i INT, a TIMESTAMP(6) GENERATED ALWAYS AS ROW START INVISIBLE,
    z TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (a, z)) WITH SYSTEM VERSIONING;
INSERT INTO `past ``x` VALUES (1, 'x'); UPDATE `past ``x` SET i = 2; DELETE FROM `past ``x`;
INSERT INTO `past ``x` VALUES (3, NULL); INSERT INTO plain VALUES (1); UPDATE plain SET i = 2;
INSERT INTO own (i) VALUES (1), (2); DELETE FROM own WHERE i = 1;
"""
LOOK_PAST = """
SELECT i, s, ROW_START, ROW_END FROM `a
b`.`past ``x` FOR SYSTEM_TIME ALL ORDER BY ROW_END, i;
SELECT i, a, z FROM `a
b`.own FOR SYSTEM_TIME ALL ORDER BY i; SELECT i FROM `a
b`.own
"""


@pytest.mark.parametrize("way", ["restored", "by hand"])
def test_the_history_of_a_table_comes_back(maria_filled, way):
    """What the rows of tables WITH SYSTEM VERSIONING were before is dumped, loaded and counted."""
    maria_filled.tell(FILL_PAST)
    before = maria_filled.tell(LOOK_PAST)
    members, context, told = maria_filled.pack("mariadb")
    assert context.warned == []
    rows = told["servers"][0]["rows"]["a\nb"]
    assert (rows["`past ``x`"], rows["`plain`"], rows["`own`"]) == (3, 1, 2)
    maria_filled.tell("DROP DATABASE `a\nb`; DROP DATABASE `back\\n tab	x`")
    if way == "restored":
        assert "The whole dump is in" in maria_filled.load(members["./backup.sql"]).said[-1]
    else:
        follow(maria_filled, told["servers"], "x.mariadb-backup.tar.gz")
    assert maria_filled.tell(LOOK_PAST) == before
    assert len(before.splitlines()) > 3 + 2 + 1


def test_a_history_that_is_lost_is_no_proof(maria_filled):
    """A load without a row of what was is not taken for whole."""
    maria_filled.tell(FILL_PAST)
    members, _, _ = maria_filled.pack("mariadb")
    maria_filled.tell("DROP DATABASE `a\nb`")
    lost = b"DELETE HISTORY FROM `a\nb`.`past ``x`;\nUSE `mysql`;\n"
    dump = members["./backup.sql"].replace(b"USE `mysql`;\n", lost)
    with pytest.raises(StepFailed, match=r"`past ``x` has 1 rows, not 3"):
        maria_filled.load(dump)


@pytest.mark.parametrize("why", ["an older program", "by transaction"])
def test_a_history_that_cannot_be_dumped_is_named(maria_filled, why, tmp_path, monkeypatch):
    """The dump holds the rows of now alone, and says so."""
    kind = "i INT"
    if why == "by transaction":
        kind += (
            ", a BIGINT UNSIGNED GENERATED ALWAYS AS ROW START, z BIGINT UNSIGNED GENERATED "
            "ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (a, z)"
        )
    made = f"CREATE TABLE `a\nb`.`past ``x` ({kind}) ENGINE=InnoDB WITH SYSTEM VERSIONING; "
    change = "INSERT INTO `past ``x` (i) VALUES (1); UPDATE `past ``x` SET i = 2"
    maria_filled.tell(f"{made} USE `a\nb`; {change}")
    if why == "an older program":
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        old = tmp_path / "mariadb-dump"
        old.write_text(
            '#!/bin/sh\ncase "$*" in *dump-history*) exit 2;; --help) exit 0;; esac\n'
            'exec /usr/bin/mariadb-dump "$@"\n'
        )
        old.chmod(0o755)
    members, context, told = maria_filled.pack("mariadb")
    (warned,) = context.warned
    named = "the history of table `a\\nb`.`past ``x` (WITH SYSTEM VERSIONING)"
    assert warned.startswith(f"MariaDB in container mariadb: left out: {named}: its rows of now")
    (left_out,) = told["servers"][0]["left_out"]
    assert warned.endswith(left_out)
    assert told["servers"][0]["rows"]["a\nb"]["`past ``x`"] == 1
    maria_filled.tell("DROP DATABASE `a\nb`")
    assert "The whole dump is in" in maria_filled.load(members["./backup.sql"]).said[-1]


def test_programs_that_a_server_loads_are_named(maria):
    """Those that the image does not load by itself, with what loads them again."""
    if not os.path.exists("/usr/lib/mysql/plugin/ha_blackhole.so"):
        pytest.skip("there is no plugin to load")
    maria.tell(
        "INSTALL SONAME 'ha_blackhole'; INSERT INTO mysql.func VALUES ('o`dd', 2, 'odd.so', "
        "'aggregate'), ('twice', 1, 'odd.so', 'function')"
    )
    try:
        _, context, told = maria.pack("mariadb")
        assert maria.tell("DELETE FROM mysql.func; UNINSTALL SONAME 'ha_blackhole'") == ""
        assert maria.pack("mariadb")[1].warned == []
    finally:
        maria.tell("DELETE FROM mysql.func; UNINSTALL SONAME IF EXISTS 'ha_blackhole'")
    begin = "MariaDB in container mariadb: left out: "
    assert [each.removeprefix(begin).partition(", ")[0] for each in context.warned] == [
        "plugin BLACKHOLE of library ha_blackhole.so",
        "function o`dd of library odd.so",
        "function twice of library odd.so",
    ]
    assert context.warned[0].endswith("INSTALL SONAME 'ha_blackhole.so'")
    assert context.warned[1].endswith("AGGREGATE FUNCTION `o``dd` RETURNS INTEGER SONAME 'odd.so'")
    assert context.warned[2].endswith(
        "Tell it: CREATE FUNCTION `twice` RETURNS REAL SONAME 'odd.so'"
    )
    assert [f"{begin}{each}" for each in told["servers"][0]["left_out"]] == list(context.warned)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_server_that_is_away_costs_its_own_dump(engine, request):
    """The dumps of the others are packed, and the record says what lacks and why."""
    server = request.getfixturevalue({"mariadb": "maria"}.get(engine, engine))
    members, context, told = server.pack("away", engine, "other")
    held = (ENGINES[engine].member, *(f"config/{each}" for each in ENGINES[engine].config))
    assert set(members) == {f"./{above}{each}" for each in held for above in ("", "other/")}
    assert [each["container"] for each in told["servers"]] == [engine, "other"]
    assert list(told["failed"]) == ["away"]
    assert "in container away is stopped" in told["failed"]["away"]
    assert told["failed"]["away"] in context.said
    with pytest.raises(StepFailed, match="in container away is stopped"):
        server.pack("away")


FILL_WIDE = {
    "mariadb": "CREATE DATABASE wide; USE wide; CREATE TABLE t AS SELECT REPEAT('x', 1000) "
    "FROM seq_1_to_9000",
    "postgres": "CREATE TABLE wide AS SELECT repeat('x', 1000) FROM generate_series(1, 9000)",
}
SESSIONS = {
    "mariadb": "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT /*!40001%'",
    "postgres": "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY public.wide%'",
}
OWNERS = {"mariadb": ("mariadb-dump", "wide"), "postgres": ("pg_dump", "postgres")}


_OF_CLIENTS = {"--binary-mode", "-X", "-q", "-v", "ON_ERROR_STOP=1"}


def _given(server):
    return {**os.environ, **dict(each.split("=") for each in server.settings)}


@contextlib.contextmanager
def unread(server, *words):
    """A dump that goes on: nobody reads what it writes, so that it waits amid a table."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, env=_given(server))
    try:
        yield process
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def ended(process):
    """Whether it fails when what it wrote is taken, as Docker does."""
    process.communicate(timeout=20)
    return process.returncode != 0


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_dump_that_outlived_its_run_is_ended(engine, request):
    """By the next dump of its stack; the owner's own and another stack's go on."""
    server = request.getfixturevalue({"mariadb": "maria"}.get(engine, engine))
    server.tell(FILL_WIDE[engine])
    script, folder = ENGINES[engine].script, str(server.folder)
    left, others = mark_of(folder, "dead"), mark_of(f"{folder}/other", "dead")
    words = ("sh", "-c", script, "sh", "dump")

    def sessions():
        return int(server.tell(SESSIONS[engine]).split()[-1 if engine == "mariadb" else 2])

    program, database = OWNERS[engine]
    own = [program, *(e for e in server.client[1:] if e not in _OF_CLIENTS), database]
    with (
        unread(server, *words, left) as dead,
        unread(server, *words, others) as other,
        unread(server, *own) as owners,
    ):
        until(lambda: sessions() == 3)
        _, context, _ = server.pack(engine)
        assert ended(dead)
        assert [each for each in context.said if "ended: a dump that went on in it" in each]
        assert sessions() == 2
        assert (other.poll(), owners.poll()) == (None, None)
        subprocess.run([*words[:-1], "end", others], check=True, env=_given(server))
        assert ended(other)
        assert sessions() == 1
    _, context, _ = server.pack(engine)
    assert [each for each in context.said if "ended" in each] == []
    server.tell("DROP DATABASE wide" if engine == "mariadb" else "DROP TABLE wide")


FILL_POSTGRES = """
CREATE DATABASE home;
\\connect home
CREATE TABLE "t

-- x" ("c
d" INT);
INSERT INTO "t

-- x" VALUES (1), (2);
DO $$ BEGIN FOR i IN 1..120 LOOP
    EXECUTE format('CREATE TABLE n%s AS SELECT FROM generate_series(1, %s)', i, i);
END LOOP; END $$;
"""


def test_rights_of_a_role_in_databases_of_the_backup_are_named(postgres):
    """What stays does not hold them: these databases become what the backup has."""
    postgres.tell(
        "CREATE DATABASE its; CREATE DATABASE later; CREATE DATABASE other; CREATE ROLE anna; "
        "CREATE ROLE bert; CREATE ROLE carl; CREATE ROLE dora; "
        "ALTER ROLE bert IN DATABASE its SET work_mem TO '8MB'; "
        "GRANT CONNECT ON DATABASE other TO bert; GRANT CONNECT ON DATABASE later TO carl;\n"
        "\\connect its\nCREATE TABLE t (a INT); GRANT SELECT ON t TO anna; "
        "GRANT SELECT ON t TO dora"
    )
    server = SqlServer("postgres", "postgres")
    lists = lists_of(Held(("later",), ("anna", "bert", "carl")), "postgres")
    words = run_in((str(postgres.docker),), server, "keep", *lists)
    told = LocalHost(str(postgres.folder)).run(words).err.splitlines()
    assert sorted(each.partition(", as")[0] for each in told) == [
        "left out: the rights, settings and tables of role anna in database its",
        "left out: the rights, settings and tables of role bert in database its",
        "left out: the rights, settings and tables of role bert in database other",
    ]
    postgres.tell(
        "DROP DATABASE its; DROP DATABASE later; DROP DATABASE other; DROP ROLE anna; "
        "DROP ROLE bert; DROP ROLE carl; DROP ROLE dora"
    )


def test_counts_of_postgresql_come_in_any_order(postgres):
    """A count is that of the table whose number it bears; tables of any name are counted."""
    postgres.tell(FILL_POSTGRES)
    members, _, told = postgres.pack("postgres")
    rows = told["servers"][0]["rows"]["home"]
    assert (rows['public."t\n\n-- x"'], rows["public.n120"]) == (2, 120)
    postgres.tell("DROP DATABASE home")
    context = postgres.load(gzip.decompress(members["./postgres_backup.sql.gz"]))
    assert "The whole dump is in" in context.said[-1]
    assert "(121 tables, 7,262 rows)" in context.said[-1]
    postgres.tell("DROP DATABASE home")


def test_a_database_of_postgresql_with_a_newline_is_told(postgres):
    """Its own programs dump none: the statement that renames it is told, and it does that."""
    postgres.tell('CREATE DATABASE "a\nb\\"')
    with pytest.raises(StepFailed, match="newline in its name: ALTER") as failure:
        postgres.pack("postgres")
    assert not failure.value.again
    postgres.tell(str(failure.value).partition("name: ")[2])
    postgres.pack("postgres")
    postgres.tell("DROP DATABASE another_name")


def test_a_database_of_postgresql_that_lets_nobody_connect(postgres):
    """pg_dumpall passes over it: it is named, with the statement that mends it."""
    postgres.tell('CREATE DATABASE "a\nb"')
    postgres.tell('CREATE DATABASE "Shut ""x"; CREATE DATABASE open')
    for name in ('"a\nb"', '"Shut ""x"'):
        postgres.tell(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    _, context, told = postgres.pack("postgres")
    names = ['"Shut ""x"', 'U&"a\\000ab"']
    assert sorted(told["servers"][0]["left_out"]) == [
        f"database {each}, which lets nobody connect: ALTER DATABASE {each} ALLOW_CONNECTIONS "
        f"true, or DROP DATABASE {each}"
        for each in names
    ]
    assert len(context.warned) == len(names)
    assert "open" in told["servers"][0]["rows"]
    for each in told["servers"][0]["left_out"]:
        postgres.tell(each.partition(": ")[2].partition(", or ")[0])
    postgres.tell('DROP DATABASE "a\nb"')
    _, context, told = postgres.pack("postgres")
    assert (context.warned, "left_out" in told["servers"][0]) == ([], False)
    assert 'Shut "x' in told["servers"][0]["rows"]
    postgres.tell('DROP DATABASE "Shut ""x"')
    postgres.tell("DROP DATABASE open")


FILL_TABLESPACES = r"""
CREATE TABLESPACE "Fast" LOCATION 'FOLDER';
COMMENT ON TABLESPACE "Fast" IS 'an SSD'; GRANT CREATE ON TABLESPACE "Fast" TO PUBLIC;
ALTER TABLESPACE "Fast" SET (random_page_cost = 1);
CREATE DATABASE hall TABLESPACE "Fast" CONNECTION LIMIT 7;
CREATE DATABASE work; ALTER DATABASE work SET default_tablespace = "Fast";
\connect hall
CREATE TABLE t AS SELECT 1 AS a; CREATE INDEX odd ON t (a) TABLESPACE pg_default;
\connect work
CREATE TABLE "a
b" TABLESPACE "Fast" AS SELECT * FROM (VALUES
    ('CREATE TABLESPACE x LOCATION ''y'';'), ('SET default_tablespace = x;')) AS v (a);
CREATE TABLE u (a INT PRIMARY KEY USING INDEX TABLESPACE "Fast") TABLESPACE pg_default;
"""


@pytest.fixture
def tablespace(postgres):
    """A PostgreSQL of which two databases have tables in a folder of their own."""
    apart = postgres.folder / "apart"
    apart.mkdir()
    shutil.chown(apart, (postgres.folder / "data").owner())
    postgres.tell(FILL_TABLESPACES.replace("FOLDER", str(apart)))
    yield postgres
    postgres.tell("DROP DATABASE IF EXISTS hall; DROP DATABASE IF EXISTS work")
    postgres.tell('DROP TABLESPACE IF EXISTS "Fast"')
    apart.rmdir()


def test_tables_in_a_tablespace_come_back_in_the_default_one(tablespace):
    """Whether the server that loads them has it or not; the dump tells its name and its place."""
    members, context, told = tablespace.pack("postgres")
    (left_out,) = told["servers"][0]["left_out"]
    assert left_out.startswith(
        f"tablespace Fast (at {tablespace.folder}/apart); its tables are in"
    )
    assert (
        context.said[-1] == f"PostgreSQL in container postgres: comes back elsewhere: {left_out}"
    )
    assert list(context.warned) == []
    for there in ("it is there", "it is gone"):
        tablespace.tell("DROP DATABASE hall; DROP DATABASE work")
        if there == "it is gone":
            tablespace.tell('DROP TABLESPACE "Fast"')
        loaded = tablespace.load(gzip.decompress(members["./postgres_backup.sql.gz"]))
        assert "The whole dump is in" in loaded.said[-1]
    assert "3" in tablespace.tell("\\connect hall\nSELECT a + 2 FROM t").split()
    where = "SELECT COUNT(*) FROM pg_class WHERE reltablespace <> 0 AND relname !~ '^pg_'"
    for name in ("hall", "work"):
        assert tablespace.tell(f"\\connect {name}\n{where}").split()[2] == "0"


def test_a_tablespace_is_live_data_of_its_server(tablespace):
    """The server is asked where it lies: its files are in no archive, wherever it is mounted."""
    top = tablespace.folder
    mounts = (Mount("/pi/IOTstack/volumes/pg", str(top)), Mount("/ssd/pg", f"{top}/apart"))
    container = Container("postgres", "postgres:15", "", "", running=True)
    server = located(
        LocalHost(str(top)),
        SqlServer("postgres", "postgres"),
        InspectedContainer(container, mounts, 0, "", ""),
        (str(tablespace.docker),),
    )
    assert server.inside == f"{top}/data"
    assert (server.data, server.apart) == ("/pi/IOTstack/volumes/pg/data", ("/ssd/pg",))
    left_out = [each.path for each in live_files(server, "/pi/IOTstack", "postgres")]
    assert left_out == ["volumes/pg/data/*", "/ssd/pg/*"]


def test_an_older_dump_is_loaded_without_its_tablespaces(tablespace):
    """It becomes what pg_dumpall makes without them; rows that look like them stay as they are."""
    words = ["env", *tablespace.settings, "pg_dumpall", "-U", "postgres"]
    old, plain = (
        subprocess.run([*words, *more], check=True, capture_output=True).stdout
        for more in ((), ("--no-tablespaces",))
    )
    assert old.count(b"TABLESPACE") > plain.count(b"TABLESPACE") == 1
    stage = tablespace.folder / "stage"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    (stage / "postgres_backup.sql.gz").write_bytes(gzip.compress(old))
    context = PlainContext({"pi": LocalHost(str(tablespace.folder))})
    UnpackSql(HostAccess("pi", guard=str(tablespace.folder / "guard")), str(stage), "postgres").do(
        context
    )
    assert 'uses tablespaces ("Fast"), which are not restored' in context.warned[0]
    assert _statements((stage / "postgres_backup.sql").read_bytes()) == _statements(plain)
    tablespace.tell("DROP DATABASE hall; DROP DATABASE work")
    loaded = tablespace.load((stage / "postgres_backup.sql").read_bytes())
    assert "The whole dump is in" in loaded.said[-1]


def _statements(dump):
    """The lines of a dump without what differs from one to the next, and what is only said."""
    lines = dump.splitlines()
    return [e for e in lines if e and not e.startswith((b"--", b"\\restrict", b"\\unrestrict"))]


def test_a_wrong_password_of_mariadb_is_what_is_told(maria):
    """What the server said of the password counts, and not of the try without one."""
    maria.tell("ALTER USER root@localhost IDENTIFIED BY 'right'")
    script = ENGINES["mariadb"].script
    given = {**os.environ, "HOME": str(maria.folder)}
    try:
        told = {
            password: subprocess.run(
                ["sh", "-c", script, "sh", "ask", "SELECT 7"],
                env={**given, "MYSQL_ROOT_PASSWORD": password},
                capture_output=True,
                text=True,
                check=False,
            )
            for password in ("wrong", "right", "")
        }
    finally:
        words = [*maria.client, "--execute=ALTER USER root@localhost IDENTIFIED BY ''"]
        subprocess.run(words, env={**os.environ, "MYSQL_PWD": "right"}, check=True)
    assert {key: each.returncode for key, each in told.items()} == {
        "wrong": 77,
        "right": 0,
        "": 77,
    }
    assert "using password: YES" in told["wrong"].stderr
    assert "using password: NO" not in told["wrong"].stderr
    assert "using password: NO" in told[""].stderr


def test_settings_of_postgresql_lie_beside_the_dump(postgres):
    """What was changed by hand or by ALTER SYSTEM is held, and told where a new server lacks it."""
    postgres.tell("ALTER SYSTEM SET work_mem = '7MB'")
    members, context, _ = postgres.pack("postgres")
    assert context.warned == []
    assert b"work_mem = '7MB'" in members["./config/postgresql.auto.conf"]
    assert (postgres.folder / "data/pg_hba.conf").read_bytes() == members["./config/pg_hba.conf"]
    assert list(postgres.compared(members)) == []
    postgres.tell("ALTER SYSTEM RESET work_mem")
    (warned,) = postgres.compared(members)
    assert "differ in postgresql.auto.conf: they are in config of its part" in warned
    assert list(postgres.compared({})) == []


def test_settings_that_cannot_be_read_are_a_warning(postgres):
    """The dump is whole without them."""
    path = postgres.folder / "data/postgresql.auto.conf"
    path.rename(f"{path}.away")
    try:
        members, context, _ = postgres.pack("postgres")
    finally:
        Path(f"{path}.away").rename(path)
    assert "./postgres_backup.sql.gz" in members
    assert context.warned[0].startswith(
        "Could not read postgresql.auto.conf of PostgreSQL in container postgres: "
    )


def follow(server, facts, name):
    """Paste all commands of a set's RESTORE.txt where `docker exec` reaches a server."""
    part = server.folder / name
    part.write_bytes(Path(f"{part}.partial").read_bytes())
    sha256 = hashlib.sha256(part.read_bytes()).hexdigest()
    made = Part(server.engine, name, part.stat().st_size, sha256, facts={"servers": facts})
    times = ("2026-11-23T10:00:00Z",) * 2
    manifest = Manifest("x", "pi", "", *times, "UTC", (made,), folder=str(server.folder))
    lines = [e for e in restore_text_of(manifest).splitlines() if e.startswith("    ")]
    tools = server.folder / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "docker").write_text(
        '#!/bin/sh\n[ "$1" = exec ] || exit 0\nshift\n[ "$1" != -i ] || shift\nshift\n'
        f'exec env {" ".join(server.settings)} "$@"\n'
    )
    (tools / "docker").chmod(0o755)
    done = subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail"],
        input="\n".join(["sleep() { :; }", *lines, ""]),
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        cwd=server.folder,
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_maria_is_loaded_by_hand(maria):
    """The commands of RESTORE.txt, as they stand there, bring back what was dumped."""
    maria.tell("CREATE DATABASE `by hand`; CREATE TABLE `by hand`.t SELECT 'Küche\\n' AS a")
    _, _, told = maria.pack("mariadb")
    maria.tell("DROP DATABASE `by hand`")
    done = follow(maria, told["servers"], "x.mariadb-backup.tar.gz")
    assert "x.mariadb-backup.tar.gz: OK" in done.stdout
    assert "by hand" in done.stdout
    assert "Küche" in maria.tell("SELECT * FROM `by hand`.t")
    maria.tell("DROP DATABASE `by hand`")


def test_postgres_is_loaded_by_hand(postgres):
    """The commands of RESTORE.txt, as they stand there, bring back what was dumped."""
    postgres.tell('CREATE DATABASE "by hand"')
    postgres.tell("\\c 'by hand'\nCREATE TABLE t AS SELECT 'Küche' AS a")
    _, _, told = postgres.pack("postgres")
    postgres.tell('DROP DATABASE "by hand"')
    done = follow(postgres, told["servers"], "x.postgres-backup.sql.gz.tar")
    assert "by hand" in done.stdout
    assert done.stderr.count("ERROR:") == done.stderr.count("already exists")
    assert "Küche" in postgres.tell("\\c 'by hand'\nSELECT a FROM t")
    postgres.tell('DROP DATABASE "by hand"')
