"""The stages around an answer: one text, judged whole, with a record of its own. Of a tool call rules decide too."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack, get_args

from stars_guard.calling.given_calls import AboutCall, GivenCall, Ruling, forms_of
from stars_guard.calling.loaded import Loaded
from stars_guard.calling.plan import messages_of
from stars_guard.calling.portal import to_the_end
from stars_guard.calling.readings import of_a_text
from stars_guard.calling.recording import Recording
from stars_guard.calling.refusing import refusal_for
from stars_guard.concealing import concealed
from stars_guard.core.arguments import chosen
from stars_guard.core.arguments import text as text_of
from stars_guard.core.events import Decision, Ended, Kept, Released, Totals
from stars_guard.core.judging import Judgement
from stars_guard.core.messages import Message, ToolCall
from stars_guard.core.segments import Candidate, Passage
from stars_guard.core.tool_call_events import Ruled
from stars_guard.core.tools import Tool
from stars_guard.core.vocabulary import CheckFinish, KeptHow, Role, RuleAction, Stage, Verdict
from stars_guard.decoding.randomness import Place
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
        asked: whether a person should decide about a tool call. It is then not allowed as it is.
        rule: the rule or budget that decided about a tool call; None where none did.
        message: what that rule says to the model and to the person who is asked.
        refusal: the policy's text for the reader where a text was rejected; empty otherwise, and for tool calls.
    """

    stage: Stage
    allowed: bool
    text: str = field(repr=False)
    reason: str = ""
    audit_id: str | None = None
    asked: bool = False
    rule: str | None = None
    message: str = ""
    refusal: str = ""

    @property
    def action(self) -> RuleAction:
        """What happens to a tool call: it runs, a person is asked, or it is rejected."""
        return "allow" if self.allowed else "ask" if self.asked else "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """A text and what is said about it, checked.

    Attributes:
        call: the tool call that it is, where it was given parsed.
        ruling: what the rules say of it; None where they aren't asked.
        judged: whether the judges have let it pass before.
        whole: the tool call with all that is said about it, where rules are asked.
    """

    stage: Stage
    text: str
    forms: tuple[str, ...]
    messages: tuple[Message, ...]
    run_id: str | None
    call: ToolCall | None = None
    ruling: Ruling | None = None
    judged: bool = False
    whole: GivenCall | None = None

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool call as judges read it. Without a parsed one it is read from the text, which takes its time."""
        if self.stage != "tool_call":
            return ()
        return (read_call(self.text) if self.call is None else self.call,)


_WRITERS: dict[Stage, Role] = {"input": "user", "tool_call": "assistant", "tool_result": "tool", "output": "assistant"}
"""Who wrote the text of a stage."""


