"""A policy as a reader wants it: resolved, with where each value came from; and two of them side by side."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from stars_guard.concealing import concealed
from stars_guard.policy._loader import Resolved
from stars_guard.policy._model import Policy
from stars_guard.policy.tree import Node, variable_in

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
    return concealed(notes + "".join(f"# {line}\n" for line in _order(resolved)) + out.getvalue())


def _order(resolved: Resolved) -> Iterator[str]:
    """How rules, budgets and the default of tool calls decide, from the strictest; nothing where there are none."""
    rail = resolved.policy.rails.tool_call
    if not rail.has_rules:
        return
    yield "tool calls: every rule is looked at, and the strictest that applies decides:"
    for action in ("reject", "ask", "allow"):
        for key in ("rules", "budgets"):
            for index, part in enumerate(getattr(rail, key)):
                if part.action == action:
                    loc = ("rails", "tool_call", key, index)
                    name, about = (
                        f"${{{variable}}}" if (variable := variable_in(resolved.tree, (*loc, field))) else shown
                        for field, shown in (("name", part.name), ("tools", ", ".join(part.tools)))
                    )
                    when = ", under its condition" if getattr(part, "when", None) is not None else ""
                    yield f"  {action}: {key.removesuffix('s')} {name} ({about}){when}"
    yield f"  otherwise: {rail.default} (default)"


def _with_comments(value: Any, node: Node | None) -> Any:
    """The same data, with a comment at each value that is neither a mapping nor a list of mappings."""
    if name := _variable(node):
        return f"${{{name}}}"
    if isinstance(value, dict):
        found = CommentedMap()
        for key, item in value.items():
            below = _below(node, key)
            found[_public(key)] = _with_comments(item, below)
            if not isinstance(item, dict | list) or not item:
                found.yaml_add_eol_comment(str(below.place) if below is not None else "default", _public(key))
        return found
    if isinstance(value, list):
        return CommentedSeq([_with_comments(item, _below(node, index)) for index, item in enumerate(value)])
    return concealed(value) if isinstance(value, str) else value


def _below(node: Node | None, part: int | str) -> Node | None:
    """The node under a key or an index; None where the tree has none."""
    if node is None or not isinstance(node.value, dict | list):
        return None
    held: Any = node.value
    try:
        found = held[part]
    except (KeyError, IndexError, TypeError):
        return None
    return found if isinstance(found, Node) else None


def _variable(node: Node | None) -> str | None:
    """The environment variable that gave a value, itself or as the text that a validator made it of."""
    return node.place.variable if node is not None and not isinstance(node.value, dict | list) else None


def _public(key: Any) -> Any:
    return concealed(key) if isinstance(key, str) else key


def differences(
    first: Policy, second: Policy, *, before: Node | None = None, after: Node | None = None
) -> list[tuple[str, str, str]]:
    """What differs: key, value in the first, value in the second; ``-`` where there is none. Judges go by name.

    Args:
        before: the first one's merged layers, and ``after`` the second one's. With them, the name of an environment
            variable stands for its value.
    """
    a, b = (
        {key: (text, shown) for key, text, shown in _flat(policy.model_dump(mode="json", by_alias=True), tree)}
        for policy, tree in ((first, before), (second, after))
    )
    none = ("-", "-")
    keys = [*a, *(key for key in b if key not in a)]
    return [
        (concealed(key), a.get(key, none)[1], b.get(key, none)[1])
        for key in keys
        if a.get(key, none)[0] != b.get(key, none)[0]
    ]


def _flat(value: Any, node: Node | None, key: str = "") -> Iterator[tuple[str, str, str]]:
    """Keys, their values as they are compared, and as they are shown."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flat(item, _below(node, name) or _only(node), f"{key}.{name}" if key else name)
    elif isinstance(value, list) and value and all(isinstance(item, dict) and _name(item) for item in value):
        for index, item in enumerate(value):
            yield from _flat(item, _below(node, index) or _only(node), f"{key}[{_name(item)}]")
    else:
        variable = variable_in(node) if node is not None else None
        yield key, str(value), f"${{{variable}}}" if variable else concealed(str(value))


def _name(item: dict[str, Any]) -> str | None:
    """What an item of a list goes by: its own name, or a shadow's that of its policy."""
    held = item.get("policy")
    return (held if isinstance(held, dict) else item).get("name")


def _only(node: Node | None) -> Node | None:
    """A text of which a validator made more than one value."""
    return node if node is not None and not isinstance(node.value, dict | list) else None
