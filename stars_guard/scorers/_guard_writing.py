"""What a guard model writes before its label, token by token, and where it has to stop."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, Literal

__all__ = ["Effort", "Writing", "written_by_transformers"]

Effort = Literal["low", "medium", "high"]
"""How much a model reasons before its verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How a model writes before it gives its label.

    Attributes:
        until: the text after which the label comes.
        limit: tokens at most.
        temperature: 0 takes the likeliest token each time.
        ends: tokens at which the model ends its answer.
        text_of: the text of token ids, control tokens included.
    """

    until: str
    limit: int
    temperature: float
    ends: frozenset[int]
    text_of: Callable[[Sequence[int]], str]

    def is_over(self, ids: Sequence[int]) -> bool:
        """Whether the label comes next, after these written tokens."""
        # no token of a text is longer than the text, so this many are enough
        return self.text_of(ids[-len(self.until) - 1 :]).endswith(self.until)

    def seed_of(self, prompt: Sequence[int]) -> int:
        """The same for the same question, so that a text has one score, whoever asks and however often."""
        digest = hashlib.blake2b(array("q", prompt).tobytes(), digest_size=8, person=b"guard writing").digest()
        return int.from_bytes(digest) >> 1


def written_by_transformers(
    model: Any, prompts: Sequence[list[int]], writing: Writing, given_up: Event
) -> list[list[int] | None]:
    """Let a causal language model write after each prompt, all of them side by side.

    Args:
        given_up: set by whoever asked, when nobody waits any more.

    Returns:
        Each prompt with what was written after it, up to where the label comes; None where it didn't come to it.
    """
    import torch

    device, count = model.device, len(prompts)
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    chance = [torch.Generator().manual_seed(writing.seed_of(prompt)) for prompt in prompts]
    written: list[list[int]] = [[] for _ in prompts]
    found: list[list[int] | None] = [None] * count
    running = set(range(count))
    kept = None
    for _ in range(writing.limit):
        if given_up.is_set():
            break
        with torch.inference_mode():
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=places,
                past_key_values=kept,
                use_cache=True,
                logits_to_keep=1,
            )
        kept, logits = output.past_key_values, output.logits[:, -1].float().cpu()
        following = [0] * count
        for row in sorted(running):
            if writing.temperature == 0:
                token = int(logits[row].argmax())
            else:
                chances = (logits[row] / writing.temperature).softmax(-1)
                token = int(torch.multinomial(chances, 1, generator=chance[row]))
            following[row] = token
            written[row].append(token)
            if writing.is_over(written[row]):
                found[row] = prompts[row] + written[row]
                running.remove(row)
            elif token in writing.ends:
                running.remove(row)
        if not running:
            break
        ids = torch.tensor([[token] for token in following], device=device)
        mask = torch.cat([mask, mask.new_ones((count, 1))], dim=-1)
        places = places[:, -1:] + 1
    return found
