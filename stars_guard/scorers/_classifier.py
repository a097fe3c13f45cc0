"""What the judges that ask a sequence classifier have in common: logits in, and a score of the labels out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from stars_guard.core.segments import Passage
from stars_guard.scorers._labels import Labels
from stars_guard.scorers.base import Rating, Scorer

__all__ = ["Classifier", "ClassifierScorer"]


class Classifier(ABC):
    """A model that several judges may share, each with labels of its own.

    Attributes:
        identity: what goes into the audit record, labels apart.
        config: the model's Hugging Face config.
    """

    identity: dict[str, str]
    config: Any

    @abstractmethod
    async def logits(self, passages: Sequence[Passage]) -> list[tuple[list[float], int | None]]:
        """Raw logits of each passage, and how many of its tokens were not read again; None if that is not known."""

    async def forget(self, call_id: str) -> None:
        """Drop what is kept for a call that is over."""

    @abstractmethod
    async def aclose(self) -> None:
        """Free the model. May be called twice."""


class ClassifierScorer(Scorer):
    """A classifier, and which of its labels make the score (see `Labels`).

    Raises:
        ScorerError: the model has no such label, or several and none was chosen.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        label: str | None = None,
        labels: Sequence[str] | Mapping[str, float] | None = None,
    ) -> None:
        self._classifier = classifier
        self._labels = Labels(classifier.config, label, labels)
        self.identity = {**classifier.identity, **self._labels.identity}

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [self._labels.rating(logits, cached) for logits, cached in await self._classifier.logits(passages)]

    async def forget(self, call_id: str) -> None:
        await self._classifier.forget(call_id)

    async def aclose(self) -> None:
        await self._classifier.aclose()
