"""Writing single values into a policy file. Nothing else of the file changes, and comments stay."""

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
    """Set keys under ``decoding:``. Either all of them are written or the file stays as it is.

    Raises:
        PolicyError: the file is not a valid policy, can't be written, or is written in a way that can't be changed line
            by line.
    """
    load_policy(path)
    texts = {key: as_yaml(value) for key, value in values.items()}
    real = path.resolve()  # a link stays a link
    draft = real.with_name(f".{real.name}.new")
    try:
        shutil.copy(real, draft)
        try:
            reason = _why_not_written(draft, texts)
            if reason is None:
                os.replace(draft, real)
                return
        finally:
            draft.unlink(missing_ok=True)
    except OSError as exc:
        raise PolicyError(f"{path}: the policy can't be written: {exc.strerror}") from exc
    wanted = ", ".join(f"{key}: {text}" for key, text in texts.items())
    raise PolicyError(f"{path}: the values can't be written here", hint=f"write {wanted} yourself{reason}")


def _why_not_written(path: Path, texts: Mapping[str, str]) -> str | None:
    """Write each value. None if the file is then a policy that has them, or else more about the reason, if known."""
    try:
        for key, text in texts.items():
            path.write_bytes(_with(path, key, text).encode("utf-8"))
        found = load_policy(path).decoding.model_dump(mode="json", include=set(texts))
    except PolicyError as exc:
        return ", and `override: true` at the top" if "looser than" in exc.message else ""
    return None if found == {key: YAML(typ="safe").load(text) for key, text in texts.items()} else ""


def _with(path: Path, key: str, value: str) -> str:
    """The file's text with one key of ``decoding`` set."""
    text = path.read_bytes().decode("utf-8")
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.split(end)
    decoding: Node | None = read_tree(path).value.get("decoding")
    if decoding is None or not isinstance(decoding.value, dict):
        return end.join([text.rstrip(), "decoding:", f"  {key}: {value}", ""])
    if key in decoding.value:
        at = decoding.value[key].place.line - 1
        lines[at] = re.sub(rf"(\b{key}\s*:\s*)(\[[^]]*]|[^\s#,}}]+)", rf"\g<1>{value}", lines[at], count=1)
        return end.join(lines)
    at = decoding.place.line - 1
    if "{" in lines[at]:
        more = ", " if decoding.value else ""
        lines[at] = lines[at].replace("{", f"{{{key}: {value}{more}", 1)
    elif decoding.value:
        first = next(iter(decoding.value.values())).place.line - 1
        indent = re.match(r"\s*", lines[first])
        lines.insert(first, f"{indent.group() if indent else '  '}{key}: {value}")
    return end.join(lines)
