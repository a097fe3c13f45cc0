"""Training a probe: what is learnt from planted states, how it is measured, and the command from end to end."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import USER, policy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from probe_files import a_model
from scipy import stats
from typer.testing import CliRunner

from stars_guard.audit import MemoryStore
from stars_guard.calibration.probe_fit import fit_probe
from stars_guard.calibration.probe_kept import KeptSamples
from stars_guard.calibration.probe_report import auc, report, spearman
from stars_guard.calibration.probe_samples import Sample, is_held_out
from stars_guard.cli.app import app
from stars_guard.core.segments import Passage
from stars_guard.engines.probes import Card, Probe, load_probe, save_probe
from stars_guard.errors import InputError
from stars_guard.guard import Guard

WIDTH = 24


def planted(count: int, seed: int, *, noise: float = 0.3) -> list[Sample]:
    """States with a large common part, in which one direction tells the score."""
    torch.manual_seed(1)
    common, direction = torch.randn(WIDTH) * 30, torch.randn(WIDTH)
    torch.manual_seed(seed)
    found = []
    for number in range(count):
        length, state = 1 + 0.1 * torch.randn(()), torch.randn(WIDTH)
        score = float(state @ direction / direction.norm() + noise * torch.randn(()))
        found.append(
            Sample(
                prompt=f"{(number // 4) * 2654435761 % 2**48:012x}",
                call=f"{seed}-{number // 4}",
                index=number % 4,
                last=number % 4 == 3,
                guarded=number % 8 >= 4,
                state=tuple((common * length + state).tolist()),
                score=score,
            )
        )
    return found


def trained(path: Path, kind: Any, bad: Any, samples: list[Sample]) -> Probe:
    tensors = fit_probe(samples, bad, kind)
    link: Any = "logistic" if kind == "logistic" else "identity"
    save_probe(path, Card(model="m", model_sha256="", width=WIDTH, link=link), tensors)
    return load_probe(path)


def scoring(probe: Probe) -> Any:
    rows = torch.tensor(probe.directions.rows, dtype=torch.float64)
    return lambda state: probe.score((rows @ torch.tensor(state, dtype=torch.float64)).tolist())


@pytest.mark.parametrize("kind", ["ridge", "logistic"])
@pytest.mark.parametrize("high_is_bad", [False, True])
def test_a_planted_direction_is_found(kind: Any, high_is_bad: bool, tmp_path: Path) -> None:
    def bad(score: float) -> bool:
        return score > 0.4 if high_is_bad else score < 0.4

    probe = trained(tmp_path / "p", kind, bad, planted(600, 2))
    chance = kind == "logistic"
    found = report(planted(400, 3), scoring(probe), bad, high_is_bad=high_is_bad or chance, forecasts_chance=chance)
    whole = found.positions[-1]
    assert whole.texts == 400
    assert whole.auc is not None
    assert whole.spearman is not None
    assert whole.auc > 0.91
    assert abs(whole.spearman) > 0.88
    assert abs(whole.bias) < 0.1
    assert {one.segments for one in found.positions} == {1, 2, 3, 4, None}
    # passing by the limit misses no more than it says, and the more may be missed the more is saved
    score = scoring(probe)
    rows = [(score(one.state), bad(one.score)) for one in planted(400, 3)]
    for saving in found.savings:
        free = [is_bad for said, is_bad in rows if (said < saving.limit) == (saving.side == "below")]
        assert len(free) / 400 == pytest.approx(saving.saved, abs=0.011)
        assert sum(free) <= saving.miss * sum(is_bad for _, is_bad in rows) + 1
    assert [one.saved for one in found.savings] == sorted(one.saved for one in found.savings)
    assert found.savings[-1].saved > 0.3
    # so on the other side: what the probe rejects by itself, and how much of it the teacher would have accepted
    for saving in found.rejections:
        sure = [is_bad for said, is_bad in rows if (said < saving.limit) == (saving.side == "below")]
        assert len(sure) / 400 == pytest.approx(saving.saved, abs=0.011)
        assert len(sure) - sum(sure) <= saving.miss * sum(not is_bad for _, is_bad in rows) + 1
    assert {one.side for one in found.savings}.isdisjoint(one.side for one in found.rejections)
    # and with the limit that is even, it rejects as many as the teacher
    assert found.even is not None
    worse = [said > found.even if found.savings[0].side == "below" else said < found.even for said, _ in rows]
    assert sum(worse) == sum(is_bad for _, is_bad in rows)
    assert all(0 < one.answers <= 50 for one in found.forecasts)
    json.dumps(found.as_numbers)


def test_an_inner_layer_finds_what_no_line_can(tmp_path: Path) -> None:
    def bent(samples: list[Sample]) -> list[Sample]:
        return [Sample(**{**_fields(one), "score": abs(one.score) + 0.2 * one.score}) for one in samples]

    found = {}
    for inner in (0, 8):
        tensors = fit_probe(bent(planted(1200, 2)), lambda score: score < 0.5, "ridge", inner=inner)
        save_probe(tmp_path / "p", Card(model="m", model_sha256="", width=WIDTH), tensors)
        probe = load_probe(tmp_path / "p")
        assert (probe.inner is None) == (inner == 0)
        score = scoring(probe)
        found[inner] = spearman(
            [score(one.state) for one in planted(400, 3)], [one.score for one in bent(planted(400, 3))]
        )
    assert (found[8] or 0) > (found[0] or 0) + 0.3


def test_values_are_about_zero_and_one_so_that_half_precision_is_enough(tmp_path: Path) -> None:
    probe = trained(tmp_path / "p", "ridge", lambda score: score < 0, planted(600, 2))
    rows = torch.tensor(probe.directions.rows, dtype=torch.float64)
    values = torch.tensor([one.state for one in planted(400, 3)], dtype=torch.float64) @ rows.T
    assert abs(float(values.mean())) < 0.5
    assert 0.7 < float(values.std()) < 1.4


def test_noise_is_not_learnt(tmp_path: Path) -> None:
    """Nothing is planted: held out, the probe tells nothing, and its forecast is the mean."""
    probe = trained(tmp_path / "p", "ridge", lambda score: score < 0, planted(200, 2, noise=1000.0))
    found = report(planted(400, 3, noise=1000.0), scoring(probe), lambda score: score < 0, high_is_bad=False)
    assert abs(found.positions[-1].spearman or 0) < 0.2


@pytest.mark.parametrize("scores", [[1.0] * 80, None])
def test_what_can_not_be_learnt_from_is_an_error(scores: list[float] | None) -> None:
    samples = planted(80 if scores else 16, 2)
    if scores:
        samples = [Sample(**{**_fields(one), "score": score}) for one, score in zip(samples, scores, strict=True)]
    with pytest.raises(ValueError, match=r"says the same|different prompts"):
        fit_probe(samples, lambda score: score < 0, "ridge")


def _fields(sample: Sample) -> dict[str, Any]:
    return {name: getattr(sample, name) for name in Sample.__dataclass_fields__}


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.booleans()), max_size=30))
def test_rank_numbers_are_those_of_scipy(rows: list[tuple[int, int, bool]]) -> None:
    first, second = [float(a) for a, _, _ in rows], [float(b) for _, b, _ in rows]
    found = spearman(first, second)
    if found is None:
        assert len(rows) < 3 or len(set(first)) < 2 or len(set(second)) < 2
    else:
        assert found == pytest.approx(stats.spearmanr(first, second).statistic)
    wanted = [flag for _, _, flag in rows]
    high, low = (
        [a for a, flag in zip(first, wanted, strict=True) if flag],
        [a for a, flag in zip(first, wanted, strict=True) if not flag],
    )
    area = auc(first, wanted)
    if not high or not low:
        assert area is None
    else:
        assert area == pytest.approx(stats.mannwhitneyu(high, low).statistic / len(high) / len(low))


def test_prompts_are_divided_by_what_they_are() -> None:
    digests = [f"{number * 2654435761 % 2**32:08x}" for number in range(2000)]
    held = [one for one in digests if is_held_out(one, 0.3)]
    assert 0.25 < len(held) / len(digests) < 0.35
    assert set(held) <= {one for one in digests if is_held_out(one, 0.5)}


def kept_in(where: Path, **about: Any) -> KeptSamples:
    return KeptSamples(where, {"model": "m", "seed": 0, **about})


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 3), max_size=80), cuts=st.sets(st.integers(0, 80), max_size=4))
def test_a_run_goes_on_from_what_is_kept(sizes: list[int], cuts: set[int], tmp_path: Path) -> None:
    """However often it is cut off, the samples of all answers are there in the end, as they were."""
    where = Path(tempfile.mkdtemp(dir=tmp_path))
    made = planted(sum(sizes), 2)
    wanted, kept = {}, kept_in(where)
    for number, size in enumerate(sizes):
        if number in cuts:
            kept.write()
            kept = kept_in(where)
        wanted[f"answer {number}"], made = made[:size], made[size:]
        kept.add(f"answer {number}", wanted[f"answer {number}"])
    kept.write()
    found = kept_in(where).samples
    assert found.keys() == wanted.keys()
    for name, samples in wanted.items():
        for one, other in zip(found[name], samples, strict=True):
            assert _fields(one) == {**_fields(other), "state": one.state}
            assert list(one.state) == pytest.approx(other.state, rel=1e-6)


def test_what_is_kept_belongs_to_one_run(tmp_path: Path) -> None:
    kept = kept_in(tmp_path / "kept")
    kept.add("a", planted(2, 2))
    kept.write()
    with pytest.raises(InputError, match="differs in seed"):
        kept_in(tmp_path / "kept", seed=1)
    (part,) = (tmp_path / "kept").iterdir()
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(InputError, match="can't be read"):
        kept_in(tmp_path / "kept")


def vowels(passage: Passage) -> float:
    """A teacher: the share of vowels among the answer's letters."""
    letters = [one for one in passage.answer.lower() if one.isalpha()]
    return sum(one in "aeiou" for one in letters) / len(letters) if letters else 0.4


