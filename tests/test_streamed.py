"""Sessions over a stream of token ids, on a source that is driven by hand."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from stars_guard.backends._streamed import Chunk, Request, StreamedBackend, StreamedSession, TokenSource
from stars_guard.backends.base import Backend, OpenRequest
from stars_guard.backends.vllm_engine import entropy_of
from stars_guard.engines.loading import Vocabulary, load_vocabulary
from stars_guard.errors import BackendError, ProtocolError
from stars_guard.prompting.prompt import Prompt
from stars_guard.testing import BackendTests

EOS = 0


class Source(TokenSource):
    """Each request draws the numbers after its prefix, a token a loop step, until ``until``."""

    eos_ids = frozenset({EOS})

    def __init__(self, until: int = 10_000, late_end: bool = False) -> None:
        self.requests: list[Request] = []
        self.streams: set[asyncio.Task[None]] = set()
        self.open = 0
        self.until = until
        self.late_end = late_end
        self.broken = False

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(f"{i} " for i in ids)

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        self.requests.append(request)
        self.open += 1
        try:
            for number in range(request.max_tokens):
                await asyncio.sleep(0)
                if self.broken:
                    raise OSError("secret")
                token = request.ids[-1] + number + 1
                yield [(EOS if token >= self.until else token, None, ())]
                if token >= self.until:
                    break
            if self.late_end:
                await asyncio.sleep(0.05)
        finally:
            await asyncio.sleep(0)
            self.open -= 1


class Scripted(Source):
    """The next token follows from the prefix alone, as at temperature 0. It never ends by itself."""

    def __init__(self, backend: StreamedBackend[Any]) -> None:
        super().__init__()
        self.streams = backend.streams
        self._tokenizer = backend.vocabulary.tokenizer

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        ids = list(request.ids)
        for _ in range(request.max_tokens):
            await asyncio.sleep(0)
            ids.append(1000 + (7 * ids[-1] + 3 * len(ids)) % 20000)
            yield [(ids[-1], None, ())]


class Served(StreamedBackend[Any]):
    """All of a streaming backend except the engine."""

    reproducible = True

    @classmethod
    async def load(cls, model: str, options: Any = None) -> Served:
        return cls(await asyncio.to_thread(load_vocabulary, model))

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary, 2000)
        self.identity = {"engine": "by hand"}
        self.freed = 0

    def _source(self, prompt: Prompt, request: OpenRequest) -> TokenSource:
        return Scripted(self)

    async def _free_engine(self) -> None:
        assert not self.streams
        self.freed += 1
        assert self.freed == 1


class TestStreamed(BackendTests):
    @pytest.fixture
    def backend(self, vocabulary: Vocabulary) -> Backend:
        return Served(vocabulary)

    @pytest.fixture
    def make(self, vocabulary: Vocabulary) -> Callable[[], Awaitable[Backend]]:
        async def made() -> Backend:
            return Served(vocabulary)

        return made

    @pytest.fixture
    def control_texts(self) -> Sequence[str]:
        return ("<|im_start|>", "<|im_end|>")


@pytest.fixture(scope="module")
def vocabulary(embedded_model: Path) -> Vocabulary:
    return load_vocabulary(str(embedded_model))


async def take(proposal: object, count: int) -> list[int]:
    ids: list[int] = []
    async for chunk in proposal:  # type: ignore[attr-defined]
        ids += [token.id for token in chunk]
        if len(ids) >= count:
            break
    return ids[:count]


async def test_an_accepted_drawing_goes_on_and_a_rejected_one_is_aborted() -> None:
    source = Source()
    session = StreamedSession(source, Prompt([7, 8]), 100)
    first, other = await session.propose([1, 2], 3, ahead=50)
    assert await take(first, 3) == await take(other, 3) == [9, 10, 11]
    await other.aclose()
    assert source.open == 1
    assert await session.commit(first, 3, go_on=True) == 0
    (second,) = await session.propose([3], 3, ahead=47)
    assert second is first
    assert await take(second, 3) == [12, 13, 14]
    assert len(source.requests) == 2
    await asyncio.sleep(0.01)
    over = second.drawn - 2
    assert await session.commit(second, 2) == over
    assert source.open == 0
    (third,) = await session.propose([4], 2)
    assert source.requests == source.requests[:2]
    assert await take(third, 2) == [14, 15]
    assert source.requests[-1].ids == (7, 8, 9, 10, 11, 12, 13)
    await session.aclose()


@pytest.mark.parametrize("late_end", [True, False])
async def test_a_drawing_that_is_over_does_not_go_on(late_end: bool) -> None:
    """Also while its stream has not ended yet."""
    source = Source(late_end=late_end)
    session = StreamedSession(source, Prompt([7, 8]), 100)
    (first,) = await session.propose([1], 2)
    assert await take(first, 2) == [9, 10]
    assert await session.commit(first, 2, go_on=True) == 0
    (second,) = await session.propose([2], 2)
    assert await take(second, 2) == [11, 12]
    await session.aclose()
    await asyncio.sleep(0.1)
    assert source.open == 0


async def test_the_end_of_an_answer_is_marked() -> None:
    session = StreamedSession(Source(until=10), Prompt([7, 8]), 100)
    (proposal,) = await session.propose([1], 5)
    tokens = [token async for chunk in proposal for token in chunk]
    assert [(t.id, t.text, t.last) for t in tokens] == [(9, "9 ", False), (EOS, "", True)]
    await session.aclose()


async def test_failures_are_told_without_their_text_and_closing_twice_is_fine() -> None:
    source = Source()
    session = StreamedSession(source, Prompt([7]), 100)
    (proposal,) = await session.propose([1], 50)
    await take(proposal, 2)
    source.broken = True
    with pytest.raises(BackendError) as caught:
        await take(proposal, 50)
    assert "secret" not in str(caught.value)
    proposal.halt()
    proposal.halt()
    await session.commit(proposal, 1)
    await proposal.aclose()
    await proposal.aclose()
    with pytest.raises(ProtocolError):
        await session.commit(proposal, 1)
    await session.aclose()
    await session.aclose()
    assert source.open == 0


async def test_closing_a_session_aborts_what_was_drawn_ahead() -> None:
    source = Source()
    session = StreamedSession(source, Prompt([7]), 100)
    proposals = await session.propose([1, 2, 3], 2, ahead=90)
    for proposal in proposals:
        await take(proposal, 2)
    await session.commit(proposals[1], 2, go_on=True)
    assert source.open == 3
    await session.aclose()
    assert source.open == 0


def test_entropy_of_the_likeliest_tokens_is_a_bound_that_can_pass_any_threshold() -> None:
    assert entropy_of([]) == 0
    assert entropy_of([math.log(0.1)] * 5) == pytest.approx(math.log(10))
    assert entropy_of([math.log(0.9), -math.inf]) == pytest.approx(-math.log(0.9))
    whole = [p / sum(range(1, 1001)) for p in range(1, 1001)]
    true = -sum(p * math.log(p) for p in whole)
    assert 5 < entropy_of([math.log(p) for p in whole]) < true
