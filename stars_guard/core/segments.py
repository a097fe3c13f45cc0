"""What is generated and what is judged: tokens, candidates and passages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field

from stars_guard.core.messages import Message, ToolCall
from stars_guard.core.tools import Tool
from stars_guard.core.vocabulary import FinishReason, Role

__all__ = ["Candidate", "Passage", "Token"]


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token.

    Attributes:
        id: the token's id in the model's vocabulary.
        text: what it adds to the answer. Empty while a character is still incomplete; the token that completes
            the character carries all of it.
        entropy: Shannon entropy in nats of the distribution that the token was sampled from, where asked for.
        last: whether it is the model's end of sequence; its text is then empty.
        projections: values of the directions that the call asked for, on the state that the token was generated from.
            So they are about the text before the token.
    """

    id: int
    text: str = field(repr=False)
    _: KW_ONLY
    entropy: float | None = None
    last: bool = False
    projections: tuple[float, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A proposed segment, cut at its boundary.

    Attributes:
        tokens: the tokens up to the boundary. One that completes a stop string or ends the answer counts.
        text: their text, without the stop string.
        finish: why the answer would end with this segment, or None when it would go on. ``length`` is not used
            here: whether the answer is full is the decoder's knowledge.
        stop_overlap: how many characters at the end of the answer so far belong to a stop string that this segment
            completed.
        whole: whether it holds a tool call, or is a whole structured answer: every judge is then asked about it.
        beyond: the projections that came with the token after the segment, and so are about its end. None where no
            judge asks for them, or no further token could be generated.
    """

    tokens: tuple[Token, ...]
    text: str = field(repr=False)
    finish: FinishReason | None = None
    stop_overlap: int = 0
    whole: bool = False
    beyond: tuple[float, ...] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """What a judge looks at: a prompt, the answer accepted so far and the segment that would come next.

    Attributes:
        call_id: the same for all passages of one call, so that a judge can keep state.
        messages: the conversation up to the answer.
        accepted: the answer so far. Its end may not be released yet.
        segment: the candidate's text; empty when the prompt alone is judged.
        index: the segment's number in the answer, from 0.
        last: whether the answer would end with this segment.
        whole: whether the segment holds a whole tool call or structured answer: every judge is then asked.
        role: who wrote the segment. It is ``assistant`` for an answer, ``user`` for what comes in, ``tool`` for a
            tool's result.
        forms: texts as which somebody will read something in the segment, such as the parsed arguments of a tool call.
            A judge that vetoes is asked about each of them too, without the answer before it, and its highest score
            counts.
        readings: other ways in which somebody will read the answer with the segment, such as JSON without its escapes,
            each as what comes before the segment and the segment. They are judged as ``forms`` are.
        tool_calls: the tool calls that the segment is or completes, parsed. Judges that read calls by themselves
            (`stars_guard.scorers.Scorer.reads_calls`) read them.
        is_call: whether the segment is one tool call and nothing else, as at the stage ``tool_call``. Judges that read
            calls by themselves are then asked once, and not about ``forms`` too.
        tools: the tools that could be called, as far as they are known, for judges of tool calls.
        projections: by digest, the values of the `Directions` that judges ask for, averaged over the answer's tokens.
            Empty where the text was not generated here.
    """

    call_id: str
    messages: tuple[Message, ...] = field(repr=False)
    accepted: str = field(repr=False)
    segment: str = field(repr=False)
    index: int = 0
    last: bool = False
    whole: bool = False
    role: Role = "assistant"
    forms: tuple[str, ...] = field(default=(), repr=False)
    readings: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tool_calls: tuple[ToolCall, ...] = field(default=(), repr=False)
    is_call: bool = False
    tools: tuple[Tool, ...] = field(default=(), repr=False)
    projections: Mapping[str, tuple[float, ...]] = field(default_factory=dict, repr=False)

    @property
    def answer(self) -> str:
        """The answer as it would read with the segment."""
        return self.accepted + self.segment
