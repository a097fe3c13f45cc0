"""Judges that are asked only where another one is in doubt: decisions, records, and what an auditor finds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import USER, policy, words
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from probe_files import a_model, a_probe, rows_of
from test_metrics import provided
from typer.testing import CliRunner

from stars_guard.audit import CallRecord, MemoryStore, open_store
from stars_guard.audit.record import Attempt, UnaskedEntry
from stars_guard.auditing.counterfactual import what_if
from stars_guard.auditing.redoing import redo
from stars_guard.auditing.replay import compare, regenerate
from stars_guard.calling import metrics, portal
from stars_guard.cli.app import app
from stars_guard.core.doubt import Doubt, Unasked
from stars_guard.core.grammar import Grammar
from stars_guard.core.judging import Rule, Score, combine
from stars_guard.core.segments import Passage
from stars_guard.decoding.randomness import Place
from stars_guard.errors import PolicyError, ScorerError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.scorers import Judge
from stars_guard.scorers.cascade import Cascade
from stars_guard.testing import FunctionScorer
from stars_guard.testing.scripted import ScriptedBackend

NUMBERS = st.floats(-2, 2).map(lambda value: round(value, 1))
BANDS = st.tuples(st.none() | NUMBERS, st.none() | NUMBERS).filter(
    lambda band: band != (None, None) and (None in band or band[0] < band[1])  # type: ignore[operator]
)


class Broken(Exception):
    """What a scorer raises."""


def from_table(table: Mapping[str, float | None], **more: Any) -> FunctionScorer:
    """A scorer that says what stands in a table under the segment's text."""

    def look(passage: Passage) -> float:
        value = table[passage.segment]
        if value is None:
            raise Broken
        return value

    return FunctionScorer(look, **more)


# --- the cascade's decisions, against a plain reference

