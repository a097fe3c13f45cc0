"""Reading the audit log at the terminal. A model's text is printed as it is, never as markup or terminal commands."""

from __future__ import annotations

import csv
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.text import Text as Line

from stars_guard.audit import AuditStore, Filter, Summary, Text, open_store
from stars_guard.audit.export import harmless
from stars_guard.audit.private_files import replacing
from stars_guard.audit.stats import LAST_INDEX, Cost, IndexCount
from stars_guard.calling import portal
from stars_guard.cli._console import Terminal, visible
from stars_guard.cli._options import ListForm
from stars_guard.cli._tables import Column, show_table
from stars_guard.errors import AuditError, InputError, MissingExtra
from stars_guard.policy import load_policy

__all__ = ["follow", "list_calls", "opened", "serve_page", "show_record", "show_stats", "store_of", "write_private"]

_LOGS = {".db": "sqlite", ".sqlite": "sqlite", ".sqlite3": "sqlite", ".jsonl": "jsonl"}
"""The store of a file's name."""

_MOST = 50
_CALLS = (
    Column("call"),
    Column("started (UTC)"),
    Column("policy", rank=2, least=8),
    Column("stage", rank=3),
    Column("finish"),
    Column("rejected", right=True),
    Column("kept", rank=4, right=True),
    Column("s", rank=5, right=True),
    Column("judges", rank=1, least=8),
    Column("prompt", least=12),
)
_TAIL_WIDTHS = (12, 16, 12, 11, 9, 8, 9, 6, 16)
"""Of the same columns except the last, where rows come one by one."""
_WIDE = 120
"""From this width on such rows show every column."""


def store_of(where: str | None) -> AuditStore:
    """The store that a URL names, a log's own path, or a policy by name or path. None is the default policy's.

    Raises:
        InputError: it is the path of a log that is not there.
    """
    if where and "://" in where:
        return open_store(where)
    if where and (scheme := _log_scheme(Path(where))):
        return open_store(f"{scheme}://{quote(str(Path(where).expanduser().absolute()))}")
    return open_store(load_policy(where or "default").audit.url)


def _log_scheme(path: Path) -> str | None:
    """The scheme of the store whose file this is, by its first bytes or by its name; None if it is no log."""
    try:
        with path.expanduser().open("rb") as file:
            start = file.read(16)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        if path.suffix in _LOGS:
            raise InputError(f"there is no audit log {str(path)!r}", hint="give a log or a policy") from None
        return None
    except ValueError as exc:  # such as a null character in it
        raise InputError(f"{str(path)!r} is not a path", hint="give a log or a policy") from exc
    if start.startswith(b"SQLite format 3"):
        return "sqlite"
    return "jsonl" if start.startswith(b"{") and path.suffix not in (".yaml", ".yml") else _LOGS.get(path.suffix)


@contextmanager
def opened(where: str | None) -> Iterator[AuditStore]:
    """As `store_of`, and closed afterwards."""
    store = store_of(where)
    try:
        yield store
    finally:
        portal.call(store.aclose)


def list_calls(console: Console, store: AuditStore, wanted: Filter, limit: int | None, form: ListForm) -> None:
    """Print the newest calls, the newest last.

    Args:
        limit: how many; None is 50, and what these leave out is said on the error stream. 0 is all.
    """
    most = _MOST if limit is None else limit or None
    rows = store.search(wanted, limit=None if most is None else most + 1)
    if limit is None and len(rows) > _MOST:
        there_are = store.stats(wanted).total.calls
        note = f"these are the newest {_MOST} of {there_are} calls: --all lists every one"
        Terminal(stderr=True).print(note, style="yellow")
    rows = rows[:most][::-1]
    match form:
        case "json":
            for row in rows:
                typer.echo(json.dumps(asdict(row)))
        case "csv":
            names = [field.name for field in fields(Summary)]
            writer = csv.writer(sys.stdout)
            writer.writerow(names)
            writer.writerows([visible(harmless(_joined(getattr(row, name)))) for name in names] for row in rows)
        case "table":
            show_table(console, _CALLS, [_cells(row) for row in rows], more="--json")


def is_id(given: str) -> bool:
    """Whether it is the id of a call or a run, or the start of a call's id, and neither a policy nor a file."""
    return re.fullmatch("[0-9a-f-]{3,36}", given) is not None and not Path(given).exists()


