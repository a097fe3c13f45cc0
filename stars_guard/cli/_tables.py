"""Tables that fit the terminal. In a pipe or a file they are plain text: one line for each row, and nothing is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["Column", "fitting", "show_table"]

_GAP = 2
"""Blanks between two columns."""

_BLANKS = dict.fromkeys(map(ord, "\n\r\t"), " ")

Cell = str | Text


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        rank: 0 for a column that is always shown. Of the others, the one with the highest rank is left out first where
            the terminal is too narrow.
        least: to how many characters the column may be narrowed. None: never, it is as wide as its longest cell.
        wraps: a cell that is wider than the column goes on in the next line. Otherwise it is cut, with an ellipsis.
        right: the cells are numbers, and stand at the right.
    """

    name: str
    _: KW_ONLY
    rank: int = 0
    least: int | None = None
    wraps: bool = False
    right: bool = False


def show_table(
    console: Console,
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    *,
    styles: Sequence[str] = (),
    title: str = "",
    more: str = "",
) -> None:
    """Print a table.

    Args:
        rows: a cell for each column. A text that isn't ours is a `str`, which the terminal makes harmless.
        styles: of the rows' texts, if they have any. A `Text` has its own.
        title: a line above the table.
        more: what else shows the columns that are left out, such as ``--json``.
    """
    names = [_flat(console, column.name) for column in columns]
    styles = styles or [""] * len(rows)
    cells = [[_flat(console, cell, style) for cell in row] for row, style in zip(rows, styles, strict=True)]
    if title:
        console.print(Text(title, style="bold"), soft_wrap=True)
    natural = [max(cell_len(line[at].plain) for line in [names, *cells]) for at in range(len(columns))]
    if not console.is_terminal:
        _print_plain(console, [names, *cells], natural, [column.right for column in columns])
    elif (widths := fitting(columns, natural, console.width)) is None:
        _print_stacked(console, names, cells)
    else:
        _print_table(console, columns, names, cells, widths)
        left_out = [name.plain for name, width in zip(names, widths, strict=True) if width is None]
        if left_out:
            other = f", {more} or a pipe" if more else " or a pipe"
            note = f"not shown here: {', '.join(left_out)} (a wider terminal{other} has them)"
            console.print(Text(note, style="dim"), soft_wrap=False)
    if title:
        console.print()


def fitting(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int | None] | None:
    """The width of each column, None for one that is left out; None instead if even what must be shown does not fit.

    Args:
        natural: how wide each column is if nothing is cut.
        width: of the terminal.
    """
    least = [
        wide if column.least is None else min(wide, max(column.least, 0 if column.wraps else cell_len(column.name)))
        for column, wide in zip(columns, natural, strict=True)
    ]
    shown = list(range(len(columns)))
    while sum(least[at] for at in shown) + _GAP * (len(shown) - 1) > width:
        last = max(shown, key=lambda at: columns[at].rank, default=None)
        if last is None or columns[last].rank == 0:
            return None
        shown.remove(last)
    widths = {at: least[at] for at in shown}
    free = width - sum(widths.values()) - _GAP * (len(shown) - 1)
    while free and (growing := [at for at in shown if widths[at] < natural[at]]):
        # the narrowest first, so that short columns have all that they need before long ones share what is left
        widths[min(growing, key=widths.__getitem__)] += 1
        free -= 1
    return [widths.get(at) for at in range(len(columns))]


def _flat(console: Console, cell: Cell, style: str = "") -> Text:
    """A cell on one line."""
    text = console.render_str(cell, style=style) if isinstance(cell, str) else cell.copy()
    text.plain = text.plain.translate(_BLANKS)
    text.rstrip()
    return text


def _print_plain(
    console: Console, lines: Sequence[Sequence[Text]], widths: Sequence[int], right: Sequence[bool]
) -> None:
    for line in lines:
        padded = []
        for cell, width, numbers in zip(line, widths, right, strict=True):
            blanks = " " * (width - cell_len(cell.plain))
            padded.append(blanks + cell.plain if numbers else cell.plain + blanks)
        console.out((" " * _GAP).join(padded).rstrip(), highlight=False)


def _print_stacked(console: Console, names: Sequence[Text], cells: Sequence[Sequence[Text]]) -> None:
    """Each row as lines of its own, for a terminal in which no table is readable."""
    for row in cells:
        for at, (name, cell) in enumerate(zip(names, row, strict=True)):
            console.print(Text("" if at else "• ") + Text(f"{name.plain}: ", style="bold") + cell)


def _print_table(
    console: Console,
    columns: Sequence[Column],
    names: Sequence[Text],
    cells: Sequence[Sequence[Text]],
    widths: Sequence[int | None],
) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    shown = [at for at, width in enumerate(widths) if width is not None]
    for at in shown:
        table.add_column(
            names[at],
            width=widths[at],
            no_wrap=not columns[at].wraps,
            overflow="fold" if columns[at].wraps else "ellipsis",
            justify="right" if columns[at].right else "left",
        )
    for row in cells:
        table.add_row(*(row[at] for at in shown))
    console.print(table)
