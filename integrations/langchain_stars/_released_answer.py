"""The run that shows an answer once it has passed its judges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

__all__ = ["ReleasedAnswer"]


class ReleasedAnswer(BaseChatModel):
    """A model whose one answer is a message that has passed its judges.

    Running it gives the message to streams, traces and usage callbacks as any answer would be given. No cache answers
    in its place.
    """

    message: AIMessage
    provider: str = "stars-guard"
    cache: bool = False

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
