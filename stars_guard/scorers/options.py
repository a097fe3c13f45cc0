"""What a policy says about one judge: the base of every judge's options.

A judge is one file. It holds the options, as a class derived from `JudgeOptions`, and the scorer that their `load`
gives. The package names the options class in its entry points, in the group ``stars_guard.judges``:

    [project.entry-points."stars_guard.judges"]
    "acme/toxicity" = "acme_judges.toxicity:ToxicityOptions"

The entry point's name is the judge's ``type`` in a policy. Our own judges are registered in the same way.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, Field, SecretStr, model_validator

from stars_guard.concealing import concealed
from stars_guard.concealing.printable import PrintableModel
from stars_guard.core.doubt import Doubt
from stars_guard.core.judging import Rule
from stars_guard.core.vocabulary import OnError, Scope
from stars_guard.scorers.base import Scorer

__all__ = ["Ask", "JudgeOptions", "Loosening", "Strict", "Tail", "no_twins"]

Loosening = tuple[str, str]
"""A field, and in a few words what a child's value of it lets through that the parent's does not."""


class Strict(PrintableModel):
    """The base of every part of a policy: unknown keys are errors, values are frozen, and types are exact."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True, hide_input_in_errors=True)


def no_twins(what: str, names: list[str]) -> None:
    """Check that names differ.

    Raises:
        ValueError: a name appears twice.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two {what} have the same name: {', '.join(twice)}")


class Tail(Strict):
    """The end of the answer."""

    tail: int = Field(ge=1, description="characters; the newest segment is always seen whole")


class Ask(Strict):
    """The judge is asked only where another one is in doubt: its score is above ``above`` and not over ``below``."""

    when: str = Field(min_length=1, description="name of a judge that comes earlier and is always asked")
    above: float | None = Field(None, description="in doubt are scores above this; default: all that are low")
    below: float | None = Field(None, description="in doubt are scores up to this; default: all that are high")
    sample: float = Field(
        0.02, ge=0, le=1, description="share of all other texts about which the judge is asked too, chosen by chance"
    )

    @model_validator(mode="after")
    def _has_a_band(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("give above or below, or both: between them the other judge is in doubt")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError("above must be less than below: the judge is asked where the other one's score is between")
        return self

    @property
    def doubt(self) -> Doubt:
        """As judging takes it."""
        return Doubt(when=concealed(self.when), above=self.above, below=self.below, sample=self.sample)


class JudgeOptions(Strict):
    """The options that every judge has, and the base class of those of one type.

    The fields below say when a judge is asked and what its score means. A derived class adds what its scorer needs,
    and says how the scorer is loaded. Its validators should find every mistake that can be found without loading a
    model, because a policy with a mistake must fail when it is read and not when it is used.

    Attributes:
        free: names of fields whose change never lets more through, such as a batch size, or which `loosenings`
            compares. A change of any other field counts as another judge, which a child policy has to allow.
        by_name: names of fields that hold lists of mappings with a ``name``. A child policy changes such a list item
            by item; it replaces any other list as a whole.
        shared: whether judges whose options are the same, apart from the fields below, are one scorer. Set it for a
            scorer that holds a model, so that the model is loaded once and the passages of all go in one batch.
        runs_code: whether the options name code to run. Such a judge needs ``allow_python``. Where this depends on
            the values, write `not_allowed` instead.
        own_answers_only: whether the judge can't judge a text that this guard's generator did not write, so that it has
            no place in a rail.
        sees_everything: whether the judge knows the conversation and all of the answer, whatever its scope says.
    """

    free: ClassVar[frozenset[str]] = frozenset()
    by_name: ClassVar[frozenset[str]] = frozenset()
    shared: ClassVar[bool] = False
    runs_code: ClassVar[bool] = False
    own_answers_only: ClassVar[bool] = False
    sees_everything: ClassVar[bool] = False

    type: str = Field(description="the judge's type")
    name: str = Field(min_length=1, description="unique in the policy; scores are logged under it")
    weight: float | None = Field(None, description="share in the reward")
    reject_above: float | None = Field(None, description="a score above this vetoes the segment")
    ask_above: float | None = Field(
        None, description="a score above this, up to reject_above, asks for a person's word; in rails.tool_call alone"
    )
    on_error: OnError = Field(
        "reject", description="what a failure of the judge means: a veto, nothing, or an error of the call"
    )
    timeout: float = Field(30.0, gt=0, description="seconds; a judge that takes longer has failed")
    scope: Scope | Tail = Field(
        "answer", description="what the judge sees; conversation: the turns before the answer too"
    )
    every: int = Field(1, ge=0, description="asked at each k-th segment; 0: only at the last one")
    final: bool | None = Field(
        None, description="asked at the last segment too, on the whole answer; default: only if every is not 1"
    )
    ask: Ask | None = Field(None, description="asked only where another judge is in doubt, and for a share of the rest")

    @abstractmethod
    async def load(self) -> Scorer:
        """Make the scorer. It is closed when the last guard that uses it is closed.

        Only the fields of the derived class may matter here: a shared scorer serves judges with different names,
        weights and timeouts.

        Raises:
            PolicyError: the options cannot be used here.
            ScorerError: the scorer's model cannot be loaded.
            MissingExtra: an optional dependency is not installed.
        """

    def loosenings(self, child: Self) -> Iterator[Loosening]:
        """Compare the fields that have an order of their own with those of a child policy's judge.

        The fields that all judges have are compared elsewhere.
        """
        yield from ()

    def not_allowed(self) -> str:
        """What the policy may not ask for unless the program says ``allow_python``, in words; empty for nothing.

        It is anything by which the file would decide which code runs. It must not show the values.
        """
        return f"{self.type} judges are off" if self.runs_code else ""

    @property
    def key(self) -> str:
        """The same for options that give the same scorer. It may hold secrets, so never show it."""
        common = {name for name in JudgeOptions.model_fields if not self.redefines(name)}
        own = self.model_dump(exclude=common - {"type"})
        return json.dumps(own, sort_keys=True, default=_reveal)

    @classmethod
    def redefines(cls, field: str) -> bool:
        """Whether a field of all judges means something else in this type, such as ``ask``, which is a list in one."""
        return cls.model_fields[field].annotation != JudgeOptions.model_fields[field].annotation

    @property
    def in_doubt(self) -> Ask | None:
        """When the judge is asked, if it is not always."""
        # a type may have had the key for something else
        return self.ask if isinstance(self.ask, Ask) else None

    def always_asked(self) -> Self:
        """The same judge, asked about every text."""
        return self if self.in_doubt is None else self.model_copy(update={"ask": None})

    @property
    def rule(self) -> Rule:
        """What the policy makes of the score."""
        return Rule(
            judge=concealed(self.name),
            weight=self.weight,
            reject_above=self.reject_above,
            on_error=self.on_error,
            ask_above=self.ask_above,
            doubt=None if self.in_doubt is None else self.in_doubt.doubt,
        )

    @property
    def asked_last(self) -> bool:
        """Whether the judge sees the whole answer before the last segment is released."""
        return self.every != 1 if self.final is None else self.final

    @property
    def tail(self) -> int | None:
        """Characters of the answer's end that the judge sees; None for all."""
        return self.scope.tail if isinstance(self.scope, Tail) else 0 if self.scope == "segment" else None

    @model_validator(mode="after")
    def _matters(self) -> Self:
        if self.weight is None and self.reject_above is None and self.ask_above is None:
            raise ValueError("give the judge a weight (it rewards), reject_above (it vetoes), or both")
        if self.weight is not None and self.every != 1:
            raise ValueError("a judge with a weight is asked at each segment: rewards of some cannot be compared")
        if self.every == 0 and self.final is False:
            raise ValueError("every: 0 and final: false would never ask the judge")
        return self


def _reveal(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else repr(value)
