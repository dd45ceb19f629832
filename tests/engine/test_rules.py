"""Patterns of files, and the rule that is found for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.backups.names import KINDS, WILDCARDS, split_set_name
from iotstack_invoke.core.errors import RuleError
from iotstack_invoke.core.runtag import clean_runtag, is_runtag
from iotstack_invoke.engine.rules import Pattern, RuleBook, rule

RUNTAGS = st.text(min_size=1).map(clean_runtag).filter(bool)
PART_FILES = st.builds(
    "{}.{}".format, RUNTAGS, st.sampled_from(["general-backup.tar.gz", "influx-backup.tar"])
)


@rule("pi:backups/{runtag}.influx-backup.tar", input="pi:dumps/{runtag}")
def influx_archive(job):
    """Sweep a dump into one tar.

    Its shards are compressed already.
    """
    yield from ()


@rule("nas:{part}", input="pi:backups/{part}", retries=2)
def offsite(job):
    yield from ()


@pytest.mark.parametrize(
    ("pattern", "name", "values"),
    [
        ("pi:a.tar", "pi:a.tar", {}),
        ("pi:a.tar", "pi:aXtar", None),
        (
            "pi:backups/{runtag}.influx-backup.tar",
            "pi:backups/2026-11-23_1100.influx-backup.tar",
            {"runtag": "2026-11-23_1100"},
        ),
        ("pi:{runtag}.tar", "pi:my backup (2).x.tar", {"runtag": "my backup (2).x"}),
        ("pi:{runtag}.tar", "nas:x.tar", None),
        ("pi:{runtag}.tar", "pi:x.tar\n", None),
        ("pi:{runtag}/{runtag}.tar", "pi:x/x.tar", {"runtag": "x"}),
        ("pi:{runtag}/{runtag}.tar", "pi:x/y.tar", None),
        ("nas:{part}", "nas:x.general-backup.tar.gz", {"part": "x.general-backup.tar.gz"}),
        ("nas:{part}", "nas:x.manifest.json", None),
        ("nas:{part}", "nas:x.backup-log.txt", None),
        ("nas:{part}", "nas:-x.influx-backup.tar", None),
        ("pi:a{{b}}", "pi:a{b}", {}),
    ],
)
def test_a_pattern_matches_its_names_and_no_others(pattern, name, values):
    """A pattern takes the whole name, each wildcard takes what its grammar takes."""
    assert Pattern.read(pattern, WILDCARDS).match(name) == values


@pytest.mark.parametrize(
    "value",
    ["a/b", "../x", "-rf", ".x", "x;id", "$(id)", "a\nb", "a\0b", "", "x ", "`id`", "a" * 101],
)
def test_no_wildcard_takes_what_a_shell_or_a_path_would_read(value):
    """No value with a slash, a leading dash or dot, or a character of the shell is matched."""
    assert Pattern.read("pi:{runtag}.tar", WILDCARDS).match(f"pi:{value}.tar") is None
    assert Pattern.read("nas:{part}", WILDCARDS).match(f"nas:{value}.influx-backup.tar") is None


@given(RUNTAGS)
def test_what_was_filled_in_is_matched_again(runtag):
    """A file named by a pattern and a runtag tells that runtag back."""
    text = "pi:backups/{runtag}.influx-backup.tar"
    assert Pattern.read(text, WILDCARDS).match(text.format(runtag=runtag)) == {"runtag": runtag}


@given(PART_FILES, RUNTAGS)
def test_several_wildcards_are_told_apart(part, runtag):
    """Wildcards with a slash between them each tell their own value back."""
    text = "nas:{runtag}/x/{part}"
    name = text.format(part=part, runtag=runtag)
    assert Pattern.read(text, WILDCARDS).match(name) == {"runtag": runtag, "part": part}


@given(
    st.sampled_from(["pi:{runtag}", "pi:{runtag}.tar", "nas:{part}", "pi:{runtag}-{part}"]),
    st.one_of(
        st.builds("pi:{}".format, st.text()),
        st.builds("pi:{}-{}".format, RUNTAGS, PART_FILES),
        st.builds("nas:{}".format, PART_FILES),
    ),
)
def test_what_was_matched_fills_to_the_same_name(text, name):
    """Filling a pattern with what it matched gives the name that was matched."""
    values = Pattern.read(text, WILDCARDS).match(name)
    if values is not None:
        assert text.format(**values) == name


def test_an_unknown_wildcard_is_named_with_those_there_are():
    """A rule with a wildcard of another name is refused when the book is put together."""
    with pytest.raises(RuleError, match=r"no wildcard \{runtga\}; there are: part, runtag"):
        RuleBook(rule("pi:{runtga}.tar")(lambda job: iter(())), wildcards=WILDCARDS)


@pytest.mark.parametrize(
    "text", ["pi:{runtag:>40}", "pi:{runtag!r}", "pi:{runtag", "pi:runtag}", "pi:{}", "pi:{0}"]
)
def test_a_pattern_that_would_be_filled_in_otherwise_is_refused(text):
    """Formats, conversions, numbers and lone braces are mistakes of a rule, not silent surprises."""
    with pytest.raises(RuleError):
        Pattern.read(text, WILDCARDS)


@pytest.mark.parametrize(
    "wrong",
    [
        rule("pi:{runtag}.a", "pi:b"),
        rule("pi:b", "pi:{runtag}.a"),
        rule("pi:b", input="pi:{runtag}.a"),
        rule("pi:b", ancient="pi:{runtag}.a"),
        rule("pi:{runtag}", input="pi:{part}"),
    ],
)
def test_a_wildcard_that_an_output_does_not_tell_is_refused(wrong):
    """No rule is taken whose files could not all be named from any one output."""
    with pytest.raises(RuleError, match="does not tell"):
        RuleBook(wrong(lambda job: iter(())), wildcards=WILDCARDS)


def test_inputs_found_out_later_are_refused_as_a_mistake_of_their_rule():
    """A function that returns an input with a wildcard of another rule gets a RuleError."""
    late = rule("pi:{runtag}", input=lambda wildcards, facts: ["pi:{part}"])(lambda job: iter(()))
    with pytest.raises(RuleError, match=r"its inputs name no wildcard 'part'"):
        late.inputs_for({"runtag": "x"}, None)


def test_inputs_may_depend_on_what_there_is():
    """A function of wildcards and facts names the inputs, and wildcards in them are filled in."""
    late = rule("pi:{runtag}", input=lambda wildcards, facts: [*facts, "pi:{runtag}.c"])(
        lambda job: iter(())
    )
    assert late.inputs_for({"runtag": "x"}, ("pi:a", "pi:b")) == ("pi:a", "pi:b", "pi:x.c")


def test_a_decorated_body_is_a_plain_rule():
    """A rule is called like its body, and says its docstring's first line."""
    assert influx_archive.name == "influx_archive"
    assert influx_archive.outputs == ("pi:backups/{runtag}.influx-backup.tar",)
    assert influx_archive.inputs == ("pi:dumps/{runtag}",)
    assert influx_archive.sentence == "Sweep a dump into one tar."
    assert offsite.sentence == "offsite"
    assert offsite.retries == 2


