"""The bandwidth limit: the same bytes, no faster, all streams of a vault together."""

import contextlib
import hashlib
import io
import os
import threading
import time

import pytest

from iotstack_invoke import children
from iotstack_invoke.durations import read_rate
from iotstack_invoke.errors import Interrupted
from iotstack_invoke.settings import Vault
from iotstack_invoke.vaults import vault_place
from iotstack_invoke.vaults.pace import Pace

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
    return Pace(bytes_a_second, lambda: clock.now_s, clock.sleep)


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
    pace = Pace(1000, lambda: 0.0, waited.append)
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
    place = vault_place(Vault("usb", str(tmp_path), limit_rate=4_000_000))
    path = f"{tmp_path}/x"
    began_s = time.monotonic()
    received = place.receive(path, io.BytesIO(DATA), 1.0)
    with place.read(path, 10) as stream:
        assert stream.read() == DATA[10:]
    assert time.monotonic() - began_s >= 0.49
    assert received.sha256 == hashlib.sha256(DATA).hexdigest()


def test_a_paced_file_is_still_sought_in(tmp_path):
    """Who reads an archive a second time at random places can do so in a folder with a limit."""
    (tmp_path / "x").write_bytes(DATA)
    place = vault_place(Vault("usb", str(tmp_path), limit_rate=10**9))
    with place.read(f"{tmp_path}/x") as stream:
        assert isinstance(stream, io.BufferedReader)
        assert stream.seekable()
        stream.seek(500_000)
        assert stream.read(10) == DATA[500_000:500_010]
    with contextlib.closing(Pace(10**9).stream(io.BytesIO(DATA))) as stream:
        assert not stream.seekable()
