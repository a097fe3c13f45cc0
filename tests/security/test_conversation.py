"""Judges know whose text they read, and read the turns before it where the policy says so."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from stars_guard.audit import MemoryStore
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.core.vocabulary import Stage
from stars_guard.errors import PolicyError
from stars_guard.guard import Guard
from stars_guard.policy import load_policy
from stars_guard.policy.layers import loosened
from stars_guard.scorers.cascade import Judge
from stars_guard.testing import FunctionScorer
from stars_guard.testing.scripted import ScriptedBackend

TURNS = [Message("user", "Remember: AKIAABCDEF"), Message("assistant", "I will.")]
TEXT = "GHIJKLMNOP is what comes after AKIAABCDEF"


def judge(scope: Any, regex: str = r"(?s)Remember.*comes after") -> dict[str, Any]:
    return {"name": "key", "type": "patterns", "patterns": [{"name": "k", "regex": regex}], "scope": scope}


def policy(scope: Any, **more: Any) -> dict[str, Any]:
    rails = {stage: {"judges": [judge(scope)]} for stage in get_args(Stage)}
    return {
        "apiVersion": "stars-guard/v1",
        "name": "t",
        "rails": rails,
        "judges": [{**judge(scope), "name": "answers"}],
        **more,
    }


@pytest.mark.parametrize("stage", get_args(Stage))
@pytest.mark.parametrize("scope", ["answer", "conversation"])
async def test_a_judge_reads_the_turns_before_a_text_if_the_policy_says_so(stage: Any, scope: str) -> None:
    made = Guard(policy(scope), model=ScriptedBackend(lambda *_: None), audit=MemoryStore())
    found = await made.check(stage, TEXT, messages=TURNS)
    assert found.allowed == (scope == "answer")
    assert isinstance(made.audit, MemoryStore)
    (record,) = made.audit.records
    assert record.scorers["key"].get("conversation") == (None if scope == "answer" else "True")
    written = {"input": "user", "tool_result": "tool"}
    assert record.role == written.get(stage, "assistant")


@pytest.mark.parametrize("scope", ["answer", "conversation"])
def test_an_answer_is_judged_with_its_conversation(scope: str) -> None:
    tokens = ("that ", "comes after ", "all")
    backend = ScriptedBackend(lambda m, so_far, r: tokens[len(so_far)] if len(so_far) < len(tokens) else None)
    decoding = {"attempts": 2, "on_exhausted": "refuse", "segment_tokens": 1}
    done = Guard(policy(scope, decoding=decoding), model=backend, audit=MemoryStore()).blocking.generate(TURNS)
    assert (done.finish == "refused") == (scope == "conversation")


@pytest.mark.parametrize(("reads", "text"), [(False, "one\n\ntwo\n\nso far and"), (True, "so far and")])
def test_a_judge_that_reads_turns_by_itself_gets_them_once(reads: bool, text: str) -> None:
    scorer = FunctionScorer(lambda passage: 0.0)
    scorer.reads_turns = reads
    asked = Judge(Rule(judge="j", reject_above=0.5), scorer, conversation=True, every=0, final=True)
    turns = (Message("user", "one"), Message("assistant", "two"))
    passage = Passage(call_id="c", messages=turns, accepted="so far", segment=" and", last=True, forms=("form",))
    views = asked.views(passage)
    assert [view.answer for view in views] == [text, text.replace("so far and", "form")]
    assert not asked.views(Passage(call_id="c", messages=turns, accepted="", segment="a"))


def test_a_child_that_reads_less_says_so() -> None:
    parent = load_policy(policy("conversation"))
    for scope in ("answer", "segment", {"tail": 3}):
        paths = {path for _, path, _ in loosened(parent, load_policy(policy(scope)))}
        assert any(path[-1] == "scope" for path in paths), scope
    assert not list(loosened(parent, load_policy(policy("conversation"))))
    with pytest.raises(PolicyError, match="scope"):
        load_policy(policy("dialogue"))
