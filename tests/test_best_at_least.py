"""The best candidate of a segment is kept only where it is good enough; otherwise the answer is refused."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import policy
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.audit import CallRecord, MemoryStore
from stars_guard.auditing.verification import redo
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.errors import PolicyError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.scorers.cascade import Judge
from stars_guard.testing import FunctionScorer
from stars_guard.testing.scripted import ScriptedBackend

ASK = [Message("user", "hi")]
VALUES = {"awful ": -2.0, "poor ": -0.5, "fair ": 0.2, "good ": 1.0}


def varied() -> ScriptedBackend:
    def script(messages: Sequence[Message], so_far: tuple[str, ...], rng: random.Random) -> str | None:
        return None if len(so_far) >= 8 else rng.choice([*VALUES])

    return ScriptedBackend(script)


def worst() -> Judge:
    """The reward of an answer is that of its worst word."""
    return Judge(
        Rule(judge="manners", weight=1.0),
        FunctionScorer(
            lambda passage: min(VALUES[f"{word} "] for word in (passage.accepted + passage.segment).split())
        ),
    )


def answered(seed: int, **decoding: Any) -> CallRecord:
    store = MemoryStore()
    common = {
        "segment_tokens": 2,
        "max_tokens": 8,
        "attempts": 3,
        "on_exhausted": "best",
        "schedule": "constant",
        "acceptance": "hard",
    }
    made = Guard(policy(**{**common, "r_star": 0.6, **decoding}), model=varied(), judges=[worst()], audit=store)
    made.blocking.generate(ASK, CallOptions(seed=seed))
    return store.records[0]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**40),
    least=st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.2, 5.0]),
    parallel=st.sampled_from([1, 2, "auto"]),
    budget=st.none() | st.integers(4, 30),
)
def test_nothing_worse_is_kept_and_nothing_good_enough_is_refused(
    seed: int, least: float, parallel: int | str, budget: int | None
) -> None:
    record = answered(seed, best_at_least=least, parallel=parallel, budget_tokens=budget)
    for segment in record.segments:
        if segment.how == "best":
            kept = segment.kept_attempt
            assert kept is not None
            assert kept.reward is not None
            assert kept.reward >= least
        if segment.ended is not None:
            assert segment.ended.action == "refuse"
            assert all(attempt.reward is not None and attempt.reward < least for attempt in segment.attempts)
    assert redo(record) is None


def test_both_ends_are_reached() -> None:
    found = {answered(seed, best_at_least=0.0).finish for seed in range(40)}
    assert {"refused", "length"} <= found
    hows = {s.how for seed in range(40) for s in answered(seed, best_at_least=0.0).segments if s.how}
    assert hows == {"accepted", "best"}
    assert {answered(seed).finish for seed in range(40)} == {"length"}


def test_a_candidate_that_was_not_good_enough_is_found_in_a_forged_record() -> None:
    records = (answered(seed, best_at_least=-0.5) for seed in range(200))
    record = next(record for record in records if any(s.how == "best" for s in record.segments))
    stricter = record.model_copy(update={"decoding": {**record.decoding, "best_at_least": 0.5}})
    problem = redo(stricter)
    assert problem is not None
    assert "good enough" in problem.text


def test_a_refusal_in_spite_of_a_good_candidate_is_found_in_a_forged_record() -> None:
    records = (answered(seed, best_at_least=0.0) for seed in range(200))
    record = next(record for record in records if record.finish == "refused")
    looser = record.model_copy(update={"decoding": {**record.decoding, "best_at_least": None}})
    problem = redo(looser)
    assert problem is not None
    assert "best candidate to keep" in problem.text


@pytest.mark.parametrize("method", ["best_of_n", "blockwise_best_of_k", "vanilla"])
def test_other_methods_refuse_it_and_do_not_inherit_it(method: str) -> None:
    document = {"apiVersion": "stars-guard/v1", "name": "p", "decoding": {"method": method, "best_at_least": 0.0}}
    with pytest.raises(PolicyError, match="best_at_least isn't supported by the method"):
        load_policy(document)
    child = {
        "apiVersion": "stars-guard/v1",
        "name": "p",
        "extends": "default",
        "override": True,
        "decoding": {"method": method},
    }
    assert load_policy(child).decoding.best_at_least is None
