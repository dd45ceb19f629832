"""Images whose data are not safe to copy, by their plain names."""

import pytest

from iotstack_invoke.manifest import Container
from iotstack_invoke.services.databases import (
    DATABASES,
    SQLITE,
    image_name,
    sqlite_keepers,
    unsafe_databases,
)


def container(image, name="x"):
    return Container(name, image, "", "", running=True)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("mariadb", "mariadb"),
        ("postgres:16-alpine", "postgres"),
        ("registry.lan:5000/a/mongo:7@sha256:abc", "mongo"),
        ("timescale/timescaledb:latest-pg16", "timescaledb"),
        ("iotstack_mariadb", "mariadb"),
        ("iotstack-nextcloud_db:latest", "nextcloud_db"),
        ("ghcr.io/home-assistant/raspberrypi4-64-homeassistant:2026.11", "homeassistant"),
        ("sha256:abc", "sha256"),
        ("", ""),
    ],
)
def test_an_image_has_a_plain_name(image, name):
    """Registry, tag, digest and the prefix of a builder say nothing of what is inside."""
    assert image_name(image) == name


def test_databases_are_told_from_what_is_named_alike():
    """A database's image is known exactly; a program for it, or the InfluxDB we save, is none."""
    images = ("redis:7", "redis-commander", "postgres-exporter", "grafana/grafana", "nodered")
    found = [container(image, image) for image in images]
    assert [each.image for each in unsafe_databases(found, "influxdb")] == ["redis:7"]
    assert [each.image for each in sqlite_keepers(found)] == ["grafana/grafana", "nodered"]
    pair = (container("influxdb:1.8", "influxdb"), container("influxdb:2.7", "influxdb2"))
    assert [each.name for each in unsafe_databases(pair, "influxdb")] == ["influxdb2"]


def test_no_image_is_in_both_tables():
    """An image is told of once."""
    assert not DATABASES & SQLITE
