"""Judges inside the generator: the probe's file, its policy entry, and its scores while an answer grows."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import USER, policy, vetoing
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_files import a_model, a_probe, pass_of, rows_of
from transformers import AutoModelForCausalLM

from stars_guard.audit import MemoryStore
from stars_guard.auditing.redoing import redo
from stars_guard.backends.base import OpenRequest
from stars_guard.backends.supplied import SuppliedBackend
from stars_guard.backends.transformers import TransformersBackend, TransformersOptions
from stars_guard.calling import portal
from stars_guard.calling.projections import Projections
from stars_guard.core.directions import Directions
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.core.sampling import Sampling
from stars_guard.core.segments import Candidate, Passage, Token
from stars_guard.engines.checkpoints import fingerprint
from stars_guard.engines.probes import load_probe
from stars_guard.errors import InputError, PolicyError, ScorerError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.scorers import Judge
from stars_guard.scorers.probe import ProbeScorer
from stars_guard.testing import FunctionScorer
from stars_guard.testing.scripted import ScriptedBackend

WORDS = ("good ", "fine ", "bad ", "awful ")
WORTH = {"good ": 0.9, "fine ": 0.6, "bad ": 0.1, "awful ": -0.8, "": 0.0}


def state(so_far: tuple[str, ...]) -> list[float]:
    """A hidden state that tells the last word's worth and how many words there are."""
    return [WORTH[so_far[-1]] if so_far else 0.5, float(len(so_far)), 1.0]


def expected(words: Sequence[str]) -> float:
    """What a probe of the first direction says of an answer: the mean worth of its words."""
    return sum(WORTH[word] for word in words) / len(words) if words else 0.5


def words(length: int) -> Any:
    def script(messages: Sequence[Message], prefix: tuple[str, ...], rng: random.Random) -> str | None:
        return None if len(prefix) >= length else rng.choice(WORDS)

    return script


@pytest.fixture(scope="module")
def probe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("probe") / "worth.safetensors"
    a_probe(path, [[1.0, 0.0, 0.0]])
    return path


def judge(path: Path, **more: Any) -> dict[str, Any]:
    return {"type": "probe", "name": "inside", "probe": str(path), **more}


def split(text: str) -> list[str]:
    return [word + " " for word in text.split()]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, embedded_model: Path) -> Path:
    return a_model(tmp_path_factory.mktemp("small") / "model", embedded_model)


# --- the score of each candidate, however the answer grows

DECODING: dict[str, dict[str, Any]] = {
    "plain": {},
    "not ahead": {"optimistic": False},
    "one by one": {"optimistic": False, "parallel": 1},
    "abreast": {"parallel": 3},
    "best": {"method": "blockwise_best_of_k", "attempts": 3},
    "whole": {"method": "best_of_n", "attempts": 2},
    "short": {"segment_tokens": 1},
    "constant": {"schedule": "constant"},
}


@pytest.mark.parametrize("name", DECODING)
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    length=st.integers(1, 14),
    most=st.integers(1, 14),
    chunk=st.integers(1, 5),
    seeded=st.booleans(),
)
def test_each_score_is_the_mean_over_the_answers_tokens(
    probe_file: Path, name: str, seed: int, length: int, most: int, chunk: int, seeded: bool
) -> None:
    random.seed(seed)
    store = MemoryStore()
    backend = ScriptedBackend(words(length), chunk=chunk, state=state)
    given_policy = policy(judges=[judge(probe_file, weight=1.0)], max_tokens=most, r_star=0.7, **DECODING[name])
    guard = Guard(given_policy, model=backend, audit=store)
    guard.blocking.generate(USER, CallOptions(seed=seed if seeded else None))
    (record,) = store.read()
    before: list[str] = []
    seen = 0
    for segment in record.segments:
        for attempt in segment.attempts:
            for score in attempt.scores:
                assert score.value == pytest.approx(expected([*before, *split(attempt.text.text or "")])), name
                seen += 1
        assert segment.kept is not None
        kept = next(one for one in segment.attempts if one.attempt == segment.kept)
        before += split(kept.text.text or "")
    assert seen >= 1
    if record.prompt_reward is not None:
        assert record.prompt_reward == pytest.approx(0.5)
    assert record.scorers["inside"]["probe_sha256"] == load_probe(probe_file).directions.digest
    assert record.totals["drawn"] == sum(record.totals[key] for key in ("kept", "rejected", "surplus", "overrun"))
    assert redo(record) is None


