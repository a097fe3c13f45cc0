"""After failed attempts, candidates come from the same answer under one more instruction."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import policy
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.audit import CallRecord, MemoryStore
from stars_guard.auditing.replay import compare, regenerate
from stars_guard.auditing.verification import redo
from stars_guard.calling import portal
from stars_guard.calling.proposing import with_instruction
from stars_guard.core.events import Decision, Event, Finished
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.decoding import Settings
from stars_guard.errors import PolicyError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.scorers.cascade import Judge
from stars_guard.testing import FunctionScorer
from stars_guard.testing.scripted import ScriptedBackend

INSTRUCTION = "Answer kindly."
ASK = [Message("system", "You are short."), Message("user", "hi")]
KIND, RUDE = "kind ", "rude "


def moody(chunk: int = 1) -> ScriptedBackend:
    """Mostly rude, and kind where it is told to be."""

    def script(messages: Sequence[Message], so_far: tuple[str, ...], rng: random.Random) -> str | None:
        if len(so_far) >= 12:
            return None
        told = INSTRUCTION in messages[0].content
        return KIND if rng.random() < (0.9 if told else 0.3) else RUDE

    return ScriptedBackend(script, chunk=chunk)


def judging(seen: list[Passage] | None = None) -> Judge:
    def score(passage: Passage) -> float:
        if seen is not None:
            seen.append(passage)
        return float(RUDE in passage.segment)

    return Judge(Rule(judge="manners", reject_above=0.5), FunctionScorer(score))


def answered(seed: int, *, seen: list[Passage] | None = None, chunk: int = 1, **decoding: Any) -> tuple[Any, ...]:
    store = MemoryStore()
    common = {"segment_tokens": 2, "max_tokens": 30, "attempts": 6, "on_exhausted": "refuse"}
    made = Guard(policy(**{**common, **decoding}), model=moody(chunk), judges=[judging(seen)], audit=store)
    events: list[Event] = list(made.blocking.stream(ASK, CallOptions(seed=seed)))
    return events, store.records[0]


RECOVERY = {"after": 2, "instruction": INSTRUCTION}


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**40),
    after=st.integers(1, 5),
    attempts=st.none() | st.integers(1, 4),
    parallel=st.sampled_from([1, 3, "auto"]),
    rewinds=st.integers(0, 2),
    hold_tokens=st.integers(0, 6),
    chunk=st.integers(1, 3),
    on_exhausted=st.sampled_from(["best", "refuse", "stop"]),
)
def test_which_candidates_come_from_it(
    seed: int, after: int, attempts: int | None, chunk: int, **decoding: Any
) -> None:
    recovery = {"after": after, "instruction": INSTRUCTION, "attempts": attempts}
    seen: list[Passage] = []
    events, record = answered(seed, seen=seen, chunk=chunk, recovery=recovery, **decoding)
    assert redo(record) is None
    assert redo(CallRecord.model_validate_json(record.model_dump_json())) is None
    last = 6 if attempts is None else min(6, after + attempts)
    for event in events:
        if isinstance(event, Decision):
            assert event.recovery == (after <= event.attempt < last)
    assert [a.recovery for s in record.segments for a in s.attempts] == [
        after <= a.attempt < last for s in record.segments for a in s.attempts
    ]
    # judged against the conversation of the call alone
    assert {passage.messages for passage in seen} == {tuple(ASK)}
    done = events[-1]
    assert isinstance(done, Finished)
    assert RUDE not in done.text
    totals = done.totals
    assert totals.drawn == sum((totals.kept, totals.rejected, totals.surplus, totals.overrun, totals.rewound))


def test_it_gets_answers_out_of_dead_ends() -> None:
    plain = [answered(seed, attempts=4)[1].finish for seed in range(30)]
    recovered = [answered(seed, attempts=4, recovery=RECOVERY)[1].finish for seed in range(30)]
    assert plain.count("eos") < 10 < 20 < recovered.count("eos")


def test_before_it_is_used_nothing_is_different() -> None:
    """Bit by bit: up to the first candidate that comes from it, and in answers where none does."""
    same = 0
    for seed in range(30):
        plain, _ = answered(seed, parallel=1, segment_tokens=1, max_tokens=3)
        recovery = {**RECOVERY, "after": 4}
        other, _ = answered(seed, parallel=1, segment_tokens=1, max_tokens=3, recovery=recovery)
        texts = [(e.segment, e.attempt, e.candidate.text) for e in plain if isinstance(e, Decision)]
        found = [(e.segment, e.attempt, e.candidate.text, e.recovery) for e in other if isinstance(e, Decision)]
        before = next((at for at, one in enumerate(found) if one[3]), len(found))
        assert [one[:3] for one in found[:before]] == texts[:before]
        same += before == len(found) and len(found) == len(texts)
    assert same


def test_a_call_is_generated_again_with_it() -> None:
    spec = policy(segment_tokens=2, max_tokens=30, attempts=6, recovery=RECOVERY)
    spec["judges"] = [{"name": "manners", "type": "patterns", "patterns": [{"name": "rude", "regex": "rude"}]}]
    store = MemoryStore()
    Guard(spec, model=moody(), audit=store).blocking.generate(ASK, CallOptions(seed=5))
    (record,) = store.records
    assert any(a.recovery for s in record.segments for a in s.attempts)
    again = portal.call(lambda: regenerate(record, load_policy(spec), model=moody()))
    assert list(compare(record, again)) == []
    assert record.decoding["recovery"] == {**RECOVERY, "attempts": None}


@pytest.mark.parametrize("value", [True, False])
def test_a_forged_mark_is_found(value: bool) -> None:
    record = next(r for seed in range(30) if any_recovered(r := answered(seed, recovery=RECOVERY)[1]))
    data = record.model_dump()
    attempt = next(a for s in data["segments"] for a in s["attempts"] if a["recovery"] != value)
    attempt["recovery"] = value
    problem = redo(CallRecord.model_validate(data))
    assert problem is not None
    assert "recovery" in problem.text


def any_recovered(record: CallRecord) -> bool:
    return any(attempt.recovery for segment in record.segments for attempt in segment.attempts)


def test_the_instruction_is_added_to_the_system_message() -> None:
    assert with_instruction(ASK, "Be kind.")[0].content == "You are short.\n\nBe kind."
    assert [m.role for m in with_instruction(ASK[1:], "Be kind.")] == ["system", "user"]


def test_the_answer_fits_both_conversations() -> None:
    store = MemoryStore()
    long = {"instruction": "please " * 30, "after": 1}
    backend = ScriptedBackend(lambda messages, so_far, rng: KIND, context=60)
    Guard(policy(recovery=long, max_tokens=50), model=backend, judges=[judging()], audit=store).blocking.generate(ASK)
    assert store.records[0].decoding["max_tokens"] == 60 - 30 - 4


def test_it_must_come_before_the_attempts_run_out() -> None:
    with pytest.raises(PolicyError, match=r"recovery\.after must be less than attempts, which are 2"):
        load_policy(policy(attempts=2, recovery=RECOVERY))


def test_attempts_by_position() -> None:
    steps = [{"tokens": 2, "attempts": 5}, {"tokens": 6, "attempts": 3}, {"tokens": 8, "attempts": 1}]
    found = Settings(attempts=steps)  # type: ignore[arg-type]  # validated
    assert [found.attempts_at(kept) for kept in (0, 1, 2, 5, 6, 7, 8, 99)] == [5, 5, 3, 3, 1, 1, 1, 1]
    for seed in range(10):
        _, record = answered(seed, attempts=steps, segment_tokens=2)
        assert redo(record) is None
        assert all(len(s.attempts) <= (5, 3, 3, 1)[min(s.index, 3)] for s in record.segments)
        if record.finish == "refused":
            last = record.segments[-1]
            assert len(last.attempts) == (5, 3, 3, 1)[min(last.index, 3)]
    with pytest.raises(PolicyError, match="attempts must be in the order of their tokens"):
        load_policy(policy(attempts=steps[::-1]))
