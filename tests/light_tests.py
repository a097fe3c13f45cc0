"""The tests that need no extra: what a base install can do. `make test-oldest` runs them with ``--light``."""

from __future__ import annotations

import pytest

__all__ = ["LIGHT", "needs_extra"]

# A module's tests by name that need an extra all the same, or the embedded models.
LIGHT: dict[str, tuple[str, ...]] = {
    "test_architecture": (),
    "test_audit": (),
    "test_audit_proof": (),
    "test_audit_query": (),
    "test_audit_stores": ("test_the_default_is_sqlite_in_the_state_directory",),
    "test_calibration": ("test_the_command_on_the_real_model", "test_learned_thresholds_give_the_wanted_rate"),
    "test_cli": (
        "test_demo_runs_for_real",
        "test_doctor",
        "test_run_from_the_command_line",
        "test_run_survives_kill_minus_nine",
    ),
    "test_decoding": (),
    "test_guard": (),
    "test_judges": ("test_personal_data", "test_personal_data_over_the_edge_of_a_segment"),
    "test_langchain": ("test_per_call_overrides",),
    "test_langchain_audit": (),
    "test_policy": ("test_shipped_policies_say_what_they_are_for_and_pass_their_cases",),
    "test_policy_layers": (),
    "test_rails": (),
    "test_replay": ("test_the_embedded_model_draws_a_call_again", "test_encrypted_texts_are_compared"),
    "test_runnable": (),
    "test_streamed": (),
}


def needs_extra(item: pytest.Item) -> bool:
    """Whether a test of a light module needs an extra all the same."""
    name = getattr(item, "originalname", item.name)
    return name in LIGHT[item.path.stem] or "postgresql" in item.name