def test_the_command_trains_shows_installs_and_the_probe_judges(
    embedded_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    where = a_model(tmp_path / "model", embedded_model)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Name river number {number}."}) + "\n" for number in range(20)))
    teacher = {"type": "python", "name": "vowels", "call": "test_probe_train:vowels", "weight": 1.0}
    made = tmp_path / "policy.yaml"
    made.write_text(json.dumps(dict(policy(judges=[teacher], segment_tokens=4, r_star=0.38, attempts=2))))
    out, picture = tmp_path / "made" / "probe.safetensors", tmp_path / "plot.png"
    command = ["probe", "train", "--policy", str(made), "--prompts", str(prompts), "-o", str(out)]
    command += ["--model", str(where), "--max-tokens", "8", "--allow-python", "--plot", str(picture)]
    kept = tmp_path / "kept"
    command += ["--samples", str(kept)]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert picture.stat().st_size > 1000
    tables = [line for line in result.output.splitlines() if line[:1] in "┏┃┡│└"]
    assert tables
    assert all(len(line) <= 80 for line in tables)
    assert "…" not in result.output.split("learnt")[1]
    probe = load_probe(out)
    assert probe.card.teacher["judge"] == "vowels"
    assert probe.card.notes["texts"] >= 20
    assert probe.card.measured["positions"]
    shown = CliRunner().invoke(app, ["probe", "show", str(out)], catch_exceptions=False)
    assert json.loads(shown.output)["model_sha256"] == probe.card.model_sha256
    # another fit from the same samples generates nothing, and what is kept holds no text
    parts = {part: part.read_bytes() for part in kept.iterdir()}
    assert len(parts) == 2
    assert all(b"river" not in part for part in parts.values())
    again = CliRunner().invoke(app, [*command, "--fit", "logistic"], catch_exceptions=False)
    assert again.exit_code == 0, again.output
    assert load_probe(out).card.notes["texts"] == probe.card.notes["texts"]
    assert {part: part.read_bytes() for part in kept.iterdir()} == parts
    # a run that was cut off ends as one that was not
    max(parts).unlink()
    again = CliRunner().invoke(app, command, catch_exceptions=False)
    assert again.exit_code == 0, again.output
    assert load_probe(out).card.notes == probe.card.notes
    assert load_probe(out).weight == pytest.approx(probe.weight, rel=1e-3)
    copy = tmp_path / "copy"
    result = CliRunner().invoke(
        app, ["probe", "install", str(where), str(out), "-o", str(copy)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    judge = {"type": "probe", "name": "inside", "probe": str(out), "weight": 1.0}
    store = MemoryStore()
    for model in (where, copy):
        with Guard(
            policy(judges=[judge], segment_tokens=4, max_tokens=8),
            model=str(model),
            backend="transformers",
            audit=store,
        ).blocking as guard:
            guard.generate(USER)
    for record in store.read():
        values = [one.value for part in record.segments for each in part.attempts for one in each.scores]
        assert values
        assert all(value is not None and 0 < value < 1 for value in values)


def test_a_policy_without_a_clear_teacher_is_an_error(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "x"}\n')
    first = {"type": "python", "name": "vowels", "call": "test_probe_train:vowels", "weight": 1.0}
    cases = {
        "name one with --teacher": ([first, {**first, "name": "again"}], []),
        "it has vowels": ([first], ["--teacher", "consonants"]),
    }
    for said, (judges, more) in cases.items():
        made = tmp_path / "policy.yaml"
        made.write_text(json.dumps(dict(policy(judges=judges))))
        command = ["probe", "train", "--policy", str(made), "--prompts", str(prompts), "-o", str(tmp_path / "p"), *more]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2
        assert said in " ".join(result.output.split())
