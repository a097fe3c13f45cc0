"""What is chosen by what the machine has."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from stars_guard.cli import doctor
from stars_guard.engines import machine, vllm_process
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


@pytest.mark.parametrize(
    ("given", "device", "fast", "expected", "level"),
    [
        (None, "cpu", False, "float32", logging.INFO),
        (None, "cpu", True, "float32", logging.INFO),
        (None, "cpu:0", False, "float32", logging.INFO),
        (None, "cuda", False, "bfloat16", logging.INFO),
        (None, "cuda:1", False, "bfloat16", logging.INFO),
        ("float32", "cuda", False, "float32", logging.INFO),
        ("float32", "cpu", False, "float32", logging.INFO),
        ("bfloat16", "cpu", True, "bfloat16", logging.INFO),
        ("bfloat16", "cpu", False, "bfloat16", logging.WARNING),
        ("float16", "cpu:0", False, "float16", logging.WARNING),
    ],
)
def test_transformers_computes_in_what_is_fast_and_says_it(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    given: str | None,
    device: str,
    fast: bool,
    expected: str,
    level: int,
) -> None:
    monkeypatch.setattr(machine, "computes_bfloat16", lambda: fast)
    with caplog.at_level(logging.INFO, "stars_guard.engines"):
        assert machine.number_type(given, device, "a/model") == expected
    (record,) = caplog.records
    assert record.levelno == level
    for word in ("a/model", expected, instruction_set() if device.startswith("cpu") else device):
        assert word in record.getMessage()


def test_doctor_and_benchmarks_name_the_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.measure import machine as measured_on

    assert instruction_set() in measured_on()
    monkeypatch.setattr(doctor, "installed", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for fast, said in ((True, "bfloat16 is fast"), (False, "computes in float32")):
        monkeypatch.setattr(doctor, "computes_bfloat16", lambda fast=fast: fast)
        lines = [finding.text for finding in doctor._vllm() if finding.what == "vllm"]
        assert any(instruction_set() in line and said in line for line in lines)
    monkeypatch.setattr("shutil.which", lambda name: None)
    (torch,) = [finding.text for finding in doctor._torch() if finding.what == "torch"]
    assert instruction_set() in torch
    assert "float32" in torch


def test_the_machine_is_known() -> None:
    assert available_memory() > 2**20
    assert instruction_set()
    assert computes_bfloat16() in (True, False)
