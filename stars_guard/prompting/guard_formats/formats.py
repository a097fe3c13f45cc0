"""How published guard models are asked. Each format is a data file beside this one, which names its source."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ruamel.yaml import YAML

__all__ = ["GuardFormat", "guard_format", "presets"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class GuardFormat:
    """What a guard model was trained to be asked, and to answer.

    Attributes:
        name: as a policy's ``preset``.
        template: Jinja2 with ``messages`` (role and content, the answer last), ``turns`` (the same without system
            messages), ``prompt`` (all user messages), ``question`` (the last one), ``answer``, ``segment``,
            ``categories`` (those that are asked), ``category`` and ``definition`` (of the one that is asked).
        harmful: labels that the model may write next; ``safe`` and ``controversial`` likewise.
        categories: by the name that the model's makers use: what the question says of it.
        default: categories that are asked where none are picked.
        each: whether each category is a question of its own.
        lines: where the model answers several questions in one text: what comes before each label, in order of
            ``categories``.
        trim: whether texts are stripped, as in the model's own template.
    """

    name: str
    template: str
    harmful: tuple[str, ...]
    safe: tuple[str, ...]
    controversial: tuple[str, ...] = ()
    categories: Mapping[str, str] = field(default_factory=dict)
    default: tuple[str, ...] = ()
    each: bool = False
    lines: tuple[str, ...] = ()
    trim: bool = False

    def problem(self, picked: Iterable[str]) -> str | None:
        """Why these categories cannot be picked, or None."""
        if not self.categories:
            return f"the format of {self.name} has a fixed question: there are no categories to pick"
        for name in picked:
            if name not in self.categories:
                return f"{self.name} has no category {name!r}; {self._nearest(name)}"
        return None

    def _nearest(self, name: str) -> str:
        spoken = {f"{key} {text}".casefold(): key for key, text in self.categories.items()}
        spoken |= {text.casefold().rstrip("."): key for key, text in self.categories.items()}
        spoken |= {key.casefold(): key for key in self.categories}
        near = difflib.get_close_matches(name.casefold(), list(spoken), 1)
        if near:
            return f"did you mean `{spoken[near[0]]}`?"
        return f"it has {', '.join(self.categories)}"


def presets() -> list[str]:
    """The names of the formats."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


@lru_cache
def guard_format(name: str) -> GuardFormat:
    """The format of that name, which must be one of `presets`."""
    data = YAML(typ="safe", pure=True).load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    categories = data.get("categories", {})
    return GuardFormat(
        name,
        data["template"],
        tuple(data["harmful"]),
        tuple(data["safe"]),
        tuple(data.get("controversial", ())),
        categories,
        tuple(data.get("default", categories)),
        data.get("each", False),
        tuple(data.get("lines", ())),
        data.get("trim", False),
    )
