"""A chat model that knows in which run of LangChain it is asked.

LangChain gives a model its run when it asks for a whole answer, but not when it streams. So a callback of ours takes
note of the run when it starts. The callback also closes what a stream that is left early has left open.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import AbstractContextManager, aclosing, closing, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models.base import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, merge_configs
from pydantic import PrivateAttr

from langchain_stars._judged_cache import caches_allowed
from langchain_stars._shown_answers import ShownAnswers

__all__ = ["ModelRun", "RunTracking", "TrackedRun", "current_run", "listeners"]


class _RunTracker(BaseCallbackHandler):
    """One call's callback. It notes the call's run, and holds the stream of chunks that the call has opened."""

    run_inline = True  # in the context of the caller, where the model then reads it

    def __init__(self, handlers: list[BaseCallbackHandler]) -> None:
        self.chunks: Any = None
        self._handlers = handlers

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        _run.set(TrackedRun(run_id, self._handlers, tags or [], metadata or {}, self))

    def close(self) -> None:
        """Close the chunks of a stream that was left."""
        if self.chunks is not None:
            self.chunks.close()

    async def aclose(self) -> None:
        """As `close`."""
        if self.chunks is not None:
            await self.chunks.aclose()


@dataclass(frozen=True)
class TrackedRun:
    """What we know of a model's run where LangChain does not tell.

    Attributes:
        handlers: the callbacks of the run.
    """

    run_id: UUID
    handlers: list[BaseCallbackHandler]
    tags: list[str]
    metadata: dict[str, Any]
    _tracker: _RunTracker

    def hold(self, chunks: AsyncGenerator[Any, None] | Generator[Any, None, None]) -> None:
        """Have the stream of chunks closed when the caller leaves. LangChain would leave that to the collector."""
        self._tracker.chunks = chunks


ModelRun = CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | TrackedRun
"""A model's run: LangChain's run manager, or what we know of it."""

_run: ContextVar[TrackedRun | None] = ContextVar("stars_guard_run", default=None)


def listeners(run: ModelRun) -> list[BaseCallbackHandler]:
    """The run's callbacks, without our own."""
    return [handler for handler in run.handlers if not isinstance(handler, _RunTracker)]


def current_run() -> TrackedRun | None:
    """The run that started last, given once."""
    run = _run.get()
    _run.set(None)
    return run


class RunTracking(BaseChatModel):
    """A chat model that tracks its run at each of its doors."""

    _shown: ShownAnswers | None = PrivateAttr(default=None)
    """Where the model is part of a hidden call, what its runs are shown to all the same."""

    _shown_under: Any = PrivateAttr(default=None)
    """What decided the model's guard when it was shown."""

    def _decides(self) -> Any:
        """What decides the guard of the model's calls. Equal values mean the same guard."""
        return None

    def _shown_to(self, shown: ShownAnswers) -> Self:
        """This model, whose runs are shown though the call that it is part of is hidden. A copy of it is not shown."""
        self._shown, self._shown_under = shown, self._decides()
        return self

    @property
    def _listener(self) -> ShownAnswers | None:
        """What the model's runs are shown to, unless somebody has changed which guard judges them."""
        return self._shown if self._shown is not None and self._decides() == self._shown_under else None

    def __copy__(self) -> Self:
        return super().__copy__()._unshown()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        for shared in (self._shown, self._shown_under):
            memo[id(shared)] = shared
        return super().__deepcopy__(memo)._unshown()

    def _unshown(self) -> Self:
        self._shown = self._shown_under = None
        return self

    def invoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """One answer."""
        config, _ = self._tracked(config)
        with self._caches():
            return super().invoke(input, config, stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """As `invoke`."""
        config, _ = self._tracked(config)
        with self._caches():
            return await super().ainvoke(input, config, stop=stop, **kwargs)

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """A chunk for each accepted segment. Leaving the stream cancels the call."""
        config, tracker = self._tracked(config)
        chunks: Any = super().stream(input, config, stop=stop, **kwargs)
        with closing(tracker), closing(chunks):
            yield from chunks

    async def astream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """As `stream`."""
        config, tracker = self._tracked(config)
        chunks: Any = super().astream(input, config, stop=stop, **kwargs)
        async with aclosing(tracker), aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def _tracked(self, config: RunnableConfig | None) -> tuple[RunnableConfig, _RunTracker]:
        config = ensure_config(config)
        if (listener := self._listener) is not None:
            config = listener.config(config)
        handlers = CallbackManager.configure(config.get("callbacks"), self.callbacks).handlers
        tracker = _RunTracker(list(handlers))
        return merge_configs(config, {"callbacks": [tracker]}), tracker

    def _caches(self) -> AbstractContextManager[None]:
        """A shown model's answers are judged, so a cache may have them."""
        return caches_allowed() if self._listener is not None else nullcontext()
