"""What the audit log costs: records a second, and how long a call waits for its record."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence

from benchmarks.audit import WRITTEN, written
from benchmarks.scorecard.section import Section, Table
from benchmarks.scorecard.sizes import Size
from stars_guard.calling import portal

__all__ = ["measure", "section_of"]

KINDS = ("jsonl", "sqlite")
RECORDS = 1000


def measure(size: Size) -> Section:
    """Records of 16 segments into files and SQLite; ``python -m benchmarks audit`` has PostgreSQL and reading too."""
    count, numbers = max(8, RECORDS // size.every), itertools.count()
    with tempfile.TemporaryDirectory() as folder:
        rows = portal.call(lambda: written(lambda kind: f"{kind}://{folder}/{next(numbers)}", KINDS, count))
    return section_of(rows, count)


def section_of(rows: Sequence[tuple[str | float, ...]], count: int) -> Section:
    """The section of the columns of `WRITTEN`."""
    return Section(
        title="Cost: the audit log",
        about=(
            f"{count} records of 16 segments and 24 candidates with all text. `python -m benchmarks audit` has "
            "PostgreSQL and reading too. Times mean something on an idle machine alone."
        ),
        figures={f"{row[0]}_{str(row[1]).replace('-', '_')}_ms": row[3] for row in rows if not isinstance(row[3], str)},
        tables=(Table(head=WRITTEN, rows=tuple(rows)),),
    )
