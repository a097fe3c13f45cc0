"""A causal language model and its key-value cache in slots, on a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from stars_guard.engines.kept_prefixes import reason_against_keeping, steady_length
from stars_guard.engines.model_thread import ModelThread
from stars_guard.errors import BackendError, StarsGuardError

if TYPE_CHECKING:
    import torch

    from stars_guard.backends._kv import SlotCache

__all__ = ["Row", "SlotModel", "check_attention", "check_layers", "check_slots"]

T = TypeVar("T")

PIECE = 512
"""Tokens of a prompt that are read in one pass."""

TRIAL = 14
"""Tokens of a trial, two of which follow the prefix."""

CLOSE = 0.05
"""How far logits may be apart that are the same but for rounding, as a share."""


@dataclass(slots=True, eq=False)
class Row:
    """A slot of the cache. ``agreed``: positions that hold the session's accepted prefix; ``busy``: a proposal's."""

    index: int
    agreed: int = 0
    busy: bool = False


class SlotModel:
    """Rows are taken and given back on the event loop; all that touches the cache runs as a job on the thread.

    A job is given the cache that was there when its rows were taken.

    Args:
        model: of transformers, in evaluation mode.

    Attributes:
        cache: its keys and values, for the rows that are taken now.
        context: positions that a sequence may have.
    """

    def __init__(self, model: Any) -> None:
        from stars_guard.backends._kv import SlotCache

        self.model = model
        self._config = model.config.get_text_config()
        length, steady = int(self._config.max_position_embeddings), steady_length(self._config)
        self.context = min(length, steady or length)
        self.cache = SlotCache(self._config.num_hidden_layers)
        self._free: list[int] = []
        self._rows = 0
        self._thread = ModelThread("model")

    async def run(self, job: Callable[[], T]) -> T:
        """Run a job on the model's thread; what torch raises becomes a BackendError."""
        try:
            return await self._thread.run(job)
        except (StarsGuardError, asyncio.CancelledError):
            raise
        except Exception as exc:
            raise BackendError(f"the model failed: {type(exc).__name__}") from exc

    def take_row(self) -> Row:
        """A free slot."""
        if self._free:
            self._free.sort(reverse=True)
            return Row(self._free.pop())
        self._rows += 1
        return Row(self._rows - 1)

    def give_rows(self, rows: Sequence[Row]) -> None:
        """Return slots. With the last of them goes the cache: what a crowd of calls needed is not held for good."""
        self._free += [row.index for row in rows]
        if not self.rows_in_use:
            self._free, self._rows, self.cache = [], 0, self.cache.anew()

    @property
    def rows_in_use(self) -> int:
        """Slots that sessions hold."""
        return self._rows - len(self._free)

    async def prefill(self, row: Row, ids: Sequence[int]) -> None:
        """Read a prefix into a row, except what it has of it."""
        cache, start = self.cache, row.agreed
        await self.run(lambda: self._read(cache, row.index, ids[start:], start))
        row.agreed = len(ids)

    async def align(self, source: Row, rows: Sequence[Row], base: int, end: int) -> None:
        """Bring rows to the accepted prefix, which ``source`` holds, with room up to ``end``."""
        import torch

        cache = self.cache

        def bring() -> None:
            with torch.inference_mode():
                cache.reserve(max(row.index for row in rows) + 1, end)
                for row in rows:
                    if row.agreed < base:
                        cache.copy(source.index, row.index, row.agreed, base)
                        row.agreed = base

        await self.run(bring)

    def forward(self, cache: SlotCache, rows: Sequence[int], lengths: Sequence[int], ids: Sequence[int]) -> Any:
        """One more token in each row.

        Args:
            rows: their slots, ascending.
            lengths: positions that each holds.
            ids: the token at that position.

        Returns:
            Logits [rows, vocabulary] in float32 of the token after it.
        """
        import torch

        device = self.model.device
        at = torch.tensor([[length] for length in lengths], device=device)
        end = max(lengths) + 1
        cache.aim(list(rows), at, end)
        output = self.model(
            input_ids=torch.tensor([[token] for token in ids], device=device),
            attention_mask=self._masks(at, end),
            position_ids=at,
            past_key_values=cache,
            use_cache=True,
        )
        return output.logits[:, -1].float()

    def _read(self, cache: SlotCache, row: int, ids: Sequence[int], start: int = 0) -> None:
        """Read tokens into positions ``start`` and on."""
        import torch

        device = self.model.device
        with torch.inference_mode():
            cache.reserve(row + 1, start + len(ids) + 1)
            for at in range(0, len(ids), PIECE):
                piece = list(ids[at : at + PIECE])
                positions = torch.arange(start + at, start + at + len(piece), device=device)[None]
                end = start + at + len(piece)
                cache.aim([row], positions, end)
                self.model(
                    input_ids=torch.tensor([piece], device=device),
                    attention_mask=self._masks(positions, end),
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )

    def _masks(self, positions: torch.Tensor, end: int) -> Any:
        from stars_guard.engines.attention import causal_masks

        return causal_masks(self._config, positions, end, self.model.dtype)

    async def aclose(self) -> None:
        """End the thread and let the cache go. May be called twice."""
        await self._thread.aclose()
        self.cache = self.cache.anew()


