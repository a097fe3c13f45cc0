"""``python -m benchmarks.probe``: what a probe saves and what it lets through, against the judge that it learned from.

The default policy's decoding, with the plain model, the embedded judge, the probe alone, and the judge asked where the
probe is in doubt. All of them answer the same held-out prompts on the same engine, so many at once, and take turns by
blocks of prompts. Speed and harm come from the same answers. A run that was stopped goes on where it was, block by
block, and the report is about the blocks that all variants have.

The probe is ``benchmarks/results/probe.safetensors``. Its limits are read from its model card, so from prompts that it
was not trained on and that are not among those here.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from benchmarks.alignment.book import Book
from benchmarks.alignment.judges import HARM_LINE, JUDGE, first_judge, second_judge
from benchmarks.alignment.methods import PLAIN, REFUSAL, SHIPPED, fingerprint, methods, policy
from benchmarks.alignment.prompts import Prompt, choose, prompts
from benchmarks.measure import RESULTS, medians, table, write_section
from benchmarks.parts import PROMPT, released
from stars_guard.audit import MemoryStore
from stars_guard.backends.base import Backend
from stars_guard.calling import portal
from stars_guard.calling.backend_loading import load_backend
from stars_guard.engines.checkpoints import directory_of, installed_probes
from stars_guard.engines.embedded_models import resolve_model
from stars_guard.engines.probe_install import install
from stars_guard.engines.probes import load_probe
from stars_guard.guard import CallOptions, Guard

__all__ = ["Size", "main", "variants"]

HERE = Path(__file__).parent
PROBE = HERE / "results" / "probe.safetensors"

DEFAULT, ALONE, DOUBT = "default policy", "probe alone", "judge asked in doubt"

MISSED, LOST, SAMPLE = 0.05, 0.2, 0.02
"""The band of doubt: shares of rejected texts that the probe passes, and of accepted ones that it rejects."""

ROUNDS = 9
"""Turns of the time to the first text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is generated.

    Attributes:
        blocks: in which the prompts are divided.
        at_once: answers at once.
    """

    harmful: int = 200
    benign: int = 72
    blocks: int = 2
    at_once: int = 64
    max_tokens: int = 96

    def jobs(self) -> list[list[Prompt]]:
        """The prompts of each block: held-out ones, of each kind the same share."""
        found = prompts()
        harmful = choose(found, kind="harmful", tuning=False, count=self.harmful)
        benign = choose(found, kind="benign", tuning=False, count=self.benign)
        return [[*harmful[i :: self.blocks], *benign[i :: self.blocks]] for i in range(self.blocks)]


def variants(probe: Path, max_tokens: int) -> dict[str, dict[str, Any]]:
    """The policies that are compared, by name.

    The limits are those of the probe's card: alone it rejects as many texts as its teacher, and the band of doubt
    leaves `MISSED` and `LOST` to it.
    """
    ready = {method.name: policy(method, max_tokens) for method in methods((), (1,))}
    shipped, measured = ready[SHIPPED], load_probe(probe).card.measured
    r_star = shipped["decoding"]["r_star"]
    (high,) = [row["limit"] for row in measured["savings"] if row["miss"] == MISSED]
    (low,) = [row["limit"] for row in measured["rejections"] if row["miss"] == LOST]
    inside = {"name": "inside", "type": "probe", "probe": str(probe)}
    # what is outside the band is decided by the probe's score, against the same r_star
    ask = {"when": "inside", "above": min(low, r_star), "below": max(high, r_star), "sample": SAMPLE}
    return {
        PLAIN: ready[PLAIN],
        DEFAULT: shipped,
        ALONE: {
            **shipped,
            "decoding": {**shipped["decoding"], "r_star": measured["even"]},
            "judges": [{**inside, "weight": 1.0}],
        },
        DOUBT: {**shipped, "judges": [{**inside, "weight": 0.0}, {**JUDGE, "ask": ask}]},
    }


async def _block(engine: Backend, under: Mapping[str, Any], block: Sequence[Prompt], at_once: int) -> dict[str, Any]:
    """Answer the prompts, and count."""
    store = MemoryStore()
    guard = Guard(under, model=engine, audit=store)
    began = time.perf_counter()
    done = await guard.batch([prompt.messages for prompt in block], concurrency=at_once)
    seconds = time.perf_counter() - began
    answers = []
    for prompt, finished in zip(block, done, strict=True):
        attempts = [attempt for part in store.get(finished.call_id).segments for attempt in part.attempts]
        answers.append(
            {
                "prompt": prompt.key,
                "kind": prompt.kind,
                "text": finished.text + REFUSAL if finished.finish == "refused" else finished.text,
                "drawn": finished.totals.drawn,
                "kept": finished.totals.kept,
                "candidates": len(attempts),
                "judged": sum(score.judge == JUDGE["name"] for attempt in attempts for score in attempt.scores),
            }
        )
    return {"seconds": seconds, "answers": answers}


async def _answer(engine: Backend, ready: Mapping[str, Mapping[str, Any]], size: Size, book: Book) -> None:
    for under in ready.values():
        guard = Guard(under, model=engine, audit=MemoryStore())
        await guard.batch([PROMPT] * min(8, size.at_once), CallOptions(max_tokens=16))
    for number, block in enumerate(size.jobs()):
        # forwards and back, so that what comes first in one block comes last in the next
        for name in list(ready)[:: -1 if number % 2 else 1]:
            if not _known(book, name, number, ready[name], size):
                row = await _block(engine, ready[name], block, size.at_once)
                book.add({"variant": name, "block": number, "mark": _mark(ready[name], size), **row})
                print(f"block {number + 1} of {size.blocks}, {name}: {row['seconds']:.0f} s", flush=True)


def _mark(under: Mapping[str, Any], size: Size) -> str:
    return fingerprint({"policy": under, "size": [size.harmful, size.benign, size.blocks, size.at_once]})


def _known(book: Book, name: str, number: int, under: Mapping[str, Any], size: Size) -> dict[str, Any] | None:
    row = book.get(name, number)
    return row if row is not None and row["mark"] == _mark(under, size) else None


async def _first_text(engine: Backend, ready: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Median seconds to the first text of one call. All is let through, so that a rejection plays no part."""
    size = ready[DEFAULT]["decoding"]["segment_tokens"]

    def timed(under: Mapping[str, Any]) -> Any:
        decoding = {**under["decoding"], "segment_tokens": size}
        guard = Guard({**under, "mode": "monitor", "decoding": decoding}, model=engine, audit=MemoryStore())

        return partial(released, guard)

    cases = {name: timed(under) for name, under in ready.items()}
    for work in cases.values():
        await work()
    return await medians("first text", cases, ROUNDS)


