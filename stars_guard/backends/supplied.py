"""A backend that generates nothing: its caller supplies what some other model wrote, and gets it judged.

The caller reads the guard's events. At each `stars_guard.core.events.Drawing` it supplies as many texts as are asked
for, on its own thread or loop, and reads on. So a model that cannot be generated from in segments goes through the same
decisions and leaves the same record as one that can: whole answers are regenerated, or the pieces of a stream are
judged one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence

from stars_guard.backends.base import Backend, Proposal, Session
from stars_guard.core.grammar import Grammar
from stars_guard.core.messages import Message
from stars_guard.core.sampling import Sampling
from stars_guard.core.segments import Token
from stars_guard.core.tools import Toolset
from stars_guard.errors import BackendError

__all__ = ["MOST_TOKENS", "SuppliedBackend"]

MOST_TOKENS = 1_000_000


class _Proposal(Proposal):
    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens

    @property
    def drawn(self) -> int:
        return len(self._tokens)

    async def __aiter__(self) -> AsyncIterator[Sequence[Token]]:
        yield self._tokens

    def halt(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class _Session(Session):
    prompt_tokens = 0
    room = MOST_TOKENS

    def __init__(self, handed: deque[list[Token]]) -> None:
        self._handed = handed

    async def propose(self, seeds: Sequence[int], limit: int, *, ahead: int = 0) -> list[Proposal]:
        if len(self._handed) < len(seeds):
            raise BackendError(f"{len(seeds)} texts were to be handed in, {len(self._handed)} were")
        return [_Proposal(self._handed.popleft()[:limit]) for _ in seeds]

    async def commit(self, proposal: Proposal, length: int, *, go_on: bool = False) -> int:
        return proposal.drawn - length

    async def aclose(self) -> None:
        self._handed.clear()


class SuppliedBackend(Backend):
    """For one call.

    Args:
        model: the name of what writes, for the record.
    """

    supplied = True

    def __init__(self, model: str) -> None:
        self.identity = {"engine": "handed in", "model": model}
        self._handed: deque[list[Token]] = deque()

    def supply(self, text: str, *, tokens: int = 1, last: bool = True) -> None:
        """Hand in one proposal.

        Args:
            tokens: how many the model counts for it.
            last: whether the answer ends with it.
        """
        rest = [Token(0, "") for _ in range(min(tokens, MOST_TOKENS // 2) - 1)]
        self._handed.append([Token(0, text), *rest, *([Token(0, "", last=True)] if last else [])])

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
        return _Session(self._handed)

    async def aclose(self) -> None:
        self._handed.clear()
