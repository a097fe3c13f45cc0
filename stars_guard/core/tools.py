"""The tools that a call offers to the model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from stars_guard.core.arguments import has_lone_surrogate, text
from stars_guard.core.nesting import MOST_NESTED, is_too_deep
from stars_guard.errors import InputError

__all__ = ["Tool", "Toolset"]

_NAME = re.compile(r"[\w.-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that the model may call.

    Attributes:
        name: letters, digits, ``_``, ``.`` and ``-``.
        description: what the model reads about it.
        parameters: the JSON schema of its arguments.

    Raises:
        InputError: the name has other characters, or the schema isn't a mapping of JSON values.
    """

    name: str
    description: str = field(repr=False)
    parameters: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        text("a tool's description", self.description)
        if not _NAME.fullmatch(text("a tool's name", self.name)):
            raise InputError(f"a tool cannot be named {self.name!r}", hint="use letters, digits, _, . and -")
        if not isinstance(self.parameters, Mapping) or has_lone_surrogate(self.parameters):
            raise InputError(
                f"the schema of the tool {self.name!r} is no JSON schema", hint="pass a mapping of JSON values"
            )
        if is_too_deep(self.parameters):
            raise InputError(
                f"the schema of the tool {self.name!r} is nested too deeply", hint=f"at most {MOST_NESTED} levels fit"
            )

    @property
    def definition(self) -> dict[str, Any]:
        """In OpenAI's form."""
        about = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": about}


@dataclass(frozen=True, slots=True)
class Toolset:
    """What a call may use.

    Attributes:
        tools: with different names.
        forced: names of which one must be called; empty leaves it to the model. The answer is then generated under a
            grammar, and is one call and nothing else.
        parallel: whether the model may write several calls; else the answer ends after the first.
        strict: calls that the model chooses to write are generated under their tools' schemas.
    """

    tools: tuple[Tool, ...]
    _: KW_ONLY
    forced: tuple[str, ...] = ()
    parallel: bool = True
    strict: bool = False

    def __post_init__(self) -> None:
        names = [tool.name for tool in self.tools]
        if len(set(names)) < len(names):
            raise InputError("two tools have the same name", hint=f"the names are {', '.join(names)}")
        if unknown := set(self.forced) - set(names):
            raise InputError(f"no tool is named {', '.join(sorted(unknown))}", hint=f"there are {', '.join(names)}")
