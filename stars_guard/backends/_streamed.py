"""Sessions over an engine that streams token ids: what vLLM in process and vLLM over HTTP have in common.

The engine keeps the keys and values of a prefix it has seen, so a proposal is a request whose prompt is the accepted
prefix. Drawn ahead, it runs on past its boundary while it is judged; accepted, its next tokens are already the first
proposal of the next segment.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from stars_guard.backends._vocabulary import Prompt
from stars_guard.backends.base import Proposal, Session
from stars_guard.core.segments import Token
from stars_guard.errors import BackendError, ProtocolError, StarsGuardError
from stars_guard.prompting.detokenizer import Detokenizer

__all__ = ["Drawn", "Request", "StreamedSession", "TokenSource"]

Drawn = Sequence[tuple[int, float | None]]
"""Token ids with their entropies, where asked for."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one proposal asks of the engine.

    Attributes:
        ids: the prefix.
        seed: of the draw.
        boundary: where the segment ends, in tokens.
        max_tokens: the most to draw.
    """

    ids: tuple[int, ...]
    seed: int
    boundary: int
    max_tokens: int


class TokenSource(ABC):
    """Where a session's tokens come from.

    Attributes:
        eos_ids: tokens that end an answer.
    """

    eos_ids: frozenset[int]

    @abstractmethod
    def draw(self, request: Request) -> AsyncGenerator[Drawn, None]:
        """Draw tokens. Closing the generator, or cancelling the task in it, aborts the request in the engine.

        Raises:
            BackendError: the engine failed.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of some tokens, special ones left out."""


_ending: set[asyncio.Task[None]] = set()
"""Streams that are about to end by themselves; the loop itself holds tasks only weakly."""


class _Proposal(Proposal):
    def __init__(self, session: StreamedSession, request: Request) -> None:
        self._session = session
        self._limit = request.max_tokens
        self._drawn: list[tuple[int, float | None]] = []
        self._tokens: list[Token] = []
        self._states: list[Detokenizer] = []
        self._given = 0
        self._news = asyncio.Event()
        self._error: StarsGuardError | None = None
        self._task = asyncio.get_running_loop().create_task(self._pump(request))

    async def _pump(self, request: Request) -> None:
        source = self._session.source
        try:
            async with aclosing(source.draw(request)) as stream:
                async for drawn in stream:
                    self._drawn += drawn
                    self._news.set()
        except StarsGuardError as exc:
            self._error = exc
        except Exception as exc:
            self._error = BackendError(f"the engine failed: {type(exc).__name__}", hint="see the engine's own log")
        finally:
            self._news.set()

    @property
    def drawn(self) -> int:
        return len(self._drawn)

    @property
    def running(self) -> bool:
        """Whether the engine draws on."""
        return not self._task.done() and not self._task.cancelling()

    @property
    def ids(self) -> list[int]:
        """What was drawn since the session's prefix."""
        return [token for token, _ in self._drawn]

    def state(self, length: int) -> Detokenizer:
        """The detokeniser after ``length`` tokens."""
        return self._states[length - 1] if length else self._session.detokenizer

    def rebase(self, length: int) -> None:
        """Count from ``length`` tokens later on."""
        self._drawn, self._tokens, self._states = self._drawn[length:], self._tokens[length:], self._states[length:]
        self._given = 0
        self._limit -= length

    async def __aiter__(self) -> AsyncIterator[Sequence[Token]]:
        while True:
            if self._given < len(self._drawn):
                while len(self._tokens) < len(self._drawn):
                    self._read(*self._drawn[len(self._tokens)])
                fresh, self._given = self._tokens[self._given :], len(self._tokens)
                yield fresh
            elif not self._task.done():
                self._news.clear()
                await self._news.wait()
            elif self._error is not None:
                raise self._error
            else:
                return

    def _read(self, token: int, entropy: float | None) -> None:
        state, text = self.state(len(self._tokens)), ""
        last = token in self._session.source.eos_ids
        if not last:
            text, state = state.feed(token)
        self._tokens.append(Token(token, text, entropy=entropy, last=last))
        self._states.append(state)

    @property
    def complete(self) -> bool:
        """Whether all was drawn that may be: the stream then ends by itself, and its connection can be used again."""
        return self.drawn >= self._limit or (self.drawn > 0 and self._drawn[-1][0] in self._session.source.eos_ids)

    def halt(self) -> None:
        # a second cancel would interrupt the cleaning up after the first
        if not self.complete and self.running:
            self._task.cancel()

    async def aclose(self) -> None:
        self.halt()
        if self.complete and self.running:
            _ending.add(self._task)
            self._task.add_done_callback(_ending.discard)
        else:
            await asyncio.gather(self._task, return_exceptions=True)


class StreamedSession(Session):
    """One call's prefix, as token ids.

    Args:
        source: draws.
        prompt: templated and encoded.
        context: of the model, in tokens.
    """

    draws_ahead = True

    def __init__(self, source: TokenSource, prompt: Prompt, context: int) -> None:
        self.source = source
        self.form = prompt.form
        self.grammar = prompt.grammar
        self.detokenizer = Detokenizer(source.decode)
        self.prompt_tokens = len(prompt.ids)
        self.room = context - len(prompt.ids)
        self._ids = tuple(prompt.ids)
        self._open: set[_Proposal] = set()
        self._ahead: _Proposal | None = None

    async def propose(self, seeds: Sequence[int], limit: int, *, ahead: int = 0) -> list[Proposal]:
        running, self._ahead = self._ahead, None
        fresh = seeds if running is None else seeds[1:]
        proposals = [] if running is None else [running]
        proposals += [_Proposal(self, Request(self._ids, seed, limit, limit + ahead)) for seed in fresh]
        self._open.update(proposals)
        return list(proposals)

    async def commit(self, proposal: Proposal, length: int, *, go_on: bool = False) -> int:
        if not isinstance(proposal, _Proposal) or proposal not in self._open or length > proposal.drawn:
            raise ProtocolError("only what an open proposal of this session has drawn can be committed")
        self._ids += tuple(proposal.ids[:length])
        self.detokenizer = proposal.state(length)
        if go_on and (proposal.drawn > length or (proposal.running and not proposal.complete)):
            proposal.rebase(length)
            self._ahead = proposal
            return 0
        self._open.discard(proposal)
        await proposal.aclose()
        return proposal.drawn - length

    async def aclose(self) -> None:
        proposals, self._open = self._open, set()
        for proposal in proposals:
            proposal.halt()
        for proposal in proposals:
            await proposal.aclose()
