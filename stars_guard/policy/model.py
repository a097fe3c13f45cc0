"""A policy: what the YAML says, as pydantic models."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal, Self

import re2
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stars_guard.segments import Sampling

__all__ = ["Audit", "Decoding", "JudgeSpec", "PatternSpec", "PatternsJudge", "Policy", "SequenceClassifierJudge"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Decoding(_Strict):
    """How answers are drawn."""

    method: Literal["stars", "cards", "vanilla", "best_of_n", "blockwise_best_of_k"] = "stars"
    segment_tokens: int = Field(16, ge=1, le=4096, description="B: tokens in a segment")
    max_tokens: int = Field(512, ge=1, description="T: the longest answer in tokens")
    attempts: int = Field(8, ge=1, le=1024, description="N: proposals a segment; k of best-of methods")
    alpha: float = Field(0.5, ge=0, le=1, description="where the threshold starts between r(x, '') and r_star")
    beta: float = Field(0.3, gt=0, description="width of the acceptance rule, in units of the reward")
    r_star: float = Field(1.0, description="the reward that an answer should reach")
    schedule: Literal["linear", "constant"] = "linear"
    acceptance: Literal["gibbs", "hard"] = "gibbs"
    parallel: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = "auto"
    on_exhausted: Literal["best", "refuse", "stop", "raise"] = "best"
    budget_tokens: int | None = Field(None, ge=1, description="the most tokens that one call may draw")
    entropy_threshold: float = Field(3.0, ge=0, description="CARDS: nats at which a segment is cut")


class SamplingSpec(_Strict):
    """How the next token is drawn."""

    temperature: float = Field(1.0, ge=0, le=100)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, le=100)

    def to_sampling(self) -> Sampling:
        """As the backends take it."""
        return Sampling(**self.model_dump())


class _Judge(_Strict):
    name: str = Field(min_length=1)
    weight: float | None = Field(None, description="share in the reward")
    reject_above: float | None = Field(None, description="a score above this vetoes the segment")
    on_error: Literal["reject", "ignore", "raise"] = "reject"
    timeout: float = Field(30.0, gt=0, description="seconds")

    @model_validator(mode="after")
    def _has_a_say(self) -> Self:
        if self.weight is None and self.reject_above is None:
            raise ValueError("give the judge a weight (it rewards), reject_above (it vetoes), or both")
        return self


class SequenceClassifierJudge(_Judge):
    """A Hugging Face sequence classifier."""

    type: Literal["sequence_classifier"]
    model: str
    revision: str | None = None
    label: str | None = Field(None, description="score is this label's probability; else the one logit")
    template: str | None = Field(None, description="format string with {prompt} and {answer}")
    max_length: int = Field(512, ge=16)
    batch_size: int = Field(32, ge=1)


class PatternSpec(_Strict):
    """A named regular expression in RE2 syntax."""

    name: str
    regex: str

    @field_validator("regex")
    @classmethod
    def _compiles(cls, regex: str) -> str:
        options = re2.Options()
        options.log_errors = False
        try:
            re2.compile(regex, options)
        except re2.error as exc:
            raise ValueError(f"not a valid RE2 expression: {exc}") from exc
        return regex


class PatternsJudge(_Judge):
    """Regular expressions; a hit scores 1 and, by default, vetoes."""

    type: Literal["patterns"]
    patterns: tuple[PatternSpec, ...] = Field(min_length=1)
    reject_above: float | None = 0.0


JudgeSpec = Annotated[SequenceClassifierJudge | PatternsJudge, Field(discriminator="type")]


class Refusal(_Strict):
    """What the reader sees instead of an answer."""

    message: str = "I can't help with that."


class Audit(_Strict):
    """Where records go and how much text they hold."""

    url: str | None = Field(None, description="default: a JSONL file in the user's state directory")
    content: Literal["full", "redacted", "hash", "none"] = "full"


class Policy(_Strict):
    """A whole policy."""

    api_version: Literal["stars-guard/v1"] = Field(alias="apiVersion")
    name: str = Field(min_length=1)
    description: str = ""
    mode: Literal["enforce", "monitor", "off"] = "enforce"
    decoding: Decoding = Decoding()
    sampling: SamplingSpec = SamplingSpec()
    judges: tuple[JudgeSpec, ...] = ()
    refusal: Refusal = Refusal()
    audit: Audit = Audit()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [judge.name for judge in self.judges]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two judges have the same name: {', '.join(twice)}")
        return self

    @property
    def sha256(self) -> str:
        """Digest of the resolved policy: canonical JSON with every default written out."""
        data = self.model_dump(mode="json", by_alias=True)
        return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
