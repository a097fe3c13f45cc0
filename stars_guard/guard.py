"""The one place where decoding, backend, judges and audit meet."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import anyio

from stars_guard.audit import AuditStore, Recorder, Writing, shared_store
from stars_guard.backends.base import Backend
from stars_guard.backends.supplied import MOST_TOKENS
from stars_guard.calling import portal
from stars_guard.calling.backend_loading import load_backend
from stars_guard.calling.call import Call
from stars_guard.calling.checks import Checked, Checker
from stars_guard.calling.judge_loading import load_cascade
from stars_guard.calling.settings import as_one_segment, content_of, settings_of, supplied_settings
from stars_guard.calling.telemetry import OPERATION, PROVIDER, REQUEST_MODEL, CallSpan
from stars_guard.core.events import Called, Event, Finished, Released, Totals
from stars_guard.core.grammar import Grammar
from stars_guard.core.messages import Message
from stars_guard.core.sampling import Sampling
from stars_guard.core.tools import Toolset
from stars_guard.core.vocabulary import Stage
from stars_guard.decoding import AcceptanceRate, decoder_of, shared_row_cost
from stars_guard.errors import BudgetExhausted, InputError
from stars_guard.policy import Policy, load_policy
from stars_guard.scorers.cascade import Cascade, Judge

__all__ = ["Blocking", "CallOptions", "Guard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What one call may set. None leaves the policy's value.

    Attributes:
        max_tokens: the longest answer.
        stop: stop strings; they are not part of the answer.
        seed: draws the same answer again on a reproducible backend, and is not drawn ahead; None takes a fresh one.
        sampling: replaces single sampling options.
        run_id: the caller's id, kept in the record.
        tools: what the model may call. A call is drawn and judged whole.
        grammar: what the answer must look like; it is then drawn and judged as one segment.
        attempts: fewer than the policy's, for texts that are handed in.
    """

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    sampling: Mapping[str, float] | None = None
    run_id: str | None = None
    tools: Toolset | None = None
    grammar: Grammar | None = None
    attempts: int | None = None


