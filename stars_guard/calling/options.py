"""What one call may set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from stars_guard.core.arguments import language_tag, text, whole_number
from stars_guard.core.grammar import Grammar
from stars_guard.core.sampling import Sampling
from stars_guard.core.tools import Toolset
from stars_guard.errors import InputError

__all__ = ["CallOptions", "options_of", "sampling_of"]

_WHOLE: Mapping[str, tuple[int, int]] = {
    "max_tokens": (1, 2**31),
    "seed": (-(2**64), 2**64),
    "attempts": (1, 2**31),
}
"""The options that are whole numbers, with the least and the most that each may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What one call may set. None leaves the policy's value.

    Attributes:
        max_tokens: the longest answer.
        stop: stop strings, none of them empty. They are not part of the answer.
        seed: gives the same answer again on a reproducible backend, and turns generating ahead off. None takes a
            fresh one.
        sampling: replaces single sampling options.
        run_id: the caller's id, kept in the record.
        tools: what the model may call. A call is generated and judged whole.
        grammar: what the answer must look like; it is then generated and judged as one segment.
        chat_template_kwargs: variables of the model's chat template, such as ``enable_thinking``, over those of the
            backend's options.
        attempts: fewer than the policy's, for texts that are handed in.
        language: of the reader, as a tag such as ``de`` or ``pt-BR``, for the refusal. None: it is found in the user's
            message, where the policy has refusals in several languages.

    Raises:
        InputError: a value is of another type or not in its range, or a stop string is empty. True and False are no
            numbers. The template's variables are not JSON values by their names.
    """

    max_tokens: int | None = None
    stop: tuple[str, ...] = field(default=(), repr=False)
    seed: int | None = None
    sampling: Mapping[str, float] | None = None
    run_id: str | None = None
    tools: Toolset | None = None
    grammar: Grammar | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    attempts: int | None = None
    language: str | None = None

    def __post_init__(self) -> None:
        _check_variables(self.chat_template_kwargs)
        if isinstance(self.stop, str):
            raise InputError("stop is one string", hint="pass a sequence of strings")
        if not isinstance(self.stop, Sequence):
            raise InputError(f"stop is of the type {type(self.stop).__name__}", hint="pass a sequence of strings")
        for number, one in enumerate(self.stop, 1):
            if not text(f"stop string {number} of {len(self.stop)}", one):
                raise InputError(f"stop string {number} of {len(self.stop)} is empty", hint="leave it out")
        for name, (low, high) in _WHOLE.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, whole_number(name, value, low, high))
        if self.sampling is not None:
            sampling_of(self.sampling)
        if self.run_id is not None:
            text("run_id", self.run_id)
        if self.language is not None:
            language_tag(self.language)
        for name, value, kind in (("tools", self.tools, Toolset), ("grammar", self.grammar, Grammar)):
            if value is not None and not isinstance(value, kind):
                raise InputError(f"{name} is of the type {type(value).__name__}", hint=f"pass a {kind.__name__}")


def sampling_of(given: Mapping[str, float], base: Sampling | None = None) -> Sampling:
    """Sampling options that replace those of ``base``.

    Raises:
        InputError: it is no mapping, one is unknown, or a value is no number in its range.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"sampling is of the type {type(given).__name__}", hint="pass a mapping")
    known = [one.name for one in fields(Sampling)]
    if unknown := [name for name in given if name not in known]:
        names = ", ".join(sorted(map(str, unknown)))
        raise InputError(f"unknown sampling option {names}", hint=f"known are {', '.join(known)}")
    return replace(base or Sampling(), **given)  # type: ignore[arg-type]


def options_of(given: CallOptions | None) -> CallOptions:
    """The options of a call.

    Raises:
        InputError: it is of another type.
    """
    if given is None:
        return CallOptions()
    if not isinstance(given, CallOptions):
        raise InputError(f"the options are of the type {type(given).__name__}", hint="pass CallOptions(...)")
    return given


def _check_variables(given: Any) -> None:
    hint = "pass a mapping such as {'enable_thinking': False}"
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise InputError("chat_template_kwargs is not a mapping from names to values", hint=hint)
    try:
        json.dumps(dict(given), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InputError("chat_template_kwargs holds what is not a JSON value", hint=hint) from exc
