"""What another policy would have decided about the candidates of a call on record."""

from __future__ import annotations

from stars_guard.audit import CallRecord
from stars_guard.calling.judge_loading import load_rail
from stars_guard.calling.other_policy import check_decides, decide_again
from stars_guard.calling.redecided import Answered, Outcome, Parting, Redecided
from stars_guard.policy import Policy

__all__ = ["Answered", "Outcome", "Parting", "Redecided", "what_if"]


async def what_if(record: CallRecord, policy: Policy, *, allow_python: bool = False) -> Answered:
    """Decide again about every candidate on record, under another policy and with the same random numbers.

    Scores on record are used where the judge and what it saw are the same; otherwise the text is judged again. Where
    the policy was a shadow of the call, what its judges said then is on record. Lengths of segments and of the whole
    answer are those on record. Of a check, the other policy's judges of that stage decide. What rules said about a
    tool call is what they say on record, and so is what a person said. The rules are the other policy's where it was a
    shadow.

    Raises:
        AuditError: the record has no candidates.
        PolicyError: the policy's method compares candidates instead of deciding on each, which isn't supported.
        ScorerError: a judge failed and the policy says ``raise``.
    """
    check_decides(record, policy)
    cascade = await load_rail(policy, record.stage, allow_python=allow_python)
    try:
        return await decide_again(record, policy, cascade)
    finally:
        await cascade.aclose()
