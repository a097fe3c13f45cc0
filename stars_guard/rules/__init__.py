"""Rules about tool calls: which a tool may run, which a person is asked about, and which are rejected. No I/O."""

from stars_guard.rules._steps import Because, Outcome, RuleDecision, Step
from stars_guard.rules.model import Budget, RuleAction, ToolRule
from stars_guard.rules.ruleset import RuleSet
from stars_guard.rules.run import Origin, OriginName, PastCall, RunState

__all__ = [
    "Because",
    "Budget",
    "Origin",
    "OriginName",
    "Outcome",
    "PastCall",
    "RuleAction",
    "RuleDecision",
    "RuleSet",
    "RunState",
    "Step",
    "ToolRule",
]
