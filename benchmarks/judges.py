"""Judging as the answer grows: a decoder reward model of real size, with what it has read kept and read anew."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import medians, seconds, table, write_section
from benchmarks.parts import PROMPT
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.engines.embedded_models import generator_dir
from stars_guard.scorers.sequence_classifier import SequenceClassifierScorer

MARKS = (64, 128, 256, 512, 1024, 2048)
SEGMENT = 16
NEAR = 4
"""Segments up to a mark whose median is its figure, of judges that are asked at each."""

STORY = (
    "The keeper climbed the stairs as he had done each night for thirty years, and lit the lamp. Out on the water a "
    "small boat turned toward the light; its sail was torn, and nobody answered when he called. "
)


def make_judge(target: Path) -> None:
    """The embedded model's weights with a one-logit head from a seed: its scores mean nothing, its cost is real."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(11)
    model = AutoModelForSequenceClassification.from_pretrained(generator_dir(), num_labels=1, dtype=torch.bfloat16)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(generator_dir()).save_pretrained(target)


def segments() -> list[str]:
    """A text of 2048 tokens in segments of 16."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(generator_dir())
    ids = tokenizer(STORY * 60, verbose=False)["input_ids"][: MARKS[-1]]
    return [tokenizer.decode(ids[i : i + SEGMENT]) for i in range(0, len(ids), SEGMENT)]


_numbers = itertools.count(1)


class Growing:
    """An answer that is judged segment by segment, by ``width`` candidates of which the first is taken."""

    def __init__(self, scorer: SequenceClassifierScorer, parts: Sequence[str], width: int = 1) -> None:
        self.scorer, self.parts, self.width = scorer, parts, width
        self.costs: dict[int, list[float]] = {mark: [] for mark in MARKS}

    async def run(self, *, all_segments: bool) -> float:
        """Judge the answer's segments, or those that end at a mark alone; milliseconds of the last one."""
        call, accepted, cost = "growing", "", 0.0
        # what has been judged lately is not read again by anybody, so each run asks something new
        asked = (Message("user", f"{PROMPT[0].content} This is story number {next(_numbers)}."),)
        await self.scorer.score([Passage(call_id=call, messages=asked, accepted="", segment="")])
        times: list[float] = []
        for number, part in enumerate(self.parts, start=1):
            due = min(mark for mark in MARKS if mark >= number * SEGMENT)
            if all_segments or number * SEGMENT == due:
                others = [part[: -2 - i] for i in range(self.width - 1)]
                batch = [
                    Passage(call_id=call, messages=asked, accepted=accepted, segment=text) for text in (part, *others)
                ]
                cost = 1000 * await seconds(lambda batch=batch: self.scorer.score(batch))  # type: ignore[misc]
                times.append(cost)
            accepted += part
            if number * SEGMENT == due:
                self.costs[due].append(statistics.median(times[-NEAR:]))
        await self.scorer.forget(call)
        return cost


async def main() -> None:
    """Measure all."""
    parts = segments()
    with tempfile.TemporaryDirectory() as folder:
        await asyncio.to_thread(make_judge, Path(folder))
        kept, anew = [await SequenceClassifierScorer.load(folder, cache_tokens=room) for room in (32768, 0)]
    cases = {"kept": Growing(kept, parts), "kept, 4 candidates": Growing(kept, parts, 4), "anew": Growing(anew, parts)}
    await medians(
        "judging", {name: lambda case=case: case.run(all_segments=case.scorer is kept) for name, case in cases.items()}
    )
    found = {name: {mark: statistics.median(case.costs[mark]) for mark in MARKS} for name, case in cases.items()}
    one, four, whole = found.values()
    rows = []
    for mark in MARKS:
        cells = [one[mark], one[mark] / one[64], four[mark], four[mark] / four[64]]
        rows.append([mark, *cells, whole[mark], whole[mark] / one[mark]])
    head = [
        "tokens of the answer",
        "kept: ms a segment",
        "to the first",
        "kept, 4 candidates: ms",
        "to the first",
        "read anew: ms a segment",
        "anew / kept",
    ]
    note = "SmolLM2-135M with a one-logit head, float32, segments of 16; kept: medians of the four up to a mark.\n\n"
    write_section("judges: a decoder reward model by length of the answer", note + table(head, rows))
