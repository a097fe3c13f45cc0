"""Samples that are kept in a folder, so that a run that was cut off goes on, and another fit generates nothing.

The folder holds states and scores, and no text: prompts are there as digests.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from stars_guard.calibration.probe_samples import Sample
from stars_guard.errors import InputError

__all__ = ["KeptSamples", "read_samples"]

PART = 32
"""Answers whose samples are written at once."""

NUMBERS = [field.name for field in fields(Sample) if field.name != "state"]
"""What is kept of a sample beside its state."""


class KeptSamples:
    """The samples of answers that have ended. Making it blocks, as the folder is read.

    Args:
        where: the folder; None keeps them in memory alone.
        about: all that they depend on but for the prompts, such as the model and the policy.

    Attributes:
        samples: by the answer that they come from.

    Raises:
        InputError: the folder holds samples of something else, or can't be read.
    """

    def __init__(self, where: Path | None, about: Mapping[str, Any]) -> None:
        self.samples: dict[str, list[Sample]] = {}
        self._where = where
        self._about = json.loads(json.dumps(about))
        self._unwritten: list[str] = []
        self._parts = 0
        for path in sorted(where.glob("*.safetensors")) if where is not None else ():
            self._read(path)
            self._parts = int(path.stem) + 1

    def add(self, answer: str, samples: list[Sample]) -> None:
        """Keep those of one more answer. Blocks now and then, to write a part.

        Args:
            answer: a name of its own.
        """
        self.samples[answer] = samples
        self._unwritten.append(answer)
        if len(self._unwritten) >= PART:
            self.write()

    def write(self) -> None:
        """Write what isn't written yet. Blocks."""
        if self._where is None or not self._unwritten:
            return
        import torch
        from safetensors.torch import save_file

        answers = {name: self.samples[name] for name in self._unwritten}
        said = {
            "about": self._about,
            "answers": {
                name: [{key: getattr(sample, key) for key in NUMBERS} for sample in samples]
                for name, samples in answers.items()
            },
        }
        states = torch.tensor([sample.state for samples in answers.values() for sample in samples])
        self._where.mkdir(parents=True, exist_ok=True)
        path = self._where / f"{self._parts:05d}.safetensors"
        draft = path.with_suffix(".draft")
        save_file({"states": states}, draft, {"samples": json.dumps(said)})
        draft.replace(path)
        self._parts += 1
        self._unwritten = []

    def _read(self, path: Path) -> None:
        about, answers = _part(path)
        if about != self._about:
            different = [name for name in self._about if about.get(name) != self._about[name]]
            raise InputError(
                f"{path.parent}: holds samples of another run, which differs in {', '.join(different) or 'its form'}",
                hint="choose another folder",
            )
        self.samples.update(answers)


def read_samples(where: Path) -> list[Sample]:
    """All samples that a folder holds, whatever they are about. Blocks.

    Raises:
        InputError: a part can't be read.
    """
    parts = [_part(path)[1] for path in sorted(where.glob("*.safetensors"))]
    return [sample for answers in parts for samples in answers.values() for sample in samples]


def _part(path: Path) -> tuple[dict[str, Any], dict[str, list[Sample]]]:
    """What a part is about, and its samples by answer."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads((file.metadata() or {})["samples"])
            states = iter(file.get_tensor("states").tolist())
        answers = {
            name: [Sample(**row, state=array("f", next(states))) for row in rows]
            for name, rows in said["answers"].items()
        }
        return dict(said["about"]), answers
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, StopIteration) as exc:
        raise InputError(f"{path}: can't be read as samples", hint="choose another folder") from exc
