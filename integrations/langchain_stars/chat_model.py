"""ChatStars: a LangChain chat model whose answers are judged while they are written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.base import LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils import secret_from_env
from pydantic import ConfigDict, Field, SecretStr

from langchain_stars._decision_events import NotingRuns, aanswer, aevents, answer, current_run, events
from langchain_stars._messages import metadata_of, to_messages, usage_of
from langchain_stars._structured_output import Method, structured
from langchain_stars._tool_binding import (
    bound_tools,
    call_chunks,
    calls_of,
    grammar_of,
    invalid_calls_of,
    toolset_of,
)
from stars_guard.core.events import Called, Event, Finished, Released
from stars_guard.errors import InputError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import LivePolicy, Policy

__all__ = ["ChatStars"]

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


class ChatStars(NotingRuns):
    """A chat model that draws its answers segment by segment under a policy.

    Example:
        ``ChatStars(model="embedded", policy="default").invoke("Hello")``

    ``policy``, ``model``, ``max_tokens``, ``seed`` and the sampling options may also be given per call. No model is
    loaded before the first call. A refusal is a message with a ``refusal`` content block; its reason is in the
    ``response_metadata``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, populate_by_name=True)

    model_name: str = Field(default="embedded", alias="model")
    """A Hugging Face directory or name; ``embedded`` is the built-in small model."""
    policy: str | Path | Policy = "default"
    """A shipped policy's name, a path or a `Policy`. A file that changes is read again; see `LivePolicy`."""
    policies: list[str | Path | Policy] = Field(default_factory=list)
    """Policies that a call may choose by ``policy=`` besides `policy`."""
    backend: str = "auto"
    """``auto``, ``transformers``, ``vllm`` (in process) or ``vllm-server``."""
    base_url: str | list[str] | None = None
    """One or several vLLM servers that serve the model."""
    api_key: SecretStr | None = Field(default_factory=secret_from_env("STARS_GUARD_API_KEY", default=None))
    backend_options: dict[str, Any] = Field(default_factory=dict)
    """More options of the backend, such as vLLM's engine arguments."""
    audit: str | None = None
    """The audit log's URL, instead of the policy's."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: list[str] | None = Field(default=None, alias="stop_sequences")

    @cached_property
    def _live(self) -> dict[str, LivePolicy]:
        return {}

    @cached_property
    def _guards(self) -> dict[tuple[str, str], Guard]:
        return {}

    def _policy(self, chosen: str | Path | Policy) -> Policy:
        if chosen not in (self.policy, *self.policies):
            name = chosen.name if isinstance(chosen, Policy) else chosen
            raise InputError(f"policy {str(name)!r} may not be chosen by a call", hint="list it in policies=[...]")
        source = chosen.sha256 if isinstance(chosen, Policy) else str(chosen)
        live = self._live.get(source) or self._live.setdefault(source, LivePolicy(chosen))
        return live.current

    def _guard(self, given: dict[str, Any]) -> Guard:
        chosen, model = given.get("policy") or self.policy, given.get("model") or self.model_name
        policy, key = self._policy(chosen), (model, str(chosen.name if isinstance(chosen, Policy) else chosen))
        guard = self._guards.get(key)
        if guard is not None and guard.policy is not policy:
            guard = self._guards[key] = guard.replaced(policy)
        if guard is None:
            options = dict(self.backend_options)
            if self.base_url is not None:
                options |= {"base_url": self.base_url, "api_key": self.api_key}
            guard = Guard(policy, model=model, backend=self.backend, options=options, audit=self.audit)
            self._guards[key] = guard
        return guard

    def _options(self, stop: list[str] | None, run_id: Any, given: dict[str, Any]) -> CallOptions:
        sampling = {name: given.get(name, getattr(self, name)) for name in _SAMPLING}
        return CallOptions(
            max_tokens=given.get("max_tokens", self.max_tokens),
            stop=tuple(stop or self.stop or ()),
            seed=given.get("seed", self.seed),
            sampling={name: value for name, value in sampling.items() if value is not None},
            run_id=str(run_id) if run_id else None,
            tools=toolset_of(given),
            grammar=grammar_of(given),
        )

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
            tool_choice: ``auto``; ``any``, ``required`` or True: one of them; a name: that one; ``none``. A forced call
                is drawn under the schema of its arguments, and is the whole answer.
            strict: draw calls of ``auto`` under their schemas too.
            parallel_tool_calls: False ends the answer after its first call.

        Raises:
            InputError: something is no tool, or the choice names none of them.
        """
        bound = bound_tools(tools, tool_choice, strict=strict, parallel=parallel_tool_calls)
        return self.bind(**bound, **kwargs)

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
            strict: without effect: schemas are always kept to.

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
        guard = self._guard(kwargs)
        options = self._options(stop, run_manager and run_manager.run_id, kwargs)
        return self._result(guard, answer(guard, to_messages(messages), options, run_manager))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        guard = self._guard(kwargs)
        options = self._options(stop, run_manager and run_manager.run_id, kwargs)
        return self._result(guard, await aanswer(guard, to_messages(messages), options, run_manager))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        guard = self._guard(kwargs)
        run = run_manager or current_run()
        options = self._options(stop, run and run.run_id, kwargs)
        for event in events(guard, to_messages(messages), options, run):
            if (chunk := self._chunk(guard, event)) is not None:
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        guard = self._guard(kwargs)
        run = run_manager or current_run()
        options = self._options(stop, run and run.run_id, kwargs)
        async for event in aevents(guard, to_messages(messages), options, run):
            if (chunk := self._chunk(guard, event)) is not None:
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def _result(self, guard: Guard, done: Finished) -> ChatResult:
        message = AIMessage(
            content=self._content(guard, done, done.text),
            tool_calls=calls_of(done),
            invalid_tool_calls=invalid_calls_of(done),
            usage_metadata=usage_of(done),
            response_metadata=metadata_of(done, guard.model_name),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _chunk(self, guard: Guard, event: Event) -> ChatGenerationChunk | None:
        match event:
            case Released(text=text):
                return ChatGenerationChunk(message=AIMessageChunk(content=text))
            case Called():
                chunks = call_chunks(event, beside_blocks=self.output_version == "v1")
                return ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=chunks))
            case Finished():
                return ChatGenerationChunk(
                    message=AIMessageChunk(
                        content=self._content(guard, event, ""),
                        usage_metadata=usage_of(event),
                        response_metadata=metadata_of(event, guard.model_name),
                        chunk_position="last",
                    )
                )
            case _:
                return None

    @staticmethod
    def _content(guard: Guard, done: Finished, text: str) -> Any:
        """The text; with a refusal, blocks: what was released and then the policy's refusal message."""
        if done.finish != "refused":
            return text
        refusal = {"type": "refusal", "refusal": guard.policy.refusal.message, "reason": done.reason}
        return [{"type": "text", "text": text}, refusal] if text else [refusal]

    @property
    def _llm_type(self) -> str:
        return "stars-guard"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """With the policy's digest, so that a cache never answers for another policy."""
        names = ("model_name", "backend", "base_url", "max_tokens", "seed", "stop", *_SAMPLING)
        return {
            **{name: getattr(self, name) for name in names},
            "policy_sha256": self._policy(self.policy).sha256,
        }

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        if "policy" in kwargs:
            kwargs["policy"] = self._policy(kwargs["policy"]).sha256
        kwargs["stars_guard"] = sorted(self._identifying_params.items(), key=str)
        return super()._get_llm_string(stop, **kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop, **kwargs)
        params["ls_provider"] = "stars-guard"
        params["ls_model_name"] = kwargs.get("model", self.model_name)
        return params

    @property
    def lc_secrets(self) -> dict[str, str]:
        return {"api_key": "STARS_GUARD_API_KEY"} if self.api_key else {}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        return ["langchain_stars", "chat_model"]
