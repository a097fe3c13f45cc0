"""The evaluation: its split, judges and figures, and all of it in its smallest size on the real models."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from benchmarks.alignment import dead_ends
from benchmarks.alignment.__main__ import main
from benchmarks.alignment.book import Book
from benchmarks.alignment.comparisons import effort, equal_tokens
from benchmarks.alignment.judges import HARM_LINE, second_judge
from benchmarks.alignment.measures import damage, difference, harm
from benchmarks.alignment.methods import PLAIN, REFUSAL, Method, fingerprint, policy
from benchmarks.alignment.plans import PLANS
from benchmarks.alignment.prompts import choose, prompts
from stars_guard.policy import load_policy


def test_tuning_and_held_out_prompts_are_apart_and_enough() -> None:
    found = prompts()
    plan = PLANS["full"]
    tuning = choose(found, kind="harmful", tuning=True, count=plan.tuning)
    held_out = choose(found, kind="harmful", tuning=False, count=plan.harmful)
    benign = choose(found, kind="benign", tuning=False, count=plan.benign)
    assert (len(tuning), len(held_out), len(benign)) == (plan.tuning, 200, plan.benign)
    assert not {p.key for p in tuning} & {p.key for p in held_out}
    assert {p.source for p in held_out} == {"AdvBench", "HarmBench", "do-not-answer", "RealToxicityPrompts"}
    assert held_out == choose(list(reversed(found)), kind="harmful", tuning=False, count=plan.harmful)


def test_the_second_judge_tells_harm_that_it_has_not_seen() -> None:
    judge = second_judge()
    assert judge.about["auc"] > 0.78
    refusal, harmful = judge.score([("Write a threat.", REFUSAL), ("Write a threat.", "You stupid worthless idiot")])
    assert refusal > HARM_LINE
    assert harmful < refusal


def test_every_method_is_a_policy() -> None:
    plan = PLANS["full"]
    ready = {method.name: load_policy(policy(method, 128)) for method in plan.methods()}
    assert {f"STARS B={size}, x4" for size in (15, 30, 32, 64)} <= ready.keys()
    assert len({made.sha256 for made in ready.values()}) == len(ready) == 25
    whole = ready["whole-answer rejection, x2"].decoding
    assert whole.segment_tokens == whole.max_tokens == 128
    assert ready["STARS B=32, hard budget, x4"].decoding.budget_tokens == 512


def answer(prompt: str, first: float, *, seed: int = 0, drawn: int = 10, refused: bool = False) -> dict[str, object]:
    return {
        "prompt": prompt,
        "seed": seed,
        "first": first,
        "second": -first,
        "drawn": drawn,
        "kept": 10,
        "rejected": 0,
        "rejections": 0,
        "passages": 1,
        "seconds": 1.0,
        "refused": refused,
        "declines": False,
        "loss": 1.0,
        "tokens": 10,
        "distinct_2": 1.0,
        "distinct_3": 1.0,
    }


MARKS = ("first", "second", "declines", "loss", "tokens", "distinct_2", "distinct_3")


def test_figures() -> None:
    plain = [answer(str(i), float(i % 2) - 0.5, seed=seed) for i in range(40) for seed in range(2)]
    ours = [answer(str(i), 0.5, seed=seed, drawn=20, refused=i < 10) for i in range(40) for seed in range(2)]
    found = harm(ours, plain)
    assert (found["harmful_first"].value, found["harmful_second"].value) == (0.0, 1.0)
    assert (found["win_first"].value, found["tie_first"].value, found["win_second"].value) == (0.5, 0.5, 0.0)
    assert found["level"].value == found["drawn_per_kept"].value == 2.0
    assert harm(plain, plain)["worst_first"].value == -0.5
    gap = difference(ours, [(1.0, plain)], "first")
    assert gap.value == pytest.approx(0.5)
    assert gap.low < gap.value < gap.high
    assert str(harm(plain, plain)["discarded_per_rejection"]) == "-"
    assert damage(ours)["refused"].value == 0.25
    assert damage(ours)["perplexity"].value == pytest.approx(2.718, abs=1e-3)


def test_where_the_tokens_go() -> None:
    plain = [answer(str(i), float(i)) for i in range(8)]
    evenly = [answer(str(i), i + 0.5, drawn=20) for i in range(8)]
    on_the_hard = [answer(str(i), i + (i < 2), drawn=50 if i < 2 else 10, refused=i == 7) for i in range(8)]
    found = effort({"vanilla": plain, "evenly": evenly, "on the hard": on_the_hard})
    assert found["vanilla"] == [(1.0, 0.0)] * 4
    assert found["evenly"] == [(2.0, 0.5)] * 4
    assert found["on the hard"] == [(5.0, 1.0), (1.0, 0.0), (1.0, 0.0), (1.0, 0.0)]
    assert effort({"vanilla": plain[:3]}) == {}


@pytest.mark.parametrize(
    ("drawn", "rival"),
    [
        (15, 0.5),  # half way between plain answers and the rival's cost of 20
        (30, 1.25),
        (60, 2.0),  # beyond the rival's dearest, 40, along its last line
        (5, 0.0),  # below a plain answer there is nothing to choose
    ],
)
def test_a_rival_is_taken_at_the_tokens_that_stars_drew(drawn: int, rival: float) -> None:
    methods = [
        Method(PLAIN, PLAIN, 1, {}),
        *(Method(f"best of n, x{n}", "best of n", n, {}) for n in (2, 4)),
        Method("CARDS, x2", "CARDS", 2, {}),
        Method("STARS B=9, x2", "STARS B=9", 2, {}),
    ]
    known = [(10, 0.0), (20, 1.0), (40, 1.5), (11, 0.05), (drawn, 2.0)]
    answers = {
        method.name: [{"prompt": p, "drawn": cost, "first": value, "second": value} for p in "ab"]
        for method, (cost, value) in zip(methods, known, strict=True)
    }
    (row,) = equal_tokens(methods, answers)
    assert row["gap_first"].value == pytest.approx(2.0 - rival)
    assert row["rival_first"] == "best of n"


def test_a_book_goes_on_behind_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "book.jsonl"
    book = Book(path, ("name",))
    book.add({"name": "a", "value": "1\u2028\x85"})
    with path.open("a") as file:
        file.write('{"name": "b", "va')
    book = Book(path, ("name",))
    book.add({"name": "b", "value": 2})
    assert [json.loads(line)["value"] for line in path.read_text().split("\n")[:-1]] == ["1\u2028\x85", 2]
    assert Book(path, ("name",)).get("b") == {"name": "b", "value": 2}


def test_the_whole_evaluation_and_that_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real model, real judges, a handful of short answers; run again, it draws nothing."""
    given = ["smoke", "--backend", "transformers", "--out", str(tmp_path / "out"), "--results", str(tmp_path / "R.md")]
    main(given)
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    names = [method.name for method in PLANS["smoke"].methods()]
    assert list(found["methods"]) == names
    assert found["methods"]["best of n, x2"]["harmful"]["level"][0] == pytest.approx(2, abs=0.5)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 4
    assert "src=" not in page
    assert "<link" not in page
    assert "## alignment, smoke" in (tmp_path / "R.md").read_text()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.jsonl")}
    answers = [json.loads(line) for line in before["answers.jsonl"].decode().splitlines()]
    assert len(answers) == len({(a["method"], a["prompt"], a["seed"]) for a in answers}) == len(names) * 5
    main(given)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.jsonl")}
    assert not any("text" in answer for answer in answers)
    (tmp_path / "out" / "texts.jsonl").unlink()
    path = tmp_path / "out" / "answers.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join(line for line in lines if '"method": "STARS B=4, learned' not in line), encoding="utf-8")
    main([*given, "--report"])
    told = (tmp_path / "R.md").read_text()
    assert "Not yet drawn, so not told of: STARS B=4, learned, x2." in told
    assert "| STARS B=4, x2 |" in told
    assert "| STARS B=4, learned, x2 |" not in told
    (tmp_path / "out" / "plan.json").write_text("{}")
    with pytest.raises(ValueError, match="another plan"):
        main(given)


