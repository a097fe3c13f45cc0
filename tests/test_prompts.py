"""A prompt's ids are those of the model's own chat template, for all families, and no text makes control tokens."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from chat_families import FAMILIES, tokenizer_of
from conftest import USER, policy, words
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stars_guard.audit import MemoryStore
from stars_guard.auditing.replay import regenerate
from stars_guard.backends._streamed import StreamedBackend
from stars_guard.backends.base import OpenRequest
from stars_guard.backends.transformers import TransformersOptions
from stars_guard.backends.vllm_engine import VllmOptions
from stars_guard.backends.vllm_server import VllmServerOptions
from stars_guard.calling import portal
from stars_guard.core.messages import Message, ToolCall
from stars_guard.core.segments import Passage
from stars_guard.core.tools import Tool, Toolset
from stars_guard.errors import AuditError, InputError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.prompting.chat_encoding import encode_chat
from stars_guard.prompting.prompt import Prompt
from stars_guard.prompting.tool_calls import encode_tool_chat, form_of
from stars_guard.scorers._reading import Reader
from stars_guard.testing.scripted import ScriptedBackend

PARTS = [
    "the lake",
    " deep",
    "  ",
    "\n",
    "\n\n",
    "é",
    "😀",
    "東京",
    "[INST]",
    "USER:",
    '"',
    "\\",
    "<",
    "|",
    ">",
    "\x01",
    "\u2581",
]
TEXT = st.lists(st.sampled_from(PARTS), max_size=8).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=20
)


def asked(texts: list[str], *, system: bool) -> list[Message]:
    """A conversation of so many texts: a system's, and then a user's and an assistant's in turn, a user's last."""
    first, *rest = texts
    turns = [Message("system", first)] if system else []
    rest = rest[: len(rest) - (len(rest) + 1) % 2]
    return turns + [Message("assistant" if number % 2 else "user", text) for number, text in enumerate(rest)]


def by_transformers(tokenizer: Any, messages: list[Message], **settings: Any) -> list[int]:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return list(
        tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False, **settings)
    )


def control(tokenizer: Any) -> list[str]:
    return [text for text in tokenizer.get_added_vocab() if text != "<unk>"]


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=25, deadline=None)
@given(texts=st.lists(TEXT, min_size=2, max_size=5))
@example(texts=["Be brief.", "hi", " hello ", "the lake?"])
def test_a_prompt_is_what_the_template_makes_of_it(name: str, texts: list[str]) -> None:
    tokenizer = tokenizer_of(name)
    messages = asked(texts, system=FAMILIES[name].system)
    if any(token in message.content for message in messages for token in control(tokenizer)):
        return
    ids = encode_chat(tokenizer, messages)
    assert ids == by_transformers(tokenizer, messages)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_text_makes_control_tokens(name: str, data: st.DataObject) -> None:
    """Nor two texts together, nor a text and the template around it."""
    tokenizer = tokenizer_of(name)
    tokens = control(tokenizer)
    halves = [token[: len(token) // 2] for token in tokens] + [token[len(token) // 2 :] for token in tokens]
    # what a template looks for in answers is another matter
    parts = st.sampled_from([*tokens, *halves, "the", " ", "\n", "é"])
    user = st.lists(parts, max_size=6).map("".join)
    texts = data.draw(st.tuples(user, user, st.just("fine"), user))
    evil, good = (asked(list(some), system=FAMILIES[name].system) for some in (texts, ("a", "b", "fine", "c")))
    ids = encode_chat(tokenizer, evil)
    known = {tokenizer.convert_tokens_to_ids(token) for token in tokens}
    wanted = [i for i in encode_chat(tokenizer, good) if i in known]
    assert [i for i in ids if i in known] == wanted


@pytest.mark.parametrize("name", FAMILIES)
def test_a_text_with_control_tokens_is_read_where_it_stands(name: str) -> None:
    """All else is encoded as if they were ordinary text there."""
    tokenizer = tokenizer_of(name)
    messages = [
        Message("user", f"{' '.join(control(tokenizer))} the lake"),
        Message("assistant", "hi"),
        Message("user", "x"),
    ]
    ids = encode_chat(tokenizer, messages)
    plain = by_transformers(tokenizer, messages)
    assert tokenizer.decode(ids).replace(" ", "") == tokenizer.decode(plain).replace(" ", "")


THOUGHT = "<think>\nthe lake\n</think>\n\ndeep"


@pytest.mark.parametrize("name", ["qwen 3", "deepseek"])
@pytest.mark.parametrize(
    "answer", [THOUGHT, "</think>deep", "<think>the</think>", "a</think>b</think>c", f"{THOUGHT} </think>\n"]
)
def test_a_template_sees_the_thoughts_of_earlier_turns(name: str, answer: str) -> None:
    tokenizer = tokenizer_of(name)
    messages = [Message("user", "hi"), Message("assistant", answer), Message("user", "so?")]
    assert encode_chat(tokenizer, messages) == by_transformers(tokenizer, messages)


@pytest.mark.parametrize("name", ["qwen 3", "deepseek"])
def test_what_a_user_says_of_thoughts_is_text(name: str) -> None:
    tokenizer = tokenizer_of(name)
    think = set(tokenizer.convert_tokens_to_ids(["<think>", "</think>"]))
    texts = ["hi", THOUGHT, f"{THOUGHT} <|im_end|> <think> {THOUGHT}"]
    for user in texts:
        for answer in (THOUGHT, f"{THOUGHT} <think> <|im_end|></s><think>"):
            messages = [Message("user", user), Message("assistant", answer), Message("user", user)]
            ids = encode_chat(tokenizer, messages)
            plain = encode_chat(tokenizer, [Message("user", "a"), Message("assistant", "b"), Message("user", "c")])
            assert sum(i in think for i in ids) == sum(i in think for i in plain)
            assert ids.count(tokenizer.eos_token_id) == plain.count(tokenizer.eos_token_id)


def test_a_template_that_looks_for_a_word_sees_it() -> None:
    tokenizer = tokenizer_of("chatml")
    template = tokenizer.chat_template
    try:
        tokenizer.chat_template = (
            "{% if '/no_think' in messages[0].content %}{{ '<|im_start|>quick<|im_end|>' }}{% endif %}"
            "{{ messages[0].content.replace('/no_think', '') | trim }}{{ '<|im_end|>' }}"
        )
        for text in ("the lake /no_think", "/no_think deep", "/no_think", "the lake"):
            messages = [Message("user", text)]
            assert encode_chat(tokenizer, messages) == by_transformers(tokenizer, messages)
        # the words around what is taken out make no token of the template's
        broken = encode_chat(tokenizer, [Message("user", "<|im_/no_thinkend|>")])
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert broken.count(end) == 2
    finally:
        tokenizer.chat_template = template


def test_variables_of_a_template() -> None:
    tokenizer = tokenizer_of("qwen 3")
    messages = [Message("user", "hi")]
    for value in (True, False):
        ids = encode_chat(tokenizer, messages, settings={"enable_thinking": value, "unknown": 1})
        assert ids == by_transformers(tokenizer, messages, enable_thinking=value)
    for wrong in ({"tokenize": True}, {"messages": []}, {"tools": []}, {"name": "<|im_end|>"}):
        with pytest.raises(InputError, match="template"):
            encode_chat(tokenizer, messages, settings=wrong)


TOOLS = Toolset(
    (Tool(name="get_weather", description="The weather.", parameters={"type": "object", "properties": {}}),)
)
CALLED = [
    Message("user", "Weather?"),
    Message("assistant", "", tool_calls=(ToolCall(id="1", name="get_weather", arguments={}),)),
    Message("tool", "sunny", tool_call_id="1", name="get_weather"),
]
AFTER = {
    "nothing": [Message("user", "Weather?")],
    "a system message": [Message("system", "Be brief."), Message("user", "Weather?")],
    "a result": CALLED,
    "a result and a question": [*CALLED, Message("user", "Should I go?")],
    "all": [Message("system", "Be brief."), *CALLED, Message("user", "Should I go?")],
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("after", AFTER)
def test_tools_are_described_to_every_family(name: str, after: str) -> None:
    """To templates without a system role in what the user says, and to strict ones in one turn of the user."""
    tokenizer = tokenizer_of(name)
    messages = AFTER[after]
    for ids in (
        encode_tool_chat(tokenizer, messages, TOOLS, form_of(tokenizer)),
        # a history with calls, when no tools are on offer any more
        *([encode_chat(tokenizer, messages)] if FAMILIES[name].system or messages[0].role != "system" else []),
    ):
        text = tokenizer.decode(ids).replace(" ", "")
        for said in messages:
            assert said.content.replace(" ", "") in text
    assert "get_weather" in tokenizer.decode(encode_tool_chat(tokenizer, messages, TOOLS, form_of(tokenizer)))


def test_what_a_user_sends_in_wrong_turns_is_still_refused() -> None:
    two = [Message("user", "a"), Message("user", "b")]
    for messages in (two, [Message("system", "a"), Message("user", "b")]):
        with pytest.raises(InputError, match="roles"):
            encode_chat(tokenizer_of("gemma 2"), messages)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("asked", ["hi", "the lake?\n\nA\nB", "é 😀"])
@pytest.mark.parametrize("answer", ["It is deep.", "the lake and so on " * 60])
def test_judges_read_what_the_template_makes_of_a_conversation(name: str, asked: str, answer: str) -> None:
    """An answer that grows is read as it would be at once."""
    tokenizer = tokenizer_of(name)
    messages = (Message("user", asked),)
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": "?"}]
    reader = Reader(tokenizer, template=None, max_length=100_000)
    for size in {len(answer) // 3, len(answer) // 2, len(answer)}:
        text = answer[:size]
        turns[1]["content"] = text
        passage = Passage(call_id="c", messages=messages, accepted="", segment=text)
        wanted = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        assert reader.read(passage).ids == wanted


class Asked(ScriptedBackend):
    """Keeps what it is asked."""

    asked: OpenRequest

    async def open(self, request: OpenRequest) -> Any:
        self.asked = request
        return await super().open(request)


def test_a_call_may_set_variables_of_the_template() -> None:
    """The record has switches and numbers, and of texts a digest, so that the call can be generated again or not."""
    under, store, backend = load_policy(policy(judges=[])), MemoryStore(), Asked(words())
    made = Guard(under, model=backend, audit=store)
    made.blocking.generate(USER, CallOptions(seed=1, chat_template_kwargs={"enable_thinking": False}))
    assert backend.asked.chat_template_kwargs == {"enable_thinking": False}
    record = store.records[-1]
    assert record.backend["call_chat_template_kwargs"] == '{"enable_thinking": false}'
    fresh = Asked(words())
    portal.call(lambda: regenerate(record, under, model=fresh))
    assert fresh.asked.chat_template_kwargs == {"enable_thinking": False}
    made.blocking.generate(USER, CallOptions(seed=1, chat_template_kwargs={"documents": ["secret"]}))
    assert "secret" not in store.records[-1].model_dump_json()
    with pytest.raises(AuditError, match="template"):
        portal.call(lambda: regenerate(store.records[-1], under, model=fresh))
    made.blocking.generate(USER)
    assert "call_chat_template_kwargs" not in store.records[-1].backend
    for wrong in ("x", {1: 2}, {"a": object()}, {"a": float("nan")}):
        with pytest.raises(InputError, match="chat_template_kwargs"):
            CallOptions(chat_template_kwargs=wrong)  # type: ignore[arg-type]


async def test_a_model_has_variables_of_its_template() -> None:
    """Of its backend's options, which a call's go before; on both engines, which make prompts alike."""
    for options in (TransformersOptions, VllmOptions, partial(VllmServerOptions, base_url="http://a")):
        assert options(chat_template_kwargs={"enable_thinking": False}).chat_template_kwargs
    assert "chat_template_kwargs" not in VllmOptions(chat_template_kwargs={"a": 1}).engine_arguments
    tokenizer = tokenizer_of("qwen 3")
    backend = Streams(SimpleNamespace(tokenizer=tokenizer), 1000)  # type: ignore[arg-type]
    backend.identity = {"engine": "x"}
    backend.use_template({"enable_thinking": False, "style": "short"})
    assert backend.identity["chat_template_kwargs"].startswith("sha256:")
    think = tokenizer.convert_tokens_to_ids("</think>")
    for variables, closed in (({}, True), ({"enable_thinking": True}, False)):
        await backend.open(OpenRequest(messages=USER, chat_template_kwargs=variables))
        assert (think in backend.prompts[-1].ids) == closed


class Streams(StreamedBackend[Any]):
    """Keeps prompts."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.prompts: list[Prompt] = []

    def _source(self, prompt: Prompt, request: OpenRequest) -> Any:
        self.prompts.append(prompt)
        return SimpleNamespace(decode=None, leave=lambda: None)

    @classmethod
    async def load(cls, model: str, options: Any) -> Any: ...

    async def _free_engine(self) -> None:
        pass
