"""What another policy would have decided: of generated calls, and of each way in which two policies part."""

from __future__ import annotations

import contextlib
from typing import Any, get_args

import pytest
from conftest import USER, policy, words
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stars_guard.audit import CallRecord, MemoryStore, Text
from stars_guard.audit.record import Segment
from stars_guard.auditing.counterfactual import Answered, Outcome, Parting, what_if
from stars_guard.calling import portal
from stars_guard.cli.replay import _COURSES
from stars_guard.core.segments import Passage
from stars_guard.core.tools import Tool, Toolset
from stars_guard.errors import BudgetExhausted, PolicyError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import Policy, load_policy
from stars_guard.testing.scripted import ScriptedBackend


def reward(passage: Passage) -> float:
    """A reward that depends on all of the answer."""
    return 1.0 - 0.7 * passage.segment.count("bad") - 0.1 * (len(passage.answer) % 7)


def veto(word: str = "awful", **more: Any) -> dict[str, Any]:
    return {"name": "words", "type": "patterns", "patterns": [{"name": "word", "regex": word}], **more}


REWARD = {"name": "reward", "type": "python", "call": "test_what_if:reward", "weight": 1.0}


def ruled(*judges: dict[str, Any], rails: Any = None, **more: Any) -> Policy:
    data = policy(judges=list(judges or (veto(), REWARD)), **more)
    return load_policy({**data, "rails": rails or {}})


def answered(under: Policy, seed: int = 3, backend: ScriptedBackend | None = None, **options: Any) -> CallRecord:
    store = MemoryStore()
    made = Guard(under, model=backend or ScriptedBackend(words(18)), audit=store, allow_python=True)
    with contextlib.suppress(BudgetExhausted):
        made.blocking.generate(USER, CallOptions(seed=seed, **options))
    return store.records[-1]


def under(record: CallRecord, other: Policy) -> Answered:
    return portal.call(lambda: what_if(record, other, allow_python=True))


LEARNED = {"schedule": "learned", "thresholds": [{"tokens": 8, "base": 0.4, "carry": 0.5}, {"tokens": 24, "base": 0.6}]}
POLICIES = st.builds(
    lambda schedule, judges, **more: {"judges": judges, **schedule, **more},
    schedule=st.sampled_from([{"schedule": "linear"}, {"schedule": "constant"}, LEARNED]),
    judges=st.sampled_from([[veto(), REWARD], [veto("fine|bad"), REWARD], [REWARD], [veto(every=3)]]),
    method=st.sampled_from(["stars", "cards"]),
    mode=st.sampled_from(["enforce", "enforce", "enforce", "monitor", "off"]),
    on_exhausted=st.sampled_from(["best", "refuse", "stop", "raise"]),
    acceptance=st.sampled_from(["gibbs", "hard"]),
    attempts=st.integers(1, 4),
    parallel=st.sampled_from([1, 2, 4, "auto"]),
    r_star=st.sampled_from([0.0, 0.7, 1.0, 3.0]),
    segment_tokens=st.integers(1, 5),
    budget_tokens=st.one_of(st.none(), st.integers(1, 80)),
)


@settings(max_examples=60, deadline=None)
@example({"judges": [veto(), REWARD], "mode": "off", "segment_tokens": 1, "budget_tokens": 1}, 3, True)
@given(POLICIES, st.integers(0, 2**32), st.booleans())
def test_under_its_own_policy_the_answer_is_the_same(keys: dict[str, Any], seed: int, seeded: bool) -> None:
    own = load_policy(policy(**keys))
    record = answered(own, seed) if seeded else answered(own, None)  # type: ignore[arg-type]
    if not record.segments:  # not even one candidate could be paid for
        return
    found = under(record, own)
    assert found.parting is None
    assert all(row.after == row.before for row in found.candidates if row.before != "surplus")
    assert {row.source for row in found.candidates} == {"none" if keys["mode"] == "off" else "record"}


def course_of_one(segment: Segment, mode: str, on_exhausted: str) -> str:
    """What a policy with one attempt makes of a segment's first candidate."""
    first = segment.attempts[0]
    if first.verdict == "accepted" or mode != "enforce":
        return "kept"
    return "kept" if on_exhausted == "best" and first.veto is None else on_exhausted.replace("best", "refuse")


@settings(max_examples=60, deadline=None)
@given(POLICIES, st.integers(0, 2**32))
def test_with_one_attempt_they_part_where_the_first_candidate_was_not_enough(keys: dict[str, Any], seed: int) -> None:
    keys["budget_tokens"] = None
    record = answered(load_policy(policy(**keys)), seed)
    found = under(record, load_policy(policy(**{**keys, "attempts": 1}))).parting
    expected = None
    for segment in record.segments:
        course = course_of_one(segment, keys["mode"], keys["on_exhausted"])
        on_record = "kept" if segment.kept == 0 else segment.ended.action if segment.ended else "another"
        if course != on_record:
            expected = segment.index, course
            break
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert (found.segment, "kept" if found.kept == 0 else found.outcome, found.seen) == (*expected, 1)


