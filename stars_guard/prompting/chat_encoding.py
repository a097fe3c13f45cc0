"""From messages to token ids by the model's chat template. Message text never becomes control tokens."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from stars_guard.core.messages import Message, ToolCall
from stars_guard.core.vocabulary import Role
from stars_guard.errors import InputError
from stars_guard.prompting.plain_text import as_text, one_call_a_turn
from stars_guard.prompting.text_encoding import control_tokens, plain_ids

__all__ = [
    "encode_chat",
    "encode_marked",
    "encode_pieces",
    "encode_text",
    "mark",
    "render_chat",
    "takes_tools",
    "trims",
]

# As it stands, or as JSON once or more often: "\x01", "\\u0001", "\\\\u0001".
_MARK = re.compile(r"(\x01|\\+u0001)(\d+)\1")

_PROBED = {"Go.", "probe_tool", "probe_value", "probe_result"}
_PROBE = {
    "type": "function",
    "function": {"name": "probe_tool", "description": "Probe.", "parameters": {"type": "object", "properties": {}}},
}


def encode_chat(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    answer: str | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[int]:
    """Token ids of the templated conversation, up to where the answer begins; or with the answer, for a judge.

    The template is rendered with a mark in the place of each text. What lies between marks is the template's own and
    may hold control tokens. The texts are encoded apart, by a tokenizer without added tokens. Where the template
    takes no tools, calls and results are written out as text.

    Args:
        tools: definitions in OpenAI's form, for a template that takes them.

    Raises:
        InputError: there are no messages, the template does not take them, or a tool's definition holds a control
            token.
    """
    return encode_marked(tokenizer, *render_chat(tokenizer, messages, answer=answer, tools=tools))


def render_chat(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    answer: str | None = None,
    role: Role = "assistant",
    tools: Sequence[Mapping[str, Any]] = (),
) -> tuple[str, list[str]]:
    """The template with marks in the places of texts, and the texts; the last is the answer's, if it is not empty.

    Takes and raises what `encode_chat` does, and ``role``, which is who says the answer.
    """
    if not messages and role == "assistant":
        raise InputError("there are no messages", hint="pass at least one user message")
    if any(message.tool_calls or message.role == "tool" for message in messages) and not takes_tools(tokenizer):
        messages = as_text(messages)
    turns = [*messages, Message(role, answer)] if answer is not None else list(messages)
    texts = _Texts()
    marked = [texts.turn(turn, trims=trims(tokenizer)) for turn in turns]
    if tokenizer.chat_template is None:
        rendered = "\n".join(f"{m['role']}: {m['content']}" for m in marked) + ("\nassistant: " * (answer is None))
        return rendered, texts.all
    _refuse_control_tokens(tokenizer, tools)
    try:
        rendered = tokenizer.apply_chat_template(
            marked, tools=list(tools) or None, tokenize=False, add_generation_prompt=answer is None
        )
    except Exception as exc:
        if any(len(message.tool_calls) > 1 for message in messages):
            return render_chat(tokenizer, one_call_a_turn(messages), answer=answer, role=role, tools=tools)
        raise InputError(
            f"the model's chat template does not take these roles: {[m.role for m in messages]}",
            hint="most templates want an optional system message, then user and assistant in turn",
        ) from exc
    return rendered, texts.all


def trims(tokenizer: Any) -> bool:
    """Whether the chat template strips the texts of messages."""
    return "trim" in str(tokenizer.chat_template or "")


def takes_tools(tokenizer: Any) -> bool:
    """Whether the chat template shows tools, calls and results to the model, which rendering some tells."""
    template = str(tokenizer.chat_template)
    if template not in _TAKES_TOOLS:
        call = ToolCall(id="abcdef012", name="probe_tool", arguments={"probe_key": "probe_value"})
        result = Message("tool", "probe_result", tool_call_id=call.id, name="probe_tool")
        turns = [Message("user", "Go."), Message("assistant", "", tool_calls=(call,)), result]
        texts = _Texts()
        marked = [texts.turn(turn, trims=False) for turn in turns]
        try:
            rendered = tokenizer.apply_chat_template(marked, tools=[_PROBE], tokenize=False, add_generation_prompt=True)
        except Exception:
            rendered = ""
        seen = {texts.all[int(match[2])] for match in _MARK.finditer(rendered)}
        _TAKES_TOOLS[template] = "probe_tool" in rendered and seen >= _PROBED
    return _TAKES_TOOLS[template]


_TAKES_TOOLS: dict[str, bool] = {}


class _Texts:
    """Messages as templates want them, with marks in the places of their texts.

    Attributes:
        all: the texts, by the numbers in their marks.
    """

    def __init__(self) -> None:
        self.all: list[str] = []

    def turn(self, message: Message, *, trims: bool) -> dict[str, Any]:
        """One message; ``trims`` strips its content."""
        content = message.content.strip() if trims else message.content
        turn: dict[str, Any] = {"role": message.role, "content": self._marked(content) if content else ""}
        if message.tool_calls:
            turn["tool_calls"] = [self._call(call) for call in message.tool_calls]
        if message.role == "tool":
            turn |= {"tool_call_id": _plain_id(message.tool_call_id), "name": self._marked(message.name)}
        return turn

    def _call(self, call: ToolCall) -> dict[str, Any]:
        function = {"name": self._marked(call.name), "arguments": self._marked(call.arguments)}
        return {"id": _plain_id(call.id), "type": "function", "function": function}

    def _marked(self, value: Any) -> Any:
        """A JSON value with a mark for each string, the keys of mappings included."""
        if isinstance(value, str):
            self.all.append(value)
            return mark(len(self.all) - 1)
        if isinstance(value, Mapping):
            return {self._marked(str(key)): self._marked(item) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self._marked(item) for item in value]
        return value


def _plain_id(given: str) -> str:
    """An id that is no control token; Mistral's templates want nine letters or digits."""
    return hashlib.sha256(given.encode()).hexdigest()[:9]


