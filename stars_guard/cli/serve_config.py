"""The ``vllm serve`` lines for a policy: the generator and its judges, and how they share one GPU."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from stars_guard.engines.embedded_models import resolve_model
from stars_guard.policy import load_policy
from stars_guard.scorers.model_options import ServedModelOptions
from stars_guard.scorers.options import JudgeOptions

__all__ = ["serve_lines", "show_config"]

SHARE = 0.90
"""Of the GPU's memory; the rest is for CUDA graphs and other processes."""


def _weights(model: str) -> int:
    path = Path(resolve_model(model))
    return sum(file.stat().st_size for file in path.glob("*.safetensors")) if path.is_dir() else 0


def serve_lines(policy: str, model: str) -> list[str]:
    """Commands, with memory split by the weights where they are known; the generator gets what keys and values need.

    A judge's share is its weights' share of all, at most 0.35. Where the weights of one aren't known, the judges share
    0.3 equally.
    """
    judges = _served(load_policy(policy).every_judge)
    known = {name: _weights(name) for name in (model, *(judge.model for judge in judges))}
    whole = sum(known.values()) if all(known.values()) else 0
    shares = [min(0.35, SHARE * known[j.model] / whole) if whole else 0.3 / max(1, len(judges)) for j in judges]
    lines = [_line(model, 8000, SHARE - sum(shares))]
    for number, (judge, share) in enumerate(zip(judges, shares, strict=True), start=1):
        lines.append(_line(judge.model, 8000 + number, share, judge.serve_arguments))
    return lines


def _served(judges: Sequence[JudgeOptions]) -> list[ServedModelOptions]:
    """Those that a server should serve. Of several with the same model one stands for all."""
    found: dict[tuple[str, str], ServedModelOptions] = {}
    for judge in judges:
        if isinstance(judge, ServedModelOptions) and (judge.vllm_only or judge.base_url is not None):
            found.setdefault((judge.type, judge.model), judge)
    return list(found.values())


def _line(model: str, port: int, share: float, more: str = "") -> str:
    command = f"vllm serve {shlex.quote(resolve_model(model))} --port {port} --enable-prefix-caching"
    return f"{command} --gpu-memory-utilization {share:.2f} {more}".rstrip()


def show_config(console: Console, policy: str, model: str) -> None:
    """Print the commands."""
    for line in serve_lines(policy, model):
        console.print(line, soft_wrap=True)
