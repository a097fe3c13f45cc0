"""One call as the policy's shadows see it.

A shadow that follows a call has a task of its own. The live call hands it each candidate, as its own judges have seen
it, and goes on. When the call is over its record waits for the task, for a bounded time. The shadow's decisions then
follow from the record and from what its judges have said, by the same code that tells later what another policy would
have decided (`stars_guard.calling.other_policy`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from stars_guard.audit import CallRecord
from stars_guard.audit.record import RuleEntry, Ruling, ScoreEntry, ShadowAttempt, ShadowEntry
from stars_guard.calling.other_policy import decide_again
from stars_guard.calling.redecided import Answered
from stars_guard.calling.settings import settings_of, supplied_settings
from stars_guard.calling.shadowing import ShadowPolicy
from stars_guard.core.flat import flat
from stars_guard.core.judging import Judgement, Score
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.core.tool_call_events import Ruled
from stars_guard.core.vocabulary import Rail
from stars_guard.decoding import Settings, make_decoder
from stars_guard.rules import RuleSet
from stars_guard.scorers.cascade import Cascade

__all__ = ["Shadows"]

Step = Callable[[Cascade], Awaitable[None]]


class Shadows:
    """Every shadow that follows one call. None of its methods raises, or waits for a judge, except `entries`."""

    def __init__(self, following: Iterable[ShadowPolicy], call_id: str, rail: Rail, *, supplied: bool = False) -> None:
        self._calls = [_ShadowCall(shadow, call_id, rail, supplied=supplied) for shadow in following]

    def __bool__(self) -> bool:
        return bool(self._calls)

    def judged_by(self, cascade: Cascade) -> None:
        """The live judges, whose scores count for a shadow that has the same judge."""
        for call in self._calls:
            call.live = {judge.rule.judge: judge.identity for judge in cascade.judges}
            call.live_weights = {rule.judge: rule.weight for rule in cascade.rules if rule.weight is not None}

    def begin(self, messages: Sequence[Message], settings: Settings, prompt_reward: float | None) -> None:
        """An answer begins.

        Args:
            settings: of the live decoder.
            prompt_reward: r(x, ""), where the live policy has asked for it.
        """
        for call in self._calls:
            call.begin(tuple(messages), settings.max_tokens, prompt_reward)

    def rule(self, ruling_by: Callable[[RuleSet], Ruled], *, judged: bool) -> None:
        """A tool call is to be decided about, by rules too.

        Args:
            ruling_by: what a policy's rules say.
            judged: whether judges have let it pass before.
        """
        for call in self._calls:
            call.rule(ruling_by, judged=judged)

    def see(self, segment: int, attempt: int, passage: Passage, judgement: Judgement) -> None:
        """A candidate, as which it was judged, and what the live judges said."""
        for call in self._calls:
            call.see((segment, attempt), passage, judgement)

    def see_end(self, passage: Passage, judgement: Judgement) -> None:
        """The same of an answer that ended early."""
        for call in self._calls:
            call.see(None, passage, judgement)

    async def entries(self, record: CallRecord, *, hurry: bool) -> tuple[ShadowEntry, ...]:
        """What the record says of the shadows.

        Args:
            hurry: nobody waits for what they have not said yet: the caller has gone, or the call has failed.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        found = []
        for call in self._calls:
            left = start + call.shadow.spec.wait - loop.time()
            found.append(await call.entry(record, 0.0 if hurry else max(0.0, left)))
        return tuple(found)


