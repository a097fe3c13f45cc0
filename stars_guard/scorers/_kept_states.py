"""Keys and values that a decoder has computed for one call, kept so that they aren't computed again.

A call has a trunk, which all of its passages have in common, and a tail for each passage that was read last. When one
of them becomes part of the answer, the next passages begin with it, and its tail is put on the trunk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

__all__ = ["States", "Tail", "Trunk", "common_length"]

BLOCK = 64
"""Tokens that room is made for at a time."""


@dataclass(slots=True, eq=False)
class States:
    """Keys and values [heads, tokens, dim] of one layer."""

    keys: torch.Tensor
    values: torch.Tensor

    def first(self, tokens: int) -> States:
        """Those of the first tokens."""
        return States(self.keys[:, :tokens], self.values[:, :tokens])

    def copy(self) -> States:
        """The same in memory of its own, so that what it was cut from can be freed."""
        return States(self.keys.clone(), self.values.clone())


@dataclass(slots=True, eq=False)
class Tail:
    """The states, by layer, of a passage's tokens from ``start`` on."""

    ids: list[int]
    start: int
    layers: list[States]


@dataclass(slots=True, eq=False)
class Trunk:
    """The states, by layer, of the tokens ``ids``. There may be room for more behind them, whose content is void."""

    ids: list[int] = field(default_factory=list)
    layers: list[States] = field(default_factory=list)
    tails: list[Tail] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens that memory is taken for."""
        room = self.layers[0].keys.shape[1] if self.layers else 0
        return room + sum(len(tail.ids) - tail.start for tail in self.tails)

    def cut(self, tokens: int) -> None:
        """Keep the first tokens. What is behind will be written over, and must not count if that fails halfway."""
        del self.ids[tokens:]

    def write(self, layer: int, start: int, new: States) -> None:
        """Put a layer's states in place. The caller sets ``ids`` once all layers are there."""
        if layer == len(self.layers):
            self.layers.append(new.first(0))
        kept = self.layers[layer]
        self.layers[layer] = States(_written(kept.keys, start, new.keys), _written(kept.values, start, new.values))

    def adopt(self, ids: list[int]) -> None:
        """Bring the trunk as near to a sequence as the tails allow, and drop the tails."""
        best = max(self.tails, key=lambda tail: common_length(tail.ids, ids), default=None)
        if best is not None:
            length = common_length(best.ids, ids)
            if length > max(best.start, common_length(self.ids, ids)):
                for layer, states in enumerate(best.layers):
                    self.write(layer, best.start, states.first(length - best.start))
                self.ids = best.ids[:length]
        self.tails = []


def _written(old: torch.Tensor, start: int, new: torch.Tensor) -> torch.Tensor:
    """A tensor with ``new`` in place from ``start`` on: the old one where it has room, else a larger copy."""
    end = start + new.shape[1]
    if old.shape[1] < end:
        room = -(-(end + end // 4) // BLOCK) * BLOCK
        larger = new.new_zeros((new.shape[0], room, new.shape[2]))
        larger[:, :start] = old[:, :start]
        old = larger
    old[:, start:end] = new
    return old


def common_length(one: list[int], other: list[int]) -> int:
    """How many first items are the same. Halves, so that the comparing is done in C."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
