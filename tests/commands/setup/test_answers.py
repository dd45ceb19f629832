"""The answers of `init` as they are typed, and what hosts.toml holds for them."""

import pytest

from iotstack_invoke.commands.setup.answers import (
    free_name,
    is_same_place,
    keep_text,
    kind_of,
    place_name,
    place_text,
    read_at,
    read_keep,
    read_place,
    read_receiver,
)
from iotstack_invoke.core.errors import UsageError

PLACES = {
    "/media/usb/iotstack": ({"kind": "folder", "folder": "/media/usb/iotstack"}, "usb"),
    "/mnt/nas copies": ({"kind": "folder", "folder": "/mnt/nas copies"}, "nas-copies"),
    "~/Dropbox/x": ({"kind": "folder", "folder": "~/Dropbox/x"}, "x"),
    "ssh:nas:backups/iotstack": (
        {"kind": "ssh", "host": "nas", "folder": "backups/iotstack"},
        "nas",
    ),
    "ssh:me@nas.local:2222:/srv/x": (
        {"kind": "ssh", "host": "nas.local", "user": "me", "port": 2222, "folder": "/srv/x"},
        "nas",
    ),
    "ssh:192.168.1.5:x": (
        {"kind": "ssh", "host": "192.168.1.5", "folder": "x"},
        "copies-192-168-1-5",
    ),
    "rclone:dropbox:IOTstack/backups": (
        {"kind": "rclone", "remote": "dropbox:IOTstack/backups"},
        "dropbox",
    ),
}


@pytest.mark.parametrize(("text", "found"), PLACES.items(), ids=PLACES)
def test_a_place_has_one_text(text, found):
    """Which is read, and shown again; its vault is named after the machine, drive or cloud."""
    row, name = found
    assert read_place(text) == row
    assert place_text(row) == text
    assert is_same_place(row, {**row, "name": "x", "keep_daily": 3})
    assert place_name(row, ()) == name
    assert place_name(row, (name,)) == f"{name}2"


@pytest.mark.parametrize(
    "text",
    [
        "nas",
        "ssh:nas",
        "ssh:nas:",
        "ssh:a b:c",
        "rclone:dropbox",
        "rclone:dropbox:",
        "rclone::x",
        "usb/x",
        "ftp:a:b",
    ],
)
def test_what_is_no_place_is_refused(text):
    """With all that would be one."""
    with pytest.raises(UsageError, match=r"--copies .*: must be a folder such as .*, or none"):
        read_place(text)


def test_names_are_valid():
    """No word of the rules, no number at the beginning, and none twice."""
    assert free_name("media", (), "copies") == "media2"
    assert free_name("4TB Disk", ("copies-4TB-Disk",), "copies") == "copies-4TB-Disk2"
    assert free_name("Ü-ß", (), "copies") == "copies"
    assert free_name("", (), "copies") == "copies"


@pytest.mark.parametrize(
    ("text", "keys", "shown"),
    [
        ("5", {"keep": 5}, "5"),
        ("daily=7, weekly=4", {"keep_daily": 7, "keep_weekly": 4}, "daily=7,weekly=4"),
        ("yearly=2 3", {"keep": 3, "keep_yearly": 2}, "3,yearly=2"),
        ("within=30d", {"keep_within": "30d"}, "within=30d"),
    ],
)
def test_rules_of_retention(text, keys, shown):
    """By their names, the number of the newest without one."""
    assert read_keep(text) == keys
    assert keep_text(keys) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "five",
        "daily",
        "hourly=3",
        "5,6",
        "daily=7d",
        "within=3",
        "-1",
        "at_least=2",
        "9" * 5000,
    ],
)
def test_wrong_rules_are_refused(text):
    """Also those that would keep nothing."""
    with pytest.raises(UsageError, match=r"^--keep-copies"):
        read_keep(text, "--keep-copies")


def test_a_time_of_day():
    """As 24 hours."""
    assert [read_at(each) for each in ("3:05", "23.59", " 03:00 ", "never")] == [
        "03:05",
        "23:59",
        "03:00",
        "",
    ]
    for wrong in ("24:00", "3", "3:5", "noon", "-1:00", "3:05pm"):
        with pytest.raises(UsageError, match="such as 03:00"):
            read_at(wrong)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("ntfy:https://ntfy.sh/a", {"kind": "ntfy", "url": "https://ntfy.sh/a"}),
        ("https://ntfy.sh/a", {"kind": "ntfy", "url": "https://ntfy.sh/a"}),
        ("https://hc-ping.com/x", {"kind": "ping", "url": "https://hc-ping.com/x"}),
        ("http://kuma:3001/api/push/x", {"kind": "ping", "url": "http://kuma:3001/api/push/x"}),
        ("ping:~/ping-url", {"kind": "ping", "url_file": "~/ping-url"}),
        ("none", None),
    ],
)
def test_who_is_told(text, row):
    """By the kind that is named, or that the server is known for."""
    assert read_receiver(text) == row


@pytest.mark.parametrize(
    "text",
    [
        *("https://example.org/SECRET", "ntfy:SECRET", "mail:SECRET", "ping:https://", "SECRET"),
        *("ntfy:https://[SECRET", "https://[SECRET", "ntfy:https://SECRET\u2100/x"),
        *("ntfy:https://h:SECRET/x", "ntfy:https://h/SECRET x", "ntfy:https://h/SECRET\x1b"),
    ],
)
def test_a_wrong_receiver_is_not_quoted(text):
    """It may be a secret."""
    with pytest.raises(UsageError) as error:
        read_receiver(text)
    assert "SECRET" not in str(error.value)
    assert kind_of("https://example.org/x") == ""
