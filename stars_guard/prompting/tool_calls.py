"""The forms in which models write tool calls, and how tools are offered to them.

    hermes   <tool_call>{"name": ..., "arguments": {...}}</tool_call>   Qwen, Hermes, SmolLM2 (a list of calls)
    llama3   {"name": ..., "parameters": {...}} as the whole answer, or after <|python_tag|>
    mistral  [TOOL_CALLS][{"name": ..., "arguments": {...}}] or [TOOL_CALLS]name[ARGS]{...}

The form follows from the model's chat template. A template that shows no tools, or writes calls in another form, gets
them described in a system message, and calls in the first form. To add a form, write its class and add it to `FORMS`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from stars_guard.core.grammar import Grammar, json_format
from stars_guard.core.messages import Message
from stars_guard.core.tools import Tool, Toolset
from stars_guard.decoding.spans import Found, Span
from stars_guard.errors import InputError
from stars_guard.prompting._call_grammar import call_format, either, row
from stars_guard.prompting._written_calls import Written, read_json_calls, read_named_calls
from stars_guard.prompting.chat_encoding import encode_chat, takes_tools

__all__ = [
    "FORMS",
    "HERMES",
    "HermesForm",
    "Llama3Form",
    "MistralForm",
    "ToolForm",
    "Written",
    "encode_tool_chat",
    "form_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolForm(ABC):
    """How one model writes its calls.

    Attributes:
        name: in the table above.
        spans: how a call is marked in the text.
        markers: what may be special tokens of the model, and yet must appear in the answer's text.
        native: whether the chat template shows the tools; otherwise a system message describes them.
        shown: the markers that are special tokens of this model, by their ids.
    """

    name: ClassVar[str]
    spans: ClassVar[tuple[Span, ...]]
    markers: ClassVar[frozenset[str]]
    native: bool = True
    shown: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    @abstractmethod
    def of_template(cls, template: str) -> Self | None:
        """The form, if a chat template that shows tools writes calls in it."""

    @abstractmethod
    def call(self, tools: Sequence[Tool]) -> dict[str, Any]:
        """One call of one of the tools, as a part of a structural tag."""

    def strict_call(self, tools: Sequence[Tool]) -> dict[str, Any] | None:
        """The same as a tag that may begin anywhere in free text; None where the form has no such tag."""
        return None

    def read(self, text: str) -> list[Written]:
        """The calls between markers."""
        return read_json_calls(text)

    def body(self, raw: str, found: Found) -> str:
        """A marked text without its markers."""
        return raw.removeprefix(found.span.begin).removesuffix(found.span.end or "")

    def is_call(self, found: Found, calls: Sequence[Written]) -> bool:
        """Whether a marked text is a call at all, though perhaps one with errors."""
        return True

    def calls(self, raw: str, found: Found) -> list[Written] | None:
        """The calls in a marked text, or what is wrong with them; None where it is plain text after all."""
        if found.span.end is not None and not found.closed:
            calls = [Written(error="the answer ended within the call")]
        else:
            calls = self.read(self.body(raw, found))
        return calls if self.is_call(found, calls) else None

    def grammar(self, toolset: Toolset) -> Grammar | None:
        """What the answer must look like under a toolset; None when anything goes.

        Raises:
            InputError: strict calls aren't supported in this form.
        """
        if toolset.forced:
            return Grammar.of(self.call([tool for tool in toolset.tools if tool.name in toolset.forced]))
        if not toolset.strict:
            return None
        tag = self.strict_call(toolset.tools)
        if tag is None:
            raise InputError("strict calls aren't supported with this model", hint="force one with tool_choice")
        return Grammar.of({"type": "triggered_tags", "triggers": [tag["begin"]], "tags": [tag]}, whole=False)

    def marker(self, text: str) -> Any:
        """A marker as a part of a structural tag: a token where it is special, text elsewhere."""
        return {"type": "token", "token": text} if text in self.shown.values() else text


@dataclass(frozen=True, slots=True, kw_only=True)
class HermesForm(ToolForm):
    """Calls between ``<tool_call>`` tags."""

    name: ClassVar = "hermes"
    spans: ClassVar = (Span("<tool_call>", "</tool_call>"),)
    markers: ClassVar = frozenset({"<tool_call>", "</tool_call>"})

    @classmethod
    def of_template(cls, template: str) -> Self | None:
        return cls() if "<tool_call>" in template and "<function=" not in template else None

    def call(self, tools: Sequence[Tool]) -> dict[str, Any]:
        call, line = call_format(tools, "arguments"), {"type": "regex", "pattern": r"\n?"}
        content = row(line, call, line) if self.native else row("[", call, "]")
        begin, end = (self.marker(text) for text in ("<tool_call>", "</tool_call>"))
        return {"type": "tag", "begin": begin, "content": content, "end": end}

    def strict_call(self, tools: Sequence[Tool]) -> dict[str, Any] | None:
        # xgrammar is triggered by text alone
        return None if self.shown else self.call(tools)


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama3Form(ToolForm):
    """A bare object as the whole answer."""

    name: ClassVar = "llama3"
    spans: ClassVar = (Span("<|python_tag|>", leading=True), Span("{", leading=True))
    markers: ClassVar = frozenset({"<|python_tag|>"})

    @classmethod
    def of_template(cls, template: str) -> Self | None:
        return cls() if "<|python_tag|>" in template or '"parameters": dictionary' in template else None

    def call(self, tools: Sequence[Tool]) -> dict[str, Any]:
        return call_format(tools, "parameters")

    def body(self, raw: str, found: Found) -> str:
        return raw if found.span.begin == "{" else raw.removeprefix(found.span.begin)

    def is_call(self, found: Found, calls: Sequence[Written]) -> bool:
        # a bare object that can't be read as a call is an answer in JSON
        return found.span.begin != "{" or all(call.arguments is not None for call in calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class MistralForm(ToolForm):
    """Calls after ``[TOOL_CALLS]``, up to the end of the answer.

    Attributes:
        named: whether the name stands before the arguments.
    """

    name: ClassVar = "mistral"
    spans: ClassVar = (Span("[TOOL_CALLS]"),)
    markers: ClassVar = frozenset({"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"})
    named: bool = False

    @classmethod
    def of_template(cls, template: str) -> Self | None:
        return cls(named="[ARGS]" in template) if "[TOOL_CALLS]" in template else None

    def call(self, tools: Sequence[Tool]) -> dict[str, Any]:
        begin, arguments = self.marker("[TOOL_CALLS]"), self.marker("[ARGS]")
        if self.named:
            return either([row(begin, tool.name, arguments, json_format(tool.parameters)) for tool in tools])
        return row(begin, "[", call_format(tools, "arguments"), "]")

    def read(self, text: str) -> list[Written]:
        calls = read_named_calls(text, "[TOOL_CALLS]")
        return read_json_calls(text) if calls is None else calls


FORMS: tuple[type[ToolForm], ...] = (MistralForm, HermesForm, Llama3Form)
"""The forms that templates are tried for, in this order."""

HERMES = HermesForm(native=False)
"""What is described to a model whose template shows no tools."""


def form_of(tokenizer: Any) -> ToolForm:
    """The form that a model writes its calls in."""
    kinds = FORMS if takes_tools(tokenizer) else ()
    found = (kind.of_template(str(tokenizer.chat_template)) for kind in kinds)
    form = next((form for form in found if form is not None), HERMES)
    special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    return replace(form, shown={token: text for token, text in special.items() if text in form.markers})


_DESCRIPTION = """\
You can call functions. These are available, each described by a JSON schema:
<tools>{tools}</tools>

To call functions, write nothing but a list of calls between tool_call tags, with arguments of the types described:
<tool_call>[{{"name": "function_name", "arguments": {{"argument": "value"}}}}]</tool_call>
When no function helps, answer in plain words. Results come between tool_response tags."""


def encode_tool_chat(
    tokenizer: Any,
    messages: Sequence[Message],
    toolset: Toolset,
    form: ToolForm,
    settings: Mapping[str, Any] | None = None,
) -> list[int]:
    """Token ids of a conversation with the tools on offer.

    Where the template shows no tools, a system message describes them, or the first message of the user where the
    template takes no system message.
    """
    definitions = [tool.definition for tool in toolset.tools]
    if form.native:
        return encode_chat(tokenizer, messages, tools=definitions, settings=settings)
    text = _DESCRIPTION.format(tools=json.dumps(definitions, ensure_ascii=False))
    if messages and messages[0].role == "system":
        text, messages = f"{messages[0].content}\n\n{text}", messages[1:]
    return encode_chat(tokenizer, [Message("system", text), *messages], settings=settings, described=True)
