"""``stars-guard audit replay``: the same call once more, or the same candidates under another policy."""

from __future__ import annotations

from rich.console import Console

from stars_guard.audit import CallRecord
from stars_guard.auditing.counterfactual import Outcome, Parting, what_if
from stars_guard.auditing.replay import compare, promise, regenerate
from stars_guard.calling import portal
from stars_guard.cli._tables import Column, show_table
from stars_guard.cli.audit import opened
from stars_guard.errors import PolicyError
from stars_guard.policy import load_policy

__all__ = ["replay", "replay_under"]

_COURSES: dict[Outcome, str] = {
    "accepted": "keeps candidate {kept}, because it accepts it",
    "best": "keeps candidate {kept}, the best of the {seen} that it looks at",
    "monitored": "keeps candidate {kept}, because it only monitors",
    "unjudged": "keeps candidate {kept}, because it judges nothing",
    "refuse": "refuses after {seen} candidates",
    "stop": "stops the answer after {seen} candidates",
    "raise": "raises an error after {seen} candidates",
    "budget": "ends the answer, because its tokens are spent",
    "back": "goes back",
    "ask": "asks a person about the call",
    "more": "generates more candidates than are on record",
    "unknown": "decides by a score that is not on record, about a text that was not kept",
}
"""What the other policy does where the two part."""

_PLACE = (Column("segment", right=True), Column("candidate", right=True))


def replay(
    console: Console,
    url: str | None,
    call_id: str,
    under: str | None,
    model: str | None,
    backend: str | None,
    *,
    allow_python: bool = False,
) -> bool:
    """Generate a call again; whether it is the same."""
    with opened(url) as store:
        record = store.get(call_id)
    console.print(_title(record))
    console.print(f"What can be equal: {promise(record)}.")
    try:
        policy = load_policy(under or record.policy)
    except PolicyError as exc:
        raise PolicyError(exc.message, hint="give the policy of that time with --under") from exc
    again = portal.call(lambda: regenerate(record, policy, model=model, backend=backend, allow_python=allow_python))
    differences = list(compare(record, again))
    if not differences:
        decided = sum(attempt.verdict != "surplus" for segment in record.segments for attempt in segment.attempts)
        console.print(f"The same: {decided} candidates of {len(record.segments)} segments, and the answer.")
        return True
    rows = []
    for found in differences:
        place = ["" if number is None else str(number) for number in (found.segment, found.attempt)]
        rows.append([*place, found.what, found.before, found.after])
    texts = [Column(name, least=12, wraps=True) for name in ("what", "on record", "now")]
    show_table(console, [*_PLACE, *texts], rows)
    return False


def replay_under(console: Console, url: str | None, call_id: str, policy: str, *, allow_python: bool = False) -> bool:
    """Decide again under another policy; whether the answer would have been the same."""
    with opened(url) as store:
        record = store.get(call_id)
    console.print(_title(record))
    other = load_policy(policy)
    answered = portal.call(lambda: what_if(record, other, allow_python=allow_python))
    columns = (
        *_PLACE,
        Column("on record", least=9, wraps=True),
        Column(f"under {other.name}", least=9, wraps=True),
        Column("reward", right=True),
        Column("threshold", rank=1, right=True),
        Column("p", rank=2, right=True),
        Column("veto", least=10, wraps=True),
        Column("scores", rank=3, least=8, wraps=True),
    )
    rows, styles = [], []
    for found in answered.candidates:
        numbers = (found.reward, found.threshold, found.probability)
        row = (
            str(found.segment),
            str(found.attempt),
            found.before,
            found.after,
            *("" if number is None else f"{number:.3f}" for number in numbers),
            found.veto or "",
            found.source,
        )
        rows.append(row)
        styles.append("" if found.before == found.after or found.before == "surplus" else "yellow")
    show_table(console, columns, rows, styles=styles)
    if answered.parting is None:
        console.print("The answer would have been the same.")
        return True
    console.print(_sentence(answered.parting, record))
    return False


def _sentence(parting: Parting, record: CallRecord) -> str:
    course = _COURSES[parting.outcome].format(kept=parting.kept, seen=parting.seen)
    if parting.segment >= len(record.segments):
        return f"After the last segment on record, the other policy {course}."
    on_record = record.segments[parting.segment]
    kept = "none was kept" if on_record.kept is None else f"candidate {on_record.kept} was kept"
    return (
        f"The two part at segment {parting.segment}, where {kept} on record. There the other policy {course}. "
        "Later rows say what it decides after the text on record."
    )


def _title(record: CallRecord) -> str:
    engine = record.backend.get("engine", "")
    return f"call {record.call_id}  policy {record.policy}  {engine} {record.backend.get('model', '')}".rstrip()