def show_record(console: Console, store: AuditStore, call_id: str | None, *, as_json: bool = False) -> None:
    """Print one call in full.

    Args:
        call_id: of the call or its run, or the start of the call's id; None is the newest call.

    Raises:
        AuditError: there is no such record, or several fit.
    """
    if call_id is None:
        newest = store.search(limit=1)
        if not newest:
            raise AuditError("the audit log is empty")
        call_id = newest[0].id
    record = store.get(call_id)
    if as_json:
        typer.echo(json.dumps(record.model_dump(mode="json")))
        return
    head = f"call {record.call_id}  policy {record.policy} ({record.policy_sha256[:12]})  {record.mode}"
    console.print(_line(f"{head}  run {record.run_id}" if record.run_id else head))
    console.print(_line(f"{record.started_at}  {record.seconds:.2f} s  finish {record.finish}  {record.reason}"))
    for turn in record.prompt:
        console.print(_line(f"{turn.role}: {_shown(turn.content)}"))
    standing = record.standing
    for segment in record.segments:
        for attempt in segment.attempts:
            kept = attempt.attempt == segment.kept and segment.index in standing
            numbers = "  ".join(
                f"{name} {value:.2f}"
                for name, value in (
                    ("reward", attempt.reward),
                    ("threshold", attempt.threshold),
                    ("p", attempt.probability),
                    ("u", attempt.u),
                )
                if value is not None
            )
            mark = "+" if kept else "-"
            head = f"{mark} {segment.index}.{attempt.attempt} {attempt.verdict}: {attempt.reason}  {numbers}"
            console.print(_line(head, "green" if kept else "red"))
            console.print(_line("    " + _shown(attempt.text), "" if kept else "strike dim"))
            for one in attempt.unasked:
                said = f"{one.judge} was not asked: the score of {one.instead} is {one.side} the band of doubt"
                console.print(_line(f"    {said}", "dim"))
        if (back := segment.rewound) is not None:
            part = f"token {back.left} of segment {back.to}" if back.left else f"the beginning of segment {back.to}"
            console.print(_line(f"< {segment.index} the answer went back to {part}: {back.reason}", "yellow"))
    for shadow in record.shadows:
        place = "" if shadow.segment is None else f" at segment {shadow.segment}"
        why = f"  not all was decided: {shadow.error}" if shadow.error else ""
        head = f"shadow {shadow.policy} ({shadow.policy_sha256[:12]}): {shadow.outcome}{place}"
        console.print(_line(head + why, "cyan"))


def follow(
    console: Console, store: AuditStore, wanted: Filter, limit: int, every: float, *, as_json: bool = False
) -> None:
    """Print the newest calls and then each call as it is written, until the user interrupts.

    Args:
        limit: how many of the newest calls come first.
        every: seconds between two looks.
    """
    cursor = store.after().cursor
    rows = store.search(wanted, limit=limit)[::-1] if limit else []
    shown = {row.id for row in rows}
    try:
        while True:
            for row in rows:
                if as_json:
                    typer.echo(json.dumps(asdict(row)))
                else:
                    console.print(_tail_line(console, row), soft_wrap=True)
            time.sleep(every)
            news = store.after(cursor, wanted)
            # one written between the two looks at the start is in both
            rows, cursor = [row for row in news.calls if row.id not in shown], news.cursor
    except KeyboardInterrupt:
        return


def show_stats(console: Console, store: AuditStore, wanted: Filter, *, as_json: bool = False) -> None:
    """Print what the wanted calls add up to."""
    stats = store.stats(wanted)
    if as_json:
        typer.echo(json.dumps(asdict(stats)))
        return

    def show(title: str, columns: tuple[Column, ...], rows: list[tuple[str, ...]]) -> None:
        show_table(console, columns, rows, title=title, more="--json")

    show("Candidates, tokens and seconds", _costs(""), [_cost(stats.total, "all calls")])
    show("How answers ended", _numbers("finish", "calls"), [(finish, str(calls)) for finish, calls in stats.finishes])
    show(
        "Rejected candidates by judge",
        _numbers("judge", "by its veto", "by a low reward"),
        [(each.judge, str(each.vetoes), str(each.low_reward)) for each in stats.judges],
    )
    show("By policy", _costs("policy", least=9), [_cost(each, each.name) for each in stats.policies])
    show("Over time", _costs("from (UTC)"), [_cost(each, each.name[:16].replace("T", " ")) for each in stats.times])
    show(
        "Acceptance by segment",
        _numbers("segment", "accepted", "rejected", "acceptance", "mean threshold"),
        [_index_cells(each) for each in stats.by_index],
    )


