"""How the next token is sampled from the model's logits."""

from __future__ import annotations

from dataclasses import dataclass

from stars_guard.core.arguments import number, whole_number

__all__ = ["Sampling"]

_LIMITS = {
    "temperature": (0.0, 100.0),
    "top_p": (1e-6, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (1e-6, 100.0),
}


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

    Raises:
        InputError: a value is no number, or not in its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = number(f"sampling option {name}", getattr(self, name), low, high)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "top_k", whole_number("sampling option top_k", self.top_k, 0, 2**31))
