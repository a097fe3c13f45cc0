"""Whole answers of a model that is not ours: judged under the policy, and asked for again when rejected."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, closing
from typing import Any, Generic, TypeVar, cast

from langchain_stars._current_guard import current_run_id
from langchain_stars._hidden_runs import unseen
from stars_guard.backends.supplied import SuppliedBackend
from stars_guard.core.events import Drawing, Event, Finished, Kept
from stars_guard.core.messages import Message
from stars_guard.guard import CallOptions, Guard

__all__ = ["Redraw"]

T = TypeVar("T")


class Redraw(Generic[T]):
    """One call. The answers stay what they were: the policy's record and decisions see their text alone.

    Args:
        model: the name of what writes, for the record.
        text: of an answer.
        attempts: fewer than the policy's.

    Attributes:
        kept: the answer that may go out, or None.
        done: how the call ended; None where there was no text to judge.
        last: the answer that was drawn last.
    """

    def __init__(
        self,
        guard: Guard,
        messages: Sequence[Message],
        model: str,
        text: Callable[[T], str],
        attempts: int | None = None,
        run_id: str | None = None,
    ) -> None:
        self.kept: T | None = None
        self.last: T | None = None
        self.done: Finished | None = None
        self._guard = guard
        self._messages = messages
        self._engine = SuppliedBackend(model)
        self._text = text
        self._options = CallOptions(run_id=run_id or current_run_id(), attempts=attempts)
        self._answers: list[T] = []

    def run(self, draw: Callable[[], T]) -> T | None:
        """Draw until the policy is content or says that it is enough; the kept answer.

        Raises:
            BudgetExhausted: attempts ran out and the policy says ``raise``.
            ScorerError: a judge failed and the policy says ``raise``.
        """
        with unseen():
            first = draw()
        if not self._begin(first):
            return self.kept
        events = self._guard.blocking.stream(self._messages, self._options, engine=self._engine)
        with closing(cast("Any", events)):
            for event in events:
                for _ in range(self._wanted(event)):
                    with unseen():
                        self._supply(draw())
        return self.kept

    async def arun(self, draw: Callable[[], Awaitable[T]]) -> T | None:
        """As `run`."""
        with unseen():
            first = await draw()
        if not self._begin(first):
            return self.kept
        async with aclosing(self._guard.stream(self._messages, self._options, engine=self._engine)) as events:
            async for event in events:
                for _ in range(self._wanted(event)):
                    with unseen():
                        self._supply(await draw())
        return self.kept

    def _begin(self, first: T) -> bool:
        """Whether there is a text to judge: an answer of nothing but tool calls goes on to the rail of those."""
        if not self._text(first):
            self.kept = self.last = first
            return False
        self._supply(first)
        return True

    def _wanted(self, event: Event) -> int:
        """Take the next event; how many answers to draw."""
        match event:
            case Drawing():
                return event.attempt + event.count - len(self._answers)
            case Kept():
                self.kept = self._answers[event.attempt]
            case Finished():
                self.done = event
            case _:
                pass
        return 0

    def _supply(self, answer: T) -> None:
        self._answers.append(answer)
        self.last = answer
        usage = getattr(answer, "usage_metadata", None) or {}
        self._engine.supply(self._text(answer), tokens=max(1, usage.get("output_tokens", 1)))
