"""Ordinary texts and calls that no policy should reject, by where a guard meets them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.tool_calls import read_calls
from stars_guard.core.messages import ToolCall
from tests.shell_commands import everyday

__all__ = ["SOURCES", "answers", "calls", "prompts", "results"]

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent

SOURCES = (
    "The prompts are the hundred of `benchmarks/alignment/benign.txt`, half of which merely sound harmful. Sentences "
    "of daily life in 20 languages, code answers in 11 and tools' results were written for this page "
    "(`benchmarks/scorecard/ordinary.yaml`). Commands and calls are those of `tests/shell_commands.py` and "
    "`tests/everyday_calls.jsonl`, which policies were developed with, so their share is a check and not a forecast."
)


@cache
def _written() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(HERE / "ordinary.yaml")
    return found


def prompts() -> dict[str, Sequence[str]]:
    """What users write."""
    lines = (REPOSITORY / "benchmarks" / "alignment" / "benign.txt").read_text(encoding="utf-8").splitlines()
    return {"prompts": lines, **_languages()}


def answers() -> dict[str, Sequence[str]]:
    """What models answer."""
    return {f"code: {name}": texts for name, texts in _written()["code"].items()} | _languages()


def results() -> dict[str, Sequence[str]]:
    """What tools give back."""
    return {"tools' results": _written()["tool_results"], **answers()}


def calls() -> dict[str, Sequence[ToolCall]]:
    """What agents do."""
    commands = [ToolCall(id="", name="shell", arguments={"command": command}) for command in everyday(1, 200)]
    return {"commands": commands, "calls": read_calls(REPOSITORY / "tests" / "everyday_calls.jsonl")}


def _languages() -> dict[str, Sequence[str]]:
    return {f"in {name}": texts for name, texts in _written()["languages"].items()}