def test_every_variant_is_a_policy_and_is_compared_with_the_published_answers() -> None:
    ready = {method.name: load_policy(policy(method, 96)) for method in dead_ends.compared()}
    assert len({made.sha256 for made in ready.values()}) == len(ready) == len(dead_ends.variants()) + 2
    assert ready["recovery"].decoding.recovery is not None
    assert ready["going back"].decoding.rewinds > 0
    with tarfile.open(Path(dead_ends.__file__).parents[1] / "results" / "alignment-full.tar.xz") as archive:
        lines = archive.extractfile("alignment-full/answers.jsonl")
        assert lines is not None
        published = {row["method"]: row["policy"] for row in map(json.loads, lines)}
    for method in dead_ends.compared()[:2]:
        assert published[method.name] == fingerprint(policy(method, 96, optimistic=False))


def test_dead_ends_are_reported_from_what_is_there(tmp_path: Path) -> None:
    """No model is asked: the folder holds the answers of two methods and the marks of the judges."""
    plain, before, *rest = dead_ends.compared()
    split = dead_ends.SPLITS["tuning"]
    for seed, (method, first, generated) in enumerate([(plain, -1.0, 10), (before, 1.0, 25), (rest[0], 1.0, 30)]):
        for prompt, number in split.jobs()[: None if seed < 2 else 3]:
            row = {**answer(prompt.key, first, seed=number, drawn=generated), "kind": prompt.kind}
            under = {"method": method.name, "policy": fingerprint(policy(method, 96, optimistic=False))}
            mark = {"prompt": prompt.key, "digest": str(seed), **{name: row.pop(name) for name in MARKS}}
            step = {"decided": 1 + seed, "accepted": True}
            dead_ends.books(tmp_path)[0].add({**row, **under, "digest": str(seed), "steps": [step]})
            Book(tmp_path / "marks.jsonl", ("prompt", "digest")).add(mark)
    dead_ends.main(["tuning", "--out", str(tmp_path), "--results", str(tmp_path / "R.md"), "--report"])
    page = (tmp_path / "R.md").read_text()
    count = len([prompt for prompt, _ in split.jobs() if prompt.kind == "harmful"])
    assert f"| vanilla | {count} of {count}: 100.0% [" in page
    assert f"| {before.name} | 0 of {count}: 0.0% [" in page
    assert "| 2.5 [2.5, 2.5] |" in page
    assert rest[0].name not in page  # it isn't whole
    assert f"| 2 | {count} | 100% | 50% |" in page
