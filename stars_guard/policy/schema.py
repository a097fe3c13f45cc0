"""The JSON Schema of a policy, for editors and other languages. ``policies/schema.json`` is this, written out."""

from __future__ import annotations

import json
from typing import Any

from stars_guard.policy._model import Policy

__all__ = ["policy_schema", "schema_text"]


def policy_schema() -> dict[str, Any]:
    """The schema as JSON data (draft 2020-12). What it accepts may still be refused: a regex that does not compile."""
    schema = Policy.model_json_schema(by_alias=True, mode="validation")
    top, judges = schema["properties"], schema["properties"]["judges"]
    top["extends"] = {"type": "string", "minLength": 1, "description": "a policy's name or path, relative to this file"}
    top["override"] = {"type": "boolean", "description": "lets the top level loosen what the parent says"}
    changed = {
        "type": "object",
        "description": "a parent's judge, changed; override: true lets it be loosened",
        "properties": {"name": {"type": "string"}, "override": {"type": "boolean"}},
        "required": ["name"],
    }
    rails = schema["$defs"]
    for rail in ("Rail", "ToolResultRail"):
        listed = rails[rail]["properties"]["judges"]
        listed["items"] = {"anyOf": [listed["items"], changed]}
    schema["if"] = {"required": ["extends"]}
    schema["then"] = {"properties": {"judges": {"items": {"anyOf": [judges["items"], changed]}}}}
    schema["else"] = {"required": schema.pop("required"), "properties": {"judges": {"items": judges.pop("items")}}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "stars-guard policy",
    }


def schema_text() -> str:
    """The schema as ``policies/schema.json`` holds it."""
    return json.dumps(policy_schema(), indent=2, sort_keys=True) + "\n"
