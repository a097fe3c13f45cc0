"""Writing single numbers into a policy file: nothing else of the file changes, comments least of all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from stars_guard.errors import PolicyError
from stars_guard.policy.loader import load_policy
from stars_guard.policy.tree import Node, read_tree

__all__ = ["write_decoding"]


def write_decoding(path: Path, values: Mapping[str, float]) -> None:
    """Set keys under ``decoding:``, whole or not at all.

    Raises:
        PolicyError: the file is not a valid policy, or is written in a way that cannot be changed line by line.
    """
    load_policy(path)
    numbers = {key: f"{value:.4g}" for key, value in values.items()}
    draft = path.with_name(f".{path.name}.new")
    shutil.copy(path, draft)
    try:
        for key, number in numbers.items():
            draft.write_text(_set(draft, key, number), encoding="utf-8")
        found = load_policy(draft).decoding
        fits = all(getattr(found, key) == float(number) for key, number in numbers.items())
    except PolicyError:
        fits = False
    if fits:
        os.replace(draft, path)
        return
    draft.unlink()
    told = ", ".join(f"{key}: {number}" for key, number in numbers.items())
    raise PolicyError(f"{path}: the numbers cannot be written here", hint=f"write {told} yourself")


def _set(path: Path, key: str, number: str) -> str:
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    decoding: Node | None = read_tree(path).value.get("decoding")
    if decoding is None or not isinstance(decoding.value, dict):
        return f"{text.rstrip()}\ndecoding:\n  {key}: {number}\n"
    if key in decoding.value:
        at = decoding.value[key].place.line - 1
        lines[at] = re.sub(rf"(\b{key}\s*:\s*)[^\s#,}}]+", rf"\g<1>{number}", lines[at], count=1)
        return "\n".join(lines)
    at = decoding.place.line - 1
    if "{" in lines[at]:
        lines[at] = lines[at].replace("{", f"{{{key}: {number}, ", 1)
    else:
        first = next(iter(decoding.value.values())).place.line - 1
        indent = re.match(r"\s*", lines[first])
        lines.insert(first, f"{indent.group() if indent else '  '}{key}: {number}")
    return "\n".join(lines)
