"""Token ids of a guard model's question: control tokens come from the template's own text only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from stars_guard.errors import ScorerError
from stars_guard.prompting.text_encoding import control_tokens, plain_ids

__all__ = ["MARK", "Encoder"]

MARK = re.compile("\x02(\\d+)\x02")
"""What stands for a text in a rendered template, with the text's number."""


class Encoder:
    """A tokenizer that makes control tokens of a template's own text only.

    What lies between control tokens is encoded in one piece, texts included, so that the tokens are those that the
    model was trained on: a space before a text belongs to its first word.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._control = control_tokens(tokenizer)
        longest_first = sorted(self._control, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})").split
        self._anchor = self._find_anchor()

    def encode(self, rendered: str, texts: Sequence[str]) -> list[int]:
        """Token ids of a rendered template whose marks stand for texts."""
        ids: list[int] = []
        run = ""
        for part, piece in enumerate(MARK.split(rendered)):
            if part % 2:
                run += texts[int(piece)]
                continue
            for bit in self._split(piece):
                if bit in self._control:
                    ids += [*self._run(run, first=not ids), self._control[bit]]
                    run = ""
                else:
                    run += bit
        return ids + self._run(run, first=not ids)

    def first_tokens(self, rendered: str, labels: Sequence[str]) -> tuple[int, ...]:
        """The token that each label begins with where it follows the rendered template."""
        tail = self._split(MARK.split(rendered)[-1])[-1]
        before = self._plain(tail)
        found = set()
        for label in labels:
            after = self._plain(tail + label)
            ids = after[len(before) :] if after[: len(before)] == before else self._plain(label)
            if not ids:
                raise ScorerError(f"the label {label!r} has no token")
            found.add(ids[0])
        return tuple(sorted(found))

    def count(self, text: str) -> int:
        """Tokens of a text that stands alone."""
        return len(self._plain(text))

    def names(self, ids: Sequence[int]) -> str:
        """Tokens as the vocabulary spells them."""
        return ", ".join(self._tokenizer.convert_ids_to_tokens(list(ids)))

    def _find_anchor(self) -> str:
        """What must stand before a text that does not begin a prompt, so that the tokenizer puts no space before it."""
        if not self._control:
            return ""
        token, i = next(iter(self._control.items()))
        given = self._tokenizer(f"{token}x", add_special_tokens=False, split_special_tokens=False, verbose=False)
        return "" if list(given["input_ids"]) == [i, *self._plain("x")] else "\n"

    def _run(self, text: str, *, first: bool) -> list[int]:
        anchor = [] if first or not text else self._plain(self._anchor)
        ids = self._plain(self._anchor + text) if anchor else self._plain(text)
        return ids[len(anchor) :] if ids[: len(anchor)] == anchor else self._plain(text)

    def _plain(self, text: str) -> list[int]:
        return plain_ids(self._tokenizer, text)
