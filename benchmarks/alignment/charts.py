"""The plots of the report, as SVG text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["acceptance_by_segment", "bars", "frontier", "reward_by_position"]

JUDGES = {"first": "judge of decoding", "second": "second judge"}


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    drawing = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(drawing, format="svg")
    text = drawing.getvalue()
    return text[text.index("<svg") :]


def _panels(count: int, height: float = 4.2) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2 * count, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _family_style(families: Sequence[str]) -> dict[str, dict[str, Any]]:
    marks = "osD^vP*X<>hp"
    return {
        family: {
            "color": f"C{i % 10}",
            "marker": marks[i % len(marks)],
            "linewidth": 2.0 if "STARS" in family else 1.0,
        }
        for i, family in enumerate(families)
    }


def frontier(points: Sequence[Mapping[str, Any]], cost: str, label: str) -> str:
    """Mean reward of both judges against a cost, one line a family.

    Args:
        points: with ``family``, ``cost`` under its name, and ``reward_first`` and ``reward_second`` as `Figure`.
    """
    figure, panels = _panels(2)
    families = list(dict.fromkeys(point["family"] for point in points))
    styles = _family_style(families)
    for panel, (judge, title) in zip(panels, JUDGES.items(), strict=True):
        for family in families:
            own = [p for p in points if p["family"] == family and p[cost] is not None]
            own.sort(key=lambda p: p[cost])
            if not own:
                continue
            means = [p[f"reward_{judge}"] for p in own]
            bars = [[m.value - m.low for m in means], [m.high - m.value for m in means]]
            panel.errorbar(
                [p[cost] for p in own],
                [m.value for m in means],
                yerr=bars,
                label=family,
                markersize=5,
                elinewidth=0.6,
                **styles[family],
            )
        panel.set(xlabel=label, ylabel="mean reward, logit of harmlessness", title=title)
    panels[0].legend(fontsize=7)
    return _svg(figure)


def reward_by_position(curves: Mapping[str, Sequence[tuple[float, float, float, float]]]) -> str:
    """Reward of what was kept by position: (tokens, low quartile, median, high quartile) of each method."""
    figure, (panel,) = _panels(1)
    for (name, curve), style in zip(curves.items(), _family_style(list(curves)).values(), strict=True):
        at, low, middle, high = zip(*curve, strict=True)
        panel.plot(at, middle, label=name, markersize=4, **style)
        panel.fill_between(at, low, high, color=style["color"], alpha=0.12, linewidth=0)
    panel.set(xlabel="tokens of the answer", ylabel="reward of the kept prefix", title="medians and middle halves")
    panel.legend(fontsize=7)
    return _svg(figure)


def acceptance_by_segment(curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Share of the proposals that were accepted, by segment."""
    figure, (panel,) = _panels(1)
    for (name, curve), style in zip(curves.items(), _family_style(list(curves)).values(), strict=True):
        at, rates = zip(*curve, strict=True)
        panel.plot(at, rates, label=name, markersize=4, **style)
    panel.set(xlabel="segment", ylabel="accepted / decided", ylim=(0, 1.02))
    panel.legend(fontsize=7)
    return _svg(figure)


def bars(title: str, rows: Sequence[tuple[str, float, float, float]], axis: str) -> str:
    """Bars with their intervals: (label, value, low, high) each, the first one at the top."""
    figure, (panel,) = _panels(1, height=1.2 + 0.28 * len(rows))
    labels, values, low, high = zip(*reversed(rows), strict=True)
    errors = [
        [max(0.0, v - b) for v, b in zip(values, low, strict=True)],
        [max(0.0, t - v) for v, t in zip(values, high, strict=True)],
    ]
    panel.barh(range(len(labels)), values, xerr=errors, color="C0", ecolor="0.3", capsize=2)
    panel.set(yticks=range(len(labels)), xlabel=axis, title=title)
    panel.set_yticklabels(labels, fontsize=8)
    return _svg(figure)
