"""What a policy says of its judges, as pydantic models."""

from __future__ import annotations

import json
import re
import string
from typing import Annotated, Any, Literal, Self

import jinja2
import jinja2.meta
import jmespath
import re2
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    SecretStr,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from stars_guard.core.vocabulary import OnError
from stars_guard.prompting.guard_formats import GuardFormat, guard_format

__all__ = [
    "GuardModelJudge",
    "HttpJudge",
    "JudgeSpec",
    "PathsJudge",
    "PatternSpec",
    "PatternsJudge",
    "PiiJudge",
    "PythonJudge",
    "SequenceClassifierJudge",
    "Strict",
    "VllmPoolingJudge",
    "no_twins",
]


class Strict(BaseModel):
    """What all parts of a policy are: closed, frozen, and of exact types."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


def no_twins(what: str, names: list[str]) -> None:
    """Refuse names that are there twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two {what} have the same name: {', '.join(twice)}")


class Tail(Strict):
    """The end of the answer."""

    tail: int = Field(ge=1, description="characters; the newest segment is always seen whole")


Limit = Annotated[float, Field(gt=0, lt=1)]
Labels = Annotated[
    Annotated[tuple[str, ...], Field(min_length=1, strict=False), Tag("names")]
    | Annotated[dict[str, Limit], Field(min_length=1), Tag("limits")],
    Discriminator(lambda labels: "limits" if isinstance(labels, dict) else "names"),
]


class _Judge(Strict):
    name: str = Field(min_length=1, description="unique in the policy; scores are logged under it")
    weight: float | None = Field(None, description="share in the reward")
    reject_above: float | None = Field(None, description="a score above this vetoes the segment")
    on_error: OnError = "reject"
    timeout: float = Field(30.0, gt=0, description="seconds")
    scope: Literal["answer", "segment"] | Tail = Field("answer", description="what the judge sees")
    every: int = Field(1, ge=0, description="asked at each k-th segment; 0: only at the last one")
    final: bool | None = Field(
        None, description="asked at the last segment too, on the whole answer; default: only if every is not 1"
    )

    @model_validator(mode="after")
    def _has_a_say(self) -> Self:
        if self.weight is None and self.reject_above is None:
            raise ValueError("give the judge a weight (it rewards), reject_above (it vetoes), or both")
        if self.weight is not None and self.every != 1:
            raise ValueError("a judge with a weight is asked at each segment: rewards of some cannot be compared")
        if self.every == 0 and self.final is False:
            raise ValueError("every: 0 and final: false would never ask the judge")
        return self

    @property
    def asked_last(self) -> bool:
        """Whether the judge sees the whole answer before the last segment is released."""
        return self.every != 1 if self.final is None else self.final

    @property
    def tail(self) -> int | None:
        """Characters of the answer's end that the judge sees; None for all."""
        return self.scope.tail if isinstance(self.scope, Tail) else 0 if self.scope == "segment" else None


class _ClassifierJudge(_Judge):
    model: str
    revision: str | None = None
    label: str | None = Field(None, description="score is this label's probability; else the one raw logit")
    labels: Labels | None = Field(
        None,
        description="score is the probability of any of these; with a limit each, one over its limit vetoes",
    )
    template: str | None = Field(
        None,
        description="format string with {answer} and, if wanted, {prompt}; else the model's chat template, or a pair",
    )

    @model_validator(mode="before")
    @classmethod
    def _limits_veto(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("labels"), dict) and "reject_above" not in data:
            return {**data, "reject_above": 1.0}
        return data

    @model_validator(mode="after")
    def _one_way_of_labels(self) -> Self:
        if self.label is not None and self.labels is not None:
            raise ValueError("give label or labels, not both")
        if isinstance(self.labels, dict) and (self.weight is not None or self.reject_above != 1.0):
            raise ValueError("labels with a limit each veto by themselves: leave out weight and reject_above")
        return self

    @field_validator("template")
    @classmethod
    def _has_answer(cls, template: str | None) -> str | None:
        if template is None:
            return None
        try:
            fields = [(field, spec, conversion) for _, field, spec, conversion in string.Formatter().parse(template)]
        except ValueError as exc:
            raise ValueError(f"not a format string: {exc}") from exc
        used = [field for field, _, _ in fields if field is not None]
        if any(spec or conversion for _, spec, conversion in fields) or not {*used} <= {"prompt", "answer"}:
            raise ValueError("only {prompt} and {answer} can be filled in; write {{ and }} for plain braces")
        if "answer" not in used:
            raise ValueError("{answer} is missing, so every answer would get the same score")
        if used.count("answer") > 1:
            raise ValueError("{answer} can stand in one place only")
        return template


