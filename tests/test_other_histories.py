"""Conversations that other providers' models were part of, given to ChatStars: as a fallback, or half-way."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import guard, rewarding
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_stars import ChatStars
from langchain_stars._messages import to_messages
from stars_guard.errors import InputError

TEXT = {"type": "text", "text": "said"}

NO_TEXT: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
    {"type": "redacted_thinking", "data": "c2VjcmV0"},
    {"type": "reasoning", "reasoning": "hm", "summary": [{"type": "summary_text", "text": "hm"}]},
    {"type": "reasoning_content", "reasoning_content": {"text": "hm"}},
    {"reasoningContent": {"reasoningText": {"text": "hm"}}},
    {"type": "tool_use", "id": "1", "name": "f", "input": {}},
    {"toolUse": {"toolUseId": "1", "name": "f", "input": {}}},
    {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {"query": "x"}},
    {"type": "server_tool_call", "id": "1", "name": "web_search", "args": {}},
    {"type": "server_tool_result", "tool_call_id": "1", "status": "success", "output": []},
    {"type": "web_search_tool_result", "tool_use_id": "1", "content": [{"type": "web_search_result", "url": "u"}]},
    {"type": "code_execution_tool_result", "tool_use_id": "1", "content": {"stdout": "x"}},
    {"type": "mcp_tool_use", "id": "1", "name": "f", "server_name": "s", "input": {}},
    {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "1"},
    {"type": "custom_tool_call", "name": "f", "input": "x", "call_id": "1"},
    {"type": "web_search_call", "id": "1", "status": "completed"},
    {"type": "file_search_call", "id": "1", "queries": ["x"]},
    {"type": "code_interpreter_call", "id": "1", "code": "1"},
    {"type": "computer_call", "id": "1"},
    {"type": "executable_code", "executable_code": "print(1)", "language": "PYTHON"},
    {"type": "code_execution_result", "code_execution_result": "1", "outcome": 1},
    {"functionCall": {"name": "f", "args": {}}},
    {"text": "hm", "thought": True},
    {"type": "non_standard", "value": {"type": "server_tool_use", "name": "f"}},
    {"type": "non_standard", "value": {"anything": [1]}},
    {"type": "cachePoint", "cachePoint": {"type": "default"}},
    {"cachePoint": {"type": "default"}},
    {"type": "cache_point"},
    {"type": "invalid_tool_call", "name": "f", "args": "{", "error": "e", "id": "1"},
]

WITH_TEXT: list[dict[str, Any]] = [
    TEXT,
    {"type": "input_text", "text": "said"},
    {"type": "output_text", "text": "said", "annotations": []},
    {"type": "text-plain", "text": "said", "mime_type": "text/plain"},
    {"text": "said"},
    {"text": "said", "thoughtSignature": "c2ln"},
    {"type": "text", "text": "said", "cache_control": {"type": "ephemeral"}},
    {"type": "guard_content", "text": {"text": "said", "qualifiers": ["query"]}},
    {"guardContent": {"text": {"text": "said"}}},
    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "said"}},
    {"type": "document", "source": {"type": "content", "content": [TEXT]}},
    {"type": "search_result", "source": "u", "title": "t", "content": [TEXT]},
    {"type": "non_standard", "value": {"type": "input_text", "text": "said"}},
    {"type": "tool_result", "tool_use_id": "1", "content": [TEXT]},
    {"type": "tool_result", "tool_use_id": "1", "content": "said"},
    {"type": "function_call_output", "call_id": "1", "output": "said"},
    {"toolResult": {"toolUseId": "1", "content": [{"text": "said"}]}},
]

MEDIA: list[dict[str, Any]] = [
    {"type": "image", "url": "https://example.org/a.png"},
    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    {"type": "input_image", "image_url": "https://example.org/a.png"},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aaaa"}},
    {"type": "audio", "base64": "aaaa", "mime_type": "audio/wav"},
    {"type": "input_audio", "input_audio": {"data": "aaaa", "format": "wav"}},
    {"type": "video", "url": "https://example.org/a.mp4"},
    {"type": "file", "file_id": "1"},
    {"type": "input_file", "file_id": "1"},
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aaaa"}},
    {"type": "media", "mime_type": "image/png", "data": "aaaa"},
    {"image": {"format": "png", "source": {"bytes": "aaaa"}}},
    {"inline_data": {"mime_type": "image/png", "data": "aaaa"}},
    {"type": "non_standard", "value": {"type": "image_url", "image_url": "u"}},
]


def name_of(block: dict[str, Any]) -> str:
    inner = f"/{name_of(block['value'])}" if isinstance(block.get("value"), dict) else ""
    return str(block.get("type") or "+".join(block)) + inner


def scripted() -> ChatStars:
    return ChatStars(guard=guard(rewarding(lambda p: 9.0)))


@pytest.mark.parametrize("block", NO_TEXT, ids=name_of)
@pytest.mark.parametrize("beside", [[TEXT], []])
def test_what_has_no_text_for_the_model_is_passed_over(block: dict[str, Any], beside: list[Any]) -> None:
    history = [HumanMessage("hi"), AIMessage([block, *beside]), HumanMessage("go on")]
    assert [m.content for m in to_messages(history)] == ["hi", "said" if beside else "", "go on"]


@pytest.mark.parametrize("block", WITH_TEXT, ids=name_of)
@pytest.mark.parametrize("kind", [HumanMessage, AIMessage, SystemMessage])
def test_what_has_text_is_sent(block: dict[str, Any], kind: type[BaseMessage]) -> None:
    first, second = to_messages([kind([{"type": "thinking", "thinking": "hm"}, block, "!"]), HumanMessage("so?")])
    assert (first.content, second.content) == ("said!", "so?")


@pytest.mark.parametrize("block", MEDIA, ids=name_of)
@pytest.mark.parametrize("kind", [HumanMessage, AIMessage])
def test_what_is_no_text_is_named(block: dict[str, Any], kind: type[BaseMessage]) -> None:
    with pytest.raises(InputError, match=r"message 1 holds a content block .*which the model cannot read") as caught:
        to_messages([HumanMessage("hi"), kind(["see:", block])])
    inner = block.get("value", block)
    assert str(inner.get("type") or next(iter(inner))) in str(caught.value)


def test_what_a_caller_sends_is_not_dropped_unseen() -> None:
    with pytest.raises(InputError, match="'hologram'"):
        to_messages([HumanMessage([{"type": "hologram", "points": []}])])
    assert to_messages([AIMessage([{"type": "hologram", "points": []}, "ok"])])[0].content == "ok"


def test_what_is_sent_is_what_is_recorded_and_judged() -> None:
    model = scripted()
    model.invoke(
        [HumanMessage([{"type": "input_text", "text": "one"}]), AIMessage([NO_TEXT[0], TEXT]), HumanMessage("2")]
    )
    assert model.guard is not None
    (record,) = model.guard.audit.read()
    assert [message.content.text for message in record.prompt] == ["one", "said", "2"]


@pytest.mark.parametrize(
    ("role", "ours"),
    [
        ("user", "user"),
        ("human", "user"),
        ("Assistant", "assistant"),
        ("ai", "assistant"),
        ("model", "assistant"),
        ("system", "system"),
        ("developer", "system"),
        ("tool", "tool"),
        ("function", "tool"),
    ],
)
def test_roles_of_chat_messages(role: str, ours: str) -> None:
    assert to_messages([ChatMessage("x", role=role)])[0].role == ours


def test_an_unknown_role_is_named() -> None:
    with pytest.raises(InputError, match="message 1 has the unknown role 'critic'"):
        to_messages([HumanMessage("hi"), ChatMessage("x", role="critic")])


def test_functions_of_the_first_form_are_calls_and_results() -> None:
    called = AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": '{"a": 1}'}})
    _, asked, result = to_messages([HumanMessage("hi"), called, FunctionMessage("42", name="f")])
    (call,) = asked.tool_calls
    assert (call.name, dict(call.arguments)) == ("f", {"a": 1})
    assert (result.role, result.content, result.name, result.tool_call_id) == ("tool", "42", "f", call.id)
    assert call.id
    alone = to_messages([FunctionMessage("42", name="g")])[0]
    assert (alone.role, alone.name) == ("tool", "g")


def test_a_message_that_removes_another_says_nothing() -> None:
    assert [m.content for m in to_messages([RemoveMessage(id="1"), HumanMessage("hi")])] == ["hi"]
    with pytest.raises(InputError, match="no messages"):
        to_messages([RemoveMessage(id="1")])


def test_another_providers_refusal_is_sent_once() -> None:
    refusal = {"type": "refusal", "refusal": "No."}
    assert to_messages([AIMessage([refusal])])[0].content == "No."
    assert to_messages([AIMessage([refusal, {"type": "text", "text": "No."}])])[0].content == "No."


def test_it_takes_over_from_a_model_that_fails() -> None:
    class Failing(GenericFakeChatModel):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("overloaded")

    history = [
        SystemMessage([TEXT, {"cachePoint": {"type": "default"}}]),
        HumanMessage("weather?"),
        AIMessage([*NO_TEXT, TEXT], tool_calls=[{"name": "f", "args": {}, "id": "1"}]),
        ToolMessage([{"type": "text", "text": "rain"}], tool_call_id="1"),
    ]
    assert Failing(messages=iter([])).with_fallbacks([scripted()]).invoke(history).text
