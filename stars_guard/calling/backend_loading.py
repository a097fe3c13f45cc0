"""From the name of a backend to an engine that is shared by all who name the same."""

from __future__ import annotations

import asyncio
import difflib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from pydantic import SecretStr

from stars_guard.backends.base import Backend
from stars_guard.calling.shared_parts import PARTS, shared
from stars_guard.engines import vllm_process
from stars_guard.engines.embedded_models import resolve_model
from stars_guard.errors import InputError

__all__ = ["load_backend", "unload_backends"]

logger = logging.getLogger("stars_guard")

BACKENDS = ("auto", "transformers", "vllm", "vllm-server")


async def load_backend(model: str, backend: str = "auto", options: Mapping[str, Any] | None = None) -> Backend:
    """The engine for a model, shared by all who name the same.

    Args:
        backend: ``auto`` takes ``vllm-server`` where the options have a ``base_url``, ``vllm`` where it is installed
            and the model fits, and else ``transformers``; the log (``stars_guard``, INFO)
            says which and why.
        options: of the backend: ``TransformersBackend.load``, vLLM's engine arguments, or `ServerOptions`.

    Raises:
        InputError: an unknown backend or option.
        BackendError: the model cannot be loaded.
    """
    options = dict(options or {})
    if backend not in BACKENDS:
        near = difflib.get_close_matches(backend, BACKENDS, 1)
        raise InputError(f"unknown backend {backend!r}", hint=f"use one of {', '.join(near or BACKENDS)}")
    if backend == "auto":
        backend = await _choose(model, options)
    model = await asyncio.to_thread(resolve_model, model)
    key = (backend, model, json.dumps(options, sort_keys=True, default=_reveal))
    engine = await shared(key, lambda: _MAKERS[backend](model, options))
    if engine.dead:
        PARTS.pop(key, None)
        engine = await shared(key, lambda: _MAKERS[backend](model, options))
    return engine


async def unload_backends() -> None:
    """Free every shared engine. Calls that run fail; the next call of a guard loads its engine again."""
    keys = [key for key in PARTS if key[0] in BACKENDS]
    for task in [PARTS.pop(key) for key in keys]:
        if task.done() and not task.cancelled() and task.exception() is None:
            await cast("Backend", task.result()).aclose()


def _reveal(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


async def _choose(model: str, options: Mapping[str, Any]) -> str:
    if "base_url" in options:
        return "vllm-server"
    path = await asyncio.to_thread(resolve_model, model)
    reason = await asyncio.to_thread(vllm_process.no_reason_against, path)
    chosen = "transformers" if reason else "vllm"
    logger.info("backend auto: %s for %s%s", chosen, model, f" ({reason})" if reason else "")
    return chosen


async def _transformers(model: str, options: Mapping[str, Any]) -> Backend:
    from stars_guard.backends.transformers import TransformersBackend

    try:
        return await TransformersBackend.load(model, **options)
    except TypeError as exc:
        raise InputError(
            f"unknown options of the transformers backend: {', '.join(options)}",
            hint="it takes dtype, device, revision",
        ) from exc


async def _vllm(model: str, options: Mapping[str, Any]) -> Backend:
    from stars_guard.backends.vllm_engine import VllmEngineBackend

    return await VllmEngineBackend.load(model, options)


async def _vllm_server(model: str, options: Mapping[str, Any]) -> Backend:
    from stars_guard.backends.vllm_server import VllmServerBackend
    from stars_guard.engines.vllm_client import parse_options

    return await VllmServerBackend.connect(model, parse_options(options))


_MAKERS: Mapping[str, Callable[[str, Mapping[str, Any]], Awaitable[Backend]]] = {
    "transformers": _transformers,
    "vllm": _vllm,
    "vllm-server": _vllm_server,
}
