"""Sessions and proposals of the transformers backend: each proposal is a lane, one row of a batch in lockstep."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stars_guard.backends._slots import Row, SlotModel
from stars_guard.backends._token_sessions import Generated, TokenProposal, TokenSession
from stars_guard.backends.base import OpenRequest, Proposal
from stars_guard.errors import BackendError
from stars_guard.prompting.prompt import Prompt

if TYPE_CHECKING:
    from stars_guard.backends._grammar import Matcher

__all__ = ["Lane", "LaneSession"]


class Lane(TokenProposal):
    """One proposal."""

    def __init__(self, session: LaneSession, row: Row, seed: int, limit: int, matcher: Matcher | None) -> None:
        super().__init__(session, session.eos_ids, limit)
        self.row = row
        self.matcher = matcher
        self.asked = session.asked
        self._prefix = session.ids
        self._base = len(session.ids) - 1
        self._random = random.Random(seed)  # noqa: S311

    @property
    def live(self) -> bool:
        """Whether it takes part in the next step."""
        return not (self.halted or self.complete)

    @property
    def length(self) -> int:
        """Positions of the cache before its last token."""
        return self._base + self.drawn

    @property
    def last_id(self) -> int:
        """Its last token, or the prefix's."""
        return self._generated[-1].token.id if self._generated else self._prefix[self._base]

    @property
    def seen(self) -> list[int]:
        """Ids of prompt and answer."""
        return [*self._prefix[: self._base + 1], *self.ids]

    def uniform(self) -> float:
        """A number in [0, 1) for its next token."""
        return self._random.random()

    def step(self, token: int, entropy: float | None, projections: tuple[float, ...]) -> Generated | BackendError:
        """What a token makes of it, or why it cannot go on by it: one lane's failure is not the others'."""
        try:
            if self.matcher is not None:
                self.matcher.accept(token)
            return self.read(token, entropy, projections)
        except BackendError as exc:
            return exc
        except Exception as exc:
            return BackendError(f"the tokenizer failed: {type(exc).__name__}")

    async def aclose(self) -> None:
        await super().aclose()
        self.row.busy = False


class LaneSession(TokenSession[Lane]):
    """One call's rows.

    Args:
        begin: gives a matcher at the grammar's beginning, if there is a grammar.
        join: lets lanes take part from the next step on.
    """

    def __init__(
        self,
        prompt: Prompt,
        request: OpenRequest,
        decode: Callable[[Sequence[int]], str],
        *,
        slots: SlotModel,
        eos_ids: frozenset[int],
        begin: Callable[[], Matcher] | None,
        join: Callable[[Sequence[Lane]], None],
    ) -> None:
        super().__init__(prompt, slots.context, decode)
        self.asked = request
        self.eos_ids = eos_ids
        self._slots = slots
        self._begin = begin
        self._join = join
        self._rows: list[Row] = []

    async def prefill(self) -> None:
        """Read the prompt, except its last token."""
        await self._read(self._source(), len(self.ids) - 1)

    def _source(self) -> Row:
        """The row that holds most of the prefix."""
        if not self._rows:
            self._rows.append(self._slots.take_row())
        return max(self._rows, key=lambda row: row.agreed)

    async def _read(self, row: Row, base: int) -> None:
        """Read what a row lacks of the prefix's first positions."""
        if row.agreed < base:
            await self._slots.prefill(row, self.ids[:base])

    async def rewind(self, tokens: int) -> None:
        await super().rewind(tokens)
        for row in self._rows:
            row.agreed = min(row.agreed, len(self.ids) - 1)

    async def propose(self, seeds: Sequence[int], limit: int, *, ahead: int = 0) -> list[Proposal]:
        self.check_open()
        matchers = [self._begin() if self._begin else None for _ in seeds]
        base = len(self.ids) - 1
        # running on costs as much as any step here, so it is done only for a judge that needs the state at the boundary
        limit += min(ahead, 1) if self.asked.directions else 0
        source = self._source()
        free = sorted((row for row in self._rows if not row.busy), key=lambda row: -row.agreed)
        while len(free) < len(seeds):
            row = self._slots.take_row()
            self._rows.append(row)
            free.append(row)
        lanes = [
            Lane(self, row, seed, limit, matcher)
            for row, seed, matcher in zip(free[: len(seeds)], seeds, matchers, strict=True)
        ]
        for lane in lanes:
            lane.row.busy = True
        self.proposals.update(lanes)
        try:
            # what another session has generated is not in any row yet
            await self._read(source, base)
            await self._slots.align(source, [lane.row for lane in lanes], base, base + limit + 1)
            self.check_open()
        except BaseException:
            for lane in lanes:
                await lane.aclose()
            raise
        self._join(lanes)
        return list(lanes)

    async def commit(self, proposal: Proposal, length: int, *, go_on: bool = False) -> int:
        base = len(self.ids) - 1
        lane = self.extend(proposal, length)
        lane.row.agreed = base + length
        await lane.aclose()
        return lane.drawn - length

    async def aclose(self) -> None:
        await super().aclose()
        rows, self._rows = self._rows, []
        self._slots.give_rows(rows)
