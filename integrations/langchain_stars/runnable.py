"""guard_runnable: input and output rails around any Runnable."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, closing
from typing import Any, Literal, get_args

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import coerce_to_runnable

from langchain_stars._answer_failures import AnswerFailures
from langchain_stars._call_decisions import rejected_alone
from langchain_stars._conversation import message_of_refusal, messages_of
from langchain_stars._guards import GuardRecipe, OpenGuards, OpensGuards, PolicySource
from langchain_stars._keywords import check_keywords
from langchain_stars._quiet_models import quiet_models
from langchain_stars._reading import Reading, calls_of, read, text_of
from langchain_stars._regeneration import regenerate_until_kept
from langchain_stars._stream_pieces import CHARACTERS_PER_TOKEN, PieceReader
from langchain_stars._waiting import AWAITING, BLOCKING, Waiting, iterate, run
from stars_guard.audit import AuditStore
from stars_guard.backends.supplied import SuppliedBackend
from stars_guard.calling.checks import Checked
from stars_guard.core.arguments import chosen, whole_number
from stars_guard.core.events import Drawing, Finished, Released
from stars_guard.errors import InputError, Refused
from stars_guard.guard import CallOptions, Guard

__all__ = ["GuardedRunnable", "guard_runnable"]

OnReject = Literal["refuse", "raise"]
Text = Callable[[Any], str]

_KEYWORDS = ("policy", "on_reject", "attempts", "text", "audit", "allow_python")


def guard_runnable(
    runnable: Runnable[Any, Any] | Callable[..., Any] | Mapping[str, Any],
    policy: PolicySource = "default",
    *,
    on_reject: OnReject = "refuse",
    attempts: int = 1,
    text: Text | None = None,
    audit: str | AuditStore | None = None,
    allow_python: bool = False,
    **unknown: Any,
) -> GuardedRunnable:
    """The same runnable under a policy, for chains whose model is not ours.

    The policy's input rail judges the input. The policy's judges and its output rail judge what comes out, and the
    tool-call rail judges tool calls in a message. A stream is judged in pieces of about ``decoding.segment_tokens``
    tokens, each before it is released. Runs inside are neither streamed nor traced, because they may hold what is
    rejected; callbacks that a model inside was made with aren't called.

    Args:
        runnable: or what LangChain makes one of: a function, a coroutine function, a generator function, a mapping.
        on_reject: ``refuse`` gives the policy's refusal message, in the kind of what comes out; ``raise`` raises
            `Refused`. Where the kind is unknown, or is neither text nor message, it raises too.
        attempts: how often the runnable may be asked for a whole answer, at most the policy's ``decoding.attempts``.
            A stream is asked for once, because its beginning has been released.
        text: gives the text of an input or output that is not plain, and then nothing else of it is judged. The
            default reads every string in messages, prompts, documents, mappings, lists, models and dataclasses.
        audit: a store or its URL, instead of the policy's.
        allow_python: whether the policy's judges may name Python code to run.

    Raises:
        InputError: ``attempts`` is less than 1, ``on_reject`` is another word, a keyword is not known, or nothing can
            be made of ``runnable``.
        PolicyError: the policy cannot be used.
    """
    check_keywords(unknown, _KEYWORDS, "guard_runnable")
    chosen("on_reject", on_reject, get_args(OnReject))
    whole_number("attempts", attempts, 1, 1024)
    try:
        coerced: Runnable[Any, Any] = coerce_to_runnable(runnable)
    except TypeError as exc:
        raise InputError(f"cannot guard a {type(runnable).__name__}", hint="give a runnable or a function") from exc
    recipe = GuardRecipe(policy=policy, audit=audit, allow_python=allow_python)
    return GuardedRunnable(coerced, recipe, on_reject, attempts, text or text_of)


class GuardedRunnable(OpensGuards, Runnable[Any, Any]):
    """What `guard_runnable` makes."""

    def __init__(
        self, runnable: Runnable[Any, Any], recipe: GuardRecipe, on_reject: OnReject, attempts: int, text: Text
    ) -> None:
        self._runnable = quiet_models(runnable)
        self._recipe = recipe
        self._on_reject = on_reject
        self._attempts = attempts
        self._text = text
        self._guards = OpenGuards()
        self._guards.policy(recipe.policy)  # a policy that cannot be used is an error now

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        return super().get_name(suffix, name=name or f"guarded {self._runnable.get_name()}")

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """The runnable's answer, or the refusal."""
        return self._call_with_config(self._invoked, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """As `invoke`."""
        return await self._acall_with_config(self._ainvoked, input, config, **kwargs)

    def stream(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """The answer in pieces, each judged before it is released. A refusal is the last piece."""
        pieces: Any = self._transform_stream_with_config(iter([input]), self._streamed, config, **kwargs)
        with closing(pieces):
            yield from pieces

    async def astream(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """As `stream`."""

        async def inputs() -> AsyncIterator[Any]:
            yield input

        pieces: Any = self._atransform_stream_with_config(inputs(), self._astreamed, config, **kwargs)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    # --- LangChain's doors, for callers that block and callers that await

    def _invoked(self, given: Any, run_manager: CallbackManagerForChainRun, **kwargs: Any) -> Any:
        return run(self._answer(BLOCKING, given, str(run_manager.run_id), kwargs))

    async def _ainvoked(self, given: Any, run_manager: AsyncCallbackManagerForChainRun, **kwargs: Any) -> Any:
        return await self._answer(AWAITING, given, str(run_manager.run_id), kwargs)

    def _streamed(self, inputs: Iterator[Any], run_manager: CallbackManagerForChainRun, **kwargs: Any) -> Iterator[Any]:
        (given,) = inputs
        yield from iterate(self._pieces(BLOCKING, given, str(run_manager.run_id), kwargs))

    async def _astreamed(
        self, inputs: AsyncIterator[Any], run_manager: AsyncCallbackManagerForChainRun, **kwargs: Any
    ) -> AsyncIterator[Any]:
        (given,) = [item async for item in inputs]
        async with aclosing(self._pieces(AWAITING, given, str(run_manager.run_id), kwargs)) as pieces:
            async for piece in pieces:
                yield piece

    # --- what happens behind them

    async def _answer(self, waiting: Waiting, given: Any, run_id: str, kwargs: dict[str, Any]) -> Any:
        guard = await self._guards.current(waiting, self._recipe)
        asked = self._read(given)
        checked = await waiting.check(guard, "input", asked.text, forms=asked.forms, run_id=run_id)
        if not checked.allowed:
            return self._refusal(guard, _output_type(self._runnable), checked)
        failure: Exception | None = None
        try:
            judged = await regenerate_until_kept(
                waiting,
                guard,
                lambda: waiting.invoke(self._runnable, given, **kwargs),
                messages=self._messages(given),
                model=self._runnable.get_name(),
                reading_of=self._read,
                attempts=self._attempts,
                run_id=run_id,
            )
        except Exception as exc:
            failure = exc
        if failure is not None:  # outside of the clause, so that no error has the other one as its context
            raise await self._failures(waiting, guard, given, run_id).judged(failure)
        if judged.rejected is not None:
            return self._refusal(guard, type(judged.answer), judged.rejected)
        made = calls_of(judged.answer)
        if (
            found := await rejected_alone(waiting, guard, made, messages=self._messages(given), run_id=run_id)
        ) is not None:
            return self._refusal(guard, type(judged.answer), found)
        return judged.answer

    async def _pieces(
        self, waiting: Waiting, given: Any, run_id: str, kwargs: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        guard = await self._guards.current(waiting, self._recipe)
        asked = self._read(given)
        checked = await waiting.check(guard, "input", asked.text, forms=asked.forms, run_id=run_id)
        if not checked.allowed:
            yield self._refusal(guard, _output_type(self._runnable), checked)
            return
        chunks = waiting.stream(self._runnable, given, **kwargs)
        async with aclosing(chunks), aclosing(self._judged(waiting, guard, given, run_id, chunks)) as pieces:
            async for piece in pieces:
                yield piece

    async def _judged(
        self, waiting: Waiting, guard: Guard, given: Any, run_id: str, chunks: AsyncIterator[Any]
    ) -> AsyncGenerator[Any, None]:
        """The chunks that may be released, and the refusal where one may not."""
        failures = self._failures(waiting, guard, given, run_id)
        reader = PieceReader(chunks, self._read, guard.policy.decoding.segment_tokens, failures.judged)
        engine = SuppliedBackend(self._runnable.get_name())
        if await reader.read() or reader.forms_at_end():
            options = CallOptions(run_id=run_id, attempts=1)
            async with aclosing(waiting.events(guard, self._messages(given), options, engine)) as events:
                async for event in events:
                    match event:
                        case Drawing():
                            await reader.read()
                            piece, is_last = reader.take()
                            tokens = max(1, len(piece) // CHARACTERS_PER_TOKEN)
                            forms = (*reader.forms_beside(), *(reader.forms_at_end() if is_last else ()))
                            engine.supply(piece, tokens=tokens, last=is_last, forms=forms)
                        case Released(text=text) if (chunk := reader.chunk_of(text)) is not None:
                            yield chunk
                        case Finished() if event.finish not in ("eos", "stop", "length"):
                            yield self._refusal(guard, reader.chunk_type, event)
                            return
                        case _:
                            pass
        made = reader.calls()
        if (
            found := await rejected_alone(waiting, guard, made, messages=self._messages(given), run_id=run_id)
        ) is not None:
            yield self._refusal(guard, reader.chunk_type, found)
            return
        if (rest := reader.rest()) is not None:
            yield rest

    def _read(self, value: Any) -> Reading:
        return read(value) if self._text is text_of else Reading(text=self._own_text(value))

    def _failures(self, waiting: Waiting, guard: Guard, given: Any, run_id: str) -> AnswerFailures:
        return AnswerFailures(waiting, guard, self._messages(given), model=self._runnable.get_name(), run_id=run_id)

    def _messages(self, given: Any) -> Any:
        return messages_of(given if self._text is text_of else self._own_text(given))

    def _own_text(self, value: Any) -> str:
        """What the caller's function says of a value. Nothing has no text, so the function isn't asked."""
        text = "" if value is None else self._text(value)
        if not isinstance(text, str):
            raise InputError(f"text= gave a {type(text).__name__}", hint="give a function to a string")
        return text

    def _refusal(self, guard: Guard, kind: type | None, rejected: Checked | Finished) -> Any:
        """The refusal in the place of a value of that kind.

        Raises:
            Refused: the caller wants it, or a refusal has no place in such a value.
        """
        audit_id = rejected.call_id if isinstance(rejected, Finished) else rejected.audit_id
        if self._on_reject == "refuse" and kind is not None:
            if issubclass(kind, str):
                return rejected.refusal or guard.policy.refusal.messages[0]
            if issubclass(kind, BaseMessage):
                refusal = message_of_refusal(guard, rejected.reason, audit_id, said=rejected.refusal)
                is_chunk = issubclass(kind, AIMessageChunk)
                return AIMessageChunk(**refusal.model_dump(exclude={"type"})) if is_chunk else refusal
        error = Refused(rejected.reason, hint=f"the audit record is {audit_id}")
        error.audit_id = audit_id
        raise error


def _output_type(runnable: Runnable[Any, Any]) -> type | None:
    """What a runnable gives, as far as it says so."""
    try:
        kind = runnable.OutputType
    except TypeError:
        return None
    if kind is str or (isinstance(kind, type) and issubclass(kind, BaseMessage)):
        return kind
    return AIMessage if kind == AnyMessage else None
