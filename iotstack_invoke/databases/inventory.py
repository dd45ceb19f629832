"""What a database server holds besides its rows: the names of its databases and its users. Pure.

What a target holds and a backup does not stays in a restore, unless the backup alone is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..core.dataclass import dataclass

STAYS = "Kept beside the data of the backup: "
"""With this begins what is said when it is proven to be there."""
EXACT_HINT = "With --exact it is moved aside."
"""The last of a message that it cannot stay."""


@dataclass(frozen=True, slots=True)
class Held:
    """Databases and users by name, without those that every server has."""

    databases: tuple[str, ...] = ()
    users: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.databases or self.users)

    def without(self, other: Held) -> Held:
        """Return what another one does not hold."""
        return Held(
            tuple(each for each in self.databases if each not in other.databases),
            tuple(each for each in self.users if each not in other.users),
        )

    def named(self, server: str) -> Iterator[str]:
        """Yield each as messages call it, behind the name of its container."""
        yield from (f"{server}: database {each}" for each in self.databases)
        yield from (f"{server}: user {each}" for each in self.users)


def came_meanwhile(title: str, more: Held) -> str:
    """Return why a restore ends where something was made after it had looked."""
    names = ", ".join(each for each in more.named(title))
    return (
        f"Data that is not in the backup was added meanwhile: {names}. It would not "
        "have been kept. Run this again."
    )
