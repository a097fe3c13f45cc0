"""A YAML document as a tree whose every node knows the file and the line that it came from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean
from ruamel.yaml.scalarstring import ScalarString

from stars_guard.concealing import conceal
from stars_guard.errors import PolicyError
from stars_guard.policy._files import LARGEST_FILE, FileState, look_at

__all__ = [
    "Loc",
    "Node",
    "Place",
    "key_of",
    "locate",
    "parse_tree",
    "plain",
    "read_tree",
    "tree_of",
    "variable_in",
    "with_environment",
    "with_node",
    "without_values",
]

Loc = tuple[int | str, ...]

DEEPEST = 64
MOST_NODES = 20_000
_TAG = "tag:yaml.org,2002:"
_VARIABLE = re.compile(r"\$(\$\{)|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a value was written.

    Attributes:
        file: its path, or a word for what is not in a file.
        line: from 1; 0 where the line isn't known.
        variable: the environment variable that gave the value; such a value is never shown.
    """

    file: str
    line: int = 0
    variable: str | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Node:
    """A mapping of keys to nodes, a list of nodes, or a scalar."""

    value: Any
    place: Place


def read_tree(path: Path) -> Node:
    """Read a YAML file. Raises what `parse_tree` does."""
    return parse_tree(look_at(path), str(path))


def parse_tree(state: FileState, file: str) -> Node:
    """The tree of a file that was read.

    Args:
        file: what places and errors call it.

    Raises:
        PolicyError: it cannot be read, is not YAML, is too large, or has tags.
    """
    if state.content is None:
        raise PolicyError(f"{file}: cannot read the policy: {state.problem}")
    if len(state.content) > LARGEST_FILE:
        raise PolicyError(f"{file}: larger than {LARGEST_FILE} bytes")
    return _parsed(state.content, file)


# A tree is never changed, so whoever loads the same policy again shares it. To parse a shipped one takes 50 ms.
@lru_cache(maxsize=64)
def _parsed(content: bytes, file: str) -> Node:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise PolicyError(f"{file}: the policy is not UTF-8 text") from exc
    try:
        reader = YAML(typ="rt")
        reader.max_depth = DEEPEST
        reader.composer.warn_double_anchors = False
        reader.preserve_quotes = True
        data = reader.load(text)
    except DuplicateKeyError as exc:
        problem = str(exc.problem).partition(" with value")[0].removeprefix("found ")
        raise PolicyError(f"{file}:{_line(exc)}: {problem}") from exc
    except MarkedYAMLError as exc:
        raise PolicyError(f"{file}:{_line(exc)}: not valid YAML: {exc.problem}") from exc
    except RecursionError as exc:
        raise PolicyError(f"{file}: not valid YAML: nested too deeply") from exc
    # ruamel.yaml lets other kinds through for impossible dates, numbers and directives
    except (YAMLError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError) as exc:
        raise PolicyError(f"{file}: not valid YAML") from exc
    if not isinstance(data, Mapping):
        raise PolicyError(f"{file}:1: a policy is a mapping of keys to values")
    return tree_of(data, file)


def _line(exc: MarkedYAMLError) -> int:
    mark = exc.problem_mark or exc.context_mark
    return mark.line + 1 if mark else 1


def tree_of(data: Mapping[str, Any], file: str) -> Node:
    """The tree of a mapping, with the lines that ruamel.yaml noted.

    Raises:
        PolicyError: it contains itself, has too many values, or has tags.
    """
    left = MOST_NODES

    def build(value: Any, place: Place) -> Node:
        nonlocal left
        left -= 1
        if left < 0:
            raise PolicyError(f"{file}: more than {MOST_NODES} values")
        tag = getattr(getattr(value, "tag", None), "value", None)
        if tag and not str(tag).startswith((_TAG + "map", _TAG + "seq", _TAG + "str")):
            raise PolicyError(f"{place}: YAML tags are not supported: {tag}")
        if isinstance(value, Mapping):
            return Node({str(k): build(v, _place(value, k, place)) for k, v in value.items()}, place)
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return Node([build(v, _place(value, i, place)) for i, v in enumerate(value)], place)
        return Node(value, place)

    try:
        return build(data, Place(file=file, line=_first_line(data)))
    except RecursionError as exc:
        raise PolicyError(f"{file}: the policy contains itself") from exc


