"""The grammar of runtags."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.core.errors import RuntagError
from iotstack_invoke.core.runtag import (
    LONGEST_BYTES,
    clean_runtag,
    default_runtag,
    free_runtag,
    is_runtag,
    read_runtag,
    runtag_time,
)


@pytest.mark.parametrize(
    "name",
    [
        "2026-11-23_1100",
        "2026-11-23_1100.live-pi",
        "my backup from last tuesday",
        "vor dem Umzug (Köln), 2. Versuch",
        "резервная копия",
        "备份",
        "हिन्दी",
        "a+b@c",
        "_x",
        "x-",
        "a" * 100,
    ],
)
def test_good_names_are_taken_as_they_are(name):
    """Letters and digits of any script, blanks and harmless punctuation are kept untouched."""
    assert read_runtag(name) == name


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("", "empty"),
        ("a/b", "'/' (solidus)"),
        ("../x", "'/'"),
        ("x; rm -rf ~", "';'"),
        ("$HOME", "'$'"),
        ("it's", '"\'"'),
        ('a"b', "'\"'"),
        ("a\nb", "'\\n'"),
        ("a\x00b", "'\\x00'"),
        ("a\\b", "reverse solidus"),
        ("`id`", "grave"),
        ("a*", "asterisk"),
        ("a\u202eb", "right-to-left override"),
        ("a\u00a0b", "no-break space"),
        ("x²", "superscript"),
        ("-rf", "begins with '-'"),
        (".hidden", "begins with '.'"),
        (" x", "begins with ' '"),
        ("x ", "ends with ' '"),
        ("x.", "ends with '.'"),
        ("a" * 101, "101 bytes"),
        ("ü" * 51, "102 bytes"),
    ],
)
def test_bad_names_are_refused_by_the_character_that_is_wrong(name, named):
    """Each refusal names the character, or the rule, that the name breaks."""
    with pytest.raises(RuntagError) as refusal:
        read_runtag(name)
    assert named in str(refusal.value)


def test_a_refusal_offers_a_cleaned_name():
    """The offered name can be typed back and is accepted."""
    with pytest.raises(RuntagError, match=r"Try --runtag 'x-rm-rf'\."):
        read_runtag("x; rm -rf ~".replace(" ", "/"))


@given(st.text())
def test_whatever_is_typed_the_cleaned_name_is_good_or_empty(text):
    """Cleaning never offers a name that the grammar refuses, and keeps a good name."""
    cleaned = clean_runtag(text)
    assert cleaned == "" or is_runtag(cleaned)


@given(st.text())
def test_no_accepted_name_can_leave_its_folder_or_its_line(text):
    """No accepted name holds a slash, a quote, a control character or a leading dash or dot."""
    if is_runtag(text):
        assert not set(text) & set("/\\'\"$;&|<>*?`!#%~\n\r\t\0{}[]=:^")
        assert text[0] not in "-. "
        assert len(text.encode()) <= LONGEST_BYTES


def test_the_default_is_the_seeds_local_minute():
    """A runtag that nobody chose is yyyy-mm-dd_hhmm and tells its time back."""
    now = datetime(2026, 11, 23, 11, 0, 59)
    assert default_runtag(now) == "2026-11-23_1100"
    assert runtag_time("2026-11-23_1100") == datetime(2026, 11, 23, 11, 0)


@pytest.mark.parametrize(
    ("runtag", "time"),
    [
        ("2026-11-23_1100.live-pi", datetime(2026, 11, 23, 11, 0)),
        ("2026-11-23_1100-2", datetime(2026, 11, 23, 11, 0)),
        ("2026-11-23_1100-12.live-pi", datetime(2026, 11, 23, 11, 0)),
        ("2026-11-23_1100-x", None),
        ("2026-11-23_1100x", None),
        ("2026-02-31_1100", None),
        ("2026-11-23_2460", None),
        ("my backup", None),
        ("٢٠٢٦-11-23_1100", None),
    ],
)
def test_only_a_dated_runtag_tells_a_time(runtag, time):
    """A free name, an impossible date and foreign digits tell no time."""
    assert runtag_time(runtag) == time


@pytest.mark.parametrize(
    ("names", "free"),
    [
        ((), ""),
        (("2026-11-23_1101.manifest.json", "2026-11-23_11.pin.txt"), ""),
        (("2026-11-23_1100-2.manifest.json",), "-3"),
        (("2026-11-23_1100.general-backup.tar.gz",), "-2"),
        (("2026-11-23_1100.backup-log.txt.partial",), "-2"),
        (("2026-11-23_1100.removing", "2026-11-23_1100-2.unfinished.jsonl"), "-3"),
        (("2026-11-23_1100.manifest.json", "2026-11-23_1100-3.manifest.json"), "-4"),
        (("2026-11-23_1100-old.manifest.json", "2026-11-23_1100-0.manifest.json"), ""),
    ],
)
def test_a_runtag_of_the_clock_that_is_taken_gets_a_number(names, free):
    """Whatever file bears it, of a dead run as well; one that may have been used is not again."""
    runtag = default_runtag(datetime(2026, 11, 23, 11, 0))
    assert free_runtag(runtag, names) == f"{runtag}{free}"
    assert is_runtag(free_runtag(runtag, names))


@given(st.text("aB9_-. é/\n", max_size=110))
def test_the_quick_look_at_a_plain_name_agrees_with_the_grammar(text):
    """Whether a name is a runtag does not depend on which way it was looked at."""
    try:
        read_runtag(text)
    except RuntagError:
        assert not is_runtag(text)
    else:
        assert is_runtag(text)
