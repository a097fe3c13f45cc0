"""The fields of ChatStars: checked when they are given, fresh in a copy, and without secrets where they are shown."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.utils import secret_from_env
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    WrapValidator,
    field_serializer,
    model_validator,
)

from langchain_stars._guards import OpenGuards, PolicySource
from langchain_stars._hiding import SECRETIVE, check_not_hidden, shown, shown_policy
from langchain_stars._keywords import SAMPLING, check_keywords
from stars_guard.audit import AuditStore
from stars_guard.core.sampling import Sampling
from stars_guard.errors import InputError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import Policy

__all__ = ["ChatStarsFields"]

# a mapping stays what it is: pydantic would take it for the fields of a `Policy`, without `extends`
_Policy = Annotated[
    PolicySource, WrapValidator(lambda value, check: dict(value) if isinstance(value, Mapping) else check(value))
]


def stops(given: Any) -> list[str]:
    """Stop strings, from one or several.

    Raises:
        InputError: one of them is empty or no string.
    """
    found = [given] if isinstance(given, str) else list(given or ())
    CallOptions(stop=tuple(found))  # says what is wrong with them
    return found


def _stops_or_none(given: Any) -> Any:
    return None if given is None else stops(given)


def _text_of_path(given: Any) -> Any:
    return str(given) if isinstance(given, Path) else given


def _listed(given: Any) -> Any:
    """One policy as a list of one."""
    return [given] if isinstance(given, str | Path | Policy | Mapping) else given


def _checked(name: str) -> Callable[[Any], Any]:
    """Checks a number as a call does, which says what is wrong with it."""

    def check(given: Any) -> Any:
        if given is None:
            return None
        if name in SAMPLING:
            return getattr(Sampling(**{name: given}), name)
        return getattr(CallOptions(**{name: given}), name)

    return check


def _same(given: Any) -> Any:
    return given


_NUMBERS = (*SAMPLING, "max_tokens", "seed")
_MADE = {
    "stop": _stops_or_none,
    "policies": _listed,
    "model_name": _text_of_path,
    **{name: _checked(name) for name in _NUMBERS},
}
"""What is made of a value that is given in a shorter form."""

_IN_A_GUARD = (
    "policy",
    "policies",
    "model_name",
    "backend",
    "base_url",
    "api_key",
    "timeout",
    "max_retries",
    "backend_options",
    "audit",
    "allow_python",
)
"""The fields that a ready guard has settled."""


class ChatStarsFields(BaseChatModel):
    """What a `ChatStars` is made of.

    Raises:
        InputError: a keyword is not known, a number is of another type or out of its range, or something is given
            beside a ready guard that has settled it.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, populate_by_name=True, hide_input_in_errors=True)

    model_name: Annotated[str, BeforeValidator(_text_of_path)] = Field(default="embedded", alias="model")
    """A Hugging Face directory or name; ``embedded`` is the built-in small model."""
    policy: _Policy = "default"
    """A shipped policy's name, a path, a mapping or a `Policy`. A file that changes is read again; see `LivePolicy`."""
    policies: Annotated[list[_Policy], BeforeValidator(_listed)] = Field(default_factory=list)
    """Policies that a call may choose by ``policy=`` besides `policy`."""
    guard: Guard | None = Field(default=None, exclude=True)
    """A ready guard, with any backend, judges and store, instead of policy, model, backend and audit. It stays yours to
    close, and calls cannot choose a policy or a model."""
    backend: str = "auto"
    """``auto``, ``transformers``, ``vllm`` (in process) or ``vllm-server``, or one that a plugin brings."""
    base_url: str | list[str] | None = None
    """One or several vLLM servers that serve the model."""
    api_key: SecretStr | None = Field(default_factory=secret_from_env("STARS_GUARD_API_KEY", default=None))
    timeout: float | None = None
    """Seconds that a server may send nothing. A model on this machine is asked without requests, so it has none."""
    max_retries: int | None = None
    """How often a request to a server is repeated before its first token, on all servers together."""
    backend_options: dict[str, Any] = Field(default_factory=dict)
    """More options of the backend, such as vLLM's engine arguments."""
    audit: str | AuditStore | None = None
    """The audit log's URL or a store, instead of the policy's. A store stays yours to close."""
    allow_python: bool = Field(default=False, exclude=True)
    """Whether the policy's judges may name Python code to run. It is never part of the serialised form."""
    temperature: Annotated[float | None, BeforeValidator(_checked("temperature"))] = None
    top_p: Annotated[float | None, BeforeValidator(_checked("top_p"))] = None
    top_k: Annotated[int | None, BeforeValidator(_checked("top_k"))] = None
    min_p: Annotated[float | None, BeforeValidator(_checked("min_p"))] = None
    repetition_penalty: Annotated[float | None, BeforeValidator(_checked("repetition_penalty"))] = None
    max_tokens: Annotated[int | None, BeforeValidator(_checked("max_tokens"))] = None
    seed: Annotated[int | None, BeforeValidator(_checked("seed"))] = None
    stop: Annotated[list[str] | None, BeforeValidator(_stops_or_none)] = Field(default=None, alias="stop_sequences")
    """One stop string or several, none of them empty. They are not part of the answer."""
    streaming: bool = False
    """Whether `invoke` streams under the hood, so that callbacks get each accepted segment."""

    _guards: OpenGuards = PrivateAttr(default_factory=OpenGuards)

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            check_keywords(given, cls._names(), cls.__name__)
            check_not_hidden(given)
        return given

    @model_validator(mode="after")
    def _check_guard(self) -> Self:
        self._settle(self.model_fields_set)
        return self

    @classmethod
    def _names(cls) -> dict[str, str]:
        """The field of each name that the constructor takes."""
        fields = {name: name for name in cls.model_fields}
        return fields | {field.alias: name for name, field in cls.model_fields.items() if field.alias}

    def _settle(self, given: set[str]) -> None:
        """Take from a ready guard what it has settled.

        Raises:
            InputError: something else was given for it.
        """
        if self.guard is None:
            return
        settled = {
            name: type(self).model_fields[name].get_default(call_default_factory=True)
            for name in _IN_A_GUARD
            if name != "api_key"
        }
        settled |= {"policy": self.guard.policy, "model_name": self.guard.model_name, "api_key": None}
        for name in given.intersection(settled):
            if getattr(self, name) != settled[name]:
                known = "model" if name == "model_name" else name
                raise InputError(f"{known} and guard are both given", hint=f"give {known} to the guard")
        self.__dict__.update(settled)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy that has opened nothing. What ``update`` holds takes effect, and is not validated.

        Raises:
            InputError: a name is not known, or is settled by a ready guard.
        """
        names = self._names()
        check_keywords(update or (), names, type(self).__name__)
        changes = {names[name]: _MADE.get(names[name], _same)(value) for name, value in (update or {}).items()}
        copied = copy.deepcopy(self) if deep else copy.copy(self)
        copied.__dict__.update(changes)
        copied.__pydantic_fields_set__.update(changes)
        copied._settle(set(changes))
        return copied

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._guards = self._guards.unopened()
        return copied._without_caches()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        for ready in (self.guard, self.audit):
            memo[id(ready)] = ready  # what was passed in ready is the caller's, and is shared
        return super().__deepcopy__(memo)._without_caches()

    def _without_caches(self) -> Self:
        """Drop what LangChain has computed from the fields, which may change in a copy."""
        for name in self.__dict__.keys() - type(self).model_fields.keys():
            del self.__dict__[name]
        return self

    def __getstate__(self) -> dict[Any, Any]:
        if self.guard is not None:
            raise InputError("a ChatStars with a ready guard cannot be pickled", hint="give it policy=, model=, ...")
        if isinstance(self.audit, AuditStore):
            raise InputError("a ChatStars with a ready audit store cannot be pickled", hint="give the store's URL")
        return copy.copy(self)._state()

    def _state(self) -> dict[Any, Any]:
        return super().__getstate__()

    def __repr_args__(self) -> Any:
        for name, value in super().__repr_args__():
            match name:
                case "policy":
                    yield name, shown_policy(value)
                case "policies":
                    yield name, [shown_policy(one) for one in value]
                case _:
                    yield name, shown(name or "", value)

    @field_serializer(*SECRETIVE)
    def _without_secrets(self, value: Any, about: Any) -> Any:
        return shown(about.field_name, value)

    @property
    def lc_secrets(self) -> dict[str, str]:
        """The fields that LangChain's serialised form names and does not show."""
        return {"api_key": "STARS_GUARD_API_KEY"} if self.api_key else {}

    def to_json(self) -> Any:
        """LangChain's serialised form, without secrets. A model with a ready guard or store has none."""
        if self.guard is not None or isinstance(self.audit, AuditStore):
            return self.to_json_not_implemented()
        made: Any = super().to_json()
        kwargs = {name: shown(name, value) for name, value in made["kwargs"].items()}
        return {**made, "kwargs": kwargs}