def _first_line(data: Any) -> int:
    position = getattr(data, "lc", None)
    return 0 if position is None or position.line is None else int(position.line) + 1


def _place(parent: Any, part: Any, above: Place) -> Place:
    position = getattr(parent, "lc", None)
    if position is None:
        return above
    try:
        found = (position.key(part) if isinstance(parent, Mapping) else position.item(part))[0]
    except (KeyError, IndexError, TypeError):
        return above  # a merged key
    return replace(above, line=int(found) + 1)


def plain(node: Node) -> Any:
    """The tree's data, without ruamel.yaml's own kinds of number and text, which strict models refuse."""
    value = node.value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, ScalarBoolean):
        return bool(value)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def locate(node: Node, loc: Loc) -> tuple[Loc, Place]:
    """As much of a path as the tree has, with one missing key at its end, and the place of its last node."""
    known: list[int | str] = []
    for part in loc:
        if not isinstance(node.value, dict | list):
            break  # pydantic goes on with the branches of a union
        known.append(part)
        held: Any = node.value
        try:
            node = held[part]
        except (KeyError, IndexError, TypeError):
            break
    return tuple(known), node.place


def variable_in(node: Node, loc: Loc = ()) -> str | None:
    """The environment variable that gave the value at a path, or one of the values in it; None for none.

    Where the tree ends before the path does, a validator has made more of the value, which then counts.
    """
    for part in loc:
        if not isinstance(node.value, dict | list):
            break
        held: Any = node.value
        try:
            node = held[part]
        except (KeyError, IndexError, TypeError):
            return None
    if isinstance(node.value, dict | list):
        items = node.value.values() if isinstance(node.value, dict) else node.value
        return next((name for item in items if (name := variable_in(item))), None)
    return node.place.variable


def without_values(node: Node, text: str) -> str:
    """A text about a tree, with names in the place of the values of environment variables, however short they are."""
    if isinstance(node.value, dict | list):
        for item in node.value.values() if isinstance(node.value, dict) else node.value:
            text = without_values(item, text)
    elif node.place.variable and str(node.value):
        shape = rf"(?<!\w)(?:{re.escape(str(node.value))}|{re.escape(repr(node.value)[1:-1])})(?!\w)"
        text = re.sub(shape, lambda _: f"${{{node.place.variable}}}", text)
    return text


def with_node(root: Node, loc: Loc, node: Node) -> Node:
    """The tree with another node in the place of the one at ``loc``."""
    if not loc:
        return node
    part, rest = loc[0], loc[1:]
    value: Any = root.value.copy()
    value[part] = with_node(value[part], rest, node)
    return replace(root, value=value)


def key_of(loc: Loc) -> str:
    """A path as a reader writes it: ``judges[0].model``."""
    key = ""
    for part in loc:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    return key or "policy"


def with_environment(root: Node) -> Node:
    """Put environment variables in: ``${NAME}`` or ``${NAME:-default}`` in text; ``$${`` writes ``${``.

    A value that is nothing but one variable, without quotes, may become a number or a truth value.

    Raises:
        PolicyError: a variable is not set and has no default; all of them are listed.
    """
    missing: list[str] = []

    def fill(node: Node, loc: Loc) -> Node:
        value = node.value
        if isinstance(value, dict):
            return replace(node, value={key: fill(item, (*loc, key)) for key, item in value.items()})
        if isinstance(value, list):
            return replace(node, value=[fill(item, (*loc, i)) for i, item in enumerate(value)])
        if not isinstance(value, str) or "${" not in value:
            return node
        names: list[str] = []

        def one(match: re.Match[str]) -> str:
            if match[1]:
                return match[1]
            names.append(match[2])
            found = os.environ.get(match[2])
            if found is not None:
                conceal(found, f"${{{match[2]}}}")
            else:
                found = match[3]
            if found is None:
                missing.append(
                    f"{node.place}: {key_of(loc)}: the environment has no {match[2]}; set it or write "
                    f"${{{match[2]}:-default}}"
                )
            return found or ""

        text: Any = _VARIABLE.sub(one, str(value))
        if not names:
            return replace(node, value=text)
        if _VARIABLE.fullmatch(value) and not isinstance(value, ScalarString):
            text = _scalar(text)
        return Node(text, replace(node.place, variable=names[0]))

    filled = fill(root, ())
    if missing:
        raise PolicyError("\n".join(missing))
    return filled


def _scalar(text: str) -> Any:
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float) else text
