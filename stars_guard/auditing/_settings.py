"""The decoder's settings, from what is on record of them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import PydanticCustomError, PydanticKnownError

from stars_guard.auditing._agreement import CannotRedo, DoesNotHold
from stars_guard.decoding import PARTS, PartOptions, Settings, name_written

__all__ = ["settings_on_record"]


def settings_on_record(decoding: Mapping[str, object]) -> Settings | None:
    """The decoder's settings; None where nothing was generated.

    Raises:
        DoesNotHold: there cannot be such settings.
        CannotRedo: a part that they name isn't installed here.
    """
    if not decoding:
        return None
    values = {name: value for name, value in decoding.items() if name in Settings.model_fields}
    if values.get("entropy_threshold") is None:
        # as records once said that the method does not cut there
        values.pop("entropy_threshold", None)
    if missing := _missing(values):
        raise CannotRedo(f"its decisions cannot be redone here, because {missing}")
    values |= {key: _part(key, values[key]) for key in PARTS if key in values}
    try:
        # not strictly: a number that no double holds is a string on record, and a whole one may be a float
        return Settings.model_validate(values, strict=False)
    except ValidationError as exc:
        where = sorted({".".join(map(str, error["loc"])) for error in exc.errors()})
        raise DoesNotHold(f"its settings cannot be: {', '.join(where)}") from None


def _missing(values: Mapping[str, object]) -> str:
    """Which methods, schedules and acceptance rules on record cannot be used here, and why; empty for none."""
    found = []
    for key, parts in PARTS.items():
        name = name_written(values.get(key))
        if isinstance(name, str) and parts.find(name) is None:
            why = "cannot be loaded" if name in parts else "isn't installed"
            found.append(f"the {parts.kind} {name!r} {why}")
    return " and ".join(found)


def _part(key: str, said: object) -> str | PartOptions:
    """The method, schedule or acceptance rule on record."""
    try:
        # not strictly, for the same reason as the numbers beside it
        return PARTS[key].read(said, strict=False)
    except (ValidationError, PydanticCustomError, PydanticKnownError):
        raise DoesNotHold(f"its settings cannot be: {key}") from None
