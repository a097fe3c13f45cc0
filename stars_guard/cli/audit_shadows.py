"""``stars-guard audit compare``: what shadow policies would have decided, beside what was decided."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich.console import Console
from rich.text import Text

from stars_guard.audit import AuditStore, Filter
from stars_guard.audit.shadow_stats import Beside, compare_shadows
from stars_guard.cli._console import visible
from stars_guard.cli._tables import Column, show_table

__all__ = ["compare_log"]

OUTCOMES = {
    "accepted": "keeps another candidate, which it accepts",
    "best": "keeps another candidate, the best of those that it looks at",
    "monitored": "keeps a rejected candidate, because it only monitors",
    "unjudged": "keeps the first candidate, because it judges nothing",
    "refuse": "refuses",
    "stop": "stops the answer",
    "raise": "raises an error",
    "budget": "ends the answer, because its tokens are spent",
    "back": "goes back",
    "ask": "asks a person about the call",
    "more": "rejects what was kept, and generates more",
}
"""What a shadow does where it leaves the answer on record."""


def compare_log(console: Console, store: AuditStore, wanted: Filter, *, as_json: bool = False) -> None:
    """Print how the wanted calls compare with what each shadow would have decided."""
    found = compare_shadows(store.select(wanted))
    if as_json:
        for one in found:
            typer.echo(json.dumps(asdict(one)))
        return
    if not found:
        console.print("No shadow policy has followed any of these calls.")
    for one in found:
        _show(console, one)


def _show(console: Console, one: Beside) -> None:
    live, shadow = (Column(name, least=9, right=True) for name in ("live", "shadow"))
    rows = [
        ("candidates that it rejects", one.both + one.only_live, one.both + one.only_shadow),
        ("rejected by it alone", one.only_live, one.only_shadow),
        ("tokens thrown away", one.tokens, one.shadow_tokens),
        ("texts that its judges score", one.passages, one.shadow_passages),
    ]
    console.print(Text(visible(f"{one.policy} (live) and {one.shadow} {one.digest} (shadow)"), style="bold"))
    show_table(
        console,
        (Column(f"{one.candidates} candidates in {one.calls} calls", least=30, wraps=True), live, shadow),
        [(name, str(first), str(second)) for name, first, second in rows],
    )
    about = [("gives the same answer", one.same)]
    about += [(OUTCOMES.get(outcome, outcome), calls) for outcome, calls in one.outcomes]
    about += [("is not decided", one.undecided)] if one.undecided else []
    show_table(
        console,
        (Column("what the shadow would have done", least=30, wraps=True), Column("calls", right=True)),
        [(text, str(calls)) for text, calls in about],
    )
    if one.errors:
        why = ", ".join(f"{error} ({calls})" for error, calls in one.errors)
        console.print(f"Not all was decided: {why}.", markup=False)
    console.print(f"To ask the shadow, its judges scored {one.asked} texts besides the live ones.")
    if one.newest:
        console.print()
        show_table(
            console,
            (
                Column("newest that differ", least=14),
                Column("stage", least=9),
                Column("finish", least=9),
                Column("segment", right=True),
                Column("the shadow there", least=20, wraps=True),
            ),
            [(d.call[:12], d.stage, d.finish, str(d.segment), OUTCOMES.get(d.outcome, d.outcome)) for d in one.newest],
        )
    console.print()
