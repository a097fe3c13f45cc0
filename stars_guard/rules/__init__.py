"""Rules about tool calls: which a tool may run, which a person is asked about, and which are rejected. No I/O."""

from stars_guard.rules._steps import Outcome, RuleDecision, Step
from stars_guard.rules.model import Budget, Price, ToolRule
from stars_guard.rules.ruleset import RuleSet
from stars_guard.rules.run import OriginName, OriginOf, PastCall, RunState

__all__ = [
    "Budget",
    "OriginName",
    "OriginOf",
    "Outcome",
    "PastCall",
    "Price",
    "RuleDecision",
    "RuleSet",
    "RunState",
    "Step",
    "ToolRule",
]
