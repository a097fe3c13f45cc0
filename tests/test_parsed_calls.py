"""Judges get the calls that tools get, and one that asks for a person's word is no veto and lets nothing through."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from conftest import ScriptedBackend, words
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard import Guard
from stars_guard.audit import MemoryStore
from stars_guard.auditing.verification import redo
from stars_guard.core.judging import Judgement, Rule, Score, combine
from stars_guard.core.segments import Passage
from stars_guard.errors import PolicyError
from stars_guard.policy import load_policy
from stars_guard.prompting.call_rendering import read_call, render_call

_WORDS = st.text("ab:-. \n'/", max_size=12)


@given(st.dictionaries(st.sampled_from(["command", "path", "x"]), _WORDS, min_size=1))
@settings(max_examples=100)
def test_a_call_that_is_shown_as_text_is_read_back_with_every_value(args: dict[str, str]) -> None:
    call = read_call(render_call("shell", args))
    shown = [*_strings(call.arguments)]
    for value in args.values():
        assert any(value in text for text in shown)


def _strings(value: object) -> Sequence[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    return [str(value)]


@pytest.mark.parametrize(("value", "veto", "ask"), [(0.0, None, None), (0.5, None, "j: why"), (1.0, "j: why", None)])
def test_a_score_between_the_lines_asks_and_one_above_both_vetoes(
    value: float, veto: str | None, ask: str | None
) -> None:
    rule = Rule(judge="j", reject_above=0.5, ask_above=0.0)
    score = Score(judge="j", value=value, detail="why")
    assert combine([score], [rule]) == Judgement(scores=(score,), veto=veto, ask=ask)


def test_another_judges_veto_leaves_nothing_to_ask() -> None:
    rules = [Rule(judge="a", ask_above=0.0), Rule(judge="b", reject_above=0.0)]
    found = combine([Score(judge="a", value=1.0), Score(judge="b", value=1.0)], rules)
    assert (found.veto, found.ask) == ("b", None)


def seen(passage: Passage) -> float:
    """Half a score for each call whose tool is named ask, a whole one for reject."""
    return max({"ask": 0.5, "reject": 1.0}.get(call.name, 0.0) for call in passage.tool_calls)


def policy(stage: str = "tool_call", **more: object) -> dict[str, object]:
    judge = {"name": "seen", "type": "python", "call": "test_parsed_calls:seen", "ask_above": 0.0, "reject_above": 0.5}
    return {"apiVersion": "stars-guard/v1", "name": "test", "rails": {stage: {"judges": [judge | more]}}}


async def test_a_judge_that_asks_lets_nothing_through_and_its_record_holds() -> None:
    store = MemoryStore()
    async with Guard(policy(), model=ScriptedBackend(words()), audit=store, allow_python=True) as guard:
        answers = {}
        for name in ("ask", "reject", "other"):
            answers[name] = await guard.check_call(name, {"x": 1})
            # the text alone is read too
            assert (await guard.check("tool_call", render_call(name, {"x": 1}))).reason == answers[name].reason
    assert [answers[name].allowed for name in answers] == [False, False, True]
    assert answers["ask"].reason == "a person is to be asked by seen"
    assert answers["reject"].reason == "vetoed by seen"
    asked = store.records[0]
    assert asked.segments[0].attempts[0].ask == "seen"
    assert asked.rules[0].ask_above == 0.0
    for record in store.records:
        assert redo(record) is None


@pytest.mark.parametrize("stage", ["input", "tool_result", "output"])
def test_only_tool_calls_can_be_asked_about(stage: str) -> None:
    with pytest.raises(PolicyError, match="tool calls alone"):
        load_policy(policy(stage))
