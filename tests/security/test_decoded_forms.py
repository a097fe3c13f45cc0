"""What a reader decodes is judged decoded: the arguments of tool calls, and JSON in answers and texts."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.audit import MemoryStore
from stars_guard.auditing.counterfactual import what_if
from stars_guard.auditing.verification import redo
from stars_guard.core.grammar import Grammar
from stars_guard.core.messages import Message
from stars_guard.core.tools import Tool, Toolset
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.prompting.call_rendering import render_call
from stars_guard.prompting.json_reading import Unescaper, readable, values_of
from stars_guard.testing.scripted import ScriptedBackend

KEY = "AKIAABCDEFGHIJKLMNOP"
ASK = [Message("user", "hi")]
SHELL = Toolset((Tool(name="shell", description="", parameters={"type": "object"}),))


def policy(regex: str = "AKIA[A-Z0-9]{16}", **more: Any) -> Mapping[str, Any]:
    judge = {"name": "key", "type": "patterns", "patterns": [{"name": "k", "regex": regex}], **more}
    rails = {stage: {"judges": [{**judge, "name": f"at-{stage}"}]} for stage in ("input", "tool_call", "tool_result")}
    decoding = {"attempts": 2, "on_exhausted": "refuse", "segment_tokens": 4, "parallel": 1}
    top = {"apiVersion": "stars-guard/v1", "name": "t", "decoding": decoding, "judges": [judge], "rails": rails}
    return {**top, "rails": {**rails, "output": {"judges": [{**judge, "name": "at-output"}]}}}


def saying(text: str, sizes: Sequence[int] = (5,)) -> ScriptedBackend:
    pieces: list[str] = []
    while sum(map(len, pieces)) < len(text):
        at = sum(map(len, pieces))
        pieces.append(text[at : at + sizes[len(pieces) % len(sizes)]])

    def script(messages: Sequence[Message], tokens: tuple[str, ...], rng: random.Random) -> str | None:
        return pieces[len(tokens)] if len(tokens) < len(pieces) else None

    return ScriptedBackend(script)


def answer(text: str, regex: str = "AKIA[A-Z0-9]{16}", sizes: Sequence[int] = (5,), **options: Any) -> Any:
    made = Guard(policy(regex), model=saying(text, sizes), audit=MemoryStore())
    done = made.blocking.generate(ASK, CallOptions(max_tokens=999, **options))
    assert isinstance(made.audit, MemoryStore)
    assert redo(made.audit.records[-1]) is None
    return done


@st.composite
def escaped(draw: st.DrawFn, text: str = KEY) -> str:
    """A text as a JSON string may have it."""
    return "".join(draw(st.sampled_from((char, f"\\u{ord(char):04x}", f"\\u{ord(char):04X}"))) for char in text)


PLACES: list[Callable[[str], str]] = [
    lambda key: f'{{"answer": "{key}"}}',
    lambda key: f'{{"{key}": 1}}',
    lambda key: f'{{"a": {{"{key}": []}}}}',
    lambda key: f'{{"a": "{key}", "a": "fine"}}',
    lambda key: f'{{"a": {{"b": [["fine", "{key}"]], "b": 1}}}}',
    lambda key: f'["{key}"]',
    lambda key: f'"{key}"',
    lambda key: f'Here you are:\n```json\n{{"answer": "{key}"}}\n```\nBye.',
    lambda key: f'```\n{{"answer": "{key}',
    lambda key: f'{{"path": "C:\\\\dir\\"", "answer": "\\ud83d\\ude00 {key}"}}',
]


@settings(max_examples=60)
@given(st.data(), st.sampled_from(PLACES), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_json_in_an_answer_is_judged_as_it_is_parsed(
    data: st.DataObject, place: Callable[[str], str], sizes: list[int]
) -> None:
    text = place(data.draw(escaped()))
    for options in ({}, {"grammar": Grammar.regex(".*")}):
        done = answer(text, sizes=sizes, **options)
        assert done.finish == "refused"
        read = Unescaper().split("", done.text)
        assert KEY not in (done.text if read is None else "".join(read))


@settings(max_examples=40)
@given(st.data(), st.lists(st.integers(1, 9), min_size=1, max_size=5), st.booleans())
def test_every_call_of_a_segment_is_judged_as_its_tool_gets_it(
    data: st.DataObject, sizes: list[int], listed: bool
) -> None:
    bad = f'{{"name": "shell", "arguments": {{"command": "{data.draw(escaped("rm -rf /"))}"}}}}'
    good = '{"name": "shell", "arguments": {"command": "ls"}}'
    calls = data.draw(st.permutations([bad, good]))
    text = f"<tool_call>[{', '.join(calls)}]</tool_call>"
    if not listed:
        text = "Look. " + " ".join(f"<tool_call>{call}</tool_call>" for call in calls)
    done = answer(text, r"rm\s+-rf\s+/", sizes, tools=SHELL)
    assert done.finish == "refused"
    assert not any("rm" in str(call.arguments) for call in done.tool_calls)


@pytest.mark.parametrize(
    ("text", "regex"),
    [
        ('<tool_call>{"name": "shell", "arguments": {"argv": ["rm", "-rf", "/"]}}</tool_call>', "rm -rf /"),
        ('<tool_call>{"name": "shell", "arguments": "{\\"c\\": \\"\\\\u0072m -rf\\"}"}</tool_call>', "rm -rf"),
        ('<tool_call>{"name": "shell", "arguments": {"c": "{\\"d\\": \\"\\\\u0072m\\"}"}}</tool_call>', "rm"),
        ('<tool_call>{"name": "\\u0072m", "arguments": {}}</tool_call>', "rm"),
        ('<tool_call>{"name": "shell", "arguments": {"c": "r\\u006d -rf", ]</tool_call>', "rm -rf"),
        ('<tool_call>{"name": "shell", "arguments": {"c": "a\\nb"}}</tool_call>', "(?m)^b$"),
        # what is around a call reaches the caller without it
        ('AKIAABCDEF<tool_call>{"name": "shell", "arguments": {}}</tool_call>GHIJKLMNOP', "AKIA[A-Z]{16}"),
        ('"AK\\u00<tool_call>{"name": "shell", "arguments": {}}</tool_call>49A"', "AKIA"),
    ],
)
def test_what_a_call_says_is_judged_however_it_is_written(text: str, regex: str) -> None:
    assert answer(text, regex, tools=SHELL).finish == "refused"


def test_ordinary_answers_pass() -> None:
    for text in ('Say "hi"\\n', r"\frac{a}{b} is C:\new", '{"answer": "caf\\u00e9"}', '<tool_call>{"name": "shell"}'):
        done = answer(text, tools=SHELL)
        assert (done.finish, len(done.text) + len(done.invalid_tool_calls) > 0) == ("eos", True)


@pytest.mark.parametrize("stage", ["input", "tool_result", "output"])
@pytest.mark.parametrize("place", PLACES)
async def test_json_at_every_stage_is_judged_as_it_is_parsed(stage: Any, place: Callable[[str], str]) -> None:
    made = Guard(policy(), model=saying("x"), audit=MemoryStore())
    text = place("".join(f"\\u{ord(char):04x}" for char in KEY))
    assert not (await made.check(stage, text)).allowed
    assert (await made.check(stage, text.replace("\\u", "u"))).allowed


async def test_a_rendered_call_is_not_decoded_again() -> None:
    made = Guard(policy("AKIA"), model=saying("x"), audit=MemoryStore())
    assert (await made.check("tool_call", render_call("shell", {"command": 'echo "\\u0041KIA"'}))).allowed
    assert not (await made.check("tool_call", '{"command": "\\u0041KIA"}')).allowed


@pytest.mark.parametrize("tools", [None, SHELL])
async def test_another_policy_decides_about_decoded_forms_too(tools: Toolset | None) -> None:
    key = "".join(f"\\u{ord(char):04x}" for char in KEY)
    text = f'{{"k": "{key}"}}'
    text = f'<tool_call>{{"name": "shell", "arguments": {text}}}</tool_call>' if tools else text
    made = Guard(policy("never"), model=saying(text), audit=MemoryStore())
    done = await made.generate(ASK, CallOptions(max_tokens=999, tools=tools))
    assert done.finish == "eos"
    assert isinstance(made.audit, MemoryStore)
    (record,) = made.audit.records
    assert (record.tool_form is None) == (tools is None)
    parting = (await what_if(record, load_policy(policy()))).parting
    assert parting is not None
    assert parting.outcome in ("refuse", "more")
    assert (await what_if(record, load_policy(policy("other")))).parting is None


@settings(max_examples=100)
@given(st.text(max_size=8), st.booleans(), st.sampled_from(["", "\\", 'x "q\\" ', "C:\\n "]), st.data())
def test_strings_are_unescaped_wherever_the_text_is_cut(
    said: str, in_ascii: bool, before: str, data: st.DataObject
) -> None:
    text = before + json.dumps({"k": said}, ensure_ascii=in_ascii)
    unescaper, at = Unescaper(), 0
    for end in [*sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4))), len(text)]:
        parts = unescaper.split(text[:at], text[at:end])
        fresh = Unescaper().split("", text[:end])
        assert (parts and "".join(parts)) == (fresh and "".join(fresh))
        at = end
    assert readable(said) in "".join(parts or (text,))


def test_values_have_all_pairs_of_an_object() -> None:
    assert values_of('{"a": "x", "a": {"b": "y", "b": 2}}') == ["a: x\na.b: y\na.b: 2"]
    assert values_of("no JSON") == values_of("{broken") == values_of("[" * 99999) == []
