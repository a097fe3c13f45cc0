"""How published guard models are asked. Each format is a data file beside this one, which names its source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stars_guard.core.nearest import nearest
from stars_guard.core.vocabulary import Role

__all__ = ["GuardFormat", "guard_format", "presets"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class GuardFormat:
    """What a guard model was trained to be asked, and to answer.

    Attributes:
        name: as a policy's ``preset``.
        template: Jinja2 with ``messages`` (role and content, the judged text last), ``turns`` (the same without system
            messages), ``prompt`` (all user messages before it), ``question`` (the last one), ``answer`` (the judged
            text), ``segment``, ``role`` (who wrote the judged text), ``categories`` (those that are asked),
            ``category`` and ``definition`` (of the one that is asked), ``documents`` and ``tools`` (as inner text of
            JSON strings and as JSON, where the category needs them) and ``effort``.
        harmful: labels that the model may write next; ``safe`` and ``controversial`` too.
        categories: by the name that the model's makers use: what the question says of it.
        default: categories that are asked where none are picked.
        each: whether each category is a question of its own.
        lines: where the model answers several questions in one text: what comes before each label, in order of
            ``categories``.
        trim: whether texts are stripped, as in the model's own template.
        needs: by category: ``documents`` (results of tools, by which the text is judged) or ``tools`` (definitions of
            tools, by which a call is judged). Such a category can't be asked about without them.
        own: whether a policy may bring criteria of its own, which are asked as categories are.
        writes: what the model writes before its label. It then writes freely up to there. Empty for a model whose
            label is what comes next.
        effort: whether the question says how much the model should write.
        answers_only: whether the model was trained to judge answers and nothing else.
        user: how the model is asked about what a user wrote, or what came from a tool; None asks in this form.
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
    needs: Mapping[str, str] = field(default_factory=dict)
    own: bool = False
    writes: str = ""
    effort: bool = False
    answers_only: bool = False
    user: GuardFormat | None = None

    def with_criteria(self, criteria: Mapping[str, str]) -> GuardFormat:
        """The same format with a policy's own criteria, which are asked about in place of the default categories."""
        if not criteria:
            return self
        user = None if self.user is None else self.user.with_criteria(criteria)
        return replace(self, categories={**self.categories, **criteria}, default=tuple(criteria), user=user)

    def about(self, role: Role) -> GuardFormat:
        """The form in which the model is asked about a text, by who wrote it."""
        return self if role == "assistant" else self.user or self

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that tell the questions of one format from another's."""
        forms = (self, self.user) if self.user is not None else (self,)
        own = [f"{name}\0{self.categories[name]}" for name in self.default] if self.own else []
        return hashlib.sha256("\0".join([*(form.template for form in forms), *own]).encode()).hexdigest()[:12]

    def problem(self, picked: Iterable[str]) -> str | None:
        """Why these categories cannot be picked, or None."""
        if not self.categories and not self.own:
            return f"the format of {self.name} has a fixed question: there are no categories to pick"
        for name in picked:
            if name not in self.categories:
                return f"{self.name} has no category {name!r}; {self._nearest(name)}"
        return None

    def _nearest(self, name: str) -> str:
        spoken = {f"{key} {text}".casefold(): key for key, text in self.categories.items()}
        spoken |= {text.casefold().rstrip("."): key for key, text in self.categories.items()}
        spoken |= {key.casefold(): key for key in self.categories}
        near = nearest(name.casefold(), spoken)
        if near is not None:
            return f"did you mean `{spoken[near]}`?"
        return f"it has {', '.join(self.categories)}" if self.categories else "name those of criteria"


def presets() -> list[str]:
    """The names of the formats."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


@lru_cache
def guard_format(name: str) -> GuardFormat:
    """The format of that name, which must be one of `presets`."""
    data = YAML(typ="safe", pure=True).load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    user = data.pop("user", None)
    return replace(_format(name, data), user=None if user is None else _format(name, {**data, **user}))


def _format(name: str, data: Mapping[str, Any]) -> GuardFormat:
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
        data.get("needs", {}),
        data.get("own", False),
        data.get("writes", ""),
        data.get("effort", False),
        data.get("answers_only", False),
    )
