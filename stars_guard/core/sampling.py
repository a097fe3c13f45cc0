"""How the next token is sampled from the model's logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stars_guard.errors import InputError

__all__ = ["Sampling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is sampled from the model's logits.

    The order is repetition penalty, temperature, min-p, top-k, top-p, on every engine: vLLM fixes it, and the
    transformers backend does the same. (The ``generate`` of transformers itself applies min-p last. That differs where
    both min_p and top_p are set, because top_p counts the probability of what min_p has left.)

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: keep the smallest set of tokens whose probability reaches this; 1 keeps all.
        top_k: keep this many tokens; 0 keeps all.
        min_p: drop tokens less likely than this times the likeliest; 0 drops none.
        repetition_penalty: divides positive and multiplies negative logits of tokens already seen; 1 is off.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        limits: Mapping[str, tuple[float, float, float]] = {
            "temperature": (self.temperature, 0.0, 100.0),
            "top_p": (self.top_p, 1e-6, 1.0),
            "top_k": (self.top_k, 0, 2**31),
            "min_p": (self.min_p, 0.0, 1.0),
            "repetition_penalty": (self.repetition_penalty, 1e-6, 100.0),
        }
        for name, (value, low, high) in limits.items():
            if not low <= value <= high:
                raise InputError(f"sampling option {name} is {value}", hint=f"use a number from {low} to {high}")
