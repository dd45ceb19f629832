"""What a database server holds besides its rows: the names of its databases and its users. Pure.

A restore keeps what a target holds and a backup lacks, unless it restores the backup alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..core.dataclass import dataclass

STAYS = "Kept beside the data of the backup: "
"""The first words of the message that kept data were verified."""
EXACT_HINT = "With --exact it is moved aside."
"""The last words of a message that data cannot be kept."""


@dataclass(frozen=True, slots=True)
class Held:
    """Databases and users by name, without those that every server has."""

    databases: tuple[str, ...] = ()
    users: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.databases or self.users)

    def without(self, other: Held) -> Held:
        """Return what another one lacks."""
        return Held(
            tuple(each for each in self.databases if each not in other.databases),
            tuple(each for each in self.users if each not in other.users),
        )

    def named(self, server: str) -> Iterator[str]:
        """Yield each name as in messages, after the name of its container."""
        yield from (f"{server}: database {each}" for each in self.databases)
        yield from (f"{server}: user {each}" for each in self.users)


def came_meanwhile(title: str, more: Held) -> str:
    """Return why a restore fails if something was created after its first check."""
    names = ", ".join(each for each in more.named(title))
    return (
        f"Data that is not in the backup was added meanwhile: {names}. It would not "
        "have been kept. Run this again."
    )
