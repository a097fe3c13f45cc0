"""Decisions as LangChain's custom events: ``stars_guard.segment.accepted`` and ``stars_guard.segment.rejected``.

They belong to the model's own run, so they need no chain around it. A segment's text is in its event only as far as the
policy's audit content says.

LangChain gives a model its run where it asks for a whole answer, but not where it streams: there a callback of our own
notes the run as it starts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManager,
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

from stars_guard.calling.settings import content_of
from stars_guard.core.events import Decision, Event, Finished
from stars_guard.core.messages import Message
from stars_guard.guard import CallOptions, Guard

__all__ = ["NotingRuns", "Run", "aanswer", "aevents", "answer", "current_run", "events"]


@dataclass(frozen=True)
class _Noted:
    run_id: UUID
    handlers: list[BaseCallbackHandler]
    tags: list[str]
    metadata: dict[str, Any]


Run = CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | _Noted
"""A model's run: LangChain's run manager, or what we noted of it."""

_noted: ContextVar[_Noted | None] = ContextVar("stars_guard_run", default=None)


class _Notes(BaseCallbackHandler):
    run_inline = True  # in the context of the caller, where the model then reads it

    def __init__(self, handlers: list[BaseCallbackHandler]) -> None:
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
        _noted.set(_Noted(run_id, self._handlers, tags or [], metadata or {}))


class NotingRuns(BaseChatModel):
    """A chat model that notes its run at each of its doors."""

    def invoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """One answer."""
        return super().invoke(input, self._noting(config), stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """As `invoke`."""
        return await super().ainvoke(input, self._noting(config), stop=stop, **kwargs)

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """A chunk an accepted segment."""
        yield from super().stream(input, self._noting(config), stop=stop, **kwargs)

    async def astream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """As `stream`."""
        chunks: Any = super().astream(input, self._noting(config), stop=stop, **kwargs)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def _noting(self, config: RunnableConfig | None) -> RunnableConfig:
        config = ensure_config(config)
        handlers = CallbackManager.configure(config.get("callbacks"), self.callbacks).handlers
        return merge_configs(config, {"callbacks": [_Notes(list(handlers))]})


def current_run() -> _Noted | None:
    """The run that was noted last, once."""
    run = _noted.get()
    _noted.set(None)
    return run


def events(guard: Guard, messages: Sequence[Message], options: CallOptions, run: Run | None) -> Iterator[Event]:
    """As `Guard.stream`; each decision is told to the run's callbacks before it is passed on."""
    manager = CallbackManager(run.handlers, tags=run.tags, metadata=run.metadata) if run else None
    with closing(cast("Any", guard.blocking.stream(messages, options))) as happening:
        for event in happening:
            if run and manager and _is_told(event):
                manager.on_custom_event(_name(event), _data(guard, event), run_id=run.run_id)
            yield event


async def aevents(
    guard: Guard, messages: Sequence[Message], options: CallOptions, run: Run | None
) -> AsyncIterator[Event]:
    """As `events`."""
    manager = AsyncCallbackManager(run.handlers, tags=run.tags, metadata=run.metadata) if run else None
    async with aclosing(guard.stream(messages, options)) as happening:
        async for event in happening:
            if run and manager and _is_told(event):
                await manager.on_custom_event(_name(event), _data(guard, event), run_id=run.run_id)
            yield event


def answer(guard: Guard, messages: Sequence[Message], options: CallOptions, run: Run | None) -> Finished:
    """As `Guard.generate`, with the decisions told where somebody listens."""
    if run is None or not run.handlers:
        return guard.blocking.generate(messages, options)
    *_, done = events(guard, messages, options, run)
    return cast("Finished", done)


async def aanswer(guard: Guard, messages: Sequence[Message], options: CallOptions, run: Run | None) -> Finished:
    """As `answer`."""
    if run is None or not run.handlers:
        return await guard.generate(messages, options)
    *_, done = [event async for event in aevents(guard, messages, options, run)]
    return cast("Finished", done)


def _is_told(event: Event) -> bool:
    return isinstance(event, Decision) and event.verdict != "surplus"


def _name(event: Any) -> str:
    return f"stars_guard.segment.{event.verdict}"


def _data(guard: Guard, event: Any) -> dict[str, Any]:
    content = content_of(guard.policy)
    text = content.keep(event.candidate.text, content.accepted if event.verdict == "accepted" else content.rejected)
    return {
        "policy": guard.policy.name,
        "segment": event.segment,
        "attempt": event.attempt,
        "tokens": len(event.candidate),
        "reason": event.reason,
        "veto": event.judgement.veto,
        "reward": event.judgement.reward,
        "threshold": event.threshold,
        "scores": {score.judge: score.value for score in event.judgement.scores},
        **text.model_dump(exclude_none=True),
    }
