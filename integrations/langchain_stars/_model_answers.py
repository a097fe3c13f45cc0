"""What one call of another's model puts into an agent's conversation, as judges read it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from langchain.agents.middleware.types import ModelResponse
from langchain.agents.structured_output import StructuredOutputError
from langchain_core.messages import AIMessage, BaseMessage

from langchain_stars._block_keys import is_usual
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
    calls = {call["id"]: call for call in message.tool_calls}
    content: Any = message.content
    if isinstance(content, list):
        content = [block for block in content if not _repeats(block, calls)]
    kwargs = dict(message.additional_kwargs)
    if isinstance(raw := kwargs.get("tool_calls"), list):
        kwargs["tool_calls"] = [call for call in raw if not _wraps(call, calls)]
    return message.model_copy(update={"tool_calls": [], "content": content, "additional_kwargs": kwargs})


def _wraps(raw: Any, calls: Mapping[Any, Any]) -> bool:
    """Whether a call as a provider writes it is one of the calls once more, and nothing else."""
    if not isinstance(raw, Mapping) or not _says_nothing(raw, besides={"id", "function"}):
        return False
    return _repeats(raw.get("function"), calls, raw.get("id"))


def _repeats(block: Any, calls: Mapping[Any, Any], id: Any = None) -> bool:  # noqa: A002
    """Whether a block is one of the calls once more, and nothing else."""
    if not isinstance(block, Mapping) or not _says_nothing(block, besides=_OF_A_CALL):
        return False
    ids = {one for one in (id, block.get("id"), block.get("call_id")) if one is not None}
    found = [calls[one] for one in ids if isinstance(one, str) and one in calls]
    said = [_parsed(block[key]) for key in ("input", "args", "arguments") if key in block]
    if len(ids) != 1 or not found or block.get("name", found[0]["name"]) != found[0]["name"]:
        return False
    return bool(said) and all(one == found[0]["args"] for one in said)


def _parsed(said: Any) -> Any:
    try:
        return read_json(said) if isinstance(said, str) else said
    except ValueError:
        return None


def _says_nothing(block: Mapping[Any, Any], *, besides: Collection[str]) -> bool:
    """Whether all that a block holds besides some keys is its type and its number."""
    rest = {key: value for key, value in block.items() if key not in besides}
    return rest.keys() <= {"type", "index"} and all(is_usual(str(value)) for value in rest.values())


_OF_A_CALL = {"id", "call_id", "name", "input", "args", "arguments"}
