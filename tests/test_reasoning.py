"""Reasoning before an answer: a block of its own, streamed and judged as the answer is, and on record."""

from __future__ import annotations

import itertools
import operator
import random
import re
from collections.abc import Sequence
from functools import reduce
from typing import Any

import pytest
from chat_families import FAMILIES, Family, tokenizer_of
from conftest import USER, guard, policy
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from langchain_stars import ChatStars
from stars_guard.audit import CallRecord, MemoryStore
from stars_guard.auditing.counterfactual import what_if
from stars_guard.auditing.redoing import redo
from stars_guard.auditing.replay import compare, regenerate
from stars_guard.calling import portal
from stars_guard.core.events import Finished, Reasoned, Released
from stars_guard.core.grammar import Grammar
from stars_guard.core.messages import Message
from stars_guard.core.tools import Tool, Toolset
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.prompting.detokenizer import decoder
from stars_guard.prompting.prompt import Prompt
from stars_guard.prompting.reasoning import Reasoning
from stars_guard.testing.scripted import ScriptedBackend

THOUGHT, ANSWER = "The lake is deep.\nIs it cold? Yes.", "Don't swim, please."
WRITTEN = f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"
WEATHER = Tool(
    name="get_weather",
    description="The weather.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}},
)
TOOLS = Toolset((WEATHER,))
CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>'
VETO = {"name": "words", "type": "patterns", "patterns": [{"name": "word", "regex": "poison"}]}


def writing(*answers: str, size: int = 3, marks: Reasoning | None = None) -> ScriptedBackend:
    """A model that reasons and writes one of the answers, by the seed, in tokens of ``size`` characters or in words."""

    def script(messages: Sequence[Message], prefix: tuple[str, ...], rng: random.Random) -> str | None:
        done = "".join(prefix)
        answer = rng.choice([answer for answer in answers if answer.startswith(done)])
        rest = answer[len(done) :]
        return (rest[:size] if size else re.match(r"\S*\s*", rest)[0]) or None  # type: ignore[index]

    return ScriptedBackend(script, reasoning=marks or Reasoning())


def ruled(backend: ScriptedBackend, **more: Any) -> Guard:
    under = load_policy(policy(judges=[VETO], **{"max_tokens": 200, **more}))
    return Guard(under, model=backend, audit=MemoryStore())


def run(made: Guard, **options: Any) -> tuple[Finished, list[Any], CallRecord]:
    *events, done = made.blocking.stream(USER, CallOptions(**options))
    assert isinstance(done, Finished)
    assert isinstance(made.audit, MemoryStore)
    record = made.audit.records[-1]
    assert redo(record) is None
    return done, events, record


# --- what it is


@settings(deadline=None, max_examples=40)
@given(
    size=st.integers(1, 9),
    segment=st.integers(1, 6),
    begun=st.booleans(),
    marks=st.sampled_from([("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<|begin_of_thought|>", "<|end|>")]),
    before=st.sampled_from(["", "\n", " "]),
    after=st.sampled_from(["", "\n\n"]),
)
def test_reasoning_is_no_text_whatever_the_cuts(
    size: int, segment: int, begun: bool, marks: tuple[str, str], before: str, after: str
) -> None:
    begin, end = marks
    text = f"{'' if begun else before + begin}\n{THOUGHT}\n{end}{after}{ANSWER}"
    backend = writing(text, size=size, marks=Reasoning(begin=begin, end=end, begun=begun))
    done, events, record = run(ruled(backend, segment_tokens=segment))
    assert (done.reasoning, done.text) == (THOUGHT, ANSWER)
    assert "".join(event.text for event in events if isinstance(event, Reasoned)) == THOUGHT
    assert "".join(event.text for event in events if isinstance(event, Released)) == ANSWER
    # bit by bit, and before the answer
    kinds = [type(event) for event in events if isinstance(event, Reasoned | Released)]
    assert kinds == sorted(kinds, key=[Reasoned, Released].index)
    assert size * segment > len(THOUGHT) / 2 or kinds.count(Reasoned) > 1
    assert record.reasoning is not None
    assert (record.reasoning.text.text, record.answer.text) == (THOUGHT, ANSWER)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>\n\n</think>\n\nHi.", "", "Hi."),
        ("Hi <think>there</think>.", "", "Hi <think>there</think>."),
        ("<think>a</think>\n<think>b</think>c", "ab", "c"),
        ("<think>the end is near </thin", "the end is near </thin", ""),
        ("<think>  ", "", ""),
        (f"<think>I could write {CALL} here.</think>No.", f"I could write {CALL} here.", "No."),
        ("<think>it never ends <tool_call>", "it never ends <tool_call>", ""),
    ],
)
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_where_reasoning_begins_and_ends(text: str, reasoning: str, answer: str, tools: Toolset | None) -> None:
    done, _, _ = run(ruled(writing(text)), tools=tools)
    assert (done.reasoning, done.text, done.tool_calls) == (reasoning, answer, ())


