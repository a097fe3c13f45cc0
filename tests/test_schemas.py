"""Schemas of every form, with references and such that hold themselves, become grammars that are real."""

from __future__ import annotations

import json
from typing import Annotated, Any, Optional

import pytest
from conftest import guard, rewarding
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.tools import StructuredTool, tool
from langchain_core.utils.function_calling import convert_to_json_schema
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from langchain_stars import ChatStars
from langchain_stars._schemas import described_answer, described_tool
from langchain_stars._tool_binding import grammar_of, toolset_of
from stars_guard.core.grammar import Grammar
from stars_guard.core.schemas import self_contained
from stars_guard.errors import InputError
from stars_guard.prompting._call_grammar import call_format

xgrammar = pytest.importorskip("xgrammar")


class Node(BaseModel):
    """A node of a tree."""

    value: int = Field(title="Value")
    children: list[Node] = []


class Tree(BaseModel):
    """A tree."""

    root: Node
    title: str


class Even(BaseModel):
    """Holds itself by way of another."""

    next: Odd | None


class Odd(BaseModel):
    next: Even | None


class Linked(TypedDict):
    """A list."""

    value: int
    next: Optional[Linked]  # noqa: UP045


def chain(value: int, next: Linked | None) -> None:  # noqa: A002
    """Chains."""


@tool
def plant(root: Node) -> str:
    """Plants a tree."""
    return str(root)


def accepts(form: dict[str, Any] | str, text: str) -> bool:
    """Whether the grammar of a structural tag is a text's."""
    vocabulary = [chr(i) for i in range(128)] + ["</s>"]
    info = xgrammar.TokenizerInfo(vocabulary, stop_token_ids=[128])
    tag = form if isinstance(form, str) else json.dumps({"type": "structural_tag", "format": form})
    compiled = xgrammar.GrammarCompiler(info, max_threads=1).compile_structural_tag(tag)
    matcher = xgrammar.GrammarMatcher(compiled)
    return bool(matcher.accept_string(text) and matcher.is_completed())


def grammar(schema: Any) -> str:
    made = ChatStars(guard=guard(rewarding())).with_structured_output(schema)
    found = grammar_of(made.first.kwargs)  # type: ignore[attr-defined]
    assert found is not None
    return found.tag


def call_of(name: str) -> str:
    return json.dumps({"name": name, "arguments": "ARGS"}).replace('"ARGS"', "ARGS")


LEAF = '{"value": 1, "children": []}'
GOOD = f'{{"value": 1, "children": [{LEAF}]}}'
BAD = ['{"value": 1, "children": [{"value": "x", "children": []}]}', '{"value": 1, "children": [{"a": 1}]}', "[]"]
MOVED = json.loads(json.dumps(Node.model_json_schema()).replace("$defs", "definitions"))
ITSELF = {
    "title": "node",
    "type": "object",
    "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["value", "children"],
}
POINTED = {
    "title": "node",
    "$ref": "#/$defs/a~1b/properties/it%20em",
    "$defs": {"a/b": {"properties": {"it em": {**ITSELF, "properties": {**ITSELF["properties"]}}}}},  # type: ignore[dict-item]
}
POINTED["$defs"]["a/b"]["properties"]["it em"]["properties"]["children"] = {  # type: ignore[index]
    "type": "array",
    "items": {"$ref": "#/$defs/a~1b/properties/it%20em"},
}
ANCHORED = json.loads(json.dumps({**ITSELF, "$anchor": "me"}).replace('"#"', '"#me"'))
NODES: dict[str, Any] = {
    "pydantic": Node,
    "$defs": Node.model_json_schema(),
    "definitions": MOVED,
    "itself": ITSELF,
    "no title": {key: value for key, value in ITSELF.items() if key != "title"},
    "a pointer": POINTED,
    "an anchor": ANCHORED,
    "OpenAI's function": {"name": "node", "parameters": ITSELF},
    "OpenAI's tool": {"type": "function", "function": {"name": "node", "parameters": Node.model_json_schema()}},
    "OpenAI's format": {"type": "json_schema", "json_schema": {"name": "node", "schema": ITSELF}},
    "Anthropic's tool": {"name": "node", "input_schema": Node.model_json_schema()},
}


