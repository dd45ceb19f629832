"""The stand, made once for all live tests; where it cannot be made they are skipped (in CI: fail)."""

import os
import shutil
from pathlib import Path

import pytest
from database_images import load_databases
from restorer import Restorer
from stand import Stand, remove_iotstack
from stand_machine import USER, StandError, check_programs

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.live)


def _missing(reason):
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def _stand_possible():
    try:
        check_programs()
    except StandError as error:
        _missing(f"no stand: {error}")


@pytest.fixture(scope="session")
def stand(_stand_possible):
    with Stand() as made:
        yield made


@pytest.fixture(scope="session")
def databases(stand):
    """The images of MariaDB and PostgreSQL are in the Pi's engine."""
    try:
        load_databases(stand.pi)
    except StandError as error:
        _missing(f"no databases on the stand: {error}")


@pytest.fixture(scope="session")
def pi(stand):
    return stand.pi


@pytest.fixture(scope="session")
def nas(stand):
    return stand.nas


@pytest.fixture(params=[1, 2], ids=["compose1", "compose2"])
def compose_version(request, stand):
    """Either Compose in turn; give it to the stand's functions as `version`."""
    if request.param == 2 and stand.compose_v2 is None:
        _missing("no Compose v2: neither the plugin nor Debian's package could be had")
    return request.param


@pytest.fixture(scope="session")
def far(stand):
    """Another Pi with an engine and a stack of its own, reached as test-pi and as test-root.

    Its mounts are shared, as systemd makes them; those of `pi` are not.
    """
    made = stand.add("far", engine=True, shared=True)
    stand.pi.may_log_in_to(made, {"test-pi": (22, USER), "test-root": (22, "root")})
    return made


@pytest.fixture(scope="module")
def person(pi, far, nas):
    """Who restores: a stack on the Pi, another machine, a vault; all empty again at the end."""
    made = Restorer(pi, far, nas)
    yield made
    remove_iotstack(pi)
    remove_iotstack(far)
    shutil.rmtree(made.vault)
