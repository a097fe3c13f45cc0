"""The one place that turns any value of LangChain's, or of an app's, into the texts that judges read.

Every string in the value is read in the form in which it is delivered. What has no text, such as a number, is written
as JSON has it; pictures, sound and film are not read; and a value of a type that we do not know is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages import ToolCall as LangChainCall

from langchain_stars._block_keys import (
    BESIDE,
    BESIDE_FIELDS,
    DATA,
    DECLARED,
    KNOWN_TYPES,
    READ_FIELDS,
    THOUGHTS,
    is_usual,
)
from langchain_stars._plain import Unreadable, decoded, fields_of, plain, unescaped
from stars_guard.core.messages import ToolCall
from stars_guard.core.nesting import TooDeep, read_json
from stars_guard.errors import InputError
from stars_guard.prompting.call_rendering import render_call
from stars_guard.prompting.json_reading import readable

__all__ = [
    "Reading",
    "calls_of",
    "holds_messages",
    "read",
    "reading_of_call",
    "text_of",
    "texts_beside",
    "words_of",
]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What judges read of a value.

    Attributes:
        text: all that a reader sees of it, a line for each value.
        forms: other forms in which somebody will read it: its values without their names, its blocks of text with
            nothing between them, strings of JSON by their values, and what stands beside the text, such as names, ids
            and metadata. Judges that veto read these too.
        call: the tool call that the value is, with plain arguments.
    """

    text: str = field(repr=False)
    forms: tuple[str, ...] = field(default=(), repr=False)
    call: ToolCall | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return bool(self.text or self.forms)


def read(*values: Any) -> Reading:
    """The texts of values: messages, prompts, documents, models, mappings, or any nesting of them.

    Raises:
        Unreadable: something in it is of a type whose text we do not know, or it nests too deeply.
    """
    found = _Texts()
    for value in values:
        found.value(plain(value))
    return found.reading()


def reading_of_call(call: LangChainCall) -> Reading:
    """A tool call: its name, a line for each value of its arguments, and its id beside it. Raises as `read` does."""
    found = _Texts()
    found.call(call)
    whole = found.reading(escapes=False)  # an escape in an argument is the tool's to read
    args = plain(call.get("args"))
    args = _parsed(args) if isinstance(args, str) else args
    return replace(whole, call=_plain_call(call, args)) if isinstance(args, Mapping) else whole


def _plain_call(call: Mapping[str, Any], args: Mapping[str, Any]) -> ToolCall:
    try:
        return ToolCall(
            id=readable(str(call.get("id") or "")),
            name=readable(str(call.get("name") or "")),
            arguments={readable(str(name)): _with_whole_characters(item) for name, item in args.items()},
        )
    except InputError as exc:
        raise Unreadable(exc.message, hint="nest less") from None


def _with_whole_characters(tree: Any) -> Any:
    match tree:
        case str():
            return readable(tree)
        case Mapping():
            return {readable(str(name)): _with_whole_characters(item) for name, item in tree.items()}
        case list():
            return [_with_whole_characters(item) for item in tree]
        case BaseMessage():
            return readable(read(tree).text)
        case _:
            return tree


def calls_of(answer: Any) -> list[Reading]:
    """The tool calls of an answer: those of a message, wherever it is in the answer, and those that stand alone."""
    try:
        return [reading_of_call(call) for call in _calls_in(plain(answer))]
    except Unreadable:  # whoever gives the text of such a value gives that of its calls too
        return []


def _calls_in(tree: Any) -> Iterator[Any]:
    match tree:
        case AIMessage():
            yield from tree.tool_calls
        case {"name": str() as name, "args": Mapping() as args, **rest}:
            yield {"name": name, "args": args, "id": rest.get("id")}
        case {"type": str() as name, "args": Mapping() as args, **rest}:  # as `JsonOutputToolsParser` gives it
            yield {"name": name, "args": args, "id": rest.get("id")}
        case {"name": str() as name, "arguments": Mapping() | str() as args, **rest}:  # as providers write it
            yield {"name": name, "args": args, "id": rest.get("id")}
        case Mapping():
            for item in tree.values():
                yield from _calls_in(item)
        case list():
            for item in tree:
                yield from _calls_in(item)


