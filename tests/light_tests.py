"""The tests that a base install can do, without any extra. `make test-oldest` runs them with ``--light``.

A module is light if everything can be imported that it and the helpers it uses import. So a new one is light by itself.
A test of it that fails because an extra or an embedded model is missing is skipped: the error says what to install.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

__all__ = ["is_light", "missing_extra", "needs_extra"]

TESTS = Path(__file__).parent
FOLDERS = (TESTS, TESTS / "security")

# These import what they need where they need it.
HEAVY = {
    *("benchmarks", "test_backends", "test_chat_stars_fields", "test_docs", "test_embedded"),
    *("test_langchain_endings", "test_third_party", "test_audit_requests", "test_personal_data"),
    *("test_vllm", "test_vllm_guard_model", "test_vllm_unloading"),
}

# Tests, or classes of them, of light modules that need an extra all the same, or the embedded models, and don't say so.
NEEDS_EXTRA = {
    "test_audit_conformance": {"TestPostgresql"},
    "test_audit_seam": {"test_dataclasses_take_few_values_by_place"},
    "test_architecture": {"test_exported_names_exist"},
    "test_calibration": {"test_the_command_on_the_real_model"},
    "test_cli": {"test_demo_runs_for_real", "test_doctor_names_a_vllm_that_is_too_old"},
    "test_machine": {
        "test_doctor_and_benchmarks_name_the_instruction_set",
        "test_the_machine_is_known",
        "test_the_processor_decides_the_type_of_numbers",
        "test_transformers_computes_in_what_is_fast_and_says_it",
    },
    "test_policy": {"test_shipped_policies_say_what_they_are_for_and_pass_their_cases"},
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


def missing_extra(error: BaseException) -> str | None:
    """What to install, if an error or what led to it says so. What a command printed may say it, too."""
    seen: list[BaseException] = []
    queue = [error]
    while queue:
        one = queue.pop()
        if one in seen:
            continue
        seen.append(one)
        if named := re.search(r'pip install (?:--no-deps |"stars-guard\[)([\w-]+)', str(one)):
            return named[1]
        queue += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
        queue += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
    return None
