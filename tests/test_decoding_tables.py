"""A method, a schedule and an acceptance rule of another package: named in its entry points, and policy, decoder and
audit know them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import guard, policy
from hypothesis import given, settings
from hypothesis import strategies as st
from test_judge_types import install

from stars_guard.audit import CallRecord, JsonlStore
from stars_guard.auditing.counterfactual import what_if
from stars_guard.auditing.findings import NotRedone
from stars_guard.auditing.verification import redo, verify
from stars_guard.core.messages import Message
from stars_guard.decoding import ACCEPTANCE, METHODS, PARTS, SCHEDULES, Progress, Settings
from stars_guard.decoding.schedules import schedule_of
from stars_guard.errors import PolicyError
from stars_guard.guard import CallOptions
from stars_guard.policy import load_policy, policy_schema, resolve_policy
from stars_guard.policy.schema import own_schema_text

MODULE = '''
from typing import ClassVar

from pydantic import Field, model_validator

from stars_guard.decoding import AcceptanceRule, BestOfK, PartOptions, RejectionSampler, Schedule


class Rising(Schedule):
    """So much for each token."""

    needs_prompt_reward: ClassVar[bool] = False

    by: float = Field(0.01, ge=0)
    unit: str = "reward"
    most: int | None = None

    @model_validator(mode="after")
    def _is_known(self):
        if self.unit not in ("reward", "percent"):
            raise ValueError("the unit is reward or percent")
        return self

    def threshold(self, numbers, at):
        tokens = at.tokens if self.most is None else min(at.tokens, self.most)
        return self.by * tokens / (100 if self.unit == "percent" else 1)

    def problem(self, numbers):
        return "rising needs an r_star that is not 7" if numbers.r_star == 7 else None


class Lenient(AcceptanceRule):
    def chance(self, *, reward, tau, beta):
        return 0.75


class Share(AcceptanceRule):
    share: float = Field(ge=0)

    def chance(self, *, reward, tau, beta):
        if self.share > 5:
            raise RuntimeError("it says a secret")
        return self.share


class Nowhere(Schedule):
    def threshold(self, numbers, at):
        return float("nan")


class Mine(BestOfK):
    pass


class StepsOptions(PartOptions):
    tokens: int = Field(3, ge=1)


class Steps(RejectionSampler):
    options_model = StepsOptions
    whole = "stars"

    @classmethod
    def limit(cls, settings, kept):
        return min(StepsOptions.of(settings.method).tokens, super().limit(settings, kept))


class Listed(Schedule):
    points: list[float] = [1.0]

    def threshold(self, numbers, at):
        return self.points[0]


class Abstract(Schedule):
    pass


def function(numbers, at):
    return 0.0
'''
ENTRY_POINTS = """
[stars_guard.methods]
mine = acme_decoding:Mine
acme/steps = acme_decoding:Steps
acme/dict = builtins:dict

[stars_guard.schedules]
rising = acme_decoding:Rising
acme/nowhere = acme_decoding:Nowhere
acme/listed = acme_decoding:Listed
acme/function = acme_decoding:function
acme/abstract = acme_decoding:Abstract
acme/broken = acme_decoding.missing:Nothing

