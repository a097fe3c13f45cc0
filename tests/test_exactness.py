"""The law of the output on the real model, with so few tokens to choose from that all answers can be written down."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from laws import FALSE_ALARM, chance

from benchmarks.exactness import RECOVERY, Table, closed_form, engine_answers, tally
from stars_guard.backends.base import Backend
from stars_guard.calling import portal
from stars_guard.decoding.settings import Recovery

DRAWS = 20_000
REAL = 16


@pytest.mark.parametrize(("attempts", "width"), [(2, 1), (6, 4)])
def test_the_real_model_gives_the_closed_form_and_no_other(attempts: int, width: int) -> None:
    async def check() -> None:
        closed, r_star, beta = await closed_form(top_k=3, size=1, length=2)
        numbers = {"attempts": attempts, "parallel": width, "r_star": r_star, "beta": beta}
        law = await closed.law(r_star, beta, attempts)
        assert sum(law.values()) == pytest.approx(1)
        table = await Table.of(closed)
        seen = table.count(range(DRAWS), **numbers)
        found = tally(law, seen)
        assert found.impossible == 0
        assert found.tv < found.noise < 0.01
        nearly = tally(await closed.law(r_star, 1.1 * beta, attempts), seen)
        assert nearly.tv > nearly.noise
        given = await engine_answers(closed, range(REAL), **numbers)
        assert given == [table.answer(seed, **numbers) for seed in range(REAL)]
        assert len(set(given)) > 2

    portal.call(check)


@pytest.mark.parametrize(
    ("attempts", "more"),
    [
        (3, RECOVERY),
        (1, {"rewinds": 1, "hold_tokens": 1}),
        (2, {**RECOVERY, "rewinds": 2, "hold_tokens": 1}),
    ],
)
def test_recovery_and_going_back_give_their_closed_forms_and_no_other(attempts: int, more: dict[str, Any]) -> None:
    async def check() -> None:
        closed, r_star, beta = await closed_form(top_k=3, size=1, length=2)
        recovery = Recovery.model_validate(more["recovery"]) if "recovery" in more else None
        numbers = {"attempts": attempts, "parallel": 1, "r_star": r_star, "beta": beta, **more}
        law = await closed.law(r_star, beta, attempts, recovery=recovery, rewinds=more.get("rewinds", 0))
        assert sum(law.values()) == pytest.approx(1)
        table = await Table.of(closed, recovery)
        seen = table.count(range(DRAWS), **numbers)
        found = tally(law, seen)
        assert found.impossible == 0
        assert found.tv < found.noise < 0.02
        plain = tally(await closed.law(r_star, beta, attempts), seen)
        assert plain.tv > 2 * plain.noise
        given = await engine_answers(closed, range(REAL), **numbers)
        assert given == [table.answer(seed, **numbers) for seed in range(REAL)]

    portal.call(check)


def test_vllm_gives_the_closed_form_and_no_other(vllm_engine: Backend) -> None:
    async def check() -> None:
        closed, r_star, beta = await closed_form(top_k=3, size=1, length=2)
        numbers = {"attempts": 2, "parallel": 2, "r_star": r_star, "beta": beta}
        seen = Counter(await engine_answers(closed, [None] * 600, vllm_engine, **numbers))
        law = await closed.law(r_star, beta, 2)
        assert tally(law, seen).impossible == 0
        assert chance(law, seen) > FALSE_ALARM
        assert chance(await closed.law(r_star, beta, 1), seen) < FALSE_ALARM

    portal.call(check)
