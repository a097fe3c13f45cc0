"""Checking the audit log, exporting its heads, and deleting old records."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from stars_guard.audit import AuditStore
from stars_guard.audit.chained_store import ChainedStore
from stars_guard.audit.entries import Head
from stars_guard.auditing.verification import Report, verify
from stars_guard.errors import AuditError, InputError

__all__ = ["print_heads", "purge_records", "rebuild_lists", "verify_log"]


def verify_log(console: Console, store: AuditStore, heads: Path | None, *, unsigned: bool, unsealed: int) -> bool:
    """Check the chains, make every decision again, compare what lists show, and print what was found.

    Args:
        heads: a file that ``stars-guard audit head`` wrote earlier.
        unsigned: whether entries without a signature are good enough although a key is set.
        unsealed: how many records may be older than the chain although a key is set or heads are given.

    Returns:
        Whether everything holds.
    """
    log = _sealed(store)
    known = _read_heads(heads) if heads is not None else ()
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("checking", total=log.size())
        report = verify(log, known, unsigned=unsigned, unsealed=unsealed, progress=lambda: progress.advance(bar))
    for line in _lines(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for each in report.differing:
        _fault(console, f"differs: {each}")
    if report.differences:
        _fault(
            console,
            f"{report.differences} times, lists, searches and counts show something else than the records (the records "
            "are sealed: once you know why, stars-guard audit rebuild makes the rest again from them)",
        )
    for each in report.not_redone:
        _fault(console, f"not redone: {each}")
    if report.left:
        _fault(
            console,
            f"the decisions of {report.left} records could not be redone here (install the packages that the log's own "
            "machine has, and verify again)",
        )
    if report.problem is not None:
        _fault(console, f"does not hold: {report.problem}")
    return report.problem is None


def _fault(console: Console, text: str) -> None:
    console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)


def rebuild_lists(console: Console, store: AuditStore) -> None:
    """Make what lists, searches and counts read again from the records, and print of how many calls."""
    calls = _sealed(store).rebuild()
    console.print(f"lists, searches and counts were made again from {calls} records", highlight=False)


def print_heads(store: AuditStore) -> None:
    """One line of JSON for each chain, to be kept elsewhere."""
    for head in _sealed(store).heads():
        typer.echo(head.model_dump_json())


def purge_records(console: Console, store: AuditStore, before: datetime, *, yes: bool = False) -> None:
    """Delete the records of calls that ended before a time, and print how many went.

    Args:
        yes: whether that may be all of them, without asking.

    Raises:
        InputError: the time is in the future, or all would go and nobody is there to be asked.
    """
    if before > datetime.now(UTC):
        raise InputError(
            f"{before.isoformat()} is in the future, and only old records can be deleted", hint="use 90d or a past date"
        )
    log = _sealed(store)
    if not yes and _would_empty(log, before):
        if not _at_terminal():
            raise InputError("this would delete every record of the log", hint="give --yes if you mean it")
        typer.confirm("This deletes every record of the log. Go on?", abort=True)
    records = log.purge(before)
    console.print(f"{records} records of calls that ended before {before.isoformat()} were deleted", highlight=False)


def _at_terminal() -> bool:
    return sys.stdin.isatty()


def _would_empty(log: ChainedStore, before: datetime) -> bool:
    """Whether there are records, and the newest of them ended before a time."""
    newest = log.search(limit=_NEWEST)
    ended = [datetime.fromisoformat(row.started_at) + timedelta(seconds=row.seconds) for row in newest]
    return bool(ended) and max(ended) < before


_NEWEST = 100
"""Calls that are looked at, by their start: one that began earlier may have ended later."""


def _sealed(store: AuditStore) -> ChainedStore:
    if not isinstance(store, ChainedStore):
        raise AuditError(
            "this audit log keeps no chain, so it cannot be verified or purged", hint="use sqlite, postgresql or jsonl"
        )
    return store


def _read_heads(path: Path) -> list[Head]:
    try:
        return [Head.model_validate_json(line) for line in path.read_text().splitlines() if line.strip()]
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
    except (ValidationError, UnicodeDecodeError) as exc:
        raise InputError(
            f"{path} does not hold the heads of chains", hint="make the file with: stars-guard audit head"
        ) from exc


def _lines(report: Report) -> list[str]:
    counts = {
        "{} records in {} chains hold, with {} decisions redone": (report.records, report.writers, report.attempts),
        "{} entries were purged, as the log itself says": (report.purged,),
        "{} records are not sealed, so anyone can have written them; only their decisions were redone": (
            report.unsealed,
        ),
        "{} entries are not signed with a key: whoever can write the log can make all of it again": (report.unsigned,),
        "{} lines were cut off by a crash": (report.torn,),
    }
    return [line.format(*numbers) for at, (line, numbers) in enumerate(counts.items()) if numbers[0] or not at]
