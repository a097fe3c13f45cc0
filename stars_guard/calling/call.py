"""The driver of one call: draws what the decoder plans, has it judged, releases what was kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import replace

from stars_guard.backends.base import Proposal, Session
from stars_guard.core.events import Called, Drawing, Event, Kept, Overrun, Released, Totals
from stars_guard.core.judging import Judgement
from stars_guard.core.messages import InvalidCall, Message, ToolCall
from stars_guard.core.segments import Candidate, Passage
from stars_guard.decoding import AcceptanceRate, Done, Generate, SegmentCutter, Settings, make_decoder, releasable
from stars_guard.decoding.spans import find_spans
from stars_guard.errors import BackendError
from stars_guard.prompting.tool_calls import Written
from stars_guard.scorers.cascade import Cascade

__all__ = ["Call"]

SLOWER = 0.1
"""The share of its speed that a proposal may lose to others drawn ahead beside it."""


class Call:
    """One answer.

    Args:
        stops: stop strings; they are not part of the answer.
        rate: shared by the calls of the policy.
        row_cost: what one more proposal costs now, as a share of drawing one.
        single: the answer has one tool call at most.

    Attributes:
        prompt_reward: r(x, ""), once it is known.
        done: why the answer is over, once it is.
        released: what the caller has been given.
    """

    def __init__(
        self,
        call_id: str,
        messages: tuple[Message, ...],
        session: Session,
        cascade: Cascade,
        settings: Settings,
        seed: int,
        stops: tuple[str, ...] = (),
        rate: AcceptanceRate | None = None,
        row_cost: Callable[[], float] | None = None,
        single: bool = False,
    ) -> None:
        self.prompt_reward: float | None = None
        self.done: Done | None = None
        self.released: list[Released | Called] = []
        self._call_id = call_id
        self._messages = messages
        self._session = session
        self._cascade = cascade
        self._settings = settings
        self._stops = stops
        self._decoder = make_decoder(settings, seed, rate)
        self._row_cost = row_cost or (lambda: 0.1)
        self._single = single
        self._form = session.form
        self._spans = session.form.spans if session.form else ()
        self._calls = 0
        self._held: dict[int, tuple[Proposal, Candidate]] = {}
        self._accepted = ""
        self._carry = ""
        self._scored = 0

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
        if decoder.needs_prompt_reward:
            self.prompt_reward, asked = await self._cascade.prompt_reward(self._passage(""))
            self._scored += asked
        decoder.begin(self.prompt_reward)
        while isinstance(step := decoder.plan(self._row_cost()), Generate):
            yield Drawing(segment=step.segment, attempt=step.attempt, count=len(step.seeds))
            candidates = await self._draw(step)
            judgements = await self._judge(candidates)
            outcome = decoder.decide(list(zip(candidates, judgements, strict=True)))
            for decision in outcome.decisions:
                yield decision
            kept = outcome.end if isinstance(outcome.end, Kept) else None
            if outcome.end is not None:
                yield outcome.end
            for attempt in [a for a in self._held if a not in outcome.retain and (kept is None or a != kept.attempt)]:
                if over := await self._drop(attempt):
                    yield Overrun(segment=step.segment, attempt=attempt, tokens=over)
            for proposal, _ in self._held.values() if kept is None else ():
                proposal.halt()
            if kept is not None:
                at_start = self._is_at_start
                over, text = await self._keep(kept.attempt)
                if over:
                    yield Overrun(segment=step.segment, attempt=kept.attempt, tokens=over)
                for event in self._release(step.segment, text, at_start):
                    yield event
        for event in self._release(decoder.totals.segments - 1, self._carry, self._is_at_start):
            yield event
        self.done = step

    @property
    def _is_at_start(self) -> bool:
        """Whether nothing has been released yet but white space."""
        return not self._accepted.removesuffix(self._carry).strip()

    def _release(self, segment: int, text: str, at_start: bool) -> Iterator[Released | Called]:
        pieces = self._form.split(text, at_start=at_start) if self._form else [text]
        for piece in pieces if text else ():
            event = Released(segment=segment, text=piece) if isinstance(piece, str) else self._called(segment, *piece)
            self.released.append(event)
            yield event

    def _called(self, segment: int, text: str, written: Sequence[Written]) -> Called:
        first = self._calls
        calls: list[ToolCall] = []
        invalid: list[InvalidCall] = []
        for one in written[:1] if self._single else written:
            name = f"call_{self._call_id[:12]}_{self._calls}"
            self._calls += 1
            if one.name is not None and one.arguments is not None:
                calls.append(ToolCall(id=name, name=one.name, arguments=one.arguments))
            else:
                invalid.append(InvalidCall(id=name, name=one.name, arguments=text, error=one.error))
        return Called(
            segment=segment, text=text, index=first, tool_calls=tuple(calls), invalid_tool_calls=tuple(invalid)
        )

    async def _draw(self, step: Generate) -> list[Candidate]:
        ahead = self._ahead(step)
        beyond = max(0, ahead - step.stretch)
        proposals = await self._session.propose(step.seeds, step.limit + step.stretch, ahead=beyond)
        candidates = await asyncio.gather(*(self._cut(proposal, step, ahead) for proposal in proposals))
        pairs = zip(proposals, candidates, strict=True)
        self._held.update(enumerate(pairs, start=step.attempt))
        return candidates

    def _ahead(self, step: Generate) -> int:
        """Tokens that each proposal may draw past its boundary. None under a budget, which is a hard limit, and none
        where the proposals beside the one that will be kept would slow it, and the judges, down."""
        if not (self._settings.optimistic and self._session.draws_ahead) or self._settings.budget_tokens is not None:
            return 0
        if (len(step.seeds) - 1) * self._row_cost() > SLOWER:
            return 0
        return self._settings.max_tokens - self._decoder.totals.kept - step.limit

    async def _cut(self, proposal: Proposal, step: Generate, ahead: int) -> Candidate:
        cutter = SegmentCutter(
            step.limit,
            stops=self._stops,
            carry=self._carry,
            cut_entropy=step.cut_entropy,
            spans=self._spans,
            stretch=step.stretch,
            at_start=self._is_at_start,
            single=self._single,
        )
        async for tokens in proposal:
            if any(cutter.feed(token) for token in tokens):
                break
        candidate = cutter.candidate()
        if not candidate.tokens:
            raise BackendError("the engine ended a segment without a token", hint="see the engine's own log")
        if ahead == 0 or candidate.finish is not None:
            proposal.halt()
        return candidate

    async def _judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        if not self._decoder.needs_judgement:
            return [Judgement() for _ in candidates]
        judgements = await self._cascade.judge([self._candidate_passage(candidate) for candidate in candidates])
        self._scored += sum(len(judgement.scores) for judgement in judgements)
        return judgements

    def _passage(self, segment: str) -> Passage:
        return Passage(call_id=self._call_id, messages=self._messages, accepted=self._accepted, segment=segment)

    def _candidate_passage(self, candidate: Candidate) -> Passage:
        totals = self._decoder.totals
        full = totals.kept + len(candidate) >= self._settings.max_tokens
        last = candidate.finish is not None or full
        whole = self._session.grammar is not None and self._session.grammar.whole
        if not whole and self._spans:
            text = self._carry + candidate.text
            whole = bool(find_spans(text, self._spans, at_start=self._is_at_start))
        return replace(self._passage(candidate.text), index=totals.segments, last=last, whole=whole)

    async def _drop(self, attempt: int) -> int:
        """Let a proposal go; how many tokens it had drawn past its boundary."""
        proposal, candidate = self._held.pop(attempt)
        await proposal.aclose()
        return self._charge(proposal.drawn - len(candidate))

    async def _keep(self, attempt: int) -> tuple[int, str]:
        """Make a proposal part of the answer: tokens thrown away past it, and text that can be released now."""
        proposal, candidate = self._held.pop(attempt)
        at_start = self._is_at_start
        go_on = isinstance(self._decoder.plan(self._row_cost()), Generate)
        over = self._charge(await self._session.commit(proposal, len(candidate), go_on=go_on))
        if candidate.stop_overlap:
            self._carry = self._carry[: -candidate.stop_overlap]
            self._accepted = self._accepted[: -candidate.stop_overlap]
        self._accepted += candidate.text
        pending = self._carry + candidate.text
        cut = len(pending) if candidate.finish is not None else releasable(pending, self._stops)
        for found in find_spans(pending, self._spans, at_start=at_start) if cut < len(pending) else ():
            # a call whose end may belong to a stop string waits for it as a whole
            cut = found.start if found.start < cut < found.stop else cut
        self._carry = pending[cut:]
        return over, pending[:cut]

    def _charge(self, tokens: int) -> int:
        if tokens:
            self._decoder.charge(tokens)
        return tokens
