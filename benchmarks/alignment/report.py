"""From an evaluation to JSON, one HTML page and a section of RESULTS.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from benchmarks.alignment import charts
from benchmarks.alignment.comparisons import effort, equal_time, equal_tokens
from benchmarks.alignment.measures import Figure, damage, harm
from benchmarks.alignment.methods import PLAIN, family_of, one_by_one
from benchmarks.alignment.run import Evaluation
from benchmarks.measure import machine, table, write_section

__all__ = ["figures", "write"]

Cells = list[list[object]]
Tables = dict[str, tuple[list[str], Cells]]


def write(evaluation: Evaluation, out: Path, results: Path, *, command: str) -> dict[str, Any]:
    """Write results.json and report.html into ``out`` and the tables into ``results``; gives what the JSON holds."""
    found = figures(evaluation)
    found["command"] = command
    (out / "results.json").write_text(json.dumps(found, indent=1, default=_plain) + "\n")
    tables, notes = _tables(evaluation, found), _notes(evaluation)
    (out / "report.html").write_text(_page(evaluation, found, tables, notes))
    text = "\n\n".join([*notes, *(f"### {title}\n\n{table(head, rows)}" for title, (head, rows) in tables.items())])
    write_section(f"alignment, {evaluation.plan.name}", text, how=f"`{command}`", results=results)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Figure):
        return None if np.isnan(value.value) else [value.value, value.low, value.high]
    raise TypeError(type(value).__name__)


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """All figures, by method."""
    plain = evaluation.harmful[PLAIN]
    rows = {
        method.name: {
            "family": method.family,
            "level": method.level,
            "decoding": dict(method.decoding),
            "harmful": harm(evaluation.harmful[method.name], plain),
            "benign": damage(evaluation.benign[method.name]),
        }
        for method in evaluation.methods
    }
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "engine": evaluation.engine,
        "plan": asdict(evaluation.plan),
        "judges": evaluation.judges,
        "sources": evaluation.sources,
        "calibration": evaluation.calibration,
        "methods": rows,
        "speed": evaluation.speed,
        "equal_tokens": equal_tokens(evaluation.methods, evaluation.harmful),
        "effort": effort(evaluation.harmful),
        "equal_time": equal_time(evaluation.speed, rows),
        "acceptance": {m.name: _acceptance(evaluation.harmful[m.name]) for m in evaluation.methods if m.fitted},
        "position": {m.name: _position(evaluation.harmful[m.name]) for m in evaluation.methods if m.fitted},
    }


def _acceptance(answers: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    tried: dict[int, list[int]] = {}
    for answer in answers:
        for index, step in enumerate(answer["steps"]):
            entry = tried.setdefault(index, [0, 0])
            entry[0] += step["accepted"]
            entry[1] += step["decided"]
    return [(index, accepted / decided) for index, (accepted, decided) in sorted(tried.items()) if decided]


def _position(answers: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, float, float]]:
    """Mean end in tokens and quartiles of the reward, by segment that a tenth of the answers have."""
    columns: dict[int, list[tuple[int, float]]] = {}
    for answer in answers:
        for index, step in enumerate(answer["steps"]):
            if step["reward"] is not None:
                columns.setdefault(index, []).append((step["end"], step["reward"]))
    return _quartiles(columns, len(answers))


def _quartiles(
    columns: Mapping[int, Sequence[tuple[int, float]]], count: int
) -> list[tuple[float, float, float, float]]:
    found = []
    for _, column in sorted(columns.items()):
        if len(column) >= max(1, count / 10):
            low, middle, high = (float(v) for v in np.quantile([reward for _, reward in column], (0.25, 0.5, 0.75)))
            found.append((statistics.fmean(end for end, _ in column), low, middle, high))
    return found


def _free_position(evaluation: Evaluation) -> dict[str, list[tuple[float, float, float, float]]]:
    found = {}
    for cut, answers in evaluation.free.items():
        columns: dict[int, list[tuple[int, float]]] = {}
        for answer in answers:
            for index, pair in enumerate(zip(answer.tokens, answer.rewards, strict=True)):
                columns.setdefault(index, []).append(pair)
        found[f"unguarded, {cut}"] = _quartiles(columns, len(answers))
    return found


def _notes(evaluation: Evaluation) -> list[str]:
    plan, second = evaluation.plan, evaluation.judges["second"]
    model, engine = Path(evaluation.engine.get("model", "")).name, evaluation.engine.get("engine", "")
    sources = ", ".join(f"{count} {name}" for name, count in evaluation.sources.items())
    drawn = (
        f"Model {model} on {engine}; answers of at most {plan.max_tokens} tokens at temperature 0.8; held-out prompts "
        f"({sources}), {plan.seeds} answers each, {plan.benign_seeds} of ordinary ones. Thresholds are calibrated on "
        f"{plan.tuning} other harmful prompts, to draw the named multiple of a plain answer's tokens. Brackets are 95% "
        "bootstrap intervals over prompts."
    )
    judged = (
        "The first judge is the one that decoding steers by; the second it never sees: TF-IDF and logistic regression "
        f"on {second['rows']} other rows, AUC {second['auc']:.3f} on {second['harm_rows']} rows with people's harm "
        f"scores by cross-validation, {second['false_alarms']:.0%} false alarms on ordinary answers. Rewards are "
        "logits of harmlessness, and the harm line is 0. A refused answer is judged as the reader sees it, refusal "
        "included."
    )
    done = {method.name for method in evaluation.methods}
    left = [method.name for method in plan.methods() if method.name not in done]
    return [drawn, judged, *([f"Not yet drawn, so not told of: {', '.join(left)}."] if left else [])]


def _tables(evaluation: Evaluation, found: Mapping[str, Any]) -> Tables:
    harmful, cost, benign = [], [], []
    for name, row in found["methods"].items():
        h, b = row["harmful"], row["benign"]
        harmful.append(
            [
                name,
                h["level"],
                h["reward_first"],
                h["reward_second"],
                h["harmful_first"],
                h["harmful_second"],
                h["worst_first"],
                h["worst_second"],
                f"{h['win_first'].value:.2f}, {h['tie_first'].value:.2f}",
                f"{h['win_second'].value:.2f}, {h['tie_second'].value:.2f}",
                h["refused"],
            ]
        )
        cost.append([name, h["drawn"], h["drawn_per_kept"], h["discarded_per_rejection"], h["passages"], h["seconds"]])
        benign.append(
            [
                name,
                *(
                    b[key]
                    for key in (
                        "refused",
                        "declines",
                        "drawn",
                        "tokens",
                        "perplexity",
                        "distinct_2",
                        "distinct_3",
                        "reward_first",
                        "reward_second",
                    )
                ),
            ]
        )
    speeds = []
    for name in dict.fromkeys(row["method"] for row in evaluation.speed):
        by_batch = {row["batch"]: row for row in evaluation.speed if row["method"] == name}
        speeds.append([name, *(_speed(by_batch.get(batch)) for batch in evaluation.plan.batches)])
    equal = [
        [
            row["method"],
            row["drawn"],
            row["rival_first"],
            row["gap_first"],
            _word(row["gap_first"]),
            row["rival_second"],
            row["gap_second"],
            _word(row["gap_second"]),
        ]
        for row in found["equal_tokens"]
    ]
    times = [
        [row["batch"], row["family"], row["seconds"], row["reward_first"], row["reward_second"]]
        for row in found["equal_time"]
    ]
    tables: Tables = {
        "Harmful prompts": (
            [
                "method",
                "generated, in plain answers",
                "reward, first judge",
                "reward, second judge",
                "harmful, first",
                "harmful, second",
                "worst 1%, first",
                "worst 1%, second",
                "win, tie: first",
                "win, tie: second",
                "refused",
            ],
            harmful,
        ),
        "Cost of an answer to a harmful prompt": (
            [
                "method",
                "tokens drawn",
                "drawn per kept",
                "tokens discarded per rejection",
                "scorer passages",
                f"seconds, {evaluation.plan.concurrency} at once",
            ],
            cost,
        ),
        "Ordinary prompts": (
            [
                "method",
                "refused",
                "refused or declining",
                "tokens drawn",
                "tokens",
                "perplexity",
                "distinct-2",
                "distinct-3",
                "reward, first judge",
                "reward, second judge",
            ],
            benign,
        ),
        "STARS at equal drawn tokens: mean reward less that of the best other method": (
            [
                "method",
                "tokens drawn",
                "best other, first judge",
                "gap, first",
                "",
                "best other, second judge",
                "gap, second",
                "",
            ],
            equal,
        ),
        "Where the tokens go: generated, in plain answers, and reward gained, first judge, by quarter of the prompts": (
            ["method", "hardest", "harder", "easier", "easiest"],
            [[name, *(f"{drawn:.2f}, {gain:+.2f}" for drawn, gain in row)] for name, row in found["effort"].items()],
        ),
        "At equal wall time: reward in the time of the cheapest best of n that was timed": (
            ["answers at once", "method", "seconds an answer", "reward, first judge", "reward, second judge"],
            times,
        ),
        "Throughput: kept tokens/s, seconds until an answer is whole, drawn per kept": (
            ["method", *(f"{batch} at once" for batch in evaluation.plan.batches)],
            speeds,
        ),
    }
    return {title: (head, rows) for title, (head, rows) in tables.items() if rows}


def _speed(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{row['kept_per_second']:.3g}, {row['latency']:.3g} s, {row['drawn_per_kept']:.3g}"


def _word(gap: Figure) -> str:
    return "above" if gap.low > 0 else "below" if gap.high < 0 else "level"


def _points(evaluation: Evaluation, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    batch = evaluation.plan.batches[-1]
    times: dict[str, float | None] = {method.name: None for method in evaluation.methods}
    times |= {row["method"]: row["seconds_per_answer"] for row in evaluation.speed if row["batch"] == batch}
    points = []
    for name, seconds in times.items():
        row = found["methods"].get(one_by_one(name))
        if row is not None:
            drawn = row["harmful"]["drawn"].value if name == one_by_one(name) else None
            points.append({**row["harmful"], "family": family_of(name), "drawn": drawn, "seconds": seconds})
    return points


def _page(evaluation: Evaluation, found: Mapping[str, Any], tables: Tables, notes: Sequence[str]) -> str:
    top = f", x{max(method.level for method in evaluation.methods)}"
    points = _points(evaluation, found)
    acceptance = {name: curve for name, curve in found["acceptance"].items() if name.endswith(top)}
    position = {name: curve for name, curve in found["position"].items() if name.endswith(top) and curve}
    position |= {name: curve for name, curve in _free_position(evaluation).items() if curve}
    plots = {
        "Quality against cost: tokens drawn": charts.frontier(points, "drawn", "tokens drawn for an answer"),
        f"Quality against cost: time, {evaluation.plan.batches[-1]} answers at once": charts.frontier(
            points, "seconds", "seconds an answer"
        ),
        "Reward by position": charts.reward_by_position(position),
        "Acceptance by segment": charts.acceptance_by_segment(acceptance),
    }
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(PAGE)
    shown = {title: (head, [[_cell(cell) for cell in row] for row in rows]) for title, (head, rows) in tables.items()}
    return template.render(found=found, notes=notes, tables=shown, plots=plots)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>stars-guard: alignment, {{ found.plan.name }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 12.5px; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: left; white-space: nowrap }
th { white-space: normal; vertical-align: bottom } tr:hover td { background: #f6f6f6 }
svg { max-width: 100%; height: auto } pre { background: #f6f6f6; padding: .5rem; overflow-x: auto }
</style></head><body>
<h1>Alignment, {{ found.plan.name }}</h1>
<p>Measured {{ found.date }} on {{ found.machine }}.</p>
<pre>{{ found.command }}</pre>
{% for note in notes %}<p>{{ note }}</p>
{% endfor %}
{% for title, plot in plots.items() %}<h2>{{ title }}</h2>
{{ plot | safe }}
{% endfor %}
{% for title, (head, rows) in tables.items() %}<h2>{{ title }}</h2>
<table><thead><tr>{% for cell in head %}<th>{{ cell }}</th>{% endfor %}</tr></thead><tbody>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
{% endfor %}
</body></html>
"""
