"""A bar that counts answers while they are generated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["counting"]


@contextmanager
def counting(console: Console, what: str, total: int, *, done: int = 0) -> Iterator[Callable[[], None]]:
    """Show the bar. Call what it gives after each answer.

    Args:
        done: how many there are already.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        yield partial(progress.advance, progress.add_task(what, total=total, completed=done))
