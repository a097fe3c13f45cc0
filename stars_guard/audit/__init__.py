"""The audit log."""

from stars_guard.audit.content import Content, ContentMode, Text, redact
from stars_guard.audit.jsonl import JsonlStore
from stars_guard.audit.query import Filter, Summary, parse_time
from stars_guard.audit.record import CallRecord
from stars_guard.audit.recorder import Recorder
from stars_guard.audit.stats import Stats
from stars_guard.audit.store import AuditStore, MemoryStore, default_url, open_store, shared_store
from stars_guard.audit.writer import Writing

__all__ = [
    "AuditStore",
    "CallRecord",
    "Content",
    "ContentMode",
    "Filter",
    "JsonlStore",
    "MemoryStore",
    "Recorder",
    "Stats",
    "Summary",
    "Text",
    "Writing",
    "default_url",
    "open_store",
    "parse_time",
    "redact",
    "shared_store",
]
