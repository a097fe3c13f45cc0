"""Generative safety models as judges: the exact probability of the word that says "unsafe", never a sampled text."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from stars_guard.core.segments import Passage
from stars_guard.engines.addresses import Address
from stars_guard.engines.embedded_models import resolve_model
from stars_guard.engines.loading import load_config, load_tokenizer, loading, own_code
from stars_guard.engines.vllm_client import parse_options
from stars_guard.engines.vllm_lasting import LastingEngine
from stars_guard.errors import BackendError, InputError, MissingExtra, ScorerError
from stars_guard.prompting.guard_formats import GuardFormat, guard_format
from stars_guard.prompting.guard_questions import Encoder, LabelTokens, Questions, template_problem
from stars_guard.scorers._guard_engines import GuardEngine, Row, ServerGuard, TransformersGuard, VllmGuard
from stars_guard.scorers._guard_verdicts import Controversial, Verdicts
from stars_guard.scorers._guard_windows import Asked, Window
from stars_guard.scorers._guard_writing import Effort, Writing
from stars_guard.scorers._windows import MOST_WINDOWS, Settled, worst
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.scorers.model_options import ServedModelOptions
from stars_guard.scorers.options import Loosening, no_twins

__all__ = ["GuardModelOptions", "GuardModelScorer", "Preset"]

Words = Annotated[str, Field(min_length=1)]

Preset = Literal[
    "dynaguard",
    "dynaguard-think",
    "gpt-oss-safeguard",
    "granite-guardian-3.0",
    "granite-guardian-3.2",
    "granite-guardian-4.1",
    "granite-guardian-4.1-think",
    "llama-guard-3",
    "llama-guard-3-1b",
    "llama-guard-4",
    "nemotron-content-safety",
    "polyguard",
    "qwen3guard",
    "shieldgemma",
    "wildguard",
]
"""The names of the data files in `stars_guard.prompting.guard_formats`."""


MOST_WRITTEN = 1024
"""Tokens that a model may write before its verdict, where the policy does not say."""


SHORTEST = 16
"""The least tokens that a question may be allowed."""

COST_OF_WRITING = 5000.0
"""Milliseconds, roughly, of a model that writes before its verdict."""


class GuardModelOptions(ServedModelOptions):
    """A generative safety model: the probability of its harmful labels against its safe ones, in one forward pass.

    It runs on transformers; on vLLM in this process where ``engine`` is given; on a vLLM server where ``base_url`` is.
    """

    free: ClassVar[frozenset[str]] = frozenset(
        {"categories", "controversial", "criteria", "engine", "max_length", "max_windows", "batch_size"}
    )

    preset: Preset | None = Field(None, description="the published format that the model was trained on")
    categories: tuple[str, ...] | None = Field(
        None, min_length=1, strict=False, description="hazards that are asked about; default: the preset's"
    )
    criteria: dict[str, Words] | None = Field(
        None, min_length=1, description="what is asked about in words of your own, by name; for presets that take it"
    )
    effort: Effort | None = Field(None, description="how much gpt-oss-safeguard reasons; default: medium")
    max_written: int | None = Field(
        None, ge=1, description="tokens that a model may write before its verdict; default: 1024. Then it can't judge"
    )
    temperature: float | None = Field(
        None, ge=0, le=2, description="of what it writes, by a seed from the question; default: 0, the likeliest text"
    )
    controversial: Controversial = Field("unsafe", description="what qwen3guard's third label counts as")
    template: str | None = Field(
        None,
        min_length=1,
        description="Jinja2, up to where the label comes; it has prompt, answer, segment, messages and role",
    )
    harmful: tuple[str, ...] | None = Field(
        None, min_length=1, strict=False, description="with template: labels as the model writes them"
    )
    safe: tuple[str, ...] | None = Field(None, min_length=1, strict=False, description="with template")
    engine: dict[str, Any] | None = Field(None, description="vLLM's engine arguments, in process")
    max_length: int = Field(4096, ge=SHORTEST, description="tokens of a question; longer texts are read in windows")
    max_windows: int = Field(MOST_WINDOWS, ge=1, description="of one text; one with more is an error")
    batch_size: int = Field(8, ge=1, description="questions in one pass of transformers")

    @field_validator("criteria")
    @classmethod
    def _taken(cls, criteria: dict[str, str] | None, info: ValidationInfo) -> dict[str, str] | None:
        preset = info.data.get("preset")
        if criteria is not None and preset is not None:
            form = guard_format(preset)
            if not form.own:
                raise ValueError(f"{preset} was not trained for criteria of others: pick from its categories")
            if both := sorted({*criteria} & {*form.categories}):
                raise ValueError(f"{preset} has a category {both[0]!r} of its own: take another name")
        return criteria

    @field_validator("categories")
    @classmethod
    def _differ(cls, categories: tuple[str, ...] | None) -> tuple[str, ...] | None:
        no_twins("categories", list(categories or ()))
        return categories

    @field_validator("template")
    @classmethod
    def _renders(cls, template: str | None) -> str | None:
        if template is not None and (problem := template_problem(template)):
            raise ValueError(problem)
        return template

    @field_validator("harmful", "safe")
    @classmethod
    def _not_empty(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels is not None and "" in labels:
            raise ValueError("a label should not be empty")
        return labels

    @model_validator(mode="after")
    def _one_format(self) -> Self:
        own = (self.template, self.harmful, self.safe)
        if self.preset is not None and any(own):
            raise ValueError("a preset brings its own template and labels: take template, harmful and safe out")
        if self.preset is None and not all(own):
            raise ValueError("give preset, or template, harmful and safe")
        if both := {*(self.harmful or ())} & {*(self.safe or ())}:
            raise ValueError(f"both harmful and safe have the label {sorted(both)[0]!r}")
        if self.preset is None and (self.categories or self.criteria):
            raise ValueError("categories are a preset's: write those of your own into the template")
        if self.categories is not None and (problem := self.form.problem(self.categories)):
            raise ValueError(problem)
        if not self.form.default and self.form.own:
            raise ValueError(f"{self.preset} judges by criteria of yours: give criteria")
        if self.effort is not None and not self.form.effort:
            raise ValueError(f"effort: {self.form.name} doesn't take it")
        if (self.max_written or self.temperature is not None) and not self.form.writes:
            raise ValueError(f"{self.form.name} writes nothing first: leave out max_written and temperature")
        if self.base_url is not None and self.engine is not None:
            raise ValueError("give base_url (a server) or engine (in this process), not both")
        return self

    @property
    def form(self) -> GuardFormat:
        """How the model is asked."""
        if self.preset is not None:
            return guard_format(self.preset).with_criteria(self.criteria or {})
        return GuardFormat("custom", self.template or "", self.harmful or (), self.safe or ())

    def loosenings(self, child: Self) -> Iterator[Loosening]:
        yield from super().loosenings(child)
        if child.max_length < self.max_length and child.on_error == "ignore":
            yield "max_length", f"{self.max_length} -> {child.max_length}"
        if self.preset != child.preset:
            return  # another judge, which is said of the preset
        for name, words in (self.criteria or {}).items():
            if (child.criteria or {}).get(name) != words:
                yield "criteria", f"criterion {name!r} is not asked about in the same words"
        asked = child.categories or child.form.default
        for category in self.categories or self.form.default:
            if category not in asked:
                yield "categories", f"category {category!r} is not asked about"
        if child.controversial == "safe" != self.controversial:
            yield "controversial", "unsafe -> safe"

    async def load(self) -> Scorer:
        return await GuardModelScorer.load(
            await asyncio.to_thread(resolve_model, self.model),
            await asyncio.to_thread(lambda: self.form),
            categories=self.categories or (),
            controversial=self.controversial,
            revision=self.revision,
            max_length=self.max_length,
            max_windows=self.max_windows,
            batch_size=self.batch_size,
            base_url=self.base_url,
            api_key=self.api_key(),
            engine=self.engine,
            effort=self.effort or "medium",
            max_written=self.max_written or MOST_WRITTEN,
            temperature=self.temperature or 0.0,
        )


class GuardModelScorer(Scorer):
    """P(harmful) / (P(harmful) + P(safe)) of the next token after the rendered question. Make it with `load`.

    The probability of a side is the sum over its labels, each counted by its first token. Where a format needs several
    questions they go in one batch, and the score is the highest; ``detail`` is its category. A text that is too long
    for a question is asked about in windows that overlap, and the highest of their scores is the score.
    """

    cost = 50.0
    reads_turns = True

    def __init__(
        self,
        engine: GuardEngine,
        encoder: Encoder,
        questions: Questions,
        labels: LabelTokens,
        identity: dict[str, str],
        max_length: int,
        max_windows: int = MOST_WINDOWS,
        *,
        writing: Writing,
    ) -> None:
        self.identity = identity
        self._engine = engine
        self._questions = questions
        self._labels = labels
        self._verdicts = Verdicts(labels.ids, writing)
        if questions.writes:
            self.cost = COST_OF_WRITING
        self._asked = Asked(encoder, questions, max_length=max_length, most=max_windows)
        self._settled: Settled[list[float]] = Settled()
        self._most = max_windows

    @classmethod
    async def load(
        cls,
        model: str,
        form: GuardFormat,
        *,
        categories: Sequence[str] = (),
        controversial: Controversial = "unsafe",
        revision: str | None = None,
        max_length: int = 4096,
        max_windows: int = MOST_WINDOWS,
        batch_size: int = 8,
        device: str | None = None,
        base_url: str | None = None,
        api_key: SecretStr | None = None,
        engine: Mapping[str, Any] | None = None,
        effort: Effort = "medium",
        max_written: int = MOST_WRITTEN,
        temperature: float = 0.0,
    ) -> GuardModelScorer:
        """Load a causal language model, start an engine for it, or use a server.

        Args:
            model: a directory or name; of a server, the name under which it serves.
            form: how the model is asked.
            categories: those that are asked; none takes the format's default.
            controversial: which side the format's labels between the two count for.
            max_length: tokens of a question; a longer text is asked about in windows.
            max_windows: of one text; one with more is an error.
            batch_size: questions in one pass of transformers.
            base_url: of a vLLM server.
            engine: vLLM's engine arguments; given, vLLM runs in this process.
            effort: how much a format that says so asks the model to reason.
            max_written: tokens that a model may write before its verdict. Without one the score is not a number.
            temperature: of what it writes.

        Raises:
            ScorerError: there is no such model, labels that begin with the same token, or the engine did not start.
            MissingExtra: torch, transformers or vLLM is not installed.
        """
        questions = Questions(form, categories, controversial=controversial, effort=effort)
        tokenizer, config = await asyncio.to_thread(
            load_tokenizer, model, revision, ScorerError, what="the judge model", feature="guard_model"
        )
        limit = getattr(config.get_text_config(), "max_position_embeddings", None)
        encoder = Encoder(tokenizer)
        # before the model is loaded, which takes long
        labels = questions.labels(encoder)
        identity = {
            "kind": "guard_model",
            "model": model,
            "revision": revision or "",
            "preset": form.name,
            "categories": ", ".join(categories or form.default),
            "server": Address.of(base_url).shown if base_url else "",
            "format": form.digest,
        }
        writing = _writing(form, tokenizer, config, max_written, temperature)
        if form.writes:
            identity |= {"effort": effort if form.effort else "", "written": f"{max_written}, {temperature:g}"}
            limit = limit and limit - max_written
            if limit is not None and limit < SHORTEST:
                raise ScorerError(
                    f"the judge model {model!r} reads {limit + max_written} tokens, and may write {max_written}",
                    hint="lower max_written",
                )
        where: GuardEngine
        if base_url is not None:
            where = await asyncio.to_thread(
                ServerGuard, model, parse_options({"base_url": base_url, "api_key": api_key})
            )
        elif engine is not None:
            try:
                where = VllmGuard(await LastingEngine.begin(model, {"revision": revision, **engine}))
            except (BackendError, InputError) as exc:
                raise ScorerError(f"judge model {model!r}: {exc.message}", hint=exc.hint) from exc
        else:
            where = TransformersGuard(await asyncio.to_thread(_weights, model, revision, device), batch_size)
        longest = min(max_length, limit or max_length)
        return cls(where, encoder, questions, labels, identity, longest, max_windows, writing=writing)

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        asked = await asyncio.to_thread(lambda: [self._asked.windows(passage) for passage in passages])
        known = [
            self._settled.of(passage.call_id, passage.messages) if len(windows) > 1 else {}
            for passage, windows in zip(passages, asked, strict=True)
        ]
        new = [(i, window) for i, windows in enumerate(asked) for window in windows if window.key not in known[i]]
        rows = iter(
            await self._answers([(self._questions.about(passages[i].role).writes, window) for i, window in new])
        )
        chances: dict[tuple[int, Hashable], list[float]] = {}
        cached: dict[int, list[int]] = {}
        for i, window in new:
            answered = [next(rows) for _ in self._questions.about(passages[i].role).asked]
            chances[i, window.key] = [math.nan if row is None else self._chance(row[0]) for row in answered]
            cached.setdefault(i, []).extend(row[1] for row in answered if row is not None and row[1] is not None)
        ratings = [
            worst(
                [
                    Rating(*self._questions.about(passage.role).verdict(chances.get((i, key)) or known[i][key]))
                    for key in [window.key for window in asked[i]]
                ],
                cached=cached.get(i),
            )
            for i, passage in enumerate(passages)
        ]
        for i, window in new:
            if window.is_settled:
                call_id, messages = passages[i].call_id, passages[i].messages
                self._settled.keep(call_id, messages, window.key, chances[i, window.key], self._most)
        return ratings

    async def _answers(self, asked: Sequence[tuple[str, Window]]) -> list[Row | None]:
        """What the model says to all questions about windows, each with what it writes first."""
        encoded = await asyncio.to_thread(lambda: [(until, ids) for until, window in asked for ids in window.encode()])
        found: list[Row | None] = [None] * len(encoded)
        for kind in sorted({until for until, _ in encoded}):
            places = [at for at, (until, _) in enumerate(encoded) if until == kind]
            rows = await self._verdicts.of(self._engine, [encoded[at][1] for at in places], kind)
            for at, row in zip(places, rows, strict=True):
                found[at] = row
        return found

    async def forget(self, call_id: str) -> None:
        self._settled.forget(call_id)
        self._asked.forget(call_id)

    def _chance(self, logs: Sequence[float]) -> float:
        top = max(logs)
        weights = [math.exp(value - top) for value in logs]
        return sum(weights[: len(self._labels.harmful)]) / sum(weights)

    async def aclose(self) -> None:
        await self._engine.aclose()


def _writing(form: GuardFormat, tokenizer: Any, config: Any, limit: int, temperature: float) -> Writing:
    ends = [tokenizer.eos_token_id, config.get_text_config().eos_token_id]
    flat = [token for one in ends for token in (one if isinstance(one, list) else [one])]
    return Writing(
        until=form.writes,
        limit=limit,
        temperature=temperature,
        ends=frozenset(token for token in flat if token is not None),
        text_of=partial(tokenizer.decode, skip_special_tokens=False),
    )


def _weights(model: str, revision: str | None, device: str | None) -> Any:
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError as exc:
        raise MissingExtra("guard_model", "transformers") from exc
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with loading(f"the judge model {model!r}", ScorerError):
        dtype = torch.float32 if torch.device(where).type == "cpu" else "auto"
        loaded = AutoModelForCausalLM.from_pretrained(
            model, config=load_config(model, revision), dtype=dtype, **own_code(revision)
        )
        return loaded.to(where).eval()
