"""Data classes: as the standard ones, to whoever makes, compares, shows or changes a value."""

import dataclasses
from dataclasses import FrozenInstanceError, asdict, field, fields, replace
from functools import cached_property

import pytest

from iotstack_invoke.core.dataclass import dataclass

SHAPES = [{"frozen": True, "slots": True}, {"frozen": True}, {"slots": True}, {}]


def pair(decorator, **shape):
    """Return a class with defaults of all kinds, and one without any field."""

    @decorator(**shape)
    class Cup:
        """What holds coffee."""

        owner: str
        marks: list = field(default_factory=list)
        size: int = 3
        root: str = field(default="", compare=False)
        key: str = field(default="", repr=False)

        @property
        def label(self):
            return f"{self.owner}'s"

    @decorator(**shape)
    class Nothing:
        """What holds nothing."""

    return Cup, Nothing


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_value_is_as_the_standard_one(shape):
    """Made by place or by name, with defaults, shown, compared, taken apart and replaced."""

    def told(decorator):
        cup, nothing = pair(decorator, **shape)
        one, two = cup("Ann", ["x"], size=4), cup("Ann", key="secret")
        one.marks.append("y")
        return (
            (repr(one), repr(nothing()), str(two), one.label, cup.__doc__, cup.__name__),
            (one == cup("Ann", ["x", "y"], 4, "elsewhere"), one == two, one == "Ann"),
            (nothing() == nothing(), one != two, cup("Ann", [], 4) == nothing()),
            (asdict(one), [each.name for each in fields(cup)], replace(two, size=9) == two),
            (repr(replace(two, size=9)), cup("Bo").marks is cup("Bo").marks),
            (cup.__hash__ is None, hasattr(one, "__dict__"), cup.__match_args__),
        )

    assert told(dataclass) == told(dataclasses.dataclass)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("wrong", [((), {}), (("a", [], 1, "", "", 7), {}), (("a",), {"no": 1})])
def test_what_does_not_fit_is_told_as_by_the_standard_one(shape, wrong):
    """A value that is missing, one too many and one of another name are refused in its words."""
    values, named = wrong
    told = []
    for decorator in (dataclass, dataclasses.dataclass):
        cup, _ = pair(decorator, **shape)
        with pytest.raises(TypeError) as refused:
            cup(*values, **named)
        told.append(str(refused.value))
    assert told[0] == told[1]


@pytest.mark.parametrize("slots", [True, False])
def test_a_frozen_value_is_set_once(slots):
    """Nothing of it is set or removed, whether it is a field or not; equal ones are one key."""
    cup, nothing = pair(dataclass, frozen=True, slots=slots)
    one = cup("Ann", (), 4)
    for name in ("owner", "other"):
        with pytest.raises(FrozenInstanceError):
            setattr(one, name, "Bo")
        with pytest.raises(FrozenInstanceError):
            delattr(one, name)
    assert {one: 1}[cup("Ann", (), 4, root="elsewhere")] == 1
    assert len({nothing(), nothing(), cup("Ann", ()), cup("Bo", ())}) == 3


def test_what_a_class_defines_itself_stays():
    """Its own methods, what it does after a value is made, and what it reckons once."""

    @dataclass(frozen=True)
    class Cup:
        size: int

        def __repr__(self):
            return "a cup"

        def __post_init__(self):
            if self.size < 0:
                raise ValueError("no such cup")

        @cached_property
        def double(self):
            return 2 * self.size

    assert repr(Cup(3)) == "a cup"
    assert Cup(3).double == 6
    with pytest.raises(ValueError, match="no such cup"):
        Cup(-1)


def test_a_class_may_add_fields_to_another():
    """Those of the first come first; each makes values of its own, in either order."""

    @dataclass(frozen=True, slots=True)
    class Cup:
        size: int = 1

    @dataclass(frozen=True, slots=True)
    class Mug(Cup):
        handle: str = "left"

    assert repr(Mug(2)) == f"{Mug.__qualname__}(size=2, handle='left')"
    assert repr(Cup(2)) == f"{Cup.__qualname__}(size=2)"
    assert Mug(2) != Cup(2)
    assert isinstance(Mug(), Cup)
