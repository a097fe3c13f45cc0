"""What one call of another's model puts into an agent's conversation, as judges read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langchain.agents.middleware.types import ModelResponse
from langchain.agents.structured_output import StructuredOutputError
from langchain_core.messages import AIMessage, BaseMessage

from langchain_stars._reading import Reading, read
from langchain_stars._waiting import Waiting
from stars_guard.core.nesting import read_json

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


def reading_of_answer(answer: Answer, *, calls: bool = True) -> Reading:
    """All texts of an answer: its messages, their calls of tools, and the structured response.

    Args:
        calls: whether the calls of tools are read. They are left out where a rail of their own has judged them.
    """
    if isinstance(answer, StructuredOutputError):
        return read(getattr(answer, "ai_message", None), str(answer))
    if answer.structured_response is not None:
        return read(*answer.result, answer.structured_response)
    return read(*(answer.result if calls else map(_without_calls, answer.result)))


def _without_calls(message: BaseMessage) -> BaseMessage:
    """The message without its calls, and without what a provider writes beside them if it says the same."""
    if not isinstance(message, AIMessage) or not message.tool_calls:
        return message
    args = {call["id"]: call["args"] for call in message.tool_calls}
    content: Any = message.content
    if isinstance(content, list):
        content = [block for block in content if not (isinstance(block, Mapping) and _repeats(block, args))]
    kwargs = dict(message.additional_kwargs)
    raw = kwargs.get("tool_calls")
    if isinstance(raw, list):
        kwargs["tool_calls"] = [
            call
            for call in raw
            if not (isinstance(call, Mapping) and _repeats(call.get("function"), args, call.get("id")))
        ]
    return message.model_copy(update={"tool_calls": [], "content": content, "additional_kwargs": kwargs})


def _repeats(block: Any, args: Mapping[Any, Any], id: Any = None) -> bool:  # noqa: A002
    """Whether a block is one of the calls once more, and nothing else."""
    if not isinstance(block, Mapping) or (call_id := id or block.get("id") or block.get("call_id")) not in args:
        return False
    said = next((block[key] for key in ("input", "args", "arguments") if key in block), None)
    if isinstance(said, str):
        try:
            said = read_json(said)
        except ValueError:
            return False
    return bool(said == args[call_id] and block.keys() <= _OF_A_CALL)


_OF_A_CALL = {"type", "id", "call_id", "name", "input", "args", "arguments", "index"}
