"""A backend that generates nothing: its caller supplies what some other model wrote, and gets it judged.

The caller reads the guard's events. At each `stars_guard.core.events.Drawing` it supplies as many texts as are asked
for, on its own thread or loop, and reads on. So a model that cannot be generated from in segments goes through the same
decisions and leaves the same record as one that can: whole answers are regenerated, or the pieces of a stream are
judged one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence

from stars_guard.backends.base import Backend, OpenRequest, Proposal, Session, closed
from stars_guard.core.segments import Token
from stars_guard.errors import BackendError, ProtocolError

__all__ = ["MOST_TOKENS", "SuppliedBackend"]

MOST_TOKENS = 1_000_000


class _Proposal(Proposal):
    def __init__(self, session: _Session, tokens: Sequence[Token]) -> None:
        self._session = session
        self._tokens = tokens
        self._given = False

    @property
    def drawn(self) -> int:
        return len(self._tokens)

    async def __aiter__(self) -> AsyncIterator[Sequence[Token]]:
        if not self._given:
            self._given = True
            yield self._tokens

    def halt(self) -> None:
        """What was supplied is whole already."""

    async def aclose(self) -> None:
        self._session.proposals.discard(self)


class _Session(Session):
    prompt_tokens = 0
    room = MOST_TOKENS

    def __init__(self, backend: SuppliedBackend) -> None:
        self._backend = backend
        self._closed = False
        self.proposals: set[_Proposal] = set()

    async def propose(self, seeds: Sequence[int], limit: int, *, ahead: int = 0) -> list[Proposal]:
        if self._closed:
            raise ProtocolError("the session is closed")
        proposals = [_Proposal(self, tokens[:limit]) for tokens in self._backend.take(len(seeds))]
        self.proposals.update(proposals)
        return list(proposals)

    def forms_of(self, text: str) -> tuple[str, ...]:
        return self._backend.forms_of(text)

    async def commit(self, proposal: Proposal, length: int, *, go_on: bool = False) -> int:
        if proposal not in self.proposals or not 0 <= length <= proposal.drawn:
            raise ProtocolError("only what an open proposal of this session holds can be committed")
        await proposal.aclose()
        return proposal.drawn - length

    async def aclose(self) -> None:
        self._closed = True
        self.proposals.clear()


class SuppliedBackend(Backend):
    """For one call.

    Args:
        model: the name of what writes, for the record.
    """

    supplied = True

    def __init__(self, model: str) -> None:
        self.identity = {"engine": "handed in", "model": model}
        self._supplied: deque[list[Token]] = deque()
        self._forms: dict[str, tuple[str, ...]] = {}
        self._closed = False

    def supply(self, text: str, *, tokens: int = 1, last: bool = True, forms: Sequence[str] = ()) -> None:
        """Supply one proposal.

        Args:
            forms: other forms in which somebody will read it. Judges that veto read them too.
            tokens: how many the model counts for it.
            last: whether the answer ends with it.
        """
        self._forms[text] = tuple(dict.fromkeys((*self._forms.get(text, ()), *forms)))
        rest = [Token(0, "") for _ in range(min(tokens, MOST_TOKENS // 2) - 1)]
        self._supplied.append([Token(0, text), *rest, *([Token(0, "", last=True)] if last else [])])

    def forms_of(self, text: str) -> tuple[str, ...]:
        """The forms that were supplied with a text."""
        return self._forms.get(text, ())

    def take(self, count: int) -> list[list[Token]]:
        """Take what was supplied first.

        Raises:
            BackendError: less was supplied than is asked for, or the backend is closed.
        """
        if self._closed:
            raise closed()
        if len(self._supplied) < count:
            raise BackendError(f"{count} texts were asked for, {len(self._supplied)} were supplied")
        return [self._supplied.popleft() for _ in range(count)]

    @property
    def dead(self) -> bool:
        return self._closed

    async def open(self, request: OpenRequest) -> Session:
        if self._closed:
            raise closed()
        return _Session(self)

    async def aclose(self) -> None:
        self._closed = True
        self._supplied.clear()