[stars_guard.acceptance]
lenient = acme_decoding:Lenient
acme/share = acme_decoding:Share
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The package, installed until the patch that this gives is undone."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "acme_decoding.py").write_text(MODULE)
    install(site, "acme_decoding", ENTRY_POINTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        for parts in PARTS.values():
            patch.setattr(parts, "_loaded", {})
            patch.setattr(parts, "_defaults", {})
        yield patch


def run(**decoding: object) -> CallRecord:
    made = guard(max_tokens=24, segment_tokens=4, attempts=3, **decoding)
    made.blocking.generate([Message("user", "hello")], CallOptions(seed=1))
    (record,) = made.audit.read()
    assert redo(record) is None
    assert redo(again := CallRecord.model_validate_json(record.model_dump_json())) is None
    assert again == record
    return record


@pytest.mark.usefixtures("mine")
def test_a_method_that_is_added_decodes() -> None:
    record = run(method="mine")
    assert record.method == "mine"
    assert {attempt.verdict for segment in record.segments for attempt in segment.attempts} == {"accepted", "rejected"}


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize("method", ["acme/steps", {"type": "acme/steps"}, {"type": "acme/steps", "tokens": 2}])
def test_a_methods_options_decide(method: Any) -> None:
    record = run(method=method)
    tokens = method.get("tokens", 3) if isinstance(method, dict) else 3
    assert record.method == "acme/steps"
    assert record.decoding["method"] == {"type": "acme/steps", "tokens": tokens}
    assert {attempt.tokens for segment in record.segments[:-1] for attempt in segment.attempts} == {tokens}
    data = record.model_dump()
    data["decoding"]["method"]["tokens"] = tokens + 1
    # a longer segment could not have been paid for alike, or nothing depends on it
    assert record.decoding["method"] != data["decoding"]["method"]


@pytest.mark.usefixtures("mine")
def test_a_schedule_and_a_rule_that_are_added_decide() -> None:
    record = run(schedule="rising", acceptance="lenient")
    attempts = [attempt for segment in record.segments for attempt in segment.attempts if attempt.u is not None]
    unvetoed = [attempt for attempt in attempts if attempt.veto is None]
    assert {attempt.probability for attempt in unvetoed} == {0.75}
    assert unvetoed[0].threshold == pytest.approx(0.01 * unvetoed[0].tokens)
    assert record.prompt_reward is None
    assert record.decoding["acceptance"] == "lenient"
    assert record.decoding["schedule"] == {"type": "rising", "by": 0.01, "unit": "reward", "most": None}


@pytest.mark.usefixtures("mine")
@settings(max_examples=6)
@given(
    by=st.one_of(st.integers(0, 10**6), st.integers(2**53, 2**60), st.floats(0, 1e290)),
    unit=st.sampled_from(["reward", "percent"]),
    most=st.one_of(st.none(), st.integers(0, 2**60)),
    share=st.one_of(st.floats(0, 1), st.sampled_from([0, 1])),
)
def test_every_option_is_in_the_digest_and_in_what_is_verified(by: float, unit: str, most: Any, share: float) -> None:
    options = {"type": "rising", "by": by, "unit": unit, "most": most}
    record = run(schedule=options, acceptance={"type": "acme/share", "share": share}, on_exhausted="best")
    unvetoed = [a for s in record.segments for a in s.attempts if a.veto is None and a.u is not None]
    assert {attempt.probability for attempt in unvetoed} <= {share}
    changes = {"by": by + 1 if by < 1e9 else 0.0}, {"unit": "percent" if unit == "reward" else "reward"}, {"most": 3}
    for change in changes:
        other = load_policy(policy(schedule={**options, **change}))
        same = load_policy(policy(schedule=options))
        assert (other.sha256 == same.sha256) == (other.decoding == same.decoding) == ({**options, **change} == options)
        data = record.model_dump()
        data["decoding"]["schedule"] |= change
        thresholds = [
            schedule_of(one.decoding.schedule).threshold(one.decoding, _at(attempt.threshold, record))
            for one in (same, other)
            for attempt in unvetoed[:1]
        ]
        if len(thresholds) == 2 and abs(thresholds[0] - thresholds[1]) > 1e-6 * max(1.0, *map(abs, thresholds)):
            assert "threshold" in str(redo(CallRecord.model_validate(data)))


def _at(threshold: float | None, record: CallRecord) -> Progress:
    first = record.segments[0].attempts[0]
    return Progress(tokens=first.tokens, prompt_reward=None, prefix_reward=None)


@pytest.mark.usefixtures("mine")
def test_policy_and_schema_know_what_is_added() -> None:
    names = {"method": "mine", "schedule": "rising", "acceptance": "lenient"}
    loaded = load_policy(policy(**names))
    assert loaded.decoding.acceptance == "lenient"
    assert loaded.decoding.model_dump()["schedule"] == {"type": "rising", "by": 0.01, "unit": "reward", "most": None}
    for key, name in names.items():
        assert load_policy(policy(**{key: {"type": name}})).sha256 == load_policy(policy(**{key: name})).sha256
    validator = jsonschema.Draft202012Validator(policy_schema())
    for good in (
        {},
        names,
        {"schedule": {"type": "rising", "by": 2.0}},
        {"method": {"type": "acme/steps", "tokens": 1}},
    ):
        assert not list(validator.iter_errors(policy(**good)))
    for wrong in ({"schedule": {"type": "rising", "bye": 2.0}}, {"schedule": {"by": 2.0}}, {"acceptance": "lenien"}):
        assert list(validator.iter_errors(policy(**wrong)))
    own = json.loads(own_schema_text())
    assert "acme" not in own_schema_text()
    assert "rising" not in own_schema_text()
    assert not jsonschema.Draft202012Validator(own).is_valid(json.loads(json.dumps(policy(schedule="rising"))))


WRONG = [
    ({"method": "mien"}, "decoding.method: should be .*did you mean `mine`"),
    ({"schedule": "risng"}, "did you mean `rising`"),
    ({"acceptance": "gibs"}, "did you mean `gibbs`"),
    ({"method": ["stars"]}, r"'best_of_n', .* or 'vanilla'"),
    ({"schedule": {"type": "risng"}}, "did you mean `rising`"),
    ({"schedule": {"by": 1.0}}, "decoding.schedule: `type` is required: .*rising"),
    ({"schedule": {"type": ["rising"]}}, "'rising'"),
    ({"schedule": {"type": "rising", "bye": 1.0}}, "decoding.schedule.bye: unknown key; did you mean `by`"),
    ({"schedule": {"type": "rising", "by": -1.0}}, "decoding.schedule.by: should be greater than or equal to 0"),
    ({"schedule": {"type": "rising", "by": "1"}}, "decoding.schedule.by: should be a valid number"),
    ({"schedule": {"type": "rising", "unit": "miles"}}, "decoding.schedule: the unit is reward or percent"),
    ({"schedule": "rising", "r_star": 7.0}, "rising needs an r_star that is not 7"),
    ({"schedule": {"type": "linear", "by": 1.0}}, "decoding.schedule.by: unknown key"),
    ({"acceptance": "acme/share"}, "'acme/share' has options that must be given.*: share"),
    ({"acceptance": {"type": "acme/share"}}, "decoding.acceptance.share: this key is required"),
    ({"schedule": "acme/listed"}, "points should be a number, a text, true, false or null"),
    ({"schedule": {"type": "acme/listed", "points": [2.0]}}, "points should be a number, a text, true, false or null"),
    ({"schedule": "acme/function"}, "not a subclass of stars_guard.decoding.Schedule"),
    ({"schedule": "acme/abstract"}, "has no method threshold"),
    ({"schedule": "acme/broken"}, "cannot load the schedule 'acme/broken'"),
    ({"method": "acme/dict"}, "not a subclass of stars_guard.decoding.Decoder"),
    ({"method": "acme/steps", "rewinds": 1, "recovery": None}, None),
    ({"method": "mine", "rewinds": 1}, "rewinds isn't supported by the method mine"),
]


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(("decoding", "expected"), WRONG)
def test_a_mistake_is_found_where_it_is(decoding: dict[str, Any], expected: str | None) -> None:
    if expected is None:
        load_policy(policy(**decoding))
        return
    with pytest.raises(PolicyError, match=expected):
        load_policy(policy(**decoding))


def test_what_is_not_added_is_not_known() -> None:
    assert METHODS.own_names() == ["best_of_n", "blockwise_best_of_k", "cards", "stars", "vanilla"]
    assert SCHEDULES.own_names() == ["constant", "learned", "linear"]
    assert ACCEPTANCE.own_names() == ["gibbs", "hard"]
    with pytest.raises(PolicyError, match="'constant', 'learned' or 'linear'"):
        load_policy(policy(schedule="rising"))


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("decoding", "problem"),
    [
        ({"acceptance": {"type": "acme/share", "share": 1.5}}, "'acme/share' gave the chance 1.5"),
        ({"acceptance": {"type": "acme/share", "share": 6.0}}, "the acceptance rule 'acme/share' failed: RuntimeError"),
        ({"schedule": "acme/nowhere"}, "'acme/nowhere' gave the threshold nan"),
    ],
)
def test_a_part_that_fails_lets_nothing_through(decoding: dict[str, Any], problem: str) -> None:
    made = guard(**decoding)
    with pytest.raises(PolicyError, match=problem) as info:
        made.blocking.generate([Message("user", "hello")], CallOptions(seed=1))
    assert "secret" not in str(info.value)
    (record,) = made.audit.read()
    assert (record.finish, record.answer.chars) == ("failed", 0)


