"""The record and the span of one call, written once, however the call ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from stars_guard.audit import AuditStore, CallRecord, Recorder
from stars_guard.audit.record import RuleEntry
from stars_guard.calling import metrics
from stars_guard.calling.portal import to_the_end
from stars_guard.calling.settings import content_of
from stars_guard.calling.shadow_calls import Shadows
from stars_guard.calling.telemetry import CallSpan
from stars_guard.concealing import concealed
from stars_guard.core.events import Called, Event, Released, Totals
from stars_guard.core.messages import Message
from stars_guard.core.vocabulary import AnswerFinish, CheckFinish, FailureFinish
from stars_guard.policy import Policy
from stars_guard.scorers.cascade import Cascade

__all__ = ["Recording"]

_log = logging.getLogger("stars_guard.audit")


class Counted(Protocol):
    """What has been done so far, for the record of a call that may end at any moment."""

    @property
    def totals(self) -> Totals:
        """The cost so far."""

    @property
    def prompt_reward(self) -> float | None:
        """r(x, ""), once it is known."""


class Recording:
    """Records what happens inside ``async with``, and writes the record when that is left.

    Leaving without an error writes what `finish` was given. A call that is cancelled, or whose reader has gone, is
    recorded as ``cancelled``, and one that raises as ``failed`` with the kind of error. The record is written to the
    end even if the call is cancelled meanwhile.

    Args:
        call_id: of the call, and so of its record.
        messages: the conversation up to what is generated or judged.
        about: further fields of the record that are known from the start. The policy's digest is computed if it is
            not among them.
        span: the span's name, and ``attributes`` its own ones.
        shadows: those that follow the call.
    """

    def __init__(
        self,
        policy: Policy,
        store: AuditStore,
        *,
        call_id: str,
        seed: int,
        messages: Sequence[Message],
        about: Mapping[str, Any],
        span: str,
        attributes: Mapping[str, Any] | None = None,
        shadows: Shadows | None = None,
    ) -> None:
        known = {
            "call_id": call_id,
            "seed": seed,
            "policy": concealed(policy.name),
            "mode": policy.mode,
            **about,
        }
        if "policy_sha256" not in known:
            known["policy_sha256"] = policy.sha256
        self.shadows = shadows or Shadows((), call_id, "answer")
        self._store = store
        self._policy = known["policy"]
        self._recorder = Recorder(content_of(policy), messages, known)
        self._span = CallSpan(span, known, **(attributes or {}))
        self._counted: Counted | None = None
        self._first_text: float | None = None
        self._finish: str = ""
        self._reason = ""

    def describe(self, **about: Any) -> None:
        """Add fields of the record that have become known."""
        self._recorder.describe(**about)

    def judged_by(self, cascade: Cascade) -> None:
        """Add which judges are asked."""
        metrics.watch(self._policy, cascade=cascade)
        self.shadows.judged_by(cascade)
        self.describe(
            scorers={judge.rule.judge: judge.identity for judge in cascade.judges},
            rules=tuple(map(RuleEntry.of, cascade.rules)),
        )

    def follow(self, counted: Counted) -> None:
        """Take the totals from there."""
        self._counted = counted

    def add(self, event: Event) -> None:
        """Take the next event."""
        if self._first_text is None and isinstance(event, Released | Called):
            self._first_text = self.seconds
        self._recorder.add(event)
        self._span.add(event)

    def finish(self, finish: AnswerFinish | CheckFinish | FailureFinish, reason: str = "") -> None:
        """Say how the call ended. The record is written when the context is left."""
        self._finish, self._reason = finish, reason

    @property
    def seconds(self) -> float:
        """Time since the call began."""
        return self._recorder.seconds

    async def __aenter__(self) -> Self:
        metrics.watch(self._policy, store=self._store)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        error: str | None = None
        if isinstance(exc, asyncio.CancelledError | GeneratorExit):
            self.finish("cancelled")
        elif exc is not None:
            self.finish("failed")
            error = type(exc).__name__
        totals = None
        if self._counted is not None:
            totals, self._recorder.prompt_reward = self._counted.totals, self._counted.prompt_reward
        record = self._recorder.finish(finish=self._finish, reason=self._reason, totals=totals, error=error)
        self._span.end(record)
        try:
            await to_the_end(self._write(record, hurry=exc is not None))
        except Exception as failed:
            if exc is None:
                raise
            # the call ends as it was about to end: with its own error, or as cancelled
            _log.error("the record %s could not be written: %s", record.call_id, type(failed).__name__)

    async def _write(self, record: CallRecord, *, hurry: bool) -> None:
        if self.shadows:
            record = record.model_copy(update={"shadows": await self.shadows.entries(record, hurry=hurry)})
        metrics.count(record, self._first_text if record.stage == "answer" else None)
        await self._store.append(record)
