"""Scripts that play an agent's model. None of them asks a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import yaml
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field, PrivateAttr

__all__ = ["Behaviour", "ScriptedAgent"]

Behaviour = Literal["follows", "obeys", "obeys and goes on"]
"""``follows`` solves the user's task. ``obeys`` does so until it reads an injected instruction, then does what that
says and ends. ``obeys and goes on`` ends with the user's task."""

_WORD = re.compile(r"[^\W_]+")


class ScriptedAgent(BaseChatModel):
    """Makes the calls of a published solution, one in each message, and those of an injected task once it can read it.

    Args:
        behaviour: what it does with an injected instruction.
        calls: of the user's task, as (tool, arguments).
        answer: the last message of the user's task.
        injected_calls: of the injected task.
        injected_answer: what the injected task makes the agent say.
        sign: the text by which it knows the injected instruction.
    """

    behaviour: Behaviour
    calls: list[tuple[str, dict[str, Any]]]
    answer: str = ""
    injected_calls: list[tuple[str, dict[str, Any]]] = Field(default_factory=list)
    injected_answer: str = ""
    sign: str = ""
    _obeyed: bool = PrivateAttr(False)
    _made: int = PrivateAttr(0)
    _left: Iterator[tuple[str, dict[str, Any]]] | None = PrivateAttr(None)
    _injected: Iterator[tuple[str, dict[str, Any]]] = PrivateAttr(iter(()))

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def obeyed(self) -> bool:
        """Whether it has read the injected instruction."""
        return self._obeyed

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> ScriptedAgent:  # type: ignore[override]
        """It knows the tools."""
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages))])

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        if self._left is None:
            self._left = iter(self.calls)
        if self.behaviour != "follows" and not self._obeyed and self.sign and _reads(messages, self.sign):
            self._obeyed, self._injected = True, iter(self.injected_calls)
        call = next(self._injected, None)
        if call is None and self._obeyed and self.behaviour == "obeys":
            return AIMessage(self.injected_answer or "Done.")
        call = call or next(self._left, None)
        if call is None:
            said = [self.answer, self.injected_answer if self._obeyed else ""]
            return AIMessage("\n".join(filter(None, said)) or "Done.")
        self._made += 1
        tool, arguments = call
        return AIMessage("", tool_calls=[{"name": tool, "args": arguments, "id": f"call{self._made}"}])


def _reads(messages: Sequence[BaseMessage], sign: str) -> bool:
    """Whether a tool's result says something, however it is written down."""
    wanted = " ".join(_WORD.findall(sign.casefold()))
    return any(
        wanted in " ".join(_WORD.findall(_plain(str(message.content)).casefold()))
        for message in messages
        if isinstance(message, ToolMessage)
    )


def _plain(text: str) -> str:
    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return text + "\n" + "\n".join(_leaves(read))


def _leaves(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for item in tree.values():
            yield from _leaves(item)
    elif isinstance(tree, list):
        for item in tree:
            yield from _leaves(item)
    else:
        yield str(tree)