def text_of(value: Any) -> str:
    """The text of what goes into or comes out of a runnable. Raises as `read` does."""
    return read(value).text


def words_of(message: BaseMessage) -> str:
    """What a message says: its content and its thoughts, without calls, names and metadata. Raises as `read` does."""
    found = _Texts()
    found.content(message)
    found.thoughts(message)
    return found.reading().text


def texts_beside(message: BaseMessage) -> list[str]:
    """The strings that a message holds beside what a reader sees of it: its name, id and metadata."""
    found = _Texts()
    found.fields_beside(message)
    return found.beside


def holds_messages(tree: Any) -> bool:
    """Whether a message is somewhere in a tree that `plain` made."""
    match tree:
        case BaseMessage():
            return True
        case Mapping():
            return any(holds_messages(item) for item in tree.values())
        case list():
            return any(holds_messages(item) for item in tree)
        case _:
            return False


class _Texts:
    """The texts found so far.

    Attributes:
        lines: what the text is made of.
        bare: the same values, without the names that stand before them, and strings of JSON by their values.
        beside: strings that are no part of what a reader sees.
        joined: texts with nothing between them.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bare: list[str] = []
        self.beside: list[str] = []
        self.joined: list[str] = []

    def reading(self, *, escapes: bool = True) -> Reading:
        text = _lines(self.lines)
        forms = [_lines(self.bare), *self.joined, _lines(self.beside)]
        forms += [unescaped(form) for form in (text, *forms)] if escapes else []
        return Reading(text=text, forms=_distinct(forms, besides=text))

    # --- trees of plain values

    def value(self, tree: Any) -> None:
        match tree:
            case BaseMessage():
                self.message(tree)
            case str():
                self.text(tree)
            case Mapping() if _is_block(tree):
                self.block(tree)
            case Mapping() if holds_messages(tree):
                for key, item in tree.items():
                    self.beside.append(key)
                    self.value(item)
            case list():
                for item in tree:
                    self.value(item)
                self._join(tree)
            case None:
                pass
            case _:
                self.named("", tree)

    def text(self, text: str) -> None:
        """A text, which the receiver may parse."""
        self.lines.append(text)
        self.bare += _leaves(text)

    def named(self, name: str, tree: Any) -> None:
        """Values with a name, and a line for each."""
        self.lines.append(render_call(name, tree).strip("\n") if tree is not None else name)
        self.bare += [name, *_leaves(tree)]

    def _join(self, items: Sequence[Any]) -> None:
        """Texts that follow each other as somebody reads them who puts nothing between them, or a space."""
        for kind in ("text", "reasoning", "refusal", "thinking"):
            parts = [
                item if isinstance(item, str) else item.get(kind) for item in items if isinstance(item, str | Mapping)
            ]
            texts = [part for part in parts if isinstance(part, str) and part]
            if len(texts) > 1:
                self.joined += ["".join(texts), " ".join(texts)]

    # --- messages

    def message(self, message: BaseMessage) -> None:
        self.content(message)
        self.thoughts(message)
        for call in (*getattr(message, "tool_calls", ()), *getattr(message, "invalid_tool_calls", ())):
            self.call(call)
        self.value(plain(getattr(message, "artifact", None)))
        for name, item in fields_of(message).items():
            if name not in READ_FIELDS and name not in BESIDE_FIELDS:
                self.value(plain({name: item} if item is not None else None))
        self.fields_beside(message)

    def call(self, call: Mapping[str, Any]) -> None:
        """A call of a tool, also one that failed to parse, whose arguments are a string."""
        args = plain(call.get("args"))
        inner = _parsed(args) if isinstance(args, str) else None
        self.named(str(call.get("name") or ""), args if inner is None else inner)
        self.bare += [args] if isinstance(args, str) else []
        self._beside({key: item for key, item in call.items() if key not in ("name", "args", "type")}, keys=False)

    def content(self, message: BaseMessage) -> None:
        content = plain(message.content)
        called = [(call.get("id"), plain(call.get("args"))) for call in getattr(message, "tool_calls", ())]
        if not isinstance(content, list):
            self.value(content)
            return
        for block in content:
            if isinstance(block, Mapping) and _is_call(block, called):
                self._beside({key: item for key, item in block.items() if key not in ("type", "input", "args")})
            else:
                self.value(block)
        self._join(content)

    def thoughts(self, message: BaseMessage) -> None:
        """What some integrations keep beside the content, though people read it."""
        for key in THOUGHTS:
            self._inside(plain(message.additional_kwargs.get(key)))

    def block(self, block: Mapping[str, Any]) -> None:
        """A content block: what a reader sees of it, and the rest beside it."""
        for key, item in block.items():
            if key not in DECLARED:
                self.beside.append(key)
            if key == "type":
                self.beside += [item] if item not in KNOWN_TYPES else []
            elif key in BESIDE:
                self._beside(item, keys=key == "extras")
            elif key in DATA and isinstance(item, str):
                raw, *inner = decoded(item)
                self.beside.append(raw)
                self.lines += inner
                self.bare += inner
            else:
                self._inside(item)

    def _inside(self, item: Any) -> None:
        """What a block holds: further blocks, some of them without a type, or values."""
        match item:
            case Mapping() if not _is_block(item) and (DATA | {"transcript", "text"}) & item.keys():
                self.block(item)
            case list():
                for inner in item:
                    self._inside(inner)
                self._join(item)
            case _:
                self.value(item)

    def fields_beside(self, message: BaseMessage) -> None:
        self._beside({key: item for key, item in message.additional_kwargs.items() if key not in THOUGHTS})
        self._beside(message.response_metadata)
        self._beside(getattr(message, "usage_metadata", None))
        for name in BESIDE_FIELDS:
            self._beside(getattr(message, name, None), keys=False)

    def _beside(self, value: Any, *, keys: bool = True) -> None:
        self.beside += [leaf for leaf in _leaves(plain(value), keys=keys) if leaf and not is_usual(leaf)]


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(text for text in texts if text)


def _distinct(forms: Sequence[str], *, besides: str) -> tuple[str, ...]:
    return tuple(form for form in dict.fromkeys(forms) if form and form != besides)


def _is_block(tree: Mapping[str, Any]) -> bool:
    kind = tree.get("type")
    return isinstance(kind, str) and kind in KNOWN_TYPES


def _is_call(block: Mapping[str, Any], called: Sequence[tuple[Any, Any]]) -> bool:
    """Whether a block says no more than one of the message's calls."""
    given = block.get("input", block.get("args"))
    return block.get("type") in ("tool_use", "tool_call") and (block.get("id"), given) in called


def _parsed(text: str) -> Any:
    """What a parser makes of a text that is JSON as a whole; None where it is not."""
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return None
    try:
        return read_json(text)
    except TooDeep:
        raise Unreadable("cannot judge JSON that nests this deeply", hint="nest less") from None
    except ValueError:
        return None


def _leaves(tree: Any, *, keys: bool = True) -> Iterator[str]:
    """Every string and number of a tree, with the keys, and those of JSON that is in its strings."""
    match tree:
        case None:
            pass
        case str():
            yield tree
            if (inner := _parsed(tree)) is not None:
                yield from _leaves(inner)
        case Mapping():
            for key, item in tree.items():
                if keys:
                    yield key
                yield from _leaves(item, keys=keys)
        case list():
            for item in tree:
                yield from _leaves(item, keys=keys)
        case BaseMessage():
            found = read(tree)
            yield from (found.text, *found.forms)
        case _:
            yield json.dumps(tree)
