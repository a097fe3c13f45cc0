"""The answers of a guarded model inside a scope that hides runs.

An agent's model call is hidden, because middleware inside the guard may put another model, or an answer of its own, in
the place of the guarded one. Only a model that generates under the guard is shown. An answer needs no judging if it is
one that such a model has shown in this very call, and nobody has changed it since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig

from langchain_stars._block_keys import is_usual, without_numbers
from langchain_stars._hidden_runs import surrounding_callbacks
from langchain_stars._plain import fields_of
from langchain_stars._silent_handlers import Silent
from stars_guard.core.nesting import read_json

if TYPE_CHECKING:  # a model needs no agent
    from langchain.agents.middleware.types import ModelResponse

    from langchain_stars._model_answers import Answer

__all__ = ["ShownAnswers"]


class ShownAnswers(BaseCallbackHandler):
    """What listens to a model call, and what it has been shown. Make it before the call is hidden."""

    run_inline = True

    def __init__(self) -> None:
        self._surrounding = surrounding_callbacks()
        self._agent = (self._surrounding.metadata or {}).get("lc_agent_name")
        self._digests: set[str] = set()

    def config(self, given: RunnableConfig) -> RunnableConfig:
        """The configuration of a run that is shown."""
        callbacks = given.get("callbacks")
        own = callbacks if isinstance(callbacks, list) else callbacks.inheritable_handlers if callbacks else []
        manager: CallbackManager = self._surrounding.copy()
        for handler in (*(one for one in own if not isinstance(one, Silent)), self):
            manager.add_handler(handler)
        return {**given, "callbacks": manager}

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Take note of an answer."""
        for generation in (one for generations in response.generations for one in generations):
            if isinstance(generation, ChatGeneration):
                self._digests.add(_digest(generation.message))

    def has(self, message: BaseMessage | None) -> bool:
        """Whether it is an answer that was shown, with all that it says."""
        return isinstance(message, AIMessage) and _digest(message, self._agent) in self._digests

    def holds_all_of(self, response: Answer) -> bool:
        """Whether all that a model call gives to the agent was shown, or is a reply to a shown call.

        `not_shown_in` has the replies, whose words may be anybody's.
        """
        if isinstance(response, Exception):
            return self.has(getattr(response, "ai_message", None))
        answers = [message for message in response.result if self.has(message)]
        calls = {call["id"] for answer in answers for call in getattr(answer, "tool_calls", ())}
        others = [message for message in response.result if not self.has(message)]
        if not answers or not all(isinstance(one, ToolMessage) and one.tool_call_id in calls for one in others):
            return False
        return response.structured_response is None or _strings(response.structured_response) <= {
            string for answer in answers for string in _strings_of(answer)
        }

    def not_shown_in(self, response: ModelResponse[Any]) -> list[BaseMessage]:
        """What stands beside shown answers and says something else than the agent's own reply to a structured one."""
        if not self.holds_all_of(response):
            return []  # no answer was trusted because it was shown
        usual = f"Returning structured response: {response.structured_response}"
        return [message for message in response.result if not self.has(message) and message.content != usual]


def _digest(message: BaseMessage, agent: str | None = None) -> str:
    """
    Args:
        agent: the name that the agent gives to its answers, which does not count.
    """
    said = {name: value for name, value in fields_of(message).items() if name not in _TECHNICAL and value}
    said["content"] = without_numbers(said.get("content", ""))
    if is_usual(said.get("id", "")):
        said.pop("id", None)
    if said.get("name") == agent:
        said.pop("name", None)
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode()).hexdigest()


_TECHNICAL = ("type", "tool_call_chunks", "chunk_position", "example", "usage_metadata")
"""Fields that are not the same in a stream and in a whole answer, or that hold numbers alone."""


def _strings_of(answer: BaseMessage) -> set[str]:
    """The values of an answer that is JSON, or that calls tools."""
    found = _strings([call["args"] for call in getattr(answer, "tool_calls", ())])
    try:
        return found | _strings(read_json(answer.text))
    except ValueError:
        return found


def _strings(value: Any) -> set[str]:
    """Every string in a value, keys too. What is not JSON counts by how it is shown."""
    dump = getattr(value, "model_dump", None)
    match dump(mode="json") if callable(dump) else value:
        case str() as text:
            return {text}
        case Mapping() as mapping:
            return {text for pair in mapping.items() for part in pair for text in _strings(part)}
        case list() | tuple() as items:
            return {text for item in items for text in _strings(item)}
        case None | bool() | int() | float():
            return set()
        case other if is_dataclass(other) and not isinstance(other, type):
            return _strings(asdict(other))
        case other:
            return {repr(other)}
