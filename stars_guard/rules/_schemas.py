"""A tool's argument schema, as far as conditions need it: which fields there are, their types and their defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stars_guard.core.nearest import did_you_mean
from stars_guard.core.nesting import MOST_NESTED
from stars_guard.core.schemas import target_of
from stars_guard.rules._values import UNREADABLE, Unreadable

__all__ = ["Part", "fitted", "names_in"]

Schema = Mapping[str, Any]


def fitted(value: Any, schema: Any, root: Schema, depth: int = 0) -> Any:
    """A value as the tool gets it: with the schema's defaults, and unreadable where it has a type that isn't allowed.

    Tools convert what they get: ``"100"`` becomes 100 and ``"yes"`` becomes true. A condition that compared the text
    with the number would then say nothing about what happens.
    """
    schema = _target(schema, root)
    if not isinstance(schema, Mapping) or depth > MOST_NESTED or isinstance(value, Unreadable):
        return value
    if (kinds := _kinds(schema)) is not None and not kinds & _kinds_of(value):
        return UNREADABLE
    for key in ("anyOf", "oneOf"):
        if isinstance(branches := schema.get(key), list) and branches:
            ways = [fitted(value, branch, root, depth + 1) for branch in branches]
            value = next((way for way in ways if not isinstance(way, Unreadable)), UNREADABLE)
    for branch in schema.get("allOf") or ():
        value = fitted(value, branch, root, depth + 1)
    if isinstance(value, dict):
        return _fitted_fields(value, schema, root, depth)
    items = schema.get("items")
    if isinstance(value, list) and isinstance(items, Mapping):
        return [fitted(item, items, root, depth + 1) for item in value]
    return value


def _fitted_fields(value: dict[str, Any], schema: Schema, root: Schema, depth: int) -> dict[str, Any]:
    made, fields = dict(value), _mapping(schema, "properties")
    is_open = schema.get("additionalProperties") or schema.get("patternProperties")
    # a name that the schema doesn't have may be another one of a field's names, which the tool knows and nobody else;
    # where other names are allowed, that matters for the fields that the call leaves out
    has_others = bool(fields) and not value.keys() <= fields.keys()
    for name, field in fields.items():
        if has_others and (not is_open or name not in value):
            made[name] = UNREADABLE
        elif name in value:
            made[name] = fitted(value[name], field, root, depth + 1)
        elif isinstance(target := _target(field, root), Mapping):
            for place in (field, target):
                if "default" in place:
                    made[name] = place["default"]
                    break
    return made


def names_in(schema: Any, depth: int = 0) -> frozenset[str]:
    """The names of all fields that a schema has, nested ones included."""
    if depth > MOST_NESTED:
        return frozenset()
    if isinstance(schema, Mapping):
        own = frozenset(map(str, _mapping(schema, "properties")))
        return own.union(*(names_in(item, depth + 1) for item in schema.values()))
    if isinstance(schema, list | tuple):
        return frozenset().union(*(names_in(item, depth + 1) for item in schema))
    return frozenset()


@dataclass(frozen=True, slots=True)
class Part:
    """What a schema says about a part of a value; ``root`` holds the definitions that it refers to."""

    schema: Any
    root: Schema

    def fields(self) -> Iterator[str]:
        """Names of the fields that it may have."""
        for schema in self._plain():
            yield from map(str, _mapping(schema, "properties"))

    def below(self, part: str | int) -> Iterator[Part]:
        """What it says about a field or an item; nothing where there can't be one."""
        for schema in self._plain():
            yield from (Part(found, self.root) for found in _below(schema, part))

    def why_never(self, value: Any) -> str:
        """Why it can't be this literal, in words; empty where it can."""
        schema = _target(self.schema, self.root)
        if value is None or not isinstance(schema, Mapping):
            return ""
        alike = 1 if isinstance(value, int | float) and not isinstance(value, bool) else value  # 1.5 of whole numbers
        if isinstance(fitted(alike, schema, self.root), Unreadable):
            return f"its type is {' or '.join(sorted(self._types())) or 'another'}"
        choices = schema.get("enum")
        if isinstance(choices, list | tuple) and value not in choices:
            texts = [one for one in choices if isinstance(one, str)]
            return did_you_mean(str(value), texts, f"it is one of {', '.join(map(str, choices))}")
        return ""

    def _types(self) -> frozenset[str]:
        return frozenset().union(*(_kinds(one) or () for one in self._plain() if isinstance(one, Mapping)))

    def _plain(self, depth: int = 0) -> Iterator[Any]:
        """It without references, and its alternatives."""
        schema = _target(self.schema, self.root)
        yield schema
        if isinstance(schema, Mapping) and depth < MOST_NESTED:
            for key in _BRANCHES:
                for branch in schema.get(key) or ():
                    yield from Part(branch, self.root)._plain(depth + 1)


_BRANCHES = ("anyOf", "oneOf", "allOf")


def _below(schema: Any, part: str | int) -> Iterator[Any]:
    if not isinstance(schema, Mapping):
        if schema is True:
            yield True
        return
    kinds, has_branches = _kinds(schema), any(schema.get(key) for key in _BRANCHES)
    if isinstance(part, int):
        if kinds is None or "array" in kinds:
            yield schema.get("items", not has_branches)
        return
    fields = _mapping(schema, "properties")
    if part in fields:
        yield fields[part]
    elif kinds is None or "object" in kinds:
        is_open = "properties" not in schema and not has_branches
        if others := schema.get("additionalProperties", is_open) or bool(schema.get("patternProperties")):
            yield others


def _mapping(schema: Any, key: str) -> Schema:
    found = schema.get(key) if isinstance(schema, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _target(schema: Any, root: Schema) -> Any:
    """What a schema that is a reference stands for; True, which allows anything, where it leads nowhere."""
    for _ in range(MOST_NESTED):
        if not isinstance(schema, Mapping) or not isinstance(ref := schema.get("$ref"), str):
            return schema
        try:
            schema = target_of(root, ref)
        except LookupError:
            return True
    return True


def _kinds(schema: Schema) -> frozenset[str] | None:
    """The types that a schema allows; None for any."""
    kinds = schema.get("type")
    if isinstance(kinds, str):
        return frozenset((kinds,))
    return frozenset(map(str, kinds)) if isinstance(kinds, list | tuple) else None


def _kinds_of(value: Any) -> frozenset[str]:
    """The types of a value, in the words of JSON Schema."""
    match value:
        case None:
            return frozenset(("null",))
        case bool():
            return frozenset(("boolean",))
        case int():
            return frozenset(("integer", "number"))
        case float():
            return frozenset(("integer", "number") if value.is_integer() else ("number",))
        case str():
            return frozenset(("string",))
        case list():
            return frozenset(("array",))
        case _:
            return frozenset(("object",))
