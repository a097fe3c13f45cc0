"""A small layer on a few directions, learnt by gradient, from where linear regression ended."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from stars_guard.core.vocabulary import ProbeFit

if TYPE_CHECKING:
    import torch

__all__ = ["DIRECTIONS", "fit_inner", "loss_of"]


DIRECTIONS = 4
"""How many directions an inner layer has."""

STEPS, PATIENCE, RATE, DECAY = 400, 40, 0.01, 0.01


def loss_of(kind: ProbeFit, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The sum over texts of what a probe is fitted by: squared error, or cross entropy for a chance."""
    import torch

    if kind == "ridge":
        return (outputs - target).square().sum()
    return torch.nn.functional.binary_cross_entropy_with_logits(outputs, target, reduction="sum")


def fit_inner(
    inputs: torch.Tensor, target: torch.Tensor, folds: torch.Tensor, line: torch.Tensor, kind: ProbeFit, cells: int
) -> dict[str, torch.Tensor] | None:
    """Slopes [k, width] with a weight each, a bias, and the layer's ``rows``, ``offsets`` and ``output``.

    Args:
        inputs: standardised states.
        folds: of each text; the first fold says when to stop, and whether the layer does better than the line.
        line: slope and, last, offset of the regression, from where it begins.

    Returns:
        None where it does not do better.
    """
    import torch

    inside, outside = folds != 0, folds == 0
    if not outside.any() or not inside.any():
        return None
    maker = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=maker, dtype=torch.float64)

    width = inputs.shape[1]
    first = line[:-1].norm().clamp_min(1e-12)
    slopes = torch.cat([(line[:-1] / first)[None], noise(DIRECTIONS - 1, width) / width**0.5])
    made = {
        "slopes": slopes,
        "weight": torch.cat([first[None], torch.zeros(DIRECTIONS - 1, dtype=torch.float64)]),
        "bias": line[-1:].clone(),
        "rows": noise(cells, DIRECTIONS) / 2,
        "offsets": torch.zeros(cells, dtype=torch.float64),
        "output": torch.zeros(cells, dtype=torch.float64),
    }
    for tensor in made.values():
        tensor.requires_grad_()
    solver = torch.optim.AdamW(made.values(), lr=RATE, weight_decay=DECAY)
    best, kept, since = math.inf, None, 0
    for _ in range(STEPS):
        with torch.no_grad():
            now = float(loss_of(kind, _outputs(made, inputs[outside]), target[outside]))
        since += 1
        if now < best:
            # before the first step the layer adds nothing, and so this is the line
            kept = None if best == math.inf else {name: one.detach().clone() for name, one in made.items()}
            best, since = now, 0
        if since > PATIENCE:
            break
        solver.zero_grad()
        loss = loss_of(kind, _outputs(made, inputs[inside]), target[inside]) / int(inside.sum())
        loss.backward()  # type: ignore[no-untyped-call]
        solver.step()
    return kept


def _outputs(made: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    values = inputs @ made["slopes"].T
    layer = (values @ made["rows"].T + made["offsets"]).tanh()
    return values @ made["weight"] + made["bias"] + layer @ made["output"]
