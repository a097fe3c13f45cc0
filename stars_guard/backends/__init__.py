"""Engines."""

from stars_guard.backends.base import Backend, Proposal, Session

__all__ = ["Backend", "Proposal", "Session"]
