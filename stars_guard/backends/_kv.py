"""Key-value cache in slots: each row is one sequence with a length of its own; rewinding it costs nothing."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

__all__ = ["SlotCache"]


class _SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    is_compileable = False
    is_sliding = False

    def __init__(self, owner: SlotCache) -> None:
        super().__init__()
        self.owner = owner

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        owner = self.owner
        shape = (owner.rows, key_states.shape[1], owner.span)
        self.keys = key_states.new_zeros((*shape, key_states.shape[-1]))
        self.values = value_states.new_zeros((*shape, value_states.shape[-1]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        owner = self.owner
        rows, where, end = owner.at_rows, owner.at_positions, owner.at_end
        self.keys[rows[:, None], :, where] = key_states.transpose(1, 2)
        self.values[rows[:, None], :, where] = value_states.transpose(1, 2)
        if owner.at_slice is not None:
            return self.keys[owner.at_slice, :, :end], self.values[owner.at_slice, :, :end]
        return self.keys[rows, :, :end], self.values[rows, :, :end]

    def get_seq_length(self) -> int:
        return self.owner.at_end

    def get_max_length(self) -> int:
        return -1

    def get_max_cache_shape(self) -> int:
        return -1

    def get_mask_sizes(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        return self.owner.at_end, 0


class SlotCache(Cache):  # type: ignore[misc]
    """Per layer [rows, heads, span, head_dim]. Rows and span double when they are too small.

    Args:
        layers: decoder layers of the model.
    """

    def __init__(self, layers: int, *, rows: int = 4, span: int = 64) -> None:
        self.rows = rows
        self.span = span
        self.at_rows = torch.zeros(0, dtype=torch.long)
        self.at_positions = torch.zeros(0, dtype=torch.long)
        self.at_slice: slice | None = None
        self.at_end = 0
        super().__init__(layers=[_SlotLayer(self) for _ in range(layers)])

    def anew(self) -> SlotCache:
        """An empty one for the same model."""
        return SlotCache(len(self.layers))

    def aim(self, rows: list[int], positions: torch.Tensor, end: int) -> None:
        """Where the next forward pass writes: positions [len(rows), tokens]; it reads positions below ``end``."""
        self.at_rows = torch.tensor(rows, device=positions.device)
        self.at_positions = positions
        self.at_end = end
        contiguous = rows == list(range(rows[0], rows[0] + len(rows)))
        self.at_slice = slice(rows[0], rows[0] + len(rows)) if contiguous else None

    def reserve(self, rows: int, span: int) -> None:
        """Make room, keeping what is there."""
        grown_rows, grown_span = self.rows, self.span
        while grown_rows < rows:
            grown_rows *= 2
        while grown_span < span:
            grown_span *= 2
        if (grown_rows, grown_span) == (self.rows, self.span):
            return
        for layer in self.layers:
            if layer.is_initialized:
                for name in ("keys", "values"):
                    old = getattr(layer, name)
                    new = old.new_zeros((grown_rows, old.shape[1], grown_span, old.shape[3]))
                    new[: old.shape[0], :, : old.shape[2]] = old
                    setattr(layer, name, new)
        self.rows, self.span = grown_rows, grown_span

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Copy positions [start, end) from one row to another. Layers that keep nothing of their own are left out."""
        for layer in self.layers:
            if not layer.is_initialized:
                continue
            layer.keys[target, :, start:end] = layer.keys[source, :, start:end]
            layer.values[target, :, start:end] = layer.values[source, :, start:end]
