"""Nothing of a vetoed text is out, however it is written: escaped, cut within an escape, or around a tool call."""

from __future__ import annotations

import time
from typing import Any

import pytest
from conftest import policy
from hypothesis import given, settings
from hypothesis import strategies as st
from test_holding import ASK, SECRET, guarded, saying

from stars_guard.audit import MemoryStore
from stars_guard.core.events import Called, Finished, Released
from stars_guard.core.judging import Rule
from stars_guard.core.tools import Tool, Toolset
from stars_guard.errors import BudgetExhausted
from stars_guard.guard import CallOptions, Guard
from stars_guard.scorers.cascade import Judge
from stars_guard.scorers.patterns import Pattern, PatternScorer
from stars_guard.scorers.pii import KINDS, PiiScorer

SHELL = Tool(name="shell", description="Runs.", parameters={"type": "object", "properties": {}})
PATTERNS = (r"\bAKIA[0-9A-Z]{16}\b", r"(?i)\bbombs?\b", r"(?i)ignore all previous instructions", r"\bsk-\w{20,}\b")
SECRETS = (SECRET, "bombs", "Ignore all previous instructions", "joe@corp.com", "4111 1111 1111 1111")


def judges(every: int = 1) -> list[Judge]:
    patterns = [Pattern(name=f"p{i}", regex=regex) for i, regex in enumerate(PATTERNS)]
    scorers = (PatternScorer(patterns), PiiScorer(KINDS))
    return [
        Judge(Rule(judge=f"judge {i}", reject_above=0.0), scorer, every=every, final=True)
        for i, scorer in enumerate(scorers)
    ]


def out_of(guard: Guard, **options: Any) -> tuple[str, str, str]:
    """What a stream gives, as it is written; how it ended; the text of the end."""
    given, done = "", None
    try:
        for event in guard.blocking.stream(ASK, CallOptions(**options)):
            if isinstance(event, Released | Called):
                given += event.text
            elif isinstance(event, Finished):
                done = event
    except BudgetExhausted:
        return given, "raised", given
    assert done is not None
    return given, done.finish, done.text


SETTINGS = st.fixed_dictionaries(
    {
        "segment_tokens": st.integers(1, 32),
        "on_exhausted": st.sampled_from(["refuse", "stop", "best", "raise"]),
        "parallel": st.integers(1, 3),
        "optimistic": st.booleans(),
        "max_tokens": st.just(3000),
    }
)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), secret=st.sampled_from(SECRETS), more=SETTINGS, size=st.integers(1, 4), every=st.integers(0, 3))
def test_escaped(data: st.DataObject, secret: str, more: dict[str, Any], size: int, every: int) -> None:
    escaped = "".join(f"\\u{ord(c):04x}" if data.draw(st.booleans()) else c for c in secret)
    text = f'{{"key": "{escaped}", "more": "yes"}}'
    given, finish, whole = out_of(guarded(text, *judges(every), size=size, **more))
    assert finish in ("refused", "stopped", "raised")
    assert '{"key": "'.startswith(given)
    assert whole in (given, "")


def wide(text: str) -> str:
    """In characters beyond U+FFFF, each of which is two escapes in JSON."""
    return "".join(f"\\ud835\\u{0xDC00 + ord(c) - 65:04x}" if "A" <= c <= "Z" else c for c in text)


@settings(max_examples=30, deadline=None)
@given(more=SETTINGS, size=st.integers(1, 4), every=st.integers(0, 3))
def test_escaped_in_halves(more: dict[str, Any], size: int, every: int) -> None:
    given, finish, _ = out_of(guarded(f'{{"key": "{wide(SECRET)}"}}', *judges(every), size=size, **more))
    assert finish in ("refused", "stopped", "raised")
    assert '{"key": "'.startswith(given)


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    secret=st.sampled_from(SECRETS),
    more=SETTINGS,
    size=st.integers(1, 4),
    every=st.integers(0, 3),
    budget=st.sampled_from([None, 70, 110]),
)
def test_around_a_call(
    data: st.DataObject, secret: str, more: dict[str, Any], size: int, every: int, budget: int | None
) -> None:
    cut = data.draw(st.integers(1, len(secret) - 1))
    call = '<tool_call>{"name": "shell", "arguments": {}}</tool_call>'
    text = f"; {secret[:cut]}{call}{secret[cut:]}."
    more = {**more, "budget_tokens": budget and max(budget, more["segment_tokens"])}
    given, finish, _ = out_of(guarded(text, *judges(every), size=size, **more), tools=Toolset((SHELL,)))
    assert finish in ("refused", "stopped", "raised", "budget")
    assert "; ".startswith(given)


@settings(max_examples=60, deadline=None)
@given(secret=st.sampled_from(SECRETS), more=SETTINGS, size=st.integers(1, 4), every=st.sampled_from([0, 2, 3]))
def test_what_was_complete_before_a_judge_saw_it(secret: str, more: dict[str, Any], size: int, every: int) -> None:
    given, finish, whole = out_of(guarded(f"; {secret}! And more.", *judges(every), size=size, **more))
    assert finish in ("refused", "stopped", "raised")
    assert "; ".startswith(given)
    assert whole in (given, "")


@pytest.mark.parametrize("text", ["ten words, 10. ", '{"k": "\\u0041 b"}, ', "joe dot doe at ", "\\", "日本語です。"])
def test_long_answers_take_no_longer_than_they_are_long(text: str) -> None:
    def seconds(times: int) -> float:
        whole = '"' + text * (times // len(text))
        settled = policy(segment_tokens=4, max_tokens=100_000, attempts=1, on_exhausted="refuse")
        guard = Guard(settled, model=saying(whole, 4), judges=judges(), audit=MemoryStore())
        began = time.perf_counter()
        given, finish, _ = out_of(guard)
        assert (given, finish) == (whole, "eos")
        return time.perf_counter() - began

    seconds(200)
    # far more than it takes, since other programs run at the same time
    assert seconds(6_000) < 12 * seconds(1_000) + 3
