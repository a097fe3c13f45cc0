"""What the judges that ask a sequence classifier have in common: logits in, and a score of the labels out."""

from __future__ import annotations

import hashlib
import string
from abc import ABC, abstractmethod
from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from stars_guard.core.segments import Passage
from stars_guard.engines.sharing import Shared
from stars_guard.errors import ScorerError
from stars_guard.scorers._label_scores import LabelScore
from stars_guard.scorers._reading import Reading
from stars_guard.scorers._windows import MOST_WINDOWS, Settled, worst
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.scorers.model_options import ModelOptions, reads_less
from stars_guard.scorers.options import Loosening

__all__ = ["Classifier", "ClassifierOptions", "ClassifierScorer"]

Limit = Annotated[float, Field(gt=0, lt=1)]
Labels = Annotated[
    Annotated[tuple[str, ...], Field(min_length=1, strict=False), Tag("names")]
    | Annotated[dict[str, Limit], Field(min_length=1), Tag("limits")],
    Discriminator(lambda labels: "limits" if isinstance(labels, dict) else "names"),
]


CUT = "cut to its end"
"""What the record says of a text that a judge did not read whole."""

Row = tuple[list[float], int | None]
"""Raw logits, and how many tokens were not read again, where that is known."""


class Classifier(ABC):
    """A model that several judges may share, each with labels of its own.

    Attributes:
        identity: what goes into the audit record, labels apart.
        config: the model's Hugging Face config.
        cost: the rough time of one passage in milliseconds.
    """

    identity: dict[str, str]
    config: Any
    cost: float

    def __init__(self) -> None:
        self._settled: Settled[list[float]] = Settled()

    @abstractmethod
    async def readings(self, passages: Sequence[Passage], most: int | None) -> list[list[Reading]]:
        """What is read of each passage: one reading, cut to fit, or at most so many windows of the judged text.

        Raises:
            ScorerInputError: a text has more windows.
        """

    @abstractmethod
    async def rows(self, calls: Sequence[str], readings: Sequence[Reading]) -> list[Row]:
        """Raw logits of each reading, and how many of its tokens were not read again; None if that is not known."""

    async def logits(self, passages: Sequence[Passage]) -> list[Row]:
        """Raw logits of each passage, of as much of it as fits."""
        readings = await self.readings(passages, None)
        return await self.rows([passage.call_id for passage in passages], [first for first, *_ in readings])

    async def windows(self, passages: Sequence[Passage], most: int) -> list[list[Row]]:
        """Raw logits of each window of each passage. A window that is full and was read before is not read again."""
        readings = await self.readings(passages, most)
        found: list[list[Row | None]] = [[None] * len(windows) for windows in readings]
        missing: list[tuple[int, int]] = []
        for i, (passage, windows) in enumerate(zip(passages, readings, strict=True)):
            known = self._settled.of(passage.call_id, passage.messages) if len(windows) > 1 else OrderedDict()
            for number, reading in enumerate(windows):
                before = known.get(_digest(reading)) if known else None
                if before is not None:
                    found[i][number] = before, len(reading.ids)
                else:
                    missing.append((i, number))
        calls = [passages[i].call_id for i, _ in missing]
        rows = await self.rows(calls, [readings[i][number] for i, number in missing])
        for (i, number), row in zip(missing, rows, strict=True):
            found[i][number] = row
        for (i, number), (logits, _) in zip(missing, rows, strict=True):
            if number + 1 < len(readings[i]):
                passage, key = passages[i], _digest(readings[i][number])
                self._settled.keep(passage.call_id, passage.messages, key, logits, most)
        return [[row for row in windows if row is not None] for windows in found]

    async def forget(self, call_id: str) -> None:
        """Drop what is kept for a call that is over."""
        self._settled.forget(call_id)

    @abstractmethod
    async def aclose(self) -> None:
        """Free the model. May be called twice."""


def _digest(reading: Reading) -> bytes:
    ids = array("q", reading.ids)
    return hashlib.blake2b(ids.tobytes(), digest_size=16).digest() + reading.second.to_bytes(4, "big")


_classifiers: Shared[Classifier] = Shared()
"""Judges with different labels share at least the model."""


