"""Checking the audit log, exporting its heads, and deleting old records."""

from __future__ import annotations

from datetime import UTC, datetime
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

__all__ = ["print_heads", "purge_records", "verify_log"]


def verify_log(console: Console, store: AuditStore, heads: Path | None, *, unsigned: bool) -> bool:
    """Check the chains, make every decision again, and print what was found.

    Args:
        heads: a file that ``stars-guard audit head`` wrote earlier.
        unsigned: whether entries without a signature are good enough although a key is set.

    Returns:
        Whether everything holds.
    """
    log = _sealed(store)
    known = _read_heads(heads) if heads is not None else ()
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("checking", total=log.size())
        report = verify(log, known, unsigned=unsigned, progress=lambda: progress.advance(bar))
    for line in _lines(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if report.problem is not None:
        console.print(f"does not hold: {report.problem}", style="red", markup=False, highlight=False, soft_wrap=True)
    return report.problem is None


def print_heads(store: AuditStore) -> None:
    """One line of JSON for each chain, to be kept elsewhere."""
    for head in _sealed(store).heads():
        typer.echo(head.model_dump_json())


def purge_records(console: Console, store: AuditStore, before: datetime) -> None:
    """Delete the records of calls that ended before a time, and print how many went."""
    if before > datetime.now(UTC):
        raise InputError(
            f"{before.isoformat()} is in the future, and only old records can be deleted", hint="use 90d or a past date"
        )
    records = _sealed(store).purge(before)
    console.print(f"{records} records of calls that ended before {before.isoformat()} were deleted", highlight=False)


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
    except ValidationError as exc:
        raise InputError(
            f"{path} does not hold the heads of chains", hint="make the file with: stars-guard audit head"
        ) from exc


def _lines(report: Report) -> list[str]:
    counts = {
        "{} records in {} chains hold, with {} decisions redone": (report.records, report.writers, report.attempts),
        "{} entries were purged, as the log itself says": (report.purged,),
        "{} records are older than the chain and not sealed, so only their decisions were redone": (report.unsealed,),
        "{} entries are not signed with a key: whoever can write the log can make all of it again": (report.unsigned,),
        "{} lines were cut off by a crash": (report.torn,),
    }
    return [line.format(*numbers) for at, (line, numbers) in enumerate(counts.items()) if numbers[0] or not at]
