"""The audit log."""

from stars_guard.audit.record import CallRecord, Text
from stars_guard.audit.recorder import Recorder
from stars_guard.audit.store import AuditStore, JsonlStore, MemoryStore, default_url, open_store

__all__ = ["AuditStore", "CallRecord", "JsonlStore", "MemoryStore", "Recorder", "Text", "default_url", "open_store"]
