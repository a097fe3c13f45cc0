"""How a model marks the reasoning that it writes before its answer, such as ``<think>`` and ``</think>``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self

from stars_guard.decoding.spans import Span
from stars_guard.prompting.text_encoding import control_tokens, reasoning_marks

__all__ = ["Reasoning"]

_ABOUT = re.compile(r"think|thought|reason", re.IGNORECASE)
_OPENING = re.compile(r"begin|start", re.IGNORECASE)
_IN_TEMPLATE = re.compile(r"([<\[\u25c1]\|?)/([\w:]*(?:think|thought|reason)[\w:]*)(\|?[>\]\u25b7])", re.IGNORECASE)
"""A closing marker in a template's text, for models whose markers are no added tokens."""

_TAIL = 16
"""Tokens at a prompt's end in which an opening marker is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """The marks of one model.

    Attributes:
        begin: the marker before the reasoning, and ``end`` after it.
        begun: whether the prompt ends with the opening marker, so that the answer begins with reasoning.
        shown: the markers that are special tokens of the model, by their ids.
    """

    begin: str = "<think>"
    end: str = "</think>"
    begun: bool = False
    shown: Mapping[int, str] = field(default_factory=dict)

    @property
    def span(self) -> Span:
        """The same as marks in an answer."""
        return Span(self.begin, self.end, leading=True, reasoning=True)

    @classmethod
    def of(cls, tokenizer: Any, ids: Sequence[int]) -> Self | None:
        """How a model marks its reasoning, if it does: by its added tokens, or else by its chat template.

        Args:
            ids: of the prompt, up to where the answer begins.
        """
        added, ordinary = control_tokens(tokenizer), reasoning_marks(tokenizer)
        pair = _pair(tuple(added), str(tokenizer.chat_template or ""))
        if pair is None:
            return None
        begin, end = pair
        tail = str(tokenizer.decode(list(ids[-_TAIL:]), skip_special_tokens=False)).rstrip()
        return cls(
            begin=begin,
            end=end,
            begun=tail.endswith(begin),
            shown={added[text]: text for text in pair if text in added and text not in ordinary},
        )


@lru_cache(maxsize=32)
def _pair(added: tuple[str, ...], template: str) -> tuple[str, str] | None:
    """Two added tokens that open and close reasoning, those first that the template writes; or else its own words."""
    known = set(added)
    pairs = [(text, end) for text in added if _ABOUT.search(text) for end in _ends(text) if end in known]
    return min(pairs, key=lambda pair: pair[1] not in template, default=None) or _written_in(template)


def _ends(begin: str) -> list[str]:
    """How the marker may look that closes what this one opens."""
    slashed = [f"{mark}/{begin.removeprefix(mark)}" for mark in (begin[:2], begin[:1])]
    return [*slashed, *([_OPENING.sub(_end_like, begin, count=1)] if _OPENING.search(begin) else [])]


def _end_like(found: re.Match[str]) -> str:
    return "END" if found[0].isupper() else "End" if found[0].istitle() else "end"


def _written_in(template: str) -> tuple[str, str] | None:
    found = _IN_TEMPLATE.search(template)
    return None if found is None else (f"{found[1]}{found[2]}{found[3]}", found[0])