LAYERS = [
    ("schedule: {by: 2.0}", {"type": "rising", "by": 2.0, "unit": "percent", "most": None}, "decoding.schedule.by"),
    ("schedule: {type: rising}", {"type": "rising", "by": 1.0, "unit": "percent", "most": None}, None),
    ("schedule: constant", "constant", "decoding.schedule"),
    ("schedule: {type: acme/nowhere}", "acme/nowhere", "decoding.schedule"),
    ("alpha: 0.9", {"type": "rising", "by": 1.0, "unit": "percent", "most": None}, "decoding.alpha"),
    ("r_star: 9.0", {"type": "rising", "by": 1.0, "unit": "percent", "most": None}, "decoding.r_star"),
    ("acceptance: hard", {"type": "rising", "by": 1.0, "unit": "percent", "most": None}, None),
]


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(("change", "expected", "looser"), LAYERS)
def test_a_child_that_changes_a_part_says_so(tmp_path: Path, change: str, expected: object, looser: str | None) -> None:
    parent = policy(schedule={"type": "rising", "by": 1.0, "unit": "percent"})
    parent["judges"] = [{"name": "words", "type": "patterns", "weight": 1.0, "patterns": [{"name": "a", "regex": "b"}]}]
    (tmp_path / "parent.yaml").write_text(json.dumps(parent))
    text = f"extends: ./parent.yaml\nname: child\ndecoding:\n  {change}\n"
    child = tmp_path / "child.yaml"
    child.write_text(text if looser is None else f"{text}override: true\n")
    resolved = resolve_policy(child)
    assert resolved.policy.decoding.model_dump()["schedule"] == expected
    if looser is not None:
        assert any(f"{looser}: looser" in note for note in resolved.loosened)
        child.write_text(text)
        with pytest.raises(PolicyError, match=f"{looser}: looser than 'test'"):
            load_policy(child)


