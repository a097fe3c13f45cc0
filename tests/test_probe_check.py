"""`stars-guard probe check`: what cheap judges missed, by the log."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from conftest import policy, words
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from test_asked_in_doubt import BOTH, GUARD, answered, attempts_of
from typer.testing import CliRunner

from stars_guard.audit import CallRecord, MemoryStore, open_store
from stars_guard.auditing.probe_check import DoubtCheck, Share, check_doubt
from stars_guard.calling import portal
from stars_guard.cli.app import app
from stars_guard.core.doubt import Doubt
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.guard import CallOptions, Guard
from stars_guard.scorers import Judge
from stars_guard.testing import FunctionScorer
from stars_guard.testing.scripted import ScriptedBackend


@settings(max_examples=100)
@given(st.data())
def test_intervals_are_those_of_scipy(data: st.DataObject) -> None:
    of = data.draw(st.integers(1, 5000))
    hits = data.draw(st.integers(0, of))
    level = data.draw(st.sampled_from([0.9, 0.95, 0.99]))
    theirs = binomtest(hits, of).proportion_ci(level, method="wilson")
    assert Share(hits, of).interval(level) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_nothing_known_is_anything() -> None:
    assert Share(0, 0).interval() == (0.0, 1.0)
    assert Share(0, 0).value is None


def test_counts_are_those_of_the_records() -> None:
    records = [answered(BOTH, seed, r_star=-0.7) for seed in range(12)]
    found = {one.judge: one for one in check_doubt(records)}
    assert set(found) == {"guard", "reward"}
    for judge, one in found.items():
        pairs = [(attempt, record) for record in records for _, attempt in attempts_of(record)]
        said = [(score, a) for a, _ in pairs for score in a.scores if score.judge == judge]
        assert one.calls == 12
        assert one.doubt == sum(score.asked == "doubt" for score, _ in said) > 0
        assert one.sampled == sum(score.asked == "sample" for score, _ in said) > 0
        assert one.skipped == sum(entry.judge == judge for a, _ in pairs for entry in a.unasked) > 0
        assert one.saved.of == one.doubt + one.sampled + one.skipped + one.always
        missed = 0
        for score, attempt in said:
            cheap = next(each.value for each in attempt.scores if each.judge == "cheap")
            assert cheap is not None
            assert score.value is not None
            if score.asked == "sample":
                # the reward is below r_star where harm is above 0.7
                missed += score.value > 1.0 if judge == "guard" else score.value > 0.7 >= cheap
        assert one.missed == Share(missed, one.sampled)
        assert len(one.examples) == min(missed, 20)
    assert [one.judge for one in check_doubt(records, "guard")] == ["guard"]
    assert check_doubt([answered(GUARD[:1], 1)]) == []


def under(rate: float, doubtful: float, count: int, store: Any, start: int = 0) -> None:
    """Calls whose cheap judge is in doubt about a share of texts, and misses a share of the rest."""

    def of(passage: Passage, what: str) -> float:
        return random.Random(f"{passage.messages[0].content}{passage.answer}{what}").random()

    def cheap(passage: Passage) -> float:
        return 0.5 if of(passage, "doubt") < doubtful else 0.0

    def costly(passage: Passage) -> float:
        return float(of(passage, "miss") < rate)

    judges = [
        Judge(Rule(judge="cheap", reject_above=0.9), FunctionScorer(cheap)),
        Judge(
            Rule(judge="costly", reject_above=0.5, doubt=Doubt(when="cheap", above=0.2, sample=0.5)),
            FunctionScorer(costly),
        ),
    ]
    guard = Guard(policy(max_tokens=12), model=ScriptedBackend(words(12)), judges=judges, audit=store).blocking
    for seed in range(start, start + count):
        guard.generate([Message("user", f"call {seed}")], CallOptions(seed=seed))


def test_the_interval_holds_what_is_true() -> None:
    store = MemoryStore()
    under(0.1, 0.3, 60, store)
    (found,) = check_doubt(store.records)
    low, high = found.missed.interval(0.999)
    assert low < 0.1 < high
    assert found.doubt / found.saved.of == pytest.approx(0.3, abs=0.1)
    assert found.passed[0] < 0.1 * found.skipped < found.passed[1] or found.missed.value
    assert found.drifts == ()


@pytest.mark.parametrize(
    ("second", "what"), [((0.45, 0.3), ["missed"]), ((0.02, 0.8), ["in doubt"]), ((0.02, 0.3), []), ((0.5, 0.8), None)]
)
def test_a_drift_is_said(second: tuple[float, float], what: list[str] | None) -> None:
    store = MemoryStore()
    under(0.02, 0.3, 40, store)
    under(*second, 40, store, start=40)
    (found,) = check_doubt(store.records)
    said = [drift.what for drift in found.drifts]
    assert said == (["missed", "in doubt"] if what is None else what)
    if what == ["missed"]:
        (drift,) = found.drifts
        assert drift.before < 0.1 < 0.3 < drift.after


def test_few_calls_are_not_compared() -> None:
    store = MemoryStore()
    under(0.02, 0.1, 5, store)
    under(0.5, 0.9, 5, store, start=5)
    assert all(one.drifts == () for one in check_doubt(store.records))


def test_another_band_is_counted_apart() -> None:
    other = [GUARD[0], {**GUARD[1], "ask": {"when": "cheap", "above": 0.5, "sample": 0.3}}]
    records: list[CallRecord] = [answered(GUARD, 1), answered(other, 2), answered(GUARD, 3)]
    found: list[DoubtCheck] = check_doubt(records)
    assert [(one.above, one.calls) for one in found] == [(0.75, 2), (0.5, 1)]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("log") / "a.jsonl"
    store = open_store(f"jsonl://{where}")
    under(0.4, 0.3, 30, store)
    portal.call(store.aclose)
    return where


def test_the_command(log: Path) -> None:
    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["probe", "check", *arguments])
        assert done.exit_code == code, done.output
        return done.output

    said = run(str(log))
    assert "costly" in said
    assert "Missed texts" in said
    (row,) = [json.loads(line) for line in run(str(log), "--json").splitlines()]
    assert row["missed"]["of"] == row["sampled"] > 20
    assert row["missed_interval"][0] < row["missed"]["share"] < row["missed_interval"][1]
    assert row["examples"][0]["score"] == 1.0
    run(str(log), "--most", "0.9")
    run(str(log), "--most", "0.05", code=1)
    run(str(log), "--judge", "costly")
    for arguments in (["--judge", "cheap"], ["--policy", "other"], ["--until", "2020-01-01T00:00"]):
        done = CliRunner().invoke(app, ["probe", "check", str(log), *arguments])
        assert done.exit_code not in (0, 1) or "asked in doubt" in done.output


def test_no_text_is_printed(log: Path) -> None:
    said = CliRunner().invoke(app, ["probe", "check", str(log), "--json"]).output
    assert not {"good", "awful", "fine"} & set(said.replace('"', " ").split())
