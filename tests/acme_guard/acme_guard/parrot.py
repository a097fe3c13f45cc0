"""A backend that repeats the last message, louder each time."""

from collections.abc import AsyncIterator, Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from stars_guard import (
    BackendUnavailable,
    ContextTooLong,
    LoadableBackend,
    OpenRequest,
    Proposal,
    ProtocolError,
    Session,
    Token,
)


class ParrotOptions(BaseModel):
    """The options of the backend. Unknown ones are errors, because extra fields are forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    times: int = Field(2, ge=1, description="how often the message is repeated")
    context: int = Field(4096, ge=2, description="words that fit, prompt and answer together")


class ParrotProposal(Proposal):
    """The next words, in capitals where the seed is odd."""

    def __init__(self, session: "ParrotSession", seed: int, limit: int) -> None:
        self._session = session
        self._shouts = bool(seed % 2)
        self._limit = limit
        self._given = 0
        self.tokens: list[Token] = []
        self.halted = False

    @property
    def drawn(self) -> int:
        return len(self.tokens)

    @property
    def _over(self) -> bool:
        return self.halted or self.drawn >= self._limit or (self.drawn > 0 and self.tokens[-1].last)

    async def __aiter__(self) -> AsyncIterator[Sequence[Token]]:
        while self._given < self.drawn or not self._over:
            self._session.backend.check_open()
            if not self._over:
                self.tokens.append(self._session.word(self._session.length + self.drawn, self._shouts))
            fresh, self._given = self.tokens[self._given :], self.drawn
            yield fresh

    def halt(self) -> None:
        self.halted = True

    async def aclose(self) -> None:
        self.halted = True
        self._session.open.discard(self)


class ParrotSession(Session):
    """One conversation. Its prefix is only a number of words here; a real model keeps their keys and values."""

    def __init__(self, backend: "ParrotBackend", request: OpenRequest) -> None:
        self.backend = backend
        self.prompt_tokens = sum(len(message.content.split()) for message in request.messages)
        self.room = backend.options.context - self.prompt_tokens
        self.length = 0
        self.open: set[ParrotProposal] = set()
        self._words = request.messages[-1].content.split() * backend.options.times
        self._closed = False

    def word(self, index: int, shouts: bool) -> Token:
        if index >= len(self._words):
            return Token(0, "", last=True)
        word = self._words[index]
        return Token(index + 1, f"{word.upper() if shouts else word} ")

    async def propose(self, seeds: Sequence[int], limit: int, *, ahead: int = 0) -> list[Proposal]:
        self.backend.check_open()
        if self._closed:
            raise ProtocolError("the session is closed")
        proposals = [ParrotProposal(self, seed, limit) for seed in seeds]
        self.open.update(proposals)
        return list(proposals)

    async def commit(self, proposal: Proposal, length: int, *, go_on: bool = False) -> int:
        if not isinstance(proposal, ParrotProposal) or proposal not in self.open or not 0 <= length <= proposal.drawn:
            raise ProtocolError("only what an open proposal of this session has generated can be committed")
        self.length += length
        await proposal.aclose()
        return proposal.drawn - length

    async def aclose(self) -> None:
        self._closed = True
        for proposal in list(self.open):
            await proposal.aclose()


class ParrotBackend(LoadableBackend[ParrotOptions]):
    """Repeats what it reads."""

    options_model = ParrotOptions
    reproducible = True

    def __init__(self, model: str, options: ParrotOptions) -> None:
        self.identity = {"engine": "acme/parrot", "model": model}
        self.options = options
        self._closed = False

    @classmethod
    async def load(cls, model: str, options: ParrotOptions) -> Self:
        return cls(model, options)

    @property
    def dead(self) -> bool:
        return self._closed

    def check_open(self) -> None:
        if self._closed:
            raise BackendUnavailable("the parrot has flown", hint="load it again; a guard does so for its next call")

    async def open(self, request: OpenRequest) -> Session:
        self.check_open()
        session = ParrotSession(self, request)
        if session.room < 1:
            raise ContextTooLong(f"the prompt has {session.prompt_tokens} words, and {self.options.context} fit")
        return session

    async def aclose(self) -> None:
        self._closed = True
