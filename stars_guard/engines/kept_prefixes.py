"""Whether what a decoder has read can be kept, rewound and read on from, as our caches do."""

from __future__ import annotations

from typing import Any

__all__ = ["reason_against_keeping", "steady_length"]

KEPT = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers whose keys and values at a place depend on what was read up to there alone, and for which
`stars_guard.engines.attention.causal_masks` makes masks."""

GROWING = ("dynamic", "longrope")
"""Kinds of rotary embeddings that turn what was read before when the text grows past a length."""


def reason_against_keeping(config: Any) -> str:
    """Which layers of a model cannot be kept, by its text config; an empty string if it names none.

    A trial must still follow, because not every model's config says all.
    """
    named = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ()
    kinds = ["full_attention" if kind == "attention" else str(kind) for kind in named]
    if others := sorted(set(kinds) - KEPT):
        count = sum(kind in others for kind in kinds)
        return f"{count} of its {len(kinds)} layers are of the kind {', '.join(others)}"
    chunk = getattr(config, "attention_chunk_size", None)
    if chunk and not kinds:
        return f"its layers read in chunks of {chunk} tokens"
    if getattr(config, "use_bidirectional_attention", False) or not getattr(config, "is_causal", True):
        return "the tokens of its layers see what comes after them"
    return ""


def steady_length(config: Any) -> int | None:
    """The most tokens for which a model's rotary embedding stays as it is; None where it never changes."""
    rope = getattr(config, "rope_parameters", None) or {}
    if not any(kind in str(rope) for kind in GROWING):
        return None
    length = rope.get("original_max_position_embeddings") or config.max_position_embeddings
    return int(length)
