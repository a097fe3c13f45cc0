"""A rejected text in every view of a run: streams, events, callbacks, tracers, the console."""

from __future__ import annotations

import asyncio
import inspect
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, get_args

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langgraph.types import StreamMode
from rich.progress import track

from benchmarks.scorecard.section import Bar, Section, Share, Table
from benchmarks.scorecard.sizes import Size
from tests import hidden_scenarios as hidden

__all__ = ["measure", "views"]

View = Callable[[Callable[[], Any]], list[Any]]


def measure(size: Size) -> Section:
    """Every scenario in every view."""
    found = dict(views())
    tried = [(view, what) for view in found for what in hidden.SCENARIOS]
    counts = {view: [0, 0] for view in found}
    for view, what in track(size.thinned(tried, 1), description="views"):
        with warnings.catch_warnings(action="ignore"):
            seen = found[view](hidden.SCENARIOS[what])
        if seen:  # else this LangGraph has no such view
            counts[view][0] += hidden.BAD in repr(seen)
            counts[view][1] += 1
    shares = {view: Share(hits=hits, of=of) for view, (hits, of) in counts.items() if of}
    total = Share(hits=sum(share.hits for share in shares.values()), of=sum(share.of for share in shares.values()))
    return Section(
        title="Delivery: every view of a stream",
        about=(
            f"A key that a judge rejects comes from each of {len(hidden.SCENARIOS)} places of an agent or a graph: "
            "its answer, a fallback model, tools that stream, write, fail, run agents or models of their own. Each "
            "is looked at in every stream mode of the installed LangGraph, with subgraphs and without, in events, "
            "logs and batches, by callbacks, by tracers of the context and on the console. It leaks if the key is "
            "seen anywhere."
        ),
        figures={"leaked": total, "views": len(found), "places": len(hidden.SCENARIOS)},
        tables=(Table(head=("view", "leaks"), rows=tuple(shares.items())),),
        bars=(Bar.of("leaks", total),),
    )


def views() -> Iterator[tuple[str, View]]:
    """All views, by name."""
    for mode, subgraphs in hidden.stream_views():
        name = f"stream, {mode}{', subgraphs' if subgraphs else ''}"
        yield name, partial(_streamed, stream_mode=mode, subgraphs=subgraphs)
        yield name.replace("stream", "astream"), partial(_awaited, "astream", stream_mode=mode, subgraphs=subgraphs)
    yield "astream, all modes", partial(_awaited, "astream", stream_mode=[*get_args(StreamMode)], subgraphs=True)
    for version in ("v1", "v2", "v3"):
        yield f"astream_events, {version}", partial(_awaited, "astream_events", version=version)
    yield "astream_log", partial(_awaited, "astream_log")
    yield "batch", lambda make: _quietly(lambda: make().batch([hidden.INPUT, hidden.INPUT]))
    yield "batch_as_completed", lambda make: _quietly(lambda: list(make().batch_as_completed([hidden.INPUT])))
    yield "callbacks", lambda make: hidden.view_of_callbacks(make(), BaseCallbackHandler)
    yield "async callbacks", lambda make: hidden.view_of_callbacks(make(), AsyncCallbackHandler)
    yield "tracers of the context, the console", lambda make: hidden.view_of_context(make())


def _quietly(run: Callable[[], Any]) -> list[Any]:
    seen: list[Any] = []
    hidden._quietly(run, seen)
    return seen


def _streamed(make: Callable[[], Any], **options: Any) -> list[Any]:
    return _quietly(lambda: list(make().stream(hidden.INPUT, **options)))


def _awaited(method: str, make: Callable[[], Any], **options: Any) -> list[Any]:
    async def everything() -> list[Any]:
        seen: list[Any] = []
        try:
            events = getattr(make(), method)(hidden.INPUT, **options)
            stream = await events if inspect.isawaitable(events) else events
        except (TypeError, ValueError, NotImplementedError):
            return seen  # a LangGraph without it
        await hidden.collect(stream, seen)
        return seen

    return asyncio.run(everything())
