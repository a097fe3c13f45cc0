"""What pydantic found wrong, in words: ``file:line: key: text``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from stars_guard.policy._judges import JudgeSpec
from stars_guard.policy._model import Policy
from stars_guard.policy.tree import Loc, Node, Place, key_of, locate

__all__ = ["describe", "plain_problems"]


def describe(tree: Node, exc: ValidationError) -> list[str]:
    """Every problem of a policy, in the order of its lines.

    Args:
        tree: what was validated. The value of an environment variable is never told.
    """
    found: dict[tuple[str, str], tuple[int, list[str]]] = {}
    errors = exc.errors(include_url=False)
    for error in errors:
        loc = error["loc"]
        # a list whose items are all wrong is also reported as too short
        inner = [other for other in errors if len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc]
        if error["type"] == "too_short" and inner:
            continue
        known, place = locate(tree, _without_tag(loc))
        texts = found.setdefault((key_of(known), place.file), (place.line, []))[1]
        texts.append(f"the value of ${{{place.variable}}} is not valid" if place.variable else _text(error))
    return [
        f"{Place(file, line)}: {key}: {_either(texts)}"
        for (key, file), (line, texts) in sorted(found.items(), key=lambda item: (item[0][1], item[1][0]))
    ]


def plain_problems(tree: Node, exc: ValidationError) -> list[str]:
    """Every problem of another YAML file than a policy."""
    found: dict[tuple[str, Place], list[str]] = {}
    for error in exc.errors(include_url=False):
        known, place = locate(tree, error["loc"])
        text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
        found.setdefault((key_of(known), place), []).append(text)
    return [f"{place}: {key}: {_either(texts)}" for (key, place), texts in found.items()]


def _without_tag(loc: Loc) -> Loc:
    """pydantic puts a judge's type into the path, after its index, and after ``labels`` which kind they are of."""
    at = _tag_of(loc)
    if at is None:
        return loc
    rest = loc[at + 1 :]
    return (*loc[:at], *rest[:1], *rest[2:]) if rest[:1] == ("labels",) else (*loc[:at], *rest)


def _tag_of(loc: Loc) -> int | None:
    at = loc.index("judges") + 2 if "judges" in loc else len(loc)
    return at if at < len(loc) else None


def _text(error: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return "unknown key" + _nearest_key(error["loc"])
        case "missing":
            return "this key is required"
        case "union_tag_not_found":
            return "`type` is required: " + ", ".join(_judge_models())
        case "union_tag_invalid":
            tag = str(context.get("tag"))
            return f"unknown type {tag!r}" + _suggestion(tag, _judge_models())
        case "literal_error":
            allowed = [str(value) for value in _literals(context.get("expected", ""))]
            given = error["input"]
            text = str(error["msg"]).removeprefix("Input ")
            return text + (_suggestion(given, allowed) if isinstance(given, str) else "")
        case "model_type" | "dict_type" | "model_attributes_type":
            return "should be a mapping of keys to values"
        case "too_short" | "string_too_short":
            return "should not be empty"
        case "tuple_type":
            return "should be a list"
        case _:
            return str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")


def _either(texts: Sequence[str]) -> str:
    """Branches of one union that all failed read as alternatives."""
    first, *others = dict.fromkeys(texts)
    return " or ".join([first, *(text.removeprefix("should be ") for text in others)])


def _suggestion(given: str, valid: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, list(valid), 1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _nearest_key(loc: Loc) -> str:
    given = str(loc[-1])
    here = _keys(_model_at(loc[:-1]))
    near = _suggestion(given, here)
    if near:
        return near
    elsewhere = [path for path in _sections() if path.endswith(f".{given}")]
    return f"; did you mean `{elsewhere[0]}`?" if elsewhere else f"; valid here: {', '.join(here)}"


def _model_at(loc: Loc) -> type[BaseModel]:
    model: type[BaseModel] = Policy
    if (at := _tag_of(loc)) is not None:
        model, loc = _judge_models()[str(loc[at])], loc[at + 1 :]
    for part in loc:
        field = model.model_fields.get(str(part))
        inner = list(_models_in(field.annotation)) if field else []
        if len(inner) == 1:
            model = inner[0]
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _keys(model: type[BaseModel]) -> list[str]:
    keys = [field.alias or name for name, field in model.model_fields.items()]
    return [*keys, "extends", "override"] if model is Policy else keys


def _sections() -> list[str]:
    return [
        f"{name}.{key}"
        for name, field in Policy.model_fields.items()
        for kind in [field.annotation]
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for key in _keys(kind)
    ]


def _judge_models() -> dict[str, type[BaseModel]]:
    return {get_args(kind.model_fields["type"].annotation)[0]: kind for kind in _models_in(JudgeSpec)}


def _literals(expected: str) -> list[str]:
    return [word.strip().strip("'") for word in expected.replace(" or ", ",").split(",")]
