"""From what a policy declares to the parts that do it. Parts that hold a model are made once and shared."""

from __future__ import annotations

import asyncio
import difflib
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from pydantic import SecretStr

from stars_guard.audit import Content
from stars_guard.backends.base import Backend
from stars_guard.backends.supplied import MOST_TOKENS
from stars_guard.core.judging import Rule
from stars_guard.core.vocabulary import Method
from stars_guard.decoding import Settings, Step
from stars_guard.engines import vllm_process as vllm_runtime
from stars_guard.engines.embedded_models import resolve_model
from stars_guard.errors import InputError, PolicyError
from stars_guard.policy import (
    GuardModelJudge,
    HttpJudge,
    JudgeSpec,
    PathsJudge,
    PatternsJudge,
    PiiJudge,
    Policy,
    PythonJudge,
    SequenceClassifierJudge,
    VllmPoolingJudge,
)
from stars_guard.scorers.base import Scorer
from stars_guard.scorers.cascade import Cascade, Judge

__all__ = [
    "as_one_segment",
    "content_of",
    "load_backend",
    "load_cascade",
    "load_judges",
    "rule_of",
    "settings_of",
    "supplied_settings",
    "unload_backends",
]

logger = logging.getLogger("stars_guard")

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


RULES = {"name", "weight", "reject_above", "on_error", "timeout", "scope", "every", "final"}
"""What a policy says of a judge that its model does not depend on."""

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
    engine = await _once(key, lambda: _MAKERS[backend](model, options))
    if engine.dead:
        _shared.pop(key, None)
        engine = await _once(key, lambda: _MAKERS[backend](model, options))
    return engine


async def unload_backends() -> None:
    """Free every shared engine. Calls that run fail; the next call of a guard loads its engine again."""
    keys = [key for key in _shared if key[0] in BACKENDS]
    for task in [_shared.pop(key) for key in keys]:
        if task.done() and not task.cancelled() and task.exception() is None:
            await cast("Backend", task.result()).aclose()


