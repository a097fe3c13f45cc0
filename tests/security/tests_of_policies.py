"""Walks through the models of a policy, so that tests find every field that there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from stars_guard.policy._judges import find_options, own_judge_types
from stars_guard.scorers.options import JudgeOptions

__all__ = ["fails", "models_of"]


def fails(a: str) -> None:
    """A factory of a judge that shows what it was given."""
    raise RuntimeError(f"there is no {a}")


def models_of(annotation: Any, seen: set[Any] | None = None) -> Iterator[type[BaseModel]]:
    """Every pydantic model in an annotation, in its fields, and in theirs; for judges, our own types."""
    seen = set() if seen is None else seen
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in seen:
            return
        seen.add(annotation)
        yield annotation
        for field in annotation.model_fields.values():
            yield from models_of(field.annotation, seen)
        if annotation is JudgeOptions:
            for name in own_judge_types():
                yield from models_of(find_options(name), seen)
    for argument in get_args(annotation):
        yield from models_of(argument, seen)