TABLES = st.lists(st.tuples(st.none() | NUMBERS, st.none() | NUMBERS, st.booleans()), min_size=1, max_size=6)
RULES = st.fixed_dictionaries(
    {
        "weight": st.none() | NUMBERS,
        "reject_above": st.none() | NUMBERS,
        "on_error": st.sampled_from(["reject", "ignore"]),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    table=TABLES,
    band=BANDS,
    sample=st.sampled_from([0.0, 0.3, 1.0]),
    cheap=RULES,
    costly=RULES,
    seed=st.integers(0, 2**63 - 1),
    cost=st.sampled_from([0.5, 1.0, 9.0]),
)
def test_decisions_are_those_of_a_plain_reference(
    table: list[tuple[float | None, float | None, bool]],
    band: tuple[float | None, float | None],
    sample: float,
    cheap: dict[str, Any],
    costly: dict[str, Any],
    seed: int,
    cost: float,
) -> None:
    """Whatever the judges cost, and one passage at a time, because a failure is one of its batch."""
    above, below = band
    doubt = Doubt(when="cheap", above=above, below=below, sample=sample)
    first, second = Rule(judge="cheap", **cheap), Rule(judge="costly", doubt=doubt, **costly)
    for number, (one, two, whole) in enumerate(table):
        # fresh scorers, so that none is left alone after failures in a row
        looked: list[str] = []
        scorers = from_table({"x": one}, cost=cost), from_table({"x": two}, cost=1.0)
        look = scorers[1].function
        scorers[1].function = lambda passage, look=look, looked=looked: looked.append("x") or look(passage)  # type: ignore[func-returns-value,misc]
        judges = [Judge(second, scorers[1]), Judge(first, scorers[0])]
        place = Place(seed=seed, segment=number, attempt=3)
        passage = Passage(call_id="c", messages=tuple(USER), accepted="", segment="x", whole=whole)
        (found,) = portal.call(lambda: Cascade(judges).judge([passage], places=[place]))  # noqa: B023

        # the plain reference
        vetoed = one is None and cheap["on_error"] == "reject"
        vetoed |= one is not None and cheap["reject_above"] is not None and one > cheap["reject_above"]
        in_band = one is not None and (above is None or one > above) and (below is None or one <= below)
        by_chance = place.share("costly") < sample
        asked = not vetoed and (whole or one is None or in_band or by_chance)
        reward = None
        for rule, value in ((cheap, one), (costly, two if asked else None if vetoed else one)):
            if rule["weight"] is not None and value is not None:
                reward = (reward or 0.0) + rule["weight"] * value
        if asked:
            vetoed |= two is None and costly["on_error"] == "reject"
            vetoed |= two is not None and costly["reject_above"] is not None and two > costly["reject_above"]

        assert looked == ["x"] * asked
        assert (found.veto is not None) == vetoed
        assert found.reward == pytest.approx(reward)
        said = {score.judge: score.asked for score in found.scores}
        assert set(said) == {"cheap", "costly"} if asked else {"cheap"}
        assert said["cheap"] is None
        if asked:
            why = "whole" if whole else "unknown" if one is None else "doubt" if in_band else "sample"
            assert said["costly"] == why
        left = not asked and not (one is None and cheap["on_error"] == "reject")
        left &= not (one is not None and cheap["reject_above"] is not None and one > cheap["reject_above"])
        assert [each.judge for each in found.unasked] == ["costly"] * left
        if left:
            assert one is not None
            side = "below" if above is not None and one <= above else "above"
            assert found.unasked == (Unasked(judge="costly", instead="cheap", side=side),)


def test_without_a_place_every_judge_is_asked() -> None:
    doubt = Doubt(when="cheap", above=0.5, sample=0.0)
    judges = [
        Judge(Rule(judge="cheap", weight=0.0), from_table({"x": 0.0})),
        Judge(Rule(judge="costly", weight=1.0, doubt=doubt), from_table({"x": 0.7})),
    ]
    passage = Passage(call_id="c", messages=tuple(USER), accepted="", segment="x")
    (found,) = portal.call(lambda: Cascade(judges).judge([passage]))
    assert found.reward == pytest.approx(0.7)
    reward, asked = portal.call(lambda: Cascade(judges).prompt_reward(passage))
    assert (reward, asked) == (pytest.approx(0.7), 2)


def test_a_reward_without_the_score_that_stands_for_another_is_an_error() -> None:
    rules = [Rule(judge="cheap", weight=1.0), Rule(judge="costly", weight=1.0)]
    unasked = [Unasked(judge="costly", instead="cheap", side="below")]
    for scores in ([], [Score(judge="cheap", value=None, error="E")]):
        with pytest.raises(ScorerError, match="has no score"):
            combine(scores, [Rule(judge="cheap", weight=1.0, on_error="ignore"), rules[1]], unasked)
    with pytest.raises(ScorerError, match="no rule"):
        combine([Score(judge="cheap", value=1.0)], rules[:1], unasked)


def test_judges_must_fit_each_other_in_a_cascade() -> None:
    plain = Judge(Rule(judge="a", weight=1.0), from_table({}))
    for when, others in (("b", [plain]), ("x", [plain]), ("c", [plain])):
        chain = Judge(Rule(judge="c", weight=1.0, doubt=Doubt(when="a", above=0.0)), from_table({}))
        judge = Judge(Rule(judge="b", weight=1.0, doubt=Doubt(when=when, above=0.0)), from_table({}))
        with pytest.raises(PolicyError, match="in doubt"):
            Cascade([*others, chain, judge])


# --- whole calls

WORTH = {"good": 0.9, "fine": 0.6, "dull": 0.45, "bad": 0.1, "awful": -0.8}


def worth(text: str) -> float:
    """The mean worth of a text's words."""
    said = [WORTH[word] for word in text.split()]
    return sum(said) / len(said) if said else 0.5


def cheap_harm(passage: Passage) -> float:
    return 1 - worth(passage.answer)


def costly_harm(passage: Passage) -> float:
    """Another opinion than the cheap one's."""
    return (1 - worth(passage.answer)) * (1.0 + 0.4 * (len(passage.answer) % 5 - 2))


def python(name: str, function: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "python", "call": f"test_asked_in_doubt:{function}", **more}


GUARD = (
    python("cheap", "cheap_harm", reject_above=1.4),
    python("guard", "costly_harm", reject_above=1.0, ask={"when": "cheap", "above": 0.75, "sample": 0.3}),
)
REWARD = (
    python("cheap", "cheap_harm", weight=0.0),
    python("reward", "costly_harm", weight=-1.0, ask={"when": "cheap", "above": 0.5, "below": 0.85, "sample": 0.3}),
)
BOTH = (python("cheap", "cheap_harm", weight=0.0, reject_above=1.4), GUARD[1], REWARD[1])
KINDS = {"guard": GUARD, "reward": REWARD, "both": BOTH}
DECODING: dict[str, dict[str, Any]] = {
    "stars": {"r_star": -0.7},
    "one by one": {"r_star": -0.7, "parallel": 1, "optimistic": False},
    "best of": {"method": "blockwise_best_of_k", "attempts": 3},
    "stops": {"r_star": -0.8, "beta": 0.1, "attempts": 2, "on_exhausted": "stop"},
    "monitor": {"mode": "monitor", "r_star": -0.7},
    "going back": {"r_star": -0.7, "attempts": 2, "rewinds": 3, "hold_tokens": 4, "on_exhausted": "stop"},
}


def answered(judges: Any, seed: int | None = 3, **more: Any) -> CallRecord:
    store = MemoryStore()
    made = policy(judges=list(judges), **{"max_tokens": 16, **more})
    guard = Guard(made, model=ScriptedBackend(words(18)), audit=store, allow_python=True)
    guard.blocking.generate(USER, CallOptions(seed=seed))
    return store.records[-1]


def attempts_of(record: CallRecord) -> Iterator[tuple[int, Attempt]]:
    for segment in record.segments:
        for attempt in segment.attempts:
            yield segment.index, attempt


@pytest.mark.parametrize("decoding", DECODING)
@pytest.mark.parametrize("kind", KINDS)
def test_an_answers_record_says_who_was_asked_and_holds(kind: str, decoding: str) -> None:
    reasons: Counter[str] = Counter()
    for seed in range(8):
        record = answered(KINDS[kind], seed, **DECODING[decoding])
        assert redo(record) is None
        bands = {rule.judge: rule.doubt for rule in record.rules if rule.doubt is not None}
        assert bands
        for segment, attempt in attempts_of(record):
            values = {score.judge: score.value for score in attempt.scores}
            said = {score.judge: score.asked for score in attempt.scores}
            for judge, band in bands.items():
                cheap = values["cheap"]
                assert cheap is not None
                inside = (band.above is None or cheap > band.above) and (band.below is None or cheap <= band.below)
                chance = Place(seed=record.seed, segment=segment, attempt=attempt.attempt).share(judge) < band.sample
                unasked = judge in {one.judge for one in attempt.unasked}
                if attempt.veto is None or judge in said or unasked:
                    assert (judge in said) == (inside or chance)
                    assert unasked != (judge in said)
                if judge in said:
                    assert said[judge] == ("doubt" if inside else "sample")
                reasons[said.get(judge) or "no"] += 1
            weights = {rule.judge: rule.weight for rule in record.rules if rule.weight is not None}
            if weights and attempt.veto is None:
                wanted = sum(weight * (values.get(judge, values["cheap"]) or 0.0) for judge, weight in weights.items())
                assert attempt.reward == pytest.approx(wanted)
    assert {"doubt", "sample", "no"} <= set(reasons)


def test_the_review_of_an_answer_that_ends_early_asks_every_judge() -> None:
    reviewed = 0
    for seed in range(30):
        record = answered(BOTH, seed, **DECODING["stops"])
        if record.review is None:
            continue
        reviewed += 1
        said = {score.judge: score.asked for score in record.review.scores}
        if record.review.veto is None:
            assert said == {"cheap": None, "guard": None, "reward": None}
    assert reviewed > 5


def test_about_a_whole_structured_answer_every_judge_is_asked() -> None:
    store = MemoryStore()
    made = policy(judges=[*GUARD[:1], {**GUARD[1], "ask": {"when": "cheap", "above": 1.4, "sample": 0.0}}])
    guard = Guard(made, model=ScriptedBackend(words(3)), audit=store, allow_python=True)
    guard.blocking.generate(USER, CallOptions(seed=3, grammar=Grammar.regex("(good |fine |bad |awful )*")))
    scores = [score for _, one in attempts_of(store.records[-1]) for score in one.scores if score.judge == "guard"]
    assert scores
    assert {score.asked for score in scores} == {"whole"}
    assert redo(store.records[-1]) is None


def test_a_cheap_judge_that_fails_leaves_nothing_unasked() -> None:
    def broken(passage: Passage) -> float:
        raise Broken

    doubt = Doubt(when="cheap", above=0.4, sample=0.0)
    judges = [
        Judge(Rule(judge="cheap", reject_above=1.4, on_error="ignore"), FunctionScorer(broken)),
        Judge(Rule(judge="guard", reject_above=1.0, doubt=doubt), FunctionScorer(costly_harm)),
    ]
    store = MemoryStore()
    Guard(policy(), model=ScriptedBackend(words(9)), judges=judges, audit=store).blocking.generate(USER)
    (record,) = store.records
    said = [score.asked for _, one in attempts_of(record) for score in one.scores if score.judge == "guard"]
    assert said
    assert set(said) == {"unknown"}
    assert redo(record) is None


def test_in_a_rail_chance_is_not_known_beforehand() -> None:
    """A check has no seed of its own, so it gets one that nobody can know."""
    judges = [
        {"name": "first", "type": "patterns", "patterns": [{"name": "a", "regex": "rock"}], "reject_above": 2.0},
        {
            "name": "second",
            "type": "patterns",
            "patterns": [{"name": "b", "regex": "river"}],
            "ask": {"when": "first", "above": 0.5, "sample": 0.4},
        },
    ]
    store = MemoryStore()
    made = load_policy({**policy(), "rails": {"input": {"judges": judges}}})
    guard = Guard(made, model=ScriptedBackend(words()), audit=store).blocking
    allowed = Counter(guard.check("input", "a river").allowed for _ in range(60))
    assert set(allowed) == {True, False}
    assert not guard.check("input", "a rock at the river").allowed
    assert {redo(record) for record in store.records} == {None}
    assert len({record.seed for record in store.records}) == 61


# --- what an auditor finds


def changed(record: CallRecord, segment: int, attempt: Attempt, **more: Any) -> CallRecord:
    """The record with another attempt, whose reward and veto follow from its scores as a careful forger has them."""
    made = attempt.model_copy(update=more)
    rules = [rule.rule for rule in record.rules]
    scores = [Score(**score.model_dump()) for score in made.scores]
    judgement = combine(scores, rules, [Unasked(**one.model_dump()) for one in made.unasked])
    made = made.model_copy(update={"reward": judgement.reward, "veto": judgement.veto})
    old = record.segments[segment]
    attempts = tuple(made if one.attempt == attempt.attempt else one for one in old.attempts)
    part = old.model_copy(update={"attempts": attempts})
    return record.model_copy(update={"segments": (*record.segments[:segment], part, *record.segments[segment + 1 :])})


def forgeries(record: CallRecord) -> Iterator[tuple[str, CallRecord]]:
    """Records in which somebody else was asked than in the call, where no veto explains it."""
    for segment, attempt in attempts_of(record):
        for score in attempt.scores:
            others = tuple(one for one in attempt.scores if one is not score)
            if score.asked is None or any(one.judge == score.judge for one in attempt.unasked):
                continue
            for side in ("below", "above"):
                entry = UnaskedEntry(judge=score.judge, instead="cheap", side=side)  # type: ignore[arg-type]
                yield "skipped", changed(record, segment, attempt, scores=others, unasked=(*attempt.unasked, entry))
            if not any(one.value is not None and one.value > 1.0 for one in others if one.judge == "guard"):
                yield "left out", changed(record, segment, attempt, scores=others)
            for why in {"doubt", "sample", "whole", "unknown", None} - {score.asked}:
                other = score.model_copy(update={"asked": why})
                yield "why", changed(record, segment, attempt, scores=(*others, other))
        for one in attempt.unasked:
            rest = tuple(each for each in attempt.unasked if each is not one)
            turned = one.model_copy(update={"side": "above" if one.side == "below" else "below"})
            yield "side", changed(record, segment, attempt, unasked=(*rest, turned))
            if attempt.veto is None:
                yield "not there", changed(record, segment, attempt, unasked=rest)
            for why in ("doubt", "sample"):
                score = attempt.scores[0].model_copy(update={"judge": one.judge, "value": 0.0, "asked": why})
                yield "asked", changed(record, segment, attempt, scores=(*attempt.scores, score), unasked=rest)
            yield "twice", changed(record, segment, attempt, unasked=(*attempt.unasked, one))


@pytest.mark.parametrize("kind", KINDS)
def test_each_forged_skip_is_found(kind: str) -> None:
    found: Counter[str] = Counter()
    for seed in range(4):
        record = answered(KINDS[kind], seed, **DECODING["stars"])
        for name, forged in forgeries(record):
            assert redo(forged) is not None, (name, seed)
            found[name] += 1
    assert set(found) == {"skipped", "left out", "why", "side", "not there", "asked", "twice"}


def test_a_skip_in_a_review_is_found() -> None:
    records = [answered(BOTH, seed, **DECODING["stops"]) for seed in range(20)]
    reviewed = [record for record in records if record.review is not None and record.review.veto is None]
    assert reviewed
    for record in reviewed:
        assert record.review is not None
        for score in record.review.scores:
            if score.judge == "guard":
                rest = tuple(one for one in record.review.scores if one is not score)
                review = record.review.model_copy(update={"scores": rest})
                assert redo(record.model_copy(update={"review": review})) is not None


def test_another_seed_is_another_sample() -> None:
    """The chance follows from the seed on record, so that nobody can choose it afterwards."""
    record = answered(GUARD, 3, **DECODING["stars"])
    assert redo(record.model_copy(update={"seed": 4})) is not None


# --- replay and what-if


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_is_generated_again_with_the_same_sample(kind: str) -> None:
    made = load_policy(policy(judges=list(KINDS[kind]), max_tokens=16, r_star=-0.7))
    records = (answered(KINDS[kind], seed, r_star=-0.7) for seed in range(20))
    record = next(one for one in records if any(attempt.unasked for _, attempt in attempts_of(one)))
    again = portal.call(lambda: regenerate(record, made, model=ScriptedBackend(words(18)), allow_python=True))
    assert list(compare(record, again)) == []
    segment, attempt = next((at, one) for at, one in attempts_of(record) if one.unasked)
    forged = changed(record, segment, attempt, unasked=())
    assert "not asked" in {found.what for found in compare(forged, again)}


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(sorted(KINDS)),
    other=st.sampled_from(sorted(KINDS)),
    above=st.sampled_from([0.3, 0.6, 0.9, None]),
    sample=st.sampled_from([0.0, 0.25, 1.0]),
)
def test_what_if_decides_as_a_call_under_the_other_policy(
    seed: int, kind: str, other: str, above: float | None, sample: float
) -> None:
    """Each candidate on record has the reward and the veto that it has where the other policy's judges are asked."""
    record = answered(KINDS[kind], seed, r_star=-0.7)
    judges = [dict(one) for one in KINDS[other]]
    for one in judges:
        if "ask" in one:
            one["ask"] = {**one["ask"], "above": above, "sample": sample}
            if above is None and "below" not in one["ask"]:
                del one["ask"]
            elif one["name"] == "reward" and (above or 0) >= one["ask"]["below"]:
                one["ask"]["below"] = 1.0
    made = load_policy(policy(judges=judges, max_tokens=16, r_star=-0.7))
    found = portal.call(lambda: what_if(record, made, allow_python=True))
    if kind == other and judges == [dict(one) for one in KINDS[kind]]:
        assert found.parting is None

    functions = {"cheap": cheap_harm, "guard": costly_harm, "reward": costly_harm}
    scorers = [Judge(one.rule, FunctionScorer(functions[one.name])) for one in made.judges]
    cascade = Cascade(scorers)
    accepted, rows = "", iter(found.candidates)
    for segment in record.segments:
        for attempt in segment.attempts:
            passage = Passage(call_id="c", messages=tuple(USER), accepted=accepted, segment=attempt.text.text or "")
            place = Place(seed=seed, segment=segment.index, attempt=attempt.attempt)
            (wanted,) = portal.call(lambda: cascade.judge([passage], places=[place]))  # noqa: B023
            row = next(rows)
            assert row.veto == wanted.veto
            if row.reward is not None and wanted.veto is None:
                assert row.reward == pytest.approx(wanted.reward)
        if segment.kept_attempt is not None:
            accepted += segment.kept_attempt.text.text or ""


