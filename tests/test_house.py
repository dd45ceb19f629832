"""The house: each room stands on a level, and uses what stands below it or beside it."""

import ast
import os
import re
from graphlib import CycleError, TopologicalSorter

import pytest

PACKAGE = "iotstack_invoke"
CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HOUSE = os.path.join(CHECKOUT, PACKAGE)

# The map, from the ground up. `x.*` are the rooms of the package x that stand no lower.
LEVELS = (
    "errors gzips nearest values known_hosts",
    "runtag steps children durations json_answers toml_text",
    "settings rows mistakes rules manifest sets losses holdings retention services.table",
    (
        "plan journal runner services.influx_log services.influx_meta services.influx_shard "
        "services.influx_check services.sql_dump"
    ),
    (
        "hosts hashes checks owner login login_shell sftp sftp_place remote ssh_config ssh_line "
        "pasted "
        "vaults.* targets transfer trust services.*"
    ),
    "bars wrapping engine log report site changes findings hooks",
    "rulebooks.*",
    "actions.*",
    "doors tasks program command __main__",
)
PRINTING = {"bars", "wrapping", "report", "tasks", "program", "actions.demo"}


def rooms():
    """Return the path of each module of the package by its name, packages as `x.__init__`."""
    found = {}
    for folder, _, files in os.walk(HOUSE):
        for name in files:
            path = os.path.join(folder, name)
            if name.endswith(".py"):
                found[os.path.relpath(path, HOUSE)[:-3].replace(os.sep, ".")] = path
    return found


ROOMS = rooms()


def level_of(room):
    """Return the level of a room, None where the map has none for it; `__init__` is on level 0.

    That of vaults holds code, and stands where its package does.
    """
    if room.rpartition(".")[2] == "__init__" and room != "vaults.__init__":
        return 0
    for level, names in enumerate(LEVELS):
        if room in names.split() or f"{room.partition('.')[0]}.*" in names.split():
            return level
    return None


def parsed(room):
    with open(ROOMS[room], encoding="utf-8") as stream:
        return ast.parse(stream.read())


