"""Reading the audit log at the terminal. Model text is printed as it is, never as markup."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text as Line

from stars_guard.audit import Text, open_store
from stars_guard.errors import AuditError

__all__ = ["list_records", "show_record"]


def list_records(console: Console, url: str | None) -> None:
    """A table of calls."""
    table = Table("call", "started", "policy", "finish", "proposals", "rejected", "drawn", "kept", "s")
    for record in open_store(url).read():
        totals = record.totals
        table.add_row(
            record.call_id[:12],
            record.started_at[:19],
            record.policy,
            record.finish,
            *(str(totals.get(name, 0)) for name in ("proposals", "rejections", "drawn", "kept")),
            f"{record.seconds:.1f}",
        )
    console.print(table)


def show_record(console: Console, url: str | None, call_id: str | None) -> None:
    """One call in full.

    Raises:
        AuditError: there is no such record.
    """
    store = open_store(url)
    if call_id is None:
        records = store.read()
        if not records:
            raise AuditError("the audit log is empty")
        record = records[-1]
    else:
        record = store.get(call_id)
    console.print(f"call {record.call_id}  policy {record.policy} ({record.policy_sha256[:12]})  {record.mode}")
    console.print(f"{record.started_at}  {record.seconds:.2f} s  finish {record.finish}  {record.reason}", markup=False)
    for turn in record.prompt:
        console.print(Line(f"{turn.role}: {_shown(turn.content)}"))
    for segment in record.segments:
        for attempt in segment.attempts:
            kept = attempt.attempt == segment.kept
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
            console.print(f"{mark} {segment.index}.{attempt.attempt} {attempt.verdict}: {attempt.reason}  {numbers}",
                          style="green" if kept else "red", markup=False)  # fmt: skip
            console.print(Line("    " + _shown(attempt.text), style="" if kept else "strike dim"))


def _shown(text: Text) -> str:
    if text.text is not None:
        return text.text
    return f"<{text.chars} characters, sha256 {text.sha256}>" if text.sha256 else f"<{text.chars} characters>"
