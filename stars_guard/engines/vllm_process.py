"""Starting vLLM in this process's service: settings that must be made before its import, and one way to start it."""

from __future__ import annotations

import asyncio
import atexit
import importlib.util
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from stars_guard.engines.model_thread import leave_a_core
from stars_guard.engines.options import unknown_option
from stars_guard.errors import BackendError, BackendUnavailable, InputError, MissingExtra

__all__ = ["START_LIMIT", "installed", "no_reason_against", "on_cpu", "start", "stop", "translated"]

logger = logging.getLogger("stars_guard.engines")

_starting = threading.Lock()
_lock = threading.Lock()
_running: set[Any] = set()

START_LIMIT = 900.0
"""Seconds that an engine's start may take. vLLM itself waits without end for some of its processes."""

GRACE = 30.0
"""Seconds that a start which took too long has to end."""

PROCESSES = ("EngineCore", "VLLM_DP_Coordinator")
"""What the names of an engine's processes begin with."""

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


async def start(model: str, options: Mapping[str, Any], *, limit: float = START_LIMIT) -> Any:
    """Start an engine for a model. `stop` ends it, at the latest when the process ends.

    Args:
        options: vLLM's engine arguments, which replace our defaults.
        limit: seconds that the start may take. Engines start one after another, and each has this time of its own;
            waiting for another one's start takes this long at most, too.

    Returns:
        A ``vllm.v1.engine.async_llm.AsyncLLM``.

    Raises:
        MissingExtra: vLLM is not installed.
        InputError: vLLM has no such engine argument.
        BackendError: the engine did not start, or not in time.
    """
    if not installed():
        raise MissingExtra("the vllm backend", "vllm")
    await _turn(model, limit)
    others = _engine_processes()
    starting = asyncio.ensure_future(asyncio.to_thread(_start, model, dict(options)))
    starting.add_done_callback(lambda _: _starting.release())
    try:
        await asyncio.wait({starting}, timeout=limit)
    except asyncio.CancelledError:
        starting.add_done_callback(_stop_late)
        raise
    if starting.done():
        return starting.result()
    starting.add_done_callback(_stop_late)
    # a start that waits for its processes ends with them, and it may make one only now
    end = time.monotonic() + GRACE
    while not starting.done() and time.monotonic() < end:
        for process in _engine_processes() - others:
            process.kill()
        await asyncio.wait({starting}, timeout=0.2)
    raise BackendError(
        f"vLLM did not start for {model!r} within {limit:g} s",
        hint="set VLLM_LOGGING_LEVEL=INFO to see where it stands; a large model may need a longer start_timeout",
    )


async def stop(engine: Any) -> None:
    """End an engine. May be called twice."""
    await asyncio.to_thread(_stop, engine)


async def _turn(model: str, limit: float) -> None:
    """Wait until no other engine starts."""
    end = time.monotonic() + limit
    while not _starting.acquire(blocking=False):
        if time.monotonic() > end:
            raise BackendError(
                f"vLLM did not start for {model!r}: another engine has been starting for {limit:g} s",
                hint="set VLLM_LOGGING_LEVEL=INFO to see why that one does not start",
            )
        await asyncio.sleep(0.1)


def _engine_processes() -> set[Any]:
    return {child for child in multiprocessing.active_children() if child.name.startswith(PROCESSES)}


def _stop_late(starting: asyncio.Future[Any]) -> None:
    """End an engine that nobody waits for any more."""
    if not starting.cancelled() and starting.exception() is None:
        threading.Thread(target=_stop, args=(starting.result(),), daemon=True).start()


def _start(model: str, options: dict[str, Any]) -> Any:
    cpu = on_cpu()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # A forked child of a process whose threads hold locks may hang.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if cpu:
        leave_a_core()
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    with _main_unseen():
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

            known = {field.name for field in fields(AsyncEngineArgs)}
            if unknown := sorted(options.keys() - known):
                raise InputError(
                    f"options of the vLLM engine: {'; '.join(unknown_option(name, known) for name in unknown)}",
                    hint="see `vllm serve --help`",
                )
            arguments = {**DEFAULTS, **(CPU_DEFAULTS if cpu else {}), **options}
            engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=model, **arguments))
        except InputError:
            raise
        except Exception as exc:
            raise BackendError(
                f"vLLM could not start for {model!r}: {type(exc).__name__}",
                hint="set VLLM_LOGGING_LEVEL=INFO to see why; `stars-guard doctor` checks memory and versions",
            ) from exc
    with _lock:
        if not _running:
            atexit.register(_stop_all)
        _running.add(engine)
    return engine


def _stop(engine: Any) -> None:
    with _lock:
        if engine not in _running:
            return
        _running.remove(engine)
        if not _running:
            atexit.unregister(_stop_all)
    engine.shutdown()
    # its finalizer shuts it down once more, when the modules that this needs may be gone
    engine.shutdown = lambda timeout=None: None


def _stop_all() -> None:
    # it would report its own end as a failure, to streams that may be closed
    logging.getLogger("vllm.v1.engine.async_llm").disabled = True
    for engine in list(_running):
        _stop(engine)


@contextmanager
def _main_unseen() -> Iterator[None]:
    """Without this, each engine process would run the user's script again, except under ``if __name__ == ...``."""
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
    """vLLM's errors as ours; their text may hold user text, so only their kind is reported.

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