def test_a_book_finds_the_rule_and_its_wildcards():
    """The one rule that makes a file is found with the values of its wildcards."""
    book = RuleBook(influx_archive, offsite, wildcards=WILDCARDS)
    assert book.find("pi:backups/x.influx-backup.tar") == (influx_archive, {"runtag": "x"})
    assert book.find("nas:x.influx-backup.tar") == (offsite, {"part": "x.influx-backup.tar"})
    assert book.find("nas:x.manifest.json") is None
    assert book.find("pi:hosts.toml") is None


def test_a_literal_output_with_braces_is_found():
    """A doubled brace stands for itself in an output without wildcards too."""
    braces = rule("pi:a{{b}}")(lambda job: iter(()))
    assert RuleBook(braces).find("pi:a{b}") == (braces, {})


@pytest.mark.parametrize(
    "other_output", ["nas:x.influx-backup.tar", "nas:{runtag}.influx-backup.tar"]
)
def test_two_rules_for_one_file_are_both_named(other_output):
    """Neither of two rules wins silently, be the other one literal or a pattern."""

    @rule(other_output)
    def elsewhere(job):
        yield from ()

    for book in (
        RuleBook(offsite, elsewhere, wildcards=WILDCARDS),
        RuleBook(elsewhere, offsite, wildcards=WILDCARDS),
    ):
        with pytest.raises(RuleError) as refusal:
            book.find("nas:x.influx-backup.tar")
        assert "nas:x.influx-backup.tar" in str(refusal.value)
        assert "'offsite' (nas:{part})" in str(refusal.value)
        assert f"'elsewhere' ({other_output})" in str(refusal.value)


