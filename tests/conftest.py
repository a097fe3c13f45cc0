"""Shared by all tests: no test writes to the user's own audit log."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from stars_guard.audit import MemoryStore
from stars_guard.calling import portal
from stars_guard.calling.backend_loading import unload_backends
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.guard import Guard
from stars_guard.scorers import Judge
from stars_guard.testing import FunctionScorer
from stars_guard.testing.scripted import ScriptedBackend

WORDS = ("good ", "fine ", "bad ", "awful ")
USER = [Message("user", "tell me")]


@pytest.fixture(autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


@pytest.fixture(autouse=True)
def _drawn_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls without a seed of their own get the same ones in each run of a test: a script may well draw a refusal."""
    monkeypatch.setattr("secrets.randbits", random.Random(20261124).getrandbits)


def words(length: int = 40) -> Callable[..., str | None]:
    """A script: uniform words, and the end after ``length`` of them."""

    def script(messages: Sequence[Message], prefix: tuple[str, ...], rng: random.Random) -> str | None:
        return None if len(prefix) >= length else rng.choice(WORDS)

    return script


def sentiment(passage: Passage) -> float:
    """A reward: less for each bad word of the segment."""
    return 1.0 - passage.segment.count("bad") - passage.segment.count("awful")


def policy(**more: Any) -> Mapping[str, Any]:
    """A policy without judges of its own. ``decoding`` keys may be given as such."""
    decoding = {"segment_tokens": 2, "max_tokens": 24, "attempts": 6, "r_star": 1.0, "beta": 0.5}
    top = {"apiVersion": "stars-guard/v1", "name": "test"}
    for key, value in more.items():
        (top if key in ("name", "mode", "audit", "refusal", "sampling", "judges") else decoding)[key] = value
    return {**top, "decoding": decoding}


def rewarding(function: Callable[[Passage], Any] = sentiment, **rule: Any) -> Judge:
    """A judge from a function."""
    return Judge(Rule(judge="sentiment", **{"weight": 1.0, **rule}), FunctionScorer(function))


def vetoing(word: str = "awful") -> Judge:
    """A judge that vetoes a word anywhere in the answer."""
    return Judge(Rule(judge="words", reject_above=0.5), FunctionScorer(lambda p: float(word in p.answer), cost=0.1))


def guard(*judges: Judge, backend: ScriptedBackend | None = None, **more: Any) -> Guard:
    """A guard on a scripted backend that keeps its records in memory."""
    return Guard(
        policy(**more),
        model=backend or ScriptedBackend(words()),
        judges=judges or (rewarding(), vetoing()),
        audit=MemoryStore(),
    )


@pytest.fixture(autouse=True, scope="module")
def _engines_freed() -> Iterator[None]:
    """Engines of one module at a time: several of vLLM and its servers do not fit a small machine."""
    yield
    portal.call(unload_backends)


@pytest.fixture(scope="session")
def embedded_model() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face directory."""
    from stars_guard.engines.embedded_models import generator_dir

    return generator_dir()


def settled(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether a condition comes true on the background loop in time."""

    async def wait() -> bool:
        for _ in range(int(seconds * 100)):
            if condition():
                return True
            await asyncio.sleep(0.01)
        return condition()

    return portal.call(wait)
