"""stars-guard for LangChain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_stars._audit_lookup import get_audit
from langchain_stars.chat_model import ChatStars
from langchain_stars.runnable import guard_runnable
from stars_guard.errors import MissingExtra

if TYPE_CHECKING:
    from langchain_stars.middleware import StarsGuardMiddleware

__all__ = ["ChatStars", "StarsGuardMiddleware", "get_audit", "guard_runnable"]


def __getattr__(name: str) -> Any:
    if name != "StarsGuardMiddleware":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from langchain_stars.middleware import StarsGuardMiddleware
    except ImportError as exc:
        raise MissingExtra("StarsGuardMiddleware", "agents") from exc
    return StarsGuardMiddleware
