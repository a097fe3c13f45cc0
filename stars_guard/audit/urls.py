"""From an audit URL to the store that it names."""

from __future__ import annotations

import os
import re
import threading
from typing import Any
from urllib.parse import quote
from weakref import WeakValueDictionary

from platformdirs import user_state_path

from stars_guard.audit.store import AuditStore
from stars_guard.audit.writing import Writing
from stars_guard.core.nearest import did_you_mean
from stars_guard.core.registry import Registry
from stars_guard.errors import AuditError

__all__ = ["default_url", "open_store", "shared_store"]

_DEFAULT = "sqlite"


_NONE = getattr(AuditStore.from_url, "__func__", None)


def _problem(part: Any) -> str | None:
    if not (isinstance(part, type) and issubclass(part, AuditStore)):
        return "it is not a subclass of AuditStore"
    if getattr(part.from_url, "__func__", None) is _NONE:
        return "it has no from_url of its own"
    return None


_stores: Registry[type[AuditStore]] = Registry("stars_guard.stores", "audit store", _problem, AuditError)


def default_url() -> str:
    """The SQLite database in the user's state directory."""
    return f"{_DEFAULT}://{quote(str(user_state_path('stars-guard') / 'audit.db'))}"


def open_store(url: str | None = None, writing: Writing | None = None) -> AuditStore:
    """A store by its URL. Nothing is made or connected to before it is used.

    Args:
        url: such as ``sqlite:///path``, ``postgresql+psycopg://user@host/database``, ``jsonl:///path`` or
            ``memory://``. The scheme, which is what stands before ``://``, is the name of an entry point in the group
            ``stars_guard.stores``, so other packages can add stores. None is `default_url`.
        writing: when a record counts as written, and what happens when it cannot be.

    Raises:
        AuditError: no store has the URL's scheme, or that store cannot use the URL.
        MissingExtra: the database's driver is not installed.
    """
    url = url or default_url()
    return _class_of(url).from_url(url, writing)


_shared: WeakValueDictionary[tuple[str, Writing], AuditStore] = WeakValueDictionary()
_lock = threading.Lock()


def shared_store(url: str | None, writing: Writing) -> AuditStore:
    """As `open_store`, but all who name the same URL get one store in this process, and so write one chain."""
    url = url or default_url()
    if not _class_of(url).shared:
        return open_store(url, writing)
    with _lock:
        store = _shared.get((url, writing))
        if store is None:
            store = _shared[url, writing] = open_store(url, writing)
        return store


def _class_of(url: str) -> type[AuditStore]:
    # of a URL, errors show the scheme only: the rest may hold a password
    scheme, mark, _ = url.partition("://")
    if not mark or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise AuditError("cannot use the audit URL: it does not begin with a scheme", hint=_schemes())
    try:
        return _stores.get(scheme)
    except AuditError:
        if scheme in _stores:
            raise
    raise AuditError(f"cannot use the audit URL {scheme}://...: no store has this scheme", hint=_schemes(scheme))


def _schemes(wrong: str | None = None) -> str:
    known = _stores.names()
    if _DEFAULT not in known:
        # an entry point is seen only after an install, and so not where the code is newer than that
        return "the stores of stars-guard itself are not registered: run pip install -e . where its pyproject.toml is"
    there_are = f"there are {', '.join(f'{scheme}://' for scheme in known)}"
    return f"{did_you_mean(wrong or '', known, form='{}://')} {there_are}".strip()


def _after_fork() -> None:
    """A chain belongs to one process, and the writing threads have stayed in the parent."""
    global _lock
    _shared.clear()
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
