"""From the name of a backend to an engine that is shared by all who name the same."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from stars_guard.backends.base import Backend
from stars_guard.backends.registry import BACKENDS
from stars_guard.engines.embedded_models import resolve_model
from stars_guard.engines.options import read_options
from stars_guard.engines.sharing import Lease, Shared
from stars_guard.errors import InputError

__all__ = ["lease_backend", "load_backend", "unload_backends"]

logger = logging.getLogger("stars_guard")


_engines: Shared[Backend] = Shared()


async def lease_backend(model: str, backend: str = "auto", options: Mapping[str, Any] | None = None) -> Lease[Backend]:
    """A share in the engine for a model. All who name the same have one engine, which the last of them frees.

    Args:
        backend: the name under which a package registers it. ``auto`` takes the first of ours that has no objection:
            ``vllm-server`` where the options have a ``base_url``, ``vllm`` where it is installed and the model fits,
            and else ``transformers``; the log (``stars_guard``, INFO) says which and why.
        options: of the backend, as its own options model describes them.

    Raises:
        InputError: an unknown backend or option.
        BackendError: the model cannot be loaded.
    """
    options = dict(options or {})
    if backend == "auto":
        backend = await asyncio.to_thread(_choose, model, options)
    kind = await asyncio.to_thread(BACKENDS.get, backend)
    read = read_options(kind.options_model, options, f"the backend {backend!r}")
    model = await asyncio.to_thread(resolve_model, model)
    key = (backend, model, json.dumps(read.model_dump(), sort_keys=True, default=_reveal))

    async def load() -> Backend:
        logger.info("loading %s with the backend %s, for which the first call waits", model, backend)
        loaded: Backend = await kind.load(model, read)
        return loaded

    lease = await _engines.lease(key, load)
    while lease.part.dead:
        await lease.withdraw()
        await lease.aclose()
        lease = await _engines.lease(key, load)
    return lease


async def load_backend(model: str, backend: str = "auto", options: Mapping[str, Any] | None = None) -> Backend:
    """The engine for a model, until `unload_backends`. Takes and raises what `lease_backend` does."""
    return (await lease_backend(model, backend, options)).part


async def unload_backends() -> None:
    """Free every shared engine. Calls that run end with `BackendUnavailable`; a guard loads its engine again for the
    next call."""
    await _engines.withdraw_all()


def _reveal(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _choose(model: str, options: Mapping[str, Any]) -> str:
    """The name of the backend that ``auto`` takes."""
    kinds, reasons = {}, []
    for name in BACKENDS:
        try:
            kinds[name] = BACKENDS.get(name)
        except InputError as exc:
            # one package's broken part is no reason to use none
            reasons.append(f"{name}: {exc.message}")
    ranked = [name for name in sorted(kinds, key=lambda name: -kinds[name].auto_rank) if kinds[name].auto_rank]
    if not ranked:
        BACKENDS.get("auto")  # says what is wrong with the installation
    path = resolve_model(model)
    for name in ranked:
        if not (reason := kinds[name].objection(path, options)):
            logger.info("backend auto: %s for %s%s", name, model, f" ({'; '.join(reasons)})" if reasons else "")
            return name
        reasons.append(f"{name}: {reason}")
    raise InputError(f"no backend takes the model {model!r}: {'; '.join(reasons)}", hint="name the backend")
