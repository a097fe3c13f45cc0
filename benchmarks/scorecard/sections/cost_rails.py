"""What a rail's check adds without a model."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks import rails
from benchmarks.measure import REPEATS
from benchmarks.scorecard.section import Section, Table
from benchmarks.scorecard.sizes import Size
from stars_guard.calling import portal

__all__ = ["measure", "section_of"]


def measure(size: Size) -> Section:
    """As ``python -m benchmarks rails``."""
    checks, repeats = max(5, rails.CHECKS // size.every), 1 if size.every > 1 else REPEATS
    found = {name: 1000 * seconds for name, seconds in portal.call(lambda: rails.measured(checks, repeats)).items()}
    return section_of(found, checks, repeats)


def section_of(found: Mapping[tuple[str, str], float], checks: int, repeats: int) -> Section:
    """The section of milliseconds by what is checked and the store of its record."""
    message = next(iter(rails.TEXTS))
    return Section(
        title="Cost: a rail's check without a model",
        about=(
            f"Checks one after the other; the median of {repeats} medians of {checks}. Each ends with its record "
            "handed to the store. Times mean something on an idle machine alone."
        ),
        figures={"memory_ms": found[message, "memory"], "sqlite_ms": found[message, "SQLite"]},
        tables=(
            Table(
                head=("what is checked", "store of the record", "ms"),
                rows=tuple((*name, value) for name, value in found.items()),
            ),
        ),
    )
