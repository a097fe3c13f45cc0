"""Policies in YAML."""

from stars_guard.policy.judges import (
    GuardModelJudge,
    HttpJudge,
    JudgeSpec,
    PathsJudge,
    PatternsJudge,
    PiiJudge,
    PythonJudge,
    SequenceClassifierJudge,
    VllmPoolingJudge,
)
from stars_guard.policy.live import LivePolicy
from stars_guard.policy.loader import Resolved, load_policy, resolve_policy, shipped_policies
from stars_guard.policy.model import Policy
from stars_guard.policy.rails import Rail, Rails, Stage
from stars_guard.policy.schema import policy_schema

__all__ = [
    "GuardModelJudge",
    "HttpJudge",
    "JudgeSpec",
    "LivePolicy",
    "PathsJudge",
    "PatternsJudge",
    "PiiJudge",
    "Policy",
    "PythonJudge",
    "Rail",
    "Rails",
    "Resolved",
    "SequenceClassifierJudge",
    "Stage",
    "VllmPoolingJudge",
    "load_policy",
    "policy_schema",
    "resolve_policy",
    "shipped_policies",
]
