"""The one place where decoding, backend, judges and audit meet."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import anyio

from stars_guard import portal
from stars_guard.assembly import load_backend, load_cascade, settings_of
from stars_guard.audit import AuditStore, Recorder, open_store
from stars_guard.backends.base import Backend, Proposal, Session
from stars_guard.decoding import Draw, SegmentCutter, Settings, make_decoder, releasable
from stars_guard.errors import BudgetExhausted, InputError
from stars_guard.events import Drawing, Ended, Event, Finished, Kept, Released, Totals
from stars_guard.judging import Judgement
from stars_guard.policy import Policy, load_policy
from stars_guard.scorers.cascade import Cascade, Judge
from stars_guard.segments import Candidate, Message, Passage, Sampling

__all__ = ["Blocking", "CallOptions", "Guard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What one call may set. None leaves the policy's value.

    Attributes:
        max_tokens: the longest answer.
        stop: stop strings; they are not part of the answer.
        seed: draws the same answer again on a reproducible backend; None takes a fresh one.
        sampling: replaces single sampling options.
        run_id: the caller's id, kept in the record.
    """

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    sampling: Mapping[str, float] | None = None
    run_id: str | None = None


class Guard:
    """Draws answers under a policy. Safe for any number of threads and tasks.

    Args:
        policy: a shipped policy's name, a path, a mapping or a `Policy`.
        model: what the backend loads; ``embedded`` is the built-in small model. Or a `Backend`, used as it is.
        backend: ``auto`` or ``transformers``.
        judges: instead of those that the policy declares: for tests.
        audit: a store or its URL, instead of the policy's.

    Raises:
        PolicyError: the policy cannot be used. Models are loaded by the first call.
    """

    def __init__(
        self,
        policy: str | Path | Mapping[str, Any] | Policy = "default",
        *,
        model: str | Backend = "embedded",
        backend: str = "auto",
        judges: Sequence[Judge] | None = None,
        audit: str | AuditStore | None = None,
    ) -> None:
        self.policy = load_policy(policy)
        self.audit = audit if isinstance(audit, AuditStore) else open_store(audit or self.policy.audit.url)
        self._model = model
        self._backend = backend
        self._cascade = None if judges is None else Cascade(judges)
        self.blocking = Blocking(self)

    async def generate(self, messages: Sequence[Message], options: CallOptions | None = None) -> Finished:
        """Draw one answer.

        Raises:
            InputError: the call cannot be served.
            BackendError: the model failed.
            ScorerError: a judge failed and the policy says ``raise``.
            BudgetExhausted: attempts ran out and the policy says ``raise``.
        """

        async def last() -> Finished:
            async with aclosing(self._events(messages, options or CallOptions())) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        return event
            raise AssertionError("a call ends with Finished")

        return await portal.acall(last)

    async def stream(
        self, messages: Sequence[Message], options: CallOptions | None = None
    ) -> AsyncGenerator[Event, None]:
        """What happens, as it happens; the last event is `Finished`. Raises as `generate` does."""
        async with aclosing(portal.astream(lambda: self._events(messages, options or CallOptions()))) as events:
            async for event in events:
                yield event

    async def batch(
        self, prompts: Sequence[Sequence[Message]], options: CallOptions | None = None, *, concurrency: int = 32
    ) -> list[Finished]:
        """Draw many answers in lockstep, at most ``concurrency`` at once, in the order of the prompts."""
        limiter = anyio.CapacityLimiter(concurrency)
        base = options or CallOptions()

        async def one(index: int) -> Finished:
            seed = None if base.seed is None else base.seed + index
            async with limiter:
                return await self.generate(prompts[index], replace(base, seed=seed))

        return list(await asyncio.gather(*(one(index) for index in range(len(prompts)))))

    async def _events(self, messages: Sequence[Message], options: CallOptions) -> AsyncGenerator[Event, None]:
        policy, messages = self.policy, tuple(messages)
        if not messages:
            raise InputError("there are no messages", hint="pass at least one user message")
        seed = secrets.randbits(63) if options.seed is None else options.seed
        sampling = _sampling(policy, options)
        wanted = policy.decoding.max_tokens if options.max_tokens is None else options.max_tokens
        if wanted < 1:
            raise InputError(f"max_tokens is {wanted}", hint="use 1 or more")
        call_id = uuid.uuid4().hex
        settings = settings_of(policy, wanted)
        about: dict[str, Any] = {
            "call_id": call_id,
            "run_id": options.run_id,
            "policy": policy.name,
            "policy_sha256": policy.sha256,
            "mode": policy.mode,
            "backend": {},
            "scorers": {},
            "rules": (),
            "decoding": asdict(settings),
            "sampling": asdict(sampling),
            "seed": seed,
        }
        recorder = Recorder(policy.audit.content, messages, about)
        call: _Call | None = None
        session: Session | None = None
        written = False

        async def write(finish: str, reason: str, error: str | None = None) -> None:
            nonlocal written
            written = True
            totals = call.totals if call else Totals()
            await self.audit.append(recorder.finish(finish=finish, reason=reason, totals=totals, error=error))

        try:
            engine = await load_backend(self._model, self._backend) if isinstance(self._model, str) else self._model
            cascade = self._cascade = self._cascade or await load_cascade(policy)
            recorder.describe(
                backend=dict(engine.identity),
                scorers={judge.rule.judge: judge.scorer.identity for judge in cascade.judges},
                rules=tuple(asdict(rule) for rule in cascade.rules),
            )
            session = await engine.open(messages, sampling, entropies=settings.method == "cards")
            settings = replace(settings, max_tokens=min(wanted, session.room))
            recorder.describe(decoding=asdict(settings))
            call = _Call(call_id, messages, session, cascade, settings, seed, options.stop, recorder)
            async for event in call.run():
                recorder.add(event)
                yield event
            await write(call.finish, call.reason)
            if call.finish == "raised":
                error = BudgetExhausted(call.reason, hint=f"the audit record is {call_id}")
                error.audit_id = call_id
                raise error
            yield Finished(
                recorder.text, call.finish, call.reason, call.totals, call_id, seed, policy.name, policy.sha256,
                recorder.seconds,
            )  # fmt: skip
        except BaseException as exc:
            if not written:
                cancelled = isinstance(exc, asyncio.CancelledError | GeneratorExit)
                with anyio.CancelScope(shield=True):
                    await write("cancelled" if cancelled else "failed", "", None if cancelled else type(exc).__name__)
            raise
        finally:
            with anyio.CancelScope(shield=True):
                if session is not None:
                    await session.aclose()
                if self._cascade is not None:
                    await self._cascade.forget(call_id)


