"""Policies in YAML."""

from stars_guard.policy.loader import Resolved, load_policy, resolve_policy, shipped_policies
from stars_guard.policy.model import JudgeSpec, PatternsJudge, Policy, SequenceClassifierJudge, VllmPoolingJudge
from stars_guard.policy.schema import policy_schema

__all__ = [
    "JudgeSpec",
    "PatternsJudge",
    "Policy",
    "Resolved",
    "SequenceClassifierJudge",
    "VllmPoolingJudge",
    "load_policy",
    "policy_schema",
    "resolve_policy",
    "shipped_policies",
]
