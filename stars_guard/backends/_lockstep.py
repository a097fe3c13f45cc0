"""The loop of the transformers backend: every live lane of every call is a row of a batch that goes a token a step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from stars_guard.backends._lanes import Lane
from stars_guard.backends._slots import SlotModel
from stars_guard.backends._states import FinalStates
from stars_guard.backends._token_sessions import Generated
from stars_guard.errors import StarsGuardError

if TYPE_CHECKING:
    from stars_guard.backends._kv import SlotCache

__all__ = ["Lockstep"]


class Lockstep:
    """Runs while there are live lanes.

    Args:
        states: of the same model.
        banned: ids that are never generated.
    """

    def __init__(self, slots: SlotModel, states: FinalStates, banned: Sequence[int] = ()) -> None:
        self._banned = list(banned)
        self._slots = slots
        self._states = states
        self._lanes: list[Lane] = []
        self._running: asyncio.Task[None] | None = None

    def join(self, lanes: Sequence[Lane]) -> None:
        """Let lanes take part from the next step on."""
        self._lanes += lanes
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            self._lanes = [lane for lane in self._lanes if lane.live]
            batch = sorted(self._lanes, key=lambda lane: lane.row.index)
            if not batch:
                return
            try:
                found = await self._slots.run(partial(self._step, self._slots.cache, batch))
            except StarsGuardError as exc:
                for lane in batch:
                    lane.fail(exc)
                continue
            for lane, outcome in zip(batch, found, strict=True):
                if isinstance(outcome, StarsGuardError):
                    lane.fail(outcome)
                    continue
                lane.append(outcome)
                if lane.complete:
                    lane.finish()
            await asyncio.sleep(0)

    def _step(self, cache: SlotCache, batch: Sequence[Lane]) -> list[Generated | StarsGuardError]:
        """The next token of each lane, or why it fails. On the model's thread."""
        import torch

        from stars_guard.backends._grammar import mask
        from stars_guard.backends._sampling import sample

        with torch.inference_mode():
            logits = self._logits(cache, batch)
            if self._banned:
                logits[:, self._banned] = float("-inf")
            projections = self._states.values([lane.asked.directions for lane in batch])
            failures = mask(logits, [lane.matcher for lane in batch])
            ids, entropies = sample(
                logits,
                [lane.asked.sampling for lane in batch],
                [lane.uniform() for lane in batch],
                [lane.seen if lane.asked.sampling.repetition_penalty != 1.0 else [] for lane in batch],
                [lane.asked.entropies for lane in batch],
            )
        return [
            failures.get(row) or lane.step(token, entropy, values)
            for row, (lane, token, entropy, values) in enumerate(zip(batch, ids, entropies, projections, strict=True))
        ]

    def _logits(self, cache: SlotCache, batch: Sequence[Lane]) -> Any:
        return self._slots.forward(
            cache,
            [lane.row.index for lane in batch],
            [lane.length for lane in batch],
            [lane.last_id for lane in batch],
        )

    async def aclose(self) -> None:
        """Wait for the step that runs. The lanes must have been ended."""
        if self._running is not None and not self._running.done():
            await asyncio.wait({self._running})
