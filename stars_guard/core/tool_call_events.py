"""What happens to a tool call of an agent: what rules said, where its values came from, and a person's word."""

from __future__ import annotations

from dataclasses import dataclass, field

from stars_guard.core.event_checks import holds
from stars_guard.core.judging import Judgement
from stars_guard.core.vocabulary import ApprovalOutcome, OriginName, RuleAction, RuledBy

__all__ = ["Approval", "Ruled", "Traced", "ValueOrigin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruled:
    """The rules have decided about a tool call. The judges of the rail may still veto it.

    Attributes:
        rule: the rule or budget that decided; None where none did.
        because: what decided.
        failed: whether the rule's condition could not be evaluated.
        approved: whether a person had allowed the call before, which settles ``ask``.
    """

    action: RuleAction
    rule: str | None
    because: RuledBy
    failed: bool = False
    approved: bool = False

    def __post_init__(self) -> None:
        holds(self, (self.rule is None) == (self.because in ("default", "arguments")), "a rule or a budget has a name")

    @property
    def lets_through(self) -> bool:
        """Whether the call may be made, as far as the rules are concerned."""
        return self.action == "allow" or (self.action == "ask" and self.approved)

    @staticmethod
    def together(ruled: Ruled | None, judgement: Judgement, approval: Approval | None = None) -> RuleAction:
        """What happens to a text, by rules, judges and a person. A veto comes before all that a person could settle."""
        if judgement.veto is not None or (approval is not None and not approval.runs):
            return "reject"
        if ruled is not None and not ruled.lets_through:
            return ruled.action
        return "ask" if judgement.ask is not None and not (ruled is not None and ruled.approved) else "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueOrigin:
    """Where one value of a call's arguments came from.

    Attributes:
        path: of the value, such as ``people[0].mail``. The model writes it, so it is a text like others.
        tool: whose result the value was in; empty where it was in none.
        trusted: whether the policy counts that tool's results as the user's own data.
    """

    path: str = field(repr=False)
    origin: OriginName
    tool: str = field(default="", repr=False)
    trusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """The values of a tool call's arguments have been traced to where they came from."""

    origins: tuple[ValueOrigin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """What became of a tool call that a rule said to ask a person about.

    Attributes:
        by: who decided, as the app says; None where it doesn't say or nobody did.
        asked: the record of the question.
        seconds: between the question and the answer.
        reason: why an answer wasn't understood, in words, without its text.
    """

    outcome: ApprovalOutcome
    by: str | None = field(default=None, repr=False)
    asked: str | None = None
    seconds: float = 0.0
    reason: str = ""

    def __post_init__(self) -> None:
        holds(self, self.seconds >= 0, "the answer came before the question")
        holds(self, self.outcome != "invalid" or bool(self.reason), "nothing says why the answer is invalid")

    @property
    def runs(self) -> bool:
        """Whether the call may run, unless a rule or a judge rejects it."""
        return self.outcome in ("approved", "edited")

    @property
    def in_words(self) -> str:
        """What became of the call, without any text of the person."""
        return _IN_WORDS[self.outcome] + (f": {self.reason}" if self.reason else "")


_IN_WORDS: dict[ApprovalOutcome, str] = {
    "approved": "a person approved the call",
    "edited": "a person edited the call",
    "rejected": "a person rejected the call",
    "responded": "a person answered in the place of the tool",
    "expired": "no person answered in time",
    "invalid": "the answer about the call is not valid",
    "unasked": "no person could be asked about the call",
}
