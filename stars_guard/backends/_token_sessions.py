"""What backends have in common whose engines take and give token ids: prefix, open proposals, detokenising, closing."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar
from weakref import WeakSet

from pydantic import BaseModel

from stars_guard.backends._step_times import step_times
from stars_guard.backends.base import LoadableBackend, OpenRequest, Proposal, Session, closed
from stars_guard.core.segments import Token
from stars_guard.core.step_costs import StepCosts
from stars_guard.errors import ProtocolError, StarsGuardError
from stars_guard.prompting.detokenizer import Detokenizer
from stars_guard.prompting.prompt import Prompt
from stars_guard.prompting.template_variables import shown_variables

__all__ = ["Generated", "TokenBackend", "TokenProposal", "TokenSession"]

logger = logging.getLogger("stars_guard.backends")

O = TypeVar("O", bound=BaseModel)  # noqa: E741
P = TypeVar("P", bound="TokenProposal")


@dataclass(frozen=True, slots=True)
class Generated:
    """One token of a proposal, and the detokeniser after it."""

    token: Token
    after: Detokenizer


class TokenProposal(Proposal):
    """Tokens as they come from an engine.

    Args:
        eos_ids: tokens that end an answer.
        limit: the most tokens to generate.
    """

    def __init__(self, session: TokenSession[Any], eos_ids: frozenset[int], limit: int) -> None:
        self.session = session
        self._before = session.detokenizer
        self._eos_ids = eos_ids
        self._limit = limit
        self._generated: list[Generated] = []
        self._given = 0
        # tokens that must be there before the reader is woken
        self._expected = 0
        self._news = asyncio.Event()
        self._over = False
        self._error: StarsGuardError | None = None
        self.halted = False

    @property
    def drawn(self) -> int:
        return len(self._generated)

    @property
    def ids(self) -> list[int]:
        """What was generated since the session's prefix."""
        return [one.token.id for one in self._generated]

    @property
    def complete(self) -> bool:
        """Whether all was generated that may be."""
        return self.drawn >= self._limit or (self.drawn > 0 and self._generated[-1].token.last)

    def after(self, length: int) -> Detokenizer:
        """The detokeniser after ``length`` tokens."""
        return self._generated[length - 1].after if length else self._before

    def read(self, token: int, entropy: float | None, projections: tuple[float, ...]) -> Generated:
        """What a token is after all that were generated before it. Changes nothing, and so may run on any thread."""
        after, text, last = self.after(self.drawn), "", token in self._eos_ids
        if not last:
            text, after = after.feed(token)
        return Generated(Token(token, text, entropy=entropy, last=last, projections=projections), after)

    def append(self, generated: Generated) -> None:
        """Let the iteration give one more token."""
        self._generated.append(generated)
        if len(self._generated) >= self._expected or generated.token.last:
            self._news.set()

    def finish(self, error: StarsGuardError | None = None) -> None:
        """No more is to come. The iteration ends, with the error if there is one, after all that was generated."""
        if not self._over:
            self._over, self._error = True, error
        self._news.set()

    def rebase(self, length: int) -> None:
        """Count from ``length`` tokens later on: they are part of the session's prefix now."""
        self._before = self.after(length)
        self._generated = self._generated[length:]
        self._limit -= length
        self._given = self._expected = 0

    def expect(self, tokens: int) -> None:
        self._expected = self._given + tokens

    async def __aiter__(self) -> AsyncIterator[Sequence[Token]]:
        while True:
            ready = len(self._generated) >= self._expected or self._over or self.complete
            if ready and self._given < len(self._generated):
                fresh, self._given = self._generated[self._given :], len(self._generated)
                yield [one.token for one in fresh]
            elif not self._over:
                self._news.clear()
                await self._news.wait()
            elif self._error is not None:
                raise self._error
            else:
                return

    def halt(self) -> None:
        self.halted = True
        self.finish()

    def fail(self, error: StarsGuardError) -> None:
        """The engine is lost: generate no more, and end the iteration with the error."""
        self.finish(error)
        self.halt()

    async def aclose(self) -> None:
        self.session.proposals.discard(self)
        self.halt()


