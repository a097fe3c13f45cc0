"""Writing single values into a policy file: nothing else of the file changes, comments least of all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ruamel.yaml import YAML

from stars_guard.errors import PolicyError
from stars_guard.policy._loader import load_policy
from stars_guard.policy.tree import Node, read_tree

__all__ = ["Value", "as_yaml", "write_decoding"]

Value = float | str | Sequence[Mapping[str, float]]
"""A number, a word, or a list of mappings of numbers."""


def as_yaml(value: Value) -> str:
    """On one line; numbers to four digits."""
    if isinstance(value, str):
        return value
    if isinstance(value, float | int):
        return f"{value:.4g}"
    steps = (", ".join(f"{key}: {as_yaml(number)}" for key, number in step.items()) for step in value)
    return f"[{', '.join(f'{{{step}}}' for step in steps)}]"


def write_decoding(path: Path, values: Mapping[str, Value]) -> None:
    """Set keys under ``decoding:``, whole or not at all.

    Raises:
        PolicyError: the file is not a valid policy, or is written in a way that cannot be changed line by line.
    """
    load_policy(path)
    texts = {key: as_yaml(value) for key, value in values.items()}
    draft = path.with_name(f".{path.name}.new")
    shutil.copy(path, draft)
    try:
        for key, text in texts.items():
            draft.write_text(_set(draft, key, text), encoding="utf-8")
        found = load_policy(draft).decoding.model_dump(mode="json", include=set(texts))
        fits = found == {key: YAML(typ="safe").load(text) for key, text in texts.items()}
    except PolicyError:
        fits = False
    if fits:
        os.replace(draft, path)
        return
    draft.unlink()
    told = ", ".join(f"{key}: {text}" for key, text in texts.items())
    raise PolicyError(f"{path}: the values cannot be written here", hint=f"write {told} yourself")


def _set(path: Path, key: str, value: str) -> str:
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    decoding: Node | None = read_tree(path).value.get("decoding")
    if decoding is None or not isinstance(decoding.value, dict):
        return f"{text.rstrip()}\ndecoding:\n  {key}: {value}\n"
    if key in decoding.value:
        at = decoding.value[key].place.line - 1
        lines[at] = re.sub(rf"(\b{key}\s*:\s*)(\[[^]]*]|[^\s#,}}]+)", rf"\g<1>{value}", lines[at], count=1)
        return "\n".join(lines)
    at = decoding.place.line - 1
    if "{" in lines[at]:
        lines[at] = lines[at].replace("{", f"{{{key}: {value}, ", 1)
    else:
        first = next(iter(decoding.value.values())).place.line - 1
        indent = re.match(r"\s*", lines[first])
        lines.insert(first, f"{indent.group() if indent else '  '}{key}: {value}")
    return "\n".join(lines)
