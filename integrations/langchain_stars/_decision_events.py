"""Decisions as LangChain's custom events: ``stars_guard.segment.accepted``, ``stars_guard.segment.rejected``, and
``stars_guard.segment.rewound`` where the answer goes back over text that was accepted and not released.

They belong to the model's own run, so they need no chain around it. A segment's text is in its event only as far as the
policy's audit content says. A redacted text is shown as far as no later segment can complete a secret in it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from langchain_stars._run_tracking import ModelRun, listeners
from langchain_stars._settled_text import SettledText
from langchain_stars._waiting import Waiting
from stars_guard.audit import Text
from stars_guard.calling.settings import content_of
from stars_guard.core.events import Decision, Event, Finished, Kept, Rewound
from stars_guard.core.messages import Message
from stars_guard.guard import CallOptions, Guard

__all__ = ["reported_answer", "reported_events"]


async def reported_events(
    waiting: Waiting, guard: Guard, messages: Sequence[Message], options: CallOptions, run: ModelRun | None
) -> AsyncGenerator[Event, None]:
    """As `Guard.stream`. Each decision is reported to the run's callbacks before it is passed on."""
    texts = _Texts(guard)
    manager: Any = waiting.callback_manager(listeners(run), tags=run.tags, metadata=run.metadata) if run else None
    async with aclosing(waiting.events(guard, messages, options)) as events:
        async for event in events:
            if run and isinstance(event, Kept):
                texts.kept(event)
            if run and isinstance(event, Rewound):
                texts.rewound(event)
                await waiting.result(
                    manager.on_custom_event("stars_guard.segment.rewound", _rewind(guard, event), run_id=run.run_id)
                )
            if run and isinstance(event, Decision) and event.verdict != "surplus":
                name, data = f"stars_guard.segment.{event.verdict}", _data(guard, event, texts.of(event))
                await waiting.result(manager.on_custom_event(name, data, run_id=run.run_id))
            yield event


async def reported_answer(
    waiting: Waiting, guard: Guard, messages: Sequence[Message], options: CallOptions, run: ModelRun | None
) -> Finished:
    """As `Guard.generate`. Decisions are reported where somebody listens."""
    if run is None or not listeners(run):
        return await waiting.generate(guard, messages, options)
    async with aclosing(reported_events(waiting, guard, messages, options, run)) as events:
        async for event in events:
            last = event
    assert isinstance(last, Finished)  # noqa: S101
    return last


class _Texts:
    """The texts of an answer's events."""

    def __init__(self, guard: Guard) -> None:
        self._content = content_of(guard.policy)
        self._settled = SettledText()
        self._rejected: dict[tuple[int, int], str] = {}
        self._length = 0

    def of(self, event: Decision) -> Text:
        """The text of a decision's event."""
        candidate, is_accepted = event.candidate, event.verdict == "accepted"
        mode = self._content.accepted if is_accepted else self._content.rejected
        if is_accepted:
            shown = self._settled.accepted(candidate.text, last=candidate.finish is not None)
            self._rejected.clear()
            self._length += len(candidate.text) - candidate.stop_overlap
        else:
            shown = self._settled.rejected(candidate.text)
            self._rejected[event.segment, event.attempt] = candidate.text
        if mode != "redacted":
            return self._content.keep(candidate.text, mode)
        text = Text(content=shown, chars=len(candidate.text))
        return text.encrypt() if self._content.encrypt else text

    def kept(self, event: Kept) -> None:
        """Take note of what has become part of the answer."""
        if (text := self._rejected.pop((event.segment, event.attempt), None)) is not None:
            self._settled.kept(text)
            self._rejected.clear()
            self._length += len(text)

    def rewound(self, event: Rewound) -> None:
        """Take note of what is not part of the answer any more."""
        self._settled.took_back(self._length - event.place)
        self._rejected.clear()
        self._length = event.place


def _rewind(guard: Guard, event: Rewound) -> dict[str, Any]:
    return {"policy": guard.policy.name, **asdict(event)}


def _data(guard: Guard, event: Decision, text: Text) -> dict[str, Any]:
    return {
        "policy": guard.policy.name,
        "segment": event.segment,
        "attempt": event.attempt,
        "tokens": len(event.candidate),
        "reason": event.reason,
        "veto": event.judgement.veto,
        "reward": event.judgement.reward,
        "threshold": event.threshold,
        "scores": {score.judge: score.value for score in event.judgement.scores},
        **text.model_dump(exclude_none=True),
    }
