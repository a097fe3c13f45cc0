"""A backend whose tokens you choose: for tests of policies, ours and yours."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence

from stars_guard.backends.base import Backend, Proposal, Session
from stars_guard.errors import InputError
from stars_guard.segments import Message, Sampling, Token

__all__ = ["Script", "ScriptedBackend"]

Script = Callable[[Sequence[Message], tuple[str, ...], random.Random], str | None]
"""Gives the next token's text from the messages, the tokens so far and a seeded generator; None ends the answer."""


class _Proposal(Proposal):
    def __init__(self, session: _Session, seed: int, limit: int) -> None:
        self._session = session
        self._random = random.Random(seed)  # noqa: S311
        self._limit = limit
        self.drawn: list[str] = []

    async def __aiter__(self) -> AsyncIterator[Sequence[Token]]:
        session = self._session
        while self.finish is None:
            text = session.backend.script(session.messages, (*session.prefix, *self.drawn), self._random)
            self.drawn.append(text or "")
            if text is None:
                self.finish = "eos"
            elif len(self.drawn) >= self._limit:
                self.finish = "length"
            yield (Token(session.backend.token_id(text or ""), text or ""),)

    async def aclose(self) -> None:
        self._session.open.discard(self)


class _Session(Session):
    def __init__(self, backend: ScriptedBackend, messages: Sequence[Message]) -> None:
        self.backend = backend
        self.messages = tuple(messages)
        self.prefix: tuple[str, ...] = ()
        self.prompt_tokens = sum(len(message.content.split()) for message in messages)
        self.room = backend.context - self.prompt_tokens
        self.open: set[_Proposal] = set()

    async def propose(self, seeds: Sequence[int], limit: int) -> list[Proposal]:
        proposals = [_Proposal(self, seed, limit) for seed in seeds]
        self.open.update(proposals)
        return list(proposals)

    async def commit(self, proposal: Proposal, length: int) -> None:
        assert isinstance(proposal, _Proposal)  # noqa: S101
        self.prefix += tuple(proposal.drawn[:length])
        self.open.discard(proposal)

    async def aclose(self) -> None:
        self.backend.closed_with_open += len(self.open)
        self.backend.sessions -= 1
        self.open.clear()


class ScriptedBackend(Backend):
    """Draws what ``script`` says.

    Attributes:
        sessions: how many are open now.
        closed_with_open: proposals that were still open when their session was closed.
    """

    reproducible = True

    def __init__(self, script: Script, *, context: int = 100_000) -> None:
        self.script = script
        self.context = context
        self.identity = {"engine": "scripted", "model": "scripted"}
        self.sessions = 0
        self.closed_with_open = 0
        self._ids: dict[str, int] = {}

    def token_id(self, text: str) -> int:
        """A stable id for a token's text."""
        return self._ids.setdefault(text, len(self._ids))

    async def open(self, messages: Sequence[Message], sampling: Sampling, *, entropies: bool = False) -> Session:
        session = _Session(self, messages)
        if session.room < 1:
            raise InputError("the prompt is longer than the context")
        self.sessions += 1
        return session

    async def aclose(self) -> None:
        self.sessions = 0
