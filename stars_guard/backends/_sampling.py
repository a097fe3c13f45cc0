"""Sampling the next token of every row of a batch, each with its own options and its own uniform number."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stars_guard.core.sampling import Sampling

__all__ = ["sample"]


def sample(
    logits: torch.Tensor,
    sampling: Sequence[Sampling],
    uniforms: Sequence[float],
    seen: Sequence[Sequence[int]],
    wanted: Sequence[bool],
) -> tuple[list[int], list[float | None]]:
    """One token a row by inverse CDF, so that a row's token does not depend on its mates.

    Args:
        logits: [rows, vocabulary], float32.
        uniforms: one number in [0, 1) a row.
        seen: ids of prompt and answer; looked at only where a repetition penalty is set.
        wanted: whether a row's entropy is.

    Returns:
        Token ids, and entropies in nats of the model's own distributions: before penalties, temperature and truncation.
    """
    entropies: list[float | None] = [None] * len(sampling)
    if any(wanted):
        raw = torch.log_softmax(logits, -1)
        found = -(raw.exp() * raw.clamp_min(-1e4)).sum(-1)
        entropies = [value if want else None for value, want in zip(found.tolist(), wanted, strict=True)]
    for row, options in enumerate(sampling):
        if options.repetition_penalty != 1.0:
            ids = torch.tensor(sorted(set(seen[row])), device=logits.device)
            values = logits[row, ids]
            scale = torch.where(values > 0, 1 / options.repetition_penalty, options.repetition_penalty)
            logits[row, ids] = values * scale
    greedy = logits.argmax(-1)
    temperature = torch.tensor([[max(o.temperature, 1e-4)] for o in sampling], device=logits.device)
    probs = torch.softmax(logits / temperature, -1)
    for row, options in enumerate(sampling):
        if options.top_k or options.top_p < 1 or options.min_p > 0:
            probs[row] = _truncate(probs[row], options)
    cumulative = probs.double().cumsum(-1)
    points = torch.tensor([[u] for u in uniforms], dtype=torch.float64, device=logits.device) * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, points, right=True)[:, 0].clamp_max(logits.shape[-1] - 1)
    cold = torch.tensor([o.temperature == 0 for o in sampling], device=logits.device)
    return torch.where(cold, greedy, drawn).tolist(), entropies


def _truncate(probs: torch.Tensor, options: Sampling) -> torch.Tensor:
    """Min-p, then top-k, then top-p: the order of `Sampling`, which is vLLM's."""
    keep = probs >= options.min_p * probs.max()
    if options.top_k and options.top_k < probs.numel():
        keep &= probs >= probs.topk(options.top_k).values[-1]
    if options.top_p < 1:
        ordered, index = (probs * keep).sort(descending=True)
        before = ordered.double().cumsum(-1) - ordered
        nucleus = torch.zeros_like(keep)
        nucleus[index[before < options.top_p * ordered.double().sum()]] = True
        keep &= nucleus
    return probs * keep
