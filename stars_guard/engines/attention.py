"""Attention over kept keys and values: groups of query heads read their common keys without copies of them."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

__all__ = ["GROUPED", "causal_masks", "use_grouped"]

GROUPED = "stars_guard_grouped"
"""The name by which transformers knows it."""


def _grouped(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers' ``sdpa``, which under a mask copies each key head for every query head of its group.

    The queries of a group are laid one behind the other instead, as more tokens of the same head.

    Args:
        query: [rows, heads, tokens, dim]; ``key`` and ``value`` have fewer heads.
        attention_mask: [rows, 1, tokens, keys].
    """
    rows, heads, tokens, dim = query.shape
    groups = heads // key.shape[1]
    plain = attention_mask is None or attention_mask.shape[1] != 1 or more.get("position_bias") is not None
    if groups == 1 or plain or attention_mask is None:
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return result
    folded = query.reshape(rows, key.shape[1], groups * tokens, dim)
    mask = attention_mask if tokens == 1 else attention_mask.repeat(1, 1, groups, 1)
    found = scaled_dot_product_attention(folded, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return found.reshape(rows, heads, tokens, -1).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(GROUPED, _grouped)
ALL_MASK_ATTENTION_FUNCTIONS.register(GROUPED, sdpa_mask)


def use_grouped(model: Any) -> None:
    """Let a model that uses ``sdpa`` use this instead."""
    if getattr(model.config, "_attn_implementation", None) == "sdpa":
        model.set_attn_implementation(GROUPED)


def causal_masks(config: Any, positions: torch.Tensor, end: int, dtype: torch.dtype) -> Any:
    """Additive masks [rows, 1, tokens, end]: each token sees itself and what is before it, or a window of that.

    Args:
        config: of the model; says which of its layers see a window, and how long it is.
        positions: [rows, tokens].

    Returns:
        One mask, or one for each kind of layer, as the model takes them.
    """
    at = torch.arange(end, device=positions.device)
    seen = at <= positions[:, None, :, None]
    window = getattr(config, "sliding_window", None)

    def additive(allowed: torch.Tensor) -> torch.Tensor:
        blank = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        return blank.masked_fill_(~allowed, torch.finfo(dtype).min)

    full = additive(seen)
    near = additive(seen & (at > positions[:, None, :, None] - window)) if window else full
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return near
    return {"full_attention": full, "sliding_attention": near} if "sliding_attention" in kinds else full