def _reveal(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


async def _choose(model: str, options: Mapping[str, Any]) -> str:
    if "base_url" in options:
        return "vllm-server"
    path = await asyncio.to_thread(resolve_model, model)
    reason = await asyncio.to_thread(vllm_runtime.no_reason_against, path)
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


async def load_cascade(policy: Policy, *, allow_python: bool = False) -> Cascade:
    """The judges of answers: the policy's own and those of its output rail. Raises what `load_judges` does."""
    return await load_judges((*policy.judges, *policy.rails.output.judges), allow_python=allow_python)


async def load_judges(specs: Sequence[JudgeSpec], *, allow_python: bool = False) -> Cascade:
    """Judges that a policy declares.

    Args:
        allow_python: whether the policy may name Python code to run.

    Raises:
        PolicyError: a judge cannot be made from what the policy says.
        ScorerError: a judge's model cannot be loaded.
    """
    judges = []
    for spec in specs:
        scorer = await _scorer(spec, allow_python)
        judges.append(Judge(rule_of(spec), scorer, spec.timeout, spec.tail, spec.every, spec.asked_last))
    return Cascade(judges)


def rule_of(spec: JudgeSpec) -> Rule:
    """What the policy makes of a judge's score."""
    return Rule(spec.name, spec.weight, spec.reject_above, spec.on_error)


async def _scorer(spec: JudgeSpec, allow_python: bool) -> Scorer:
    match spec:
        case PatternsJudge():
            from stars_guard.scorers.patterns import Pattern, PatternScorer

            return PatternScorer([Pattern(p.name, p.regex) for p in spec.patterns])
        case PiiJudge():
            from stars_guard.scorers.pii import PiiScorer

            return PiiScorer(spec.kinds, spec.region)
        case PathsJudge():
            from stars_guard.scorers.paths import PathScorer

            return PathScorer(spec.roots)
        case HttpJudge():
            from stars_guard.scorers.http import HttpScorer

            return HttpScorer(
                spec.url,
                spec.body,
                spec.score,
                headers=spec.headers,
                retries=spec.retries,
                connections=spec.connections,
                timeout=spec.timeout,
            )
        case PythonJudge():
            from stars_guard.scorers.python import load_python

            if not allow_python:
                raise PolicyError(
                    f"judge {spec.name!r}: python judges are off", hint="pass allow_python=True where the guard is made"
                )
            return await asyncio.to_thread(load_python, spec.call, spec.options)
        case GuardModelJudge():
            how = spec.model_dump(
                include={"controversial", "revision", "max_length", "batch_size", "engine", "base_url"}
            )

            async def ask() -> Scorer:
                from stars_guard.scorers.guard_model import GuardModelScorer

                return await GuardModelScorer.load(
                    await asyncio.to_thread(resolve_model, spec.model),
                    spec.form,
                    categories=spec.categories or (),
                    api_key=_api_key(spec.name, spec.api_key_env),
                    **how,
                )

            return await _once(("judge", spec.model_dump_json(exclude=RULES)), ask)
        case SequenceClassifierJudge() | VllmPoolingJudge():
            return await _classifier_scorer(spec)


async def _classifier_scorer(spec: SequenceClassifierJudge | VllmPoolingJudge) -> Scorer:
    """Judges with the same labels are one scorer, whose passages go in one batch; others share at least the model."""
    from stars_guard.scorers.sequence_classifier import SequenceClassifier, SequenceClassifierScorer
    from stars_guard.scorers.vllm_pooling import VllmClassifier, VllmPoolingScorer

    async def model() -> SequenceClassifier | VllmClassifier:
        path = await asyncio.to_thread(resolve_model, spec.model)
        options = spec.model_dump(exclude=RULES | {"type", "label", "labels", "model", "api_key_env"})
        if isinstance(spec, SequenceClassifierJudge):
            return await SequenceClassifier.load(path, **options)
        return await VllmClassifier.load(path, api_key=_api_key(spec.name, spec.api_key_env), **options)

    async def scorer() -> Scorer:
        kind = SequenceClassifierScorer if isinstance(spec, SequenceClassifierJudge) else VllmPoolingScorer
        shared = await _once(("classifier", spec.model_dump_json(exclude=RULES | {"label", "labels"})), model)
        return kind(shared, label=spec.label, labels=spec.labels)

    return await _once(("judge", spec.model_dump_json(exclude=RULES)), scorer)


def _api_key(judge: str, variable: str | None) -> SecretStr | None:
    if not variable:
        return None
    key = os.environ.get(variable)
    if not key:
        raise PolicyError(f"judge {judge!r}: the environment has no {variable}", hint="set it to the API key")
    return SecretStr(key)


def content_of(policy: Policy) -> Content:
    """How much text its records hold.

    Raises:
        AuditError: texts are to be encrypted and there is no key.
    """
    return Content(**policy.audit.contents.model_dump(), encrypt=policy.audit.encrypt)


def settings_of(policy: Policy, max_tokens: int) -> Settings:
    """The decoder's settings under the policy's mode, for answers of at most ``max_tokens``."""
    values = policy.decoding.model_dump()
    values["max_tokens"] = max_tokens
    values["thresholds"] = tuple(Step(**step) for step in values["thresholds"])
    if policy.mode == "off":
        values["method"] = "vanilla"
    return Settings(**values, monitor=policy.mode == "monitor")


def as_one_segment(settings: Settings) -> Settings:
    """The settings for an answer that is drawn and judged as a whole; it is no longer than the call may pay for."""
    most = min(settings.max_tokens, settings.budget_tokens or settings.max_tokens)
    return replace(
        settings, segment_tokens=most, max_tokens=most, entropy_threshold=None, optimistic=False, stretch=False
    )


def supplied_settings(policy: Policy, attempts: int | None) -> Settings:
    """The same for texts that are handed in: no schedule, as nothing is known of their length, and one at a time.

    Args:
        attempts: fewer than the policy's.
    """
    settings = settings_of(policy, MOST_TOKENS)
    methods: dict[str, Method] = {"cards": "stars", "blockwise_best_of_k": "best_of_n"}
    return replace(
        settings,
        method=methods.get(settings.method, settings.method),
        segment_tokens=MOST_TOKENS,
        schedule="constant",
        parallel=1,
        optimistic=False,
        budget_tokens=None,
        attempts=min(settings.attempts, attempts or settings.attempts),
    )
