"""What compose files need of a machine and no backup holds: images, builds, variables.

Pure: texts in, names out; never a value, since it may be a password.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..core.dataclass import dataclass
from .compose_text import Budget, Node, NotRead, documents, entries, filled, items, scalar


@dataclass(frozen=True, slots=True)
class ComposeNeeds:
    """What the services of compose files are made from."""

    images: tuple[str, ...] = ()
    """Images that are not built here."""
    builds: tuple[tuple[str, str, str], ...] = ()
    """Services that are built: the name, the folder of the build, the image's name or ''."""
    unset: tuple[str, ...] = ()
    """Variables without a value, and without a default."""
    containers: tuple[tuple[str, str], ...] = ()
    """The containers that compose creates of them, each with its service."""
    are_all: bool = True
    """The list is complete: the files include no others, and can be parsed."""


def compose_needs(texts: Iterable[str], values: Mapping[str, str]) -> ComposeNeeds:
    """Return what compose files need, without services that have a profile.

    A file that cannot be parsed contributes nothing: compose reports why.
    """
    budget = Budget()
    images: dict[str, None] = {}
    builds: dict[str, tuple[str, str, str]] = {}
    unset: set[str] = set()
    containers: dict[str, str] = {}
    are_all = True
    try:
        for document in (each for text in texts for each in documents(text)):
            top = entries(document, budget)
            are_all = are_all and "include" not in top
            for name, node in entries(top.get("services"), budget).items():
                told = entries(node, budget)
                if items(told.get("profiles"), budget):
                    continue
                called = filled(scalar(told.get("container_name")), values)
                containers[name] = called or containers.get(name, name)
                image = filled(scalar(told.get("image")), values)
                build = told.get("build")
                context = scalar(build) or scalar(entries(build, budget).get("context"))
                if build is not None:
                    builds[name] = (name, filled(context, values) or ".", image)
                elif image:
                    images[image] = None
                for text in _scalars(node, budget):
                    filled(text, values, unset)
    except NotRead:
        return ComposeNeeds(are_all=False)
    return ComposeNeeds(
        *(tuple(sorted(images)), tuple(builds.values()), tuple(sorted(unset))),
        tuple(sorted((called, name) for name, called in containers.items())),
        are_all,
    )


def _scalars(top: Node, budget: Budget) -> Iterable[str]:
    """Yield each text below a node once, values and items of lists, but no keys."""
    waiting, seen = [top], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.id == "scalar":
            yield node.value
            continue
        budget.spend(len(node.value) + 1)
        waiting += [each[1] for each in node.value] if node.id == "mapping" else node.value
