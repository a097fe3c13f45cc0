"""What the write queue and the spool need of a store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from stars_guard.audit.entries import Item

__all__ = ["Sink"]


class Sink(Protocol):
    """Where records end up. All methods block.

    Attributes:
        name: the store's URL, without a password.
    """

    name: str

    def write(self, items: Sequence[Item]) -> None:
        """Add records, all or none, durably.

        Raises:
            AuditError: they could not be written.
        """

    def has(self, calls: Collection[str]) -> set[str]:
        """Which of these calls have a record."""

    def rest(self) -> None:
        """Let go of files and connections: nothing is written for a while."""