def _refuse_control_tokens(tokenizer: Any, tools: Sequence[Mapping[str, Any]]) -> None:
    if not tools:
        return
    text = json.dumps(list(tools), ensure_ascii=False)
    if any(special in text for special in (*control_tokens(tokenizer), "\x01", "u0001")):
        raise InputError("a tool's definition holds a control token of the model", hint="reword its description")


def mark(index: int) -> str:
    """What stands in a rendered template for text number ``index``. JSON may be made of it in the template."""
    return f"\x01{index}\x01"


def encode_marked(tokenizer: Any, rendered: str, texts: Sequence[str]) -> list[int]:
    """Token ids of a rendered template whose marks stand for texts. Only the template itself has control tokens."""
    return [token for _, ids in encode_pieces(tokenizer, rendered, texts) for token in ids]


def encode_pieces(tokenizer: Any, rendered: str, texts: Sequence[str]) -> list[tuple[bool, list[int]]]:
    """As `encode_marked`, piece by piece, with whether a piece is one of the texts."""
    pieces: list[tuple[bool, list[int]]] = []
    at = 0
    for match in [*_MARK.finditer(rendered), None]:
        own = rendered[at : match.start()] if match else rendered[at:]
        if own:
            # the setting is said each time, because another caller may have changed the tokenizer's
            ids = tokenizer(own, add_special_tokens=False, split_special_tokens=False, verbose=False)["input_ids"]
            pieces.append((False, list(ids)))
        if match is None:
            break
        if ids := plain_ids(tokenizer, _as_json(texts[int(match[2])], match[1].count("\\"))):
            pieces.append((True, ids))
        at = match.end()
    return pieces


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of plain text, without control tokens of any kind."""
    return plain_ids(tokenizer, text)


def _as_json(text: str, backslashes: int) -> str:
    """The text as it stands inside JSON strings: as it is for none, twice escaped for two backslashes, and so on."""
    for _ in range(backslashes.bit_length()):
        text = json.dumps(text, ensure_ascii=False)[1:-1]
    return text
