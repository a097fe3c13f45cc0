"""What a database keeps of a record beside the record itself. Only from text that is kept in clear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from stars_guard.audit._query import blamed, clear_texts, storable, summarize, words
from stars_guard.audit.entries import Entry
from stars_guard.audit.record import CallRecord

__all__ = ["attempts_of", "blames_of", "call_of", "words_of"]

_MOST_WORDS = 900_000
"""Bytes of the words of one call that can be found. PostgreSQL's vectors end at a megabyte."""


def call_of(record: CallRecord, entry: Entry) -> dict[str, Any]:
    """The row of a call."""
    row = asdict(summarize(record))
    clear = bool(record.prompt) and record.prompt[-1].content.content is not None
    del row["judges"]
    call_id = row.pop("id")
    return {
        **row,
        **{key: record.totals.get(key, 0) for key in ("rejected", "surplus", "overrun")},
        "preview": row["preview"] if clear else None,
        "call_id": call_id,
        "started": datetime.fromisoformat(record.started_at).timestamp(),
        "writer": entry.writer,
        "seq": entry.seq,
    }


def attempts_of(call: int, record: CallRecord) -> Iterator[dict[str, Any]]:
    """One row for each candidate."""
    tokens, standing = 0, record.standing
    for segment in record.segments:
        for attempt in segment.attempts:
            yield {
                "call": call,
                "segment": segment.index,
                "attempt": attempt.attempt,
                "verdict": attempt.verdict,
                "kept": int(attempt.attempt == segment.kept and segment.index in standing),
                "reward": attempt.reward,
                "threshold": attempt.threshold,
                "probability": attempt.probability,
                "tokens": attempt.tokens,
                "position": tokens + attempt.tokens,
            }
        tokens += segment.kept_attempt.tokens if segment.kept_attempt else 0
        tokens -= segment.rewound.tokens if segment.rewound else 0


def blames_of(call: int, record: CallRecord) -> Iterator[dict[str, Any]]:
    """One row for each judge because of which candidates were rejected."""
    vetoes: Counter[str] = Counter()
    low: Counter[str] = Counter()
    for segment in record.segments:
        for attempt in segment.attempts:
            (low if attempt.veto is None else vetoes).update(blamed(attempt, record.rules))
    for place, judge in enumerate(summarize(record).judges):
        yield {
            "call": call,
            "judge": storable(judge),
            "place": place,
            "vetoes": vetoes[judge],
            "low_reward": low[judge],
        }


def words_of(record: CallRecord) -> list[str]:
    """The words by which a call is found: all of them, or those that fit."""
    left, found = _MOST_WORDS, list[str]()
    # what passes is there twice: as a candidate and as the answer
    for word in sorted({word for text in {*clear_texts(record)} for word in words(text)}):
        left -= len(word.encode())
        if left < 0:
            break
        found.append(word)
    return found
