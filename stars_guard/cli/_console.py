"""The terminal that all commands write to."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from stars_guard.concealing import concealed

__all__ = ["Terminal", "visible"]

# The pictures of control characters. What changes the direction of writing has no picture.
_CONTROLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
_CONTROLS |= dict.fromkeys((*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD)


def visible(text: str) -> str:
    """Text without control characters: pictures take their place, so that none reaches the terminal."""
    return text.translate(_CONTROLS)


class Terminal(Console):
    """Prints every text as it is: brackets are not markup, ``:smile:`` is no emoji, and control characters are shown.

    Most of what the commands print is not ours: paths, names, errors, what users and models wrote. Give a style with
    ``style=`` or a `rich.text.Text`. What a policy took from the environment is not shown.
    """

    def __init__(self, *, stderr: bool = False, record: bool = False) -> None:
        super().__init__(stderr=stderr, record=record, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(concealed(text)), **options)
