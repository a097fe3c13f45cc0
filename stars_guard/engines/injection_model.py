"""The embedded model that finds instructions in data: a linear model over words, which needs no torch and no numpy.

Texts are read whole: they are cut into units of a sentence or a few short lines, and every unit is read by itself and
together with those after it, so that what is spread over several lines is seen together. The weights were trained by
``scripts/train_injection_judge.py``; see MODEL_CARD.md beside them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

__all__ = ["TRAINED", "InjectionModel", "Unit", "embedded_injection_model", "features_of", "units_of", "windows_of"]

TRAINED = Path(__file__).parent / "_embedded_injection"
"""Package data: the weights of the model, and its model card."""

SHORTEST = 2
"""Words that a unit has at least; shorter lines and sentences are read with the next."""

LONGEST = 48
"""Words that a unit has at most."""

REACH = 24
"""Words that a unit is read with at least, where others follow."""

_WORD = re.compile(
    r"(?P<url>https?://[^\s<>\"')\]]{1,2000})|(?P<mail>[\w.+-]{1,64}+@[\w-]{1,63}\.[\w.-]{1,120})"
    r"|(?P<number>\d+)|(?P<word>[^\W\d_]+(?:'[a-z]+)?)|(?P<sign>[:?!])"
)
_END = re.compile(
    r"(?<=[.!?。！？])[\"')\]*]*(?=\s)|(?<=[。！？])|(?=\n)|-->|(?=<!--)|(?=</?[a-zA-Z])|(?<=>)|(?<=[\"'|;}\]]),"
)
_PLACES = {"url": "URL", "mail": "MAIL", "number": "0"}


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of a text: a sentence, or a few short lines.

    Attributes:
        start: where its first word begins.
        end: where its last word ends.
        words: as the model reads them.
    """

    start: int
    end: int
    words: tuple[str, ...] = field(repr=False)


def units_of(text: str) -> list[Unit]:
    """The parts of a text. Every word is in one of them."""
    ends = [match.end() for match in _END.finditer(text)]
    units: list[Unit] = []
    words: list[str] = []
    start = end = at = 0
    for match in _WORD.finditer(text):
        crossed = at < len(ends) and ends[at] <= match.start()
        while at < len(ends) and ends[at] <= match.start():
            at += 1
        if words and ((crossed and len(words) >= SHORTEST) or len(words) >= LONGEST):
            units.append(Unit(start, end, tuple(words)))
            words = []
        if not words:
            start = match.start()
        end = match.end()
        words.append(_PLACES.get(match.lastgroup or "") or match.group().lower())
    if words:
        units.append(Unit(start, end, tuple(words)))
    return units


def windows_of(units: Sequence[Unit]) -> Iterator[tuple[int, int]]:
    """What is read together: each unit by itself, and with those after it. The first and last unit, inclusive."""
    for first, unit in enumerate(units):
        yield first, first
        last, words = first, len(unit.words)
        while words < REACH and last + 1 < len(units):
            last += 1
            words += len(units[last].words)
        if last > first:
            yield first, last


_KINDS = {
    "@model": (
        "ai llm llms gpt chatgpt claude gemini llama copilot bot chatbot chatbots assistant assistants "
        "agent agents model models ki ia summarizer"
    ),
    "@drop": (
        "ignore ignoring disregard forget override overrides bypass discard drop abandon skip stop "
        "neglect instead supersede supersedes cancel nevermind"
    ),
    "@before": ("previous previously prior earlier above preceding original existing initial former current other old"),
    "@rules": (
        "instruction instructions rule rules guideline guidelines direction directions directive "
        "directives command commands order orders prompt prompts task tasks request requests policy "
        "policies constraint constraints restriction restrictions goal objective"
    ),
    "@new": ("new now updated actual real following next additional important urgent priority critical mandatory"),
    "@must": ("must should shall need needs required require have please immediately ensure kindly always never only"),
    "@hide": (
        "silently secretly quietly secret hidden invisible mention tell inform notify alert reveal "
        "confirmation without confirm"
    ),
    "@user": "user users user's human owner operator",
    "@tell": (
        "answer reply respond response output summary summarize summarise summarizing print repeat say "
        "write include append"
    ),
    "@tool": (
        "tool tools function functions call execute run invoke send forward transfer delete open visit "
        "fetch post upload email e-mail book pay share invite"
    ),
    "@system": "system admin administrator developer im inst sys assistant: mode debug maintenance",
    "@you": "you your you're yourself yours",
    "@if": "if when before after while once until",
}
_KIND = {word: kind for kind, words in _KINDS.items() for word in words.split()}
"""Kinds of words that say who is spoken to, and what should become of earlier instructions. Any two of them that are
read together are one feature, in whichever words they come."""


