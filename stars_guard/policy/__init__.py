"""Policies in YAML."""

from stars_guard.policy.loader import load_policy, shipped_policies
from stars_guard.policy.model import PatternsJudge, Policy, SequenceClassifierJudge

__all__ = ["PatternsJudge", "Policy", "SequenceClassifierJudge", "load_policy", "shipped_policies"]
