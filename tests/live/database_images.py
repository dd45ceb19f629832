"""Images of databases for the stand; servers are made of the Debian packages installed here.

They behave as those that IOTstack uses, where a backup can see it: folders, owners, environment,
accounts, and the temporary server of a first start.
"""

import shutil
import tempfile
from pathlib import Path

import fake_influx2
import pytest
from rootfs import accounts, import_image, rootfs_tar
from stand import IDLE
from stand_machine import PATH, StandError

HERE = Path(__file__).resolve().parent
MARIA_IMAGE, POSTGRES_IMAGE = "mariadb:stand", "postgres:stand"
MYSQL_IMAGE = "mysql:stand"
"""MariaDB whose data lie where those of the official images of MySQL and MariaDB do."""
POSTGRES18_IMAGE = "postgres18:stand"
"""PostgreSQL whose data lie where those of the official image do from version 18 on."""
INFLUX2_IMAGE = "influxdb2:stand"
"""No InfluxDB 2: two scripts that answer as its programs do, the second with a dump made before."""

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
    """Give a machine's engine the images of the databases, unless it has them."""
    check_databases()
    if machine.run(["docker", "image", "inspect", POSTGRES_IMAGE], check=False).returncode == 0:
        return
    for image, data, words in (
        (MARIA_IMAGE, "/config", []),
        (MYSQL_IMAGE, "/var/lib/mysql", ["--datadir=/var/lib/mysql"]),
    ):
        import_image(
            machine,
            _maria_rootfs(),
            image,
            env="PATH=/usr/sbin:/usr/bin:/bin",
            volume=[data],
            expose="3306",
            entrypoint=["/entrypoint.sh"],
            cmd=["mariadbd", "--user=abc", *words],
        )
    programs = _postgres_versions()[-1] / "bin"
    import_image(machine, _influx2_rootfs(), INFLUX2_IMAGE, cmd=IDLE, volume=_INFLUX2_VOLUMES)
    for image, data, volume in (
        (POSTGRES18_IMAGE, "/var/lib/postgresql/18/docker", "/var/lib/postgresql"),
        (POSTGRES_IMAGE, _DATA, _DATA),
    ):
        import_image(
            machine,
            _postgres_rootfs(),
            image,
            env=f"PATH={programs}:/usr/bin:/bin PGDATA={data} LANG=C.UTF-8",
            volume=[volume],
            expose="5432",
            entrypoint=["/entrypoint.sh"],
            cmd=["postgres", "-c", "fsync=off"],
        )


_INFLUX2_VOLUMES = ["/var/lib/influxdb2", "/etc/influxdb2"]
_INFLUXD2 = b"""#!/bin/sh
echo 'InfluxDB v2.7.10 (git: f302d9730c) build_date: 2024-08-16T20:17:28Z'
"""
_INFLUX2 = b"""#!/bin/sh
case $1 in
ping) echo OK ;;
backup)
    [ -n "$INFLUX_TOKEN" ] || { echo "Error: must specify a token" >&2; exit 1; }
    echo "INFO: Downloading metadata snapshot" >&2
    mkdir -p "$2" && cp /dump/* "$2"
    [ ! -e /slow ] || sleep 60
    echo "INFO: Backing up TSM for shard 7" >&2
    ;;
restore)
    [ -n "$INFLUX_TOKEN" ] && [ "$3" = --full ] && [ -s /var/lib/influxdb2/influxd.bolt ] || exit 1
    cat "$2"/*.manifest > /dev/null && cp "$2"/*.tar.gz /var/lib/influxdb2/
    ;;
*) exit 1 ;;
esac
"""


def _influx2_rootfs():
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        shard = next((HERE.parent / "fixtures/influx-backups").rglob("*.s*.tar.gz"))
        patch.setenv("LITTLE_SHARD", str(shard))
        patch.setenv("INFLUX_TOKEN", fake_influx2.TOKEN)
        fake_influx2.backup(f"{name}/dump", "")
        dump = {
            f"dump/{path.name}": (path.read_bytes(), 0o644)
            for path in Path(name, "dump").iterdir()
        }
    programs = {"usr/bin/influxd": (_INFLUXD2, 0o755), "usr/bin/influx": (_INFLUX2, 0o755)}
    return rootfs_tar("influx2", [], folders={"dump": 0o755}, files=accounts() | programs | dump)


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
