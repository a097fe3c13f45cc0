"""Which messages this process has judged already, so that none is judged twice and none is believed.

A message that comes back, in a conversation that a client resends or from an agent's inner middleware, may claim
anything of itself. It counts as judged only if all that it says is what was judged here under the same policy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import BaseMessage, ToolCall

from langchain_stars._block_keys import BESIDE_FIELDS, READ_FIELDS, without_numbers
from langchain_stars._plain import Unreadable, fields_of, plain
from langchain_stars._reading import texts_beside
from langchain_stars._remembered import Remembered
from stars_guard.policy import Policy

__all__ = [
    "MOST_REMEMBERED",
    "call_was_judged",
    "digest_in_message",
    "digest_of_call",
    "digest_of_message",
    "fingerprint",
    "remember",
    "remember_call",
    "was_judged",
]

MOST_REMEMBERED = 100_000
"""Digests that the process keeps. The one that was not asked for longest goes first; its message is judged again."""


_COUNTED = frozenset(("artifact", "role", "tool_call_id"))
"""Fields of some kinds of messages that `_said` has by itself."""


_remembered: Remembered[bytes, bool] = Remembered(MOST_REMEMBERED)


def remember(message: BaseMessage, policy: Policy) -> None:
    """Take note that a message has passed a rail of a policy, or that the guard has written it."""
    try:
        keys = _keys(message, policy)
    except Unreadable:
        return  # it is judged again
    for key in keys:
        _remembered.add(key, True)


def remember_call(call: ToolCall, policy: Policy, message_id: str | None) -> None:
    """Take note that the judges of tool calls have let a call pass.

    Args:
        message_id: of the message that makes the call. Ids of calls come again, so without it nothing is noted.
    """
    if (digest := digest_in_message(call, message_id)) is not None:
        _remembered.add(_key(policy, "call", digest), True)


def call_was_judged(call: ToolCall, policy: Policy, message_id: str | None) -> bool:
    """Whether a call of this message has passed the judges, with the arguments that it has now."""
    digest = digest_in_message(call, message_id)
    return digest is not None and _remembered.get(_key(policy, "call", digest)) is not None


def was_judged(message: BaseMessage, policy: Policy) -> bool:
    """Whether a message has passed a rail of this policy before, with all that it holds now."""
    try:
        keys = _keys(message, policy)
    except Unreadable:
        return False
    return all(_remembered.get(key) for key in keys)


def _keys(message: BaseMessage, policy: Policy) -> list[bytes]:
    """Under what a message and the texts beside it are remembered."""
    beside = [_key(policy, "beside", text) for text in texts_beside(message)]
    return [_key(policy, "judged", digest_of_message(message)), *beside]


def digest_in_message(call: ToolCall, message_id: str | None, *more: str) -> str | None:
    """Tells a call from every other one: by its message, its id, its tool and its arguments.

    Args:
        message_id: of the message that makes the call. A call of a message without an id has no digest.
        more: what else counts.
    """
    if message_id is None:
        return None
    return digest_of_call(call["name"], call["args"], call.get("id"), message_id, *more)


def digest_of_call(name: str, args: Any, call_id: Any, *more: str) -> str | None:
    """Tells calls apart by all that they say; None where that can't be read.

    Args:
        more: where the call stands.
    """
    try:
        words = json.dumps([name, plain(args), plain(call_id), *more], sort_keys=True, default=_unreadable)
    except (Unreadable, TypeError, ValueError):
        return None
    return hashlib.sha256(words.encode(errors="surrogatepass")).hexdigest()


def digest_of_message(message: BaseMessage) -> str:
    """Tells messages apart by who says them and by all that they say. Names, ids and metadata do not count.

    Raises:
        Unreadable: it cannot be read.
    """
    content: Any = without_numbers(plain(message.content))
    if isinstance(content, list):
        content = [block for block in content if not _adds_nothing(block, message)]
        if len(content) == 1 and isinstance(content[0], dict) and content[0].keys() == {"type", "text"}:
            content = content[0]["text"]
    words = json.dumps(_said(message, content), sort_keys=True, ensure_ascii=True, default=_unreadable)
    return hashlib.blake2b(words.encode(), digest_size=20).hexdigest()


def _said(message: BaseMessage, content: Any) -> dict[str, Any]:
    return {
        "who": [type(message).__name__.removesuffix("Chunk"), getattr(message, "role", None)],
        "content": content or "",
        "calls": [_call(call) for call in getattr(message, "tool_calls", ())],
        "failed": [_call(call) for call in getattr(message, "invalid_tool_calls", ())],
        "kwargs": plain(message.additional_kwargs),
        "artifact": plain(getattr(message, "artifact", None)),
        "answers": getattr(message, "tool_call_id", None),
        "more": {
            name: plain(value)
            for name, value in fields_of(message).items()
            if value is not None and name not in READ_FIELDS.union(BESIDE_FIELDS, _COUNTED)
        },
    }


def _unreadable(value: Any) -> Any:
    raise Unreadable(f"cannot judge a {type(value).__name__} inside a message", hint="send its text")


def fingerprint(message: BaseMessage, policy: Policy) -> str | None:
    """Tells messages apart by everything that they hold and by what judged them; None where that cannot be read."""
    try:
        parts = [policy.sha256, digest_of_message(message), *texts_beside(message)]
    except Unreadable:
        return None
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


def _adds_nothing(block: Any, message: BaseMessage) -> bool:
    """Whether a block of content is empty, or a call that is among the message's calls too."""
    if isinstance(block, str):
        return not block
    if not isinstance(block, Mapping):
        return False
    if block.get("type") == "tool_call":
        calls = [plain(dict(call)) for call in getattr(message, "tool_calls", ())]
        return any(all({"type": "tool_call", **call}.get(key) == item for key, item in block.items()) for call in calls)
    return block.keys() == {"type", "text"} and not block["text"]


def _call(call: Mapping[str, Any]) -> list[Any]:
    return [plain(call.get(key)) for key in ("id", "name", "args", "error")]


def _key(policy: Policy, kind: str, text: str) -> bytes:
    words = "\0".join((policy.sha256, kind, text))
    return hashlib.blake2b(words.encode(errors="surrogatepass"), digest_size=20).digest()
