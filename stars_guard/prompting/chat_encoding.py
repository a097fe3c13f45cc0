"""From messages to token ids by the model's chat template. Message text never becomes control tokens."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from stars_guard.core.messages import Message, ToolCall
from stars_guard.core.vocabulary import Role
from stars_guard.errors import InputError
from stars_guard.prompting._ownership import owned
from stars_guard.prompting.plain_text import as_text, merged, one_call_a_turn, without_system
from stars_guard.prompting.text_encoding import (
    After,
    control_tokens,
    own_ids,
    plain_ids,
    reasoning_marks,
    templated_ids,
)

__all__ = [
    "Pieces",
    "encode_chat",
    "encode_marked",
    "encode_pieces",
    "encode_text",
    "mark",
    "render_chat",
    "takes_tools",
    "trims",
]

_T = TypeVar("_T")

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
    settings: Mapping[str, Any] | None = None,
    described: bool = False,
) -> list[int]:
    """Token ids of the templated conversation, up to where the answer begins; or with the answer, for a judge.

    They are the ids that ``apply_chat_template`` gives, except that what a message says never becomes a control token.
    Where it can't be said which characters are a message's, the template is rendered with a mark in the place of each
    text, and the texts are encoded apart. Where the template takes no tools, calls and results are written out as text.

    Args:
        tools: definitions in OpenAI's form, for a template that takes them.
        settings: variables of the template, such as ``enable_thinking``.
        described: the first message describes tools, which the template does not know. Calls and results are written
            out as text, and where the template takes no system message, the user's first says what it says.

    Raises:
        InputError: there are no messages, the template does not take them, or a tool's definition or a setting holds a
            control token.
    """
    chat = _Chat.of(tokenizer, messages, answer=answer, tools=tools, settings=settings, described=described)
    control, marks = control_tokens(tokenizer), reasoning_marks(tokenizer)
    template = str(tokenizer.chat_template or "")
    shaped, known = chat.first_taken(lambda shaped: owned(shaped.render, template, control, marks))
    ids = None if known is None else templated_ids(tokenizer, known)
    return encode_marked(tokenizer, *shaped.marked()) if ids is None else ids


def render_chat(
    tokenizer: Any, messages: Sequence[Message], *, answer: str | None = None, role: Role = "assistant"
) -> tuple[str, list[str]]:
    """The template with marks in the places of texts, and the texts; the last is the answer's, if it is not empty.

    Takes and raises what `encode_chat` does, and ``role``, which is who says the answer.
    """
    return _Chat.of(tokenizer, messages, answer=answer, role=role).first_taken(_Chat.marked)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chat:
    """A conversation for a chat template.

    Attributes:
        described: the first message describes tools.
        written: calls and results are written out as text.
    """

    tokenizer: Any
    turns: tuple[Message, ...]
    open: bool
    tools: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    described: bool = False
    written: bool = False

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        messages: Sequence[Message],
        *,
        answer: str | None,
        role: Role = "assistant",
        tools: Sequence[Mapping[str, Any]] = (),
        settings: Mapping[str, Any] | None = None,
        described: bool = False,
    ) -> _Chat:
        if not messages and role == "assistant":
            raise InputError("there are no messages", hint="pass at least one user message")
        written = any(message.tool_calls or message.role == "tool" for message in messages) and (
            described or not takes_tools(tokenizer)
        )
        if written:
            messages = as_text(messages)
        turns = (*messages, *([Message(role, answer)] if answer is not None else []))
        _refuse_settings(tokenizer, settings or {})
        _refuse_control_tokens(tokenizer, tools, "a tool's definition")
        return cls(
            tokenizer=tokenizer,
            turns=turns,
            open=answer is None,
            tools=tools,
            settings=settings or {},
            described=described,
            written=written,
        )

    def first_taken(self, attempt: Callable[[_Chat], _T]) -> tuple[_Chat, _T]:
        """What is made of the conversation in the first shape that the template takes."""
        refused: Exception | None = None
        for turns in self._shapes():
            shaped = replace(self, turns=tuple(turns))
            try:
                return shaped, attempt(shaped)
            except Exception as exc:
                refused = refused or exc
        raise InputError(
            f"the model's chat template does not take these roles: {[turn.role for turn in self.turns]}",
            hint="most templates want an optional system message, then user and assistant in turn",
        ) from refused

    def _shapes(self) -> Iterator[Sequence[Message]]:
        """The conversation as it is, and then with what was made of tools in the messages that the user sent."""
        yield self.turns
        if any(len(turn.tool_calls) > 1 for turn in self.turns):
            yield one_call_a_turn(self.turns)
        if self.written:
            yield merged(self.turns)
        if self.described:
            yield without_system(self.turns)
        if self.written and self.described:
            yield merged(without_system(self.turns))

    def render(self, put: Callable[[str, Role], str]) -> str:
        """The template's text, with what is put for each text of the conversation."""
        turns = [_turn(turn, put) for turn in self.turns]
        if self.tokenizer.chat_template is None:
            return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns) + "\nassistant: " * self.open
        return str(
            self.tokenizer.apply_chat_template(
                turns,
                tools=list(self.tools) or None,
                tokenize=False,
                add_generation_prompt=self.open,
                **self.settings,
            )
        )

    def marked(self) -> tuple[str, list[str]]:
        """As `render_chat` has it."""
        texts: list[str] = []

        def put(text: str, role: Role) -> str:
            texts.append(text)
            return mark(len(texts) - 1)

        stripped = trims(self.tokenizer)
        turns = tuple(replace(turn, content=turn.content.strip()) for turn in self.turns) if stripped else self.turns
        return replace(self, turns=turns).render(put), texts


