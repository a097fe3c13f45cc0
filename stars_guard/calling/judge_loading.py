"""From what a policy declares to the judges that do it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from pydantic import SecretStr

from stars_guard.calling.shared_parts import shared
from stars_guard.core.judging import Rule
from stars_guard.engines.embedded_models import resolve_model
from stars_guard.errors import PolicyError
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

__all__ = ["load_cascade", "load_judges", "rule_of"]

RULES = {"name", "weight", "reject_above", "on_error", "timeout", "scope", "every", "final"}
"""What a policy says of a judge that its model does not depend on."""


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
        judges.append(
            Judge(rule_of(spec), scorer, timeout=spec.timeout, tail=spec.tail, every=spec.every, final=spec.asked_last)
        )
    return Cascade(judges)


def rule_of(spec: JudgeSpec) -> Rule:
    """What the policy makes of a judge's score."""
    return Rule(judge=spec.name, weight=spec.weight, reject_above=spec.reject_above, on_error=spec.on_error)


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

            return await shared(("judge", spec.model_dump_json(exclude=RULES)), ask)
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
        classifier = await shared(("classifier", spec.model_dump_json(exclude=RULES | {"label", "labels"})), model)
        return kind(classifier, label=spec.label, labels=spec.labels)

    return await shared(("judge", spec.model_dump_json(exclude=RULES)), scorer)


def _api_key(judge: str, variable: str | None) -> SecretStr | None:
    if not variable:
        return None
    key = os.environ.get(variable)
    if not key:
        raise PolicyError(f"judge {judge!r}: the environment has no {variable}", hint="set it to the API key")
    return SecretStr(key)
