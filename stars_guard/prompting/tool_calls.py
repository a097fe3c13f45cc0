"""Tools that a model may call, and the forms in which models write calls.

    hermes   <tool_call>{"name": ..., "arguments": {...}}</tool_call>   Qwen, Hermes, SmolLM2 (a list of calls)
    llama3   {"name": ..., "parameters": {...}} as the whole answer, or after <|python_tag|>
    mistral  [TOOL_CALLS][{"name": ..., "arguments": {...}}] or [TOOL_CALLS]name[ARGS]{...}

The form follows from the model's chat template. A template that shows no tools, or writes calls in another form, gets
them described in a system message, and calls in the first form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from stars_guard.core.grammar import Grammar, json_format
from stars_guard.core.messages import Message
from stars_guard.core.nesting import TooDeep, decode_json, read_json
from stars_guard.core.tools import Tool, Toolset
from stars_guard.decoding.spans import Span, find_spans
from stars_guard.errors import InputError
from stars_guard.prompting.chat_encoding import encode_chat, takes_tools
from stars_guard.prompting.plain_text import as_text

__all__ = ["HERMES", "ToolForm", "Written", "encode_tool_chat", "form_of", "read_calls"]


@dataclass(frozen=True, slots=True)
class Written:
    """A call as it was found in the text. ``arguments`` is None, and ``error`` says why, when it is none."""

    name: str | None = None
    arguments: Mapping[str, Any] | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class ToolForm:
    """How one model writes its calls.

    Attributes:
        native: whether the chat template shows the tools.
        named: in Mistral's form, whether the name stands before the arguments.
        shown: special tokens, by their text, that mark a call and so must appear in the answer's text.
    """

    name: Literal["hermes", "llama3", "mistral"]
    spans: tuple[Span, ...]
    native: bool = False
    named: bool = False
    shown: Mapping[int, str] = field(default_factory=dict)

    def split(self, text: str, *, at_start: bool) -> list[str | tuple[str, list[Written]]]:
        """Text and calls of what was kept, in order; calls with the text that they were read from.

        White space around calls is dropped.

        Args:
            at_start: whether the answer begins with the text.
        """
        pieces: list[str | tuple[str, list[Written]]] = []
        at = 0
        for found in find_spans(text, self.spans, at_start=at_start):
            raw = text[found.start : found.stop]
            calls = read_calls(raw, found.span, closed=found.closed)
            # a bare object that is no call is an answer in JSON
            if found.span.begin == "{" and any(call.arguments is None for call in calls):
                continue
            pieces += [before] if (before := text[at : found.start]).strip() else []
            pieces.append((raw, calls))
            at = found.stop
        rest = text[at:]
        return [*pieces, rest] if rest.strip() or (rest and not pieces) else pieces

    def grammar(self, toolset: Toolset) -> Grammar | None:
        """What the answer must look like under a toolset; None when anything goes.

        Raises:
            InputError: strict calls are not to be had in this form.
        """
        if toolset.forced:
            return Grammar.of(self._call([tool for tool in toolset.tools if tool.name in toolset.forced]))
        if not toolset.strict:
            return None
        if self.name != "hermes" or self.shown:
            raise InputError("strict calls are not to be had from this model", hint="force one with tool_choice")
        tag = self._call(toolset.tools)
        return Grammar.of({"type": "triggered_tags", "triggers": [tag["begin"]], "tags": [tag]}, whole=False)

    def _call(self, tools: Sequence[Tool]) -> dict[str, Any]:
        """One call of one of the tools, as a part of a structural tag."""
        if self.named:
            return _either(
                [
                    _row(self._marker("[TOOL_CALLS]"), tool.name, self._marker("[ARGS]"), json_format(tool.parameters))
                    for tool in tools
                ]
            )
        key = "parameters" if self.name == "llama3" else "arguments"
        call = json_format(_either_schema([_schema(tool, key) for tool in tools]))
        if self.name == "llama3":
            return call
        if self.name == "mistral":
            return _row(self._marker("[TOOL_CALLS]"), "[", call, "]")
        line = {"type": "regex", "pattern": r"\n?"}
        content = _row(line, call, line) if self.native else _row("[", call, "]")
        return {
            "type": "tag",
            "begin": self._marker("<tool_call>"),
            "content": content,
            "end": self._marker("</tool_call>"),
        }

    def _marker(self, text: str) -> Any:
        return {"type": "token", "token": text} if text in self.shown.values() else text


def _row(*parts: Any) -> dict[str, Any]:
    return {
        "type": "sequence",
        "elements": [{"type": "const_string", "value": part} if isinstance(part, str) else part for part in parts],
    }


def _either(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "or", "elements": parts} if len(parts) > 1 else parts[0]


def _schema(tool: Tool, key: str) -> dict[str, Any]:
    arguments = {"type": "object", **_moved(tool.parameters, tool.name)}
    if not arguments.get("properties"):
        arguments.setdefault("additionalProperties", False)
    properties = {"name": {"const": tool.name}, key: arguments}
    return {"type": "object", "properties": properties, "required": ["name", key], "additionalProperties": False}


def _moved(schema: Any, name: str) -> Any:
    """With references to where the tool's definitions will be."""
    if isinstance(schema, Mapping):
        return {
            key: f"#/$defs/{name}/{value.removeprefix('#/$defs/')}"
            if key == "$ref" and isinstance(value, str) and value.startswith("#/$defs/")
            else _moved(value, name)
            for key, value in schema.items()
        }
    return [_moved(item, name) for item in schema] if isinstance(schema, list | tuple) else schema


