"""Whole answers of a model that is not ours: judged under the policy, and regenerated when they are rejected."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

from langchain_stars._hidden_runs import current_run_id, hidden_runs
from langchain_stars._reading import Reading
from langchain_stars._waiting import Waiting
from stars_guard.backends.supplied import SuppliedBackend
from stars_guard.core.events import Drawing, Finished, Kept
from stars_guard.core.messages import Message
from stars_guard.guard import CallOptions, Guard

__all__ = ["JudgedAnswer", "regenerate_until_kept"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class JudgedAnswer(Generic[T]):
    """What became of the answers that a model generated for one call.

    Attributes:
        answer: the answer that may be released or, where all were rejected, the last one.
        rejected: how the call ended where no answer may be released; None where ``answer`` may be.
    """

    answer: T
    rejected: Finished | None = None


async def regenerate_until_kept(
    waiting: Waiting,
    guard: Guard,
    generate: Callable[[], Awaitable[T]],
    *,
    messages: Sequence[Message],
    model: str,
    reading_of: Callable[[T], Reading],
    is_judged: Callable[[T], bool] = lambda answer: False,
    attempts: int | None = None,
    run_id: str | None = None,
) -> JudgedAnswer[T]:
    """Generate answers until the guard keeps one or the policy's attempts are used up.

    The answers stay what they are. The policy's decisions and the record see their texts alone.

    Args:
        generate: gives the next answer. Streams and traces do not see its runs.
        messages: the conversation before the answer.
        model: the name of the model that generates, for the record.
        reading_of: an answer's texts. An answer that holds none is kept without judging.
        is_judged: whether an answer was judged under this policy while it was generated, and may be kept.
        attempts: the most answers, where that is fewer than the policy's attempts.
        run_id: the caller's run, for the record; the default is the LangChain run that the code is in.

    Raises:
        BudgetExhausted: the attempts are used up and the policy says ``raise``.
        ScorerError: a judge failed and the policy says ``raise``.
    """
    engine = SuppliedBackend(model)
    options = CallOptions(run_id=run_id or current_run_id(), attempts=attempts)
    answers: list[T] = []

    async def add_answer() -> None:
        with hidden_runs():
            answer = await generate()
        answers.append(answer)
        usage = getattr(answer, "usage_metadata", None) or {}
        reading = reading_of(answer)
        engine.supply(reading.text, tokens=max(1, usage.get("output_tokens", 1)), forms=reading.forms)

    kept: JudgedAnswer[T] | None = None
    await add_answer()
    if is_judged(answers[0]) or not reading_of(answers[0]):
        return JudgedAnswer(answer=answers[0])
    async with aclosing(waiting.events(guard, messages, options, engine)) as events:
        async for event in events:
            match event:
                case Drawing():
                    while len(answers) < event.attempt + event.count:
                        await add_answer()
                case Kept():
                    kept = JudgedAnswer(answer=answers[event.attempt])
                case Finished():
                    rejected = JudgedAnswer(answer=answers[-1], rejected=event)
                case _:
                    pass
    return kept or rejected
