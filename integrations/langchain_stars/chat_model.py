"""ChatStars: a LangChain chat model whose answers are judged while they are written."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Self
from uuid import uuid4
from weakref import WeakKeyDictionary, ref

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.base import LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable

from langchain_stars._decision_events import reported_answer, reported_events
from langchain_stars._errors import langchain_errors
from langchain_stars._fields import ChatStarsFields, stops
from langchain_stars._guards import GuardRecipe, OpenGuards, OpensGuards, PolicySource
from langchain_stars._hiding import digest_of, shown, shown_policy
from langchain_stars._keywords import PER_CALL, SAMPLING, check_keywords
from langchain_stars._lone_calls import LoneCalls
from langchain_stars._messages import AnswerChunks, result_of, to_messages
from langchain_stars._run_tracking import ModelRun, RunTracking, TrackedRun, current_run
from langchain_stars._structured_output import Method, structured
from langchain_stars._token_counts import TokenCounter
from langchain_stars._tool_binding import bound_tools, grammar_of, toolset_of
from langchain_stars._waiting import AWAITING, BLOCKING, Waiting, iterate, run
from stars_guard.errors import InputError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import Policy

__all__ = ["ChatStars"]

_ready_guards: WeakKeyDictionary[Guard, str] = WeakKeyDictionary()
"""A name for each ready guard, for caches, because its engine and judges may be objects that have no names."""


class ChatStars(OpensGuards, RunTracking, ChatStarsFields):
    """A chat model that generates its answers segment by segment under a policy.

    Example:
        ``ChatStars(model="embedded", policy="default").invoke("Hello")``

    ``policy``, ``model``, ``max_tokens``, ``seed`` and the sampling options may also be given per call. No model is
    loaded before the first call. A refusal is a message whose text is the policy's, with a ``refusal`` content block.
    Its reason is in the ``response_metadata``. Errors of a call are LangChain's too, such as `ContextOverflowError`.
    Close a model that you no longer need: ``with``, ``async with``, `close` or `aclose`.

    Raises:
        InputError: a keyword is not known, or is given beside a ready guard that has settled it.
    """

    # --- the guard that answers

    def _recipe(self, given: Mapping[str, Any]) -> GuardRecipe:
        options = dict(self.backend_options)
        if self.base_url is not None:
            options |= {"base_url": self.base_url, "api_key": self.api_key}
        if "base_url" in options:
            requests = {"timeout": self.timeout, "retries": self.max_retries}
            options = {name: value for name, value in requests.items() if value is not None} | options
        return GuardRecipe(
            policy=self._chosen_policy(given),
            model=given.get("model") or self.model_name,
            backend=self.backend,
            options=options,
            audit=self.audit,
            allow_python=self.allow_python,
        )

    def _chosen_policy(self, given: Mapping[str, Any]) -> PolicySource:
        chosen: PolicySource | None = given.get("policy")
        if chosen is None or chosen == self.policy:
            return self.policy
        if chosen not in self.policies:
            raise InputError(
                f"policy {str(shown_policy(chosen))!r} may not be chosen by a call", hint="list it in policies=[...]"
            )
        return chosen

    def _guard(self, given: Mapping[str, Any]) -> Guard:
        """The guard of a call with these keywords."""
        check_keywords(given, PER_CALL, "a call of ChatStars")
        if self.guard is None:
            return self._guards.guard(self._recipe(given))
        for name in ("policy", "model"):
            if given.get(name) is not None:
                raise InputError(f"{name} may not be chosen by a call", hint="the model has a ready guard")
        return self.guard

    def _current_policy(self, given: Mapping[str, Any]) -> Policy:
        return self.guard.policy if self.guard else self._guards.policy(self._chosen_policy(given))

    def _decides(self) -> Any:
        return (self.guard, self.policy, list(self.policies), self.allow_python, id(self._guards))

    def _under(self, recipe: GuardRecipe, guards: OpenGuards) -> Self:
        """The same model under the policy of another recipe, whose guards are opened and closed with ``guards``."""
        if self.guard is not None:
            return self.model_copy(update={"guard": guards.guard(replace(recipe, engine_of=ref(self.guard)))})
        copied = self.model_copy(
            update={
                "policy": recipe.policy,
                "policies": [],
                "audit": self.audit if recipe.audit is None else recipe.audit,
                "allow_python": recipe.allow_python,
            }
        )
        copied._guards = guards
        return copied

    async def _guard_of(self, waiting: Waiting, given: Mapping[str, Any]) -> Guard:
        """As `_guard`, which may read files unless the guard is ready."""
        return self._guard(given) if self.guard is not None else await waiting.call(lambda: self._guard(given))

    def _options(self, stop: list[str] | None, run_id: Any, given: Mapping[str, Any]) -> CallOptions:
        sampling = {name: given.get(name, getattr(self, name)) for name in SAMPLING}
        return CallOptions(
            max_tokens=given.get("max_tokens", self.max_tokens),
            stop=tuple(stops(self.stop if stop is None else stop)),
            seed=given.get("seed", self.seed),
            sampling={name: value for name, value in sampling.items() if value is not None},
            run_id=str(run_id) if run_id else None,
            tools=toolset_of(given),
            grammar=grammar_of(given),
            chat_template_kwargs=given.get("chat_template_kwargs") or {},
            language=given.get("language"),
        )

    # --- counting tokens

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text, by the model's tokenizer. No weights are loaded. Blocks."""
        return self.custom_get_token_ids(text) if self.custom_get_token_ids else self._counter().ids(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Tokens of the prompt that is made of messages and tools, as the model's chat template has it. Blocks.

        Where the tokenizer cannot be read, a token is estimated as four characters.

        Raises:
            InputError: a message or a tool cannot be read.
        """
        if self.custom_get_token_ids:
            return super().get_num_tokens_from_messages(messages)
        return self._counter().of_messages(
            messages, bound_tools(tools or (), None, strict=None, parallel=None)["tools"]
        )

    def _counter(self) -> TokenCounter:
        if self.guard is not None:
            return TokenCounter(self.guard.model, self.guard.model_options)
        return TokenCounter(self.model_name, self.backend_options)

    # --- LangChain's doors

    def bind(self, **kwargs: Any) -> Any:
        """The model with keywords for each call.

        Raises:
            InputError: a call takes no such keyword.
        """
        check_keywords(kwargs, PER_CALL, "a call of ChatStars")
        return super().bind(**kwargs)

    def bind_tools(
        self,
        tools: Sequence[Any],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools that it may call. A call is judged whole before it is released.

        Args:
            tools: functions, pydantic classes, dicts, `BaseTool`.
            tool_choice: ``auto``; ``any``, ``required`` or True for one of them; a name for that one; ``none``. A
                forced call is generated under the schema of its arguments, and is the whole answer.
            strict: generate calls of ``auto`` under their schemas too.
            parallel_tool_calls: False ends the answer after its first call.

        Raises:
            InputError: something is not a tool, or the choice names none of them.
        """
        bound = bound_tools(tools, tool_choice, strict=strict, parallel=parallel_tool_calls)
        return self.bind(**bound, **kwargs)  # type: ignore[no-any-return]

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """The model with its answers parsed; see `langchain_stars._structured_output.structured`.

        Args:
            schema: a pydantic class, a TypedDict or a JSON schema.
            include_raw: give ``raw``, ``parsed`` and ``parsing_error``, and raise nothing.
            strict: without effect, because schemas are always kept to.

        Raises:
            ModelRefusalError: when run, the guard refused; a parser's error says that parsing failed.
        """
        return structured(self, schema, method, include_raw=include_raw, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return run(self._answer(BLOCKING, messages, stop, run_manager, kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await self._answer(AWAITING, messages, stop, run_manager, kwargs)

    # no generators themselves: the run is that of the moment when LangChain asks for the stream

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        tracked = run_manager or current_run()
        chunks = iterate(self._chunks(BLOCKING, messages, stop, tracked, kwargs))
        if isinstance(tracked, TrackedRun):
            tracked.hold(chunks)
        return chunks

    def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        tracked = run_manager or current_run()
        chunks = self._chunks(AWAITING, messages, stop, tracked, kwargs)
        if isinstance(tracked, TrackedRun):
            tracked.hold(chunks)
        return chunks

    async def _answer(
        self,
        waiting: Waiting,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run: ModelRun | None,
        given: dict[str, Any],
    ) -> ChatResult:
        with langchain_errors():
            guard = await self._guard_of(waiting, given)
            options = self._options(stop, run and run.run_id, given)
            done = await reported_answer(waiting, guard, to_messages(messages), options, run)
            done = await self._lone_calls(waiting, guard, messages, options).without_rejected(done)
        return result_of(guard, done)

    async def _chunks(
        self,
        waiting: Waiting,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run: ModelRun | None,
        given: dict[str, Any],
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        with langchain_errors():
            guard = await self._guard_of(waiting, given)
            options = self._options(stop, run and run.run_id, given)
            chunks = AnswerChunks(guard, beside_blocks=self.output_version == "v1")
            calls = self._lone_calls(waiting, guard, messages, options)
            async with aclosing(reported_events(waiting, guard, to_messages(messages), options, run)) as events:
                async for event in events:
                    chunk = chunks.of(await calls.without_rejected(event))
                    if chunk is None:
                        continue
                    if run is not None and not isinstance(run, TrackedRun):
                        await waiting.result(run.on_llm_new_token(chunk.text, chunk=chunk))
                    yield chunk

    def _lone_calls(
        self, waiting: Waiting, guard: Guard, messages: Sequence[BaseMessage], options: CallOptions
    ) -> LoneCalls:
        return LoneCalls(waiting, guard, messages, options.tools, in_agent=self._listener is not None)

    @property
    def _llm_type(self) -> str:
        return "stars-guard"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """With the policy's digest, so that a cache never answers for another policy."""
        names = ("model_name", "backend", "base_url", "max_tokens", "seed", "stop", *SAMPLING)
        params = {name: shown(name, getattr(self, name)) for name in names}
        params["policy_sha256"] = self._current_policy({}).sha256
        if self.backend_options:
            params["backend_options_sha256"] = digest_of(self.backend_options)
        if self.guard is not None:
            params["guard"] = _ready_guards.setdefault(self.guard, uuid4().hex)
        return params

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        given = dict(kwargs)
        if kwargs.get("policy") is not None:
            kwargs["policy"] = self._current_policy(kwargs).sha256
        kwargs["stars_guard"] = sorted(self._identifying_params.items(), key=str)
        if self.guard is None:  # a policy that has changed may not be in use yet
            kwargs["policy_in_use"] = self._guards.policy_in_use(self._recipe(given)).sha256
        if self.base_url is not None:  # with what is hidden elsewhere
            kwargs["base_url_sha256"] = digest_of({"base_url": self.base_url})
        return super()._get_llm_string(stop, **kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop, **kwargs)
        params["ls_provider"] = "stars-guard"
        params["ls_model_name"] = kwargs.get("model", self.model_name)
        return params

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        return ["langchain_stars", "chat_model"]
