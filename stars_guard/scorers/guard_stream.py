"""Qwen3Guard-Stream as a judge: it rates each token of an answer as it is written, and reads no token twice."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise, takewhile
from typing import Any, ClassVar, Self

from pydantic import Field

from stars_guard.core.segments import Passage
from stars_guard.engines.loading import loading, own_code
from stars_guard.engines.model_thread import ModelThread
from stars_guard.engines.qwen3guard_stream import CATEGORIES, load_qwen3guard_stream
from stars_guard.errors import MissingExtra, ScorerError, ScorerInputError
from stars_guard.prompting.guard_questions import Encoder
from stars_guard.prompting.plain_text import as_text
from stars_guard.scorers._guard_verdicts import Controversial
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.scorers.model_options import ModelOptions
from stars_guard.scorers.options import Loosening

__all__ = ["GuardStreamOptions", "GuardStreamScorer"]


class GuardStreamOptions(ModelOptions):
    """Qwen3Guard-Stream: the chance that two tokens in a row of the answer are unsafe, or that a user's text is."""

    free: ClassVar[frozenset[str]] = frozenset({"cache_tokens", "controversial", "max_length"})

    controversial: Controversial = Field("unsafe", description="what the level between the two counts as")
    max_length: int = Field(8192, ge=16, description="tokens of the conversation; a longer one can't be judged")
    cache_tokens: int = Field(32768, ge=0, description="tokens that are kept, of all calls together")

    def loosenings(self, child: Self) -> Iterator[Loosening]:
        yield from super().loosenings(child)
        if child.max_length < self.max_length and child.on_error == "ignore":
            yield "max_length", f"{self.max_length} -> {child.max_length}"
        if child.controversial == "safe" != self.controversial:
            yield "controversial", "unsafe -> safe"

    async def load(self) -> Scorer:
        return await GuardStreamScorer.load(
            self.model,
            revision=self.revision,
            controversial=self.controversial,
            max_length=self.max_length,
            cache_tokens=self.cache_tokens,
        )


@dataclass(slots=True)
class _Read:
    """What was read of a call.

    Attributes:
        ids: token ids.
        kept: their keys and values.
        chances: of each token of ``ids``, how likely it is unsafe, and the likeliest category.
    """

    ids: list[int] = field(repr=False)
    kept: Any
    chances: list[tuple[float, int]] = field(repr=False)


