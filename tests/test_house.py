"""The house: each package stands on a floor and uses only packages on lower floors."""

import ast
import os
import re
from graphlib import CycleError, TopologicalSorter

import folders
import pytest

PACKAGE = "iotstack_invoke"
CHECKOUT = str(folders.CHECKOUT)
HOUSE = os.path.join(CHECKOUT, PACKAGE)

# The packages, from the ground up. Those on one floor do not use each other.
FLOORS = (
    "core",
    "services hosts",
    "engine",
    "backups reporting",
    "settings",
    "stack",
    "vaults archives",
    "databases environment",
    "parts",
    "workflows monitoring",
    "commands",
    "cli",
)
# Inside of these, from the ground up as well; what lies in the package itself stands above them.
INSIDE = {
    "commands": (
        "shared setup",
        "undo",
        "vaults",
        "catalog",
        "backup monitoring",
        "restore doctor",
    ),
    "databases": ("sql influxdb sqlite", "influxdb2"),
}
MOST_PACKAGES = 20
PRINTING = {
    "reporting.bars",
    "reporting.wrapping",
    "reporting.report",
    "cli.tasks_and_flags",
    "cli.program",
    "commands.demo",
}


def modules():
    """Return the path of each module of the package by its name, packages as `x.__init__`."""
    found = {}
    for folder, _, files in os.walk(HOUSE):
        for name in files:
            path = os.path.join(folder, name)
            if name.endswith(".py"):
                found[os.path.relpath(path, HOUSE)[:-3].replace(os.sep, ".")] = path
    return found


MODULES = modules()


def package_of(module):
    """Return the package that a module lies in, "" for the modules at the top."""
    return module.rpartition(".")[0]


def floor_of(module):
    """Return the floor of a module's package and the floor inside of it, as a pair to compare.

    What lies directly in a package with packages inside stands above these; but the modules of
    databases are what its kinds share, and stand below them. None where no floor has the package.
    """
    top, _, inner = package_of(module).partition(".")
    if not top:
        return (len(FLOORS), 0)
    outer = next((at for at, names in enumerate(FLOORS) if top in names.split()), None)
    floors = INSIDE.get(top, ())
    if inner:
        within = next((at for at, names in enumerate(floors) if inner in names.split()), None)
    else:
        within = -1 if top == "databases" else len(floors)
    return None if outer is None or within is None else (outer, within)


def purposes():
    """Return what each package is for, one line each, from the first line of its docstring."""
    return "\n".join(
        f"  {package_of(module).replace('.', '/')}/: {ast.get_docstring(parsed(module)).splitlines()[0]}"
        for module in sorted(MODULES, key=lambda each: floor_of(each) or (99, 0))
        if module.endswith(".__init__")
    )


def parsed(module):
    with open(MODULES[module], encoding="utf-8") as stream:
        return ast.parse(stream.read())


