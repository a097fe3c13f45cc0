"""From a guard model's question to the chances of its labels, which may come after what the model writes first."""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from stars_guard.scorers._guard_engines import GuardEngine, Row
from stars_guard.scorers._guard_writing import Writing

__all__ = ["RECENT", "Controversial", "Verdicts"]

Controversial = Literal["safe", "unsafe"]
"""What a label between the two counts as."""

RECENT = 2048
"""Questions whose answers are kept by a model that writes before it answers."""


class Verdicts:
    """Asks a guard model. What it has written for one question is not written again for the same one.

    Args:
        labels: token ids of the labels.
        writing: how the model writes before its label, apart from up to where.
    """

    def __init__(self, labels: Sequence[int], writing: Writing) -> None:
        self._labels = labels
        self._writing = writing
        self._recent: OrderedDict[bytes, list[float] | None] = OrderedDict()

    async def of(self, engine: GuardEngine, prompts: Sequence[list[int]], until: str) -> list[Row | None]:
        """Log probabilities of the labels for each question; None where the model wrote no verdict.

        Args:
            until: what the model writes before its label; empty where the label is what comes next.
        """
        if not until:
            return list(await engine.labels(prompts, self._labels))
        keys = [hashlib.blake2b(array("q", ids).tobytes(), digest_size=16).digest() for ids in prompts]
        new = {key: ids for key, ids in zip(keys, prompts, strict=True) if key not in self._recent}
        found: dict[bytes, Row | None] = {}
        if new:
            written = await engine.write(list(new.values()), replace(self._writing, until=until))
            ended = {key: ids for key, ids in zip(new, written, strict=True) if ids is not None}
            rows = await engine.labels(list(ended.values()), self._labels) if ended else []
            found = {**dict.fromkeys(new), **dict(zip(ended, rows, strict=True))}
        answers: list[Row | None] = []
        for key, ids in zip(keys, prompts, strict=True):
            if key in found:
                answers.append(found[key])
            else:
                logs = self._recent[key]
                answers.append(None if logs is None else (logs, len(ids)))
        for key, row in found.items():
            self._recent[key] = None if row is None else row[0]
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        return answers
