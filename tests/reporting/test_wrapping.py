"""What is longer than a terminal is wide goes on with a whole word."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from iotstack_invoke.reporting.wrapping import HANGING, wrapped

NAMES = ", ".join(f"volumes/service-{number}" for number in range(9))
LINE = f"  replaces: {NAMES}. Back to before: inv undo --host test-pi"
SAY = "import sys; from iotstack_invoke.reporting.report import Report; getattr(Report(), sys.argv[1])(sys.argv[2])"


def rows(text, width):
    """Return what a terminal shows of a line without wide characters."""
    return [text[at : at + width].rstrip() for at in range(0, len(text), width)]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_word_is_cut_and_what_goes_on_is_indented(width):
    """Rows are filled with blanks: what is copied out of them is one line, of the same words."""
    told = wrapped(LINE, width)
    assert "\n" not in told
    assert told.split() == LINE.split()
    first, *others = rows(told, width)
    assert " ".join(each.strip() for each in (first, *others)) == LINE.strip()
    assert first.startswith("  replaces: volumes/service-0,")
    assert {len(each) - len(each.lstrip()) for each in others} == {2 + HANGING}


@pytest.mark.parametrize("unit", ["s", "min", "kB", "MB", "%"])
def test_a_number_stays_with_its_unit(unit):
    """Nobody looks for it at the end of the row before."""
    told = rows(wrapped(f"{'x' * 30} made in 0.9 {unit}, again", 42 + len(unit)), 42 + len(unit))
    assert told == ["x" * 30 + " made in", f"  0.9 {unit}, again"]


def test_a_row_that_is_just_full_is_followed_by_an_indented_one():
    """The cursor stays in it until more comes."""
    told = wrapped(f"{'x' * 38} y zzz", 40)
    assert rows(told, 40) == ["x" * 38 + " y", "  zzz"]


@given(st.lists(st.text("abc ü中", max_size=60), max_size=30), st.integers(40, 130))
@example(["a" * 39], 40)
@example(["a", "a" * 40, "b"], 40)
@example(["a" * 37, "b", "中" * 20], 40)
def test_a_word_that_fits_is_in_one_row(words, width):
    """Wide characters count twice; no word is lost, whatever it is of."""
    line = "  " + " ".join(words)
    told = wrapped(line, width)
    assert told.split() == line.split()
    column = 0
    for piece in told.split(" "):
        long = cell_len(piece)
        if long <= width and not any(cell_len(each) > width for each in line.split()):
            assert column % width + long <= width, piece
        column += long + 1


def test_what_fits_is_left_alone():
    """So is what has tabs, and all on a terminal that is too narrow; lines stay lines."""
    assert wrapped("  a\nb", 80) == "  a\nb"
    assert wrapped(f"\t{LINE}", 80) == f"\t{LINE}"
    assert wrapped(LINE, 39) == LINE
    assert wrapped("x" * 100, 80) == "x" * 100


def at_terminal(how, columns, text=LINE):
    """Return the bytes that a terminal of so many columns is sent."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    attributes = termios.tcgetattr(theirs)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    words = [sys.executable, "-c", SAY, how, text]
    subprocess.run(
        words, stdout=theirs, stderr=theirs, check=True, env={**os.environ, "TERM": "dumb"}
    )
    told = os.read(ours, 65536)
    os.close(theirs)
    os.close(ours)
    return told.decode()


@pytest.mark.parametrize("how", ["write", "warn", "tell"])
def test_a_terminal_is_asked_how_wide_it_is(how):
    """Results, warnings and talk alike; in a file each is one line as it is."""
    assert at_terminal(how, 80).rstrip("\n") == wrapped(LINE, 80)
    assert at_terminal(how, 250).rstrip("\n") == LINE


def test_what_is_no_terminal_gets_lines_as_they_are():
    """Mails of cron and files are wrapped by whoever shows them."""
    words = [sys.executable, "-c", SAY, "write", LINE]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == f"{LINE}\n"
