"""``extends``: a policy on top of another. A child may tighten freely; what it loosens it must say."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from stars_guard.policy._judges import find_options
from stars_guard.policy._loosening import NAMED, Change, changes, judge_key
from stars_guard.policy._model import Policy
from stars_guard.policy.tree import Loc, Node, variable_in

__all__ = ["NAMED", "judge_key", "loosened", "merge", "shown_changes"]


def merge(parent: Node, child: Node, named: Collection[str] = NAMED) -> Node:
    """The child on top of the parent: mappings key by key, judges and rules by name, all else replaced. The
    options of a schedule and its like are replaced where the child names another one.

    Args:
        named: keys of lists whose items are merged by their ``name``. Each type of judge says which it has.
    """
    if not isinstance(parent.value, dict) or not isinstance(child.value, dict):
        return child
    both = {**parent.value}
    for key, node in child.value.items():
        if key not in both:
            both[key] = node
        elif key in named and isinstance(node.value, list) and isinstance(both[key].value, list):
            both[key] = _merge_by_name(both[key], node)
        elif _is_another(both[key], node):
            both[key] = node
        else:
            both[key] = merge(both[key], node, named)
    return Node(both, child.place)


def _is_another(parent: Node, child: Node) -> bool:
    """Whether a mapping names another part than the parent's does, whose options mean nothing to it."""
    types = _word(parent, "type"), _word(child, "type")
    return None not in types and types[0] != types[1]


def _merge_by_name(parent: Node, child: Node) -> Node:
    """Items that both lists have are merged in the parent's place; the child's other items come after."""
    items = list(parent.value)
    at = {name: index for index, item in enumerate(items) if (name := _word(item, "name")) is not None}
    for item in child.value:
        name = _word(item, "name")
        if name is None or name not in at:
            items.append(item)
        else:
            items[at[name]] = merge(items[at[name]], item, _named_lists(items[at[name]], item))
    return Node(items, child.place)


def _named_lists(parent: Node, child: Node) -> Collection[str]:
    """The lists of a judge that are merged by name."""
    options = find_options(_word(child, "type") or _word(parent, "type"))
    return options.by_name if options is not None else ()


def _word(node: Node, key: str) -> str | None:
    """The text under a key of a mapping, or None."""
    found = node.value.get(key) if isinstance(node.value, dict) else None
    return str(found.value) if found is not None and isinstance(found.value, str) else None


def loosened(parent: Policy, child: Policy) -> Iterator[tuple[str | None, Loc, str]]:
    """What the child lets through that the parent does not: the judge (its list's path and its name) or None, the
    path of the change, and a few words, which may hold values of both.
    """
    return ((change.judge, change.loc, change.text) for change in changes(parent, child))


def shown_changes(parent: Policy, before: Node, child: Policy, after: Node) -> Iterator[tuple[Change, str]]:
    """What the child lets through that the parent does not, each with words that show no value of the environment.

    Args:
        before: the parent's merged layers, and ``after`` the child's.
    """
    for change in changes(parent, child):
        name = variable_in(after, change.loc) or variable_in(before, change.was)
        yield change, f"the value of ${{{name}}}" if name else change.text
