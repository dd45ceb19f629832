"""Data classes like the standard `dataclasses`, defined in a tenth of the time.

The standard module writes and compiles six methods when a class is defined: 0.7 ms per class on
a PC, and a start defines a hundred. Here only `__init__` is compiled, when the first value of a
class is made. Fields, `replace` and `asdict` are the standard ones. What this package never uses
is missing: `order`, `kw_only`, fields outside `__init__`, copies of frozen values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

Init = Callable[..., None]


def _light(
    kind: type[Any] | None = None, *, frozen: bool = False, slots: bool = False
) -> type[Any] | Callable[[type[Any]], type[Any]]:
    """Return a decorator that makes a class with annotations a data class."""

    def make(kind: type[Any]) -> type[Any]:
        made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(kind)
        for name, method in _methods(made, frozen=frozen).items():
            if name not in vars(kind):
                setattr(made, name, method)
        return made

    return make if kind is None else make(kind)


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - which is how it is exported
else:
    dataclass = _light


def _methods(kind: type[Any], *, frozen: bool) -> dict[str, Callable[..., Any] | None]:
    """Return the methods of a data class by name; None for a method that the class lacks."""
    compared = [each.name for each in dataclasses.fields(kind) if each.compare]
    key: Callable[[Any], Any] = attrgetter(*compared) if compared else lambda _value: ()

    def first_init(self: Any, *values: Any, **named: Any) -> None:
        init = _compiled_init(kind, frozen=frozen)
        kind.__init__ = init  # replaces itself for all later values
        init(self, *values, **named)

    def equal(self: Any, other: Any) -> bool:
        same: bool = key(self) == key(other) if type(other) is type(self) else NotImplemented
        return same

    def hashed(self: Any) -> int:
        return hash(key(self))

    methods: dict[str, Callable[..., Any] | None]
    methods = {"__init__": first_init, "__repr__": _shown, "__eq__": equal, "__hash__": None}
    if frozen:
        methods |= {"__hash__": hashed, "__setattr__": _refuse, "__delattr__": _refuse}
    return methods


def _compiled_init(kind: type[Any], *, frozen: bool) -> Init:
    known: dict[str, Any] = {"_put": object.__setattr__, "_missing": dataclasses.MISSING}
    parameters, lines = ["self"], []
    for each in dataclasses.fields(kind):
        name = value = each.name
        if each.default is not dataclasses.MISSING:
            known[f"_default_{name}"] = each.default
            parameters.append(f"{name}=_default_{name}")
        elif each.default_factory is not dataclasses.MISSING:
            known[f"_new_{name}"] = each.default_factory
            parameters.append(f"{name}=_missing")
            value = f"_new_{name}() if {name} is _missing else {name}"
        else:
            parameters.append(name)
        lines.append(f"_put(self, '{name}', {value})" if frozen else f"self.{name} = {value}")
    if hasattr(kind, "__post_init__"):
        lines.append("self.__post_init__()")
    text = "\n    ".join([f"def __init__({', '.join(parameters)}):", *(lines or ["pass"])])
    exec(text, known)  # noqa: S102 - names of our own fields, as the standard one does it
    init: Init = known["__init__"]
    init.__qualname__ = f"{kind.__qualname__}.__init__"
    return init


def _shown(self: Any) -> str:
    shown = (
        f"{each.name}={getattr(self, each.name)!r}"
        for each in dataclasses.fields(self)
        if each.repr
    )
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _refuse(self: Any, name: str, _value: Any = None) -> None:
    raise dataclasses.FrozenInstanceError(f"{type(self).__qualname__}.{name} is set once")
