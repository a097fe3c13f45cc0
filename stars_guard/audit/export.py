"""Records as files for other programs: JSON lines, CSV and Parquet."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from stars_guard.audit._query import blamed, summarize
from stars_guard.audit.private_files import replacing
from stars_guard.audit.record import CallRecord
from stars_guard.core.vocabulary import ExportRows
from stars_guard.errors import InputError, MissingExtra

__all__ = ["calls", "candidates", "export", "harmless"]


_CALL: dict[str, type] = {
    "call_id": str,
    "run_id": str,
    "started_at": str,
    "seconds": float,
    "policy": str,
    "policy_sha256": str,
    "mode": str,
    "stage": str,
    "finish": str,
}
_CALLS = _CALL | {
    "segments": int,
    "proposals": int,
    "rejections": int,
    "drawn": int,
    "kept": int,
    "judges": str,
    "prompt": str,
    "answer": str,
}
_CANDIDATES = _CALL | {
    "segment": int,
    "attempt": int,
    "verdict": str,
    "is_kept": bool,
    "reason": str,
    "judges": str,
    "veto": str,
    "reward": float,
    "threshold": float,
    "probability": float,
    "u": float,
    "tokens": int,
    "overrun": int,
    "text": str,
}

_BATCH = 2_000

_FORMULA = frozenset("=+-@\u2212")
"""What a formula can begin with; the last is a minus sign."""

_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Mn", "Me", "Zl", "Zp", "Zs"})
"""Kinds of characters that are not seen at the beginning of a cell: spaces, controls, marks on nothing."""

_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that are not seen either."""


def calls(record: CallRecord) -> Iterator[dict[str, Any]]:
    """One row for the call."""
    row = asdict(summarize(record))
    yield (
        _about(record)
        | {name: row[name] for name in ("segments", "proposals", "rejections", "drawn", "kept")}
        | {
            "judges": " ".join(row["judges"]),
            "prompt": "\n\n".join(f"{turn.role}: {turn.content.text}" for turn in record.prompt if turn.content.text),
            "answer": record.answer.text,
        }
    )


def candidates(record: CallRecord) -> Iterator[dict[str, Any]]:
    """One row for each candidate, in order. ``is_kept`` marks those of which something is in the answer."""
    standing = record.standing
    for segment in record.segments:
        for attempt in segment.attempts:
            values = attempt.model_dump(
                include={
                    "attempt",
                    "verdict",
                    "reason",
                    "veto",
                    "reward",
                    "threshold",
                    "probability",
                    "u",
                    "tokens",
                    "overrun",
                }
            )
            yield (
                _about(record)
                | values
                | {
                    "segment": segment.index,
                    "is_kept": attempt.attempt == segment.kept and segment.index in standing,
                    "judges": " ".join(blamed(attempt, record.rules)),
                    "text": attempt.text.text,
                }
            )


def export(records: Iterable[CallRecord], path: Path, rows: ExportRows = "candidates") -> int:
    """Write records to a file whose ending says the format. A file that cannot be finished is not left behind.

    Only the owner may read the file. One that was there is replaced, and a link is not followed.

    Args:
        path: ``.jsonl`` holds the records as they are, ``.csv`` and ``.parquet`` one row for each candidate or call.

    Returns:
        How many calls were written.

    Raises:
        InputError: the ending is not known.
        AuditError: the file cannot be written.
        MissingExtra: Parquet needs pyarrow.
    """
    writers = {".jsonl": _write_jsonl, ".csv": _write_csv, ".parquet": _write_parquet}
    write = writers.get(path.suffix.lower())
    if write is None:
        raise InputError(
            f"{path}: the format {path.suffix or 'without an ending'} is not known",
            hint=f"use one of {', '.join(writers)}",
        )
    counted = _Counted(records)
    with replacing(path) as part:
        write(counted, part, rows)
    return counted.count


def harmless(text: str) -> str:
    """A cell of CSV that a spreadsheet does not run: what begins like a formula gets an apostrophe before it.

    Spreadsheets pass over what they do not show, and take full-width signs for the usual ones. A cell that begins with
    a control character counts too: a line feed begins a cell of its own where quotes are not understood.
    """
    for at, char in enumerate(text):
        kind = unicodedata.category(char)
        if at == 0 and kind == "Cc":
            return f"'{text}"
        if not (kind in _UNSEEN or char in _BLANK):
            return f"'{text}" if unicodedata.normalize("NFKC", char)[:1] in _FORMULA else text
    return text


class _Counted:
    def __init__(self, records: Iterable[CallRecord]) -> None:
        self._records = records
        self.count = 0

    def __iter__(self) -> Iterator[CallRecord]:
        for record in self._records:
            self.count += 1
            yield record


def _about(record: CallRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _CALL}


def _write_jsonl(records: Iterable[CallRecord], path: Path, rows: ExportRows) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(record.model_dump_json() + "\n" for record in records)


def _write_csv(records: Iterable[CallRecord], path: Path, rows: ExportRows) -> None:
    columns, of = (_CALLS, calls) if rows == "calls" else (_CANDIDATES, candidates)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        for record in records:
            for row in of(record):
                writer.writerow({key: harmless(v) if isinstance(v, str) else v for key, v in row.items()})


def _write_parquet(records: Iterable[CallRecord], path: Path, rows: ExportRows) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as exc:
        raise MissingExtra("export to Parquet", "parquet") from exc
    columns, of = (_CALLS, calls) if rows == "calls" else (_CANDIDATES, candidates)
    kinds = {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64(), bool: pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    waiting = (row for record in records for row in of(record))
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while batch := list(islice(waiting, _BATCH)):
            writer.write_table(pyarrow.Table.from_pylist(batch, schema))
