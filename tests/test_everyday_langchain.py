"""What people who use LangChain every day do: one value for a list, plain functions, its errors, its counters."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import guard, rewarding, vetoing
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core import exceptions
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, trim_messages
from langchain_core.runnables import ConfigurableField, RunnableLambda

from langchain_stars import ChatStars, StarsGuardMiddleware, guard_runnable
from stars_guard.audit import MemoryStore
from stars_guard.backends.base import OpenRequest
from stars_guard.engines.embedded_models import generator_dir
from stars_guard.errors import (
    BackendError,
    BackendUnavailable,
    BudgetExhausted,
    ContextTooLong,
    InputError,
    StarsGuardError,
)
from stars_guard.guard import Guard
from stars_guard.testing.scripted import ScriptedBackend

WORDS = ["one ", "two ", "END ", "three "]


def counting() -> ScriptedBackend:
    return ScriptedBackend(lambda messages, prefix, rng: WORDS[len(prefix)] if len(prefix) < len(WORDS) else None)


def chat(backend: ScriptedBackend | None = None, **fields: Any) -> ChatStars:
    return ChatStars(guard=guard(rewarding(lambda p: 9.0), backend=backend or counting()), **fields)


# --- stop strings


@pytest.mark.parametrize("stop", ["END", ["END"], ("END",)])
def test_one_stop_string_is_one(stop: Any) -> None:
    for model in (chat(stop=stop), chat(stop_sequences=stop), chat().model_copy(update={"stop": stop})):
        assert model.invoke("hi").text == "one two "
        assert "".join(chunk.text for chunk in model.stream("hi")) == "one two "
        assert model.invoke("hi", stop="three").text == "one two END "
    assert chat().bind(stop=stop).invoke("hi").text == "one two "
    assert chat().invoke("hi", stop=stop).text == "one two "
    assert "".join(chunk.text for chunk in chat().stream("hi", stop=stop)) == "one two "


@pytest.mark.parametrize("stop", [[""], "", ["END", ""], [1]])
def test_what_is_no_stop_string_is_named(stop: Any) -> None:
    for call in (
        lambda: chat(stop=stop),
        lambda: chat().invoke("hi", stop=stop),
        lambda: list(chat().bind(stop=stop).stream("hi")),
        lambda: chat().model_copy(update={"stop": stop}),
    ):
        with pytest.raises(InputError, match="stop string"):
            call()


# --- numbers


@pytest.mark.parametrize("name", ["max_tokens", "seed", "top_k", "temperature", "top_p", "min_p", "repetition_penalty"])
@pytest.mark.parametrize("value", ["5", "0.5", "x", True, False, float("nan"), 1e300, [1], {}, b"1"], ids=str)
def test_what_is_no_number_is_named_by_every_door(name: str, value: Any) -> None:
    async def ainvoke() -> None:
        await chat().ainvoke("hi", **{name: value})

    field = ConfigurableField(id=name)
    for call in (
        lambda: chat(**{name: value}),
        lambda: chat().invoke("hi", **{name: value}),
        lambda: list(chat().bind(**{name: value}).stream("hi")),
        lambda: chat().model_copy(update={name: value}),
        lambda: chat().configurable_fields(**{name: field}).invoke("hi", {"configurable": {name: value}}),
        lambda: asyncio.run(ainvoke()),
    ):
        with pytest.raises(InputError, match=name):
            call()


@pytest.mark.parametrize("half", ["\ud800", "a\udfff", "\ude00\ud83d"], ids=ascii)
def test_half_a_character_is_named_by_every_door(half: str) -> None:
    described = {"type": "function", "function": {"name": "f", "description": half, "parameters": {}}}
    for call in (
        lambda: chat().invoke(half),
        lambda: list(chat().stream([HumanMessage([{"type": "text", "text": half}])])),
        lambda: chat().batch(["fine", half]),
        lambda: chat().invoke([("system", half), ("human", "hi")]),
        lambda: chat().invoke("hi", stop=[half]),
        lambda: chat().bind_tools([described]).invoke("hi"),
        lambda: guard_runnable(plain, NO_TROUT, audit=MemoryStore()).invoke(half),
    ):
        with pytest.raises(InputError, match="surrogate"):
            call()


# --- one for many, paths


def test_one_policy_is_a_list_of_one_and_a_model_may_be_a_path(tmp_path: Path) -> None:
    model = ChatStars(model=tmp_path, policies="strict")
    assert model.model_name == str(tmp_path)
    assert model._guard({"policy": "strict"}).policy.name == "strict"
    assert model.model_copy(update={"policies": "monitor", "model": tmp_path}).policies == ["monitor"]
    mapped = ChatStars(policies={"extends": "strict", "name": "mine"})
    assert len(mapped.policies) == 1


# --- LangChain's errors


class Failing(ScriptedBackend):
    def __init__(self, error: StarsGuardError) -> None:
        super().__init__(counting().script)
        self.error = error

    async def open(self, request: OpenRequest) -> Any:
        raise self.error


class OwnError(BackendUnavailable):
    """A plugin's."""


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ContextTooLong("too long", hint="shorten"), "ContextOverflowError"),
        (InputError("no"), "ModelInvalidRequestError"),
        (BackendUnavailable("away"), "ModelConnectionError"),
        (OwnError("away"), "ModelConnectionError"),
        (BackendError("broken"), "ModelError"),
    ],
)
async def test_errors_are_langchains_too(error: StarsGuardError, name: str) -> None:
    model, kind = chat(Failing(error)), getattr(exceptions, name)

    async def astream() -> None:
        async for _ in model.astream("hi"):
            pass

    found = []
    for call in (lambda: model.invoke("hi"), lambda: list(model.stream("hi"))):
        with pytest.raises(kind) as caught:
            call()
        found.append(caught.value)
    for awaited in (lambda: model.ainvoke("hi"), astream):
        with pytest.raises(kind) as caught:
            await awaited()
        found.append(caught.value)
    for one in found:
        assert isinstance(one, type(error))
        assert (str(one), one.__cause__, one.is_retryable) == (str(error), error, error.retryable)
        again = pickle.loads(pickle.dumps(one))
        assert isinstance(again, kind)
        assert (type(again), str(again)) == (type(one), str(error))