def _turn(message: Message, put: Callable[[str, Role], str]) -> dict[str, Any]:
    """A message as templates want it."""

    def of(value: Any) -> Any:
        """A JSON value with something put for each string, the keys of mappings included."""
        if isinstance(value, str):
            return put(value, message.role)
        if isinstance(value, Mapping):
            return {of(str(key)): of(item) for key, item in value.items()}
        return [of(item) for item in value] if isinstance(value, Sequence) else value

    turn: dict[str, Any] = {"role": message.role, "content": of(message.content) if message.content else ""}
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": _plain_id(call.id),
                "type": "function",
                "function": {"name": of(call.name), "arguments": of(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        turn |= {"tool_call_id": _plain_id(message.tool_call_id), "name": of(message.name)}
    return turn


def trims(tokenizer: Any) -> bool:
    """Whether the chat template strips the texts of messages."""
    template = str(tokenizer.chat_template or "")
    return "trim" in template or ".strip()" in template


def takes_tools(tokenizer: Any) -> bool:
    """Whether the chat template shows tools, calls and results to the model, which rendering some tells."""
    template = str(tokenizer.chat_template)
    if template not in _TAKES_TOOLS:
        call = ToolCall(id="abcdef012", name="probe_tool", arguments={"probe_key": "probe_value"})
        result = Message("tool", "probe_result", tool_call_id=call.id, name="probe_tool")
        turns = [Message("user", "Go."), Message("assistant", "", tool_calls=(call,)), result]
        chat = _Chat(tokenizer=tokenizer, turns=tuple(turns), open=True, tools=[_PROBE])
        try:
            rendered, texts = chat.marked()
        except Exception:
            rendered, texts = "", []
        seen = {texts[int(match[2])] for match in _MARK.finditer(rendered)}
        _TAKES_TOOLS[template] = "probe_tool" in rendered and seen >= _PROBED
    return _TAKES_TOOLS[template]


_TAKES_TOOLS: dict[str, bool] = {}


def _plain_id(given: str) -> str:
    """An id that is no control token; Mistral's templates want nine letters or digits."""
    return hashlib.sha256(given.encode()).hexdigest()[:9]


def _refuse_control_tokens(tokenizer: Any, given: Any, what: str) -> None:
    if not given:
        return
    text = json.dumps(given, ensure_ascii=False, default=str)
    if any(special in text for special in (*control_tokens(tokenizer), "\x01", "u0001")):
        raise InputError(f"{what} holds a control token of the model", hint="reword it")


def _refuse_settings(tokenizer: Any, settings: Mapping[str, Any]) -> None:
    """Not what the template is rendered with in any case, nor control tokens."""
    if not settings:
        return
    ours = {*inspect.signature(tokenizer.apply_chat_template).parameters, "messages"} & settings.keys()
    if ours:
        raise InputError(f"the chat template can't be given {', '.join(sorted(ours))}", hint="leave it out")
    _refuse_control_tokens(tokenizer, dict(settings), "a variable of the chat template")


def mark(index: int) -> str:
    """What stands in a rendered template for text number ``index``. JSON may be made of it in the template."""
    return f"\x01{index}\x01"


def encode_marked(tokenizer: Any, rendered: str, texts: Sequence[str]) -> list[int]:
    """Token ids of a rendered template whose marks stand for texts. Only the template itself has control tokens."""
    return encode_pieces(tokenizer, rendered, texts).whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """A rendered template, encoded piece by piece.

    Attributes:
        ids: of each piece, with whether it is one of the texts.
        after: what comes before a text that follows.
        lead: spaces of the template before that text. Tokenizers put them together with what follows.
    """

    ids: list[tuple[bool, list[int]]]
    after: After
    lead: str

    @property
    def whole(self) -> list[int]:
        """All ids."""
        return [token for _, ids in self.ids for token in ids]


def encode_pieces(
    tokenizer: Any, rendered: str, texts: Sequence[str], after: After = "nothing", *, ends: bool = True
) -> Pieces:
    """As `encode_marked`, piece by piece.

    Args:
        after: what comes before it.
        ends: whether no text follows.
    """
    pieces: list[tuple[bool, list[int]]] = []
    at = 0
    lead = ""
    for match in [*_MARK.finditer(rendered), None]:
        own = rendered[at : match.start()] if match else rendered[at:]
        bare = own if match is None and ends else own.rstrip(" ")
        lead = own[len(bare) :]
        if bare:
            ids, after = own_ids(tokenizer, bare, after)
            pieces.append((False, ids))
        if match is None:
            break
        if text := lead + _as_json(texts[int(match[2])], match[1].count("\\")):
            pieces.append((True, plain_ids(tokenizer, text, after)))
            after = "text"
        at = match.end()
    return Pieces(ids=pieces, after=after, lead=lead)


def encode_text(tokenizer: Any, text: str, after: After = "nothing") -> list[int]:
    """Token ids of plain text, without control tokens of any kind."""
    return plain_ids(tokenizer, text, after)


def _as_json(text: str, backslashes: int) -> str:
    """The text as it stands inside JSON strings: as it is for none, twice escaped for two backslashes, and so on."""
    for _ in range(backslashes.bit_length()):
        text = json.dumps(text, ensure_ascii=False)[1:-1]
    return text