def imports(tree, room):
    """Return the rooms that a room imports, wherever in its code, as `module.name` or `module`."""
    here = [PACKAGE, *room.split(".")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def rooms_in(names):
    """Return which rooms are meant by imported names: `a.b` may be room a.b, or b of room a."""
    found = set()
    for name in names:
        first, _, inside = name.partition(".")
        if first == PACKAGE:
            outer = inside.rpartition(".")[0]
            near = (inside, outer, f"{inside}.__init__", f"{outer}.__init__", "__init__")
            found.add(next(each for each in near if each in ROOMS))
    return found


USES = {room: rooms_in(imports(parsed(room), room)) for room in ROOMS}


def test_imports_are_read_wherever_they_stand():
    """What reads the imports sees relative, absolute and late imports, and whom they mean."""
    code = """
import os, iotstack_invoke.hosts.local
from . import __version__, children
from ..errors import Busy
from iotstack_invoke.databases.influxdb.log import Level
def late():
    from ..actions.look import look_at_stack
    if late:
        from .influx import DumpInflux
"""
    assert rooms_in(imports(ast.parse(code), "services.compose")) == {
        "hosts",
        "services.__init__",
        "errors",
        "services.influx_log",
        "actions.look",
        "services.influx",
    }
    assert rooms_in(imports(ast.parse("from . import __version__, steps"), "plan")) == {
        "__init__",
        "steps",
    }
    assert USES["retention"] == {"holdings", "sets", "values"}
    assert "remote" in USES["vaults.__init__"]  # imported in a function


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_no_room_imports_from_a_higher_level(room):
    """A room has a level on the map, and uses only what stands below it or beside it."""
    level = level_of(room)
    assert level is not None, "the map has no level for it"
    assert {used for used in USES[room] if (level_of(used) or 0) > level} == set()


def test_no_two_rooms_need_each_other():
    """Imports make no circle, those inside of functions included."""
    try:
        TopologicalSorter(USES).prepare()
    except CycleError as circle:
        pytest.fail(f"these rooms turn in a circle: {' <- '.join(circle.args[1])}")


def is_for_types(node):
    """Tell whether a statement is what only a type checker reads."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def test_no_package_does_anything_when_it_is_imported():
    """An `__init__` holds a docstring and plain values, so that its level is the lowest.

    That of vaults holds definitions besides: importing it does nothing either.
    """
    for room in ROOMS:
        if room == "vaults.__init__":
            allowed = (
                ast.Expr,
                ast.Assign,
                ast.ImportFrom,
                ast.Import,
                ast.FunctionDef,
                ast.ClassDef,
            )
            body = [node for node in parsed(room).body if not is_for_types(node)]
            assert all(isinstance(node, allowed) for node in body)
        elif room.endswith("__init__"):
            assert all(isinstance(node, (ast.Expr, ast.Assign)) for node in parsed(room).body)


def test_the_map_names_every_room_once():
    """No room stands on two levels of the map, and none that is gone stands on one."""
    named = " ".join(LEVELS).split()
    assert len(set(named)) == len(named)
    gone = [n for n in named if n not in ROOMS and f"{n.removesuffix('.*')}.__init__" not in ROOMS]
    assert gone == []


def test_the_package_says_where_its_rooms_are():
    """The docstring that greets a reader names every room, those of packages by their last word."""
    with open(ROOMS["__init__"], encoding="utf-8") as stream:
        words = set(re.findall(r"\w+", ast.get_docstring(ast.parse(stream.read()))))
    for name in " ".join(LEVELS).replace(".*", "").split():
        short = name.rpartition(".")[2]
        assert short == "__main__" or {short, short.removeprefix("influx")} & words, name


@pytest.mark.parametrize("room", sorted(set(ROOMS) - PRINTING))
def test_only_a_few_rooms_print(room):
    """What people see goes through the report; no other room knows a terminal."""
    for node in ast.walk(parsed(room)):
        assert not (isinstance(node, ast.Name) and node.id == "print")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in (("sys", "stdout"), ("sys", "stderr"))
    assert not [name for name in imports(parsed(room), room) if name.split(".")[0] == "rich"]


@pytest.mark.parametrize("room", sorted(set(ROOMS) - {"values", "services.sqlite_copy"}))
def test_data_classes_are_those_of_values(room):
    """The standard decorator would make each start slower; one script that runs alone has it."""
    assert "dataclasses.dataclass" not in set(imports(parsed(room), room))


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_no_room_knows_the_machine_it_was_written_on(room):
    """No module names somebody's home, or the folder in which this checkout lies."""
    with open(ROOMS[room], encoding="utf-8") as stream:
        text = stream.read()
    above = {CHECKOUT, os.path.dirname(CHECKOUT)} - {"/", "/etc", "/opt", "/srv", "/tmp", "/var"}
    for folder in ("/home", "/root", "/Users", *above):
        assert not re.search(rf"(?<![\w.]){re.escape(folder)}(?![\w-])", text), folder


def test_a_folder_of_the_stack_is_named_once():
    """A room that gives one a name of its own would go on with it when the other changes."""
    names = ("backups", "restore", "services", "volumes", ("services", "volumes"))
    said = [
        ast.unparse(node.value)
        for room in ROOMS
        for node in parsed(room).body
        if isinstance(node, ast.Assign)
    ]
    assert sorted(each for each in said if each in {*map(repr, names)}) == [
        "'backups'",
        "'restore'",
        "('services', 'volumes')",
    ]


def test_what_is_listed_as_long_is_a_test():
    """A test that got another name would be run by all, or by nobody."""
    folder = os.path.join(CHECKOUT, "tests")
    with open(f"{folder}/long.txt") as stream:
        listed = [line.strip() for line in stream if not line.startswith("#")]
    assert listed == sorted(listed)
    for each in listed:
        path, _, name = each.partition("::")
        with open(f"{folder}/{path}") as stream:
            assert f"def {name.partition('[')[0]}(" in stream.read(), each


def test_no_two_files_of_tests_have_one_name():
    """Pytest imports each by its name alone, and would run only one of them."""
    names = [name for *_, files in os.walk(os.path.join(CHECKOUT, "tests")) for name in files]
    tests = [name for name in names if name.endswith(".py") and name != "conftest.py"]
    assert sorted(tests) == sorted(set(tests))