def test_a_shadow_decides_as_its_policy_would() -> None:
    """A shadow's judges are all asked, and its reward and vetoes are those of a call under its policy."""
    for seed in range(6):
        for kind, other in (("guard", "reward"), ("reward", "both")):
            shadow = {**policy(judges=list(KINDS[other]), max_tokens=16, r_star=-0.7), "name": "shadow"}
            live = policy(judges=list(KINDS[kind]), max_tokens=16, r_star=-0.7)
            store = MemoryStore()
            made = {**live, "shadow": [{"policy": shadow, "wait": 20.0}]}
            with Guard(made, model=ScriptedBackend(words(18)), audit=store, allow_python=True).blocking as guard:
                guard.generate(USER, CallOptions(seed=seed))
            (record,) = store.records
            assert redo(record) is None
            (entry,) = record.shadows
            assert entry.error is None
            bare = record.model_copy(update={"shadows": ()})
            wanted = portal.call(lambda: what_if(bare, load_policy(shadow), allow_python=True))  # noqa: B023
            rows = {(row.segment, row.attempt): row for row in entry.candidates}
            for row in wanted.candidates:
                found = rows[row.segment, row.attempt]
                assert found.verdict in (row.after, "unknown")
                if found.verdict != "unknown":
                    assert found.veto == row.veto
                    # after a veto, who else was asked is not the same
                    assert row.veto is not None or found.reward == pytest.approx(row.reward)
            known = [row.verdict for row in rows.values()]
            assert known.count("unknown") <= len(known) / 4


