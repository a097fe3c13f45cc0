"""Calls on record, drawn again and decided again."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from conftest import USER, policy, words
from typer.testing import CliRunner

from stars_guard.audit import CallRecord, MemoryStore
from stars_guard.audit.record import Attempt
from stars_guard.auditing.counterfactual import Answered, Parting, what_if
from stars_guard.auditing.replay import compare, promise, regenerate
from stars_guard.calling import portal
from stars_guard.cli.app import app
from stars_guard.errors import AuditError, PolicyError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import Policy, load_policy
from stars_guard.testing.scripted import ScriptedBackend

WORDS: list[dict[str, Any]] = [
    {"name": "words", "type": "patterns", "patterns": [{"name": "awful", "regex": "awful"}]},
]


def ruled(word: str = "awful", **more: Any) -> Policy:
    """A policy that vetoes a word; no reward, so everything else is accepted."""
    judges = [{**WORDS[0], "patterns": [{"name": "word", "regex": word}]}]
    return load_policy(policy(judges=judges, **more))


def answered(under: Policy, seed: int = 3, **options: Any) -> CallRecord:
    store = MemoryStore()
    made = Guard(under, model=ScriptedBackend(words()), audit=store)
    made.blocking.generate(USER, CallOptions(seed=seed, **options))
    return store.records[-1]


def again(record: CallRecord, under: Policy, backend: ScriptedBackend | None = None) -> CallRecord:
    return portal.call(lambda: regenerate(record, under, model=backend or ScriptedBackend(words())))


def under(record: CallRecord, other: Policy) -> Answered:
    return portal.call(lambda: what_if(record, other))


def test_the_same_seed_draws_the_same_call() -> None:
    record = answered(ruled(), stop=("fine fine",), sampling={"temperature": 0.5}, max_tokens=17)
    assert any(attempt.verdict == "rejected" for segment in record.segments for attempt in segment.attempts)
    assert list(compare(record, again(record, ruled()))) == []


def test_another_model_shows() -> None:
    record = answered(ruled())
    other = ScriptedBackend(lambda messages, prefix, rng: None if len(prefix) >= 40 else rng.choice(("good ", "dull ")))
    found = list(compare(record, again(record, ruled(), other)))
    assert found[0].segment == 0
    assert {difference.what for difference in found} >= {"text", "answer"}


def test_a_changed_record_shows_where() -> None:
    record = answered(ruled())
    first = record.segments[0]
    changed: Attempt = first.attempts[0].model_copy(update={"reward": 5.0, "veto": "someone"})
    segment = first.model_copy(update={"attempts": (changed, *first.attempts[1:])})
    forged = record.model_copy(update={"segments": (segment, *record.segments[1:])})
    found = [(d.segment, d.attempt, d.what) for d in compare(forged, again(record, ruled()))]
    assert found == [(0, 0, "veto"), (0, 0, "reward")]


def test_what_cannot_be_drawn_again_is_said() -> None:
    record = answered(ruled(audit={"content": "redacted"}))
    assert again(record, ruled(audit={"content": "redacted"})).answer == record.answer
    for mode in ("hash", "none"):
        kept = ruled(audit={"content": mode})
        with pytest.raises(AuditError, match="does not hold its prompt"):
            again(answered(kept), kept)
    with pytest.raises(PolicyError, match="not the one"):
        again(record, ruled("fine"))
    vllm = record.model_copy(update={"backend": {"engine": "vllm 0.32.0"}})
    assert "does not promise" in promise(vllm)
    assert "float16" in promise(record.model_copy(update={"backend": {"engine": "transformers", "dtype": "float16"}}))


def test_another_policy_decides_from_the_scores_on_record() -> None:
    record = answered(ruled())
    same = under(record, ruled())
    assert same.parting is None
    assert {found.source for found in same.candidates} == {"record"}
    assert all(found.after == found.before for found in same.candidates if found.before != "surplus")


def test_another_policy_judges_again_what_it_must() -> None:
    record = answered(ruled(), seed=1)
    other = under(record, ruled("fine"))
    assert {found.source for found in other.candidates} == {"judged"}
    text = {(s.index, a.attempt): a.text.content or "" for s in record.segments for a in s.attempts}
    before, vetoed = "", {}
    for segment in record.segments:
        for attempt in segment.attempts:
            vetoed[segment.index, attempt.attempt] = "fine" in before + text[segment.index, attempt.attempt]
        before += text[segment.index, segment.kept or 0]
    assert {(f.segment, f.attempt): f.after == "rejected" for f in other.candidates} == vetoed
    first = next(
        s
        for s in record.segments
        if vetoed[s.index, s.kept or 0] or not all(vetoed[s.index, a] for a in range(s.kept or 0))
    )
    assert other.parting is not None
    assert other.parting.segment == first.index


def test_a_reward_judged_again_decides_with_the_numbers_of_the_call() -> None:
    record = answered(ruled(parallel=1))
    harmless = {"name": "harmless", "type": "sequence_classifier", "model": "embedded:reward", "weight": 1.0}
    other = load_policy(policy(judges=[harmless], r_star=-1000.0, schedule="constant"))
    lenient = under(record, other)
    assert {f.after for f in lenient.candidates} == {"accepted"}
    assert {f.threshold for f in lenient.candidates} == {-1000.0}
    strict = under(record, load_policy(policy(judges=[harmless], r_star=1000.0, schedule="constant")))
    assert {f.after for f in strict.candidates} == {"rejected"}
    assert strict.parting == Parting(segment=0, outcome="more", seen=len(record.segments[0].attempts))


def test_what_cannot_be_judged_is_unknown() -> None:
    record = answered(ruled(audit={"content": "none"}))
    other = under(record, ruled("fine"))
    assert {(found.after, found.source) for found in other.candidates} == {("unknown", "none")}
    assert under(record, ruled()).parting is None
    with pytest.raises(PolicyError, match="best_of_n"):
        under(record, ruled(method="best_of_n"))


def test_the_embedded_model_draws_a_call_again(tmp_path: Path) -> None:
    url = f"jsonl://{tmp_path}/audit.jsonl"
    made = Guard("default", model="embedded", backend="transformers", audit=url)
    seed = random.Random(7).getrandbits(63)
    done = made.blocking.generate(USER, CallOptions(max_tokens=24, seed=seed))
    run = CliRunner().invoke(app, ["audit", "replay", done.call_id, "--url", url])
    assert run.exit_code == 0, run.output
    assert "The same:" in run.output
    other = CliRunner().invoke(app, ["audit", "replay", done.call_id, "--url", url, "--policy", "default"])
    assert other.exit_code == 0, other.output
    assert "would have been the same" in other.output


def test_a_cut_record_shows() -> None:
    record = answered(ruled())
    short = record.model_copy(update={"segments": record.segments[:-1], "finish": "stopped"})
    found = [(d.what, d.before, d.after) for d in compare(record, short)]
    assert found == [("segment", "there", "not there")]


def test_a_check_is_decided_again_by_the_rails_of_another_policy() -> None:
    def railed(word: str) -> Policy:
        rail = [{"name": "word", "type": "patterns", "patterns": [{"name": "word", "regex": word}]}]
        return load_policy({**policy(), "rails": {"tool_call": {"judges": rail}}})

    store = MemoryStore()
    checked = Guard(railed("rm"), model=ScriptedBackend(words()), audit=store).blocking.check("tool_call", "shell rm")
    assert not checked.allowed
    (record,) = store.records
    assert under(record, railed("rm")).parting is None
    other = under(record, railed("mv"))
    assert [(found.before, found.after, found.source) for found in other.candidates] == [
        ("rejected", "accepted", "judged")
    ]
    assert other.parting == Parting(segment=0, outcome="accepted", kept=0, seen=1)
    with pytest.raises(AuditError, match="not of an answer"):
        again(record, railed("rm"))


def test_encrypted_texts_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARS_GUARD_AUDIT_ENCRYPTION_KEY", "A" * 43 + "=")
    sealed = ruled(audit={"encrypt": True})
    record = answered(sealed)
    assert record.answer.content is None
    assert list(compare(record, again(record, sealed))) == []
