"""What one rule or budget says about a call, and what follows from all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stars_guard.core.vocabulary import RuleAction, RuledBy

__all__ = ["Outcome", "RuleDecision", "Step", "strictest"]

Outcome = Literal["fires", "fails", "is false", "another tool", "within"]
"""What a rule or budget says about a call; see `Step`."""

_STRICTNESS: tuple[RuleAction, ...] = ("reject", "ask", "allow")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleDecision:
    """What happens to a call.

    Attributes:
        rule: the rule or budget that decided; None where none did.
        message: what to tell the model or the person who is asked; it may be empty, and never holds an argument.
        because: what decided.
        failed: whether the rule's condition could not be evaluated.
    """

    action: RuleAction
    rule: str | None = None
    message: str = ""
    because: RuledBy = "default"
    failed: bool = False

    @property
    def reason(self) -> str:
        """What decided, in words, without user text."""
        if self.rule is None:
            return f"the default is {self.action}" if self.because == "default" else self.message
        failed = ", whose condition can't be evaluated" if self.failed else ""
        return f"{self.because} {self.rule!r}{failed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one rule or budget says about a call.

    Attributes:
        outcome: ``fires``: it applies. ``fails``: its condition can't be evaluated, which counts as true for ``reject``
            and ``ask``, and as false for ``allow``. ``is false``: its condition is. ``another tool``: its globs don't
            match. ``within``: the budget allows the call.
        why: more about it, without an argument's value.
    """

    name: str
    action: RuleAction
    outcome: Outcome
    because: RuledBy = "rule"
    message: str = ""
    why: str = ""

    @property
    def applies(self) -> bool:
        """Whether it takes part in the decision."""
        return self.outcome == "fires" or (self.outcome == "fails" and self.action != "allow")


def strictest(steps: Sequence[Step], default: RuleAction) -> RuleDecision:
    """What follows: the strictest step that applies, the first of its action; else the default."""
    for action in _STRICTNESS:
        for step in steps:
            if step.applies and step.action == action:
                return RuleDecision(
                    action=action,
                    rule=step.name,
                    message=step.message,
                    because=step.because,
                    failed=step.outcome == "fails",
                )
    return RuleDecision(action=default)
