"""What pydantic found wrong, in words: ``file:line: key: text``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from stars_guard.core.nearest import did_you_mean
from stars_guard.decoding import PARTS, PartOptions
from stars_guard.policy._judges import find_options
from stars_guard.policy._model import Policy
from stars_guard.policy.tree import Loc, Node, Place, key_of, locate, without_values
from stars_guard.scorers.options import JudgeOptions

__all__ = ["describe", "plain_problems"]


def describe(tree: Node, exc: ValidationError) -> list[str]:
    """Every problem of a policy, in the order of its lines.

    Args:
        tree: what was validated. The value of an environment variable is never shown.
    """
    found: dict[tuple[str, str], tuple[int, list[str]]] = {}
    errors = exc.errors(include_url=False)
    for error in errors:
        loc = error["loc"]
        # a list whose items are all wrong is also reported as too short
        inner = [other for other in errors if len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc]
        if error["type"] == "too_short" and inner:
            continue
        known, place = locate(tree, _without_branches(tree, loc, missing=error["type"] == "missing"))
        texts = found.setdefault((key_of(known), place.file), (place.line, []))[1]
        if place.variable:
            texts.append(f"the value of ${{{place.variable}}} is not valid")
        else:
            texts.append(without_values(tree, _text(tree, error)))
    return [
        f"{Place(file=file, line=line)}: {key}: {_either(texts)}"
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


def _without_branches(tree: Node, loc: Loc, *, missing: bool) -> Loc:
    """The path in the tree. For a union pydantic's path also names the branch that was tried, which no reader wrote.

    Args:
        missing: whether the last part is a key that the tree lacks.
    """
    kept: list[int | str] = []
    node = tree
    for number, part in enumerate(loc):
        held: Any = node.value if isinstance(node.value, dict | list) else {}
        try:
            node = held[part]
        except (KeyError, IndexError, TypeError):
            if missing and number == len(loc) - 1:
                kept.append(part)
        else:
            kept.append(part)
    return tuple(kept)


def _text(tree: Node, error: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return "unknown key" + _nearest_key(tree, error["loc"])
        case "missing":
            return "this key is required"
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
    meant = did_you_mean(given, valid)
    return f"; {meant}" if meant else ""


def _nearest_key(tree: Node, loc: Loc) -> str:
    given = str(loc[-1])
    here = _keys(_model_at(tree, loc[:-1]))
    near = _suggestion(given, here)
    if near:
        return near
    elsewhere = [path for path in _sections() if path.endswith(f".{given}")]
    return f"; did you mean `{elsewhere[0]}`?" if elsewhere else f"; valid here: {', '.join(here)}"


def _model_at(tree: Node, loc: Loc) -> type[BaseModel]:
    model: type[BaseModel] = Policy
    for end, part in enumerate(loc, start=1):
        if model is JudgeOptions and isinstance(part, int):
            model = _options_at(tree, loc[:end])
            continue
        field = model.model_fields.get(str(part))
        inner = list(_models_in(field.annotation)) if field else []
        if len(inner) == 1:
            model = _part_at(tree, loc[:end]) if inner[0] is PartOptions else inner[0]
    return model


def _part_at(tree: Node, loc: Loc) -> type[BaseModel]:
    """The options of the method, schedule or acceptance rule at a path of the tree."""
    parts = PARTS[str(loc[-1])]
    name = _type_at(tree, loc)
    return PartOptions if parts.find(name) is None else parts.options_of(name)


def _options_at(tree: Node, loc: Loc) -> type[BaseModel]:
    """The options of the judge at a path of the tree."""
    return find_options(_type_at(tree, loc)) or JudgeOptions


def _type_at(tree: Node, loc: Loc) -> str:
    """What a mapping at a path of the tree says as its ``type``."""
    node = tree
    for part in loc:
        node = node.value[part]
    return str(node.value["type"].value)


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


def _literals(expected: str) -> list[str]:
    return [word.strip().strip("'") for word in expected.replace(" or ", ",").split(",")]
