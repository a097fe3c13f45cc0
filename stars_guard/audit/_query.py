"""Finding records: what a search asks for, and what a list shows of a call. Pure functions of a record.

Stores that cannot ask a database use these; those that can give the same answers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from stars_guard.audit.record import Attempt, CallRecord, RuleEntry
from stars_guard.errors import InputError

__all__ = [
    "Filter",
    "News",
    "Place",
    "Summary",
    "blamed",
    "clear_texts",
    "matches",
    "newest",
    "parse_time",
    "stamp",
    "storable",
    "summarize",
    "words",
]

Place = tuple[str, str]
"""Where a call stands in a list: its start and its id."""

_PREVIEW = 140
_LONGEST = 64
_WORD = re.compile(r"[^\W_]+")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which calls are wanted: those for which everything given holds.

    Attributes:
        since: started then or later.
        until: started before.
        judge: this judge caused a rejection; see `blamed`.
        finish: why the answer ended, as in the record.
        stage: what was judged, as in the record.
        run_id: the whole id of the caller's run.
        text: each of its words stands somewhere in the prompt, the candidates or the answer, as a whole word and
            whatever the case of its letters. Text that is not kept, or that is encrypted, is not found.
        rejected: whether at least one candidate must have been rejected.
    """

    since: datetime | None = None
    until: datetime | None = None
    policy: str | None = None
    judge: str | None = None
    finish: str | None = None
    stage: str | None = None
    run_id: str | None = None
    text: str | None = None
    rejected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One call as a row of a list.

    Attributes:
        id: the call's id.
        started_at: UTC, ISO 8601.
        proposals: how many candidates there were; ``rejections`` of them were rejected.
        drawn: tokens that were generated; ``kept`` of them are in the answer.
        judges: those that caused rejections; see `blamed`.
        preview: the start of the last message of the prompt; None where its text is not kept.
    """

    id: str
    run_id: str | None
    started_at: str
    seconds: float
    policy: str
    mode: str
    stage: str
    finish: str
    segments: int
    proposals: int
    rejections: int
    drawn: int
    kept: int
    judges: tuple[str, ...]
    preview: str | None

    @property
    def place(self) -> Place:
        """Where the row stands in a list."""
        return self.started_at, self.id


@dataclass(frozen=True, slots=True)
class News:
    """The wanted calls that were written since the last look, in the order of writing, and the next look's cursor."""

    calls: tuple[Summary, ...]
    cursor: str

    @classmethod
    def of(cls, records: Sequence[CallRecord], wanted: Filter, cursor: str | None) -> Self:
        """For stores that only grow: the cursor is how many there were."""
        seen = len(records) if cursor is None else int(cursor)
        return cls(tuple(summarize(record) for record in records[seen:] if matches(record, wanted)), str(len(records)))


def stamp(when: datetime) -> str:
    """A time as records write it: strings compare as the times do."""
    return when.astimezone(UTC).isoformat()


def parse_time(text: str, now: datetime | None = None) -> datetime:
    """A moment from what a person types: ``90d``, which is that long ago (units s, m, h, d, w), or ISO 8601.

    A time without a time zone is in UTC.

    Raises:
        InputError: it is neither.
    """
    try:
        if ago := re.fullmatch(r"(\d{1,6})([smhdw])", text.strip()):
            return (now or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        when = datetime.fromisoformat(text.strip())
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        when.astimezone(UTC)  # the first and the last days that there are may have no time in UTC
    except (ValueError, OverflowError):
        shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        raise InputError(f"{shown!r} is not a time", hint="use 90d, 2h, 2026-01-31 or 2026-01-31T10:00") from None
    return when


def blamed(attempt: Attempt, rules: Iterable[RuleEntry]) -> tuple[str, ...]:
    """The judges that caused a rejection: the one that vetoed the candidate, or all whose scores are in the reward.

    Empty where the candidate was not rejected.
    """
    if attempt.verdict != "rejected":
        return ()
    by_judge = {rule.judge: rule for rule in rules}
    if attempt.veto is None:
        unasked = {one.judge for one in attempt.unasked}
        return tuple(name for name, rule in by_judge.items() if rule.weight is not None and name not in unasked)
    for score in attempt.scores:
        rule = by_judge.get(score.judge)
        failed = score.value is None and (rule is None or rule.on_error == "reject")
        above = rule is not None and rule.reject_above is not None and (score.value or 0.0) > rule.reject_above
        if failed or (above and score.value is not None):
            return (score.judge,)
    return (attempt.veto.partition(":")[0].removesuffix(" failed"),)


def summarize(record: CallRecord) -> Summary:
    """The row of a record."""
    judges = {
        judge: None
        for segment in record.segments
        for attempt in segment.attempts
        for judge in blamed(attempt, record.rules)
    }
    said = record.prompt[-1].content.text if record.prompt else None
    totals = record.totals
    return Summary(
        id=record.call_id,
        run_id=None if record.run_id is None else storable(record.run_id),
        started_at=record.started_at,
        seconds=record.seconds,
        policy=storable(record.policy),
        mode=record.mode,
        stage=record.stage,
        finish=record.finish,
        segments=len(record.segments),
        proposals=totals.get("proposals", 0),
        rejections=totals.get("rejections", 0),
        drawn=totals.get("drawn", 0),
        kept=totals.get("kept", 0),
        judges=tuple(judges),
        preview=None if said is None else storable(" ".join(said[: 2 * _PREVIEW].split())[:_PREVIEW]),
    )


def matches(record: CallRecord, wanted: Filter) -> bool:
    """Whether a record is wanted."""
    row = summarize(record)
    return all(
        (
            wanted.since is None or row.started_at >= stamp(wanted.since),
            wanted.until is None or row.started_at < stamp(wanted.until),
            wanted.policy is None or storable(wanted.policy) == row.policy,
            wanted.judge is None or storable(wanted.judge) in map(storable, row.judges),
            wanted.finish in (None, row.finish),
            wanted.stage in (None, row.stage),
            wanted.run_id is None or storable(wanted.run_id) == row.run_id,
            not wanted.rejected or row.rejections > 0,
            not wanted.text or words(wanted.text) <= {word for text in clear_texts(record) for word in words(text)},
        )
    )


def newest(
    records: Iterable[CallRecord], wanted: Filter, limit: int | None, before: Place | None = None
) -> list[Summary]:
    """The rows of the wanted records, newest start first.

    Args:
        limit: at most so many; None for all.
        before: the key of the last row of the page before.
    """
    rows = [summarize(record) for record in records if matches(record, wanted)]
    rows = sorted(
        (row for row in rows if before is None or row.place < before), key=lambda row: row.place, reverse=True
    )
    return rows[:limit]


def storable(text: str) -> str:
    """Text of a list's row as every database can hold it: PostgreSQL has no U+0000."""
    return text.replace("\0", "\ufffd")


def words(text: str) -> set[str]:
    """The words of a text, by which it is found: runs of letters and digits, of at most 64, without case."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return {word[:_LONGEST] for word in {*_WORD.findall(plain.casefold())}}


def clear_texts(record: CallRecord) -> Iterator[str]:
    """Every text of a record that is kept in clear."""
    kept = [turn.content for turn in record.prompt]
    kept += [attempt.text for segment in record.segments for attempt in segment.attempts]
    for text in (*kept, record.answer, *((record.reasoning.text,) if record.reasoning else ())):
        if text.content is not None:
            yield text.content
