"""What one call will do: everything that the policy, the options and the engine have to say about it."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from stars_guard.backends.base import Backend, OpenRequest, Session
from stars_guard.calling.loaded import Loaded
from stars_guard.calling.options import CallOptions, options_of, sampling_of
from stars_guard.calling.portal import to_the_end
from stars_guard.calling.proposing import Proposers, with_instruction
from stars_guard.calling.recording import Recording
from stars_guard.calling.settings import as_one_segment, settings_of, supplied_settings
from stars_guard.core.messages import Message
from stars_guard.decoding import Settings, decoder_of
from stars_guard.decoding.width import ALONE
from stars_guard.errors import InputError
from stars_guard.policy import Policy
from stars_guard.prompting.template_variables import shown_variables
from stars_guard.scorers.cascade import Cascade

__all__ = ["Plan", "Request", "messages_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a call needs, ready.

    Attributes:
        engine: what generates; ``proposers`` have the call's places in it.
        settings: of the decoder, cut to what the model's context can take.
        single: the answer has one tool call at most.
    """

    engine: Backend
    proposers: Proposers
    cascade: Cascade
    settings: Settings
    single: bool

    @property
    def shares_widths(self) -> bool:
        """Whether the width may depend on what other calls have seen and do now.

        Under a budget the width decides which candidates are paid for, and so what the answer is. It then follows from
        the call alone, so that a seed gives the same answer again.
        """
        return self.settings.budget_tokens is None

    def cost(self, width: int) -> float:
        """What a width costs now; see `StepCosts.shared`."""
        engine = self.engine
        return engine.step_costs.shared(engine.active_calls)(width) if self.shares_widths else ALONE(width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of a guard in one call.

    Attributes:
        engine: generates in the place of the guard's model; None takes the guard's.
        seed: the caller's, or a fresh one.
    """

    messages: tuple[Message, ...] = field(repr=False)
    options: CallOptions
    engine: Backend | None
    call_id: str
    seed: int

    @classmethod
    def of(cls, messages: Sequence[Message], options: CallOptions | None, engine: Backend | None = None) -> Request:
        """With an id of its own, and a seed.

        Raises:
            InputError: these are no messages, or no options.
        """
        options = options_of(options)
        seed = secrets.randbits(63) if options.seed is None else options.seed
        return cls(messages=messages_of(messages), options=options, engine=engine, call_id=uuid.uuid4().hex, seed=seed)

    @property
    def is_supplied(self) -> bool:
        """Whether its texts are handed in, and not generated."""
        return self.engine is not None and self.engine.supplied

    @asynccontextmanager
    async def planned(self, policy: Policy, loaded: Loaded, recording: Recording) -> AsyncGenerator[Plan, None]:
        """Load what is missing and take a place in the engine, which is given back at the end.

        Raises:
            InputError: the call cannot be served.
            BackendError: the engine cannot be loaded, or failed.
            ScorerError: a judge cannot be loaded.
        """
        if not self.messages:
            raise InputError("there are no messages", hint="pass at least one user message")
        options = self.options
        sampling = sampling_of(options.sampling or {}, policy.sampling.to_sampling())
        settings = self._settings(policy)
        recording.describe(
            decoding=settings.model_dump(),
            sampling=asdict(sampling),
            stop=tuple(options.stop),
            tools=tuple(tool.name for tool in options.tools.tools) if options.tools else (),
        )
        engine = self.engine or await loaded.engine()
        cascade = await loaded.cascade("answer")
        recording.describe(backend=_identity(engine, options.chat_template_kwargs))
        recording.judged_by(cascade)
        directions = cascade.directions if decoder_of(settings.method).decides != "none" else ()
        await engine.check_directions(directions)
        async with AsyncExitStack() as stack:
            asked = OpenRequest(
                messages=self.messages,
                sampling=sampling,
                entropies=decoder_of(settings.method).needs_entropy,
                seeded=options.seed is not None,
                tools=options.tools,
                grammar=options.grammar,
                chat_template_kwargs=options.chat_template_kwargs,
                directions=directions,
            )
            session = await engine.open(asked)
            stack.push_async_callback(_to_the_end, session.aclose)
            stack.push_async_callback(_to_the_end, partial(cascade.forget, self.call_id))
            settings = _within(settings, session)
            recovery = None
            if settings.recovery is not None:
                instructed = with_instruction(self.messages, settings.recovery.instruction)
                recovery = await engine.open(replace(asked, messages=instructed, lazy=True))
                stack.push_async_callback(_to_the_end, recovery.aclose)
                settings = settings.changed(max_tokens=min(settings.max_tokens, recovery.room))
            if session.form is not None:
                recording.describe(tool_form=session.form.name)
            if (marks := session.reasoning) is not None:
                recording.describe(reasoning={"begin": marks.begin, "end": marks.end, "begun": marks.begun})
            if session.grammar is not None:
                recording.describe(grammar_sha256=hashlib.sha256(session.grammar.tag.encode()).hexdigest())
            recording.describe(decoding=settings.model_dump())
            if settings.weighs_width or _may_run_ahead(settings, session):
                await engine.measure()
            engine.active_calls += 1
            stack.callback(_leave, engine)
            yield Plan(
                engine=engine,
                proposers=Proposers(session, recovery),
                cascade=cascade,
                settings=settings,
                single=options.tools is not None and not options.tools.parallel,
            )

    def _settings(self, policy: Policy) -> Settings:
        """The decoder's settings as far as they are known without the engine."""
        wanted = policy.decoding.max_tokens if self.options.max_tokens is None else self.options.max_tokens
        attempts = self.options.attempts
        settings = supplied_settings(policy, attempts) if self.is_supplied else settings_of(policy, wanted)
        # generated ahead, an answer would depend on the width, and so on what else has been generated
        return settings.changed(optimistic=settings.optimistic and self.options.seed is None)


def _identity(engine: Backend, variables: Mapping[str, Any]) -> dict[str, str]:
    """What generates, with the variables that its chat template is given in this call."""
    given = {"call_chat_template_kwargs": shown_variables(variables)} if variables else {}
    return {**engine.identity, **given}


def _may_run_ahead(settings: Settings, session: Session) -> bool:
    """Whether candidates that are generated beside each other might run on, if that costs them little."""
    if settings.monitor or settings.budget_tokens is not None or decoder_of(settings.method).decides == "none":
        return False
    return session.draws_ahead and settings.optimistic and settings.parallel != 1


def _within(settings: Settings, session: Session) -> Settings:
    """The settings for what this session can generate, and how."""
    settings = settings.changed(max_tokens=min(settings.max_tokens, session.room), stretch=session.form is not None)
    if not session.rewinds:
        settings = settings.changed(rewinds=0, recovery=None)
    whole = session.grammar is not None and session.grammar.whole
    return as_one_segment(settings) if whole else settings


def messages_of(given: Sequence[Message]) -> tuple[Message, ...]:
    """A conversation that a caller passes in.

    Raises:
        InputError: it is no sequence of messages.
    """
    if isinstance(given, Message | str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InputError(f"messages is of the type {type(given).__name__}", hint=_MESSAGES)
    found = tuple(given)
    for number, message in enumerate(found, 1):
        if not isinstance(message, Message):
            what = f"message {number} of {len(found)} is of the type {type(message).__name__}"
            raise InputError(what, hint=_MESSAGES)
    return found


_MESSAGES = 'pass a list such as [Message("user", "...")]'


async def _to_the_end(close: Callable[[], Awaitable[None]]) -> None:
    await to_the_end(close())


def _leave(engine: Backend) -> None:
    engine.active_calls -= 1
