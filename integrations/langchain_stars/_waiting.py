"""One form of our logic, for callers with an event loop and for callers without one.

Around other people's code (an agent's handler, a chain, a tool, callbacks) our logic is written once, as async code
that gets a `Waiting`. `AWAITING` awaits what other code returns. `BLOCKING` calls the sync form of it, which has
returned before there is anything to wait for. A coroutine that waits for nothing but `BLOCKING` therefore never
suspends, and `run` drives it to its end in the caller's own thread, with the caller's context variables and without an
event loop.

Our own judging runs on the background loop in both forms, and other people's code never runs there.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, TypeVar, Unpack, cast

from langchain_core.callbacks import (
    AsyncCallbackManager,
    CallbackManager,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.runnables import Runnable

from stars_guard.backends.base import Backend
from stars_guard.calling.checks import Checked
from stars_guard.calling.given_calls import AboutCall, AboutText
from stars_guard.core.events import Event, Finished
from stars_guard.core.messages import Message
from stars_guard.core.vocabulary import Stage
from stars_guard.guard import Blocking, CallOptions, Guard

__all__ = ["AWAITING", "BLOCKING", "Waiting", "iterate", "run"]

T = TypeVar("T")


class Waiting(ABC):
    """How a piece of logic waits for other code and for the guard."""

    callback_manager: type[CallbackManager] | type[AsyncCallbackManager]
    """LangChain's manager of callbacks. Pass what its methods return to `result`."""

    @abstractmethod
    async def call(self, function: Callable[[], T]) -> T:
        """The result of a function of ours that may read files. It blocks no event loop."""

    @abstractmethod
    async def result(self, returned: Any) -> Any:
        """The result of a function that has been called, from what the call returned."""

    @abstractmethod
    async def invoke(self, runnable: Runnable[Any, Any], given: Any, **kwargs: Any) -> Any:
        """What the runnable answers."""

    @abstractmethod
    def stream(self, runnable: Runnable[Any, Any], given: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """The runnable's chunks. Closing the stream closes the runnable's own."""

    @abstractmethod
    def events(
        self, guard: Guard, messages: Sequence[Message], options: CallOptions, engine: Backend | None = None
    ) -> AsyncGenerator[Event, None]:
        """As `Guard.stream`. Closing the stream cancels the call."""

    @abstractmethod
    def door(self, guard: Guard) -> Guard | Blocking:
        """The guard's methods for this way of waiting. Pass what they return to `result`."""

    async def generate(self, guard: Guard, messages: Sequence[Message], options: CallOptions) -> Finished:
        """As `Guard.generate`."""
        done: Finished = await self.result(self.door(guard).generate(messages, options))
        return done

    async def check(self, guard: Guard, stage: Stage, text: str, **about: Unpack[AboutText]) -> Checked:
        """As `Guard.check`."""
        checked: Checked = await self.result(self.door(guard).check(stage, text, **about))
        return checked

    async def check_call(self, guard: Guard, name: str, args: Mapping[str, Any], **about: Unpack[AboutCall]) -> Checked:
        """As `Guard.check_call`."""
        checked: Checked = await self.result(self.door(guard).check_call(name, args, **about))
        return checked

    @abstractmethod
    async def task(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of our work as a LangGraph task: a node that runs again after a pause gets the first result.

        Args:
            name: what the graph's streams call it.
        """

    @abstractmethod
    async def tell(self, name: str, data: Any) -> None:
        """Report a custom event to the callbacks of the run that the code is in."""

    @abstractmethod
    async def close(self, guard: Guard) -> None:
        """As `Guard.aclose`."""


class _Awaiting(Waiting):
    callback_manager = AsyncCallbackManager

    async def call(self, function: Callable[[], T]) -> T:
        return await asyncio.to_thread(function)

    async def result(self, returned: Any) -> Any:
        return await returned

    async def invoke(self, runnable: Runnable[Any, Any], given: Any, **kwargs: Any) -> Any:
        return await runnable.ainvoke(given, **kwargs)

    async def stream(self, runnable: Runnable[Any, Any], given: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        chunks = runnable.astream(given, **kwargs)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()

    def door(self, guard: Guard) -> Guard:
        return guard

    async def events(
        self, guard: Guard, messages: Sequence[Message], options: CallOptions, engine: Backend | None = None
    ) -> AsyncGenerator[Event, None]:
        async with aclosing(guard.stream(messages, options, engine=engine)) as events:
            async for event in events:
                yield event

    async def task(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def first() -> T:
            return await work()

        from langgraph.func import task  # only agents have tasks

        begun: Any = task(name=name)(cast("Any", first))
        done: T = await begun()
        return done

    async def tell(self, name: str, data: Any) -> None:
        await adispatch_custom_event(name, data)

    async def close(self, guard: Guard) -> None:
        await guard.aclose()


class _Blocking(Waiting):
    callback_manager = CallbackManager

    async def call(self, function: Callable[[], T]) -> T:
        return function()

    async def result(self, returned: Any) -> Any:
        return returned

    async def invoke(self, runnable: Runnable[Any, Any], given: Any, **kwargs: Any) -> Any:
        return runnable.invoke(given, **kwargs)

    async def stream(self, runnable: Runnable[Any, Any], given: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        chunks = runnable.stream(given, **kwargs)
        try:
            for chunk in chunks:
                yield chunk
        finally:
            if isinstance(chunks, Generator):
                chunks.close()

    def door(self, guard: Guard) -> Blocking:
        return guard.blocking

    async def events(
        self, guard: Guard, messages: Sequence[Message], options: CallOptions, engine: Backend | None = None
    ) -> AsyncGenerator[Event, None]:
        stream = guard.blocking.stream(messages, options, engine=engine)
        with closing(cast("Generator[Event, None, None]", stream)) as events:
            for event in events:
                yield event

    async def task(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        def first() -> T:
            return run(work())

        from langgraph.func import task  # only agents have tasks

        begun: Any = task(name=name)(cast("Any", first))
        done: T = begun().result()
        return done

    async def tell(self, name: str, data: Any) -> None:
        dispatch_custom_event(name, data)

    async def close(self, guard: Guard) -> None:
        guard.blocking.close()


AWAITING: Waiting = _Awaiting()
BLOCKING: Waiting = _Blocking()

_END = object()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing but `BLOCKING`, computed here and now."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return cast("T", ended.value)
    coroutine.close()
    raise RuntimeError("a coroutine that was to block has suspended: it waits for something besides BLOCKING")


def iterate(items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """The items of an async generator that waits for nothing but `BLOCKING`. Leaving early closes it."""

    async def following() -> Any:
        return await anext(items, _END)

    try:
        while (item := run(following())) is not _END:
            yield item
    finally:
        run(_close(items))


async def _close(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()
