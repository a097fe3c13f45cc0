"""Lists of words that readers of languages go by. The data is in ``word_lists.yaml``."""

from __future__ import annotations

from functools import lru_cache

from stars_guard.parsing._tables import read_table

__all__ = ["word_list"]


@lru_cache(1)
def _lists() -> dict[str, list[str]]:
    loaded: dict[str, list[str]] = read_table("word_lists.yaml")
    return loaded


def word_list(name: str) -> tuple[str, ...]:
    """The words of one list, in the order of the file.

    Raises:
        KeyError: there is no such list.
    """
    return tuple(_lists()[name])
