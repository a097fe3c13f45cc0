"""From a run or a message of LangChain to its audit record."""

from __future__ import annotations

from uuid import UUID

from langchain_core.messages import BaseMessage

from stars_guard.audit import AuditStore, CallRecord, Filter, open_store
from stars_guard.errors import AuditError

__all__ = ["get_audit"]


def get_audit(run: str | UUID | BaseMessage, audit: str | AuditStore | None = None) -> CallRecord:
    """The record of a model's run. Blocks.

    Args:
        run: the run's id in LangChain, which is LangSmith's too; the id of a record; or the model's answer.
        audit: the store or its URL, as given to the model. The default is the log of models that were given none.

    Raises:
        AuditError: there is no such record, or the run has more than one answer.
    """
    store = audit if isinstance(audit, AuditStore) else open_store(audit)
    if isinstance(run, BaseMessage):
        about = run.response_metadata.get("stars_guard", {})
        if "audit_id" not in about:
            raise AuditError("the message has no audit id", hint="pass the answer of ChatStars as it came")
        return store.get(about["audit_id"])
    found = store.search(Filter(run_id=str(run)), limit=None)
    if len(found) > 1:
        # checks before and after the answer have records of their own
        found = [row for row in found if row.stage == "answer"]
        if len(found) != 1:
            raise AuditError(f"{len(found) or 'no'} records are of the answer of run {str(run)!r}")
    return store.get(found[0].id if found else str(run))
