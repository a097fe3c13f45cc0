"""LangChain's caches get no answer before it is judged, and give none that was judged under another policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hidden_scenarios import BAD, INPUT, POLICY, Scripted, agent, calls
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableParallel
from langchain_core.tools import tool

from langchain_stars import ChatStars, guard_runnable
from stars_guard.core.grammar import Grammar
from stars_guard.guard import Guard
from stars_guard.testing import ScriptedBackend

pytestmark = pytest.mark.filterwarnings("ignore")


class Named(Scripted):
    """Its parameters tell it apart, as those of most makers' models do."""

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": "x"}


class Watched(InMemoryCache):
    """Takes down what it was asked for and given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def lookup(self, prompt: str, llm_string: str) -> Any:
        self.seen.append(f"lookup {prompt}")
        return super().lookup(prompt, llm_string)

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        self.seen.append(f"update {return_val}")
        super().update(prompt, llm_string, return_val)


@pytest.fixture(params=["global", "own"])
def cache(request: pytest.FixtureRequest) -> Iterator[tuple[Watched, dict[str, Any]]]:
    made = Watched()
    if request.param == "own":
        yield made, {"cache": made}
    else:
        set_llm_cache(made)
        yield made, {}
        set_llm_cache(None)


def _guarded(runnable: Any) -> Any:
    return guard_runnable(runnable, POLICY, audit="memory://", attempts=2)


def _in_a_tool(model: Any) -> Any:
    @tool
    def asks(q: str) -> str:
        """Asks a model."""
        return str(model.invoke(q).text)

    return agent(Scripted(answers=[calls("asks"), "done"]), [asks])


PROMPT = ChatPromptTemplate.from_messages([("user", "{messages}")])
PLACES: dict[str, Callable[[Any], Any]] = {
    "agent": agent,
    "runnable": lambda m: PROMPT | _guarded(m),
    "bound": lambda m: PROMPT | _guarded(m.bind(stop=["x"])),
    "chain": lambda m: _guarded(PROMPT | m),
    "parallel": lambda m: _guarded(PROMPT | RunnableParallel(a=m) | (lambda found: found["a"])),
    "fallback": lambda m: _guarded(PROMPT | m.with_fallbacks([m])),
}


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", [Scripted, Named])
@pytest.mark.parametrize("place", PLACES)
def test_a_rejected_answer_is_neither_kept_nor_given_again(
    place: str, kind: Any, is_async: bool, cache: tuple[Watched, dict[str, Any]]
) -> None:
    watched, kwargs = cache
    made = PLACES[place](kind(answers=[f"the key is {BAD}", "a good answer"], **kwargs))
    result = asyncio.run(made.ainvoke(INPUT)) if is_async else made.invoke(INPUT)
    last = result["messages"][-1] if isinstance(result, dict) else result
    assert last.text == "a good answer"
    assert not watched.seen


def test_a_model_in_a_judged_tool_leaves_the_global_cache_alone() -> None:
    watched = Watched()
    set_llm_cache(watched)
    try:
        assert BAD not in repr(_in_a_tool(Named(answers=[f"the {BAD}"])).invoke(INPUT))
        assert BAD not in repr(watched.seen)
    finally:
        set_llm_cache(None)


def test_outside_of_a_guard_the_caches_are_what_they_were(cache: tuple[Watched, dict[str, Any]]) -> None:
    watched, kwargs = cache
    model = Named(answers=["one", "two"], **kwargs)
    agent(model).invoke(INPUT)
    assert model.invoke("hi").text == "two"
    assert model.invoke("hi").text == "two"
    assert asyncio.run(model.ainvoke("hi")).text == "two"
    assert model.at == 2
    assert len([one for one in watched.seen if one.startswith("update")]) == 1


def _key(model: Any, /, **bound: Any) -> str:
    return str(model._get_llm_string(stop=None, **bound))


OTHER: dict[str, Any] = {
    "model_name": "another",
    "policy": "paper-hh-rlhf",
    "backend": "transformers",
    "base_url": "http://host/?model=b",
    "timeout": None,
    "backend_options": {"dtype": "float32"},
    "temperature": 0.1,
    "top_p": 0.1,
    "top_k": 1,
    "min_p": 0.1,
    "repetition_penalty": 1.5,
    "max_tokens": 3,
    "seed": 7,
    "stop": ["x"],
    "output_version": "v1",
}


@pytest.mark.parametrize("name", [name for name, value in OTHER.items() if value is not None])
def test_whatever_decides_an_answer_is_in_its_key(name: str) -> None:
    base = ChatStars(base_url="http://host/?model=a") if name == "base_url" else ChatStars()
    assert _key(base.model_copy(update={name: OTHER[name]})) != _key(base)


BOUND: dict[str, Any] = {
    "model": "another",
    "max_tokens": 3,
    "seed": 7,
    "temperature": 0.1,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "response_format": {"type": "json_object"},
    "grammar": Grammar.json_schema({"type": "object"}),
}


@pytest.mark.parametrize("name", BOUND)
def test_whatever_a_call_binds_is_in_its_key(name: str) -> None:
    assert _key(ChatStars(), **{name: BOUND[name]}) != _key(ChatStars())


def test_judges_options_are_in_the_key() -> None:
    def policy(limit: float) -> dict[str, Any]:
        judge = {"name": "pii", "type": "pii", "kinds": ["email"], "reject_above": limit}
        return {"apiVersion": "stars-guard/v1", "name": "t", "judges": [judge]}

    assert _key(ChatStars(policy=policy(0.4))) != _key(ChatStars(policy=policy(0.6)))
    base = ChatStars(policies=[policy(0.4), policy(0.6)])
    assert _key(base, policy=policy(0.4)) != _key(base, policy=policy(0.6))


def test_a_guarded_models_answers_are_kept_for_its_policy_alone() -> None:
    def ours() -> ChatStars:
        words = ScriptedBackend(lambda m, prefix, r: ["says ", BAD][len(prefix)] if len(prefix) < 2 else None)
        return ChatStars(guard=Guard(LOOSE, model=words, audit="memory://"))

    set_llm_cache(InMemoryCache())
    try:
        model = ours()
        assert BAD in model.invoke("hi").text
        assert BAD in model.invoke("hi").text
        assert BAD not in repr(list(agent(model).stream(INPUT, stream_mode=["messages", "values"])))
    finally:
        set_llm_cache(None)


LOOSE = {"apiVersion": "stars-guard/v1", "name": "loose", "judges": []}