class Guard:
    """Draws answers under a policy. Safe for any number of threads and tasks.

    Args:
        policy: a shipped policy's name, a path, a mapping or a `Policy`.
        model: what the backend loads; ``embedded`` is the built-in small model. Or a `Backend`, used as it is.
        backend: ``auto``, ``transformers``, ``vllm`` or ``vllm-server``; see
            `stars_guard.calling.backend_loading.load_backend`.
        options: of the backend, such as ``base_url`` and ``api_key`` of a server or vLLM's engine arguments.
        judges: instead of those that the policy declares: for tests.
        allow_python: whether the policy's judges may name Python code to run.
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
        options: Mapping[str, Any] | None = None,
        judges: Sequence[Judge] | None = None,
        allow_python: bool = False,
        audit: str | AuditStore | None = None,
    ) -> None:
        self.policy = load_policy(policy)
        self.audit = audit if isinstance(audit, AuditStore) else _store(self.policy, audit)
        self.model_name = model if isinstance(model, str) else model.identity.get("model", type(model).__name__)
        self._model = model
        self._backend = backend
        self._options = dict(options or {})
        self._allow_python = allow_python
        self._rate = AcceptanceRate()
        self._cascade = None if judges is None else Cascade(judges)
        self._content = content_of(self.policy)
        self._checker = Checker(self.policy, self.audit, allow_python=allow_python)
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
        self, messages: Sequence[Message], options: CallOptions | None = None, *, engine: Backend | None = None
    ) -> AsyncGenerator[Event, None]:
        """What happens, as it happens; the last event is `Finished`. Raises as `generate` does.

        Args:
            engine: draws this answer in the place of the guard's model, such as a `SuppliedBackend`.
        """
        call = lambda: self._events(messages, options or CallOptions(), engine)  # noqa: E731
        async with aclosing(portal.astream(call)) as events:
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

    async def check(
        self, stage: Stage, text: str, *, messages: Sequence[Message] = (), run_id: str | None = None
    ) -> Checked:
        """Judge one text whole, under the judges of a stage of the policy's rails. A record of its own tells of it.

        Args:
            messages: the conversation before the text.
            run_id: the caller's id, kept in the record.

        Raises:
            ScorerError: a judge cannot be loaded, or failed and the policy says ``raise``.
        """
        return await portal.acall(lambda: self._checker.check(stage, text, messages=messages, run_id=run_id))

    async def _events(
        self, messages: Sequence[Message], options: CallOptions, engine: Backend | None = None
    ) -> AsyncGenerator[Event, None]:
        policy, messages = self.policy, tuple(messages)
        call_id = uuid.uuid4().hex
        seed = secrets.randbits(63) if options.seed is None else options.seed
        about: dict[str, Any] = {
            "call_id": call_id,
            "run_id": options.run_id,
            "policy": policy.name,
            "policy_sha256": policy.sha256,
            "mode": policy.mode,
            "seed": seed,
        }
        recorder = Recorder(self._content, messages, about)
        named = {OPERATION: "chat", PROVIDER: "stars-guard", REQUEST_MODEL: self.model_name}
        span = CallSpan(f"chat {self.model_name}", about, **named)
        call: Call | None = None
        written = False

        async def write(finish: str, reason: str = "", error: str | None = None) -> None:
            nonlocal written
            written = True
            totals = call.totals if call else Totals()
            recorder.prompt_reward = call.prompt_reward if call else None
            record = recorder.finish(finish=finish, reason=reason, totals=totals, error=error)
            span.end(record)
            await self.audit.append(record)

        async with AsyncExitStack() as stack:
            try:
                if not messages:
                    raise InputError("there are no messages", hint="pass at least one user message")
                call = await self._begin(call_id, messages, options, seed, recorder, stack, engine)
                async for event in call.run():
                    recorder.add(event)
                    span.add(event)
                    yield event
                done = call.done
                assert done is not None  # noqa: S101
                await write(done.finish, done.reason)
            except BaseException as exc:
                if not written:
                    cancelled = isinstance(exc, asyncio.CancelledError | GeneratorExit)
                    with anyio.CancelScope(shield=True):
                        await write(*(("cancelled",) if cancelled else ("failed", "", type(exc).__name__)))
                raise
        if done.finish == "raised":
            error = BudgetExhausted(done.reason, hint=f"the audit record is {call_id}")
            error.audit_id = call_id
            raise error
        yield Finished(
            text="".join(event.text for event in call.released if isinstance(event, Released)),
            finish=done.finish,
            reason=done.reason,
            totals=call.totals,
            call_id=call_id,
            seed=seed,
            policy=policy.name,
            policy_sha256=policy.sha256,
            seconds=recorder.seconds,
            tool_calls=tuple(one for event in call.released if isinstance(event, Called) for one in event.tool_calls),
            invalid_tool_calls=tuple(
                one for event in call.released if isinstance(event, Called) for one in event.invalid_tool_calls
            ),
        )

    async def _begin(
        self,
        call_id: str,
        messages: tuple[Message, ...],
        options: CallOptions,
        seed: int,
        recorder: Recorder,
        stack: AsyncExitStack,
        given: Backend | None,
    ) -> Call:
        """Get everything that the call needs ready; ``stack`` frees it."""
        policy = self.policy
        sampling = _sampling(policy, options)
        wanted = policy.decoding.max_tokens if options.max_tokens is None else options.max_tokens
        if wanted < 1:
            raise InputError(f"max_tokens is {wanted}", hint="use 1 or more")
        settings = settings_of(policy, wanted)
        offered = tuple(tool.name for tool in options.tools.tools) if options.tools else ()
        if given is not None and given.supplied:
            settings, wanted = supplied_settings(policy, options.attempts), MOST_TOKENS
        recorder.describe(
            decoding=settings.model_dump(), sampling=asdict(sampling), stop=tuple(options.stop), tools=offered
        )
        engine = given or self._model
        if isinstance(engine, str):
            engine = await load_backend(engine, self._backend, self._options)
        cascade = self._cascade = self._cascade or await load_cascade(policy, allow_python=self._allow_python)
        recorder.describe(
            backend=dict(engine.identity),
            scorers={judge.rule.judge: judge.identity for judge in cascade.judges},
            rules=tuple(asdict(rule) for rule in cascade.rules),
        )
        session = await engine.open(
            messages,
            sampling,
            entropies=decoder_of(settings.method).needs_entropy,
            seeded=options.seed is not None,
            tools=options.tools,
            grammar=options.grammar,
        )
        stack.push_async_callback(_shielded, session.aclose)
        stack.push_async_callback(_shielded, lambda: cascade.forget(call_id))
        # drawn ahead, an answer would depend on the width and so on what else has been drawn
        optimistic = settings.optimistic and options.seed is None
        settings = settings.changed(
            max_tokens=min(wanted, session.room), optimistic=optimistic, stretch=session.form is not None
        )
        if session.grammar is not None and session.grammar.whole:
            settings = as_one_segment(settings)
        if session.grammar is not None:
            recorder.describe(grammar_sha256=hashlib.sha256(session.grammar.tag.encode()).hexdigest())
        recorder.describe(decoding=settings.model_dump())
        engine.active_calls += 1
        stack.callback(_leave, engine)
        return Call(
            call_id,
            messages,
            session,
            cascade,
            settings,
            seed,
            tuple(options.stop),
            self._rate,
            lambda: shared_row_cost(engine.row_cost, engine.active_calls),
            single=options.tools is not None and not options.tools.parallel,
        )


def _store(policy: Policy, url: str | None) -> AuditStore:
    return shared_store(url or policy.audit.url, Writing(policy.audit.durability, policy.audit.on_error))


def _leave(engine: Backend) -> None:
    engine.active_calls -= 1


async def _shielded(close: Callable[[], Awaitable[None]]) -> None:
    with anyio.CancelScope(shield=True):
        await close()


def _sampling(policy: Policy, options: CallOptions) -> Sampling:
    given = options.sampling or {}
    known = [field.name for field in fields(Sampling)]
    if unknown := sorted(given.keys() - set(known)):
        raise InputError(f"unknown sampling option {', '.join(unknown)}", hint=f"known are {', '.join(known)}")
    return replace(policy.sampling.to_sampling(), **given)  # type: ignore[arg-type]


class Blocking:
    """The sync door of a guard: the same methods, for code without an event loop."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def generate(self, messages: Sequence[Message], options: CallOptions | None = None) -> Finished:
        """As `Guard.generate`."""
        return portal.call(lambda: self._guard.generate(messages, options))

    def stream(
        self, messages: Sequence[Message], options: CallOptions | None = None, *, engine: Backend | None = None
    ) -> Iterator[Event]:
        """As `Guard.stream`. Closing the iterator cancels the call."""
        return portal.stream(lambda: self._guard.stream(messages, options, engine=engine))

    def batch(
        self, prompts: Sequence[Sequence[Message]], options: CallOptions | None = None, *, concurrency: int = 32
    ) -> list[Finished]:
        """As `Guard.batch`."""
        return portal.call(lambda: self._guard.batch(prompts, options, concurrency=concurrency))

    def check(self, stage: Stage, text: str, *, messages: Sequence[Message] = (), run_id: str | None = None) -> Checked:
        """As `Guard.check`."""
        return portal.call(lambda: self._guard.check(stage, text, messages=messages, run_id=run_id))
