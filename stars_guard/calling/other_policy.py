"""What another policy decides about the candidates of a call on record: one that was its shadow, or any other.

The other policy's own decoder gets the candidates one by one, with the same random numbers, for as long as the answer
is the one on record. So attempts, budget, mode and ``on_exhausted`` count as they do in a call. Where it would keep
another candidate, or generate one that is not on record, the two part. Nobody knows how its answer would go on from
there, so later candidates are only decided one by one, each after the text on record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stars_guard.audit import CallRecord
from stars_guard.audit.record import Attempt, Segment, ShadowEntry
from stars_guard.calling.answer_before import Before, candidate_of, cuts_of
from stars_guard.calling.known_scores import from_record, is_on_record, is_unseen, known_scores
from stars_guard.calling.on_record import messages_of
from stars_guard.calling.readings import of_a_text
from stars_guard.calling.redecided import Answered, Outcome, Parting, Redecided, Source
from stars_guard.calling.rulings import approval_of
from stars_guard.calling.settings import settings_of, supplied_settings
from stars_guard.core.events import Ended, Kept, Rewound
from stars_guard.core.judging import Judgement, Score, combine
from stars_guard.core.messages import Message
from stars_guard.core.segments import Candidate, Passage
from stars_guard.core.tool_call_events import Ruled
from stars_guard.core.vocabulary import KeptHow, RuleAction
from stars_guard.decoding import METHODS, SCHEDULES, Decoder, Done, Settings, decoder_of, make_decoder, name_of
from stars_guard.decoding.randomness import Place
from stars_guard.decoding.verdict import decide
from stars_guard.errors import AuditError, PolicyError
from stars_guard.policy import Policy
from stars_guard.prompting.call_rendering import read_call
from stars_guard.scorers.cascade import Cascade

__all__ = ["check_decides", "decide_again"]

_ACTIONS: dict[str, Outcome] = {"refused": "refuse", "stopped": "stop", "raised": "raise", "budget": "budget"}


async def decide_again(
    record: CallRecord, policy: Policy, cascade: Cascade, *, shadow: ShadowEntry | None = None, ask: bool = True
) -> Answered:
    """Decide again about every candidate on record; see `stars_guard.auditing.counterfactual.what_if`.

    Args:
        cascade: the policy's judges for the stage of the record.
        shadow: what the policy's judges and rules said as the call's shadow; by default what is on record of it.
        ask: whether judges may be asked. Otherwise a candidate whose scores are not there is not decided.

    Raises:
        AuditError: the record has no candidates.
        PolicyError: the policy's method compares candidates, which isn't supported.
        ScorerError: a judge failed and the policy says ``raise``.
    """
    check_decides(record, policy)
    settings = _settings(record, policy) if record.stage == "answer" else None
    if shadow is None:
        digest = policy.without_shadows.sha256
        shadow = next((entry for entry in record.shadows if entry.policy_sha256 == digest), None)
    return await _OtherPolicy(record, policy, settings, cascade, shadow, ask=ask).answer()


def check_decides(record: CallRecord, policy: Policy) -> None:
    """Check that the policy can decide about a record's candidates. Raises what `decide_again` does."""
    if not record.segments:
        raise AuditError(f"the record {record.call_id} holds no candidate", hint="nothing was generated or judged")
    method = _settings(record, policy).method if record.stage == "answer" else ""
    if method and decoder_of(method).decides == "best":
        raise PolicyError(
            f"policy {policy.name!r} has the method {name_of(method)}, which compares candidates with each other",
            hint="only stars and cards decide on each candidate",
        )


def _settings(record: CallRecord, policy: Policy) -> Settings:
    """The decoder's settings under the other policy, for candidates one by one and of the lengths on record."""
    recorded = {name: int(str(record.decoding.get(name) or 1)) for name in ("segment_tokens", "max_tokens")}
    if record.backend.get("engine") == "handed in":
        settings = supplied_settings(policy, int(str(record.decoding.get("attempts") or 1)))
    else:
        settings = settings_of(policy, recorded["max_tokens"])
    return settings.changed(**recorded, stretch=bool(record.decoding.get("stretch")), parallel=1)


@dataclass(frozen=True, slots=True)
class _Judged:
    """A candidate, and what the other policy's judges say of it; None where nobody knows."""

    attempt: Attempt
    judgement: Judgement | None
    source: Source


