"""guard_runnable: rails around chains whose model is not ours, sync and async, whole and streamed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda

from langchain_stars import guard_runnable
from langchain_stars._stream_pieces import PieceCutter
from stars_guard.audit import MemoryStore
from stars_guard.audit.urls import default_url
from stars_guard.errors import InputError, Refused

REFUSAL = "I can't help with that."


def patterns(name: str, regex: str) -> dict[str, Any]:
    return {"name": name, "type": "patterns", "patterns": [{"name": "code", "regex": regex}]}


def policy(**more: Any) -> dict[str, Any]:
    rails = {
        "input": {"judges": [patterns("asked", "swordfish")]},
        "tool_call": {"judges": [patterns("called", "rm -rf /")]},
        "output": {"judges": [patterns("said", "perch")]},
    }
    return {
        "apiVersion": "stars-guard/v1",
        "name": "chain",
        "rails": rails,
        "judges": [patterns("secret", "trout")],
        "decoding": {"segment_tokens": 2, "attempts": 3, "on_exhausted": "refuse"},
        **more,
    }


def remote(*answers: str | AIMessage) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter(answers))


def invoke(chain: Runnable[Any, Any], given: Any, **config: Any) -> Any:
    return chain.invoke(given, config)


def ainvoke(chain: Runnable[Any, Any], given: Any, **config: Any) -> Any:
    return asyncio.run(chain.ainvoke(given, config))


def stream(chain: Runnable[Any, Any], given: Any, **config: Any) -> list[Any]:
    return list(chain.stream(given, config))


def astream(chain: Runnable[Any, Any], given: Any, **config: Any) -> list[Any]:
    async def all_of_it() -> list[Any]:
        return [piece async for piece in chain.astream(given, config)]

    return asyncio.run(all_of_it())


Door = Callable[..., Any]
whole = pytest.mark.parametrize("run", [invoke, ainvoke])
streamed = pytest.mark.parametrize("run", [stream, astream])


@whole
def test_what_passes_is_what_it_was(run: Door) -> None:
    store = MemoryStore()
    message = AIMessage("a bream", additional_kwargs={"a": 1}, response_metadata={"b": 2})
    assert run(guard_runnable(remote(message), policy(), audit=store), "hello").additional_kwargs == {"a": 1}
    assert [(r.stage, r.finish) for r in store.records] == [("input", "passed"), ("answer", "eos")]
    assert len({r.run_id for r in store.records}) == 1


@whole
@pytest.mark.parametrize(
    "given",
    ["a swordfish", [HumanMessage("a swordfish")], {"thing": "swordfish"}, {"a": {"b": ["swordfish"]}}, ["swordfish"]],
)
def test_a_rejected_input_never_reaches_the_chain(run: Door, given: Any) -> None:
    asked: list[Any] = []
    inner: Runnable[Any, str] = RunnableLambda(lambda value: asked.append(value) or "never")
    chain = guard_runnable(inner | StrOutputParser(), policy(), audit=MemoryStore())
    assert run(chain, given) == REFUSAL
    assert not asked


@whole
def test_a_prompt_is_read_too(run: Door) -> None:
    prompt = ChatPromptTemplate.from_template("Name a {thing}.")
    chain = prompt | guard_runnable(remote("never"), policy(), audit=MemoryStore())
    assert run(chain, {"thing": "swordfish"}).content[0]["refusal"] == REFUSAL
    answer = prompt | guard_runnable(remote("a bream"), policy(), audit=MemoryStore()) | StrOutputParser()
    assert run(answer, {"thing": "fish"}) == "a bream"


@whole
@pytest.mark.parametrize("said", ["a trout", "a perch"])
def test_a_rejected_answer_is_the_refusal_or_an_error(run: Door, said: str) -> None:
    message = run(guard_runnable(remote(said), policy(), audit=MemoryStore()), "hello")
    assert message.content[0]["refusal"] == REFUSAL
    text = run(guard_runnable(remote(said) | StrOutputParser(), policy(), audit=MemoryStore()), "hello")
    assert text == REFUSAL
    store = MemoryStore()
    with pytest.raises(Refused) as caught:
        run(guard_runnable(remote(said), policy(), on_reject="raise", audit=store), "hello")
    assert caught.value.audit_id == store.records[-1].call_id
    assert said not in str(caught.value)


@whole
def test_a_chain_may_be_asked_again(run: Door) -> None:
    chain = guard_runnable(remote("a trout", "a perch", "a bream"), policy(), attempts=3, audit=MemoryStore())
    assert run(chain, "hello").content == "a bream"
    chain = guard_runnable(remote("a trout", "a bream"), policy(), audit=MemoryStore())
    assert run(chain, "hello").content != "a bream"


@whole
def test_structured_answers_are_judged_by_their_values(run: Door) -> None:
    parser, passes = JsonOutputParser(), '{"fish": "bream"}'
    assert run(guard_runnable(remote(passes) | parser, policy(), audit=MemoryStore()), "hi") == {"fish": "bream"}
    with pytest.raises(Refused):
        run(guard_runnable(remote('{"fish": "tr\\u006fut"}') | parser, policy(), audit=MemoryStore()), "hi")


@whole
def test_tool_calls_are_judged(run: Door) -> None:
    def call(command: str) -> AIMessage:
        return AIMessage("", tool_calls=[{"name": "shell", "args": {"command": command}, "id": "1"}])

    assert run(guard_runnable(remote(call("ls")), policy(), audit=MemoryStore()), "hi").tool_calls
    refused = run(guard_runnable(remote(call("rm -rf /")), policy(), audit=MemoryStore()), "hi")
    assert not refused.tool_calls


@whole
def test_what_cannot_be_read_is_an_error_and_may_be_told(run: Door) -> None:
    class Odd:
        text = "a trout"

    inner: Runnable[Any, Any] = RunnableLambda(lambda _: Odd())
    with pytest.raises(InputError, match="cannot judge a value of type Odd"):
        run(guard_runnable(inner, policy(), audit=MemoryStore()), "hi")
    with pytest.raises(Refused):
        run(guard_runnable(inner, policy(), text=lambda v: getattr(v, "text", v), audit=MemoryStore()), "hi")
    with pytest.raises(InputError, match="attempts is 0"):
        guard_runnable(inner, policy(), attempts=0)


# --- streams


@streamed
def test_a_stream_is_judged_piece_by_piece(run: Door) -> None:
    store = MemoryStore()
    pieces = run(guard_runnable(remote("one two three four five"), policy(), audit=store), "hello")
    assert len(pieces) > 2
    message = pieces[0]
    for piece in pieces[1:]:
        message += piece
    assert isinstance(message, AIMessageChunk)
    assert message.text == "one two three four five"
    assert len(store.records[-1].segments) == len([piece for piece in pieces if piece.text])


@streamed
def test_nothing_of_a_rejected_piece_leaves(run: Door) -> None:
    text = "one two three four trout and more of it"
    pieces = run(guard_runnable(remote(text) | StrOutputParser(), policy(), audit=MemoryStore()), "hello")
    assert pieces[-1] == REFUSAL
    assert "trout" not in "".join(pieces)
    assert pieces[0].startswith("one two")
    with pytest.raises(Refused):
        run(guard_runnable(remote(text), policy(), on_reject="raise", audit=MemoryStore()), "hello")


@streamed
def test_a_word_over_two_pieces_is_found(run: Door) -> None:
    def letters(_: Iterator[Any]) -> Iterator[str]:
        yield from "one tro"
        yield from "ut three"

    async def aletters(given: Any) -> Any:
        for letter in letters(given):
            yield letter

    chain = guard_runnable(RunnableGenerator(letters, aletters), policy(), audit=MemoryStore())
    assert "trout" not in "".join(run(chain, "hello"))


@streamed
def test_a_stream_of_objects_is_judged_whole(run: Door) -> None:
    parser, passes = JsonOutputParser(), '{"fish": "bream"}'
    assert run(guard_runnable(remote(passes) | parser, policy(), audit=MemoryStore()), "hi") == [{"fish": "bream"}]
    with pytest.raises(Refused):
        run(guard_runnable(remote('{"a": "trout"}') | parser, policy(), audit=MemoryStore()), "hi")


@streamed
def test_tool_calls_of_a_stream_go_out_last(run: Door) -> None:
    def chunks(command: str) -> Runnable[Any, Any]:
        def parts(_: Iterator[Any]) -> Iterator[AIMessageChunk]:
            call = {"name": "shell", "args": f'{{"command": "{command}"}}', "id": "1", "index": 0}
            yield AIMessageChunk(content="", tool_call_chunks=[call])  # type: ignore[list-item]
            yield AIMessageChunk(content="so")

        async def aparts(given: Any) -> Any:
            for part in parts(given):
                yield part

        return RunnableGenerator(parts, aparts)

    pieces = run(guard_runnable(chunks("ls"), policy(), audit=MemoryStore()), "hi")
    assert [bool(piece.tool_calls) for piece in pieces] == [False, True]
    pieces = run(guard_runnable(chunks("rm -rf /"), policy(), audit=MemoryStore()), "hi")
    assert not any(piece.tool_call_chunks for piece in pieces)


async def test_event_streams_hold_nothing_of_a_rejected_answer() -> None:
    for said in ("a trout", "one two three four trout"):
        chain = guard_runnable(remote(said) | StrOutputParser(), policy(), audit=MemoryStore())
        told = [str(event) async for event in chain.astream_events("hi", version="v2")]
        assert "trout" not in "".join(told)
        assert REFUSAL in "".join(told)


def test_batches_and_names() -> None:
    chain = guard_runnable(remote("a bream", "a bream"), policy(), audit=MemoryStore())
    assert [message.content for message in chain.batch(["a", "b"])] == ["a bream", "a bream"]
    assert chain.get_name() == "guarded GenericFakeChatModel"
    monitor = guard_runnable(remote("a trout"), policy(mode="monitor"), audit=MemoryStore())
    assert monitor.invoke("swordfish").content == "a trout"


@pytest.mark.parametrize("run", [invoke, ainvoke, stream, astream])
def test_a_store_gets_every_record_and_no_other_log_any(run: Door) -> None:
    store = MemoryStore()
    call = {"name": "shell", "args": {"command": "ls"}, "id": "1", "type": "tool_call"}
    run(guard_runnable(remote(AIMessage("a bream", tool_calls=[call])), policy(), audit=store), "hello")
    stages = {record.stage for record in store.records}
    assert stages in ({"input", "answer", "tool_call"}, {"input", "answer"})  # the fake model streams text alone
    assert not Path(default_url().removeprefix("sqlite://")).exists()


@streamed
def test_a_stream_of_several_kinds_is_an_error(run: Door) -> None:
    """What could not be judged in the form of the rest is never released."""

    def mixed(*chunks: Any) -> Runnable[Any, Any]:
        def parts(_: Iterator[Any]) -> Iterator[Any]:
            yield from chunks

        async def aparts(_: Any) -> Any:
            for chunk in chunks:
                yield chunk

        return RunnableGenerator(parts, aparts)

    for chunks in (("one ", AIMessageChunk("trout")), (AIMessageChunk("one "), "trout"), ("one ", {"a": "trout"})):
        with pytest.raises(InputError, match=r"the stream began with .* and goes on with") as caught:
            run(guard_runnable(mixed(*chunks), policy(), audit=MemoryStore()), "hi")
        assert "trout" not in str(caught.value)


@whole
def test_an_answer_that_is_nothing_is_kept(run: Door) -> None:
    store = MemoryStore()
    nothing: Runnable[Any, Any] = RunnableLambda(lambda _: None)
    assert run(guard_runnable(nothing, policy(), audit=store), "hi") is None
    assert [record.stage for record in store.records] == ["input"]


@given(
    bits=st.lists(st.text(alphabet="ab ", max_size=6), max_size=12),
    size=st.integers(1, 8),
)
def test_pieces_are_the_text_and_only_the_last_is_called_last(bits: list[str], size: int) -> None:
    cutter, waiting, pieces = PieceCutter(size), list(bits), list[tuple[str, bool]]()
    while not pieces or not pieces[-1][1]:
        while cutter.needs_more:
            if waiting:
                cutter.add(waiting.pop(0))
            else:
                cutter.end()
        if cutter.is_empty:
            break
        pieces.append(cutter.take())
    assert "".join(text for text, _ in pieces) == "".join(bits)
    assert [is_last for _, is_last in pieces] == [False] * (len(pieces) - 1) + [True] * bool(pieces)
    assert all(len(text) >= size for text, is_last in pieces if not is_last)
    assert all(text for text, _ in pieces)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"on_reject": "rais"}, "did you mean 'raise'"),
        ({"on_reject": None}, "on_reject is None"),
        ({"attempt": 3}, "did you mean 'attempts'"),
        ({"allow_pyhton": True}, "did you mean 'allow_python'"),
        ({"attempts": "3"}, "attempts is not a whole number"),
        ({"attempts": True}, "attempts is not a whole number"),
    ],
)
def test_what_nobody_knows_is_an_error_with_the_nearest_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        guard_runnable(str, policy(), **given)