# --- who shows it


def with_unasked() -> CallRecord:
    records = (answered(GUARD, seed, r_star=-0.7) for seed in range(20))
    return next(one for one in records if any(attempt.unasked for _, attempt in attempts_of(one)))


def test_metrics_count_who_was_asked() -> None:
    reader = InMemoryMetricReader()
    with provided(reader):
        record = with_unasked()
        data = reader.get_metrics_data()
    assert data is not None
    points = [
        point
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for one in scope.metrics
        if one.name == "stars_guard.judge.asked"
        for point in one.data.data_points
    ]
    counted = Counter({str(dict(p.attributes or {})[metrics.ASKED]): int(getattr(p, "value", 0)) for p in points})
    assert {str(dict(p.attributes or {})[metrics.JUDGE]) for p in points} == {"guard"}
    scores = [score.asked for _, one in attempts_of(record) for score in one.scores if score.asked is not None]
    # calls before it had nobody left out
    assert counted["no"] == sum(len(one.unasked) for _, one in attempts_of(record))
    assert counted["doubt"] >= scores.count("doubt")
    assert set(counted) <= {"doubt", "sample", "whole", "unknown", "no"}


def test_the_terminal_and_the_page_show_who_was_not_asked(tmp_path: Path) -> None:
    record = with_unasked()
    store = open_store(f"jsonl://{tmp_path / 'a.jsonl'}")
    portal.call(lambda: store.append(record))
    portal.call(store.aclose)
    said = CliRunner().invoke(app, ["audit", "show", str(tmp_path / "a.jsonl")])
    assert said.exit_code == 0, said.output
    assert "guard was not asked: the score of cheap is below the band of doubt" in said.output
    report = tmp_path / "report.html"
    made = CliRunner().invoke(app, ["audit", "report", str(tmp_path / "a.jsonl"), "--output", str(report)])
    assert made.exit_code == 0, made.output
    page = report.read_text()
    assert "the score of cheap is below the band of doubt" in page
    assert "asked: in doubt" in page or "asked: by chance" in page