def only(text: str) -> ScriptedBackend:
    return ScriptedBackend(lambda messages, prefix, rng: None if len(prefix) >= 4 else text)


def test_the_best_is_kept_under_both() -> None:
    hard: dict[str, Any] = {"acceptance": "hard", "r_star": 9.0, "schedule": "constant", "max_tokens": 8}
    record = answered(ruled(attempts=3, **hard))
    assert {segment.how for segment in record.segments} == {"best"}
    assert under(record, ruled(attempts=3, **hard)).parting is None
    for action, outcome in (("refuse", "refuse"), ("stop", "stop"), ("raise", "raise")):
        parting = under(record, ruled(attempts=3, on_exhausted=action, **hard)).parting
        assert parting == Parting(segment=0, outcome=outcome, seen=3)  # type: ignore[arg-type]
    parting = under(record, ruled(attempts=5, **hard)).parting
    assert parting == Parting(segment=0, outcome="more", seen=3)


def test_monitored_segments_are_kept_by_monitoring_alone() -> None:
    record = answered(ruled(mode="monitor"), backend=only("awful "))
    assert {segment.how for segment in record.segments} == {"monitored"}
    assert under(record, ruled(mode="monitor")).parting is None
    assert under(record, ruled(mode="off")).parting is None
    assert under(record, ruled()).parting == Parting(segment=0, outcome="more", seen=1)
    refused = answered(ruled(), backend=only("awful "))
    parting = under(refused, ruled(mode="monitor")).parting
    assert parting == Parting(segment=0, outcome="monitored", kept=0, seen=1)
    assert under(refused, ruled(mode="off")).parting == Parting(segment=0, outcome="unjudged", kept=0, seen=1)


def test_budgets_end_answers() -> None:
    record = answered(ruled(REWARD, r_star=-9.0), backend=only("good "))
    assert (len(record.segments), record.finish) == (3, "eos")
    parting = under(record, ruled(REWARD, r_star=-9.0, budget_tokens=2)).parting
    assert parting == Parting(segment=1, outcome="budget", seen=0)
    for action in ("refuse", "raise"):
        parting = under(record, ruled(REWARD, r_star=-9.0, budget_tokens=2, on_exhausted=action)).parting
        assert parting == Parting(segment=1, outcome=action, seen=0)  # type: ignore[arg-type]
    short = answered(ruled(REWARD, r_star=-9.0, budget_tokens=2), backend=only("good "))
    assert (len(short.segments), short.finish) == (1, "budget")
    parting = under(short, ruled(REWARD, r_star=-9.0)).parting
    assert parting == Parting(segment=1, outcome="more")


def test_redaction_of_the_same_length_is_not_the_text() -> None:
    address = "a@bc.de"
    assert Text.of(address, "redacted").content == "[EMAIL]"
    assert not Text.of(address, "redacted").whole
    assert Text.of("a word", "redacted").whole
    record = answered(ruled(veto("never"), audit={"content": "redacted"}), backend=only(address))
    found = under(record, ruled(veto("EMAIL")))
    assert {(row.after, row.source) for row in found.candidates} == {("unknown", "none")}
    assert found.parting == Parting(segment=0, outcome="unknown", seen=0)


def test_a_judge_that_was_asked_about_a_whole_call_is_heard() -> None:
    texts = [f'<tool_call>{{"name": "shell", "arguments": {{"command": "{it}"}}}}</tool_call>' for it in ("rm", "ls")]

    def script(messages: Any, prefix: tuple[str, ...], rng: Any) -> str | None:
        return None if len(prefix) > 3 else "ok " if prefix else rng.choice(texts)

    tools = Toolset((Tool(name="shell", description="", parameters={"type": "object"}),))
    own = ruled(veto("rm", every=7, final=False), segment_tokens=1)
    records = [answered(own, seed, ScriptedBackend(script), tools=tools) for seed in range(12)]
    assert any(segment.attempts[0].veto for record in records for segment in record.segments)
    assert [under(record, own).parting for record in records] == [None] * 12


SHELL = {"name": "shell", "type": "shell", "ask_above": 0.0, "reject_above": 0.5}
TOOL_RULES = [
    {"name": "never", "tools": ["delete_*"], "action": "reject"},
    {"name": "person", "tools": ["send"], "action": "ask"},
]


