"""The methods that are compared, each as a policy: same judge, same sampling, same longest answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.alignment.judges import HARM_LINE, JUDGE
from stars_guard.policy import load_policy

__all__ = [
    "BLOCK",
    "FILTER",
    "PLAIN",
    "REFUSAL",
    "SHIPPED",
    "Method",
    "family_of",
    "fingerprint",
    "methods",
    "one_by_one",
    "policy",
    "shipped",
]

REFUSAL = "I can't help with that."
"""What the reader gets instead of an answer, or after what was released of it."""

PLAIN, FILTER = "vanilla", "output filter"
BLOCK = 32
ATTEMPTS = 20
CARDS_ENTROPY, CARDS_LONGEST = 3.0, 64
SHIPPED = "STARS, default policy"
LEARNED = {
    "schedule": "learned",
    "acceptance": "hard",
    "r_star": 100.0,
    "thresholds": [{"tokens": 1, "base": 0.0}],
}
"""r_star is out of reach and caps nothing; the thresholds are for calibration to replace."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method at one cost.

    Attributes:
        name: answers are kept under it.
        family: methods that differ in their cost alone.
        level: tokens drawn for an answer, as a multiple of a plain answer's; 1 where there is nothing to choose.
        decoding: of the policy.
        fitted: whether its thresholds and beta come from calibration, so that the level is met.
    """

    name: str
    family: str
    level: int
    decoding: Mapping[str, Any] = field(repr=False)
    fitted: bool = False

    def with_(self, **decoding: Any) -> Method:
        """The same with other numbers."""
        return replace(self, decoding={**self.decoding, **decoding})


def methods(levels: tuple[int, ...], segments: tuple[int, ...]) -> list[Method]:
    """All methods.

    Whole-answer rejection is STARS whose segment is the answer; the output filter draws one such segment and refuses
    when it is over the harm line, as guardrails do that look at finished answers. The default policy is taken as it is
    shipped, but for its longest answer and its vetoes. ``segment_tokens: None`` stands for the longest answer. Each
    level also has STARS under a hard budget: no call draws more than ``level`` longest answers. STARS has the published
    schedule, and beside it the learned one.

    Args:
        levels: costs.
        segments: B of STARS, the first of them and `BLOCK` also with learned thresholds. `BLOCK` is that of blockwise
            best-of-k and of the hard budget.
    """
    rejection = {"method": "stars", "attempts": ATTEMPTS, "parallel": 1, "on_exhausted": "best"}
    found = [
        Method(PLAIN, PLAIN, 1, {"method": "vanilla", "segment_tokens": BLOCK}),
        Method(
            FILTER,
            FILTER,
            1,
            {
                "method": "stars",
                "attempts": 1,
                "segment_tokens": None,
                "schedule": "constant",
                "acceptance": "hard",
                "r_star": HARM_LINE,
                "on_exhausted": "refuse",
                "parallel": 1,
            },
        ),
        Method(SHIPPED, SHIPPED, 1, {"parallel": 1, **shipped("default")}),
    ]
    for level in levels:
        named = {
            "best of n": ({"method": "best_of_n", "attempts": level}, False),
            "blockwise best of k": (
                {"method": "blockwise_best_of_k", "attempts": level, "segment_tokens": BLOCK},
                False,
            ),
            "whole-answer rejection": ({**rejection, "segment_tokens": None}, True),
            **{f"STARS B={size}": ({**rejection, "segment_tokens": size}, True) for size in segments},
            **{
                f"STARS B={size}, learned": ({**rejection, **LEARNED, "segment_tokens": size}, True)
                for size in dict.fromkeys((segments[0], BLOCK))
            },
            f"STARS B={BLOCK}, hard budget": (
                {**rejection, "segment_tokens": BLOCK, "budget_tokens": level},
                True,
            ),
            "CARDS": (
                {**rejection, "method": "cards", "entropy_threshold": CARDS_ENTROPY, "segment_tokens": CARDS_LONGEST},
                True,
            ),
        }
        for family, (decoding, fitted) in named.items():
            found.append(Method(f"{family}, x{level}", family, level, decoding, fitted))
    return found


def family_of(name: str) -> str:
    """The family of a method of this name."""
    return name.rpartition(", x")[0] or name


def one_by_one(name: str) -> str:
    """The method whose answers these are too: parallel proposals change when an answer comes, not what it is."""
    family, separator, level = name.rpartition(", x")
    return f"{family.partition(', parallel')[0]}{separator}{level}"


def shipped(name: str) -> dict[str, Any]:
    """What a shipped policy says of decoding, without the longest answer and without going back. That is for text that
    is held, and none is without the judges that veto."""
    left_out = {"max_tokens", "rewinds"}
    return load_policy(name).decoding.model_dump(mode="json", exclude_unset=True, exclude=left_out)


def fingerprint(under: Mapping[str, Any]) -> str:
    """A digest of a policy as it is written here: defaults that it does not name are not part of it, so that answers
    outlive a new key of policies."""
    return hashlib.sha256(json.dumps(under, sort_keys=True).encode()).hexdigest()


def policy(method: Method, max_tokens: int, **decoding: Any) -> dict[str, Any]:
    """The policy of a method for answers of at most ``max_tokens``; ``decoding`` replaces single numbers."""
    values = {**method.decoding, "max_tokens": max_tokens, **decoding}
    if values.get("segment_tokens", 0) is None:
        values["segment_tokens"] = max_tokens
    if "budget_tokens" in values:
        values["budget_tokens"] *= max_tokens
    return {
        "apiVersion": "stars-guard/v1",
        "name": method.name,
        "decoding": values,
        "sampling": {"temperature": 0.8},
        "judges": [JUDGE],
        "refusal": {"message": REFUSAL},
        "audit": {"content": "none"},
    }
