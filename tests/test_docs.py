"""The documentation: what is generated is up to date, links lead somewhere, examples are right."""

import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import yaml
from invoke.parser import Parser
from jsonschema import Draft7Validator

from iotstack_invoke.cli.tasks_and_flags import namespace
from iotstack_invoke.settings.schema import schema
from iotstack_invoke.settings.validation import mistakes_in

CHECKOUT = Path(__file__).parent.parent
DOCS = CHECKOUT / "docs"
MANUAL = DOCS / "iotstack.1"
PAGES = (
    *(CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(DOCS.glob("**/*.md")),
)
OF_SETTINGS = [page for page in PAGES if "decisions" not in page.parts]
LINK = re.compile(r"\]\(([^()\s]+)\)")
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def named(page):
    return str(page.relative_to(CHECKOUT))


def blocks(page, language):
    """Return the code blocks of a language, without the indent that a list gives them."""
    found = BLOCK.findall(page.read_text("utf-8"))
    return [textwrap.dedent(text) for _, each, text in found if each == language]


def prose(page):
    """Return the text of a page without its code blocks."""
    return BLOCK.sub("", page.read_text("utf-8"))


def anchors(page):
    """Return what a link may name of a page: its headings, as GitHub and MkDocs spell them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", each).strip().lower() for each in titles)
    return {re.sub(r"[\s]+", "-", each) for each in plain}


@pytest.mark.parametrize("script", ["commands.py", "architecture.py", "settings.py", "manpage.py"])
def test_what_is_generated_is_what_the_code_says(script):
    """`python docs/SCRIPT` rewrites it."""
    words = [sys.executable, str(DOCS / script), "--check"]
    told = subprocess.run(words, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert (told.returncode, told.stderr) == (0, "")


def require(program):
    """Skip where a program is missing; where CI promised it, fail."""
    if shutil.which(program):
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{program} is not installed")
    pytest.skip(f"{program} is not installed")


@pytest.mark.parametrize(
    "words", [("groff", "-man", "-Tutf8", "-ww"), ("man", "--warnings", "-l")], ids=" ".join
)
def test_the_manual_page_is_shown_without_a_warning(words):
    """In 80 columns, with its sections in the order that readers know, and each task."""
    require(words[0])
    sized = {**os.environ, "MANWIDTH": "80", "MAN_KEEP_FORMATTING": "", "LC_ALL": "C.UTF-8"}
    told = subprocess.run(
        [*words, MANUAL], env=sized, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert (told.returncode, told.stderr) == (0, "")
    plain = re.sub(r"\x1b\[[\d;]*m|.\x08", "", told.stdout)
    assert max(map(len, plain.splitlines())) <= 80
    titles = re.findall(r"^[A-Z][A-Z ]+$", plain, re.MULTILINE)
    assert titles == [
        *("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS OF EVERY COMMAND", "COMMANDS"),
        *("EXIT STATUS", "FILES", "ENVIRONMENT", "EXAMPLES", "SEE ALSO"),
    ]
    shown = re.findall(r"^   (\S+)", plain, re.MULTILINE)
    assert set(namespace.task_names) <= set(shown)


def test_the_examples_of_the_manual_page_are_right():
    """Each is a command line that the program reads, to its last option."""
    found = re.findall(r"^\\fB(iotstack .*)\\fR$", MANUAL.read_text("utf-8"), re.MULTILINE)
    assert len(found) > 5
    for line in found:
        words = line.replace("\\-", "-").split()[1:]
        assert [each.name for each in Parser(namespace.to_contexts()).parse_argv(words)] == words[
            :1
        ]


def test_the_manual_page_is_installed():
    """Where man looks for it: share/man beside the bin of the program."""
    with (CHECKOUT / "pyproject.toml").open("rb") as stream:
        installed = tomllib.load(stream)["tool"]["setuptools"]["data-files"]
    assert installed == {"share/man/man1": [named(MANUAL)]}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_each_relative_link_leads_to_a_page_and_its_heading(page):
    """Also to a picture; what begins with https is not asked for."""
    lost = []
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        goal = page if not path else Path(os.path.normpath(page.parent / path))
        if re.match(r"[a-z]+:", link):
            continue
        if not goal.exists() or (anchor and anchor not in anchors(goal)):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("page", OF_SETTINGS, ids=named)
def test_each_example_of_settings_is_right(page):
    """A block of TOML is a hosts.toml without a mistake, for us and for an editor."""
    for text in blocks(page, "toml"):
        content = tomllib.loads(text)
        assert mistakes_in(content) == [], text
        assert list(Draft7Validator(schema()).iter_errors(content)) == [], text


def test_each_page_is_in_the_navigation():
    """A page that no menu names is found by no reader of the site."""
    with (CHECKOUT / "mkdocs.yml").open(encoding="utf-8") as stream:
        menu = [*listed(yaml.safe_load(stream)["nav"])]
    assert sorted(menu) == sorted(str(each.relative_to(DOCS)) for each in DOCS.glob("**/*.md"))


def listed(menu):
    """Yield the pages of a menu and of the menus in it."""
    for each in menu:
        if isinstance(each, str):
            yield each
        else:
            for inner in each.values():
                yield from listed([inner] if isinstance(inner, str) else inner)


@pytest.mark.parametrize("page", OF_SETTINGS, ids=named)
def test_each_path_of_the_repository_is_there(page):
    """What a page names in backticks, if it begins with a folder of this repository."""
    tops = ("iotstack_invoke", "tests", "docs", "benchmarks", ".ci")
    told = re.findall(r"`([^`\s]+)`", prose(page))
    paths = [each for each in told if each.partition("/")[0] in tops and "/" in each]
    assert [each for each in paths if not (CHECKOUT / each).exists()] == []


def messages():
    """Yield each text that stands in the program, with `…` for what is filled in."""
    for path in (CHECKOUT / "iotstack_invoke").glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                parts = (e.value if isinstance(e, ast.Constant) else "…" for e in node.values)
                yield "".join(parts)


def test_each_message_of_the_troubleshooting_is_one_of_the_program():
    """A heading there is a part of a message; `…` stands for what the program fills in."""
    page = DOCS / "troubleshooting.md"
    headings = re.findall(r"^## (.*)$", page.read_text("utf-8"), re.MULTILINE)
    said = [*messages()]
    unknown = [each for each in headings if not any(each.rstrip(" …") in text for text in said)]
    assert unknown == []


@pytest.mark.parametrize("page", ["reference/commands.md", "iotstack.1"])
def test_a_flag_without_a_value_has_none(page):
    """`-v` is counted: Invoke says that its kind is a number, but it takes none."""
    lines = (DOCS / page).read_text("utf-8").replace("\\-", "-").splitlines()
    (shown,) = {line for line in lines if "--verbose" in line and "VERB" not in line}
    assert "VALUE" not in shown
