"""The seam to whatever generates tokens.

A backend opens one `Session` a call. A session holds the accepted prefix (prompt and kept segments) and generates
`Proposal` streams from it: each is a stream of tokens that can be cut anywhere and aborted at any time. Committing a
proposal makes its first tokens part of the prefix; the rest, and all other proposals, are rewound.

`stars_guard.testing.BackendTests` checks that a backend does what this module says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel

from stars_guard.core.directions import Directions
from stars_guard.core.grammar import Grammar
from stars_guard.core.messages import Message
from stars_guard.core.sampling import Sampling
from stars_guard.core.segments import Token
from stars_guard.core.step_costs import StepCosts
from stars_guard.core.tools import Toolset
from stars_guard.errors import BackendUnavailable, InputError, ProtocolError
from stars_guard.prompting.reasoning import Reasoning
from stars_guard.prompting.tool_calls import ToolForm

__all__ = ["Backend", "LoadableBackend", "OpenRequest", "Proposal", "Session", "closed"]

O = TypeVar("O", bound=BaseModel)  # noqa: E741


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """What a call asks of a backend. A new field has a default, so that it never breaks a backend of yours.

    Attributes:
        messages: the conversation; not empty. Its text never becomes control tokens.
        sampling: how tokens are sampled in this call.
        entropies: whether tokens must carry their entropy.
        seeded: whether the caller chose the seed, and so wants the same tokens again where the engine can. An engine
            for which seeds are expensive may otherwise generate without.
        tools: what the model may call; forced and strict calls bring a grammar of their own.
        grammar: what the answer must look like. Each proposal starts at the grammar's beginning: it is either the whole
            answer, or the grammar is in its beginning at each boundary.
        chat_template_kwargs: variables of the model's chat template for this call, over those of the backend's options.
        directions: each token must carry their values, one after another, as its ``projections``. Only those are asked
            for that `Backend.check_directions` has passed.
        lazy: the session may never be asked for anything, so what is expensive waits for its first proposal.

    Raises:
        InputError: there are no messages.
    """

    messages: Sequence[Message]
    sampling: Sampling = field(default_factory=Sampling)
    entropies: bool = False
    seeded: bool = False
    tools: Toolset | None = None
    grammar: Grammar | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    directions: tuple[Directions, ...] = ()
    lazy: bool = False

    def __post_init__(self) -> None:
        if not self.messages:
            raise InputError("there are no messages", hint="pass at least one user message")


class Proposal(ABC):
    """A stream of tokens generated after the session's prefix.

    Iterating gives chunks of one or more tokens. The stream ends by itself with the model's end of sequence (a token
    that is marked ``last``) or when it has generated all that it may. A proposal that was halted or closed gives at
    most what it had generated, and ends. An iteration that was cancelled can be begun again; it goes on where it was.
    """

    @property
    @abstractmethod
    def drawn(self) -> int:
        """Tokens generated since the session's prefix, whether or not they have been looked at."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[Sequence[Token]]: ...

    def expect(self, tokens: int) -> None:
        """Nobody reads the next tokens before there are so many, or the last. So the iteration may give them together,
        which saves waking its reader for each."""

    @abstractmethod
    def halt(self) -> None:
        """Generate no more. What has been generated can still be committed. May be called twice."""

    @abstractmethod
    async def aclose(self) -> None:
        """Abort the generation if it still runs, and free what it holds: it can't be committed any more. May be called
        twice."""


class Session(ABC):
    """One call's place in the engine.

    Attributes:
        prompt_tokens: length of the templated prompt.
        room: how many tokens the context can still take after the prompt.
        draws_ahead: whether its proposals can run on past a boundary at little cost while they are judged.
        rewinds: whether it has `rewind` and `follow`. Without them an answer never goes back, and a policy's recovery
            instruction isn't used.
        form: how the model writes tool calls; None when it has no tools.
        grammar: what the answer is generated under, if anything.
        reasoning: how the model marks the reasoning before its answer; None where it has no marks, or may not reason.
    """

    prompt_tokens: int
    room: int
    draws_ahead: bool = False
    rewinds: bool = False
    form: ToolForm | None = None
    grammar: Grammar | None = None
    reasoning: Reasoning | None = None

    @abstractmethod
    async def propose(self, seeds: Sequence[int], limit: int, *, ahead: int = 0) -> list[Proposal]:
        """Begin one proposal a seed, all from the same prefix. A proposal that went on from `commit` is the first.

        Args:
            seeds: one 63-bit seed a proposal; the same seed after the same prefix gives the same tokens on engines
                that can promise that.
            limit: the most tokens of the segment; the boundary may come earlier, and the proposal is then halted.
            ahead: how many tokens each may generate past the boundary while it is judged; an engine may do fewer.

        Raises:
            BackendError: the engine failed; `BackendUnavailable` if the backend was closed meanwhile.
            ProtocolError: the session is closed.
        """

    @abstractmethod
    async def commit(self, proposal: Proposal, length: int, *, go_on: bool = False) -> int:
        """Make the first ``length`` tokens of a proposal part of the prefix. The proposal is then no longer open.

        Args:
            go_on: let the proposal run on, if it has not been halted: what it has generated beyond ``length`` becomes
                the beginning of the first of the next proposals.

        Returns:
            How many tokens beyond ``length`` were thrown away.

        Raises:
            ProtocolError: the proposal is not open, is another session's, or has fewer than ``length`` tokens. The
                prefix is then as it was.
        """

    async def rewind(self, tokens: int) -> None:
        """Take the last tokens of what was committed or followed out of the prefix again. No proposal is open then.

        Raises:
            ProtocolError: a proposal is open, or there are not so many tokens. The prefix is then as it was.
        """
        raise ProtocolError("this session cannot go back")

    async def follow(self, tokens: Sequence[Token]) -> None:
        """Append tokens that another session of the backend has generated to the prefix. No proposal is open then.

        Raises:
            ProtocolError: a proposal is open. The prefix is then as it was.
        """
        raise ProtocolError("this session cannot follow another")

    def forms_of(self, text: str) -> tuple[str, ...]:
        """Other forms in which somebody will read a proposal of that text. Judges that veto read them too."""
        return ()

    @abstractmethod
    async def aclose(self) -> None:
        """Free the prefix and abort every proposal that is still open. May be called twice."""