def imports(tree, module):
    """Return the modules that a module imports, wherever in its code, as `module.name` or `module`."""
    here = [PACKAGE, *module.split(".")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def modules_in(names):
    """Return which modules are meant by imported names: `a.b` may be module a.b, or b of module a."""
    found = set()
    for name in names:
        first, _, inside = name.partition(".")
        if first == PACKAGE:
            outer = inside.rpartition(".")[0]
            near = (inside, outer, f"{inside}.__init__", f"{outer}.__init__", "__init__")
            found.add(next(each for each in near if each in MODULES))
    return found


USES = {module: modules_in(imports(parsed(module), module)) for module in MODULES}


def test_imports_are_read_wherever_they_stand():
    """What reads the imports sees relative, absolute and late imports, and whom they mean."""
    code = """
import os, iotstack_invoke.hosts.local
from .. import __version__
from ..core.errors import Busy
from iotstack_invoke.databases.influxdb.log import Level
def late():
    from ..commands.backup.facts import look_at_stack
    if late:
        from .swap import Swap
        from . import compose
"""
    assert modules_in(imports(ast.parse(code), "stack.up")) == {
        "__init__",
        "hosts.local",
        "core.errors",
        "databases.influxdb.log",
        "commands.backup.facts",
        "stack.swap",
        "stack.compose",
    }
    assert "hosts.ssh" in USES["vaults.access"]  # imported in a function


@pytest.mark.parametrize("module", sorted(MODULES))
def test_each_module_uses_lower_floors_only(module):
    """A module uses its own package and those below it. The failure says what each is for."""
    floor = floor_of(module)
    assert floor is not None, f"no floor of this test has the package of {module}\n{purposes()}"
    above = [
        f"{module} uses {used}, and {package_of(used)}/ does not stand below {package_of(module)}/"
        for used in sorted(USES[module])
        if package_of(used) not in (package_of(module), "") and floor_of(used) >= floor
    ]
    told = "What both need belongs into a package below both:"
    assert not above, "\n".join([*above, told, purposes()])


def test_the_house_stays_small_enough_to_see():
    """A reader finds the packages in one look: each has a floor, and they are few."""
    named = " ".join(FLOORS).split()
    assert sorted(named) == sorted(
        {module.partition(".")[0] for module in MODULES if "." in module}
    )
    assert len(named) <= MOST_PACKAGES
    for outer, floors in INSIDE.items():
        inside = {package_of(r).partition(".")[2] for r in MODULES if r.startswith(f"{outer}.")}
        assert sorted(" ".join(floors).split()) == sorted(inside - {""})


def test_no_two_modules_need_each_other():
    """Imports make no circle, those inside of functions included."""
    try:
        TopologicalSorter(USES).prepare()
    except CycleError as circle:
        pytest.fail(f"these modules turn in a circle: {' <- '.join(circle.args[1])}")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_private_name_crosses_a_package(module):
    """What begins with an underscore is used in its own package alone."""
    private = {
        name
        for name in imports(parsed(module), module)
        if name.rpartition(".")[2].startswith("_") and not name.endswith("__")
    }
    package = ".".join(filter(None, [PACKAGE, package_of(module)]))
    assert {name for name in private if not name.startswith(f"{package}.")} == set()


def test_no_package_does_anything_when_it_is_imported():
    """An `__init__` holds what its package is for, and nothing else but the version."""
    for module in MODULES:
        if module.rpartition(".")[2] == "__init__":
            body = parsed(module).body
            assert ast.get_docstring(parsed(module)).rstrip(".")
            assert len(body) == 1 or (module == "__init__" and isinstance(body[1], ast.Assign))


def test_the_package_lists_its_packages():
    """The docstring that greets a reader has each floor on a line, from the ground up."""
    with open(MODULES["__init__"], encoding="utf-8") as stream:
        lines = ast.get_docstring(ast.parse(stream.read())).splitlines()
    indented = [line[4:] for line in lines if line.startswith("    ")]
    listed = [re.split(r"\s{3,}", line)[0].split() for line in indented]
    assert listed == [floor.split() for floor in FLOORS]


@pytest.mark.parametrize("module", sorted(set(MODULES) - PRINTING))
def test_only_a_few_modules_print(module):
    """What people see goes through the report; no other module knows a terminal."""
    for node in ast.walk(parsed(module)):
        assert not (isinstance(node, ast.Name) and node.id == "print")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in (("sys", "stdout"), ("sys", "stderr"))
    assert not [name for name in imports(parsed(module), module) if name.split(".")[0] == "rich"]


@pytest.mark.parametrize(
    "module", sorted(set(MODULES) - {"core.dataclass", "databases.sqlite.online_copy"})
)
def test_data_classes_are_those_of_core(module):
    """The standard decorator would make each start slower; one script that runs alone has it."""
    assert "dataclasses.dataclass" not in set(imports(parsed(module), module))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_module_knows_the_machine_it_was_written_on(module):
    """No module names somebody's home, or the folder in which this checkout lies."""
    with open(MODULES[module], encoding="utf-8") as stream:
        text = stream.read()
    above = {CHECKOUT, os.path.dirname(CHECKOUT)} - {"/", "/etc", "/opt", "/srv", "/tmp", "/var"}
    for folder in ("/home", "/root", "/Users", *above):
        assert not re.search(rf"(?<![\w.]){re.escape(folder)}(?![\w-])", text), folder


def test_a_folder_of_the_stack_is_named_once():
    """A module that gives one a name of its own would go on with it when the other changes."""
    names = ("backups", "restore", "services", "volumes", ("services", "volumes"))
    said = [
        ast.unparse(node.value)
        for module in MODULES
        for node in parsed(module).body
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


def test_no_two_classes_have_one_name():
    """Whoever searches for a name finds one thing; what is private to a module may be alike."""
    names = [
        node.name
        for module in MODULES
        for node in parsed(module).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert sorted(names) == sorted(set(names))


def test_no_two_files_of_tests_have_one_name():
    """Pytest imports each by its name alone, and would run only one of them."""
    names = [name for *_, files in os.walk(os.path.join(CHECKOUT, "tests")) for name in files]
    tests = [name for name in names if name.endswith(".py") and name != "conftest.py"]
    assert sorted(tests) == sorted(set(tests))
