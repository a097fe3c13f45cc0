"""Is the audit log what it was, and does every decision follow from what is on record?

The chain says that nothing was changed. Redoing says that what was written was right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from stars_guard.audit.chain import Chains
from stars_guard.audit.chained_store import ChainedStore
from stars_guard.audit.entries import Broken, Differs, Entry, Head, Unsealed
from stars_guard.audit.keys import audit_keys
from stars_guard.auditing.findings import NotRedone, Problem, Report
from stars_guard.auditing.redoing import redo
from stars_guard.errors import AuditError

__all__ = ["Problem", "Report", "redo", "verify"]

_MOST = 100
"""Calls that differ, or records that could not be redone, that a report names."""


def verify(
    store: ChainedStore,
    heads: Iterable[Head] = (),
    *,
    unsigned: bool = False,
    unsealed: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> Report:
    """Check the chains of a log and redo every decision, up to the first thing that does not hold.

    What lists, searches and counts read is compared with the records too. All calls that differ are counted, and so are
    records whose decisions cannot be redone here, because a part that decided isn't installed.

    Args:
        heads: exported earlier and kept elsewhere.
        unsigned: whether entries without a signature are good enough though there is a key.
        unsealed: how many records may be older than the chain although there is a key, or heads that do not name them.
        progress: called after each entry.

    Raises:
        AuditError: the log cannot be read.
    """
    chains = Chains(audit_keys(), heads, allow_unsigned=unsigned, allow_unsealed=unsealed)
    records = attempts = torn = differences = left = 0
    differing: list[Problem] = []
    not_redone: list[NotRedone] = []
    problem: Problem | None = None
    for found in store.checked():
        match found:
            case Entry():
                where = found.where
                wrong = chains.check(found)
                problem = Problem(where, wrong) if wrong else None
                if problem is None and found.kind == "record":
                    problem, tried = _redo_entry(found, where)
                    records += problem is None
                    attempts += tried
            case Unsealed():
                wrong = chains.unsealed_record(found)
                problem = Problem(found.where, wrong) if wrong else redo(found.record)
            case Differs():
                differences += 1
                if len(differing) < _MOST:
                    differing.append(Problem(found.where, found.text))
            case Broken(kind="torn"):
                torn += 1
            case Broken(error=AuditError() as error):
                problem = Problem("", str(error))
            case Broken():
                problem = Problem(found.where, "this is no entry of an audit log")
        if isinstance(problem, NotRedone):
            # what other records say can still be checked
            left += 1
            if len(not_redone) < _MOST:
                not_redone.append(problem)
            problem = None
        if problem is not None:
            break
        progress()
    if problem is None and (wrong := chains.finish()):
        problem = Problem("", wrong)
    return Report(
        problem=problem or next(iter([*differing, *not_redone]), None),
        records=records,
        attempts=attempts,
        writers=chains.writers,
        unsealed=chains.unsealed,
        unsigned=chains.unsigned,
        purged=chains.purged,
        torn=torn,
        differing=tuple(differing),
        differences=differences,
        not_redone=tuple(not_redone),
        left=left,
    )


def _redo_entry(entry: Entry, where: str) -> tuple[Problem | None, int]:
    try:
        record = entry.record()
    except AuditError as exc:
        return Problem("", str(exc)), 0
    problem = redo(record)
    if problem is not None:
        return type(problem)(f"{where}, {problem.where}", problem.text), 0
    return None, sum(len(segment.attempts) for segment in record.segments)