def test_reasoning_that_the_length_limit_cuts_is_no_answer() -> None:
    for text, begun in ((WRITTEN, False), (WRITTEN.removeprefix("<think>"), True)):
        done, _, _ = run(ruled(writing(text, marks=Reasoning(begun=begun))), max_tokens=7)
        assert done.finish == "length"
        assert done.text == ""
        assert done.reasoning
        assert THOUGHT.startswith(done.reasoning)


@pytest.mark.parametrize("size", [1, 5, 200])
def test_a_tool_call_after_reasoning_is_a_call(size: int) -> None:
    done, _, record = run(ruled(writing(f"<think>\nhm\n</think>\n\n{CALL}", size=size)), tools=TOOLS)
    assert (done.reasoning, done.text) == ("hm", "")
    assert [dict(call.arguments) for call in done.tool_calls] == [{"city": "Oslo"}]
    assert record.answer.text == CALL


def test_under_a_grammar_the_whole_answer_is_what_it_asks_for() -> None:
    grammar = Grammar.json_schema({"type": "object"})
    done, _, record = run(ruled(writing('{"a": 1}', marks=Reasoning(begun=True))), grammar=grammar)
    assert (done.text, done.reasoning, record.reasoning) == ('{"a": 1}', "", None)


# --- judging


@pytest.mark.parametrize("place", ["reasoning", "answer"])
@pytest.mark.parametrize("seed", range(4))
def test_reasoning_is_judged_as_the_answer_is(place: str, seed: int) -> None:
    bad = WRITTEN.replace("deep" if place == "reasoning" else "swim", "poison")
    done, events, record = run(ruled(writing(WRITTEN, bad, size=0), attempts=30), seed=seed)
    assert (done.reasoning, done.text) == (THOUGHT, ANSWER)
    assert "poison" not in repr([event.text for event in events if isinstance(event, Reasoned | Released)])
    refused, events, record = run(ruled(writing(bad, size=0)), seed=seed)
    assert refused.finish == "refused"
    shown = "".join(event.text for event in events if isinstance(event, Reasoned | Released))
    assert "poison" not in shown
    assert "poison" not in refused.reasoning
    assert record.reasoning is not None
    assert "poison" not in (record.reasoning.text.text or "")


def test_the_answer_is_also_judged_without_its_reasoning() -> None:
    """As its reader reads it: what an answer begins with, what JSON says in it."""
    judge = {"name": "words", "type": "patterns", "patterns": [{"name": "first", "regex": r"\Apoison"}]}
    for answer in ("poison is here", '{"a": "\\u0070oison"}'):
        veto = judge if answer[0] == "p" else VETO
        made = Guard(
            load_policy(policy(judges=[veto], max_tokens=200)),
            model=writing(f"<think>hm</think>{answer}"),
            audit=MemoryStore(),
        )
        done, _, _ = run(made)
        assert (done.finish, done.text) == ("refused", "" if answer[0] == "p" else '{"a": "')


# --- the record


def test_a_record_with_reasoning_can_be_done_again() -> None:
    made = ruled(writing(WRITTEN, WRITTEN.replace("deep", "poison"), size=0), attempts=30)
    _, _, record = run(made, seed=3)
    backend = writing(WRITTEN, WRITTEN.replace("deep", "poison"), size=0)
    again = portal.call(lambda: regenerate(record, made.policy, model=backend))
    assert list(compare(record, again)) == []
    assert portal.call(lambda: what_if(record, made.policy)).parting is None
    strict = load_policy(policy(judges=[{**VETO, "patterns": [{"name": "w", "regex": "cold"}]}], max_tokens=200))
    assert portal.call(lambda: what_if(record, strict)).parting is not None