class TokenSession(Session, Generic[P]):
    """One call's prefix as token ids, and the proposals that are open after it.

    Args:
        prompt: templated and encoded.
        context: of the model, in tokens.
        decode: the tokenizer's decoder.
    """

    rewinds = True

    def __init__(self, prompt: Prompt, context: int, decode: Callable[[Sequence[int]], str]) -> None:
        self.form = prompt.form
        self.grammar = prompt.grammar
        self.reasoning = prompt.reasoning
        self.prompt_tokens = len(prompt.ids)
        self.room = context - len(prompt.ids)
        self.ids = list(prompt.ids)
        # after the prompt, and after each token of the answer
        self._detokenizers = [Detokenizer(decode)]
        self.proposals: set[P] = set()
        self._closed = False
        self._failure: StarsGuardError | None = None

    @property
    def detokenizer(self) -> Detokenizer:
        """The detokeniser after the prefix."""
        return self._detokenizers[-1]

    def check_open(self) -> None:
        """Raise what a session that is closed, or whose engine is lost, says to a new proposal."""
        if self._closed:
            raise ProtocolError("the session is closed")
        if self._failure is not None:
            raise self._failure

    def extend(self, proposal: Proposal, length: int) -> P:
        """Make the first ``length`` tokens of an open proposal part of the prefix. Raises what `commit` does."""
        if proposal not in self.proposals or not 0 <= length <= proposal.drawn:
            raise ProtocolError("only what an open proposal of this session has generated can be committed")
        self.ids += proposal.ids[:length]
        self._detokenizers += [proposal.after(count) for count in range(1, length + 1)]
        return proposal

    async def rewind(self, tokens: int) -> None:
        self._check_idle()
        if not 0 <= tokens < len(self._detokenizers):
            raise ProtocolError(f"{tokens} tokens are to be taken back, and there are {len(self._detokenizers) - 1}")
        if tokens:
            # proposals that were closed may still read the old list
            self.ids = self.ids[:-tokens]
            del self._detokenizers[-tokens:]

    async def follow(self, tokens: Sequence[Token]) -> None:
        self._check_idle()
        for token in tokens:
            self._detokenizers.append(self.detokenizer if token.last else self.detokenizer.feed(token.id)[1])
        self.ids = [*self.ids, *(token.id for token in tokens)]

    def _check_idle(self) -> None:
        if self.proposals:
            raise ProtocolError(f"{len(self.proposals)} proposals are open")

    def fail(self, error: StarsGuardError) -> None:
        """The engine is lost: end every proposal with the error, and give it to who asks for more."""
        self._failure = error
        for proposal in self.proposals:
            proposal.fail(error)

    async def aclose(self) -> None:
        self._closed = True
        proposals = list(self.proposals)
        self.proposals.clear()
        for proposal in proposals:
            proposal.halt()
        for proposal in proposals:
            await proposal.aclose()


class TokenBackend(LoadableBackend[O]):
    """A backend whose sessions are `TokenSession`. Closing it ends them all.

    Attributes:
        measurable: whether its steps can be timed from here: nobody else uses the engine.
    """

    measurable: ClassVar[bool] = True

    def __init__(self) -> None:
        self._measuring = asyncio.Lock()
        self._was_measured = False
        self._template_settings: dict[str, Any] = {}
        self._sessions: WeakSet[TokenSession[Any]] = WeakSet()
        self._closed = False

    def use_template(self, settings: Mapping[str, Any], shown: str = "") -> None:
        """Set variables of the chat template for all calls, and say so in the identity.

        Args:
            shown: the template that the user gave, as `shown_template` has it.
        """
        if shown:
            self.identity = {**self.identity, "chat_template": shown}
        if settings:
            self._template_settings = dict(settings)
            self.identity = {**self.identity, "chat_template_kwargs": shown_variables(settings)}

    def template_settings(self, request: OpenRequest) -> dict[str, Any]:
        """The variables of the chat template for one call."""
        return {**self._template_settings, **request.chat_template_kwargs}

    @property
    def dead(self) -> bool:
        return self._closed

    async def measure(self) -> None:
        if not self.measurable or self._was_measured:
            return
        async with self._measuring:
            # beside other calls the figures would be theirs too; a later call asks again
            if self._was_measured or self.active_calls:
                return
            name = self.identity.get("model", "the engine")
            try:
                self.measured = StepCosts.measured(await step_times(self))
            except StarsGuardError as exc:
                logger.info("the steps of %s cannot be measured: %s", name, exc.message)
            self._was_measured = True
            if self.measured is not None:
                costs = ", ".join(f"{rows}: {cost:.2f}" for rows, cost in self.measured.points)
                logger.info("what a step of %s costs by its rows: %s", name, costs)

    async def open(self, request: OpenRequest) -> Session:
        if self._closed:
            raise closed()
        session = await self._open(request)
        if self._closed:
            await session.aclose()
            raise closed()
        self._sessions.add(session)
        return session

    @abstractmethod
    async def _open(self, request: OpenRequest) -> TokenSession[Any]:
        """A session for a request."""

    @abstractmethod
    async def _free(self) -> None:
        """Free the engine; called once."""

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        for session in list(self._sessions):
            session.fail(closed())
        await self._free()
