"""Runs that streams and traces do not see, because what they write may yet be rejected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables.config import var_child_runnable_config
from langsmith.run_helpers import tracing_context

__all__ = ["ReleasedAnswer", "current_run_id", "hidden_runs"]


def current_run_id() -> str | None:
    """The LangChain run that the code is in, for the audit record."""
    manager = (var_child_runnable_config.get() or {}).get("callbacks")
    run_id = getattr(manager, "parent_run_id", None)
    return str(run_id) if run_id else None


@contextmanager
def hidden_runs() -> Iterator[None]:
    """Runs that begin inside are neither streamed nor traced.

    Callbacks that a model was made with are called all the same.
    """
    quiet: Any = {**(var_child_runnable_config.get() or {})}
    quiet.pop("callbacks", None)
    token = var_child_runnable_config.set(quiet)
    try:
        with tracing_context(enabled=False):
            yield
    finally:
        var_child_runnable_config.reset(token)


class ReleasedAnswer(BaseChatModel):
    """A model whose one answer is a message that has passed its judges.

    Running it gives the message to streams, traces and usage callbacks as any answer would be given.
    """

    message: AIMessage
    provider: str = "stars-guard"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        fields = self.message.model_dump(exclude={"type"})
        chunk = ChatGenerationChunk(message=AIMessageChunk(**fields, chunk_position="last"))
        if run_manager:
            run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        yield chunk

    @property
    def _llm_type(self) -> str:
        return self.provider
