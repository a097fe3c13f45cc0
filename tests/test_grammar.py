"""Drawing under a grammar on the real small model: its law, its rows, its limits."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import xgrammar
from conftest import policy, rewarding
from scipy.stats import chi2
from transformers import AutoModelForCausalLM, AutoTokenizer

from stars_guard.audit import MemoryStore
from stars_guard.backends._grammar import Matcher
from stars_guard.backends.base import OpenRequest
from stars_guard.backends.transformers import TransformersBackend
from stars_guard.core.grammar import Grammar
from stars_guard.core.messages import Message
from stars_guard.core.segments import Token
from stars_guard.core.tools import Tool, Toolset
from stars_guard.errors import BackendError, InputError, MissingExtra
from stars_guard.guard import CallOptions, Guard
from stars_guard.prompting.chat_encoding import encode_chat
from stars_guard.prompting.tool_calls import HERMES, HermesForm, Llama3Form, MistralForm, ToolForm

ASK = [Message("user", "Alice is seven years old. Is she a child? Give her name and age.")]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 200}},
    "required": ["name", "age"],
}


@pytest.fixture
def engine(transformers_engine: TransformersBackend) -> TransformersBackend:
    return transformers_engine


async def drawn(engine: TransformersBackend, seeds: Sequence[int], limit: int, grammar: Grammar | None) -> list[Any]:
    session = await engine.open(OpenRequest(messages=ASK, grammar=grammar))

    async def tokens(proposal: Any) -> list[Token]:
        return [token async for chunk in proposal for token in chunk]

    found = await asyncio.gather(*(tokens(proposal) for proposal in await session.propose(seeds, limit)))
    await session.aclose()
    return found


async def test_the_law_is_the_models_own_among_what_the_grammar_allows(
    engine: TransformersBackend, embedded_model: Path
) -> None:
    words = ("Yes", "No", "Perhaps")
    tokenizer = AutoTokenizer.from_pretrained(embedded_model)
    model = AutoModelForCausalLM.from_pretrained(embedded_model, dtype=torch.float32).eval()
    with torch.inference_mode():
        probs = model(input_ids=torch.tensor([encode_chat(tokenizer, ASK)])).logits[0, -1].double().softmax(-1)
    texts = {token: tokenizer.decode([token]) for token in range(17, len(tokenizer))}
    allowed = [token for token, text in texts.items() if text and any(word.startswith(text) for word in words)]
    whole = probs[allowed].sum()
    expected = {token: float(probs[token] / whole) for token in allowed}
    n = 600
    rules = "root ::= " + " | ".join(f'"{word}"' for word in words)
    seen: Counter[int] = Counter()
    for start in range(0, n, 60):
        seen.update(row[0].id for row in await drawn(engine, range(start, start + 60), 1, Grammar.ebnf(rules)))
    assert set(seen) <= set(allowed)
    common = [token for token in allowed if expected[token] * n >= 5]
    rest = 1 - sum(expected[token] for token in common)
    cells = [(seen[token], expected[token] * n) for token in common]
    cells += [(n - sum(seen[token] for token in common), rest * n)] if rest * n >= 1 else []
    statistic = sum((found - wanted) ** 2 / wanted for found, wanted in cells)
    assert len(cells) > 2
    assert statistic < chi2.ppf(0.9999, len(cells) - 1)


async def test_each_row_has_a_grammar_of_its_own(engine: TransformersBackend) -> None:
    free = [token.id for token in (await drawn(engine, [5], 12, None))[0]]
    schema, digits, beside = await asyncio.gather(
        drawn(engine, [1, 2], 60, Grammar.json_schema(PERSON)),
        drawn(engine, [3], 12, Grammar.regex("[0-9]{3}")),
        drawn(engine, [5], 12, None),
    )
    assert [token.id for token in beside[0]] == free
    for row in schema:
        person = json.loads("".join(token.text for token in row))
        assert list(person) == ["name", "age"]
        assert row[-1].last
    assert len("".join(token.text for token in digits[0])) == 3


def test_an_answer_under_a_grammar_is_one_segment_and_is_drawn_again_as_a_whole(engine: TransformersBackend) -> None:
    judge = rewarding(lambda p: float(p.segment != "no"), weight=1.0)
    made = Guard(
        policy(attempts=40, beta=0.01, segment_tokens=1, parallel=4, budget_tokens=2000, schedule="constant"),
        model=engine,
        judges=[judge],
        audit=MemoryStore(),
    )
    for seed in range(4):
        done = made.blocking.generate(ASK, CallOptions(seed=seed, grammar=Grammar.regex("yes|no"), max_tokens=8))
        assert (done.text, done.finish, done.totals.segments) == ("yes", "eos", 1)
    assert any(segment.attempts[0].verdict == "rejected" for record in made.audit.read() for segment in record.segments)


async def test_what_is_no_grammar_is_named(engine: TransformersBackend) -> None:
    for wrong in (Grammar.json_schema({"type": "soup"}), Grammar.regex("("), Grammar.ebnf("nothing")):
        with pytest.raises(InputError, match="cannot be followed"):
            await engine.open(OpenRequest(messages=ASK, grammar=wrong))
    with pytest.raises(InputError, match="schema and call tools"):
        await engine.open(OpenRequest(messages=ASK, grammar=Grammar.regex("a"), tools=Toolset((WEATHER,))))
    assert engine.slots.rows_in_use == 0


class Broken:
    """An xgrammar matcher that fails in one of its methods after some tokens."""

    def __init__(self, matcher: Any, method: str) -> None:
        self._matcher, self._method, self._left = matcher, method, 2

    def fill_next_token_bitmask(self, bits: torch.Tensor, row: int) -> None:
        self._fails("fill_next_token_bitmask")
        self._matcher.fill_next_token_bitmask(bits, row)

    def accept_token(self, token: int) -> bool:
        if self._method == "refuse":
            return False
        self._fails("accept_token")
        return bool(self._matcher.accept_token(token))

    def _fails(self, method: str) -> None:
        if method == self._method:
            self._left -= 1
            if self._left == 0:
                raise RuntimeError("secret")


@pytest.mark.parametrize("method", ["fill_next_token_bitmask", "accept_token", "refuse"])
async def test_one_calls_failing_grammar_ends_that_call_alone(engine: TransformersBackend, method: str) -> None:
    free = [token.id for token in (await drawn(engine, [5], 12, None))[0]]
    digits = [token.id for token in (await drawn(engine, [3], 12, Grammar.regex("[0-9]{12}")))[0]]
    session = await engine.open(OpenRequest(messages=ASK, grammar=Grammar.regex("[0-9]{12}")))
    whole, begin = Matcher, session._begin  # type: ignore[attr-defined]
    session._begin = lambda: whole(Broken(begin()._matcher, method))  # type: ignore[attr-defined]
    (proposal,) = await session.propose([3], 12)

    async def failing() -> BackendError:
        with pytest.raises(BackendError, match="grammar") as caught:
            async for _ in proposal:
                pass
        return caught.value

    error, beside, other = await asyncio.gather(
        failing(), drawn(engine, [5], 12, None), drawn(engine, [3], 12, Grammar.regex("[0-9]{12}"))
    )
    assert "secret" not in str(error)
    assert [token.id for token in beside[0]] == free
    assert [token.id for token in other[0]] == digits
    # the session is as it was
    session._begin = begin  # type: ignore[attr-defined]
    (again,) = await session.propose([3], 12)
    assert [token.id async for chunk in again for token in chunk] == digits
    await session.aclose()
    assert engine.slots.rows_in_use == 0


async def test_a_missing_library_is_named(engine: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgrammar", None)
    engine.__dict__.pop("grammars", None)
    with pytest.raises(MissingExtra, match=r"stars-guard\[grammar\]"):
        await engine.open(OpenRequest(messages=ASK, grammar=Grammar.regex("a")))


WEATHER = Tool(
    name="get_weather",
    description="",
    parameters={
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/City"}},
        "required": ["city"],
        "$defs": {"City": {"enum": ["Paris", "Oslo"]}},
    },
)
NOTHING = Tool(name="stop", description="", parameters={"type": "object", "properties": {}})
NATIVE, DESCRIBED = HermesForm(), HERMES
PARIS = '"arguments": {"city": "Paris"}}'


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        (DESCRIBED, f'<tool_call>[{{"name": "get_weather", {PARIS}]</tool_call>', "Paris"),
        (NATIVE, f'<tool_call>\n{{"name": "get_weather", {PARIS}\n</tool_call>', "<tool_call>{}</tool_call>"),
        (
            NATIVE,
            '<tool_call>{"name": "stop", "arguments": {}}</tool_call>',
            '<tool_call>{"name": "stop", "arguments": {"city": "Paris"}}</tool_call>',
        ),
        (
            Llama3Form(),
            '{"name": "get_weather", "parameters": {"city": "Oslo"}}',
            '{"name": "get_weather", "parameters": {"city": "Rome"}}',
        ),
        (MistralForm(), f'[TOOL_CALLS][{{"name": "get_weather", {PARIS}]', "[TOOL_CALLS][]"),
        (
            MistralForm(named=True),
            '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}',
            '[TOOL_CALLS]get_weather[ARGS]{"city": 3}',
        ),
    ],
)
def test_forced_calls_are_in_the_models_form(embedded_model: Path, form: ToolForm, right: str, wrong: str) -> None:
    grammar = form.grammar(Toolset((WEATHER, NOTHING), forced=("get_weather", "stop")))
    assert grammar is not None
    assert accepts(embedded_model, grammar, right)
    assert not accepts(embedded_model, grammar, wrong)
    assert not accepts(embedded_model, grammar, right + right)


def test_strict_calls_leave_text_free(embedded_model: Path) -> None:
    grammar = NATIVE.grammar(Toolset((WEATHER,), strict=True))
    assert grammar is not None
    assert not grammar.whole
    call = f'<tool_call>\n{{"name": "get_weather", {PARIS}\n</tool_call>'
    for text in ("any words <b>", f"Well. {call} And {call}"):
        assert accepts(embedded_model, grammar, text)
    assert not accepts(embedded_model, grammar, "Well. <tool_call>nonsense")
    assert NATIVE.grammar(Toolset((WEATHER,))) is None
    with pytest.raises(InputError, match="strict"):
        Llama3Form().grammar(Toolset((WEATHER,), strict=True))


@cache
def compiler(model: Path) -> xgrammar.GrammarCompiler:
    info = xgrammar.TokenizerInfo.from_huggingface(AutoTokenizer.from_pretrained(model), stop_token_ids=[2])
    return xgrammar.GrammarCompiler(info)


def accepts(model: Path, grammar: Grammar, text: str) -> bool:
    matcher = xgrammar.GrammarMatcher(compiler(model).compile_structural_tag(grammar.tag))
    return bool(matcher.accept_string(text) and matcher.is_completed())
