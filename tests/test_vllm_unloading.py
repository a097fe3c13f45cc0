"""The end of a vLLM engine in this process, and a start that takes too long. This module ends the engine that all tests
share, and so its name is the last of those that use it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from conftest import policy, rewarding

from stars_guard.audit import MemoryStore
from stars_guard.backends.vllm_engine import VllmEngineBackend
from stars_guard.calling import portal
from stars_guard.calling.backend_loading import load_backend, unload_backends
from stars_guard.core.events import Released
from stars_guard.core.messages import Message
from stars_guard.engines import vllm_process
from stars_guard.errors import BackendError, BackendUnavailable
from stars_guard.guard import CallOptions, Guard

STORY = [Message("user", "Tell me a long story about a lighthouse keeper and the sea.")]


def engine_processes() -> list[str]:
    return [child.name for child in multiprocessing.active_children() if child.name.startswith("EngineCore")]


def test_unloading_ends_a_call_that_runs_and_the_engine(vllm_engine: VllmEngineBackend) -> None:
    before = len(engine_processes())
    assert before
    judges = [rewarding(lambda passage: 9.0)]
    guard = Guard(policy(max_tokens=4000, segment_tokens=8), model=vllm_engine, judges=judges, audit=MemoryStore())
    stream = guard.blocking.stream(STORY)
    next(event for event in stream if isinstance(event, Released))
    portal.call(unload_backends)
    with pytest.raises(BackendUnavailable, match="closed"):
        list(stream)
    assert guard.audit.read()[0].error == "BackendUnavailable"
    assert len(engine_processes()) == before - 1
    assert vllm_engine.dead
    portal.call(vllm_engine.aclose)
    with pytest.raises(BackendUnavailable, match="closed"):
        guard.blocking.generate(STORY, CallOptions(max_tokens=4))


def test_a_start_that_takes_too_long_is_ended(embedded_model: Path) -> None:
    before = engine_processes()
    with pytest.raises(BackendError, match=r"within 0\.5 s"):
        portal.call(lambda: load_backend(str(embedded_model), "vllm", {"start_timeout": 0.5}))
    assert engine_processes() == before
    # the next start has its turn
    with pytest.raises(BackendError, match="within 4 s"):
        portal.call(lambda: vllm_process.start(str(embedded_model), {}, limit=4))
    assert engine_processes() == before
