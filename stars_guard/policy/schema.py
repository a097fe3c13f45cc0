"""The JSON Schema of a policy, for editors and other languages. ``policies/schema.json`` is this, written out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from stars_guard.decoding import PARTS, PartOptions, Parts
from stars_guard.policy._judges import JUDGES, judge_types
from stars_guard.policy._model import Policy
from stars_guard.policy.layers import NAMED

__all__ = ["own_schema_text", "policy_schema", "schema_text"]


def policy_schema(types: Sequence[str] | None = None, *, own: bool = False) -> dict[str, Any]:
    """The schema as JSON data (draft 2020-12). What it accepts may still be refused: a regex that does not compile.

    Args:
        types: the judges that it knows; None takes those that are installed.
        own: whether it knows only the judges, methods, schedules and acceptance rules that come with stars-guard.
    """
    installed = JUDGES.own_names() if own else judge_types()
    options = {name: JUDGES.get(name) for name in (installed if types is None else types)}
    parts = {(key, name): model for key, kind in PARTS.items() for name, model in _usable(kind, own=own)}
    with_options = {part: model for part, model in parts.items() if not model.is_empty()}
    models: dict[type[BaseModel], None] = dict.fromkeys([Policy, *options.values(), *with_options.values()])
    refs, definitions = models_json_schema([(model, "validation") for model in models], by_alias=True)
    defs = definitions["$defs"]
    schema = defs.pop(_name(refs[Policy, "validation"]["$ref"]))
    known = {name: refs[model, "validation"]["$ref"] for name, model in options.items()}
    for name, ref in known.items():
        defs[_name(ref)]["properties"]["type"] = {"const": name, "title": "Type", "type": "string"}
    defs["Judge"] = {
        "discriminator": {"mapping": known, "propertyName": "type"},
        "oneOf": [{"$ref": ref} for ref in known.values()],
    }
    for key in PARTS:
        field = defs["Decoding"]["properties"][key]
        by_name = {"enum": [name for of, name in parts if of == key], "type": field.pop("type")}
        del field["enum"]
        refs_of = {name: refs[model, "validation"]["$ref"] for (of, name), model in with_options.items() if of == key}
        for name, ref in refs_of.items():
            defs[_name(ref)]["properties"]["type"] = {"const": name, "title": "Type", "type": "string"}
        if refs_of:
            field["anyOf"] = [by_name, *({"$ref": ref} for ref in refs_of.values())]
        else:
            field.update(by_name)
    top, judges = schema["properties"], schema["properties"]["judges"]
    top["extends"] = {"type": "string", "minLength": 1, "description": "a policy's name or path, relative to this file"}
    top["override"] = {"type": "boolean", "description": "lets the top level loosen what the parent says"}
    named = {"type": "string", "minLength": 1, "description": "a policy's name or path, relative to this file"}
    top["shadow"]["items"] = {"anyOf": [named, top["shadow"]["items"]]}
    changed = {
        "type": "object",
        "description": "a parent's judge, rule or budget, changed; override: true lets it be loosened",
        "properties": {"name": {"type": "string"}, "override": {"type": "boolean"}},
        "required": ["name"],
    }
    for rail in ("Rail", "ToolCallRail", "ToolResultRail"):
        for key in NAMED:
            if (listed := defs[rail]["properties"].get(key)) is not None:
                listed["items"] = {"anyOf": [listed["items"], changed]}
    schema["if"] = {"required": ["extends"]}
    schema["then"] = {"properties": {"judges": {"items": {"anyOf": [judges["items"], changed]}}}}
    schema["else"] = {"required": schema.pop("required"), "properties": {"judges": {"items": judges.pop("items")}}}
    return {
        "$defs": defs,
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "stars-guard policy",
    }


def _usable(kind: Parts[Any], *, own: bool) -> Iterator[tuple[str, type[PartOptions]]]:
    """Methods, schedules or acceptance rules that can be used, with their options."""
    for name in kind.own_names() if own else kind.names():
        if kind.find(name) is not None:
            yield name, kind.options_of(name)


def _name(ref: str) -> str:
    return ref.rpartition("/")[2]


def schema_text(*, own: bool = False) -> str:
    """The schema as a file holds it. Takes what `policy_schema` does."""
    return json.dumps(policy_schema(own=own), indent=2, sort_keys=True) + "\n"


def own_schema_text() -> str:
    """The schema as ``policies/schema.json`` holds it: with the parts that come with stars-guard alone."""
    return schema_text(own=True)
