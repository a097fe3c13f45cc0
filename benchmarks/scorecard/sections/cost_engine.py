"""What guarding costs beside the engine: kept tokens a second, and the time to the first text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.scorecard.section import Figure, NotMeasured, Section, Table
from benchmarks.scorecard.sizes import Size
from stars_guard.calling import portal
from stars_guard.calling.backend_loading import load_backend

__all__ = ["measure", "section_of"]


def measure(size: Size) -> Section:
    """As ``python -m benchmarks vllm_backend``."""
    if not size.models:
        raise NotMeasured("it needs a model on vLLM")
    return portal.call(lambda: _measure(size))


async def _measure(size: Size) -> Section:
    from benchmarks.vllm_backend import Plain, against_plain, first_text
    from stars_guard.backends.vllm_engine import VllmEngineBackend

    engine = await load_backend("embedded", "vllm")
    assert isinstance(engine, VllmEngineBackend)
    first = await first_text(engine)
    head, rows = ["calls"], []
    if size.generates:
        engine.vocabulary = replace(engine.vocabulary, eos_ids=frozenset())
        await Plain(engine).run(8, 32)
        head, rows = await against_plain(engine)
    return section_of(first, head, rows)


def section_of(first: Mapping[str, float], head: Sequence[str], rows: Sequence[Sequence[float]]) -> Section:
    """The section of seconds to the first text, and of what is kept beside plain generation."""
    figures: dict[str, Figure] = {"first_text": first["released"] / first["plain"]}
    times = (1000 * first["released"], 1000 * first["plain"], first["released"] / first["plain"])
    tables = [
        Table(
            title="Time to the first text, beside a plain segment and one judging",
            head=("released, ms", "plain and judged, ms", "ratio"),
            rows=(times,),
        )
    ]
    if rows:
        figures |= {f"accepted_share_{row[0]:.0f}": row[3] for row in rows}
        tables.append(
            Table(
                title="All accepted, beside plain generation: kept tokens/s as a share",
                head=tuple(head),
                rows=tuple(map(tuple, rows)),
            )
        )
    return Section(
        title="Cost: beside the engine",
        about=(
            "The embedded 135M model on vLLM in this process, and the default policy's judge. Times mean something "
            "on an idle machine alone."
        ),
        figures=figures,
        tables=tuple(tables),
    )
