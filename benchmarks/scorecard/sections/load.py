"""The mixed load: what is left of an hour of everything at once."""

from __future__ import annotations

from benchmarks.mixed_load import DISTURBANCES, WORKERS, run
from benchmarks.scorecard.section import Section, Table
from benchmarks.scorecard.sizes import Size
from stars_guard.calling import portal

__all__ = ["measure"]


def measure(size: Size) -> Section:
    """One run, as long as the size says."""
    found = portal.call(lambda: run(size.minutes))
    quarter = max(1, len(found.memory) // 4)
    steps = [(f"{step * 25}%", found.memory[min(step * quarter, len(found.memory) - 1)]) for step in range(5)]
    return Section(
        title="Cost: mixed load",
        about=(
            f"{WORKERS} callers at once for {size.minutes:g} minutes, on a scripted engine and a log in SQLite: "
            "answers, streams to their end and left in the middle, calls that are cancelled, checks. Meanwhile "
            "policies are replaced, the server of a judge is killed and brought back, and the log is locked by "
            "another connection. Afterwards each record is compared with what its caller saw."
        ),
        figures={
            "minutes": found.minutes,
            "calls": found.calls,
            "checks": found.checks,
            "wrong_records": found.missing + found.doubled + found.wrong,
            "open_requests": found.open_requests,
            "more_files": found.more_files,
            "memory_growth": found.memory_growth,
        },
        tables=(
            Table(
                title="Calls by their end, and disturbances",
                head=("what", "how often"),
                rows=tuple(sorted(found.kinds.items(), key=lambda item: (item[0] in DISTURBANCES, -item[1]))),
            ),
            Table(title="Memory of the process, MiB", head=("after", "MiB"), rows=tuple(steps)),
            Table(
                title="What is left",
                head=("what", "count"),
                rows=(
                    ("records missing", found.missing),
                    ("records doubled", found.doubled),
                    ("records that say something else than the caller saw", found.wrong),
                    ("requests that the engine still holds", found.open_requests),
                    ("open files more than at the start", found.more_files),
                ),
            ),
        ),
    )
