"""Is the audit log what it was, and does every decision follow from what is on record?

The chain says that nothing was changed. Redoing says that what was written was right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stars_guard.audit.chain import Chains
from stars_guard.audit.chained_store import ChainedStore
from stars_guard.audit.entries import Broken, Entry, Head, Unsealed
from stars_guard.audit.keys import audit_keys
from stars_guard.auditing.redoing import Problem, redo
from stars_guard.errors import AuditError

__all__ = ["Problem", "Report", "redo", "verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found.

    Attributes:
        problem: the first thing that does not hold, or None.
        records: sealed records that hold, up to the problem; ``attempts`` decisions in them were redone.
        unsealed: records of the time before there was a chain: only their decisions were redone.
        unsigned: entries that nobody signed with a key.
        purged: entries that a purge took out.
        torn: beginnings of lines that a crash has left.
    """

    problem: Problem | None
    records: int = 0
    attempts: int = 0
    writers: int = 0
    unsealed: int = 0
    unsigned: int = 0
    purged: int = 0
    torn: int = 0


def verify(
    store: ChainedStore,
    heads: Iterable[Head] = (),
    *,
    unsigned: bool = False,
    progress: Callable[[], object] = lambda: None,
) -> Report:
    """Check the chains of a log and redo every decision, up to the first thing that does not hold.

    Args:
        heads: exported earlier and kept elsewhere.
        unsigned: whether entries without a signature are good enough though there is a key.
        progress: called after each entry.

    Raises:
        AuditError: the log cannot be read.
    """
    chains = Chains(audit_keys(), heads, allow_unsigned=unsigned)
    records = attempts = unsealed = torn = 0
    problem: Problem | None = None
    for found in store.entries():
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
                sealed_before = chains.writers > 0
                problem = Problem(found.where, "it is not sealed, but entries before it are") if sealed_before else None
                problem = problem or redo(found.record)
                unsealed += 1
            case Broken(kind="torn"):
                torn += 1
            case Broken(error=AuditError() as error):
                problem = Problem("", str(error))
            case Broken():
                problem = Problem(found.where, "this is no entry of an audit log")
        if problem is not None:
            break
        progress()
    if problem is None and (wrong := chains.finish()):
        problem = Problem("", wrong)
    return Report(
        problem=problem,
        records=records,
        attempts=attempts,
        writers=chains.writers,
        unsealed=unsealed,
        unsigned=chains.unsigned,
        purged=chains.purged,
        torn=torn,
    )


def _redo_entry(entry: Entry, where: str) -> tuple[Problem | None, int]:
    try:
        record = entry.record()
    except AuditError as exc:
        return Problem("", str(exc)), 0
    problem = redo(record)
    if problem is not None:
        return Problem(f"{where}, {problem.where}", problem.text), 0
    return None, sum(len(segment.attempts) for segment in record.segments)