@pytest.mark.parametrize(
    ("name", "args", "outcome", "stricter"),
    [
        ("delete_x", {"id": "1"}, "refuse", None),
        ("send", {"to": "bob"}, "ask", None),
        ("bash", {"command": "rm -rf /"}, "refuse", None),
        ("bash", {"command": "git reset --hard HEAD~3"}, "ask", "refuse"),
        ("bash", {"command": "ls"}, None, None),
    ],
)
def test_a_tool_call_is_decided_by_rules_on_record_and_by_judges_that_read_it(
    name: str, args: dict[str, Any], outcome: str | None, stricter: str | None
) -> None:
    own = ruled(rails={"tool_call": {"rules": TOOL_RULES, "judges": [SHELL]}})
    store = MemoryStore()
    with Guard(own, model=ScriptedBackend(words(1)), audit=store, allow_python=True).blocking as guard:
        guard.check_call(name, args)
    (segment,) = store.records[0].segments
    assert (segment.ended.action if segment.ended else None) == outcome
    same = under(store.records[0], own)
    assert same.parting is None
    assert same.candidates[0].before == same.candidates[0].after
    # of another name, so that it is asked again
    other = ruled(rails={"tool_call": {"judges": [{"name": "again", "type": "shell", "reject_above": 0.0}]}})
    parting = under(store.records[0], other).parting
    assert (parting.outcome if parting else None) == stricter


def test_each_outcome_has_its_words() -> None:
    assert set(_COURSES) == {word for kind in get_args(Outcome) for word in get_args(kind)}


def test_an_answer_under_attempts_by_position_is_decided_again() -> None:
    own = ruled(attempts=[{"tokens": 4, "attempts": 3}, {"tokens": 100, "attempts": 2}])
    assert under(answered(own), own).parting is None


def test_the_prompt_is_judged_where_the_record_did_not_ask() -> None:
    record = answered(ruled(REWARD, schedule="constant", r_star=0.0))
    assert record.prompt_reward is None
    linear = under(record, ruled(REWARD, schedule="linear", r_star=5.0))
    first = linear.candidates[0]
    prompt_reward = reward(Passage(call_id="", messages=(), accepted="", segment=""))
    start = 0.5 * prompt_reward + 0.5 * 5.0
    tokens = record.segments[0].attempts[0].tokens
    assert first.threshold == pytest.approx(start + tokens * (5.0 - start) / record.max_tokens)


def test_methods_that_compare_candidates_are_refused_by_name() -> None:
    for method in ("best_of_n", "blockwise_best_of_k"):
        with pytest.raises(PolicyError, match=method):
            under(answered(ruled()), ruled(method=method))


def test_a_call_that_was_cut_off_is_the_same_as_far_as_it_went() -> None:
    hard: dict[str, Any] = {"acceptance": "hard", "r_star": 9.0, "schedule": "constant", "on_exhausted": "best"}
    record = answered(ruled(REWARD, attempts=4, **hard))
    first = record.segments[0].model_copy(update={"kept": None, "how": None})
    for size in range(1, 5):
        segment = first.model_copy(update={"attempts": first.attempts[:size]})
        cut = record.model_copy(update={"segments": (segment,), "finish": "cancelled"})
        assert under(cut, ruled(REWARD, attempts=4, **hard)).parting is None
        parting = under(cut, ruled(REWARD, attempts=1, **hard)).parting
        assert parting == (None if size == 1 else Parting(segment=0, outcome="best", kept=0, seen=1))


@pytest.mark.parametrize("mode", ["enforce", "monitor"])
@pytest.mark.parametrize("action", ["replace", "redact"])
@pytest.mark.parametrize("text", ["a rm b", "all fine", "mail a@bc.de, rm"])
def test_checks_under_their_own_policy_and_others(mode: str, action: str, text: str) -> None:
    judges = [veto("rm"), {"name": "pii", "type": "pii", "kinds": ["email"]}]

    def railed(mode: str = mode, action: str = action, judges: Any = judges) -> Policy:
        return ruled(rails={"tool_result": {"judges": judges, "action": action}}, mode=mode)

    store = MemoryStore()
    Guard(railed(), model=only("x"), audit=store, allow_python=True).blocking.check("tool_result", text)
    (record,) = store.records
    assert under(record, railed()).parting is None
    if text == "all fine":
        assert under(record, railed("enforce", "replace")).parting is None
        return
    kept_first = record.segments[0].kept == 0
    assert (under(record, railed("monitor", "redact")).parting is None) == kept_first
    assert (under(record, railed("off", "redact")).parting is None) == kept_first
    assert (under(record, railed("enforce", "replace")).parting is None) == (record.finish == "refused")
    assert (under(record, railed(judges=[veto("never")])).parting is None) == kept_first
    parting = under(record, railed("enforce", "redact")).parting
    if record.finish == "redacted":
        assert parting is None
    else:
        assert parting == Parting(segment=0, outcome="more", seen=1)


def test_a_text_that_no_judge_can_redact_is_refused() -> None:
    calm = {"name": "calm", "type": "python", "call": "test_what_if:reward", "reject_above": -50.0}
    railed = ruled(rails={"tool_result": {"judges": [calm], "action": "redact"}})
    store = MemoryStore()
    Guard(railed, model=only("x"), audit=store, allow_python=True).blocking.check("tool_result", "text")
    (record,) = store.records
    assert record.finish == "refused"
    assert under(record, railed).parting is None
