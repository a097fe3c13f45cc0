"""Reads sequences with a decoder after what it has read before: one more segment costs that segment alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_layers import GenericForSequenceClassification

from stars_guard.engines.attention import causal_masks, use_grouped
from stars_guard.scorers._kept_states import States, Tail, Trunk, common_length

__all__ = ["Prefixes", "keeps_prefixes"]

PIECE = 512
"""Tokens of one sequence in one pass; what is longer is read in several."""

SHARED = 8
"""Tokens from which on what several passages have in common is read once, in a pass before theirs."""

WINDOWED = frozenset({"full_attention", "sliding_attention"})


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Job:
    """Read tokens [start, end) of a sequence after the first ``start`` tokens of its trunk.

    Attributes:
        as_tail: whether what is read is kept as a tail; else it is put on the trunk.
        passage: the index of the passage whose last token this reads, if it does.
        cached: tokens of that passage that are not read again.
    """

    trunk: Trunk
    ids: list[int]
    start: int
    end: int
    as_tail: bool = False
    passage: int | None = None
    cached: int = 0

    @property
    def size(self) -> int:
        """Tokens to read."""
        return self.end - self.start


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """One layer of a `_Pass`: gives the model's attention what was kept before each row, and what is new."""

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
        new = States(key_states, value_states)
        whole = self._on_the_trunk(new) if self.owner.in_place else self._gathered(new)
        return whole.keys, whole.values

    def _on_the_trunk(self, new: States) -> States:
        """A single sequence is written where it will be kept, so nothing is copied."""
        (job,) = self.owner.jobs
        job.trunk.write(self.number, job.start, States(new.keys[0], new.values[0]))
        kept = job.trunk.layers[self.number].first(self.owner.end)
        return States(kept.keys[None], kept.values[None])

    def _gathered(self, new: States) -> States:
        """Several sequences are put together in one tensor, each after its own trunk."""
        self.owner.new.append(new)
        rows, heads, _, dim = new.keys.shape
        size = (rows, heads, self.owner.end, dim)
        whole = States(new.keys.new_zeros(size), new.values.new_zeros(size))
        for row, job in enumerate(self.owner.jobs):
            if job.start:
                before = job.trunk.layers[self.number].first(job.start)
                whole.keys[row, :, : job.start] = before.keys
                whole.values[row, :, : job.start] = before.values
            end = job.start + self.owner.width
            whole.keys[row, :, job.start : end] = new.keys[row]
            whole.values[row, :, job.start : end] = new.values[row]
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
    """What a forward pass sees as its cache: rows of their own length, each after its trunk.

    Attributes:
        width: columns of the pass; shorter rows are padded on the right.
        end: positions up to the last column.
        in_place: whether the one row is written onto its trunk while the pass runs.
        new: the states of all rows by layer, where they are not.
    """

    def __init__(self, jobs: Sequence[_Job], layers: int) -> None:
        self.jobs = jobs
        self.width = max(job.size for job in jobs)
        self.end = max(job.start for job in jobs) + self.width
        self.in_place = len(jobs) == 1 and not jobs[0].as_tail
        self.new: list[States] = []
        super().__init__(layers=[_Layer(self, number) for number in range(layers)])

    def keep(self) -> None:
        """Put what was read where its job says. Padded positions are left behind."""
        for row, job in enumerate(self.jobs):
            own = [States(new.keys[row], new.values[row]).first(job.size) for new in self.new]
            if job.as_tail:
                job.trunk.tails.append(Tail(job.ids, job.start, [states.copy() for states in own]))
                continue
            for layer, states in enumerate(own):
                job.trunk.write(layer, job.start, states)
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
        self._calls: OrderedDict[str, Trunk] = OrderedDict()

    @property
    def tokens(self) -> int:
        """How many are kept."""
        return sum(trunk.tokens for trunk in self._calls.values())

    def forget(self, call_id: str) -> None:
        """Drop a call."""
        self._calls.pop(call_id, None)

    def read(self, calls: Sequence[str], sequences: Sequence[list[int]]) -> tuple[torch.Tensor, list[int]]:
        """The last token's state [sequences, width] of each, and how many of its tokens were not read again."""
        found: dict[int, tuple[torch.Tensor, int]] = {}
        with torch.inference_mode():
            for chunk in _chunks(calls, self._batch_size):
                plans = [self._plan(call, {i: sequences[i] for i in passages}) for call, passages in chunk.items()]
                # what passages have in common must be on its trunk before any of them is read
                for stage in ([job for stem, _ in plans for job in stem], [job for _, ends in plans for job in ends]):
                    for jobs in _passes(stage, self._batch_size):
                        for job, state in zip(jobs, self._forward(jobs), strict=True):
                            if job.passage is not None:
                                found[job.passage] = state, job.cached
                while self._calls and self.tokens > self._limit:
                    self._calls.popitem(last=False)
        rows = [found[i] for i in range(len(sequences))]
        return torch.stack([state for state, _ in rows]), [cached for _, cached in rows]

    def _plan(self, call: str, passages: dict[int, list[int]]) -> tuple[list[_Job], list[_Job]]:
        """How to read a call's passages: first what they have in common, if it is long enough, and then each."""
        trunk = self._calls.setdefault(call, Trunk())
        self._calls.move_to_end(call)
        (lead, first), *others = passages.items()
        stem = min((common_length(first, ids) for _, ids in others), default=len(first))
        # at least one token is always read, because its state is what is asked for
        shortest = min(map(len, passages.values())) - 1
        trunk.adopt(first[:stem])
        start = min(common_length(trunk.ids, first[:stem]), shortest)
        if not others:
            return [], [_Job(trunk=trunk, ids=first, start=start, end=len(first), passage=lead, cached=start)]
        stems, after = [], start
        if (shared := min(stem, shortest)) - start >= SHARED:
            stems, after = [_Job(trunk=trunk, ids=first, start=start, end=shared)], shared
        ends = [
            # the first passage pays for what all have in common
            _Job(trunk=trunk, ids=ids, start=after, end=len(ids), as_tail=True, passage=i, cached=paid)
            for (i, ids), paid in zip(passages.items(), [start, *(after for _ in others)], strict=True)
        ]
        return stems, ends

    def _forward(self, jobs: Sequence[_Job]) -> list[torch.Tensor]:
        """The state of the last token that each job reads."""
        for job in jobs:
            job.trunk.cut(job.start)
        device = self._model.device
        cache = _Pass(jobs, self._config.num_hidden_layers)
        rows = [job.ids[job.start : job.end] + [0] * (cache.width - job.size) for job in jobs]
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
        return [hidden[row, job.size - 1] for row, job in enumerate(jobs)]


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
    shortened = []
    for job in jobs:
        while not job.as_tail and job.size > PIECE:
            yield [replace(job, end=job.start + PIECE, passage=None)]
            job = replace(job, start=job.start + PIECE)
        shortened.append(job)
    group: list[_Job] = []
    for job in sorted(shortened, key=lambda job: job.size):
        if group and (len(group) == size or job.size > 2 * group[0].size + 16):
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