def check_layers(config: Any) -> None:
    """Whether a model's prefixes can be kept in slots, as far as its config says so.

    Raises:
        BackendError: they cannot; it says which layers are the reason.
    """
    config = config.get_text_config()
    if reason := reason_against_keeping(config):
        raise _unkept(config, reason)


def check_attention(config: Any) -> None:
    """Whether transformers' code for a model uses the attention that reads from our slots.

    Raises:
        BackendError: it does not, or there is no code that generates text with such a model.
    """
    from transformers import AutoModelForCausalLM

    kind = type(config)
    if hasattr(config, "auto_map") and "AutoModelForCausalLM" in config.auto_map:
        return  # code of the model's own, which is run on trust alone: loading says what is wrong
    if kind not in AutoModelForCausalLM._model_mapping:
        raise BackendError(
            f"models of the kind {config.model_type} don't generate text in transformers",
            hint="name a causal language model, or use backend='vllm' or 'vllm-server' if vLLM serves it",
        )
    if not getattr(AutoModelForCausalLM._model_mapping[kind], "_supports_sdpa", True):
        raise _unkept(config, "its attention in transformers is code of its own, without SDPA")


def check_slots(model: Any) -> None:
    """Whether a model's prefixes can be kept in slots, by a trial. Blocks.

    The trial reads a prefix in two parts, copies it to another row, and goes on in both. The logits must be those of
    one pass over the whole. Where layers see a window, that is made shorter than the prefix for a second trial.

    Raises:
        BackendError: they cannot.
    """
    try:
        difference = max(_trial(model, TRIAL), _trial_of_windows(model))
    except Exception as exc:
        raise _unkept(model.config, f"a trial failed: {type(exc).__name__}") from exc
    # half precision gives differences of about a hundredth; a prefix that is not kept rightly is another one
    if not difference <= CLOSE:
        raise _unkept(model.config, "in a trial, its layers did not keep what they had read")


def _unkept(config: Any, reason: str) -> BackendError:
    return BackendError(
        f"the transformers backend cannot keep the prefixes of this model ({config.model_type}): {reason}",
        hint="use backend='vllm' or 'vllm-server' for it",
    )


def _trial(model: Any, length: int) -> float:
    """How far the logits after so many tokens are from those of one pass, as a share of these."""
    import torch

    slots = SlotModel(model)
    ids = _trial_ids(model, length)
    cache, last = slots.cache, length - 2
    slots._read(cache, 0, ids[: last // 2])
    slots._read(cache, 0, ids[last // 2 : last], start=last // 2)
    with torch.inference_mode():
        cache.reserve(2, length + 2)
        cache.copy(0, 1, 0, last - 1)
        slots.forward(cache, [1], [last - 1], [ids[last - 1]])
        found = slots.forward(cache, [0, 1], [last, last], [ids[last], ids[last + 1]])
    return _apart(found, _in_one_pass(model, [[*ids[:last], ids[last]], [*ids[:last], ids[last + 1]]]))


def _trial_of_windows(model: Any) -> float:
    """The same where the prefix is longer than the window that the model's config names."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if not window or window < TRIAL:
        return 0.0
    ids = [_trial_ids(model, TRIAL)]
    whole = _in_one_pass(model, ids)
    config.sliding_window = TRIAL // 2
    try:
        if _apart(_in_one_pass(model, ids), whole) > 0:
            return _trial(model, TRIAL)
    finally:
        config.sliding_window = window
    # the model does not look at what its config says: it has no windows, or has noted their length when it was made
    if "sliding_attention" not in (getattr(config, "layer_types", None) or ["sliding_attention"]):
        return 0.0
    length = int(window) + TRIAL
    return _trial(model, length) if length <= SlotModel(model).context else 0.0


def _trial_ids(model: Any, length: int) -> list[int]:
    vocabulary = int(model.config.get_text_config().vocab_size)
    return [(7 * i + 3) % vocabulary for i in range(length)]


def _in_one_pass(model: Any, ids: Sequence[Sequence[int]]) -> torch.Tensor:
    """The logits of the last tokens, without a cache."""
    import torch

    with torch.inference_mode():
        given = torch.tensor(ids, device=model.device)
        logits: torch.Tensor = model(input_ids=given, use_cache=False, logits_to_keep=1).logits[:, -1].float()
    return logits


def _apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
