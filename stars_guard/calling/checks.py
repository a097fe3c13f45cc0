"""The stages around an answer: one text, judged whole, with a record of its own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import anyio

from stars_guard.audit import AuditStore, CallRecord, Recorder
from stars_guard.calling.judge_loading import load_judges
from stars_guard.calling.settings import content_of
from stars_guard.calling.telemetry import CallSpan
from stars_guard.core.events import Decision, Ended, Event, Kept, Released, Totals
from stars_guard.core.judging import Judgement
from stars_guard.core.messages import Message
from stars_guard.core.segments import Candidate, Passage
from stars_guard.core.vocabulary import Stage, Verdict
from stars_guard.policy import Policy
from stars_guard.scorers.cascade import Cascade

__all__ = ["Checked", "Checker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What became of a text.

    Attributes:
        allowed: whether it may go on as it is.
        text: what may go on: the text itself, a redacted copy, or nothing.
        reason: why it was rejected, in words, without user text; in mode ``monitor`` also where it is allowed.
        audit_id: of its record; None where the stage has no judges or the mode is ``off``, and nothing was judged.
    """

    stage: Stage
    allowed: bool
    text: str = field(repr=False)
    reason: str = ""
    audit_id: str | None = None


class Checker:
    """Judges texts at the stages of a policy's rails.

    Args:
        allow_python: whether the policy may name Python code to run.
    """

    def __init__(self, policy: Policy, audit: AuditStore, *, allow_python: bool = False) -> None:
        self._policy = policy
        self._audit = audit
        self._allow_python = allow_python
        self._rails = dict(policy.rails.items())
        self._cascades: dict[Stage, Cascade] = {}

    async def check(
        self, stage: Stage, text: str, *, messages: Sequence[Message] = (), run_id: str | None = None
    ) -> Checked:
        """Judge a text. The arguments are those of `Guard.check`."""
        rail = self._rails[stage]
        if not rail.judges or not text or self._policy.mode == "off":
            return Checked(stage=stage, allowed=True, text=text)
        one = _Check(self._policy, stage, text, tuple(messages), run_id)
        try:
            cascade = self._cascades.get(stage)
            if cascade is None:
                cascade = await load_judges(rail.judges, allow_python=self._allow_python)
                self._cascades[stage] = cascade
            return await one.run(cascade)
        except BaseException as exc:
            cancelled = isinstance(exc, asyncio.CancelledError | GeneratorExit)
            one.finish, one.error = ("cancelled", None) if cancelled else ("failed", type(exc).__name__)
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await self._audit.append(one.record())


class _Check:
    def __init__(
        self, policy: Policy, stage: Stage, text: str, messages: tuple[Message, ...], run_id: str | None
    ) -> None:
        self.finish: str = "passed"
        self.error: str | None = None
        self._policy, self._stage, self._text, self._messages = policy, stage, text, messages
        self._call_id = uuid.uuid4().hex
        self._reason = ""
        self._rejections = self._scored = self._attempts = 0
        about = {
            "call_id": self._call_id,
            "stage": stage,
            "run_id": run_id,
            "policy": policy.name,
            "policy_sha256": policy.sha256,
            "mode": policy.mode,
            "seed": 0,
        }
        self._recorder = Recorder(content_of(policy), messages, about)
        self._span = CallSpan(f"stars_guard.check {stage}", about)

    async def run(self, cascade: Cascade) -> Checked:
        self._recorder.describe(
            scorers={judge.rule.judge: judge.identity for judge in cascade.judges},
            rules=tuple(asdict(rule) for rule in cascade.rules),
        )
        try:
            judgement = await self._judge(cascade, self._text)
            if judgement.veto is None:
                return self._pass(self._text, Kept(segment=0, attempt=0, how="accepted"))
            self._reason = f"vetoed by {judgement.veto}"
            if self._policy.mode == "monitor":
                return self._pass(self._text, Kept(segment=0, attempt=0, how="monitored"))
            if self._stage == "tool_result" and self._policy.rails.tool_result.action == "redact":
                clean = await self._redact(cascade, judgement)
                if clean is not None:
                    self.finish = "redacted"
                    return self._pass(clean, Kept(segment=0, attempt=self._attempts - 1, how="accepted"))
        finally:
            await cascade.forget(self._call_id)
        self.finish = "refused"
        self._add(Ended(segment=0, action="refuse", reason=self._reason))
        return Checked(stage=self._stage, allowed=False, text="", reason=self._reason, audit_id=self._call_id)

    async def _redact(self, cascade: Cascade, judgement: Judgement) -> str | None:
        """A copy that no judge vetoes; each round takes out what one judge points at, as no other is asked then."""
        text = self._text
        while judgement.veto is not None:
            clean = _redacted(cascade, judgement, text)
            if clean == text or self._attempts > len(cascade.judges):
                return None
            text, judgement = clean, await self._judge(cascade, clean)
        return text

    async def _judge(self, cascade: Cascade, text: str) -> Judgement:
        passage = Passage(call_id=self._call_id, messages=self._messages, accepted="", segment=text, last=True)
        (judgement,) = await cascade.judge([passage])
        verdict: Verdict = "rejected" if judgement.veto else "accepted"
        reason = f"vetoed by {judgement.veto}" if judgement.veto else "no judge vetoes"
        self._add(
            Decision(
                segment=0,
                attempt=self._attempts,
                candidate=Candidate(tokens=(), text=text),
                judgement=judgement,
                verdict=verdict,
                reason=reason,
            )
        )
        self._attempts += 1
        self._rejections += judgement.veto is not None
        self._scored += len(judgement.scores)
        return judgement

    def _pass(self, text: str, kept: Kept) -> Checked:
        self._add(kept)
        self._add(Released(segment=0, text=text))
        return Checked(
            stage=self._stage, allowed=self.finish == "passed", text=text, reason=self._reason, audit_id=self._call_id
        )

    def _add(self, event: Event) -> None:
        self._recorder.add(event)
        self._span.add(event)

    def record(self) -> CallRecord:
        totals = Totals(proposals=self._attempts, rejections=self._rejections, scorer_passages=self._scored)
        record = self._recorder.finish(finish=self.finish, reason=self._reason, totals=totals, error=self.error)
        self._span.end(record)
        return record


def _redacted(cascade: Cascade, judgement: Judgement, text: str) -> str:
    """The text with a mark in the place of everything that a vetoing judge can point at."""
    over = {s.judge: s.value for s in judgement.scores if s.value is not None}
    finds = sorted(
        find
        for judge in cascade.judges
        if judge.rule.reject_above is not None and over.get(judge.rule.judge, 0.0) > judge.rule.reject_above
        for find in judge.scorer.find(text)
    )
    pieces, at = [], 0
    for start, end, name in finds:
        if start >= at:
            pieces += [text[at:start], f"[removed: {name}]"]
        at = max(at, end)
    return "".join([*pieces, text[at:]])
