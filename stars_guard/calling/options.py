"""What one call may set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stars_guard.core.grammar import Grammar
from stars_guard.core.tools import Toolset
from stars_guard.errors import InputError

__all__ = ["CallOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What one call may set. None leaves the policy's value.

    Attributes:
        max_tokens: the longest answer.
        stop: stop strings, none of them empty. They are not part of the answer.
        seed: draws the same answer again on a reproducible backend, and is not drawn ahead; None takes a fresh one.
        sampling: replaces single sampling options.
        run_id: the caller's id, kept in the record.
        tools: what the model may call. A call is drawn and judged whole.
        grammar: what the answer must look like; it is then drawn and judged as one segment.
        attempts: fewer than the policy's, for texts that are handed in.

    Raises:
        InputError: ``stop`` is not a sequence of strings, or one of them is empty.
    """

    max_tokens: int | None = None
    stop: tuple[str, ...] = field(default=(), repr=False)
    seed: int | None = None
    sampling: Mapping[str, float] | None = None
    run_id: str | None = None
    tools: Toolset | None = None
    grammar: Grammar | None = None
    attempts: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            raise InputError("stop is one string", hint="pass a sequence of strings")
        for number, text in enumerate(self.stop, 1):
            if not isinstance(text, str) or not text:
                what = "empty" if text == "" else f"not a string but {type(text).__name__}"
                raise InputError(f"stop string {number} of {len(self.stop)} is {what}", hint="leave it out")
