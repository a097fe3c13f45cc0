"""Engines."""

from stars_guard.backends.base import Backend, Proposal, Session
from stars_guard.backends.scripted import ScriptedBackend

__all__ = ["Backend", "Proposal", "ScriptedBackend", "Session"]
