"""Is each mutant of mutants.toml killed? `python tests/mutants.py [WORD …]` tries those with a word.

A mutant is a change of one place in the product, made in a copy of this tree; the test that the
table names beside it must fail there, and must pass without it. Exit code 1 where one survives, 2
where no mutant has one of the words, or where the table is not true any more: a text that is not
there once, or a test that fails anyway.
"""

import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

TABLE = Path(__file__).with_suffix(".toml")
ROOT = TABLE.parent.parent
ALL_PASSED, SOME_FAILED = 0, 1
"""Of pytest; any other code says that it could not try."""


def copy_of_tree(folder):
    """Copy what a test may need of this tree, where other users find it as well."""
    folder.chmod(0o755)
    for each in (
        "iotstack_invoke",
        "tests",
        "pyproject.toml",
        "hosts.toml",
        "tasks.py",
        "README.md",
    ):
        source, target = ROOT / each, folder / each
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy2(source, target)
    return folder


def pytest(folder, tests):
    """Run tests of a copy; return the exit code and what it said."""
    words = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    told = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    return told.returncode, told.stdout + told.stderr


def chosen_of(mutants, words):
    """Return the mutants that have one of the words, all where there are none; or exit with 2."""
    unknown = [each for each in words if not any(each in str(mutant) for mutant in mutants)]
    if unknown:
        print(f"No mutant of {TABLE.name} has {' or '.join(map(repr, unknown))}: none was tried.")
        sys.exit(2)
    return [m for m in mutants if not words or any(each in str(m) for each in words)]


def complaints(mutants):
    """Return where the table does not fit the tree."""
    for each in mutants:
        path = ROOT / each["file"]
        times = path.read_text("utf-8").count(each["old"]) if path.exists() else 0
        if times != 1:
            yield f"{each['file']}: {times} times, not once: {each['old']!r}"


def survives(folder, mutant):
    """Try one mutant; tell whether its test passes all the same."""
    path = folder / mutant["file"]
    before = path.read_text("utf-8")
    path.write_text(before.replace(mutant["old"], mutant["new"]), "utf-8")
    try:
        code, said = pytest(folder, [mutant["test"]])
    finally:
        path.write_text(before, "utf-8")
    if code not in (ALL_PASSED, SOME_FAILED):
        sys.exit(f"{mutant['test']} cannot be tried:\n{said}")
    return code == ALL_PASSED


def main():
    mutants = tomllib.loads(TABLE.read_text("utf-8"))["mutant"]
    chosen = chosen_of(mutants, sys.argv[1:])
    wrong = list(complaints(chosen))
    if wrong:
        print("\n".join(wrong))
        return 2
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = copy_of_tree(Path(name))
        code, said = pytest(folder, sorted({each["test"] for each in chosen}))
        if code != ALL_PASSED:
            print(f"Without any mutant:\n{said}")
            return 2
        survivors = []
        for number, each in enumerate(chosen, 1):
            if survives(folder, each):
                survivors.append(each)
            word = "SURVIVES" if each in survivors else "killed"
            print(f"{number}/{len(chosen)} {word}: {each['file']}: {each['old']!r}", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants are killed.")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
