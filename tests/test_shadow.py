"""Policies that are asked beside the live one: they change nothing, and what they say is what what-if says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from typing import Any

import pytest
from conftest import USER, policy, words
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.audit import CallRecord, MemoryStore
from stars_guard.auditing.counterfactual import Answered, what_if
from stars_guard.auditing.redoing import redo
from stars_guard.calling import portal
from stars_guard.core.events import Decision, Event, Finished, Reviewed
from stars_guard.core.segments import Passage
from stars_guard.core.tool_call_events import Approval
from stars_guard.errors import BudgetExhausted
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import Policy, load_policy
from stars_guard.testing.scripted import ScriptedBackend


def reward(passage: Passage) -> float:
    """A reward that depends on all of the answer."""
    return 1.0 - 0.7 * passage.segment.count("bad") - 0.1 * (len(passage.answer) % 7)


def other_reward(passage: Passage) -> float:
    return 0.8 - 0.5 * passage.segment.count("fine") - 0.05 * (len(passage.answer) % 5)


def broken(passage: Passage) -> float:
    raise RuntimeError(passage.answer)


async def hung(passage: Passage) -> float:
    await asyncio.sleep(3600)
    return 0.0


def deaf(passage: Passage) -> float:
    """Blocks its thread."""
    time.sleep(0.3)
    return 0.0


def veto(word: str = "awful", **more: Any) -> dict[str, Any]:
    return {"name": "words", "type": "patterns", "patterns": [{"name": "word", "regex": word}], **more}


def python(name: str, call: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "python", "call": f"test_shadow:{call}", **more}


FAR: dict[str, Any] = {
    "name": "far",
    "type": "http",
    "url": "http://127.0.0.1:9/",
    "body": {"text": "{answer}"},
    "score": "score",
    "reject_above": 0.5,
}
REWARD = python("reward", "reward", weight=1.0)
OTHER = python("reward", "other_reward", weight=1.0)


def ruled(*judges: dict[str, Any], rails: Any = None, shadow: Any = (), **more: Any) -> Policy:
    data = policy(judges=list(judges or (veto(), REWARD)), **more)
    return load_policy({**data, "rails": rails or {}, "shadow": [*shadow]})


def shadowed(live: Policy, *shadows: Policy, **more: Any) -> Policy:
    entries = [
        {"policy": {**shadow.model_dump(mode="json", by_alias=True), "name": f"shadow-{n}"}, "wait": 20.0, **more}
        for n, shadow in enumerate(shadows)
    ]
    return load_policy({**live.model_dump(mode="json", by_alias=True), "shadow": entries})


def answered(
    under: Policy, seed: int = 3, backend: ScriptedBackend | None = None, **options: Any
) -> tuple[list[Event], CallRecord]:
    store = MemoryStore()
    made = Guard(under, model=backend or ScriptedBackend(words(18)), audit=store, allow_python=True)
    events: list[Event] = []
    with made.blocking, contextlib.suppress(BudgetExhausted):
        events += made.blocking.stream(USER, CallOptions(seed=seed, **options))
    return events, store.records[-1]


def under(record: CallRecord, other: Policy) -> Answered:
    return portal.call(lambda: what_if(record, other, allow_python=True))


TIMES = {"started_at", "ended_at", "seconds", "call_id", "policy_sha256", "shadows"}


def bare(value: Any) -> Any:
    """A record as JSON, without times, ids and shadows."""
    if isinstance(value, CallRecord):
        value = json.loads(value.model_dump_json())
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items() if key not in TIMES}
    return [bare(item) for item in value] if isinstance(value, list) else value


def bare_event(event: Event) -> Any:
    if isinstance(event, Finished):
        return event.text, event.finish, event.reason, event.totals, event.seed
    if isinstance(event, Reviewed):
        return [(score.judge, score.value) for score in event.judgement.scores], event.verdict
    if isinstance(event, Decision):
        scores = [(score.judge, score.value, score.detail) for score in event.judgement.scores]
        return event.segment, event.attempt, event.candidate, scores, event.verdict, event.threshold, event.u
    return event


def same_verdicts(record: CallRecord, shadow: Policy, place: int = 0) -> None:
    """The entry on record says what what-if says, and the record verifies."""
    entry, found = record.shadows[place], under(record, shadow)
    rows = [(row.segment, row.attempt, row.after, row.reward, row.threshold, row.veto) for row in found.candidates]
    assert [(c.segment, c.attempt, c.verdict, c.reward, c.threshold, c.veto) for c in entry.candidates] == rows
    parting = found.parting
    if entry.outcome != "unknown":
        course = ("same", None, None, 0)
        course = course if parting is None else (parting.outcome, parting.segment, parting.kept, parting.seen)
        assert (entry.outcome, entry.segment, entry.kept, entry.seen) == course
    assert redo(record) is None


LEARNED = {"schedule": "learned", "thresholds": [{"tokens": 8, "base": 0.4, "carry": 0.5}, {"tokens": 24, "base": 0.6}]}
POLICIES = st.builds(
    lambda schedule, judges, **more: ruled(*judges, **schedule, **more),
    schedule=st.sampled_from([{"schedule": "linear"}, {"schedule": "constant"}, LEARNED]),
    judges=st.sampled_from(
        [[veto(), REWARD], [veto("fine|bad"), REWARD], [OTHER], [veto(every=3)], [veto("bad"), OTHER]]
    ),
    method=st.sampled_from(["stars", "cards"]),
    mode=st.sampled_from(["enforce", "enforce", "enforce", "monitor", "off"]),
    on_exhausted=st.sampled_from(["best", "refuse", "stop", "raise"]),
    acceptance=st.sampled_from(["gibbs", "hard"]),
    attempts=st.integers(1, 4),
    parallel=st.sampled_from([1, 2, 4]),
    r_star=st.sampled_from([0.0, 0.7, 1.0, 3.0]),
    segment_tokens=st.integers(1, 5),
    rewinds=st.sampled_from([0, 0, 3]),
    hold_tokens=st.sampled_from([0, 4]),
    budget_tokens=st.one_of(st.none(), st.integers(8, 80)),
    audit=st.sampled_from([{"content": "full"}, {"content": "hash"}, {"content": "redacted"}]),
)


@settings(max_examples=40, deadline=None)
@given(POLICIES, st.lists(POLICIES, min_size=1, max_size=2), st.integers(0, 2**32))
def test_the_answer_is_unchanged_and_what_if_says_the_same(live: Policy, others: list[Policy], seed: int) -> None:
    events, record = answered(live, seed)
    beside = shadowed(live, *others)
    events_beside, record_beside = answered(beside, seed)
    assert [bare_event(event) for event in events_beside] == [bare_event(event) for event in events]
    assert bare(record_beside) == bare(record)
    assert record.shadows == ()
    assert [entry.policy for entry in record_beside.shadows] == [f"shadow-{n}" for n in range(len(others))]
    for place, (entry, other) in enumerate(zip(record_beside.shadows, beside.shadow, strict=True)):
        assert entry.policy_sha256 == other.policy.sha256
        if record.segments:
            same_verdicts(record_beside, other.policy, place)
        if entry.error is None and record.segments and live.mode != "off":
            assert "unknown" not in {row.verdict for row in entry.candidates}


@pytest.mark.parametrize(
    ("judges", "more", "errors"),
    [
        ([python("reward", "broken", weight=1.0, on_error="reject")], {}, {None}),
        ([python("reward", "broken", weight=1.0, on_error="ignore")], {}, {None}),
        ([python("reward", "broken", weight=1.0, on_error="raise")], {}, {"ScorerError"}),
        ([python("reward", "hung", weight=1.0, timeout=60.0)], {"wait": 0.05}, {"not in time"}),
        ([python("calm", "hung", reject_above=0.5, timeout=0.05)], {}, {None}),
        ([python("calm", "deaf", reject_above=0.5, timeout=60.0)], {"wait": 0.05}, {"not in time"}),
        ([python("none", "not_there", weight=1.0)], {}, {"PolicyError", "ScorerError"}),
        ([FAR], {}, {None}),
        ([veto()], {"at_once": 1, "wait": 0.0}, {"not in time", None}),
    ],
)
def test_a_shadow_that_fails_changes_nothing(
    judges: list[Any], more: dict[str, Any], errors: set[str | None], caplog: pytest.LogCaptureFixture
) -> None:
    live = ruled(attempts=3)
    events, record = answered(live)
    with caplog.at_level(logging.WARNING):
        events_beside, record_beside = answered(shadowed(live, ruled(*judges, attempts=3), **more))
    assert [bare_event(event) for event in events_beside] == [bare_event(event) for event in events]
    assert bare(record_beside) == bare(record)
    (entry,) = record_beside.shadows
    assert entry.error in errors
    assert redo(record_beside) is None
    kept = "".join(a.text.text or "" for s in record.segments for a in s.attempts)
    assert kept not in caplog.text


def test_a_judge_that_hangs_takes_no_more_calls_than_it_may() -> None:
    live = ruled(veto("never"), max_tokens=8)
    hanging = ruled(python("calm", "hung", reject_above=0.5, timeout=50.0))
    store = MemoryStore()
    with Guard(
        shadowed(live, hanging, at_once=2, wait=0.0),
        model=ScriptedBackend(words(8)),
        audit=store,
        allow_python=True,
    ).blocking as guard:
        for seed in range(4):
            guard.generate(USER, CallOptions(seed=seed))
    assert [record.shadows[0].error for record in store.records] == ["not in time"] * 2 + ["busy"] * 2
    assert {row.verdict for record in store.records for row in record.shadows[0].candidates} <= {"unknown"}


def test_a_cancelled_call_waits_for_no_shadow() -> None:
    live = shadowed(ruled(veto("never")), ruled(python("calm", "hung", reject_above=0.5, timeout=50.0)), wait=60.0)
    store = MemoryStore()
    with Guard(live, model=ScriptedBackend(words(18)), audit=store, allow_python=True).blocking as guard:
        stream = guard.stream(USER, CallOptions(seed=1))
        next(event for event in stream if isinstance(event, Decision))
        stream.close()  # type: ignore[attr-defined]
    (record,) = store.records
    assert record.finish == "cancelled"
    assert record.shadows[0].error == "not in time"


def test_its_failures_do_not_put_a_live_judge_to_rest() -> None:
    """The same http judge, which is one scorer for all live policies; the shadow gives it no time at all."""
    judge = python("calm", "deaf", reject_above=0.5)
    live = ruled(judge, max_tokens=4)
    other = ruled({**judge, "name": "other", "timeout": 0.001})
    store = MemoryStore()
    with Guard(
        shadowed(live, other, wait=0.0), model=ScriptedBackend(words(4)), audit=store, allow_python=True
    ).blocking as guard:
        for seed in range(7):
            guard.generate(USER, CallOptions(seed=seed))
    assert all(score.error is None for r in store.records for s in r.segments for a in s.attempts for score in a.scores)


def test_a_score_of_the_same_judge_is_not_asked_for_again() -> None:
    live = ruled(veto(), REWARD, r_star=0.3)
    _, record = answered(shadowed(live, ruled(veto(), REWARD, r_star=0.9), ruled(veto("bad"), REWARD)))
    known, own = record.shadows
    assert known.totals["asked"] == sum(len(c.scores) for c in known.candidates) - known.totals["scorer_passages"] == 0
    assert known.totals["scorer_passages"] > 0
    assert own.totals["asked"] > 0
    assert {score.judge for row in own.candidates for score in row.scores} == {"words", "reward"}


def test_costs_are_those_of_the_candidates_that_it_rejects() -> None:
    _, record = answered(shadowed(ruled(veto("never")), ruled(veto("good"), attempts=2)))
    (entry,) = record.shadows
    attempts = {(s.index, a.attempt): a for s in record.segments for a in s.attempts if a.verdict != "surplus"}
    rejected = [a for a in attempts.values() if "good" in (a.text.text or "")]
    told = {(c.segment, c.attempt) for c in entry.candidates if c.verdict == "rejected"} & set(attempts)
    assert {place for place, a in attempts.items() if "good" in (a.text.text or "")} <= told
    assert rejected
    assert entry.totals["rejections"] == len(told)
    assert entry.totals["rejected"] == sum(attempts[place].tokens for place in told)


CHANGES: dict[str, Any] = {
    "verdict": lambda row: "accepted" if row.verdict == "rejected" else "rejected",
    "veto": lambda row: "nobody",
    "attempt": lambda row: row.attempt + 99,
    "scores": lambda row: row.scores[:-1] if row.veto is None else (),
}


@pytest.mark.parametrize("field", CHANGES)
def test_what_was_changed_of_a_shadow_is_found(field: str) -> None:
    _, record = answered(shadowed(ruled(veto("never")), ruled(veto("good"), attempts=2)))
    (entry,) = record.shadows
    assert redo(record) is None
    for at, row in enumerate(entry.candidates):
        changed = row.model_copy(update={field: CHANGES[field](row)})
        rows = (*entry.candidates[:at], changed, *entry.candidates[at + 1 :])
        told = record.model_copy(update={"shadows": (entry.model_copy(update={"candidates": rows}),)})
        surplus = record.segments[row.segment].attempts[row.attempt].verdict == "surplus"
        if not (surplus and field == "verdict"):
            assert redo(told) is not None


# --- checks


RULES = [
    {"name": "never", "tools": ["delete_*"], "action": "reject"},
    {"name": "person", "tools": ["send"], "action": "ask"},
]
SHELL = {"name": "shell", "type": "shell", "ask_above": 0.0, "reject_above": 0.5}
RM = veto("rm", name="rm")
RAILS: list[dict[str, Any]] = [
    {},
    {"tool_call": {"rules": RULES}},
    {"tool_call": {"judges": [SHELL]}, "input": {"judges": [RM]}},
    {"tool_call": {"rules": RULES, "judges": [SHELL]}, "tool_result": {"judges": [RM], "action": "redact"}},
    {"tool_result": {"judges": [RM]}, "output": {"judges": [RM]}},
]
CHECKS = st.one_of(
    st.tuples(
        st.sampled_from(["input", "tool_result", "output", "tool_call"]), st.sampled_from(["ls", "rm -rf /", ""])
    ),
    st.tuples(st.sampled_from(["bash", "send", "delete_x"]), st.sampled_from(["ls", "rm -rf /", "git reset --hard"])),
)
APPROVALS = st.sampled_from([None, Approval(outcome="approved"), Approval(outcome="rejected")])
MODES = st.sampled_from(["enforce", "monitor", "off"])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(RAILS), MODES, st.sampled_from(RAILS), MODES, CHECKS, APPROVALS)
def test_checks_are_unchanged_and_what_if_says_the_same(
    rails: Any, mode: str, others: Any, other_mode: str, check: tuple[str, str], approval: Approval | None
) -> None:
    live, other = ruled(veto(), rails=rails, mode=mode), ruled(veto(), rails=others, mode=other_mode)
    found, beside_it = [], shadowed(live, other)
    for under_policy in (live, beside_it):
        store = MemoryStore()
        with Guard(under_policy, model=ScriptedBackend(words()), audit=store).blocking as guard:
            name, text = check
            if name in ("input", "tool_result", "output", "tool_call"):
                checked = guard.check(name, text)  # type: ignore[arg-type]
            else:
                checked = guard.check_call(name, {"command": text, "id": "1"}, approval=approval)
        found.append((checked, store.records))
    (before, plain), (after, beside) = found
    for name in ("allowed", "text", "reason", "asked", "rule", "message", "refusal", "action"):
        assert getattr(after, name) == getattr(before, name)
    if plain:
        assert bare(beside[0]) == bare(plain[0])
    for record in beside:
        assert after.audit_id == record.call_id
        assert redo(record) is None
        (entry,) = record.shadows
        assert entry.error is None
        same_verdicts(record, beside_it.shadow[0].policy)
        # what it would have done is what it does
        own = Guard(other, model=ScriptedBackend(words()), audit=MemoryStore()).blocking
        with own as guard:
            if check[0] in ("input", "tool_result", "output", "tool_call"):
                alone = guard.check(*check)  # type: ignore[arg-type]
            else:
                alone = guard.check_call(check[0], {"command": check[1], "id": "1"}, approval=approval)
        if other_mode == "enforce" and entry.outcome in ("refuse", "ask", "accepted"):
            done = {"refuse": "reject", "ask": "ask", "accepted": "allow"}[entry.outcome]
            assert alone.action == done or alone.text != check[1]
