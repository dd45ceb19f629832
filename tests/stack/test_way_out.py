"""Where a restore puts what links of the stack, or names with links in them, lead to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.services.containers import Container
from iotstack_invoke.settings.model import Inclusion, StackConfig
from iotstack_invoke.stack.compose import InspectedContainer, Mount
from iotstack_invoke.stack.stack_holdings import Holdings, gather_holdings


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A stack beside a folder `ssd` with data, to which `far` leads by way of `near`."""
    (tmp_path / "ssd" / "data").mkdir(parents=True)
    (tmp_path / "ssd" / "data" / "file").write_text("x")
    (tmp_path / "near").symlink_to("ssd")
    (tmp_path / "stack" / "volumes").mkdir(parents=True)
    (tmp_path / "stack" / "services").mkdir()
    return tmp_path / "stack"


def held(stack: Path, *places: str, include: tuple[Inclusion, ...] = ()) -> Holdings:
    """Return what a container of the stack keeps that mounts these places of it."""
    mounts = tuple(
        Mount(os.path.realpath(stack / each), f"/{number}", str(stack / each))
        for number, each in enumerate(places)
    )
    found = InspectedContainer(
        Container("one", "x", "", "", running=True), mounts, 0, "", str(stack)
    )
    told = StackConfig(str(stack), inclusions=include)
    return gather_holdings(LocalHost(root=str(stack)), [found], {}, told, str(stack))


def where(holdings: Holdings) -> list[tuple[str, str]]:
    """Return what lies outside, and where a restore puts it if elsewhere."""
    return [(each.path, each.restore_to) for each in holdings.outside]


def test_a_link_that_leads_straight_out_is_followed(stack: Path) -> None:
    """What lies there goes where it lay."""
    (stack / "volumes" / "one").symlink_to(stack.parent / "ssd" / "data")
    assert where(held(stack, "volumes/one")) == [(str(stack.parent / "ssd/data"), "")]


@pytest.mark.parametrize("target", ["../../near/data", "{top}/near/data"])
def test_links_that_lie_outside_are_not_needed_again(stack: Path, target: str) -> None:
    """A bare machine has no `near`, so the data go where the stack's own link leads."""
    (stack / "volumes" / "one").symlink_to(target.format(top=stack.parent))
    wanted = (str(stack.parent / "ssd/data"), str(stack.parent / "near/data"))
    assert where(held(stack, "volumes/one")) == [wanted]


def test_a_mount_below_a_link_goes_below_where_it_leads(stack: Path) -> None:
    """The link is above what the container mounts."""
    (stack / "elsewhere").symlink_to("../near")
    wanted = (str(stack.parent / "ssd/data"), str(stack.parent / "near/data"))
    assert where(held(stack, "elsewhere/data")) == [wanted]


def test_a_link_by_way_of_one_of_the_stack_leads_out(stack: Path) -> None:
    """Both links of volumes/ are in the general part, and the one outside is not."""
    (stack / "volumes" / "one").symlink_to("two")
    (stack / "volumes" / "two").symlink_to("../../near/data")
    wanted = (str(stack.parent / "ssd/data"), str(stack.parent / "near/data"))
    assert where(held(stack, "volumes/one", "volumes/two")) == [wanted]


def test_where_two_ways_lead_it_goes_where_it_lay(stack: Path) -> None:
    """One name cannot serve two links: at the others a restore makes links to it."""
    (stack / "volumes" / "one").symlink_to("../../near/data")
    (stack / "volumes" / "two").symlink_to("../../ssd/data")
    holdings = held(stack, "volumes/one", "volumes/two")
    data, near = str(stack.parent / "ssd/data"), str(stack.parent / "near/data")
    assert where(holdings) == [(data, "")]
    assert holdings.outside[0].ways == (near, data)


def test_an_included_path_is_restored_by_the_name_that_is_included(stack: Path) -> None:
    """Compose mounts it by that name: on a bare machine Docker would make an empty folder."""
    near = str(stack.parent / "near" / "data")
    holdings = held(stack, include=(Inclusion(near),))
    assert where(holdings) == [(str(stack.parent / "ssd/data"), near)]


def test_an_included_path_goes_where_hosts_toml_says(stack: Path) -> None:
    """The owner's word counts more than its name."""
    near = str(stack.parent / "near" / "data")
    holdings = held(stack, include=(Inclusion(near, "/srv/data"),))
    assert where(holdings) == [(str(stack.parent / "ssd/data"), "/srv/data")]
