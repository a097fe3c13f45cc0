"""Policies in YAML."""

from stars_guard.policy.live import LivePolicy
from stars_guard.policy.loader import Resolved, load_policy, resolve_policy, shipped_policies
from stars_guard.policy.model import (
    GuardModelJudge,
    HttpJudge,
    JudgeSpec,
    PatternsJudge,
    PiiJudge,
    Policy,
    PythonJudge,
    SequenceClassifierJudge,
    VllmPoolingJudge,
)
from stars_guard.policy.schema import policy_schema

__all__ = [
    "GuardModelJudge",
    "HttpJudge",
    "JudgeSpec",
    "LivePolicy",
    "PatternsJudge",
    "PiiJudge",
    "Policy",
    "PythonJudge",
    "Resolved",
    "SequenceClassifierJudge",
    "VllmPoolingJudge",
    "load_policy",
    "policy_schema",
    "resolve_policy",
    "shipped_policies",
]
