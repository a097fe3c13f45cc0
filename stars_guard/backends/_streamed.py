"""Sessions over an engine that streams token ids: what vLLM in process and vLLM over HTTP have in common.

The engine keeps the keys and values of a prefix it has seen, so a proposal is a request whose prompt is the accepted
prefix. Generated ahead, it runs on past its boundary while it is judged. Once it is accepted, its next tokens are
already the first proposal of the next segment.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from stars_guard.backends._output_rows import OutputRows
from stars_guard.backends._token_sessions import TokenBackend, TokenProposal, TokenSession
from stars_guard.backends.base import OpenRequest, Proposal
from stars_guard.core.directions import Directions
from stars_guard.engines.loading import Vocabulary
from stars_guard.errors import BackendError, InputError, StarsGuardError
from stars_guard.prompting.prompt import Prompt

__all__ = ["Chunk", "Request", "StreamedBackend", "StreamedSession", "TokenSource"]

O = TypeVar("O", bound=BaseModel)  # noqa: E741

Chunk = Sequence[tuple[int, float | None, tuple[float, ...]]]
"""Token ids with their entropies and projections: None and empty where they were not asked for."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one proposal asks of the engine.

    Attributes:
        ids: the prefix.
        seed: of the generation.
        boundary: where the segment ends, in tokens.
        max_tokens: the most to generate.
    """

    ids: tuple[int, ...]
    seed: int
    boundary: int
    max_tokens: int


class TokenSource(ABC):
    """Where a session's tokens come from.

    Attributes:
        eos_ids: tokens that end an answer.
        streams: of the backend.
    """

    eos_ids: frozenset[int]
    streams: set[asyncio.Task[None]]

    @abstractmethod
    def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Generate tokens. Closing the generator, or cancelling the task in it, aborts the request in the engine.

        Raises:
            BackendError: the engine failed.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of some tokens, special ones left out."""

    def leave(self) -> None:
        """The session is closed and asks for nothing more. May be called twice."""


class _Proposal(TokenProposal):
    def __init__(self, session: StreamedSession, request: Request) -> None:
        super().__init__(session, session.source.eos_ids, request.max_tokens)
        self._source = session.source
        self._task = asyncio.get_running_loop().create_task(self._pump(request))
        session.source.streams.add(self._task)
        self._task.add_done_callback(session.source.streams.discard)

    async def _pump(self, request: Request) -> None:
        error: StarsGuardError | None = None
        try:
            async with aclosing(self._source.generate(request)) as stream:
                async for chunk in stream:
                    for generated in chunk:
                        self.append(self.read(*generated))
        except StarsGuardError as exc:
            error = exc
        except Exception as exc:
            error = BackendError(f"the engine failed: {type(exc).__name__}", hint="see the engine's own log")
        finally:
            self.finish(error)

    @property
    def running(self) -> bool:
        """Whether the engine generates on."""
        return not self._task.done() and not self._task.cancelling()

    def halt(self) -> None:
        super().halt()
        # When all was generated the stream ends by itself, and its connection can be used again. A second cancel would
        # interrupt the cleaning up after the first.
        if not self.complete and self.running:
            self._task.cancel()

    async def aclose(self) -> None:
        await super().aclose()
        if not (self.complete and self.running):
            await asyncio.gather(self._task, return_exceptions=True)


class StreamedSession(TokenSession[_Proposal]):
    """One call's prefix.

    Args:
        source: of its tokens.
        prompt: templated and encoded.
        context: of the model, in tokens.
    """

    draws_ahead = True

    def __init__(self, source: TokenSource, prompt: Prompt, context: int) -> None:
        super().__init__(prompt, context, source.decode)
        self.source = source
        self._ahead: _Proposal | None = None

    async def propose(self, seeds: Sequence[int], limit: int, *, ahead: int = 0) -> list[Proposal]:
        self.check_open()
        running, self._ahead = self._ahead, None
        proposals = [running] if running in self.proposals else []
        ids = tuple(self.ids)
        proposals += [_Proposal(self, Request(ids, seed, limit, limit + ahead)) for seed in seeds[len(proposals) :]]
        self.proposals.update(proposals)
        return list(proposals)

    async def commit(self, proposal: Proposal, length: int, *, go_on: bool = False) -> int:
        own = self.extend(proposal, length)
        if go_on and not own.halted and (own.drawn > length or (own.running and not own.complete)):
            own.rebase(length)
            self._ahead = own
            return 0
        await own.aclose()
        return own.drawn - length

    async def aclose(self) -> None:
        self.source.leave()
        await super().aclose()


class StreamedBackend(TokenBackend[O]):
    """An engine that streams token ids.

    Attributes:
        vocabulary: of its model.
        context: positions that the engine gives to a sequence.
        rows: the output rows of its model that hold directions.
        streams: what reads from the engine now. An event loop itself holds tasks only weakly.
    """

    def __init__(self, vocabulary: Vocabulary, context: int, rows: OutputRows | None = None) -> None:
        super().__init__()
        self.rows = rows or OutputRows()
        self.vocabulary = vocabulary
        self.context = context
        self.streams: set[asyncio.Task[None]] = set()

    async def check_directions(self, directions: Sequence[Directions]) -> None:
        self.rows.check(directions)

    async def _open(self, request: OpenRequest) -> StreamedSession:
        if request.entropies and self.rows:
            raise InputError(
                "the method cards needs entropies, which vLLM does not give for a checkpoint with installed probes",
                hint="use the method stars, or serve the checkpoint without probes",
            )
        tokenizer, context = self.vocabulary.tokenizer, self.context
        prompt = await asyncio.to_thread(
            Prompt.of,
            tokenizer,
            request.messages,
            context,
            request.tools,
            request.grammar,
            self.template_settings(request),
        )
        return StreamedSession(self._source(prompt, request), prompt, context)

    @abstractmethod
    def _source(self, prompt: Prompt, request: OpenRequest) -> TokenSource:
        """Where the tokens of a session come from."""

    @abstractmethod
    async def _free_engine(self) -> None:
        """End the engine, or the connections to it."""

    async def _free(self) -> None:
        if streams := set(self.streams):
            for task in streams:
                task.cancel()
            await asyncio.wait(streams, timeout=5)
        await self._free_engine()