class _ShadowCall:
    """One call under one shadow."""

    def __init__(self, shadow: ShadowPolicy, call_id: str, rail: Rail, *, supplied: bool) -> None:
        self.shadow = shadow
        self.live: Mapping[str, Mapping[str, str]] = {}
        self.live_weights: Mapping[str, float] = {}
        self._call_id = call_id
        self._rail = rail
        self._supplied = supplied
        self._steps: asyncio.Queue[Step | None] = asyncio.Queue()
        self._cascade: Cascade | None = None
        self._said: dict[tuple[int, int] | None, Judgement] = {}
        self._asked = 0
        self._prompt_reward: float | None = None
        self._ruling: Ruling | None = None
        self._is_settled = False
        self._error: str | None = None
        self._is_closed = False
        self._task = shadow.start(self._work)
        if self._task is None:
            self._error = "busy"

    # --- what the live call says

    def begin(self, messages: tuple[Message, ...], max_tokens: int, prompt_reward: float | None) -> None:
        policy = self.shadow.spec.policy
        settings = supplied_settings(policy, None) if self._supplied else settings_of(policy, max_tokens)
        if make_decoder(settings, 0).needs_prompt_reward:
            passage = Passage(call_id=self._call_id, messages=messages, accepted="", segment="")
            self._steps.put_nowait(lambda cascade: self._reward(cascade, passage, prompt_reward))

    def rule(self, ruling_by: Callable[[RuleSet], Ruled], *, judged: bool) -> None:
        async def ruled(cascade: Cascade) -> None:
            ruling = ruling_by(self.shadow.rules)
            self._ruling = Ruling(**flat(ruling))
            # as in a call: then nobody asks the judges
            rejects = ruling.action == "reject" and self.shadow.spec.policy.mode == "enforce"
            self._is_settled = judged or rejects

        self._steps.put_nowait(ruled)

    def see(self, place: tuple[int, int] | None, passage: Passage, judgement: Judgement) -> None:
        self._steps.put_nowait(lambda cascade: self._judge(cascade, place, passage, judgement.scores))

    # --- what the shadow makes of it

    async def _work(self) -> None:
        try:
            self._cascade = cascade = await self.shadow.cascade(self._rail)
            while not self._is_closed and (step := await self._steps.get()) is not None:
                await step(cascade)
        except _HiddenStates:
            self._error = self._error or "hidden states"
        except Exception as exc:
            # what comes later depends on what has failed: the rules, the prompt's reward, the scores so far
            self._error = self._error or type(exc).__name__
        finally:
            if self._cascade is not None:
                await self._cascade.forget(self._call_id)

    async def _reward(self, cascade: Cascade, passage: Passage, live: float | None) -> None:
        rewarding = [judge for judge in cascade.judges if judge.rule.weight is not None]
        if any(judge.scorer.directions is not None for judge in rewarding):
            raise _HiddenStates
        same = self.live_weights == {judge.rule.judge: judge.rule.weight for judge in rewarding}
        if live is not None and same and all(self._is_live(cascade, judge.rule.judge) for judge in rewarding):
            self._prompt_reward = live
            return
        self._prompt_reward, asked = await cascade.prompt_reward(passage)
        self._asked += asked

    async def _judge(
        self, cascade: Cascade, place: tuple[int, int] | None, passage: Passage, scores: Sequence[Score]
    ) -> None:
        judgement = Judgement()
        if not self._is_settled and self.shadow.spec.policy.mode != "off":
            known = {score.judge: score for score in scores if self._is_live(cascade, score.judge)}
            for judge in cascade.judges:
                needed = judge.scorer.directions
                is_blind = needed is not None and needed.digest not in passage.projections
                if is_blind and judge.rule.judge not in known and judge.view(passage) is not None:
                    raise _HiddenStates
            # in doubt or not, each judge is asked: what would have been left out follows from the record's seed
            (judgement,) = await cascade.judge([passage], [known])
            self._asked += sum(score.judge not in known for score in judgement.scores)
        if not self._is_closed:
            self._said[place] = judgement

    def _is_live(self, cascade: Cascade, name: str) -> bool:
        """Whether the live policy has the same judge under this name."""
        own = next((judge.identity for judge in cascade.judges if judge.rule.judge == name), None)
        return own is not None and self.live.get(name) == own

    # --- what the record says of it

    async def entry(self, record: CallRecord, wait: float) -> ShadowEntry:
        self._steps.put_nowait(None)
        if self._task is not None:
            done, _ = await asyncio.wait([self._task], timeout=wait)
            if not done:
                self._error = self._error or "not in time"
        self._is_closed = True
        entry, answered = self._raw(), None
        if self._cascade is not None and record.segments:
            try:
                answered = await decide_again(record, self.shadow.spec.policy, self._cascade, shadow=entry, ask=False)
            except Exception as exc:
                entry = entry.model_copy(update={"error": entry.error or type(exc).__name__})
        return entry if answered is None else self._decided(entry, record, answered)

    def _raw(self) -> ShadowEntry:
        """What the judges and rules have said, without what follows from it."""
        cascade, end = self._cascade, self._said.get(None)
        judges = cascade.judges if cascade is not None else ()
        return ShadowEntry(
            policy=self.shadow.name,
            policy_sha256=self.shadow.digest,
            mode=self.shadow.spec.policy.mode,
            scorers={judge.rule.judge: judge.identity for judge in judges},
            rules=tuple(RuleEntry.of(judge.rule) for judge in judges),
            prompt_reward=self._prompt_reward,
            ruling=self._ruling,
            candidates=tuple(
                ShadowAttempt(
                    segment=place[0],
                    attempt=place[1],
                    verdict="unknown",
                    judged=True,
                    scores=_entries(said.scores),
                    veto=said.veto,
                )
                for place, said in self._said.items()
                if place is not None
            ),
            review=_entries(end.scores) if end is not None else None,
            error=self._error,
        )

    def _decided(self, entry: ShadowEntry, record: CallRecord, answered: Answered) -> ShadowEntry:
        judged = {(row.segment, row.attempt): row for row in entry.candidates}
        tokens = {(s.index, a.attempt): a.tokens for s in record.segments for a in s.attempts}
        rows = []
        for row in answered.candidates:
            said = judged.get((row.segment, row.attempt))
            decided = {"verdict": row.after, "reward": row.reward, "veto": row.veto}
            numbers = {"threshold": row.threshold, "probability": row.probability}
            bare = said or ShadowAttempt(segment=row.segment, attempt=row.attempt, verdict="unknown")
            rows.append(bare.model_copy(update={**decided, **numbers}))
        rejected = [row for row in answered.candidates if row.after == "rejected" and row.before != "surplus"]
        parting = answered.parting
        return entry.model_copy(
            update={
                "candidates": tuple(rows),
                "outcome": "same" if parting is None else parting.outcome,
                "segment": parting.segment if parting is not None else None,
                "kept": parting.kept if parting is not None else None,
                "seen": parting.seen if parting is not None else 0,
                "totals": {
                    "rejections": len(rejected),
                    "rejected": sum(tokens[row.segment, row.attempt] for row in rejected),
                    "scorer_passages": sum(len(row.scores) for row in rows) + len(entry.review or ()),
                    "asked": self._asked,
                },
            }
        )


class _HiddenStates(Exception):
    """A judge reads hidden states that the live call does not ask its generator for."""


def _entries(scores: Sequence[Score]) -> tuple[ScoreEntry, ...]:
    return tuple(map(ScoreEntry.of, scores))