def test_what_stays_after_going_back_is_judged_by_its_own_state(probe_file: Path) -> None:
    dead_end = {"name": "end", "type": "python", "call": "test_probe:after_a_bad_word", "reject_above": 0.5}
    common = {"segment_tokens": 1, "attempts": 2, "rewinds": 1, "hold_tokens": 3, "on_exhausted": "stop"}
    made = policy(judges=[judge(probe_file, reject_above=9.0), dead_end], max_tokens=8, **common)
    reviewed = 0
    for seed in range(40):
        store = MemoryStore()
        model = ScriptedBackend(words(9), state=state)
        with Guard(made, model=model, audit=store, allow_python=True).blocking as guard:
            guard.generate(USER, CallOptions(seed=seed))
        (record,) = store.records
        assert redo(record) is None
        last = [segment.rewound is not None for segment in record.segments[-2:]]
        if record.review is None or last != [True, False] or record.finish != "stopped":
            continue
        (score,) = [score.value for score in record.review.scores if score.judge == "inside"]
        said = "".join(
            record.segments[index].attempts[record.segments[index].kept or 0].text.content or ""
            for index in record.standing
        )
        assert score == pytest.approx(expected(split(said)[:-1]))
        reviewed += 1
    assert reviewed


def after_a_bad_word(passage: Passage) -> float:
    """It is vetoed, and whatever comes after two words."""
    return float("bad" in passage.answer or "awful" in passage.answer or passage.accepted.count(" ") == 2)


@pytest.mark.parametrize("budget", range(1, 8))
@pytest.mark.parametrize("on_exhausted", ["best", "refuse"])
def test_a_small_budget_goes_to_the_answer(probe_file: Path, budget: int, on_exhausted: str) -> None:
    """The token that the state after the prompt costs is not spent where no segment could be paid for after it."""
    store = MemoryStore()
    common = {"max_tokens": 8, "segment_tokens": 4, "attempts": 1, "on_exhausted": on_exhausted}
    made = policy(judges=[judge(probe_file, weight=1.0)], budget_tokens=budget, **common)
    Guard(made, model=ScriptedBackend(words(9), state=state), audit=store).blocking.generate(USER)
    (record,) = store.records
    assert redo(record) is None
    assert record.totals["drawn"] <= budget
    assert (record.totals["proposals"] > 0) == (budget >= 4)
    assert (record.prompt_reward is not None) == (budget > 4)


def test_under_a_budget_no_token_more_is_generated_and_the_last_token_is_not_seen(probe_file: Path) -> None:
    store = MemoryStore()
    made = policy(judges=[judge(probe_file, reject_above=9.0)], max_tokens=8, segment_tokens=4, budget_tokens=8)
    guard = Guard(made, model=ScriptedBackend(words(50), state=state), audit=store)
    guard.blocking.generate(USER)
    (record,) = store.read()
    assert record.totals["drawn"] == 8
    said = split(record.answer.text or "")
    values = [attempt.scores[0].value for segment in record.segments for attempt in segment.attempts]
    assert values == [pytest.approx(expected(said[:3])), pytest.approx(expected(said[:7]))]


def test_a_context_without_room_for_one_more_token_is_used_to_its_end(probe_file: Path) -> None:
    store = MemoryStore()
    made = policy(judges=[judge(probe_file, reject_above=9.0)], max_tokens=50, segment_tokens=4)
    backend = ScriptedBackend(words(50), context=2 + 8, state=state)
    assert Guard(made, model=backend, audit=store).blocking.generate(USER).finish == "length"
    (record,) = store.read()
    assert record.totals["kept"] == 8
    said = split(record.answer.text or "")
    values = [segment.attempts[0].scores[0].value for segment in record.segments]
    assert values == [pytest.approx(expected(said[:4])), pytest.approx(expected(said[:7]))]


