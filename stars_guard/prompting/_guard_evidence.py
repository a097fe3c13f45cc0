"""What a guard model judges a text by, besides the conversation: documents from tools, and definitions of tools."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

from stars_guard.core.segments import Passage
from stars_guard.core.tools import Tool
from stars_guard.errors import ScorerInputError

__all__ = ["Evidence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A passage as one question shows it, and what the question shows beside it.

    Attributes:
        passage: without the messages that are documents; a tool call is JSON.
        documents: as the inner text of JSON strings.
        tools: definitions as JSON.
    """

    passage: Passage
    documents: list[str] = field(default_factory=list, repr=False)
    tools: list[str] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, passage: Passage, need: str | None) -> Evidence:
        """What a question needs, which is ``documents``, ``tools`` or nothing.

        Raises:
            ScorerInputError: the passage has none of it, so the question can't be asked.
        """
        if need == "documents":
            found = [message.content for message in passage.messages if message.role == "tool"]
            if not found:
                raise ScorerInputError(
                    "the judge needs documents, and no tool has returned any",
                    hint="ask it where a tool has looked something up, or set on_error: ignore",
                )
            rest = tuple(message for message in passage.messages if message.role != "tool")
            return cls(passage=replace(passage, messages=rest), documents=[_json(text)[1:-1] for text in found])
        if need == "tools":
            if not passage.tools:
                raise ScorerInputError(
                    "the judge needs the definitions of the tools, and none are known",
                    hint="put it under rails.tool_call, and pass tool to check_call",
                )
            return cls(passage=_with_json_calls(passage), tools=[_json(_definition(tool)) for tool in passage.tools])
        return cls(passage=passage)


def _with_json_calls(passage: Passage) -> Passage:
    if not (passage.is_call and passage.tool_calls):
        return passage
    calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in passage.tool_calls]
    return replace(passage, accepted="", segment=_json(calls))


def _definition(tool: Tool) -> dict[str, object]:
    return {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}


def _json(value: object) -> str:
    # as the chat templates of transformers write it
    return json.dumps(value, ensure_ascii=False)
