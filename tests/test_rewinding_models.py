"""An answer goes back, and recovers, on a real model, and without it nothing is different there either."""

from __future__ import annotations

from typing import Any

from conftest import policy

from stars_guard.audit import CallRecord, MemoryStore
from stars_guard.auditing.verification import redo
from stars_guard.backends.base import Backend
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.guard import CallOptions, Guard
from stars_guard.scorers.cascade import Judge
from stars_guard.scorers.patterns import Pattern, PatternScorer

ASK = [Message("user", "Tell me about the sea.")]
# common words one after the other, so that both are met in short answers
MATCH = Judge(
    Rule(judge="match", reject_above=0.0),
    PatternScorer([Pattern(name="it", regex=r"\b(?:of|in|on|by|and|is|as) +(?:the|a|its|an)\b")]),
)
CALM = {"instruction": "Answer in one word.", "after": 1}


def answered(engine: Backend, seed: int, **decoding: Any) -> CallRecord:
    store = MemoryStore()
    shape = {"segment_tokens": 2, "max_tokens": 24, "attempts": 3, "parallel": 1, "on_exhausted": "refuse"}
    made = Guard(policy(**{**shape, **decoding}), model=engine, judges=[MATCH], audit=store)
    made.blocking.generate(ASK, CallOptions(seed=seed))
    (record,) = store.records
    assert redo(record) is None
    return record


def kept(record: CallRecord) -> list[tuple[int, str | None]]:
    return [(attempt.tokens, attempt.text.content) for segment in record.segments for attempt in segment.attempts]


def test_on_transformers(transformers_engine: Backend) -> None:
    backs, same = 0, 0
    for seed in range(8):
        if backs > 1:
            break
        record = answered(transformers_engine, seed, rewinds=3, recovery=CALM)
        again = answered(transformers_engine, seed, rewinds=3, recovery=CALM)
        assert kept(record) == kept(again)
        backs += record.totals["rewinds"]
        plain = answered(transformers_engine, seed)
        first = next((s.index for s in record.segments if s.rewound or any(a.recovery for a in s.attempts)), None)
        same += first is None
        for old, new in zip(plain.segments[:first], record.segments[:first], strict=first is None):
            assert [a.text.content for a in old.attempts] == [a.text.content for a in new.attempts]
            assert [a.u for a in old.attempts] == [a.u for a in new.attempts]
    assert backs
