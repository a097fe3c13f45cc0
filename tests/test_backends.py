"""Every backend under the conformance suite, and how backends are found, loaded and freed."""

from __future__ import annotations

import random
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from stars_guard.backends.base import Backend, OpenRequest, Session
from stars_guard.backends.supplied import SuppliedBackend
from stars_guard.backends.transformers import TransformersBackend, TransformersOptions
from stars_guard.calling import portal
from stars_guard.core.messages import Message
from stars_guard.testing import BackendTests
from stars_guard.testing.scripted import ScriptedBackend


def counting(messages: Sequence[Message], prefix: tuple[str, ...], rng: random.Random) -> str | None:
    """A script for which only the prefix counts, which is what temperature 0 makes of a model."""
    return f"{len(prefix)} "


class TestScripted(BackendTests):
    @pytest.fixture
    def backend(self) -> Backend:
        return ScriptedBackend(counting, context=1000)

    @pytest.fixture
    def make(self) -> Callable[[], Awaitable[Backend]]:
        async def made() -> Backend:
            return ScriptedBackend(counting)

        return made


class TestScriptedInChunks(TestScripted):
    @pytest.fixture
    def backend(self) -> Backend:
        return ScriptedBackend(counting, context=1000, chunk=3)


class Stocked(SuppliedBackend):
    """Its caller has supplied enough texts for any test."""

    async def open(self, request: OpenRequest) -> Session:
        session = await super().open(request)
        for _ in range(40):
            self.supply("a text", tokens=6)
        return session


class TestSupplied(BackendTests):
    @pytest.fixture
    def backend(self) -> Backend:
        return Stocked("other")

    @pytest.fixture
    def make(self) -> Callable[[], Awaitable[Backend]]:
        async def made() -> Backend:
            return Stocked("other")

        return made


class TestTransformers(BackendTests):
    @pytest.fixture(scope="class")
    def backend(self, embedded_model: Path) -> Iterator[Backend]:
        made = portal.call(lambda: TransformersBackend.load(str(embedded_model)))
        yield made
        assert made.slots.rows_in_use == 0
        portal.call(made.aclose)

    @pytest.fixture
    def make(self, embedded_model: Path) -> Callable[[], Awaitable[Backend]]:
        return lambda: TransformersBackend.load(str(embedded_model), TransformersOptions(dtype="bfloat16"))

    @pytest.fixture
    def control_texts(self) -> Sequence[str]:
        return ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


def test_doubles_do_not_bring_pytest() -> None:
    import subprocess

    code = "import sys, stars_guard.testing; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
