"""``python -m benchmarks.probe_training``: train the probe that `benchmarks.probe` measures, and say what it is worth.

The teacher is the default policy's judge, the generator the embedded model, and the prompts are tuning ones alone. A
run that was stopped goes on where it was. Beside what `stars-guard probe train` reports there is one question: does a
probe that is trained on the teacher's score of the *finished* answer tell it better, from an answer's beginning, than
the teacher's own score of that beginning does? Only then would a policy gain by steering with such a probe.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.alignment.prompts import Prompt, choose, prompts
from benchmarks.measure import RESULTS, table, write_section
from benchmarks.probe import HERE, PROBE
from stars_guard.calibration.probe_fit import fit_probe
from stars_guard.calibration.probe_kept import read_samples
from stars_guard.calibration.probe_report import auc, spearman
from stars_guard.calibration.probe_samples import Sample, is_held_out
from stars_guard.cli.probe import Plan, train_probe
from stars_guard.engines.probes import load_probe
from stars_guard.policy import load_policy

__all__ = ["forecasts", "main", "tuning_prompts"]

HELD_OUT = 0.3


def tuning_prompts(count: int) -> list[Prompt]:
    """The first ``count`` tuning prompts, with an ordinary one after every 23 harmful ones, as far as they last."""
    found = prompts()
    harmful = choose(found, kind="harmful", tuning=True, count=count)
    benign = iter(choose(found, kind="benign", tuning=True, count=count))
    mixed: list[Prompt] = []
    for number, prompt in enumerate(harmful):
        mixed.append(prompt)
        if number % 23 == 0 and (ordinary := next(benign, None)) is not None:
            mixed.append(ordinary)
    return mixed[:count]


def _scores(samples: Sequence[Sample], learn: Sequence[Sample], bad: Callable[[float], bool]) -> list[float]:
    """What a ridge probe that learns from ``learn`` says of ``samples``."""
    tensors = fit_probe(learn, bad, "ridge")
    states = np.array([sample.state for sample in samples], dtype=np.float64)
    values = states @ tensors["directions"].double().numpy().T @ tensors["weight"].double().numpy()
    return [float(value) for value in values + float(tensors["bias"][0])]


def forecasts(samples: Sequence[Sample], bad: Callable[[float], bool]) -> list[dict[str, Any]]:
    """By the number of segments read, how well each tells the teacher's score of the finished, unguarded answer.

    Only of answers that go on. All learn from the same training prompts, and are measured on the others.
    """
    free = [sample for sample in samples if not sample.guarded and sample.index >= 0]
    ends = {sample.call: sample.score for sample in free if sample.last}
    going = [sample for sample in free if not sample.last and sample.call in ends]
    learn = [sample for sample in going if not is_held_out(sample.prompt, HELD_OUT)]
    measure = [sample for sample in going if is_held_out(sample.prompt, HELD_OUT)]
    final = _scores(measure, [replace(sample, score=ends[sample.call]) for sample in learn], bad)
    now = _scores(measure, learn, bad)
    told = {
        "probe, trained on the end": final,
        "probe, trained on now": now,
        "teacher's score of the beginning": [sample.score for sample in measure],
    }
    found = []
    for index in sorted({sample.index for sample in measure}):
        places = [i for i, sample in enumerate(measure) if sample.index == index]
        truth = [ends[measure[i].call] for i in places]
        row: dict[str, Any] = {"segments": index + 1, "answers": len(places)}
        for name, values in told.items():
            here = [values[i] for i in places]
            row[name] = (spearman(here, truth), auc([-value for value in here], [bad(value) for value in truth]))
        found.append(row)
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _tables(card: Any, rows: Sequence[dict[str, Any]], segment: int) -> str:
    measured, notes = card.measured, card.notes
    positions = [
        [
            "all" if one["segments"] is None else one["segments"] * segment,
            one["texts"],
            f"{one['rejected']:.0%}",
            _number(one["spearman"]),
            _number(one["auc"]),
            f"{one['bias']:+.2f}",
        ]
        for one in measured["positions"]
    ]
    savings = [
        [f"{one['miss']:.0%}", f"{one['saved']:.0%}", f"{other['saved']:.0%}"]
        for one, other in zip(measured["savings"], measured["rejections"], strict=True)
    ]
    names = list(rows[0])[2:] if rows else []
    told = [
        [row["segments"] * segment, row["answers"], *(", ".join(map(_number, row[name])) for name in names)]
        for row in rows
    ]
    about = (
        f"{notes['texts']} texts from {notes['prompts']} tuning prompts; measured on {notes['held_out_prompts']} "
        f"others of them. The teacher rejects below {card.teacher['rejects_at']}."
    )
    parts = [
        about,
        table(["tokens", "texts", "rejected", "Spearman", "AUC of the verdict", "bias"], positions),
        "The teacher's work saved where the probe's word is enough, at what share of the others decided wrongly:",
        table(["wrong", "saved by passing", "saved by rejecting"], savings),
        "The teacher's score of the finished, unguarded answer, told from its beginning: Spearman, AUC.",
        table(["tokens read", "answers", *names], told),
    ]
    return "\n\n".join(parts)


def main(arguments: Sequence[str]) -> None:
    """Read the command line, generate what is missing, fit, and write a section of RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probe_training", description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--count", type=int, default=400, help="tuning prompts; each is answered twice")
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--out", type=Path, default=HERE / "out" / "probe-training", help="a run goes on from it")
    parser.add_argument("--probe", type=Path, default=PROBE, help="where the probe is written")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the page that gets the tables")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    source = given.out / "prompts.jsonl"
    rows = [json.dumps({"prompt": prompt.text}) for prompt in tuning_prompts(given.count)]
    source.write_text("\n".join(rows) + "\n")
    plan = Plan(
        prompts=source,
        output=given.probe,
        model=given.model,
        dtype=given.dtype,
        max_tokens=given.max_tokens,
        held_out=HELD_OUT,
        concurrency=48,
        samples=given.out / "samples",
    )
    train_probe(Console(), "default", plan)
    decoding, card = load_policy("default").decoding, load_probe(given.probe).card
    found = forecasts(read_samples(given.out / "samples"), lambda score: score < decoding.r_star)
    how = f"`python -m benchmarks.probe_training {shlex.join(arguments)}`".replace(" `", "`")
    text = _tables(card, found, decoding.segment_tokens)
    write_section("probe: trained on its teacher", text, how=how, results=given.results)


if __name__ == "__main__":
    main(sys.argv[1:])
