"""A judge inside the generator: a small head on the hidden states that the generator computes anyway.

It reads no text. The backend hands the values of the probe's directions over with each token, the call averages them
over the answer's tokens, and the head makes a score of the averages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from stars_guard.core.directions import Directions
from stars_guard.core.segments import Passage
from stars_guard.core.vocabulary import Scope
from stars_guard.engines.probes import Probe, load_probe
from stars_guard.errors import ScorerInputError
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.scorers.options import JudgeOptions, Tail

__all__ = ["ProbeOptions", "ProbeScorer"]


class ProbeOptions(JudgeOptions):
    """A probe on the generator's own hidden states; `stars-guard probe train` makes one. It reads no text, and judges
    only what the generator writes."""

    own_answers_only: ClassVar[bool] = True
    sees_everything: ClassVar[bool] = True

    probe: str = Field(min_length=1, description="the probe's file, made by `stars-guard probe train`")
    scope: Scope | Tail = Field("answer", description="answer: a probe knows the whole answer and nothing less")

    @model_validator(mode="after")
    def _sees_the_answer(self) -> Self:
        if self.scope != "answer":
            raise ValueError("a probe always judges the whole answer: leave out scope")
        return self

    async def load(self) -> Scorer:
        return ProbeScorer(await asyncio.to_thread(self._load))

    def _load(self) -> Probe:
        return load_probe(Path(self.probe).expanduser())


class ProbeScorer(Scorer):
    """Scores the averages that come with a passage."""

    cost = 0.01

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self.identity = {
            "kind": "probe",
            "probe_sha256": probe.directions.digest,
            "model": probe.card.model,
            "model_sha256": probe.card.model_sha256,
        }

    @property
    def directions(self) -> Directions:
        return self._probe.directions

    async def score(self, passages: Sequence[Passage]) -> list[Rating]:
        return [self._rating(passage) for passage in passages]

    def _rating(self, passage: Passage) -> Rating:
        means = passage.projections.get(self._probe.directions.digest)
        if means is None:
            raise ScorerInputError("a probe can't judge a text that its generator did not write just now")
        return Rating(self._probe.score(means))
