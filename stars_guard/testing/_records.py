"""Records of calls that never happened, with everything in them that a store may meet."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from stars_guard.audit import CallRecord, Text
from stars_guard.audit.record import Attempt, RuleEntry, ScoreEntry, Segment, Turn

__all__ = ["HARD_TEXTS", "NOON", "WORDS", "generated", "record"]

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
WORDS = ("river", "Élbe", "ΣΊΣΥΦΟΣ", "straße", "水", "one1", "rhine", "the", "İstanbul", "naïve")
HARD_TEXTS = (
    "",
    " ",
    "\0 and a null",
    '"quotes" \\ and \b\f\n\r\t',
    "\u2028 \u2029 \ufeff \x7f \x85",
    "👩‍👩‍👧 🏳️‍🌈 \U0010ffff",
    "e\u0301 is not \u00e9",
    "مرحبا \u202eشلام",
    "'; DROP TABLE entries; --",
    "%_*?[a-z]",
)
"""Texts that a store may spoil."""

_RULES = (
    RuleEntry(judge="kind", weight=1.0),
    RuleEntry(judge="useful", weight=0.5),
    RuleEntry(judge="words", reject_above=0.5),
)
_FINISHES = ("eos", "length", "refused", "failed", "stop")


def record(call_id: str, said: str = "Tell me of rivers", **more: Any) -> CallRecord:
    """A short record.

    Args:
        said: the last message of the prompt.
        more: fields of `CallRecord` that you want to be others.
    """
    fields: dict[str, Any] = {
        "started_at": NOON.isoformat(),
        "ended_at": NOON.isoformat(),
        "seconds": 0.5,
        "policy": "default",
        "policy_sha256": "0" * 64,
        "mode": "enforce",
        "seed": 2**62 + 1,
        "finish": "eos",
        "rules": _RULES,
        "prompt": (Turn(role="user", content=Text(content=said, chars=len(said))),),
        "answer": Text(content="", chars=0),
    }
    return CallRecord(call_id=call_id, **{**fields, **more})


def generated(seed: int, count: int) -> list[CallRecord]:
    """Records of calls of every kind, always the same for one seed. Their numbers add up without rounding."""
    rng = random.Random(seed)  # noqa: S311
    return [_call(f"{rng.getrandbits(128):032x}", rng) for _ in range(count)]


def _call(call_id: str, rng: random.Random) -> CallRecord:
    segments = tuple(_segment(index, rng) for index in range(rng.choices((0, 1, 2, 3, 45), (3, 6, 6, 4, 1))[0]))
    attempts = [attempt for segment in segments for attempt in segment.attempts]
    rejected = [attempt for attempt in attempts if attempt.verdict == "rejected"]
    surplus = [attempt for attempt in attempts if attempt.verdict == "surplus"]
    started = NOON + timedelta(seconds=rng.choice((0, 0.25, 1, 59, 300, 7200, 90_000)))
    seconds = rng.randrange(16) / 4
    drawn = sum(attempt.tokens for attempt in attempts)
    totals = {
        "proposals": len(attempts),
        "rejections": len(rejected),
        "drawn": drawn,
        "kept": drawn - sum(attempt.tokens for attempt in (*rejected, *surplus)),
        "rejected": sum(attempt.tokens for attempt in rejected),
        "surplus": sum(attempt.tokens for attempt in surplus),
    }
    said = _said(rng)
    return record(
        call_id,
        started_at=started.isoformat(),
        ended_at=(started + timedelta(seconds=seconds)).isoformat(),
        seconds=seconds,
        policy=rng.choice(("default", "strict", "Strenge")),
        stage=rng.choice(("answer", "answer", "input", "tool_call")),
        finish=rng.choice(_FINISHES),
        run_id=rng.choice((None, f"run-{rng.randrange(9)}")),
        prompt=(Turn(role="user", content=_kept(said, rng)),),
        segments=segments,
        answer=_kept(_said(rng), rng),
        totals=totals if rng.random() < 0.9 else {},
    )


def _segment(index: int, rng: random.Random) -> Segment:
    attempts = tuple(_attempt(number, rng) for number in range(rng.choice((1, 1, 2, 4))))
    kept = next((attempt.attempt for attempt in attempts if attempt.verdict == "accepted"), None)
    return Segment(index=index, attempts=attempts, kept=kept, how="accepted" if kept is not None else None)


def _attempt(number: int, rng: random.Random) -> Attempt:
    verdict = rng.choice(("accepted", "rejected", "surplus"))
    veto, scores = None, tuple[ScoreEntry, ...]()
    if verdict == "rejected" and rng.random() < 0.5:
        veto, scores = "words: swearing", (ScoreEntry(judge="words", value=1.0, detail="swearing"),)
    reward = rng.choice((None, rng.randrange(-64, 64) / 16))
    decided = reward is not None and verdict != "surplus"
    return Attempt(
        attempt=number,
        text=_kept(_said(rng), rng),
        tokens=rng.randrange(9),
        scores=scores,
        reward=reward,
        veto=veto,
        threshold=rng.randrange(8) / 8 if decided else None,
        verdict=verdict,
        reason="",
    )


def _said(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randrange(6)))


def _kept(text: str, rng: random.Random) -> Text:
    kept: Sequence[Text] = (Text(content=text, chars=len(text)), Text(chars=len(text)))
    return rng.choices(kept, (9, 1))[0]