class SequenceClassifierJudge(_ClassifierJudge):
    """A Hugging Face sequence classifier. A decoder keeps what it has read of a call, and reads but the new segment."""

    type: Literal["sequence_classifier"]
    max_length: int | None = Field(
        None, ge=16, description="tokens; default: 4096 for a decoder that keeps what it has read, 512 for others"
    )
    batch_size: int = Field(32, ge=1, description="passages that are scored at once")
    cache_tokens: int = Field(32768, ge=0, description="tokens that a decoder keeps, of all calls together")


class VllmPoolingJudge(_ClassifierJudge):
    """A reward model or classifier on vLLM: an engine in process, or a server that was started with --runner pooling.

    A prefix that was judged before is not read again.
    """

    type: Literal["vllm_pooling"]
    base_url: str | None = Field(None, description="of a server; without it the engine runs in process")
    api_key_env: str | None = Field(None, description="the environment variable that holds the server's API key")
    max_length: int = Field(4096, ge=16, description="tokens")
    engine: dict[str, Any] = Field(default_factory=dict, description="vLLM's engine arguments, in process")


def _re2_problem(regex: str) -> str | None:
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(regex, options)
    except re2.error as exc:
        text = exc.args[0] if exc.args else ""
        return text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return None


class PatternSpec(Strict):
    """A named regular expression in RE2 syntax.

    ``flags`` is written into ``regex`` as ``(?flags:regex)`` when the policy is loaded, so that whoever compiles
    ``regex`` alone gets what was meant.
    """

    name: str = Field(min_length=1)
    regex: str = Field(min_length=1)
    flags: str = Field("", pattern="^[ims]*$", description="i: ignore case; m: ^, $ at line ends; s: . is also \\n")

    @model_validator(mode="before")
    @classmethod
    def _fold_flags(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        regex, flags = data.get("regex"), data.get("flags")
        foldable = isinstance(regex, str) and isinstance(flags, str) and re.fullmatch("[ims]+", flags)
        # a broken regex stays as it was written: wrapped, "a)(b" would compile
        if foldable and regex and _re2_problem(regex) is None:
            return {**data, "regex": f"(?{flags}:{regex})", "flags": ""}
        return data

    @field_validator("regex")
    @classmethod
    def _compiles(cls, regex: str) -> str:
        problem = _re2_problem(regex)
        if problem is not None:
            raise ValueError(f"not a valid RE2 expression: {problem}")
        return regex


class PatternsJudge(_Judge):
    """Regular expressions; a hit scores 1 and, by default, vetoes."""

    type: Literal["patterns"]
    patterns: tuple[PatternSpec, ...] = Field(min_length=1, strict=False)
    reject_above: float | None = Field(0.0, description="a score above this vetoes the segment")

    @field_validator("patterns")
    @classmethod
    def _names_differ(cls, patterns: tuple[PatternSpec, ...]) -> tuple[PatternSpec, ...]:
        no_twins("patterns", [pattern.name for pattern in patterns])
        return patterns


Preset = Literal[
    "granite-guardian-3.0",
    "granite-guardian-3.2",
    "llama-guard-3",
    "llama-guard-3-1b",
    "llama-guard-4",
    "qwen3guard",
    "shieldgemma",
    "wildguard",
]


class GuardModelJudge(_Judge):
    """A generative safety model: the probability of its harmful labels against its safe ones, in one forward pass.

    It runs on transformers; on vLLM in this process where ``engine`` is given; on a vLLM server where ``base_url`` is.
    """

    type: Literal["guard_model"]
    model: str
    preset: Preset | None = Field(None, description="the published format that the model was trained on")
    categories: tuple[str, ...] | None = Field(
        None, min_length=1, strict=False, description="hazards that are asked about; default: the preset's"
    )
    controversial: Literal["safe", "unsafe"] = Field("unsafe", description="what qwen3guard's third label counts as")
    template: str | None = Field(
        None,
        min_length=1,
        description="Jinja2, up to where the label comes; it has prompt, answer, segment and messages",
    )
    harmful: tuple[str, ...] | None = Field(
        None, min_length=1, strict=False, description="with template: labels as the model writes them"
    )
    safe: tuple[str, ...] | None = Field(None, min_length=1, strict=False, description="with template")
    base_url: str | None = Field(None, description="of a vLLM server")
    api_key_env: str | None = Field(None, description="the environment variable that holds the server's API key")
    engine: dict[str, Any] | None = Field(None, description="vLLM's engine arguments, in process")
    revision: str | None = None
    max_length: int = Field(4096, ge=16, description="tokens; a longer question is an error")
    batch_size: int = Field(8, ge=1, description="questions in one pass of transformers")

    @field_validator("categories")
    @classmethod
    def _known(cls, categories: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        preset = info.data.get("preset")
        if categories is not None and preset is not None:
            if problem := guard_format(preset).problem(categories):
                raise ValueError(problem)
            no_twins("categories", list(categories))
        return categories

    @field_validator("template")
    @classmethod
    def _has_answer(cls, template: str | None) -> str | None:
        if template is None:
            return None
        try:
            used = jinja2.meta.find_undeclared_variables(jinja2.Environment(autoescape=False).parse(template))  # noqa: S701
        except jinja2.TemplateSyntaxError as exc:
            raise ValueError(f"not a Jinja2 template: {exc.message}") from exc
        if unknown := used - {"prompt", "answer", "segment", "messages"}:
            raise ValueError(f"a template has no {', '.join(sorted(unknown))}; only prompt, answer, segment, messages")
        if not used & {"answer", "segment", "messages"}:
            raise ValueError("answer, segment or messages is missing, so every answer would get the same score")
        return template

    @model_validator(mode="after")
    def _one_format(self) -> Self:
        own = (self.template, self.harmful, self.safe)
        if self.preset is not None and any(own):
            raise ValueError("a preset brings its own template and labels: take template, harmful and safe out")
        if self.preset is None and not all(own):
            raise ValueError("give preset, or template, harmful and safe")
        if self.preset is None and self.categories is not None:
            raise ValueError("categories are a preset's: write those of your own into the template")
        if self.base_url is not None and self.engine is not None:
            raise ValueError("give base_url (a server) or engine (in this process), not both")
        return self

    @property
    def form(self) -> GuardFormat:
        """How the model is asked."""
        if self.preset is not None:
            return guard_format(self.preset)
        return GuardFormat("custom", self.template or "", self.harmful or (), self.safe or ())


class PiiJudge(_Judge):
    """Personal data: e-mail addresses, and phone, card, account and other numbers that pass their own checks."""

    type: Literal["pii"]
    kinds: tuple[Literal["email", "phone", "credit_card", "iban", "us_ssn", "ip_address"], ...] = Field(
        ("email", "phone", "credit_card", "iban", "us_ssn"), min_length=1, strict=False
    )
    region: str = Field("US", pattern="^[A-Z]{2}$", description="of phone numbers without a country code")
    reject_above: float | None = Field(0.0, description="more finds than this veto the segment")


class PathsJudge(_Judge):
    """File paths outside the roots: absolute, in the home, or by ``..`` out of the first root."""

    type: Literal["paths"]
    roots: tuple[str, ...] = Field(
        min_length=1, strict=False, description="absolute paths; relative ones in the text are counted from the first"
    )
    reject_above: float | None = Field(0.0, description="more paths outside than this veto the text")

    @field_validator("roots")
    @classmethod
    def _absolute(cls, roots: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [root for root in roots if not root.startswith("/")]:
            raise ValueError(f"not an absolute path: {', '.join(wrong)}")
        return roots


class HttpJudge(_Judge):
    """Any REST classifier: one POST a passage."""

    type: Literal["http"]
    url: str = Field(pattern="^https?://")
    body: JsonValue = Field(description="{prompt}, {answer}, {segment} in texts are filled in; {messages} is a list")
    score: str = Field(description="JMESPath to the number in the reply, such as results[0].score")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="never shown; write ${NAME} for secrets")
    retries: int = Field(1, ge=0, le=10)
    connections: int = Field(16, ge=1, le=1024, description="requests at once")

    @field_validator("score")
    @classmethod
    def _is_jmespath(cls, score: str) -> str:
        try:
            jmespath.compile(score)
        except jmespath.exceptions.JMESPathError as exc:
            raise ValueError(f"not a JMESPath expression: {type(exc).__name__}") from exc
        return score

    @field_validator("body")
    @classmethod
    def _has_answer(cls, body: JsonValue) -> JsonValue:
        text = json.dumps(body)
        if not any(field in text for field in ("{answer}", "{segment}", "{messages}")):
            raise ValueError("{answer}, {segment} or {messages} is missing, so every answer would get the same score")
        return body


class PythonJudge(_Judge):
    """Your own judge: a function of a `Passage`, or a `Scorer`. Only where the program allows it."""

    type: Literal["python"]
    call: str = Field(min_length=1, description="module:name, or an entry point in the group stars_guard.judges")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="keyword arguments of a Scorer class")


JudgeSpec = Annotated[
    SequenceClassifierJudge
    | VllmPoolingJudge
    | GuardModelJudge
    | PatternsJudge
    | PiiJudge
    | PathsJudge
    | HttpJudge
    | PythonJudge,
    Field(discriminator="type"),
]
