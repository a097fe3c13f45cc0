"""What a caller may pass by mistake: each is an `InputError` that names it, and nothing else."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from conftest import USER, guard

from stars_guard.audit import CallRecord, MemoryStore
from stars_guard.auditing.verification import redo
from stars_guard.calling.options import CallOptions
from stars_guard.core.grammar import Grammar
from stars_guard.core.messages import Message, ToolCall
from stars_guard.core.nesting import read_json
from stars_guard.core.sampling import Sampling
from stars_guard.core.tools import Tool, Toolset
from stars_guard.core.vocabulary import Stage
from stars_guard.errors import InputError
from stars_guard.guard import Guard

LONE = "\ud800"


def records(made: Guard) -> list[CallRecord]:
    assert isinstance(made.audit, MemoryStore)
    return made.audit.read()


TOOL = Tool(name="look", description="", parameters={})
GOOD: dict[str, tuple[Any, ...]] = {
    "max_tokens": (None, 1, 5, 4096),
    "stop": ((), ("END",), ["a", "b"]),
    "seed": (None, 0, -1, 2**63),
    "sampling": (None, {}, {"temperature": 1}, {"top_k": 3, "top_p": 0.5}),
    "run_id": (None, "x", "\U0001f600"),
    "tools": (None, Toolset((TOOL,))),
    "grammar": (None, Grammar.regex("a+")),
    "attempts": (None, 1, 8),
    "language": (None, "de", "pt-BR"),
    "chat_template_kwargs": ({}, {"enable_thinking": False}),
    "temperature": (0, 0.0, 1, 1.5, 100.0),
    "top_p": (0.1, 1, 1.0),
    "top_k": (0, 50),
    "min_p": (0, 0.05, 1.0),
    "repetition_penalty": (1, 1.2),
}
"""Of each field, values that are fine."""
ANY: tuple[Any, ...] = (
    *(True, False, "5", "0.5", "END", "", LONE, b"5", 0, -1, 1.5, 0.0, -0.5, 2**200, 1e300, 1j),
    *(math.nan, math.inf, -math.inf, [], [5], [""], [None], ("",), (LONE,), [True], {}, {"temperature": "1"}),
    *({"temprature": 1.0}, {5: 1.0}, {"top_k": 1.5}, {"top_p": True}, {"min_p": math.nan}, {"top_p": None}),
    *(object(), int, threading.Lock(), {"END"}, iter(["END"]), range(3), Message("user", "x")),
)
"""Values of all kinds. Those that a field's good ones equal, in value and type, are left out for it."""


