"""``extends``: a policy on top of another. A child may tighten freely; what it loosens it must say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stars_guard.decoding import decoder_of
from stars_guard.policy._judges import GuardModelJudge, JudgeSpec, PatternsJudge
from stars_guard.policy._model import Audit, Policy
from stars_guard.policy.tree import Node

__all__ = ["judge_key", "loosened", "merge"]

FREE = frozenset(
    {"weight", "reject_above", "on_error", "timeout", "batch_size", "max_length", "api_key_env", "patterns", "engine"}
    | {"retries", "connections", "categories", "controversial", "labels", "cache_tokens"}
)
"""Fields of a vetoing judge whose change is no loosening, or is compared by its own rule."""

CONTENTS = ("none", "hash", "redacted", "full")
MODES = ("off", "monitor", "enforce")


def merge(parent: Node, child: Node, key: str = "") -> Node:
    """The child on top of the parent: mappings key by key, judges and patterns by name, all else replaced."""
    if isinstance(parent.value, dict) and isinstance(child.value, dict):
        both = {**parent.value}
        for name, node in child.value.items():
            both[name] = merge(both[name], node, name) if name in both else node
        return Node(both, child.place)
    if key in ("judges", "patterns") and isinstance(parent.value, list) and isinstance(child.value, list):
        items = list(parent.value)
        at = {_name(item): i for i, item in enumerate(items)}
        for item in child.value:
            where = at.get(_name(item)) if _name(item) is not None else None
            if where is None:
                items.append(item)
            else:
                items[where] = merge(items[where], item)
        return Node(items, child.place)
    return child


def judge_key(path: Sequence[str], name: str) -> str:
    """What a judge goes by in the whole policy: ``rails.input.judges.secrets``."""
    return ".".join((*path, name))


def _name(node: Node) -> Any:
    name = node.value.get("name") if isinstance(node.value, dict) else None
    return str(name.value) if name is not None and isinstance(name.value, str) else None


Change = tuple[str | None, tuple[int | str, ...], str]


def loosened(parent: Policy, child: Policy) -> Iterator[Change]:
    """What the child lets through that the parent does not: the judge (its list's path and its name) or None, the
    path of the change, and a few words.

    A veto, the mode, what a failure means and what happens when attempts run out are compared. Numbers that are
    calibrated to a reward model (r_star, beta, alpha, weights) are not: no order of them is stricter.
    """
    if MODES.index(child.mode) < MODES.index(parent.mode):
        yield None, ("mode",), f"{parent.mode} -> {child.mode}"
    before, after = parent.decoding, child.decoding
    if after.on_exhausted == "best" != before.on_exhausted:
        yield None, ("decoding", "on_exhausted"), f"{before.on_exhausted} -> best"
    if decoder_of(after.method).decides == "none" != decoder_of(before.method).decides:
        yield None, ("decoding", "method"), f"{before.method} -> {after.method}"
    yield from _loosened_audit(parent.audit, child.audit)
    if child.rails.tool_result.action == "redact" != parent.rails.tool_result.action:
        yield None, ("rails", "tool_result", "action"), f"{parent.rails.tool_result.action} -> redact"
    yield from _loosened_judges(("judges",), parent.judges, child.judges)
    theirs = dict(child.rails.items())
    for stage, rail in parent.rails.items():
        yield from _loosened_judges(("rails", stage, "judges"), rail.judges, theirs[stage].judges)


def _loosened_audit(before: Audit, after: Audit) -> Iterator[Change]:
    """More text, text in clear, and records that may be lost."""
    for kind in ("prompt", "accepted", "rejected"):
        old, new = (getattr(audit.contents, kind) for audit in (before, after))
        if CONTENTS.index(new) > CONTENTS.index(old):
            yield None, ("audit", "content"), f"{kind}: {old} -> {new}"
    if before.encrypt and not after.encrypt:
        yield None, ("audit", "encrypt"), "true -> false"
    if after.durability == "batch" != before.durability:
        yield None, ("audit", "durability"), f"{before.durability} -> batch"
    if after.on_error == "drop" != before.on_error:
        yield None, ("audit", "on_error"), f"{before.on_error} -> drop"


def _loosened_judges(
    path: tuple[str, ...], before: Sequence[JudgeSpec], after: Sequence[JudgeSpec]
) -> Iterator[Change]:
    judges = {judge.name: (i, judge) for i, judge in enumerate(after)}
    for old in before:
        key = judge_key(path, old.name)
        if old.name not in judges:
            yield key, path, f"judge {old.name!r} is not there"
            continue
        index, new = judges[old.name]
        where: tuple[int | str, ...] = (*path, index)
        if new.on_error == "ignore" != old.on_error:
            yield key, (*where, "on_error"), f"{old.on_error} -> ignore"
        if old.reject_above is None:
            continue
        if new.reject_above is None or new.reject_above > old.reject_above:
            yield key, (*where, "reject_above"), f"{old.reject_above} -> {new.reject_above}"
        if type(old) is not type(new):
            yield key, (*where, "type"), f"{old.type} -> {new.type}"
            continue
        for field in type(old).model_fields.keys() - FREE:
            if getattr(old, field) != getattr(new, field):
                yield key, (*where, field), "another judge than the parent's"
        for text in _fewer_labels(getattr(old, "labels", None), getattr(new, "labels", None)):
            yield key, (*where, "labels"), text
        if isinstance(old, PatternsJudge) and isinstance(new, PatternsJudge):
            kept = {pattern.name: pattern.regex for pattern in new.patterns}
            for pattern in old.patterns:
                if kept.get(pattern.name) != pattern.regex:
                    yield key, (*where, "patterns"), f"pattern {pattern.name!r} is not the parent's"
        if isinstance(old, GuardModelJudge) and isinstance(new, GuardModelJudge) and old.preset == new.preset:
            asked = new.categories or new.form.default
            for category in old.categories or old.form.default:
                if category not in asked:
                    yield key, (*where, "categories"), f"category {category!r} is not asked about"
            if new.controversial == "safe" != old.controversial:
                yield key, (*where, "controversial"), "unsafe -> safe"


def _fewer_labels(before: Sequence[str] | Mapping[str, float] | None, after: Any) -> Iterator[str]:
    """Labels that are gone, and limits that are higher. More labels can only veto more."""
    if isinstance(before, Mapping) != isinstance(after, Mapping) or (before is None) != (after is None):
        yield "another judge than the parent's"
        return
    for name in before or ():
        if name not in after:
            yield f"label {name!r} is not there"
        elif isinstance(before, Mapping) and after[name] > before[name]:
            yield f"label {name!r}: {before[name]} -> {after[name]}"
