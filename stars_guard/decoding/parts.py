"""The parts of decoding that a policy names: methods, schedules and acceptance rules.

Ours and those of other packages are found in the same way, as entry points. A part may have options of its own. They
are a pydantic model, so that the policy's schema and digest, its checks and the audit record hold them:

    decoding:
      schedule: linear                        # a part without options, or with the defaults of all
      schedule: {type: acme/ramp, step: 0.5}  # a part with options

In a policy that has been read, a part without options is its name, and one with options is its options model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, SerializationInfo
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

from stars_guard.core.nearest import did_you_mean
from stars_guard.core.registry import Registry
from stars_guard.errors import PolicyError

__all__ = ["Named", "PartOptions", "Parts", "is_abstract", "name_of", "name_written"]

P = TypeVar("P")


class PartOptions(BaseModel):
    """The options of a part of decoding. A derived class adds its own as fields; unknown keys are errors.

    A value is a number, a text, a truth value or None, because the audit record holds them beside the other numbers of
    decoding.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True, hide_input_in_errors=True)

    type: str = Field(description="the name of the part")

    @classmethod
    def is_empty(cls) -> bool:
        """Whether the part has no options of its own."""
        return cls.model_fields.keys() == {"type"}

    @classmethod
    def of(cls, said: str | PartOptions) -> Self:
        """The options from what a policy that has been read says of the part."""
        return said if isinstance(said, cls) else cls(type=name_of(said))


def is_abstract(part: type) -> bool:
    """Whether a class lacks methods."""
    return bool(getattr(part, "__abstractmethods__", ()))


def name_written(said: object) -> object:
    """The name of a part as a policy's file or a record has it: a text, or a mapping with ``type``. It may be wrong."""
    return said.get("type") if isinstance(said, Mapping) else said


def name_of(said: str | PartOptions) -> str:
    """The name of a part in a policy that has been read."""
    return said if isinstance(said, str) else said.type


class Parts(Registry[P]):
    """The parts of one kind, by name.

    Args:
        kind: the word that errors use, such as ``schedule``. The entry points' group is ``stars_guard.{kind}s``, unless
            ``group`` says something else.
        check: gives what is wrong with what an entry point loads, or None.
        options: gives the options model of a part, where that is not the part itself.
    """

    def __init__(
        self,
        kind: str,
        check: Callable[[Any], str | None],
        options: Callable[[P], type[PartOptions]] = lambda part: cast("type[PartOptions]", part),
        *,
        group: str | None = None,
    ) -> None:
        super().__init__(group or f"stars_guard.{kind}s", kind, check, PolicyError)
        self.kind = kind
        self._options = options
        self._defaults: dict[str, PartOptions] = {}

    def get(self, name: str) -> P:
        if not self._loaded:
            # a call changes between ours, on an event loop that must not wait until packages are looked through
            self._load_own()
        return super().get(name)

    def options_of(self, name: str) -> type[PartOptions]:
        """The options model of a part. Raises what `get` does."""
        return self._options(self.get(name))

    def made(self, said: str | PartOptions) -> PartOptions:
        """The options, with all defaults, from what a policy that has been read says. Raises what `get` does."""
        if not isinstance(said, str):
            return said
        if said not in self._defaults:
            self._defaults[said] = self.options_of(said)(type=said)
        return self._defaults[said]

    def read(self, value: object, *, strict: bool | None = None) -> str | PartOptions:
        """What a policy says, checked.

        Args:
            strict: False takes numbers as a record has them.

        Raises:
            ValidationError: the options are wrong; also the errors of pydantic that a validator may raise.
        """
        if isinstance(value, PartOptions):
            if type(value) is not self._find(value.type):
                raise _error(f"these are not the options of {value.type!r}")
            return _without_options(value)
        if isinstance(value, Mapping):
            if "type" not in value:
                raise _error(f"`type` is required: {', '.join(self.names())}")
            options = self._find(value["type"], within="type").model_validate(dict(value), strict=strict)
        else:
            model, name = self._find(value), str(value)
            if needed := [key for key, field in model.model_fields.items() if field.is_required() and key != "type"]:
                raise _error(f"{name!r} has options that must be given beside `type`: {', '.join(needed)}")
            options = model(type=name)
        for key, one in options.model_dump(mode="json").items():
            if not isinstance(one, str | int | float | bool | None):
                raise _error(f"{key} should be a number, a text, true, false or null, as a record can hold it")
        return _without_options(options)

    def _find(self, name: object, *, within: str = "") -> type[PartOptions]:
        """The options model of a name.

        Args:
            within: the key of a mapping whose value the name is.
        """
        try:
            if isinstance(name, str):
                return self.options_of(name)
        except PolicyError as exc:
            if name in self:
                raise _error(str(exc)) from exc
            if not self.own_names():
                raise
        names = self.names()
        *others, last = (repr(known) for known in names)
        expected = f"{', '.join(others)} or {last}"
        if within:
            near = did_you_mean(str(name), names) if isinstance(name, str) else ""
            raise _error("; ".join(filter(None, (f"{within} should be {expected}", near))))
        # reads as pydantic's error for a `Literal` does, and gets the nearest name as that does
        raise PydanticKnownError("literal_error", {"expected": expected})


def _error(text: str) -> PydanticCustomError:
    return PydanticCustomError("part", "{text}", {"text": text})


def _without_options(options: PartOptions) -> str | PartOptions:
    return options.type if options.is_empty() else options


@dataclass(frozen=True, slots=True)
class Named:
    """Marks a field of a model that names a part: ``Annotated[str | PartOptions, Named(parts)]``."""

    parts: Parts[Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(_written, info_arg=True)
        return core_schema.no_info_plain_validator_function(self.parts.read, serialization=written)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        # `stars_guard.policy.schema` adds those of other packages
        return {"enum": self.parts.own_names(), "type": "string"}


def _written(value: str | PartOptions, info: SerializationInfo) -> Any:
    return value if isinstance(value, str) else value.model_dump(mode=info.mode)