@pytest.mark.parametrize("schema", NODES.values(), ids=NODES)
def test_an_answer_under_a_schema_that_holds_itself(schema: Any) -> None:
    tag = grammar(schema)
    assert accepts(tag, GOOD)
    assert accepts(tag, LEAF)
    for bad in BAD:
        assert not accepts(tag, bad)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (Tree, f'{{"root": {GOOD}, "title": "t"}}', '{"root": {"value": "x", "children": []}, "title": "t"}'),
        (Even, '{"next": {"next": {"next": null}}}', '{"next": {"next": {"next": 1}}}'),
        (
            Linked,
            '{"value": 1, "next": {"value": 2, "next": null}}',
            '{"value": 1, "next": {"value": "x", "next": null}}',
        ),
    ],
)
def test_other_forms_that_hold_themselves(schema: Any, good: str, bad: str) -> None:
    assert accepts(grammar(schema), good)
    assert not accepts(grammar(schema), bad)


def of_tool(given: Any, **more: Any) -> Any:
    bound = ChatStars(guard=guard(rewarding())).bind_tools([given], tool_choice="any", **more)
    toolset = toolset_of(bound.kwargs)  # type: ignore[attr-defined]
    assert toolset is not None
    return toolset.tools


TOOLS: dict[str, Any] = {
    **{name: NODES[name] for name in NODES if name not in ("no title", "OpenAI's format")},
    "a schema as arguments": StructuredTool.from_function(lambda **_: "", name="n", description="d", args_schema=Node),
    "a mapping as arguments": StructuredTool(name="n", description="d", func=print, args_schema=ITSELF),
}


@pytest.mark.parametrize("given", TOOLS.values(), ids=TOOLS)
@pytest.mark.parametrize("strict", [None, True])
def test_tools_whose_arguments_hold_themselves(given: Any, strict: bool | None) -> None:
    tools = of_tool(given, strict=strict)
    form = call_format([*tools, *of_tool(chain)], "arguments")
    call = call_of(tools[0].name)
    assert accepts(form, call.replace("ARGS", GOOD))
    for bad in BAD:
        assert not accepts(form, call.replace("ARGS", bad))


@pytest.mark.parametrize(
    ("given", "good", "bad"),
    [
        (plant, f'{{"root": {GOOD}}}', f'{{"root": {BAD[0]}}}'),
        (chain, '{"value": 1, "next": {"value": 2, "next": null}}', '{"value": 1, "next": {"value": 2, "next": 3}}'),
        (Linked, '{"value": 1, "next": {"value": 2, "next": null}}', '{"value": 1, "next": {"value": 2, "next": 3}}'),
    ],
)
def test_functions_and_dicts_that_hold_themselves(given: Any, good: str, bad: str) -> None:
    tools = of_tool(given)
    call = call_of(tools[0].name)
    assert accepts(call_format(tools, "arguments"), call.replace("ARGS", good))
    assert not accepts(call_format(tools, "arguments"), call.replace("ARGS", bad))


def test_what_models_read_of_a_tool_has_no_titles() -> None:
    described = described_tool(Tree)["function"]
    assert (described["name"], described["description"]) == ("Tree", "A tree.")
    assert described["parameters"]["properties"].keys() == {"root", "title"}
    assert "Value" not in json.dumps(described)


class Flat(TypedDict):
    """Flat."""

    name: Annotated[str, ..., "its name"]


class Inner(BaseModel):
    x: int


class Outer(BaseModel):
    """Holds another."""

    inner: Inner


def test_what_langchain_describes_whole_stays_as_it_says() -> None:
    for schema in (Flat, Outer):
        assert described_answer(schema) in (
            convert_to_json_schema(schema),
            schema.model_json_schema() if schema is Outer else {},
        )
    assert "$ref" not in json.dumps(described_tool(Outer))


@pytest.mark.parametrize("ref", ["https://example.org/schema", "#/$defs/missing", "#nowhere", "other.json#/x"])
def test_a_reference_that_leads_nowhere_is_named(ref: str) -> None:
    schema = {"title": "t", "type": "object", "properties": {"x": {"$ref": ref}}}
    for call in (
        lambda: grammar(schema),
        lambda: Grammar.json_schema(schema),
        lambda: of_tool({"name": "f", "parameters": schema}),
        lambda: of_tool(schema),
    ):
        with pytest.raises(InputError, match="the schema refers to"):
            call()


def test_a_reference_to_itself_alone_is_named() -> None:
    for schema in ({"$ref": "#"}, {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}):
        with pytest.raises(InputError, match="circle"):
            self_contained(schema)


def test_what_is_no_schema_is_the_callers_error() -> None:
    with pytest.raises(InputError, match="cannot be described"):
        ChatStars(guard=guard(rewarding())).with_structured_output({"type": "object"}, method="function_calling")
    with pytest.raises(InputError, match="cannot be described"):
        ChatStars(guard=guard(rewarding())).with_structured_output(3)  # type: ignore[arg-type]


