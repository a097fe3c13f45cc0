"""``stars-guard audit replay``: the same call once more, or the same proposals under another policy."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from stars_guard.audit import CallRecord
from stars_guard.auditing.counterfactual import what_if
from stars_guard.auditing.replay import compare, draw_again, promise
from stars_guard.calling import portal
from stars_guard.cli.audit import opened
from stars_guard.errors import PolicyError
from stars_guard.policy import load_policy

__all__ = ["replay", "replay_under"]


def replay(
    console: Console, url: str | None, call_id: str, under: str | None, model: str | None, backend: str | None
) -> bool:
    """Draw a call again; whether it is the same."""
    with opened(url) as store:
        record = store.get(call_id)
    console.print(_title(record), markup=False)
    console.print(f"What can be equal: {promise(record)}.", markup=False)
    try:
        policy = load_policy(under or record.policy)
    except PolicyError as exc:
        raise PolicyError(exc.message, hint="give the policy of that time with --under") from exc
    again = portal.call(lambda: draw_again(record, policy, model=model, backend=backend))
    differences = list(compare(record, again))
    if not differences:
        decided = sum(attempt.verdict != "surplus" for segment in record.segments for attempt in segment.attempts)
        console.print(f"The same: {decided} proposals of {len(record.segments)} segments, and the answer.")
        return True
    table = Table("segment", "proposal", "what", "on record", "now")
    for found in differences:
        cells = ("" if number is None else str(number) for number in (found.segment, found.attempt))
        table.add_row(*cells, found.what, found.before, found.after)
    console.print(table)
    return False


def replay_under(console: Console, url: str | None, call_id: str, policy: str) -> bool:
    """Decide again under another policy; whether the answer would have been the same."""
    with opened(url) as store:
        record = store.get(call_id)
    console.print(_title(record), markup=False)
    other = load_policy(policy)
    answered = portal.call(lambda: what_if(record, other))
    numbered = ("reward", "threshold", "p")
    table = Table("segment", "proposal", "on record", f"under {other.name}", *numbered, "veto", "scores")
    for found in answered.proposals:
        numbers = (found.reward, found.threshold, found.probability)
        table.add_row(
            str(found.segment),
            str(found.attempt),
            found.before,
            found.after,
            *("" if number is None else f"{number:.3f}" for number in numbers),
            found.veto or "",
            found.source,
            style="" if found.before == found.after or found.before == "surplus" else "yellow",
        )
    console.print(table)
    if answered.parted is None:
        console.print("The answer would have been the same.")
        return True
    console.print(
        f"The answer would have gone another way from segment {answered.parted} on; "
        "later rows say what would have been decided after the prefix on record."
    )
    return False


def _title(record: CallRecord) -> str:
    engine = record.backend.get("engine", "")
    return f"call {record.call_id}  policy {record.policy}  {engine} {record.backend.get('model', '')}".rstrip()
