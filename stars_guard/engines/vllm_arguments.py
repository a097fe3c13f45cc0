"""Which of vLLM's engine arguments a file may give, and which only a program may."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["CHANGES_SCORES", "HARMLESS", "not_harmless"]

_SWITCH, _COUNT, _AMOUNT = (bool,), (int,), (int, float)

HARMLESS: Mapping[str, tuple[type, ...] | re.Pattern[str]] = {
    "async_scheduling": _SWITCH,
    "block_size": _COUNT,
    "cpu_offload_gb": _AMOUNT,
    "disable_cascade_attn": _SWITCH,
    "disable_custom_all_reduce": _SWITCH,
    "disable_log_stats": _SWITCH,
    "dtype": re.compile("auto|half|float16|bfloat16|float|float32"),
    "enable_chunked_prefill": _SWITCH,
    "enable_prefix_caching": _SWITCH,
    "enforce_eager": _SWITCH,
    "gpu_memory_utilization": _AMOUNT,
    "kv_cache_dtype": re.compile("auto|float16|bfloat16|fp8|fp8_e4m3|fp8_e5m2"),
    "kv_cache_memory_bytes": _COUNT,
    "max_model_len": _COUNT,
    "max_num_batched_tokens": _COUNT,
    "max_num_seqs": _COUNT,
    "max_parallel_loading_workers": _COUNT,
    "num_gpu_blocks_override": _COUNT,
    "pipeline_parallel_size": _COUNT,
    "quantization": re.compile("awq|awq_marlin|bitsandbytes|compressed-tensors|fp8|gptq|gptq_marlin"),
    "seed": _COUNT,
    "tensor_parallel_size": _COUNT,
}
"""Arguments that say how much memory and how many cores a model takes, and in which precision it runs, and what their
values may be. All others are left out, because many of them run code (``trust_remote_code``, ``worker_cls``,
``logits_processors``), read or write files, open connections, or make another model of the one that is named."""

CHANGES_SCORES = frozenset({"kv_cache_dtype", "max_model_len", "quantization"})
"""Those that change what a judge reads, or how exactly."""


def not_harmless(arguments: Mapping[str, Any]) -> list[str]:
    """The arguments, sorted, that are not `HARMLESS`: another name, or another kind of value."""
    return sorted(str(name) for name, value in arguments.items() if not _is_harmless(name, value))


def _is_harmless(name: str, value: Any) -> bool:
    allowed = HARMLESS.get(name)
    if allowed is None:
        return False
    if isinstance(allowed, re.Pattern):
        return isinstance(value, str) and allowed.fullmatch(value) is not None
    return type(value) in allowed
