"""An agent's answer counts as judged only if a guarded model has just shown it and nobody has changed it since."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hidden_scenarios import BAD, INPUT, Scripted
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelFallbackMiddleware
from langchain.agents.middleware.types import ModelResponse
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from pydantic import BaseModel

from langchain_stars import ChatStars, StarsGuardMiddleware
from langchain_stars._shown_answers import ShownAnswers
from stars_guard.errors import InputError
from stars_guard.guard import Guard
from stars_guard.testing import ScriptedBackend

pytestmark = pytest.mark.filterwarnings("ignore")

KEY: dict[str, Any] = {"name": "key", "type": "patterns", "patterns": [{"name": "k", "regex": r"AKIA[A-Z0-9]{16}"}]}
POLICY: dict[str, Any] = {
    "apiVersion": "stars-guard/v1",
    "name": "no-output-rail",
    "decoding": {"attempts": 2, "on_exhausted": "refuse"},
    "judges": [KEY],
}
LOOSE = {"apiVersion": "stars-guard/v1", "name": "loose", "judges": []}


def writing(text: str) -> ScriptedBackend:
    words = [word + " " for word in text.split(" ")]
    return ScriptedBackend(lambda m, prefix, r: words[len(prefix)] if len(prefix) < len(words) else None)


def ours(text: str = "fine answer", policy: Any = LOOSE) -> ChatStars:
    return ChatStars(guard=Guard(policy, model=writing(text), audit="memory://"))


class Inner(AgentMiddleware):
    """Changes a model call inside the guard."""

    def __init__(self, change: Callable[[Any, Callable[[Any], Any]], Any]) -> None:
        super().__init__()
        self._change = change

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return self._change(request, handler)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        loop = asyncio.get_running_loop()

        def wait(request: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(handler(request), loop).result()

        return await asyncio.to_thread(self._change, request, wait)


def edited(response: Any, **update: Any) -> Any:
    return ModelResponse(result=[response.result[0].model_copy(update=update)])


def in_place(request: Any, handler: Any) -> Any:
    response = handler(request)
    response.result[0].content = f"edited {BAD}"
    return response


CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "another model": lambda r, h: h(r.override(model=Scripted(answers=[f"the {BAD} ok"]))),
    "our model under another policy": lambda r, h: h(r.override(model=ours(f"the {BAD} ok"))),
    "a new request": lambda r, h: h(type(r)(model=Scripted(answers=[f"the {BAD}"]), messages=r.messages)),
    "a message of its own": lambda r, h: AIMessage(f"mine {BAD}"),
    "a model of its own": lambda r, h: Scripted(answers=[f"the {BAD} ok"]).invoke(r.messages),
    "an edited text": lambda r, h: edited(h(r), content=f"edited {BAD}"),
    "an edited block": lambda r, h: edited(h(r), content=[{"type": "text", "text": f"edited {BAD}"}]),
    "a text edited in place": in_place,
    "a claim": lambda r, h: AIMessage(f"mine {BAD}", response_metadata=h(r).result[0].response_metadata),
    "two answers": lambda r, h: ModelResponse(result=[*h(r).result, AIMessage(f"mine {BAD}")]),
}


def run(made: Any, *, is_async: bool) -> str:
    """All that the caller sees of a run."""

    async def collect() -> list[Any]:
        return [one async for one in made.astream(INPUT, stream_mode=["messages", "values", "updates", "debug"])]

    return repr(
        asyncio.run(collect())
        if is_async
        else list(made.stream(INPUT, stream_mode=["messages", "values", "updates", "debug"]))
    )


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_what_middleware_inside_puts_in_the_place_of_an_answer_is_judged(change: str, is_async: bool) -> None:
    guard = StarsGuardMiddleware(policy=POLICY, audit="memory://")
    made = create_agent(ours(), tools=[], middleware=[guard, Inner(CHANGES[change])])
    assert BAD not in run(made, is_async=is_async)


def test_a_fallback_is_judged() -> None:
    def broken(messages: Any, prefix: Any, random: Any) -> str:
        raise RuntimeError("down")

    down = ChatStars(guard=Guard(LOOSE, model=ScriptedBackend(broken), audit="memory://"))
    fallback = ModelFallbackMiddleware(Scripted(answers=[f"the {BAD} ok"]))
    guard = StarsGuardMiddleware(policy=POLICY, audit="memory://")
    assert BAD not in run(create_agent(down, tools=[], middleware=[guard, fallback]), is_async=False)
    better = ModelFallbackMiddleware(Scripted(answers=["a good answer"]))
    made = create_agent(down, tools=[], middleware=[guard, better])
    assert made.invoke(INPUT)["messages"][-1].text == "a good answer"


def test_an_answer_of_the_guarded_model_is_judged_and_shown_once() -> None:
    guard = StarsGuardMiddleware(policy=POLICY, audit="memory://")
    made = create_agent(ours("one two"), tools=[], middleware=[guard, Inner(lambda r, h: h(r))])
    chunks = [chunk.text for chunk, _ in made.stream(INPUT, stream_mode="messages")]
    assert "".join(chunks) == "one two "
    message = made.invoke(INPUT)["messages"][-1]
    records = guard._guards._memory.records
    assert [record.policy for record in records if record.stage == "answer"] == ["no-output-rail"] * 2
    assert message.response_metadata["stars_guard"]["audit_id"] == records[-1].call_id


@pytest.mark.parametrize("name", ["policy", "model"])
def test_model_settings_do_not_choose_another_guard(name: str) -> None:
    value: Any = {"policy": LOOSE, "model": "other"}[name]
    for model in (ours(f"the {BAD} ok"), ChatStars(policy=LOOSE, policies=[LOOSE, "default"])):
        guard = StarsGuardMiddleware(policy=POLICY, audit="memory://")
        inner = Inner(lambda r, h: h(r.override(model_settings={name: value})))
        made = create_agent(model, tools=[], middleware=[guard, inner])
        if name == "policy" or model.guard is not None:
            with pytest.raises(InputError, match="may not be chosen"):
                made.invoke(INPUT)


class Found(BaseModel):
    text: str


def test_structured_values_that_the_answer_does_not_hold_are_judged() -> None:
    response = ModelResponse([AIMessage('{"text": "fine"}')])
    shown = ShownAnswers()
    shown.on_llm_end(LLMResult(generations=[[ChatGeneration(message=response.result[0])]]))
    assert shown.holds_all_of(response)
    assert shown.holds_all_of(ModelResponse(response.result, {"text": "fine"}))
    assert shown.holds_all_of(ModelResponse(response.result, Found(text="fine")))
    assert not shown.holds_all_of(ModelResponse(response.result, Found(text=BAD)))
    assert not shown.holds_all_of(ModelResponse(response.result, {"text": {"deep": [BAD]}}))
    assert not shown.holds_all_of(ModelResponse([*response.result, HumanMessage("x")]))