def test_a_policys_band_is_in_its_digest() -> None:
    made = load_policy(policy(judges=[CHEAP, {**COSTLY, "ask": {"when": "cheap", "above": 0.2}}]))
    assert made.model_dump(mode="json")["judges"][1]["ask"] == {
        "when": "cheap",
        "above": 0.2,
        "below": None,
        "sample": 0.02,
    }
    other = load_policy(policy(judges=[CHEAP, {**COSTLY, "ask": {"when": "cheap", "above": 0.3}}]))
    assert made.sha256 != other.sha256


# --- with a probe


def state(so_far: tuple[str, ...]) -> list[float]:
    return [1 - WORTH[so_far[-1].strip()] if so_far else 0.5, 1.0]


def asked_for(store: MemoryStore) -> Counter[str]:
    """How often the judge was asked, by the reason. Each record can be done again."""
    asked: Counter[str] = Counter()
    for record in store.records:
        assert redo(record) is None
        for _, attempt in attempts_of(record):
            asked.update(score.asked or "" for score in attempt.scores if score.judge == "guard")
            asked.update("no" for _ in attempt.unasked)
    return asked


def test_a_probe_spares_the_judge(tmp_path: Path) -> None:
    a_probe(tmp_path / "p.safetensors", [[1.0, 0.0]])
    probe = {"name": "inside", "type": "probe", "probe": str(tmp_path / "p.safetensors"), "reject_above": 1.4}
    guard = {**GUARD[1], "ask": {"when": "inside", "above": 0.75, "sample": 0.3}, "scope": "segment"}
    made = policy(judges=[probe, guard], max_tokens=16, r_star=0.0)
    store = MemoryStore()
    model = ScriptedBackend(words(18), state=state)
    portal_guard = Guard(made, model=model, audit=store, allow_python=True).blocking
    for seed in range(10):
        portal_guard.generate(USER, CallOptions(seed=seed))
    asked = asked_for(store)
    assert min(asked[why] for why in ("doubt", "sample", "no")) > 3
    # what the generator's states were is not on record, and the scores are
    record = store.records[0]
    always = policy(judges=[probe, {**guard, "ask": None}], max_tokens=16, r_star=0.0)
    rows = portal.call(lambda: what_if(record, load_policy(always), allow_python=True)).candidates
    assert {row.after for row in rows} <= {"accepted", "rejected"}
    assert not any("failed" in (row.veto or "") for row in rows)


