"""From a name, a path or a mapping to a `Policy`. Every problem is reported with its file, line and key."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stars_guard.core.nearest import did_you_mean
from stars_guard.decoding import METHODS, STEPWISE, name_written
from stars_guard.errors import PolicyError
from stars_guard.policy._files import FileState, look_at
from stars_guard.policy._model import Policy
from stars_guard.policy._problems import describe
from stars_guard.policy.layers import NAMED, judge_key, merge, shown_changes
from stars_guard.policy.tree import (
    Loc,
    Node,
    key_of,
    locate,
    parse_tree,
    plain,
    tree_of,
    variable_in,
    with_environment,
    with_node,
)

__all__ = ["PolicyReader", "Resolved", "load_policy", "resolve_policy", "shipped_policies"]

_PACKAGE = Path(__file__).parent.parent
DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Resolved:
    """A policy and where all of it came from.

    Attributes:
        tree: the merged layers.
        files: of all layers, the outermost first.
        loosened: what a child lets through that its parent doesn't, each allowed by its own ``override: true``.
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
            file of that name; write ``./name`` for the file. Environment variables are filled in in files only.

    Raises:
        PolicyError: it can't be found, is not YAML, or is not valid. The message lists every problem.
    """
    return source if isinstance(source, Policy) else resolve_policy(source).policy


def resolve_policy(source: str | Path | Mapping[str, Any]) -> Resolved:
    """Load a policy and keep where each value came from. Takes and raises what `load_policy` does."""
    return PolicyReader().read(source)


class PolicyReader:
    """One load of a policy, layer by layer.

    Args:
        folder: where relative paths start; by default, the working directory.

    Attributes:
        seen: every file that the load looked for, found or not, and what was there. A load that fails has looked too.
            Until one of these changes, loading again gives the same policy or the same error.
    """

    def __init__(self, folder: Path = Path()) -> None:
        self.seen: dict[Path, FileState] = {}
        self._folder = folder

    def read(self, source: str | Path | Mapping[str, Any]) -> Resolved:
        """Read the policy. Takes and raises what `load_policy` does."""
        if isinstance(source, Mapping):
            return self._layer(tree_of(source, "policy"), self._folder, ())
        return self._file(self._find(source, self._folder), ())

    def _look(self, path: Path) -> FileState:
        """What is at a path. It is read once, so that all of the load sees the same."""
        if path not in self.seen:
            self.seen[path] = look_at(path)
        return self.seen[path]

    def _find(self, source: str | Path, folder: Path, place: str = "") -> Path:
        """The file that a name or a path means; ``place`` is where it was written, for the error."""
        path = Path(source)
        if isinstance(source, Path) or path.suffix in (".yaml", ".yml") or os.sep in source:
            return folder / path
        shipped = shipped_policies()
        if source in shipped:
            return shipped[source]
        if self._look(folder / path).content is not None:
            return folder / path
        hint = did_you_mean(source, shipped, f"shipped policies: {', '.join(shipped)}", form="{!r}")
        raise PolicyError(f"{place}there is no policy named {source!r}", hint=hint)

    def _file(self, path: Path, children: tuple[Path, ...], *, in_shadow: bool = False) -> Resolved:
        """A layer from a file; ``children`` are the files that extend it, the outermost first.

        Args:
            in_shadow: whether it is a layer of a shadow.
        """
        state = self._look(path)
        if state.real in children:
            names = " -> ".join(file.name for file in (*children[children.index(state.real) :], state.real))
            raise PolicyError(f"{path}: policies extend each other: {names}")
        if len(children) >= DEEPEST:
            raise PolicyError(f"{path}: more than {DEEPEST} policies extend each other")
        tree = with_environment(parse_tree(state, str(path)))
        return self._layer(tree, state.real.parent, (*children, state.real), in_shadow=in_shadow)

    def _layer(self, tree: Node, folder: Path, files: tuple[Path, ...], *, in_shadow: bool = False) -> Resolved:
        """A layer on top of the one that it extends, if any."""
        tree = _without_shadows(tree, files) if in_shadow else self._with_shadows(tree, folder)
        extends = tree.value.get("extends")
        if extends is None:
            return Resolved(_validate(tree), tree, files)
        if not (isinstance(extends.value, str) and extends.value):
            raise PolicyError(f"{extends.place}: extends: should be a policy's name or path")
        layer, overrides = _without_overrides(_without(tree, "extends"))
        parent = self._file(
            self._find(str(extends.value), folder, f"{extends.place}: extends: "), files, in_shadow=in_shadow
        )
        merged = _without_what_a_method_lacks(merge(parent.tree, layer), layer)
        policy = _validate(merged)
        allowed = _allowed(parent, policy, merged, overrides)
        return Resolved(policy, merged, parent.files, (*parent.loosened, *allowed))

    def _with_shadows(self, tree: Node, folder: Path) -> Node:
        """The layer with what its shadows' files hold in the place of their names."""
        listed = tree.value.get("shadow")
        for index, item in enumerate(listed.value if listed is not None and isinstance(listed.value, list) else ()):
            named = item.value.get("policy") if isinstance(item.value, dict) else item
            if named is not None and isinstance(named.value, str) and named.value:
                where = f"{named.place}: shadow: "
                read = self._file(self._find(str(named.value), folder, where), (), in_shadow=True)
            elif named is not None and isinstance(named.value, dict):
                read = self._layer(named, folder, (), in_shadow=True)
            else:
                continue  # which the model does not take
            others = item.value if isinstance(item.value, dict) else {}
            tree = with_node(tree, ("shadow", index), Node({**others, "policy": read.tree}, item.place))
        return tree


