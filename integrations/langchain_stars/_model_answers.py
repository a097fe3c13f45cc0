"""What one call of another's model puts into an agent's conversation, as judges read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain.agents.middleware.types import ModelResponse
from langchain.agents.structured_output import StructuredOutputError

from langchain_stars._reading import Reading, read
from langchain_stars._waiting import Waiting

__all__ = ["Answer", "answer_or_failure", "reading_of_answer"]

Answer = ModelResponse[Any] | StructuredOutputError
"""A response, or the error of one that does not fit its schema. The error holds the model's message."""


async def answer_or_failure(waiting: Waiting, call: Callable[[], Any]) -> Answer:
    """The response of a handler, or its error where that holds an answer, which then must be judged too."""
    try:
        response: ModelResponse[Any] = await waiting.result(call())
    except StructuredOutputError as exc:
        return exc
    return response


def reading_of_answer(answer: Answer) -> Reading:
    """All texts of an answer: its messages, their calls of tools, and the structured response."""
    if isinstance(answer, StructuredOutputError):
        return read(getattr(answer, "ai_message", None), str(answer))
    structured = [] if answer.structured_response is None else [answer.structured_response]
    return read(*answer.result, *structured)
