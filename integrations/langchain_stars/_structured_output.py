"""Answers under a schema, and the errors where an answer does not fit it."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Literal, get_args

from langchain_core import exceptions
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import BaseOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnableMap, RunnablePassthrough
from langchain_core.utils.pydantic import is_basemodel_subclass

from langchain_stars._schemas import described_answer, described_tool
from stars_guard.core.nesting import MOST_NESTED, TooDeep, read_json
from stars_guard.errors import InputError, Refused

__all__ = ["Method", "structured"]

Method = Literal["json_schema", "function_calling", "json_mode"]


def structured(
    model: BaseChatModel, schema: Any, method: str, *, include_raw: bool, **bound: Any
) -> Runnable[Any, Any]:
    """The model with its answers parsed. Each answer is generated under a grammar and judged as one segment.

    Args:
        method: ``json_schema`` generates under the schema; ``function_calling`` forces a call whose arguments the
            schema describes; ``json_mode`` generates any JSON object, which the prompt must describe.

    Raises:
        InputError: the method or schema cannot be used.
    """
    if method not in get_args(Method):
        raise InputError(f"unknown method {method!r}", hint=f"use one of {', '.join(get_args(Method))}")
    if schema is None:
        raise InputError("there is no schema", hint="pass a pydantic class, a TypedDict or a JSON schema")
    bound["ls_structured_output_format"] = {"kwargs": {"method": method}, "schema": schema}
    is_pydantic = isinstance(schema, type) and is_basemodel_subclass(schema)
    parser: BaseOutputParser[Any]
    if method == "function_calling":
        tool = described_tool(schema)
        name = tool["function"]["name"]
        llm = model.bind_tools([tool], tool_choice=name, parallel_tool_calls=False, **bound)
        parser = (
            PydanticToolsParser(tools=[schema], first_tool_only=True)
            if is_pydantic
            else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        )
    else:
        wanted: Mapping[str, Any] = {"type": "json_object"}
        if method == "json_schema":
            described = described_answer(schema)
            about = {"name": described.get("title", "answer"), "schema": described}
            wanted = {"type": "json_schema", "json_schema": about}
        llm = model.bind(response_format=wanted, **bound)
        parser = PydanticOutputParser(pydantic_object=schema) if is_pydantic else JsonOutputParser()
    parsed = RunnableLambda(_checked) | parser
    if not include_raw:
        return llm | parsed
    assigned = RunnablePassthrough.assign(parsed=itemgetter("raw") | parsed, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=llm) | assigned.with_fallbacks([failed], exception_key="parsing_error")


def _checked(message: AIMessage) -> AIMessage:
    """An answer that can be parsed.

    Raises:
        ModelRefusalError: the guard refused; `Refused` where langchain-core has no such error.
        OutputParserException: the answer was cut off, or is nested too deeply.
    """
    finish = message.response_metadata.get("finish_reason")
    if finish in ("length", "budget", "stopped"):
        raise OutputParserException(f"the answer ended before the schema's end: {finish}; raise max_tokens")
    for block in message.content_blocks if finish == "refused" else ():
        if block["type"] == "refusal" and (error := getattr(exceptions, "ModelRefusalError", None)) is not None:
            raise error.from_refusal(block, raw_message=message)
    if finish == "refused":
        raise Refused(message.response_metadata["stars_guard"]["reason"])
    try:
        read_json(message.text)
    except TooDeep as exc:
        raise OutputParserException(f"{exc}; it has more than {MOST_NESTED} levels") from None
    except ValueError:
        pass  # a call, or what the parser itself will complain of
    return message
