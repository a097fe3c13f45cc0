"""What a child policy may do without `override: true`: every field has a rule, and no child lets more through."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_of_policies import models_of

from stars_guard import Policy, load_policy
from stars_guard.calling.judge_loading import load_cascade
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.decoding.settings import Decoding, Recovery, UpTo
from stars_guard.errors import PolicyError
from stars_guard.policy import Shadow, _loosening, _rule_loosening, resolve_policy
from stars_guard.policy._rails import Rails
from stars_guard.rules import Budget, ToolRule
from stars_guard.scorers.options import JudgeOptions

PARENT: dict[str, Any] = {
    "apiVersion": "stars-guard/v1",
    "name": "parent",
    "decoding": {"on_exhausted": "refuse", "r_star": 1.0, "schedule": "linear", "acceptance": "gibbs"},
    "audit": {"url": "jsonl:///tmp/audit-of-a-test.jsonl", "on_error": "block", "encrypt": False},
    "judges": [
        {"name": "words", "type": "patterns", "patterns": [{"name": "bomb", "regex": "bomb"}], "every": 2},
        {"name": "people", "type": "pii", "kinds": ["email"], "on_error": "ignore"},
        {
            "name": "toxic",
            "type": "sequence_classifier",
            "model": "a/b",
            "label": "toxic",
            "reject_above": 0.5,
            "max_length": 512,
        },
        {
            "name": "safety",
            "type": "guard_model",
            "preset": "llama-guard-3",
            "model": "a/c",
            "reject_above": 0.5,
            "every": 4,
        },
        {"name": "pool", "type": "vllm_pooling", "model": "a/d", "reject_above": 0.5},
        {"name": "people-on-vllm", "type": "vllm_pooling", "model": "a/e", "reject_above": 0.5, "on_error": "ignore"},
        {"name": "good", "type": "sequence_classifier", "model": "a/r", "weight": 1.0},
    ],
    "rails": {"input": {"judges": [{"name": "key", "type": "patterns", "patterns": [{"name": "k", "regex": "AKIA"}]}]}},
}


def resolved(parent: dict[str, Any], child: dict[str, Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "parent.yaml").write_text(json.dumps(parent))
        (Path(folder) / "child.yaml").write_text(json.dumps({"extends": "./parent.yaml", **child}))
        return resolve_policy(Path(folder) / "child.yaml")


def test_every_field_of_a_policy_has_a_rule() -> None:
    for model in models_of(Policy):
        if model in (Rails, JudgeOptions) or issubclass(model, JudgeOptions):
            continue
        inside = {name for name, field in model.model_fields.items() if list(models_of(field.annotation))}
        rules = _loosening.RULES.get(model)
        if rules is None:
            # they are values of one field, which is compared whole, or parts that have a name and rules of their own
            whole = ("stars_guard.scorers", "stars_guard.decoding.schedules")
            assert model in (Budget, ToolRule, Recovery, UpTo, Shadow) or model.__module__.startswith(whole), model
        else:
            left = set(model.model_fields) - set(rules) - inside
            assert not left, f"{model.__name__} has no rule for {left}"
    assert {"attempts", "recovery"} <= set(_loosening.RULES[Decoding])
    assert set(_loosening.JUDGE_RULES) == set(JudgeOptions.model_fields)
    assert {*_rule_loosening.STOPPING} == {*_rule_loosening.ALLOWING} == {*ToolRule.model_fields}
    assert {*_rule_loosening.BUDGETS} == {*Budget.model_fields}


def test_a_field_without_a_rule_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loosening, "RULES", {})
    for child in ({"name": "x"}, {"sampling": {"temperature": 0.5}}, {"decoding": {"parallel": 2}}):
        with pytest.raises(PolicyError, match="looser than"):
            resolved(PARENT, child)


@pytest.mark.parametrize(
    "child",
    [
        {"audit": {"url": "memory://"}},
        {"audit": {"url": "jsonl:///dev/null"}},
        {"audit": {"url": "sqlite:///nul"}},
        {"audit": {"url": None}},
        {"audit": {"on_error": "spool"}},
        {"audit": {"on_error": "drop"}},
        {"audit": {"durability": "batch"}},
        {"mode": "monitor"},
        {"mode": "off"},
        {"decoding": {"on_exhausted": "stop"}},
        {"decoding": {"on_exhausted": "raise"}},
        {"decoding": {"on_exhausted": "best"}},
        {"decoding": {"r_star": -1e6}},
        {"decoding": {"r_star": 0.99}},
        {"decoding": {"beta": 1e6}},
        {"decoding": {"alpha": 0.0}},
        {"decoding": {"max_tokens": 100_000}},
        {"decoding": {"schedule": "learned", "thresholds": [{"tokens": 8, "base": -1e6, "carry": 0.0}]}},
        {"decoding": {"method": "vanilla"}},
        {"decoding": {"segment_tokens": 4096}},
        {"judges": [{"name": "toxic", "max_length": 16}]},
        {"judges": [{"name": "pool", "max_length": 16}]},
        {"judges": [{"name": "pool", "engine": {"max_model_len": 16}}]},
        {"judges": [{"name": "pool", "base_url": "http://127.0.0.1:9"}]},
        {"judges": [{"name": "pool", "api_key_env": "HOME"}]},
        {"judges": [{"name": "safety", "engine": {"trust_remote_code": True}}]},
        {"judges": [{"name": "safety", "engine": {"quantization": "fp8"}}]},
        {"judges": [{"name": "people-on-vllm", "engine": {"seed": 3}}]},
        {"judges": [{"name": "safety", "categories": ["S1"]}]},
        {"judges": [{"name": "safety", "every": 3}]},
        {"judges": [{"name": "safety", "every": 0}]},
        {"judges": [{"name": "safety", "every": 4, "final": False}]},
        {"judges": [{"name": "people", "timeout": 0.001}]},
        {"judges": [{"name": "words", "on_error": "ignore"}]},
        {"judges": [{"name": "words", "scope": "segment"}]},
        {"judges": [{"name": "words", "scope": {"tail": 1}}]},
        {"judges": [{"name": "words", "reject_above": 5}]},
        {"judges": [{"name": "good", "weight": 0.0}]},
        {"judges": [{"name": "good", "weight": -1.0}]},
        {"judges": [{"name": "good", "weight": 1e9}]},
        {"judges": [{"name": "good", "weight": None, "reject_above": 9}]},
        {"judges": [{"name": "good", "model": "another/model"}]},
        {"judges": [{"name": "words", "weight": 1e6, "every": 1}]},
        {
            "judges": [
                {
                    "name": "more",
                    "type": "patterns",
                    "reject_above": None,
                    "weight": 1e6,
                    "patterns": [{"name": "any", "regex": ".?"}],
                }
            ]
        },
        {"rails": {"input": {"judges": [{"name": "key", "reject_above": 3}]}}},
        {"rails": {"tool_result": {"action": "redact"}}},
    ],
    ids=str,
)
def test_what_loosens_must_be_said(child: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="looser than 'parent'"):
        resolved(PARENT, child)


@pytest.mark.parametrize(
    "child",
    [
        {"name": "x", "description": "y", "refusal": {"message": "No."}},
        {"decoding": {"r_star": 2.0, "beta": 0.1, "alpha": 0.9, "max_tokens": 64, "attempts": 99}},
        {"decoding": {"acceptance": "hard", "schedule": "constant"}},
        {"audit": {"encrypt": True, "content": "none"}},
        {"judges": [{"name": "safety", "engine": {"dtype": "float16"}}, {"name": "pool", "engine": {"seed": 3}}]},
        {"judges": [{"name": "words", "every": 1, "on_error": "raise", "reject_above": 0}]},
        {"judges": [{"name": "people", "on_error": "reject", "timeout": 1.0}]},
        {"judges": [{"name": "safety", "every": 2, "timeout": 1.0}]},
        {"judges": [{"name": "toxic", "max_length": 1024, "batch_size": 1, "reject_above": 0.2}]},
        {"judges": [{"name": "words", "patterns": [{"name": "gun", "regex": "gun"}]}]},
        {"judges": [{"name": "extra", "type": "patterns", "patterns": [{"name": "gun", "regex": "gun"}]}]},
        {"rails": {"output": {"judges": [{"name": "o", "type": "pii"}]}}},
    ],
    ids=str,
)
def test_what_tightens_is_free(child: dict[str, Any]) -> None:
    assert resolved(PARENT, child).loosened == ()


WORDS = ["bomb", "knife", "gun", "a@b.co", "AKIA", "hello", " ", "bo", "mb"]
PATTERN = st.fixed_dictionaries(
    {"name": st.sampled_from(["p", "q"]), "regex": st.sampled_from(["bomb", "knife", "gun"])}
)
COMMON = {
    "reject_above": st.sampled_from([None, -1.0, 0.0, 1.0]),
    "weight": st.sampled_from([None, -1.0, 0.0, 1.0]),
    "on_error": st.sampled_from(["reject", "ignore", "raise"]),
    "timeout": st.sampled_from([1e-9, 30.0]),
    "scope": st.sampled_from(["answer", "segment", {"tail": 3}]),
    "every": st.sampled_from([0, 1, 2, 3, 4]),
    "final": st.sampled_from([None, True, False]),
}
PATTERNS = st.lists(PATTERN, min_size=1, max_size=2, unique_by=lambda item: item["name"])
JUDGES = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"name": st.sampled_from(["j", "k"]), "type": st.just("patterns"), "patterns": PATTERNS}, optional=COMMON
        ),
        st.fixed_dictionaries({"name": st.sampled_from(["j", "k"])}, optional={**COMMON, "patterns": PATTERNS}),
    ),
    max_size=2,
    unique_by=lambda item: item["name"],
)
POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["enforce", "monitor", "off"]),
        "judges": JUDGES,
        "audit": st.fixed_dictionaries(
            {},
            optional={
                "url": st.sampled_from(["memory://", "jsonl:///dev/null", None]),
                "on_error": st.sampled_from(["block", "spool", "drop"]),
            },
        ),
        "decoding": st.fixed_dictionaries(
            {},
            optional={
                "on_exhausted": st.sampled_from(["best", "refuse", "stop", "raise"]),
                "method": st.sampled_from(["stars", "vanilla"]),
                "segment_tokens": st.sampled_from([4, 16, 64]),
            },
        ),
    },
)


def segments_of(parts: list[str]) -> Iterator[Passage]:
    accepted = ""
    for index, part in enumerate(parts):
        yield Passage(
            call_id="c",
            messages=(Message("user", "?"),),
            accepted=accepted,
            segment=part,
            index=index,
            last=index == len(parts) - 1,
        )
        accepted += part


def vetoed(policy: Policy, parts: list[str]) -> bool:
    """Whether any judge vetoes a segment of the answer."""

    async def judge() -> bool:
        cascade = await load_cascade(policy)
        found = [(await cascade.judge([passage]))[0].veto is not None for passage in segments_of(parts)]
        return any(found)

    return asyncio.run(judge())


@settings(max_examples=60, deadline=None)
@given(POLICIES, POLICIES, st.lists(st.sampled_from(WORDS), min_size=1, max_size=5))
def test_what_a_parent_vetoes_its_child_vetoes_too(parent: Any, child: Any, parts: list[str]) -> None:
    base = {"apiVersion": "stars-guard/v1", "name": "parent", **parent}
    try:
        before = load_policy(base)
        accepted = resolved(base, child)
    except PolicyError:
        return
    assert accepted.loosened == ()
    after = accepted.policy
    assert ["off", "monitor", "enforce"].index(after.mode) >= ["off", "monitor", "enforce"].index(before.mode)
    assert after.audit.url == before.audit.url
    if vetoed(before, parts):
        assert vetoed(after, parts)
