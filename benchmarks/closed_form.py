"""The closed form of the output distribution, on the real model, where few tokens can be chosen from.

A step accepts s with probability m(s) a(s) (1 - (1 - Z)^N) / Z and fails with (1 - Z)^N, where Z is the sum of
m(s) a(s) (DESIGN.md, "The algorithm"). With recovery, the first A candidates are the model's and the others the model's
under the instruction, m'(s) with Z'. So a step also accepts s with (1 - Z)^A m'(s) a(s) (1 - (1 - Z')^(N - A)) / Z',
and fails with (1 - Z)^A (1 - Z')^(N - A). A step that fails goes back over the segment before it if that is held and
the answer may still go back, and otherwise the answer is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from stars_guard.backends.transformers import TransformersBackend
from stars_guard.calling.proposing import with_instruction
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.decoding.settings import Recovery
from stars_guard.prompting.chat_encoding import encode_chat
from stars_guard.scorers.base import Rating, Scorer

__all__ = ["ALPHA", "JUDGE", "PROMPT", "REFUSED", "Closed", "Law", "Remembering"]

PROMPT = (Message("user", "How do I pick a lock?"),)
ALPHA = 0.5
REFUSED = "\0"
"""Marks a text after which the answer was refused."""

JUDGE = {"name": "harmlessness", "type": "sequence_classifier", "model": "embedded:reward", "weight": 1.0}

Law = dict[str, float]
_Ends = dict[tuple[int, ...], float]


class Remembering(Scorer):
    """Asks another scorer about each text once: there are few."""

    cost = 20.0

    def __init__(self, scorer: Scorer) -> None:
        self.identity = scorer.identity
        self._scorer = scorer
        self._known: dict[str, Rating] = {}

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        fresh = {p.answer: p for p in passages if p.answer not in self._known}
        if fresh:
            self._known.update(zip(fresh, await self._scorer.score(list(fresh.values())), strict=True))
        return [self._known[passage.answer] for passage in passages]


@dataclass
class Closed:
    """The closed form for one model, judge and shape of the answer.

    Attributes:
        top_k: tokens that the model may choose from.
        size: B; ``length`` is T.
    """

    engine: TransformersBackend
    scorer: Scorer
    top_k: int
    size: int
    length: int
    _steps: dict[tuple[str, tuple[int, ...]], list[tuple[int, float]]] = field(default_factory=dict)

    def policy(self, **decoding: Any) -> dict[str, Any]:
        """The policy whose law this is."""
        shape = {"segment_tokens": self.size, "max_tokens": self.length, "alpha": ALPHA, "on_exhausted": "refuse"}
        return {
            "apiVersion": "stars-guard/v1",
            "name": "exactness",
            "decoding": {**shape, **decoding},
            "sampling": {"temperature": 1.0, "top_k": self.top_k},
            "judges": [JUDGE],
        }

    def next_tokens(self, ids: tuple[int, ...], instruction: str = "") -> list[tuple[int, float]]:
        """The tokens that may follow, with their probabilities, under the conversation with an instruction, if any."""
        if (instruction, ids) not in self._steps:
            messages = with_instruction(PROMPT, instruction) if instruction else PROMPT
            prompt = encode_chat(self.engine.tokenizer, messages)
            with torch.inference_mode():
                logits = self.engine.slots.model(input_ids=torch.tensor([prompt + list(ids)])).logits[0, -1].double()
            values, tokens = logits.topk(self.top_k)
            self._steps[instruction, ids] = list(zip(tokens.tolist(), values.softmax(-1).tolist(), strict=True))
        return self._steps[instruction, ids]

    def segments(self, before: tuple[int, ...], instruction: str = "") -> dict[tuple[int, ...], float]:
        """Every segment that may follow, with its probability under the model."""
        found = {(): 1.0}
        for _ in range(min(self.size, self.length - len(before))):
            longer: dict[tuple[int, ...], float] = {}
            for ids, p in found.items():
                if ids and ids[-1] in self.engine.eos_ids:
                    longer[ids] = p
                    continue
                for token, q in self.next_tokens(before + ids, instruction):
                    longer[(*ids, token)] = p * q
            found = longer
        return found

    def text(self, ids: Sequence[int]) -> str:
        """As the judge sees it."""
        return self.engine.decode([token for token in ids if token not in self.engine.eos_ids])

    async def reward(self, text: str) -> float:
        """The judge's word on an answer."""
        return (await self.scorer.score([Passage(call_id="exactness", messages=PROMPT, accepted="", segment=text)]))[
            0
        ].value

    async def rewards(self) -> np.ndarray:
        """Of all first segments, by their probability: what r_star and beta are chosen from."""
        values = {ids: await self.reward(self.text(ids)) for ids in self.segments(())}
        law = self.segments(())
        return np.random.default_rng(0).choice(
            np.array([values[ids] for ids in law]), 10_000, p=np.array(list(law.values())) / sum(law.values())
        )

    async def law(
        self, r_star: float, beta: float, attempts: int, *, recovery: Recovery | None = None, rewinds: int = 0
    ) -> Law:
        """Probability of each answer; a refusal counts under the text that it came after, with a mark.

        Args:
            rewinds: if there are some, the last segment is held.
        """
        prompt_reward = await self.reward("")
        r0 = (1 - ALPHA) * prompt_reward + ALPHA * r_star
        after = attempts if recovery is None else recovery.after
        sources = [(after, "")] if recovery is None else [(after, ""), (attempts - after, recovery.instruction)]
        holds = rewinds > 0
        found: Law = {}

        async def accepted(whole: tuple[int, ...]) -> float:
            tau = min(r_star, r0 + len(whole) * (r_star - r0) / self.length)
            reward = await self.reward(self.text(whole))
            return min(1.0, math.exp(min(0.0, (reward - tau) / beta)))

        async def step(before: tuple[int, ...]) -> tuple[_Ends, float]:
            """The longer answers with their probabilities, and that of a failure."""
            ends: _Ends = {}
            left = 1.0
            for tries, instruction in sources:
                shares = {
                    before + ids: q * await accepted(before + ids)
                    for ids, q in self.segments(before, instruction).items()
                }
                z = min(1.0, sum(shares.values()))
                for whole, share in shares.items():
                    ends[whole] = ends.get(whole, 0.0) + left * share * (1 - (1 - z) ** tries) / z
                left *= (1 - z) ** tries
            return ends, left

        async def walk(before: tuple[int, ...], p: float, held: tuple[int, ...], rewinds: int) -> None:
            ends, failed = await step(before)
            if held and rewinds:
                await walk(before[: -len(held)], p * failed, (), rewinds - 1)
            else:
                out = before[: len(before) - len(held)] if holds else before
                found[refused] = found.get(refused := self.text(out) + REFUSED, 0.0) + p * failed
            for whole, share in ends.items():
                if whole[-1] in self.engine.eos_ids or len(whole) >= self.length:
                    found[self.text(whole)] = found.get(self.text(whole), 0.0) + p * share
                else:
                    await walk(whole, p * share, whole[len(before) :], rewinds)

        await walk((), 1.0, (), rewinds)
        return found
