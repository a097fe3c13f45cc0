"""A judge's vLLM engine in this process, which is started again after it has died."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from stars_guard.engines import vllm_process
from stars_guard.errors import BackendUnavailable

__all__ = ["LastingEngine"]

logger = logging.getLogger("stars_guard.engines")


class LastingEngine:
    """One engine at a time. Make it with `begin`, and use it on one event loop.

    A request that meets a dead engine fails. The next one starts another engine and waits for it. The start goes on
    when nobody waits any more, because a judge's timeout is shorter than a start.
    """

    def __init__(self, model: str, options: Mapping[str, Any]) -> None:
        self._model = model
        self._options = dict(options)
        self._engine: Any = None
        self._starting: asyncio.Task[Any] | None = None
        self._is_closed = False

    @classmethod
    async def begin(cls, model: str, options: Mapping[str, Any]) -> LastingEngine:
        """Start an engine. Takes and raises what `vllm_process.start` does."""
        made = cls(model, options)
        made._engine = await vllm_process.start(model, made._options)
        return made

    async def ready(self) -> Any:
        """The engine that runs, a ``vllm.v1.engine.async_llm.AsyncLLM``.

        Raises:
            BackendUnavailable: it was closed.
            BackendError: another one was needed, and did not start.
        """
        if self._is_closed:
            raise BackendUnavailable("the judge's vLLM engine is closed", hint="load the judge again")
        if self._engine is not None and not self._engine.errored:
            return self._engine
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start_anew())
            self._starting.add_done_callback(self._started)
        return await asyncio.shield(self._starting)

    async def _start_anew(self) -> Any:
        dead, self._engine = self._engine, None
        if dead is not None:
            logger.warning("the vLLM engine of the judge %r has died, so another one is started", self._model)
            await vllm_process.stop(dead)
        self._engine = await vllm_process.start(self._model, self._options)
        return self._engine

    def _started(self, starting: asyncio.Task[Any]) -> None:
        self._starting = None
        if not starting.cancelled() and (failure := starting.exception()) is not None:
            # those who waited have it too, if they still do
            logger.warning("the vLLM engine of the judge %r did not start again: %s", self._model, failure)

    async def aclose(self) -> None:
        """End the engine, and a start that is under way. May be called twice."""
        self._is_closed = True
        if (starting := self._starting) is not None:
            starting.cancel()
            await asyncio.wait([starting])
        engine, self._engine = self._engine, None
        if engine is not None:
            await vllm_process.stop(engine)
