"""From a classifier's logits to a score: a reward model's raw logit, or the probability of labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stars_guard.errors import ScorerError
from stars_guard.scorers.base import Rating

__all__ = ["LabelScore"]


class LabelScore:
    """Makes the score from the logits of a model, by the labels that a judge chose.

    Args:
        config: the model's.
        label: score is this label's probability; None, and no ``labels``, takes the one logit of a reward model.
        labels: score is the probability of any of these: of labels that exclude one another their sum, of others the
            highest. With a limit each it is the highest share of a limit: above 1 one of them is over its own.

    Raises:
        ScorerError: the model has no such label, or several and none was chosen.
    """

    def __init__(self, config: Any, label: str | None, labels: Sequence[str] | Mapping[str, float] | None) -> None:
        names = [str(name) for _, name in sorted(config.id2label.items())]
        wanted = [label] if label is not None else list(labels or ())
        for name in wanted:
            if name not in names:
                raise ScorerError(f"the judge model has no label {name!r}", hint=f"use one of {', '.join(names)}")
        if not wanted and len(names) > 1:
            raise ScorerError(
                f"the judge model has {len(names)} labels", hint=f"set label: or labels: to some of {', '.join(names)}"
            )
        self.identity = {"label": label or "", "labels": ", ".join(wanted) if label is None else ""}
        self._named = label is None
        self._limits = dict(labels) if isinstance(labels, Mapping) else None
        self._chosen = {names.index(name): name for name in wanted}
        # one logit with a label is a yes or no, whatever the problem is called
        multi = getattr(config, "problem_type", None) == "multi_label_classification"
        self._exclusive = not multi and len(names) > 1

    def rating(self, logits: Sequence[float], cached: int | None) -> Rating:
        """The score of one passage; not a number when the model gave something that is not one."""
        if not all(math.isfinite(logit) for logit in logits):
            return Rating(math.nan, cached=cached)
        if not self._chosen:
            return Rating(logits[0], cached=cached)
        chances = _softmax(logits) if self._exclusive else [_sigmoid(logit) for logit in logits]
        parts = {name: chances[at] for at, name in self._chosen.items()}
        if self._limits is not None:
            parts = {name: chance / self._limits[name] for name, chance in parts.items()}
        top = max(parts, key=parts.__getitem__)
        value = sum(parts.values()) if self._exclusive and self._limits is None else parts[top]
        return Rating(value, detail=top if self._named else None, cached=cached)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    parts = [math.exp(value - top) for value in logits]
    return [part / sum(parts) for part in parts]
