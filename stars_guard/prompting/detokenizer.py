"""From token ids to text, one token at a time, never half a character."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Detokenizer", "decoder"]

_CONTEXT = 6


def decoder(tokenizer: Any, shown: Mapping[int, str] | None = None) -> Callable[[Sequence[int]], str]:
    """From tokens to text. Special tokens are left out, except those ``shown``, which stand by their text."""

    def plain(ids: Sequence[int]) -> str:
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


@dataclass(frozen=True, slots=True)
class Detokenizer:
    """State of an incremental detokeniser. Immutable, so that each proposal goes on from the same prefix.

    Attributes:
        decode: the tokenizer's decoder, which leaves special tokens out.
        ids: the last few tokens, of which the first ``read`` have been turned into text.
    """

    decode: Callable[[Sequence[int]], str]
    ids: tuple[int, ...] = ()
    read: int = 0

    def feed(self, token: int) -> tuple[str, Detokenizer]:
        """The text that ``token`` adds, and the state after it. Empty while a character is incomplete."""
        ids = (*self.ids, token)
        before = self.decode(ids[: self.read])
        after = self.decode(ids)
        if after.endswith("\ufffd") and len(ids) - self.read < _CONTEXT:
            return "", Detokenizer(self.decode, ids, self.read)
        drop = max(0, len(ids) - _CONTEXT)
        return after[len(before) :], Detokenizer(self.decode, ids[drop:], len(ids) - drop)