def _without_shadows(tree: Node, files: tuple[Path, ...]) -> Node:
    """A layer of a shadow. It may extend a policy that has shadows, such as the one that it is a shadow of.

    Raises:
        PolicyError: the shadow's own layer has shadows.
    """
    own = tree.value.get("shadow")
    if own is not None and len(files) <= 1 and own.value:
        raise PolicyError(f"{own.place}: shadow: a shadow can't have shadows of its own")
    return _without(tree, "shadow")


def _allowed(parent: Resolved, child: Policy, merged: Node, overrides: set[str | None]) -> list[str]:
    """What a child loosens, in words.

    Args:
        overrides: who may loosen: judges, rules and budgets by their `judge_key`, and None for the top level.

    Raises:
        PolicyError: something is looser and has no ``override: true``.
    """
    allowed, refused = [], []
    for change, text in shown_changes(parent.policy, parent.tree, child, merged):
        than = variable_in(parent.tree, ("name",))
        name = f"${{{than}}}" if than else repr(parent.policy.name)
        where = f"{locate(merged, change.loc)[1]}: {key_of(change.loc)}: looser than {name}: {text}"
        if change.judge in overrides:
            allowed.append(where)
        else:
            where_to = f"in the {change.kind}" if change.judge else "at the top"
            refused.append(f"{where}; write `override: true` {where_to} to allow it")
    if refused:
        raise PolicyError("\n".join(refused))
    return allowed


def _without_overrides(layer: Node) -> tuple[Node, set[str | None]]:
    """The layer without its keys ``override``, and who had one that is true: judge keys, and None for the top level."""
    overrides: set[str | None] = {None} if _override(layer) else set()
    layer = _without(layer, "override")
    for path, items in list(_named_lists(layer)):
        for index, item in enumerate(items.value):
            name = item.value.get("name") if isinstance(item.value, dict) else None
            if name is not None and _override(item):
                overrides.add(judge_key(path, str(name.value)))
            layer = with_node(layer, (*path, index), _without(item, "override"))
    return layer, overrides


def _named_lists(layer: Node) -> Iterator[tuple[tuple[str, ...], Node]]:
    """The lists of judges, rules and budgets in a layer, with their paths: the policy's own and those of its rails."""
    rails = layer.value.get("rails")
    stages = rails.value if rails is not None and isinstance(rails.value, dict) else {}
    holders: list[tuple[Loc, Node]] = [((), layer), *((("rails", stage), rail) for stage, rail in stages.items())]
    for path, holder in holders:
        for key in NAMED if isinstance(holder.value, dict) else ():
            items = holder.value.get(key)
            if items is not None and isinstance(items.value, list):
                yield (*(str(part) for part in path), key), items


def _without_what_a_method_lacks(merged: Node, layer: Node) -> Node:
    """The merged layers without inherited numbers of ``decoding`` that the layer's method doesn't support."""
    ours, both = layer.value.get("decoding"), merged.value.get("decoding")
    if ours is None or not isinstance(ours.value, dict) or "method" not in ours.value:
        return merged
    method = METHODS.find(name_written(plain(ours.value["method"])))
    if method is None or method.decides == "each":
        return merged
    for key in STEPWISE.keys() - ours.value.keys():
        both = _without(both, key)
    return Node({**merged.value, "decoding": both}, merged.place)


def _without(node: Node, key: str) -> Node:
    if not isinstance(node.value, dict) or key not in node.value:
        return node
    return Node({name: item for name, item in node.value.items() if name != key}, node.place)


def _override(node: Node) -> bool:
    """Whether a mapping says ``override: true``."""
    found = node.value.get("override")
    if found is None:
        return False
    value = plain(found)
    if not isinstance(value, bool):
        raise PolicyError(f"{found.place}: override: should be true or false")
    return value


def _validate(tree: Node) -> Policy:
    try:
        return Policy.model_validate(plain(tree))
    except ValidationError as exc:
        problems = describe(tree, exc)
    # out here, because the exception that is left behind holds the values of the environment
    raise PolicyError("\n".join(problems))
