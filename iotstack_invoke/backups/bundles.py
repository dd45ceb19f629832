"""The services that are saved with their database as separate parts. Pure."""

from __future__ import annotations

from ..services.known import Recipe, packaged_recipes
from .names import PARTS

DUMP_FOLDER = "db_backup"

RECIPES = {name: each for name, each in packaged_recipes().items() if name in PARTS}
"""The recipes by the name of their service, which is also that of their part."""


def tops_of(recipe: Recipe) -> frozenset[str]:
    """Return the folders allowed at the top level of the part."""
    return frozenset({DUMP_FOLDER, *(each.partition("/")[0] for each in recipe.paths)})
