"""From states and scores to a probe: one direction by ridge or logistic regression.

The states' own mean is by far their largest part, and its length varies with nothing that a judge cares for. So it is
taken out of the direction first: values are then around zero, where half precision is fine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stars_guard.calibration.probe_layer import fit_inner, loss_of
from stars_guard.calibration.probe_samples import Sample
from stars_guard.core.vocabulary import ProbeFit

if TYPE_CHECKING:
    import torch

__all__ = ["fit_probe"]

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
FOLDS = 4


@dataclass(frozen=True, slots=True)
class _Scaled:
    """States made fit for regression, and the way back: inputs = (states without their axis - middle) / spread."""

    axis: torch.Tensor
    flat: torch.Tensor
    middle: torch.Tensor
    spread: torch.Tensor
    inputs: torch.Tensor

    @classmethod
    def of(cls, states: torch.Tensor) -> _Scaled:
        mean = states.mean(0)
        axis = mean / mean.norm().clamp_min(1e-12)
        flat = states - (states @ axis)[:, None] * axis
        middle, spread = flat.mean(0), flat.std(0).clamp_min(1e-6)
        return cls(axis, flat, middle, spread, (flat - middle) / spread)

    def back(self, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Directions for states as they are, whose values have the spread 1.

        Args:
            slopes: [k, width] on the inputs.

        Returns:
            The directions, by what their values are multiplied and what is added to give the slopes' values.
        """
        directions = slopes / self.spread
        shift = -directions @ self.middle
        directions = directions - (directions @ self.axis)[:, None] * self.axis
        scale = (self.flat @ directions.T).std(0).clamp_min(1e-12)
        return directions / scale[:, None], scale, shift


def fit_probe(
    samples: Sequence[Sample], bad: Callable[[float], bool], kind: ProbeFit, *, inner: int = 0
) -> dict[str, torch.Tensor]:
    """The tensors of a probe's file.

    Args:
        samples: to learn from. The penalty is chosen on folds that are divided by prompts.
        bad: whether the teacher rejects at a score.
        kind: ridge forecasts the teacher's score, logistic the chance that it rejects.
        inner: cells of an inner layer on `DIRECTIONS` directions; 0 for one direction and no layer. The layer is left
            out where it does not do better on a fold.

    Raises:
        ValueError: there are too few prompts, or scores of one kind alone.
    """
    import torch

    if len({sample.prompt for sample in samples}) < 2 * FOLDS:
        raise ValueError(f"a probe needs {2 * FOLDS} different prompts at least")
    wanted = [float(bad(sample.score)) if kind == "logistic" else sample.score for sample in samples]
    target = torch.tensor(wanted, dtype=torch.float64)
    if float(target.std()) == 0:
        raise ValueError("the teacher says the same of every text")
    scaled = _Scaled.of(torch.tensor([sample.state for sample in samples], dtype=torch.float64))
    folds = torch.tensor([int(sample.prompt[8:12], 16) % FOLDS for sample in samples])
    penalty = _penalty(kind, scaled.inputs, target, folds)
    solve = _ridge if kind == "ridge" else _logistic
    (line,) = solve(scaled.inputs, target, [penalty])
    if inner and (layer := fit_inner(scaled.inputs, target, folds, line, kind, inner)) is not None:
        directions, scale, shift = scaled.back(layer["slopes"])
        return {
            "directions": directions,
            "weight": layer["weight"] * scale,
            "bias": layer["bias"] + layer["weight"] @ shift,
            "inner.weight": layer["rows"] * scale,
            "inner.bias": layer["offsets"] + layer["rows"] @ shift,
            "inner.output": layer["output"],
        }
    directions, scale, shift = scaled.back(line[None, :-1])
    return {"directions": directions, "weight": scale, "bias": line[-1:] + shift}


def _penalty(kind: ProbeFit, inputs: torch.Tensor, target: torch.Tensor, folds: torch.Tensor) -> float:
    """The one that does best on folds."""
    solve = _ridge if kind == "ridge" else _logistic
    losses = [0.0] * len(PENALTIES)
    for fold in range(FOLDS):
        inside, outside = folds != fold, folds == fold
        if not outside.any() or float(target[inside].std()) == 0:
            continue
        for number, found in enumerate(solve(inputs[inside], target[inside], PENALTIES)):
            outputs = inputs[outside] @ found[:-1] + found[-1]
            losses[number] += float(loss_of(kind, outputs, target[outside]))
    return PENALTIES[min(range(len(PENALTIES)), key=lambda number: losses[number])]


def _ridge(inputs: torch.Tensor, target: torch.Tensor, penalties: Sequence[float]) -> list[torch.Tensor]:
    """Slopes and, last, the offset, for each penalty."""
    import torch

    middle, offset = inputs.mean(0), target.mean()
    centred = inputs - middle
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    moved = vectors.T @ (centred.T @ (target - offset))
    slopes = [vectors @ (moved / (values.clamp_min(0) + penalty)) for penalty in penalties]
    return [torch.cat([slope, (offset - middle @ slope)[None]]) for slope in slopes]


def _logistic(inputs: torch.Tensor, target: torch.Tensor, penalties: Sequence[float]) -> list[torch.Tensor]:
    """The same, by L-BFGS, each from where the one before ended."""
    import torch

    found, weights = [], torch.zeros(inputs.shape[1] + 1, dtype=torch.float64)
    for penalty in sorted(penalties, reverse=True):
        weights = weights.clone().requires_grad_()
        solver = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

        def closure(
            weights: torch.Tensor = weights, solver: torch.optim.LBFGS = solver, penalty: float = penalty
        ) -> torch.Tensor:
            solver.zero_grad()
            logits = inputs @ weights[:-1] + weights[-1]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
            loss = loss + penalty / 2 * weights[:-1].square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        solver.step(closure)  # type: ignore[no-untyped-call]
        weights = weights.detach()
        found.append(weights)
    return found[::-1]
