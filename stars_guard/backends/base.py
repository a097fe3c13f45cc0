"""The seam to whatever draws tokens.

A backend opens one `Session` a call. A session holds the accepted prefix (prompt and kept segments) and draws
`Proposal` streams from it: each is a stream of tokens that can be cut anywhere and aborted at any time. Committing a
proposal makes its first tokens part of the prefix; the rest, and all other proposals, are rewound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from stars_guard.core.grammar import Grammar
from stars_guard.core.messages import Message
from stars_guard.core.sampling import Sampling
from stars_guard.core.segments import Token
from stars_guard.core.tools import Toolset
from stars_guard.prompting.tool_calls import ToolForm

__all__ = ["Backend", "Proposal", "Session"]


class Proposal(ABC):
    """A stream of tokens drawn after the session's prefix.

    Iterating gives chunks of one or more tokens. The stream ends by itself with the model's end of sequence (a token
    that is marked ``last``) or when it has drawn all that it may.
    """

    @property
    @abstractmethod
    def drawn(self) -> int:
        """Tokens drawn since the session's prefix, whether or not they have been looked at."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[Sequence[Token]]: ...

    @abstractmethod
    def halt(self) -> None:
        """Draw no more. What has been drawn can still be committed."""

    @abstractmethod
    async def aclose(self) -> None:
        """Abort the drawing if it still runs, and free what it holds. May be called twice."""


class Session(ABC):
    """One call's place in the engine.

    Attributes:
        prompt_tokens: length of the templated prompt.
        room: how many tokens the context can still take after the prompt.
        draws_ahead: whether its proposals can run on past a boundary at little cost while they are judged.
        form: how the model writes tool calls; None when it has no tools.
        grammar: what the answer is drawn under, if anything.
    """

    prompt_tokens: int
    room: int
    draws_ahead: bool = False
    form: ToolForm | None = None
    grammar: Grammar | None = None

    @abstractmethod
    async def propose(self, seeds: Sequence[int], limit: int, *, ahead: int = 0) -> list[Proposal]:
        """Begin one proposal a seed, all from the same prefix. A drawing that went on from `commit` is the first.

        Args:
            seeds: one 63-bit seed a proposal; the same seed after the same prefix gives the same tokens on engines
                that can promise that.
            limit: the most tokens of the segment; the boundary may come earlier, and the proposal is then halted.
            ahead: how many tokens each may draw past the boundary while it is judged; an engine may draw fewer.

        Raises:
            BackendError: the engine failed.
        """

    @abstractmethod
    async def commit(self, proposal: Proposal, length: int, *, go_on: bool = False) -> int:
        """Make the first ``length`` tokens of a proposal part of the prefix.

        Args:
            go_on: let the drawing run on, if it has not been halted: what it has drawn beyond ``length`` becomes the
                beginning of the first of the next proposals.

        Returns:
            How many tokens beyond ``length`` were thrown away.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Free the prefix and abort every proposal that is still open."""


class Backend(ABC):
    """An engine with one model loaded, shared by many calls.

    All methods are called on one event loop (`stars_guard.calling.portal`).

    Attributes:
        identity: what goes into the audit record: engine, model, revision or digest, dtype.
        reproducible: whether the same seed draws the same tokens whatever else runs.
        row_cost: what a second row in a decoding step costs, as a share of a step with one.
        active_calls: how many draw now; counted by the guard.
        supplied: whether texts are supplied by the caller, whole or in pieces of any length.
    """

    identity: dict[str, str]
    reproducible: bool = False
    row_cost: float = 0.1
    active_calls: int = 0
    supplied: bool = False

    @property
    def dead(self) -> bool:
        """Whether the engine is lost, and another must be started."""
        return False

    @abstractmethod
    async def open(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        entropies: bool = False,
        seeded: bool = False,
        tools: Toolset | None = None,
        grammar: Grammar | None = None,
    ) -> Session:
        """Template and encode a conversation, and make a place for its answer.

        Args:
            messages: not empty; their text never becomes control tokens.
            sampling: how tokens are drawn in this call.
            entropies: whether tokens must carry their entropy.
            seeded: whether the caller chose the seed, and so wants the same tokens again where the engine can. An
                engine for which seeds are dear may otherwise draw without.
            tools: what the model may call; forced and strict calls bring a grammar of their own.
            grammar: what the answer must look like. A proposal begins it anew: it is either the whole answer, or the
                grammar is in its beginning at each boundary.

        Raises:
            InputError: a tool or the grammar cannot be used.
            ContextTooLong: the prompt leaves no room.
            BackendError: the engine failed.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Free the engine. May be called twice."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
