"""The tests that a base install can do, without any extra. `make test-oldest` runs them with ``--light``.

A module is light if everything can be imported that it and the helpers it uses import. So a new one is light by itself.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

import pytest

__all__ = ["is_light", "needs_extra"]

TESTS = Path(__file__).parent
FOLDERS = (TESTS, TESTS / "security")

# These import what they need where they need it.
HEAVY = {
    *("benchmarks", "test_backends", "test_chat_stars_fields", "test_docs", "test_embedded"),
    *("test_langchain_endings", "test_third_party", "test_audit_requests", "test_personal_data"),
    *("test_vllm", "test_vllm_guard_model", "test_vllm_unloading"),
}

# Tests, or classes of them, of light modules that need an extra all the same, or the embedded models.
NEEDS_EXTRA = {
    "test_audit_conformance": {"TestPostgresql"},
    "test_audit_seam": {"test_dataclasses_take_few_values_by_place"},
    "test_audit_stores": {"test_the_default_is_sqlite_in_the_state_directory"},
    "test_calibration": {"test_the_command_on_the_real_model", "test_learned_thresholds_give_the_wanted_rate"},
    "test_cli": {
        "test_demo_runs_for_real",
        "test_doctor",
        "test_run_from_the_command_line",
        "test_run_survives_kill_minus_nine",
    },
    "test_architecture": {"test_exported_names_exist"},
    "test_judges": {"test_personal_data", "test_personal_data_over_the_edge_of_a_segment"},
    "test_langchain": {"test_per_call_overrides"},
    "test_machine": {
        "test_doctor_and_benchmarks_name_the_instruction_set",
        "test_the_machine_is_known",
        "test_the_processor_decides_the_type_of_numbers",
        "test_transformers_computes_in_what_is_fast_and_says_it",
    },
    "test_outages": {"test_a_prompt_too_long_for_a_guard_model_leaves_the_others_alone"},
    "test_policy": {"test_shipped_policies_say_what_they_are_for_and_pass_their_cases"},
    "test_rails": {"test_redaction_takes_out_what_judges_point_at_and_judges_again"},
    "test_replay": {
        "test_a_reward_judged_again_decides_with_the_numbers_of_the_call",
        "test_encrypted_texts_are_compared",
        "test_the_embedded_model_draws_a_call_again",
    },
    "test_streamed": {"TestStreamed"},
    "test_what_if": {"test_checks_under_their_own_policy_and_others"},
}


@cache
def is_light(name: str) -> bool:
    """Whether a module can be imported here: one of the tests' own, or a package."""
    if name in HEAVY:
        return False
    path = next((path for folder in FOLDERS if (path := folder / f"{name}.py").exists()), None)
    if path is None:
        return importlib.util.find_spec(name) is not None
    imported = set()
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            imported.add(statement.module.partition(".")[0])
    return all(is_light(other) for other in imported - {name, "__future__"})


def needs_extra(item: pytest.Item) -> bool:
    """Whether a test of a light module needs an extra all the same."""
    names = {getattr(item, "originalname", item.name), getattr(getattr(item, "cls", None), "__name__", "")}
    return bool(names & NEEDS_EXTRA.get(item.path.stem, set())) or "postgresql" in item.name
