"""Policies in YAML."""

from stars_guard.policy._hot_reload import LivePolicy, working_folder
from stars_guard.policy._judges import judge_types
from stars_guard.policy._loader import Resolved, load_policy, resolve_policy, shipped_policies
from stars_guard.policy._model import Policy, Shadow
from stars_guard.policy._rails import Rail, Rails, ToolCallRail
from stars_guard.policy.schema import policy_schema

__all__ = [
    "LivePolicy",
    "Policy",
    "Rail",
    "Rails",
    "Resolved",
    "Shadow",
    "ToolCallRail",
    "judge_types",
    "load_policy",
    "policy_schema",
    "resolve_policy",
    "shipped_policies",
    "working_folder",
]
