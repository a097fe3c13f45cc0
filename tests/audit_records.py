"""Records made by hand, for tests of what reads them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from stars_guard.audit import CallRecord, Text
from stars_guard.audit._query import stamp
from stars_guard.audit.record import Attempt, RuleEntry, ScoreEntry, Segment, Turn

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
RULES = (
    RuleEntry(judge="kind", weight=1.0),
    RuleEntry(judge="useful", weight=0.5),
    RuleEntry(judge="words", reject_above=0.5),
)


def tried(
    number: int,
    text: str,
    reward: float | None = None,
    verdict: Literal["accepted", "rejected", "surplus"] = "accepted",
    **more: Any,
) -> Attempt:
    numbers: dict[str, Any] = {} if reward is None else {"threshold": 0.5, "probability": 0.4, "u": 0.9}
    return Attempt(
        attempt=number,
        text=Text(content=text, chars=len(text)),
        tokens=4,
        reward=reward,
        verdict=verdict,
        **{"reason": "", **numbers, **more},
    )


def vetoed(number: int, text: str, judge: str = "words") -> Attempt:
    score = ScoreEntry(judge=judge, value=1.0, detail="swearing")
    return tried(number, text, verdict="rejected", scores=(score,), veto=f"{judge}: swearing")


def call(call_id: str, minutes: float = 0, attempts: tuple[tuple[Attempt, ...], ...] = (), **more: Any) -> CallRecord:
    flat = [attempt for segment in attempts for attempt in segment]
    rejections = sum(attempt.verdict == "rejected" for attempt in flat)
    kept = sum(attempt.verdict == "accepted" for attempt in flat)
    totals = {
        "proposals": len(flat),
        "rejections": rejections,
        "drawn": 4 * len(flat),
        "kept": 4 * kept,
        "rejected": 4 * rejections,
        "surplus": 4 * (len(flat) - kept - rejections),
    }
    start = stamp(NOON + timedelta(minutes=minutes))
    fields: dict[str, Any] = {
        "started_at": start,
        "ended_at": start,
        "seconds": 2.0,
        "policy": "default",
        "policy_sha256": "0" * 64,
        "mode": "enforce",
        "seed": 1,
        "finish": "eos",
        "rules": RULES,
        "totals": totals,
        "prompt": (Turn(role="user", content=Text(content="Tell me of  rivers", chars=18)),),
        "segments": tuple(Segment(index=i, attempts=each) for i, each in enumerate(attempts)),
        "answer": Text(content="The Élbe.", chars=9),
    }
    return CallRecord(call_id=call_id, **{**fields, **more})


RECORDS = (
    call("a", 0, ((tried(0, "The Elbe", 0.9),),), run_id="run-a"),
    call("b", 5, ((vetoed(0, "Damn the Rhine"), tried(1, "The Rhine", 0.2), tried(2, "none", verdict="surplus")),)),
    call(
        "c",
        90,
        ((tried(0, "no", -0.3, "rejected"),), (tried(0, "yes", 0.62),)),
        policy="strict",
        finish="refused",
        seconds=7.5,
    ),
    call("d", 90, answer=Text(chars=9), prompt=(Turn(role="user", content=Text(chars=3)),), seconds=0.5),
)
