"""Every place of a message in which a string can stand, found by looking at what langchain-core defines."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

import langchain_core.messages as lc
from langchain_core.messages import BaseMessage, RemoveMessage, content

__all__ = ["MARK", "block_cases", "message_cases", "values_of"]

MARK = "verbotenÄ"
"""What the policies of these tests forbid."""

_PLAIN = "plain"


def values_of(kind: Any) -> Iterator[tuple[str, Any]]:
    """Values of a type, each with the mark in one of its places. The place comes with it."""
    origin = typing.get_origin(kind)
    if kind is str:
        yield "", MARK
    elif kind is Any:
        yield "", MARK
        yield from _nested()
    elif origin is dict or kind is dict:
        yield from _nested()
    elif origin in (typing.Union, types.UnionType):
        for option in typing.get_args(kind):
            yield from values_of(option)
    elif origin is list:
        for place, value in values_of(typing.get_args(kind)[0]):
            yield f"[]{place}", [value]
    elif hasattr(kind, "__required_keys__"):
        yield from _typed_dicts(kind)
    elif origin is typing.NotRequired:
        yield from values_of(typing.get_args(kind)[0])


def _nested() -> Iterator[tuple[str, Any]]:
    yield ".value", {"note": MARK}
    yield ".key", {MARK: 1}
    yield ".deep", {"a": [{"b": ["c", MARK]}]}
    yield ".joined", {"a": f'x\n"{MARK}"\t\\'}
    yield ".json", {"a": '{"b": "verboten\\u00c4"}'}


def _typed_dicts(kind: Any) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(kind)
    name = typing.get_args(hints["type"])[0] if "type" in hints else None
    whole = {key: plain for key, hint in hints.items() if (plain := _plain(hint)) is not None}
    whole |= {"type": name} if name else {}
    for key, hint in hints.items():
        if key != "type":
            for place, value in values_of(hint):
                yield f"{name or kind.__name__}.{key}{place}", {**whole, key: value}


def _plain(hint: Any) -> Any:
    """A value of a type without the mark."""
    origin = typing.get_origin(hint)
    if hint is str:
        return _PLAIN
    if hint is int:
        return 1
    if origin is Literal:
        return typing.get_args(hint)[0]
    if origin is dict:
        return {}
    if origin in (typing.Union, types.UnionType):
        return _plain(typing.get_args(hint)[0])
    return None


def block_cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each content block with the mark in one of its places, some as providers write them, and one of no known type."""
    for kind in vars(content).values():
        if hasattr(kind, "__required_keys__"):
            yield from _typed_dicts(kind)
    yield "document", {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": MARK}}
    yield "data URL", {"type": "file", "url": "data:text/plain;base64,dmVyYm90ZW7DhA=="}
    yield "base64", {"type": "file", "base64": "dmVyYm90ZW7DhA==", "mime_type": "text/plain"}
    yield "summary", {"type": "reasoning", "summary": [{"type": "summary_text", "text": MARK}]}
    yield (
        "split summary",
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": MARK[:4]}, {"type": "summary_text", "text": MARK[4:]}],
        },
    )
    yield "image_url", {"type": "image_url", "image_url": {"url": "https://example.com", "detail": MARK}}
    yield "type", {"type": MARK}
    yield "unknown", {"type": "hologram", "beam": {"words": MARK}}
    yield "unknown key", {"type": "text", "text": "a", MARK: "b"}


def message_cases(*, chunks: bool = False) -> Iterator[tuple[str, BaseMessage]]:
    """Every class of message, with the mark in one of its places."""
    for name in sorted(lc.__all__):
        kind = getattr(lc, name)
        if not isinstance(kind, type) or not issubclass(kind, BaseMessage) or kind in (BaseMessage, RemoveMessage):
            continue
        if name.endswith("Chunk") != chunks or name == "BaseMessageChunk":
            continue
        yield from ((f"{name}.{place}", message) for place, message in _messages(kind))


def _messages(kind: Any) -> Iterator[tuple[str, BaseMessage]]:
    needed = {key: _PLAIN for key, field in kind.model_fields.items() if field.is_required()}
    yield "content", kind(**{**needed, "content": f'a\n{MARK} "b"'})
    yield "split", kind(**{**needed, "content": [{"type": "text", "text": part} for part in (MARK[:3], MARK[3:])]})
    yield "split strings", kind(**{**needed, "content": [MARK[:3], MARK[3:]]})
    for place, block in block_cases():
        yield f"content[].{place}", kind(**{**needed, "content": [{"type": "text", "text": "a"}, block]})
    for key, field in kind.model_fields.items():
        hint = field.annotation
        if key in ("content", "type") or typing.get_origin(hint) is Literal or hint is bool:
            continue
        kinds = list(values_of(hint)) or [("", MARK)]
        for place, value in kinds:
            try:
                yield f"{key}{place}", kind(**{**needed, "content": "a", key: value})
            except (ValueError, TypeError):
                continue  # the class does not take it: no string can stand there
