"""A guardrail that works while the model writes: STARS decoding under a policy, with an audit record.

What this module exports, together with `stars_guard.testing`, is the public API.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stars_guard.errors import (
    AuditError,
    BackendError,
    BackendUnavailable,
    BudgetExhausted,
    ContextTooLong,
    GuardVerdict,
    InputError,
    MissingExtra,
    PolicyError,
    ProtocolError,
    Refused,
    ScorerError,
    ScorerInputError,
    StarsGuardError,
)

if TYPE_CHECKING:
    from stars_guard.audit import AuditStore, CallRecord, MemoryStore
    from stars_guard.backends import Backend, LoadableBackend, OpenRequest, Proposal, Session
    from stars_guard.calling.checks import Checked
    from stars_guard.core.events import Called, Decision, Ended, Event, Finished, Kept, Released, Totals
    from stars_guard.core.grammar import Grammar
    from stars_guard.core.judging import Judgement, Rule, Score
    from stars_guard.core.messages import InvalidCall, Message, ToolCall
    from stars_guard.core.sampling import Sampling
    from stars_guard.core.segments import Candidate, Passage, Token
    from stars_guard.core.tools import Tool, Toolset
    from stars_guard.guard import CallOptions, Guard
    from stars_guard.policy import LivePolicy, Policy, load_policy
    from stars_guard.scorers import Judge, JudgeOptions, Rating, Scorer
    from stars_guard.testing import FunctionScorer, ScriptedBackend

__all__ = [
    "AuditError",
    "AuditStore",
    "Backend",
    "BackendError",
    "BackendUnavailable",
    "BudgetExhausted",
    "CallOptions",
    "CallRecord",
    "Called",
    "Candidate",
    "Checked",
    "ContextTooLong",
    "Decision",
    "Ended",
    "Event",
    "Finished",
    "FunctionScorer",
    "Grammar",
    "Guard",
    "GuardVerdict",
    "InputError",
    "InvalidCall",
    "Judge",
    "JudgeOptions",
    "Judgement",
    "Kept",
    "LivePolicy",
    "LoadableBackend",
    "MemoryStore",
    "Message",
    "MissingExtra",
    "OpenRequest",
    "Passage",
    "Policy",
    "PolicyError",
    "Proposal",
    "ProtocolError",
    "Rating",
    "Reasoned",
    "Refused",
    "Released",
    "Rule",
    "Sampling",
    "Score",
    "Scorer",
    "ScorerError",
    "ScorerInputError",
    "ScriptedBackend",
    "Session",
    "StarsGuardError",
    "Token",
    "Tool",
    "ToolCall",
    "Toolset",
    "Totals",
    "__version__",
    "load_policy",
]

__version__ = "0.1.0"

_MODULES = {
    "audit": "AuditStore CallRecord MemoryStore",
    "backends": "Backend LoadableBackend OpenRequest Proposal Session",
    "calling.checks": "Checked",
    "core.events": "Called Decision Ended Event Finished Kept Reasoned Released Totals",
    "core.grammar": "Grammar",
    "core.judging": "Judgement Rule Score",
    "core.messages": "InvalidCall Message ToolCall",
    "core.sampling": "Sampling",
    "core.segments": "Candidate Passage Token",
    "core.tools": "Tool Toolset",
    "guard": "CallOptions Guard",
    "policy": "LivePolicy Policy load_policy",
    "scorers": "Judge JudgeOptions Rating Scorer",
    "testing": "FunctionScorer ScriptedBackend",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
"""Where each name lives. They are imported when they are first asked for, so that `import stars_guard` stays light."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
