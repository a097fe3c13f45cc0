"""Checking the audit log, exporting its heads, and taking old records out of it."""

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
    """Check chains and redo decisions, with a bar; whether everything holds."""
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
    """Take out the records of calls that ended before a time, and say so."""
    if before > datetime.now(UTC):
        raise InputError("only what is past can be purged", hint="use 90d or a date")
    records = _sealed(store).purge(before)
    console.print(f"{records} records of calls that ended before {before.isoformat()} were taken out", highlight=False)


def _sealed(store: AuditStore) -> ChainedStore:
    if not isinstance(store, ChainedStore):
        raise AuditError("this audit log keeps no chain", hint="use sqlite, postgresql or jsonl")
    return store


def _read_heads(path: Path) -> list[Head]:
    try:
        return [Head.model_validate_json(line) for line in path.read_text().splitlines() if line.strip()]
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
    except ValidationError as exc:
        raise InputError(f"{path} does not hold heads", hint="write it with stars-guard audit head") from exc


def _lines(report: Report) -> list[str]:
    counts = {
        "{} records in {} chains hold, with {} decisions redone": (report.records, report.writers, report.attempts),
        "{} entries were purged, as the log says itself": (report.purged,),
        "{} records of before the chain are not sealed: only their decisions were redone": (report.unsealed,),
        "{} entries are not signed with a key: whoever can write the log can make it anew": (report.unsigned,),
        "{} beginnings of lines were left by a crash": (report.torn,),
    }
    return [line.format(*numbers) for at, (line, numbers) in enumerate(counts.items()) if numbers[0] or not at]
