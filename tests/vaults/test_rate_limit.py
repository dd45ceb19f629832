"""The bandwidth limit: the same bytes, no faster, all streams of a vault together."""

import contextlib
import hashlib
import io
import os
import re
import threading
import time
from datetime import datetime, timedelta

import pytest

from iotstack_invoke.core import processes as children
from iotstack_invoke.core.errors import Interrupted, TimedOut
from iotstack_invoke.core.units import read_rate, read_rates
from iotstack_invoke.settings.model import VaultConfig
from iotstack_invoke.vaults import access as vaults
from iotstack_invoke.vaults.access import vault_storage
from iotstack_invoke.vaults.rate_limit import RateLimit

DATA = os.urandom(1_000_000)


class Clock:
    """A clock that goes on when somebody sleeps, by what all of them slept."""

    def __init__(self):
        self.now_s = 0.0
        self.longest_s = 0.0

    def sleep(self, seconds):
        self.now_s += seconds
        self.longest_s = max(self.longest_s, seconds)


@pytest.fixture
def clock():
    return Clock()


def pace_of(clock, bytes_a_second):
    return RateLimit(read_rates(str(bytes_a_second)), lambda: clock.now_s, clock.sleep)


@pytest.mark.parametrize(
    ("text", "rate"), [("2M", 2_000_000), ("500K", 500_000), ("1G", 10**9), ("1500", 1500)]
)
def test_a_rate_is_read_in_decimal_units(text, rate):
    """Sizes are told in decimal units everywhere, and rates are as well."""
    assert read_rate(text) == rate


@pytest.mark.parametrize("text", ["", "0", "0M", "2 M", "2MB", "-1", "1.5M", "٣M", "fast"])
def test_another_text_is_no_rate(text):
    """What is no whole number with a unit is refused with what it may be."""
    with pytest.raises(ValueError, match="500K or 2M"):
        read_rate(text)


@pytest.mark.parametrize("size", [-1, 1, 1000, 1 << 20])
def test_the_same_bytes_arrive_in_the_time_they_take(clock, size):
    """However a stream is read, a million bytes take two seconds at 500K."""
    stream = pace_of(clock, 500_000).stream(io.BytesIO(DATA))
    content = b""
    while chunk := stream.read(size if size != 1 else 999):
        content += chunk
    assert content == DATA
    assert clock.now_s == pytest.approx(2.0)
    assert clock.longest_s <= 0.25


def test_a_pause_saves_nothing_up(clock):
    """After an idle hour the next bytes are as slow as any."""
    pace = pace_of(clock, 1000)
    pace.wait(500)
    clock.now_s += 3600
    before = clock.now_s
    pace.wait(500)
    assert clock.now_s - before == pytest.approx(0.5)


