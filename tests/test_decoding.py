"""The pure core: its law against the closed form, and its invariants."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from stars_guard.core.events import Ended, Kept
from stars_guard.core.judging import Judgement
from stars_guard.core.segments import Candidate, Token
from stars_guard.core.step_costs import StepCosts
from stars_guard.decoding import (
    AcceptanceRate,
    Done,
    Generate,
    SegmentCutter,
    Settings,
    Threshold,
    make_decoder,
)
from stars_guard.decoding.verdict import threshold
from stars_guard.decoding.width import best_width
from stars_guard.errors import ProtocolError

MODEL = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
REWARD = {"a": -1.0, "b": 0.2, "c": 0.8, "d": 0.0}
VETOED = "d"


def draw_symbol(seed: int) -> str:
    u, total = (seed >> 10) / 2**53, 0.0
    for symbol, p in MODEL.items():
        total += p
        if u < total:
            return symbol
    return "d"


def judge(symbol: str) -> Judgement:
    return Judgement(reward=REWARD[symbol], veto="toy" if symbol == VETOED else None)


def one_token(symbol: str, finish: str | None = None) -> Candidate:
    return Candidate(tokens=(Token(ord(symbol), symbol),), text=symbol, finish=finish)  # type: ignore[arg-type]


def run_step(settings: Settings, seed: int) -> str:
    decoder = make_decoder(settings, seed)
    decoder.begin(0.0)
    kept = "refused"
    candidates: dict[int, str] = {}
    while isinstance(step := decoder.plan(), Generate):
        symbols = [draw_symbol(s) for s in step.seeds]
        candidates.update(enumerate(symbols, start=step.attempt))
        outcome = decoder.decide([(one_token(s), judge(s)) for s in symbols])
        if isinstance(outcome.end, Kept):
            kept = candidates[outcome.end.attempt]
    totals = decoder.totals
    assert totals.drawn == totals.kept + totals.rejected + totals.surplus + totals.overrun
    return kept


def closed_form(settings: Settings) -> dict[str, float]:
    """Law of one step with N attempts and `refuse`: p(s) = m(s) a(s) (1 - (1 - Z)^N) / Z, the rest refused."""
    r0 = settings.alpha * settings.r_star
    tau = min(settings.r_star, r0 + (settings.r_star - r0) / settings.max_tokens)
    accept = {s: 0.0 if s == VETOED else min(1.0, math.exp((REWARD[s] - tau) / settings.beta)) for s in MODEL}
    z = sum(MODEL[s] * accept[s] for s in MODEL)
    scale = (1 - (1 - z) ** settings.attempts) / z
    law = {s: MODEL[s] * accept[s] * scale for s in MODEL}
    return {**law, "refused": (1 - z) ** settings.attempts}


@pytest.mark.parametrize("width", [1, 4, 6])
def test_law_of_a_step_is_the_closed_form(width: int) -> None:
    settings = Settings(
        segment_tokens=1,
        max_tokens=1,
        attempts=6,
        alpha=0.5,
        beta=0.4,
        r_star=1.0,
        parallel=width,
        on_exhausted="refuse",
    )
    n = 20_000
    seen = Counter(run_step(settings, seed) for seed in range(n))
    law = closed_form(settings)
    assert seen[VETOED] == 0
    statistic = sum((seen[s] - n * p) ** 2 / (n * p) for s, p in law.items() if p > 0)
    assert statistic < chi2.ppf(0.999, df=sum(p > 0 for p in law.values()) - 1)


def test_width_does_not_change_the_answer() -> None:
    answers = set()
    for width in (1, 2, 3, 8, "auto"):
        settings = Settings(segment_tokens=1, max_tokens=1, attempts=8, r_star=1.0, parallel=width)  # type: ignore[arg-type]
        answers.add(tuple(run_step(settings, seed) for seed in range(300)))
    assert len(answers) == 1


@given(
    seed=st.integers(0, 2**40),
    method=st.sampled_from(["stars", "cards", "vanilla", "best_of_n", "blockwise_best_of_k"]),
    exhausted=st.sampled_from(["best", "refuse", "stop", "raise"]),
    attempts=st.integers(1, 6),
    parallel=st.sampled_from(["auto", 1, 2, 5]),
    budget=st.none() | st.integers(1, 60),
    monitor=st.booleans(),
    data=st.data(),
)
def test_invariants(seed, method, exhausted, attempts, parallel, budget, monitor, data) -> None:  # type: ignore[no-untyped-def]
    settings = Settings(
        method=method,
        segment_tokens=3,
        max_tokens=8,
        attempts=attempts,
        r_star=1.0,
        parallel=parallel,
        on_exhausted=exhausted,
        budget_tokens=budget,
        monitor=monitor,
        entropy_threshold=1.0,
    )
    decoder = make_decoder(settings, seed)
    decoder.begin(data.draw(st.none() | st.floats(-2, 2)))
    judged: dict[int, Judgement] = {}
    tried = 0
    while isinstance(step := decoder.plan(), Generate):
        assert decoder.plan() == step
        if step.attempt == 0:
            judged, tried = {}, 0
        tried += len(step.seeds)
        assert tried <= attempts
        pairs = []
        for attempt in range(step.attempt, step.attempt + len(step.seeds)):
            length = data.draw(st.integers(1, step.limit))
            tokens = tuple(Token(0, "x") for _ in range(length))
            finish = data.draw(st.sampled_from([None, None, "eos", "stop"]))
            judgement = Judgement(
                reward=data.draw(st.floats(-3, 3)), veto=data.draw(st.sampled_from([None, None, "v"]))
            )
            judged[attempt] = judgement
            pairs.append((Candidate(tokens=tokens, text="x" * length, finish=finish), judgement))
        outcome = decoder.decide(pairs)
        totals = decoder.totals
        if isinstance(outcome.end, Kept) and decoder.needs_judgement and outcome.end.how != "monitored":
            assert judged[outcome.end.attempt].veto is None
        if outcome.end is not None and method != "vanilla":
            assert totals.drawn == totals.kept + totals.rejected + totals.surplus + totals.overrun
        assert outcome.retain <= judged.keys()
        if isinstance(outcome.end, Ended):
            break
    if monitor:
        assert isinstance(step, Done)
        assert step.finish in ("eos", "stop", "length", "budget")
    assert budget is None or decoder.totals.drawn <= budget
    assert decoder.totals.kept <= 8


@given(
    seed=st.integers(0, 2**40),
    method=st.sampled_from(["stars", "blockwise_best_of_k"]),
    parallel=st.sampled_from(["auto", 1, 3]),
    budget=st.integers(8, 40),
    data=st.data(),
)
def test_a_budget_that_holds_an_answer_gives_a_whole_one(seed, method, parallel, budget, data) -> None:  # type: ignore[no-untyped-def]
    """Nothing is ever good enough, and yet each segment gets a proposal. Vetoed ones are drawn again for as long as
    there are tokens."""
    settings = Settings(
        method=method,
        segment_tokens=3,
        max_tokens=8,
        attempts=4,
        r_star=50.0,
        acceptance="hard",
        parallel=parallel,
        schedule="constant",
        budget_tokens=budget,
    )
    decoder = make_decoder(settings, seed)
    decoder.begin(None)
    tried: dict[int, int] = {}
    while isinstance(step := decoder.plan(), Generate):
        tried[step.segment] = step.attempt + len(step.seeds)
        proposals = [
            Candidate(tokens=tuple(Token(0, "x") for _ in range(step.limit)), text="x", finish=None) for _ in step.seeds
        ]
        decoder.decide([(made, Judgement(reward=data.draw(st.floats(-3, 3)), veto=None)) for made in proposals])
    assert (step.finish, decoder.totals.kept) == ("length", 8)
    assert decoder.totals.drawn <= budget
    assert budget - decoder.totals.drawn < 2 or tried[2] == 4


def test_the_learned_threshold() -> None:
    steps = (Threshold(tokens=8, base=0.5, carry=0.5), Threshold(tokens=16, base=1.0, carry=1.0))

    def tau(tokens: int, prefix: float | None) -> float:
        settings = Settings(schedule="learned", thresholds=steps, r_star=3.0)
        return threshold(settings, tokens=tokens, prompt_reward=9.0, prefix_reward=prefix)

    assert [tau(n, 1.0) for n in (1, 8, 9, 16, 99)] == [1.0, 1.0, 2.0, 2.0, 2.0]
    assert (tau(16, 2.5), tau(16, None)) == (3.0, 3.0)


def test_the_learned_threshold_follows_what_was_kept() -> None:
    settings = Settings(
        segment_tokens=1,
        max_tokens=3,
        schedule="learned",
        acceptance="hard",
        r_star=50.0,
        attempts=2,
        parallel=1,
        thresholds=(Threshold(tokens=1, base=0.0, carry=1.0),),
    )
    decoder = make_decoder(settings, 1)
    assert decoder.needs_prompt_reward
    decoder.begin(2.0)
    seen = []
    for reward in (3.0, 2.5, 2.75, 2.8):
        decoder.plan()
        candidate = Candidate(tokens=(Token(0, "x"),), text="x", finish=None)
        (decision,) = decoder.decide([(candidate, Judgement(reward=reward, veto=None))]).decisions
        seen.append((decision.threshold, decision.verdict))
    # the second segment keeps its best, 2.75, which the third must reach
    assert seen == [(2.0, "accepted"), (3.0, "rejected"), (3.0, "rejected"), (2.75, "accepted")]


def test_auto_width_follows_acceptance_and_load() -> None:
    rates = (0.1, 0.3, 0.6, 0.95)
    assert [best_width(rate, 100, StepCosts.line(0.08).shared(1)) for rate in rates] == [8, 4, 2, 1]
    assert [best_width(rate, 100, StepCosts.line(0.08).shared(32)) for rate in rates] == [2, 1, 1, 1]
    assert best_width(0.1, 3) == 2
    seen = AcceptanceRate()
    for _ in range(200):
        seen.observe(False)
    assert seen.mean < 0.05
    for _ in range(200):
        seen.observe(True)
    assert seen.mean > 0.9


def test_misuse_is_named_and_changes_nothing() -> None:
    decoder = make_decoder(Settings(parallel=2), 1)
    with pytest.raises(ProtocolError):
        decoder.plan()
    decoder.begin(None)
    with pytest.raises(ProtocolError):
        decoder.decide([])
    step = decoder.plan()
    with pytest.raises(ProtocolError):
        decoder.decide([(one_token("a"), judge("a"))])
    assert decoder.plan() == step
    assert decoder.totals.drawn == 0


def cut(texts: list[str], stops: tuple[str, ...], held: str = "") -> Candidate:
    cutter = SegmentCutter(10, stops=stops, held=held)
    for text in texts:
        if cutter.feed(Token(0, text)):
            break
    return cutter.candidate()


def test_stop_strings() -> None:
    assert cut(["ab", "cST", "OPd"], ("STOP",)).text == "abc"
    spanning = cut(["OP and more"], ("STOP",), held="ST")
    assert (spanning.text, spanning.finish, spanning.stop_overlap) == ("", "stop", 2)
    assert cut(["xyz"], ("STOP",), held="ST").finish is None
    # of two stop strings the one that is complete first counts, however the text comes in tokens
    for texts in (["xabcd"], ["xa", "bcd"], ["x", "a", "b", "c", "d"]):
        assert (cut(texts, ("abcd", "bc")).text, cut(texts, ("abc", "bc")).text) == ("xa", "x")


def test_entropy_cut() -> None:
    cutter = SegmentCutter(10, cut_entropy=2.0)
    for entropy in (3.0, 0.1, 2.5, 3.0, 0.2, 2.5):
        assert not cutter.complete
        cutter.feed(Token(0, "x", entropy=entropy))
    assert cutter.complete
    candidate = cutter.candidate()
    assert (len(candidate), candidate.finish) == (5, None)