def test_a_policy_that_keeps_no_texts_keeps_no_reasoning() -> None:
    _, _, record = run(ruled(writing(WRITTEN), audit={"content": "hash"}))
    assert THOUGHT[:8] not in record.model_dump_json()
    assert record.reasoning is not None
    assert record.reasoning.text.chars == len(THOUGHT)


# --- LangChain


@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_every_door_gives_a_reasoning_block(version: str) -> None:
    model = ChatStars(guard=ruled(writing(WRITTEN)), output_version=version)
    streamed = [chunk async for chunk in model.astream("hi")]
    found = [model.invoke("hi"), await model.ainvoke("hi"), reduce(operator.add, streamed)]
    found += [reduce(operator.add, model.stream("hi")), model.batch(["hi"])[0]]
    for message in found:
        assert message.text == ANSWER
        blocks = [(b["type"], b.get("reasoning") or b.get("text")) for b in message.content_blocks]
        assert blocks == [("reasoning", THOUGHT), ("text", ANSWER)]
    assert model.invoke("hi").content == [{"type": "reasoning", "reasoning": THOUGHT}, {"type": "text", "text": ANSWER}]
    seen = [[block["type"] for block in chunk.content_blocks] for chunk in streamed]
    assert sum(kinds == ["reasoning"] for kinds in seen) > 1
    # it may come back, and is no text for the model
    model.invoke([("human", "hi"), found[0], ("human", "and?")])


def test_calls_and_refusals_after_reasoning() -> None:
    model = ChatStars(guard=ruled(writing(f"<think>hm</think>{CALL}"))).bind_tools([WEATHER.definition])
    for message in (model.invoke("hi"), reduce(operator.add, model.stream("hi"))):
        assert [block["type"] for block in message.content_blocks] == ["reasoning", "tool_call"]
    refusing = ChatStars(guard=ruled(writing("<think>hm</think>It is poison.")))
    for message in (refusing.invoke("hi"), reduce(operator.add, refusing.stream("hi"))):
        assert [block["type"] for block in message.content] == ["reasoning", "text", "refusal", "text"]
        assert "poison" not in str(message)


def test_without_reasoning_content_is_a_string() -> None:
    model = ChatStars(guard=ruled(writing("Hi.")))
    assert model.invoke("hi").content == "Hi."
    assert reduce(operator.add, model.stream("hi")).content == "Hi."


# --- which marks a model has

PAIRS = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|thinking_start|>", "<|thinking_end|>"),
    ("<|think|>", "<|/think|>"),
]
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"


def with_marks(family: str, pair: tuple[str, str], *, added: bool, special: bool, begun: bool) -> Any:
    import copy

    tokenizer = copy.deepcopy(tokenizer_of(family))
    if added:
        tokenizer.add_tokens([AddedToken(text, special=special, normalized=False) for text in pair])
    written = "" if added else "{# " + pair[1] + " #}"
    tokenizer.chat_template = written + CHAT + (f"{pair[0]}\n" if begun else "")
    return tokenizer


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
@pytest.mark.parametrize(("added", "special"), [(True, False), (True, True), (False, False)])
def test_marks_are_found_and_shown(pair: tuple[str, str], added: bool, special: bool) -> None:
    if not added and "/" not in pair[1]:
        pytest.skip("a template does not say by itself what such a marker is")
    for family, begun in itertools.product(("chatml", "llama 2", "chatml, unigram"), (False, True)):
        tokenizer = with_marks(family, pair, added=added, special=special, begun=begun)
        prompt = Prompt.of(tokenizer, [Message("user", f"say {pair[0]}")], 1000)
        assert prompt.reasoning is not None
        assert (prompt.reasoning.begin, prompt.reasoning.end) == pair
        knows = added or pair[0].isascii() or family != "chatml, unigram"
        assert prompt.reasoning.begun == (begun and knows)
        ids = tokenizer(f"{pair[0]}hm{pair[1]} yes", add_special_tokens=False).input_ids
        text = decoder(tokenizer, prompt.shown)(ids)
        assert not added or text.replace(" ", "") == f"{pair[0]}hm{pair[1]}yes"


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str) -> None:
    tokenizer, kind = tokenizer_of(family), FAMILIES[family]
    for variables, said in itertools.product(({}, {"enable_thinking": False}), ("hi", "what is <think>", "<think>")):
        prompt = Prompt.of(tokenizer, [Message("user", said)], 1000, settings=variables)
        assert (prompt.reasoning is not None) == reasons(kind)
        assert prompt.reasoning is None or prompt.reasoning.begun == (family == "deepseek")
    forced = Prompt.of(tokenizer, USER, 1000, grammar=Grammar.json_schema({"type": "object"}))
    assert forced.reasoning is None


