"""Calibration: the arithmetic on made rewards, the file that is written, and the command on the real model."""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from stars_guard.calibration.early_stop import Tries, attempts_by_position
from stars_guard.calibration.learned_schedule import learn
from stars_guard.calibration.thresholds import SHARPNESS, Answer, fit, mean_acceptance, predict, rewards_by_segment
from stars_guard.cli.app import app
from stars_guard.decoding import Settings
from stars_guard.decoding.verdict import threshold
from stars_guard.errors import PolicyError
from stars_guard.policy import load_policy
from stars_guard.policy.edit import write_decoding

SETTINGS = Settings(segment_tokens=8, max_tokens=32, attempts=6, alpha=0.5, r_star=0.0)


def drawn(count: int, seed: int = 0) -> list[Answer]:
    """Rewards that wander: each is the last one and some noise."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        rewards = [rng.gauss(0, 1)]
        while len(rewards) < rng.choice((2, 4)):
            rewards.append(rewards[-1] + rng.gauss(0, 0.5))
        made.append(Answer(0.1, tuple(8 * (k + 1) for k in range(len(rewards))), tuple(rewards)))
    return made


@given(st.floats(0.05, 0.95), st.integers(0, 1000))
def test_the_proposed_numbers_give_the_wanted_rate(acceptance: float, seed: int) -> None:
    answers = drawn(50, seed)
    found = fit(answers, SETTINGS, acceptance)
    rows = predict(answers, found)
    counts = [position.count for position in rewards_by_segment(answers)]
    mean = sum(row.acceptance * n for row, n in zip(rows, counts, strict=True)) / sum(counts)
    assert mean == pytest.approx(acceptance, abs=1e-6)
    assert all(1 <= row.candidates <= SETTINGS.attempts for row in rows)
    assert all(row.tau <= found.r_star + 1e-9 for row in rows)


def test_beta_is_a_share_of_the_spread_and_scales_with_the_reward() -> None:
    answers = drawn(400)
    found = fit(answers, SETTINGS, 0.5)
    first = statistics.pstdev(answer.rewards[0] for answer in answers)
    assert found.beta == pytest.approx(SHARPNESS * first, rel=0.5)
    assert found.beta > SHARPNESS * first
    tenfold = [Answer(1.0, a.tokens, tuple(10 * r for r in a.rewards)) for a in answers]
    scaled = fit(tenfold, SETTINGS, 0.5)
    assert (scaled.r_star, scaled.beta) == pytest.approx((10 * found.r_star, 10 * found.beta), rel=1e-6)


@given(st.floats(0.1, 0.9), st.integers(0, 1000), st.sampled_from(["gibbs", "hard"]))
def test_learned_thresholds_give_the_wanted_rate(acceptance: float, seed: int, rule: str) -> None:
    answers = drawn(60, seed)
    found = learn(answers, SETTINGS.changed(acceptance=rule, r_star=50.0), acceptance)
    assert found.schedule == "learned"
    assert [step.tokens for step in found.thresholds] == [8, 16, 24, 32][: len(found.thresholds)]
    assert mean_acceptance(answers, found) == pytest.approx(acceptance, abs=0.02)


def walk(policy: Settings | int, rng: random.Random) -> tuple[float, int]:
    """An answer of four segments whose rewards wander from a start that differs by prompt: its last reward, and the
    proposals that it took. A number stands for best of so many a segment."""
    reward, proposals = rng.gauss(0, 2), 0
    settings = SETTINGS if isinstance(policy, int) else policy
    start = reward
    for k in range(4):
        best = -math.inf
        for _ in range(policy if isinstance(policy, int) else 20):
            proposals += 1
            drawn_reward = reward + rng.gauss(0, (1.0, 0.3, 0.3, 0.1)[k])
            best = max(best, drawn_reward)
            if isinstance(policy, Settings):
                tau = threshold(settings, tokens=8 * (k + 1), prompt_reward=start, prefix_reward=reward)
                if drawn_reward >= tau:
                    best = drawn_reward
                    break
        reward = best
    return reward, proposals


def test_learned_thresholds_buy_more_reward_for_fewer_proposals_than_the_other_ways() -> None:
    rng = random.Random(1)
    answers = []
    for _ in range(400):
        start = rng.gauss(0, 2)
        rewards, reward = [], start
        for spread in (1.0, 0.3, 0.3, 0.1):
            reward += rng.gauss(0, spread)
            rewards.append(reward)
        answers.append(Answer(start, (8, 16, 24, 32), tuple(rewards)))
    hard = SETTINGS.changed(acceptance="hard", attempts=20, r_star=50.0)
    ways = {"learned": learn(answers, hard, 0.62), "linear": fit(answers, hard, 0.55), "best of 2": 2}
    told = {}
    for name, way in ways.items():
        rows = [walk(way, random.Random(seed)) for seed in range(4000)]
        told[name] = (statistics.fmean(r for r, _ in rows), statistics.fmean(n for _, n in rows))
    assert told["best of 2"][1] == 8
    for other in ("linear", "best of 2"):
        assert told["learned"][0] > told[other][0] + 0.1, told
        assert told["learned"][1] < told[other][1], told


def test_learning_says_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="8 answers"):
        learn(drawn(7), SETTINGS, 0.5)
    with pytest.raises(ValueError, match="prompts are not known"):
        learn([replace(answer, prompt_reward=None) for answer in drawn(20)], SETTINGS, 0.5)
    with pytest.raises(ValueError, match="raise it"):
        learn(drawn(20), SETTINGS.changed(r_star=-50.0), 0.5)
    few = [*drawn(20), Answer(0.0, (8, 16, 24, 32, 40), (1.0, 1.0, 1.0, 1.0, 1.0))]
    steps = learn(few, SETTINGS.changed(max_tokens=40, r_star=50.0), 0.5).thresholds
    assert [step.tokens for step in steps] == [8, 16, 24, 32, 40]
    assert (steps[4].base, steps[4].carry) == (steps[3].base, steps[3].carry)


def test_positions() -> None:
    answers = [Answer(None, (8, 16), (float(i), float(i))) for i in range(101)] + [Answer(None, (3,), (50.0,))]
    first, last = rewards_by_segment(answers)
    assert (first.count, last.count) == (102, 101)
    assert last.quantiles == (5.0, 25.0, 50.0, 75.0, 95.0)
    assert first.correlation == pytest.approx(1.0)
    assert last.correlation is None
    noise = [Answer(None, (8, 16), (1.0, float(i))) for i in range(9)]
    assert rewards_by_segment(noise)[0].correlation is None
    assert rewards_by_segment([]) == []
    with pytest.raises(ValueError, match="rewards"):
        fit([], SETTINGS, 0.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("decoding:\n  # why\n  r_star: 1.0   # old\n  attempts: 3\n", "r_star: 2.5   # old"),
        ("decoding: {r_star: 1.0, attempts: 3}  # all\n", "decoding: {beta: 0.25, r_star: 2.5, attempts: 3}  # all"),
        ("decoding:\n    attempts: 3\n", "    beta: 0.25\n    r_star: 2.5\n    attempts: 3"),
        ("description: none\n", "description: none\ndecoding:\n"),
        ("decoding: {}  # none\n", "decoding: {beta: 0.25, r_star: 2.5}  # none"),
    ],
)
def test_writing_changes_two_numbers_and_nothing_else(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "p.yaml"
    head = "# a head\napiVersion: stars-guard/v1\nname: x # a name\n\n"
    path.write_text(head + text)
    path.chmod(0o640)
    write_decoding(path, {"r_star": 2.5, "beta": 0.25})
    found = path.read_text()
    assert found.startswith(head)
    assert expected in found
    policy = load_policy(path)
    assert (policy.decoding.r_star, policy.decoding.beta) == (2.5, 0.25)
    assert path.stat().st_mode & 0o777 == 0o640
    kept = [line for line in (head + text).splitlines() if "decoding: {" not in line and "r_star" not in line]
    assert [line for line in found.splitlines() if line in kept] == kept
    assert [file.name for file in tmp_path.iterdir()] == ["p.yaml"]


@pytest.mark.parametrize("text", ["decoding:\n  attempts: 3  # few\n", "decoding: {attempts: 3}\n", ""])
def test_a_learned_schedule_is_written_and_written_again(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("apiVersion: stars-guard/v1\nname: x\n" + text)
    for base in (0.123456, -7.0):
        steps = [{"tokens": 16, "base": base, "carry": 0.9}, {"tokens": 32, "base": 1.0, "carry": 1.0}]
        write_decoding(path, {"beta": 0.25, "thresholds": steps, "schedule": "learned"})
        decoding = load_policy(path).decoding
        assert decoding.schedule == "learned"
        assert [(s.tokens, s.base, s.carry) for s in decoding.thresholds] == [
            (16, pytest.approx(base, rel=1e-3), 0.9),
            (32, 1.0, 1.0),
        ]
    assert path.read_text().count("thresholds") == 1


def test_what_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    for decoding in ("decoding: {r_star: &a 1.0, beta: *a}\n", "decoding:\n  {}\n"):
        text = f"apiVersion: stars-guard/v1\nname: x\n{decoding}"
        path.write_text(text)
        with pytest.raises(PolicyError, match=r"write r_star: 2\.5, beta: 0\.25 yourself"):
            write_decoding(path, {"r_star": 2.5, "beta": 0.25})
        assert path.read_text() == text
        assert [file.name for file in tmp_path.iterdir()] == ["p.yaml"]


def test_writing_keeps_links_and_line_ends(tmp_path: Path) -> None:
    path, link = tmp_path / "p.yaml", tmp_path / "link.yaml"
    path.write_bytes(b"apiVersion: stars-guard/v1\r\nname: x\r\ndecoding:\r\n  r_star: 1.0\r\n")
    link.symlink_to("p.yaml")
    write_decoding(link, {"r_star": 2.5, "beta": 0.25})
    assert link.is_symlink()
    assert path.read_bytes().endswith(b"decoding:\r\n  beta: 0.25\r\n  r_star: 2.5\r\n")


def test_the_command_on_the_real_model(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    asks = ("How do I boil an egg?", "Say something rude.", "Why is the sky blue?")
    prompts.write_text("".join(json.dumps({"prompt": ask}) + "\n" for ask in asks))
    policy = tmp_path / "mine.yaml"
    policy.write_text("# mine\nextends: default\nname: mine\ndecoding: {r_star: 50.0}\n")
    given = ["calibrate", "--policy", str(policy), "--prompts", str(prompts), "--samples", "3", "--max-tokens", "48"]
    given += ["--backend", "transformers", "--acceptance", "0.4", "--write"]
    output = ""
    for kind in ("html", "png", "svg"):
        # once as a user would; the other pictures are drawn of little
        small = [] if kind == "html" else ["--samples", "1", "--max-tokens", "16"]
        plot = tmp_path / f"plot.{kind}"
        done = CliRunner().invoke(app, [*given, *small, "--plot", str(plot)], catch_exceptions=False)
        assert done.exit_code == 0
        assert plot.stat().st_size > 5000
        output = output or done.output
        given = [*given[:-1]] if "--write" in given else given
    decoding = load_policy(policy).decoding
    assert decoding.r_star < 10
    assert policy.read_text().startswith("# mine\nextends: default\n")
    assert f"r_star: {decoding.r_star:.4g}" in output
    assert "candidates a segment" in output
    assert CliRunner().invoke(app, [*given, "--policy", "default", "--write"]).exit_code == 2
    assert CliRunner().invoke(app, [*given, "--plot", "x.bmp"]).exit_code == 2


def bent(reward: float, rng: random.Random) -> float:
    """A reward that falls back once it is good."""
    return (reward if reward < 0 else -0.5 * reward) + rng.gauss(0, 0.5)


def guided(settings: Settings | None, rng: random.Random) -> Answer:
    """Four segments of what `bent` gives, kept as the settings have it; without settings all are kept."""
    start = rng.gauss(-1, 1)
    reward, rewards, prefixes = start, [], []
    for k in range(4):
        prefixes.append(reward)
        tries = [bent(reward, rng) for _ in range(6 if settings else 1)]
        rewards.append(tries[0])
        tau = threshold(settings, tokens=8 * (k + 1), prompt_reward=start, prefix_reward=reward) if settings else -99.0
        reward = next((each for each in tries if each >= tau), max(tries))
    if settings is None:
        return Answer(start, (8, 16, 24, 32), tuple(rewards))
    return Answer(start, (8, 16, 24, 32), tuple(rewards), tuple(prefixes), reward)


@pytest.mark.parametrize("wanted", [0.2, 0.4])
def test_thresholds_learned_at_guided_prefixes_give_the_wanted_rate_there(wanted: float) -> None:
    """What unguarded answers teach is off where a guard keeps better prefixes than the model alone has."""
    rng = random.Random(3)
    hard = SETTINGS.changed(acceptance="hard", r_star=50.0)
    found = learn([guided(None, rng) for _ in range(700)], hard, wanted)
    again = learn([guided(found, rng) for _ in range(700)], hard, wanted)
    off, near = (abs(mean_acceptance([guided(way, rng) for _ in range(1500)], way) - wanted) for way in (found, again))
    assert near < 0.025
    assert off > 1.5 * near


def tries_of(chances: list[list[float]], most: int, count: int, rng: random.Random) -> list[Tries]:
    """Segments whose n-th attempt is accepted with the n-th chance of their position, or else with the last."""
    made = []
    for _ in range(count):
        for index, chance in enumerate(chances):
            won = next((n for n in range(most) if rng.random() < chance[min(n, len(chance) - 1)]), None)
            made.append(Tries(index, most if won is None else won + 1, won is not None))
    return made


def test_attempts_end_where_they_do_not_pay() -> None:
    settings = Settings(segment_tokens=8, max_tokens=32, attempts=8)
    chances = [[0.5, 0.4, 0.3, 0.02], [0.5, 0.02], [0.5, 0.02], [0.6, 0.3]]
    tries = tries_of(chances, 8, 1000, random.Random(0))
    steps = attempts_by_position(tries, settings, 0.1)
    assert [(step.tokens, step.attempts) for step in steps] == [(8, 3), (24, 1), (32, 8)]
    assert [(step.tokens, step.attempts) for step in attempts_by_position(tries, settings, 0.0)] == [(32, 8)]
    # a chance that comes late is waited for: four attempts that bring nothing, and then one that does
    late = tries_of([[0.2, 0, 0, 0, 0.9, 0]], 8, 200, random.Random(0))
    assert attempts_by_position(late, settings, 0.15)[0].attempts == 5
    assert attempts_by_position(late, settings, 0.3)[0].attempts == 1


@given(st.integers(0, 10**6), st.floats(0, 1), st.integers(1, 12), st.integers(0, 60))
def test_attempts_by_position_are_a_schedule_within_the_policys(seed: int, least: float, most: int, count: int) -> None:
    rng = random.Random(seed)
    settings = Settings(segment_tokens=8, max_tokens=64, attempts=most)
    tries = tries_of([[rng.random() for _ in range(4)] for _ in range(rng.randint(1, 6))], most, count, rng)
    steps = attempts_by_position(tries, settings, least)
    assert bool(steps) == bool(tries)
    if steps:
        found = settings.changed(attempts=steps)
        assert all(1 <= found.attempts_at(kept) <= most for kept in range(64))
        assert all(a.attempts != b.attempts for a, b in itertools.pairwise(steps))


def test_guided_answers_and_attempts_on_the_real_model(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    asks = ("How do I boil an egg?", "Say something rude.", "Why is the sky blue?")
    prompts.write_text("".join(json.dumps({"prompt": ask}) + "\n" for ask in asks))
    policy = tmp_path / "mine.yaml"
    policy.write_text(
        "extends: default\nname: mine\noverride: true\ndecoding: {r_star: 50.0, segment_tokens: 8, attempts: 3}\n"
    )
    given = ["calibrate", "--policy", str(policy), "--prompts", str(prompts), "--samples", "3", "--max-tokens", "24"]
    given += ["--backend", "transformers", "--schedule", "learned", "--worth", "0.5", "--write"]
    done = CliRunner().invoke(app, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    decoding = load_policy(policy).decoding
    assert decoding.schedule == "learned"
    assert decoding.thresholds
    assert isinstance(decoding.attempts, tuple)
    assert all(step.attempts <= 3 for step in decoding.attempts)
