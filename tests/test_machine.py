"""What is chosen by what the machine has."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from stars_guard.engines import vllm_process
from stars_guard.engines.machine import available_memory, computes_bfloat16, instruction_set


@pytest.mark.parametrize(
    ("fast", "given", "expected", "warns"),
    [
        (True, {}, None, False),
        (True, {"dtype": "bfloat16"}, "bfloat16", False),
        (False, {}, "float32", False),
        (False, {"dtype": "auto"}, "float32", False),
        (False, {"dtype": "float32"}, "float32", False),
        (False, {"dtype": "bfloat16"}, "bfloat16", True),
        (False, {"dtype": "half"}, "half", True),
    ],
)
def test_the_processor_decides_the_type_of_numbers(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fast: bool,
    given: Mapping[str, Any],
    expected: str | None,
    warns: bool,
) -> None:
    defaults = {name: value for name, value in vllm_process.CPU_DEFAULTS.items() if name != "dtype"}
    monkeypatch.setattr(vllm_process, "CPU_DEFAULTS", defaults)
    monkeypatch.setattr(vllm_process, "computes_bfloat16", lambda: fast)
    with caplog.at_level(logging.INFO, "stars_guard.engines"):
        arguments = vllm_process.engine_arguments("a/model", given, cpu=True)
    assert arguments.get("dtype") == expected
    assert any(record.levelno == logging.WARNING for record in caplog.records) == warns
    assert arguments.items() >= defaults.items()
    assert vllm_process.engine_arguments("a/model", given, cpu=False).get("dtype") == given.get("dtype")


def test_the_machine_is_known() -> None:
    assert available_memory() > 2**20
    assert instruction_set()
    assert computes_bfloat16() in (True, False)
