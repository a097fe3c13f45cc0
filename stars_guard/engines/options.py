"""Options that a user gives as a mapping, checked against a pydantic model; errors name the nearest valid one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from stars_guard.core.nearest import did_you_mean
from stars_guard.errors import InputError

__all__ = ["Plain", "read_options", "unknown_option"]

Plain = BeforeValidator(lambda value: str(value).removeprefix("torch."))
"""Takes torch's own number types for their names, such as ``torch.float16``."""

O = TypeVar("O", bound=BaseModel)  # noqa: E741


def read_options(model: type[O], options: Mapping[str, Any], of: str) -> O:
    """The options as an instance of ``model``.

    Args:
        of: whose options they are, as the message names it, such as ``the backend 'vllm'``.

    Raises:
        InputError: one is missing, unknown or out of range. No value is reported, because one may be a key.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as exc:
        problems = []
        for error in exc.errors(include_url=False, include_context=False, include_input=False):
            name = ".".join(map(str, error["loc"]))
            if error["type"] == "extra_forbidden":
                problems.append(unknown_option(name, model.model_fields))
            else:
                problems.append(f"{name}: {error['msg']}" if name else error["msg"])
        known = ", ".join(sorted(model.model_fields))
        # not from exc: its text shows the values
        raise InputError(f"options of {of}: {'; '.join(problems)}", hint=f"it takes {known or 'none'}") from None


def unknown_option(name: str, known: Iterable[str]) -> str:
    """What is said of an option that there is not: its name, and the nearest that there is."""
    return ", ".join(filter(None, (f"there is no option {name!r}", did_you_mean(name, known, form="{!r}"))))
