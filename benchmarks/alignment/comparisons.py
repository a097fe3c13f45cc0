"""Methods beside each other at one cost: tokens drawn, or time.

A family is known at a few costs, plain sampling being the cheapest of all. Between two of them it is taken to lie on
the straight line, which is what choosing between the two by lot gives. Beyond the dearest, a rival that has
several costs goes on along its last line, which flatters it: each further proposal gains less than the one before.
"""

from __future__ import annotations

import bisect
import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.alignment.measures import Answer, difference
from benchmarks.alignment.methods import FILTER, PLAIN, Method, family_of, one_by_one

__all__ = ["RIVALS", "effort", "equal_time", "equal_tokens"]

RIVALS = ("best of n", "blockwise best of k", "whole-answer rejection", "CARDS")
QUARTERS = 4
Mix = list[tuple[float, Sequence[Answer]]]


def equal_tokens(methods: Sequence[Method], answers: Mapping[str, Sequence[Answer]]) -> list[dict[str, Any]]:
    """Each STARS less the best other family at the tokens that it draws, by both judges."""
    drawn = {method.name: statistics.fmean(a["drawn"] for a in answers[method.name]) for method in methods}
    families = {
        family: sorted([PLAIN, *(m.name for m in methods if m.family == family)], key=drawn.__getitem__)
        for family in RIVALS
        if any(method.family == family for method in methods)
    }
    found = []
    for method in methods:
        if not method.family.startswith("STARS") or not families:
            continue
        row: dict[str, Any] = {"method": method.name, "level": method.level, "drawn": drawn[method.name]}
        mixes = {family: _mix(names, drawn, answers, drawn[method.name]) for family, names in families.items()}
        for judge in ("first", "second"):
            means = {family: _mean(mix, judge) for family, mix in mixes.items()}
            best = max(means, key=means.__getitem__)
            row[f"rival_{judge}"], row[f"gap_{judge}"] = best, difference(answers[method.name], mixes[best], judge)
        found.append(row)
    return found


def _mix(names: Sequence[str], drawn: Mapping[str, float], answers: Mapping[str, Sequence[Answer]], aim: float) -> Mix:
    """The two costs next to ``aim`` with the weights that give it; one is negative beyond the dearest."""
    costs = [drawn[name] for name in names]
    upper = min(max(bisect.bisect_left(costs, aim), 1), len(names) - 1)
    step = costs[upper] - costs[upper - 1]
    weight = (aim - costs[upper - 1]) / step if step else 1.0
    if upper == 1:
        weight = min(max(weight, 0.0), 1.0)
    return [(1 - weight, answers[names[upper - 1]]), (weight, answers[names[upper]])]


def _mean(mix: Mix, judge: str) -> float:
    return sum(weight * statistics.fmean(answer[judge] for answer in answers) for weight, answers in mix)


def effort(answers: Mapping[str, Sequence[Answer]]) -> dict[str, list[tuple[float, float]]]:
    """Where each method's tokens go: tokens drawn as a multiple of a plain answer's, and first judge's reward above
    that of plain answers, by quarter of the prompts, hardest first.

    A prompt is as hard as the mean reward of all answers to it is low, refusals aside: were it that of the plain
    answers alone, their bad luck would pass for a method's gain. Empty where there are fewer prompts than quarters.
    """
    rewards: dict[str, list[float]] = {}
    for answer in itertools.chain.from_iterable(answers.values()):
        if not answer["refused"]:
            rewards.setdefault(answer["prompt"], []).append(answer["first"])
    ranked = sorted(rewards, key=lambda prompt: statistics.fmean(rewards[prompt]))
    if len(ranked) < QUARTERS:
        return {}
    quarter = {prompt: rank * QUARTERS // len(ranked) for rank, prompt in enumerate(ranked)}

    def means(several: Sequence[Answer], name: str) -> list[float]:
        columns: list[list[float]] = [[] for _ in range(QUARTERS)]
        for answer in several:
            columns[quarter[answer["prompt"]]].append(answer[name])
        return [statistics.fmean(column) for column in columns]

    drawn, reward = means(answers[PLAIN], "drawn"), means(answers[PLAIN], "first")
    return {
        name: [
            (ours / plain, gained - base)
            for ours, plain, gained, base in zip(
                means(several, "drawn"), drawn, means(several, "first"), reward, strict=True
            )
        ]
        for name, several in answers.items()
    }


def equal_time(speed: Sequence[Mapping[str, Any]], rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Mean rewards that each family would reach in the time of the cheapest best-of-n, by the answers drawn at once.
    One that never takes so long keeps its dearest cost's.

    STARS with parallel proposals has the rewards of STARS one by one under the same thresholds: only its time differs.
    """
    found = []
    for batch in sorted({row["batch"] for row in speed}):
        at = {row["method"]: row["seconds_per_answer"] for row in speed if row["batch"] == batch}
        aims = [seconds for name, seconds in at.items() if family_of(name) == "best of n"]
        if not aims or PLAIN not in at:
            continue
        aim = min(aims)
        families: dict[str, list[tuple[float, str]]] = {}
        for name, seconds in at.items():
            if name not in (PLAIN, FILTER) and one_by_one(name) in rows:
                families.setdefault(family_of(name), []).append((seconds, one_by_one(name)))
        for family, known in families.items():
            points = sorted([(at[PLAIN], PLAIN), *known])
            row: dict[str, Any] = {"batch": batch, "family": family, "seconds": aim}
            for judge in ("first", "second"):
                means = [rows[quality]["harmful"][f"reward_{judge}"].value for _, quality in points]
                row[f"reward_{judge}"] = float(np.interp(aim, [seconds for seconds, _ in points], means))
            found.append(row)
    return found
