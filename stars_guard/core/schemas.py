"""JSON schemas whose references all lead to definitions of their own, so that every part of them can be followed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from stars_guard.errors import InputError

__all__ = ["self_contained", "target_of"]

_NAMED = ("properties", "patternProperties", "dependentSchemas", "dependencies")
"""Keywords whose keys are names that the schema's author chose."""

_DATA = ("const", "enum", "default", "examples", "example")
"""Keywords whose values are no schemas."""

_DEFINITIONS = ("$defs", "definitions")


def self_contained(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same schema, whose references are all of the form ``#/$defs/name``, with ``$defs`` at its root.

    A root that is a reference itself is replaced by what it refers to. Definitions that nothing refers to are left out.

    Raises:
        InputError: a reference leads nowhere, out of the schema or in a circle.
    """
    found = _Definitions(schema)
    root: Any = schema
    passed: set[str] = set()
    while isinstance(ref := root.get("$ref"), str):
        if ref in passed:
            raise InputError(f"the schema's reference {ref!r} leads in a circle", hint="describe what it stands for")
        passed.add(ref)
        target = found.target(ref)
        if not isinstance(target, Mapping):
            break
        root = {**target, **{key: value for key, value in root.items() if key not in ("$ref", *_DEFINITIONS)}}
    made = found.walked({key: value for key, value in root.items() if key not in _DEFINITIONS})
    found.follow()
    return {**made, "$defs": found.definitions} if found.definitions else dict(made)


def target_of(schema: Any, ref: str) -> Any:
    """The part of a schema that a reference leads to, by its path (``#/$defs/name``) or by a name of its own.

    Raises:
        LookupError: it leads nowhere, or out of the schema.
    """
    if not _is_path(ref):
        return dict(_anchors(schema))[ref]
    for part in ref.split("/")[1:]:
        key = _unquoted(part).replace("~1", "/").replace("~0", "~")
        try:
            schema = schema[key] if isinstance(schema, Mapping) else schema[int(key)]
        except (LookupError, TypeError, ValueError):
            raise LookupError(ref) from None
    return schema


def _is_path(ref: str) -> bool:
    return ref == "#" or ref.startswith("#/")


class _Definitions:
    """What the references of a schema lead to.

    Attributes:
        definitions: by the names that they have at the root.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._anchors = dict(_anchors(schema))
        self._names: dict[str, str] = {}
        self._left: list[str] = []
        self.definitions: dict[str, Any] = {}

    def follow(self) -> None:
        """Define all that is referred to, and all that these definitions refer to."""
        while self._left:
            ref = self._left.pop()
            target = self.target(ref)
            self.definitions[self._names[ref]] = self.walked(
                {key: value for key, value in target.items() if key not in _DEFINITIONS}
                if isinstance(target, Mapping)
                else target
            )

    def target(self, ref: str) -> Any:
        """What a reference leads to.

        Raises:
            InputError: it leads nowhere, or out of the schema.
        """
        if ref in self._anchors:
            return self._anchors[ref]
        if not _is_path(ref):
            raise InputError(f"the schema refers to {ref!r}, outside of itself", hint="put it into $defs")
        try:
            return target_of(self._schema, ref)
        except LookupError:
            raise InputError(f"the schema refers to {ref!r}, which it does not hold", hint="define it") from None

    def walked(self, schema: Any) -> Any:
        """A part of the schema with its references renamed."""
        if isinstance(schema, list | tuple):
            return [self.walked(item) for item in schema]
        if not isinstance(schema, Mapping):
            return schema
        made: dict[str, Any] = {}
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
                made["$ref"] = f"#/$defs/{self._name(value)}"
            elif key in _NAMED and isinstance(value, Mapping):
                made[key] = {name: self.walked(item) for name, item in value.items()}
            elif key in _DEFINITIONS and isinstance(value, Mapping):
                continue  # what is referred to is at the root
            else:
                made[key] = value if key in _DATA else self.walked(value)
        return made

    def _name(self, ref: str) -> str:
        if ref not in self._names:
            self.target(ref)
            wanted = re.sub(r"[^\w.-]", "_", _unquoted(ref).rpartition("/")[2].lstrip("#")) or "root"
            name, number = wanted, 1
            while name in self._names.values():
                number += 1
                name = f"{wanted}_{number}"
            self._names[ref] = name
            self._left.append(ref)
        return self._names[ref]


def _unquoted(ref: str) -> str:
    """A part of a reference without the escapes of URLs."""
    plain = re.sub(rb"%([0-9a-fA-F]{2})", lambda found: bytes.fromhex(found[1].decode()), ref.encode())
    return plain.decode(errors="replace")


def _anchors(schema: Any) -> Any:
    """The parts of a schema that have a name of their own, as references write it."""
    if isinstance(schema, Mapping):
        for key in ("$id", "$anchor", "$dynamicAnchor"):
            if isinstance(name := schema.get(key), str) and name:
                yield (name if key == "$id" else f"#{name}"), schema
        for key, value in schema.items():
            if key not in _DATA:
                yield from _anchors(value)
    elif isinstance(schema, list | tuple):
        for item in schema:
            yield from _anchors(item)
