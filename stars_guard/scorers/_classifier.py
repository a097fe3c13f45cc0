"""What the judges that ask a sequence classifier have in common: logits in, and a score of the labels out."""

from __future__ import annotations

import string
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from stars_guard.core.segments import Passage
from stars_guard.engines.sharing import Shared
from stars_guard.scorers._label_scores import LabelScore
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

    @abstractmethod
    async def logits(self, passages: Sequence[Passage]) -> list[tuple[list[float], int | None]]:
        """Raw logits of each passage, and how many of its tokens were not read again; None if that is not known."""

    async def forget(self, call_id: str) -> None:
        """Drop what is kept for a call that is over."""

    @abstractmethod
    async def aclose(self) -> None:
        """Free the model. May be called twice."""


_classifiers: Shared[Classifier] = Shared()
"""Judges with different labels share at least the model."""


class ClassifierOptions(ModelOptions):
    """A sequence classifier: where its model is, what it reads, and which of its labels make the score."""

    free: ClassVar[frozenset[str]] = frozenset({"max_length", "labels"})
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

    @abstractmethod
    async def load_classifier(self) -> Classifier:
        """Load the model. The labels must not matter here. Raises what `load` does."""

    async def load(self) -> Scorer:
        unlabelled = self.model_copy(update={"label": None, "labels": None})
        lease = await _classifiers.lease(unlabelled.key, self.load_classifier)
        scorer = await ClassifierScorer.over(lease.part, self.label, self.labels, lease.aclose)
        scorer.reads_turns = self.template is None or "{prompt}" in self.template
        return scorer


class ClassifierScorer(Scorer):
    """A classifier, and which of its labels make the score (see `LabelScore`).

    Args:
        free: closes the classifier, or lets go of a shared one; None closes it.

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
    ) -> None:
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
    ) -> Self:
        """Make the scorer of a classifier that was loaded for it. If it has no such labels it is freed at once."""
        try:
            return cls(classifier, label=label, labels=labels, free=free)
        except BaseException:
            await (free or classifier.aclose)()
            raise

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [self._labels.rating(logits, cached) for logits, cached in await self._classifier.logits(passages)]

    async def forget(self, call_id: str) -> None:
        await self._classifier.forget(call_id)

    async def aclose(self) -> None:
        await self._free()
