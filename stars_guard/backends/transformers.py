"""A Hugging Face causal language model on CPU or GPU, shared by many calls in lockstep.

Every live proposal of every call is one row of a batch that advances one token a step. A session's accepted prefix
stays in the key-value cache: a rejection sets a row's length back, an acceptance lets the row go on, and other rows
copy only the part that they lack. Nothing is prefilled twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stars_guard.backends._vocabulary import Prompt, decoder
from stars_guard.backends.base import Backend, Proposal, Session
from stars_guard.core.grammar import Grammar
from stars_guard.core.messages import Message
from stars_guard.core.sampling import Sampling
from stars_guard.core.segments import Token
from stars_guard.core.tools import Toolset
from stars_guard.engines.loading import quiet
from stars_guard.engines.model_thread import Worker
from stars_guard.errors import BackendError, MissingExtra, ProtocolError, StarsGuardError
from stars_guard.prompting.detokenizer import Detokenizer

if TYPE_CHECKING:
    import torch

    from stars_guard.backends._grammar import Compiler, Matcher
    from stars_guard.backends._kv import SlotCache

__all__ = ["TransformersBackend"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Row:
    """A slot of the cache. ``agreed``: positions that hold the session's accepted prefix; ``busy``: a proposal's."""

    index: int
    agreed: int = 0
    busy: bool = False


class _Proposal(Proposal):
    def __init__(self, session: _Session, row: _Row, seed: int, limit: int) -> None:
        self.session = session
        self.row = row
        self.limit = limit
        self.random = random.Random(seed)  # noqa: S311
        self.matcher = session.matcher()
        self.length = len(session.ids) - 1
        self.base = self.length
        self.next_id = session.ids[-1]
        self.ids: list[int] = []
        self.states: list[Detokenizer] = []
        self.live = True
        self.over = False
        self._queue: asyncio.Queue[Token | BackendError | None] = asyncio.Queue()

    def advance(self, token: int, entropy: float | None) -> Token:
        """Take the drawn token; called on the worker thread."""
        if self.matcher is not None:
            self.matcher.accept(token)
        self.length += 1
        self.next_id = token
        self.ids.append(token)
        state = self.states[-1] if self.states else self.session.detokenizer
        last, text = token in self.session.backend.eos_ids, ""
        if not last:
            text, state = state.feed(token)
        self.states.append(state)
        self.over = last or len(self.ids) >= self.limit
        return Token(token, text, entropy=entropy, last=last)

    def deliver(self, item: Token | BackendError | None) -> None:
        self._queue.put_nowait(item)

    async def __aiter__(self) -> AsyncIterator[Sequence[Token]]:
        while True:
            item = await self._queue.get()
            if item is None:
                return
            if isinstance(item, BackendError):
                raise item
            yield (item,)

    @property
    def drawn(self) -> int:
        return len(self.ids)

    def halt(self) -> None:
        self.live = False

    async def aclose(self) -> None:
        self.live = False
        self.row.busy = False


class _Session(Session):
    def __init__(
        self, backend: TransformersBackend, prompt: Prompt, sampling: Sampling, entropies: bool, compiled: Any
    ) -> None:
        self.backend = backend
        self.ids = [*prompt.ids]
        self.form = prompt.form
        self.grammar = prompt.grammar
        self.sampling = sampling
        self.entropies = entropies
        shown = prompt.form.shown if prompt.form else {}
        self.detokenizer = Detokenizer(decoder(backend._tokenizer, shown) if shown else backend.decode)
        self.prompt_tokens = len(prompt.ids)
        self.room = backend.context - len(prompt.ids)
        self._compiled = compiled
        self.rows: list[_Row] = []
        self.proposals: set[_Proposal] = set()

    def matcher(self) -> Matcher | None:
        """At the grammar's beginning, if there is one."""
        return None if self._compiled is None else self.backend.grammars.begin(self._compiled)

    async def propose(self, seeds: Sequence[int], limit: int, *, ahead: int = 0) -> list[Proposal]:
        base = len(self.ids) - 1
        source = max(self.rows, key=lambda row: row.agreed)
        free = sorted((row for row in self.rows if not row.busy), key=lambda row: -row.agreed)
        while len(free) < len(seeds):
            row = self.backend.take_row()
            self.rows.append(row)
            free.append(row)
        chosen = free[: len(seeds)]
        for row in chosen:
            row.busy = True
        await self.backend.prepare(source, chosen, base, base + limit + 1)
        proposals = [_Proposal(self, row, seed, limit) for row, seed in zip(chosen, seeds, strict=True)]
        self.proposals.update(proposals)
        self.backend.join(proposals)
        return list(proposals)

    async def commit(self, proposal: Proposal, length: int, *, go_on: bool = False) -> int:
        if not isinstance(proposal, _Proposal) or proposal not in self.proposals or length > len(proposal.ids):
            raise ProtocolError("only what an open proposal of this session has drawn can be committed")
        await proposal.aclose()
        self.ids += proposal.ids[:length]
        self.detokenizer = proposal.states[length - 1] if length else self.detokenizer
        proposal.row.agreed = proposal.base + length
        self.proposals.discard(proposal)
        return len(proposal.ids) - length

    async def aclose(self) -> None:
        for proposal in self.proposals:
            await proposal.aclose()
        self.proposals.clear()
        rows, self.rows = self.rows, []
        self.backend.give_rows(rows)


