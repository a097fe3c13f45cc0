"""The driver of one call: generates what the decoder plans, has it judged, releases what was kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from copy import copy
from dataclasses import replace

from stars_guard.backends.base import Proposal
from stars_guard.calling.answer_events import AnswerEvents, empty_answer
from stars_guard.calling.holding import Holding
from stars_guard.calling.projections import Projections
from stars_guard.calling.proposing import Proposers
from stars_guard.calling.readings import AnswerReadings
from stars_guard.calling.shadow_calls import Shadows
from stars_guard.core.events import Called, Drawing, Event, Kept, Overrun, Reasoned, Released, Reviewed, Rewound, Totals
from stars_guard.core.judging import Judgement
from stars_guard.core.messages import Message
from stars_guard.core.segments import Candidate, Passage, Token
from stars_guard.core.step_costs import WidthCost
from stars_guard.core.tools import Tool
from stars_guard.decoding import AcceptanceRate, Done, Generate, Outcome, SegmentCutter, Settings, make_decoder
from stars_guard.decoding.randomness import Place
from stars_guard.decoding.width import ALONE
from stars_guard.errors import BackendError
from stars_guard.scorers.cascade import Cascade

__all__ = ["Call"]

_NOTHING = Candidate(tokens=(), text="")

SLOWER = 0.1
"""The share of its speed that a candidate may lose to others that are generated ahead beside it."""


class Call:
    """One answer.

    Args:
        stops: stop strings; they are not part of the answer.
        rate: shared by the calls of the policy.
        cost: what a width costs now; see `StepCosts.shared`.
        single: the answer has one tool call at most.
        tools: what the model may call, for judges of tool calls.
        shadows: what gets each candidate besides the judges.

    Attributes:
        prompt_reward: r(x, ""), once it is known.
        done: why the answer is over, once it is.
        is_withdrawn: whether a judge vetoes all of the answer, after it was released.
    """

    def __init__(
        self,
        call_id: str,
        messages: tuple[Message, ...],
        proposers: Proposers,
        cascade: Cascade,
        settings: Settings,
        seed: int,
        stops: tuple[str, ...] = (),
        rate: AcceptanceRate | None = None,
        cost: WidthCost = ALONE,
        single: bool = False,
        tools: tuple[Tool, ...] = (),
        shadows: Shadows | None = None,
    ) -> None:
        self.prompt_reward: float | None = None
        self.done: Done | None = None
        self.is_withdrawn = False
        self._call_id = call_id
        self._messages = messages
        self._proposers = proposers
        self._session = session = proposers.first
        self._cascade = cascade
        self._settings = settings
        self._seed = seed
        self._stops = stops
        self._single = single
        self._tools = tools
        self._shadows = shadows
        self._decoder = make_decoder(settings, seed, rate)
        self._cost = cost
        self._text = empty_answer(stops, session.reasoning, session.form, whole_tokens=settings.rewinds > 0)
        self._events = AnswerEvents(call_id, session.form, single=single)
        self._readings = AnswerReadings(self._text, self._events)
        judges = () if settings.monitor or not self._decoder.needs_judgement else cascade.judges
        self._projections = Projections(cascade.directions if self._decoder.needs_judgement else ())
        self._judges = judges
        self._holding = Holding(judges, 0 if settings.monitor else settings.hold_tokens)
        # by attempt: those that may yet be kept
        self._open: dict[int, tuple[Proposal, Candidate]] = {}
        # of the same: as which each is judged
        self._passages: dict[int, Passage] = {}
        # the answer so far and its last segment, as if the answer ended there
        self._kept: Passage | None = None
        self._scored = 0

    @property
    def released(self) -> list[Released | Reasoned | Called]:
        """What the caller has been given."""
        return self._events.released

    @property
    def totals(self) -> Totals:
        """The cost so far."""
        return replace(self._decoder.totals, prompt=self._session.prompt_tokens, scorer_passages=self._scored)

    async def run(self) -> AsyncGenerator[Event, None]:
        """What happens, up to the end of the answer.

        Raises:
            BackendError: the engine failed.
            ScorerError: a judge failed and the policy says ``raise``.
        """
        decoder = self._decoder
        from_state = any(judge.rule.weight is not None and judge.scorer.directions for judge in self._cascade.judges)
        if decoder.needs_prompt_reward and not (from_state and self._has_no_token_to_spare):
            empty = Passage(call_id=self._call_id, messages=self._messages, accepted="", segment="")
            if from_state:
                empty = replace(empty, projections=await self._prompt_projections())
                yield Overrun(segment=0, attempt=0, tokens=1)
            self.prompt_reward, asked = await self._cascade.prompt_reward(empty)
            self._scored += asked
        decoder.begin(self.prompt_reward)
        if self._shadows:
            self._shadows.begin(self._messages, self._settings, self.prompt_reward)
        while isinstance(step := decoder.plan(self._cost), Generate):
            held = len(self._text.held)
            yield Drawing(segment=step.segment, attempt=step.attempt, count=len(step.seeds), held=held)
            candidates = await self._generate(step)
            judgements = await self._judge(step, candidates)
            outcome = decoder.decide(list(zip(candidates, judgements, strict=True)))
            for decision in outcome.decisions:
                yield decision
            if outcome.end is not None:
                yield outcome.end
            for event in await self._follow(step, outcome):
                yield event
        self.done, review = await self._end(step)
        if review is not None:
            yield review
        if self.done.finish not in ("refused", "raised"):
            for event in self._events.release(decoder.totals.segments - 1, self._text.end()):
                yield event

    async def _end(self, done: Done) -> tuple[Done, Reviewed | None]:
        """The answer's end. One that ends without a last segment has not been judged as a whole yet."""
        kept = self._kept
        if done.finish not in ("budget", "stopped") or kept is None or not self._decoder.needs_judgement:
            return done, None
        kept = self._without_open_end(kept)
        whole = self._readings.at_end(kept)
        (judgement,) = await self._ask([whole])
        if self._shadows:
            self._shadows.see_end(whole, judgement)
        if judgement.veto is None:
            return done, Reviewed(judgement=judgement, verdict="accepted")
        self.is_withdrawn = not self._settings.monitor
        refused = Done("refused", f"vetoed by {judgement.veto}")
        return refused if self.is_withdrawn else done, Reviewed(judgement=judgement, verdict="rejected")

    def _without_open_end(self, kept: Passage) -> Passage:
        """The passage up to where something has begun that a judge would veto once it is complete.

        What is left may end with such a beginning again.
        """
        out = len(self._text.released)
        while len(self._text.accepted) > out:
            marked = self._text.unfinished_from(_NOTHING)
            place = self._holding.open_from(self._readings.at_end(kept), out, marked)
            if place is None or place >= len(self._text.accepted):
                break
            self._text.take_back(max(place, out))
            kept = _first(kept, len(self._text.accepted))
        return kept

    @property
    def _has_no_token_to_spare(self) -> bool:
        """Whether the budget would not pay for a segment after one token."""
        budget = self._settings.budget_tokens
        return budget is not None and budget <= self._decoder.limit(self._settings, 0)

    async def _prompt_projections(self) -> Mapping[str, tuple[float, ...]]:
        """What judges read of the state after the prompt. It comes with a token, which is thrown away."""
        (proposal,) = await self._session.propose([0], 1)
        try:
            tokens = [token async for chunk in proposal for token in chunk]
        finally:
            await proposal.aclose()
        if not tokens:
            raise BackendError("the engine ended a segment without a token", hint="see the engine's own log")
        self._decoder.charge(1)
        return self._projections.at_start(tokens[0].projections)

    # --- generating

    async def _generate(self, step: Generate) -> list[Candidate]:
        ahead = self._ahead(step)
        beyond = max(self._beyond(step), ahead - step.stretch, 0)
        proposals = await self._proposers.propose(step, ahead=beyond)
        candidates = await asyncio.gather(*(self._cut(proposal, step, ahead) for proposal in proposals))
        pairs = zip(proposals, candidates, strict=True)
        self._open.update(enumerate(pairs, start=step.attempt))
        return candidates

    def _ahead(self, step: Generate) -> int:
        """Tokens that each candidate may run on past its boundary. None under a budget, which is a hard limit, and none
        where the candidates beside the one that will be kept would slow it, and the judges, down."""
        if not (self._settings.optimistic and self._session.draws_ahead) or self._settings.budget_tokens is not None:
            return 0
        if self._cost(len(step.seeds)) > 1 + SLOWER:
            return 0
        most = self._settings.max_tokens
        if self._projections:
            # and one more, if there is room, so that judges know the state at the answer's end
            most = min(most + 1, self._proposers.room)
        return most - self._decoder.totals.kept - step.limit

    def _beyond(self, step: Generate) -> int:
        """Tokens past its boundary that a candidate needs, so that judges know the state at its end.

        It is one, but none under a budget, and none where the context has no room for it.
        """
        if not self._projections or self._settings.budget_tokens is not None:
            return 0
        return max(0, min(1, self._proposers.room - self._decoder.totals.kept - step.limit - step.stretch))

    async def _cut(self, proposal: Proposal, step: Generate, ahead: int) -> Candidate:
        cutter = SegmentCutter(
            step.limit,
            stops=self._stops,
            held=self._text.held,
            cut_entropy=step.cut_entropy,
            spans=self._text.spans,
            stretch=step.stretch,
            at_start=self._text.is_at_start,
            inside=self._text.inside,
            single=self._single,
        )
        seen: list[Token] = []
        if not self._stops and not self._text.spans and step.cut_entropy is None:
            # nothing but the boundary or the end of the answer can end it
            proposal.expect(step.limit)
        async for tokens in proposal:
            seen += tokens
            is_cut = [cutter.feed(token) for token in tokens][-1:]
            if is_cut == [True] and self._is_enough(cutter.candidate(), seen):
                break
        candidate = cutter.candidate()
        if not candidate.tokens:
            raise BackendError("the engine ended a segment without a token", hint="see the engine's own log")
        if ahead == 0 or candidate.finish is not None:
            proposal.halt()
        grammar = self._session.grammar
        whole = (grammar is not None and grammar.whole) or self._text.is_marked(candidate.text)
        after = seen[len(candidate) :] if self._projections else []
        return replace(candidate, whole=whole, beyond=after[0].projections if after else None)

    def _is_enough(self, candidate: Candidate, seen: Sequence[Token]) -> bool:
        """Whether a token was seen after the candidate, if judges need one."""
        need = self._projections and self._settings.budget_tokens is None and not candidate.tokens[-1].last
        return not need or len(seen) > len(candidate)

    # --- judging

    async def _judge(self, step: Generate, candidates: Sequence[Candidate]) -> list[Judgement]:
        judged = self._decoder.needs_judgement
        passages = [self._passage(candidate) for candidate in candidates] if judged or self._shadows else []
        attempts = range(step.attempt, step.attempt + len(passages))
        places = [Place(seed=self._seed, segment=step.segment, attempt=attempt) for attempt in attempts]
        judgements = await self._ask(passages, places) if judged else [Judgement() for _ in candidates]
        if self._shadows:
            for attempt, pair in enumerate(zip(passages, judgements, strict=True), start=step.attempt):
                self._shadows.see(step.segment, attempt, *pair)
        if not judged:
            return judgements
        self._passages.update(enumerate(passages, start=step.attempt))
        return [self._blamed(*pair) for pair in zip(passages, judgements, strict=True)]

    def _blamed(self, passage: Passage, judgement: Judgement) -> Judgement:
        """The judgement, with where in the held text the match begins that a judge vetoes."""
        if judgement.veto is None or not self._settings.rewinds or not self._text.held:
            return judgement
        place = self._holding.match_from(passage, judgement, len(self._text.released))
        fault = None if place is None else self._text.fault(place)
        if fault is None or self._begun(fault) < len(self._text.released):
            return judgement
        return replace(judgement, match_before=len(self._text.accepted) - fault)

    def _begun(self, place: int) -> int:
        """Where something has begun in the answer up to a place that what comes next may complete. What is released
        counts too: it was seen to be harmless by what comes after the place."""
        text = copy(self._text)
        text.take_back(place)
        kept = Passage(call_id=self._call_id, messages=self._messages, accepted=text.accepted, segment="")
        passage = AnswerReadings(text, self._events).at_end(kept)
        begun = Holding(self._judges).open_from(passage, 0, text.unfinished_from(_NOTHING))
        return text.begun() if begun is None else min(begun, text.begun())

    async def _ask(self, passages: Sequence[Passage], places: Sequence[Place] | None = None) -> list[Judgement]:
        judgements = await self._cascade.judge(passages, places=places)
        self._scored += sum(len(judgement.scores) for judgement in judgements)
        return judgements

    def _passage(self, candidate: Candidate) -> Passage:
        totals, accepted = self._decoder.totals, self._text.accepted
        full = totals.kept + len(candidate) >= self._settings.max_tokens
        written = Passage(
            call_id=self._call_id,
            messages=self._messages,
            # without the beginning of a stop string, which is not part of the answer
            accepted=accepted[: len(accepted) - candidate.stop_overlap],
            segment=candidate.text,
            index=totals.segments,
            last=candidate.finish is not None or full,
            whole=candidate.whole,
            tools=self._tools,
            projections=self._projections.of(candidate, totals.kept),
        )
        passage = self._readings.of(candidate, written)
        # and those that only its engine knows
        return replace(passage, forms=(*passage.forms, *self._session.forms_of(candidate.text)))

    # --- following what was decided

    async def _follow(self, step: Generate, outcome: Outcome) -> list[Event]:
        """Keep or let go of candidates as the decoder says, and release what can be."""
        segment = step.segment
        kept = outcome.end.attempt if isinstance(outcome.end, Kept) else None
        judged = None if kept is None else self._passages.get(kept)
        if outcome.end is not None:
            self._passages.clear()
        events: list[Event] = []
        for attempt in sorted(self._open.keys() - outcome.retain - {kept}):
            proposal, candidate = self._open.pop(attempt)
            await proposal.aclose()
            events += self._overrun(segment, attempt, proposal.drawn - len(candidate))
        if kept is None:
            for proposal, _ in self._open.values():
                proposal.halt()
            if isinstance(outcome.end, Rewound):
                await self._go_back(outcome.end)
            return events
        proposal, candidate = self._open.pop(kept)
        recovery = self._settings.is_recovery(kept)
        go_on = isinstance(self._decoder.plan(self._cost), Generate)
        self._projections.keep(candidate, self._decoder.totals.kept - len(candidate))
        over = await self._proposers.commit(proposal, candidate, recovery=recovery, go_on=go_on)
        events += self._overrun(segment, kept, over)
        holds: list[int] = []
        if judged is not None:
            self._kept = replace(judged, last=True)
            marked = self._text.unfinished_from(candidate)
            seen = replace(judged, last=candidate.finish is not None)
            holds = self._holding.after(candidate, seen, len(self._text.released), marked)
        events += self._events.release(segment, self._text.accept(candidate, holds, self._holding.tail))
        self._decoder.hold(len(self._text.held))
        return events

    async def _go_back(self, rewound: Rewound) -> None:
        """Take back what the decoder says."""
        await self._proposers.rewind(rewound.tokens)
        self._holding.go_back(rewound.place, rewound.tokens)
        self._text.take_back(rewound.place, self._begun(rewound.place) if rewound.left else None)
        self._decoder.hold(len(self._text.held))
        if self._kept is not None:
            kept = self._decoder.totals.kept
            stays = replace(_first(self._kept, rewound.place), projections=self._projections.up_to(kept))
            self._kept = stays if kept else None

    def _overrun(self, segment: int, attempt: int, tokens: int) -> list[Overrun]:
        """Count the tokens that a candidate had past its boundary, which are thrown away."""
        if not tokens:
            return []
        self._decoder.charge(tokens)
        return [Overrun(segment=segment, attempt=attempt, tokens=tokens)]


def _first(passage: Passage, length: int) -> Passage:
    """A passage whose answer is its own answer's beginning."""
    rest = max(0, length - len(passage.accepted))
    return replace(passage, accepted=passage.accepted[:length], segment=passage.segment[:rest])
