"""A policy: what the YAML says, as pydantic models."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from stars_guard.core.arguments import LANGUAGE
from stars_guard.core.sampling import Sampling
from stars_guard.core.vocabulary import (
    ContentMode,
    Durability,
    Mode,
    OnWriteError,
)
from stars_guard.decoding import Decoding
from stars_guard.policy._doubt import check_doubt
from stars_guard.policy._judges import JudgeSpec
from stars_guard.policy._rails import Rails
from stars_guard.scorers.options import Strict, no_twins

__all__ = ["Audit", "Policy", "Refusal", "SamplingSpec", "Shadow"]


class SamplingSpec(Strict):
    """How the next token is sampled."""

    temperature: float = Field(1.0, ge=0, le=100, description="0 always takes the most probable token")
    top_p: float = Field(
        1.0, gt=0, le=1, description="the most probable tokens that have this probability together; 1: all"
    )
    top_k: int = Field(0, ge=0, description="so many of the most probable tokens; 0: all")
    min_p: float = Field(
        0.0, ge=0, le=1, description="tokens with at least this share of the highest probability; 0: all"
    )
    repetition_penalty: float = Field(
        1.0, gt=0, le=100, description="above 1, tokens that are there already become less probable; 1: off"
    )

    def to_sampling(self) -> Sampling:
        """As the backends take it."""
        return Sampling(**self.model_dump())


LanguageTag = Annotated[str, Field(pattern=LANGUAGE)]
Said = Annotated[str, Field(min_length=1)]


class Refusal(Strict):
    """What the reader sees instead of an answer."""

    message: Said | Annotated[dict[LanguageTag, Said], Field(min_length=1)] = Field(
        "I can't help with that.", description="a text, or one for each language; the first stands for all others"
    )
    detect: bool = Field(
        True, description="where there are several languages: find that of the user's message, unless the call names it"
    )

    @property
    def messages(self) -> tuple[str, ...]:
        """Every text that may be the refusal."""
        return (self.message,) if isinstance(self.message, str) else tuple(self.message.values())

    @property
    def detects(self) -> bool:
        """Whether the language has to be found where the call does not name it."""
        return self.detect and not isinstance(self.message, str) and len(self.message) > 1

    def in_language(self, language: str | None) -> str:
        """The text for a language: for its tag, else for another tag of the same language, else the first."""
        if isinstance(self.message, str):
            return self.message
        wanted = (language or "").lower()
        by_tag = {tag.lower(): text for tag, text in self.message.items()}
        if wanted in by_tag:
            return by_tag[wanted]
        main = wanted.partition("-")[0]
        near = (text for tag, text in by_tag.items() if tag.partition("-")[0] == main)
        return next(near, self.messages[0])


class AuditContent(Strict):
    """How much of each kind of text records hold. The answer is accepted text."""

    prompt: ContentMode = Field("full", description="what comes in, and what tools return")
    accepted: ContentMode = Field("full", description="what is kept, and so the answer too")
    rejected: ContentMode = Field("full", description="candidates, texts and calls that are rejected")


class Audit(Strict):
    """Where records go and how much text they hold."""

    url: str | None = Field(
        None, description="sqlite, postgresql+psycopg or jsonl; default: SQLite in the user's state directory"
    )
    content: ContentMode | AuditContent = Field(
        "full", description="redacted: e-mails, numbers and keys replaced; hash: digests; none: lengths only"
    )
    encrypt: bool = Field(False, description="texts under the key in STARS_GUARD_AUDIT_ENCRYPTION_KEY")
    durability: Durability = Field(
        "every-call", description="batch: a record is written within a fifth of a second after its call"
    )
    on_error: OnWriteError = Field(
        "spool", description="when the log is down: wait and then fail, keep records in a local file, or go without"
    )

    @property
    def contents(self) -> AuditContent:
        """How much is kept, for each kind of text."""
        if isinstance(self.content, AuditContent):
            return self.content
        return AuditContent(prompt=self.content, accepted=self.content, rejected=self.content)


class Shadow(Strict):
    """Another policy that is asked beside this one. What it would have decided is recorded, and changes nothing."""

    policy: Annotated[
        Policy,
        WithJsonSchema({"type": "string", "minLength": 1, "description": "its name or path, relative to this file"}),
    ]
    share: float = Field(1.0, ge=0, le=1, description="of the calls and checks that it is asked about")
    wait: float = Field(
        1.0,
        ge=0,
        le=60,
        description="seconds that the end of a call waits for it; what it has not said by then is left out",
    )
    at_once: int = Field(64, ge=1, description="calls that it follows at the same time; it misses further ones")

    @model_validator(mode="before")
    @classmethod
    def _by_itself(cls, data: Any) -> Any:
        return {"policy": data} if isinstance(data, Policy) else data

    @field_validator("policy")
    @classmethod
    def _is_no_shadow_of_a_shadow(cls, policy: Policy) -> Policy:
        if policy.shadow:
            raise ValueError("a shadow can't have shadows of its own: take `shadow` out of it")
        return policy


class Policy(Strict):
    """A whole policy. Without a weighted judge every segment is accepted unless one vetoes it."""

    api_version: Literal["stars-guard/v1"] = Field(alias="apiVersion", description="the version of this format")
    name: str = Field(min_length=1, description="records, metrics and errors name the policy so")
    description: str = Field("", description="what the policy is for, in a sentence")
    mode: Mode = Field(
        "enforce", description="monitor: judge and log, let everything through; off: generate without judging"
    )
    decoding: Decoding = Field(Decoding(), description="how the answer is generated")
    sampling: SamplingSpec = Field(SamplingSpec(), description="how the next token is sampled")
    judges: tuple[JudgeSpec, ...] = Field((), strict=False, description="who judges the answer while it is generated")
    rails: Rails = Field(Rails(), description="what is judged around the answer: input, tool calls and results, output")
    refusal: Refusal = Field(Refusal(), description="what the user reads instead of a refused answer")
    audit: Audit = Field(Audit(), description="where records go, and how much text they hold")
    shadow: tuple[Shadow, ...] = Field((), strict=False, description="policies that are asked too, and decide nothing")

    @field_validator("shadow")
    @classmethod
    def _shadows_differ(cls, shadows: tuple[Shadow, ...]) -> tuple[Shadow, ...]:
        no_twins("shadows", [shadow.policy.name for shadow in shadows])
        return shadows

    @field_validator("judges")
    @classmethod
    def _names_differ(cls, judges: tuple[JudgeSpec, ...]) -> tuple[JudgeSpec, ...]:
        no_twins("judges", [judge.name for judge in judges])
        if any(judge.ask_above is not None for judge in judges):
            raise ValueError("ask_above: a person can be asked about tool calls alone, so give it in rails.tool_call")
        check_doubt(judges)
        return judges

    @model_validator(mode="after")
    def _output_names_differ(self) -> Self:
        no_twins("judges of answers", [judge.name for judge in (*self.judges, *self.rails.output.judges)])
        return self

    @property
    def every_judge(self) -> tuple[JudgeSpec, ...]:
        """The judges of answers and of all rails."""
        return (*self.judges, *(judge for _, rail in self.rails.items() for judge in rail.judges))

    @property
    def shadow_judges(self) -> tuple[JudgeSpec, ...]:
        """The judges of the policies that are asked beside it."""
        return tuple(judge for shadow in self.shadow for judge in shadow.policy.every_judge)

    @property
    def without_shadows(self) -> Self:
        """The same policy with nothing asked beside it."""
        return self.model_copy(update={"shadow": ()}) if self.shadow else self

    def __copy__(self) -> Self:
        return super().__copy__()._without_digest()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return super().__deepcopy__(memo)._without_digest()

    def _without_digest(self) -> Self:
        """A copy is made to be another policy: what was known of the first one isn't known of it."""
        self.__dict__.pop("sha256", None)
        return self

    @cached_property  # it is asked for dozens of times at each step of an agent
    def sha256(self) -> str:
        """Digest of the resolved policy: canonical JSON with every default written out."""
        data = self.model_dump(mode="json", by_alias=True)
        return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


Shadow.model_rebuild()
Policy.model_rebuild()
