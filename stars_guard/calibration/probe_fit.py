"""From states and scores to a probe: one direction by ridge or logistic regression.

The states' own mean is by far their largest part, and its length varies with nothing that a judge cares for. So it is
taken out of the direction first: values are then around zero, where half precision is fine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from stars_guard.calibration.probe_samples import Sample

if TYPE_CHECKING:
    import torch

__all__ = ["Fit", "fit_probe"]

Fit = Literal["ridge", "logistic"]

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
FOLDS = 4


def fit_probe(samples: Sequence[Sample], bad: Callable[[float], bool], kind: Fit) -> dict[str, torch.Tensor]:
    """The tensors of a probe's file.

    Args:
        samples: to learn from. The penalty is chosen on folds that are divided by prompts.
        bad: whether the teacher rejects at a score.
        kind: ridge forecasts the teacher's score, logistic the chance that it rejects.

    Raises:
        ValueError: there are too few prompts, or scores of one kind alone.
    """
    import torch

    if len({sample.prompt for sample in samples}) < 2 * FOLDS:
        raise ValueError(f"a probe needs {2 * FOLDS} different prompts at least")
    states = torch.tensor([sample.state for sample in samples], dtype=torch.float64)
    wanted = [float(bad(sample.score)) if kind == "logistic" else sample.score for sample in samples]
    target = torch.tensor(wanted, dtype=torch.float64)
    if float(target.std()) == 0:
        raise ValueError("the teacher says the same of every text")
    mean = states.mean(0)
    axis = mean / mean.norm().clamp_min(1e-12)
    flat = states - (states @ axis)[:, None] * axis
    middle, spread = flat.mean(0), flat.std(0).clamp_min(1e-6)
    inputs = (flat - middle) / spread
    folds = torch.tensor([int(sample.prompt[8:12], 16) % FOLDS for sample in samples])
    solve = _ridge if kind == "ridge" else _logistic
    losses = [0.0] * len(PENALTIES)
    for fold in range(FOLDS):
        inside, outside = folds != fold, folds == fold
        if not outside.any() or float(target[inside].std()) == 0:
            continue
        for number, found in enumerate(solve(inputs[inside], target[inside], PENALTIES)):
            losses[number] += _loss(kind, found, inputs[outside], target[outside])
    best = min(range(len(PENALTIES)), key=lambda number: losses[number])
    (found,) = solve(inputs, target, PENALTIES[best : best + 1])
    slope, offset = found[:-1], found[-1]
    direction = slope / spread
    direction = direction - (direction @ axis) * axis
    offset = offset - middle @ (slope / spread)
    scale = (flat @ direction).std().clamp_min(1e-12)
    return {"directions": (direction / scale)[None], "weight": scale[None], "bias": offset[None]}


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


def _loss(kind: Fit, found: torch.Tensor, inputs: torch.Tensor, target: torch.Tensor) -> float:
    import torch

    outputs = inputs @ found[:-1] + found[-1]
    if kind == "ridge":
        return float((outputs - target).square().sum())
    return float(torch.nn.functional.binary_cross_entropy_with_logits(outputs, target, reduction="sum"))