def test_a_probe_on_a_real_model_spares_the_judge(embedded_model: Path, tmp_path: Path) -> None:
    where = a_model(tmp_path / "model", embedded_model)
    found = a_probe(tmp_path / "p.safetensors", rows_of(1, 64), model=where, link="logistic")
    assert found.directions.rows
    probe = {"name": "inside", "type": "probe", "probe": str(tmp_path / "p.safetensors"), "reject_above": 0.9}
    guard = python("guard", "long", reject_above=0.9, ask={"when": "inside", "above": 0.5, "sample": 0.3})
    made = policy(judges=[probe, guard], max_tokens=12, segment_tokens=3)
    store = MemoryStore()
    with Guard(made, model=str(where), backend="transformers", audit=store, allow_python=True).blocking as made_guard:
        for seed in range(6):
            made_guard.generate(USER, CallOptions(seed=seed))
    asked = asked_for(store)
    assert asked["no"]
    assert asked["doubt"] + asked["sample"]


def long(passage: Passage) -> float:
    return min(1.0, len(passage.answer) / 1000)


# --- what the policy may say


def problems(judges: list[dict[str, Any]], where: str = "judges") -> str:
    data: Any = policy(judges=judges) if where == "judges" else {**policy(), "rails": {where: {"judges": judges}}}
    try:
        load_policy(data)
    except PolicyError as exc:
        return str(exc)
    return ""


