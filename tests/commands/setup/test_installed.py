"""The schedule that a machine has, by its files."""

import os
import tempfile
from pathlib import Path

from iotstack_invoke.commands.setup.installed import units_in
from iotstack_invoke.commands.setup.units import MARK, all_names


def units_of_nobody(folder):
    """Return what units_in finds, if root runs this as a user who may read less."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        return units_in(folder)
    finally:
        if is_root:
            os.seteuid(0)


def test_a_unit_that_only_root_may_read_is_there_and_not_ours():
    """An owner's umask may be 077: no traceback, and the name counts as taken."""
    first, second, *_ = all_names()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        Path(folder, first).write_text(MARK)
        Path(folder, second).write_text(MARK)
        Path(folder, second).chmod(0)
        found = units_of_nobody(folder)
    assert found == {first: MARK, second: ""}


def test_a_folder_that_may_not_be_searched_has_no_units():
    """As one that is missing."""
    name, *_ = all_names()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_text(MARK)
        Path(folder).chmod(0)
        found = units_of_nobody(folder)
        Path(folder).chmod(0o700)  # so that it can be removed
    assert found == {}
    assert units_in(folder) == {}
