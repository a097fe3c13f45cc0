"""guard_runnable: input and output rails around any Runnable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any, Literal, cast

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_stars._current_guard import LiveGuard
from langchain_stars._hidden_runs import unseen
from langchain_stars._regeneration import Redraw
from langchain_stars._stream_pieces import Pieces
from langchain_stars._texts import message_of_refusal, messages_of, text_of
from stars_guard.core.events import Drawing
from stars_guard.errors import InputError, Refused
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import Policy
from stars_guard.prompting.call_rendering import render_call

__all__ = ["GuardedRunnable", "guard_runnable"]

OnReject = Literal["refuse", "raise"]
Text = Callable[[Any], str]

_END = object()


def guard_runnable(
    runnable: Runnable[Any, Any],
    policy: str | Path | Mapping[str, Any] | Policy = "default",
    *,
    on_reject: OnReject = "refuse",
    attempts: int = 1,
    text: Text | None = None,
    audit: Any = None,
    allow_python: bool = False,
) -> GuardedRunnable:
    """The same runnable under a policy: for chains whose model is not ours.

    The input is judged by the policy's input rail; what comes out by its judges and its output rail, and tool calls in
    a message by the tool-call rail. A stream is judged in pieces of about ``decoding.segment_tokens`` tokens, each
    before it is released. Runs inside are neither streamed nor traced, as they may hold what is rejected.

    Args:
        on_reject: ``refuse`` gives the policy's refusal message, in the kind of what comes out; ``raise`` raises
            `Refused`. Where there is no telling the kind, or it is neither text nor message, it raises too.
        attempts: how often the runnable may be asked for a whole answer, at most the policy's ``decoding.attempts``.
            A stream is not asked again: its beginning is out.
        text: of an input or output whose text is not plain; the default reads strings, messages, prompts, and every
            value of mappings and models.
        audit: the audit log's URL or a store, instead of the policy's.
        allow_python: whether the policy's judges may name Python code to run.

    Raises:
        PolicyError: the policy cannot be used.
    """
    if attempts < 1:
        raise InputError(f"attempts is {attempts}", hint="use 1 or more")
    guards = LiveGuard(policy, audit=audit, allow_python=allow_python)
    return GuardedRunnable(runnable, guards, on_reject, attempts, text or text_of)


class GuardedRunnable(Runnable[Any, Any]):
    """What `guard_runnable` makes."""

    def __init__(
        self, runnable: Runnable[Any, Any], guards: LiveGuard, on_reject: OnReject, attempts: int, text: Text
    ) -> None:
        self._runnable = runnable
        self._guards = guards
        self._on_reject = on_reject
        self._attempts = attempts
        self._text = text

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        return super().get_name(suffix, name=name or f"guarded {self._runnable.get_name()}")

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """The runnable's answer, or the refusal."""
        return self._call_with_config(self._answer, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """As `invoke`."""
        return await self._acall_with_config(self._aanswer, input, config, **kwargs)

    def stream(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """The answer in pieces, each judged before it is released; a refusal is the last piece."""
        yield from self._transform_stream_with_config(iter([input]), self._stream, config, **kwargs)

    async def astream(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """As `stream`."""

        async def inputs() -> AsyncIterator[Any]:
            yield input

        pieces: Any = self._atransform_stream_with_config(inputs(), self._astream, config, **kwargs)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    # --- whole answers

    def _answer(self, given: Any, run_manager: CallbackManagerForChainRun, **kwargs: Any) -> Any:
        guard, run_id = self._guards.current, str(run_manager.run_id)
        checked = guard.blocking.check("input", self._text(given), run_id=run_id)
        if not checked.allowed:
            return self._refused(guard, _kind_of(self._runnable), checked.reason, checked.audit_id)
        drawn = self._redraw(guard, given, run_id)
        kept = drawn.run(lambda: self._runnable.invoke(given, **kwargs))
        for call in _calls(kept):
            checked = guard.blocking.check("tool_call", call, run_id=run_id)
            if not checked.allowed:
                return self._refused(guard, AIMessage, checked.reason, checked.audit_id)
        return self._whole(guard, drawn)

    async def _aanswer(self, given: Any, run_manager: AsyncCallbackManagerForChainRun, **kwargs: Any) -> Any:
        guard, run_id = self._guards.current, str(run_manager.run_id)
        checked = await guard.check("input", self._text(given), run_id=run_id)
        if not checked.allowed:
            return self._refused(guard, _kind_of(self._runnable), checked.reason, checked.audit_id)
        drawn = self._redraw(guard, given, run_id)
        kept = await drawn.arun(lambda: self._runnable.ainvoke(given, **kwargs))
        for call in _calls(kept):
            checked = await guard.check("tool_call", call, run_id=run_id)
            if not checked.allowed:
                return self._refused(guard, AIMessage, checked.reason, checked.audit_id)
        return self._whole(guard, drawn)

    def _redraw(self, guard: Guard, given: Any, run_id: str) -> Redraw[Any]:
        name = self._runnable.get_name()
        return Redraw(guard, self._messages(given), name, self._text, self._attempts, run_id)

    def _whole(self, guard: Guard, drawn: Redraw[Any]) -> Any:
        if drawn.kept is not None or drawn.done is None:
            return drawn.kept
        return self._refused(guard, type(drawn.last), drawn.done.reason, drawn.done.call_id)

    # --- streams

    def _stream(self, inputs: Iterator[Any], run_manager: CallbackManagerForChainRun, **kwargs: Any) -> Iterator[Any]:
        guard, run_id = self._guards.current, str(run_manager.run_id)
        (given,) = inputs
        checked = guard.blocking.check("input", self._text(given), run_id=run_id)
        if not checked.allowed:
            yield self._refused(guard, _kind_of(self._runnable), checked.reason, checked.audit_id)
            return
        with unseen():
            chunks: Any = self._runnable.stream(given, **kwargs)
        with closing(chunks):
            yield from self._judged(guard, given, run_id, chunks)

    def _judged(self, guard: Guard, given: Any, run_id: str, chunks: Iterator[Any]) -> Iterator[Any]:
        pieces = Pieces(self._runnable.get_name(), guard, self._text)

        def fill() -> None:
            while pieces.hungry:
                with unseen():
                    chunk = next(chunks, _END)
                pieces.feed(None if chunk is _END else chunk, last=chunk is _END)

        fill()
        if pieces.has_text:
            options = CallOptions(run_id=run_id, attempts=1)
            events = guard.blocking.stream(self._messages(given), options, engine=pieces.engine)
            with closing(cast("Any", events)):
                for event in events:
                    if isinstance(event, Drawing):
                        fill()
                        pieces.supply()
                    elif (piece := pieces.released(event)) is not None:
                        yield piece
        if (done := pieces.stopped) is not None:
            yield self._refused(guard, pieces.kind, done.reason, done.call_id)
            return
        for call in pieces.calls:
            checked = guard.blocking.check("tool_call", call, run_id=run_id)
            if not checked.allowed:
                yield self._refused(guard, AIMessageChunk, checked.reason, checked.audit_id)
                return
        if (rest := pieces.rest) is not None:
            yield rest

    async def _astream(
        self, inputs: AsyncIterator[Any], run_manager: AsyncCallbackManagerForChainRun, **kwargs: Any
    ) -> AsyncIterator[Any]:
        guard, run_id = self._guards.current, str(run_manager.run_id)
        (given,) = [item async for item in inputs]
        checked = await guard.check("input", self._text(given), run_id=run_id)
        if not checked.allowed:
            yield self._refused(guard, _kind_of(self._runnable), checked.reason, checked.audit_id)
            return
        with unseen():
            chunks: Any = self._runnable.astream(given, **kwargs)
        async with aclosing(chunks):
            async for piece in self._ajudged(guard, given, run_id, chunks):
                yield piece

    async def _ajudged(self, guard: Guard, given: Any, run_id: str, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        pieces = Pieces(self._runnable.get_name(), guard, self._text)

        async def fill() -> None:
            while pieces.hungry:
                with unseen():
                    chunk = await anext(chunks, _END)
                pieces.feed(None if chunk is _END else chunk, last=chunk is _END)

        await fill()
        if pieces.has_text:
            options = CallOptions(run_id=run_id, attempts=1)
            async with aclosing(guard.stream(self._messages(given), options, engine=pieces.engine)) as events:
                async for event in events:
                    if isinstance(event, Drawing):
                        await fill()
                        pieces.supply()
                    elif (piece := pieces.released(event)) is not None:
                        yield piece
        if (done := pieces.stopped) is not None:
            yield self._refused(guard, pieces.kind, done.reason, done.call_id)
            return
        for call in pieces.calls:
            checked = await guard.check("tool_call", call, run_id=run_id)
            if not checked.allowed:
                yield self._refused(guard, AIMessageChunk, checked.reason, checked.audit_id)
                return
        if (rest := pieces.rest) is not None:
            yield rest

    # --- both

    def _messages(self, given: Any) -> Any:
        return messages_of(given if self._text is text_of else self._text(given))

    def _refused(self, guard: Guard, kind: type | None, reason: str, audit_id: str | None) -> Any:
        """The refusal in the place of a value of that kind.

        Raises:
            Refused: the caller wants it, or a refusal has no place in such a value.
        """
        if self._on_reject == "refuse" and kind is not None:
            if issubclass(kind, str):
                return guard.policy.refusal.message
            if issubclass(kind, BaseMessage):
                refusal = message_of_refusal(guard, reason, audit_id)
                is_chunk = issubclass(kind, AIMessageChunk)
                return AIMessageChunk(**refusal.model_dump(exclude={"type"})) if is_chunk else refusal
        error = Refused(reason, hint=f"the audit record is {audit_id}")
        error.audit_id = audit_id
        raise error


def _kind_of(runnable: Runnable[Any, Any]) -> type | None:
    """What a runnable gives, as far as it says so."""
    try:
        kind = runnable.OutputType
    except TypeError:
        return None
    if kind is str or (isinstance(kind, type) and issubclass(kind, BaseMessage)):
        return kind
    return AIMessage if kind == AnyMessage else None


def _calls(answer: Any) -> Iterator[str]:
    for call in answer.tool_calls if isinstance(answer, AIMessage) else ():
        yield render_call(call["name"], call["args"])
