"""A backend whose tokens you choose: for tests of policies, ours and yours."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence

from stars_guard.backends.base import Backend, OpenRequest, Proposal, Session, closed
from stars_guard.core.directions import Directions
from stars_guard.core.messages import Message
from stars_guard.core.segments import Token
from stars_guard.errors import ContextTooLong, ProtocolError
from stars_guard.prompting.reasoning import Reasoning
from stars_guard.prompting.tool_calls import HERMES

__all__ = ["Script", "ScriptedBackend"]

Script = Callable[[Sequence[Message], tuple[str, ...], random.Random], str | None]
"""Gives the next token's text from the messages, the tokens so far and a seeded generator; None ends the answer."""

State = Callable[[tuple[str, ...]], Sequence[float]]
"""Gives a hidden state from the tokens so far."""


class _Proposal(Proposal):
    def __init__(self, session: _Session, seed: int, limit: int) -> None:
        self._session = session
        self._random = random.Random(seed)  # noqa: S311
        self._given = 0
        self.limit = limit
        self.texts: list[str | None] = []
        self.halted = False

    @property
    def drawn(self) -> int:
        return len(self.texts)

    @property
    def over(self) -> bool:
        return self.halted or self.drawn >= self.limit or None in self.texts

    async def __aiter__(self) -> AsyncIterator[Sequence[Token]]:
        backend = self._session.backend
        while self._given < self.drawn or not self.over:
            backend.check_open()
            for _ in range(backend.chunk):
                if not self.over:
                    self.texts.append(backend.script(self._session.messages, self._so_far(), self._random))
            start, self._given = self._given, self.drawn
            yield [self._token(number) for number in range(start, self.drawn)]

    def _token(self, number: int) -> Token:
        text = self.texts[number]
        said = (*self._session.prefix, *(text or "" for text in self.texts[:number]))
        projections = self._session.backend.projections(said, self._session.directions)
        backend = self._session.backend
        return Token(backend.token_id(text or ""), text or "", last=text is None, projections=projections)

    def _so_far(self) -> tuple[str, ...]:
        return (*self._session.prefix, *(text or "" for text in self.texts))

    def rebase(self, length: int) -> None:
        """Count from ``length`` tokens later on."""
        self.texts = self.texts[length:]
        self.limit -= length
        self._given = 0

    def halt(self) -> None:
        self.halted = True

    async def aclose(self) -> None:
        self.halted = True
        self._session.open.discard(self)


class _Session(Session):
    draws_ahead = True
    rewinds = True

    def __init__(self, backend: ScriptedBackend, messages: Sequence[Message]) -> None:
        self.backend = backend
        self.messages = tuple(messages)
        self.directions: tuple[Directions, ...] = ()
        self.prefix: tuple[str, ...] = ()
        self.prompt_tokens = sum(len(message.content.split()) for message in messages)
        self.room = backend.context - self.prompt_tokens
        self.open: set[_Proposal] = set()
        self._closed = False
        self._running: _Proposal | None = None

    async def propose(self, seeds: Sequence[int], limit: int, *, ahead: int = 0) -> list[Proposal]:
        self.backend.check_open()
        if self._closed:
            raise ProtocolError("the session is closed")
        running, self._running = self._running, None
        proposals = [running] if running in self.open else []
        proposals += [_Proposal(self, seed, limit + ahead) for seed in seeds[len(proposals) :]]
        self.open.update(proposals)
        return list(proposals)

    async def commit(self, proposal: Proposal, length: int, *, go_on: bool = False) -> int:
        if not isinstance(proposal, _Proposal) or proposal not in self.open or not 0 <= length <= proposal.drawn:
            raise ProtocolError("only what an open proposal of this session has generated can be committed")
        self.prefix += tuple(text or "" for text in proposal.texts[:length])
        if go_on and not proposal.halted and proposal.limit > length:
            proposal.rebase(length)
            self._running = proposal
            return 0
        await proposal.aclose()
        return proposal.drawn - length

    async def rewind(self, tokens: int) -> None:
        if self.open or not 0 <= tokens <= len(self.prefix):
            raise ProtocolError("only what was committed can be taken back, and only while no proposal is open")
        self.prefix = self.prefix[: len(self.prefix) - tokens]

    async def follow(self, tokens: Sequence[Token]) -> None:
        if self.open:
            raise ProtocolError("a proposal is open")
        self.prefix += tuple(token.text for token in tokens)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.backend.closed_with_open += len(self.open)
        self.backend.sessions -= 1
        for proposal in list(self.open):
            await proposal.aclose()


class ScriptedBackend(Backend):
    """Generates what ``script`` says. A grammar is the script's to keep to; tool calls are in the form ``HERMES``.

    Args:
        context: words and tokens that fit.
        chunk: tokens that a proposal generates at a time.
        reasoning: how the reasoning before the answer is marked; None where the script writes none.
        state: gives the model's hidden state after the tokens so far, for tests with a judge of type ``probe``.

    Attributes:
        sessions: how many are open now.
        closed_with_open: proposals that were still open when their session was closed.
    """

    reproducible = True

    def __init__(
        self,
        script: Script,
        *,
        context: int = 100_000,
        chunk: int = 1,
        reasoning: Reasoning | None = None,
        state: State | None = None,
    ) -> None:
        self.script = script
        self.state = state
        self.context = context
        self.chunk = chunk
        self.reasoning = reasoning
        self.identity = {"engine": "scripted", "model": "scripted"}
        self.sessions = 0
        self.closed_with_open = 0
        self._closed = False
        self._ids: dict[str, int] = {}

    def token_id(self, text: str) -> int:
        """A stable id for a token's text."""
        return self._ids.setdefault(text, len(self._ids))

    def check_open(self) -> None:
        """Raise what a closed backend says to every call."""
        if self._closed:
            raise closed()

    @property
    def dead(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    async def check_directions(self, directions: Sequence[Directions]) -> None:
        if self.state is None:
            await super().check_directions(directions)

    def projections(self, so_far: tuple[str, ...], directions: Sequence[Directions]) -> tuple[float, ...]:
        """The values of directions on the state after some tokens."""
        if self.state is None or not directions:
            return ()
        state = tuple(self.state(so_far))
        return tuple(value for one in directions for value in one.values(state))

    async def open(self, request: OpenRequest) -> Session:
        self.check_open()
        session = _Session(self, request.messages)
        session.directions = request.directions
        tools, grammar = request.tools, request.grammar
        if tools is not None and tools.tools:
            session.form, grammar = HERMES, HERMES.grammar(tools)
        session.grammar = grammar
        session.reasoning = None if grammar is not None and grammar.whole else self.reasoning
        if session.room < 1:
            raise ContextTooLong(f"the prompt has {session.prompt_tokens} words and the context is {self.context}")
        self.sessions += 1
        return session

    async def aclose(self) -> None:
        self._closed = True
