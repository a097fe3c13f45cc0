"""The judges that a policy may name: each type is found by its entry point, and brings its own options."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import SerializeAsAny, WithJsonSchema
from pydantic.functional_validators import PlainValidator
from pydantic_core import PydanticCustomError

from stars_guard.core.nearest import did_you_mean
from stars_guard.core.registry import Registry
from stars_guard.errors import PolicyError
from stars_guard.scorers.options import JudgeOptions

__all__ = ["JUDGES", "JudgeSpec", "find_options", "judge_types", "own_judge_types"]


def _problem(part: Any) -> str | None:
    if not isinstance(part, type) or not issubclass(part, JudgeOptions):
        return "it should be a class derived from stars_guard.scorers.JudgeOptions"
    if inspect.isabstract(part):
        return "it has no method load"
    return None


JUDGES: Registry[type[JudgeOptions]] = Registry("stars_guard.judges", "judge", _problem, PolicyError)
"""The options classes by type, ours and those of other packages."""

_REINSTALL = "stars-guard's own judges are not registered: run `pip install -e .` again"


def judge_types() -> list[str]:
    """The types that are installed, sorted."""
    return JUDGES.names()


def own_judge_types() -> list[str]:
    """The types that come with stars-guard, sorted."""
    return JUDGES.own_names()


def find_options(kind: object) -> type[JudgeOptions] | None:
    """The options class of a type, or None where there is none that can be used."""
    return JUDGES.find(kind)


def _read(value: Any) -> JudgeOptions:
    """Check a judge by the options class of its type.

    What is wrong inside is reported by pydantic itself, at the key where it is.
    """
    if isinstance(value, JudgeOptions):
        if find_options(value.type) is not type(value):
            raise PydanticCustomError("judge_type", "the type of {kind} is not {given}", _words(value))
        return value
    if not isinstance(value, Mapping):
        raise PydanticCustomError("dict_type", "Input should be a valid dictionary")
    if "type" not in value:
        raise PydanticCustomError("judge_type", "`type` is required: {types}", {"types": _installed()})
    if not isinstance(kind := value["type"], str):
        raise PydanticCustomError("judge_type", "`type` should be a word: {types}", {"types": _installed()})
    try:
        options = JUDGES.get(kind)
    except PolicyError as exc:
        raise PydanticCustomError("judge_type", "{text}", {"text": _why_not(kind, exc)}) from exc
    return options.model_validate(value)


def _words(value: JudgeOptions) -> dict[str, str]:
    return {"kind": type(value).__name__, "given": repr(value.type)}


def _installed() -> str:
    return ", ".join(judge_types()) or f"none is installed. {_REINSTALL}"


def _why_not(kind: str, exc: PolicyError) -> str:
    types = judge_types()
    if kind in types:
        return str(exc)
    if "patterns" not in types:
        return f"unknown type {kind!r}. {_REINSTALL}"
    parts = (f"unknown type {kind!r}", f"installed: {', '.join(types)}", did_you_mean(kind, types))
    return "; ".join(filter(None, parts))


JudgeSpec = Annotated[
    SerializeAsAny[JudgeOptions], PlainValidator(_read), WithJsonSchema({"$ref": "#/$defs/Judge"}, mode="validation")
]
"""A judge of a policy: read by the options of its type, and written with all of their fields."""
