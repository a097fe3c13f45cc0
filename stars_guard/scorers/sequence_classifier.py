"""Any Hugging Face sequence classifier as a judge: a reward model's logit, or the probability of labels.

A decoder (Llama, Qwen, Gemma and their like) keeps what it has read of a call, so that judging one more segment costs
that segment. Others read the whole passage each time, in batches.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import Field, model_validator

from stars_guard.concealing import concealed
from stars_guard.core.segments import Passage
from stars_guard.engines.embedded_models import resolve_model
from stars_guard.engines.loading import load_judge, loading, own_code
from stars_guard.engines.model_thread import ModelThread
from stars_guard.engines.piguard import load_piguard
from stars_guard.errors import MissingExtra, ScorerError
from stars_guard.scorers._classifier import Classifier, ClassifierOptions, ClassifierScorer, Row
from stars_guard.scorers._passes import passes
from stars_guard.scorers._reading import Reader, Reading, places
from stars_guard.scorers._windows import MOST_WINDOWS

if TYPE_CHECKING:
    from stars_guard.scorers._prefixes import Prefixes

__all__ = ["SequenceClassifier", "SequenceClassifierOptions", "SequenceClassifierScorer"]

T = TypeVar("T")

logger = logging.getLogger("stars_guard.scorers")

LONGEST_KEPT, LONGEST = 4096, 512
"""Tokens that are read where the policy does not say: of a model that keeps what it has read, and of others."""

START_ON_CPU, START = 64, 8192
"""What a pass costs beside its texts, as tokens that take as long. The embedded encoder in float32 takes 45 on one core
(11 ms, and 0.25 ms a token, measured). A GPU has little to gain from less padding, and wants few large passes."""

RECENT = 512
"""Passages whose logits are kept, for further judges on the same model."""


class SequenceClassifierOptions(ClassifierOptions):
    """A Hugging Face sequence classifier. A decoder keeps what it has read of a call, and reads only what is new."""

    free: ClassVar[frozenset[str]] = ClassifierOptions.free | {"batch_size", "cache_tokens"}
    usual_lengths: ClassVar[tuple[int, int]] = (LONGEST, LONGEST_KEPT)

    preset: Literal["prompt-guard-2", "piguard"] | None = Field(
        None, description="a published classifier with two labels, of which the second is harmful: how it is read"
    )
    max_length: int | None = Field(
        None, ge=16, description="tokens; default: 4096 for a decoder that keeps what it has read, 512 for others"
    )
    batch_size: int = Field(32, ge=1, description="passages that are scored at once")
    cache_tokens: int = Field(32768, ge=0, description="tokens that a decoder keeps, of all calls together")

    @model_validator(mode="before")
    @classmethod
    def _reads_texts_alone(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("preset") is None:
            return data
        known = {"template": "{answer}", "max_length": data.get("max_length") or LONGEST}
        given = {key: value for key, value in data.items() if value not in (None, known.get(key))}
        if extra := sorted({"label", "labels", "template"} & {*given}):
            raise ValueError(f"a preset brings its own template and label: take {', '.join(extra)} out")
        return {**data, **known}

    def label_of(self, config: Any) -> str | None:
        if self.preset is None:
            return super().label_of(config)
        names = [str(name) for _, name in sorted(config.id2label.items())]
        if len(names) != 2:
            raise ScorerError(f"{self.preset} has two labels, and the judge model {len(names)}", hint="check model")
        return names[1]

    async def load_classifier(self) -> Classifier:
        return await SequenceClassifier.load(
            await asyncio.to_thread(resolve_model, self.model),
            revision=self.revision,
            template=self.template,
            max_length=self.max_length,
            batch_size=self.batch_size,
            cache_tokens=self.cache_tokens,
            own_head=self.preset == "piguard",
        )


class SequenceClassifier(Classifier):
    """One model, on a thread of its own. Make it with `load`; `SequenceClassifierScorer` takes it."""

    cost = 20.0

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        identity: dict[str, str],
        *,
        template: str | None,
        max_length: int | None,
        batch_size: int,
        cache_tokens: int,
    ) -> None:
        from stars_guard.scorers._prefixes import Prefixes, keeps_prefixes

        super().__init__()
        self.identity = identity
        self.config = model.config
        text = model.config.get_text_config()
        self._pad: int | None = text.pad_token_id
        self._model = model
        self._batch_size = batch_size
        self._prefixes: Prefixes | None = None
        if keeps_prefixes(model):
            self._prefixes = Prefixes(model.base_model, limit=cache_tokens, batch_size=batch_size)
        kept = self._prefixes is not None
        logger.info(
            "%s: %s", concealed(identity["model"]), "keeps what it has read" if kept else "reads each passage whole"
        )
        limits = [max_length or (LONGEST_KEPT if kept else LONGEST), int(tokenizer.model_max_length)]
        limits.append(places(text) or limits[0])
        self._typed = "token_type_ids" in tokenizer.model_input_names
        self._reader = Reader(
            tokenizer, template=template, max_length=min(limits), coarse=kept, unread=self._pad if kept else None
        )
        self._recent: OrderedDict[tuple[int, ...], list[float]] = OrderedDict()
        self._worker = ModelThread("judge")
        self._closed = False

    @classmethod
    async def load(
        cls,
        model: str,
        *,
        revision: str | None = None,
        template: str | None = None,
        max_length: int | None = None,
        batch_size: int = 32,
        cache_tokens: int = 32768,
        device: str | None = None,
        own_head: bool = False,
    ) -> SequenceClassifier:
        """Load a classifier directory or hub name.

        Args:
            template: format string with ``{prompt}`` and ``{answer}``; None uses the tokenizer's chat template, or
                else the pair of texts.
            max_length: tokens; what is too long is cut from the front of the prompt, down to a quarter. What is then
                too long of the judged text is read in windows, or cut from its front (see `ClassifierScorer`). None:
                4096 for a model that keeps what it has read, 512 for others.
            cache_tokens: the most tokens whose keys and values are kept, of all calls together; 0 keeps none.
            own_head: whether it is PIGuard, whose head is one that transformers does not know.

        Raises:
            ScorerError: there is no such model, or some of its weights are missing.
            MissingExtra: torch or transformers is not installed.
        """

        def build() -> SequenceClassifier:
            try:
                import torch
                from transformers import AutoModelForSequenceClassification, AutoTokenizer
            except ImportError as exc:
                raise MissingExtra("sequence_classifier", "transformers") from exc
            where = device or ("cuda" if torch.cuda.is_available() else "cpu")
            hint = "pass a Hugging Face directory or name, or 'embedded:reward'"
            with loading(f"the judge model {model!r}", ScorerError, hint=hint):
                tokenizer = AutoTokenizer.from_pretrained(model, **own_code(revision))
                dtype = torch.float32 if torch.device(where).type == "cpu" else "auto"
                if own_head:
                    loaded = load_piguard(model, revision, dtype)
                else:
                    loaded = load_judge(AutoModelForSequenceClassification, model, revision, dtype)
            digest = hashlib.sha256(loaded.config.to_json_string().encode()).hexdigest()
            identity = {
                "kind": "sequence_classifier",
                "model": model,
                "revision": revision or "",
                "config_sha256": digest,
            }
            return cls(
                loaded.to(where).eval(),
                tokenizer,
                identity,
                template=template,
                max_length=max_length,
                batch_size=batch_size,
                cache_tokens=cache_tokens,
            )

        return await asyncio.to_thread(build)

    async def readings(self, passages: Sequence[Passage], most: int | None) -> list[list[Reading]]:
        return await self._run(partial(self._readings, passages, most))

    def _readings(self, passages: Sequence[Passage], most: int | None) -> list[list[Reading]]:
        if most is None:
            return [[self._reader.read(passage)] for passage in passages]
        return [self._reader.windows(passage, most) for passage in passages]

    async def rows(self, calls: Sequence[str], readings: Sequence[Reading]) -> list[Row]:
        return await self._run(partial(self._rows, calls, readings)) if readings else []

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise ScorerError(f"the judge model {self.identity['model']!r} is closed")
        return await self._worker.run(work)

    def _rows(self, calls: Sequence[str], readings: Sequence[Reading]) -> list[Row]:
        keys = [tuple(reading.ids) for reading in readings]
        found: dict[tuple[int, ...], Row] = {key: (self._recent[key], len(key)) for key in keys if key in self._recent}
        fresh = {key: i for i, key in enumerate(keys) if key not in found}
        if fresh:
            chosen = [readings[i] for i in fresh.values()]
            if self._prefixes is not None:
                rows, cached = self._after_prefixes([calls[i] for i in fresh.values()], chosen, self._prefixes)
            else:
                rows, cached = self._whole(chosen), [0] * len(fresh)
            found.update(zip(fresh, zip(rows, cached, strict=True), strict=True))
            self._recent.update(zip(fresh, rows, strict=True))
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)
        return [found[key] for key in keys]

    def _after_prefixes(
        self, calls: Sequence[str], readings: Sequence[Reading], prefixes: Prefixes
    ) -> tuple[list[list[float]], list[int]]:
        import torch

        states, cached = prefixes.read(calls, [reading.ids for reading in readings])
        with torch.inference_mode():
            return self._model.score(states).float().tolist(), cached

    def _whole(self, readings: Sequence[Reading]) -> list[list[float]]:
        import torch

        rows: list[list[float]] = [[] for _ in readings]
        # without a padding token a model cannot tell where a row of a batch ends
        size = 1 if self._pad is None else self._batch_size
        device = self._model.device
        start = START_ON_CPU if device.type == "cpu" else START
        for chunk in passes([len(reading.ids) for reading in readings], size, start):
            lengths = [len(readings[i].ids) for i in chunk]
            width = max(lengths)
            padded = [readings[i].ids + [self._pad or 0] * (width - n) for i, n in zip(chunk, lengths, strict=True)]
            inputs = {
                "input_ids": torch.tensor(padded, device=device),
                "attention_mask": torch.tensor([[1] * n + [0] * (width - n) for n in lengths], device=device),
            }
            if self._typed:
                types = [
                    [int(readings[i].second <= at < n) for at in range(width)]
                    for i, n in zip(chunk, lengths, strict=True)
                ]
                inputs["token_type_ids"] = torch.tensor(types, device=device)
            with torch.inference_mode():
                for i, row in zip(chunk, self._model(**inputs).logits.float().tolist(), strict=True):
                    rows[i] = row
        return rows

    async def forget(self, call_id: str) -> None:
        await super().forget(call_id)
        self._reader.forget(call_id)
        if self._prefixes is not None and not self._closed:
            await self._worker.run(partial(self._prefixes.forget, call_id))

    async def aclose(self) -> None:
        self._closed = True
        await self._worker.aclose()
        # the thread is over, so nothing reads the weights and the kept keys and values any more
        self._model = self._prefixes = None
        self._recent.clear()


class SequenceClassifierScorer(ClassifierScorer):
    """A sequence classifier of transformers and the labels that make its score. Make it with `load`."""

    @classmethod
    async def load(
        cls,
        model: str,
        *,
        label: str | None = None,
        labels: Sequence[str] | Mapping[str, float] | None = None,
        windows: int | None = MOST_WINDOWS,
        **options: Any,
    ) -> SequenceClassifierScorer:
        """Load a model for this scorer alone. ``options`` are those of `SequenceClassifier.load`."""
        return await cls.over(await SequenceClassifier.load(model, **options), label, labels, windows=windows)