class _OtherPolicy:
    """Goes through one record. ``settings`` are None for a check, where nothing was generated."""

    def __init__(
        self,
        record: CallRecord,
        policy: Policy,
        settings: Settings | None,
        cascade: Cascade,
        shadow: ShadowEntry | None,
        *,
        ask: bool,
    ) -> None:
        self._record = record
        self._shadow = shadow
        self._ask = ask
        ruled = shadow.ruling if shadow is not None and shadow.ruling is not None else record.ruling
        self._ruled = Ruled(**ruled.model_dump()) if ruled is not None else None
        rows = shadow.candidates if shadow is not None else ()
        self._said = {(row.segment, row.attempt): row.scores for row in rows if row.judged}
        self._policy = policy
        self._settings = settings
        self._cascade = cascade
        self._decoder: Decoder | None = None if settings is None else make_decoder(settings, record.seed)
        self._cuts = cuts_of(record)
        self._cut_off = record.finish in ("failed", "cancelled")
        self._messages: tuple[Message, ...] | None
        try:
            self._messages = tuple(messages_of(record))
        except AuditError:
            self._messages = None

    async def answer(self) -> Answered:
        try:
            return await self._answer()
        finally:
            await self._cascade.forget(self._record.call_id)

    async def _answer(self) -> Answered:
        prompt_reward = None
        if self._decoder is not None:
            prompt_reward = await self._prompt_reward() if self._decoder.needs_prompt_reward else None
            self._decoder.begin(prompt_reward)
        rows: list[Redecided] = []
        parting: Parting | None = None
        before: Before | None = Before.of(self._record)
        prefix_reward, tokens = prompt_reward, 0
        rewards_before: dict[int, float | None] = {}
        for segment in self._record.segments:
            judged = [await self._judge(attempt, segment.index, before, tokens) for attempt in segment.attempts]
            rows += [self._row(segment.index, one, prompt_reward, prefix_reward, tokens) for one in judged]
            if parting is None:
                course = self._course(segment, judged)
                parting = None if self._is_as_on_record(segment, course) else course
            if segment.rewound is not None:
                tokens -= segment.rewound.tokens
                prefix_reward = rewards_before.get(segment.rewound.to)
                before = before.back(segment.rewound) if before is not None else None
                continue
            kept = next((one for one in judged if one.attempt.attempt == segment.kept), None)
            if kept is None:
                break
            rewards_before[segment.index] = prefix_reward
            tokens += kept.attempt.tokens
            prefix_reward = kept.judgement.reward if kept.judgement else None
            before = before.then(kept.attempt) if before is not None else None
        return Answered(candidates=tuple(rows), parting=parting or await self._end(before))

    # --- what the judges say

    async def _prompt_reward(self) -> float | None:
        rewarding = [judge for judge in self._cascade.judges if judge.rule.weight is not None]
        weights = {rule.judge: rule.weight for rule in self._record.rules if rule.weight is not None}
        same = weights == {judge.rule.judge: judge.rule.weight for judge in rewarding}
        if self._shadow is not None and self._shadow.prompt_reward is not None:
            return self._shadow.prompt_reward
        same = same and all(is_on_record(judge, self._record) for judge in rewarding)
        # looks for the parts on record, which may be those of a package that isn't installed
        if same and await asyncio.to_thread(_has_prompt_reward, self._record):
            return self._record.prompt_reward
        if self._messages is None or not self._ask:
            return None
        return (await self._cascade.prompt_reward(self._passage("", "")))[0]

    def _passage(self, before: str, text: str) -> Passage:
        call_id, role, messages = self._record.call_id, self._record.role, self._messages or ()
        return Passage(call_id=call_id, messages=messages, accepted=before, segment=text, role=role)

    def _candidate(self, attempt: Attempt, index: int, before: Before | None, tokens: int) -> Passage:
        """What a judge is asked about a candidate, as far as its text and what is before it are on record."""
        said = attempt.text.text or ""
        if self._settings is None:
            passage = replace(self._passage("", said), last=True)
            if self._record.stage == "tool_call":
                passage = replace(passage, is_call=True, tool_calls=(read_call(said),))
            return of_a_text(passage)
        passage = replace(
            self._passage(before.accepted(attempt) if before else "", said),
            index=index,
            last=attempt.finish is not None or tokens + attempt.tokens >= self._settings.max_tokens,
            whole=attempt.whole or self._record.grammar_sha256 is not None,
        )
        return before.readings.of(candidate_of(attempt, said), passage) if before else passage

    async def _judge(self, attempt: Attempt, index: int, before: Before | None, tokens: int) -> _Judged:
        if self._decoder is not None and not self._decoder.needs_judgement:
            return _Judged(attempt, Judgement(), "none")
        passage = self._candidate(attempt, index, before, tokens)
        place = Place(seed=self._record.seed, segment=index, attempt=attempt.attempt)
        if (said := self._said.get((index, attempt.attempt))) is not None:
            scores = {entry.judge: Score(**entry.model_dump()) for entry in said}
            judgement = from_record(self._cascade, passage, place, scores, is_all=True)
            # where the match of a veto begins is known for the vetoes on record
            before_it = attempt.match_before if judgement is not None and judgement.veto == attempt.veto else 0
            found = None if judgement is None else replace(judgement, match_before=before_it)
            return _Judged(attempt, found, "none" if found is None else "record")
        if not self._ask:
            return _Judged(attempt, None, "none")
        known = known_scores(self._cascade, self._record, attempt.scores)
        if (on_record := from_record(self._cascade, passage, place, known)) is not None:
            return _Judged(attempt, replace(on_record, match_before=attempt.match_before), "record")
        unseen = is_unseen(self._cascade, passage, known)
        if unseen or not attempt.text.whole or before is None or self._messages is None:
            return _Judged(attempt, None, "none")
        return _Judged(attempt, (await self._cascade.judge([passage], [known], places=[place]))[0], "judged")

    # --- what follows for one candidate

    def _row(
        self, segment: int, judged: _Judged, prompt_reward: float | None, prefix_reward: float | None, tokens: int
    ) -> Redecided:
        attempt, judgement = judged.attempt, judged.judgement
        row = Redecided(
            segment=segment,
            attempt=attempt.attempt,
            before=attempt.verdict,
            after="accepted" if judgement is None or self._action(judgement) == "allow" else "rejected",
            source=judged.source,
            veto=judgement.veto if judgement else None,
        )
        if judgement is None:
            return replace(row, after="unknown")
        if self._settings is None or decoder_of(self._settings.method).decides == "none":
            return row
        again = decide(
            self._settings,
            seed=self._record.seed,
            segment=segment,
            attempt=attempt.attempt,
            tokens=tokens + attempt.tokens,
            prompt_reward=prompt_reward,
            prefix_reward=prefix_reward,
            judgement=judgement,
        )
        return replace(
            row,
            after="accepted" if again.verdict == "accepted" else "rejected",
            reward=judgement.reward,
            threshold=again.threshold,
            probability=again.probability,
        )

    # --- what follows for the segment

    def _course(self, segment: Segment, judged: Sequence[_Judged]) -> Parting:
        """What the other policy makes of the candidates, one by one."""
        if self._decoder is None:
            return self._check(segment, judged)
        self._decoder.hold(segment.held)
        for seen, one in enumerate(judged):
            step = self._decoder.plan()
            if isinstance(step, Done):
                return Parting(segment=segment.index, outcome=_ACTIONS[step.finish], seen=seen)
            if not 0 < one.attempt.tokens <= step.limit + step.stretch:
                break  # its budget would have cut the candidate
            if one.judgement is None and self._policy.mode == "enforce":
                return Parting(segment=segment.index, outcome="unknown", seen=seen)
            end = self._decoder.decide([(self._candidate_of(segment, one.attempt), one.judgement or Judgement())]).end
            if isinstance(end, Kept | Rewound):
                # generated in the same batch, they count against a budget
                self._decoder.charge(sum(a.tokens for a in segment.attempts if a.verdict == "surplus"))
            if isinstance(end, Kept):
                return Parting(segment=segment.index, outcome=end.how, kept=end.attempt, seen=seen + 1)
            if isinstance(end, Rewound):
                return Parting(segment=segment.index, outcome="back", seen=seen + 1)
            if isinstance(end, Ended):
                return Parting(segment=segment.index, outcome=end.action, seen=seen + 1)
        return Parting(segment=segment.index, outcome="more", seen=len(judged))

    def _candidate_of(self, segment: Segment, attempt: Attempt) -> Candidate:
        return candidate_of(attempt, cuts=self._cuts.get(segment.index, ()) if attempt.attempt == segment.kept else ())

    def _check(self, segment: Segment, judged: Sequence[_Judged]) -> Parting:
        """The same of a text at a stage around the answer. Candidates after the first are its redacted copies."""
        first: dict[str, KeptHow] = {"off": "unjudged", "monitor": "monitored"}
        if self._policy.mode != "enforce":
            return Parting(segment=segment.index, outcome=first[self._policy.mode], kept=0, seen=1)
        for seen, one in enumerate(judged, start=1):
            if one.judgement is None:
                return Parting(segment=segment.index, outcome="unknown", seen=seen - 1)
            action = self._action(one.judgement)
            if action == "allow":
                return Parting(segment=segment.index, outcome="accepted", kept=one.attempt.attempt, seen=seen)
            if action == "ask":
                return Parting(segment=segment.index, outcome="ask", seen=seen)
            redacts = self._record.stage == "tool_result" and self._policy.rails.tool_result.action == "redact"
            if not redacts or seen > len(self._cascade.judges):
                return Parting(segment=segment.index, outcome="refuse", seen=seen)
        return Parting(segment=segment.index, outcome=self._after_redacting(judged[-1]), seen=len(judged))

    def _action(self, judgement: Judgement) -> RuleAction:
        return Ruled.together(self._ruled, judgement, approval_of(self._record))

    def _after_redacting(self, last: _Judged) -> Outcome:
        """What happens after the last copy on record, which a judge vetoes too."""
        text = last.attempt.text
        if not text.whole or last.judgement is None:
            return "unknown"
        limits = {rule.judge: rule.reject_above for rule in self._cascade.rules if rule.reject_above is not None}
        over = {
            score.judge
            for score in last.judgement.scores
            if score.value is not None and score.judge in limits and score.value > limits[score.judge]
        }
        judges = [
            (judge.scorer, limits[judge.rule.judge]) for judge in self._cascade.judges if judge.rule.judge in over
        ]
        found = any(scorer.find_above(text.text or "", limit) for scorer, limit in judges)
        return "more" if found else "refuse"

    def _is_as_on_record(self, segment: Segment, course: Parting) -> bool:
        if segment.kept is not None:
            return course.kept == segment.kept
        if segment.ended is not None:
            return course.outcome == segment.ended.action
        if segment.rewound is not None:
            return course.outcome == "back"
        # the call was cut off before the segment had an end
        accepted = [attempt.attempt for attempt in segment.attempts if attempt.verdict == "accepted"]
        if accepted:
            return course.kept == accepted[0]
        return course.outcome != "accepted" and course.seen == len(segment.attempts)

    async def _end(self, before: Before | None) -> Parting | None:
        """Whether the other policy ends the answer where the record does, after the last segment that was kept."""
        last = self._record.segments[-1]
        if self._decoder is None or self._cut_off or (last.ended is not None and last.ended.action != "stop"):
            return None
        step = self._decoder.plan()
        finish = step.finish if isinstance(step, Done) else "more"
        ends_early = finish in ("budget", "stopped") and self._decoder.needs_judgement
        if ends_early and self._settings is not None and not self._settings.monitor:
            judgement = await self._review(before, last)
            if judgement is None:
                return Parting(segment=last.index + 1, outcome="unknown")
            finish = finish if judgement.veto is None else "refused"
        if finish == self._record.finish:
            return None
        return Parting(segment=last.index + 1, outcome=_ACTIONS.get(finish, "more"))

    async def _review(self, before: Before | None, last: Segment) -> Judgement | None:
        """What the judges say of an answer that ends early, as a whole; None where nobody knows."""
        if self._shadow is not None and self._shadow.review is not None:
            said = [Score(**entry.model_dump()) for entry in self._shadow.review]
            return combine(said, self._cascade.rules)
        review = self._record.review
        known = {} if review is None else known_scores(self._cascade, self._record, review.scores)
        # then every judge is asked, in doubt or not
        if review is not None and all(is_on_record(judge, self._record) for judge in self._cascade.judges):
            return combine(list(known.values()), self._cascade.rules)
        if before is None or self._messages is None or not self._ask:
            return None
        passage = before.readings.at_end(replace(self._passage(*before.parts), index=last.index, last=True))
        if is_unseen(self._cascade, passage, known):
            return None
        return (await self._cascade.judge([passage], [known]))[0]


def _has_prompt_reward(record: CallRecord) -> bool:
    """Whether the prompt's reward was asked for; it is None on record where it was not known."""
    said = record.decoding.get("schedule")
    schedule = SCHEDULES.find(said.get("type") if isinstance(said, dict) else said)
    method = METHODS.find(record.method)
    asks = method is not None and method.decides == "each"
    return asks and schedule is not None and schedule.needs_prompt_reward
