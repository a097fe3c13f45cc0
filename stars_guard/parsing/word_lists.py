"""Lists of words that readers of languages go by. The data is in ``word_lists.yaml``."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from ruamel.yaml import YAML

__all__ = ["word_list"]


@lru_cache(1)
def _lists() -> dict[str, list[str]]:
    text = files(__package__).joinpath("word_lists.yaml").read_text(encoding="utf-8")
    loaded: dict[str, list[str]] = YAML(typ="safe", pure=True).load(text)
    return loaded


def word_list(name: str) -> tuple[str, ...]:
    """The words of one list, in the order of the file.

    Raises:
        KeyError: there is no such list.
    """
    return tuple(_lists()[name])
