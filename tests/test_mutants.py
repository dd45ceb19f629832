"""The tool that tries mutants tries those that were meant."""

import subprocess
import sys
import tomllib

import mutants
import pytest


@pytest.mark.parametrize("words", [["no-such-word"], ["ssh_config", "no-such-word"]])
def test_a_word_that_no_mutant_has_is_told(words):
    """It is mistyped: neither all tests are run nor is anything said to be killed."""
    told = subprocess.run(
        [sys.executable, mutants.__file__, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    sentence = "No mutant of mutants.toml has 'no-such-word': none was tried.\n"
    assert (told.returncode, told.stdout + told.stderr) == (2, sentence)


def test_the_mutants_of_a_word_are_chosen():
    """Those that have it in any of their texts; without a word all."""
    some, other = {"file": "a.py", "old": "x"}, {"file": "b.py", "old": "y"}
    assert mutants.chosen_of([some, other], ["a.py"]) == [some]
    assert mutants.chosen_of([some, other], ["y", "x"]) == [some, other]
    assert mutants.chosen_of([some, other], []) == [some, other]


def test_the_table_fits_the_tree():
    """Each text of a mutant is in its file, once, and its test is there."""
    table = tomllib.loads(mutants.TABLE.read_text("utf-8"))["mutant"]
    assert list(mutants.complaints(table)) == []
    for each in table:
        path, _, name = each["test"].partition("::")
        defined = f"def {name.partition('[')[0]}(" if name else ""
        assert defined in (mutants.ROOT / path).read_text("utf-8"), each
