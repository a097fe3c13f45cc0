"""What the tests of a backend are given, and how they run: on the library's own loop, and bounded in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import pytest

from stars_guard.backends.base import Backend, OpenRequest, Proposal, Session
from stars_guard.calling import portal
from stars_guard.core.messages import Message
from stars_guard.core.sampling import Sampling
from stars_guard.core.segments import Token

__all__ = ["BackendCase", "rest", "run", "tokens_of", "with_session"]

T = TypeVar("T")

SOON = 60.0
"""Seconds after which something that should end has not. Not a measure of speed: a slow machine must pass."""


class BackendCase:
    """The fixtures of `stars_guard.testing.BackendTests`."""

    @pytest.fixture
    def backend(self) -> Backend:
        """Override this. All tests share the backend; none closes it."""
        raise NotImplementedError("give the fixture backend: the backend that is tested")

    @pytest.fixture
    def make(self) -> Callable[[], Awaitable[Backend]] | None:
        """Override this with a function that makes one more backend, which the tests close; None leaves them out."""
        return None

    @pytest.fixture
    def open_request(self) -> OpenRequest:
        """What the tests ask for. Override it if your model needs another conversation."""
        return OpenRequest(
            messages=[Message("user", "Tell me a long story about a lighthouse keeper and the sea.")],
            sampling=Sampling(temperature=0.0),
        )

    @pytest.fixture
    def control_texts(self) -> Sequence[str]:
        """Override this with texts that are control tokens of your model, such as ``<|im_end|>``."""
        return ()

    @pytest.fixture
    def exact(self, backend: Backend) -> bool:
        """Whether temperature 0 gives the same tokens again, by whatever steps the prefix came to be."""
        return not backend.supplied


async def tokens_of(proposal: Proposal, count: int | None = None) -> list[Token]:
    """The proposal's next tokens, at least ``count`` of them if there are as many; None reads to its end."""
    tokens: list[Token] = []
    async for chunk in proposal:
        tokens += chunk
        if count is not None and len(tokens) >= count:
            break
    return tokens


async def rest(proposal: Proposal) -> None:
    async for _ in proposal:
        # an engine that never waits would leave no room for another task
        await asyncio.sleep(0)


def run(function: Callable[[], Awaitable[T]]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(SOON):
            return await function()

    return portal.call(bounded)


def with_session(backend: Backend, request: OpenRequest, check: Callable[[Session], Awaitable[None]]) -> None:
    async def checked() -> None:
        session = await backend.open(request)
        try:
            await check(session)
        finally:
            await session.aclose()

    run(checked)
