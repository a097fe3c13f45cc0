"""What another policy would have decided about the proposals of a call on record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stars_guard.audit import CallRecord
from stars_guard.audit.record import Attempt
from stars_guard.auditing.replay import messages_of
from stars_guard.calling.judge_loading import load_cascade, load_judges
from stars_guard.calling.settings import settings_of
from stars_guard.core.judging import Judgement, Score, combine
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.decoding import Settings
from stars_guard.decoding.verdict import decide
from stars_guard.errors import AuditError, PolicyError
from stars_guard.policy import Policy
from stars_guard.scorers.cascade import Cascade, Judge

__all__ = ["Answered", "Redecided", "what_if"]


@dataclass(frozen=True, slots=True)
class Redecided:
    """One proposal under the other policy.

    Attributes:
        before: the verdict on record; ``after``: the other policy's, ``unknown`` where a judge's score is neither on
            record nor can be had, since the text was not kept.
        source: where the scores are from.
    """

    segment: int
    attempt: int
    before: Literal["accepted", "rejected", "surplus"]
    after: Literal["accepted", "rejected", "unknown"]
    source: Literal["record", "judged", "none"]
    reward: float | None = None
    threshold: float | None = None
    probability: float | None = None
    veto: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The other policy's decisions.

    Attributes:
        proposals: all on record, in order, each after the prefix that it was drawn from.
        parted: the first segment where the other policy would not have kept what was kept; its answer would have gone
            another way from there, and what is said of later segments holds for the answer on record only. None where
            it would have been the same answer.
    """

    proposals: tuple[Redecided, ...]
    parted: int | None


async def what_if(record: CallRecord, policy: Policy, *, allow_python: bool = False) -> Answered:
    """Decide again about every proposal on record, under another policy and with the same random numbers.

    Scores on record are used where judge and what it saw are the same; else the text is judged again. Lengths of
    segments and of the whole answer are those on record. Of a check, it is the other policy's judges of that stage
    that decide.

    Raises:
        AuditError: the record has no proposals.
        PolicyError: the policy does not decide proposal by proposal (methods ``stars`` and ``cards`` do).
        ScorerError: a judge failed and the policy says ``raise``.
    """
    if not record.segments:
        raise AuditError(f"the call {record.call_id} drew nothing")
    if record.stage != "answer":
        judges = await load_judges(dict(policy.rails.items())[record.stage].judges, allow_python=allow_python)
        return await _Other(record, None, judges).answer()
    settings = settings_of(policy, record.max_tokens)
    if settings.method not in ("stars", "cards"):
        raise PolicyError(
            f"policy {policy.name!r} has method {settings.method}", hint="only stars and cards decide on each proposal"
        )
    return await _Other(record, settings, await load_cascade(policy, allow_python=allow_python)).answer()


class _Other:
    def __init__(self, record: CallRecord, settings: Settings | None, cascade: Cascade) -> None:
        self._record = record
        self._settings = settings
        self._cascade = cascade
        self._messages: tuple[Message, ...] | None
        try:
            self._messages = tuple(messages_of(record))
        except AuditError:
            self._messages = None

    async def answer(self) -> Answered:
        prompt_reward = await self._prompt_reward()
        proposals: list[Redecided] = []
        parted: int | None = None
        before: str | None = ""
        prefix_reward, tokens = prompt_reward, 0
        for segment in self._record.segments:
            mine: list[Redecided] = []
            for attempt in segment.attempts:
                judgement, source = await self._judge(attempt, segment.index, before, tokens)
                mine.append(
                    self._decide(segment.index, attempt, judgement, source, (prompt_reward, prefix_reward), tokens)
                )
            proposals += mine
            chosen = next((redecided.attempt for redecided in mine if redecided.after == "accepted"), None)
            if parted is None and chosen != segment.kept:
                parted = segment.index
            kept = next((attempt for attempt in segment.attempts if attempt.attempt == segment.kept), None)
            if kept is None:
                break
            tokens += kept.tokens
            prefix_reward = next(redecided.reward for redecided in mine if redecided.attempt == kept.attempt)
            before = None if before is None or not kept.text.whole else before + (kept.text.text or "")
        await self._cascade.forget(self._record.call_id)
        return Answered(tuple(proposals), parted)

    def _same(self, judge: Judge) -> bool:
        return self._record.scorers.get(judge.rule.judge) == judge.identity

    async def _prompt_reward(self) -> float | None:
        rewarding = [judge for judge in self._cascade.judges if judge.rule.weight is not None]
        weights = {rule.judge: rule.weight for rule in self._record.rules if rule.weight is not None}
        same = weights == {judge.rule.judge: judge.rule.weight for judge in rewarding}
        if same and all(self._same(judge) for judge in rewarding):
            return self._record.prompt_reward
        if self._messages is None:
            return None
        return (await self._cascade.prompt_reward(self._passage("", "", 0, False)))[0]

    def _passage(self, before: str, text: str, index: int, last: bool) -> Passage:
        whole = self._record.grammar_sha256 is not None
        return Passage(
            call_id=self._record.call_id,
            messages=self._messages or (),
            accepted=before,
            segment=text,
            index=index,
            last=last,
            whole=whole,
        )

    async def _judge(
        self, attempt: Attempt, index: int, before: str | None, tokens: int
    ) -> tuple[Judgement | None, Literal["record", "judged", "none"]]:
        full = self._settings is None or tokens + attempt.tokens >= self._settings.max_tokens
        last = attempt.finish is not None or full
        passage = self._passage(before or "", attempt.text.text or "", index, last)
        asked = [judge for judge in self._cascade.judges if judge.view(passage) is not None]
        said = {entry.judge: entry for entry in attempt.scores}
        known = [judge for judge in asked if judge.rule.judge in said and self._same(judge)]
        scores: Sequence[Score] = [Score(**said[judge.rule.judge].model_dump()) for judge in known]
        on_record = combine(scores, self._cascade.rules)
        if len(known) == len(asked) or on_record.veto is not None:
            return on_record, "record"
        if not attempt.text.whole or before is None or self._messages is None:
            return None, "none"
        return (await self._cascade.judge([passage]))[0], "judged"

    def _decide(
        self,
        segment: int,
        attempt: Attempt,
        judgement: Judgement | None,
        source: Literal["record", "judged", "none"],
        rewards: tuple[float | None, float | None],
        tokens: int,
    ) -> Redecided:
        if judgement is None:
            return Redecided(segment, attempt.attempt, attempt.verdict, "unknown", source)
        if self._settings is None:
            after: Literal["accepted", "rejected"] = "accepted" if judgement.veto is None else "rejected"
            return Redecided(segment, attempt.attempt, attempt.verdict, after, source, veto=judgement.veto)
        again = decide(
            self._settings,
            seed=self._record.seed,
            segment=segment,
            attempt=attempt.attempt,
            tokens=tokens + attempt.tokens,
            prompt_reward=rewards[0],
            prefix_reward=rewards[1],
            judgement=judgement,
        )
        return Redecided(
            segment,
            attempt.attempt,
            attempt.verdict,
            "accepted" if again.verdict == "accepted" else "rejected",
            source,
            judgement.reward,
            again.threshold,
            again.probability,
            judgement.veto,
        )
