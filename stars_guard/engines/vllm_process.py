"""Starting vLLM in this process's service: settings that must be made before its import, and one way to start it."""

from __future__ import annotations

import asyncio
import atexit
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stars_guard.engines.model_thread import leave_a_core
from stars_guard.errors import BackendError, BackendUnavailable, MissingExtra

__all__ = ["installed", "no_reason_against", "on_cpu", "start", "translated"]

logger = logging.getLogger("stars_guard.engines")

_starting = threading.Lock()

DEFAULTS: Mapping[str, Any] = {"enable_prefix_caching": True, "disable_log_stats": True}
CPU_DEFAULTS: Mapping[str, Any] = {"enforce_eager": True, "block_size": 32, "max_num_seqs": 64}
"""``enforce_eager`` starts in a quarter of the time at the same speed there. Blocks of 32 tokens end where segments
end, so that a segment drawn by a new request is prefilled once; the CPU's own default is 128."""


def installed() -> bool:
    """Whether vLLM is installed, for a GPU or for the CPU."""
    return importlib.util.find_spec("vllm") is not None


def on_cpu() -> bool:
    """Whether vLLM runs on the CPU here."""
    import torch

    return not torch.cuda.is_available()


def no_reason_against(model: str) -> str:
    """Why vLLM should not be used for a model, or an empty string.

    Weights must fit with a third to spare for keys and values. What is not a directory is taken to fit.
    """
    if not installed():
        return "vLLM is not installed"
    size = sum(path.stat().st_size for path in Path(model).glob("*.safetensors")) if Path(model).is_dir() else 0
    import torch

    if torch.cuda.is_available():
        free, where = torch.cuda.mem_get_info()[0], "GPU"
    else:
        free, where = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"), "CPU"
    return "" if 1.34 * size < free else f"the weights ({size >> 20} MiB) do not fit the {where}'s {free >> 20} MiB"


async def start(model: str, options: Mapping[str, Any]) -> Any:
    """Start an engine for a model; stopped when the process ends.

    Args:
        options: vLLM's engine arguments, which replace our defaults.

    Returns:
        A ``vllm.v1.engine.async_llm.AsyncLLM``.

    Raises:
        MissingExtra: vLLM is not installed.
        BackendError: the engine did not start.
    """
    if not installed():
        raise MissingExtra("the vllm backend", "vllm")
    return await asyncio.to_thread(_start, model, dict(options))


def _start(model: str, options: dict[str, Any]) -> Any:
    cpu = on_cpu()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # A forked child of a process whose threads hold locks may hang.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if cpu:
        leave_a_core()
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    with _starting, _main_unseen():
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

            arguments = {**DEFAULTS, **(CPU_DEFAULTS if cpu else {}), **options}
            engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=model, **arguments))
        except TypeError as exc:
            raise BackendError(
                f"vLLM does not take these engine options: {', '.join(options)}", hint="see `vllm serve --help`"
            ) from exc
        except Exception as exc:
            raise BackendError(
                f"vLLM could not start for {model!r}: {type(exc).__name__}",
                hint="set VLLM_LOGGING_LEVEL=INFO to see why; `stars-guard doctor` checks memory and versions",
            ) from exc
    atexit.register(_stop, engine)
    return engine


def _stop(engine: Any) -> None:
    # it would report its own end as a failure, to streams that may be closed
    logging.getLogger("vllm.v1.engine.async_llm").disabled = True
    engine.shutdown()
    # its finalizer shuts it down once more, when the modules that this needs may be gone
    engine.shutdown = lambda: None


@contextmanager
def _main_unseen() -> Iterator[None]:
    """Without this, each engine process would run the user's script again, save under ``if __name__ == ...``."""
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    main.__spec__ = None
    if file is not None:
        del main.__file__
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file


@contextmanager
def translated() -> Iterator[None]:
    """vLLM's errors as ours; their text may hold user text, so only their kind is told.

    Raises:
        BackendUnavailable: the engine is dead.
        BackendError: any other failure.
    """
    try:
        yield
    except (MissingExtra, BackendError):
        raise
    except Exception as exc:
        from vllm.v1.engine.exceptions import EngineDeadError

        if isinstance(exc, EngineDeadError):
            raise BackendUnavailable("the vLLM engine has died", hint="see its log; the next call starts one") from exc
        raise BackendError(f"vLLM failed: {type(exc).__name__}", hint="see the engine's own log") from exc
