"""Does every decision of a record follow from what is on record?

From scores, rules, settings and the seed on record come reward, threshold, probability, the random number, the verdict,
what was kept and the totals. Taken as given are the scores themselves, the reward of the prompt, and the lengths of
candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from stars_guard.audit import CallRecord, Text
from stars_guard.audit.record import Attempt, Review, Segment
from stars_guard.auditing._agreement import CannotRedo, DoesNotHold, close, holds, same
from stars_guard.auditing._asking import asking, is_asked_at, scored_fully
from stars_guard.auditing._beside import redo_shadows
from stars_guard.auditing._going_back import GoingBack
from stars_guard.auditing._settings import settings_on_record
from stars_guard.auditing._standing import Stood
from stars_guard.auditing.findings import NotRedone, Problem
from stars_guard.calling.answer_before import delivered
from stars_guard.calling.rulings import action_of, approval_of, ruled_of
from stars_guard.core.doubt import Unasked
from stars_guard.core.judging import Judgement, Score, combine
from stars_guard.core.vocabulary import RuleAction
from stars_guard.decoding import decoder_of
from stars_guard.decoding.ledger import affordable, spare
from stars_guard.decoding.randomness import Place
from stars_guard.decoding.verdict import decide
from stars_guard.errors import PolicyError, ScorerError

__all__ = ["redo"]


def redo(record: CallRecord) -> Problem | None:
    """Do every decision of a record again; the first that does not follow from what is on record, or that cannot be
    redone here."""
    place = [f"call {record.call_id}"]
    try:
        _Redo(record, place).all()
    except DoesNotHold as exc:
        return Problem(", ".join(place), str(exc))
    except CannotRedo as exc:
        return NotRedone(", ".join(place), str(exc))
    return None


class _Redo:
    def __init__(self, record: CallRecord, place: list[str]) -> None:
        self._record = record
        self._place = place
        self._rules = [entry.rule for entry in record.rules]
        self._open = record.finish in ("failed", "cancelled")
        self._prefix_reward = record.prompt_reward
        self._settings = settings_on_record(record.decoding)
        self._back = GoingBack(record, self._settings)

    @property
    def _kept(self) -> int:
        """Tokens of the answer so far."""
        return self._back.standing.tokens

    @property
    def _decides(self) -> str:
        """How the method chooses a segment; empty where nothing was generated."""
        return decoder_of(self._settings.method).decides if self._settings else ""

    def _action(self, attempt: Attempt) -> RuleAction:
        """What happens to a text at a stage around the answer, by its judges, rules about tool calls and a person."""
        ruled, said = ruled_of(self._record), approval_of(self._record)
        if ruled is not None:
            same("whether a person has allowed it", ruled.approved, said is not None and said.runs)
        return action_of(self._record, Judgement(veto=attempt.veto, ask=attempt.ask))

    @property
    def _has_budget(self) -> bool:
        return self._settings is not None and self._settings.budget_tokens is not None

    def all(self) -> None:
        for number, segment in enumerate(self._record.segments):
            self._place[1:] = [f"segment {segment.index}"]
            same("its place", segment.index, number)
            self._segment(segment, last=number == len(self._record.segments) - 1)
        self._place[1:] = []
        self._finish()
        self._delivered()
        self._totals()
        redo_shadows(self._record, self._place)

    def _segment(self, segment: Segment, *, last: bool) -> None:
        taken = False
        self._back.held(segment)
        looked_at = [attempt for attempt in segment.attempts if attempt.verdict != "surplus"]
        for attempt in segment.attempts:
            self._place[2:] = [f"attempt {attempt.attempt}"]
            judgement = self._judge(attempt)
            self._asking(segment.index, attempt, judgement)
            if self._settings is None:
                self._whole(attempt)
            elif self._decides == "each":
                self._sampled(segment.index, attempt, judgement, taken=taken)
            else:
                _none(attempt)
            self._back.origin(segment, attempt)
            is_fault = segment.rewound is not None and segment.rewound.why == "match" and attempt is looked_at[-1]
            taken = taken or attempt.verdict == "accepted" or is_fault
            could = not is_fault and self._back.must_go_back(attempt)
            holds(not could, "the answer could have gone back, and did not")
        self._place[2:] = []
        if segment.rewound is not None:
            _numbers(segment)
            holds(segment.kept is None and segment.ended is None, "it has two ends")
            holds(self._open or not last, "the answer went back, and did not go on")
            self._prefix_reward = self._back.rewound(segment, segment.rewound, looked_at)
            return
        if segment.kept is None and segment.ended is None:
            holds(last and (self._open or self._has_budget), "it has no end, and the call went on")
            if not self._open:
                self._spent(segment)
            return
        _numbers(segment)
        if segment.ended is not None:
            holds(segment.kept is None and last, "the answer ended before it, and yet went on")
            holds(not taken, "the answer ended before it, though a candidate was accepted")
            self._exhausted(segment)
            return
        kept = segment.kept_attempt
        if kept is None:
            raise DoesNotHold("the candidate that was kept is not on record")
        self._chosen(segment, kept)
        stood = Stood(
            index=segment.index,
            tokens=kept.tokens,
            characters=kept.text.chars,
            reward_before=self._prefix_reward,
        )
        self._back.standing.add(stood)
        self._prefix_reward = kept.reward

    def _judge(self, attempt: Attempt | Review) -> Judgement:
        scores = [Score(**score.model_dump()) for score in attempt.scores]
        unasked = [Unasked(**one.model_dump()) for one in attempt.unasked] if isinstance(attempt, Attempt) else []
        try:
            judgement = combine(scores, self._rules, unasked)
        except ScorerError as exc:
            raise DoesNotHold(exc.message) from exc
        same("veto", attempt.veto, judgement.veto)
        if isinstance(attempt, Attempt):
            same("who asks for a person's word", attempt.ask, judgement.ask)
        close("reward", attempt.reward, judgement.reward)
        return judgement

    def _due(self, *, index: int, last: bool, whole: bool) -> dict[str, bool]:
        """By judge, whether it is asked at a segment at all."""
        scorers = self._record.scorers
        names = [rule.judge for rule in self._rules]
        return {name: is_asked_at(scorers.get(name, {}), index=index, last=last, whole=whole) for name in names}

    def _asking(self, segment: int, attempt: Attempt, judgement: Judgement) -> None:
        """Which judges were asked."""
        settled = self._record.stage == "tool_call" and not judgement.scores and not judgement.unasked
        if settled or self._decides == "none":
            return  # nobody was asked: by the rules, because the call had been judged before, or by the method
        last = self._settings is None or attempt.finish is not None
        last = last or self._kept + attempt.tokens >= self._record.max_tokens
        due = self._due(index=len(self._back.standing), last=last, whole=attempt.whole)
        place = Place(seed=self._record.seed, segment=segment, attempt=attempt.attempt)
        asking(self._rules, judgement, place, whole=attempt.whole, due=due)

    def _whole(self, attempt: Attempt) -> None:
        """A text at a stage around the answer: vetoes, judges that ask for a person's word and rules decide."""
        _none(attempt)
        same("verdict", attempt.verdict, "accepted" if self._action(attempt) == "allow" else "rejected")

    def _sampled(self, segment: int, attempt: Attempt, judgement: Judgement, *, taken: bool) -> None:
        if taken:
            same("verdict after an accepted candidate", attempt.verdict, "surplus")
            _none(attempt)
            return
        assert self._settings is not None  # noqa: S101
        try:
            again = decide(
                self._settings,
                seed=self._record.seed,
                segment=segment,
                attempt=attempt.attempt,
                tokens=self._kept + attempt.tokens,
                prompt_reward=self._record.prompt_reward,
                prefix_reward=self._prefix_reward,
                judgement=judgement,
            )
        except PolicyError as exc:
            raise CannotRedo(exc.message) from exc
        close("threshold", attempt.threshold, again.threshold)
        close("probability", attempt.probability, again.probability)
        same("u", attempt.u, again.u)
        same("verdict", attempt.verdict, again.verdict)
        same("reason", attempt.reason, again.reason)

    def _chosen(self, segment: Segment, kept: Attempt) -> None:
        """Why this candidate is the one that was kept."""
        settings = self._settings
        free = [attempt for attempt in segment.attempts if attempt.veto is None]
        match segment.how:
            case "accepted":
                same("verdict of what was kept", kept.verdict, "accepted")
            case "unjudged":
                idle = self._settings is None and self._record.mode == "off"
                holds(idle or self._decides == "none", "it was kept unjudged under a policy")
            case "monitored":
                monitor = self._record.mode == "monitor" and (settings is None or settings.monitor)
                holds(monitor, "what was rejected was let through, and the mode is not monitor")
                same("verdict of what was let through", kept.verdict, "rejected")
                if self._decides == "best":
                    holds(not free, "a vetoed candidate was let through, though another was not vetoed")
                    self._is_best(kept, segment.attempts)
                    self._spent(segment, later=True)
            case "best":
                holds(kept.veto is None, "what a judge vetoed was kept")
                self._is_best(kept, free)
                if settings is not None and self._decides == "each":
                    same("what happens when attempts run out", settings.on_exhausted, "best")
                    holds(settings.may_be_best(kept.reward), "the best candidate was not good enough to be kept")
                    self._back.no_way_back(segment)
                    self._spent(segment, later=True)
            case None:
                raise DoesNotHold("it is not said why the candidate was kept")

    def _is_best(self, kept: Attempt, others: Sequence[Attempt]) -> None:
        best = max(others, key=lambda attempt: -math.inf if attempt.reward is None else attempt.reward)
        same("the candidate of the highest reward", kept.attempt, best.attempt)

    def _exhausted(self, segment: Segment) -> None:
        assert segment.ended is not None  # noqa: S101
        if self._settings is None:
            asked = self._action(segment.attempts[-1]) == "ask"
            same("what became of a rejected text", segment.ended.action, "ask" if asked else "refuse")
            return
        self._back.no_way_back(segment)
        said = self._settings.on_exhausted
        same("what happens when attempts run out", segment.ended.action, "refuse" if said == "best" else said)
        holds(not self._settings.monitor, "the answer ended before it, and the mode is monitor")
        if self._settings.on_exhausted == "best" or self._decides == "best":
            free = (attempt for attempt in segment.attempts if attempt.veto is None)
            holds(not any(self._settings.may_be_best(one.reward) for one in free), "there was a best candidate to keep")
        self._spent(segment)

    def _spent(self, segment: Segment, *, later: bool = False) -> None:
        """That the attempts had run out, or the tokens.

        Args:
            later: a candidate of each later segment is paid for first.
        """
        settings = self._settings
        assert settings is not None  # noqa: S101
        limit = decoder_of(settings.method).limit(settings, self._kept)
        holds(limit >= 1, "the answer had all of its tokens")
        allow = spare if later else affordable
        generated = self._back.generated(segment)
        left = allow(settings, limit=limit, attempt=len(segment.attempts), generated=generated, kept=self._kept)
        holds(left < 1, "neither attempts nor tokens had run out")

    def _finish(self) -> None:
        record, settings = self._record, self._settings
        if self._open:
            return
        if settings is None:
            done = [segment.ended.action for segment in record.segments if segment.ended is not None]
            same("whether a person is asked", record.finish == "asked", done == ["ask"])
            return
        last = record.segments[-1] if record.segments else None
        kept = last.kept_attempt if last is not None else None
        refused = self._review()
        if refused:
            same("why the answer ended", record.finish, "refused")
        elif last is not None and last.ended is not None:
            ends = {"refuse": "refused", "stop": "stopped", "raise": "raised"}
            same("why the answer ended", record.finish, ends[last.ended.action])
        elif kept is not None and kept.finish is not None:
            same("why the answer ended", record.finish, kept.finish)
        elif self._kept >= settings.max_tokens:
            same("why the answer ended", record.finish, "length")
        else:
            holds(self._has_budget, "the answer ended, and nothing on record ended it")
        if record.finish != "stop" or record.schema_version > 3:
            # of a stop string, characters that were kept before are taken back: before version 4 nobody knows how many
            chosen = [a for s in record.segments for a in s.attempts if a.attempt == s.kept]
            chars = self._back.standing.characters - sum(a.stop_overlap for a in chosen)
            held = record.finish in ("refused", "raised", "stopped", "budget") and record.schema_version > 3
            marked = bool(record.tools or record.reasoning)
            if (marked or held) and record.answer.chars <= chars:
                # neither the reasoning and the white space beside marked parts are part of the answer, nor what was
                # held when it ended early
                holds(marked or record.answer.chars >= self._back.released, "what was released is not there")
                return
            same("length of the answer in characters", record.answer.chars, chars)

    def _delivered(self) -> None:
        """That the texts which the caller got follow from those of the segments, where all of them are on record."""
        record = self._record
        if record.schema_version < 5 or self._settings is None or (found := delivered(record)) is None:
            return
        texts = record.reasoning.text if record.reasoning else None, record.answer
        for what, text, redone in zip(("reasoning", "answer"), texts, found, strict=True):
            on_record = Text(content="", chars=0) if text is None else text
            holds(on_record.chars == len(redone), f"the {what} is not as long as the segments say")
            holds(not on_record.whole or on_record.text == redone, f"the {what} is not what the segments say")

    def _review(self) -> bool:
        """Whether what stays of an answer that ended early was vetoed, so that the answer is refused."""
        record, review = self._record, self._record.review
        if review is None:
            early = record.finish in ("budget", "stopped") and record.schema_version > 3
            holds(not (early and self._kept and self._decides != "none"), "what stays of the answer was not judged")
            return False
        judgement = self._judge(review)
        at_all = self._due(index=len(self._back.standing) - 1, last=True, whole=False)
        scored_fully(self._rules, judgement, at_all)
        same("verdict", review.verdict, "accepted" if judgement.veto is None else "rejected")
        return judgement.veto is not None and not (self._settings is not None and self._settings.monitor)

    def _totals(self) -> None:
        record = self._record
        if self._open:
            return
        pairs = [(s, a) for s in record.segments for a in s.attempts]
        kept = [a for s, a in pairs if a.attempt == s.kept]
        rejected = [a for s, a in pairs if a.verdict == "rejected" and a.attempt != s.kept]
        counts = {
            "proposals": len(pairs),
            "rejections": sum(a.verdict == "rejected" for _, a in pairs),
            "kept": self._back.standing.tokens if self._settings is not None else sum(a.tokens for a in kept),
            "rewound": sum(s.rewound.tokens for s in record.segments if s.rewound is not None),
            "rewinds": self._back.rewinds,
            "rejected": sum(a.tokens for a in rejected),
            "surplus": sum(a.tokens for _, a in pairs if a.verdict == "surplus"),
            "overrun": sum(a.overrun for _, a in pairs),
        }
        if self._settings is not None:
            counts["segments"] = len(self._back.standing)
        counts["drawn"] = sum(counts[name] for name in ("kept", "rejected", "surplus", "overrun", "rewound"))
        for name, number in counts.items():
            same(f"total of {name}", record.totals.get(name, 0), number)


def _numbers(segment: Segment) -> None:
    numbers = [attempt.attempt for attempt in segment.attempts]
    same("the numbers of its attempts", numbers, list(range(len(numbers))))


def _none(attempt: Attempt) -> None:
    numbers: Sequence[float | None] = (attempt.threshold, attempt.probability, attempt.u)
    holds(numbers == (None, None, None), "it has a threshold, and was not held against one")