def test_names_and_data_are_no_references() -> None:
    schema = {
        "type": "object",
        "properties": {
            "$ref": {"type": "string"},
            "$defs": {"type": "integer"},
            "definitions": {"const": {"$ref": "#/nowhere"}},
            "default": {"$ref": "#/$defs/n", "default": {"$ref": "x"}},
        },
        "$defs": {"n": {"type": "integer"}, "unused": {"$ref": "#/nowhere"}},
    }
    made = self_contained(schema)
    assert made["properties"] == schema["properties"]
    assert made["$defs"] == {"n": {"type": "integer"}}


LEAVES = st.sampled_from([{"type": "integer"}, {"type": "string"}, {"enum": ["$ref", 1]}, True])


@given(st.lists(st.sampled_from(["a", "b", "c d", "e/f"]), min_size=1, max_size=4, unique=True), st.data())
def test_every_reference_leads_to_a_definition_at_the_root(names: list[str], data: Any) -> None:
    holder = data.draw(st.sampled_from(["$defs", "definitions"]))
    refs = st.sampled_from([{"$ref": f"#/{holder}/{name.replace('/', '~1')}"} for name in names])
    part = st.recursive(
        LEAVES | refs,
        lambda inner: (
            st.builds(lambda x: {"type": "array", "items": x}, inner)
            | st.dictionaries(st.sampled_from(["$ref", "x", "items"]), inner, max_size=2).map(
                lambda made: {"type": "object", "properties": made}
            )
            | st.lists(inner, min_size=1, max_size=2).map(lambda made: {"anyOf": made})
        ),
        max_leaves=5,
    )
    schema = {
        "type": "object",
        "properties": {"p": data.draw(part)},
        holder: {n: {"not": data.draw(part)} for n in names},
    }
    made = self_contained(schema)
    assert self_contained(made) == made
    text = json.dumps(made)
    for name in made.get("$defs", {}):
        assert f'"#/$defs/{name}"' in text


# --- choosing tools

CHOICES: list[tuple[Any, Any]] = [
    ({"type": "any"}, ("chain", "plant")),
    ({"type": "required"}, ("chain", "plant")),
    ({"type": "auto"}, ()),
    ({"type": "none"}, None),
    ({"type": "tool", "name": "plant"}, ("plant",)),
    ({"type": "function", "name": "plant"}, ("plant",)),
    ({"name": "plant"}, ("plant",)),
    ({"any": {}}, ("chain", "plant")),
    ({"auto": {}}, ()),
    ({"tool": {"name": "plant"}}, ("plant",)),
    ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "plant"}]}, ("plant",)),
    ("any", ("chain", "plant")),
]


@pytest.mark.parametrize(("choice", "forced"), CHOICES, ids=str)
def test_every_providers_tool_choice(choice: Any, forced: Any) -> None:
    model = ChatStars(guard=guard(rewarding()))
    bound = model.bind_tools([chain, plant], tool_choice=choice)
    raw = {"tools": [described_tool(chain), described_tool(plant)], "tool_choice": choice}
    for one in (bound.kwargs, raw):  # type: ignore[attr-defined]
        toolset = toolset_of(one)
        assert (toolset and toolset.forced) == forced


def test_one_call_at_a_time() -> None:
    bound = ChatStars().bind_tools([chain], tool_choice={"type": "any", "disable_parallel_tool_use": True})
    toolset = toolset_of(bound.kwargs)  # type: ignore[attr-defined]
    assert toolset is not None
    assert not toolset.parallel


@pytest.mark.parametrize(
    "choice", ["any", True, "required", {"type": "any"}, "plant", {"type": "tool", "name": "plant"}]
)
def test_a_choice_without_tools_is_an_error(choice: Any) -> None:
    model = ChatStars(guard=guard(rewarding()))
    for call in (
        lambda: model.bind_tools([], tool_choice=choice),
        lambda: model.invoke("hi", tool_choice=choice),
        lambda: model.bind(tool_choice=choice).invoke("hi"),
    ):
        with pytest.raises(InputError, match="no tools are given"):
            call()
    assert model.invoke("hi", tool_choice="auto").text


@pytest.mark.parametrize("choice", [{}, {"type": "some"}, 3, ["plant"], {"type": "allowed_tools", "mode": "auto"}])
def test_a_choice_that_nobody_knows_is_an_error(choice: Any) -> None:
    with pytest.raises(InputError, match="tool_choice"):
        ChatStars().bind_tools([plant], tool_choice=choice)
