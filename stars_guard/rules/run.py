"""What has happened in an agent's run before the call that is judged. The caller builds it; it is plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stars_guard.core.vocabulary import OriginName

__all__ = ["OriginName", "OriginOf", "PastCall", "RunState"]

OriginOf = Callable[[Any], str]
"""Gives the `OriginName` of a JSON value. Where it raises or gives another word, the condition that asked can't be
evaluated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastCall:
    """A tool call of the run so far.

    Attributes:
        tool: the tool's name.
        args: its arguments as JSON values.
        result: the text that the model read as the tool's result; None while there is none. A call of the same message
            that was let through is a past call without a result, so that several calls at once can't pass a budget.
        rejected: whether the tool did not run because the guard or a person rejected the call. Such a call counts
            towards no budget and isn't seen by ``run.read`` and ``run.count``.
        id: of the call, as the model wrote it.
    """

    tool: str
    args: Mapping[str, Any] = field(repr=False)
    result: str | None = field(default=None, repr=False)
    rejected: bool = False
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """A run up to the call that is judged.

    Attributes:
        calls: the calls before it, in their order, those of the same message included.
        tokens: how many the run has used so far, as the caller counts them.
        seconds: how long the run has taken so far.
        user: what the user wrote, message by message.
        system: the system prompts.
    """

    calls: tuple[PastCall, ...] = ()
    tokens: int = 0
    seconds: float = 0.0
    user: tuple[str, ...] = field(default=(), repr=False)
    system: tuple[str, ...] = field(default=(), repr=False)

    @property
    def ran(self) -> tuple[PastCall, ...]:
        """The calls that were not rejected."""
        return tuple(call for call in self.calls if not call.rejected)
