"""The same through LangChain: structured output, tools bound in a chain, and parsers after a guard."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.tools import tool
from pydantic import BaseModel
from test_decoded_forms import KEY, policy, saying

from langchain_stars import ChatStars, guard_runnable
from stars_guard.audit import MemoryStore
from stars_guard.guard import Guard

HIDDEN = "".join(f"\\u{ord(char):04x}" for char in KEY)
JSON = f'{{"answer": "{HIDDEN}"}}'


class Out(BaseModel):
    answer: str


@tool
def shell(command: str) -> str:
    """Run it."""
    return command


def stars(text: str, regex: str = "AKIA[A-Z0-9]{16}") -> ChatStars:
    return ChatStars(guard=Guard(policy(regex), model=saying(text), audit=MemoryStore()), max_tokens=999)


@pytest.mark.parametrize("method", ["json_schema", "json_mode", "function_calling"])
async def test_structured_output_is_judged_as_it_is_parsed(method: Any) -> None:
    text = f'<tool_call>{{"name": "Out", "arguments": {JSON}}}</tool_call>' if method == "function_calling" else JSON
    runnable = stars(text).with_structured_output(Out, method=method, include_raw=True)
    found = await runnable.ainvoke("hi")
    assert found["parsed"] is None
    assert KEY not in str(found)
    assert JSON not in str(found["raw"].content)


async def test_calls_in_a_chain_are_judged_as_the_tool_gets_them() -> None:
    for command in ("rm -rf /", "\\u0072m -rf /", "\\u0072\\u006d\\u0020-rf /", "ls; \\u0072m  -rf /"):
        text = f'<tool_call>{{"name": "shell", "arguments": {{"command": "{command}"}}}}</tool_call>'
        chain = stars(text, r"rm\s+-rf\s+/").bind_tools([shell])
        answer = await chain.ainvoke("hi")
        assert answer.tool_calls == []
        pieces = [chunk async for chunk in chain.astream("hi")]
        assert not any(chunk.tool_call_chunks for chunk in pieces)


@pytest.mark.parametrize("fence", ["{}", "```json\n{}\n```"])
async def test_what_a_parser_makes_of_a_guarded_answer_was_judged(fence: str) -> None:
    text = fence.replace("{}", JSON)
    chains = [
        stars(text) | JsonOutputParser(),
        guard_runnable(GenericFakeChatModel(messages=iter([AIMessage(text)] * 9)), policy=policy(), audit=MemoryStore())
        | JsonOutputParser(),
        guard_runnable(
            GenericFakeChatModel(messages=iter([AIMessage(text)] * 9)) | JsonOutputParser(),
            policy=policy(),
            audit=MemoryStore(),
        ),
    ]
    for chain in chains:
        seen = []
        for run in (chain.ainvoke, _streamed(chain)):
            try:
                seen.append(await run("hi"))
            except Exception as exc:
                seen.append(exc)
        assert KEY not in str(seen)


def _streamed(chain: Any) -> Any:
    async def run(text: str) -> list[Any]:
        return [piece async for piece in chain.astream(text)]

    return run
