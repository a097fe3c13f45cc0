"""What happens in a call, in order: the one source of the stream, the live view and the audit record."""

from __future__ import annotations

from dataclasses import dataclass, field

from stars_guard.core.event_checks import holds
from stars_guard.core.judging import Judgement
from stars_guard.core.messages import InvalidCall, ToolCall
from stars_guard.core.segments import Candidate
from stars_guard.core.tool_call_events import Approval, Ruled, Traced
from stars_guard.core.vocabulary import (
    Action,
    AnswerFinish,
    KeptHow,
    RewindWhy,
    Verdict,
)

__all__ = [
    "Called",
    "Decision",
    "Drawing",
    "Ended",
    "Event",
    "Finished",
    "Kept",
    "Overrun",
    "Reasoned",
    "Released",
    "Reviewed",
    "Rewound",
    "Totals",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Candidates of one segment are being generated: attempts ``attempt`` to ``attempt + count - 1``.

    Attributes:
        held: characters at the end of the answer so far that are not released.
    """

    segment: int
    attempt: int
    count: int
    held: int = 0

    def __post_init__(self) -> None:
        holds(self, self.count >= 1, "nothing is generated")
        holds(self, self.held >= 0, "less than nothing is held")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The decision on one candidate.

    Attributes:
        segment: number of the segment in the call, from 0. The segment that follows a rewind has the next number.
        attempt: index of the candidate among those of its segment, from 0.
        candidate: what was generated.
        judgement: what the judges said.
        verdict: ``surplus`` when an earlier candidate of the same batch was accepted, or was the reason for a rewind,
            and this one not looked at.
        reason: in words, without user text.
        threshold: tau at the candidate's end; None where the method has none.
        probability: the chance of acceptance that the rule gave; None where chance decided nothing.
        u: the uniform number that the probability was held against.
        recovery: whether it was generated under the policy's recovery instruction.
    """

    segment: int
    attempt: int
    candidate: Candidate
    judgement: Judgement
    verdict: Verdict
    reason: str
    threshold: float | None = None
    probability: float | None = None
    u: float | None = None
    recovery: bool = False

    def __post_init__(self) -> None:
        vetoed = self.judgement.veto is not None
        holds(self, not (vetoed and self.verdict == "accepted"), "a vetoed candidate is never accepted")
        holds(self, (self.probability is None) == (self.u is None), "a probability goes with the number u")
        decided = self.threshold is not None or self.u is not None
        holds(self, not (decided and self.verdict == "surplus"), "a surplus candidate is not held against a threshold")
        holds(self, vetoed or not self.judgement.match_before, "a match before the segment is a veto's")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A segment has become part of the answer.

    ``how`` says why: it was accepted; it was the ``best`` when attempts or tokens ran out, or by the method itself;
    the mode is ``monitored``; or there is no judge. ``segment`` and ``attempt`` are its numbers, from 0.
    """

    segment: int
    attempt: int
    how: KeptHow


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """No candidate of the segment was kept, and the answer ends before it.

    Attributes:
        action: what the policy's ``on_exhausted`` made of it.
        reason: in words, without user text.
    """

    segment: int
    action: Action
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewound:
    """No candidate of the segment was kept, and the answer went back over text that was accepted and not released. The
    next segment goes on after what is left.

    Attributes:
        segment: where it was decided.
        to: the first segment of which something is taken back; all later ones are taken back whole.
        left: how many of its tokens stay in the answer.
        place: how many characters of the answer stay.
        tokens: how many are taken back.
        reason: in words, without user text.
    """

    segment: int
    to: int
    left: int
    place: int
    tokens: int
    why: RewindWhy
    reason: str

    def __post_init__(self) -> None:
        holds(self, 0 <= self.to < self.segment, "only an earlier segment can be taken back")
        holds(self, self.tokens >= 1, "nothing is taken back")
        holds(self, self.left >= 0 and self.place >= 0, "no segment is shorter than nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """An answer ended before its attempts or tokens allowed a last segment, and what stays of it was judged as a whole.

    Attributes:
        verdict: ``rejected`` where a judge vetoes it. The answer is then refused, except in mode ``monitor``.
    """

    judgement: Judgement
    verdict: Verdict

    def __post_init__(self) -> None:
        holds(self, (self.judgement.veto is None) == (self.verdict == "accepted"), "the veto is the verdict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrun:
    """Tokens were thrown away that were generated past a candidate's boundary.

    Or they came before the first candidate, because a judge of the empty answer needed them.
    """

    segment: int
    attempt: int
    tokens: int

    def __post_init__(self) -> None:
        holds(self, self.tokens >= 1, "no tokens were thrown away")


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """Text that the caller may show, never empty. Never sent before the segment was kept."""

    segment: int
    text: str = field(repr=False)

    def __post_init__(self) -> None:
        holds(self, self.text != "", "there is no text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoned:
    """A bit of the reasoning that a model writes before its answer, never empty. It is judged as the answer is, and
    never sent before the segment was kept."""

    segment: int
    text: str = field(repr=False)

    def __post_init__(self) -> None:
        holds(self, self.text != "", "there is no text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """Tool calls that the caller may make, or text that starts like one. Never sent before the segment was kept.

    Attributes:
        text: what the model wrote, markers and all.
        index: number of the first of them in the answer, from 0.
        tool_calls: those that can be made.
        invalid_tool_calls: texts that start like a call but can't be parsed.
    """

    segment: int
    text: str = field(repr=False)
    index: int
    tool_calls: tuple[ToolCall, ...] = ()
    invalid_tool_calls: tuple[InvalidCall, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The cost of a call, in tokens: ``drawn == kept + rejected + surplus + overrun + rewound``.

    Attributes:
        rewound: tokens that were kept once and taken back; ``rewinds`` is how often the answer went back.
        segments: how many are in the answer.
        proposals: how many candidates were generated; ``rejections`` of them were decided against.
        prompt: tokens of the prompt.
        scorer_passages: passages that were given to a scorer, summed over judges.
    """

    prompt: int = 0
    drawn: int = 0
    kept: int = 0
    rejected: int = 0
    surplus: int = 0
    overrun: int = 0
    rewound: int = 0
    rewinds: int = 0
    segments: int = 0
    proposals: int = 0
    rejections: int = 0
    scorer_passages: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The call is over and its audit record written.

    Attributes:
        text: all that was released, except tool calls and reasoning. It is empty, and so are they, where a judge vetoed
            the answer as a whole after its end.
        finish: why the answer ended.
        reason: what to tell the reader about a refusal or an early end; empty otherwise.
        totals: what the call cost, in tokens, candidates and passages.
        policy: its name; ``policy_sha256`` is the digest of its values.
        seconds: how long the call took.
        call_id: also the audit record's id.
        seed: gives the same call again on a backend that can.
        tool_calls: those that were released; ``invalid_tool_calls`` those that cannot be made.
        reasoning: what the model wrote before its answer, if it is one that reasons.
        refusal: the policy's text for the reader where the answer was refused; empty otherwise.
    """

    text: str = field(repr=False)
    finish: AnswerFinish
    reason: str
    totals: Totals
    call_id: str
    seed: int
    policy: str
    policy_sha256: str
    seconds: float
    tool_calls: tuple[ToolCall, ...] = ()
    invalid_tool_calls: tuple[InvalidCall, ...] = ()
    reasoning: str = field(default="", repr=False)
    refusal: str = ""

    def __post_init__(self) -> None:
        holds(self, self.finish != "raised", "a call whose policy says raise ends with BudgetExhausted")
        early = self.finish in ("refused", "stopped", "budget")
        holds(self, bool(self.reason) == early, "the reason says why an answer was refused or ended early")


Event = (
    Drawing
    | Decision
    | Kept
    | Ended
    | Rewound
    | Overrun
    | Reviewed
    | Ruled
    | Traced
    | Approval
    | Released
    | Reasoned
    | Called
    | Finished
)
