"""LangChain's messages to ours, and events to message chunks."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langchain_stars._history import to_messages
from langchain_stars._tool_binding import call_chunks, calls_of, invalid_calls_of
from langchain_stars._trust import remember
from stars_guard.core.events import Called, Event, Finished, Reasoned, Released
from stars_guard.guard import Guard

__all__ = ["AnswerChunks", "refusal_content", "result_of", "to_messages"]


def result_of(guard: Guard, done: Finished) -> ChatResult:
    """The answer of a call."""
    message = AIMessage(
        content=_content(done),
        tool_calls=calls_of(done),
        invalid_tool_calls=invalid_calls_of(done),
        usage_metadata=_usage(done),
        response_metadata=_metadata(guard, done),
    )
    remember(message, guard.policy)
    return ChatResult(generations=[ChatGeneration(message=message)])


class AnswerChunks:
    """What a stream gives for the events of one answer. They add up to `result_of`, but for the numbers of blocks.

    Args:
        beside_blocks: the text comes in content blocks; see `call_chunks`.
    """

    def __init__(self, guard: Guard, *, beside_blocks: bool) -> None:
        self._guard = guard
        self._beside_blocks = beside_blocks
        self._has_reasoned = False

    def of(self, event: Event) -> ChatGenerationChunk | None:
        """What is given at an event, or None where nothing is."""
        match event:
            case Reasoned(text=text):
                self._has_reasoned = True
                return _chunk([{"type": "reasoning", "reasoning": text, "index": 0}])
            case Released(text=text):
                return _chunk([{"type": "text", "text": text, "index": 1}] if self._has_reasoned else text)
            case Called():
                return _chunk("", tool_call_chunks=call_chunks(event, beside_blocks=self._beside_blocks))
            case Finished():
                result_of(self._guard, event)  # takes note of the answer that the chunks add up to
                return _chunk(
                    _refusal(event),
                    usage_metadata=_usage(event),
                    response_metadata=_metadata(self._guard, event),
                    chunk_position="last",
                )
            case _:
                return None


def _chunk(content: Any, **fields: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=content, **fields))


def _content(done: Finished) -> Any:
    """The text; with reasoning or a refusal, blocks: the reasoning, what was released, and the refusal."""
    blocks: list[Any] = [{"type": "reasoning", "reasoning": done.reasoning}] if done.reasoning else []
    refusal = _refusal(done)
    if not blocks and not refusal:
        return done.text
    return [*blocks, *([{"type": "text", "text": done.text}] if done.text else []), *refusal]


def _refusal(done: Finished) -> Any:
    return refusal_content(done.refusal, done.reason, after=done.text) if done.finish == "refused" else ""


def refusal_content(message: str, reason: str, *, after: str = "") -> list[Any]:
    """A refusal as content: a block that says what it is, and one of the text that a reader gets.

    Args:
        message: the policy's, in the reader's language.
        after: the text that it follows.
    """
    block = {"type": "refusal", "refusal": message, "reason": reason}
    return [block, {"type": "text", "text": f"\n\n{message}" if after else message}] if message else [block]


def _usage(done: Finished) -> UsageMetadata:
    """Tokens of the prompt and tokens kept."""
    totals = done.totals
    return UsageMetadata(
        input_tokens=totals.prompt, output_tokens=totals.kept, total_tokens=totals.prompt + totals.kept
    )


def _metadata(guard: Guard, done: Finished) -> dict[str, Any]:
    """``response_metadata``: why the answer ended, what it cost, where its record is."""
    return {
        "model_name": guard.model_name,
        "model_provider": "stars-guard",
        "finish_reason": "tool_calls" if done.tool_calls and done.finish in ("eos", "stop") else done.finish,
        "stars_guard": {
            "audit_id": done.call_id,
            "policy": done.policy,
            "policy_sha256": done.policy_sha256,
            "drawn": done.totals.drawn,
            "kept": done.totals.kept,
            "rejected": done.totals.rejected,
            "rejections": done.totals.rejections,
            "proposals": done.totals.proposals,
            "seed": str(done.seed),
            "reason": done.reason,
        },
    }
