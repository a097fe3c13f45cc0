"""The pages as one file to send: no script, nothing fetched, rejected text folded away."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime

from markupsafe import Markup

from stars_guard.audit._query import Filter
from stars_guard.audit.store import AuditStore
from stars_guard.audit.viewer.charts import charts
from stars_guard.audit.viewer.pages import asset, render

__all__ = ["report"]


def report(store: AuditStore, wanted: Filter | None = None, *, limit: int = 100, langsmith: str | None = None) -> str:
    """An HTML document with the counts of all wanted calls and the newest of them in full. Blocks.

    Args:
        limit: how many calls are shown in full.
        langsmith: the address of a run with ``{run_id}`` in it.

    Raises:
        AuditError: the log cannot be read.
    """
    wanted = wanted or Filter()
    stats = store.stats(wanted)
    rows = store.search(wanted, limit=limit)
    records = {}
    if rows:
        since = datetime.fromisoformat(rows[-1].started_at)
        records = {r.call_id: r for r in deque(store.select(replace(wanted, since=since)), maxlen=limit)}
    style = asset("page.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return render(
        "report.html",
        stats=stats,
        charts=charts(stats),
        wanted=wanted,
        langsmith=langsmith,
        style=Markup(style),  # noqa: S704 - a file of this package
        style_digest=digest,
        records=[records[row.id] for row in rows if row.id in records],
        now=datetime.now(UTC).isoformat(),
    )