def _either_schema(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """Any of the schemas, with their definitions at the root, where references look for them."""
    definitions = {}
    for schema in schemas:
        (parameters,) = (part for key, part in schema["properties"].items() if key != "name")
        if defs := parameters.pop("$defs", None):
            definitions[schema["properties"]["name"]["const"]] = defs
    whole = {"anyOf": schemas} if len(schemas) > 1 else schemas[0]
    return {**whole, "$defs": definitions} if definitions else whole


def read_calls(raw: str, span: Span, *, closed: bool) -> list[Written]:
    """The calls between markers, or what is wrong with them."""
    body = raw[len(span.begin) if span.begin != "{" else 0 : len(raw) - len(span.end or "") if closed else None].strip()
    if span.end is not None and not closed:
        return [Written(error="the answer ended within the call")]
    if span.begin == "[TOOL_CALLS]":
        named = [_NAMED.match(part) for part in body.split("[TOOL_CALLS]")]
        if all(named):
            return [_read(match[2], match[1]) for match in named if match]
    at = 0
    calls: list[Written] = []
    while at < len(body):
        try:
            value, end = decode_json(body, at)
        except ValueError as exc:
            return [
                *calls,
                Written(error="the call is nested too deeply" if isinstance(exc, TooDeep) else "the call is not JSON"),
            ]
        calls += [_call_of(item) for item in (value if isinstance(value, list) else [value])]
        at = end + len(body[end:]) - len(body[end:].lstrip(" \n\r\t;,"))
    return calls


def _read(text: str, name: str) -> Written:
    try:
        value = read_json(text)
    except ValueError as exc:
        return Written(name, error=_wrong("the arguments are", exc))
    return _call_of({"name": name, "arguments": value})


def _call_of(value: Any) -> Written:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or not name:
        return Written(error="the call has no name")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = read_json(arguments)
        except ValueError as exc:
            return Written(name, error=_wrong("the arguments are", exc))
    if not isinstance(arguments, dict):
        return Written(name, error="the arguments are not an object")
    return Written(name, arguments)


def _wrong(what: str, exc: ValueError) -> str:
    return f"{what} {'nested too deeply' if isinstance(exc, TooDeep) else 'not JSON'}"


_NAMED = re.compile(r"\s*([\w.-]+)(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*(\{.*)", re.DOTALL)
_TAGGED = Span("<tool_call>", "</tool_call>")

HERMES = ToolForm("hermes", (_TAGGED,))
"""What is described to a model whose template shows no tools."""


def form_of(tokenizer: Any) -> ToolForm:
    """The form that a model writes its calls in."""
    template = str(tokenizer.chat_template)
    if not takes_tools(tokenizer):
        form = HERMES
    elif "[TOOL_CALLS]" in template:
        form = ToolForm("mistral", (Span("[TOOL_CALLS]"),), native=True, named="[ARGS]" in template)
    elif "<tool_call>" in template and "<function=" not in template:
        form = replace(HERMES, native=True)
    elif "<|python_tag|>" in template or '"parameters": dictionary' in template:
        form = ToolForm("llama3", (Span("<|python_tag|>", leading=True), Span("{", leading=True)), native=True)
    else:
        form = HERMES
    special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    return replace(form, shown={token: text for token, text in special.items() if text in _MARKERS})


_MARKERS = {"<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>"}

_DESCRIPTION = """\
You can call functions. These are available, each described by a JSON schema:
<tools>{tools}</tools>

To call functions, write nothing but a list of calls between tool_call tags, with arguments of the types described:
<tool_call>[{{"name": "function_name", "arguments": {{"argument": "value"}}}}]</tool_call>
When no function helps, answer in plain words. Results come between tool_response tags."""


def encode_tool_chat(tokenizer: Any, messages: Sequence[Message], toolset: Toolset, form: ToolForm) -> list[int]:
    """Token ids of a conversation with the tools on offer."""
    definitions = [tool.definition for tool in toolset.tools]
    if form.native:
        return encode_chat(tokenizer, messages, tools=definitions)
    text = _DESCRIPTION.format(tools=json.dumps(definitions, ensure_ascii=False))
    if messages and messages[0].role == "system":
        text, messages = f"{messages[0].content}\n\n{text}", messages[1:]
    return encode_chat(tokenizer, [Message("system", text), *as_text(messages)])
