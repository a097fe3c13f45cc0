"""Value objects that every room of the house shares: messages, tokens, candidates, sampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from stars_guard.errors import InputError

__all__ = ["Candidate", "FinishReason", "InvalidCall", "Message", "Passage", "Role", "Sampling", "Token", "ToolCall"]

Role = Literal["system", "user", "assistant", "tool"]

FinishReason = Literal["eos", "stop", "length"]
"""Why a sequence ended: the model said so, a stop string was met, or no more tokens are allowed."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model wrote: the tool's name, and arguments that are JSON values."""

    id: str
    name: str
    arguments: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class InvalidCall:
    """What began like a call and is none. ``arguments`` is the text as written, markers and all; ``error`` holds none
    of it."""

    id: str
    name: str | None
    arguments: str = field(repr=False)
    error: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation. Its text never becomes control tokens, that in the calls' arguments included.

    Attributes:
        content: plain text; of a ``tool`` message the tool's result.
        calls: what an ``assistant`` message calls.
        call_id: which call a ``tool`` message answers; ``name`` is its tool.
    """

    role: Role
    content: str = field(repr=False)
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise InputError(f"unknown message role {self.role!r}", hint=f"use one of {', '.join(get_args(Role))}")


@dataclass(frozen=True, slots=True)
class Token:
    """One drawn token.

    Attributes:
        id: the token's id in the model's vocabulary.
        text: what it adds to the answer. Empty while a character is still incomplete; the token that completes
            the character carries all of it.
        entropy: Shannon entropy in nats of the distribution that the token was drawn from, where asked for.
        last: whether it is the model's end of sequence; its text is then empty.
    """

    id: int
    text: str = field(repr=False)
    entropy: float | None = None
    last: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A proposed segment, cut at its boundary.

    Attributes:
        tokens: the tokens up to the boundary. One that completes a stop string or ends the answer counts.
        text: their text, without the stop string.
        finish: why the answer would end with this segment, or None when it would go on. ``length`` is not used
            here: whether the answer is full is the decoder's knowledge.
        stop_overlap: how many characters at the end of the answer so far belong to a stop string that this segment
            completed.
    """

    tokens: tuple[Token, ...]
    text: str = field(repr=False)
    finish: FinishReason | None = None
    stop_overlap: int = 0

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class Passage:
    """What a judge looks at: a prompt, the answer accepted so far and the segment that would come next.

    Attributes:
        call_id: the same for all passages of one call, so that a judge can keep state.
        messages: the conversation up to the answer.
        accepted: the answer so far, already released.
        segment: the candidate's text; empty when the prompt alone is judged.
        index: the segment's number in the answer, from 0.
        last: whether the answer would end with this segment.
        whole: whether the segment holds a whole tool call or structured answer: every judge is then asked.
    """

    call_id: str
    messages: tuple[Message, ...] = field(repr=False)
    accepted: str = field(repr=False)
    segment: str = field(repr=False)
    index: int = 0
    last: bool = False
    whole: bool = False

    @property
    def answer(self) -> str:
        """The answer as it would read with the segment."""
        return self.accepted + self.segment


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn from the model's logits.

    The order is that of the field: repetition penalty, temperature, top-k, top-p, min-p.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: keep the smallest set of tokens whose probability reaches this; 1 keeps all.
        top_k: keep this many tokens; 0 keeps all.
        min_p: drop tokens less likely than this times the likeliest; 0 drops none.
        repetition_penalty: divides positive and multiplies negative logits of tokens already seen; 1 is off.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        limits: Mapping[str, tuple[float, float, float]] = {
            "temperature": (self.temperature, 0.0, 100.0),
            "top_p": (self.top_p, 1e-6, 1.0),
            "top_k": (self.top_k, 0, 2**31),
            "min_p": (self.min_p, 0.0, 1.0),
            "repetition_penalty": (self.repetition_penalty, 1e-6, 100.0),
        }
        for name, (value, low, high) in limits.items():
            if not low <= value <= high:
                raise InputError(f"sampling option {name} is {value}", hint=f"use a number from {low} to {high}")
