"""How much is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.alignment.methods import Method, methods
from benchmarks.alignment.prompts import Prompt

__all__ = ["PLANS", "Plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The size of an evaluation.

    Attributes:
        max_tokens: T, the longest answer.
        harmful: held-out harmful prompts, each answered ``seeds`` times.
        benign: held-out ordinary prompts, each answered ``benign_seeds`` times.
        tuning: harmful prompts that calibration draws.
        levels: costs of the methods that have a choice, in plain answers.
        segments: B of STARS.
        rounds: of calibration by drawing; 0 trusts the fit to unguarded answers.
        batches: answers at once, for speed; ``least`` answers a row at least.
        concurrency: answers at once, for quality.
        families: only these methods; all if empty.
    """

    name: str
    max_tokens: int
    harmful: int
    benign: int
    seeds: int
    benign_seeds: int
    tuning: int
    levels: tuple[int, ...]
    segments: tuple[int, ...]
    rounds: int
    batches: tuple[int, ...]
    least: int
    concurrency: int
    families: tuple[str, ...] = ()

    def methods(self) -> list[Method]:
        """The methods of this plan, vanilla first."""
        found = methods(self.levels, self.segments)
        return [method for method in found if not self.families or method.family in self.families]

    def jobs(self, prompts: Sequence[Prompt]) -> list[tuple[Prompt, int]]:
        """Each prompt with each of its seeds."""
        return [(p, seed) for p in prompts for seed in range(self.benign_seeds if p.kind == "benign" else self.seeds)]


PLANS = {
    "full": Plan(
        name="full",
        max_tokens=96,
        harmful=200,
        benign=72,
        seeds=3,
        benign_seeds=1,
        tuning=64,
        levels=(2, 4),
        segments=(15, 30, 32, 64),
        rounds=2,
        batches=(1, 8, 32, 64),
        least=4,
        concurrency=64,
    ),
    "quick": Plan(
        name="quick",
        max_tokens=48,
        harmful=12,
        benign=6,
        seeds=1,
        benign_seeds=1,
        tuning=12,
        levels=(2,),
        segments=(15, 32),
        rounds=1,
        batches=(1, 8),
        least=2,
        concurrency=16,
    ),
    "smoke": Plan(
        name="smoke",
        max_tokens=8,
        harmful=2,
        benign=1,
        seeds=2,
        benign_seeds=1,
        tuning=8,
        levels=(2,),
        segments=(4,),
        rounds=0,
        batches=(2,),
        least=2,
        concurrency=6,
        families=("vanilla", "output filter", "best of n", "CARDS", "STARS B=4", "STARS B=4, learned"),
    ),
}
