"""From messages to token ids by the model's chat template; message text never becomes control tokens."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any

from stars_guard.errors import InputError
from stars_guard.segments import Message

__all__ = ["encode_chat", "encode_marked", "mark"]

_MARK = re.compile("\x01(\\d+)\x01")

# A fast tokenizer keeps "split special tokens" as a setting of the one object that all threads share: two encodings at
# once could make control tokens of a message's text.
_ENCODING = threading.Lock()


def encode_chat(tokenizer: Any, messages: Sequence[Message], *, answer: str | None = None) -> list[int]:
    """Token ids of the templated conversation, up to where the answer begins; or with the answer, for a judge.

    The template is rendered with a mark in the place of each text. What lies between marks is the template's own and
    may hold control tokens; the texts are encoded apart, with special tokens split into plain ones.

    Raises:
        InputError: there are no messages, or the template does not take them.
    """
    if not messages:
        raise InputError("there are no messages", hint="pass at least one user message")
    turns = [*messages, Message("assistant", answer)] if answer is not None else messages
    marked = [{"role": m.role, "content": mark(i)} for i, m in enumerate(turns)]
    if tokenizer.chat_template is None:
        rendered = "\n".join(f"{m['role']}: {m['content']}" for m in marked) + ("\nassistant: " * (answer is None))
    else:
        try:
            rendered = tokenizer.apply_chat_template(marked, tokenize=False, add_generation_prompt=answer is None)
        except Exception as exc:
            raise InputError(
                f"the model's chat template does not take these roles: {[m.role for m in messages]}",
                hint="most templates want an optional system message, then user and assistant in turn",
            ) from exc
    trims = "trim" in (tokenizer.chat_template or "")
    return encode_marked(tokenizer, rendered, [turn.content.strip() if trims else turn.content for turn in turns])


def mark(index: int) -> str:
    """What stands in a rendered template for text number ``index``."""
    return f"\x01{index}\x01"


def encode_marked(tokenizer: Any, rendered: str, texts: Sequence[str]) -> list[int]:
    """Token ids of a rendered template whose marks stand for texts. Only the template itself has control tokens."""
    ids: list[int] = []
    with _ENCODING:
        for part, piece in enumerate(_MARK.split(rendered)):
            text, plain = (texts[int(piece)], True) if part % 2 else (piece, False)
            if text:
                ids += tokenizer(text, add_special_tokens=False, split_special_tokens=plain, verbose=False)["input_ids"]
    return ids