class TransformersBackend(Backend):
    """One causal language model. Make it with `load`."""

    def __init__(self, model: Any, tokenizer: Any, identity: dict[str, str]) -> None:
        import torch

        from stars_guard.backends._kv import SlotCache

        config = self._config = model.config.get_text_config()
        self.identity = identity
        self.reproducible = model.dtype == torch.float32
        # measured with the embedded model on two cores, where one row alone is by far the cheapest; on a GPU a guess
        self.row_cost = 0.7 if model.device.type == "cpu" else 0.02
        self.context = int(config.max_position_embeddings)
        eos = model.generation_config.eos_token_id
        eos = config.eos_token_id if eos is None else eos
        self.eos_ids = frozenset([eos] if isinstance(eos, int) else eos or [])
        self._model = model
        self._tokenizer = tokenizer
        self.decode = decoder(tokenizer)
        # jobs on the model's thread are given the cache that was there when their rows were taken
        self._cache = SlotCache(config.num_hidden_layers)
        self._free: list[int] = []
        self._rows = 0
        self._live: list[_Proposal] = []
        self._stepping: asyncio.Task[None] | None = None
        self._vocabulary_size = int(config.vocab_size)
        self._worker = Worker("model")

    @classmethod
    async def load(
        cls, model: str | Path, *, dtype: str | None = None, device: str | None = None, revision: str | None = None
    ) -> TransformersBackend:
        """Load a model directory or hub name.

        Args:
            dtype: torch's name of it; default bfloat16 on a GPU and float32 on the CPU.
            device: default ``cuda`` where there is one.

        Raises:
            BackendError: there is no such model, or it cannot be loaded.
            MissingExtra: torch or transformers is not installed.
        """
        return await asyncio.to_thread(cls._load, str(model), dtype, device, revision)

    @classmethod
    def _load(cls, model: str, dtype: str | None, device: str | None, revision: str | None) -> TransformersBackend:
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer

            from stars_guard.engines.attention import use_grouped
        except ImportError as exc:
            raise MissingExtra("the transformers backend", "transformers") from exc
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = dtype or ("float32" if device == "cpu" else "bfloat16")
        try:
            with quiet():
                tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
                loaded = AutoModelForCausalLM.from_pretrained(
                    model, revision=revision, dtype=getattr(torch, dtype), attn_implementation="sdpa"
                )
        except Exception as exc:
            raise BackendError(
                f"cannot load the model {model!r}: {type(exc).__name__}",
                hint="pass a Hugging Face directory or name, or 'embedded' for the built-in small model",
            ) from exc
        config = hashlib.sha256(loaded.config.to_json_string().encode()).hexdigest()
        identity = {
            "engine": "transformers",
            "model": model,
            "revision": revision or "",
            "dtype": dtype,
            "config_sha256": config,
        }
        use_grouped(loaded)
        return cls(loaded.to(device).eval(), tokenizer, identity)

    @cached_property
    def grammars(self) -> Compiler:
        """Of this model's tokenizer."""
        from stars_guard.backends._grammar import Compiler

        return Compiler(self._tokenizer, self._vocabulary_size, self.eos_ids)

    async def work(self, job: Callable[[], T]) -> T:
        """Run a job on the model's thread; what torch raises becomes a BackendError."""
        try:
            return await self._worker.run(job)
        except (StarsGuardError, asyncio.CancelledError):
            raise
        except Exception as exc:
            raise BackendError(f"the model failed: {type(exc).__name__}") from exc

    async def open(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        entropies: bool = False,
        seeded: bool = False,
        tools: Toolset | None = None,
        grammar: Grammar | None = None,
    ) -> Session:
        prompt = await self.work(lambda: Prompt.of(self._tokenizer, messages, self.context, tools, grammar))
        compiled = None
        if (rules := prompt.grammar) is not None:
            compiled = await asyncio.to_thread(lambda: self.grammars.compile(rules))
        session, ids = _Session(self, prompt, sampling, entropies, compiled), prompt.ids
        row = self.take_row()
        session.rows.append(row)
        try:
            cache = self._cache
            await self.work(lambda: self._prefill(cache, row, ids[:-1]))
        except BaseException:
            await session.aclose()
            raise
        row.agreed = len(ids) - 1
        return session

    def take_row(self) -> _Row:
        """A free slot."""
        if self._free:
            self._free.sort(reverse=True)
            return _Row(self._free.pop())
        self._rows += 1
        return _Row(self._rows - 1)

    def give_rows(self, rows: Sequence[_Row]) -> None:
        """Return slots. With the last of them goes the cache: what a crowd of calls needed is not held for good."""
        self._free += [row.index for row in rows]
        if not self.rows_in_use:
            self._free, self._rows, self._cache = [], 0, self._cache.anew()

    @property
    def rows_in_use(self) -> int:
        """Slots that sessions hold."""
        return self._rows - len(self._free)

    async def prepare(self, source: _Row, rows: Sequence[_Row], base: int, end: int) -> None:
        """Bring rows to the accepted prefix, with room up to ``end``."""
        import torch

        cache = self._cache

        def bring() -> None:
            with torch.inference_mode():
                cache.reserve(max(row.index for row in rows) + 1, end)
                for row in rows:
                    if row.agreed < base:
                        cache.copy(source.index, row.index, row.agreed, base)
                        row.agreed = base

        await self.work(bring)

    def join(self, proposals: Sequence[_Proposal]) -> None:
        """Let proposals take part from the next step on."""
        self._live += proposals
        if self._stepping is None or self._stepping.done():
            self._stepping = asyncio.get_running_loop().create_task(self._step_all())

    async def _step_all(self) -> None:
        while True:
            self._live = [p for p in self._live if p.live]
            batch = sorted(self._live, key=lambda p: p.row.index)
            if not batch:
                return
            step = partial(self._step, self._cache, batch)
            try:
                tokens = await self.work(step)
            except BackendError as exc:
                for proposal in batch:
                    proposal.live = False
                    proposal.deliver(exc)
                continue
            for proposal, token in zip(batch, tokens, strict=True):
                proposal.deliver(token)
                if proposal.over:
                    proposal.live = False
                    proposal.deliver(None)
            await asyncio.sleep(0)

    def _step(self, cache: SlotCache, batch: Sequence[_Proposal]) -> list[Token]:
        import torch

        from stars_guard.backends._grammar import mask
        from stars_guard.backends._sampling import sample

        with torch.inference_mode():
            logits = self._forward(cache, batch)
            mask(logits, [p.matcher for p in batch])
            uniforms = [p.random.random() for p in batch]
            seen = [p.session.ids + p.ids if p.session.sampling.repetition_penalty != 1.0 else [] for p in batch]
            wanted = [p.session.entropies for p in batch]
            ids, entropies = sample(logits, [p.session.sampling for p in batch], uniforms, seen, wanted)
        return [p.advance(token, entropy) for p, token, entropy in zip(batch, ids, entropies, strict=True)]

    def _forward(self, cache: SlotCache, batch: Sequence[_Proposal]) -> torch.Tensor:
        """Logits [rows, vocabulary] in float32 of the token after each row's last."""
        import torch

        device = self._model.device
        lengths = torch.tensor([[p.length] for p in batch], device=device)
        end = int(lengths.max()) + 1
        cache.aim([p.row.index for p in batch], lengths, end)
        mask = self._masks(lengths, end)
        inputs = torch.tensor([[p.next_id] for p in batch], device=device)
        output = self._model(
            input_ids=inputs, attention_mask=mask, position_ids=lengths, past_key_values=cache, use_cache=True
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _masks(self, positions: torch.Tensor, end: int) -> Any:
        from stars_guard.engines.attention import causal_masks

        return causal_masks(self._config, positions, end, self._model.dtype)

    def _prefill(self, cache: SlotCache, row: _Row, ids: Sequence[int]) -> None:
        import torch

        device = self._model.device
        with torch.inference_mode():
            cache.reserve(row.index + 1, len(ids) + 1)
            for start in range(0, len(ids), 512):
                piece = ids[start : start + 512]
                end = start + len(piece)
                positions = torch.arange(start, end, device=device)[None]
                cache.aim([row.index], positions, end)
                self._model(
                    input_ids=torch.tensor([list(piece)], device=device),
                    attention_mask=self._masks(positions, end),
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )

    async def aclose(self) -> None:
        for proposal in self._live:
            proposal.live = False
        await self._worker.aclose()