def _index_cells(count: IndexCount) -> tuple[str, ...]:
    where = f"{count.index}" if count.index < LAST_INDEX else f"{count.index} and later"
    share = count.accepted / (count.accepted + count.rejected)
    return (where, str(count.accepted), str(count.rejected), f"{share:.0%}", _number(count.threshold))


def serve_page(
    console: Console, store: AuditStore, host: str, port: int, token: str | None, langsmith: str | None
) -> None:
    """Serve the page until the user interrupts.

    Raises:
        MissingExtra: FastAPI or uvicorn is not installed.
    """
    try:
        from stars_guard.audit.viewer.serve import serve
    except ImportError as exc:
        raise MissingExtra("the audit page", "ui") from exc

    def say(address: str) -> None:
        console.print(f"the audit page is at {address}", markup=False, soft_wrap=True)
        if "?token=" in address:
            console.print("whoever knows this address reads the log; put TLS before it on a network", style="yellow")

    serve(store, host=host, port=port, token=token, langsmith=langsmith, say=say)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read. A file that was there is replaced, whoever could read it.

    Raises:
        AuditError: it cannot be written, or it is a link.
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def _costs(name: str, least: int | None = None) -> tuple[Column, ...]:
    """The columns of `_cost`.

    Args:
        least: to how many characters the names may be cut; None: not at all.
    """
    return (
        Column(name, least=least),
        Column("calls", right=True),
        Column("candidates", rank=2, right=True),
        Column("rejected", right=True),
        Column("generated", right=True),
        Column("kept", right=True),
        Column("discarded", rank=1, right=True),
        Column("s/call", right=True),
        Column("slowest", rank=3, right=True),
    )


def _cost(cost: Cost, name: str) -> tuple[str, ...]:
    mean = cost.seconds / cost.calls if cost.calls else 0.0
    discarded = cost.drawn - cost.kept
    numbers = (cost.calls, cost.proposals, cost.rejections, cost.drawn, cost.kept, discarded)
    return (name, *map(str, numbers), f"{mean:.2f}", f"{cost.slowest:.2f}")


def _numbers(name: str, *others: str) -> tuple[Column, ...]:
    """A column of names, and columns of numbers."""
    return (Column(name, least=12), *(Column(other, right=True) for other in others))


def _cells(row: Summary) -> list[Line]:
    texts = (
        row.id[:12],
        row.started_at[:16].replace("T", " "),
        row.policy,
        row.stage,
        row.finish,
        f"{row.rejections}/{row.proposals}",
        f"{row.kept}/{row.drawn}",
        f"{row.seconds:.1f}",
        ", ".join(row.judges),
        row.preview or "",
    )
    cells = [_line(text) for text in texts]
    cells[5].stylize("red" if row.rejections else "green")
    return cells


def _tail_line(console: Console, row: Summary) -> Line:
    """A row of `_CALLS` that stands below those before it: it is cut at a terminal's width, and whole in a pipe."""
    cells = _cells(row)
    if not console.is_terminal:
        return Line("  ").join(cells)
    shown: list[Line] = []
    left = console.width
    for column, width, cell in zip(_CALLS[:-1], _TAIL_WIDTHS, cells[:-1], strict=True):
        if column.rank <= 1 or console.width >= _WIDE:
            cell.truncate(width, overflow="ellipsis", pad=True)
            shown.append(cell)
            left -= width + 2
    cells[-1].truncate(left, overflow="ellipsis")
    return Line("  ").join([*shown, cells[-1]])


def _line(text: str, style: str = "") -> Line:
    return Line(visible(text), style=style)


def _joined(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else "" if value is None else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _shown(text: Text) -> str:
    if text.text is not None:
        return text.text
    return f"<{text.chars} characters, sha256 {text.sha256}>" if text.sha256 else f"<{text.chars} characters>"
