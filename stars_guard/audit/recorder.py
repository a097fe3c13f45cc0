"""Builds a call's record from its events."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from stars_guard.audit.record import Attempt, CallRecord, ContentMode, ScoreEntry, Segment, Text, Turn
from stars_guard.events import Decision, Ended, Event, Kept, Released, Totals
from stars_guard.segments import Message

__all__ = ["Recorder"]


class Recorder:
    """Collects one call.

    Args:
        content: how much text is kept.
        about: fields of `CallRecord` that are known from the start.
    """

    def __init__(self, content: ContentMode, messages: Sequence[Message], about: Mapping[str, Any]) -> None:
        self._content = content
        self._about = dict(about)
        self._messages = messages
        self._started = datetime.now(UTC)
        self._clock = time.perf_counter()
        self._decisions: dict[int, list[Decision]] = {}
        self._kept: dict[int, Kept] = {}
        self._ended: dict[int, Ended] = {}
        self._text: list[str] = []
        self.prompt_reward: float | None = None

    def describe(self, **about: Any) -> None:
        """Add fields that have become known."""
        self._about.update(about)

    @property
    def seconds(self) -> float:
        """Time since the call began."""
        return time.perf_counter() - self._clock

    @property
    def text(self) -> str:
        """What has been released."""
        return "".join(self._text)

    def add(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case Decision():
                self._decisions.setdefault(event.segment, []).append(event)
            case Kept():
                self._kept[event.segment] = event
            case Ended():
                self._ended[event.segment] = event
            case Released():
                self._text.append(event.text)
            case _:
                pass

    def finish(self, *, finish: str, reason: str, totals: Totals, error: str | None = None) -> CallRecord:
        """The record. ``finish`` is also ``failed`` or ``cancelled``; ``error`` the kind of exception."""
        indexes = sorted({*self._decisions, *self._ended})
        return CallRecord(
            **self._about,
            started_at=self._started.isoformat(),
            ended_at=datetime.now(UTC).isoformat(),
            seconds=round(self.seconds, 6),
            prompt=tuple(Turn(role=m.role, content=self._keep(m.content)) for m in self._messages),
            prompt_reward=self.prompt_reward,
            segments=tuple(self._segment(index) for index in indexes),
            answer=self._keep(self.text),
            finish=finish,
            reason=reason,
            error=error,
            totals=asdict(totals),
        )

    def _keep(self, text: str) -> Text:
        return Text.of(text, self._content)

    def _segment(self, index: int) -> Segment:
        kept, ended = self._kept.get(index), self._ended.get(index)
        decisions = sorted(self._decisions.get(index, []), key=lambda decision: decision.attempt)
        return Segment(
            index=index,
            attempts=tuple(self._attempt(decision) for decision in decisions),
            kept=kept.attempt if kept else None,
            how=kept.how if kept else None,
            ended=ended.action if ended else None,
        )

    def _attempt(self, decision: Decision) -> Attempt:
        return Attempt(
            attempt=decision.attempt,
            text=self._keep(decision.candidate.text),
            tokens=len(decision.candidate),
            overrun=decision.candidate.overrun,
            finish=decision.candidate.finish,
            scores=tuple(ScoreEntry(**asdict(score)) for score in decision.judgement.scores),
            reward=decision.judgement.reward,
            veto=decision.judgement.veto,
            threshold=decision.threshold,
            probability=decision.probability,
            u=decision.u,
            verdict=decision.verdict,
            reason=decision.reason,
        )
