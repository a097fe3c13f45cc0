"""Instructions hidden in data as a judge: a small embedded model that reads a text whole, part by part."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from stars_guard.core.encoded_text import written_out
from stars_guard.core.readings import Reading, found
from stars_guard.core.segments import Passage
from stars_guard.engines.injection_model import InjectionModel, embedded_injection_model
from stars_guard.scorers.base import Find, Rating, Scorer
from stars_guard.scorers.options import JudgeOptions

__all__ = ["InjectionOptions", "InjectionScorer"]

_LONG = 2000
"""Characters from which on a text is read in a thread, so that other calls don't wait."""


class InjectionOptions(JudgeOptions):
    """Instructions to the model that reads a text, such as a tool's result. The score is from 0 to 1.

    The model is a part of the package and needs no torch. Its model card says what it was measured to see and to miss.
    """

    model: Literal["embedded"] = Field("embedded", description="the model of the package")
    reject_above: float | None = Field(
        0.5, description="a score above this vetoes; 1 in 100 ordinary texts is above 0.5"
    )

    async def load(self) -> Scorer:
        return InjectionScorer(await asyncio.to_thread(embedded_injection_model))


class InjectionScorer(Scorer):
    """How likely a text holds an instruction to the model that reads it, from 0 to 1: the highest of its parts.

    What is written in JSON, a URL, HTML, base64, hexadecimal or ROT13 is decoded and read too.
    """

    cost = 5.0

    def __init__(self, model: InjectionModel) -> None:
        self.identity = {"kind": "injection", "model": "embedded", "sha256": model.digest}
        self._model = model

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        texts = [passage.answer for passage in passages]
        if sum(map(len, texts)) < _LONG:
            return self._rated(texts)
        return await asyncio.to_thread(self._rated, texts)

    def find(self, text: str) -> Sequence[Find]:
        return self.find_above(text, 0.5)

    def find_above(self, text: str, above: float) -> Sequence[Find]:
        def parts(reading: str, start: int) -> Iterator[Find]:
            for way in _ways(reading):
                spans = (way.span(begin, end) for begin, end in self._model.found(way.text, above))
                yield from ((begin, end, "instructions") for begin, end in spans if begin >= start)

        return found(text, parts)

    def _rated(self, texts: Sequence[str]) -> list[Rating]:
        return [Rating(max(self._model.worst(way.text) for way in _ways(text))) for text in texts]


def _ways(text: str) -> list[Reading]:
    """A text as it is, and with what is encoded in it decoded."""
    return [Reading(text), *written_out(text)]
