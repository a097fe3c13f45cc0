"""What a probe is trained on: mean hidden states of answers and their beginnings, with a judge's scores of them."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from stars_guard.core.directions import Directions
from stars_guard.core.segments import Passage
from stars_guard.scorers.base import Find, Rating, Scorer

__all__ = ["Sample", "Watching", "is_held_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One text that the teacher judged.

    Attributes:
        prompt: digest of the conversation.
        call: the answer's.
        index: number of its last segment, from 0; -1 for the empty answer.
        last: whether the answer ends with it.
        guarded: whether the answer was generated under the policy.
        state: mean of the final hidden states of its tokens.
        score: the teacher's.
    """

    prompt: str
    call: str
    index: int
    last: bool
    guarded: bool
    state: Sequence[float] = field(repr=False)
    score: float


class Watching(Scorer):
    """A judge's scorer that keeps each score with the state that the generator had.

    Args:
        teacher: scores.
        states: stands for the generator's whole state.
        guarded: whether the answers are generated under the policy.
    """

    def __init__(self, teacher: Scorer, states: Directions, *, guarded: bool) -> None:
        self._guarded = guarded
        self._samples: dict[str, list[Sample]] = {}
        self.identity = teacher.identity
        self.cost = teacher.cost
        self.reads_turns = teacher.reads_turns
        self._teacher = teacher
        self._states = states

    @property
    def directions(self) -> Directions:
        return self._states

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        ratings = await self._teacher.score(passages)
        for passage, rating in zip(passages, ratings, strict=True):
            state = passage.projections.get(self._states.digest)
            if state is not None:
                said = json.dumps([(message.role, message.content) for message in passage.messages])
                self._samples.setdefault(passage.call_id, []).append(
                    Sample(
                        prompt=hashlib.sha256(said.encode()).hexdigest(),
                        call=passage.call_id,
                        index=passage.index if passage.answer else -1,
                        last=passage.last,
                        guarded=self._guarded,
                        state=array("f", state),
                        score=rating.value,
                    )
                )
        return ratings

    def take(self, call: str) -> list[Sample]:
        """What it has kept of a call that has ended. It forgets them."""
        return self._samples.pop(call, [])

    def find(self, text: str) -> Sequence[Find]:
        return self._teacher.find(text)

    def find_above(self, text: str, above: float) -> Sequence[Find]:
        return self._teacher.find_above(text, above)

    def open_from(self, text: str, start: int = 0) -> int | None:
        return self._teacher.open_from(text, start)

    async def forget(self, call_id: str) -> None:
        await self._teacher.forget(call_id)


def is_held_out(prompt: str, share: float) -> bool:
    """Whether samples of a prompt are kept for measuring. It depends on the prompt alone, so more prompts change none.

    Args:
        prompt: its digest.
    """
    return int(prompt[:8], 16) < share * 2**32