def test_the_nearest_rule_is_named_with_the_wildcard_that_refused():
    """A name of the right shape is answered by the rule and what its wildcard does not take."""
    book = RuleBook(influx_archive, offsite, wildcards=WILDCARDS)
    assert book.nearest("pi:backups/-x.influx-backup.tar") == (
        "Rule 'influx_archive' makes pi:backups/{runtag}.influx-backup.tar, but what stands for {runtag} is not a valid runtag."
    )
    assert book.nearest("nas:x.tar.gz") == (
        "Rule 'offsite' makes nas:{part}, but what stands for {part} is not a valid part."
    )


def test_a_name_of_no_shape_is_answered_by_all_that_can_be_made():
    """Where no rule is near, the outputs of all rules are listed."""
    for name in ("usb:x", "nas:a/b", "pi:backups/x.tar", "pi:backups/x.influx-backup.tar"):
        assert RuleBook(influx_archive, offsite, wildcards=WILDCARDS).nearest(name) == (
            "The rules make: pi:backups/{runtag}.influx-backup.tar, nas:{part}."
        )


def test_a_rule_is_found_by_its_name_or_all_names_are_told():
    """A mistyped rule name is answered with those there are."""
    book = RuleBook(influx_archive, offsite, wildcards=WILDCARDS)
    assert book.named("offsite") is offsite
    with pytest.raises(RuleError, match="no rule 'ofsite'; there are: influx_archive, offsite"):
        book.named("ofsite")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("x.general-backup.tar.gz", ("x", "general")),
        ("2026-11-23_1100.influx-backup.tar", ("2026-11-23_1100", "influx")),
        ("x.manifest.json", ("x", "manifest")),
        ("x.backup-log.txt", ("x", "log")),
        ("a.b.influx-backup.tar", ("a.b", "influx")),
        ("x.influx-backup.tar.general-backup.tar.gz", ("x.influx-backup.tar", "general")),
        ("x.general-backup.tar.gz.partial", None),
        ("general-backup.tar.gz", None),
        (".general-backup.tar.gz", None),
        ("xgeneral-backup.tar.gz", None),
        ("-x.general-backup.tar.gz", None),
        ("x.unfinished.jsonl", None),
        ("x.removing", None),
        ("a/x.manifest.json", None),
        ("x.manifest.json\n", None),
    ],
)
def test_only_names_that_a_run_could_write_are_split(name, found):
    """A file of a set tells runtag and kind; every other name tells nothing."""
    assert split_set_name(name) == found


@given(RUNTAGS, st.sampled_from(["general", "influx", "manifest", "log"]))
def test_a_set_name_tells_what_it_was_made_of(runtag, kind):
    """Whatever a runtag looks like, its files tell it and their kind back."""
    assert split_set_name(f"{runtag}.{KINDS[kind]}") == (runtag, kind)


@given(st.text())
def test_a_split_name_always_tells_a_good_runtag(text):
    """No name of a listing brings a runtag in that the grammar refuses."""
    found = split_set_name(f"{text}.manifest.json")
    assert (found == (text, "manifest")) == is_runtag(text)