def test_a_veto_of_a_probe_rejects(probe_file: Path) -> None:
    made = policy(judges=[judge(probe_file, reject_above=0.2)], max_tokens=12, attempts=40, on_exhausted="refuse")
    store = MemoryStore()
    answers = Guard(made, model=ScriptedBackend(words(12), state=state), audit=store).blocking.batch([USER] * 6)
    records = list(store.read())
    assert any(one.veto == "inside" for record in records for part in record.segments for one in part.attempts)
    for answer in answers:
        said = split(answer.text)
        assert all(expected(said[: at + 2]) <= 0.2 for at in range(0, len(said), 2))


@pytest.mark.parametrize("recovers", [False, True])
def test_an_answer_that_went_back_is_judged_by_the_tokens_that_are_left(probe_file: Path, recovers: bool) -> None:
    """A judge of the text beside the probe says the same of each candidate, after rewinds and recovery too."""
    probe = Judge(Rule(judge="inside", weight=1.0), ProbeScorer(load_probe(probe_file)))
    text = Judge(Rule(judge="text", weight=0.0), FunctionScorer(lambda passage: expected(split(passage.answer))))
    more = {"recovery": {"after": 1, "instruction": "be kind"}} if recovers else {}
    made = policy(max_tokens=16, attempts=2, on_exhausted="stop", hold_tokens=6, rewinds=4, r_star=-2.0, **more)
    store = MemoryStore()
    backend = ScriptedBackend(words(16), state=state)
    Guard(made, model=backend, judges=[vetoing(), probe, text], audit=store).blocking.batch([USER] * 40)
    pairs = 0
    for record in store.read():
        for attempt in (one for part in record.segments for one in part.attempts):
            said = {score.judge: score.value for score in attempt.scores}
            if "text" in said:
                assert said["inside"] == pytest.approx(said["text"])
                pairs += 1
        assert redo(record) is None
    assert pairs > 40
    assert sum(record.totals["rewinds"] for record in store.read()) > 5


# --- sums by number of tokens


@settings(max_examples=40)
@given(st.data())
def test_an_answer_may_go_back_to_any_token(data: st.DataObject) -> None:
    """Whatever was rejected, kept and taken back before, the averages are those of the tokens that are there now."""
    one = Directions(digest="d", model_sha256="", width=1, rows=((1.0,), (2.0,)))
    sums, values = Projections([one]), [0.25]  # values[n]: of the state after n tokens
    for _ in range(data.draw(st.integers(1, 8))):
        kept = data.draw(st.integers(0, len(values) - 1))
        fresh = data.draw(st.lists(st.floats(-4, 4), min_size=1, max_size=4))
        before = values[: kept + 1]
        after = [*before, *fresh]
        tokens = tuple(Token(1, "x", projections=(after[kept + at], 2 * after[kept + at])) for at in range(len(fresh)))
        candidate = Candidate(tokens=tokens, text="x", beyond=(after[-1], 2 * after[-1]))
        mean = sum(after[1:]) / (len(after) - 1)
        assert sums.of(candidate, kept)["d"] == pytest.approx((mean, 2 * mean))
        if data.draw(st.booleans()):
            sums.keep(candidate, kept)
            values = after


# --- the values, from the model's own pass

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {}),
    "tied": ("LlamaForCausalLM", {"tie_word_embeddings": True}),
    "gemma2": ("Gemma2ForCausalLM", {"sliding_window": 300}),
    "gpt_neox": ("GPTNeoXForCausalLM", {"num_key_value_heads": None}),
    "granite": ("GraniteForCausalLM", {"logits_scaling": 3.0}),
}


