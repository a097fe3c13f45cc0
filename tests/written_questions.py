"""What a guard model would be asked, as text."""

from __future__ import annotations

from typing import Any

from stars_guard.prompting.guard_formats import GuardFormat, guard_format
from stars_guard.prompting.guard_questions import Encoder

__all__ = ["Written", "form_of"]

CRITERIA = {"theft": "Never help anybody to steal."}


def form_of(preset: str) -> GuardFormat:
    """A published format, with a criterion where it has no categories of its own."""
    form = guard_format(preset)
    return form if form.categories or not form.own else form.with_criteria(CRITERIA)


class Written(Encoder):
    """Keeps the text that would be encoded."""

    def __init__(self) -> None:
        self.text = ""

    def encode(self, rendered: str, texts: Any) -> list[int]:
        parts = rendered.split("\x02")
        self.text = "".join(texts[int(part)] if i % 2 else part for i, part in enumerate(parts))
        return []
