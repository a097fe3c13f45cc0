"""Any Hugging Face sequence classifier as a judge: a reward model's logit, or a label's probability."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stars_guard.errors import MissingExtra, ScorerError
from stars_guard.hub import quiet
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.segments import Passage
from stars_guard.turns import text_of

__all__ = ["SequenceClassifierScorer"]


class SequenceClassifierScorer(Scorer):
    """Make it with `load`. Passages go through the model in batches of similar length, on a thread of its own."""

    cost = 20.0

    def __init__(self, model: Any, tokenizer: Any, identity: dict[str, str], *, label: str | None,
                 template: str | None, max_length: int, batch_size: int) -> None:  # fmt: skip
        self.identity = identity
        self._model = model
        self._tokenizer = tokenizer
        self._template = template
        self._max_length = min(max_length, int(getattr(model.config, "max_position_embeddings", max_length)))
        self._batch_size = batch_size
        self._label = _label_index(model.config, label)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="stars-guard-judge")

    @classmethod
    async def load(
        cls,
        model: str,
        *,
        revision: str | None = None,
        label: str | None = None,
        template: str | None = None,
        max_length: int = 512,
        batch_size: int = 32,
        device: str | None = None,
    ) -> SequenceClassifierScorer:
        """Load a classifier directory or hub name.

        Args:
            label: score is this label's probability; None takes the one logit of a reward model.
            template: format string with ``{prompt}`` and ``{answer}``; None uses the tokenizer's chat template, or
                else the pair of texts.
            max_length: tokens; the end of the answer is kept.

        Raises:
            ScorerError: there is no such model or label.
            MissingExtra: torch or transformers is not installed.
        """

        def build() -> SequenceClassifierScorer:
            try:
                import torch
                from transformers import AutoModelForSequenceClassification, AutoTokenizer
            except ImportError as exc:
                raise MissingExtra("sequence_classifier", "transformers") from exc
            where = device or ("cuda" if torch.cuda.is_available() else "cpu")
            try:
                with quiet():
                    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
                    loaded = AutoModelForSequenceClassification.from_pretrained(model, revision=revision)
            except Exception as exc:
                raise ScorerError(
                    f"cannot load the judge model {model!r}: {type(exc).__name__}",
                    hint="pass a Hugging Face directory or name, or 'embedded:reward'",
                ) from exc
            digest = hashlib.sha256(loaded.config.to_json_string().encode()).hexdigest()
            identity = {"kind": "sequence_classifier", "model": model, "revision": revision or "",
                        "label": label or "", "config_sha256": digest}  # fmt: skip
            return cls(loaded.to(where).eval(), tokenizer, identity, label=label, template=template,
                       max_length=max_length, batch_size=batch_size)  # fmt: skip

        return await asyncio.to_thread(build)

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        values = await asyncio.get_running_loop().run_in_executor(self._worker, self._score, passages)
        return [Rating(value) for value in values]

    def _encode(self, passage: Passage) -> list[int]:
        """Token ids. What is too long is cut from the prompt's front, down to a quarter, then from the answer's."""
        tokenizer = self._tokenizer
        prompt = "\n".join(text_of(message) for message in passage.messages if message.role != "system")

        def plain(text: str) -> list[int]:
            ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)[
                "input_ids"
            ]
            return ids

        if self._template is not None:
            before, _, after = self._template.partition("{answer}")
            head, tail = plain(before.replace("{prompt}", prompt)), plain(after)
            room = self._max_length - len(tail)
            answer = plain(passage.answer)
            head = head[-max(room // 4, room - len(answer)) :]
            return head + answer[-(room - len(head)) :] + tail if answer else head + tail
        first, second = plain(prompt), plain(passage.answer)
        room = self._max_length - 4
        first = first[-max(room // 4, room - len(second)) :]
        second = second[-(room - len(first)) :] if second else second
        cls_id, sep_id = tokenizer.cls_token_id, tokenizer.sep_token_id
        if cls_id is None or sep_id is None:
            return first + second
        self._boundary = len(first) + 2
        return [cls_id, *first, sep_id, *second, sep_id]

    def _score(self, passages: Sequence[Passage]) -> list[float]:
        import torch

        encoded = []
        for passage in passages:
            self._boundary = 0
            ids = self._encode(passage)
            encoded.append((ids, self._boundary or len(ids)))
        values = [0.0] * len(passages)
        order = sorted(range(len(passages)), key=lambda i: len(encoded[i][0]))
        pad = self._tokenizer.pad_token_id or 0
        device = self._model.device
        for start in range(0, len(order), self._batch_size):
            chunk = order[start : start + self._batch_size]
            width = max(len(encoded[i][0]) for i in chunk)
            rows = [encoded[i][0] + [pad] * (width - len(encoded[i][0])) for i in chunk]
            inputs: dict[str, Any] = {
                "input_ids": torch.tensor(rows, device=device),
                "attention_mask": torch.tensor(
                    [[1] * len(encoded[i][0]) + [0] * (width - len(encoded[i][0])) for i in chunk], device=device
                ),
            }
            if "token_type_ids" in self._tokenizer.model_input_names:
                inputs["token_type_ids"] = torch.tensor(
                    [[int(encoded[i][1] <= at < len(encoded[i][0])) for at in range(width)] for i in chunk],
                    device=device,
                )
            with torch.inference_mode():
                logits = self._model(**inputs).logits.float()
            for i, value in zip(chunk, self._value(logits), strict=True):
                values[i] = value
        return values

    def _value(self, logits: Any) -> list[float]:
        if self._label is None:
            return [float(v) for v in logits[:, 0]]
        multi = getattr(self._model.config, "problem_type", None) == "multi_label_classification"
        probs = logits.sigmoid() if multi or logits.shape[1] == 1 else logits.softmax(-1)
        return [float(v) for v in probs[:, self._label]]

    async def aclose(self) -> None:
        await asyncio.to_thread(self._worker.shutdown)


def _label_index(config: Any, label: str | None) -> int | None:
    names = [str(name) for _, name in sorted(config.id2label.items())]
    if label is None:
        if len(names) == 1:
            return None
        raise ScorerError(f"the judge model has {len(names)} labels", hint=f"set label: one of {', '.join(names)}")
    if label not in names:
        raise ScorerError(f"the judge model has no label {label!r}", hint=f"use one of {', '.join(names)}")
    return names.index(label)