def test_a_verdict_that_is_raised_is_a_refusal() -> None:
    model = ChatStars(guard=guard(vetoing(" "), on_exhausted="raise"))
    with pytest.raises(exceptions.ModelRefusalError) as caught:
        model.invoke("hi")
    assert isinstance(caught.value, BudgetExhausted)
    assert caught.value.audit_id


def test_a_conversation_that_is_too_long_is_summarised_from_less_of_it() -> None:
    summariser = chat(ScriptedBackend(counting().script, context=2000))
    middleware = SummarizationMiddleware(summariser, trigger=("messages", 4), keep=("messages", 1))
    answering = GenericFakeChatModel(messages=iter([AIMessage("fine")]))
    long = [HumanMessage("word " * 900), AIMessage("word " * 900), HumanMessage("word " * 900), HumanMessage("now?")]
    state = create_agent(answering, [], middleware=[middleware]).invoke({"messages": list(long)})
    assert "one two END three" in state["messages"][0].text
    assert state["messages"][-1].text == "fine"


# --- what is guarded


def plain(given: str) -> str:
    return f"{given} a bream"


async def awaited(given: str) -> str:
    return f"{given} a bream"


def pieces(given: Iterator[str]) -> Iterator[str]:
    for one in given:
        yield one
        yield " a bream"


async def awaited_pieces(given: AsyncIterator[str]) -> AsyncIterator[str]:
    async for one in given:
        yield one
        yield " a bream"


NO_TROUT = {
    "apiVersion": "stars-guard/v1",
    "name": "no-trout",
    "judges": [{"name": "trout", "type": "patterns", "patterns": [{"name": "fish", "regex": "trout"}]}],
    "decoding": {"on_exhausted": "refuse", "segment_tokens": 2},
}


@pytest.mark.parametrize("function", [plain, awaited, awaited_pieces, lambda given: f"{given} a bream"])
async def test_functions_are_guarded(function: Callable[..., Any]) -> None:
    guarded = guard_runnable(function, NO_TROUT, audit=MemoryStore())
    assert await guarded.ainvoke("hi") == "hi a bream"
    assert await guarded.ainvoke("trout") == "I can't help with that."
    assert "".join([piece async for piece in guarded.astream("hi")]) == "hi a bream"


@pytest.mark.parametrize("function", [plain, pieces, {"a": plain}])
def test_functions_are_guarded_for_callers_that_block(function: Any) -> None:
    guarded = guard_runnable(function, NO_TROUT, audit=MemoryStore())
    expected = {"a": "hi a bream"} if isinstance(function, dict) else "hi a bream"
    assert guarded.invoke("hi") == expected
    with pytest.raises(InputError, match="cannot guard a int"):
        guard_runnable(3, NO_TROUT)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, 3, 0.5, True, [], {}, "", b""])
def test_a_value_without_text_passes(value: Any) -> None:
    guarded = guard_runnable(RunnableLambda(lambda _: value), NO_TROUT, audit=MemoryStore())
    assert guarded.invoke("hi") == value