async def test_a_machine_without_the_package_says_what_it_lacks(mine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    store = JsonlStore(path)
    try:
        made = guard(max_tokens=24, segment_tokens=4, attempts=3, schedule="rising", acceptance="lenient")
        other = guard(max_tokens=24, segment_tokens=4, attempts=3)
        for one in (made, other, made):
            await one.generate([Message("user", "hello")], CallOptions(seed=1))
            await store.append(list(one.audit.read())[-1])
        assert (await asyncio.to_thread(verify, store)).problem is None
        mine.undo()
        report = await asyncio.to_thread(verify, store)
        assert isinstance(report.problem, NotRedone)
        assert "the schedule 'rising' isn't installed and the acceptance rule 'lenient' isn't" in str(report.problem)
        # what else is in the log is checked
        assert (report.left, report.records, len(report.not_redone)) == (2, 1, 2)
        record = (await asyncio.to_thread(lambda: list(store.read())))[0]
        answered = await what_if(record, load_policy(policy(max_tokens=24, segment_tokens=4)))
        assert answered.candidates
    finally:
        await store.aclose()
    with pytest.raises(PolicyError, match="'constant', 'learned' or 'linear'"):
        await asyncio.to_thread(load_policy, policy(schedule="rising"))


@pytest.mark.parametrize("name", ["constant", "learned", "linear"])
def test_a_schedule_says_whether_it_reads_the_prompts_reward(name: str) -> None:
    steps = ({"tokens": 8, "base": 0.0, "carry": 1.0},)
    decoding = Settings(schedule=name, thresholds=steps if name == "learned" else (), r_star=5.0)
    schedule = schedule_of(decoding.schedule)
    taus = {
        schedule.threshold(decoding, Progress(tokens=4, prompt_reward=reward, prefix_reward=reward))
        for reward in (-1.0, 1.0)
    }
    assert (len(taus) > 1) == schedule.needs_prompt_reward