class _Call:
    """The driver of one call: draws what the decoder plans, has it judged, releases what was kept."""

    def __init__(self, call_id: str, messages: tuple[Message, ...], session: Session, cascade: Cascade,
                 settings: Settings, seed: int, stops: tuple[str, ...], recorder: Recorder) -> None:  # fmt: skip
        self.call_id = call_id
        self.messages = messages
        self.session = session
        self.cascade = cascade
        self.stops = stops
        self.recorder = recorder
        self.decoder = make_decoder(settings, seed)
        self.accepted = ""
        self.carry = ""
        self.scored = 0
        self.finish: Any = "failed"
        self.reason = ""

    @property
    def totals(self) -> Totals:
        return replace(self.decoder.totals, prompt=self.session.prompt_tokens, scorer_passages=self.scored)

    async def run(self) -> AsyncGenerator[Event, None]:
        reward = None
        if self.decoder.needs_prompt_reward:
            reward, asked = await self.cascade.prompt_reward(self._passage(""))
            self.scored += asked
        self.recorder.prompt_reward = reward
        self.decoder.begin(reward)
        held: dict[int, tuple[Proposal, Candidate]] = {}
        while isinstance(step := self.decoder.plan(), Draw):
            yield Drawing(step.segment, step.attempt, len(step.seeds))
            proposals = await self.session.propose(step.seeds, step.limit)
            candidates = await asyncio.gather(*(self._cut(proposal, step) for proposal in proposals))
            judgements = await self._judge(candidates)
            for attempt, pair in enumerate(zip(proposals, candidates, strict=True), start=step.attempt):
                held[attempt] = pair
            outcome = self.decoder.decide(list(zip(candidates, judgements, strict=True)))
            for decision in outcome.decisions:
                yield decision
            if outcome.end is None:
                for attempt in held.keys() - outcome.retain:
                    await held.pop(attempt)[0].aclose()
                continue
            yield outcome.end
            match outcome.end:
                case Kept(segment=segment, attempt=attempt):
                    proposal, candidate = held.pop(attempt)
                    await self.session.commit(proposal, len(candidate))
                    yield self._release(segment, candidate)
                case Ended():
                    pass
            for proposal, _ in held.values():
                await proposal.aclose()
            held.clear()
        if self.carry:
            yield Released(self.decoder.totals.segments, self.carry, 0)
            self.carry = ""
        self.finish, self.reason = step.finish, step.reason

    async def _cut(self, proposal: Proposal, step: Draw) -> Candidate:
        cutter = SegmentCutter(step.limit, stops=self.stops, carry=self.carry, cut_entropy=step.cut_entropy)
        async for tokens in proposal:
            done = [cutter.feed(token) for token in tokens]
            if done[-1]:
                break
        return cutter.candidate("eos" if proposal.finish == "eos" else None)

    async def _judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        if not self.decoder.needs_judgement:
            return [Judgement() for _ in candidates]
        judgements = await self.cascade.judge([self._passage(candidate.text) for candidate in candidates])
        self.scored += sum(len(judgement.scores) for judgement in judgements)
        return judgements

    def _passage(self, segment: str) -> Passage:
        return Passage(self.call_id, self.messages, self.accepted, segment)

    def _release(self, segment: int, candidate: Candidate) -> Released:
        if candidate.stop_overlap:
            self.carry = self.carry[: -candidate.stop_overlap]
            self.accepted = self.accepted[: -candidate.stop_overlap]
        self.accepted += candidate.text
        pending = self.carry + candidate.text
        cut = len(pending) if candidate.finish is not None else releasable(pending, self.stops)
        self.carry = pending[cut:]
        return Released(segment, pending[:cut], len(candidate))


def _sampling(policy: Policy, options: CallOptions) -> Sampling:
    base = policy.sampling.to_sampling()
    try:
        return replace(base, **(options.sampling or {}))  # type: ignore[arg-type]
    except TypeError as exc:
        raise InputError(f"unknown sampling options: {', '.join(options.sampling or {})}") from exc


class Blocking:
    """The sync door of a guard: the same three methods, for code without an event loop."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def generate(self, messages: Sequence[Message], options: CallOptions | None = None) -> Finished:
        """As `Guard.generate`."""
        return portal.call(lambda: self._guard.generate(messages, options))

    def stream(self, messages: Sequence[Message], options: CallOptions | None = None) -> Iterator[Event]:
        """As `Guard.stream`. Closing the iterator cancels the call."""
        return portal.stream(lambda: self._guard.stream(messages, options))

    def batch(
        self, prompts: Sequence[Sequence[Message]], options: CallOptions | None = None, *, concurrency: int = 32
    ) -> list[Finished]:
        """As `Guard.batch`."""
        return portal.call(lambda: self._guard.batch(prompts, options, concurrency=concurrency))
