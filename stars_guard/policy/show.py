"""A policy as a reader wants it: resolved, with where each value came from; and two of them side by side."""

from __future__ import annotations

from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from stars_guard.policy._loader import Resolved
from stars_guard.policy._model import Policy
from stars_guard.policy.tree import Node

__all__ = ["annotated", "differences"]


def annotated(resolved: Resolved) -> str:
    """The resolved policy in YAML. Each value has a comment: its file and line, or that it is the default.

    The value of an environment variable is not shown, but its name.
    """
    data = _with_comments(resolved.policy.model_dump(mode="json", by_alias=True), resolved.tree)
    out = StringIO()
    writer = YAML()
    writer.width = 4096
    writer.dump(data, out)
    notes = "".join(f"# loosened: {note}\n" for note in resolved.loosened)
    return notes + out.getvalue()


def _with_comments(value: Any, node: Node | None) -> Any:
    """The same data, with a comment at each value that is neither a mapping nor a list of mappings."""
    if isinstance(value, dict):
        found = CommentedMap()
        for key, item in value.items():
            below = node.value.get(key) if node is not None and isinstance(node.value, dict) else None
            found[key] = _with_comments(item, below)
            if not isinstance(item, dict | list) or not item:
                if below is not None and below.place.variable:
                    found[key] = f"${{{below.place.variable}}}"
                found.yaml_add_eol_comment(str(below.place) if below is not None else "default", key)
        return found
    if isinstance(value, list):
        items = node.value if node is not None and isinstance(node.value, list) else []
        return CommentedSeq([_with_comments(v, items[i] if i < len(items) else None) for i, v in enumerate(value)])
    return value


def differences(first: Policy, second: Policy) -> list[tuple[str, str, str]]:
    """What differs: key, value in the first, value in the second; ``-`` where there is none. Judges go by name."""
    a, b = (_flat(policy.model_dump(mode="json", by_alias=True)) for policy in (first, second))
    keys = [*a, *(key for key in b if key not in a)]
    return [(key, a.get(key, "-"), b.get(key, "-")) for key in keys if a.get(key) != b.get(key)]


def _flat(value: Any, key: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        return {k: v for name, item in value.items() for k, v in _flat(item, f"{key}.{name}" if key else name).items()}
    if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        return {k: v for item in value for k, v in _flat(item, f"{key}[{item['name']}]").items()}
    return {key: str(value)}
