"""The JSON Schema of a policy, for editors and other languages. ``policies/schema.json`` is this, written out."""

from __future__ import annotations

import json
from typing import Any

from stars_guard.policy.model import Policy

__all__ = ["policy_schema", "schema_text"]


def policy_schema() -> dict[str, Any]:
    """The schema as JSON data (draft 2020-12). What it accepts may still be refused: a regex that does not compile."""
    schema = Policy.model_json_schema(by_alias=True, mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "stars-guard policy",
    }


def schema_text() -> str:
    """The schema as ``policies/schema.json`` holds it."""
    return json.dumps(policy_schema(), indent=2, sort_keys=True) + "\n"
