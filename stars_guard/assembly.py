"""From what a policy declares to the parts that do it. Parts that hold a model are made once and shared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from stars_guard.backends.base import Backend
from stars_guard.decoding import Settings
from stars_guard.embedded import resolve_model
from stars_guard.errors import InputError
from stars_guard.judging import Rule
from stars_guard.policy import PatternsJudge, Policy, SequenceClassifierJudge
from stars_guard.scorers.base import Scorer
from stars_guard.scorers.cascade import Cascade, Judge

__all__ = ["load_backend", "load_cascade", "settings_of"]

T = TypeVar("T")
_shared: dict[tuple[object, ...], asyncio.Task[object]] = {}


async def _once(key: tuple[object, ...], make: Callable[[], Awaitable[T]]) -> T:
    """Make a part once for all callers; a failure is not kept."""

    async def run() -> object:
        return await make()

    task = _shared.get(key)
    if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
        task = _shared[key] = asyncio.get_running_loop().create_task(run())
    return cast("T", await asyncio.shield(task))


async def load_backend(model: str, backend: str = "auto") -> Backend:
    """The engine for a model, shared by all who name the same.

    Raises:
        InputError: an unknown backend.
        BackendError: the model cannot be loaded.
    """
    if backend not in ("auto", "transformers"):
        raise InputError(f"unknown backend {backend!r}", hint="use 'auto' or 'transformers'")

    async def make() -> Backend:
        from stars_guard.backends.transformers import TransformersBackend

        return await TransformersBackend.load(await asyncio.to_thread(resolve_model, model))

    return await _once(("transformers", model), make)


async def load_cascade(policy: Policy) -> Cascade:
    """The policy's judges."""
    judges = []
    for spec in policy.judges:
        rule = Rule(spec.name, spec.weight, spec.reject_above, spec.on_error)
        judges.append(Judge(rule, await _scorer(spec), spec.timeout))
    return Cascade(judges)


async def _scorer(spec: SequenceClassifierJudge | PatternsJudge) -> Scorer:
    match spec:
        case PatternsJudge():
            from stars_guard.scorers.patterns import Pattern, PatternScorer

            return PatternScorer([Pattern(p.name, p.regex) for p in spec.patterns])
        case SequenceClassifierJudge():
            options = spec.model_dump(include={"revision", "label", "template", "max_length", "batch_size"})

            async def make() -> Scorer:
                from stars_guard.scorers.sequence_classifier import SequenceClassifierScorer

                path = await asyncio.to_thread(resolve_model, spec.model)
                return await SequenceClassifierScorer.load(path, **options)

            return await _once(("judge", spec.model, *options.items()), make)


def settings_of(policy: Policy, max_tokens: int) -> Settings:
    """The decoder's settings under the policy's mode, for answers of at most ``max_tokens``."""
    values = policy.decoding.model_dump()
    values["max_tokens"] = max_tokens
    if policy.mode == "off":
        values["method"] = "vanilla"
    return Settings(**values, monitor=policy.mode == "monitor")
