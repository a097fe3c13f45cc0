"""What happened to a tool call on record, by its rules, its judges and a person."""

from __future__ import annotations

from stars_guard.audit import CallRecord
from stars_guard.core.judging import Judgement
from stars_guard.core.tool_call_events import Approval, Ruled
from stars_guard.core.vocabulary import RuleAction

__all__ = ["action_of", "approval_of", "ruled_of"]


def ruled_of(record: CallRecord) -> Ruled | None:
    """What the rules decided, if there were any."""
    return Ruled(**record.ruling.model_dump()) if record.ruling is not None else None


def approval_of(record: CallRecord) -> Approval | None:
    """What a person said, if one was asked."""
    return Approval(**record.approval.model_dump()) if record.approval is not None else None


def action_of(record: CallRecord, judgement: Judgement) -> RuleAction:
    """What happens to a text at a stage around the answer, if judges say this of it."""
    return Ruled.together(ruled_of(record), judgement, approval_of(record))
