"""Who keeps writing into a database, and what of it a backup holds.

    with SqliteWriter(path, "wal") as writer:
        committed = writer.wait_for_more()
        …
        assert writer.rows_in(backups, runtag) >= committed

Each row has the next number; in SQLite its transaction counts it in a second table as well.
"""

import contextlib
import gzip
import os
import re
import sqlite3
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path

from databases import ROOT_PASSWORDS
from owner import ALL_ENDINGS
from stand_machine import wait_for

PAUSE_S = 0.05


class Writer:
    """Commits one row after the other, until the block is left."""

    def __init__(self):
        self.committed = 0
        self.failure = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            self._write()
        except Exception as error:  # noqa: BLE001 - told by whoever waits
            self.failure = error

    def _each(self):
        """The numbers of the rows; one that is asked for means that the last is committed."""
        while not self._stop.wait(PAUSE_S):
            yield self.committed + 1
            self.committed += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()
        assert self.failure is None, self.failure

    def wait_for_more(self):
        """Wait for one more row; the number of all that are committed."""
        before = self.committed
        wait_for("a row", lambda: self.failure or self.committed > before)
        assert self.failure is None, self.failure
        return self.committed


class SqliteWriter(Writer):
    """A program that writes into a SQLite file in a journal mode."""

    def __init__(self, path, mode):
        super().__init__()
        self.path, self.mode = path, mode

    def _write(self):
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as database:
            database.execute(f"PRAGMA journal_mode = {self.mode}")
            database.execute("CREATE TABLE tick (n INTEGER PRIMARY KEY, x BLOB)")
            database.execute("CREATE TABLE total (n INT)")
            database.execute("INSERT INTO total VALUES (0)")
            database.commit()
            os.chown(self.path, 1000, 1000)
            for number in self._each():
                content = os.urandom(100 + 997 * number % 9000)
                database.execute("INSERT INTO tick VALUES (?, ?)", (number, content))
                database.execute("UPDATE total SET n = n + 1")
                database.commit()

    def rows_in(self, backups, runtag):
        """How many rows the copy in a backup has, which is one whole file."""
        archive = backups / f"{runtag}.{ALL_ENDINGS['general']}"
        with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as tar:
            names = [n for n in tar.getnames() if Path(n).name.startswith(self.path.name)]
            assert [Path(name).name for name in names] == [self.path.name]
            copy = Path(folder, self.path.name)
            copy.write_bytes(tar.extractfile(names[0]).read())
            with contextlib.closing(sqlite3.connect(copy)) as database:
                assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                ((count, last),) = database.execute("SELECT COUNT(*), MAX(n) FROM tick")
                ((total,),) = database.execute("SELECT n FROM total")
        assert count == last == total
        return count


class SqlWriter(Writer):
    """A client in a server's container, which is told one statement after the other."""

    def __init__(self, machine, container, client, making):
        super().__init__()
        self.machine, self.making = machine, making
        self.words = ["docker", "exec", "-i", *client[:2], container, *client[2:]]

    def _write(self):
        pipe = subprocess.PIPE
        process = self.machine.popen(
            self.words, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True, bufsize=1
        )
        try:
            process.stdin.write(f"{self.making}\n")
            for number in self._each():
                process.stdin.write(
                    f"INSERT INTO tick VALUES ({number}, 'tick'); SELECT {number};\n"  # noqa: S608
                )
                said = process.stdout.readline().strip()
                assert said == str(number), said
        finally:
            process.end()

    def _numbers_in(self, dump, row):
        found = [int(number) for number in re.findall(row, dump, re.MULTILINE)]
        assert sorted(found) == list(range(1, len(found) + 1))
        return len(found)


class MariaWriter(SqlWriter):
    """A client of MariaDB."""

    def __init__(self, machine):
        client = ["-e", f"MYSQL_PWD={ROOT_PASSWORDS['mariadb']}"]
        client += [
            "mariadb",
            "-uroot",
            "--batch",
            "--skip-column-names",
            "--unbuffered",
            "default",
        ]
        making = "CREATE OR REPLACE TABLE tick (n INT PRIMARY KEY, what TEXT);"
        super().__init__(machine, "mariadb", client, making)

    def rows_in(self, backups, runtag):
        """How many rows the dump in a backup has."""
        with tarfile.open(backups / f"{runtag}.{ALL_ENDINGS['mariadb']}") as tar:
            dump = tar.extractfile("./backup.sql").read()
        return self._numbers_in(dump, rb"\((\d+),'tick'\)")


class PostgresWriter(SqlWriter):
    """A client of PostgreSQL."""

    def __init__(self, machine):
        client = ["-e", "PGOPTIONS=-c client_min_messages=error"]
        client += ["psql", "-XqAt", "-U", "postuser", "-d", "postdb"]
        making = "DROP TABLE IF EXISTS tick; CREATE TABLE tick (n INT PRIMARY KEY, what TEXT);"
        super().__init__(machine, "postgres", client, making)

    def rows_in(self, backups, runtag):
        """How many rows the dump in a backup has."""
        with tarfile.open(backups / f"{runtag}.{ALL_ENDINGS['postgres']}") as tar:
            dump = gzip.decompress(tar.extractfile("./postgres_backup.sql.gz").read())
        return self._numbers_in(dump, rb"^(\d+)\ttick$")