@pytest.mark.parametrize("name", KINDS)
def test_values_are_the_final_hidden_state_times_the_direction(name: str, embedded_model: Path, tmp_path: Path) -> None:
    kind, more = KINDS[name]
    where = a_model(tmp_path / "model", embedded_model, kind, **more)
    first = a_probe(tmp_path / "first.safetensors", rows_of(3, 64), model=where).directions
    second = a_probe(tmp_path / "second.safetensors", rows_of(2, 64, seed=4), model=where).directions

    async def run() -> tuple[list[int], list[int], list[list[Token]]]:
        async with await TransformersBackend.load(str(where), TransformersOptions(dtype="float32")) as backend:
            await backend.check_directions([first, second])
            asked: list[tuple[Directions, ...]] = [(first,), (first, second), (), (second,)]
            sessions = [
                await backend.open(OpenRequest(messages=USER, sampling=Sampling(temperature=1.5), directions=one))
                for one in asked
            ]
            found = []
            for number, session in enumerate(sessions):
                # four rows of the batch at once, two of each call
                proposals = await session.propose([number, number + 10], 6, ahead=1)
                chunks = [[token async for chunk in proposal for token in chunk] for proposal in proposals]
                found += chunks
            ids = list(sessions[0].ids)  # type: ignore[attr-defined]
            for session in sessions:
                await session.aclose()
            return ids, [len(one) for one in asked], found

    ids, counts, answers = portal.call(run)
    model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32).eval()
    rows = {0: first.rows, 1: first.rows + second.rows, 2: (), 3: second.rows}
    for number, answer in enumerate(answers):
        assert len(answer) == 7 or answer[-1].last or not counts[number // 2]
        _, states = pass_of(model, [*ids, *(token.id for token in answer)])
        for token, hidden in zip(answer, states[len(ids) - 1 : len(ids) - 1 + len(answer)], strict=True):
            wanted = [float(hidden @ torch.tensor(row)) for row in rows[number // 2]]
            assert token.projections == pytest.approx(wanted, abs=2e-4), name


def test_a_whole_call_on_a_real_model(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "probe.safetensors"
    a_probe(path, rows_of(2, 64), model=small, inner=3, link="logistic")
    made = policy(judges=[judge(path, weight=1.0, reject_above=0.99)], max_tokens=12, segment_tokens=4)
    store = MemoryStore()
    with Guard(made, model=str(small), backend="transformers", audit=store).blocking as guard:
        guard.load()
        guard.batch([USER] * 3)
    for record in store.read():
        scores = [score for segment in record.segments for one in segment.attempts for score in one.scores]
        assert scores
        assert all(score.error is None and 0 < (score.value or 0) < 1 for score in scores)
        assert record.prompt_reward is not None
        assert redo(record) is None


# --- what can't be used is refused by name


def test_a_probe_of_another_model_is_refused_at_load(small: Path, embedded_model: Path, tmp_path: Path) -> None:
    other = a_model(tmp_path / "other", embedded_model, rms_norm_eps=1e-3, intermediate_size=32)
    cases = {
        "another checkpoint": a_probe(tmp_path / "a", rows_of(1, 64), model=other),
        "hidden states of 32": a_probe(tmp_path / "b", rows_of(1, 32), model=small),
    }
    for (said, _), name in zip(cases.items(), "ab", strict=True):
        made = policy(judges=[judge(tmp_path / name, weight=1.0)])
        with Guard(made, model=str(small), backend="transformers", audit=MemoryStore()).blocking as guard:
            with pytest.raises(InputError, match=said):
                guard.load()
            with pytest.raises(InputError, match=said):
                guard.generate(USER)


def test_the_fingerprint_is_of_the_weights_and_not_of_their_division(
    small: Path, embedded_model: Path, tmp_path: Path
) -> None:
    whole = small
    sharded = a_model(tmp_path / "sharded", embedded_model, shards="2MB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert fingerprint(whole) == fingerprint(sharded)
    model = AutoModelForCausalLM.from_pretrained(whole)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight += 0.01
    model.save_pretrained(tmp_path / "tuned")
    assert fingerprint(tmp_path / "tuned") != fingerprint(whole)


def test_backends_that_give_no_states_are_refused(probe_file: Path) -> None:
    made = policy(judges=[judge(probe_file, weight=1.0)])
    guard = Guard(made, model=ScriptedBackend(words(4)), audit=MemoryStore())
    with pytest.raises(InputError, match="hidden states"):
        guard.blocking.load()
    guard = Guard(made, model=ScriptedBackend(words(4), state=state), audit=MemoryStore())
    with pytest.raises(InputError, match="hidden states"):
        list(guard.blocking.stream(USER, engine=SuppliedBackend("elsewhere")))
    off = Guard({**made, "mode": "off"}, model=ScriptedBackend(words(4)), audit=MemoryStore())
    assert off.blocking.generate(USER).text


@pytest.mark.parametrize("rail", ["input", "tool_call", "tool_result", "output"])
def test_a_rail_has_no_place_for_a_probe(probe_file: Path, rail: str) -> None:
    made = {**policy(), "rails": {rail: {"judges": [judge(probe_file, reject_above=0.5)]}}}
    with pytest.raises(PolicyError, match="did not write"):
        load_policy(made)


@pytest.mark.parametrize("scope", ["segment", "conversation", {"tail": 100}])
def test_a_probe_always_sees_the_whole_answer(probe_file: Path, scope: Any) -> None:
    with pytest.raises(PolicyError, match="whole answer"):
        load_policy(policy(judges=[judge(probe_file, weight=1.0, scope=scope)]))


def test_a_text_of_a_policy_case_fails_by_name(probe_file: Path) -> None:
    from stars_guard.calling.judge_loading import load_cascade
    from stars_guard.core.segments import Passage

    async def run() -> Any:
        cascade = await load_cascade(load_policy(policy(judges=[judge(probe_file, weight=1.0)])))
        async with cascade._opened:
            return await cascade.judge([Passage(call_id="c", messages=tuple(USER), accepted="", segment="hello")])

    (judgement,) = portal.call(run)
    assert judgement.veto == "inside failed: ScorerInputError"


# --- the file

BROKEN: dict[str, Mapping[str, Any]] = {
    "no directions": {"weight": torch.ones(1), "bias": torch.ones(1)},
    "another width": {"directions": torch.ones(1, 5), "weight": torch.ones(1), "bias": torch.ones(1)},
    "too few weights": {"directions": torch.ones(2, 3), "weight": torch.ones(1), "bias": torch.ones(1)},
    "half a layer": {
        "directions": torch.ones(1, 3),
        "weight": torch.ones(1),
        "bias": torch.ones(1),
        "inner.bias": torch.ones(2),
    },
    "a tensor too many": {
        "directions": torch.ones(1, 3),
        "weight": torch.ones(1),
        "bias": torch.ones(1),
        "else": torch.ones(1),
    },
    "not finite": {"directions": torch.ones(1, 3) * math.inf, "weight": torch.ones(1), "bias": torch.ones(1)},
    "flat": {"directions": torch.ones(3), "weight": torch.ones(3), "bias": torch.ones(1)},
    "no numbers": {"directions": torch.ones(0, 3), "weight": torch.ones(0), "bias": torch.ones(1)},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_probe_is_refused(name: str, tmp_path: Path) -> None:
    from stars_guard.engines.probes import Card, save_probe

    path = tmp_path / "broken.safetensors"
    save_probe(path, Card(model="m", model_sha256="", width=3), dict(BROKEN[name]))
    with pytest.raises(ScorerError, match="probe"):
        load_probe(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(ScorerError, match="can't be read"):
        load_probe(tmp_path / "missing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ScorerError, match="not a safetensors file"):
        load_probe(tmp_path / "text")
    save_file({"x": torch.ones(1)}, tmp_path / "plain")
    with pytest.raises(ScorerError, match="not the file of a probe"):
        load_probe(tmp_path / "plain")
    save_file({"x": torch.ones(1)}, tmp_path / "card", {"stars_guard_probe": '{"model": "m"}'})
    with pytest.raises(ScorerError, match="model_sha256"):
        load_probe(tmp_path / "card")


@settings(max_examples=25)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=2), st.sampled_from(["identity", "logistic"]), st.integers(0, 3))
def test_the_score_is_the_formula(tmp_path_factory: Any, means: list[float], link: str, inner: int) -> None:
    path = tmp_path_factory.mktemp("formula") / "p.safetensors"
    probe = a_probe(path, [[1.0, 0.0], [0.0, 1.0]], weight=[0.5, -2.0], bias=0.25, inner=inner, link=link)
    v = torch.tensor(means, dtype=torch.float64)
    z = float(v @ torch.tensor([0.5, -2.0], dtype=torch.float64)) + 0.25
    if probe.inner is not None:
        layer = torch.tensor(probe.inner.rows, dtype=torch.float64) @ v + torch.tensor(probe.inner.bias)
        z += float(torch.tensor(probe.inner.output, dtype=torch.float64) @ layer.tanh())
    wanted = z if link == "identity" else float(torch.tensor(z, dtype=torch.float64).sigmoid())
    assert probe.score(means) == pytest.approx(wanted)
