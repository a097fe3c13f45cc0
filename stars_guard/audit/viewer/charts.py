"""From counts to pictures: where each bar, tick and label of a plot goes. Templates make SVG of it.

Lengths are in units of the picture, which is WIDTH wide and scales with the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from stars_guard.audit.stats import LAST_INDEX, Cost, Stats

__all__ = ["Chart", "Mark", "Tick", "charts", "compact"]

WIDTH, HEIGHT = 640, 260
_LEFT, _TOP, _PLOT_W, _PLOT_H = 58, 12, 568, 196
_ROW = 34
_NAMES = 150

Value = str | int | float


@dataclass(frozen=True, slots=True)
class Tick:
    """A label at a place on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A rectangle. ``kind`` is its class in the style sheet, ``title`` what is shown on hovering."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    title: str
    opacity: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One plot.

    Attributes:
        text: what it shows, in a sentence, for those who do not see it.
        line: points of a line, as SVG writes them; empty for none.
        legend: class and name of each kind of mark.
        head: names of the columns of ``rows``, which hold the same numbers as a table.
    """

    id: str
    title: str
    text: str
    x_label: str
    y_label: str
    head: tuple[str, ...]
    rows: list[tuple[Value, ...]]
    height: float = HEIGHT
    left: float = _LEFT
    legend: tuple[tuple[str, str], ...] = ()
    marks: list[Mark] = field(default_factory=list)
    x_ticks: list[Tick] = field(default_factory=list)
    y_ticks: list[Tick] = field(default_factory=list)
    line: str = ""

    @property
    def bottom(self) -> float:
        """Where the horizontal axis is."""
        return self.height - (HEIGHT - _TOP - _PLOT_H)

    @property
    def right(self) -> float:
        """Where the plot ends."""
        return _LEFT + _PLOT_W

    @property
    def top(self) -> float:
        """Where the plot begins."""
        return _TOP


def charts(stats: Stats) -> list[Chart]:
    """The plots of an overview, those that have something to show."""
    tokens: tuple[tuple[str, str, Callable[[Cost], float]], ...] = (
        ("kept", "kept", lambda cost: cost.kept),
        ("rejected", "in rejected segments", lambda cost: cost.rejected),
        ("surplus", "surplus", lambda cost: cost.surplus),
        ("overrun", "overrun", lambda cost: cost.overrun),
        ("rewound", "taken back", lambda cost: cost.rewound),
    )
    made = [
        _over_time(
            stats,
            "times",
            "Rejected segments over time",
            "segments",
            (("rejected", "rejected", lambda cost: cost.rejections),),
        ),
        _rewards(stats),
        _sideways(
            "judges",
            "Rejected segments by judge",
            "judge",
            (("veto", "by its veto"), ("rejected", "by a low reward")),
            [(each.judge, (each.vetoes, each.low_reward)) for each in stats.judges],
        ),
        _sideways(
            "policies",
            "Rejected segments by policy",
            "policy",
            (("rejected", "rejected"),),
            [(each.name, (each.rejections,)) for each in stats.policies],
        ),
        _over_time(stats, "tokens", "Tokens generated over time", "tokens", tokens),
        _over_time(
            stats,
            "seconds",
            "Mean time of a call",
            "seconds",
            (("plain", "mean", lambda cost: cost.seconds / cost.calls),),
        ),
        _acceptance(stats),
    ]
    return [chart for chart in made if chart.rows]


def compact(value: float) -> str:
    """A number in a few characters: 950, 1.2k, 3M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _over_time(
    stats: Stats, name: str, title: str, unit: str, series: Sequence[tuple[str, str, Callable[[Cost], float]]]
) -> Chart:
    heights = [[of(cost) for _, _, of in series] for cost in stats.times]
    ticks, scale = _scale(max((sum(each) for each in heights), default=0.0), whole=unit != "seconds")
    starts = [datetime.fromisoformat(cost.name) for cost in stats.times]
    slots = int((starts[-1] - starts[0]).total_seconds() // stats.bucket) + 1 if starts else 1
    slot = _PLOT_W / slots
    bar = min(slot * 0.78, 36.0)
    marks, x_ticks = [], []
    for start, values in zip(starts, heights, strict=True):
        index = (start - starts[0]).total_seconds() // stats.bucket
        x, y = _LEFT + (index + 0.5) * slot - bar / 2, float(_TOP + _PLOT_H)
        for (kind, label, _), value in zip(series, values, strict=True):
            if value:
                y -= value * scale
                marks.append(_mark(kind, x, y, bar, value * scale, f"{_moment(start)}: {value:,.4g} {unit} {label}"))
    for number in range(0, slots if starts else 0, math.ceil(slots / 6)):
        when = datetime.fromtimestamp(starts[0].timestamp() + number * stats.bucket, UTC)
        x_ticks.append(Tick(round(_LEFT + (number + 0.5) * slot, 1), _clock(when, stats.bucket * slots)))
    legend = tuple((kind, label) for kind, label, _ in series) if len(series) > 1 else ()
    rows: list[tuple[Value, ...]] = [
        (_moment(start), *(round(value, 3) for value in values)) for start, values in zip(starts, heights, strict=True)
    ]
    text = f"Bars, one for each {_stretch(stats.bucket)} that has calls; height in {unit}."
    return Chart(
        id=name,
        title=title,
        text=text,
        x_label=f"start of the {_stretch(stats.bucket)}, UTC",
        y_label=unit,
        head=("from (UTC)", *(label for _, label, _ in series)),
        rows=rows,
        legend=legend,
        marks=marks,
        x_ticks=x_ticks,
        y_ticks=ticks,
    )


def _sideways(
    name: str, title: str, what: str, series: Sequence[tuple[str, str]], counts: Sequence[tuple[str, Sequence[int]]]
) -> Chart:
    shown = counts[:8]
    height = HEIGHT - _PLOT_H + _ROW * max(len(shown), 1)
    room = _LEFT + _PLOT_W - _NAMES
    high = max((sum(values) for _, values in shown), default=0)
    step = _step(high, whole=True)
    top = step * max(math.ceil(high / step), 1)
    marks = []
    for row, (label, values) in enumerate(shown):
        x = float(_NAMES)
        for (kind, meaning), value in zip(series, values, strict=True):
            if value:
                width = value / top * room
                marks.append(_mark(kind, x, _TOP + row * _ROW + 6, width, _ROW - 12, f"{label}: {value:,} {meaning}"))
                x += width
    return Chart(
        id=name,
        title=title,
        text=f"Horizontal bars, one for each {what}, longest first; length in segments.",
        x_label="segments",
        y_label="",
        head=(what, *(meaning for _, meaning in series)),
        rows=[(label, *values) for label, values in counts],
        height=height,
        left=_NAMES,
        legend=tuple(series) if len(series) > 1 else (),
        marks=marks,
        x_ticks=[
            Tick(round(_NAMES + n * step / top * room, 1), compact(n * step)) for n in range(round(top / step) + 1)
        ],
        y_ticks=[Tick(_TOP + (row + 0.5) * _ROW, _short(label)) for row, (label, _) in enumerate(shown)],
    )


def _rewards(stats: Stats) -> Chart:
    """Reward against threshold by segment: a cell's two colours are its decisions, its depth how many there were."""
    by_index = {each.index: each for each in stats.by_index}
    thresholds = [each.threshold for each in stats.by_index if each.threshold is not None]
    lows = [cell.low for cell in stats.cells]
    low = min([*lows, *thresholds], default=0.0)
    high = max([*(value + stats.width for value in lows), *thresholds], default=1.0)
    low, high = low - 0.03 * (high - low), high + 0.03 * (high - low)
    scale = _PLOT_H / max(high - low, 1e-9)
    column = _PLOT_W / (max(by_index, default=0) + 1)
    most = max((cell.accepted + cell.rejected for cell in stats.cells), default=1)
    marks = []
    for cell in stats.cells:
        number = cell.accepted + cell.rejected
        x, y = _LEFT + (cell.index + 0.08) * column, _TOP + (high - cell.low - stats.width) * scale
        at = f"segment {_name_of(cell.index)}, reward {cell.low:.3g} to {cell.low + stats.width:.3g}"
        for kind, count in (("kept", cell.accepted), ("rejected", cell.rejected)):
            if count:
                width = 0.84 * column * count / number
                marks.append(
                    _mark(
                        kind,
                        x,
                        y,
                        width,
                        stats.width * scale,
                        f"{at}: {count:,} {'accepted' if kind == 'kept' else 'rejected'}",
                        opacity=0.3 + 0.7 * math.sqrt(number / most),
                    )
                )
                x += width
    points = []
    for index, each in sorted(by_index.items()):
        if each.threshold is not None:
            y = round(_TOP + (high - each.threshold) * scale, 1)
            points += [f"{round(_LEFT + (index + edge) * column, 1)},{y}" for edge in (0, 1)]
    step = _step(high - low, whole=False)
    first = math.ceil(low / step)
    rows: list[tuple[Value, ...]] = [
        (
            _name_of(cell.index),
            f"{cell.low:.3g} to {cell.low + stats.width:.3g}",
            cell.accepted,
            cell.rejected,
            "" if (mean := by_index[cell.index].threshold) is None else round(mean, 3),
        )
        for cell in stats.cells
    ]
    return Chart(
        id="rewards",
        title="Reward against threshold by segment",
        text="Columns, one for each segment of the answer; cells show how many candidates had a reward in that range "
        "and how they were decided; the line is the mean threshold.",
        x_label="segment",
        y_label="reward",
        head=("segment", "reward", "accepted", "rejected", "mean threshold"),
        rows=rows,
        legend=(("kept", "accepted"), ("rejected", "rejected"), ("threshold", "mean threshold")),
        marks=marks,
        x_ticks=_by_index(by_index, column),
        y_ticks=[
            Tick(round(_TOP + (high - n * step) * scale, 1), f"{n * step:.3g}")
            for n in range(first, math.floor(high / step) + 1)
        ],
        line=" ".join(points),
    )


def _acceptance(stats: Stats) -> Chart:
    by_index = {each.index: each for each in stats.by_index}
    column = _PLOT_W / (max(by_index, default=0) + 1)
    marks, rows = [], []
    for index, each in sorted(by_index.items()):
        share = each.accepted / (each.accepted + each.rejected)
        title = f"segment {_name_of(index)}: {share:.0%} of {each.accepted + each.rejected:,} accepted"
        bar = min(0.78 * column, 36.0)
        x = _LEFT + (index + 0.5) * column - bar / 2
        marks.append(_mark("kept", x, _TOP + (1 - share) * _PLOT_H, bar, share * _PLOT_H, title))
        rows.append((_name_of(index), each.accepted, each.rejected, f"{share:.0%}"))
    return Chart(
        id="acceptance",
        title="Acceptance by segment",
        text="Bars, one for each segment of the answer; height is the share of candidates that were accepted.",
        x_label="segment",
        y_label="accepted",
        head=("segment", "accepted", "rejected", "share"),
        rows=list(rows),
        marks=marks,
        x_ticks=_by_index(by_index, column),
        y_ticks=[Tick(_TOP + (1 - share) * _PLOT_H, f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)],
    )


def _by_index(by_index: Mapping[int, object], column: float) -> list[Tick]:
    count = max(by_index, default=0) + 1
    return [Tick(round(_LEFT + (i + 0.5) * column, 1), _name_of(i)) for i in range(0, count, math.ceil(count / 10))]


def _name_of(index: int) -> str:
    return f"{index}+" if index == LAST_INDEX else str(index)


def _mark(kind: str, x: float, y: float, width: float, height: float, title: str, opacity: float = 1.0) -> Mark:
    return Mark(
        kind=kind,
        x=round(x, 1),
        y=round(y, 1),
        width=round(max(width, 0.5), 1),
        height=round(max(height, 0.5), 1),
        title=title,
        opacity=round(opacity, 2),
    )


def _scale(high: float, *, whole: bool) -> tuple[list[Tick], float]:
    """Ticks of a vertical axis from 0, and its units for one."""
    step = _step(high, whole=whole)
    top = step * max(math.ceil(high / step - 1e-9), 1)
    scale = _PLOT_H / top
    places = (n * step for n in range(round(top / step) + 1))
    return [Tick(round(_TOP + _PLOT_H - value * scale, 1), compact(value)) for value in places], scale


def _step(high: float, *, whole: bool) -> float:
    rough = max(high, 1.0 if whole else 1e-9) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if rough <= size * power * (1 + 1e-9))
    return max(step, 1.0) if whole else step


def _stretch(seconds: int) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return name if seconds == size else f"{seconds // size} {name}s"
    return f"{seconds} s"


def _moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M")


def _clock(when: datetime, span: float) -> str:
    for days, form in ((1, "%H:%M"), (5, "%d %b %H:%M"), (200, "%d %b")):
        if span <= days * 86400:
            return when.strftime(form)
    return when.strftime("%b %Y")


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"
