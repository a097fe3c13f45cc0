"""``extends``: a policy on top of another. A child may tighten freely; what it loosens it must say."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from stars_guard.decoding import decoder_of
from stars_guard.policy._judges import find_options
from stars_guard.policy._model import Audit, Policy
from stars_guard.policy.tree import Node
from stars_guard.scorers.options import JudgeOptions, Loosening

__all__ = ["judge_key", "loosened", "merge"]

RULES = frozenset({"name", "type", "weight", "reject_above", "on_error", "timeout"})
"""Fields of every judge whose change doesn't loosen, or which are compared here."""

CONTENTS = ("none", "hash", "redacted", "full")
MODES = ("off", "monitor", "enforce")


def merge(parent: Node, child: Node, named: Collection[str] = ("judges",)) -> Node:
    """The child on top of the parent: mappings key by key, judges by name, all else replaced.

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
        else:
            both[key] = merge(both[key], node, named)
    return Node(both, child.place)


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


def judge_key(path: Sequence[str], name: str) -> str:
    """What a judge goes by in the whole policy: ``rails.input.judges.secrets``."""
    return ".".join((*path, name))


def _word(node: Node, key: str) -> str | None:
    """The text under a key of a mapping, or None."""
    found = node.value.get(key) if isinstance(node.value, dict) else None
    return str(found.value) if found is not None and isinstance(found.value, str) else None


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
    path: tuple[str, ...], before: Sequence[JudgeOptions], after: Sequence[JudgeOptions]
) -> Iterator[Change]:
    """Judges of one list that are gone, and what those that are left let through."""
    at = {judge.name: index for index, judge in enumerate(after)}
    for old in before:
        key = judge_key(path, old.name)
        if old.name not in at:
            yield key, path, f"judge {old.name!r} is not there"
            continue
        index = at[old.name]
        for field, text in _loosened_judge(old, after[index]):
            yield key, (*path, index, field), text


def _loosened_judge(old: JudgeOptions, new: JudgeOptions) -> Iterator[Loosening]:
    """The rules that all judges have are compared here; each type compares its own fields (`JudgeOptions`)."""
    if new.on_error == "ignore" != old.on_error:
        yield "on_error", f"{old.on_error} -> ignore"
    if old.reject_above is None:
        return
    if new.reject_above is None or new.reject_above > old.reject_above:
        yield "reject_above", f"{old.reject_above} -> {new.reject_above}"
    if type(old) is not type(new):
        yield "type", f"{old.type} -> {new.type}"
        return
    for field in type(old).model_fields:
        if field not in RULES | old.free and getattr(old, field) != getattr(new, field):
            yield field, "another judge than the parent's"
    yield from old.loosenings(new)