CHEAP: dict[str, Any] = {"name": "cheap", "type": "pii", "reject_above": 0.8}
COSTLY: dict[str, Any] = {"name": "costly", "type": "pii", "reject_above": 0.5}


@pytest.mark.parametrize(
    ("cheap", "costly", "ask", "said"),
    [
        ({}, {}, {"above": 0.2}, ""),
        ({}, {}, {"above": 0.2, "below": 0.8}, ""),
        ({}, {}, {"above": 0.2, "below": 0.9, "sample": 0}, ""),
        ({}, {}, {"above": 0.2, "below": 0.7}, "ask.below: high scores of judge 'cheap' are bad"),
        ({}, {}, {}, "give above or below"),
        ({}, {}, {"above": 0.8, "below": 0.2}, "above must be less than below"),
        ({}, {}, {"above": 0.2, "below": 0.2}, "above must be less than below"),
        ({}, {}, {"above": 0.2, "sample": 1.5}, "ask.sample"),
        ({}, {}, {"above": 0.2, "samples": 0.1}, "did you mean `sample`"),
        (
            {},
            {},
            {"above": 0.2, "when": "cheep"},
            "ask.when: there is no judge 'cheep' beside it; did you mean `cheap`",
        ),
        ({}, {}, {"above": 0.2, "when": "costly"}, "ask.when: judge 'costly' must come before"),
        ({}, {"scope": "segment"}, {"above": 0.2}, "give both the same scope"),
        ({"scope": "segment"}, {"scope": "segment"}, {"above": 0.2}, ""),
        ({"every": 2}, {}, {"above": 0.2}, "give both the same every and final"),
        ({"every": 2}, {"every": 2}, {"above": 0.2}, ""),
        ({}, {"every": 2}, {"above": 0.2}, ""),
        ({}, {"weight": 1.0}, {"above": 0.2}, "another reward stands for its own"),
        ({"weight": 0}, {"weight": -1.0, "reject_above": None}, {"above": 0.2, "below": 0.3}, ""),
        ({"weight": 0, "reject_above": None}, {}, {"above": 0.2, "below": 0.7}, "nobody knows which scores are bad"),
        ({"weight": 0, "reject_above": None}, {}, {"above": 0.2}, ""),
        ({"weight": 0, "reject_above": None}, {}, {"below": 0.2}, ""),
        ({"weight": 1, "reject_above": None}, {}, {"above": 0.2}, "low scores of judge 'cheap' are bad"),
        ({"weight": 1, "reject_above": None}, {}, {"below": 0.2}, ""),
        ({"weight": -1, "reject_above": None}, {}, {"below": 0.2}, "rejects nothing"),
        ({"weight": -1, "reject_above": None}, {}, {"above": 0.2}, ""),
        ({"weight": 0, "reject_above": None}, {"weight": 1}, {"above": 0.2}, "low scores of judge 'cheap' are bad"),
        ({"weight": 1}, {}, {"above": 0.2, "below": 0.8}, "low scores of judge 'cheap' are bad"),
    ],
)
def test_what_fits_and_what_does_not(
    cheap: dict[str, Any], costly: dict[str, Any], ask: dict[str, Any], said: str
) -> None:
    found = problems([{**CHEAP, **cheap}, {**COSTLY, **costly, "ask": {"when": "cheap", **ask}}])
    assert (said in found) if said else not found