def wrong_values(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    accepts: dict[str, Any] = {
        "max_tokens": lambda v: type(v) is int and 1 <= v < 2**31,
        "attempts": lambda v: type(v) is int and 1 <= v < 2**31,
        "seed": lambda v: type(v) is int and abs(v) <= 2**64,
        "stop": lambda v: v in ([], ()) and isinstance(v, list | tuple),
        "sampling": lambda v: v == {} and isinstance(v, dict),
        "chat_template_kwargs": lambda v: isinstance(v, dict) and all(isinstance(name, str) for name in v),
        # letters alone: "END" looks like a tag
        "language": lambda v: v == "END",
        "run_id": lambda v: isinstance(v, str) and v != LONE,
        "tools": lambda v: False,
        "grammar": lambda v: False,
        "top_k": lambda v: type(v) is int and 0 <= v < 2**31,
    }
    for field in fields(kind):
        fine = accepts.get(field.name)
        for value in ANY:
            if fine is None and type(value) in (int, float):
                continue  # numbers and their ranges: below
            if fine is None or not fine(value):
                yield field.name, value


def named(value: object) -> str:
    """A name for a test that is the same in each worker."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


@pytest.mark.parametrize("kind", [CallOptions, Sampling])
def test_each_field_takes_what_it_should_and_names_what_it_should_not(kind: type[Any]) -> None:
    assert {field.name for field in fields(kind)} <= GOOD.keys(), "a new field needs good values here, and a check"
    for field in fields(kind):
        for value in GOOD[field.name]:
            kind(**{field.name: value})
    for name, value in wrong_values(kind):
        with pytest.raises(InputError) as caught:
            kind(**{name: value})
        inner = next(iter(value), "") if name == "sampling" and isinstance(value, dict) else ""
        assert name.partition("_")[0] in caught.value.message or str(inner) in caught.value.message, (name, value)
        assert caught.value.hint, (name, value)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", (-1, -0.1, 101, math.nan, math.inf, 2**200)),
        ("top_p", (0, -1, 1.01, math.nan)),
        ("min_p", (-0.1, 1.5, math.nan, math.inf)),
        ("repetition_penalty", (0, -1.0, 1e9, math.nan)),
        ("top_k", (-1, 2**40)),
    ],
)
def test_a_number_out_of_range_is_named_with_its_range(name: str, values: tuple[float, ...]) -> None:
    for value in values:
        for make in (lambda v: Sampling(**{name: v}), lambda v: CallOptions(sampling={name: v})):
            with pytest.raises(InputError) as caught:
                make(value)
            assert name in caught.value.message
            assert str(value) in caught.value.message
            assert " to " in caught.value.hint


def test_numbers_of_other_libraries_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    options = CallOptions(max_tokens=numpy.int64(5), seed=numpy.int32(7))
    assert (type(options.max_tokens), type(options.seed)) == (int, int)
    assert type(Sampling(temperature=numpy.float32(0.5)).temperature) is float


async def test_a_bool_is_no_seed_so_no_record_contradicts_itself() -> None:
    """JSON has ``true`` where the random numbers were made from ``True``."""
    for seed in (True, False):
        with pytest.raises(InputError, match="seed"):
            CallOptions(seed=seed)
    made = guard()
    await made.generate(USER, CallOptions(seed=1))
    assert redo(records(made)[0]) is None


NO_MESSAGES: tuple[Any, ...] = (
    *("hi", b"hi", None, 5, 1.5, object(), Message("user", "hi"), {"role": "user", "content": "hi"}),
    *(["hi"], [None], [{"role": "user", "content": "hi"}], [("user", "hi")], [[Message("user", "hi")]]),
    [Message("user", "hi"), "then"],
)


@pytest.mark.parametrize("given", NO_MESSAGES, ids=named)
async def test_what_is_no_conversation_is_named_by_every_door(given: Any) -> None:
    made = guard()
    with pytest.raises(InputError, match="message"):
        await made.generate(given)
    with pytest.raises(InputError, match="message"):
        made.blocking.generate(given)
    with pytest.raises(InputError, match="message"):
        _ = [event async for event in made.stream(given)]
    with pytest.raises(InputError, match="message"):
        list(made.blocking.stream(given))
    with pytest.raises(InputError, match="message"):
        await made.batch([USER, given])
    with pytest.raises(InputError, match="message"):
        await made.check("input", "text", messages=given)
    assert records(made) == []


async def test_what_is_no_call_option_is_named() -> None:
    made = guard()
    for given in ({"max_tokens": 5}, "x", 5, (), False):
        for ask in (made.generate, lambda messages, options: made.batch([messages], options)):
            with pytest.raises(InputError, match="options"):
                await ask(USER, given)  # type: ignore[arg-type]
    for number in (0, -1, True, "2", 1.5, None):
        with pytest.raises(InputError, match="concurrency"):
            await made.batch([USER], concurrency=number)  # type: ignore[arg-type]


async def test_a_stage_that_there_is_not_gets_the_nearest() -> None:
    made = guard()
    for given, near in (("inptu", "'input'"), ("toolcall", "'tool_call'"), ("Output", "'output'"), ("result", "")):
        with pytest.raises(InputError, match="stage") as caught:
            await made.check(given, "text")  # type: ignore[arg-type]
        assert near in caught.value.hint
        assert "tool_result" in caught.value.hint
    for stage in (None, 5, [], {}, ("input",), True):
        with pytest.raises(InputError, match="stage"):
            made.blocking.check(stage, "text")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [None, 5, b"x", ["x"], {}, True, LONE, f"a{LONE}b", "\udc80", "\ude00\ud83d"])
async def test_a_text_to_check_is_a_text(text: Any) -> None:
    made = guard()  # a stage without judges would let everything through
    for stage in get_args(Stage):
        with pytest.raises(InputError, match="text to check"):
            await made.check(stage, text)


@pytest.mark.parametrize("forms", ["AKIA0123456789ABCDEF", b"x", None, 5, [None], ["a", 5], {"a"}])
async def test_forms_are_texts(forms: Any) -> None:
    made = guard()
    for stage in get_args(Stage):
        with pytest.raises(InputError, match="forms"):
            await made.check(stage, "text", forms=forms)


@pytest.mark.parametrize("points", [(0xD800,), (0xDBFF,), (0xDC00,), (0xDFFF,), (0x78, 0xD83D, 0x79), (0xDE00, 0xD83D)])
def test_half_a_character_is_refused_at_every_place(points: tuple[int, ...]) -> None:
    half = "".join(map(chr, points))
    places: list[Any] = [
        lambda: Message("user", half),
        lambda: Message("system", f"fine {half}"),
        lambda: Message("tool", "x", name=half),
        lambda: Message("tool", "x", tool_call_id=half),
        lambda: CallOptions(stop=("x", half)),
        lambda: CallOptions(run_id=half),
        lambda: ToolCall(id=half, name="x", arguments={}),
        lambda: ToolCall(id="1", name=half, arguments={}),
        lambda: ToolCall(id="1", name="x", arguments={"a": half}),
        lambda: ToolCall(id="1", name="x", arguments={half: 1}),
        lambda: ToolCall(id="1", name="x", arguments={"a": [{"b": ({"c": half},)}]}),
        lambda: Tool(name="x", description=half, parameters={}),
        lambda: Tool(name="x", description="", parameters={"properties": {half: {}}}),
        lambda: Grammar.regex(half),
        lambda: Grammar.ebnf(half),
        lambda: Grammar.json_schema({"const": half}),
    ]
    for place in places:
        with pytest.raises(InputError) as caught:
            place()
        assert half not in str(caught.value)
        str(caught.value).encode()
    with pytest.raises(ValueError, match="half a character"):
        read_json(json.dumps({"a": half}))  # a model may write this
    assert Message("user", "\U0001f600 \u2028 é").content


@pytest.mark.parametrize("value", [None, 5, b"x", ["x"], {"text": "x"}, object()], ids=named)
def test_the_text_of_a_message_is_a_string(value: Any) -> None:
    for make in (
        lambda: Message("user", value),
        lambda: Message(value, "x"),
        lambda: Message("tool", "x", name=value),
        lambda: ToolCall(id="1", name=value, arguments={}),
        lambda: ToolCall(id="1", name="x", arguments=[value]),  # type: ignore[arg-type]
        lambda: Message("assistant", "x", tool_calls=(value,)),
        lambda: Tool(name=value, description="", parameters={}),
    ):
        with pytest.raises(InputError):
            make()


def test_a_guard_names_what_it_cannot_be_made_of() -> None:
    assert Guard("monitor", model=Path("models/x"), audit="memory://").model_name == "models/x"
    wrong: list[dict[str, Any]] = [
        *({"model": value} for value in (None, 5, b"x", ["x"], LONE, object())),
        *({"backend": value} for value in (None, 5, b"x", object())),
        *({"options": value} for value in ("x", 5, ["x"], [("a", 1)], True)),
    ]
    for given in wrong:
        with pytest.raises(InputError, match=next(iter(given))):
            Guard("monitor", audit="memory://", **given)
