"""From results to Markdown and to one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jinja2

from benchmarks.alignment.charts import bars
from benchmarks.measure import table
from benchmarks.scorecard.goals import Outcome, outcomes
from benchmarks.scorecard.section import Figure, Held, Table

__all__ = ["shown", "write"]

_HEAD = """# Scorecard

What stars-guard claims, measured by commands that you can run again, with what does not hold at the top. A section says
on what it was measured and how. Shares have Wilson's 95% interval in brackets. `make scorecard` measures all of it
(hours; a run that was stopped goes on), and `make scorecard-quick` a small part of each section (under ten
minutes on two idle cores)."""


def shown(figure: Figure | str) -> str:
    """A figure as the page has it."""
    if isinstance(figure, float):
        return f"{figure:.0f}" if abs(figure) >= 100 else f"{figure:.3g}"
    return f"{figure:,}" if isinstance(figure, int) else str(figure)


def write(sections: Mapping[str, Held], missing: Mapping[str, str], *, page: Path, html: Path) -> None:
    """Write both pages.

    Args:
        missing: why each section that could not be measured wasn't.
    """
    found = outcomes(sections)
    short = _table(
        [*_rows([one for one in found if one.figure is not None and not one.met], reasons=True)], reasons=True
    )
    met = _table([*_rows([one for one in found if one.met], reasons=False)], reasons=False)
    unmeasured = [one.goal.goal for one in found if one.figure is None and not _is_of(one, missing)]
    unmeasured += [f"{name}: {why}" for name, why in missing.items()]
    parts = [_HEAD, "## What falls short", _or_none(short, "Nothing that was measured falls short of its goal.")]
    if unmeasured:
        parts += ["Not measured:", "\n".join(f"- {one}" for one in unmeasured)]
    parts += ["## What holds", _or_none(met, "Nothing was measured.")]
    parts += [_markdown(held) for held in sections.values()]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    environment.globals |= {"shown": shown, "measured": _measured}
    plots = {
        held.name: bars(
            held.section.title, [(b.label, b.value, b.low, b.high) for b in held.section.bars], held.section.axis
        )
        for held in sections.values()
        if held.section.bars
    }
    text = environment.from_string(PAGE).render(
        sections=sections, plots=plots, short=short, met=met, unmeasured=unmeasured
    )
    html.write_text(text, encoding="utf-8")


def _is_of(outcome: Outcome, missing: Mapping[str, str]) -> bool:
    return outcome.goal.figure.partition(".")[0] in missing


def _rows(found: list[Outcome], *, reasons: bool) -> list[tuple[str, ...]]:
    rows = []
    for one in found:
        assert one.figure is not None
        row = (one.goal.goal, one.goal.of, shown(one.figure))
        rows.append((*row, one.goal.reason or "Not known yet.") if reasons else row)
    return rows


def _table(rows: list[tuple[str, ...]], *, reasons: bool) -> Table:
    head = ("goal", "set by", "measured", *(("reason",) if reasons else ()))
    return Table(head=head, rows=tuple(rows))


def _or_none(found: Table, otherwise: str) -> str:
    return _markdown_table(found) if found.rows else otherwise


def _markdown_table(found: Table) -> str:
    return table(found.head, [[shown(cell) for cell in row] for row in found.rows])


def _markdown(held: Held) -> str:
    section = held.section
    parts = [f"## {section.title}", section.about]
    for one in section.tables:
        parts += [f"**{one.title}**"] if one.title else []
        parts.append(_markdown_table(one))
    parts += ["\n".join(f"- {note}" for note in section.notes)] if section.notes else []
    parts.append(f"{_measured(held)}: `{held.command}` (size {held.size}).")
    return "\n\n".join(parts)


def _measured(held: Held) -> str:
    text = f"Measured {held.date} on {held.machine}"
    if held.seconds is None:
        return text
    return f"{text}, in {held.seconds:.0f} s" if held.seconds < 100 else f"{text}, in {held.seconds / 60:.0f} min"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>stars-guard: scorecard</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; margin: .6rem 0 }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: left; vertical-align: top }
svg { max-width: 100%; height: auto } .how { color: #666; font-size: 13px } code { background: #f3f3f3 }
</style></head><body>
{% macro rows(one) %}<table><thead><tr>{% for cell in one.head %}<th>{{ cell }}</th>{% endfor %}</tr></thead><tbody>
{% for row in one.rows %}<tr>{% for cell in row %}<td>{{ shown(cell) }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>{% endmacro %}
<h1>Scorecard</h1>
<h2>What falls short</h2>{{ rows(short) }}
{% if unmeasured %}<p>Not measured:</p><ul>{% for one in unmeasured %}<li>{{ one }}</li>{% endfor %}</ul>{% endif %}
<h2>What holds</h2>{{ rows(met) }}
{% for held in sections.values() %}<h2>{{ held.section.title }}</h2>
<p>{{ held.section.about }}</p>
{% if held.name in plots %}{{ plots[held.name] | safe }}{% endif %}
{% for one in held.section.tables %}{% if one.title %}<h3>{{ one.title }}</h3>{% endif %}{{ rows(one) }}{% endfor %}
{% if held.section.notes %}<ul>{% for note in held.section.notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}
<p class="how">{{ measured(held) }}:
<code>{{ held.command }}</code> (size {{ held.size }}).</p>
{% endfor %}</body></html>
"""
