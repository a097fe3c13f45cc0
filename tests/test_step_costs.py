"""What a row costs, measured on the engine itself, and the width that ``parallel: auto`` makes of it."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from conftest import USER, policy, rewarding, words
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.audit import MemoryStore
from stars_guard.backends._step_times import MANY, ROWS, step_times
from stars_guard.backends._token_sessions import TokenBackend
from stars_guard.backends.base import Backend, OpenRequest, Proposal, Session
from stars_guard.calling import portal
from stars_guard.core.judging import Judgement
from stars_guard.core.segments import Candidate, Passage, Token
from stars_guard.core.step_costs import StepCosts
from stars_guard.decoding import AcceptanceRate, Generate, Settings, best_width, make_decoder
from stars_guard.errors import BackendError
from stars_guard.guard import CallOptions, Guard
from stars_guard.testing.scripted import ScriptedBackend

Curve = Callable[[int], float]

CURVES: dict[str, Curve] = {
    "flat": lambda rows: 1.0,
    "nearly flat": lambda rows: 1 + 0.01 * (rows - 1),
    "linear": lambda rows: 1 + 0.08 * (rows - 1),
    "steep": lambda rows: float(rows),
    "stairs of 4": lambda rows: float(math.ceil(rows / 4)),
    "stairs of 8": lambda rows: float(math.ceil(rows / 8)),
    "one alone is cheap": lambda rows: 1.0 if rows == 1 else 1.7,
    "two cores": lambda rows: 1.0 if rows == 1 else 1.7 + 0.02 * max(0, rows - 8),
    "a roof": lambda rows: max(1.0, rows / 40),
}
WIDTHS = (1, 2, 4, 8, 16)

costs = st.lists(st.floats(0, 4), min_size=1, max_size=6).map(
    lambda rises: StepCosts(tuple((2**n, 1 + sum(rises[:n])) for n in range(len(rises) + 1)))
)


# --- the curve


@given(costs=costs, calls=st.integers(1, 100))
def test_a_curve_goes_through_its_points_and_never_falls(costs: StepCosts, calls: int) -> None:
    assert [costs.at(rows) for rows, _ in costs.points] == pytest.approx([cost for _, cost in costs.points])
    found = [costs.at(rows) for rows in range(1, 200)]
    assert found[0] == 1
    assert all(after >= before - 1e-9 for before, after in pairwise(found))
    shared = costs.shared(calls)
    assert shared(1) == pytest.approx(1)
    assert shared(4) == pytest.approx(costs.at(4 * calls) / costs.at(calls))


@given(seconds=st.dictionaries(st.sampled_from([1, 2, 3, 4, 8, 16, 64]), st.floats(1e-4, 10)))
def test_noise_makes_no_curve_that_falls(seconds: dict[int, float]) -> None:
    measured = StepCosts.measured(seconds)
    assert (measured is None) == (1 not in seconds or len(seconds) == 1)
    if measured is not None:
        for rows, took in seconds.items():
            assert measured.at(rows) >= took / seconds[1] * (1 - 1e-9)


@given(row_cost=st.floats(0, 2), calls=st.integers(1, 64), width=st.integers(1, 16))
def test_a_line_is_what_one_number_says(row_cost: float, calls: int, width: int) -> None:
    share = row_cost * calls / (1 + row_cost * (calls - 1))
    assert StepCosts.line(row_cost).shared(calls)(width) == pytest.approx(1 + share * (width - 1))


@pytest.mark.parametrize(
    "points", [(), ((1, 1.0),), ((2, 1.0), (4, 2.0)), ((1, 2.0), (2, 3.0)), ((1, 1.0), (2, 0.9)), ((1, 1.0), (1, 1.0)),
               ((1, 1.0), (2, math.inf)), ((1, 1.0), (2, math.nan))],
)  # fmt: skip
def test_what_is_no_curve_is_refused(points: tuple[tuple[int, float], ...]) -> None:
    with pytest.raises(ValueError, match="row"):
        StepCosts(points)


def test_a_flat_end_makes_no_thousand_rows_free() -> None:
    curve = StepCosts(((1, 1.0), (2, 1.7), (16, 1.7)))
    assert curve.at(16) == pytest.approx(1.7)
    assert curve.at(1024) > 30


# --- the width


@settings(max_examples=200)
@given(rate=st.floats(0, 1), most=st.integers(1, 40), costs=costs, calls=st.integers(1, 64))
def test_the_width_is_the_smallest_that_is_close_to_the_best(
    rate: float, most: int, costs: StepCosts, calls: int
) -> None:
    cost = costs.shared(calls)
    width = best_width(rate, most, cost)
    allowed = [one for one in WIDTHS if one <= most]
    assert width in allowed
    if rate > 0.001:
        times = {one: cost(one) / (1 - (1 - rate) ** one) for one in allowed}
        assert times[width] <= 1.1 * min(times.values())
        assert all(times[one] > times[width] for one in allowed if one < width)


def seconds_of(curve: Curve) -> dict[int, float]:
    return {rows: 0.02 * curve(rows) for rows in (*ROWS, *MANY)}


def simulated(curve: Curve, calls: int, acceptance: float, parallel: int | str, segments: int = 120) -> float:
    """The time of a long answer, one of ``calls``, in steps with one row. The decoder knows what was measured.

    A candidate is accepted by its place in the answer, so that each width needs the same number of attempts.
    """
    measured = StepCosts.measured(seconds_of(curve))
    assert measured is not None
    rate, took = AcceptanceRate(), 0.0
    decoding = Settings(segment_tokens=1, max_tokens=segments, attempts=1024, parallel=parallel, acceptance="hard")
    if parallel == "auto":
        coin = random.Random(1)
        for _ in range(200):
            rate.observe(coin.random() < acceptance)
    decoder = make_decoder(decoding, 1, rate)
    decoder.begin(0.0)
    one = Candidate(tokens=(Token(0, "x"),), text="x", finish=None)
    while isinstance(step := decoder.plan(measured.shared(calls)), Generate):
        took += curve(calls * len(step.seeds))
        coins = (random.Random(seed).random() for seed in step.seeds)
        decoder.decide([(one, Judgement(reward=5.0 if coin < acceptance else -5.0, veto=None)) for coin in coins])
    return took


@pytest.mark.parametrize("calls", [1, 4])
@pytest.mark.parametrize("acceptance", [0.1, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", CURVES)
def test_auto_is_within_a_tenth_of_the_best_fixed_width(name: str, acceptance: float, calls: int) -> None:
    curve = CURVES[name]
    best = min(simulated(curve, calls, acceptance, width) for width in WIDTHS)
    assert simulated(curve, calls, acceptance, "auto") <= 1.1 * best


# --- measuring


class Lane(Proposal):
    def __init__(self, session: LaneSession, limit: int) -> None:
        self.session, self.limit, self.given, self.made = session, limit, 0, 0
        self.halted = False
        self.news = asyncio.Event()

    @property
    def drawn(self) -> int:
        return self.made

    @property
    def live(self) -> bool:
        return not self.halted and self.made < self.limit

    async def __aiter__(self) -> AsyncIterator[Sequence[Token]]:
        while self.given < self.made or self.live:
            self.news.clear()
            if self.given == self.made:
                await self.news.wait()
                continue
            fresh, self.given = self.made - self.given, self.made
            yield [Token(0, "x")] * fresh

    def halt(self) -> None:
        self.halted = True
        self.news.set()

    async def aclose(self) -> None:
        self.halt()


class LaneSession(Session):
    prompt_tokens, room = 1, 10_000

    def __init__(self, engine: SteppingBackend) -> None:
        self.engine = engine
        engine.open_sessions += 1

    async def propose(self, seeds: Sequence[int], limit: int, *, ahead: int = 0) -> list[Proposal]:
        made = [Lane(self, limit) for _ in seeds]
        self.engine.join(made)
        return list(made)

    async def commit(self, proposal: Proposal, length: int, *, go_on: bool = False) -> int:
        await proposal.aclose()
        return proposal.drawn - length

    async def aclose(self) -> None:
        self.engine.open_sessions -= 1


class SteppingBackend(Backend):
    """All lanes get a token a step, and a step takes by its rows what a curve says, on a clock of its own."""

    def __init__(self, curve: Curve) -> None:
        self.identity = {"engine": "stepping", "model": "stepping"}
        self.curve, self.now, self.open_sessions, self.asked = curve, 0.0, 0, 0
        self.lanes: list[Lane] = []
        self.task: asyncio.Task[None] | None = None

    def join(self, lanes: Sequence[Lane]) -> None:
        self.lanes += lanes
        if self.task is None or self.task.done():
            self.task = asyncio.get_running_loop().create_task(self.run())

    async def run(self) -> None:
        await asyncio.sleep(0)
        while self.lanes:
            self.now += self.curve(len(self.lanes))
            for lane in self.lanes:
                lane.made += 1
                lane.news.set()
            for _ in range(3):
                await asyncio.sleep(0)
            self.lanes = [lane for lane in self.lanes if lane.live]

    async def open(self, request: OpenRequest) -> Session:
        return LaneSession(self)

    async def measure(self) -> None:
        self.asked += 1
        if self.measured is None:
            self.measured = StepCosts.measured(await step_times(self, limit=60, clock=lambda: self.now))

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("name", CURVES)
async def test_what_is_measured_is_what_steps_take(name: str) -> None:
    backend = SteppingBackend(CURVES[name])
    found = await step_times(backend, limit=60, clock=lambda: backend.now)
    assert found == {rows: pytest.approx(CURVES[name](rows)) for rows in (*ROWS, *MANY)}
    assert backend.open_sessions == 0
    assert not any(lane.live for lane in backend.lanes)


class Coin:
    """Accepts by chance, by the place of the candidate in the answer alone."""

    def __init__(self, acceptance: float) -> None:
        self._acceptance = acceptance
        self._seen: dict[tuple[str, int], int] = {}

    def __call__(self, passage: Passage) -> float:
        place = (passage.call_id, passage.index)
        self._seen[place] = attempt = self._seen.get(place, 0) + 1
        return 5.0 if random.Random(f"{passage.index} {attempt}").random() < self._acceptance else -5.0


@pytest.mark.parametrize(("name", "acceptance"), [("two cores", 0.3), ("steep", 0.3), ("nearly flat", 0.6)])
async def test_a_guard_measures_and_is_within_a_tenth_of_the_best_fixed_width(name: str, acceptance: float) -> None:
    async def took(parallel: int | str) -> float:
        backend = SteppingBackend(CURVES[name])
        decoding: dict[str, Any] = {"max_tokens": 120, "segment_tokens": 2, "attempts": 64, "acceptance": "hard"}
        made = Guard(
            policy(parallel=parallel, **decoding),
            model=backend,
            judges=[rewarding(Coin(acceptance))],
            audit=MemoryStore(),
        )
        await made.generate(USER)
        assert bool(backend.asked) is (parallel == "auto")
        begun = backend.now
        await made.generate(USER)
        return backend.now - begun

    best = min([await took(width) for width in WIDTHS])
    assert await took("auto") <= 1.1 * best


# --- what it changes, and what not


@settings(max_examples=30)
@given(
    costs=st.lists(costs, min_size=2, max_size=2),
    seed=st.integers(0, 2**31),
    budget=st.one_of(st.none(), st.integers(8, 60)),
    ending=st.sampled_from(["best", "refuse", "stop"]),
    seen=st.lists(st.booleans(), max_size=20),
)
def test_a_seed_gives_the_same_answer_whatever_a_row_costs(
    costs: list[StepCosts], seed: int, budget: int | None, ending: str, seen: list[bool]
) -> None:
    """Nor what other calls have seen before, not even where a budget pays for some candidates and not for others."""
    found = []
    for number, curve in enumerate(costs):
        backend = ScriptedBackend(words())
        backend.measured = curve
        made = Guard(
            policy(budget_tokens=budget, on_exhausted=ending), model=backend, judges=[rewarding()], audit=MemoryStore()
        )
        for accepted in seen * number:
            made._rate.observe(accepted)
        done = made.blocking.generate(USER, CallOptions(seed=seed))
        found.append((done.text, done.finish, done.reason, done.totals.kept))
        if budget is not None:
            found[-1] += (done.totals,)  # type: ignore[assignment]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("settings", "mode", "is_asked"),
    [
        ({}, "enforce", True),
        ({"method": "cards"}, "enforce", True),
        ({"parallel": 1}, "enforce", False),
        ({"parallel": 4}, "enforce", True),  # it may run ahead
        ({"parallel": 4, "optimistic": False}, "enforce", False),
        ({"method": "vanilla"}, "enforce", False),
        ({"method": "best_of_n", "optimistic": False}, "enforce", False),
        ({"budget_tokens": 60}, "enforce", False),
        ({}, "monitor", False),
        ({}, "off", False),
    ],
)
async def test_only_a_width_that_is_chosen_is_measured_for(settings: dict[str, Any], mode: str, is_asked: bool) -> None:
    class Asked(ScriptedBackend):
        asked = 0

        async def measure(self) -> None:
            self.asked += 1

    backend = Asked(words())
    made = Guard(policy(mode=mode, **settings), model=backend, judges=[rewarding()], audit=MemoryStore())
    await made.load()
    await made.generate(USER)
    assert (backend.asked > 0) is is_asked


class Measured(TokenBackend[Any]):
    """Its sessions are never opened but to measure it."""

    options_model = StepCosts  # type: ignore[assignment]

    def __init__(self, curve: Curve | None) -> None:
        super().__init__()
        self.identity = {"model": "m"}
        self.curve, self.opened = curve, 0
        self.stepping = SteppingBackend(curve or CURVES["flat"])

    @classmethod
    async def load(cls, model: str, options: Any) -> Measured:
        raise NotImplementedError

    async def _open(self, request: OpenRequest) -> Any:
        self.opened += 1
        await asyncio.sleep(0)
        if self.curve is None:
            raise BackendError("it failed")
        return LaneSession(self.stepping)

    async def _free(self) -> None:
        pass


async def test_many_first_calls_measure_once() -> None:
    backend = Measured(CURVES["linear"])
    await asyncio.gather(*(backend.measure() for _ in range(8)))
    assert backend.opened == 1
    assert backend.measured is not None


async def test_a_busy_engine_is_measured_once_it_is_idle() -> None:
    backend = Measured(CURVES["linear"])
    backend.active_calls = 3
    await backend.measure()
    assert (backend.opened, backend.measured) == (0, None)
    backend.active_calls = 0
    await backend.measure()
    assert (backend.opened, backend.measured is None) == (1, False)


async def test_an_engine_that_fails_is_left_to_the_call() -> None:
    backend = Measured(None)
    await backend.measure()
    await backend.measure()
    assert backend.opened == 1
    assert backend.step_costs == StepCosts.line(backend.row_cost)


async def test_a_slow_engine_is_not_waited_for() -> None:
    class Slow(SteppingBackend):
        async def run(self) -> None:
            await asyncio.sleep(3600)

    backend = Slow(CURVES["flat"])
    assert await step_times(backend, limit=0.05) == {}
    assert backend.open_sessions == 0
    assert not any(lane.live for lane in backend.lanes)
    assert backend.task is not None
    backend.task.cancel()


async def test_an_engine_that_fails_with_many_rows_was_measured_with_fewer() -> None:
    class Small(SteppingBackend):
        def join(self, lanes: Sequence[Lane]) -> None:
            if len(lanes) > 4:
                raise BackendError("no memory")
            super().join(lanes)

    backend = Small(CURVES["linear"])
    assert set(await step_times(backend, limit=60, clock=lambda: backend.now)) == {1, 2, 4}
    assert backend.open_sessions == 0


def test_the_embedded_model_can_be_measured(transformers_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stars_guard.backends._step_times.TURNS", (1, 2))
    slots = transformers_engine.slots
    before = slots.rows_in_use
    found = portal.call(lambda: step_times(transformers_engine, limit=300))
    assert set(found) == {1, 2}
    assert StepCosts.measured(found) is not None
    assert slots.rows_in_use == before
