"""What the machine has: memory, and the number types that its processor computes fast."""

from __future__ import annotations

import logging
import os
import platform
from pathlib import Path

__all__ = ["available_memory", "computes_bfloat16", "instruction_set", "number_type"]

logger = logging.getLogger("stars_guard.engines")


def available_memory() -> int:
    """Bytes that a new process can have, what the system keeps of files included, as it gives that up when asked."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        (available,) = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return available * 1024


def instruction_set() -> str:
    """The widest vector instructions that torch uses here, such as ``AVX2`` or ``AVX512``. Imports torch."""
    import torch

    return str(torch.backends.cpu.get_cpu_capability())


def computes_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16. Imports torch.

    Without them, such a product takes several times as long as one of float32. The answer is no for a processor that we
    cannot ask, because float32 is fast everywhere.
    """
    import torch

    if platform.machine().lower() in ("arm64", "aarch64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, bool)()) for probe in probes)


def number_type(given: str | None, device: str, model: str) -> str:
    """The type of a model's numbers: what is given, or else float32 on a processor and bfloat16 elsewhere.

    It imports torch. The log says which, and warns of one that is slow here.

    Args:
        device: torch's name of it, such as ``cpu`` or ``cuda:1``.
    """
    import torch

    on_cpu = torch.device(device).type == "cpu"
    chosen = given or ("float32" if on_cpu else "bfloat16")
    where = f"a processor with {instruction_set()}" if on_cpu else device
    if on_cpu and chosen != "float32" and not computes_bfloat16():
        logger.warning("%r computes in %s, which is many times slower than float32 on %s", model, chosen, where)
    else:
        logger.info("%r computes in %s on %s", model, chosen, where)
    return chosen
