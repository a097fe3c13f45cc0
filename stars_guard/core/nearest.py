"""The known name that is nearest to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean", "nearest"]


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The name that was probably meant; None where none is near."""
    return next(iter(get_close_matches(given, list(known), 1)), None)


def did_you_mean(given: str, known: Iterable[str], otherwise: str = "", *, form: str = "`{}`") -> str:
    """A question that names the nearest, such as ``did you mean `every`?``

    Args:
        otherwise: what is said where none is near.
        form: how the name is written.
    """
    near = nearest(given, known)
    return otherwise if near is None else f"did you mean {form.format(near)}?"
