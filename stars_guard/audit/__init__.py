"""The audit log."""

from stars_guard.audit.content import ContentMode, Text, redact
from stars_guard.audit.jsonl import JsonlStore
from stars_guard.audit.query import Filter, Summary, parse_time
from stars_guard.audit.record import CallRecord
from stars_guard.audit.recorder import Recorder
from stars_guard.audit.stats import Stats
from stars_guard.audit.store import AuditStore, MemoryStore, default_url, open_store

__all__ = [
    "AuditStore",
    "CallRecord",
    "ContentMode",
    "Filter",
    "JsonlStore",
    "MemoryStore",
    "Recorder",
    "Stats",
    "Summary",
    "Text",
    "default_url",
    "open_store",
    "parse_time",
    "redact",
]
