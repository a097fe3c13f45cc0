"""The final hidden states of a transformers model, as they go into its output layer: read from the pass itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stars_guard.core.directions import Directions
from stars_guard.errors import BackendError, InputError

__all__ = ["FinalStates"]


class FinalStates:
    """Keeps hold of what the last forward pass gave the output layer. Use it on the model's thread.

    Args:
        model: of transformers.
    """

    def __init__(self, model: Any) -> None:
        self._layer = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        self._last: Any = None
        # of each set of directions, as long as calls ask for few different ones
        self._matrices: dict[tuple[Directions, ...], Any] = {}
        self._hook = None if self._layer is None else self._layer.register_forward_pre_hook(self._keep)

    def _keep(self, layer: Any, inputs: tuple[Any, ...]) -> None:
        self._last = inputs[0]

    def check(self, directions: Sequence[Directions], model_sha256: str) -> None:
        """Whether the directions are for this model.

        Args:
            model_sha256: fingerprint of its checkpoint.

        Raises:
            InputError: they are not, or the model has no output layer.
        """
        if self._layer is None:
            raise InputError("this model has no output layer of its own, so a probe can't read its hidden states")
        width = int(self._layer.weight.shape[-1])
        for one in directions:
            if one.width != width:
                raise InputError(
                    f"a probe is for hidden states of {one.width} numbers, and the model's have {width}",
                    hint="it was trained on another model; `stars-guard probe train` makes one for this",
                )
            if one.model_sha256 and one.model_sha256 != model_sha256:
                raise InputError(
                    "a probe was trained on another checkpoint than the model's",
                    hint="the same architecture is not enough; `stars-guard probe train` makes one for this model",
                )

    def values(self, asked: Sequence[tuple[Directions, ...]]) -> list[tuple[float, ...]]:
        """For each row of the last pass the values of the directions that are asked for, on its last position.

        Raises:
            BackendError: the model's output layer was not used.
        """
        found: list[tuple[float, ...]] = [() for _ in asked]
        kinds = dict.fromkeys(one for one in asked if one)
        if kinds and self._last is None:
            raise BackendError("the model's pass did not use its output layer, so there are no states for a probe")
        for kind in kinds:
            rows = [row for row, one in enumerate(asked) if one == kind]
            states = self._last[rows, -1].float()
            for row, values in zip(rows, (states @ self._matrix(kind, states)).tolist(), strict=True):
                found[row] = tuple(values)
        self._last = None
        return found

    def _matrix(self, directions: tuple[Directions, ...], states: Any) -> Any:
        import torch

        if directions not in self._matrices:
            if len(self._matrices) >= 16:
                self._matrices.clear()
            parts = [torch.tensor(one.rows) if one.rows else torch.eye(one.width) for one in directions]
            self._matrices[directions] = torch.cat(parts).to(states.device, torch.float32).T
        return self._matrices[directions]

    def close(self) -> None:
        """Leave the model as it was. May be called twice."""
        if self._hook is not None:
            self._hook.remove()
        self._last = None