class Checker:
    """Judges texts at the stages of a policy's rails."""

    def __init__(self, policy: Policy, loaded: Loaded) -> None:
        self._policy = policy
        self._loaded = loaded
        self._rails = dict(policy.rails.items())
        self._rules = policy.rails.tool_call.compiled()
        self._digest = policy.sha256
        self._by_chance = {
            stage for stage, rail in self._rails.items() if any(judge.in_doubt is not None for judge in rail.judges)
        }

    async def check(
        self,
        stage: Stage,
        text: str,
        *,
        forms: Sequence[str] = (),
        messages: Sequence[Message] = (),
        run_id: str | None = None,
    ) -> Checked:
        """Judge a text. The arguments are those of `Guard.check`."""
        chosen("stage", stage, get_args(Stage))
        call_id = uuid.uuid4().hex
        given = _Given(
            stage=stage,
            text=text_of("the text to check", text),
            forms=forms_of(forms),
            messages=messages_of(messages),
            run_id=None if run_id is None else text_of("run_id", run_id),
        )
        with self._loaded.in_use():
            is_used = bool(self._rails[stage].judges) and self._policy.mode != "off"
            if not (text or any(given.forms)) or not (is_used or self._loaded.is_watched(call_id, stage)):
                return Checked(stage=stage, allowed=True, text=text)
            return await self._run(given, call_id)

    def check_tools(self, tools: Sequence[Tool]) -> None:
        """As `Guard.check_tools`."""
        self._rules.check_tools(tools)

    async def check_call(self, name: str, args: Mapping[str, Any], **about: Unpack[AboutCall]) -> Checked:
        """Decide about a tool call. The arguments are those of `Guard.check_call`."""
        call = GivenCall(name, args, **about)
        call_id = uuid.uuid4().hex
        with self._loaded.in_use():
            is_used = self._policy.mode != "off" and self._policy.rails.tool_call.is_used
            if not (is_used or self._loaded.is_watched(call_id, "tool_call")):
                return Checked(stage="tool_call", allowed=True, text=call.text)
            given = _Given(
                stage="tool_call",
                text=call.text,
                forms=call.forms,
                messages=call.messages,
                run_id=call.run_id,
                call=call.parsed,
                ruling=call.ruling(self._rules) if is_used else None,
                judged=call.judged,
                whole=call,
            )
            return await self._run(given, call_id)

    async def _run(self, given: _Given, call_id: str) -> Checked:
        stage = given.stage
        seed = secrets.randbits(63) if stage in self._by_chance else 0
        recording = Recording(
            self._policy,
            self._loaded.store,
            call_id=call_id,
            seed=seed,
            messages=given.messages,
            about={"stage": stage, "role": _WRITERS[stage], "run_id": given.run_id, "policy_sha256": self._digest},
            span=f"stars_guard.check {stage}",
            shadows=self._loaded.shadows(call_id, stage),
        )
        async with recording:
            check = _Check(self._policy, given, call_id, seed, recording)
            recording.follow(check)
            checked = await check.run(await self._loaded.cascade(stage))
        if checked.allowed or stage == "tool_call":
            return checked
        # what comes in is what the user says
        talk = (*given.messages, Message("user", given.text)) if stage == "input" else given.messages
        return replace(checked, refusal=await refusal_for(self._policy, talk))


