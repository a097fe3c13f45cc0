"""Builds a call's record from its events."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from stars_guard.audit._content import Content, Text
from stars_guard.audit.record import (
    ApprovalEntry,
    Attempt,
    CallRecord,
    End,
    ReasoningEntry,
    Review,
    Rewind,
    Ruling,
    ScoreEntry,
    Segment,
    Turn,
    UnaskedEntry,
    ValueEntry,
)
from stars_guard.core.events import (
    Called,
    Decision,
    Drawing,
    Ended,
    Event,
    Kept,
    Overrun,
    Reasoned,
    Released,
    Reviewed,
    Rewound,
    Totals,
)
from stars_guard.core.flat import flat
from stars_guard.core.messages import Message
from stars_guard.core.segments import Candidate
from stars_guard.core.tool_call_events import Approval, Ruled, Traced, ValueOrigin
from stars_guard.core.vocabulary import ContentMode
from stars_guard.prompting.plain_text import text_of

__all__ = ["Recorder"]


_SAID = ("stop", "tools")
"""Fields that hold what the caller said."""


class Recorder:
    """Collects one call, and gives its record at any time: after a failure or a cancellation too.

    Args:
        content: how much text is kept.
        messages: the conversation up to the answer.
        about: fields of `CallRecord` that are known from the start; `describe` adds others. Stop strings and the names
            of tools are given as they are, and kept as prompts are. ``reasoning`` is given as its markers.

    Attributes:
        prompt_reward: r(x, ""), once it is known.
    """

    def __init__(self, content: Content | ContentMode, messages: Sequence[Message], about: Mapping[str, Any]) -> None:
        self._content = content if isinstance(content, Content) else Content.of(content)
        self._about = dict(about)
        if about.get("stage") in ("input", "tool_result"):
            # what is judged there goes into a prompt, whether it passes or not
            self._content = replace(self._content, accepted=self._content.prompt, rejected=self._content.prompt)
        self._messages = messages
        self._started = datetime.now(UTC)
        self._clock = time.perf_counter()
        self._decisions: dict[int, list[Decision]] = {}
        self._kept: dict[int, Kept] = {}
        self._ended: dict[int, Ended] = {}
        self._rewound: dict[int, Rewound] = {}
        self._held: dict[int, int] = {}
        self._overrun: dict[tuple[int, int], int] = {}
        self._review: Reviewed | None = None
        self._ruled: Ruled | None = None
        self._approval: Approval | None = None
        self._origins: tuple[ValueOrigin, ...] = ()
        self._text: list[str] = []
        self._reasoning: list[str] = []
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
        """What has been released, tool calls included and reasoning not."""
        return "".join(self._text)

    def add(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case Drawing():
                self._held[event.segment] = event.held
            case Rewound():
                self._rewound[event.segment] = event
            case Decision():
                self._decisions.setdefault(event.segment, []).append(event)
            case Kept():
                self._kept[event.segment] = event
            case Ended():
                self._ended[event.segment] = event
            case Overrun():
                place = event.segment, event.attempt
                self._overrun[place] = self._overrun.get(place, 0) + event.tokens
            case Reviewed():
                self._review = event
            case Ruled():
                self._ruled = event
            case Approval():
                self._approval = event
            case Traced():
                self._origins = event.origins
            case Released() | Called():
                self._text.append(event.text)
            case Reasoned():
                self._reasoning.append(event.text)
            case _:
                pass

    def finish(
        self, *, finish: str, reason: str = "", totals: Totals | None = None, error: str | None = None
    ) -> CallRecord:
        """The record.

        Args:
            finish: why the answer ended; also ``failed`` or ``cancelled``.
            reason: in words, without user text.
            totals: the cost so far.
            error: the kind of exception when the call failed, never its text.
        """
        prompt = self._content.prompt
        said = {name: tuple(self._content.keep(text, prompt) for text in self._about.get(name, ())) for name in _SAID}
        return CallRecord(
            **{**self._about, **said, "reasoning": self._reasoned()},
            started_at=self._started.isoformat(),
            ended_at=datetime.now(UTC).isoformat(),
            seconds=round(self.seconds, 6),
            prompt=tuple(Turn(role=m.role, content=self._content.keep(text_of(m), prompt)) for m in self._messages),
            prompt_reward=self.prompt_reward,
            segments=self._segments(),
            review=self._reviewed(),
            ruling=Ruling(**flat(self._ruled)) if self._ruled is not None else None,
            approval=ApprovalEntry(**flat(self._approval)) if self._approval is not None else None,
            origins=tuple(map(self._value, self._origins)),
            answer=self._content.keep(self.text, self._content.accepted),
            finish=finish,
            reason=reason,
            error=error,
            totals=flat(totals or Totals()),
        )

    def _reasoned(self) -> ReasoningEntry | None:
        marks: Mapping[str, Any] | None = self._about.get("reasoning")
        text = self._content.keep("".join(self._reasoning), self._content.accepted)
        return None if marks is None else ReasoningEntry(**marks, text=text)

    def _value(self, found: ValueOrigin) -> ValueEntry:
        keep, mode = self._content.keep, self._content.rejected
        tool = keep(found.tool, self._content.prompt) if found.tool else None
        return ValueEntry(path=keep(found.path, mode), origin=found.origin, tool=tool, trusted=found.trusted)

    def _reviewed(self) -> Review | None:
        if self._review is None:
            return None
        found = self._review.judgement
        scores = tuple(map(ScoreEntry.of, found.scores))
        return Review(scores=scores, reward=found.reward, veto=found.veto, verdict=self._review.verdict)

    def _segments(self) -> tuple[Segment, ...]:
        indexes = sorted({*self._decisions, *self._kept, *self._ended, *self._rewound})
        grown = _Grown()
        for index in indexes:
            grown.begin(index)
            if (candidate := self._kept_candidate(index)) is not None:
                grown.keep(index, candidate)
            if (rewound := self._rewound.get(index)) is not None:
                looked_at = [d.candidate.text for d in self._decisions[index] if d.verdict != "surplus"]
                grown.go_back(rewound.place, looked_at[-1])
        return tuple(self._segment(index, grown) for index in indexes)

    def _kept_candidate(self, index: int) -> Candidate | None:
        kept = self._kept.get(index)
        chosen = [d.candidate for d in self._decisions.get(index, []) if kept and d.attempt == kept.attempt]
        return chosen[0] if chosen else None

    def _segment(self, index: int, grown: _Grown) -> Segment:
        kept, ended, rewound = self._kept.get(index), self._ended.get(index), self._rewound.get(index)
        decisions = sorted(self._decisions.get(index, []), key=lambda decision: decision.attempt)
        attempts = []
        for decision in decisions:
            is_kept = kept is not None and decision.attempt == kept.attempt
            after = grown.after(index) if is_kept else ""
            mode = self._content.accepted if is_kept and not grown.is_taken(index) else self._content.rejected
            text = self._content.keep(decision.candidate.text, mode, before=grown.before(index), after=after)
            attempts.append(self._attempt(decision, text, self._overrun.get((index, decision.attempt), 0)))
        return Segment(
            index=index,
            held=self._held.get(index, 0),
            attempts=tuple(attempts),
            kept=kept.attempt if kept else None,
            how=kept.how if kept else None,
            ended=End(action=ended.action, reason=ended.reason) if ended else None,
            rewound=None if rewound is None else _rewind(rewound),
        )

    @staticmethod
    def _attempt(decision: Decision, text: Text, overrun: int) -> Attempt:
        return Attempt(
            attempt=decision.attempt,
            text=text,
            tokens=len(decision.candidate),
            overrun=overrun,
            finish=decision.candidate.finish,
            whole=decision.candidate.whole,
            stop_overlap=decision.candidate.stop_overlap,
            match_before=decision.judgement.match_before,
            recovery=decision.recovery,
            scores=tuple(map(ScoreEntry.of, decision.judgement.scores)),
            unasked=tuple(UnaskedEntry(**flat(one)) for one in decision.judgement.unasked),
            reward=decision.judgement.reward,
            veto=decision.judgement.veto,
            ask=decision.judgement.ask,
            threshold=decision.threshold,
            probability=decision.probability,
            u=decision.u,
            verdict=decision.verdict,
            reason=decision.reason,
        )


def _rewind(event: Rewound) -> Rewind:
    return Rewind(**{name: value for name, value in flat(event).items() if name != "segment"})


class _Grown:
    """What the answer was around each segment, rewinds included: what is redacted in a text depends on it."""

    def __init__(self) -> None:
        # the answer before each rewind, with the text that was the reason for it, and the answer at its end
        self._eras = [""]
        self._begun: dict[int, tuple[int, int]] = {}
        self._ended: dict[int, int] = {}
        # by segment: in which era some of it was taken back
        self._taken: dict[int, int] = {}

    def begin(self, index: int) -> None:
        """A segment begins."""
        self._begun[index] = len(self._eras) - 1, len(self._eras[-1])

    def keep(self, index: int, candidate: Candidate) -> None:
        """Its candidate becomes part of the answer. Of a stop string that two segments share, the earlier one loses its
        part."""
        answer = self._eras[-1]
        self._eras[-1] = answer[: len(answer) - candidate.stop_overlap] + candidate.text
        self._ended[index] = self._begun[index][1] + len(candidate.text)

    def go_back(self, place: int, reason: str) -> None:
        """The answer goes back to a place, because of the text that would have come next."""
        era = len(self._eras) - 1
        answer = self._eras[-1]
        for index, end in self._ended.items():
            if end > place:
                self._taken.setdefault(index, era)
        self._eras[-1] = answer + reason
        self._eras.append(answer[:place])

    def is_taken(self, index: int) -> bool:
        """Whether some of a segment is not in the answer any more."""
        return index in self._taken

    def before(self, index: int) -> str:
        """The answer before a segment."""
        era, start = self._begun[index]
        return self._eras[era][:start]

    def after(self, index: int) -> str:
        """What came after a segment that was kept."""
        return self._eras[self._taken.get(index, -1)][self._ended[index] :]