@pytest.mark.parametrize("text", [str.upper, len, lambda value: value])
def test_what_a_runnable_that_gives_nothing_says_is_not_asked_for(text: Any) -> None:
    asked = []

    def counted(value: Any) -> str:
        asked.append(value)
        return str(text(value)) if value == "hi" else text(value)

    guarded = guard_runnable(RunnableLambda(lambda _: None), NO_TROUT, audit=MemoryStore(), text=counted)
    assert guarded.invoke("hi") is None
    assert set(asked) == {"hi"}


def test_a_text_that_is_none_is_named() -> None:
    guarded = guard_runnable(RunnableLambda(lambda _: 3), NO_TROUT, audit=MemoryStore(), text=lambda value: value)
    with pytest.raises(InputError, match="text= gave a int"):
        guarded.invoke("hi")


# --- two middlewares


def test_two_middlewares_stand_side_by_side() -> None:
    def no(word: str) -> dict[str, Any]:
        judge = {"name": word, "type": "patterns", "patterns": [{"name": "fish", "regex": word}]}
        return {**NO_TROUT, "name": f"no-{word}", "judges": [judge], "rails": {"input": {"judges": [judge]}}}

    middleware = [
        StarsGuardMiddleware(no("trout"), audit=MemoryStore(), name="first"),
        StarsGuardMiddleware(no("perch"), audit=MemoryStore()),
    ]
    assert [one.name for one in middleware] == ["first", "StarsGuardMiddleware"]

    def last(said: str, asked: str = "hi", **model: Any) -> str:
        answering = model.get("model") or GenericFakeChatModel(messages=iter([AIMessage(said)] * 20))
        agent = create_agent(answering, [], middleware=middleware)
        return str(agent.invoke({"messages": [HumanMessage(asked)]})["messages"][-1].text)

    assert last("a bream") == "a bream"
    for word in ("trout", "perch"):
        assert last(f"a {word}") == "I can't help with that."
        assert last("a bream", asked=f"a {word}") == "I can't help with that."
        writing = ScriptedBackend(lambda messages, prefix, rng, word=word: [f"a {word}", None][len(prefix)])
        assert last("", model=ChatStars(guard=guard(backend=writing))) == "I can't help with that."


def test_what_one_middleware_has_judged_another_has_not() -> None:
    from langchain_stars._trust import remember
    from langchain_stars._unjudged import _judged_before, judged_so_far

    made = guard(rewarding())
    message = HumanMessage("hi")
    state: dict[str, Any] = {"messages": [message], "stars_guard_judged": ["first:abc", "abc"]}
    assert _judged_before(state, "first") == _judged_before(state, "") == {"abc"}
    assert _judged_before(state, "second") == set()
    remember(message, made.policy)
    assert judged_so_far(made, state) == {}


# --- counting tokens


def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(generator_dir())


@pytest.mark.parametrize("ready", [False, True])
def test_tokens_are_counted_by_the_models_own_tokenizer(ready: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)  # no weights
    made = Guard(NO_TROUT, model="embedded", audit=MemoryStore())
    model = ChatStars(guard=made) if ready else ChatStars(model="embedded", audit="memory://")
    text = "Counting <|im_start|> tokens, 😀 too."
    assert 5 < model.get_num_tokens(text) == len(model.get_token_ids(text)) < 40
    messages = [HumanMessage("Hello there"), AIMessage("Hi."), HumanMessage("How are you?")]
    own = tokenizer()
    plain = [
        {"role": role, "content": m.content} for role, m in zip(["user", "assistant", "user"], messages, strict=True)
    ]
    expected = own.apply_chat_template(plain, add_generation_prompt=True, return_dict=False)
    assert abs(model.get_num_tokens_from_messages(messages) - len(expected)) <= 2 * len(messages)
    assert model.get_num_tokens_from_messages(messages, tools=[plain_tool]) > len(expected) + 10
    assert model.get_num_tokens_from_messages([]) == 0


def plain_tool(city: str) -> str:
    """The weather in a city."""
    return city


@pytest.mark.parametrize("model", ["embedded", "/nowhere/at/all", "scripted"])
def test_messages_are_trimmed(model: str) -> None:
    chosen = chat() if model == "scripted" else ChatStars(model=model, audit="memory://")
    messages: list[Any] = [HumanMessage(f"{i} " + "word " * 50) for i in range(20)]
    trimmed = trim_messages(messages, max_tokens=300, token_counter=chosen)
    assert 1 <= len(trimmed) < 10
    assert trimmed[-1] is messages[-1] or trimmed[-1] == messages[-1]
    assert chosen.get_num_tokens_from_messages(trimmed) <= 300
    assert chosen.get_num_tokens("") == 0


def test_an_estimate_is_of_four_characters() -> None:
    assert [chat().get_num_tokens("x" * n) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
    custom = chat(custom_get_token_ids=lambda text: [7] * len(text))
    assert custom.get_num_tokens("abc") == 3
