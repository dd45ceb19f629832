"""Images whose data are not safe to copy while they run: a small table, and who is in it. Pure.

Not for: how such data are saved; InfluxDB 1.x is in influx.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..manifest import Container

DATABASES = frozenset(
    {
        *("mariadb", "mysql", "percona", "nextcloud_db", "wordpress_db", "gitea_db"),
        *("postgres", "postgresql", "postgis", "pgvector", "timescaledb", "timescaledb-ha"),
        *("mongo", "mongodb", "couchdb", "redis", "valkey", "influxdb", "influxdb2"),
        *("elasticsearch", "opensearch", "clickhouse-server", "prometheus", "victoria-metrics"),
    }
)
"""They keep their data in several files at once: a copy made meanwhile may be of no use."""
SQLITE = frozenset(
    {
        *("grafana", "grafana-oss", "grafana-enterprise", "home-assistant", "homeassistant"),
        *("nodered", "node-red", "gitea", "vaultwarden", "uptime-kuma", "pihole", "mealie"),
        *("nginx-proxy-manager", "jellyfin", "adguardhome", "paperless-ngx", "octoprint"),
    }
)
"""They write into one file, seldom: tar warns where it changed while it was read."""
# IOTstack builds some images itself: iotstack_mariadb by compose v1, iotstack-mariadb by v2.
_OURS = re.compile(r"^iotstack[-_]")
_BOARD = re.compile(r"^(raspberrypi\d(-64)?|qemuarm(-64)?|generic-x86-64)-")


def image_name(image: str) -> str:
    """Return the plain name of an image: no registry, tag, digest, or prefix of a builder."""
    name = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return _BOARD.sub("", _OURS.sub("", name))


def unsafe_databases(containers: Iterable[Container], influx: str) -> tuple[Container, ...]:
    """Return the containers of databases; `influx` names the one that has a part of its own."""
    return tuple(
        each for each in containers if image_name(each.image) in DATABASES and each.name != influx
    )


def sqlite_keepers(containers: Iterable[Container]) -> tuple[Container, ...]:
    """Return the containers that are known to write SQLite files."""
    return tuple(each for each in containers if image_name(each.image) in SQLITE)
