"""Lines of JSON that outlive a kill: each result is written once, and a run that starts again goes on behind it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["Book"]

Key = tuple[Any, ...]


class Book:
    """Rows under a key. The last row of a key counts.

    Args:
        path: of the file; made when the first row comes.
        key: names of the fields that make the key.
    """

    def __init__(self, path: Path, key: tuple[str, ...]) -> None:
        self._path = path
        self._key = key
        self._rows: dict[Key, dict[str, Any]] = {}
        if path.exists():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                path.write_bytes(whole)
            for line in whole.decode().split("\n")[:-1]:
                self._keep(json.loads(line))

    def _keep(self, row: dict[str, Any]) -> None:
        self._rows[tuple(row[name] for name in self._key)] = row

    def add(self, row: dict[str, Any]) -> None:
        """Write a row."""
        self._keep(row)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def get(self, *key: Any) -> dict[str, Any] | None:
        """The row of a key."""
        return self._rows.get(key)

    def rows(self) -> Iterable[dict[str, Any]]:
        """All rows."""
        return self._rows.values()
