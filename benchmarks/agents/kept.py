"""Rows of the scorecard that were measured, kept in a file for each suite, so that a run that was stopped goes on."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["KeptRows", "peers_in", "read_all"]

Row = dict[str, Any]


class KeptRows:
    """The rows of one suite. One process at a time may add to them.

    Args:
        path: a JSON Lines file, which is made where there is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def mine(self) -> Iterator[None]:
        """While this process adds rows.

        Raises:
            BlockingIOError: another process does.
        """
        with self._path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    def row(self, key: Row, measure: Callable[[], Row]) -> Row:
        """The row with a key: as it was measured before, or measured now."""
        for row in reversed(_read(self._path)):
            if key.items() <= row.items():
                return row
        row = {**key, **measure()}
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return row


def read_all(folder: Path) -> list[Row]:
    """The newest row of each place in the tables, of all suites."""
    newest: dict[tuple[Any, ...], Row] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for row in _read(path):
            newest[tuple(row[name] for name in ("suite", "policy", "attack", "behaviour", "approve"))] = row
    return list(newest.values())


def peers_in(folder: Path) -> dict[str, Row]:
    """What `benchmarks.agents.peers` has kept, by suite."""
    path = folder / "peers.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
