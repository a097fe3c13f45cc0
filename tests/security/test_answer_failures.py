"""The error of a guarded model or chain does not bring out what its answer may not say."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from hidden_scenarios import BAD, INPUT, POLICY, Scripted, agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.output_parsers import JsonOutputParser, XMLOutputParser
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import interrupt

from langchain_stars import guard_runnable
from stars_guard.errors import Refused

pytestmark = pytest.mark.filterwarnings("ignore")


class Ears(BaseCallbackHandler):
    """Hears every error."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self.heard.append(all_of(error))

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.heard.append(all_of(error))


def all_of(error: BaseException | None) -> str:
    """Everything that somebody finds in an error."""
    text = "".join(traceback.format_exception(error))
    while error is not None:
        text += repr((error, error.args, vars(error)))
        error = error.__cause__ or error.__context__
    return text


def plainly(_: Any) -> Any:
    raise ValueError(f"oops {'AKIA'}{BAD[4:]}")


def in_an_attribute(_: Any) -> Any:
    error = RuntimeError("oops")
    error.completion = {"choices": [BAD]}  # type: ignore[attr-defined]
    raise error


def in_its_cause(_: Any) -> Any:
    try:
        plainly(_)
    except ValueError as exc:
        raise RuntimeError("harmless") from exc


def in_a_note(_: Any) -> Any:
    error = RuntimeError("oops")
    error.add_note(BAD)
    raise error


def in_a_group(_: Any) -> Any:
    raise ExceptionGroup("several", [KeyError("one"), ValueError(BAD)])


CHAINS: dict[str, Callable[[], Runnable[Any, Any]]] = {
    "a parser of JSON": lambda: Scripted(answers=[f"no json {BAD}"]) | JsonOutputParser(),
    "a parser of XML": lambda: Scripted(answers=[f"<a>{BAD}"]) | XMLOutputParser(),
    **{
        way.__name__: lambda way=way: RunnableLambda(way)  # type: ignore[misc]
        for way in (plainly, in_an_attribute, in_its_cause, in_a_note, in_a_group)
    },
}


def doors(made: Any, given: Any, config: Any) -> Iterator[Callable[[], Any]]:
    yield lambda: made.invoke(given, config)
    yield lambda: asyncio.run(made.ainvoke(given, config))
    yield lambda: list(made.stream(given, config))

    async def collect() -> list[Any]:
        return [one async for one in made.astream(given, config)]

    yield lambda: asyncio.run(collect())
    yield lambda: made.batch([given], config)


@pytest.mark.parametrize("what", CHAINS)
def test_a_chains_error_is_judged(what: str) -> None:
    ears = Ears()
    for door in doors(guard_runnable(CHAINS[what](), POLICY, audit="memory://"), "hi", {"callbacks": [ears]}):
        try:
            seen = repr(door())  # some parsers stream what they have understood
        except Exception as exc:
            seen = all_of(exc)
        assert BAD not in seen
    assert BAD not in repr(ears.heard)


def test_an_error_amid_a_stream_is_judged() -> None:
    async def chunks(_: AsyncIterator[Any]) -> AsyncIterator[str]:
        for _number in range(30):
            yield "harmless words "
        plainly(None)

    def blocking(_: Iterator[Any]) -> Iterator[str]:
        for _number in range(30):
            yield "harmless words "
        plainly(None)

    made = guard_runnable(RunnableGenerator(blocking, chunks), POLICY, audit="memory://")
    seen: list[str] = []
    with pytest.raises(Refused, match="withheld") as found:
        seen.extend(made.stream("hi"))
    assert seen
    assert BAD not in all_of(found.value)

    async def collect() -> None:
        async for one in made.astream("hi"):
            seen.append(one)

    with pytest.raises(Refused, match="withheld") as found:
        asyncio.run(collect())
    assert BAD not in all_of(found.value)


def test_an_error_that_passes_its_judges_is_the_chains_own() -> None:
    error = KeyError("harmless")

    def fails(_: Any) -> Any:
        raise error

    rewarded = {**POLICY, "decoding": {"attempts": 1, "on_exhausted": "raise"}}
    for policy in (POLICY, rewarded, {**POLICY, "mode": "monitor"}):
        with pytest.raises(KeyError) as found:
            guard_runnable(RunnableLambda(fails), policy, audit="memory://").invoke("hi")
        assert found.value is error
    with pytest.raises(OutputParserException):
        guard_runnable(Scripted(answers=["no json"]) | JsonOutputParser(), POLICY, audit="memory://").invoke("hi")


class Fails(AgentMiddleware):
    """Fails inside the guard after the model has answered."""

    def __init__(self, way: Callable[[Any], Any]) -> None:
        super().__init__()
        self._way = way

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return self._way(handler(request).result[0].text)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return self._way((await handler(request)).result[0].text)


@pytest.mark.parametrize("way", [plainly, in_an_attribute, in_its_cause, in_a_note, in_a_group, interrupt])
def test_the_error_of_an_agents_model_call_is_judged(way: Any) -> None:
    saver, ears = InMemorySaver(), Ears()
    made = agent(Scripted(answers=[BAD]), inner=[Fails(way)], checkpointer=saver)
    for number, door in enumerate(doors(made, INPUT, {"configurable": {"thread_id": "1"}, "callbacks": [ears]})):
        with pytest.raises(Refused, match="withheld") as found:
            door()
        assert BAD not in all_of(found.value), number
    assert BAD not in repr([ears.heard, list(saver.list(None))])
