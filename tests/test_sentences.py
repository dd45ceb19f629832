"""Messages, docstrings and pages are plain English; sentences of programs end before ours."""

import ast
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import iotstack_invoke
from iotstack_invoke.archives.pack import _advice
from iotstack_invoke.core.errors import Refused, StepFailed, ended
from iotstack_invoke.hosts.inspect import root_words
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.stack.compose import inspect_all
from iotstack_invoke.vaults import encrypted


@pytest.fixture
def here(little_stack, monkeypatch):
    monkeypatch.setenv("PATH", little_stack.environment["PATH"])
    little_stack.host = LocalHost(str(little_stack.folder))
    return little_stack


def test_sudo(here):
    """As sudo says it where nobody can type a password."""
    here.tool("id", "echo 1000")
    here.tool("sudo", "echo 'sudo: a password is required' >&2; exit 1")
    with pytest.raises(Refused, match=r"a password is required\. Allow it"):
        root_words(here.host, "pi", sudo=True)
    here.tool("sudo", "exit 127")  # as a shell and env(1) end that do not find it
    with pytest.raises(Refused, match=r"^On pi the program sudo is missing; install it there"):
        root_words(here.host, "pi", sudo=True)


def test_docker(here):
    """As Docker says it to whoever is not in its group."""
    here.tool("docker", "echo 'dial unix: connect: permission denied' >&2; exit 1")
    with pytest.raises(StepFailed, match=r"answer: On .*: permission denied\. Add this user"):
        inspect_all(here.host)


def test_tar(here):
    """As tar says it of what only root can read: the backup's own words follow."""
    here.tool("tar", "cat; echo 'tar: ./volumes/x: Cannot open: Permission denied' >&2; exit 2")
    told = here.run("backup --runtag x")
    assert told.returncode == 1
    said = " ".join(told.stderr.split())
    assert "Cannot open: Permission denied." + _advice(["Permission denied"]) in said


@pytest.mark.parametrize(
    ("size_bytes", "missing"), [(5, "1 byte is missing."), (1204, "1,200 bytes are missing.")]
)
def test_bytes_that_are_missing(size_bytes, missing):
    """One alone is named as one."""
    whole = encrypted._Whole(io.BytesIO(b"four"), size_bytes, "x")
    with pytest.raises(StepFailed, match=f"^Reading x stopped early: {missing}$"):
        list(iter(whole.read, b""))


def test_what_has_its_end_gets_no_other():
    """Neither a second full stop, nor one behind a question."""
    assert [ended(each) for each in ("a", "a.", "a?", "a!", StepFailed("b"))] == [
        *("a.", "a.", "a?", "a!", "b."),
    ]


PACKAGE = Path(iotstack_invoke.__file__).parent
COMMANDS = PACKAGE.parent / "docs" / "reference" / "commands.md"
PATTERNS = (
    r"\b(no|some|any)body\b",
    r"\banew\b",
    r"\bas it was\b",
    r"\blets? (us in|go)\b|\blet us in\b|\blets this user in\b",
    r"\b(is|are|was|were) (told|heard)\b",
    r"\b[Tt]he line to\b|\bline broke\b",
    r"\bgoes on from there\b|\bDOES NOT GO ON\b|\bway back is not\b",
    r"\bwhere there is (no|none)\b|\b[Tt]here is none\b",
    r"\bdied before its end\b|\bis at work, or died\b",
    r"\bshows another\b|\bfor a bad day\b|\bnames no (vault|host|machine)\b",
    r"\bMake room\b|\bNobody is there\b|\b[Ss]ay from which\b",
    r"\ball the same\b|\bwhat mends it\b|\bof a name is used once\b",
)
"""Words of sentences that read as translated: see the style of CONTRIBUTING.md."""


def texts_of(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the words of each text but docstrings; values of f-strings as `{}`."""
    tree = ast.parse(source)
    passed = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            passed |= {id(each) for each in node.values}
            parts = (e.value if isinstance(e, ast.Constant) else "{}" for e in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and id(node) not in passed:
            yield node.lineno, str(node.value)


TRANSLATED = r"\b(no|some|any)body\b|\banew\b|\bas it was\b|\blets? (us in|go)\b"
"""What docstrings, comments and pages of docs/ must not say either; they may quote programs."""


@pytest.mark.parametrize(
    "paths",
    [
        PACKAGE.rglob("*.py"),
        PACKAGE.parent.glob("docs/**/*.md"),
        PACKAGE.parent.glob("*.md"),
        [PACKAGE.parent / "hosts.toml", PACKAGE.parent / "tasks.py"],
    ],
    ids=["package", "docs", "top", "settings and tasks"],
)
def test_no_text_reads_as_translated(paths):
    """Docstrings, comments, decisions, pages and the sample of the settings."""
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sorted(paths)
        if path.name != "CHANGELOG.md"  # its past entries stay
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(TRANSLATED, line)
    ]
    assert found == []


def test_no_message_reads_as_translated():
    """What failed, why, what is left, what to do: without people where there is a program."""
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in texts_of(path.read_text("utf-8"))
        if any(re.search(pattern, text) for pattern in PATTERNS)
    ]
    assert found == []


@pytest.mark.parametrize(
    "text", ["Nobody is there to confirm", "did not let us in", "written anew"]
)
def test_the_patterns_catch_such_a_sentence(text):
    """A pattern that finds nothing proves nothing."""
    assert any(re.search(pattern, text, re.IGNORECASE) for pattern in PATTERNS)


def test_the_help_of_each_flag_is_a_sentence():
    """Each flag of each task says what it does, in a sentence of its own."""
    rows = re.findall(
        r"^\| `(--[^`]*)` \| .* \| (.*) \|$", COMMANDS.read_text("utf-8"), re.MULTILINE
    )
    assert len(rows) > 50
    assert [each for each in rows if not (each[1][:1].isupper() and each[1].endswith("."))] == []
