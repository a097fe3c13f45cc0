"""What a policy says about the approval of tool calls by a person."""

from __future__ import annotations

from typing import get_args

from pydantic import Field, field_validator

from stars_guard.core.vocabulary import HumanDecision
from stars_guard.scorers.options import Strict

__all__ = ["Approval"]


class Approval(Strict):
    """How a person is asked about the tool calls that a rule says ``ask`` of."""

    decisions: tuple[HumanDecision, ...] = Field(
        get_args(HumanDecision),
        strict=False,
        description="approve: run the call; edit: run it with a change, which is judged again; reject: don't run it; "
        "respond: don't run it, and the person's text stands for its result",
    )
    within: float = Field(
        604_800.0,
        gt=0,
        allow_inf_nan=False,
        description="seconds that a person has to answer; a later answer counts as a rejection",
    )

    @field_validator("decisions")
    @classmethod
    def _some(cls, decisions: tuple[HumanDecision, ...]) -> tuple[HumanDecision, ...]:
        if not {"approve", "reject"} <= set(decisions):
            raise ValueError("a person can always approve and reject: leave both in decisions")
        return tuple(dict.fromkeys(decisions))