def reasons(family: Family) -> bool:
    return "<think>" in family.ordinary


def test_tokens_that_only_look_alike_are_no_marks() -> None:
    for texts in ((), ("<think>",), ("<tool_call>", "</tool_call>"), ("<reasoning_effort>", "<think>")):
        plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
        plain.add_tokens([AddedToken(text) for text in texts])
        assert Reasoning.of(plain, []) is None


def test_a_guard_of_conftest_has_no_reasoning() -> None:
    done = guard().blocking.generate(USER)
    assert done.reasoning == ""


@pytest.mark.parametrize("segment", [1, 3, 40])
@pytest.mark.parametrize("rewinds", [0, 3])
@pytest.mark.parametrize(
    ("regex", "written", "reasoning"),
    [
        ("^poison", "<think>poison is</think>yes", ""),
        ("^poison", "<think>\npoison is</think>yes", ""),
        ("poison", "<think>po</think><think>ison</think>yes", ""),
        ("poison", "<think>a po</think>\n<think>\nison</think>yes", "a"),
        ("poison", '<think>"po\\u0069</think><think>son"</think>yes', ""),
    ],
)
def test_reasoning_is_judged_as_its_reader_gets_it(
    regex: str, written: str, reasoning: str, segment: int, rewinds: int
) -> None:
    veto = {"name": "words", "type": "patterns", "patterns": [{"name": "word", "regex": regex}]}
    common = {"max_tokens": 200, "attempts": 2, "on_exhausted": "refuse", "hold_tokens": 2 if rewinds else 0}
    under = load_policy(policy(judges=[veto], segment_tokens=segment, rewinds=rewinds, **common))
    done, _, _ = run(Guard(under, model=writing(written), audit=MemoryStore()))
    assert done.finish == "refused"
    assert (done.reasoning in ("", reasoning, '"'), done.text) == (True, "")


def test_reasoning_and_answer_are_released_up_to_what_may_be_open() -> None:
    """Any word may begin an address, and still all that comes before it is released at once."""
    judge = {"name": "pii", "type": "pii", "kinds": ["email"]}
    text = "<think>one two three four five six</think>seven eight nine ten eleven twelve"
    under = load_policy(policy(judges=[judge], segment_tokens=1, max_tokens=200))
    done, events, _ = run(Guard(under, model=writing(text, size=4), audit=MemoryStore()))
    assert done.text == "seven eight nine ten eleven twelve"
    for kind in (Reasoned, Released):
        assert sum(isinstance(event, kind) for event in events) > 3


FORGED: dict[str, dict[str, Any]] = {
    "longer": {"text": {"content": THOUGHT * 9, "chars": len(THOUGHT) * 9}},
    "shorter": {"text": {"content": "", "chars": 0}},
    "other": {"text": {"content": "x" * len(THOUGHT), "chars": len(THOUGHT)}},
    "begun": {"begun": True},
    "begin": {"begin": "<thought>"},
    "end": {"end": "</thought>"},
}


@pytest.mark.parametrize("size", [1, 40])
@pytest.mark.parametrize("name", FORGED)
def test_forged_reasoning_is_found(name: str, size: int) -> None:
    _, _, record = run(ruled(writing(WRITTEN, size=size)))
    data = record.model_dump()
    data["reasoning"].update(FORGED[name])
    assert redo(CallRecord.model_validate(data)) is not None


def test_an_answer_that_does_not_follow_from_its_segments_is_found() -> None:
    _, _, record = run(ruled(writing(WRITTEN)))
    plain = guard()
    plain.blocking.generate(USER)
    assert isinstance(plain.audit, MemoryStore)
    added = {"begin": "<think>", "end": "</think>", "begun": False, "text": {"content": "", "chars": 0}}
    for honest in (record, plain.audit.records[0]):
        for text in ("x" * honest.answer.chars, "x"):
            data = honest.model_dump()
            data["answer"].update(content=text, chars=len(text))
            data["reasoning"] = data["reasoning"] or added
            assert redo(CallRecord.model_validate(data)) is not None
