"""From a name, a path or a mapping to a `Policy`; every problem with file, line and key."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stars_guard.errors import PolicyError
from stars_guard.policy._model import Policy
from stars_guard.policy._problems import describe
from stars_guard.policy.layers import judge_key, loosened, merge
from stars_guard.policy.tree import Node, key_of, locate, plain, read_tree, tree_of, with_environment

__all__ = ["Resolved", "load_policy", "resolve_policy", "shipped_policies"]

_PACKAGE = Path(__file__).parent.parent
DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Resolved:
    """A policy and where all of it came from.

    Attributes:
        tree: the merged layers.
        files: of all layers, the outermost first.
        loosened: what a child let through that its parent did not, each by its own ``override: true``.
    """

    policy: Policy
    tree: Node
    files: tuple[Path, ...] = ()
    loosened: tuple[str, ...] = ()


def shipped_policies() -> dict[str, Path]:
    """The policies that come with stars-guard, by name."""
    installed = _PACKAGE / "_policies"
    folder = installed if installed.is_dir() else _PACKAGE.parent / "policies"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_policy(source: str | Path | Mapping[str, Any] | Policy) -> Policy:
    """Load and check a policy.

    Args:
        source: the name of a shipped policy, a path, or what a YAML file would hold. A shipped name comes before a
            file of that name; write ``./name`` for the file. Environment variables are put into files only.

    Raises:
        PolicyError: not found, not YAML, or not valid; the message lists every problem.
    """
    return source if isinstance(source, Policy) else resolve_policy(source).policy


def resolve_policy(source: str | Path | Mapping[str, Any]) -> Resolved:
    """Load a policy and keep where each value came from. Takes and raises what `load_policy` does."""
    if isinstance(source, Mapping):
        return _layer(tree_of(source, "policy"), Path.cwd(), ())
    return _file(_find(source, Path.cwd()), ())


def _find(source: str | Path, folder: Path, place: str = "") -> Path:
    path = Path(source)
    if isinstance(source, Path) or path.suffix in (".yaml", ".yml") or os.sep in source:
        return path if not place else folder / path
    shipped = shipped_policies()
    if source in shipped:
        return shipped[source]
    if (folder / path).is_file():
        return path if not place else folder / path
    near = difflib.get_close_matches(source, shipped, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"shipped policies: {', '.join(shipped)}"
    raise PolicyError(f"{place}there is no policy named {source!r}", hint=hint)


def _file(path: Path, above: tuple[Path, ...]) -> Resolved:
    real = path.resolve()
    if real in above:
        names = " -> ".join(file.name for file in (*above[above.index(real) :], real))
        raise PolicyError(f"{path}: policies extend each other: {names}")
    if len(above) >= DEEPEST:
        raise PolicyError(f"{path}: more than {DEEPEST} policies extend each other")
    return _layer(with_environment(read_tree(path)), real.parent, (*above, real))


def _layer(tree: Node, folder: Path, files: tuple[Path, ...]) -> Resolved:
    tree, parent_name, overrides = _directives(tree)
    if parent_name is None:
        return Resolved(_validate(tree), tree, files)
    place = f"{parent_name.place}: extends: "
    found = _file(_find(str(parent_name.value), folder, place), files)
    merged = merge(found.tree, tree)
    policy = _validate(merged)
    notes, refused = list(found.loosened), []
    for judge, loc, change in loosened(found.policy, policy):
        where = f"{locate(merged, loc)[1]}: {key_of(loc)}: looser than {found.policy.name!r}: {change}"
        if judge in overrides:
            notes.append(where)
        else:
            refused.append(f"{where}; write `override: true` {'in the judge' if judge else 'at the top'} to allow it")
    if refused:
        raise PolicyError("\n".join(refused))
    return Resolved(policy, merged, found.files, tuple(notes))


def _directives(tree: Node) -> tuple[Node, Node | None, set[str | None]]:
    """Take ``extends`` and ``override`` out: the tree without, the parent, and who may loosen (None is the top)."""
    top = dict(tree.value)
    parent, overrides = top.pop("extends", None), set[str | None]()
    if parent is not None and not (isinstance(parent.value, str) and parent.value):
        raise PolicyError(f"{parent.place}: extends: should be a policy's name or path")
    if parent is None:
        return tree, None, overrides
    if _override(top):
        overrides.add(None)
    return _judge_overrides(Node(top, tree.place), (), overrides), parent, overrides


def _judge_overrides(node: Node, path: tuple[str, ...], overrides: set[str | None]) -> Node:
    """Take ``override`` out of the judges of the policy and of its rails, and note whose it was."""
    if isinstance(node.value, dict):
        below = {"rails"} if path == () else set(node.value) if path == ("rails",) else set()
        return Node(
            {
                key: _judge_overrides(item, (*path, key), overrides) if key == "judges" or key in below else item
                for key, item in node.value.items()
            },
            node.place,
        )
    if not isinstance(node.value, list) or path[-1:] != ("judges",):
        return node
    items = []
    for item in node.value:
        if isinstance(item.value, dict):
            keys = dict(item.value)
            if _override(keys) and "name" in keys:
                overrides.add(judge_key(path, str(keys["name"].value)))
            item = Node(keys, item.place)
        items.append(item)
    return Node(items, node.place)


def _override(keys: dict[str, Node]) -> bool:
    node = keys.pop("override", None)
    if node is None:
        return False
    value = plain(node)
    if not isinstance(value, bool):
        raise PolicyError(f"{node.place}: override: should be true or false")
    return value


def _validate(tree: Node) -> Policy:
    try:
        return Policy.model_validate(plain(tree))
    except ValidationError as exc:
        raise PolicyError("\n".join(describe(tree, exc))) from exc
