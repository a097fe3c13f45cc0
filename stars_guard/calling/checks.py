"""The stages around an answer: one text, judged whole, with a record of its own."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

from stars_guard.calling.loaded import Loaded
from stars_guard.calling.plan import messages_of
from stars_guard.calling.portal import to_the_end
from stars_guard.calling.readings import of_a_text
from stars_guard.calling.recording import Recording
from stars_guard.core.arguments import chosen
from stars_guard.core.arguments import text as text_of
from stars_guard.core.events import Decision, Ended, Kept, Released, Totals
from stars_guard.core.judging import Judgement
from stars_guard.core.messages import Message, ToolCall
from stars_guard.core.segments import Candidate, Passage
from stars_guard.core.vocabulary import CheckFinish, Role, Stage, Verdict
from stars_guard.errors import InputError
from stars_guard.policy import Policy
from stars_guard.prompting.call_rendering import read_call
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


_WRITERS: dict[Stage, Role] = {"input": "user", "tool_call": "assistant", "tool_result": "tool", "output": "assistant"}
"""Who wrote the text of a stage."""


class Checker:
    """Judges texts at the stages of a policy's rails."""

    def __init__(self, policy: Policy, loaded: Loaded) -> None:
        self._policy = policy
        self._loaded = loaded
        self._rails = dict(policy.rails.items())

    async def check(
        self,
        stage: Stage,
        text: str,
        *,
        forms: Sequence[str] = (),
        messages: Sequence[Message] = (),
        run_id: str | None = None,
        tool_call: ToolCall | None = None,
    ) -> Checked:
        """Judge a text. The arguments are those of `Guard.check`."""
        chosen("stage", stage, get_args(Stage))
        text = text_of("the text to check", text)
        forms = _forms_of(forms)
        messages = messages_of(messages)
        calls = _calls_of(stage, text, tool_call)
        if run_id is not None:
            text_of("run_id", run_id)
        with self._loaded.in_use():
            if not self._rails[stage].judges or not (text or any(forms)) or self._policy.mode == "off":
                return Checked(stage=stage, allowed=True, text=text)
            call_id = uuid.uuid4().hex
            recording = Recording(
                self._policy,
                self._loaded.store,
                call_id=call_id,
                seed=0,
                messages=messages,
                about={"stage": stage, "role": _WRITERS[stage], "run_id": run_id},
                span=f"stars_guard.check {stage}",
            )
            async with recording:
                check = _Check(self._policy, stage, text, tuple(forms), tuple(messages), calls, call_id, recording)
                recording.follow(check)
                return await check.run(await self._loaded.cascade(stage))


def _calls_of(stage: Stage, text: str, call: ToolCall | None) -> tuple[ToolCall, ...]:
    if stage != "tool_call":
        if call is not None:
            raise InputError("tool_call is given at another stage", hint="pass it at the stage tool_call alone")
        return ()
    if call is not None and not isinstance(call, ToolCall):
        raise InputError(f"tool_call is of the type {type(call).__name__}", hint="pass a ToolCall")
    # texts that judges read have no half characters, and may not be a call at all
    return (read_call(text) if call is None else call,)


def _forms_of(forms: Sequence[str]) -> tuple[str, ...]:
    # one string is a sequence too, of characters in which no judge finds anything
    if isinstance(forms, str) or not isinstance(forms, Sequence) or not all(isinstance(one, str) for one in forms):
        raise InputError("forms is not a sequence of strings", hint="pass a tuple of strings")
    return tuple(forms)


class _Check:
    prompt_reward = None

    def __init__(
        self,
        policy: Policy,
        stage: Stage,
        text: str,
        forms: tuple[str, ...],
        messages: tuple[Message, ...],
        calls: tuple[ToolCall, ...],
        call_id: str,
        recording: Recording,
    ) -> None:
        self._policy, self._stage, self._text, self._messages = policy, stage, text, messages
        self._forms, self._calls = forms, calls
        self._call_id = call_id
        self._recording = recording
        self._reason = ""
        self._rejections = self._scored = self._attempts = 0

    @property
    def totals(self) -> Totals:
        """What has been judged so far."""
        return Totals(proposals=self._attempts, rejections=self._rejections, scorer_passages=self._scored)

    async def run(self, cascade: Cascade) -> Checked:
        self._recording.judged_by(cascade)
        try:
            judgement = await self._judge(cascade, self._text, self._forms)
            blame = judgement.veto or judgement.ask
            if blame is None:
                return self._pass("passed", self._text, Kept(segment=0, attempt=0, how="accepted"))
            self._reason = _reason(judgement)
            if self._policy.mode == "monitor":
                return self._pass("passed", self._text, Kept(segment=0, attempt=0, how="monitored"))
            if self._stage == "tool_result" and self._policy.rails.tool_result.action == "redact":
                clean = await self._redact(cascade, judgement)
                if clean is not None:
                    return self._pass("redacted", clean, Kept(segment=0, attempt=self._attempts - 1, how="accepted"))
        finally:
            await to_the_end(cascade.forget(self._call_id))
        self._recording.add(Ended(segment=0, action="refuse", reason=self._reason))
        self._recording.finish("refused", self._reason)
        return Checked(stage=self._stage, allowed=False, text="", reason=self._reason, audit_id=self._call_id)

    async def _redact(self, cascade: Cascade, judgement: Judgement) -> str | None:
        """A copy that no judge vetoes; each round takes out what one judge points at, as no other is asked then.

        Whoever delivers the copy has no other form of the text left.
        """
        text = self._text
        while judgement.veto is not None:
            clean = _redacted(cascade, judgement, text)
            if clean == text or self._attempts > len(cascade.judges):
                return None
            text, judgement = clean, await self._judge(cascade, clean)
        return text

    async def _judge(self, cascade: Cascade, text: str, forms: tuple[str, ...] = ()) -> Judgement:
        passage = Passage(
            call_id=self._call_id,
            messages=self._messages,
            accepted="",
            segment=text,
            last=True,
            role=_WRITERS[self._stage],
            forms=forms,
            tool_calls=self._calls,
        )
        (judgement,) = await cascade.judge([of_a_text(passage, is_call=self._stage == "tool_call")])
        stopped = bool(judgement.veto or judgement.ask)
        verdict: Verdict = "rejected" if stopped else "accepted"
        self._recording.add(
            Decision(
                segment=0,
                attempt=self._attempts,
                candidate=Candidate(tokens=(), text=text),
                judgement=judgement,
                verdict=verdict,
                reason=_reason(judgement),
            )
        )
        self._attempts += 1
        self._rejections += stopped
        self._scored += len(judgement.scores)
        return judgement

    def _pass(self, finish: CheckFinish, text: str, kept: Kept) -> Checked:
        self._recording.add(kept)
        if text:  # only its other forms were judged
            self._recording.add(Released(segment=0, text=text))
        self._recording.finish(finish, self._reason)
        return Checked(
            stage=self._stage, allowed=finish == "passed", text=text, reason=self._reason, audit_id=self._call_id
        )


def _reason(judgement: Judgement) -> str:
    if judgement.veto is not None:
        return f"vetoed by {judgement.veto}"
    return f"a person is to be asked by {judgement.ask}" if judgement.ask is not None else "no judge vetoes"


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