class GuardStreamScorer(Scorer):
    """Rates tokens. Make it with `load`.

    An answer is unsafe where two of its tokens in a row are, as its makers evaluate it. So the score is the highest
    chance of the less likely one of two neighbours. A text of a user or a tool has the chance at its end.
    """

    cost = 20.0
    reads_turns = True

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        identity: dict[str, str],
        *,
        controversial: Controversial,
        max_length: int,
        cache_tokens: int,
    ) -> None:
        self.identity = identity
        self._model = model
        self._encoder = Encoder(tokenizer)
        self._unsafe = [1, 2] if controversial == "unsafe" else [1]
        self._max_length = max_length
        self._cache_tokens = cache_tokens
        self._read: OrderedDict[tuple[str, bool], _Read] = OrderedDict()
        self._worker = ModelThread("judge")
        self._closed = False

    @classmethod
    async def load(
        cls,
        model: str,
        *,
        revision: str | None = None,
        controversial: Controversial = "unsafe",
        max_length: int = 8192,
        cache_tokens: int = 32768,
        device: str | None = None,
    ) -> GuardStreamScorer:
        """Load a checkpoint of Qwen3Guard-Stream.

        Args:
            controversial: what the level between safe and unsafe counts as.
            max_length: tokens of a conversation with its answer.
            cache_tokens: the most tokens whose keys and values are kept, of all calls together.

        Raises:
            ScorerError: there is no such model, or it is another one.
            MissingExtra: torch or transformers is not installed.
        """

        def build() -> GuardStreamScorer:
            try:
                import torch
                from transformers import AutoTokenizer
            except ImportError as exc:
                raise MissingExtra("guard_stream", "transformers") from exc
            where = device or ("cuda" if torch.cuda.is_available() else "cpu")
            with loading(f"the judge model {model!r}", ScorerError):
                dtype = torch.float32 if torch.device(where).type == "cpu" else "auto"
                tokenizer = AutoTokenizer.from_pretrained(model, **own_code(revision))
                loaded = load_qwen3guard_stream(model, revision, dtype)
            identity = {
                "kind": "guard_stream",
                "model": model,
                "revision": revision or "",
                "controversial": controversial,
            }
            return cls(
                loaded.to(where).eval(),
                tokenizer,
                identity,
                controversial=controversial,
                max_length=max_length,
                cache_tokens=cache_tokens,
            )

        return await asyncio.to_thread(build)

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        if self._closed:
            raise ScorerError("the judge's model is closed")
        return await self._worker.run(lambda: [self._rating(passage) for passage in passages])

    def _rating(self, passage: Passage) -> Rating:
        of_query = passage.role != "assistant"
        frame, ids = self._encoded(passage, of_query)
        if len(ids) > self._max_length:
            raise ScorerInputError(
                f"the conversation has {len(ids)} tokens, and {self._max_length} fit", hint="raise max_length"
            )
        chances, cached = self._chances(passage.call_id, ids, of_query)
        if of_query:
            value, category = chances[-1]
            return Rating(value, CATEGORIES[category], cached=cached)
        own = chances[frame:]
        if len(own) < 2:
            value, category = max(own, default=(0.0, 0))
        else:
            value, category = max((min(one, two)[0], two[1]) for one, two in pairwise(own))
        return Rating(value, CATEGORIES[category], cached=cached)

    def _encoded(self, passage: Passage, of_query: bool) -> tuple[int, list[int]]:
        """Tokens before the judged text, and all tokens, as the chat template of Qwen3 without reasoning has them."""
        turns = as_text(passage.messages)
        texts = [*(turn.content for turn in turns), passage.answer]
        rendered = "".join(f"<|im_start|>{turn.role}\n\x02{i}\x02<|im_end|>\n" for i, turn in enumerate(turns))
        if of_query:
            rendered += f"<|im_start|>user\n\x02{len(turns)}\x02<|im_end|>"
            return 0, self._encoder.encode(rendered, texts)
        rendered += "<|im_start|>assistant\n<think>\n\n</think>\n\n"
        before = self._encoder.encode(rendered, texts)
        ids = self._encoder.encode(f"{rendered}\x02{len(turns)}\x02", texts)
        # the last tokens of the frame may be others beside the text
        return len(_common(before, ids)), ids

    def _chances(self, call_id: str, ids: list[int], of_query: bool) -> tuple[list[tuple[float, int]], int]:
        """Of each token, and how many tokens were not read again."""
        import torch
        from transformers import DynamicCache

        read = self._read.pop((call_id, of_query), None) or _Read([], DynamicCache(), [])
        same = min(len(_common(read.ids, ids)), len(ids) - 1)
        if same < len(read.ids):
            read.kept.crop(same - len(read.ids))
        with torch.inference_mode():
            new = torch.tensor([ids[same:]], device=self._model.device)
            output = self._model.model(input_ids=new, past_key_values=read.kept, use_cache=True)
            levels, categories = self._model.rate(output.last_hidden_state[0], of_query=of_query)
            unsafe = levels.float().softmax(-1)[:, self._unsafe].sum(-1).tolist()
            likeliest = categories.argmax(-1).tolist()
        chances = [*read.chances[:same], *zip(unsafe, likeliest, strict=True)]
        self._read[call_id, of_query] = _Read(ids, output.past_key_values, chances)
        while sum(len(one.ids) for one in self._read.values()) > self._cache_tokens:
            self._read.popitem(last=False)
        return chances, same

    async def forget(self, call_id: str) -> None:
        if not self._closed:
            await self._worker.run(partial(self._drop, call_id))

    def _drop(self, call_id: str) -> None:
        for of_query in (False, True):
            self._read.pop((call_id, of_query), None)

    async def aclose(self) -> None:
        self._closed = True
        await self._worker.aclose()
        self._model = None
        self._read.clear()


def _common(one: Sequence[int], two: Sequence[int]) -> list[int]:
    """What both begin with."""
    return [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False))]
