"""The audit log: the record of a call, the stores that keep records, and how records are found and counted."""

from stars_guard.audit._content import Content, Text, redact
from stars_guard.audit._query import Filter, Summary, blamed, parse_time
from stars_guard.audit._recorder import Recorder
from stars_guard.audit.jsonl import JsonlStore
from stars_guard.audit.memory import MemoryStore
from stars_guard.audit.record import CallRecord
from stars_guard.audit.stats import Stats
from stars_guard.audit.store import AuditStore
from stars_guard.audit.urls import default_url, open_store, shared_store
from stars_guard.audit.writing import Writing

__all__ = [
    "AuditStore",
    "CallRecord",
    "Content",
    "Filter",
    "JsonlStore",
    "MemoryStore",
    "Recorder",
    "Stats",
    "Summary",
    "Text",
    "Writing",
    "blamed",
    "default_url",
    "open_store",
    "parse_time",
    "redact",
    "shared_store",
]
