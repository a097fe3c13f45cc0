"""Measures the sections that a folder does not hold yet. Each result is a file, so a run that was stopped goes on."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks.measure import machine
from benchmarks.scorecard.section import Held, NotMeasured
from benchmarks.scorecard.sizes import Size

__all__ = ["SECTIONS", "held", "measured"]

SECTIONS = (
    "harm",
    "delivery_cuts",
    "delivery_leaves",
    "delivery_views",
    "delivery_long",
    "agents",
    "tool_calls",
    "overblocking",
    "load",
    "cost_rails",
    "cost_audit",
    "cost_engine",
    "peers_offline",
    "peers_stream",
)
"""In the order of the page. What takes longest of those that need no idle machine does not come first."""


def held(folder: Path) -> dict[str, Held]:
    """The results in a folder, in the order of the page."""
    paths = {name: folder / f"{name}.json" for name in SECTIONS}
    return {
        name: Held.model_validate_json(path.read_text(encoding="utf-8"))
        for name, path in paths.items()
        if path.exists()
    }


def measured(names: Sequence[str], size: Size, folder: Path, command: str) -> dict[str, str]:
    """Measure what the folder does not hold.

    Args:
        command: by which anyone measures the same; it is written beside the result.

    Returns:
        why each section that could not be measured wasn't.
    """
    folder.mkdir(parents=True, exist_ok=True)
    console, missing = Console(stderr=True), {}
    for number, name in enumerate(names, 1):
        path = folder / f"{name}.json"
        if path.exists():
            console.print(f"{number} of {len(names)}  {name}: {path} holds it")
            continue
        console.print(f"{number} of {len(names)}  {name}")
        began = time.monotonic()
        try:
            section = importlib.import_module(f"benchmarks.scorecard.sections.{name}").measure(size)
        except (NotMeasured, ImportError) as exc:
            missing[name] = str(exc)
            console.print(f"        not measured: {exc}", markup=False)
            continue
        found = Held(
            name=name,
            size=size.name,
            date=f"{datetime.now(UTC):%Y-%m-%d}",
            machine=machine(),
            command=f"{command} --only {name}",
            seconds=round(time.monotonic() - began, 1),
            section=section,
        )
        written = path.with_suffix(".part")
        written.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
        written.replace(path)
    return missing
