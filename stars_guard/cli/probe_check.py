"""``stars-guard probe check``: what judges that are asked in doubt have missed, by the log."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich.console import Console

from stars_guard.audit import AuditStore, Filter
from stars_guard.auditing.probe_check import DoubtCheck, check_doubt
from stars_guard.cli._console import Terminal
from stars_guard.cli._tables import Column, show_table
from stars_guard.errors import InputError

__all__ = ["check_log"]

_COLUMNS = (
    Column("judge", least=8),
    Column("when", least=8),
    Column("in doubt above", rank=6),
    Column("policy", rank=5, least=8),
    Column("stage", rank=4),
    Column("calls", rank=3, right=True),
    Column("in doubt", right=True),
    Column("sampled", right=True),
    Column("always", rank=7, right=True),
    Column("not asked", right=True),
    Column("saved", right=True),
    Column("missed", right=True),
    Column("95%", right=True),
    Column("passed", rank=2, right=True),
    Column("found", rank=1, right=True),
)


def check_log(
    console: Console,
    store: AuditStore,
    wanted: Filter,
    judge: str | None = None,
    most: float | None = None,
    *,
    as_json: bool = False,
) -> bool:
    """Print what was missed, and whether it is at most as much as allowed.

    Args:
        judge: the expensive judge; None checks each that is asked in doubt.
        most: the highest share of sampled texts that may be missed.

    Returns:
        False where the share of missed texts is surely higher than ``most``.

    Raises:
        InputError: no call in the log has such a judge.
        AuditError: the log cannot be read.
    """
    found = check_doubt(store.select(wanted), judge)
    if not found:
        named = f"the judge {judge!r} is" if judge else "no judge is"
        raise InputError(
            f"in these calls {named}{' not' if judge else ''} asked in doubt",
            hint="a policy says so with `ask`, and the log shows it from then on",
        )
    if as_json:
        for one in found:
            typer.echo(json.dumps(_data(one)))
    else:
        show_table(console, _COLUMNS, [_row(one) for one in found], more="--json")
        _say_missed(console, found)
    warn = Terminal(stderr=True)
    for one in found:
        for drift in one.drifts:
            text = f"{one.judge} when {one.when}: the share {drift.what} was {drift.before:.1%} in the first half of "
            text += f"these calls and is {drift.after:.1%} in the second"
            warn.print(f"drift: {text}", style="yellow", soft_wrap=True)
        if not one.missed.of:
            text = f"{one.judge} when {one.when}: no text was sampled, so nobody knows what was missed"
            warn.print(text, style="yellow", soft_wrap=True)
    return most is None or all(one.missed.interval()[0] <= most for one in found)


def _row(one: DoubtCheck) -> list[str]:
    low, high = one.missed.interval()
    passed = [round(number) for number in one.passed]
    share = "-" if one.missed.value is None else f"{one.missed.value:.1%}"
    band = f"{'-' if one.above is None else one.above} to {'-' if one.below is None else one.below}"
    counts = (one.calls, one.doubt, one.sampled, one.always, one.skipped)
    return [
        one.judge,
        one.when,
        band,
        one.policy,
        one.stage,
        *map(str, counts),
        "-" if one.saved.value is None else f"{one.saved.value:.0%}",
        f"{one.missed.hits}/{one.missed.of} {share}",
        f"{low:.1%} to {high:.1%}",
        f"{passed[0]} to {passed[1]}",
        str(one.found),
    ]


def _say_missed(console: Console, found: list[DoubtCheck]) -> None:
    columns = (Column("missed by"), Column("call"), Column("candidate"), *_numbers("cheap score", "score"))
    rows = [
        [
            one.when,
            text.call_id[:12],
            f"{text.segment}.{text.attempt}",
            f"{text.cheap:.3f}",
            f"{text.score:.3f}",
        ]
        for one in found
        for text in one.examples
    ]
    if rows:
        show_table(console, columns, rows, title="Missed texts (`stars-guard audit show CALL` shows one)")


def _numbers(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, right=True) for name in names)


def _data(one: DoubtCheck) -> dict[str, object]:
    """Everything, with the shares and intervals written out."""
    return {
        **asdict(one),
        "missed": {"texts": one.missed.hits, "of": one.missed.of, "share": one.missed.value},
        "missed_interval": one.missed.interval(),
        "passed": one.passed,
        "saved": one.saved.value,
    }
