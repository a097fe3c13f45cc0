"""A judge's engine that dies is started anew, and a start that takes longer than a judge may is not lost.

The engine is a double here: `test_vllm_unloading` kills a real one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from stars_guard.engines import vllm_process
from stars_guard.engines.vllm_lasting import LastingEngine
from stars_guard.errors import BackendError, BackendUnavailable


class Engine:
    errored = False


class Starts:
    """What stands in for `vllm_process`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[Engine] = []
        self.stopped: list[Engine] = []
        self.go = asyncio.Event()
        self.go.set()
        self.failures = 0
        monkeypatch.setattr(vllm_process, "start", self.start)
        monkeypatch.setattr(vllm_process, "stop", self.stop)

    async def start(self, model: str, options: Mapping[str, Any]) -> Engine:
        await self.go.wait()
        if self.failures:
            self.failures -= 1
            raise BackendError("vLLM could not start")
        self.started.append(Engine())
        return self.started[-1]

    async def stop(self, engine: Engine) -> None:
        self.stopped.append(engine)


@pytest.fixture
async def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    return Starts(monkeypatch)


async def test_a_living_engine_is_kept_and_a_dead_one_replaced_once(starts: Starts) -> None:
    lasting = await LastingEngine.begin("m", {})
    first = await lasting.ready()
    assert await lasting.ready() is first
    first.errored = True
    second, *others = await asyncio.gather(*(lasting.ready() for _ in range(5)))
    assert second is not first
    assert set(others) == {second}
    assert starts.stopped == [first]
    await lasting.aclose()
    await lasting.aclose()
    assert starts.stopped == [first, second]
    with pytest.raises(BackendUnavailable, match="closed"):
        await lasting.ready()


async def test_a_start_outlives_the_judgement_that_began_it(starts: Starts) -> None:
    lasting = await LastingEngine.begin("m", {})
    starts.started[0].errored = True
    starts.go.clear()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await lasting.ready()
    starts.go.set()
    assert await lasting.ready() is starts.started[1]
    assert len(starts.started) == 2


async def test_a_start_that_fails_is_tried_again_by_the_next(starts: Starts, caplog: pytest.LogCaptureFixture) -> None:
    lasting = await LastingEngine.begin("m", {})
    starts.started[0].errored = True
    starts.failures = 1
    with caplog.at_level(logging.WARNING), pytest.raises(BackendError, match="could not start"):
        await lasting.ready()
    await asyncio.sleep(0)
    assert "did not start again" in caplog.text
    assert await lasting.ready() is starts.started[1]
    assert starts.stopped == starts.started[:1]


async def test_closing_ends_a_start_that_is_under_way(starts: Starts) -> None:
    lasting = await LastingEngine.begin("m", {})
    starts.started[0].errored = True
    starts.go.clear()
    waiting = asyncio.ensure_future(lasting.ready())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await lasting.aclose()
    assert len(starts.started) == 1
    with pytest.raises((asyncio.CancelledError, BackendUnavailable)):
        await waiting


class Reading:
    """Logs its end as vLLM does: on the event loop, from the task that reads what the engine's process sends."""

    errored = False

    def __init__(self, error: type[Exception]) -> None:
        self.log = logging.getLogger(vllm_process.ENGINE_LOG)
        self.ended = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.output_handler = asyncio.create_task(self.read(error))

    async def read(self, error: type[Exception]) -> None:
        await self.ended.wait()
        try:
            raise error
        except Exception:
            self.log.exception("AsyncLLM output_handler failed.")

    def shutdown(self, timeout: float | None = None) -> None:
        self.loop.call_soon_threadsafe(self.ended.set)


class EngineDeadError(Exception):
    pass


@pytest.mark.parametrize("error", [EngineDeadError, ValueError])
async def test_an_end_that_was_asked_for_is_not_logged_and_every_other_failure_is(
    error: type[Exception], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Reading(error)
    monkeypatch.setattr(vllm_process, "_running", {engine, object()})
    await vllm_process.stop(engine)
    assert engine.output_handler.done()
    assert ("output_handler failed" in caplog.text) is (error is ValueError)
    assert engine.log.filters == []
