"""The fields of a record, one a line, such as ``segments[].attempts[].tokens: integer``: what a version's file freezes.

python tests/record_fields.py > tests/records/v5/fields.txt
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from stars_guard.audit import CallRecord

__all__ = ["fields_of"]


def fields_of(schema: Mapping[str, Any]) -> list[str]:
    """The lines of a JSON schema. Titles, descriptions and defaults are left out."""
    definitions = schema.get("$defs", {})

    def resolved(part: Mapping[str, Any]) -> Mapping[str, Any]:
        return definitions[part["$ref"].rpartition("/")[2]] if "$ref" in part else part

    def kinds(part: Mapping[str, Any]) -> set[str]:
        part = resolved(part)
        if "anyOf" in part:
            return set().union(*(kinds(each) for each in part["anyOf"]))
        if "enum" in part or "const" in part:
            return {json.dumps(value) for value in part.get("enum", [part.get("const")])}
        return {part.get("type", "any")}

    def lines(part: Mapping[str, Any], path: str) -> Iterator[str]:
        part = resolved(part)
        for each in part.get("anyOf", ()):
            yield from lines(each, path)
        if "items" in part:
            yield from lines(part["items"], f"{path}[]")
        members = dict(part.get("properties", {}))
        if isinstance(part.get("additionalProperties"), dict):
            members["*"] = part["additionalProperties"]
        for name, member in members.items():
            below = f"{path}.{name}".removeprefix(".")
            yield f"{below}: {' | '.join(sorted(kinds(member)))}"
            yield from lines(member, below)

    return sorted(set(lines(schema, "")))


if __name__ == "__main__":
    print(*fields_of(CallRecord.model_json_schema()), sep="\n")  # noqa: T201
