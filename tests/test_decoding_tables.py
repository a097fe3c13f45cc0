"""A method, a schedule and an acceptance rule that somebody adds: one entry each, and policy, decoder and audit know
them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from conftest import guard

from stars_guard.auditing.verification import redo
from stars_guard.core.messages import Message
from stars_guard.decoding import ACCEPTANCE, METHODS, SCHEDULES, BestOfK, Judged, Outcome, Schedule, Settings
from stars_guard.decoding.schedules import Numbers, Progress
from stars_guard.errors import PolicyError
from stars_guard.guard import CallOptions
from stars_guard.policy import load_policy, policy_schema

SEEN: list[tuple[str, object]] = []


def rising(numbers: Numbers, at: Progress) -> float:
    SEEN.append(("schedule", at.prompt_reward))
    return 0.01 * at.tokens


def lenient(*, reward: float, tau: float, beta: float) -> float:
    SEEN.append(("rule", tau))
    return 0.75


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    class Mine(BestOfK, method="mine"):
        def decide(self, judged: Sequence[Judged]) -> Outcome:
            SEEN.append(("method", len(judged)))
            return super().decide(judged)

    SEEN.clear()
    monkeypatch.setitem(SCHEDULES, "rising", Schedule(threshold=rising, needs_prompt_reward=False))
    monkeypatch.setitem(ACCEPTANCE, "lenient", lenient)
    yield
    del METHODS["mine"]


def run(**decoding: object) -> tuple[object, ...]:
    made = guard(max_tokens=24, segment_tokens=4, attempts=3, **decoding)
    done = made.blocking.generate([Message("user", "hello")], CallOptions(seed=1))
    (record,) = made.audit.read()
    assert redo(record) is None
    return done, record


@pytest.mark.usefixtures("mine")
def test_a_method_that_is_added_decodes() -> None:
    done, record = run(method="mine")
    assert record.method == "mine"
    assert {attempt.verdict for segment in record.segments for attempt in segment.attempts} == {"accepted", "rejected"}
    assert [kind for kind, _ in SEEN] == ["method"] * len(SEEN) != []
    assert done.text


@pytest.mark.usefixtures("mine")
def test_a_schedule_and_a_rule_that_are_added_decide() -> None:
    _, record = run(schedule="rising", acceptance="lenient")
    attempts = [attempt for segment in record.segments for attempt in segment.attempts if attempt.u is not None]
    unvetoed = [attempt for attempt in attempts if attempt.veto is None]
    assert {attempt.probability for attempt in unvetoed} == {0.75}
    assert unvetoed[0].threshold == pytest.approx(0.01 * unvetoed[0].tokens)
    assert record.prompt_reward is None
    assert ("schedule", None) in SEEN


@pytest.mark.usefixtures("mine")
def test_policy_and_schema_know_what_is_added() -> None:
    said = policy_schema()["$defs"]["Decoding"]["properties"]
    names = {"method": "mine", "schedule": "rising", "acceptance": "lenient"}
    assert all(name in said[key]["enum"] for key, name in names.items())
    loaded = load_policy({"apiVersion": "stars-guard/v1", "name": "p", "decoding": names})
    assert loaded.decoding.model_dump(include=set(names)) == names
    with pytest.raises(PolicyError, match="did you mean `mine`"):
        load_policy({"apiVersion": "stars-guard/v1", "name": "p", "decoding": {"method": "mien"}})


def test_what_is_not_added_is_not_known() -> None:
    assert sorted(METHODS) == ["best_of_n", "blockwise_best_of_k", "cards", "stars", "vanilla"]
    with pytest.raises(PolicyError, match=r"'best_of_n', .* or 'vanilla'"):
        load_policy({"apiVersion": "stars-guard/v1", "name": "p", "decoding": {"method": ["stars"]}})


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_says_whether_it_reads_the_prompts_reward(name: str) -> None:
    steps = ({"tokens": 8, "base": 0.0, "carry": 1.0},)
    settings = Settings(schedule=name, thresholds=steps if name == "learned" else (), r_star=5.0)
    taus = {
        SCHEDULES[name].threshold(settings, Progress(tokens=4, prompt_reward=reward, prefix_reward=reward))
        for reward in (-1.0, 1.0)
    }
    assert (len(taus) > 1) == SCHEDULES[name].needs_prompt_reward
