"""Keys and values of what a decoder has read, kept by call: one more segment costs that segment alone.

A call has a trunk, what its passages have in common, and a tail for each of the passages that were read last. When one
of them becomes part of the answer, the next passages begin with it, and its tail is put on the trunk.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_layers import GenericForSequenceClassification

from stars_guard.engines.attention import causal_masks, use_grouped

__all__ = ["Prefixes", "keeps_prefixes"]

PIECE = 512
"""Tokens of one sequence in one pass; what is longer is read in several."""

SHARED = 8
"""Tokens from which on what several passages have in common is read once, in a pass before theirs."""

WINDOWED = frozenset({"full_attention", "sliding_attention"})


@dataclass(slots=True, eq=False)
class _Tail:
    """Keys and values [heads, tokens, dim] by layer of a passage's tokens from ``start`` on."""

    ids: list[int]
    start: int
    keys: list[torch.Tensor]
    values: list[torch.Tensor]


@dataclass(slots=True, eq=False)
class _Trunk:
    """Keys and values [heads, capacity, dim] by layer; the first ``len(ids)`` positions count."""

    ids: list[int] = field(default_factory=list)
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)
    tails: list[_Tail] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Positions that memory is taken for."""
        return (self.keys[0].shape[1] if self.keys else 0) + sum(len(t.ids) - t.start for t in self.tails)

    def write(self, layer: int, start: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put positions in place, making room."""
        end = start + keys.shape[1]
        if layer == len(self.keys):
            self.keys.append(keys[:, :0])
            self.values.append(values[:, :0])
        for own, new in ((self.keys, keys), (self.values, values)):
            old = own[layer]
            if old.shape[1] < end:
                room = -(-(end + end // 4) // 64) * 64
                own[layer] = old.new_zeros((old.shape[0] or new.shape[0], room, new.shape[2]))
                own[layer][:, :start] = old[:, :start]
            own[layer][:, start:end] = new

    def adopt(self, ids: list[int]) -> None:
        """Bring the trunk as near to a sequence as the tails allow."""
        best = max(self.tails, key=lambda tail: _common(tail.ids, ids), default=None)
        if best is not None and (length := _common(best.ids, ids)) > max(best.start, _common(self.ids, ids)):
            for layer, (keys, values) in enumerate(zip(best.keys, best.values, strict=True)):
                self.write(layer, best.start, keys[:, : length - best.start], values[:, : length - best.start])
            self.ids = best.ids[:length]
        self.tails = []


@dataclass(slots=True, eq=False)
class _Job:
    """Read tokens [start, end) of a sequence after ``start`` of its trunk; onto the trunk, or as a tail."""

    trunk: _Trunk
    ids: list[int]
    start: int
    end: int
    tail: bool = False
    passage: int | None = None


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    is_compileable = False
    is_sliding = False

    def __init__(self, owner: _Pass, number: int) -> None:
        super().__init__()
        self.owner = owner
        self.number = number

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        owner, number = self.owner, self.number
        if len(owner.jobs) == 1 and not owner.jobs[0].tail:
            trunk, end = owner.jobs[0].trunk, owner.end
            trunk.write(number, owner.jobs[0].start, key_states[0], value_states[0])
            return trunk.keys[number][None, :, :end], trunk.values[number][None, :, :end]
        owner.new.append((key_states, value_states))
        return self._gathered(key_states, "keys"), self._gathered(value_states, "values")

    def _gathered(self, new: torch.Tensor, name: str) -> torch.Tensor:
        rows, heads, width, dim = new.shape
        whole = new.new_zeros((rows, heads, self.owner.end, dim))
        for row, job in enumerate(self.owner.jobs):
            if job.start:
                whole[row, :, : job.start] = getattr(job.trunk, name)[self.number][:, : job.start]
            whole[row, :, job.start : job.start + width] = new[row]
        return whole

    def get_seq_length(self) -> int:
        return self.owner.end

    def get_max_length(self) -> int:
        return -1

    def get_max_cache_shape(self) -> int:
        return -1

    def get_mask_sizes(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        return self.owner.end, 0


class _Pass(Cache):  # type: ignore[misc]
    """What a forward pass sees as its cache: rows of their own length, each after its trunk."""

    def __init__(self, jobs: Sequence[_Job], layers: int) -> None:
        self.jobs = jobs
        self.width = max(job.end - job.start for job in jobs)
        self.end = max(job.start for job in jobs) + self.width
        self.new: list[tuple[torch.Tensor, torch.Tensor]] = []
        super().__init__(layers=[_Layer(self, number) for number in range(layers)])

    def keep(self) -> None:
        """Put what was read where its job says. Padded positions are left behind."""
        for row, job in enumerate(self.jobs):
            size = job.end - job.start
            if job.tail:
                keys, values = ([pair[i][row, :, :size].clone() for pair in self.new] for i in (0, 1))
                job.trunk.tails.append(_Tail(job.ids, job.start, keys, values))
                continue
            for layer, (new_keys, new_values) in enumerate(self.new):
                job.trunk.write(layer, job.start, new_keys[row, :, :size], new_values[row, :, :size])
            job.trunk.ids = job.ids[: job.end]


class Prefixes:
    """Reads sequences with a decoder, and keeps what it has read.

    Args:
        model: the decoder, without a head.
        limit: tokens that are kept between readings. The calls that were read least recently are dropped, and read
            again when they come back.
        batch_size: sequences of one pass.
    """

    def __init__(self, model: Any, *, limit: int, batch_size: int) -> None:
        self._model = model
        self._config = model.config
        self._limit = limit
        self._batch_size = batch_size
        self._calls: OrderedDict[str, _Trunk] = OrderedDict()

    @property
    def tokens(self) -> int:
        """What is kept."""
        return sum(trunk.tokens for trunk in self._calls.values())

    def forget(self, call_id: str) -> None:
        """Drop a call."""
        self._calls.pop(call_id, None)

    def read(self, calls: Sequence[str], sequences: Sequence[list[int]]) -> tuple[torch.Tensor, list[int]]:
        """The last token's state [sequences, width] of each, and how many of its tokens were not read again."""
        states: list[torch.Tensor | None] = [None] * len(calls)
        cached = [0] * len(calls)
        with torch.inference_mode():
            for chunk in _chunks(calls, self._batch_size):
                stems, ends = self._plan(chunk, sequences, cached)
                for stage in (stems, ends):
                    for jobs in _passes(stage, self._batch_size):
                        for job, state in zip(jobs, self._forward(jobs), strict=True):
                            if job.passage is not None:
                                states[job.passage] = state
                while self._calls and self.tokens > self._limit:
                    self._calls.popitem(last=False)
        return torch.stack([state for state in states if state is not None]), cached

    def _plan(
        self, chunk: dict[str, list[int]], sequences: Sequence[list[int]], cached: list[int]
    ) -> tuple[list[_Job], list[_Job]]:
        """Jobs of two stages: what several passages of a call have in common, and the passages themselves."""
        stems, ends = [], []
        for call, passages in chunk.items():
            trunk = self._calls.setdefault(call, _Trunk())
            self._calls.move_to_end(call)
            first = sequences[passages[0]]
            stem = min(_common(first, sequences[i]) for i in passages)
            shortest = min(len(sequences[i]) for i in passages) - 1
            trunk.adopt(first[:stem])
            start = min(_common(trunk.ids, first[:stem]), shortest)
            for i in passages:
                cached[i] = start
            if len(passages) == 1:
                ends.append(_Job(trunk, first, start, len(first), passage=passages[0]))
                continue
            if (shared := min(stem, shortest)) - start >= SHARED:
                stems.append(_Job(trunk, first, start, shared))
                for i in passages[1:]:
                    cached[i] = shared
                start = shared
            ends += [_Job(trunk, sequences[i], start, len(sequences[i]), True, i) for i in passages]
        return stems, ends

    def _forward(self, jobs: Sequence[_Job]) -> list[torch.Tensor]:
        for job in jobs:
            # what is behind is written over; should the pass fail, it must not count
            del job.trunk.ids[job.start :]
        device = self._model.device
        cache = _Pass(jobs, self._config.num_hidden_layers)
        rows = [job.ids[job.start : job.end] + [0] * (cache.width - job.end + job.start) for job in jobs]
        starts = torch.tensor([[job.start] for job in jobs], device=device)
        positions = starts + torch.arange(cache.width, device=device)
        hidden = self._model(
            input_ids=torch.tensor(rows, device=device),
            attention_mask=causal_masks(self._config, positions, cache.end, self._model.dtype),
            # padding may lie past what the model has places for; its states are not used
            position_ids=positions.clamp(max=int(self._config.max_position_embeddings) - 1),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        cache.keep()
        return [hidden[row, job.end - job.start - 1] for row, job in enumerate(jobs)]


def _common(one: list[int], other: list[int]) -> int:
    """How many first items are the same. Halves, so that the comparing is done in C."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _chunks(calls: Sequence[str], size: int) -> Iterator[dict[str, list[int]]]:
    """Passages by call, at most ``size`` at once."""
    by_call: dict[str, list[int]] = {}
    for i, call in enumerate(calls):
        by_call.setdefault(call, []).append(i)
    chunk: dict[str, list[int]] = {}
    room = size
    for call, passages in by_call.items():
        while passages:
            if not room:
                yield chunk
                chunk, room = {}, size
            chunk[call], passages = passages[:room], passages[room:]
            room -= len(chunk[call])
    if chunk:
        yield chunk


def _passes(jobs: Sequence[_Job], size: int) -> Iterator[list[_Job]]:
    """Jobs of about the same number of tokens together. Long ones onto a trunk are read in pieces first."""
    todo = []
    for job in jobs:
        start = job.start
        while not job.tail and job.end - start > PIECE:
            yield [_Job(job.trunk, job.ids, start, start + PIECE)]
            start += PIECE
        todo.append(_Job(job.trunk, job.ids, start, job.end, job.tail, job.passage))
    todo.sort(key=lambda job: job.end - job.start)
    group: list[_Job] = []
    for job in todo:
        if group and (len(group) == size or job.end - job.start > 2 * (group[0].end - group[0].start) + 16):
            yield group
            group = []
        group.append(job)
    if group:
        yield group


def keeps_prefixes(model: Any) -> bool:
    """Whether a sequence classifier is a decoder whose states can be kept: its config says so, and a trial agrees."""
    config = model.config
    if not isinstance(model, GenericForSequenceClassification) or config.get_text_config() is not config:
        return False
    if getattr(config, "use_bidirectional_attention", False) or not getattr(config, "is_causal", True):
        return False
    if not set(getattr(config, "layer_types", None) or ()) <= WINDOWED:
        return False
    # these turn what was read before when the text grows past a length
    rope = getattr(config, "rope_parameters", None) or {}
    if any(kind in str(rope) for kind in ("dynamic", "longrope")):
        return False
    decoder = model.base_model
    use_grouped(decoder)
    ids = [(7 * i + 3) % config.vocab_size for i in range(24)]
    kept = Prefixes(decoder, limit=1024, batch_size=2)
    try:
        kept.read(["trial"], [ids[:12]])
        states, cached = kept.read(["trial", "trial"], [ids, ids[:20]])
        with torch.inference_mode():
            own = decoder(input_ids=torch.tensor([ids], device=model.device)).last_hidden_state[0, [23, 19]]
    except Exception:
        return False
    # half precision gives differences of about a hundredth; a state that is not kept rightly is another one
    return cached == [12, 12] and bool((states - own).float().norm() <= 0.05 * own.float().norm())