class ClassifierOptions(ModelOptions):
    """A sequence classifier: where its model is, what it reads, and which of its labels make the score."""

    free: ClassVar[frozenset[str]] = frozenset({"max_length", "max_windows", "labels"})
    usual_lengths: ClassVar[tuple[int, int]] = (0, 0)
    """The least and the most that ``max_length`` may be where the policy does not say."""

    max_length: int | None = Field(None, ge=16, description="tokens")
    label: str | None = Field(None, description="score is this label's probability; else the one raw logit")
    labels: Labels | None = Field(
        None,
        description="score is the probability of any of these; with a limit each, one over its limit vetoes",
    )
    template: str | None = Field(
        None,
        description="format string with {answer} and, if wanted, {prompt}; else the model's chat template, or a pair",
    )

    max_windows: int = Field(
        MOST_WINDOWS,
        ge=1,
        description="of a text that is longer than max_length, for a judge that vetoes; one with more is an error",
    )

    @model_validator(mode="before")
    @classmethod
    def _limits_veto(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("labels"), dict) and "reject_above" not in data:
            return {**data, "reject_above": 1.0}
        return data

    @model_validator(mode="after")
    def _one_way_of_labels(self) -> Self:
        if self.label is not None and self.labels is not None:
            raise ValueError("give label or labels, not both")
        if isinstance(self.labels, dict) and (self.weight is not None or self.reject_above != 1.0):
            raise ValueError("labels with a limit each veto by themselves: leave out weight and reject_above")
        return self

    @field_validator("template")
    @classmethod
    def _has_answer(cls, template: str | None) -> str | None:
        if template is None:
            return None
        try:
            fields = [(field, spec, conversion) for _, field, spec, conversion in string.Formatter().parse(template)]
        except ValueError as exc:
            raise ValueError(f"not a format string: {exc}") from exc
        used = [field for field, _, _ in fields if field is not None]
        if any(spec or conversion for _, spec, conversion in fields) or not {*used} <= {"prompt", "answer"}:
            raise ValueError("only {prompt} and {answer} can be filled in; write {{ and }} for plain braces")
        if "answer" not in used:
            raise ValueError("{answer} is missing, so every answer would get the same score")
        if used.count("answer") > 1:
            raise ValueError("{answer} can stand in one place only")
        return template

    def loosenings(self, child: Self) -> Iterator[Loosening]:
        """Less text that is read, labels that are gone, and limits that are higher. More labels can only veto more."""
        yield from super().loosenings(child)
        if reads_less(self.max_length, child.max_length, self.usual_lengths):
            yield "max_length", f"{self.max_length} -> {child.max_length}"
        before, after = self.labels, child.labels
        if before is None or after is None or isinstance(before, Mapping) != isinstance(after, Mapping):
            if before != after:
                yield "labels", "another judge than the parent's"
            return
        for name in before:
            if name not in after:
                yield "labels", f"label {name!r} is not there"
            elif isinstance(before, Mapping) and isinstance(after, Mapping) and after[name] > before[name]:
                yield "labels", f"label {name!r}: {before[name]} -> {after[name]}"

    def label_of(self, config: Any) -> str | None:
        """The label whose probability is the score, once the model's config is known."""
        return self.label

    @abstractmethod
    async def load_classifier(self) -> Classifier:
        """Load the model. The labels must not matter here. Raises what `load` does."""

    async def load(self) -> Scorer:
        unlabelled = self.model_copy(update={"label": None, "labels": None, "max_windows": MOST_WINDOWS})
        lease = await _classifiers.lease(super(ClassifierOptions, unlabelled).key, self.load_classifier)
        windows = self.max_windows if self.reject_above is not None else None
        try:
            label = self.label_of(lease.part.config)
        except ScorerError:
            await lease.aclose()
            raise
        scorer = await ClassifierScorer.over(lease.part, label, self.labels, lease.aclose, windows=windows)
        scorer.reads_turns = self.template is None or "{prompt}" in self.template
        return scorer

    @property
    def key(self) -> str:
        # a judge that vetoes sees long texts whole, one that only rewards sees as much as fits
        return f"{super().key} vetoes={self.reject_above is not None}"


class ClassifierScorer(Scorer):
    """A classifier, and which of its labels make the score (see `LabelScore`).

    Args:
        free: closes the classifier, or lets go of a shared one; None closes it.
        windows: a text that is too long for the model is read in at most so many windows that overlap, and the highest
            of their scores is its score. None reads as much of it as fits.

    Raises:
        ScorerError: the model has no such label, or several and none was chosen.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        label: str | None = None,
        labels: Sequence[str] | Mapping[str, float] | None = None,
        free: Callable[[], Awaitable[None]] | None = None,
        windows: int | None = MOST_WINDOWS,
    ) -> None:
        self._windows = windows
        self.cost = classifier.cost
        self._classifier = classifier
        self._labels = LabelScore(classifier.config, label, labels)
        self._free = free or classifier.aclose
        self.identity = {**classifier.identity, **self._labels.identity}

    @classmethod
    async def over(
        cls,
        classifier: Classifier,
        label: str | None,
        labels: Sequence[str] | Mapping[str, float] | None,
        free: Callable[[], Awaitable[None]] | None = None,
        *,
        windows: int | None = MOST_WINDOWS,
    ) -> Self:
        """Make the scorer of a classifier that was loaded for it. If it has no such labels it is freed at once."""
        try:
            return cls(classifier, label=label, labels=labels, free=free, windows=windows)
        except BaseException:
            await (free or classifier.aclose)()
            raise

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        if self._windows is None:
            return await self._as_much_as_fits(passages)
        found = await self._classifier.windows(passages, self._windows)
        return [worst([self._labels.rating(*row) for row in rows]) for rows in found]

    async def _as_much_as_fits(self, passages: Sequence[Passage]) -> list[Rating]:
        readings = [first for first, *_ in await self._classifier.readings(passages, None)]
        rows = await self._classifier.rows([passage.call_id for passage in passages], readings)
        ratings = [self._labels.rating(*row) for row in rows]
        return [
            replace(rating, detail=", ".join(filter(None, (rating.detail, CUT)))) if reading.is_cut else rating
            for rating, reading in zip(ratings, readings, strict=True)
        ]

    async def forget(self, call_id: str) -> None:
        await self._classifier.forget(call_id)

    async def aclose(self) -> None:
        await self._free()