class Backend(ABC):
    """An engine with one model loaded, shared by many calls.

    All methods are called on one event loop (`stars_guard.calling.portal`).

    Attributes:
        identity: what goes into the audit record: engine, model, revision or digest, dtype.
        reproducible: whether the same seed generates the same tokens whatever else runs.
        row_cost: what a second row in a decoding step costs, as a share of a step with one, where nothing was measured.
        measured: what rows cost on this machine, once `measure` has found out.
        active_calls: how many generate now; counted by the guard.
        supplied: whether texts are supplied by the caller, whole or in pieces of any length.
    """

    identity: dict[str, str]
    reproducible: bool = False
    row_cost: float = 0.1
    measured: StepCosts | None = None
    active_calls: int = 0
    supplied: bool = False

    @property
    def dead(self) -> bool:
        """Whether the engine is lost or closed, and another must be loaded."""
        return False

    @property
    def step_costs(self) -> StepCosts:
        """What rows cost: as measured, or else by ``row_cost``."""
        return self.measured or StepCosts.line(self.row_cost)

    async def measure(self) -> None:
        """Measure what rows cost, if it can and has not. A guard asks for it before each call that weighs the cost.

        Set ``measured`` here in a backend of yours, or leave it and set ``row_cost``. It changes how soon an answer
        comes, and not what it is. An engine that fails here is no error; the call finds out by itself.
        """

    async def check_directions(self, directions: Sequence[Directions]) -> None:
        """Whether its tokens can carry the values of these directions.

        Raises:
            InputError: they can't; it says why.
        """
        if directions:
            raise InputError(
                "a judge of type probe reads the generator's hidden states, and this backend does not give them",
                hint="use the backend transformers, or vLLM with a checkpoint that `stars-guard probe install` made",
            )

    @abstractmethod
    async def open(self, request: OpenRequest) -> Session:
        """Template and encode a conversation, and make a place for its answer.

        Raises:
            InputError: a tool or the grammar cannot be used.
            ContextTooLong: the prompt leaves no room.
            BackendError: the engine failed; `BackendUnavailable` if the backend was closed.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Free the engine. May be called twice. Calls that run end with `BackendUnavailable`, and soon."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class LoadableBackend(Backend, Generic[O]):
    """A backend that can be named: ``Guard(backend=name, model=..., options=...)``.

    A package registers one as an entry point of the group ``stars_guard.backends``; nothing else needs to be touched.

    Attributes:
        options_model: a pydantic model of the backend's options. Forbid extra fields, so that a misspelt option is an
            error that names the nearest one.
        auto_rank: ``backend="auto"`` takes the highest that has no `objection`; 0 is never taken so.
    """

    options_model: ClassVar[type[BaseModel]]
    auto_rank: ClassVar[int] = 0

    @classmethod
    @abstractmethod
    async def load(cls, model: str, options: O) -> Self:
        """Load a model. What was opened is closed again if this fails or is cancelled.

        Raises:
            BackendError: there is no such model, or it cannot be loaded.
            MissingExtra: an optional dependency is not installed.
        """

    @classmethod
    def objection(cls, model: str, options: Mapping[str, Any]) -> str:
        """Why ``backend="auto"`` should not take it for a model, or an empty string. Blocks."""
        return ""


def closed(what: str = "the backend") -> BackendUnavailable:
    """The error of a call to what has been closed."""
    return BackendUnavailable(f"{what} has been closed", hint="load it again; a guard does so for its next call")