def test_streams_share_the_line():
    """Of streams side by side each waits for the others' bytes as well."""
    waited = []
    pace = RateLimit(read_rates("1000"), lambda: 0.0, waited.append)
    threads = [threading.Thread(target=pace.wait, args=(100,)) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(waited) == pytest.approx([0.1 * n for n in range(1, 9)])


def test_a_run_that_is_to_end_waits_no_longer(clock, monkeypatch):
    """A slow stream breaks off with the next piece when the run ends."""
    stream = pace_of(clock, 1000).stream(io.BytesIO(DATA))
    monkeypatch.setattr(children, "ending", lambda: True)
    with pytest.raises(Interrupted):
        stream.read(100_000)
    assert clock.now_s <= 0.25


def test_a_vault_with_a_limit_sends_and_fetches_no_faster(tmp_path):
    """What goes to a vault and what comes back is whole, and takes its time on one line."""
    storage = vault_storage(VaultConfig("usb", str(tmp_path), limit_rate=read_rates("4M")))
    path = f"{tmp_path}/x"
    began_s = time.monotonic()
    received = storage.write(path, io.BytesIO(DATA), 1.0)
    with storage.read(path, 10) as stream:
        assert stream.read() == DATA[10:]
    assert time.monotonic() - began_s >= 0.49
    assert received.sha256 == hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize("rates", [None, read_rates("4M")])
def test_a_run_ends_sending_before_the_next_night(tmp_path, monkeypatch, rates):
    """What has arrived stays, and the next run goes on with it; small files are sent all the same."""
    monkeypatch.setattr(vaults, "SENDING_H", 0.0)
    late = vault_storage(VaultConfig("usb", str(tmp_path), limit_rate=rates))
    path = tmp_path / "x"
    with pytest.raises(TimedOut, match=r"Vault 'usb' is slow.*`inv sync` continues"):
        late.write(str(path), io.BytesIO(DATA), 1.0)
    arrived = path.read_bytes()
    assert 0 < len(arrived) < len(DATA)
    monkeypatch.undo()
    next_run = vault_storage(VaultConfig("usb", str(tmp_path), limit_rate=rates))
    rest = io.BytesIO(DATA[len(arrived) :])
    received = next_run.write(str(path), rest, 1.0, len(arrived))
    assert received.sha256 == hashlib.sha256(DATA).hexdigest()
    monkeypatch.setattr(vaults, "SENDING_H", 0.0)
    again = vault_storage(VaultConfig("usb", str(tmp_path), limit_rate=rates))
    assert again.write(f"{path}.small", io.BytesIO(DATA[:1000]), 1.0).size_bytes == 1000


def test_a_paced_file_is_still_sought_in(tmp_path):
    """Who reads an archive a second time at random places can do so in a folder with a limit."""
    (tmp_path / "x").write_bytes(DATA)
    storage = vault_storage(VaultConfig("usb", str(tmp_path), limit_rate=read_rates("1G")))
    with storage.read(f"{tmp_path}/x") as stream:
        assert isinstance(stream, io.BufferedReader)
        assert stream.seekable()
        stream.seek(500_000)
        assert stream.read(10) == DATA[500_000:500_010]
    with contextlib.closing(RateLimit(read_rates("1G")).stream(io.BytesIO(DATA))) as stream:
        assert not stream.seekable()


# The time table


MONDAY = datetime(2026, 11, 30)


def rates_of(text):
    """Return what tells the rate of a time of the week that begins with MONDAY."""
    table = read_rates(text)
    return lambda day, hour, minute=0: table.rate_at(
        (MONDAY + timedelta(days=day, hours=hour, minutes=minute)).timetuple()
    )


def test_a_time_table_holds_every_day():
    """The last entry of a day holds until the first of the next; off is no limit."""
    rate = rates_of("08:00,512K 23:00,off")
    for day in range(7):
        assert [rate(day, *at) for at in ((7, 59), (8, 0), (22, 59), (23, 0))] == [
            *(0, 512_000, 512_000, 0),
        ]


def test_a_time_table_may_name_days():
    """As rclone has it: what is of a day begins then, and goes on until the next entry."""
    rate = rates_of("Mon-08:00,1M fri-18:00,off; 12:30,500K")
    assert rate(0, 7, 59) == 500_000
    assert rate(0, 8) == 1_000_000
    assert rate(0, 12, 30) == 500_000
    assert rate(4, 17, 59) == 500_000
    assert rate(4, 18) == rate(5, 12, 29) == 0
    assert rate(5, 12, 30) == rate(6, 23, 59) == 500_000


@pytest.mark.parametrize("text", ["2M", "off", "500K"])
def test_one_rate_is_a_table_of_one(text):
    """What was written before there were tables means the same."""
    assert {rates_of(text)(day, hour) for day in range(7) for hour in range(24)} == {
        0 if text == "off" else read_rate(text)
    }


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("8:00,512K", "'8:00,512K'"),
        ("24:00,1M", "'24:00,1M'"),
        ("08:60,1M", "'08:60,1M'"),
        ("08:00,512K 23:00", "'23:00'"),
        ("08:00,fast", "'08:00,fast'"),
        ("08:00,1M:2M", "'08:00,1M:2M'"),
        ("Moo-08:00,1M", "'Moo-08:00,1M'"),
        ("08:00,0", "'08:00,0'"),
        ("08:00,", "'08:00,'"),
        (",", "','"),
        ("08:00,1M 08:00,2M", "sets 08:00 twice"),
        ("08:00,1M Mon-08:00,2M", "sets 08:00 twice"),
    ],
)
def test_a_mistake_in_a_time_table_is_told_with_what_is_right(text, wrong):
    """The entry is named, and what it may be."""
    with pytest.raises(ValueError, match=f"(has )?{re.escape(wrong)}"):
        read_rates(text)


def test_the_limit_changes_amid_a_transfer(clock):
    """At the hour the next piece goes at the new rate, whatever was before."""
    at = datetime(2026, 11, 30, 7, 59, 58)

    def wall():
        return (at + timedelta(seconds=clock.now_s)).timetuple()

    table = read_rates("08:00,100K 08:01,off")
    pace = RateLimit(table, lambda: clock.now_s, clock.sleep, wall)
    stream = pace.stream(io.BytesIO(bytes(20_000_000)))
    stream.read(1_000_000)  # it is before 8: nothing is waited for
    assert clock.now_s == 0
    clock.now_s = 2.0
    stream.read(1_000_000)
    assert 6 < clock.now_s - 2 < 12  # what was read ahead went at the old rate
    clock.now_s = 62.0
    stream.read(10_000_000)
    assert clock.now_s - 62 < 1


@pytest.mark.parametrize(
    ("zone", "day"), [("Europe/Berlin", (2026, 3, 29)), ("Europe/Berlin", (2026, 10, 25))]
)
def test_an_hour_that_comes_twice_or_never_does_no_harm(clock, zone, day, monkeypatch):
    """The clock on the wall alone tells the rate: a stream over such a night is whole."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        start_s = datetime(*day, 0, 0).timestamp()
        pace = RateLimit(
            read_rates("01:59,2K 02:30,1K 03:00,4K"),
            lambda: clock.now_s,
            clock.sleep,
            lambda: time.localtime(start_s + clock.now_s),
        )
        content = pace.stream(io.BytesIO(bytes(40_000_000))).read()
        assert len(content) == 40_000_000
        assert 2 * 3600 < clock.now_s < 8 * 3600
        assert clock.longest_s <= 0.26
    finally:
        monkeypatch.undo()
        time.tzset()