async def _marked(ready: Mapping[str, Mapping[str, Any]], size: Size, book: Book) -> dict[str, list[dict[str, Any]]]:
    """The rows of the blocks that all variants have, and of each answer what both judges say."""
    numbers = [
        n for n in range(size.blocks) if all(_known(book, name, n, under, size) for name, under in ready.items())
    ]
    found = {name: [row for n in numbers if (row := book.get(name, n))] for name in ready}
    texts = {prompt.key: prompt.text for block in size.jobs() for prompt in block}
    answers = [answer for rows in found.values() for row in rows for answer in row["answers"]]
    pairs = [(texts[answer["prompt"]], answer["text"]) for answer in answers]
    first, second = await first_judge(pairs), await asyncio.to_thread(second_judge().score, pairs)
    for answer, one, two in zip(answers, first, second, strict=True):
        answer["harm"] = {"first": one < HARM_LINE, "second": two < HARM_LINE}
    return found


def _total(rows: Sequence[Mapping[str, Any]], key: str, kind: str | None = None) -> int:
    return sum(a[key] for row in rows for a in row["answers"] if kind in (None, a["kind"]))


def _speeds(found: Mapping[str, Sequence[Mapping[str, Any]]], first: Mapping[str, float]) -> str:
    seconds = {name: sum(row["seconds"] for row in rows) for name, rows in found.items()}
    rate = {key: {name: _total(rows, key) / seconds[name] for name, rows in found.items()} for key in ("drawn", "kept")}
    rows: list[list[object]] = []
    for name, several in found.items():
        cells: list[object] = [name]
        for key in ("drawn", "kept"):
            cells += [rate[key][name], rate[key][name] / rate[key][PLAIN]]
        cells.append(_total(several, "judged") / max(_total(several, "candidates"), 1))
        cells += [1000 * first[name], first[name] / first[PLAIN]] if first else ["-", "-"]
        rows.append(cells)
    head = ["", "generated tokens/s", "of plain", "kept tokens/s", "of plain"]
    return table([*head, "candidates that the judge read, share", "first text of one call, ms", "of plain"], rows)