def features_of(words: Sequence[str]) -> set[str]:
    """What the model knows of a window: its words, runs of two and three of them, and kinds of words."""
    pairs = (f"{a} {b}" for a, b in pairwise(words))
    triples = (f"{a} {b} {c}" for a, b, c in zip(words, words[1:], words[2:], strict=False))
    kinds = sorted({kind for word in words if (kind := _KIND.get(word)) is not None})
    together = (f"{a}{b}" for i, a in enumerate(kinds) for b in kinds[i:])
    return {*words, *pairs, *triples, *together}


class InjectionModel:
    """How likely a text is an instruction to the model that reads it.

    Args:
        weights: of each feature.
        bias: what a window without any feature has.

    Attributes:
        digest: the SHA-256 of the weights, for the record.
    """

    def __init__(self, weights: Mapping[str, float], bias: float, digest: str = "") -> None:
        self._weights = weights
        self._bias = bias
        self.digest = digest

    def score(self, words: Sequence[str]) -> float:
        """From 0 to 1, of what is read together."""
        found = [weight for one in features_of(words) if (weight := self._weights.get(one)) is not None]
        logit = self._bias + (math.fsum(found) / math.sqrt(len(found)) if found else 0.0)
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))

    def worst(self, text: str) -> float:
        """From 0 to 1, the highest score of what is read together; 0 for a text without words."""
        return max((score for _, _, score in self._scored(units_of(text))), default=0.0)

    def found(self, text: str, above: float) -> list[tuple[int, int]]:
        """The parts of a text that score above a value, each a unit or several that follow each other."""
        units = units_of(text)
        rated = list(self._scored(units))
        alone = {first: score for first, last, score in rated if first == last}
        hit: set[int] = set()
        for first, last, score in rated:
            # of units that are over only together, as few as will do are at fault
            if score > above and (first == last or not any(alone[i] > above for i in range(first, last + 1))):
                while last > first and self._together(units[first:last]) > above:
                    last -= 1
                while last > first and self._together(units[first + 1 : last + 1]) > above:
                    first += 1
                hit.update(range(first, last + 1))
        # what goes on after an instruction is often a part of it
        near = above / 2
        for i in sorted(hit):
            for step in (1, -1):
                at = i + step
                while 0 <= at < len(units) and at not in hit and alone[at] > near:
                    hit.add(at)
                    at += step
        return _joined((units[i].start, units[i].end, i) for i in sorted(hit))

    def _scored(self, units: Sequence[Unit]) -> Iterator[tuple[int, int, float]]:
        for first, last in windows_of(units):
            yield first, last, self._together(units[first : last + 1])

    def _together(self, units: Sequence[Unit]) -> float:
        return self.score([word for unit in units for word in unit.words])


def _joined(parts: Iterable[tuple[int, int, int]]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    before = -2
    for start, end, number in parts:
        if number == before + 1:
            spans[-1] = spans[-1][0], end
        else:
            spans.append((start, end))
        before = number
    return spans


@cache
def embedded_injection_model() -> InjectionModel:
    """The model of the package. It is read once a process."""
    data = (TRAINED / "weights.json.gz").read_bytes()
    read = json.loads(gzip.decompress(data))
    return InjectionModel(read["weights"], read["bias"], hashlib.sha256(data).hexdigest())
