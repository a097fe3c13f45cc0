"""From an audit URL to the store that it names."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from urllib.parse import quote, unquote
from weakref import WeakValueDictionary

from platformdirs import user_state_path

from stars_guard.audit._write_queue import Writing
from stars_guard.audit.memory import MemoryStore
from stars_guard.audit.store import AuditStore
from stars_guard.errors import AuditError

__all__ = ["default_url", "local_path", "open_store", "shared_store"]


def default_url() -> str:
    """The SQLite database in the user's state directory."""
    return f"sqlite://{quote(str(user_state_path('stars-guard') / 'audit.db'))}"


def open_store(url: str | None = None, writing: Writing | None = None) -> AuditStore:
    """A store by URL; None is `default_url`. Nothing is made or connected to before it is used.

    Args:
        url: ``sqlite:///path``, ``postgresql+psycopg://user@host/database``, ``jsonl:///path`` or ``memory://``. Paths
            of files are absolute after three slashes, or begin with ``~``, or are relative after two. ``?max_bytes=N``
            and ``?daily=1`` after a JSONL path say when the file is turned over.
        writing: when a record counts as written, and what happens when it cannot be.

    Raises:
        AuditError: the URL's scheme is not known or it has no path.
        MissingExtra: the database's driver is not installed.
    """
    url = url or default_url()
    scheme, _, rest = url.partition("://")
    match scheme:
        case "memory" if not rest:
            return MemoryStore()
        case "sqlite" | "postgresql+psycopg":
            return _database(url, scheme, rest, writing)
        case "jsonl":
            return _file(url, rest, writing)
    shown = f"{scheme}://..." if rest else repr(url)
    raise AuditError(
        f"cannot use the audit URL {shown}",
        hint="use sqlite:///path, postgresql+psycopg://user@host/database, jsonl:///path or memory://",
    )


def _database(url: str, scheme: str, rest: str, writing: Writing | None) -> AuditStore:
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError

    from stars_guard.audit.sql import SqlStore

    if scheme == "sqlite":
        return SqlStore(URL.create("sqlite+pysqlite", database=str(local_path(rest, url))), writing=writing)
    try:
        return SqlStore(make_url(url), writing=writing)
    except (ArgumentError, ValueError) as exc:
        # not the URL itself: it may hold a password
        raise AuditError(f"cannot use the audit URL {scheme}://...", hint="it cannot be read as a URL") from exc


def _file(url: str, rest: str, writing: Writing | None) -> AuditStore:
    from stars_guard.audit.jsonl import JsonlStore

    path, options = _split(rest)
    if unknown := sorted(options.keys() - {"max_bytes", "daily"}):
        raise AuditError(f"cannot use the audit URL {url!r}: unknown {', '.join(unknown)}", hint="max_bytes, daily")
    size = options.get("max_bytes")
    if (size is not None and not size.isdecimal()) or options.get("daily", "0") not in ("0", "1"):
        raise AuditError(f"cannot use the audit URL {url!r}", hint="max_bytes is a number, daily 0 or 1")
    return JsonlStore(
        local_path(path, url),
        max_bytes=int(size) if size else None,
        daily=options.get("daily") == "1",
        writing=writing,
    )


def local_path(path: str, url: str | None) -> Path:
    """The path in a URL, absolute, so that a later chdir does not split the log.

    Raises:
        AuditError: there is none.
    """
    if not path or path.endswith("/"):
        raise AuditError(f"cannot use the audit URL {url!r}", hint="it needs the path of a file")
    try:
        return Path(unquote(path)).expanduser().absolute()
    except RuntimeError as exc:
        raise AuditError(f"cannot use the audit URL {url!r}: there is no home directory") from exc


_shared: WeakValueDictionary[tuple[str, Writing], AuditStore] = WeakValueDictionary()
_lock = threading.Lock()


def shared_store(url: str | None, writing: Writing) -> AuditStore:
    """As `open_store`, one store in this process for all who name the same, and so one chain."""
    key = (url or default_url(), writing)
    if key[0] == "memory://":
        return MemoryStore()
    with _lock:
        store = _shared.get(key)
        if store is None:
            store = _shared[key] = open_store(url, writing)
        return store


def _after_fork() -> None:
    """A chain belongs to one process, and the writing threads have stayed in the parent."""
    global _lock
    _shared.clear()
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def _split(rest: str) -> tuple[str, dict[str, str]]:
    """Path and options; a question mark that no options follow belongs to the path."""
    path, mark, query = rest.rpartition("?")
    if mark and re.fullmatch(r"\w+=\w*(&\w+=\w*)*", query):
        return path, dict(option.split("=", 1) for option in query.split("&"))
    return rest, {}
