"""Policies in YAML."""

from stars_guard.policy.loader import load_policy, shipped_policies
from stars_guard.policy.model import PatternsJudge, Policy, SequenceClassifierJudge, VllmPoolingJudge
from stars_guard.policy.schema import policy_schema

__all__ = [
    "PatternsJudge",
    "Policy",
    "SequenceClassifierJudge",
    "VllmPoolingJudge",
    "load_policy",
    "policy_schema",
    "shipped_policies",
]
