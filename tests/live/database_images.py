"""Images of MariaDB and PostgreSQL for the stand, made of the Debian packages installed here.

They behave as those that IOTstack uses, where a backup can see it: folders, owners, environment,
accounts, and the temporary server of a first start.
"""

import shutil
from pathlib import Path

from rootfs import accounts, import_image, rootfs_tar
from stand_machine import PATH, StandError

HERE = Path(__file__).resolve().parent
MARIA_IMAGE, POSTGRES_IMAGE = "mariadb:stand", "postgres:stand"

_SHELL = ["bash", "basename", "dirname", "env", "hostname", "ln", "tr", "uname"]
_MARIA_PROGRAMS = [
    *("mariadb", "mariadb-admin", "mariadb-check", "mariadb-dump", "mariadb-install-db"),
    *("mariadb-upgrade", "my_print_defaults", "resolveip"),
]
_MARIA_LINKS = {
    f"usr/bin/{old}": new
    for old, new in {
        "mysql": "mariadb",
        "mysqladmin": "mariadb-admin",
        "mysqlcheck": "mariadb-check",
        "mysqldump": "mariadb-dump",
    }.items()
}
_MARIA_CNF = b"""\
[client-server]
socket = /run/mysqld/mysqld.sock

[mariadbd]
datadir = /config/databases
bind-address = 0.0.0.0
# A first start in two seconds.
innodb-buffer-pool-size = 16M
innodb-log-file-size = 8M
innodb-use-native-aio = 0
innodb-flush-method = nosync
sync-frm = 0

!includedir /etc/my.cnf.d/
"""
_MARIA_CUSTOM_CNF = b"""\
[client]
default-character-set = utf8mb4

[mysqld]
pid-file = /run/mysqld/mysqld.pid
character_set_server = utf8mb4
collation_server = utf8mb4_general_ci
transaction_isolation = READ-COMMITTED
max_allowed_packet = 16M
table_open_cache = 400
binlog_format = MIXED
log_bin = /config/log/mysql/mariadb-bin
log_bin_index = /config/log/mysql/mariadb-bin.index
expire_logs_days = 10

[mysqldump]
quick
quote-names
max_allowed_packet = 16M
"""
_POSTGRES_PROGRAMS = [
    *("createdb", "dropdb", "initdb", "pg_controldata", "pg_ctl", "pg_dump", "pg_dumpall"),
    *("pg_isready", "pg_restore", "postgres", "psql"),
]
_DATA = "/var/lib/postgresql/data"


def check_databases():
    """Raise when MariaDB's or PostgreSQL's server is missing, naming what would help."""
    missing = [] if shutil.which("mariadbd", path=PATH) else ["mariadb-server"]
    missing += [] if _postgres_versions() else ["postgresql"]
    if missing:
        raise StandError(f"no {' and no '.join(missing)}: apt-get install {' '.join(missing)}")


def load_databases(machine):
    """Give a machine's engine the two images, unless it has them."""
    check_databases()
    if machine.run(["docker", "image", "inspect", POSTGRES_IMAGE], check=False).returncode == 0:
        return
    import_image(
        machine,
        _maria_rootfs(),
        MARIA_IMAGE,
        env="PATH=/usr/sbin:/usr/bin:/bin",
        volume=["/config"],
        expose="3306",
        entrypoint=["/entrypoint.sh"],
        cmd=["mariadbd", "--user=abc"],
    )
    programs = _postgres_versions()[-1] / "bin"
    import_image(
        machine,
        _postgres_rootfs(),
        POSTGRES_IMAGE,
        env=f"PATH={programs}:/usr/bin:/bin PGDATA={_DATA} LANG=C.UTF-8",
        volume=[_DATA],
        expose="5432",
        entrypoint=["/entrypoint.sh"],
        cmd=["postgres", "-c", "fsync=off"],
    )


def _maria_rootfs():
    folders = {"config": 0o755, "backup": 0o777, "etc/my.cnf.d": 0o755, "run/mysqld": 0o755}
    files = accounts(abc=911) | {
        "etc/my.cnf": (_MARIA_CNF, 0o644),
        "defaults/custom.cnf": (_MARIA_CUSTOM_CNF, 0o644),
        "entrypoint.sh": ((HERE / "mariadb-entrypoint.sh").read_bytes(), 0o755),
    }
    share = Path("/usr/share/mysql")
    return rootfs_tar(
        "mariadb",
        [*_SHELL, *_MARIA_PROGRAMS],
        folders=folders,
        files=files,
        links=_MARIA_LINKS,
        copies=[
            Path("/usr/sbin/mariadbd"),
            *sorted(share.glob("*.sql")),
            *_files_below(share / "charsets", share / "english"),
        ],
    )


def _postgres_rootfs():
    top = _postgres_versions()[-1]
    share = Path("/usr/share/postgresql", top.name)
    zones = Path("/usr/share/zoneinfo")
    files = accounts(postgres=999) | {
        "entrypoint.sh": ((HERE / "postgres-entrypoint.sh").read_bytes(), 0o755)
    }
    return rootfs_tar(
        "postgres",
        [*_SHELL, "locale", "setpriv"],
        folders={"var/lib/postgresql": 0o755, "var/run/postgresql": 0o3775, "backup": 0o777},
        files=files,
        copies=[
            *(top / "bin" / program for program in _POSTGRES_PROGRAMS),
            *(one for one in sorted((top / "lib").glob("*.so")) if one.stem != "llvmjit"),
            *sorted(path for path in share.iterdir() if path.is_file()),
            *_files_below(share / "extension", share / "timezonesets", share / "tsearch_data"),
            *_files_below(Path("/usr/lib/locale/C.utf8")),
            *(zones / name for name in ("Etc/UTC", "Europe/Berlin", "GMT", "UTC")),
        ],
    )


def _postgres_versions():
    """The folders of the installed servers, the oldest first."""
    servers = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return sorted((path.parents[1] for path in servers), key=lambda top: int(top.name))


def _files_below(*folders):
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
