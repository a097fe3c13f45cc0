"""Tools and schemas of every form that LangChain takes, described so that a grammar can follow them.

LangChain replaces references by what they refer to, and a model that holds itself by nothing. So a description that it
would lose something of is made here from the schema itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.tools import BaseTool, create_schema_from_function
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import TypeAdapter
from typing_extensions import is_typeddict

from stars_guard.core.schemas import self_contained
from stars_guard.errors import InputError

__all__ = ["described_answer", "described_tool"]


def described_tool(tool: Any, *, strict: bool | None = None) -> dict[str, Any]:
    """A tool in OpenAI's form; of one that runs at a provider, what was given.

    Raises:
        InputError: it is nothing that can be described.
    """
    full = _full_schema(tool)
    if isinstance(tool, Mapping) and full is not None:
        tool = full  # LangChain reads the properties at the root alone
    try:
        described = convert_to_openai_tool(tool, strict=strict)
    except Exception as exc:  # pydantic's and LangChain's, of many kinds
        if full is None or not is_typeddict(tool):
            raise InputError(
                f"a tool cannot be described: {_first_line(exc)}", hint="give it a name and a JSON schema"
            ) from exc
        described = convert_to_openai_tool({**full, "title": tool.__name__}, strict=strict)
    function = described.get("function")
    if (
        full is not None
        and isinstance(function, Mapping)
        and ("$defs" in full if isinstance(tool, Mapping) else _holds_itself(full))
    ):
        parameters = _without_titles({key: value for key, value in full.items() if key not in ("title", "description")})
        return {**described, "function": {**function, "parameters": parameters}}
    return described


def described_answer(schema: Any) -> dict[str, Any]:
    """A schema that an answer is generated under, as JSON schema with a title.

    Raises:
        InputError: it is nothing that can be described.
    """
    if isinstance(schema, Mapping):
        match schema:
            case {"type": "json_schema", "json_schema": {"schema": Mapping() as inner} as about}:
                return {"title": about.get("name", "answer"), **self_contained(inner)}
            case {"type": "function", "function": {"parameters": Mapping() as inner, "name": str(name)}}:
                return {"title": name, **self_contained(inner)}
            case (
                {"name": str(name), "parameters": Mapping() as inner}
                | {
                    "name": str(name),
                    "input_schema": Mapping() as inner,
                }
                | {"name": str(name), "schema": Mapping() as inner}
            ):
                return {"title": name, **self_contained(inner)}
        return self_contained(schema)
    full = _full_schema(schema)
    if full is not None and "$defs" in full:
        return full
    try:
        return self_contained(convert_to_json_schema(schema))
    except Exception as exc:  # pydantic's and LangChain's, of many kinds
        raise InputError(
            f"the schema cannot be described: {_first_line(exc)}", hint="give a pydantic class or a JSON schema"
        ) from exc


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]


def _full_schema(source: Any) -> dict[str, Any] | None:
    """The schema with definitions, where a source has one of its own."""
    match source:
        case Mapping() if "$ref" in source or ("title" in source and not {"name", "function"} & source.keys()):
            return self_contained(source)
        case Mapping():
            return None
        case BaseTool():
            inner: Any = source.tool_call_schema
            return self_contained(inner) if isinstance(inner, Mapping) else _full_schema(inner)
        case type() if is_basemodel_subclass(source):
            make: Any = getattr(source, "model_json_schema", None) or source.schema  # type: ignore[attr-defined]
            return self_contained(make())
        case _ if is_typeddict(source):
            return _of_typed_dict(source)
        case _ if callable(source) and not isinstance(source, type):
            return _of_function(source)
        case _:
            return None


def _of_typed_dict(source: Any) -> dict[str, Any] | None:
    try:
        full = self_contained(TypeAdapter(source).json_schema())
    except Exception:
        return None  # LangChain knows more forms of it
    return full if _holds_itself(full) else None


def _of_function(source: Any) -> dict[str, Any] | None:
    try:
        made = create_schema_from_function(source.__name__, source, filter_args=(), parse_docstring=True)
        full = _full_schema(made)
    except Exception:
        return None  # LangChain says what is wrong with it
    return full if full is not None and _holds_itself(full) else None


def _holds_itself(schema: Mapping[str, Any]) -> bool:
    """Whether replacing the references by what they refer to would never end."""
    definitions: Mapping[str, Any] = schema.get("$defs", {})
    inside = {name: set(_referred(part)) for name, part in definitions.items()}
    reached = {name: set(names) for name, names in inside.items()}
    for _ in definitions:
        for names in reached.values():
            for name in list(names):
                names |= inside.get(name, set())
    return any(name in names for name, names in reached.items())


def _referred(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        if isinstance(ref := schema.get("$ref"), str):
            yield ref.removeprefix("#/$defs/")
        for part in schema.values():
            yield from _referred(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _referred(part)


def _without_titles(schema: Any, *, names: bool = False) -> Any:
    """Without what pydantic adds for forms: to a model it says the property's name again."""
    if isinstance(schema, Mapping):
        return {
            key: _without_titles(value, names=key in ("properties", "$defs") and not names)
            for key, value in schema.items()
            if names or key != "title" or not isinstance(value, str)
        }
    return [_without_titles(item) for item in schema] if isinstance(schema, list) else schema
