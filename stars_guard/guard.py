"""The one place where decoding, backend, judges and audit meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self, Unpack

import anyio

from stars_guard.audit import AuditStore
from stars_guard.backends.base import Backend
from stars_guard.calling import portal
from stars_guard.calling.call import Call
from stars_guard.calling.checks import Checked, Checker
from stars_guard.calling.given_calls import AboutCall, AboutText
from stars_guard.calling.judge_loading import check_allowed
from stars_guard.calling.loaded import Given, Loaded
from stars_guard.calling.options import CallOptions, options_of
from stars_guard.calling.plan import Plan, Request, messages_of
from stars_guard.calling.recording import Recording
from stars_guard.calling.refusing import check_refusals, refusal_for
from stars_guard.calling.settings import content_of, settings_of
from stars_guard.calling.shadow_calls import Shadows
from stars_guard.calling.telemetry import OPERATION, PROVIDER, REQUEST_MODEL
from stars_guard.core.arguments import text, whole_number
from stars_guard.core.events import Called, Event, Finished, Reasoned, Released
from stars_guard.core.messages import Message
from stars_guard.core.tools import Tool
from stars_guard.core.vocabulary import Stage
from stars_guard.decoding import AcceptanceRate
from stars_guard.errors import BudgetExhausted, InputError
from stars_guard.policy import Policy, load_policy
from stars_guard.scorers.cascade import Judge

__all__ = ["Blocking", "CallOptions", "Guard"]


class Guard:
    """Generates answers under a policy. Safe for any number of threads and tasks.

    Close a guard that you no longer need, by ``async with Guard(...)``, `aclose` or ``with guard.blocking``. It then
    frees its judges, its engine and its store, as far as no other guard uses them. What you passed in ready is yours.

    Args:
        policy: a shipped policy's name, a path, a mapping or a `Policy`.
        model: what the backend loads: a directory or a name. ``embedded`` is the built-in small model. Or a `Backend`,
            used as it is.
        backend: ``auto``, ``transformers``, ``vllm``, ``vllm-server`` or the name under which another package
            registers one; see `stars_guard.calling.backend_loading.load_backend`.
        options: of the backend, such as ``base_url`` and ``api_key`` of a server or vLLM's engine arguments.
        judges: instead of those that the policy declares: for tests.
        allow_python: whether the policy's judges may name Python code to run.
        audit: a store or its URL, instead of the policy's.

    Attributes:
        model, model_options: as they were given. The options may hold keys.

    Raises:
        InputError: the model, the backend or the options are of another type.
        PolicyError: the policy cannot be used. Models are loaded by the first call, or by `load`.
        AuditError: the log cannot be used, or texts are to be encrypted and there is no key.
        MissingExtra: the policy chooses its refusal by the user's language, and the extra ``languages`` is missing.
    """

    def __init__(
        self,
        policy: str | Path | Mapping[str, Any] | Policy = "default",
        *,
        model: str | Path | Backend = "embedded",
        backend: str = "auto",
        options: Mapping[str, Any] | None = None,
        judges: Sequence[Judge] | None = None,
        allow_python: bool = False,
        audit: str | AuditStore | None = None,
    ) -> None:
        if not isinstance(model, Backend):
            model = text("the model", str(model) if isinstance(model, Path) else model)
        text("the backend", backend)
        if options is not None and not isinstance(options, Mapping):
            raise InputError(f"options is not a mapping but {type(options).__name__}", hint="pass a dict")
        self.policy = load_policy(policy)
        check_refusals(self.policy)
        check_allowed(self.policy.shadow_judges, allow_python=allow_python)
        content_of(self.policy)  # fails here where texts are to be encrypted and there is no key
        self.model_name = model if isinstance(model, str) else model.identity.get("model", type(model).__name__)
        self.model, self.model_options = model, dict(options or {})
        self._rate = AcceptanceRate()
        self._given = Given(
            model=model,
            backend=backend,
            options=dict(options or {}),
            judges=judges,
            allow_python=allow_python,
            audit=audit,
        )
        self._loaded = Loaded(self.policy, self._given)
        self._checker = Checker(self.policy, self._loaded)
        self.blocking = Blocking(self)

    @property
    def audit(self) -> AuditStore:
        """Where the records are."""
        return self._loaded.store

    async def load(self) -> None:
        """Load the engine and the judges of answers now. The first call does so otherwise.

        Raises:
            InputError: an unknown backend or option, a probe that is another model's, or the guard is closed.
            BackendError: the model cannot be loaded.
            ScorerError: a judge cannot be loaded.
        """
        await portal.acall(self._load)

    async def generate(self, messages: Sequence[Message], options: CallOptions | None = None) -> Finished:
        """Generate one answer. Its record is written before this returns.

        Args:
            messages: the conversation, oldest first.
            options: of this call, such as `max_tokens`, tools or a seed.

        Raises:
            InputError: the call cannot be served, or the guard is closed.
            BackendError: the model failed.
            ScorerError: a judge failed and the policy says ``raise``.
            BudgetExhausted: attempts ran out and the policy says ``raise``.
        """
        return await portal.acall(partial(self._answer, Request.of(messages, options)))

    async def stream(
        self, messages: Sequence[Message], options: CallOptions | None = None, *, engine: Backend | None = None
    ) -> AsyncGenerator[Event, None]:
        """What happens, as it happens; the last event is `Finished`. Raises as `generate` does.

        The next step is not begun before you ask for the next event. Leaving the stream cancels the call.

        Args:
            engine: generates this answer in the place of the guard's model, such as a `SuppliedBackend`.
        """
        async with aclosing(portal.astream(partial(self._events, Request.of(messages, options, engine)))) as events:
            async for event in events:
                yield event

    async def batch(
        self, prompts: Sequence[Sequence[Message]], options: CallOptions | None = None, *, concurrency: int = 32
    ) -> list[Finished]:
        """Generate many answers in lockstep, at most ``concurrency`` at once, in the order of the prompts.

        Raises as `generate` does: the first error cancels the other answers.
        """
        prompts = [messages_of(prompt) for prompt in prompts]
        limiter = anyio.CapacityLimiter(whole_number("concurrency", concurrency, 1, 2**31))
        base = options_of(options)

        async def one(index: int) -> Finished:
            seed = None if base.seed is None else base.seed + index
            async with limiter:
                return await self.generate(prompts[index], replace(base, seed=seed))

        try:
            async with asyncio.TaskGroup() as group:
                answers = [group.create_task(one(index)) for index in range(len(prompts))]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [answer.result() for answer in answers]

    async def check(self, stage: Stage, text: str, **about: Unpack[AboutText]) -> Checked:
        """Judge one text whole, under the judges of a stage of the policy's rails. It has a record of its own.

        At the stage ``tool_call``, judges that understand arguments, such as ``shell``, read the call from the text,
        and no rule is asked. Use `check_call` wherever you have the call itself.

        Args:
            about: the conversation before it and more; see `stars_guard.calling.given_calls.AboutText`.

        Raises:
            InputError: there is no such stage, the text is no string, or the guard is closed.
            ScorerError: a judge cannot be loaded, or failed and the policy says ``raise``.
        """
        return await portal.acall(partial(self._checker.check, stage, text, **about))

    async def check_call(self, name: str, args: Mapping[str, Any], **about: Unpack[AboutCall]) -> Checked:
        """Decide about a call of the tool ``name`` by the rules and judges of the rail ``tool_call``, with one record.

        The ``action`` of what comes back says whether the tool may run, a person is to be asked, or the call is
        rejected. A judge's veto rejects the call whatever the rules say. A call whose arguments no rule could read,
        because they nest too deep or hold half a character, is rejected.

        Args:
            args: the tool's arguments, as JSON values.
            about: the run so far, the app's context and more; see `stars_guard.calling.given_calls.AboutCall`.

        Raises:
            InputError: an argument of this method is of another type, or the guard is closed.
            ScorerError: a judge cannot be loaded, or failed and the policy says ``raise``.
        """
        return await portal.acall(partial(self._checker.check_call, name, args, **about))

    def check_tools(self, tools: Sequence[Tool]) -> None:
        """Check the policy's rules against an agent's tools. Call it when the agent is built.

        Raises:
            PolicyError: a rule is about a tool that the agent doesn't have, or reads an argument that its tools don't
                have. Every problem is listed, with the nearest name.
        """
        self._checker.check_tools(tools)

    def under(
        self,
        policy: str | Path | Mapping[str, Any] | Policy,
        *,
        audit: str | AuditStore | None = None,
        allow_python: bool = False,
    ) -> Guard:
        """Another guard on the same engine, with the judges of another policy. This guard goes on as it is.

        Args:
            audit: a store or its URL, instead of this guard's store.
            allow_python: whether the other policy's judges may name Python code to run.

        Raises:
            PolicyError: the policy cannot be used.
        """
        store = self.audit if audit is None else audit
        return Guard(policy, **{**self._given.arguments, "judges": None, "audit": store, "allow_python": allow_python})

    async def replaced(self, policy: str | Path | Mapping[str, Any] | Policy) -> Guard:
        """A guard like this one with another policy, for a policy that has changed while the program runs.

        Every judge of the new policy is loaded before the new guard comes back, and the engine if this guard has
        loaded it. Then this guard frees what it holds, once its calls have ended. A call that still reaches it is
        served.

        Raises:
            PolicyError: the policy cannot be used, or has judges that this guard may not have.
            ScorerError: a judge cannot be loaded.
            InputError: a probe is another model's.

        After an error this guard goes on as before.
        """
        made = await asyncio.to_thread(Guard, policy, **self._given.arguments)
        check_allowed(made.policy.every_judge, allow_python=self._given.allow_python)
        await portal.acall(partial(made._loaded.take_over, self._loaded))
        return made

    async def aclose(self) -> None:
        """Wait for the calls that run, and free what the guard has opened. May be called again.

        Close or leave your own streams before: a stream that is held open is a call that runs.
        """
        await portal.acall(self._loaded.aclose)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    async def _load(self) -> None:
        with self._loaded.in_use():
            engine, cascade = await self._loaded.engine(), await self._loaded.cascade("answer")
            await engine.check_directions(cascade.directions)
            if settings_of(self.policy, self.policy.decoding.max_tokens).weighs_width:
                await engine.measure()
            self._loaded.begin_shadows("answer")

    async def _answer(self, request: Request) -> Finished:
        async with aclosing(self._events(request)) as events:
            async for event in events:
                last = event
        assert isinstance(last, Finished)  # noqa: S101
        return last

    async def _events(self, request: Request) -> AsyncGenerator[Event, None]:
        with self._loaded.in_use():
            async with self._recording(request) as recording:
                async with request.planned(self.policy, self._loaded, recording) as plan:
                    call = self._call(request, plan, recording.shadows)
                    recording.follow(call)
                    async with aclosing(call.run()) as events:
                        async for event in events:
                            recording.add(event)
                            yield event
                done = call.done
                assert done is not None  # noqa: S101
                recording.finish(done.finish, done.reason)
            if done.finish == "raised":
                error = BudgetExhausted(done.reason, hint=f"the audit record is {request.call_id}")
                error.audit_id = request.call_id
                raise error
            # who has not read the stream has not seen what was vetoed in the end, and does not get it
            released = [] if call.is_withdrawn else call.released
            called = [event for event in released if isinstance(event, Called)]
            refused = done.finish == "refused"
            yield Finished(
                refusal=await refusal_for(self.policy, request.messages, request.options.language) if refused else "",
                text="".join(event.text for event in released if isinstance(event, Released)),
                finish=done.finish,
                reason=done.reason,
                totals=call.totals,
                call_id=request.call_id,
                seed=request.seed,
                policy=self.policy.name,
                policy_sha256=self.policy.sha256,
                seconds=recording.seconds,
                reasoning="".join(event.text for event in released if isinstance(event, Reasoned)),
                tool_calls=tuple(one for event in called for one in event.tool_calls),
                invalid_tool_calls=tuple(one for event in called for one in event.invalid_tool_calls),
            )

    def _recording(self, request: Request) -> Recording:
        return Recording(
            self.policy,
            self.audit,
            call_id=request.call_id,
            seed=request.seed,
            messages=request.messages,
            about={"run_id": request.options.run_id},
            span=f"chat {self.model_name}",
            shadows=self._loaded.shadows(request.call_id, "answer", supplied=request.is_supplied),
            attributes={OPERATION: "chat", PROVIDER: "stars-guard", REQUEST_MODEL: self.model_name},
        )

    def _call(self, request: Request, plan: Plan, shadows: Shadows) -> Call:
        return Call(
            call_id=request.call_id,
            messages=request.messages,
            proposers=plan.proposers,
            cascade=plan.cascade,
            settings=plan.settings,
            seed=request.seed,
            stops=tuple(request.options.stop),
            rate=self._rate if plan.shares_widths else AcceptanceRate(),
            cost=plan.cost,
            single=plan.single,
            tools=() if request.options.tools is None else request.options.tools.tools,
            shadows=shadows,
        )


class Blocking:
    """The sync door of a guard: the same methods, for code without an event loop. Ctrl-C cancels the call."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def load(self) -> None:
        """As `Guard.load`."""
        portal.call(self._guard.load)

    def generate(self, messages: Sequence[Message], options: CallOptions | None = None) -> Finished:
        """As `Guard.generate`."""
        return portal.call(partial(self._guard.generate, messages, options))

    def stream(
        self, messages: Sequence[Message], options: CallOptions | None = None, *, engine: Backend | None = None
    ) -> Iterator[Event]:
        """As `Guard.stream`. Closing the iterator cancels the call."""
        return portal.stream(partial(self._guard._events, Request.of(messages, options, engine)))

    def batch(
        self, prompts: Sequence[Sequence[Message]], options: CallOptions | None = None, *, concurrency: int = 32
    ) -> list[Finished]:
        """As `Guard.batch`."""
        return portal.call(partial(self._guard.batch, prompts, options, concurrency=concurrency))

    def check(self, stage: Stage, text: str, **about: Unpack[AboutText]) -> Checked:
        """As `Guard.check`."""
        return portal.call(partial(self._guard.check, stage, text, **about))

    def check_call(self, name: str, args: Mapping[str, Any], **about: Unpack[AboutCall]) -> Checked:
        """As `Guard.check_call`."""
        return portal.call(partial(self._guard.check_call, name, args, **about))

    def replaced(self, policy: str | Path | Mapping[str, Any] | Policy) -> Guard:
        """As `Guard.replaced`."""
        return portal.call(partial(self._guard.replaced, policy))

    def close(self) -> None:
        """As `Guard.aclose`."""
        portal.call(self._guard.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
