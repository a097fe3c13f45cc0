"""The record of one call: what the model generated, what the judges said, and what was decided."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, ValidationError, field_serializer

from stars_guard.audit._content import Text
from stars_guard.audit._parts import DoubtEntry, Part, RuleEntry, Ruling, ScoreEntry, UnaskedEntry
from stars_guard.audit._shadow_entries import ShadowAttempt, ShadowEntry
from stars_guard.audit.versions import NEWEST, SchemaVersion, unreadable
from stars_guard.core.vocabulary import (
    Action,
    AnswerFinish,
    ApprovalOutcome,
    CheckFinish,
    FailureFinish,
    KeptHow,
    Mode,
    OriginName,
    RewindWhy,
    Role,
    Stage,
    Verdict,
)

__all__ = [
    "ApprovalEntry",
    "Attempt",
    "CallRecord",
    "DoubtEntry",
    "End",
    "ReasoningEntry",
    "Review",
    "Rewind",
    "RuleEntry",
    "Ruling",
    "ScoreEntry",
    "Segment",
    "ShadowAttempt",
    "ShadowEntry",
    "Turn",
    "UnaskedEntry",
    "ValueEntry",
    "read_record",
]


_Setting = str | int | float | bool | None


class Turn(Part):
    """One message of the prompt."""

    role: str
    content: Text


class Attempt(Part):
    """One candidate and the decision on it. The fields are those of `stars_guard.core.events.Decision`.

    Attributes:
        ask: which judge asks for a person's word, and why; None in records before version 5.
        overrun: tokens that were generated past the segment's end and thrown away.
        whole: whether it held a tool call, or was a whole structured answer, so that every judge was asked.
        stop_overlap: characters at the end of the answer before it that belonged to a stop string which it completed.
        match_before: characters at the end of the answer before it with which the match began for which it was vetoed.
        recovery: whether it was generated under the policy's recovery instruction.
        unasked: judges that were not asked, because another one is sure. One that is in neither list was not asked
            after a veto, or because it isn't asked at this segment.
    """

    attempt: int
    text: Text
    tokens: int
    overrun: int = 0
    finish: str | None = None
    whole: bool = False
    stop_overlap: int = 0
    match_before: int = 0
    recovery: bool = False
    scores: tuple[ScoreEntry, ...] = ()
    unasked: tuple[UnaskedEntry, ...] = ()
    reward: float | None = None
    veto: str | None = None
    ask: str | None = None
    threshold: float | None = None
    probability: float | None = None
    u: float | None = None
    verdict: Verdict
    reason: str


class End(Part):
    """The answer ended before this segment: what was done, and why."""

    action: Action
    reason: str


class Rewind(Part):
    """The answer went back instead of keeping a candidate of this segment. The fields are those of
    `stars_guard.core.events.Rewound`.

    Attributes:
        to: index of the first segment of which something was taken back. All later ones were taken back whole.
        left: how many of its tokens stayed.
        place: how many characters of the answer stayed.
        tokens: how many were taken back.
    """

    to: int
    left: int
    place: int
    tokens: int
    why: RewindWhy
    reason: str


class Review(Part):
    """What the judges said of what stays of an answer that ended early. The fields are those of an `Attempt`."""

    scores: tuple[ScoreEntry, ...] = ()
    reward: float | None = None
    veto: str | None = None
    verdict: Verdict


class ApprovalEntry(Part):
    """What a person said about a tool call. The fields are those of `stars_guard.core.tool_call_events.Approval`."""

    outcome: ApprovalOutcome
    by: str | None = None
    asked: str | None = None
    seconds: float = 0.0
    reason: str = ""


class ReasoningEntry(Part):
    """How the model marks the reasoning before its answer, and what of it was released.

    Attributes:
        begin: the marker before it, and ``end`` after it.
        begun: whether the prompt ended with the opening marker.
        text: without the markers. The segments have it with them, as it was written.
    """

    begin: str
    end: str
    begun: bool
    text: Text


class ValueEntry(Part):
    """Where one value of a tool call's arguments came from, without the value.

    Attributes:
        path: of the value, kept as rejected text is.
        origin: who had the value first.
        tool: whose result it was in, kept as prompts are.
        trusted: whether the policy counts that tool's results as the user's own data.
    """

    path: Text
    origin: OriginName
    tool: Text | None = None
    trusted: bool = False


class Segment(Part):
    """One segment with all its candidates.

    Attributes:
        held: characters at the end of the answer before it that were not released then.
        kept: the attempt whose candidate became part of the answer; None where there is none. A later segment may have
            taken it back, see `CallRecord.standing`.
        how: why it was kept.
        ended: how the answer ended before this segment, where it did.
        rewound: how the answer went back, where it did.
    """

    index: int
    held: int = 0
    attempts: tuple[Attempt, ...]
    kept: int | None = None
    how: KeptHow | None = None
    ended: End | None = None
    rewound: Rewind | None = None

    @property
    def kept_attempt(self) -> Attempt | None:
        """The attempt that was kept, if one was."""
        return next((attempt for attempt in self.attempts if attempt.attempt == self.kept), None)


class CallRecord(Part):
    """The record of one call.

    Attributes:
        schema_version: which fields it may have; see `stars_guard.audit.versions`.
        stage: what was judged. It is an answer, which was judged while it was generated, or one text at a stage around
            it. That text is then the ``answer`` of the record, and ``prompt`` is what came before it.
        role: who wrote what was judged: the assistant an answer, the user what comes in.
        call_id: the record's id.
        run_id: the caller's id, such as that of a LangChain run.
        started_at: UTC, ISO 8601; so is ``ended_at``.
        seconds: how long the call took, by a clock that does not jump.
        policy: its name; ``policy_sha256`` is the digest of its values, and ``mode`` its mode.
        backend: the identity of what generated the answer.
        decoding: the policy's settings, as they were used; ``sampling`` too.
        seed: all random numbers of the call follow from it.
        segments: every candidate of each segment, with scores and verdict.
        scorers: the identity of each judge's scorer, and what it sees and when, where that is not everything.
        stop: the call's stop strings. They and the names of tools are what the caller said, so they are kept as prompts
            are. Before version 4 they are plain strings.
        tools: names of the tools that the model was offered.
        tool_form: the name of the form in which the model writes tool calls; None where it was offered none.
        grammar_sha256: digest of the grammar that the answer was generated under, as its engine got it.
        prompt_reward: r(x, ""), the reward of the prompt with an empty answer.
        review: what stays of an answer that ended without a last segment, judged once more as a whole. The answer is
            refused where a judge vetoes it.
        ruling: what the policy's rules decided about a tool call; None at other stages, and where there are no rules.
        approval: what became of a tool call after a person was asked about it.
        reasoning: what the model wrote before the answer, where it is one that marks its reasoning.
        origins: where the values of a tool call's arguments came from; empty where nobody said what the run had been.
        shadows: what the policy's shadows would have decided, where there are any.
        finish: why the answer ended. It can also be ``failed`` or ``cancelled``; at other stages than ``answer`` it is
            ``passed``, ``redacted``, ``refused`` or ``asked``.
        reason: why the answer was refused or ended early, in words without user text.
        error: the kind of failure when the call failed, never its text.
        totals: the cost of the call, as in `stars_guard.core.events.Totals`.
    """

    schema_version: SchemaVersion = NEWEST
    call_id: str
    stage: Literal["answer"] | Stage = "answer"
    role: Role = "assistant"
    run_id: str | None = None
    started_at: str
    ended_at: str
    seconds: float
    policy: str
    policy_sha256: str
    mode: Mode
    backend: dict[str, str] = Field(default_factory=dict)
    scorers: dict[str, dict[str, str]] = Field(default_factory=dict)
    rules: tuple[RuleEntry, ...] = ()
    decoding: dict[str, _Setting | list[dict[str, float]] | dict[str, _Setting]] = Field(default_factory=dict)
    sampling: dict[str, int | float] = Field(default_factory=dict)
    stop: tuple[Text | str, ...] = ()
    tools: tuple[Text | str, ...] = ()
    tool_form: str | None = None
    grammar_sha256: str | None = None
    seed: int
    prompt: tuple[Turn, ...]
    prompt_reward: float | None = None
    segments: tuple[Segment, ...] = ()
    review: Review | None = None
    ruling: Ruling | None = None
    approval: ApprovalEntry | None = None
    origins: tuple[ValueEntry, ...] = ()
    shadows: tuple[ShadowEntry, ...] = ()
    answer: Text
    reasoning: ReasoningEntry | None = None
    finish: AnswerFinish | CheckFinish | FailureFinish
    reason: str = ""
    error: str | None = None
    totals: dict[str, int] = Field(default_factory=dict)

    @field_serializer("seed", when_used="json")
    def _whole(self, seed: int) -> str:
        return str(seed)

    @property
    def standing(self) -> dict[int, tuple[int, int]]:
        """Of each segment that is in the answer at its end, in order: how many of its tokens are, and characters."""
        found: dict[int, tuple[int, int]] = {}
        for _, standing in self.growing():
            found = standing
        return found

    def growing(self) -> Iterator[tuple[Segment, dict[int, tuple[int, int]]]]:
        """Each segment, with what is `standing` after it. The mapping is good until the next segment is asked for."""
        found: dict[int, tuple[int, int]] = {}
        for segment in self.segments:
            if segment.rewound is not None:
                found = _cut(found, segment.rewound)
            if (kept := segment.kept_attempt) is not None:
                found[segment.index] = kept.tokens, kept.text.chars
            yield segment, found

    @property
    def method(self) -> str:
        """The decoding method."""
        said = self.decoding.get("method", "")
        return str(said.get("type", "") if isinstance(said, dict) else said)

    @property
    def max_tokens(self) -> int:
        """T of the decoder's settings; 1 where nothing was generated."""
        return int(str(self.decoding.get("max_tokens") or 1))


def _cut(standing: dict[int, tuple[int, int]], back: Rewind) -> dict[int, tuple[int, int]]:
    """What still stands after a rewind."""
    found = {index: sizes for index, sizes in standing.items() if index < back.to}
    if back.left:
        found[back.to] = back.left, back.place - sum(characters for _, characters in found.values())
    return found


def read_record(payload: str | bytes, where: str) -> CallRecord:
    """A record from its JSON.

    Args:
        where: the place in the log, for the error.

    Raises:
        AuditError: it is not a record, or a newer stars-guard has written it.
    """
    try:
        return CallRecord.model_validate_json(payload)
    except ValidationError:
        raise unreadable(payload, where) from None
