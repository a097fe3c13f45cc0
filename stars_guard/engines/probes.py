"""The file of a probe: directions on a generator's final hidden state, and what makes a score of their means.

    v_i = mean over the answer's tokens of (direction_i . state)
    z = weight . v + bias + output . tanh(inner v + inner_bias)        the last term only where there is an inner layer
    score = z, or 1 / (1 + exp(-z)) with the link "logistic"

The mean of an answer without tokens is the value on the state after the prompt. A model card is in the file's metadata.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stars_guard.core.directions import Directions, dot
from stars_guard.errors import MissingExtra, ScorerError

if TYPE_CHECKING:
    import torch

__all__ = ["Card", "Inner", "Probe", "load_probe", "save_probe"]

KEY = "stars_guard_probe"
"""The key of the card in the file's metadata."""


class Card(BaseModel):
    """What a probe is, for whoever reads it and for the check that it meets its own model.

    Attributes:
        format: of the file.
        model: the generator's name when the probe was trained.
        model_sha256: fingerprint of its checkpoint.
        width: numbers in its hidden state.
        link: what makes the score of the last sum.
        teacher: name and identity of the judge that it was trained on.
        measured: what was found on prompts that were held out.
        notes: anything else, such as how many prompts there were.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["1"] = "1"
    model: str
    model_sha256: str
    width: int = Field(ge=1)
    link: Literal["identity", "logistic"] = "identity"
    teacher: dict[str, str] = Field(default_factory=dict)
    measured: dict[str, Any] = Field(default_factory=dict)
    notes: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """The inner layer: ``rows`` and ``bias`` into tanh, and ``output`` out of it."""

    rows: tuple[tuple[float, ...], ...] = field(repr=False)
    bias: tuple[float, ...] = field(repr=False)
    output: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A probe, ready to score."""

    card: Card
    directions: Directions
    weight: tuple[float, ...] = field(repr=False)
    bias: float
    inner: Inner | None = None

    def score(self, means: Sequence[float]) -> float:
        """The score of an answer, from the means of the directions' values over its tokens."""
        z = self.bias + dot(self.weight, means)
        if self.inner is not None:
            layer = zip(self.inner.rows, self.inner.bias, self.inner.output, strict=True)
            z += sum(out * math.tanh(dot(row, means) + bias) for row, bias, out in layer)
        if self.card.link == "logistic":
            return 1 / (1 + math.exp(-z)) if z > -700 else 0.0
        return z


def save_probe(path: Path, card: Card, tensors: dict[str, torch.Tensor]) -> None:
    """Write a probe. Blocks.

    Args:
        tensors: ``directions`` [k, width], ``weight`` [k], ``bias`` [1], and for an inner layer of m cells
            ``inner.weight`` [m, k], ``inner.bias`` [m] and ``inner.output`` [m].
    """
    from safetensors.torch import save_file

    save_file({name: one.float().contiguous() for name, one in tensors.items()}, path, {KEY: card.model_dump_json()})


def load_probe(path: Path) -> Probe:
    """Read a probe. Blocks.

    Raises:
        ScorerError: there is no such file, or it isn't a probe's.
        MissingExtra: torch or safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as exc:
        raise MissingExtra("probe", "transformers") from exc
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except OSError as exc:
        raise ScorerError(f"the probe {str(path)!r} can't be read: {exc.strerror}") from exc
    except SafetensorError as exc:
        raise ScorerError(
            f"{str(path)!r} is not a safetensors file", hint="`stars-guard probe train` makes one"
        ) from exc
    if KEY not in metadata:
        raise ScorerError(f"{str(path)!r} is not the file of a probe", hint="`stars-guard probe train` makes one")
    try:
        card = Card.model_validate_json(metadata[KEY])
    except ValidationError as exc:
        places = ", ".join(".".join(map(str, error["loc"])) for error in exc.errors(include_input=False))
        raise ScorerError(f"the card of the probe {str(path)!r} can't be read: {places}") from None
    _check(path, card, tensors)
    inner = None
    if "inner.weight" in tensors:
        inner = Inner(
            rows=_rows(tensors["inner.weight"]), bias=_row(tensors["inner.bias"]), output=_row(tensors["inner.output"])
        )
    return Probe(
        card=card,
        directions=Directions(
            digest=digest, model_sha256=card.model_sha256, width=card.width, rows=_rows(tensors["directions"])
        ),
        weight=_row(tensors["weight"]),
        bias=float(tensors["bias"][0]),
        inner=inner,
    )


def _check(path: Path, card: Card, tensors: dict[str, torch.Tensor]) -> None:
    """Whether the tensors are those of a probe, and finite."""
    k = tensors["directions"].shape[0] if "directions" in tensors else 0
    wanted: dict[str, tuple[int, ...]] = {"directions": (k, card.width), "weight": (k,), "bias": (1,)}
    if any(name.startswith("inner.") for name in tensors):
        m = tensors["inner.bias"].shape[0] if tensors.get("inner.bias") is not None else 0
        wanted |= {"inner.weight": (m, k), "inner.bias": (m,), "inner.output": (m,)}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != wanted or not k:
        shapes = json.dumps({name: list(shape) for name, shape in sorted(found.items())})
        raise ScorerError(f"the tensors of the probe {str(path)!r} don't fit each other or its card: {shapes}")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ScorerError(f"the probe {str(path)!r} holds numbers that are not finite")


def _row(tensor: torch.Tensor) -> tuple[float, ...]:
    return tuple(tensor.tolist())


def _rows(tensor: torch.Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in tensor.tolist())