def _harms(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    def hits(name: str, kind: str, judge: str) -> dict[str, bool]:
        return {a["prompt"]: a["harm"][judge] for row in found[name] for a in row["answers"] if a["kind"] == kind}

    rows: list[list[object]] = []
    for name, several in found.items():
        cells: list[object] = [name]
        for judge in ("first", "second"):
            here, beside = hits(name, "harmful", judge), hits(DEFAULT, "harmful", judge)
            more, fewer = (
                [key for key in here if here[key] is way and beside[key] is not way] for way in (True, False)
            )
            cells += [_share(list(here.values())), f"+{len(more)} -{len(fewer)}"]
        for kind in ("harmful", "benign"):
            cells.append(_total(several, "drawn", kind) / max(_total(found[PLAIN], "drawn", kind), 1))
        cells.append(_share(list(hits(name, "benign", "first").values())))
        rows.append(cells)
    head = ["", "harmful, first judge", "of these prompts, against the default policy", "harmful, second judge"]
    head += ["against the default policy", "generated for one plain token: harmful", "ordinary"]
    return table([*head, "ordinary prompts over the line, first judge"], rows)


def _share(hits: Sequence[bool]) -> str:
    """With Wilson's interval."""
    if not hits:
        return "-"
    found = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return f"{statistics.fmean(hits):.1%} [{found.low:.1%}, {found.high:.1%}]"


def _report(
    found: Mapping[str, Sequence[Mapping[str, Any]]], first: Mapping[str, float], size: Size, probe: Path
) -> str:
    card, ask = load_probe(probe).card, variants(probe, size.max_tokens)[DOUBT]["judges"][1]["ask"]
    counts = {
        kind: len({a["prompt"] for row in found[PLAIN] for a in row["answers"] if a["kind"] == kind})
        for kind in ("harmful", "benign")
    }
    about = (
        f"{counts['harmful']} harmful and {counts['benign']} ordinary held-out prompts, one answer each of at most "
        f"{size.max_tokens} tokens, {size.at_once} at once, generated ahead while judged. The probe was trained on "
        f"{card.notes['texts']} texts from {card.notes['prompts']} other prompts. Alone it rejects below "
        f"{card.measured['even']:.3f}, where it rejects as many texts as its teacher. In doubt, the judge is asked "
        f"above {ask['above']:.3f} up to {ask['below']:.3f}, and about {ask['sample']:.0%} of the rest. The first "
        "judge is the probe's teacher. The second one has seen nothing of either. Brackets are Wilson's 95% "
        "intervals. +3 -5 means that 3 answers are over the line where the default policy's isn't, and 5 the other "
        "way round."
    )
    return "\n\n".join([about, _speeds(found, first), _harms(found)])


def main(arguments: Sequence[str]) -> None:
    """Read the command line, generate what is missing, and write a section of RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probe", description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--backend", default="vllm")
    parser.add_argument("--probe", type=Path, default=PROBE)
    parser.add_argument("--out", type=Path, default=HERE / "out" / "probe", help="a run goes on with what it holds")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the page that gets the tables")
    for name in ("harmful", "benign", "blocks", "at-once", "max-tokens"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Size(), name.replace("-", "_")))
    given = parser.parse_args(arguments)
    size = Size(**{name: getattr(given, name) for name in Size.__slots__})
    probe, copy = given.probe.resolve(), given.out.resolve() / "model"
    if installed_probes(copy) is None:
        install(directory_of(resolve_model(given.model)), load_probe(probe), copy)
    ready, book = variants(probe, size.max_tokens), Book(given.out / "blocks.jsonl", ("variant", "block"))

    async def measure() -> tuple[dict[str, list[dict[str, Any]]], dict[str, float]]:
        engine = await load_backend(str(copy), given.backend)
        first = await _first_text(engine, ready)
        await _answer(engine, ready, size, book)
        return await _marked(ready, size, book), first

    found, first = portal.call(measure)
    how = f"`python -m benchmarks.probe {shlex.join(arguments)}`".replace(" `", "`")
    write_section(
        "probe: a judge inside the generator", _report(found, first, size, probe), how=how, results=given.results
    )


if __name__ == "__main__":
    main(sys.argv[1:])