class _Check:
    prompt_reward = None

    def __init__(self, policy: Policy, given: _Given, call_id: str, seed: int, recording: Recording) -> None:
        self._policy, self._given = policy, given
        self._seed = seed
        self._call_id = call_id
        self._recording = recording
        self._reason = ""
        self._rejections = self._scored = self._attempts = 0

    @property
    def totals(self) -> Totals:
        """What has been judged so far."""
        return Totals(proposals=self._attempts, rejections=self._rejections, scorer_passages=self._scored)

    async def run(self, cascade: Cascade) -> Checked:
        given = self._given
        self._recording.judged_by(cascade)
        if given.whole is not None:
            self._recording.shadows.rule(given.whole.ruled_by, judged=given.judged)
        for event in given.ruling.events if given.ruling is not None else ():
            self._recording.add(event)
        try:
            judgement = await self._judge(cascade, given.text, given.forms)
            action, self._reason = self._decide(judgement)
            if action == "allow":
                how: KeptHow = "unjudged" if self._policy.mode == "off" else "accepted"
                return self._pass("passed", given.text, Kept(segment=0, attempt=0, how=how))
            if self._policy.mode == "monitor":
                return self._pass("passed", given.text, Kept(segment=0, attempt=0, how="monitored"))
            if self._redacts:
                clean = await self._redact(cascade, judgement)
                if clean is not None:
                    return self._pass("redacted", clean, Kept(segment=0, attempt=self._attempts - 1, how="accepted"))
        finally:
            forgotten = cascade.forget(self._call_id)
            # what never waits is never cancelled half-way
            await (to_the_end(forgotten) if cascade.waits else forgotten)
        asked = action == "ask"
        self._recording.add(Ended(segment=0, action="ask" if asked else "refuse", reason=self._reason))
        self._recording.finish("asked" if asked else "refused", self._reason)
        return self._checked(allowed=False, text="", asked=asked)

    def _decide(self, judgement: Judgement) -> tuple[RuleAction, str]:
        """What happens, and why."""
        ruling = self._given.ruling
        ruled, approval = (None, None) if ruling is None else (ruling.event, ruling.approval)
        action = Ruled.together(ruled, judgement, approval)
        if judgement.veto is not None:
            return action, f"vetoed by {judgement.veto}"
        if ruling is not None and ruling.reason:
            return action, ruling.reason
        return action, f"a person is to be asked by {judgement.ask}" if action == "ask" else ""

    async def _redact(self, cascade: Cascade, judgement: Judgement) -> str | None:
        """A copy that no judge vetoes. Each round takes out what the judges that veto point at.

        Whoever delivers the copy has no other form of the text left.
        """
        text = self._given.text
        while judgement.veto is not None:
            clean = await asyncio.to_thread(_redacted, cascade, judgement, text)  # models search it again
            if clean == text or self._attempts > len(cascade.judges):
                return None
            text, judgement = clean, await self._judge(cascade, clean)
        return text

    async def _judge(self, cascade: Cascade, text: str, forms: tuple[str, ...] = ()) -> Judgement:
        given, judgement, shadows = self._given, Judgement(), self._recording.shadows
        passage: Passage | None = None
        if shadows or not self._is_settled:
            passage = Passage(
                call_id=self._call_id,
                messages=given.messages,
                accepted="",
                segment=text,
                last=True,
                role=_WRITERS[given.stage],
                forms=forms,
                tool_calls=given.calls,
                is_call=given.stage == "tool_call",
                tools=() if given.whole is None or given.whole.tool is None else (given.whole.tool,),
            )
            passage = of_a_text(passage)
        if passage is not None and not self._is_settled:
            place = Place(seed=self._seed, segment=0, attempt=self._attempts)
            # what one judge takes out may be what another would have known the rest by
            (judgement,) = await cascade.judge([passage], places=[place], fully=self._redacts)
        if passage is not None and shadows:
            shadows.see(0, self._attempts, passage, judgement)
        action, reason = self._decide(judgement)
        verdict: Verdict = "accepted" if action == "allow" else "rejected"
        self._recording.add(
            Decision(
                segment=0,
                attempt=self._attempts,
                candidate=Candidate(tokens=(), text=text),
                judgement=judgement,
                verdict=verdict,
                reason=reason or "no judge vetoes",
            )
        )
        self._attempts += 1
        self._rejections += verdict == "rejected"
        self._scored += len(judgement.scores)
        return judgement

    def _pass(self, finish: CheckFinish, text: str, kept: Kept) -> Checked:
        self._recording.add(kept)
        if text:  # only its other forms were judged
            self._recording.add(Released(segment=0, text=text))
        self._recording.finish(finish, self._reason)
        return self._checked(allowed=finish == "passed", text=text)

    @property
    def _redacts(self) -> bool:
        rail = self._policy.rails.tool_result
        return self._policy.mode == "enforce" and self._given.stage == "tool_result" and rail.action == "redact"

    @property
    def _is_settled(self) -> bool:
        """Whether no judge needs to be asked.

        They have been asked, the call is rejected whatever they say, or the mode is off and the text is on record for
        shadows alone.
        """
        ruling = self._given.ruling
        if self._policy.mode == "off":
            return True
        rejected = ruling is not None and ruling.rejects and self._policy.mode == "enforce"
        return self._given.judged or rejected

    def _checked(self, *, allowed: bool, text: str, asked: bool = False) -> Checked:
        ruling = self._given.ruling
        return Checked(
            stage=self._given.stage,
            allowed=allowed,
            text=text,
            reason=self._reason,
            audit_id=self._call_id,
            asked=asked,
            rule=ruling.event.rule if ruling is not None else None,
            message=concealed(ruling.decision.message) if ruling is not None else "",
        )


def _redacted(cascade: Cascade, judgement: Judgement, text: str) -> str:
    """The text with a mark in the place of everything that a vetoing judge can point at."""
    over = {s.judge: s.value for s in judgement.scores if s.value is not None}
    finds = sorted(
        find
        for judge in cascade.judges
        if judge.rule.reject_above is not None and over.get(judge.rule.judge, 0.0) > judge.rule.reject_above
        for find in judge.scorer.find_above(text, judge.rule.reject_above)
    )
    pieces, at = [], 0
    for start, end, name in finds:
        if start >= at:
            pieces += [text[at:start], f"[removed: {name}]"]
        at = max(at, end)
    return "".join([*pieces, text[at:]])
