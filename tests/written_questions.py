"""What a guard model would be asked, as text."""

from __future__ import annotations

from typing import Any

from stars_guard.prompting.guard_questions import Encoder

__all__ = ["Written"]


class Written(Encoder):
    """Keeps the text that would be encoded."""

    def __init__(self) -> None:
        self.text = ""

    def encode(self, rendered: str, texts: Any) -> list[int]:
        parts = rendered.split("\x02")
        self.text = "".join(texts[int(part)] if i % 2 else part for i, part in enumerate(parts))
        return []