def test_the_judge_comes_earlier_and_is_always_asked() -> None:
    asking = {**COSTLY, "ask": {"when": "cheap", "above": 0.2}}
    assert "must come before" in problems([asking, CHEAP])
    assert "not always asked itself" in problems(
        [CHEAP, asking, {**COSTLY, "name": "x", "ask": {"when": "costly", "above": 0.1}}]
    )
    assert "no judge 'cheap'" in problems([asking], "input")
    assert not problems([CHEAP, asking], "input")
    data = {**policy(judges=[CHEAP]), "rails": {"output": {"judges": [asking]}}}
    with pytest.raises(PolicyError, match="no judge 'cheap'"):
        load_policy(data)


ASK = {"when": "cheap", "above": 0.2, "below": 0.9, "sample": 0.1}


@pytest.mark.parametrize(
    ("before", "after", "looser"),
    [
        (None, ASK, True),
        (ASK, None, False),
        (ASK, {**ASK, "sample": 0.05}, True),
        (ASK, {**ASK, "sample": 0.2}, False),
        (ASK, {**ASK, "above": 0.3}, True),
        (ASK, {**ASK, "above": 0.1}, False),
        (ASK, {**ASK, "below": 0.85}, True),
        (ASK, {**ASK, "below": None}, False),
        ({**ASK, "below": None}, ASK, True),
        (ASK, {**ASK, "when": "other"}, True),
        (ASK, {**ASK, "above": 0.1, "sample": 0.05}, True),
    ],
)
def test_a_child_that_asks_less_says_override(before: Any, after: Any, looser: bool, tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    others = [CHEAP, {**CHEAP, "name": "other"}]
    with (tmp_path / "parent.yaml").open("w") as file:
        YAML().dump({**policy(judges=[*others, {**COSTLY, "ask": before}]), "name": "parent"}, file)
    for override in (False, True):
        change = {"name": "costly", "ask": after, **({"override": True} if override else {})}
        child = {"apiVersion": "stars-guard/v1", "name": "child", "extends": "./parent.yaml", "judges": [change]}
        with (tmp_path / "child.yaml").open("w") as file:
            YAML().dump(child, file)
        if looser and not override:
            with pytest.raises(PolicyError, match="ask"):
                load_policy(str(tmp_path / "child.yaml"))
        else:
            assert load_policy(str(tmp_path / "child.yaml")).judges[2].in_doubt is not None or after is None


@settings(max_examples=100)
@given(band=BANDS, score=NUMBERS, seed=st.integers(0, 2**63 - 1))
def test_a_side_is_where_the_score_is_outside(band: tuple[float | None, float | None], score: float, seed: int) -> None:
    above, below = band
    side = Doubt(when="a", above=above, below=below).side(score)
    assert (side == "below") == (above is not None and score <= above)
    assert (side == "above") == (below is not None and score > below and side != "below")
    share = Place(seed=seed, segment=0, attempt=0).share("a")
    assert 0 <= share < 1
    assert share != Place(seed=seed, segment=0, attempt=0).share("b")


def test_chance_keeps_to_its_share() -> None:
    rng = random.Random(3)
    places = [Place(seed=rng.getrandbits(63), segment=n % 5, attempt=n % 3) for n in range(20_000)]
    asked = sum(place.share("guard") < 0.02 for place in places)
    assert 300 < asked < 500
