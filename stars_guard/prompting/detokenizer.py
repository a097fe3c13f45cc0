"""From token ids to text, one token at a time, never half a character."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Detokenizer", "decoder"]

_UNFINISHED = "\ufffd"

_LONGEST_CHARACTER = 4
"""Bytes, and so tokens, of a character at most."""

_WINDOW = 32
"""Tokens that are decoded at once at most."""


def decoder(tokenizer: Any, shown: Mapping[int, str] | None = None) -> Callable[[Sequence[int]], str]:
    """From tokens to text. Special tokens are left out, except those ``shown``, which stand by their text."""

    inner = _inner(tokenizer)

    def plain(ids: Sequence[int]) -> str:
        if inner is not None:
            return str(inner.decode(ids, skip_special_tokens=True))
        return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def decode(ids: Sequence[int]) -> str:
        parts, at = [], 0
        for where, token in enumerate(ids):
            if token in marks:
                parts += [plain(ids[at:where]), marks[token]]
                at = where + 1
        return "".join([*parts, plain(ids[at:])])

    marks = shown or {}
    return decode if marks else plain


def _inner(tokenizer: Any) -> Any:
    """What a tokenizer of transformers hands the ids on to, if it does nothing else with them.

    Its wrapping takes longer than the decoding itself, and would run for each token.
    """
    kind, fast = type(tokenizer), getattr(sys.modules.get("transformers"), "PreTrainedTokenizerFast", None)
    if fast is None or not isinstance(tokenizer, fast):
        return None
    is_plain = kind.decode is fast.decode and kind._decode is fast._decode
    return tokenizer.backend_tokenizer if is_plain else None


@dataclass(frozen=True, slots=True)
class Detokenizer:
    """State of an incremental detokeniser. Immutable, so that each candidate goes on from the same prefix.

    It decodes a window of the newest tokens. The window begins where a character has ended and text was given out,
    because decoders have their own ways with the first token of a text and with unfinished runs of bytes.

    Attributes:
        decode: the tokenizer's decoder, which leaves special tokens out.
        ids: the window.
        context: how many of its tokens come before those whose text was given out last.
        given: characters of the window's text that were given out.
        waiting: the newest tokens that may be an unfinished character.
    """

    decode: Callable[[Sequence[int]], str]
    ids: tuple[int, ...] = ()
    context: int = 0
    given: int = 0
    waiting: int = 0

    def feed(self, token: int) -> tuple[str, Detokenizer]:
        """The text that ``token`` adds, and the state after it. Empty while a character is incomplete."""
        ids = (*self.ids, token)
        whole = self.decode(ids)
        # an unfinished run of bytes may hide characters before it that were given out already
        ready = whole.rstrip(_UNFINISHED) if self.waiting < _LONGEST_CHARACTER else whole
        text = ready[self.given :]
        if ready == whole and text:
            window = ids[self.context :][-_WINDOW // 2 :]
            return text, Detokenizer(self.decode, window, len(window), len(self.decode(window)))
        if text:
            window = ids if len(ids) < _WINDOW else ids[-_WINDOW // 2 :]
            given = len(ready) if window is ids else len(self.decode(window).rstrip(_UNFINISHED))
            return text, Detokenizer(self.decode, window, min(self.context, len(window)), given, 1)
        if len(ids) > _WINDOW:  # tokens without text, such as special ones
            ids = (*ids[: self.context], *ids[-_WINDOW // 2 :])
        waiting = self.waiting + 1 if len(ready) < len(whole) else 0
        return "", Detokenizer(self.decode, ids, self.context, self.given, waiting)
